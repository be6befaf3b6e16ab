//! What the packet path remembers from one packet to the next: flows, fragments, and the headers that flows share.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::change::Change;
use super::log::Log;
use super::neighbor::Ask;
use super::share::Shared;
use crate::drop::DropReason;
use crate::flow::{FlowTable, Fragments, Limits, PathMtus, Side};
use crate::link::{Host, InUse, Link, LinkIndex, Tables};
use crate::nat::{Identifications, Lease};
use crate::options::ServiceOption;
use crate::policy::RuleId;
use crate::qos::{Bucket, Meter};
use crate::sent::SentLately;
use crate::time::Now;
use crate::wire::header::HeaderBytes;
use crate::wire::packet::Packet;

/// Headers that are shared at once; beyond them a flow has its own.
const SHARED_HEADERS: usize = 4096;

/// Halves of decisions that are shared at once: those of so many pairs of endpoints that differ in more than addresses.
const SHARED_HALVES: usize = 65_536;

/// Fragmented packets whose first fragment is remembered at once.
const FRAGMENTED_PACKETS: usize = 8192;

/// Questions for MAC addresses that wait to be put.
const QUESTIONS: usize = 256;

/// What all workers of a daemon share and write.
#[derive(Debug)]
pub struct State {
    /// Every flow, and what was decided for it.
    pub flows: FlowTable<Decision>,
    /// First fragments, by which later ones find their flow.
    pub fragments: Fragments,
    /// What IPv4 packets with another source are told apart by.
    pub(super) identifications: Identifications,
    /// How narrow the ways are behind interfaces, here and on other hosts.
    pub path_mtus: PathMtus,
    /// What left for other hosts lately.
    pub sent: SentLately,
    /// Flows that a rule wants to be in the log.
    pub log: Log,
    headers: Shared<HeaderBytes>,
    halves: Shared<Half>,
    questions: Mutex<VecDeque<Ask>>,
}

impl State {
    /// An empty state. `key` is secret, so that nobody outside can pile flows on one place.
    #[must_use]
    pub fn new(limits: Limits, key: [u64; 2]) -> State {
        State {
            flows: FlowTable::new(limits, key),
            fragments: Fragments::new(FRAGMENTED_PACKETS, key),
            identifications: Identifications::new(key),
            path_mtus: PathMtus::new(key),
            sent: SentLately::new(key),
            log: Log::default(),
            headers: Shared::new(SHARED_HEADERS),
            halves: Shared::new(SHARED_HALVES),
            questions: Mutex::default(),
        }
    }

    /// Notes a question to put; one too many is forgotten.
    pub(super) fn ask(&self, ask: Ask) {
        let mut questions = self.questions();
        if questions.len() < QUESTIONS {
            questions.push_back(ask);
        }
    }

    /// The next question to put, by [`neighbor_question`](super::neighbor_question).
    pub fn question(&self) -> Option<Ask> {
        self.questions().pop_front()
    }

    /// Whether there is any.
    #[must_use]
    pub fn has_questions(&self) -> bool {
        !self.questions().is_empty()
    }

    fn questions(&self) -> MutexGuard<'_, VecDeque<Ask>> {
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
        self.headers.share(header)
    }

    /// The one copy of this half that flows share.
    pub(super) fn share_half(&self, half: Half) -> Arc<Half> {
        self.halves.share(half)
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
    /// Known options in `encap`, a bit for each slot of the schema.
    pub slots: u32,
    /// The neighbour whose MAC address is in `encap`, where one was learned.
    pub neighbor: Option<InUse>,
}

/// What goes before the frames of one side of a flow, whichever host gets them.
#[derive(Clone, Debug)]
pub struct Prefix {
    /// The link whose VPC they travel in.
    pub link: LinkIndex,
    /// The Geneve header that goes before each segment, options included.
    pub encap: Arc<HeaderBytes>,
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
    /// To where the MAC address of its frame says: the link is a bridge.
    Bridge(Prefix),
}

