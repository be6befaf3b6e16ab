//! Worker: one thread with its own queue of each TUN and its own sockets of each Geneve port.
//!
//! A turn of the loop takes the backend's completions, passes each packet through [`egress`](super::egress) or
//! [`ingress`](super::ingress), and queues the resulting trains and TUN writes. Everything is allocated at the start,
//! nothing on the packet path.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver as CommandReceiver, TryRecvError};
use std::time::Instant;

use arc_swap::ArcSwap;
use libgeneve::datapath::{self, AnswerBudgets, PacketContext, SharedState};
use libgeneve::drop::DropReason;
use libgeneve::time::Now;
use libgeneve::vpc::{LinkIndex, Tables};
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use nix::sys::eventfd::EventFd;
use tokio::sync::mpsc::UnboundedSender;

use super::backend::{Completion, PacketIo, PoolKind, RxBatch, WaitTime};
use super::buffer_pool::{BufferId, BufferPool};
use super::counters::{TrafficDirection, WorkerCounters};
use super::egress::Trains;
use super::engine::EngineEvent;
use super::fair::{FairQueue, cost};
use super::ingress::{IngressState, TunWrites};
use super::neighbors::{NeighborQueue, NeighborWaker};
use super::pool_sizes::{TRAINS, TUN_BUFFER, TUN_BUFFERS, UDP_BUFFER, UDP_BUFFERS, WRITES};
use super::progress::{PoolUsage, WorkerProgress};
use super::read_sizes::ReadSizes;
use super::rx_interfaces::{RxInterfaces, RxLookup};
use super::send_errors::RefusalReporter;
use super::shape::Shaping;
use super::tap::{PacketOutcome, Tap, Taps};
use super::tunnel_gso::TunnelGso;
use super::udp::{RxSocket, SourcePortPool};
use super::unknown_vnis::UnknownVnis;

/// Cost limit of the packets of one turn ([`cost`]), so that packets that arrive meanwhile get their turn.
const TURN: i32 = 1024;
/// Cost limit while several TUN queues and sockets have packets, so that those with few are served more often.
const SHARED_TURN: i32 = 512;

/// Command from the daemon to a worker.
pub(super) enum WorkerCommand {
    AddLink(Box<LinkSlot>),
    /// Replaces the sockets that a link sends from.
    SetPool(LinkIndex, Arc<SourcePortPool>),
    /// The sender is dropped when the queue is closed.
    RemoveLink(LinkIndex, tokio::sync::mpsc::Sender<()>),
    AddSocket(RxSocket),
    /// The sender is dropped when the sockets are closed.
    RemovePort(u16, tokio::sync::mpsc::Sender<()>),
    AddTap(Box<Tap>),
    /// There are solicitations for neighbours to send.
    AskNeighbors,
    Stop,
}

/// One worker's state of a link.
pub(super) struct LinkSlot {
    pub(super) index: LinkIndex,
    pub(super) queue: OwnedFd,
    /// The interface is gone, though the daemon did not detach it.
    pub(super) lost: bool,
    pub(super) pool: Arc<SourcePortPool>,
    pub(super) counters: Arc<WorkerCounters>,
    /// Rate limits for answers to senders of its packets.
    pub(super) answers: AnswerBudgets,
    /// Whether trains may be sent at all (`segmentation`).
    pub(super) gso: bool,
    pub(super) leaving: Option<tokio::sync::mpsc::Sender<()>>,
}

/// Counters of a link, or those of packets that belong to no link if it is gone.
pub(super) fn counters_of<'a>(
    links: &'a [Option<LinkSlot>],
    link: LinkIndex,
    nobody: &'a WorkerCounters,
) -> &'a WorkerCounters {
    let here = links.get(link.0 as usize).and_then(Option::as_ref);
    here.map_or(nobody, |here| &here.counters)
}

/// One worker's state of a receiving socket.
pub(super) struct SocketSlot {
    pub(super) port: u16,
    socket: RxSocket,
    leaving: Option<tokio::sync::mpsc::Sender<()>>,
}

/// State shared by all workers of an engine.
pub(super) struct WorkerShared {
    pub(super) tables: ArcSwap<Tables>,
    /// State of the packet path.
    pub(super) state: SharedState,
    pub(super) clock: WorkerClock,
    pub(super) events: UnboundedSender<EngineEvent>,
    /// Wakes workers whose packets wait for neighbours.
    pub(super) neighbor_waker: NeighborWaker,
    /// Generation of the underlay: changes with each change of its routes and addresses.
    pub(super) underlay: Arc<AtomicU32>,
    /// Interfaces that datagrams are trusted from.
    pub(super) rx_interfaces: ArcSwap<RxInterfaces>,
}

