//! Simulation for tests and fuzzing: one worker over the in-memory backend, with a fixed configuration.
//!
//! The host is 192.0.2.1. Its links have the VNIs of [`SimulatedLink`]; behind each of them, 10.0.0.2 is on the host
//! [`REMOTE_HOSTS`]\[0\], 10.0.0.3 on \[1\], and 10.0.0.1 on this one. All descriptors are `/dev/null`: they are
//! never read or written.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use arc_swap::ArcSwap;
use libgeneve::datapath::{AnswerBudgets, SharedState};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::l2::{BridgeConfig, LearnedState};
use libgeneve::options::EndpointType;
use libgeneve::policy::{PolicyAction, PolicyDefaults};
use libgeneve::qos::Bucket;
use libgeneve::route::RouteOrigin;
use libgeneve::vpc::{
    Df, Host, HostRegistry, Link, LinkConfig, LinkFunctions, LinkIndex, NeighborCache, RouteConfig,
    RxInterface, Tables, Tos, Ttl,
};
use libgeneve::wire::encapsulation::InnerProtocol;
use libgeneve::wire::ethernet::Mac;
use libgeneve::wire::geneve::{GENEVE_PORT, Vni};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::cmsg::RxMetadata;
use super::counters::{LinkCounters, WorkerCounters};
use super::engine::EngineEvent;
use super::memory::{FaultPlan, Memory, SentDatagram, WrittenPacket};
use super::neighbors::NeighborWaker;
use super::progress::{PoolUsage, WorkerProgress};
use super::rx_interfaces::RxInterfaces;
use super::tunnel_gso::TunnelGso;
use super::udp::{RxSocket, SocketProfile, SourcePortPool};
use super::unknown_vnis::UnknownVnis;
use super::worker::{LinkSlot, Worker, WorkerClock, WorkerCommand, WorkerConfig, WorkerShared};

/// Hosts that datagrams come from and go to.
pub const REMOTE_HOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)),
];
/// Inner MTU of every link.
pub const SIMULATED_MTU: u16 = 1400;
/// MAC address of the TAP interface, and of the links that carry IP packets in frames.
pub const SIMULATED_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
/// Rate limit of the rated link, in bytes per second.
const RATE: u64 = 1_000_000;
/// Index of the only underlay interface.
const UNDERLAY: u32 = 7;
/// Number of turns after which a worker that still holds resources is considered stuck.
const MANY_TURNS: usize = 10_000;

/// Link of the simulated host. Its number is its index; its VNI is its number plus 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimulatedLink {
    /// IP packets over TUN.
    Ip,
    /// The same, with a rate limit.
    Rated,
    /// Ethernet frames in a TAP.
    Tap,
    /// IP packets over TUN that cross the wire in frames, with neighbour resolution.
    Neighbors,
}

impl SimulatedLink {
    /// Every link.
    pub const ALL: [SimulatedLink; 4] = [
        SimulatedLink::Ip,
        SimulatedLink::Rated,
        SimulatedLink::Tap,
        SimulatedLink::Neighbors,
    ];

    /// Index in the tables.
    #[must_use]
    pub fn index(self) -> LinkIndex {
        LinkIndex(self as u32)
    }

    /// VNI.
    ///
    /// # Panics
    /// Never: the numbers are small.
    #[must_use]
    pub fn vni(self) -> Vni {
        Vni::new(100 + self as u32).expect("24 bits")
    }

    fn config(self) -> LinkConfig {
        let route = |prefix: &str, hosts: &[IpAddr]| RouteConfig {
            prefix: prefix.parse().expect("a prefix"),
            hosts: hosts.to_vec(),
            origin: RouteOrigin::Endpoint,
            kind: EndpointType::Simple,
            local: hosts.is_empty(),
        };
        let bucket = Arc::new(Bucket::new(RATE, 3_000));
        LinkConfig {
            index: self.index(),
            encapsulation: Default::default(),
            inner: match self {
                SimulatedLink::Ip | SimulatedLink::Rated => InnerProtocol::Ip,
                SimulatedLink::Tap | SimulatedLink::Neighbors => InnerProtocol::Ethernet,
            },
            lladdr: SIMULATED_MAC,
            neighbors: Arc::new(NeighborCache::new([5, 6])),
            vni: self.vni(),
            port: GENEVE_PORT,
            local: None,
            ttl: Ttl::Auto,
            tos: Tos::Fixed(0),
            df: Df::Set,
            udp6_zero_csum_rx: false,
            mtu: SIMULATED_MTU,
            addresses: vec![[10, 0, 0, 1].into()],
            broadcasts: Vec::new(),
            allowed: Vec::new(),
            undelivered: Default::default(),
            routes: vec![
                route("10.0.0.2/32", &REMOTE_HOSTS[..1]),
                route("10.0.0.3/32", &REMOTE_HOSTS[1..]),
            ],
            functions: LinkFunctions {
                rate: (self == SimulatedLink::Rated).then(|| Arc::clone(&bucket)),
                ..LinkFunctions::default()
            },
            bridge: (self == SimulatedLink::Tap).then(|| BridgeConfig {
                mac: SIMULATED_MAC,
                learning: true,
                limits: Default::default(),
                entries: Vec::new(),
                flood: REMOTE_HOSTS.to_vec(),
                flood_rate: Arc::new(Bucket::new(1_000_000, 1_000_000)),
                owners: Vec::new(),
                others: PolicyDefaults {
                    ingress: PolicyAction::Allow,
                    egress: PolicyAction::Allow,
                },
                live: Arc::new(LearnedState::new([7, 8])),
            }),
        }
    }
}

