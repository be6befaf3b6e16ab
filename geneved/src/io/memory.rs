//! In-memory backend: packets come from memory and go there, and faults are injected on demand.
//!
//! For tests and fuzzing. It behaves like io_uring, in the same order: queued operations are carried out by the next
//! turn, and reported by that turn or, if completions may be late, by a later one. It also checks what the kernel
//! does not: it panics if a buffer is returned that was not handed out, or if an operation exceeds a limit of the
//! kernel.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::backend::{Checksum, Completion, PacketIo, PoolKind, RxBatch, WaitTime, place, source};
use super::buffer_pool::{BufferId, BufferPool, PoolLayout};
use super::cmsg;
use super::train::{MAX_BYTES, MAX_TRAIN_SEGMENTS};

/// Maximum number of iovecs in one call (`UIO_MAXIOV`).
const MAX_IOVECS: usize = 1024;
/// Maximum number of packets from one queue or socket in a turn.
const MEMORY_BUDGET: usize = 32;

/// Fault injected into an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InjectedFault {
    /// It fails with this errno.
    Errno(i32),
    /// Only half of the bytes are accepted.
    Short,
}

/// Faults to inject, one list for each kind of operation, in the order in which the operations are carried out.
/// `None` means success, as does the end of the list.
#[derive(Debug, Default)]
pub struct FaultPlan {
    /// For queued trains and datagrams.
    pub sends: VecDeque<Option<InjectedFault>>,
    /// For queued TUN and TAP writes.
    pub writes: VecDeque<Option<InjectedFault>>,
    /// For synchronous sends and watched writes.
    pub direct: VecDeque<Option<InjectedFault>>,
    /// Errno with which every train of more than one datagram is refused.
    pub trains: Option<i32>,
}

impl FaultPlan {
    fn of_send(&mut self, segments: usize) -> Option<InjectedFault> {
        let planned = self.sends.pop_front().flatten();
        let refused = self.trains.filter(|_| segments > 1);
        planned.or(refused.map(InjectedFault::Errno))
    }
}

/// Datagram that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentDatagram {
    /// Socket that it was sent from.
    pub socket: RawFd,
    /// Destination.
    pub dst: SocketAddr,
    /// Payload.
    pub payload: Vec<u8>,
    /// Sent again after a refusal, or by itself because its host takes no trains.
    pub direct: bool,
}

/// Packet that was written to TUN or TAP, with its virtio header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenPacket {
    /// Queue that it was written to.
    pub queue: RawFd,
    /// Contents.
    pub bytes: Vec<u8>,
}

/// Train waiting to be received by a socket.
#[derive(Clone, Debug)]
struct IncomingTrain {
    bytes: Vec<u8>,
    src: SocketAddr,
    notes: cmsg::RxMetadata,
    truncated: bool,
}

/// TUN queue or socket.
struct Reader<T> {
    fd: RawFd,
    incoming: VecDeque<T>,
    /// Errno with which it ends in the next turn.
    ending: Option<i32>,
}

/// Operation that the worker queued.
enum QueuedOperation {
    Send {
        id: u32,
        fd: RawFd,
        msg: *const libc::msghdr,
    },
    Write {
        id: u32,
        fd: RawFd,
        iov: *const libc::iovec,
        count: usize,
    },
}

/// Ledger of who owns the buffers of one pool.
struct BufferLedger {
    map: PoolLayout,
    len: usize,
    free: Vec<BufferId>,
    /// For each buffer, whether the worker has it.
    out: Vec<bool>,
}

impl BufferLedger {
    fn new(buffers: &BufferPool) -> Self {
        BufferLedger {
            map: buffers.map(),
            len: buffers.len(),
            free: (0..buffers.count()).rev().collect(),
            out: vec![false; buffers.count().into()],
        }
    }

    /// Hands out a buffer that begins with these bytes, truncated to its length.
    fn fill(&mut self, bytes: &[u8]) -> Option<(BufferId, usize)> {
        let buffer_id = self.free.pop()?;
        assert!(!std::mem::replace(
            &mut self.out[usize::from(buffer_id)],
            true
        ));
        let len = bytes.len().min(self.len);
        // SAFETY: the buffer is `self.len` bytes long, and free: nobody else reads or writes it until it is reported.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.addr(buffer_id), len) };
        Some((buffer_id, len))
    }