/// Clock of the workers.
pub(super) enum WorkerClock {
    /// Time elapsed since this instant.
    Since(Instant),
    /// Set by tests, in nanoseconds.
    #[cfg(any(test, feature = "testing"))]
    Set(std::sync::atomic::AtomicU64),
}

/// Parameters of a worker.
pub(super) struct WorkerConfig {
    pub(super) shared: Arc<WorkerShared>,
    pub(super) commands: CommandReceiver<WorkerCommand>,
    pub(super) bell: Arc<EventFd>,
    pub(super) unmatched: Arc<WorkerCounters>,
    pub(super) unknown_vnis: Arc<UnknownVnis>,
    pub(super) progress: Arc<WorkerProgress>,
    pub(super) uso: bool,
    /// Queue of the tunnel GSO device, if the host has one.
    pub(super) tunnel: Option<TunnelGso>,
}

impl WorkerShared {
    /// Returns the current time.
    pub(super) fn now(&self) -> Now {
        let nanos = match &self.clock {
            WorkerClock::Since(start) => u64::try_from(start.elapsed().as_nanos()),
            #[cfg(any(test, feature = "testing"))]
            WorkerClock::Set(now) => Ok(now.load(std::sync::atomic::Ordering::Relaxed)),
        };
        Now(nanos.unwrap_or(u64::MAX))
    }
}

/// A packet or train that was read and waits to be handled.
enum RxEvent {
    Tun {
        slot: u32,
        buffer_id: BufferId,
        len: usize,
    },
    Datagrams {
        slot: u32,
        buffer_id: BufferId,
        train: RxBatch,
    },
}

/// Number of a TUN queue among all packet sources.
fn tun_source(slot: u32) -> u32 {
    2 * slot
}

/// Number of a socket among all packet sources.
fn socket_source(slot: u32) -> u32 {
    2 * slot + 1
}

/// Worker; see the module documentation.
pub(super) struct Worker<B> {
    // Declared before the buffers so that it is dropped first, and the kernel stops writing into them.
    pub(super) io: B,
    pub(super) tun_buffers: BufferPool,
    pub(super) udp_buffers: BufferPool,
    pub(super) trains: Trains,
    pub(super) writes: TunWrites,
    pub(super) ingress: IngressState,
    pub(super) egress: datapath::Egress,
    /// Time of this turn.
    pub(super) now: Now,
    /// Interfaces that datagrams are trusted from.
    pub(super) rx: RxLookup,
    pub(super) refusals: RefusalReporter,
    /// Earliest time of the next report about a datagram that did not come from the underlay.
    pub(super) next_not_from_underlay: Now,
    pub(super) tunnel: Option<TunnelGso>,
    pub(super) waiting: NeighborQueue,
    pub(super) shaping: Shaping,
    pub(super) links: Vec<Option<LinkSlot>>,
    /// Links that the tables do not have yet; packets wait in their TUNs.
    unread: Vec<LinkIndex>,
    /// Removed links whose queues stay open, because writes in flight may still refer to them.
    ended: Vec<LinkSlot>,
    pub(super) sockets: Vec<Option<SocketSlot>>,
    pub(super) unmatched: Arc<WorkerCounters>,
    pub(super) unknown_vnis: Arc<UnknownVnis>,
    pub(super) shared: Arc<WorkerShared>,
    progress: Arc<WorkerProgress>,
    pub(super) taps: Taps,
    done: Vec<Completion>,
    arrived: FairQueue<RxEvent>,
    /// In the turn before, packets of several TUN queues and sockets waited.
    shared_turn: bool,
    pace: ReadSizes,
    commands: CommandReceiver<WorkerCommand>,
    bell: Arc<EventFd>,
    /// There are solicitations for neighbours to send.
    asking: bool,
    stopping: bool,
}

