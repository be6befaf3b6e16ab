//! Shard of the flow table: everything under one lock.
//!
//! Holds the flows, the aliases, the index from hash to both, and the lists. Which shard a key belongs to, and
//! everything that needs two shards, is up to [`table`](super::table).

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::time::Duration;

use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::eviction_lists::{
    EvictionPriority, LIST_END, LISTS_PER_LINK, LinkFlowLists, ListLinks, ListNode, list_of,
};
use super::key::FlowKey;
use super::quota::{FlowQuota, LinkUsage};
use super::slab::{Slab, SlabItem};
use super::tcp::{ConnTrack, FlowDirection, FlowState, LastSequence, TcpSegment};
use super::timeouts::AtomicTimeouts;
use crate::link_index::LinkIndex;
use crate::time::Now;

/// Accuracy of a list's order: a flow is moved to the end at most this often, because each move writes to its
/// neighbours.
const MOVE_EVERY: Duration = Duration::from_secs(1);

/// Marks an index entry of an alias.
const ALIAS: u32 = 1 << 31;

/// Timestamp in tenths of a second: four bytes in every flow, good for 13 years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tenths(u32);

impl Tenths {
    const NANOS: u64 = 100_000_000;

    fn before(now: Now) -> Tenths {
        Tenths(u32::try_from(now.0 / Tenths::NANOS).unwrap_or(u32::MAX))
    }

    /// Rounds up: what has not expired by the result has not expired by `now`.
    #[inline]
    fn after(now: Now) -> Tenths {
        Tenths(u32::try_from(now.0.div_ceil(Tenths::NANOS)).unwrap_or(u32::MAX))
    }

    #[inline]
    pub(super) fn moment(self) -> Now {
        Now(u64::from(self.0) * Tenths::NANOS)
    }
}

/// What a packet adds to its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PacketUpdate {
    /// The TCP segment, the latest of several; `None` for other protocols, and if its header cannot be read.
    pub tcp: Option<TcpSegment>,
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes of inner IP packets.
    pub bytes: u64,
}

/// Location of a flow, across shards; stale once the flow is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowRef {
    pub(super) shard: u16,
    pub(super) at: u32,
    pub(super) generation: u32,
}

/// Flow, laid out in the order in which a hit reads it: with a million flows, each cache line counts.
#[derive(Debug)]
#[repr(C)]
pub(super) struct FlowEntry<D> {
    pub(super) original: FlowKey,
    tag: u32,
    pub(super) epoch: u64,
    pub(super) seen: Now,
    track: ConnTrack,
    pub(super) refused: bool,
    pub(super) generation: u32,
    /// Value of `seen` when the flow was moved to the end of its list, or a little later.
    moved: Tenths,
    pub(super) created: Tenths,
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    pub(super) decision: D,
    pub(super) reply: FlowKey,
    lists: u32,
    neighbours: ListLinks,
    /// What each end of a TCP connection sent, tracked until it is established.
    sent: [LastSequence; 2],
}

impl<D> FlowEntry<D> {
    pub(super) fn new(
        keys: (FlowKey, FlowKey),
        decision: D,
        refused: bool,
        epoch: u64,
        seen: &PacketUpdate,
        now: Now,
    ) -> Self {
        let mut sent = Default::default();
        let track = ConnTrack::new(keys.0.protocol, seen.tcp.as_ref(), &mut sent);
        FlowEntry {
            original: keys.0,
            reply: keys.1,
            epoch,
            created: Tenths::before(now),
            seen: now,
            moved: Tenths::after(now),
            packets: [seen.packets, 0],
            bytes: [seen.bytes, 0],
            neighbours: ListLinks::ALONE,
            tag: 0,
            lists: 0,
            generation: 0,
            track,
            sent,
            refused,
            decision,
        }
    }

    pub(super) fn state(&self) -> FlowState {
        self.track.state
    }

    #[inline]
    pub(super) fn list(&self) -> usize {
        list_of(self.track.state, self.refused)
    }

    #[cfg(test)]
    pub(super) fn place_in_list(&self) -> ListLinks {
        self.neighbours
    }

    /// Whether the reply key differs from the reversed original key.
    pub(super) fn rewritten(&self) -> bool {
        self.reply != self.original.reversed()
    }

    /// Returns the side that sends packets with this key.
    #[inline]
    pub(super) fn side(&self, key: &FlowKey) -> Option<FlowDirection> {
        if self.original == *key {
            Some(FlowDirection::Original)
        } else if self.reply == *key {
            Some(FlowDirection::Reply)
        } else {
            None
        }
    }

    #[inline]
    pub(super) fn is_over(&self, timeouts: &AtomicTimeouts, now: Now) -> bool {
        timeouts.end(self.list(), self.seen) <= now
    }
}

impl<D> ListNode for FlowEntry<D> {
    fn neighbours(&mut self) -> &mut ListLinks {
        &mut self.neighbours
    }
}

impl<D> SlabItem for FlowEntry<D> {
    fn generation(&mut self) -> &mut u32 {
        &mut self.generation
    }
}

