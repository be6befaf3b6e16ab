//! Operations on all flows: listing, expiry and statistics.
//!
//! Every method walks the table in steps; each holds one shard's lock for at most a few hundred flows.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::key::FlowKey;
use super::shard::{FlowEntry, RemovedFlow};
use super::table::FlowTable;
use super::tcp::FlowState;
use crate::link_index::LinkIndex;
use crate::time::Now;

/// Maximum number of flows processed under one lock.
const FLOWS_PER_LOCK: u32 = 256;

/// Flow as shown in listings.
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a, D> {
    /// Key of the packets in the original direction.
    pub original: &'a FlowKey,
    /// Key of the replies, as they arrive.
    pub reply: &'a FlowKey,
    /// Decision.
    pub decision: &'a D,
    /// Whether its packets are dropped.
    pub refused: bool,
    /// State.
    pub state: FlowState,
    /// Epoch of the decision.
    pub epoch: u64,
    /// Time of its first packet, accurate to a tenth of a second.
    pub created: Now,
    /// Time of its last packet.
    pub seen: Now,
    /// Idle timeout.
    pub timeout: Duration,
    /// Packets in the original and in the reply direction.
    pub packets: [u64; 2],
    /// Bytes of inner IP packets in the original and in the reply direction.
    pub bytes: [u64; 2],
}

/// Statistics of a flow table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowStats {
    /// Flows in the table.
    pub flows: usize,
    /// Maximum number of flows.
    pub limit: usize,
    /// Flows evicted for new ones.
    pub evicted: u64,
    /// Flows not admitted because nothing could be evicted.
    pub refused: u64,
    /// Flows not admitted because their replies would have had another flow's key.
    pub conflicts: u64,
    /// Flows that ended by timeout.
    pub expired: u64,
}

/// Statistics of one link's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFlows {
    /// Flows in the table.
    pub flows: usize,
    /// Current quota of the link.
    pub limit: usize,
    /// Its flows evicted for new ones.
    pub evicted: u64,
    /// Its flows not admitted because nothing could be evicted.
    pub refused: u64,
}

/// Position of a walk through the table; starts at its default.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowCursor {
    shard: u16,
    at: u32,
}

