//! Outside ports of TCP connections that ended: nobody but the inside port that had them gets them for a while.
//!
//! The server of such a connection may still be in TIME-WAIT, and takes what another inside host sends from the same outside
//! port for late segments of the old one (RFC 9293 section 3.6.1). Owns the order in which ports were given back, for one
//! outside address; whose they were is [`space`](super::space)'s knowledge.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Now;

/// How long a port rests: as long as Linux' connection tracking keeps a connection in TIME-WAIT, and twice what Linux itself
/// does.
pub(super) const REST: Duration = Duration::from_secs(120);

/// A mapping that nobody holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resting {
    pub(super) mapping: u32,
    /// The mapping's own when it was given back: it differs once somebody held it again.
    pub(super) generation: u32,
    since: Now,
}

/// The resting ports of one address, those that rest longest first.
///
/// Leases are given back where no time is known, so that a rest begins when the address is asked for a port the next time:
/// later than it could, never earlier.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Resting>,
    /// How many of the last ones have not begun.
    waiting: usize,
}

impl Queue {
    pub(super) fn push(&mut self, mapping: u32, generation: u32) {
        self.waiting += 1;
        self.entries.push_back(Resting {
            mapping,
            generation,
            since: Now::default(),
        });
    }

    /// The time is `now`: what waits begins its rest.
    pub(super) fn begin(&mut self, now: Now) {
        let from = self.entries.len() - self.waiting;
        for entry in self.entries.range_mut(from..) {
            entry.since = now;
        }
        self.waiting = 0;
    }

    /// Takes out what rests longest.
    pub(super) fn pop(&mut self) -> Option<Resting> {
        let first = self.entries.pop_front()?;
        self.waiting = self.waiting.min(self.entries.len());
        Some(first)
    }

    /// What rests longest, and whether that is long enough by `now`.
    pub(super) fn first(&self, now: Now) -> Option<(Resting, bool)> {
        let first = self.entries.front()?;
        let begun = self.waiting < self.entries.len();
        Some((*first, begun && now.since(first.since) >= REST))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Resting> {
        self.entries.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