    fn give_back(&mut self, buffer_id: BufferId) {
        let out = std::mem::take(&mut self.out[usize::from(buffer_id)]);
        assert!(out, "buffer {buffer_id} was given back twice");
        self.free.push(buffer_id);
    }

    fn handed_out(&self) -> usize {
        self.out.iter().filter(|&&out| out).count()
    }
}

/// Backend in memory; see the module documentation.
pub(super) struct Memory {
    tun_buffers: BufferLedger,
    udp_buffers: BufferLedger,
    tuns: Vec<Option<Reader<Vec<u8>>>>,
    sockets: Vec<Option<Reader<IncomingTrain>>>,
    /// Queues whose interface is gone.
    vanished: Vec<RawFd>,
    queued: VecDeque<QueuedOperation>,
    /// Carried out but not reported.
    completed: Vec<Completion>,
    pub(super) faults: FaultPlan,
    /// State of the generator that decides which completions are late and in which order; `None` if all are in time
    /// and in order.
    pub(super) disorder: Option<u64>,
    pub(super) sent: Vec<SentDatagram>,
    pub(super) written: Vec<WrittenPacket>,
}

impl Memory {
    pub(super) fn new(tun: &BufferPool, udp: &BufferPool) -> Self {
        Memory {
            tun_buffers: BufferLedger::new(tun),
            udp_buffers: BufferLedger::new(udp),
            tuns: Vec::new(),
            sockets: Vec::new(),
            vanished: Vec::new(),
            queued: VecDeque::new(),
            completed: Vec::new(),
            faults: FaultPlan::default(),
            disorder: None,
            sent: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Queues a packet, with its virtio header, for a TUN queue to read; false if there is no such queue.
    pub(super) fn feed_tun(&mut self, slot: u32, bytes: Vec<u8>) -> bool {
        let Some(Some(queue)) = self.tuns.get_mut(slot as usize) else {
            return false;
        };
        queue.incoming.push_back(bytes);
        true
    }

    /// Queues a train for a socket to receive; false if there is no such socket.
    pub(super) fn feed_socket(
        &mut self,
        slot: u32,
        bytes: Vec<u8>,
        src: SocketAddr,
        notes: cmsg::RxMetadata,
    ) -> bool {
        let Some(Some(socket)) = self.sockets.get_mut(slot as usize) else {
            return false;
        };
        let truncated = bytes.len() > self.udp_buffers.len;
        socket.incoming.push_back(IncomingTrain {
            bytes,
            src,
            notes,
            truncated,
        });
        true
    }

    /// Removes the interface behind a TUN queue, with all packets waiting in it.
    pub(super) fn vanish(&mut self, slot: u32) {
        if let Some(Some(queue)) = self.tuns.get_mut(slot as usize) {
            self.vanished.push(queue.fd);
            queue.incoming.clear();
            queue.ending = Some(libc::EBADFD);
        }
    }

    /// Number of buffers that the worker has, from TUN and from UDP.
    pub(super) fn handed_out(&self) -> (usize, usize) {
        (self.tun_buffers.handed_out(), self.udp_buffers.handed_out())
    }

    /// Number of packets and trains that wait to be read.
    pub(super) fn waiting(&self) -> usize {
        let tuns = self.tuns.iter().flatten().map(|t| t.incoming.len());
        let sockets = self.sockets.iter().flatten().map(|s| s.incoming.len());
        tuns.chain(sockets).sum()
    }

    fn carry_out(&mut self, operation: &QueuedOperation) {
        let done = match *operation {
            QueuedOperation::Send { id, fd, msg } => {
                // SAFETY: the caller of `send` vouches for the message until `Sent`.
                let train = unsafe { ReadTrain::of(msg) };
                let fault = self.faults.of_send(train.datagrams().count());
                let result = self.send_train(fd, &train, fault, false);
                Completion::Sent { id, result }
            }
            QueuedOperation::Write { id, fd, iov, count } => {
                // SAFETY: the caller of `write` vouches for the iovecs and what they point to until `Wrote`.
                let bytes = unsafe { gather(iov, count) };
                let fault = self.faults.writes.pop_front().flatten();
                let result = self.write_packet(fd, bytes, fault);
                Completion::Wrote { id, result }
            }
        };
        self.completed.push(done);
    }

    fn send_train(
        &mut self,
        socket: RawFd,
        train: &ReadTrain,
        fault: Option<InjectedFault>,
        direct: bool,
    ) -> i32 {
        match fault {
            Some(InjectedFault::Errno(errno)) => return -errno,
            Some(InjectedFault::Short) => return train.bytes.len() as i32 / 2,
            None => {}
        }
        self.sent
            .extend(train.datagrams().map(|payload| SentDatagram {
                socket,
                dst: train.dst,
                payload: payload.to_vec(),
                direct,
            }));
        train.bytes.len() as i32
    }

    fn write_packet(&mut self, queue: RawFd, bytes: Vec<u8>, fault: Option<InjectedFault>) -> i32 {
        let len = bytes.len() as i32;
        match fault {
            _ if self.vanished.contains(&queue) => return -libc::EBADFD,
            Some(InjectedFault::Errno(errno)) => return -errno,
            Some(InjectedFault::Short) => return len / 2,
            None => self.written.push(WrittenPacket { queue, bytes }),
        }
        len
    }

    /// Reports completions: all of them in order, or with disorder some of them in random order.
    fn report(&mut self, everything: bool, done: &mut Vec<Completion>) {
        let Some(state) = &mut self.disorder else {
            done.append(&mut self.completed);
            return;
        };
        let mut draw = |below: usize| {
            // Knuth's constants (MMIX).
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) as usize % below
        };
        let all = self.completed.len();
        let now = if everything { all } else { draw(all + 1) };
        for _ in 0..now {
            let at = draw(self.completed.len());
            done.push(self.completed.swap_remove(at));
        }
    }

    fn read_tuns(&mut self, done: &mut Vec<Completion>) {
        for (slot, entry) in (0..).zip(&mut self.tuns) {
            let Some(queue) = entry else { continue };
            for _ in 0..MEMORY_BUDGET {
                let Some(bytes) = queue.incoming.front() else {
                    break;
                };
                let Some((buffer_id, len)) = self.tun_buffers.fill(bytes) else {
                    break;
                };
                queue.incoming.pop_front();
                done.push(Completion::Tun {
                    slot,
                    buffer_id,
                    len,
                });
            }
            if let Some(error) = queue.ending {
                *entry = None;
                done.push(Completion::TunEnd { slot, error });
            }
        }
    }

    fn receive(&mut self, done: &mut Vec<Completion>) {
        for (slot, entry) in (0..).zip(&mut self.sockets) {
            let Some(socket) = entry else { continue };
            for _ in 0..MEMORY_BUDGET {
                let Some(train) = socket.incoming.front() else {
                    break;
                };
                let Some((buffer_id, len)) = self.udp_buffers.fill(&train.bytes) else {
                    break;
                };
                let train = RxBatch {
                    start: 0,
                    len: len as u32,
                    src: train.src,
                    notes: train.notes,
                    truncated: train.truncated,
                };
                socket.incoming.pop_front();
                done.push(Completion::Datagrams {
                    slot,
                    buffer_id,
                    train,
                });
            }
            if let Some(error) = socket.ending {
                *entry = None;
                done.push(Completion::SocketEnd { slot, error });
            }
        }
    }
}

impl PacketIo for Memory {
    fn add_tun(&mut self, slot: u32, fd: RawFd) {
        self.vanished.retain(|&gone| gone != fd);
        let reader = Reader {
            fd,
            incoming: VecDeque::new(),
            ending: None,
        };
        place(&mut self.tuns, slot, reader);
    }

