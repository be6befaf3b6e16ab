//! The engine: the workers, and the daemon's handle to them.
//!
//! The daemon publishes tables, hands over TUN devices and ports, and reads counters and events.
//! Nothing here is on the packet path.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use caps::CapSet;
use libgeneve::datapath::State as FlowState;
use libgeneve::flow::Limits;
use libgeneve::link::{LinkIndex, Tables};
use libgeneve::time::Now;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::buffers::Buffers;
use super::counters::{Counters, LinkCounters};
use super::neighbors::Chime;
use super::probe::{self, Feature};
use super::progress::{Heart, Progress, WorkerReport};
use super::sched;
use super::syscalls::Syscalls;
use super::tap::{MAX_TAPS, TapConfig, TapReader};
use super::tun::Tun;
use super::tunnel::{TunnelDevice, TunnelGso};
use super::udp::{self, Family, Pool, Receiver, SocketProfile};
use super::uring::Uring;
use super::worker::{Command, LinkSlot, Post, Shared, Worker};

/// How long the daemon waits for a worker to let go of a queue or a port.
const PATIENCE: Duration = Duration::from_secs(5);

/// The configured backend (`io = …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoChoice {
    /// io_uring where it works, otherwise plain system calls.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    /// Plain system calls.
    Syscalls,
}

/// Who cuts super-packets (`segmentation = …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// The best that works.
    #[default]
    Auto,
    /// Each datagram is sent by itself.
    Off,
    /// geneved cuts and sends trains with `UDP_SEGMENT`.
    Gso,
    /// The kernel or the NIC cuts (tunnel GSO, Linux ≥ 6.17), also where the host routes packets of others.
    Tunnel,
}

/// How an engine is to be.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The backend.
    pub io: IoChoice,
    /// Worker threads, at least 1.
    pub workers: usize,
    /// Who cuts super-packets.
    pub segmentation: Segmentation,
    /// How many flows there may be, and how long they last.
    pub limits: Limits,
    /// Secret, so that nobody outside can pile flows on one place of the table.
    pub key: [u64; 2],
}

/// Which backend runs, and why.
#[derive(Clone, Debug)]
pub struct BackendReport {
    /// `io_uring` or `syscalls`.
    pub name: &'static str,
    /// Why this one.
    pub cause: String,
    /// What the host can do.
    pub features: Vec<Feature>,
}

/// What the workers tell the daemon.
#[derive(Debug)]
pub enum Event {
    /// A link's interface vanished.
    QueueLost {
        /// The link.
        link: LinkIndex,
        /// What the kernel said.
        error: io::Error,
    },
    /// A receiving socket broke.
    SocketLost {
        /// Its port.
        port: u16,
        /// What the kernel said.
        error: io::Error,
    },
    /// The underlay's path to a host is narrower than its first hop.
    PathMtu {
        /// The host's address.
        host: IpAddr,
        /// Bytes of outer IP packet.
        mtu: u32,
    },
    /// Trains to a host were refused and are not sent any more.
    GsoOff {
        /// The host's address.
        host: IpAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// A worker stopped because its backend broke.
    WorkerLost {
        /// The worker's number.
        worker: usize,
        /// What the kernel said.
        error: io::Error,
    },
}

/// Why the engine, a port or a link could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// `io = "io_uring"` was asked for and does not work.
    #[error("io_uring cannot be used: {0}; set io = \"auto\" to fall back on plain system calls")]
    Uring(io::Error),
    /// A worker could not be set up.
    #[error("cannot start worker {worker}: {error}")]
    Worker {
        /// The worker's number.
        worker: usize,
        /// What failed.
        error: io::Error,
    },
    /// A Geneve port could not be opened.
    #[error("cannot listen on UDP port {port}: {error}{}", port_hint(.error))]
    Port {
        /// The port.
        port: u16,
        /// What the kernel said.
        error: io::Error,
    },
    /// No source port could be opened.
    #[error("cannot open a source port in {low}-{high}: {error}")]
    SourcePorts {
        /// The lowest port of the range.
        low: u16,
        /// The highest.
        high: u16,
        /// What the kernel said to the last one that was tried.
        error: io::Error,
    },
}

