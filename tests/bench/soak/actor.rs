//! Actors of a storm, and the ledger of their steps.

use super::gate::Gate;
use fastrand::Rng;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Context of an actor's step.
pub struct ActorContext<'a> {
    /// Gate for pauses.
    pub gate: &'a Gate,
    /// Random generator seeded for this actor.
    pub rng: &'a mut Rng,
    /// Records what was done.
    pub ledger: &'a Ledger,
}

/// Actor that repeats steps of at most a few seconds during a storm.
pub trait Actor: Send {
    /// Name in the ledger.
    fn name(&self) -> String;
    /// Runs one step. Returns the amount done, in the actor's own unit.
    ///
    /// # Errors
    /// If something happened that must fail the run.
    fn step(&mut self, cx: &mut ActorContext<'_>) -> Result<u64, String>;
    /// Whether it must succeed at least once in each storm.
    fn must_progress(&self) -> bool {
        false
    }
}

/// Totals of one actor or one kind of event.
#[derive(Clone, Copy, Default)]
pub struct LedgerEntry {
    /// Steps taken.
    pub steps: u64,
    /// Sum of what the steps count: bytes, packets, changes.
    pub done: u64,
}

#[derive(Default)]
struct LedgerPages {
    entries: BTreeMap<String, LedgerEntry>,
    failures: Vec<String>,
    must_progress: Vec<String>,
}

/// Totals and failures, and the start of the run.
pub struct Ledger(Mutex<LedgerPages>, Instant);

impl Ledger {
    /// Returns an empty ledger that starts now.
    pub fn new() -> Self {
        Self(Mutex::default(), Instant::now())
    }

    fn pages(&self) -> MutexGuard<'_, LedgerPages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to the totals of this name.
    pub fn count(&self, name: &str, done: u64) {
        let mut pages = self.pages();
        let entry = pages.entries.entry(name.to_owned()).or_default();
        entry.steps += 1;
        entry.done += done;
    }

    /// Records a failure of the run.
    pub fn fail(&self, words: String) {
        let time = self.1.elapsed().as_secs();
        eprintln!("soak: FAILED: after {time} s: {words}");
        self.pages().failures.push(words);
    }

    /// All totals.
    pub fn entries(&self) -> BTreeMap<String, LedgerEntry> {
        self.pages().entries.clone()
    }

    /// Failures so far.
    pub fn failures(&self) -> Vec<String> {
        self.pages().failures.clone()
    }

    /// Records a failure for each actor that must make progress and has made none since `before`.
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

/// Threads of all actors.
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
        // A hung actor has been reported already and ends with the process.
        let end = Instant::now() + JOIN_TIMEOUT;
        while Instant::now() < end && self.threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Picks one at random.
pub fn any_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())]
}

/// Seed of an actor, independent of the other actors.
fn seed_of(seed: u64, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, name).hash(&mut hasher);
    hasher.finish()
}