    fn remove_tun(&mut self, slot: u32) {
        if let Some(Some(queue)) = self.tuns.get_mut(slot as usize) {
            queue.ending.get_or_insert(libc::ECANCELED);
        }
    }

    fn add_socket(&mut self, slot: u32, fd: RawFd, _stray: bool) {
        let reader = Reader {
            fd,
            incoming: VecDeque::new(),
            ending: None,
        };
        place(&mut self.sockets, slot, reader);
    }

    fn remove_socket(&mut self, slot: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(slot as usize) {
            socket.ending.get_or_insert(libc::ECANCELED);
        }
    }

    fn bulk(&mut self, _: bool) {}

    fn recycle(&mut self, side: PoolKind, buffer_id: BufferId) {
        match side {
            PoolKind::Tun => self.tun_buffers.give_back(buffer_id),
            PoolKind::Udp => self.udp_buffers.give_back(buffer_id),
            PoolKind::Waiting(_) => panic!("places of waiting packets are never the backend's"),
        }
    }

    unsafe fn send(&mut self, id: u32, fd: RawFd, msg: *const libc::msghdr) {
        self.queued.push_back(QueuedOperation::Send { id, fd, msg });
    }

    unsafe fn write(&mut self, id: u32, fd: RawFd, iov: &[libc::iovec]) {
        let (iov, count) = (iov.as_ptr(), iov.len());
        self.queued
            .push_back(QueuedOperation::Write { id, fd, iov, count });
    }

