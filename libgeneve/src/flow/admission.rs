//! How flows come into the table, and which have to go for them.
//!
//! Owns insertion, the change of a decision, and eviction. How many flows a link may have is
//! [`share`](super::share)'s.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::eviction_lists::EvictionPriority;
use super::key::FlowKey;
use super::quota::{LinkUsage, QuotaExceeded};
use super::shard::{FlowEntry, FlowRef, PacketUpdate};
use super::table::{ATTEMPTS, FlowTable};
use crate::time::Now;

/// Why a flow was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InsertError {
    /// The table or the link's share of it is full, and nothing in it may be evicted.
    #[error("the flow table is full")]
    Full,
    /// The key has a flow already, perhaps since a moment ago by another worker: look it up again.
    #[error("the flow is in the table already")]
    Exists,
    /// The replies would have the key of another live flow.
    #[error("another flow has the key of the replies")]
    Conflict,
}

impl<D: Clone> FlowTable<D> {
    /// Stores a new flow.
    ///
    /// `key` is that of its first packet, which `seen` describes. `reply` is the key with which replies
    /// arrive: `key.reversed()` unless the flow is rewritten, and perhaps of another link. `refused`
    /// marks a flow whose packets are dropped: it is evicted before all others.
    ///
    /// Where the table or the link's share is full, an old flow is evicted: of refused flows first,
    /// then of closed connections, of half-open ones, of datagram flows (of half-open ones they are
    /// at most seven times as many), at last of connections that one end has closed. A link never gives
    /// up established connections for a flow of its own. "Old" is exact to a second, and among the flows
    /// of one shard.
    ///
    /// A link may have as many flows as the table has room for, divided by the links in use, or 1,024 if
    /// that is more. A link at its limit gives up flows of its own. In a full table a link below its
    /// part takes the place of a flow of a link that is above its part; there established connections
    /// go, too, after all others.
    ///
    /// # Errors
    ///
    /// [`InsertError`]; the decision is dropped then.
    #[allow(clippy::too_many_arguments)]
    pub fn insert(
        &self,
        key: FlowKey,
        reply: FlowKey,
        decision: D,
        refused: bool,
        epoch: u64,
        seen: &PacketUpdate,
        now: Now,
    ) -> Result<(), InsertError> {
        let flow = FlowEntry::new((key, reply), decision, refused, epoch, seen, now);
        let result = if !flow.rewritten() {
            self.store(flow, now).map(drop)
        } else if reply == key {
            // Nobody could tell a packet from its reply.
            Err(InsertError::Conflict)
        } else if !self.is_free(&reply, now) {
            Err(InsertError::Conflict)
        } else {
            self.store(flow, now)
                .and_then(|target| self.add_alias(reply, target))
        };
        match result {
            Err(InsertError::Full) => self.tally.refused.fetch_add(1, Relaxed),
            Err(InsertError::Conflict) => self.tally.conflicts.fetch_add(1, Relaxed),
            Ok(()) | Err(InsertError::Exists) => 0,
        };
        result
    }

    /// Replaces the decision of a flow, found by either side's key, and the key of its replies. Its TCP
    /// state, counters and age stay. A flow that has a decision of a later epoch keeps that one.
    ///
    /// `false` if there is no such flow (any more), also because the new `reply` belongs to another
    /// flow: this one is ended then.
    pub fn renew(
        &self,
        key: &FlowKey,
        reply: FlowKey,
        decision: D,
        refused: bool,
        epoch: u64,
    ) -> bool {
        let Some(target) = self.locate(key) else {
            return false;
        };
        let mut shard = self.lock(target.shard);
        if !shard.is(target) {
            return false;
        }
        let Some(flow) = shard.flows.get_mut(target.at) else {
            return false;
        };
        if flow.epoch > epoch {
            drop(shard);
            return true;
        }
        let list = flow.list();
        let (original, old_reply) = (flow.original, flow.reply);
        let was_rewritten = flow.rewritten();
        flow.reply = reply;
        flow.epoch = epoch;
        flow.refused = refused;
        let is_rewritten = flow.rewritten();
        let old = std::mem::replace(&mut flow.decision, decision);
        if flow.list() != list {
            shard.relist(target.at, list);
        }
        drop(shard);
        drop(old);
        if reply == old_reply {
            return true;
        }
        if was_rewritten {
            self.remove_alias(&old_reply, target);
        }
        let settled = if is_rewritten && reply != original {
            self.add_alias(reply, target).is_ok()
        } else {
            !is_rewritten && self.is_alone(&reply, target)
        };
        if !settled {
            self.end(target);
        }
        settled
    }

