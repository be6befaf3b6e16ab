//! Flow table: the decision for each flow, for all packets after the first.
//!
//! Does lookup and removal, and ensures that no thread ever holds two shards' locks. [`admission`](super::admission)
//! inserts flows, [`upkeep`](super::upkeep) lists and ends them. The table does not interpret decisions.
//!
//! A flow that is not rewritten is one entry, found by the keys of both directions, which share a hash. Replies of a
//! rewritten flow have a key of their own, and perhaps arrive on another link: an alias under that key refers to the
//! entry.

use std::sync::PoisonError;

use super::key::FlowKey;
use super::quota::FlowQuota;
use super::shard::{FlowRef, IndexTarget, PacketUpdate, RemovedFlow, Shard};
use super::tcp::FlowDirection;
use super::timeouts::{AtomicTimeouts, Timeouts};
use crate::link_index::LinkIndex;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Now;

/// Shards of a large table; a small one has fewer, so that each has a thousand flows.
const MAX_TABLE_SHARDS: usize = 64;
const FLOWS_PER_SHARD: usize = 1024;
/// How often an operation retries because other threads took what it had found.
pub(super) const ATTEMPTS: usize = 4;

/// Limits of a flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Maximum number of flows of all links.
    pub flows: usize,
    /// Idle timeouts of flows.
    pub timeouts: Timeouts,
}

impl Default for FlowLimits {
    /// 262,144 flows, as in Linux connection tracking.
    fn default() -> Self {
        FlowLimits {
            flows: 262_144,
            timeouts: Timeouts::default(),
        }
    }
}

/// Flow found in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFlow<D> {
    /// Side that sends packets with the key that was looked up.
    pub side: FlowDirection,
    /// Key of the packets in the original direction.
    pub original: FlowKey,
    /// Key of the replies, as they arrive.
    pub reply: FlowKey,
    /// Epoch of the decision.
    pub epoch: u64,
    /// Decision.
    pub decision: D,
}

/// Result of [`FlowTable::hit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowLookup<R, D> {
    /// Flow of this epoch, with what the caller read from it.
    Hit(R),
    /// Flow of another epoch: decide again, then [`FlowTable::renew`] it.
    Stale(FoundFlow<D>),
    /// No flow: decide, then [`FlowTable::insert`] one.
    Miss,
}

#[derive(Debug, Default)]
pub(super) struct TableCounters {
    pub(super) evicted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) expired: AtomicU64,
}

/// Shard with its lock, on cache lines of its own because neighbouring shards are used by other workers.
#[derive(Debug)]
#[repr(align(128))]
struct LockedShard<D>(Mutex<Shard<D>>);

/// Where a key's flow or alias is, if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyLocation {
    pub(super) shard: u16,
    pub(super) tag: u32,
}

/// Bounded table of flows, each with a decision `D`, shared by all workers.
///
/// A decision is stored inside its entry and dropped without a lock held, so it may own things that take locks when
/// dropped. Closures passed to methods run under a shard's lock and must not use the table; a panic in one leaves the
/// table usable.
#[derive(Debug)]
pub struct FlowTable<D> {
    secret: [u64; 2],
    shards: Box<[LockedShard<D>]>,
    pub(super) census: FlowQuota,
    pub(super) timeouts: AtomicTimeouts,
    pub(super) tally: TableCounters,
}

impl<D: Clone> FlowTable<D> {
    /// Returns an empty table. `secret` keys its hashes: draw it from the system's random source.
    #[must_use]
    pub fn new(limits: FlowLimits, secret: [u64; 2]) -> Self {
        let count = (limits.flows / FLOWS_PER_SHARD).clamp(1, MAX_TABLE_SHARDS);
        // Rounded down: at least a thousand flows each.
        let count = 1 << count.ilog2();
        let shard = |number| {
            // Shards do not fill evenly; an index that is too small grows when needed.
            let flows = limits.flows / count + limits.flows / count / 8;
            LockedShard(Mutex::new(Shard::new(number as u16, flows)))
        };
        let timeouts = AtomicTimeouts::default();
        timeouts.set(&limits.timeouts);
        FlowTable {
            secret,
            shards: (0..count).map(shard).collect(),
            census: FlowQuota::new(limits.flows),
            timeouts,
            tally: TableCounters::default(),
        }
    }