impl<B: PacketIo> Worker<B> {
    /// Creates a worker; `backend` creates its backend from its buffers and its eventfd.
    pub(super) fn new(
        worker_config: WorkerConfig,
        backend: impl FnOnce(&BufferPool, &BufferPool, RawFd) -> io::Result<B>,
    ) -> io::Result<Self> {
        let tun_buffers = BufferPool::new(TUN_BUFFERS, TUN_BUFFER)?;
        let udp_buffers = BufferPool::new(UDP_BUFFERS, UDP_BUFFER)?;
        let io = backend(
            &tun_buffers,
            &udp_buffers,
            worker_config.bell.as_fd().as_raw_fd(),
        )?;
        Ok(Worker {
            io,
            tun_buffers,
            udp_buffers,
            trains: Trains::new(TRAINS),
            writes: TunWrites::new(WRITES),
            ingress: IngressState::new(worker_config.uso),
            egress: datapath::Egress::default(),
            now: Now::default(),
            rx: RxLookup::default(),
            refusals: RefusalReporter::new(worker_config.shared.events.clone()),
            next_not_from_underlay: Now::default(),
            tunnel: worker_config.tunnel,
            waiting: NeighborQueue::default(),
            shaping: Shaping::new()?,
            links: Vec::new(),
            unread: Vec::new(),
            ended: Vec::new(),
            sockets: Vec::new(),
            unmatched: worker_config.unmatched,
            unknown_vnis: worker_config.unknown_vnis,
            shared: worker_config.shared,
            progress: worker_config.progress,
            taps: Taps::new(),
            done: Vec::with_capacity(1024),
            arrived: FairQueue::new(usize::from(TUN_BUFFERS + UDP_BUFFERS)),
            shared_turn: false,
            pace: ReadSizes::default(),
            commands: worker_config.commands,
            bell: worker_config.bell,
            asking: false,
            stopping: false,
        })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// Only if the backend breaks.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut tables = self.shared.tables.load_full();
        while !self.stopping {
            self.cycle(&mut tables)?;
        }
        Ok(())
    }

    /// Runs the loop once: takes the backend's completions, handles the packets, and sends everything that can be
    /// sent.
    ///
    /// # Errors
    /// Only if the backend breaks.
    pub(super) fn cycle(&mut self, tables: &mut Arc<Tables>) -> io::Result<()> {
        self.turn(tables, self.wait())?;
        self.now = self.shared.now();
        self.rx.refresh(&self.shared.rx_interfaces);
        let published = self.shared.tables.load();
        if !Arc::ptr_eq(&published, tables) {
            self.forget(tables);
            *tables = Arc::clone(&published);
        }
        if !self.unread.is_empty() {
            self.begin_reading(tables);
        }
        let mut spent = 0;
        let mut shared = self.arrived.is_shared();
        while spent < self.turn_cost(shared)
            && let Some((event, cost)) = self.arrived.pop()
        {
            spent += cost;
            shared |= self.arrived.is_shared();
            if self.is_low_on_buffers() {
                // Too many packets for one turn: submit what there is, and get the slots back.
                self.turn(tables, WaitTime::No)?;
            }
            match event {
                RxEvent::Tun {
                    slot,
                    buffer_id,
                    len,
                } => self.on_tun(tables, slot, buffer_id, len),
                RxEvent::Datagrams {
                    slot,
                    buffer_id,
                    train,
                } => {
                    self.on_datagrams(tables, slot, buffer_id, &train);
                }
            }
        }
        self.shared_turn = shared;
        if std::mem::take(&mut self.asking) {
            self.ask_neighbors(tables);
        }
        self.retry_parked(tables);
        self.release_waiting(tables)?;
        self.trains.flush(&mut self.io);
        // Must come before the worker publishes its usage and possibly sleeps for long.
        self.send_all_apart(tables);
        self.flush_ingress();
        self.tell_flows(tables);
        self.progress.end_turn(&self.in_use());
        Ok(())
    }

    /// Usage of the worker's fixed resources.
    pub(super) fn in_use(&self) -> PoolUsage {
        PoolUsage {
            tun_buffers: self.tun_buffers.held(),
            udp_buffers: self.udp_buffers.held(),
            trains: self.trains.in_use() as u16,
            writes: self.writes.in_use() as u16,
        }
    }

    /// Cost limit of the packets of this turn.
    fn turn_cost(&self, shared: bool) -> i32 {
        match shared || self.shared_turn {
            true => SHARED_TURN,
            false => TURN,
        }
    }

    /// How long the next turn may wait.
    fn wait(&self) -> WaitTime {
        if !self.arrived.is_empty() {
            return WaitTime::No;
        }
        match self.shaping.departure() {
            None => WaitTime::Forever,
            Some(at) => WaitTime::For(at.since(self.shared.now())),
        }
    }

