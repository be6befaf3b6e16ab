//! Gate between storm and rest.
//!
//! A round is a storm, in which all actors take steps, and a rest, in which none does; counters and resources are
//! compared between rests.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Storm,
    Rest,
    End,
}

struct GateState {
    phase: Phase,
    /// Actors that are taking a step, and how many of each name.
    busy: BTreeMap<String, usize>,
}

/// Lets actors take steps, or holds them back.
pub struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

impl Gate {
    /// Returns a gate at rest.
    pub fn new() -> Self {
        Self {
            state: Mutex::new(GateState {
                phase: Phase::Rest,
                busy: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `step` once it is permitted; false if the run has ended.
    pub fn step(&self, name: &str, step: impl FnOnce()) -> bool {
        let mut state = self.state();
        while state.phase == Phase::Rest {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.phase == Phase::End {
            return false;
        }
        *state.busy.entry(name.to_owned()).or_default() += 1;
        drop(state);
        let _leave = BusyGuard(self, name);
        step();
        true
    }

    /// Waits for this time, or until the storm is over. Returns whether the storm goes on.
    pub fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = self.state();
        while state.phase == Phase::Storm {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Lets all actors take steps for this time; ends early if `stop` returns true.
    pub fn storm(&self, time: Duration, mut stop: impl FnMut() -> bool) {
        self.turn(Phase::Storm);
        let start = Instant::now();
        while start.elapsed() < time && !stop() {
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until all actors rest.
    ///
    /// # Errors
    /// If actors are still taking a step after `patience`; names them.
    pub fn rest(&self, patience: Duration) -> Result<(), String> {
        self.turn(Phase::Rest);
        let end = Instant::now() + patience;
        let mut state = self.state();
        while !state.busy.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let names: Vec<_> = state.busy.keys().cloned().collect();
                return Err(names.join(", "));
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Ends the run: no actor takes a further step.
    pub fn end(&self) {
        self.turn(Phase::End);
    }

    fn turn(&self, phase: Phase) {
        self.state().phase = phase;
        self.changed.notify_all();
    }
}

/// Guard that removes a name on drop, even if the step panics.
struct BusyGuard<'a>(&'a Gate, &'a str);

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let Some(count) = state.busy.get_mut(self.1) {
            *count -= 1;
            if *count == 0 {
                state.busy.remove(self.1);
            }
        }
        drop(state);
        self.0.changed.notify_all();
    }
}
