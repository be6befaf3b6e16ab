//! Quotas: how many flows there may be, in total and per link.
//!
//! Keeps the counts and the rule by which links share the table; [`table`](super::table) finds the flows to evict.
//! Counts go up before a flow is stored and down after it is gone, so they are never too low.
//!
//! The rule, with at most `n` flows and `l` links that are in use or announced:
//!
//! - A link's fair share is `n / l`, but at least one flow. Its quota is its fair share or 1,024 flows, whichever is
//!   more. A link above its quota, because there were fewer links before, keeps its flows until others need the room,
//!   but gets no further ones.
//! - A link at its quota evicts one of its own flows for a new one, but no established connection.
//! - If the table is full, a link below its fair share evicts a flow of a link above its fair share, even an
//!   established connection; otherwise one of its own.
//!
//! Finding a link above its fair share does not scan all links: they are bucketed by the magnitude of their flow
//! counts, and one of the largest gives way. In the bucket of the fair share itself, some dozens of links are checked
//! each time, in turn.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::{Arc, PoisonError};

use siphasher::sip::SipHasher13;

use super::eviction_lists::{EvictionPriority, GROUPS};
use crate::link_index::LinkIndex;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, RwLock};

/// Minimum quota of a link, however many links there are.
const ALWAYS: usize = 1024;

/// Maximum number of links of one magnitude checked for one new flow.
const LOOKED_AT: usize = 64;

/// Number of magnitudes of a link's flow count: none, 1, 2 to 3, 4 to 7, and so on.
const MAGNITUDES: usize = 33;

fn magnitude(flows: u32) -> usize {
    (u32::BITS - flows.leading_zeros()) as usize
}

/// Flow counts of one link.
#[derive(Debug)]
pub(super) struct LinkUsage {
    pub(super) link: LinkIndex,
    flows: AtomicU32,
    groups: [AtomicU32; GROUPS],
    /// Where it stands in [`UsageBuckets`]; written with that locked.
    magnitude: AtomicUsize,
    place: AtomicUsize,
    /// Flows of the link evicted for new ones.
    pub(super) evicted: AtomicU64,
    /// Flows of the link not admitted.
    pub(super) refused: AtomicU64,
}

impl LinkUsage {
    pub(super) fn flows(&self) -> usize {
        self.flows.load(Relaxed) as usize
    }

    pub(super) fn count(&self, group: EvictionPriority) -> u32 {
        self.groups[group as usize].load(Relaxed)
    }