/// Simulated host; see the module documentation.
pub struct Simulation {
    // The sockets' descriptors outlive the worker.
    worker: Worker<Memory>,
    tables: Arc<Tables>,
    shared: Arc<WorkerShared>,
    commands: Sender<WorkerCommand>,
    events: UnboundedReceiver<EngineEvent>,
    hosts: HostRegistry,
    counters: Vec<Arc<WorkerCounters>>,
    unmatched: Arc<WorkerCounters>,
    queues: Vec<i32>,
}

impl Simulation {
    /// Builds a worker that serves every link; with `tunnel_gso` it has a tunnel GSO device.
    ///
    /// # Panics
    /// If `/dev/null` cannot be opened, or memory runs out.
    #[must_use]
    pub fn new(tunnel_gso: bool) -> Simulation {
        let (sender, events) = unbounded_channel();
        let mut hosts = HostRegistry::default();
        let links: Vec<_> = SimulatedLink::ALL
            .map(|link| Arc::new(Link::new(link.config(), &mut hosts)))
            .into();
        let tables = Arc::new(Tables::new(links, FlowHasher::new([1, 2])));
        let limits = FlowLimits {
            flows: 1024,
            ..FlowLimits::default()
        };
        let believed = RxInterfaces::new([(UNDERLAY, RxInterface::Underlay)]);
        let shared = Arc::new(WorkerShared {
            tables: ArcSwap::new(Arc::clone(&tables)),
            state: SharedState::new(limits, [3, 4]),
            clock: WorkerClock::Set(AtomicU64::new(1_000_000_000)),
            events: sender,
            neighbor_waker: NeighborWaker::default(),
            underlay: Arc::new(AtomicU32::new(0)),
            rx_interfaces: ArcSwap::from_pointee(believed),
        });
        let bell = EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("a descriptor");
        let (commands, inbox) = mpsc::channel();
        let unmatched = Arc::new(WorkerCounters::default());
        let worker_config = WorkerConfig {
            shared: Arc::clone(&shared),
            commands: inbox,
            bell: Arc::new(bell),
            unmatched: Arc::clone(&unmatched),
            unknown_vnis: Arc::new(UnknownVnis::default()),
            progress: Arc::new(WorkerProgress::default()),
            uso: true,
            tunnel: tunnel_gso.then(|| TunnelGso::simulated(descriptor())),
        };
        let worker = Worker::new(worker_config, |tun, udp, _| Ok(Memory::new(tun, udp)));
        let mut simulation = Simulation {
            worker: worker.expect("there is memory"),
            tables,
            shared,
            commands,
            events,
            hosts,
            counters: Vec::new(),
            unmatched,
            queues: Vec::new(),
        };
        simulation.attach();
        simulation
    }

    fn attach(&mut self) {
        let pool = simulated_pool();
        for link in SimulatedLink::ALL {
            let (queue, counters) = (descriptor(), Arc::new(WorkerCounters::default()));
            self.queues.push(queue.as_raw_fd());
            self.counters.push(Arc::clone(&counters));
            self.tell(WorkerCommand::AddLink(Box::new(LinkSlot {
                index: link.index(),
                queue,
                lost: false,
                pool: Arc::clone(&pool),
                counters,
                answers: AnswerBudgets::default(),
                gso: true,
                leaving: None,
            })));
        }
        self.tell(WorkerCommand::AddSocket(RxSocket {
            port: GENEVE_PORT,
            stray: false,
            fd: descriptor(),
        }));
        // In the first turn the worker learns of the links and starts reading from them.
        self.turn();
    }

    fn tell(&self, command: WorkerCommand) {
        let _ = self.commands.send(command);
    }

    /// Queues a packet, with its virtio header, in the link's TUN. Returns false if the interface is gone.
    pub fn feed_tun(&mut self, link: SimulatedLink, bytes: Vec<u8>) -> bool {
        self.worker.io.feed_tun(link.index().0, bytes)
    }

