//! Flows that a rule wants to be in the log: a few wait here for whoever reads them, the rest are counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::state::Fate;
use crate::flow::FlowKey;
use crate::policy::RuleId;

/// Entries that wait at most: the rate of the log is this many in each interval of its reader.
const WAITING: usize = 64;

/// A flow that was decided by a rule with `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The rule.
    pub rule: RuleId,
    /// The tables in which it is a rule of the flow's link.
    pub epoch: u64,
    /// The flow.
    pub key: FlowKey,
    /// What was decided.
    pub fate: Fate,
}

/// What waits to be read.
#[derive(Debug, Default)]
pub struct Log {
    waiting: Mutex<Vec<Logged>>,
    suppressed: AtomicU64,
}

impl Log {
    /// Adds an entry, or counts it where too many wait.
    pub(super) fn add(&self, entry: Logged) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(entry);
        } else {
            self.suppressed.fetch_add(1, Relaxed);
        }
    }

    /// Takes what waits, and how many entries found no room since the last call.
    pub fn take(&self) -> (Vec<Logged>, u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(&mut *waiting, Vec::with_capacity(WAITING));
        (taken, self.suppressed.swap(0, Relaxed))
    }
}
