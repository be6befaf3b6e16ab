//! Log of flows that match a rule with `log`: a bounded queue; excess entries are only counted. Links share the
//! queue: one that fills it cannot keep the flows of others out.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::decision::Verdict;
use crate::flow::FlowKey;
use crate::policy::RuleId;
use crate::vpc::LinkIndex;

/// Queue capacity, and thereby the maximum number of entries per interval of the reader.
const WAITING: usize = 64;

/// Logged flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedFlow {
    /// Rule with `log` that decided the flow.
    pub rule: RuleId,
    /// Epoch of the tables in which the rule applies to the flow's link.
    pub epoch: u64,
    /// Flow key.
    pub key: FlowKey,
    /// Verdict.
    pub verdict: Verdict,
}

/// Queue of log entries.
#[derive(Debug, Default)]
pub struct FlowLog {
    waiting: Mutex<Vec<LoggedFlow>>,
    suppressed: AtomicU64,
}

impl FlowLog {
    /// Adds an entry, or only counts it if the queue is full.
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

    /// Takes all queued entries, and the number of entries dropped since the last call.
    pub fn take(&self) -> (Vec<LoggedFlow>, u64) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(&mut *waiting, Vec::with_capacity(WAITING));
        (taken, self.suppressed.swap(0, Relaxed))
    }
}

/// Returns the latest entry of the link with the most entries, if that is more than `newcomer` would have with one
/// more.
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