    /// Queues a train from `src` in the socket; its datagrams are `segment` bytes long, or it is a single datagram if
    /// that is 0.
    pub fn feed_socket(&mut self, src: IpAddr, segment: u16, bytes: Vec<u8>) {
        let notes = RxMetadata {
            segment,
            dst: Some([192, 0, 2, 1].into()),
            interface: UNDERLAY,
            tos: 0,
        };
        let src = SocketAddr::new(src, 40_000);
        self.worker.io.feed_socket(0, bytes, src, notes);
    }

    /// Faults to inject.
    pub fn faults(&mut self) -> &mut FaultPlan {
        &mut self.worker.io.faults
    }

    /// From now on completes operations late and out of order, as determined by this seed; `None` ends that.
    pub fn set_disorder(&mut self, seed: Option<u64>) {
        self.worker.io.disorder = seed;
    }

    /// Removes the link's interface.
    pub fn vanish(&mut self, link: SimulatedLink) {
        self.worker.io.vanish(link.index().0);
    }

    /// Detaches the link from the worker, which learns of it in its next turn.
    pub fn detach(&mut self, link: SimulatedLink) {
        let (answer, _) = tokio::sync::mpsc::channel(1);
        self.tell(WorkerCommand::RemoveLink(link.index(), answer));
    }

    /// Advances the clock.
    pub fn advance(&mut self, by: Duration) {
        if let WorkerClock::Set(now) = &self.shared.clock {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            now.store(now.load(Relaxed).saturating_add(by), Relaxed);
        }
    }

    /// Runs one turn of the worker.
    ///
    /// # Panics
    /// If the backend detects a violation of its rules.
    pub fn turn(&mut self) {
        let turned = self.worker.cycle(&mut self.tables);
        turned.expect("the backend is not broken");
    }

    /// Runs turns, and lets time pass, until the worker has nothing to do and has released everything.
    ///
    /// # Panics
    /// If a buffer, a train or a write is not released.
    pub fn drain(&mut self) {
        for _ in 0..MANY_TURNS {
            self.turn();
            if self.is_at_rest() {
                return;
            }
            self.advance(Duration::from_millis(20));
        }
        panic!(
            "something is lost: {:?}, {:?} buffers are out, {} wait",
            self.worker.in_use(),
            self.worker.io.handed_out(),
            self.worker.io.waiting()
        );
    }

    fn is_at_rest(&self) -> bool {
        let io = &self.worker.io;
        self.worker.in_use() == PoolUsage::default()
            && io.handed_out() == (0, 0)
            && io.waiting() == 0
            && self.worker.shaping.is_at_rest()
    }

    /// Takes the datagrams sent since the last call.
    pub fn take_sent(&mut self) -> Vec<SentDatagram> {
        std::mem::take(&mut self.worker.io.sent)
    }

    /// Takes the packets written to the interface of this link since the last call; those of other interfaces are
    /// kept.
    pub fn take_written(&mut self, link: SimulatedLink) -> Vec<Vec<u8>> {
        let queue = self.queues[link as usize];
        let all = std::mem::take(&mut self.worker.io.written);
        let (own, others) = all
            .into_iter()
            .partition::<Vec<WrittenPacket>, _>(|packet| packet.queue == queue);
        self.worker.io.written = others;
        own.into_iter().map(|packet| packet.bytes).collect()
    }

    /// Takes the packets written to any interface since the last call.
    pub fn take_all_written(&mut self) -> Vec<WrittenPacket> {
        std::mem::take(&mut self.worker.io.written)
    }

    /// Takes the worker's events since the last call.
    pub fn take_events(&mut self) -> Vec<EngineEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// Returns the host with this address, as shared by the links.
    pub fn host(&mut self, addr: IpAddr) -> Arc<Host> {
        self.hosts.host(addr)
    }

    /// Returns the counters of a link.
    #[must_use]
    pub fn counters(&self, link: SimulatedLink) -> LinkCounters {
        let mut sum = LinkCounters::default();
        self.counters[link as usize].add_to(&mut sum);
        sum
    }

    /// Returns the sum of the counters of all links and of packets that belong to none.
    #[must_use]
    pub fn all_counters(&self) -> LinkCounters {
        let mut sum = LinkCounters::default();
        self.counters.iter().for_each(|set| set.add_to(&mut sum));
        self.unmatched.add_to(&mut sum);
        sum
    }
}

/// Pool of sockets that the links send from.
pub(super) fn simulated_pool() -> Arc<SourcePortPool> {
    let profile = SocketProfile {
        local: None,
        srcport: 50_000..=50_003,
        df: Df::Set,
        udp_csum: true,
        udp6_zero_csum_tx: false,
        whole: false,
    };
    SourcePortPool::of_descriptors(profile, descriptor)
}

fn descriptor() -> OwnedFd {
    File::open("/dev/null").expect("it is there").into()
}
