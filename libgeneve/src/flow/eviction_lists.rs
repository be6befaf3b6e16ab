//! Eviction and expiry order of one link's flows in one shard.
//!
//! There is one intrusive list per state, oldest flow first. All flows of a list have the same timeout, so only the
//! heads need checking. Eviction takes from groups of lists.

use std::sync::Arc;

use super::quota::LinkUsage;
use super::slab::{Slab, SlabItem};
use super::tcp::FlowState;

/// Lists per link and shard: that of refused flows, then one for each [`FlowState`].
pub(super) const LISTS_PER_LINK: usize = FlowState::ALL.len() + 1;
/// List of refused flows.
pub(super) const REFUSED_LIST: usize = 0;
/// End of a list.
pub(super) const LIST_END: u32 = u32::MAX;

/// Flows of equal eviction priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum EvictionPriority {
    Refused,
    Closed,
    HalfOpen,
    Datagram,
    FinWait,
    Established,
}

pub(super) const GROUPS: usize = 6;

/// Returns the list of a flow in `state`.
#[inline]
pub(super) const fn list_of(state: FlowState, refused: bool) -> usize {
    if refused {
        REFUSED_LIST
    } else {
        state as usize + 1
    }
}

impl EvictionPriority {
    #[inline]
    pub(super) fn of_list(list: usize) -> EvictionPriority {
        match list
            .checked_sub(1)
            .and_then(|state| FlowState::ALL.get(state))
        {
            None => EvictionPriority::Refused,
            Some(FlowState::Closed) => EvictionPriority::Closed,
            Some(FlowState::SynSent | FlowState::SynReceived | FlowState::PickedUp) => {
                EvictionPriority::HalfOpen
            }
            Some(FlowState::Udp | FlowState::UdpReplied | FlowState::Icmp | FlowState::Other) => {
                EvictionPriority::Datagram
            }
            Some(FlowState::FinWait) => EvictionPriority::FinWait,
            Some(FlowState::Established) => EvictionPriority::Established,
        }
    }
}

/// Links of a flow in its list.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListLinks {
    prev: u32,
    next: u32,
}

impl ListLinks {
    pub(super) const ALONE: ListLinks = ListLinks {
        prev: LIST_END,
        next: LIST_END,
    };
}

/// Member of an intrusive list.
pub(super) trait ListNode: SlabItem {
    fn neighbours(&mut self) -> &mut ListLinks;
}

#[derive(Clone, Copy, Debug)]
struct ListEnds {
    head: u32,
    tail: u32,
}

/// Lists of one link.
#[derive(Debug)]
pub(super) struct LinkFlowLists {
    pub(super) usage: Arc<LinkUsage>,
    ends: [ListEnds; LISTS_PER_LINK],
}

impl LinkFlowLists {
    pub(super) fn new(usage: Arc<LinkUsage>) -> Self {
        let empty = ListEnds {
            head: LIST_END,
            tail: LIST_END,
        };
        LinkFlowLists {
            usage,
            ends: [empty; LISTS_PER_LINK],
        }
    }

    /// Returns the flow that was moved to the end of its list longest ago.
    #[inline]
    pub(super) fn oldest(&self, list: usize) -> Option<u32> {
        Some(self.ends[list].head).filter(|&at| at != LIST_END)
    }

    pub(super) fn push<T: ListNode>(&mut self, slab: &mut Slab<T>, list: usize, at: u32) {
        let tail = self.ends[list].tail;
        if let Some(flow) = slab.get_mut(at) {
            *flow.neighbours() = ListLinks {
                prev: tail,
                next: LIST_END,
            };
        }
        match slab.get_mut(tail) {
            Some(last) => last.neighbours().next = at,
            None => self.ends[list].head = at,
        }
        self.ends[list].tail = at;
        self.usage.joined(EvictionPriority::of_list(list));
    }

    pub(super) fn unlink<T: ListNode>(&mut self, slab: &mut Slab<T>, list: usize, at: u32) {
        let Some(flow) = slab.get_mut(at) else { return };
        let ListLinks { prev, next } = std::mem::replace(flow.neighbours(), ListLinks::ALONE);
        match slab.get_mut(prev) {
            Some(flow) => flow.neighbours().next = next,
            None => self.ends[list].head = next,
        }
        match slab.get_mut(next) {
            Some(flow) => flow.neighbours().prev = prev,
            None => self.ends[list].tail = prev,
        }
        self.usage.left(EvictionPriority::of_list(list));
    }

    /// Calls `check` for each flow of a list, verifies the list's links, and returns the number of flows.
    #[cfg(test)]
    pub(super) fn walk<D>(
        &self,
        slab: &Slab<super::shard::FlowEntry<D>>,
        list: usize,
        check: impl Fn(&super::shard::FlowEntry<D>),
    ) -> usize {
        let (mut at, mut prev, mut count) = (self.ends[list].head, LIST_END, 0);
        while let Some(flow) = slab.get(at) {
            assert_eq!(flow.place_in_list().prev, prev);
            check(flow);
            (prev, at, count) = (at, flow.place_in_list().next, count + 1);
        }
        assert_eq!((at, self.ends[list].tail), (LIST_END, prev));
        count
    }
}