    pub(super) fn joined(&self, group: EvictionPriority) {
        self.groups[group as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn left(&self, group: EvictionPriority) {
        self.groups[group as usize].fetch_sub(1, Relaxed);
    }

    /// Returns the groups in eviction order.
    ///
    /// Half-open connections go before datagram flows, but keep an eighth of what both have: so a SYN flood cannot
    /// evict datagram flows, nor a datagram flood every handshake.
    pub(super) fn eviction_order(&self) -> [EvictionPriority; 5] {
        let half_open = u64::from(self.count(EvictionPriority::HalfOpen));
        let datagrams = u64::from(self.count(EvictionPriority::Datagram));
        let (first, second) = if half_open * 8 > half_open + datagrams {
            (EvictionPriority::HalfOpen, EvictionPriority::Datagram)
        } else {
            (EvictionPriority::Datagram, EvictionPriority::HalfOpen)
        };
        [
            EvictionPriority::Refused,
            EvictionPriority::Closed,
            first,
            second,
            EvictionPriority::FinWait,
        ]
    }
}

/// Links bucketed by the magnitude of their flow counts.
#[derive(Debug)]
struct UsageBuckets {
    links: [Vec<Arc<LinkUsage>>; MAGNITUDES],
    /// Where the next check of the links of one magnitude starts.
    turn: usize,
}

impl Default for UsageBuckets {
    fn default() -> Self {
        UsageBuckets {
            links: [const { Vec::new() }; MAGNITUDES],
            turn: 0,
        }
    }
}

impl UsageBuckets {
    fn add(&mut self, usage: Arc<LinkUsage>) {
        let magnitude = magnitude(usage.flows.load(Relaxed));
        let links = &mut self.links[magnitude];
        usage.magnitude.store(magnitude, Relaxed);
        usage.place.store(links.len(), Relaxed);
        links.push(usage);
    }

    /// Moves a link to its current bucket.
    fn reclassify(&mut self, usage: &LinkUsage) {
        let (from, place) = (usage.magnitude.load(Relaxed), usage.place.load(Relaxed));
        if magnitude(usage.flows.load(Relaxed)) == from {
            return;
        }
        let usage = self.links[from].swap_remove(place);
        if let Some(moved) = self.links[from].get(place) {
            moved.place.store(place, Relaxed);
        }
        self.add(usage);
    }

    /// Returns a link with more than `part` flows: the one with the most among those checked.
    fn above(&mut self, part: usize) -> Option<Arc<LinkUsage>> {
        let least = u32::try_from(part).map_or(MAGNITUDES, magnitude);
        for links in self.links.get(least..)?.iter().rev() {
            let (before, after) = links.split_at(self.turn.checked_rem(links.len()).unwrap_or(0));
            let looked_at = after.iter().chain(before).take(LOOKED_AT);
            let above = looked_at.filter(|usage| usage.flows() > part);
            if let Some(most) = above.max_by_key(|usage| usage.flows()) {
                return Some(Arc::clone(most));
            }
        }
        self.turn = self.turn.wrapping_add(LOOKED_AT);
        None
    }
}

/// Flow counts of all links.
#[derive(Debug)]
pub(super) struct FlowQuota {
    limit: AtomicUsize,
    flows: AtomicUsize,
    announced: AtomicU32,
    in_use: AtomicU32,
    links: RwLock<HashMap<LinkIndex, Arc<LinkUsage>, BuildHasherDefault<SipHasher13>>>,
    by_magnitude: Mutex<UsageBuckets>,
}

impl FlowQuota {
    pub(super) fn new(limit: usize) -> Self {
        FlowQuota {
            limit: AtomicUsize::new(limit),
            flows: AtomicUsize::new(0),
            announced: AtomicU32::new(1),
            in_use: AtomicU32::new(0),
            links: RwLock::default(),
            by_magnitude: Mutex::default(),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub(super) fn announce(&self, links: u32) {
        self.announced.store(links, Relaxed);
    }

    pub(super) fn flows(&self) -> usize {
        self.flows.load(Relaxed)
    }

    /// Returns the counts of a link, if it ever had a flow.
    pub(super) fn find(&self, link: LinkIndex) -> Option<Arc<LinkUsage>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&link).cloned()
    }

    /// Returns the counts of a link; created on first use and never removed.
    pub(super) fn usage(&self, link: LinkIndex) -> Arc<LinkUsage> {
        if let Some(usage) = self.find(link) {
            return usage;
        }
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let usage = Arc::new(LinkUsage {
                link,
                flows: AtomicU32::new(0),
                groups: Default::default(),
                magnitude: AtomicUsize::new(0),
                place: AtomicUsize::new(0),
                evicted: AtomicU64::new(0),
                refused: AtomicU64::new(0),
            });
            self.by_magnitude(|index| index.add(Arc::clone(&usage)));
            usage
        };
        links.entry(link).or_insert_with(new).clone()
    }

    /// Returns a link's fair share of the table, counting `newcomer` as in use.
    fn part(&self, newcomer: &LinkUsage) -> usize {
        let in_use = self.in_use.load(Relaxed) + u32::from(newcomer.flows() == 0);
        let links = in_use.max(self.announced.load(Relaxed)).max(1);
        (self.limit() / links as usize).max(1)
    }

    fn by_magnitude<R>(&self, with: impl FnOnce(&mut UsageBuckets) -> R) -> R {
        let mut index = self.by_magnitude.lock();
        with(index.as_mut().unwrap_or_else(|poisoned| poisoned.get_mut()))
    }

    /// Updates the buckets and the number of links in use after a flow count changed from `before` to `after`. With
    /// concurrent changes, the last thread sees the final count.
    fn changed(&self, usage: &LinkUsage, before: u32, after: u32) {
        if magnitude(before) != magnitude(after) {
            self.by_magnitude(|index| index.reclassify(usage));
        }
        match (before, after) {
            (0, _) => self.in_use.fetch_add(1, Relaxed),
            (_, 0) => self.in_use.fetch_sub(1, Relaxed),
            _ => 0,
        };
    }

    /// Returns the quota of a link that wants one more flow.
    pub(super) fn share(&self, usage: &LinkUsage) -> u32 {
        let share = self.part(usage).max(ALWAYS.min(self.limit()));
        u32::try_from(share).unwrap_or(u32::MAX)
    }

    /// Counts one more flow of the link, if its quota and the table have room.
    pub(super) fn admit(&self, usage: &LinkUsage) -> Result<(), QuotaExceeded> {
        let limit = self.limit();
        let share = self.share(usage);
        let below = |bound| move |count| (count < bound).then(|| count + 1);
        let before = usage
            .flows
            .fetch_update(Relaxed, Relaxed, below(share))
            .map_err(|_| QuotaExceeded::OfShare)?;
        let below = |count: usize| (count < limit).then(|| count + 1);
        if self.flows.fetch_update(Relaxed, Relaxed, below).is_err() {
            usage.flows.fetch_sub(1, Relaxed);
            return Err(QuotaExceeded::OfRoom);
        }
        self.changed(usage, before, before + 1);
        Ok(())
    }

    /// Counts one flow of the link less.
    pub(super) fn leave(&self, usage: &LinkUsage) {
        self.flows.fetch_sub(1, Relaxed);
        self.leave_link(usage);
    }

    fn leave_link(&self, usage: &LinkUsage) {
        let before = usage.flows.fetch_sub(1, Relaxed);
        self.changed(usage, before, before.wrapping_sub(1));
    }

    /// Moves the count of one flow from one link to another.
    pub(super) fn hand_over(&self, from: &LinkUsage, to: &LinkUsage) {
        if from.link != to.link {
            let before = to.flows.fetch_add(1, Relaxed);
            self.changed(to, before, before + 1);
            self.leave_link(from);
        }
    }

    /// Returns a link above its fair share, which has to evict a flow if `newcomer` is below its own.
    pub(super) fn above_part(&self, newcomer: &LinkUsage) -> Option<Arc<LinkUsage>> {
        let part = self.part(newcomer);
        if newcomer.flows() >= part {
            return None;
        }
        self.by_magnitude(|index| index.above(part))
    }
}

/// Why a flow cannot be admitted without eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    /// The link has used up its quota.
    OfShare,
    /// The table is full.
    OfRoom,
}
