//! Quarantine of released TCP ports: for a while only the inside port that had one gets it again.
//!
//! The server of such a connection may still be in TIME-WAIT, and would take segments that another inside host sends
//! from the same outside port for late segments of the old connection (RFC 9293 section 3.6.1). Owns the order of
//! release for one outside address; [`space`](super::space) knows whose ports they were.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Now;

/// Length of the quarantine: as long as Linux connection tracking keeps a connection in TIME-WAIT, and twice as long
/// as Linux itself does.
pub(super) const REST_TIME: Duration = Duration::from_secs(120);

/// Released mapping in quarantine.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestingMapping {
    pub(super) mapping: u32,
    /// Generation of the mapping when it was released; differs once it has been held again.
    pub(super) generation: u32,
    since: Now,
}

/// Quarantined ports of one address, longest first.
///
/// Leases are released where the time is not known, so the quarantine starts when a port of the address is next
/// looked for: possibly late, never early.
#[derive(Debug, Default)]
pub(super) struct RestingQueue {
    entries: VecDeque<RestingMapping>,
    /// Number of entries at the back whose quarantine has not started.
    waiting: usize,
}

impl RestingQueue {
    pub(super) fn push(&mut self, mapping: u32, generation: u32) {
        self.waiting += 1;
        self.entries.push_back(RestingMapping {
            mapping,
            generation,
            since: Now::default(),
        });
    }

    /// Starts the quarantine of new entries at `now`.
    pub(super) fn begin(&mut self, now: Now) {
        let from = self.entries.len() - self.waiting;
        for entry in self.entries.range_mut(from..) {
            entry.since = now;
        }
        self.waiting = 0;
    }

    /// Removes the longest quarantined entry.
    pub(super) fn pop(&mut self) -> Option<RestingMapping> {
        let first = self.entries.pop_front()?;
        self.waiting = self.waiting.min(self.entries.len());
        Some(first)
    }

    /// Returns the longest quarantined entry, and whether its quarantine is over by `now`.
    pub(super) fn first(&self, now: Now) -> Option<(RestingMapping, bool)> {
        let first = self.entries.front()?;
        let begun = self.waiting < self.entries.len();
        Some((*first, begun && now.since(first.since) >= REST_TIME))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RestingMapping> {
        self.entries.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
