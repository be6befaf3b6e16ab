//! Whoever does something in a storm, and the ledger of what was done.

use super::gate::Gate;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What an actor has at hand.
pub struct ActorContext<'a> {
    /// To wait by.
    pub gate: &'a Gate,
    /// Seeded for this actor alone.
    pub rng: &'a mut Rng,
    /// Where to write down what was done.
    pub ledger: &'a Ledger,
}

/// Takes steps of a few seconds at most while there is a storm.
pub trait Actor: Send {
    /// What it is called in the ledger.
    fn name(&self) -> String;
    /// Does something once; how much, in whatever it counts.
    ///
    /// # Errors
    /// Something that must not happen, which fails the run.
    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String>;
    /// Whether each storm must see something of it succeed.
    fn must_progress(&self) -> bool {
        false
    }
}

/// What one actor, or one kind of thing, came to.
#[derive(Clone, Copy, Default)]
pub struct LedgerEntry {
    /// Steps taken.
    pub steps: u64,
    /// What the steps count: bytes, packets, changes.
    pub done: u64,
}

#[derive(Default)]
struct LedgerPages {
    entries: BTreeMap<String, LedgerEntry>,
    failures: Vec<String>,
    must_progress: Vec<String>,
}

/// What was done, and what must not have happened, since when.
pub struct Ledger(Mutex<LedgerPages>, Instant);

impl Ledger {
    /// An empty one, from now on.
    pub fn new() -> Self {
        Self(Mutex::default(), Instant::now())
    }

    fn pages(&self) -> MutexGuard<'_, LedgerPages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something under a name of its own.
    pub fn count(&self, name: &str, done: u64) {
        let mut pages = self.pages();
        let entry = pages.entries.entry(name.to_owned()).or_default();
        entry.steps += 1;
        entry.done += done;
    }

    /// Notes what fails the run.
    pub fn fail(&self, words: String) {
        let time = self.1.elapsed().as_secs();
        eprintln!("soak: FAILED: after {time} s: {words}");
        self.pages().failures.push(words);
    }

    /// Everything that was counted.
    pub fn entries(&self) -> BTreeMap<String, LedgerEntry> {
        self.pages().entries.clone()
    }

    /// What failed so far.
    pub fn failures(&self) -> Vec<String> {
        self.pages().failures.clone()
    }

    /// Fails for each actor that must get something done and did not since `before`.
    pub fn check_progress(&self, before: &BTreeMap<String, LedgerEntry>) {
        let (names, now) = {
            let pages = self.pages();
            (pages.must_progress.clone(), pages.entries.clone())
        };
        let done = |entries: &BTreeMap<String, LedgerEntry>, name: &str| {
            entries.get(name).map_or(0, |e| e.done)
        };
        for name in names {
            if done(&now, &name) <= done(before, &name) {
                self.fail(format!("{name}: nothing got through in a whole storm"));
            }
        }
    }
}

/// How long threads may take to end.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Everybody's threads.
pub struct ActorThreads {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
}

impl ActorThreads {
    /// Starts a thread for each actor.
    pub fn start(
        gate: &Arc<Gate>,
        ledger: &Arc<Ledger>,
        seed: u64,
        actors: Vec<Box<dyn Actor>>,
    ) -> Self {
        let start = |mut actor: Box<dyn Actor>| {
            let (gate, ledger) = (Arc::clone(gate), Arc::clone(ledger));
            let name = actor.name();
            if actor.must_progress() {
                ledger.pages().must_progress.push(name.clone());
            }
            let mut rng = Rng::with_seed(seed_of(seed, &name));
            thread::spawn(move || {
                let mut step = || {
                    let mut cx = ActorContext {
                        gate: &gate,
                        rng: &mut rng,
                        ledger: &ledger,
                    };
                    let outcome = catch_unwind(AssertUnwindSafe(|| actor.step(&mut cx)));
                    match outcome {
                        Ok(Ok(done)) => ledger.count(&name, done),
                        Ok(Err(words)) => ledger.fail(format!("{name}: {words}")),
                        Err(_) => ledger.fail(format!("{name}: it panicked")),
                    }
                };
                while gate.step(&name, &mut step) {}
            })
        };
        Self {
            gate: Arc::clone(gate),
            threads: actors.into_iter().map(start).collect(),
        }
    }
}

impl Drop for ActorThreads {
    fn drop(&mut self) {
        self.gate.end();
        // Whoever hangs has been told of, and ends with the process.
        let end = Instant::now() + JOIN_TIMEOUT;
        while Instant::now() < end && self.threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One of these.
pub fn any_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// An actor's own seed: what one does is the same whoever else there is.
fn seed_of(seed: u64, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    hasher.finish()
}
