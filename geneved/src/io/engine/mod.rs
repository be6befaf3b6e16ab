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

/// How long the daemon waits for a worker to let go of a queue or a port.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

/// Dropped by whoever has let go of what it was sent for.
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
        // A worker that is gone has reported itself as lost.
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
    /// What comes back of what is sent.
    errors: ErrorQueues,
    /// Held once by everybody who sees packets.
    taps: Arc<()>,
    /// What is counted here and not by a worker.
    unmatched: WorkerCounters,
    /// The name of the device for tunnel GSO, if there is one.
    tunnel: Option<String>,
}

/// The sockets that a link sends from.
#[derive(Debug)]
pub struct SourceSockets(Arc<SourcePortPool>);

impl SourceSockets {
    /// None yet: what the link would send is dropped as `underlay-unreachable`.
    #[must_use]
    pub fn none(profile: SocketProfile) -> Self {
        SourceSockets(SourcePortPool::closed(profile))
    }
}

#[derive(Default)]
struct EngineState {
    ports: Vec<OpenPort>,
    /// Receiving sockets that are open, each with the worker that is to read it.
    unread: Vec<(usize, RxSocket)>,
    pools: Vec<std::sync::Weak<SourcePortPool>>,
    /// How many pools there have been.
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
    /// Starts the workers; `tunnel` is the device for tunnel GSO, or why there is none.
    ///
    /// # Errors
    /// Where the chosen backend does not work, or a thread or its buffers cannot be had.
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

    /// Which backend runs, and why.
    #[must_use]
    pub fn backend(&self) -> &BackendReport {
        &self.report
    }

    /// The name of the device for tunnel GSO, if there is one.
    #[must_use]
    pub fn tunnel_device(&self) -> Option<&str> {
        self.tunnel.as_deref()
    }

    /// How many workers there are, and so queues of each TUN.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Puts new tables in force; workers use them from their next turn on.
    pub fn publish(&self, tables: Arc<Tables>) {
        if !tables.has_names_of(&self.shared.tables.load()) {
            self.spread(&mut self.state(), &tables);
        }
        self.shared.tables.store(tables);
        // Links that were attached before they were in the tables begin to work.
        for worker in &self.workers {
            let _ = worker.bell.write(1);
        }
        self.receive();
    }

    /// Believes what these interfaces receive from now on, and nothing else. Workers look at it in their next turn; until
    /// the first call nothing is believed.
    pub fn set_rx_interfaces(&self, interfaces: RxInterfaces) {
        self.shared.rx_interfaces.store(Arc::new(interfaces));
    }

    /// The tables in force.
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.shared.tables.load_full()
    }

    /// What the packet path remembers: flows, fragments, the log of rules.
    #[must_use]
    pub fn flows(&self) -> &FlowState {
        &self.shared.state
    }

    /// The packet path's time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.shared.now()
    }

    /// The stream of events; it can be taken once.
    ///
    /// # Panics
    /// When it was taken before.
    pub fn events(&self) -> UnboundedReceiver<EngineEvent> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.take().expect("the events are taken once")
    }

    /// Opens the sockets that a link sends from, or takes those that another link of the same profile has.
    ///
    /// # Errors
    /// Where no source port can be opened.
    pub fn open_sockets(&self, profile: SocketProfile) -> Result<SourceSockets, StartError> {
        let (low, high) = (*profile.srcport.start(), *profile.srcport.end());
        let pool = self.state().pool(profile);
        if let Ok(pool) = &pool {
            self.errors.watch(pool);
        }
        pool.map(SourceSockets)
            .map_err(|error| StartError::SourcePorts { low, high, error })
    }

    /// How many descriptors [`Engine::open_sockets`] takes for this profile at most.
    #[must_use]
    pub fn descriptors_for(&self, profile: &SocketProfile) -> usize {
        let state = self.state();
        let pools = state.pools.iter().filter_map(std::sync::Weak::upgrade);
        let pools: Vec<_> = pools.collect();
        if pools.iter().any(|pool| pool.profile == *profile) {
            return 0;
        }
        // Where some host needs whole datagrams, every pool gets sockets for them.
        let ways = match !profile.whole && pools.iter().any(|pool| pool.has_both()) {
            true => 2,
            false => 1,
        };
        ways * udp::sockets_of(profile)
    }

    /// Puts a link to work: its TUN's queues, and the sockets that it sends from.
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

    /// Has a link send from other sockets from now on; its interface stays.
    pub fn set_sockets(&self, link: LinkIndex, sockets: &SourceSockets) {
        for worker in &self.workers {
            worker.tell(WorkerCommand::SetPool(link, Arc::clone(&sockets.0)));
        }
        let mut state = self.state();
        state.pools.retain(|pool| pool.strong_count() > 0);
    }

    /// Opens what is needed to send whole datagrams to hosts that are found to need them ([`Host::set_whole`]).
    ///
    /// # Errors
    /// Where they do not fit, or not a single source port can be opened once more.
    ///
    /// [`Host::set_whole`]: libgeneve::link::Host::set_whole
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

    /// The descriptor that is readable while [`Engine::read_errors`] has something to do.
    ///
    /// # Errors
    /// Where there are no more descriptors.
    pub fn error_queues(&self) -> io::Result<AsyncFd<OwnedFd>> {
        self.errors.descriptor()
    }

    /// Reads a share of the errors about what was sent, and tells what follows from those that may be true. Returns whether
    /// there may be more.
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

    /// How many ICMP errors about what was sent came to each verdict.
    #[must_use]
    pub fn error_verdicts(&self) -> Vec<(ErrorVerdict, u64)> {
        self.errors.counts().to_vec()
    }

    /// What believed ICMP errors said since the last call of hosts that cannot be reached.
    #[must_use]
    pub fn refusals(&self) -> Vec<SendErrors> {
        self.errors.take_refusals()
    }

    /// Takes links from the workers; their TUN devices are gone when this is done, unless a worker does not let go of one for
    /// long.
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

    /// A link's counters, added over all workers.
    #[must_use]
    pub fn link_counters(&self, link: LinkIndex) -> LinkCounters {
        let mut sum = LinkCounters::default();
        for set in self.state().counters.get(&link).into_iter().flatten() {
            set.add_to(&mut sum);
        }
        sum
    }

    /// The VNIs of the latest packets that no link is for, the latest first.
    #[must_use]
    pub fn unknown_vnis(&self) -> Vec<UnknownVni> {
        latest(self.workers.iter().flat_map(|w| w.unknown_vnis.all()))
    }

    /// The counters of what belongs to no link.
    #[must_use]
    pub fn host_counters(&self) -> LinkCounters {
        let mut sum = LinkCounters::default();
        for worker in &self.workers {
            worker.unmatched.add_to(&mut sum);
        }
        self.unmatched.add_to(&mut sum);
        sum
    }

    /// Wakes the workers that took no turn since the last call, so that one that takes none again is known to be
    /// stuck; to be called every second or so.
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

    /// Has neighbours asked whether they are still there; to be called every second. Returns the links of those that have moved or are
    /// gone: what was decided for their flows is to be decided again.
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

    /// How each worker is.
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

    /// Lets somebody see packets; `None` where as many see them as can.
    #[must_use]
    pub fn tap(&self, config: TapConfig) -> Option<TapReader> {
        // One place is the engine's own.
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
        // Nobody sends: the channel closes when the last worker has let go.
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
