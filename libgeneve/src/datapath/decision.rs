//! What the packet path remembers from one packet to the next: flows, fragments, and the headers that flows share.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::flow_log::FlowLog;
use super::intern::Interner;
use super::neighbor_discovery::NeighborRequest;
use super::packet_rewrite::PacketRewrite;
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowLimits, FlowTable, Fragments, PathMtus};
use crate::nat::{Identifications, PortLease};
use crate::options::ServiceOption;
use crate::policy::RuleId;
use crate::qos::{Bucket, Meter};
use crate::recent_sends::RecentSends;
use crate::time::Now;
use crate::vpc::{Host, Link, LinkIndex, NeighborUse, Tables};
use crate::wire::header::HeaderBytes;
use crate::wire::packet::Packet;

/// Headers that are shared at once; beyond them a flow has its own.
const SHARED_HEADERS: usize = 4096;

/// Halves of decisions that are shared at once: those of so many pairs of endpoints that differ in more than addresses.
const SHARED_HALVES: usize = 65_536;

/// Fragmented packets whose first fragment is remembered at once.
const FRAGMENTED_PACKETS: usize = 8192;

/// Questions for MAC addresses that wait to be put.
const MAX_NEIGHBOR_REQUESTS: usize = 256;

/// What all workers of a daemon share and write.
#[derive(Debug)]
pub struct SharedState {
    /// Every flow, and what was decided for it.
    pub flows: FlowTable<FlowDecision>,
    /// First fragments, by which later ones find their flow.
    pub fragments: Fragments,
    /// What IPv4 packets with another source are told apart by.
    pub(super) identifications: Identifications,
    /// How narrow the ways are behind interfaces, here and on other hosts.
    pub path_mtus: PathMtus,
    /// What left for other hosts lately.
    pub sent: RecentSends,
    /// Flows that a rule wants to be in the log.
    pub log: FlowLog,
    headers: Interner<HeaderBytes>,
    halves: Interner<DirectionState>,
    questions: Mutex<VecDeque<NeighborRequest>>,
}

impl SharedState {
    /// An empty state. `key` is secret, so that nobody outside can pile flows on one place.
    #[must_use]
    pub fn new(limits: FlowLimits, key: [u64; 2]) -> SharedState {
        SharedState {
            flows: FlowTable::new(limits, key),
            fragments: Fragments::new(FRAGMENTED_PACKETS, key),
            identifications: Identifications::new(key),
            path_mtus: PathMtus::new(key),
            sent: RecentSends::new(key),
            log: FlowLog::default(),
            headers: Interner::new(SHARED_HEADERS),
            halves: Interner::new(SHARED_HALVES),
            questions: Mutex::default(),
        }
    }

    /// Notes a question to put; one too many is forgotten.
    pub(super) fn ask(&self, ask: NeighborRequest) {
        let mut questions = self.questions();
        if questions.len() < MAX_NEIGHBOR_REQUESTS {
            questions.push_back(ask);
        }
    }

    /// The next question to put, by [`neighbor_question`](super::neighbor_question).
    pub fn question(&self) -> Option<NeighborRequest> {
        self.questions().pop_front()
    }

    /// Whether there is any.
    #[must_use]
    pub fn has_questions(&self) -> bool {
        !self.questions().is_empty()
    }

    fn questions(&self) -> MutexGuard<'_, VecDeque<NeighborRequest>> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a receiver takes the segments of a super-packet to be that it gets uncut: as long as its link's MTU, which
    /// is ours, or as what ICMP told both of the way behind it.
    #[inline]
    #[must_use]
    pub fn segments_taken(&self, link: &Link, packet: &Packet, now: Now) -> u16 {
        let (index, mtu) = (link.config.index, link.config.mtu);
        let told = self.path_mtus.mtu(index, packet.dst, now);
        told.map_or(mtu, |told| told.min(mtu))
    }

    /// The one copy of this header that flows share.
    pub(super) fn share(&self, header: HeaderBytes) -> Arc<HeaderBytes> {
        self.headers.intern(header)
    }

