//! What the packet path remembers from one packet to the next: flows, fragments, and the headers that flows share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::change::Change;
use super::log::Log;
use crate::drop::DropReason;
use crate::flow::{FlowTable, Fragments, Limits, Side};
use crate::link::{Host, LinkIndex, Tables};
use crate::nat::Lease;
use crate::options::ServiceOption;
use crate::policy::RuleId;
use crate::qos::{Bucket, Class, take_all};
use crate::time::Now;
use crate::wire::header::HeaderBytes;

/// Headers that are shared at once; beyond them a flow has its own.
const SHARED_HEADERS: usize = 4096;

/// Fragmented packets whose first fragment is remembered at once.
const FRAGMENTED_PACKETS: usize = 8192;

/// What all workers of a daemon share and write.
#[derive(Debug)]
pub struct State {
    /// Every flow, and what was decided for it.
    pub flows: FlowTable<Decision>,
    /// First fragments, by which later ones find their flow.
    pub fragments: Fragments,
    /// Flows that a rule wants to be in the log.
    pub log: Log,
    headers: Mutex<HashSet<Arc<HeaderBytes>>>,
}

impl State {
    /// An empty state. `key` is secret, so that nobody outside can pile flows on one place.
    #[must_use]
    pub fn new(limits: Limits, key: [u64; 2]) -> State {
        State {
            flows: FlowTable::new(limits, key),
            fragments: Fragments::new(FRAGMENTED_PACKETS, key),
            log: Log::default(),
            headers: Mutex::default(),
        }
    }

    /// The one copy of this header that flows share.
    pub(super) fn share(&self, header: HeaderBytes) -> Arc<HeaderBytes> {
        let mut headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = headers.get(&header) {
            return Arc::clone(shared);
        }
        if headers.len() >= SHARED_HEADERS {
            headers.retain(|shared| Arc::strong_count(shared) > 1);
        }
        let shared = Arc::new(header);
        if headers.len() < SHARED_HEADERS {
            headers.insert(Arc::clone(&shared));
        }
        shared
    }

    /// Ends what is over; to be called every second or so. Returns how many flows ended.
    pub fn expire(&self, now: Now) -> u64 {
        self.flows.expire(now)
    }
}

/// What a packet's fate depends on, besides the packet.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The configuration in force.
    pub tables: &'a Tables,
    /// What earlier packets left.
    pub state: &'a State,
    /// The time.
    pub now: Now,
}

/// Where the packets of one side of a flow come from.
#[derive(Clone, Debug, Default)]
pub enum Came {
    /// None was seen yet.
    #[default]
    Nowhere,
    /// From the TUN interface of the link.
    Tun,
    /// From this host.
    Wire(Arc<Host>),
}

/// The way over the underlay.
#[derive(Clone, Debug)]
pub struct Way {
    /// The link whose VPC the packet travels in.
    pub link: LinkIndex,
    /// The host that it is sent to.
    pub host: Arc<Host>,
    /// The Geneve header that goes before each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// The flow's hash: chooses the source port.
    pub hash: u64,
    /// Known options in `encap`, a bit for each slot of the schema.
    pub slots: u32,
}

/// Where the packets of one side of a flow go.
#[derive(Clone, Debug, Default)]
pub enum Exit {
    /// None was seen yet, so nothing is decided.
    #[default]
    Undecided,
    /// Into the TUN interface of this link.
    Tun(LinkIndex),
    /// To another host.
    Wire(Way),
}

/// The rates and the marks of one side of a flow.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// The buckets of link, endpoint and class; each must have room.
    pub buckets: [Option<Arc<Bucket>>; 3],
    /// The outer DSCP, 0 to 63, where the class has one.
    pub dscp: Option<u8>,
    /// Drop precedence, 0 (last to be dropped) to 2.
    pub precedence: u8,
    /// The class that counts its packets.
    pub class: Option<Arc<Class>>,
}

impl Meter {
    /// Whether `bytes` are within every rate; if so, they are paid for.
    #[inline]
    pub(super) fn admits(&self, bytes: u64, now: Now) -> bool {
        let buckets = self.buckets.iter().flatten().map(Arc::as_ref);
        let admitted = take_all(buckets, bytes, now, self.precedence);
        if let Some(class) = &self.class {
            class.tally.count(bytes, admitted);
        }
        admitted
    }
}

/// What is decided for one side of a flow.
#[derive(Clone, Debug, Default)]
pub struct Half {
    /// Where its packets must come from.
    pub came: Came,
    /// Where they go.
    pub exit: Exit,
    /// Rates and marks, where there are any.
    pub meter: Option<Arc<Meter>>,
    /// Of the options that its packets carry: others ask for another decision.
    pub digest: u64,
}

/// Whether a flow is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is.
    Forward,
    /// It is dropped for this reason.
    Drop(DropReason),
    /// It is dropped, and its sender is told.
    Reject,
}

/// What was decided for a flow.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether it is forwarded.
    pub fate: Fate,
    /// What is decided for the packets of each [`Side`].
    pub halves: [Half; 2],
    /// It was forwarded before the configuration or its sender's options changed: its replies are dropped with it.
    pub cut: bool,
    /// The port that source NAT lent it.
    pub lease: Option<Lease>,
    /// The virtual address that a client asked for, on the host of the backend (direct server return).
    pub service: Option<Box<ServiceOption>>,
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// The QoS class.
    pub class: Option<u8>,
    /// Type and code of the ICMP message that began it.
    pub icmp: Option<(u8, u8)>,
    /// The Geneve header of the packet that began it, where it came from the wire: what the flow is decided by again
    /// when the configuration changes.
    pub header: Option<Arc<HeaderBytes>>,
}

impl Decision {
    /// The half of this side.
    #[inline]
    #[must_use]
    pub fn half(&self, side: Side) -> &Half {
        &self.halves[side as usize]
    }

    pub(super) fn half_mut(&mut self, side: Side) -> &mut Half {
        &mut self.halves[side as usize]
    }
}

/// What one packet of a decided flow gets.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) exit: Exit,
    pub(super) meter: Option<Arc<Meter>>,
    pub(super) change: Change,
}

/// Where a packet came from, as the flow table is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum From<'a> {
    Tun,
    Wire(&'a Arc<Host>),
}

impl From<'_> {
    #[inline]
    pub(super) fn is(self, came: &Came) -> bool {
        match (self, came) {
            (From::Tun, Came::Tun) => true,
            (From::Wire(host), Came::Wire(known)) => host.id == known.id,
            _ => false,
        }
    }

    pub(super) fn came(self) -> Came {
        match self {
            From::Tun => Came::Tun,
            From::Wire(host) => Came::Wire(Arc::clone(host)),
        }
    }
}