    /// Whether there may be too few trains or writes for the next packet.
    pub(super) fn is_low_on_buffers(&self) -> bool {
        self.trains.scarce() || self.writes.scarce()
    }

    /// Updates the flow table with the packets of this turn.
    fn tell_flows(&mut self, tables: &Tables) {
        let cx = PacketContext {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        self.egress.flush(&cx);
        self.ingress.decide.flush(&cx);
    }

    /// Discards cached lookups in these tables, after updating the flow table.
    fn forget(&mut self, tables: &Tables) {
        let cx = PacketContext {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        self.egress.flush(&cx);
        self.ingress.decide.forget(&cx);
    }

    /// Drops a reference to a buffer.
    pub(super) fn release(&mut self, side: PoolKind, buffer_id: BufferId) {
        let buffers = match side {
            PoolKind::Tun => &mut self.tun_buffers,
            PoolKind::Udp => &mut self.udp_buffers,
            PoolKind::Waiting(place) => return self.shaping.release(place, buffer_id),
        };
        if buffers.release(buffer_id) {
            self.io.recycle(side, buffer_id);
        }
    }

    /// Counts a packet that is not forwarded.
    pub(super) fn count_drop(
        &self,
        direction: TrafficDirection,
        link: Option<LinkIndex>,
        reason: DropReason,
        packets: u64,
    ) {
        let counters = match link {
            Some(link) => counters_of(&self.links, link, &self.unmatched),
            None => &self.unmatched,
        };
        counters.dropped(direction, reason, packets);
    }

    /// Encapsulation and inner type of a link's datagrams, for taps; the defaults if the link is gone.
    pub(super) fn link_protocols(&self, link: Option<LinkIndex>) -> (Encapsulation, InnerProtocol) {
        let tables = self.shared.tables.load();
        let config = link.and_then(|l| tables.link(l)).map(|l| &l.config);
        config.map_or_else(Default::default, |c| (c.encapsulation, c.inner))
    }

    /// Outcome of a packet, for taps.
    #[inline]
    pub(super) fn outcome(
        &self,
        direction: TrafficDirection,
        link: Option<LinkIndex>,
        reason: Option<DropReason>,
        packets: u64,
    ) -> PacketOutcome {
        PacketOutcome {
            now: self.now,
            link,
            direction,
            reason,
            packets,
        }
    }

    /// Starts reading from the TUN of every new link that the tables have by now.
    fn begin_reading(&mut self, tables: &Tables) {
        let Worker {
            unread, links, io, ..
        } = self;
        unread.retain(|&index| {
            if tables.link(index).is_none() {
                return true;
            }
            if let Some(Some(link)) = links.get(index.0 as usize) {
                io.add_tun(index.0, link.queue.as_raw_fd());
            }
            false
        });
    }

    /// Sends the trains that go datagram by datagram.
    fn send_all_apart(&mut self, tables: &Tables) {
        while let Some(id) = self.trains.next_apart() {
            self.send_apart(tables, id);
        }
    }

    /// Runs one turn of the backend: handles completions, and queues packets in `arrived`, never more of them than
    /// there are buffers.
    pub(super) fn turn(&mut self, tables: &Tables, wait: WaitTime) -> io::Result<()> {
        self.send_all_apart(tables);
        // The daemon waits until the queues of removed links are closed.
        let wait = if self.ended.is_empty() {
            wait
        } else {
            WaitTime::No
        };
        let mut done = std::mem::take(&mut self.done);
        let result = self.io.turn(wait, &mut done);
        if self.io.idle() {
            self.ended.clear();
        }
        for event in done.drain(..) {
            match event {
                Completion::Tun {
                    slot,
                    buffer_id,
                    len,
                } => {
                    self.pace.note(PoolKind::Tun, len);
                    self.queue_received(
                        tun_source(slot),
                        cost(1, len),
                        RxEvent::Tun {
                            slot,
                            buffer_id,
                            len,
                        },
                    );
                }
                Completion::Datagrams {
                    slot,
                    buffer_id,
                    train,
                } => {
                    let len = train.len as usize;
                    self.pace.note(PoolKind::Udp, len);
                    let datagrams = len.div_ceil(train.notes.segment.max(1).into());
                    let datagrams = if train.notes.segment == 0 {
                        1
                    } else {
                        datagrams
                    };
                    let arrival = RxEvent::Datagrams {
                        slot,
                        buffer_id,
                        train,
                    };
                    self.queue_received(socket_source(slot), cost(datagrams, len), arrival);
                }
                Completion::Sent { id, result } => self.on_sent(tables, id, result),
                Completion::Wrote { id, result } => self.on_wrote(tables, id, result),
                Completion::TunEnd { slot, error } => self.on_tun_end(slot, error),
                Completion::SocketEnd { slot, error } => self.on_socket_end(slot, error),
                Completion::Bell => self.on_bell(),
            }
        }
        self.done = done;
        if let Some(bulk) = self.pace.bulk_change() {
            self.io.bulk(bulk);
        }
        result
    }

    /// Queues a packet that was read.
    fn queue_received(&mut self, source: u32, cost: i32, arrival: RxEvent) {
        // There is room for as many as there are buffers, and each source was added.
        if let Err(lost) = self.arrived.push(source, cost, arrival) {
            match lost {
                RxEvent::Tun { buffer_id, .. } => self.io.recycle(PoolKind::Tun, buffer_id),
                RxEvent::Datagrams { buffer_id, .. } => self.io.recycle(PoolKind::Udp, buffer_id),
            }
        }
    }

    fn on_bell(&mut self) {
        // It only holds a count, and a spurious wake-up does no harm.
        let _ = self.bell.read();
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.handle_command(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.stopping = true;
                    return;
                }
            }
        }
    }