    /// Whether a key leads to this flow and to no other.
    fn is_alone(&self, key: &FlowKey, target: FlowRef) -> bool {
        let place = self.place(key);
        self.lock(place.shard).leads_only_to(place.tag, key, target)
    }

    /// Makes `reply` lead to the flow; ends the flow if the key is another's.
    fn add_alias(&self, reply: FlowKey, target: FlowRef) -> Result<(), InsertError> {
        let place = self.place(&reply);
        {
            let mut shard = self.lock(place.shard);
            if shard.find(place.tag, &reply).is_some() {
                drop(shard);
                self.end(target);
                return Err(InsertError::Conflict);
            }
            shard.add_alias(place.tag, reply, target);
        }
        // The flow may have gone before it had an alias that could go with it.
        if !self.lock(target.shard).is(target) {
            self.remove_alias(&reply, target);
        }
        Ok(())
    }

    fn store(&self, flow: FlowEntry<D>, now: Now) -> Result<FlowRef, InsertError> {
        let home = self.place(&flow.original);
        // A place that was taken from another flow and is not used yet.
        let mut freed: Option<Arc<LinkUsage>> = None;
        let mut outcome = Err(InsertError::Exists);
        for _ in 0..ATTEMPTS {
            let mut shard = self.lock(home.shard);
            let free = |key| shard.find(home.tag, key).is_none();
            if !free(&flow.original) {
                drop(shard);
                if self.is_free(&flow.original, now) {
                    continue;
                }
                outcome = Err(InsertError::Exists);
                break;
            }
            if !flow.rewritten() && !free(&flow.reply) {
                drop(shard);
                if self.is_free(&flow.reply, now) {
                    continue;
                }
                outcome = Err(InsertError::Conflict);
                break;
            }
            let lists = shard.lists_of(flow.original.link, &self.census);
            let Some(usage) = shard.usage(lists) else {
                break;
            };
            let admitted = match freed.take() {
                Some(_) => Ok(()),
                None => self.census.admit(usage),
            };
            let Err(short) = admitted else {
                return Ok(shard.store(home.tag, lists, flow));
            };
            let usage = Arc::clone(usage);
            drop(shard);
            if !self.make_room(&usage, short, home.shard) {
                usage.refused.fetch_add(1, Relaxed);
                outcome = Err(InsertError::Full);
                break;
            }
            freed = Some(usage);
        }
        if let Some(usage) = freed {
            self.census.leave(&usage);
        }
        outcome
    }

    /// Evicts a flow, whose place in the counts becomes the newcomer's.
    fn make_room(&self, newcomer: &LinkUsage, short: QuotaExceeded, near: u16) -> bool {
        let other = match short {
            QuotaExceeded::OfShare => None,
            QuotaExceeded::OfRoom => self.census.above_part(newcomer),
        };
        other.is_some_and(|other| {
            self.evict(&other, other.eviction_order(), newcomer, near)
                || self.evict(&other, [EvictionPriority::Established], newcomer, near)
        }) || self.evict(newcomer, newcomer.eviction_order(), newcomer, near)
    }

    fn evict(
        &self,
        from: &LinkUsage,
        groups: impl IntoIterator<Item = EvictionPriority>,
        newcomer: &LinkUsage,
        near: u16,
    ) -> bool {
        for group in groups {
            if from.count(group) == 0 {
                continue;
            }
            for step in 0..self.shards() {
                let mut shard = self.lock((near + step) % self.shards());
                let taken = self.evict_oldest(&mut shard, from, newcomer, group);
                drop(shard);
                if taken.is_some() {
                    self.release(taken);
                    self.tally.evicted.fetch_add(1, Relaxed);
                    from.evicted.fetch_add(1, Relaxed);
                    return true;
                }
            }
        }
        false
    }

    fn evict_oldest(
        &self,
        shard: &mut super::shard::Shard<D>,
        from: &LinkUsage,
        newcomer: &LinkUsage,
        group: EvictionPriority,
    ) -> Option<super::shard::RemovedFlow<D>> {
        let at = shard.oldest(from.link, group)?;
        shard.take(at, |usage| self.census.hand_over(usage, newcomer))
    }
}