/// What is decided for one side of a flow, but for the flow's own numbers: equal ones are shared by flows.
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
    /// The virtual address that a client asked for, on the host of the backend (direct server return).
    pub service: Option<ServiceOption>,
    /// The header of the packet that began the flow, where it came from the wire: what the flow is decided by again
    /// when the configuration changes.
    pub header: Option<Arc<HeaderBytes>>,
}

impl Half {
    const UNDECIDED: &Half = &Half {
        came: Came::Nowhere,
        exit: Exit::Undecided,
        meter: None,
        digest: 0,
        service: None,
        header: None,
    };

    /// What makes it what it is. Things that are shared themselves are told apart by where they are.
    fn identity(&self) -> impl Eq + Hash + '_ {
        let at = |host: &Arc<Host>| Arc::as_ptr(host).addr();
        let came = match &self.came {
            Came::Nowhere => (0, 0),
            Came::Tun => (1, 0),
            Came::Wire(host) => (2, at(host)),
        };
        let exit = match &self.exit {
            Exit::Undecided => (0, LinkIndex(0), 0, 0, 0, 0),
            Exit::Tun(link) => (1, *link, 0, 0, 0, 0),
            Exit::Wire(way) => {
                let encap = Arc::as_ptr(&way.encap).addr();
                let neighbor = way.neighbor.as_ref().map_or(0, InUse::id);
                (2, way.link, at(&way.host), encap, way.slots, neighbor)
            }
            Exit::Bridge(prefix) => {
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
        (came, exit, meter, self.digest, self.service, header)
    }
}

impl PartialEq for Half {
    fn eq(&self, other: &Half) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Half {}

impl Hash for Half {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
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

/// What was decided for a flow. A table may hold millions: what many flows have alike is shared.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Whether it is forwarded.
    pub fate: Fate,
    /// It was forwarded before the configuration or its sender's options changed: its replies are dropped with it.
    pub cut: bool,
    /// The QoS class.
    pub class: Option<u8>,
    /// Type and code of the ICMP message that began it.
    pub icmp: Option<(u8, u8)>,
    /// What is decided for the packets of each [`Side`]; `None` where none was seen yet.
    pub(super) halves: [Option<Arc<Half>>; 2],
    /// The hash of each side: chooses the source port.
    pub(super) hashes: [u32; 2],
    /// The rule that decided.
    pub rule: Option<RuleId>,
    /// The port that source NAT lent it.
    pub lease: Option<Lease>,
    /// When somebody answered in the name of a service, in seconds.
    pub(super) heard: u32,
}

const _: () = assert!(size_of::<Decision>() <= 64, "one cache line for each flow");

impl Decision {
    /// The half of this side.
    #[inline]
    #[must_use]
    pub fn half(&self, side: Side) -> &Half {
        let half = self.halves[side as usize].as_deref();
        half.unwrap_or(Half::UNDECIDED)
    }

    pub(super) fn set_half(&mut self, side: Side, decided: Decided) {
        self.halves[side as usize] = Some(decided.half);
        self.hashes[side as usize] = decided.hash;
    }

    pub(super) fn forget_half(&mut self, side: Side) {
        self.halves[side as usize] = None;
    }
}

/// A half that was decided, for one flow.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) half: Arc<Half>,
    pub(super) hash: u32,
}

/// What one packet of a decided flow gets.
#[derive(Clone, Debug)]
pub(super) struct Passage {
    pub(super) half: Arc<Half>,
    pub(super) hash: u32,
    pub(super) change: Change,
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
    pub(super) fn is(self, came: &Came) -> bool {
        match (self, came) {
            (Input::Link, Came::Tun) => true,
            (Input::Host(host), Came::Wire(known)) => host.id == known.id,
            _ => false,
        }
    }

    pub(super) fn came(self) -> Came {
        match self {
            Input::Link => Came::Tun,
            Input::Host(host) => Came::Wire(Arc::clone(host)),
        }
    }
}