fn port_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            "; another program has it: `ss -lunp` names it, or it is a kernel geneve device (`ip -d link show type geneve`) or Open vSwitch"
        }
        Some(libc::EACCES) => "; CAP_NET_BIND_SERVICE is needed",
        _ => "",
    }
}

struct Handle {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    nobody: Arc<Counters>,
    progress: Arc<Progress>,
    heart: Mutex<Heart>,
}

impl Handle {
    fn tell(&self, command: Command) {
        // A worker that is gone has reported itself as lost.
        let _ = self.commands.send(command);
        let _ = self.bell.write(1);
    }
}

/// The workers of one daemon.
pub struct Engine {
    workers: Vec<Handle>,
    shared: Arc<Shared>,
    report: BackendReport,
    gso: bool,
    state: Mutex<State>,
    events: Mutex<Option<UnboundedReceiver<Event>>>,
    /// Held once by everybody who sees packets.
    taps: Arc<()>,
}

#[derive(Default)]
struct State {
    ports: Vec<u16>,
    pools: Vec<std::sync::Weak<Pool>>,
    counters: HashMap<LinkIndex, Vec<Arc<Counters>>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("backend", &self.report.name)
            .field("workers", &self.workers.len())
            .finish()
    }
}

impl Engine {
    /// Starts the workers.
    ///
    /// # Errors
    /// Where the chosen backend does not work, or a thread or its buffers cannot be had.
    pub fn start(config: &EngineConfig) -> Result<Self, StartError> {
        let features = probe::probe();
        let (name, cause) = choose(config.io)?;
        let available = |feature: &str| features.iter().any(|f| f.name == feature && f.available);
        let gso = config.segmentation != Segmentation::Off && available("udp-segment");
        let uso = available("tun-uso");
        let (sender, receiver) = unbounded_channel();
        let shared = Arc::new(Shared {
            tables: ArcSwap::default(),
            state: FlowState::new(config.limits, config.key),
            start: Instant::now(),
            events: sender,
            chime: Chime::default(),
        });
        let mut engine = Engine {
            workers: Vec::new(),
            shared,
            report: BackendReport {
                name,
                cause,
                features,
            },
            gso,
            state: Mutex::default(),
            events: Mutex::new(Some(receiver)),
            taps: Arc::default(),
        };
        let workers = config.workers.max(1);
        let mut tunnel = engine.tunnel_gso(config.segmentation, workers);
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

    fn spawn(&self, number: usize, uso: bool, tunnel: Option<TunnelGso>) -> io::Result<Handle> {
        let (commands, inbox) = mpsc::channel();
        let bell = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
        )?);
        self.shared.chime.add(Arc::clone(&bell));
        let nobody = Arc::new(Counters::default());
        let progress = Arc::new(Progress::default());
        let own = Arc::clone(&progress);
        let post = Post {
            shared: Arc::clone(&self.shared),
            commands: inbox,
            bell: Arc::clone(&bell),
            nobody: Arc::clone(&nobody),
            progress: Arc::clone(&progress),
            uso,
            tunnel,
        };
        let events = self.shared.events.clone();
        let uring = self.report.name == "io_uring";
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                own.began();
                // A worker with the normal slice works as well, only less evenly.
                let _ = sched::slice(false);
                // The ring belongs to the thread that made it, so it is made here.
                let ended = if uring {
                    live(
                        Worker::new(post, |tun: &Buffers, udp: &Buffers, bell| {
                            Uring::new(tun, udp, bell)
                        }),
                        &ready,
                    )
                } else {
                    live(
                        Worker::new(post, |tun: &Buffers, udp: &Buffers, bell| {
                            Syscalls::new(tun, udp, bell)
                        }),
                        &ready,
                    )
                };
                if let Err(error) = ended {
                    let _ = events.send(Event::WorkerLost {
                        worker: number,
                        error,
                    });
                }
            })?;
        started
            .recv()
            .map_err(|_| io::Error::other("the worker ended at once"))??;
        Ok(Handle {
            commands,
            bell,
            thread: Some(thread),
            nobody,
            progress,
            heart: Mutex::default(),
        })
    }

    /// The device for tunnel GSO, a queue for each worker; notes in the report whether there is one.
    fn tunnel_gso(&mut self, segmentation: Segmentation, workers: usize) -> Vec<TunnelGso> {
        let device = TunnelDevice::new(segmentation, workers);
        let outcome = match &device {
            Ok(_) => "TCP super-packets over IPv4 are cut by the kernel or the NIC, where it forwards them".to_owned(),
            Err(why) => format!("{why}; geneved cuts super-packets itself"),
        };
        if let Some(feature) = self
            .report
            .features
            .iter_mut()
            .find(|f| f.name == "tunnel-gso")
        {
            feature.available = device.is_ok();
            feature.detail = outcome;
        }
        device.map_or_else(|_| Vec::new(), |device| device.into_workers().collect())
    }

    /// How many turns each worker has finished, and a ring at its bell: one that lives and is not stuck has finished
    /// another one soon after, packets or not.
    #[must_use]
    pub fn pulses(&self) -> Vec<u64> {
        let pulse = |worker: &Handle| {
            let turns = worker.progress.turns();
            let _ = worker.bell.write(1);
            turns
        };
        self.workers.iter().map(pulse).collect()
    }

    /// Which backend runs, and why.
    #[must_use]
    pub fn backend(&self) -> &BackendReport {
        &self.report
    }

    /// How many workers there are, and so queues of each TUN.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Puts new tables in force; workers use them from their next turn on.
    pub fn publish(&self, tables: Arc<Tables>) {
        self.shared.tables.store(tables);
        // Links that were attached before they were in the tables begin to work.
        for worker in &self.workers {
            let _ = worker.bell.write(1);
        }
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
    pub fn events(&self) -> UnboundedReceiver<Event> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.take().expect("the events are taken once")
    }

    /// Listens on a UDP port, over IPv4 and IPv6. A port that is open already stays as it is. With `zero_checksum6`
    /// datagrams over IPv6 without a checksum are let through (RFC 6935), to every link of the port.
    ///
    /// # Errors
    /// Where the port cannot be had.
    pub fn open_port(&self, port: u16, zero_checksum6: bool) -> Result<(), StartError> {
        let mut state = self.state();
        if state.ports.contains(&port) {
            return Ok(());
        }
        let failed = |error| StartError::Port { port, error };
        let mut sockets = Vec::new();
        let shared = self.workers.len() > 1;
        if shared {
            udp::ensure_free(Family::V4, port).map_err(failed)?;
        }
        for _ in &self.workers {
            let v4 = udp::receiver(Family::V4, port, false, shared).map_err(failed)?;
            let v6 = match udp::receiver(Family::V6, port, zero_checksum6, shared) {
                Err(e) if e.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
                other => Some(other.map_err(failed)?),
            };
            sockets.push((v4, v6));
        }
        for (worker, (v4, v6)) in self.workers.iter().zip(sockets) {
            for socket in [Some(v4), v6].into_iter().flatten() {
                let receiver = Receiver {
                    port,
                    fd: OwnedFd::from(socket),
                };
                worker.tell(Command::AddSocket(receiver));
            }
        }
        state.ports.push(port);
        Ok(())
    }

    /// Stops listening on a UDP port.
    pub fn close_port(&self, port: u16) {
        let mut state = self.state();
        state.ports.retain(|&p| p != port);
        self.ask_all(|answer| Command::RemovePort(port, answer));
    }

    /// Puts a link to work: its TUN's queues, and the sockets that it sends from.
    ///
    /// # Errors
    /// Where no source port can be opened.
    pub fn attach(
        &self,
        link: LinkIndex,
        tun: Tun,
        profile: SocketProfile,
    ) -> Result<(), StartError> {
        let mut state = self.state();
        let gso = self.gso && !profile.whole;
        let (low, high) = (*profile.srcport.start(), *profile.srcport.end());
        let pool = state
            .pool(profile)
            .map_err(|error| StartError::SourcePorts { low, high, error })?;
        let mut sets = Vec::with_capacity(self.workers.len());
        for (worker, queue) in self.workers.iter().zip(tun.queues) {
            let counters = Arc::new(Counters::default());
            sets.push(Arc::clone(&counters));
            worker.tell(Command::AddLink(Box::new(LinkSlot {
                index: link,
                queue,
                lost: false,
                pool: Arc::clone(&pool),
                counters,
                gso,
                leaving: None,
            })));
        }
        state.counters.insert(link, sets);
        Ok(())
    }

    /// Takes a link from the workers; its TUN device is gone when this returns.
    pub fn detach(&self, link: LinkIndex) {
        self.ask_all(|answer| Command::RemoveLink(link, answer));
        let mut state = self.state();
        state.counters.remove(&link);
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

    /// The counters of what belongs to no link.
    #[must_use]
    pub fn host_counters(&self) -> LinkCounters {
        let mut sum = LinkCounters::default();
        for worker in &self.workers {
            worker.nobody.add_to(&mut sum);
        }
        sum
    }

    /// Wakes the workers that took no turn since the last call, so that one that takes none again is known to be
    /// stuck; to be called every second or so.
    pub fn feel_pulse(&self) {
        for worker in &self.workers {
            let mut heart = worker.heart.lock().unwrap_or_else(PoisonError::into_inner);
            if heart.rests(&worker.progress, Instant::now()) {
                let _ = worker.bell.write(1);
            }
        }
    }

    /// How each worker is.
    #[must_use]
    pub fn worker_reports(&self) -> Vec<WorkerReport> {
        let report = |worker: &Handle| {
            let heart = worker.heart.lock().unwrap_or_else(PoisonError::into_inner);
            worker.progress.report(&heart, Instant::now())
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
            worker.tell(Command::AddTap(Box::new(tap)));
        }
        Some(reader)
    }

    fn ask_all(&self, command: impl Fn(Sender<()>) -> Command) {
        let (answer, answers) = mpsc::channel();
        for worker in &self.workers {
            worker.tell(command(answer.clone()));
        }
        drop(answer);
        // Nobody sends: the channel closes when the last worker has let go.
        let _ = answers.recv_timeout(PATIENCE);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pool(&mut self, profile: SocketProfile) -> io::Result<Arc<Pool>> {
        if let Some(pool) = self
            .pools
            .iter()
            .filter_map(std::sync::Weak::upgrade)
            .find(|p| p.profile == profile)
        {
            return Ok(pool);
        }
        let seed = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
        let pool = Pool::open(profile, seed)?;
        self.pools.push(Arc::downgrade(&pool));
        Ok(pool)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for worker in &self.workers {
            worker.tell(Command::Stop);
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// Runs a worker and tells whether it could be started.
fn live<B: super::backend::Backend>(
    worker: io::Result<Worker<B>>,
    ready: &Sender<io::Result<()>>,
) -> io::Result<()> {
    match worker {
        Ok(worker) => {
            // Whatever packets could make of a worker, it may do nothing: all that it works on is open by now. A
            // sandbox that forbids giving capabilities away is no reason not to work.
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                let _ = caps::clear(None, set);
            }
            let _ = ready.send(Ok(()));
            worker.run()
        }
        Err(error) => {
            let _ = ready.send(Err(error));
            Ok(())
        }
    }
}

fn choose(choice: IoChoice) -> Result<(&'static str, String), StartError> {
    match (choice, probe::uring()) {
        (IoChoice::Syscalls, _) => Ok(("syscalls", "the configuration asks for it".into())),
        (IoChoice::IoUring, Ok(())) => Ok(("io_uring", "the configuration asks for it".into())),
        (IoChoice::IoUring, Err(error)) => Err(StartError::Uring(error)),
        (IoChoice::Auto, Ok(())) => Ok(("io_uring", "this host allows it".into())),
        (IoChoice::Auto, Err(error)) => Ok(("syscalls", error.to_string())),
    }
}
