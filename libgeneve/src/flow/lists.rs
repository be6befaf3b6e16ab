//! The order in which flows of one link, in one shard, are given up.
//!
//! Flows of one state are one list, oldest first: all of a list have one timeout, so only heads need
//! to be looked at. Eviction takes from groups of lists. The links of a list run through the flows.

use std::sync::Arc;

use super::share::Usage;
use super::slab::{Placed, Slab};
use super::tcp::State;

/// Lists per link and shard: that of refused flows, then one for each [`State`].
pub(super) const LISTS: usize = State::ALL.len() + 1;
/// The list of refused flows.
pub(super) const REFUSED: usize = 0;
/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Flows that are worth the same when room is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Group {
    Refused,
    Closed,
    HalfOpen,
    Datagram,
    FinWait,
    Established,
}

pub(super) const GROUPS: usize = 6;

/// The list of a flow in `state`.
#[inline]
pub(super) const fn list_of(state: State, refused: bool) -> usize {
    if refused { REFUSED } else { state as usize + 1 }
}

impl Group {
    #[inline]
    pub(super) fn of_list(list: usize) -> Group {
        match list.checked_sub(1).and_then(|state| State::ALL.get(state)) {
            None => Group::Refused,
            Some(State::Closed) => Group::Closed,
            Some(State::SynSent | State::SynReceived | State::PickedUp) => Group::HalfOpen,
            Some(State::Udp | State::UdpReplied | State::Icmp | State::Other) => Group::Datagram,
            Some(State::FinWait) => Group::FinWait,
            Some(State::Established) => Group::Established,
        }
    }
}

/// A flow's neighbours in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours {
    prev: u32,
    next: u32,
}

impl Neighbours {
    pub(super) const ALONE: Neighbours = Neighbours {
        prev: NONE,
        next: NONE,
    };
}

/// What is in a list.
pub(super) trait Linked: Placed {
    fn neighbours(&mut self) -> &mut Neighbours;
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    head: u32,
    tail: u32,
}

/// The lists of one link.
#[derive(Debug)]
pub(super) struct LinkLists {
    pub(super) usage: Arc<Usage>,
    ends: [Ends; LISTS],
}

impl LinkLists {
    pub(super) fn new(usage: Arc<Usage>) -> Self {
        let empty = Ends {
            head: NONE,
            tail: NONE,
        };
        LinkLists {
            usage,
            ends: [empty; LISTS],
        }
    }

    /// The flow that was moved to the end longest ago.
    #[inline]
    pub(super) fn oldest(&self, list: usize) -> Option<u32> {
        Some(self.ends[list].head).filter(|&at| at != NONE)
    }

    pub(super) fn push<T: Linked>(&mut self, slab: &mut Slab<T>, list: usize, at: u32) {
        let tail = self.ends[list].tail;
        if let Some(flow) = slab.get_mut(at) {
            *flow.neighbours() = Neighbours {
                prev: tail,
                next: NONE,
            };
        }
        match slab.get_mut(tail) {
            Some(last) => last.neighbours().next = at,
            None => self.ends[list].head = at,
        }
        self.ends[list].tail = at;
        self.usage.joined(Group::of_list(list));
    }

    pub(super) fn unlink<T: Linked>(&mut self, slab: &mut Slab<T>, list: usize, at: u32) {
        let Some(flow) = slab.get_mut(at) else { return };
        let Neighbours { prev, next } = std::mem::replace(flow.neighbours(), Neighbours::ALONE);
        match slab.get_mut(prev) {
            Some(flow) => flow.neighbours().next = next,
            None => self.ends[list].head = next,
        }
        match slab.get_mut(next) {
            Some(flow) => flow.neighbours().prev = prev,
            None => self.ends[list].tail = prev,
        }
        self.usage.left(Group::of_list(list));
    }

    /// Calls `check` for each flow of a list whose neighbours agree; gives their number.
    #[cfg(test)]
    pub(super) fn walk<D>(
        &self,
        slab: &Slab<super::shard::Flow<D>>,
        list: usize,
        check: impl Fn(&super::shard::Flow<D>),
    ) -> usize {
        let (mut at, mut prev, mut count) = (self.ends[list].head, NONE, 0);
        while let Some(flow) = slab.get(at) {
            assert_eq!(flow.place_in_list().prev, prev);
            check(flow);
            (prev, at, count) = (at, flow.place_in_list().next, count + 1);
        }
        assert_eq!((at, self.ends[list].tail), (NONE, prev));
        count
    }
}