    /// The one copy of this half that flows share.
    pub(super) fn intern_direction(&self, direction_state: DirectionState) -> Arc<DirectionState> {
        self.halves.intern(direction_state)
    }

    /// Ends what is over; to be called every second or so. Returns how many flows ended.
    pub fn expire(&self, now: Now) -> u64 {
        let ended = self.flows.expire(now);
        self.halves.tidy();
        self.headers.tidy();
        ended
    }
}

/// What a packet's fate depends on, besides the packet.
#[derive(Clone, Copy, Debug)]
pub struct PacketContext<'a> {
    /// The configuration in force.
    pub tables: &'a Tables,
    /// What earlier packets left.
    pub state: &'a SharedState,
    /// The time.
    pub now: Now,
}

/// Where the packets of one side of a flow come from.
#[derive(Clone, Debug, Default)]
pub enum ExpectedInput {
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
pub struct TunnelNextHop {
    /// The link whose VPC the packet travels in.
    pub link: LinkIndex,
    /// The host that it is sent to.
    pub host: Arc<Host>,
    /// The Geneve header that goes before each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// Known options in `encap`, a bit for each slot of the schema.
    pub slots: u32,
    /// The neighbour whose MAC address is in `encap`, where one was learned.
    pub neighbor: Option<NeighborUse>,
}

/// What goes before the frames of one side of a flow, whichever host gets them.
#[derive(Clone, Debug)]
pub struct FramePrefix {
    /// The link whose VPC they travel in.
    pub link: LinkIndex,
    /// The Geneve header that goes before each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// Known options in `encap`, a bit for each slot of the schema.
    pub slots: u32,
}

/// Where the packets of one side of a flow go.
#[derive(Clone, Debug, Default)]
pub enum NextHop {
    /// None was seen yet, so nothing is decided.
    #[default]
    Undecided,
    /// Into the TUN interface of this link.
    Tun(LinkIndex),
    /// To another host.
    Wire(TunnelNextHop),
    /// To where the MAC address of its frame says: the link is a bridge.
    Bridge(FramePrefix),
}

/// What is decided for one side of a flow, but for the flow's own numbers: equal ones are shared by flows.
#[derive(Clone, Debug, Default)]
pub struct DirectionState {
    /// Where its packets must come from.
    pub expected_input: ExpectedInput,
    /// Where they go.
    pub next_hop: NextHop,
    /// Rates and marks, where there are any.
    pub meter: Option<Arc<Meter>>,
    /// Of the options that its packets carry: others ask for another decision.
    pub digest: u64,
    /// The virtual address that a client asked for, on the host of the backend (direct server return).
    pub service: Option<ServiceOption>,
    /// The header of the packet that began the flow, where it came from the wire: what the flow is decided by again
    /// when the configuration changes.
    pub header: Option<Arc<HeaderBytes>>,
}

impl DirectionState {
    const UNDECIDED: &DirectionState = &DirectionState {
        expected_input: ExpectedInput::Nowhere,
        next_hop: NextHop::Undecided,
        meter: None,
        digest: 0,
        service: None,
        header: None,
    };

    /// What makes it what it is. Things that are shared themselves are told apart by where they are.
    fn identity(&self) -> impl Eq + Hash + '_ {
        let at = |host: &Arc<Host>| Arc::as_ptr(host).addr();
        let expected_input = match &self.expected_input {
            ExpectedInput::Nowhere => (0, 0),
            ExpectedInput::Tun => (1, 0),
            ExpectedInput::Wire(host) => (2, at(host)),
        };
        let next_hop = match &self.next_hop {
            NextHop::Undecided => (0, LinkIndex(0), 0, 0, 0, 0),
            NextHop::Tun(link) => (1, *link, 0, 0, 0, 0),
            NextHop::Wire(tunnel) => {
                let encap = Arc::as_ptr(&tunnel.encap).addr();
                let neighbor = tunnel.neighbor.as_ref().map_or(0, NeighborUse::id);
                (
                    2,
                    tunnel.link,
                    at(&tunnel.host),
                    encap,
                    tunnel.slots,
                    neighbor,
                )
            }
            NextHop::Bridge(prefix) => {
                let encap = Arc::as_ptr(&prefix.encap).addr();
                (3, prefix.link, 0, encap, prefix.slots, 0)
            }
        };
        let meter = self.meter.as_ref().map(|meter| {
            let place = |bucket: &Arc<Bucket>| Arc::as_ptr(bucket).addr();
            let buckets = meter.buckets.each_ref().map(|b| b.as_ref().map(place));
            let class = meter.class.as_ref().map(|class| Arc::as_ptr(class).addr());
            (buckets, meter.dscp, meter.precedence, class)
        });
        let header = self
            .header
            .as_ref()
            .map(|header| Arc::as_ptr(header).addr());
        (
            expected_input,
            next_hop,
            meter,
            self.digest,
            self.service,
            header,
        )
    }
}