    /// Changes the limits. Flows above a lower limit stay until they end or are evicted.
    pub fn set_limits(&self, limits: &FlowLimits) {
        self.census.set_limit(limits.flows);
        self.timeouts.set(&limits.timeouts);
    }

    /// Announces how many links share the table, so that each finds its fair share free from the start. Otherwise a
    /// link counts from its first flow on.
    pub fn set_links(&self, links: u32) {
        self.census.announce(links);
    }

    /// Looks up the flow of a packet.
    ///
    /// If the flow is of `epoch`, counts the packet, tracks its TCP flags, and returns the result of `read` for the
    /// sending side, the original and the reply key, and the decision. A flow of another epoch is returned unchanged.
    /// An expired flow is ended and counts as a miss.
    #[inline]
    pub fn hit<R>(
        &self,
        key: &FlowKey,
        seen: &PacketUpdate,
        now: Now,
        epoch: u64,
        read: impl FnOnce(FlowDirection, &FlowKey, &FlowKey, &mut D) -> R,
    ) -> FlowLookup<R, D> {
        let again = |_: &FlowKey, _: &FlowKey, _: &D, _| false;
        self.hit_where(
            key,
            seen,
            now,
            (epoch, again),
            |side, original, reply, decision| (true, read(side, original, reply, decision)),
        )
    }

    /// Like [`FlowTable::hit`], but `read` also says whether the packet belongs to the flow: one that does not, such
    /// as a forged one, is not counted and its TCP flags are ignored. If `holds` finds, from the flow's two keys,
    /// decision and epoch, that the decision would be the same today, a flow of another epoch is moved to `epoch`
    /// unchanged.
    #[inline]
    pub fn hit_where<R>(
        &self,
        key: &FlowKey,
        seen: &PacketUpdate,
        now: Now,
        (epoch, holds): (u64, impl FnOnce(&FlowKey, &FlowKey, &D, u64) -> bool),
        read: impl FnOnce(FlowDirection, &FlowKey, &FlowKey, &mut D) -> (bool, R),
    ) -> FlowLookup<R, D> {
        let place = self.place(key);
        let mut shard = self.lock(place.shard);
        let at = match shard.find(place.tag, key) {
            None => return FlowLookup::Miss,
            Some(IndexTarget::Flow(at)) => at,
            Some(IndexTarget::Alias(target)) => {
                drop(shard);
                shard = self.lock(target.shard);
                if !shard.is(target) {
                    drop(shard);
                    self.remove_alias(key, target);
                    return FlowLookup::Miss;
                }
                target.at
            }
        };
        let Some((flow, side)) = shard
            .flows
            .get(at)
            .and_then(|flow| Some((flow, flow.side(key)?)))
        else {
            return FlowLookup::Miss;
        };
        if flow.is_over(&self.timeouts, now) {
            let taken = shard.take(at, |usage| self.census.leave(usage));
            drop(shard);
            self.tally.expired.fetch_add(1, Relaxed);
            self.release(taken);
            return FlowLookup::Miss;
        }
        let decided = flow.epoch;
        if decided != epoch && !holds(&flow.original, &flow.reply, &flow.decision, decided) {
            return FlowLookup::Stale(FoundFlow {
                side,
                original: flow.original,
                reply: flow.reply,
                epoch: flow.epoch,
                decision: flow.decision.clone(),
            });
        }
        let Some(flow) = shard.flows.get_mut(at) else {
            return FlowLookup::Miss;
        };
        flow.epoch = epoch;
        let (belongs, result) = read(side, &flow.original, &flow.reply, &mut flow.decision);
        if belongs {
            shard.count(at, side, seen, now);
        }
        FlowLookup::Hit(result)
    }

