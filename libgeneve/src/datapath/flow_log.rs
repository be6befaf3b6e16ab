//! Flows that a rule wants to be in the log: a few wait here for whoever reads them, the rest are counted. Links share the room:
//! one whose flows fill it does not keep those of another out of the log.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::decision::Verdict;
use crate::flow::FlowKey;
use crate::policy::RuleId;
use crate::vpc::LinkIndex;

/// Entries that wait at most: the rate of the log is this many in each interval of its reader.
const WAITING: usize = 64;

/// A flow that was decided by a rule with `log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedFlow {
    /// The rule.
    pub rule: RuleId,
    /// The tables in which it is a rule of the flow's link.
    pub epoch: u64,
    /// The flow.
    pub key: FlowKey,
    /// What was decided.
    pub verdict: Verdict,
}

/// What waits to be read.
#[derive(Debug, Default)]
pub struct FlowLog {
    waiting: Mutex<Vec<LoggedFlow>>,
    suppressed: AtomicU64,
}

impl FlowLog {
    /// Adds an entry, or counts it where too many wait.
    pub(super) fn add(&self, entry: LoggedFlow) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING {
            waiting.push(entry);
            return;
        }
        self.suppressed.fetch_add(1, Relaxed);
        if let Some(at) = displaced(&waiting, entry.key.link) {
            waiting.remove(at);
            waiting.push(entry);
        }
    }

    /// Takes what waits, and how many entries found no room since the last call.
    pub fn take(&self) -> (Vec<LoggedFlow>, u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(&mut *waiting, Vec::with_capacity(WAITING));
        (taken, self.suppressed.swap(0, Relaxed))
    }
}

/// The latest entry of the link that has most, if that is more than `newcomer` would have with one more.
fn displaced(waiting: &[LoggedFlow], newcomer: LinkIndex) -> Option<usize> {
    let of = |link| {
        waiting
            .iter()
            .filter(|entry| entry.key.link == link)
            .count()
    };
    let own = of(newcomer);
    if own >= WAITING / 2 {
        return None;
    }
    let links = waiting.iter().map(|entry| entry.key.link);
    let most = links.max_by_key(|&link| of(link))?;
    let latest = || waiting.iter().rposition(|entry| entry.key.link == most);
    (of(most) > own + 1).then(latest).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_fills_the_log_leaves_half_of_it_to_another() {
        let log = FlowLog::default();
        let add = |link| {
            log.add(LoggedFlow {
                rule: RuleId(0),
                epoch: 0,
                key: FlowKey {
                    link: LinkIndex(link),
                    src: [10, 0, 0, 1].into(),
                    dst: [10, 0, 0, 2].into(),
                    protocol: 6,
                    sport: 1,
                    dport: 2,
                },
                verdict: Verdict::Reject,
            });
        };
        (0..1000).for_each(|_| add(1));
        (0..100).for_each(|_| add(2));
        add(3);
        let (taken, suppressed) = log.take();
        let of = |link| {
            taken
                .iter()
                .filter(|e| e.key.link == LinkIndex(link))
                .count()
        };
        assert_eq!((of(1) + of(2), of(3)), (WAITING - 1, 1));
        assert!(of(1).abs_diff(of(2)) <= 1, "{} and {}", of(1), of(2));
        assert_eq!(taken.len() as u64 + suppressed, 1101);
    }
}
