//! Datapath state shared across packets: the flow table, fragments, and interned headers and direction states.

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

/// Maximum number of interned headers; beyond it each flow has its own.
const SHARED_HEADERS: usize = 4096;

/// Maximum number of interned direction states, one for each pair of endpoints that differs in more than addresses.
const SHARED_HALVES: usize = 65_536;

/// Maximum number of fragmented packets whose first fragment is tracked.
const FRAGMENTED_PACKETS: usize = 8192;

/// Maximum number of queued neighbour requests.
const MAX_NEIGHBOR_REQUESTS: usize = 256;

/// Mutable state shared by all workers.
#[derive(Debug)]
pub struct SharedState {
    /// Flow table.
    pub flows: FlowTable<FlowDecision>,
    /// First fragments, by which later ones find their flow.
    pub fragments: Fragments,
    /// IPv4 identifications for packets whose source address was translated.
    pub(super) identifications: Identifications,
    /// Path MTUs behind interfaces, of this host and of others.
    pub path_mtus: PathMtus,
    /// Datagrams recently sent to other hosts.
    pub sent: RecentSends,
    /// Flows to be logged by a rule.
    pub log: FlowLog,
    headers: Interner<HeaderBytes>,
    halves: Interner<DirectionState>,
    questions: Mutex<VecDeque<NeighborRequest>>,
}

impl SharedState {
    /// Returns an empty state. `key` is secret, so that outsiders cannot provoke hash collisions in the flow table.
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

    /// Queues a neighbour request; drops it if the queue is full.
    pub(super) fn ask(&self, ask: NeighborRequest) {
        let mut questions = self.questions();
        if questions.len() < MAX_NEIGHBOR_REQUESTS {
            questions.push_back(ask);
        }
    }

    /// Returns the next neighbour request to send, for [`neighbor_question`](super::neighbor_question).
    pub fn question(&self) -> Option<NeighborRequest> {
        self.questions().pop_front()
    }

    /// Whether any neighbour request is queued.
    #[must_use]
    pub fn has_questions(&self) -> bool {
        !self.questions().is_empty()
    }

    fn questions(&self) -> MutexGuard<'_, VecDeque<NeighborRequest>> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the segment size that the receiver of an uncut super-packet assumes: the link's MTU, which is the same
    /// on both hosts, or a path MTU behind it that ICMP reported to both.
    #[inline]
    #[must_use]
    pub fn segments_taken(&self, link: &Link, packet: &Packet, now: Now) -> u16 {
        let (index, mtu) = (link.config.index, link.config.mtu);
        let told = self.path_mtus.mtu(index, packet.dst, now);
        told.map_or(mtu, |told| told.min(mtu))
    }

    /// Returns the interned copy of this header.
    pub(super) fn share(&self, header: HeaderBytes) -> Arc<HeaderBytes> {
        self.headers.intern(header)
    }

    /// Returns the interned copy of this direction state.
    pub(super) fn intern_direction(&self, direction_state: DirectionState) -> Arc<DirectionState> {
        self.halves.intern(direction_state)
    }

    /// Expires flows and interned values; call about once a second. Returns the number of expired flows.
    pub fn expire(&self, now: Now) -> u64 {
        let ended = self.flows.expire(now);
        self.halves.tidy();
        self.headers.tidy();
        ended
    }
}

/// Everything besides the packet that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct PacketContext<'a> {
    /// Active configuration.
    pub tables: &'a Tables,
    /// State left by earlier packets.
    pub state: &'a SharedState,
    /// Current time.
    pub now: Now,
}

/// Input of one direction of a flow.
#[derive(Clone, Debug, Default)]
pub enum ExpectedInput {
    /// No packet of this direction has been seen.
    #[default]
    Nowhere,
    /// TUN interface of the link.
    Tun,
    /// Host that sends them.
    Wire(Arc<Host>),
}