    /// Whether a key belongs to a flow, on either side, regardless of epoch and age.
    #[must_use]
    pub fn contains(&self, key: &FlowKey) -> bool {
        self.locate(key).is_some_and(|target| {
            let shard = self.lock(target.shard);
            let flow = shard.flows.get(target.at).filter(|_| shard.is(target));
            flow.is_some_and(|flow| flow.side(key).is_some())
        })
    }

    /// Returns the flow of a key of either side, regardless of epoch and age. Changes nothing.
    #[must_use]
    pub fn peek(&self, key: &FlowKey) -> Option<FoundFlow<D>> {
        let target = self.locate(key)?;
        let shard = self.lock(target.shard);
        let flow = shard.flow(target)?;
        Some(FoundFlow {
            side: flow.side(key)?,
            original: flow.original,
            reply: flow.reply,
            epoch: flow.epoch,
            decision: flow.decision.clone(),
        })
    }

    /// Ends the flow of a key of either side; `false` if there is none.
    pub fn remove(&self, key: &FlowKey) -> bool {
        self.locate(key).is_some_and(|target| self.end(target))
    }

    #[inline]
    pub(super) fn place(&self, key: &FlowKey) -> KeyLocation {
        let hash = key.hash_both_ways(self.secret);
        KeyLocation {
            shard: (hash >> 32) as u16 & (self.shards.len() - 1) as u16,
            tag: hash as u32,
        }
    }

    pub(super) fn shards(&self) -> u16 {
        self.shards.len() as u16
    }

    #[inline]
    pub(super) fn lock(&self, shard: u16) -> MutexGuard<'_, Shard<D>> {
        // The number is always in range; the mask shows that to the compiler.
        let number = usize::from(shard) & (self.shards.len() - 1);
        self.shards[number]
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Locates the flow of a key of either side.
    pub(super) fn locate(&self, key: &FlowKey) -> Option<FlowRef> {
        let place = self.place(key);
        let shard = self.lock(place.shard);
        match shard.find(place.tag, key)? {
            IndexTarget::Flow(at) => Some(FlowRef {
                shard: place.shard,
                at,
                generation: shard.flows.get(at)?.generation,
            }),
            IndexTarget::Alias(target) => Some(target),
        }
    }

    /// Whether no live flow has this key; ends an expired one and removes a dangling alias.
    pub(super) fn is_free(&self, key: &FlowKey, now: Now) -> bool {
        let Some(target) = self.locate(key) else {
            return true;
        };
        let mut shard = self.lock(target.shard);
        let state = shard
            .flow(target)
            .filter(|flow| flow.side(key).is_some())
            .map(|flow| flow.is_over(&self.timeouts, now));
        let taken = match state {
            Some(false) => return false,
            Some(true) => shard.take(target.at, |usage| self.census.leave(usage)),
            None => None,
        };
        drop(shard);
        if taken.is_some() {
            self.tally.expired.fetch_add(1, Relaxed);
        }
        self.release(taken);
        self.remove_alias(key, target);
        true
    }

    /// Removes a flow and updates the counts.
    pub(super) fn end(&self, target: FlowRef) -> bool {
        let mut shard = self.lock(target.shard);
        let taken = if shard.is(target) {
            shard.take(target.at, |usage| self.census.leave(usage))
        } else {
            None
        };
        drop(shard);
        let ended = taken.is_some();
        self.release(taken);
        ended
    }

    /// Drops removed flows and their aliases; the caller must not hold a lock.
    pub(super) fn release(&self, taken: impl IntoIterator<Item = RemovedFlow<D>>) {
        for flow in taken {
            if let Some(reply) = flow.alias {
                self.remove_alias(&reply, flow.target);
            }
        }
    }

    pub(super) fn remove_alias(&self, reply: &FlowKey, target: FlowRef) {
        let place = self.place(reply);
        self.lock(place.shard)
            .remove_alias(place.tag, reply, target);
    }

    /// Returns the number of flows of a link.
    #[must_use]
    pub fn link_flows(&self, link: LinkIndex) -> usize {
        self.census.find(link).map_or(0, |usage| usage.flows())
    }
}

#[cfg(test)]
#[path = "table_tests/mod.rs"]
mod tests;
