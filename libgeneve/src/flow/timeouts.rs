//! Idle timeouts of flows.

use std::time::Duration;

use super::eviction_lists::{LISTS_PER_LINK, REFUSED_LIST};
use super::tcp::FlowState;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::time::Now;

/// Idle times after which a flow ends. The defaults are those of Linux connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connection of which only one end has been seen. 120 s.
    pub syn: Duration,
    /// TCP connection whose SYN was answered but not yet confirmed. 60 s.
    pub syn_ack: Duration,
    /// Established TCP connection. 5 days.
    pub established: Duration,
    /// TCP connection closed by one end. 120 s.
    pub fin: Duration,
    /// TCP connection closed by both ends, or reset. 10 s.
    pub closed: Duration,
    /// Unanswered UDP. 30 s.
    pub udp: Duration,
    /// Answered UDP. 120 s.
    pub udp_replied: Duration,
    /// ICMP and ICMPv6. 30 s.
    pub icmp: Duration,
    /// Any other protocol. 600 s.
    pub other: Duration,
    /// Refused flow of any protocol. 30 s.
    pub refused: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            syn: Duration::from_secs(120),
            syn_ack: Duration::from_secs(60),
            established: Duration::from_secs(5 * 24 * 3600),
            fin: Duration::from_secs(120),
            closed: Duration::from_secs(10),
            udp: Duration::from_secs(30),
            udp_replied: Duration::from_secs(120),
            icmp: Duration::from_secs(30),
            other: Duration::from_secs(600),
            refused: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// Returns the idle timeout of a flow in `state`.
    #[must_use]
    pub fn of(&self, state: FlowState) -> Duration {
        match state {
            FlowState::SynSent | FlowState::PickedUp => self.syn,
            FlowState::SynReceived => self.syn_ack,
            FlowState::Established => self.established,
            FlowState::FinWait => self.fin,
            FlowState::Closed => self.closed,
            FlowState::Udp => self.udp,
            FlowState::UdpReplied => self.udp_replied,
            FlowState::Icmp => self.icmp,
            FlowState::Other => self.other,
        }
    }
}

/// Current timeouts, in nanoseconds by list, readable without a lock.
#[derive(Debug, Default)]
pub(super) struct AtomicTimeouts([AtomicU64; LISTS_PER_LINK]);

impl AtomicTimeouts {
    pub(super) fn set(&self, timeouts: &Timeouts) {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.0[REFUSED_LIST].store(nanos(timeouts.refused), Relaxed);
        for (slot, state) in self.0[REFUSED_LIST + 1..].iter().zip(FlowState::ALL) {
            slot.store(nanos(timeouts.of(state)), Relaxed);
        }
    }

    pub(super) fn of(&self, list: usize) -> Duration {
        Duration::from_nanos(self.0[list].load(Relaxed))
    }

    /// Returns when a flow of this list that was last seen at `seen` ends.
    #[inline]
    pub(super) fn end(&self, list: usize, seen: Now) -> Now {
        Now(seen.0.saturating_add(self.0[list].load(Relaxed)))
    }
}