    unsafe fn send_now(
        &mut self,
        fd: RawFd,
        msg: *const libc::msghdr,
        _checksum: Checksum,
    ) -> Result<(), i32> {
        // SAFETY: the caller vouches for the message until this returns.
        let train = unsafe { ReadTrain::of(msg) };
        let fault = self.faults.direct.pop_front().flatten();
        let refused = self.faults.trains.filter(|_| train.segment > 0);
        let fault = fault.or(refused.map(InjectedFault::Errno));
        match self.send_train(fd, &train, fault, true) {
            result if result < 0 => Err(-result),
            result if (result as usize) < train.bytes.len() => Err(libc::EIO),
            _ => Ok(()),
        }
    }

    unsafe fn write_watched(&mut self, fd: RawFd, iov: &[libc::iovec]) -> bool {
        // SAFETY: the caller vouches for the iovecs and what they point to until this returns.
        let bytes = unsafe { gather(iov.as_ptr(), iov.len()) };
        let (len, fault) = (bytes.len(), self.faults.direct.pop_front().flatten());
        self.write_packet(fd, bytes, fault) == len as i32
    }

    fn idle(&self) -> bool {
        self.queued.is_empty() && self.completed.is_empty()
    }

    fn turn(&mut self, wait: WaitTime, done: &mut Vec<Completion>) -> io::Result<()> {
        while let Some(operation) = self.queued.pop_front() {
            self.carry_out(&operation);
        }
        self.report(wait == WaitTime::Forever, done);
        // A spurious wake-up does no harm.
        done.push(Completion::Bell);
        self.read_tuns(done);
        self.receive(done);
        Ok(())
    }
}

/// A message as the kernel reads it.
struct ReadTrain {
    dst: SocketAddr,
    bytes: Vec<u8>,
    /// `UDP_SEGMENT` value; 0 if absent.
    segment: usize,
}

impl ReadTrain {
    /// # Safety
    /// The message and everything it points to must be valid for reading.
    unsafe fn of(msg: *const libc::msghdr) -> ReadTrain {
        // SAFETY: the caller vouches for the message.
        let msg = unsafe { msg.read() };
        // SAFETY: the caller vouches for the iovecs and what they point to.
        let bytes = unsafe { gather(msg.msg_iov, msg.msg_iovlen) };
        // SAFETY: the caller vouches for the name and its length.
        let name = unsafe {
            std::slice::from_raw_parts(msg.msg_name.cast::<u8>(), msg.msg_namelen as usize)
        };
        let mut segment = 0;
        if msg.msg_controllen > 0 {
            // SAFETY: the caller vouches for the control messages and their length.
            let control = unsafe {
                std::slice::from_raw_parts(msg.msg_control.cast::<u8>(), msg.msg_controllen)
            };
            cmsg::each(control, |level, kind, data| {
                if (level, kind) == (libc::SOL_UDP, libc::UDP_SEGMENT) {
                    segment = u16::from_ne_bytes([data[0], data[1]]).into();
                }
            });
        }
        let train = ReadTrain {
            dst: source(name).expect("a socket address"),
            bytes,
            segment,
        };
        assert!(train.bytes.len() <= MAX_BYTES, "EMSGSIZE");
        assert!(train.datagrams().count() <= MAX_TRAIN_SEGMENTS, "EINVAL");
        train
    }

    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let segment = match self.segment {
            0 => self.bytes.len().max(1),
            segment => segment,
        };
        self.bytes.chunks(segment)
    }
}

/// Concatenates the bytes that iovecs point to.
///
/// # Safety
/// The `count` iovecs and what they point to must be valid for reading.
unsafe fn gather(iov: *const libc::iovec, count: usize) -> Vec<u8> {
    assert!(count <= MAX_IOVECS, "EINVAL");
    let mut bytes = Vec::new();
    for at in 0..count {
        // SAFETY: the caller vouches for `count` iovecs.
        let piece = unsafe { iov.add(at).read() };
        // SAFETY: the caller vouches for what they point to.
        bytes.extend_from_slice(unsafe {
            std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len)
        });
    }
    bytes
}