#[derive(Debug)]
struct AliasEntry {
    reply: FlowKey,
    target: FlowRef,
    generation: u32,
}

impl SlabItem for AliasEntry {
    fn generation(&mut self) -> &mut u32 {
        &mut self.generation
    }
}

#[derive(Clone, Copy, Debug)]
struct IndexSlot {
    tag: u32,
    at: u32,
}

impl IndexSlot {
    /// Returns a hash for the index, which wants entropy in the lowest and in the highest bits.
    fn hash(self) -> u64 {
        spread(self.tag)
    }
}

fn spread(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

/// What an index entry refers to.
#[derive(Clone, Copy, Debug)]
pub(super) enum IndexTarget {
    Flow(u32),
    Alias(FlowRef),
}

/// Flow removed from its shard; to be dropped without the lock.
#[derive(Debug)]
pub(super) struct RemovedFlow<D> {
    pub(super) target: FlowRef,
    /// Key of its alias.
    pub(super) alias: Option<FlowKey>,
    /// Held for its drop.
    _decision: D,
}

#[derive(Debug)]
pub(super) struct Shard<D> {
    number: u16,
    pub(super) flows: Slab<FlowEntry<D>>,
    aliases: Slab<AliasEntry>,
    refs: HashTable<IndexSlot>,
    links: Vec<LinkFlowLists>,
    by_link: HashMap<LinkIndex, u32, BuildHasherDefault<SipHasher13>>,
}

impl<D> Shard<D> {
    /// Returns a shard with an index for this many flows; reserves only the index.
    pub(super) fn new(number: u16, flows: usize) -> Self {
        Shard {
            number,
            flows: Slab::new(),
            aliases: Slab::new(),
            refs: HashTable::with_capacity(flows),
            links: Vec::new(),
            by_link: HashMap::default(),
        }
    }

    #[inline]
    pub(super) fn find(&self, tag: u32, key: &FlowKey) -> Option<IndexTarget> {
        let found = self.refs.find(spread(tag), |r| {
            r.tag == tag
                && match r.at & ALIAS {
                    0 => self.flows.get(r.at).is_some_and(|f| f.side(key).is_some()),
                    _ => self
                        .aliases
                        .get(r.at & !ALIAS)
                        .is_some_and(|a| a.reply == *key),
                }
        })?;
        match found.at & ALIAS {
            0 => Some(IndexTarget::Flow(found.at)),
            _ => {
                let alias = self.aliases.get(found.at & !ALIAS)?;
                Some(IndexTarget::Alias(alias.target))
            }
        }
    }

    /// Returns the counts of a link, and the index of its lists in this shard.
    pub(super) fn lists_of(&mut self, link: LinkIndex, census: &FlowQuota) -> u32 {
        let links = &mut self.links;
        *self.by_link.entry(link).or_insert_with(|| {
            links.push(LinkFlowLists::new(census.usage(link)));
            (links.len() - 1) as u32
        })
    }

    pub(super) fn usage(&self, lists: u32) -> Option<&std::sync::Arc<LinkUsage>> {
        Some(&self.links.get(lists as usize)?.usage)
    }

    /// Stores a flow that was admitted and is not in the shard.
    pub(super) fn store(&mut self, tag: u32, lists: u32, mut flow: FlowEntry<D>) -> FlowRef {
        flow.tag = tag;
        flow.lists = lists;
        let list = flow.list();
        let (at, generation) = self.flows.insert(flow);
        self.refs
            .insert_unique(spread(tag), IndexSlot { tag, at }, |r| r.hash());
        if let Some(lists) = self.links.get_mut(lists as usize) {
            lists.push(&mut self.flows, list, at);
        }
        FlowRef {
            shard: self.number,
            at,
            generation,
        }
    }

    /// Removes a flow; `leave` updates the counts of its link.
    pub(super) fn take(
        &mut self,
        at: u32,
        leave: impl FnOnce(&LinkUsage),
    ) -> Option<RemovedFlow<D>> {
        let (list, lists) = {
            let flow = self.flows.get(at)?;
            (flow.list(), flow.lists as usize)
        };
        let links = self.links.get_mut(lists)?;
        links.unlink(&mut self.flows, list, at);
        let flow = self.flows.remove(at)?;
        let generation = flow.generation;
        if let Ok(entry) = self.refs.find_entry(spread(flow.tag), |r| r.at == at) {
            entry.remove();
        }
        leave(&links.usage);
        Some(RemovedFlow {
            target: FlowRef {
                shard: self.number,
                at,
                generation,
            },
            alias: flow.rewritten().then_some(flow.reply),
            _decision: flow.decision,
        })
    }

    /// Adds an alias from `reply` to a flow of any shard.
    pub(super) fn add_alias(&mut self, tag: u32, reply: FlowKey, target: FlowRef) {
        let (at, _) = self.aliases.insert(AliasEntry {
            reply,
            target,
            generation: 0,
        });
        let at = at | ALIAS;
        self.refs
            .insert_unique(spread(tag), IndexSlot { tag, at }, |r| r.hash());
    }

    /// Removes the alias if it still refers to `target`.
    pub(super) fn remove_alias(&mut self, tag: u32, reply: &FlowKey, target: FlowRef) {
        let aliases = &self.aliases;
        let found = self.refs.find_entry(spread(tag), |r| {
            r.at & ALIAS != 0
                && aliases
                    .get(r.at & !ALIAS)
                    .is_some_and(|a| a.reply == *reply && a.target == target)
        });
        if let Ok(entry) = found {
            let at = entry.get().at;
            entry.remove();
            self.aliases.remove(at & !ALIAS);
        }
    }

    /// Whether a key of this shard refers to the flow here, and to nothing else.
    pub(super) fn leads_only_to(&self, tag: u32, key: &FlowKey, target: FlowRef) -> bool {
        self.is(target)
            && self.refs.iter_hash(spread(tag)).all(|r| {
                r.at == target.at
                    || match r.at & ALIAS {
                        0 => self.flows.get(r.at).is_none_or(|f| f.side(key).is_none()),
                        _ => self
                            .aliases
                            .get(r.at & !ALIAS)
                            .is_none_or(|a| a.reply != *key),
                    }
            })
    }

    #[inline]
    pub(super) fn is(&self, target: FlowRef) -> bool {
        self.flow(target).is_some()
    }

    /// Returns the flow, unless it is gone.
    #[inline]
    pub(super) fn flow(&self, target: FlowRef) -> Option<&FlowEntry<D>> {
        let flow = self.flows.get(target.at)?;
        (flow.generation == target.generation).then_some(flow)
    }

    /// Counts a packet of the flow.
    #[inline]
    pub(super) fn count(&mut self, at: u32, side: FlowDirection, seen: &PacketUpdate, now: Now) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        let list = flow.list();
        let number = side as usize;
        flow.packets[number] = flow.packets[number].saturating_add(seen.packets);
        flow.bytes[number] = flow.bytes[number].saturating_add(seen.bytes);
        flow.seen = flow.seen.max(now);
        flow.track.step(side, seen.tcp.as_ref(), &mut flow.sent);
        if flow.list() != list || now.since(flow.moved.moment()) >= MOVE_EVERY {
            self.relist(at, list);
        }
    }

    /// Moves a flow from `list` to the end of the list for its state.
    pub(super) fn relist(&mut self, at: u32, list: usize) {
        let Some(flow) = self.flows.get_mut(at) else {
            return;
        };
        flow.moved = Tenths::after(flow.seen);
        let (to, lists) = (flow.list(), flow.lists as usize);
        if let Some(lists) = self.links.get_mut(lists) {
            lists.unlink(&mut self.flows, list, at);
            lists.push(&mut self.flows, to, at);
        }
    }

    /// Returns the least recently used flow of a link and group.
    pub(super) fn oldest(&self, link: LinkIndex, group: EvictionPriority) -> Option<u32> {
        let lists = self.links.get(*self.by_link.get(&link)? as usize)?;
        (0..LISTS_PER_LINK)
            .filter(|&list| EvictionPriority::of_list(list) == group)
            .filter_map(|list| lists.oldest(list))
            .min_by_key(|&at| self.flows.get(at).map(|flow| flow.moved))
    }

    /// Removes expired flows, starting at the lists of link `from`, until `budget` flows were checked. Returns the
    /// link to continue with, or `None` after the last.
    pub(super) fn expire(
        &mut self,
        from: usize,
        mut budget: usize,
        timeouts: &AtomicTimeouts,
        now: Now,
        census: &FlowQuota,
        out: &mut Vec<RemovedFlow<D>>,
    ) -> Option<usize> {
        for lists in from..self.links.len() {
            // Even links without flows take time to check.
            budget = budget.saturating_sub(1);
            for list in 0..LISTS_PER_LINK {
                while let Some(at) = self.links[lists].oldest(list) {
                    let flow = self.flows.get(at)?;
                    if timeouts.end(list, flow.moved.moment()) > now {
                        break;
                    }
                    if budget == 0 {
                        return Some(lists);
                    }
                    budget -= 1;
                    if flow.is_over(timeouts, now) {
                        out.extend(self.take(at, |usage| census.leave(usage)));
                    } else {
                        self.relist(at, list);
                    }
                }
            }
            if budget == 0 && lists + 1 < self.links.len() {
                return Some(lists + 1);
            }
        }
        None
    }

    /// Counts the flows in the lists of all links and verifies the links between them; for tests.
    #[cfg(test)]
    pub(super) fn listed(&self) -> usize {
        let lists = self
            .links
            .iter()
            .flat_map(|l| (0..LISTS_PER_LINK).map(move |n| (l, n)));
        lists
            .map(|(l, n)| l.walk(&self.flows, n, |flow| assert_eq!(flow.list(), n)))
            .sum()
    }

    #[cfg(test)]
    pub(super) fn aliases(&self) -> usize {
        (0..self.aliases.end())
            .filter(|&at| self.aliases.get(at).is_some())
            .count()
    }
}

const _: () = assert!(
    LIST_END & ALIAS != 0,
    "the end of a list is no flow's number"
);