    fn handle_command(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::AddLink(link) => {
                let slot = link.index.0 as usize;
                if self.links.len() <= slot {
                    self.links.resize_with(slot + 1, || None);
                }
                self.arrived.add_source(tun_source(link.index.0));
                self.unread.push(link.index);
                self.links[slot] = Some(*link);
            }
            WorkerCommand::SetPool(index, pool) => {
                if let Some(Some(link)) = self.links.get_mut(index.0 as usize) {
                    link.pool = pool;
                }
            }
            WorkerCommand::RemoveLink(index, answer) => {
                self.drop_parked(index);
                self.drop_queued(index);
                match self.links.get_mut(index.0 as usize) {
                    Some(Some(link)) if !link.lost && !self.unread.contains(&index) => {
                        link.leaving = Some(answer);
                        self.io.remove_tun(index.0);
                    }
                    Some(slot) => {
                        if let Some(mut link) = slot.take() {
                            link.leaving = Some(answer);
                            self.ended.push(link);
                        }
                        self.unread.retain(|&i| i != index);
                    }
                    None => {}
                }
            }
            WorkerCommand::AddSocket(socket) => {
                let slot = self
                    .sockets
                    .iter()
                    .position(Option::is_none)
                    .unwrap_or(self.sockets.len());
                self.arrived.add_source(socket_source(slot as u32));
                self.io.add_socket(slot as u32, socket.raw(), socket.stray);
                let entry = Some(SocketSlot {
                    port: socket.port,
                    socket,
                    leaving: None,
                });
                match self.sockets.get_mut(slot) {
                    Some(free) => *free = entry,
                    None => self.sockets.push(entry),
                }
            }
            WorkerCommand::RemovePort(port, answer) => {
                for (slot, entry) in self.sockets.iter_mut().enumerate() {
                    if let Some(socket) = entry.as_mut().filter(|s| s.port == port) {
                        socket.leaving = Some(answer.clone());
                        self.io.remove_socket(slot as u32);
                    }
                }
            }
            WorkerCommand::AddTap(tap) => self.taps.add(*tap),
            WorkerCommand::AskNeighbors => self.asking = true,
            WorkerCommand::Stop => self.stopping = true,
        }
    }

    /// Handles the end of a queue. One that ended unasked has lost its interface: it, or its namespace, was deleted.
    fn on_tun_end(&mut self, slot: u32, error: i32) {
        let Some(entry) = self.links.get_mut(slot as usize) else {
            return;
        };
        match entry {
            Some(link) if link.leaving.is_none() => {
                link.lost = true;
                let error = io::Error::from_raw_os_error(error);
                let _ = self.shared.events.send(EngineEvent::QueueLost {
                    link: link.index,
                    error,
                });
            }
            _ => self.ended.extend(entry.take()),
        }
    }

    fn on_socket_end(&mut self, slot: u32, error: i32) {
        let Some(entry) = self.sockets.get_mut(slot as usize) else {
            return;
        };
        if let Some(socket) = entry.as_ref().filter(|s| s.leaving.is_none()) {
            let error = io::Error::from_raw_os_error(error);
            let _ = self.shared.events.send(EngineEvent::SocketLost {
                port: socket.socket.port,
                error,
            });
        }
        *entry = None;
    }
}