/// Next hop over the underlay.
#[derive(Clone, Debug)]
pub struct TunnelNextHop {
    /// Link in whose VPC the packet travels.
    pub link: LinkIndex,
    /// Destination host.
    pub host: Arc<Host>,
    /// Geneve header prepended to each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// Known options in `encap`, one bit per schema slot.
    pub slots: u32,
    /// Learned neighbour whose MAC address is in `encap`, if any.
    pub neighbor: Option<NeighborUse>,
}

/// Encapsulation header of the frames of one flow direction, independent of the destination host.
#[derive(Clone, Debug)]
pub struct FramePrefix {
    /// Link in whose VPC they travel.
    pub link: LinkIndex,
    /// Geneve header prepended to each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// Known options in `encap`, one bit per schema slot.
    pub slots: u32,
}

/// Next hop of one flow direction.
#[derive(Clone, Debug, Default)]
pub enum NextHop {
    /// No packet of this direction has been seen, so nothing is decided.
    #[default]
    Undecided,
    /// TUN interface of this link.
    Tun(LinkIndex),
    /// Another host.
    Wire(TunnelNextHop),
    /// Chosen by the frame's destination MAC address: the link is a bridge.
    Bridge(FramePrefix),
}

/// Decision for one flow direction, without flow-specific numbers, so that flows can share equal ones.
#[derive(Clone, Debug, Default)]
pub struct DirectionState {
    /// Required input of its packets.
    pub expected_input: ExpectedInput,
    /// Next hop.
    pub next_hop: NextHop,
    /// Rate limits and marks, if any.
    pub meter: Option<Arc<Meter>>,
    /// Digest of the options its packets carry; packets with other options need a new decision.
    pub digest: u64,
    /// Virtual address the client asked for; set on the backend's host (direct server return).
    pub service: Option<ServiceOption>,
    /// Header of the flow's first packet if it came from the wire: needed to decide the flow again when the
    /// configuration changes.
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

    /// Identity for interning; shared `Arc`s compare by pointer.
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

/// Verdict on a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward.
    Forward,
    /// Drop for this reason.
    Drop(DropReason),
    /// Drop and notify the sender.
    Reject,
}

/// Decision for a flow. A table may hold millions of these, so parts that many flows have in common are interned.
#[derive(Clone, Debug)]
pub struct FlowDecision {
    /// Verdict.
    pub verdict: Verdict,
    /// The flow was forwarded until the configuration or its sender's options changed: replies are dropped as well.
    pub cut: bool,
    /// QoS class.
    pub class: Option<u8>,
    /// ICMP type and code of the first packet.
    pub icmp: Option<(u8, u8)>,
    /// What is decided for the packets of each [`FlowDirection`]; `None` where none was seen yet.
    pub(super) directions: [Option<Arc<DirectionState>>; 2],
    /// Flow hash of each side; selects the source port.
    pub(super) hashes: [u32; 2],
    /// Rule that matched.
    pub rule: Option<RuleId>,
    /// Port leased by source NAT.
    pub lease: Option<PortLease>,
    /// When a host last answered on behalf of a service, in seconds.
    pub(super) heard: u32,
}

const _: () = assert!(
    size_of::<FlowDecision>() <= 64,
    "one cache line for each flow"
);

impl FlowDecision {
    /// Returns the decision for this side.
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

/// Interned direction state with the flow's hash.
#[derive(Clone, Debug)]
pub(super) struct DecidedDirection {
    pub(super) direction_state: Arc<DirectionState>,
    pub(super) hash: u32,
}

/// Decision applied to one packet.
#[derive(Clone, Debug)]
pub(super) struct CachedVerdict {
    pub(super) direction_state: Arc<DirectionState>,
    pub(super) hash: u32,
    pub(super) change: PacketRewrite,
    /// The flow table holds this decision, so that following packets may reuse it.
    pub(super) lasts: bool,
}

/// Input of a packet; `H` describes the host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input<H> {
    /// TUN or TAP interface of the packet's link.
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