impl<D: Clone> FlowTable<D> {
    fn view<'a>(&self, flow: &'a FlowEntry<D>) -> FlowView<'a, D> {
        FlowView {
            original: &flow.original,
            reply: &flow.reply,
            decision: &flow.decision,
            refused: flow.refused,
            state: flow.state(),
            epoch: flow.epoch,
            created: flow.created.moment(),
            seen: flow.seen,
            timeout: self.timeouts.of(flow.list()),
            packets: flow.packets,
            bytes: flow.bytes,
        }
    }

    /// Calls `each` for every flow that has not expired. Flows added or removed meanwhile may be left out.
    pub fn for_each(&self, now: Now, mut each: impl FnMut(&FlowView<'_, D>)) {
        let mut cursor = FlowCursor::default();
        while self.for_some(&mut cursor, now, &mut each) {}
    }

    /// Calls `each` for the next few hundred flows at most, starting at `cursor`, and advances it; `false` after the
    /// last. For callers that have other work to do in between.
    pub fn for_some(
        &self,
        cursor: &mut FlowCursor,
        now: Now,
        mut each: impl FnMut(&FlowView<'_, D>),
    ) -> bool {
        if cursor.shard == self.shards() {
            return false;
        }
        let shard = self.lock(cursor.shard);
        let end = shard.flows.end();
        let to = end.min(cursor.at + FLOWS_PER_LOCK);
        (cursor.at..to)
            .filter_map(|at| shard.flows.get(at))
            .filter(|flow| !flow.is_over(&self.timeouts, now))
            .for_each(|flow| each(&self.view(flow)));
        match to == end {
            true => (cursor.shard, cursor.at) = (cursor.shard + 1, 0),
            false => cursor.at = to,
        }
        true
    }

    /// Ends every flow for which `which` returns true; returns how many.
    pub fn flush(&self, mut which: impl FnMut(&FlowView<'_, D>) -> bool) -> u64 {
        self.sweep(|flow| which(&self.view(flow)))
    }

    /// Like [`FlowTable::flush`], for the next few hundred flows at most, starting at `cursor`; `None` after the
    /// last.
    pub fn flush_some(
        &self,
        cursor: &mut FlowCursor,
        mut which: impl FnMut(&FlowView<'_, D>) -> bool,
    ) -> Option<u64> {
        self.sweep_some(cursor, |flow| which(&self.view(flow)))
    }

    /// Ends every flow with packets or replies on a link.
    pub fn remove_link(&self, link: LinkIndex) {
        self.sweep(|flow| flow.original.link == link || flow.reply.link == link);
        self.forget_link(link);
    }

    /// Resets the eviction and refusal counters of a link, whose flows have ended by then.
    pub fn forget_link(&self, link: LinkIndex) {
        // The next link with the same index starts with its own counts.
        if let Some(usage) = self.census.find(link) {
            usage.evicted.store(0, Relaxed);
            usage.refused.store(0, Relaxed);
        }
    }

    fn sweep(&self, mut which: impl FnMut(&FlowEntry<D>) -> bool) -> u64 {
        let (mut ended, mut cursor) = (0, FlowCursor::default());
        while let Some(some) = self.sweep_some(&mut cursor, &mut which) {
            ended += some;
        }
        ended
    }

    fn sweep_some(
        &self,
        cursor: &mut FlowCursor,
        mut which: impl FnMut(&FlowEntry<D>) -> bool,
    ) -> Option<u64> {
        if cursor.shard == self.shards() {
            return None;
        }
        let mut taken: Vec<RemovedFlow<D>> = Vec::with_capacity(FLOWS_PER_LOCK as usize);
        let mut shard = self.lock(cursor.shard);
        let end = shard.flows.end();
        let to = end.min(cursor.at + FLOWS_PER_LOCK);
        for at in cursor.at..to {
            if shard.flows.get(at).is_some_and(&mut which) {
                taken.extend(shard.take(at, |usage| self.census.leave(usage)));
            }
        }
        drop(shard);
        match to == end {
            true => (cursor.shard, cursor.at) = (cursor.shard + 1, 0),
            false => cursor.at = to,
        }
        let ended = taken.len() as u64;
        self.release(taken);
        Some(ended)
    }

    /// Ends expired flows and returns how many; call about once a second.
    pub fn expire(&self, now: Now) -> u64 {
        let mut ended = 0;
        let mut taken: Vec<RemovedFlow<D>> = Vec::with_capacity(FLOWS_PER_LOCK as usize);
        for number in 0..self.shards() {
            let mut from = Some(0);
            while let Some(links) = from {
                from = self.lock(number).expire(
                    links,
                    FLOWS_PER_LOCK as usize,
                    &self.timeouts,
                    now,
                    &self.census,
                    &mut taken,
                );
                ended += taken.len() as u64;
                self.release(taken.drain(..));
            }
        }
        self.tally.expired.fetch_add(ended, Relaxed);
        ended
    }

    /// Returns the statistics of a link. Each count is consistent by itself, not with the others.
    #[must_use]
    pub fn link_stats(&self, link: LinkIndex) -> LinkFlows {
        let usage = self.census.usage(link);
        LinkFlows {
            flows: usage.flows(),
            limit: self.census.share(&usage) as usize,
            evicted: usage.evicted.load(Relaxed),
            refused: usage.refused.load(Relaxed),
        }
    }

    /// Returns the statistics of the table. Each count is consistent by itself, not with the others.
    #[must_use]
    pub fn stats(&self) -> FlowStats {
        FlowStats {
            flows: self.census.flows(),
            limit: self.census.limit(),
            evicted: self.tally.evicted.load(Relaxed),
            refused: self.tally.refused.load(Relaxed),
            conflicts: self.tally.conflicts.load(Relaxed),
            expired: self.tally.expired.load(Relaxed),
        }
    }
}
