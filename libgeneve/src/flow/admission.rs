//! Admission: inserts flows, and evicts others to make room.
//!
//! Does insertion, replacement of decisions, and eviction. How many flows a link may have is up to
//! [`share`](super::share).

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
    /// The table or the link's quota is full, and nothing may be evicted.
    #[error("the flow table is full")]
    Full,
    /// The key already has a flow, perhaps just inserted by another worker: look it up again.
    #[error("the flow is in the table already")]
    Exists,
    /// The replies would have the key of another live flow.
    #[error("another flow has the key of the replies")]
    Conflict,
}

impl<D: Clone> FlowTable<D> {
    /// Stores a new flow.
    ///
    /// `key` is the key of its first packet, which `seen` describes. `reply` is the key with which replies arrive:
    /// `key.reversed()` unless the flow is rewritten, and perhaps of another link. `refused` marks a flow whose
    /// packets are dropped: it is evicted before all others.
    ///
    /// If the table or the link's quota is full, an old flow is evicted: refused flows first, then closed
    /// connections, half-open ones, datagram flows (before half-open ones while those are at most an eighth of both),
    /// and finally connections that one end has closed. A link never evicts its own established connections for a new
    /// flow. "Old" is accurate to a second, and within one shard.
    ///
    /// A link may have as many flows as the table's size divided by the links in use, or 1,024 if that is more. At
    /// its quota, it evicts flows of its own. In a full table, a link below its fair share evicts a flow of a link
    /// above its fair share, established connections last.
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
            // A packet would be indistinguishable from its reply.
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

    /// Replaces the decision of a flow, found by either side's key, and its reply key. TCP state, counters and age
    /// stay. A flow that already has a decision of a later epoch keeps it.
    ///
    /// `false` if there is no such flow (any more), or if the new `reply` belongs to another flow, in which case this
    /// one is ended.
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

    /// Whether a key refers to this flow and to no other.
    fn is_alone(&self, key: &FlowKey, target: FlowRef) -> bool {
        let place = self.place(key);
        self.lock(place.shard).leads_only_to(place.tag, key, target)
    }

    /// Adds the alias `reply` to the flow; ends the flow if the key belongs to another.
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
        // The flow may have been removed before its alias existed, and would leave it dangling.
        if !self.lock(target.shard).is(target) {
            self.remove_alias(&reply, target);
        }
        Ok(())
    }

    fn store(&self, flow: FlowEntry<D>, now: Now) -> Result<FlowRef, InsertError> {
        let home = self.place(&flow.original);
        // Room taken from an evicted flow and not used yet.
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

    /// Evicts a flow and gives its place in the counts to the newcomer.
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
