//! The engine: the workers, and the daemon's handle to them.
//!
//! The daemon publishes tables, hands over TUN devices and ports, and reads counters and events.
//! Nothing here is on the packet path.

mod config;
mod ports;
mod start;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use libgeneve::datapath::{self, AnswerBudgets, PacketContext, SharedState as FlowState};
use libgeneve::drop::DropReason;
use libgeneve::time::Now;
use libgeneve::vpc::{LinkIndex, Tables};
use nix::sys::eventfd::EventFd;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::{UnboundedReceiver, channel, unbounded_channel};
use tokio::time::timeout;

use super::counters::{LinkCounters, TrafficDirection, WorkerCounters};
use super::descriptors::DescriptorBudget;
use super::errors::{ErrorQueues, ErrorVerdict, UnderlayEvent};
use super::host_features::{self, HostFeature};
use super::neighbors::NeighborWaker;
use super::progress::{WorkerLiveness, WorkerProgress, WorkerReport};
use super::rx_interfaces::RxInterfaces;
use super::tap::{MAX_TAPS, TapConfig, TapReader};
use super::tun::Tun;
use super::tunnel_gso::TunnelDevice;
use super::udp::{self, RxSocket, SocketProfile, SourcePortPool};
use super::unknown_vnis::{UnknownVni, UnknownVnis, latest};
use super::worker::{LinkSlot, WorkerClock, WorkerCommand, WorkerShared};

use ports::OpenPort;

pub use config::{
    BackendReport, EngineConfig, EngineEvent, IoBackend, IoChoice, Segmentation, SendErrors,
    StartError,
};

/// How long the daemon waits for a worker to release a queue or a port.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

/// Dropped by a worker once it has released what the command names.
type LetGo = tokio::sync::mpsc::Sender<()>;

struct WorkerHandle {
    commands: Sender<WorkerCommand>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    unmatched: Arc<WorkerCounters>,
    unknown_vnis: Arc<UnknownVnis>,
    progress: Arc<WorkerProgress>,
    liveness: Mutex<WorkerLiveness>,
}

impl WorkerHandle {
    fn tell(&self, command: WorkerCommand) {
        // A worker that is gone has already been reported as lost.
        let _ = self.commands.send(command);
        let _ = self.bell.write(1);
    }
}

/// The workers of one daemon.
pub struct Engine {
    workers: Vec<WorkerHandle>,
    shared: Arc<WorkerShared>,
    report: BackendReport,
    gso: bool,
    state: Mutex<EngineState>,
    events: Mutex<Option<UnboundedReceiver<EngineEvent>>>,
    /// Error queues of the sending sockets.
    errors: ErrorQueues,
    /// Reference-counted once per tap, to limit their number.
    taps: Arc<()>,
    /// Counters of packets that belong to no link and are counted here rather than by a worker.
    unmatched: WorkerCounters,
    /// The name of the device for tunnel GSO, if there is one.
    tunnel: Option<String>,
}

/// Pool of sockets that a link sends from.
#[derive(Debug)]
pub struct SourceSockets(Arc<SourcePortPool>);

impl SourceSockets {
    /// Empty pool: packets that the link would send are dropped as `underlay-unreachable`.
    #[must_use]
    pub fn none(profile: SocketProfile) -> Self {
        SourceSockets(SourcePortPool::closed(profile))
    }
}

#[derive(Default)]
struct EngineState {
    ports: Vec<OpenPort>,
    /// Receiving sockets that are open but not read yet, each with its worker's number.
    unread: Vec<(usize, RxSocket)>,
    pools: Vec<std::sync::Weak<SourcePortPool>>,
    /// Serial number of the latest pool.
    serial: u32,
    counters: HashMap<LinkIndex, Vec<Arc<WorkerCounters>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("backend", &self.report.backend)
            .field("workers", &self.workers.len())
            .finish()
    }
}