impl PartialEq for DirectionState {
    fn eq(&self, other: &DirectionState) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for DirectionState {}

impl Hash for DirectionState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// Whether a flow is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Forward,
    /// It is dropped for this reason.
    Drop(DropReason),
    /// It is dropped, and its sender is told.
    Reject,
}

/// What was decided for a flow. A table may hold millions: what many flows have alike is shared.
#[derive(Clone, Debug)]
pub struct FlowDecision {
    /// Whether it is forwarded.
    pub verdict: Verdict,
    /// It was forwarded before the configuration or its sender's options changed: its replies are dropped with it.
    pub cut: bool,
    /// The QoS class.
    pub class: Option<u8>,
    /// Type and code of the ICMP message that began it.
    pub icmp: Option<(u8, u8)>,
    /// What is decided for the packets of each [`FlowDirection`]; `None` where none was seen yet.
    pub(super) directions: [Option<Arc<DirectionState>>; 2],
    /// The hash of each side: chooses the source port.
    pub(super) hashes: [u32; 2],
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// The port that source NAT lent it.
    pub lease: Option<PortLease>,
    /// When somebody answered in the name of a service, in seconds.
    pub(super) heard: u32,
}

const _: () = assert!(
    size_of::<FlowDecision>() <= 64,
    "one cache line for each flow"
);

impl FlowDecision {
    /// The half of this side.
    #[inline]
    #[must_use]
    pub fn direction(&self, side: FlowDirection) -> &DirectionState {
        let direction_state = self.directions[side as usize].as_deref();
        direction_state.unwrap_or(DirectionState::UNDECIDED)
    }

    pub(super) fn set_direction(&mut self, side: FlowDirection, decided: DecidedDirection) {
        self.directions[side as usize] = Some(decided.direction_state);
        self.hashes[side as usize] = decided.hash;
    }

    pub(super) fn forget_direction(&mut self, side: FlowDirection) {
        self.directions[side as usize] = None;
    }
}

/// A half that was decided, for one flow.
#[derive(Clone, Debug)]
pub(super) struct DecidedDirection {
    pub(super) direction_state: Arc<DirectionState>,
    pub(super) hash: u32,
}

/// What one packet of a decided flow gets.
#[derive(Clone, Debug)]
pub(super) struct CachedVerdict {
    pub(super) direction_state: Arc<DirectionState>,
    pub(super) hash: u32,
    pub(super) change: PacketRewrite,
    /// It is the table's, so that the packets that follow may have it, too.
    pub(super) lasts: bool,
}

/// Where a packet came from; `H` is what is said of a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<H> {
    /// The TUN or TAP interface of its link.
    Link,
    /// Another host.
    Host(H),
}

impl Input<&Arc<Host>> {
    #[inline]
    pub(super) fn is(self, expected_input: &ExpectedInput) -> bool {
        match (self, expected_input) {
            (Input::Link, ExpectedInput::Tun) => true,
            (Input::Host(host), ExpectedInput::Wire(known)) => host.id == known.id,
            _ => false,
        }
    }

    pub(super) fn expected_input(self) -> ExpectedInput {
        match self {
            Input::Link => ExpectedInput::Tun,
            Input::Host(host) => ExpectedInput::Wire(Arc::clone(host)),
        }
    }
}