impl Engine {
    /// Starts the workers; `tunnel` is the tunnel GSO device, or the reason why there is none.
    ///
    /// # Errors
    /// If the chosen backend does not work, or a thread or its buffers cannot be allocated.
    pub fn start(
        config: &EngineConfig,
        tunnel: Result<TunnelDevice, String>,
    ) -> Result<Self, StartError> {
        let features = host_features::probe();
        let (backend, cause) = start::choose(config.io)?;
        let available = |kind| features.iter().any(|f| f.kind == kind && f.available);
        let gso = config.segmentation != Segmentation::Off && available(HostFeature::UdpSegment);
        let uso = available(HostFeature::TunUso);
        let (sender, receiver) = unbounded_channel();
        let shared = Arc::new(WorkerShared {
            tables: ArcSwap::default(),
            state: FlowState::new(config.limits, config.key),
            clock: WorkerClock::Since(Instant::now()),
            events: sender,
            neighbor_waker: NeighborWaker::default(),
            underlay: Arc::clone(&config.underlay),
            rx_interfaces: ArcSwap::default(),
        });
        let mut engine = Engine {
            workers: Vec::new(),
            shared,
            report: BackendReport {
                backend,
                cause,
                features,
            },
            gso,
            state: Mutex::default(),
            events: Mutex::new(Some(receiver)),
            errors: ErrorQueues::new().map_err(StartError::ErrorQueues)?,
            taps: Arc::default(),
            unmatched: WorkerCounters::default(),
            tunnel: tunnel.as_ref().ok().map(|device| device.name().to_owned()),
        };
        let workers = config.workers.max(1);
        let mut tunnel = engine.tunnel_gso(tunnel);
        for number in 0..workers {
            let worker =
                engine
                    .spawn(number, uso, tunnel.pop())
                    .map_err(|error| StartError::Worker {
                        worker: number,
                        error,
                    })?;
            engine.workers.push(worker);
        }
        Ok(engine)
    }

    /// Returns the backend in use and the reason for it.
    #[must_use]
    pub fn backend(&self) -> &BackendReport {
        &self.report
    }

    /// The name of the device for tunnel GSO, if there is one.
    #[must_use]
    pub fn tunnel_device(&self) -> Option<&str> {
        self.tunnel.as_deref()
    }

    /// Number of workers, which is also the number of queues of each TUN.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Publishes new tables; workers use them from their next turn on.
    pub fn publish(&self, tables: Arc<Tables>) {
        if !tables.has_names_of(&self.shared.tables.load()) {
            self.spread(&mut self.state(), &tables);
        }
        self.shared.tables.store(tables);
        // Links that were attached before they were in the tables start now.
        for worker in &self.workers {
            let _ = worker.bell.write(1);
        }
        self.receive();
    }

    /// Trusts these underlay interfaces, and only these, from now on. Workers notice in their next turn; before the
    /// first call no interface is trusted.
    pub fn set_rx_interfaces(&self, interfaces: RxInterfaces) {
        self.shared.rx_interfaces.store(Arc::new(interfaces));
    }

    /// Returns the current tables.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.shared.tables.load_full()
    }

    /// Returns the state of the packet path: flows, fragments, the rule log.
    #[must_use]
    pub fn flows(&self) -> &FlowState {
        &self.shared.state
    }

    /// Returns the current time of the packet path.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.now()
    }

    /// Takes the stream of events, which can be done once.
    ///
    /// # Panics
    /// If it was taken before.
    pub fn events(&self) -> UnboundedReceiver<EngineEvent> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.take().expect("the events are taken once")
    }

    /// Opens the sockets that a link sends from, or shares those of another link with the same profile.
    ///
    /// # Errors
    /// If no source port can be opened.
    pub fn open_sockets(&self, profile: SocketProfile) -> Result<SourceSockets, StartError> {
        let (low, high) = (*profile.srcport.start(), *profile.srcport.end());
        let pool = self.state().pool(profile);
        if let Ok(pool) = &pool {
            self.errors.watch(pool);
        }
        pool.map(SourceSockets)
            .map_err(|error| StartError::SourcePorts { low, high, error })
    }

    /// Maximum number of descriptors that [`Engine::open_sockets`] opens for this profile.
    #[must_use]
    pub fn descriptors_for(&self, profile: &SocketProfile) -> usize {
        let state = self.state();
        let pools = state.pools.iter().filter_map(std::sync::Weak::upgrade);
        let pools: Vec<_> = pools.collect();
        if pools.iter().any(|pool| pool.profile == *profile) {
            return 0;
        }
        // If some host needs finished checksums, every pool has a second set of sockets for that.
        let ways = match !profile.whole && pools.iter().any(|pool| pool.has_both()) {
            true => 2,
            false => 1,
        };
        ways * udp::sockets_of(profile)
    }

    /// Starts a link with the queues of its TUN and the sockets that it sends from.
    pub fn attach(&self, link: LinkIndex, tun: Tun, sockets: &SourceSockets) {
        let mut state = self.state();
        let gso = self.gso;
        let mut sets = Vec::with_capacity(self.workers.len());
        for (worker, queue) in self.workers.iter().zip(tun.queues) {
            let counters = Arc::new(WorkerCounters::default());
            sets.push(Arc::clone(&counters));
            worker.tell(WorkerCommand::AddLink(Box::new(LinkSlot {
                index: link,
                queue,
                lost: false,
                pool: Arc::clone(&sockets.0),
                counters,
                answers: AnswerBudgets::default(),
                gso,
                leaving: None,
            })));
        }
        state.counters.insert(link, sets);
    }

    /// Replaces the sockets that a link sends from; its interface stays.
    pub fn set_sockets(&self, link: LinkIndex, sockets: &SourceSockets) {
        for worker in &self.workers {
            worker.tell(WorkerCommand::SetPool(link, Arc::clone(&sockets.0)));
        }
        let mut state = self.state();
        state.pools.retain(|pool| pool.strong_count() > 0);
    }

    /// Opens the sockets for hosts that turn out to need single datagrams with finished checksums
    /// ([`Host::set_offload_needs`]).
    ///
    /// # Errors
    /// If the descriptors do not suffice, or not a single source port can be opened a second time.
    ///
    /// [`Host::set_offload_needs`]: libgeneve::vpc::Host::set_offload_needs
    pub fn open_whole(&self) -> io::Result<()> {
        let mut lacking = self.state().open_pools();
        lacking.retain(|pool| pool.lacks_whole());
        let needed = lacking.iter().map(|pool| udp::sockets_of(&pool.profile));
        if let Some(cause) = DescriptorBudget::now().refuse(needed.sum()) {
            return Err(io::Error::other(cause));
        }
        lacking.iter().try_for_each(|pool| {
            pool.open_whole()?;
            self.errors.watch(pool);
            Ok(())
        })
    }

    /// Returns the descriptor that is readable while [`Engine::read_errors`] has something to do.
    ///
    /// # Errors
    /// If no more descriptors are available.
    pub fn error_queues(&self) -> io::Result<AsyncFd<OwnedFd>> {
        self.errors.descriptor()
    }

    /// Reads a bounded share of the error queues and reports the consequences of credible errors to `tell`. Returns
    /// whether there may be more.
    pub fn read_errors(&self, mut tell: impl FnMut(UnderlayEvent)) -> bool {
        let pools = self.state().open_pools();
        let tables = self.tables();
        let cx = PacketContext {
            tables: &tables,
            state: &self.shared.state,
            now: self.now(),
        };
        let believed = self.shared.rx_interfaces.load();
        let more = self.errors.read(&cx, &pools, &believed, &mut tell);
        let forged = self.errors.take_forged();
        self.unmatched.dropped(
            TrafficDirection::Ingress,
            DropReason::NotFromUnderlay,
            forged,
        );
        more
    }

    /// Number of ICMP errors by verdict.
    #[must_use]
    pub fn error_verdicts(&self) -> Vec<(ErrorVerdict, u64)> {
        self.errors.counts().to_vec()
    }

    /// Takes the unreachable hosts that credible ICMP errors reported since the last call.
    #[must_use]
    pub fn refusals(&self) -> Vec<SendErrors> {
        self.errors.take_refusals()
    }

    /// Detaches links from the workers. Their TUN devices are gone when this returns, unless a worker takes too long
    /// to release one.
    pub async fn detach(&self, links: &[LinkIndex]) {
        let commands = links.iter().map(|link| {
            let link = *link;
            move |answer| WorkerCommand::RemoveLink(link, answer)
        });
        self.ask_all(commands).await;
        let mut state = self.state();
        for link in links {
            state.counters.remove(link);
        }
        state.pools.retain(|pool| pool.strong_count() > 0);
    }

    /// Returns a link's counters, summed over all workers.
    #[must_use]
    pub fn link_counters(&self, link: LinkIndex) -> LinkCounters {
        let mut sum = LinkCounters::default();
        for set in self.state().counters.get(&link).into_iter().flatten() {
            set.add_to(&mut sum);
        }
        sum
    }

    /// Returns the VNIs of the latest packets that match no link, the latest first.
    #[must_use]
    pub fn unknown_vnis(&self) -> Vec<UnknownVni> {
        latest(self.workers.iter().flat_map(|w| w.unknown_vnis.all()))
    }

    /// Returns the counters of packets that belong to no link.
    #[must_use]
    pub fn host_counters(&self) -> LinkCounters {
        let mut sum = LinkCounters::default();
        for worker in &self.workers {
            worker.unmatched.add_to(&mut sum);
        }
        self.unmatched.add_to(&mut sum);
        sum
    }

    /// Watchdog: wakes the workers that took no turn since the last call, so that one that still takes none is known
    /// to be stuck. Call about once a second.
    pub fn wake_idle_workers(&self) {
        for worker in &self.workers {
            let mut liveness = worker
                .liveness
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if liveness.is_idle(&worker.progress, Instant::now()) {
                let _ = worker.bell.write(1);
            }
        }
    }

    /// Probes neighbours and returns the links of those that have moved or are gone, whose flows must be decided
    /// again. Call once a second.
    pub fn probe_neighbors(&self) -> Vec<LinkIndex> {
        let tables = self.tables();
        let moved = datapath::probe_neighbors(&PacketContext {
            tables: &tables,
            state: &self.shared.state,
            now: self.now(),
        });
        if self.shared.state.has_questions()
            && let Some(worker) = self.workers.first()
        {
            worker.tell(WorkerCommand::AskNeighbors);
        }
        moved
    }

    /// Returns a status report of each worker.
    #[must_use]
    pub fn worker_reports(&self) -> Vec<WorkerReport> {
        let report = |worker: &WorkerHandle| {
            let liveness = worker
                .liveness
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            worker.progress.report(&liveness, Instant::now())
        };
        self.workers.iter().map(report).collect()
    }

    /// Starts a tap; `None` if the maximum number of taps is running.
    #[must_use]
    pub fn tap(&self, config: TapConfig) -> Option<TapReader> {
        // One reference is the engine's own.
        if Arc::strong_count(&self.taps) > MAX_TAPS {
            return None;
        }
        let place = Arc::clone(&self.taps);
        let (reader, taps) = TapReader::new(config, self.workers.len(), place);
        for (worker, tap) in self.workers.iter().zip(taps) {
            worker.tell(WorkerCommand::AddTap(Box::new(tap)));
        }
        Some(reader)
    }

    /// Tells all of these to each worker, and waits until they have let go of what is named, in all no longer than
    /// [`WORKER_TIMEOUT`]. Others do their work meanwhile.
    async fn ask_all<C: Fn(LetGo) -> WorkerCommand>(&self, commands: impl Iterator<Item = C>) {
        let (answer, mut answers) = channel(1);
        for command in commands {
            for worker in &self.workers {
                worker.tell(command(answer.clone()));
            }
        }
        drop(answer);
        // Nothing is ever sent: the channel closes when the last worker has released everything.
        let _ = timeout(WORKER_TIMEOUT, answers.recv()).await;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, EngineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EngineState {
    fn open_pools(&self) -> Vec<Arc<SourcePortPool>> {
        let pools = self.pools.iter();
        pools.filter_map(std::sync::Weak::upgrade).collect()
    }

    fn pool(&mut self, profile: SocketProfile) -> io::Result<Arc<SourcePortPool>> {
        if let Some(pool) = self
            .pools
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .find(|p| p.profile == profile)
        {
            return Ok(pool);
        }
        self.serial += 1;
        let pool = SourcePortPool::open(profile, self.serial)?;
        self.pools.push(Arc::downgrade(&pool));
        Ok(pool)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.tell(WorkerCommand::Stop);
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}
