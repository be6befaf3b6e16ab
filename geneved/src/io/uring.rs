//! io_uring backend: multishot reads and receives into provided buffers, one `io_uring_enter` per turn.
//!
//! The ring is `SINGLE_ISSUER` with `DEFER_TASKRUN`: completions are processed in the worker's own context when it
//! asks for them. A multishot operation that runs out of buffers ends with `ENOBUFS` and is rearmed as soon as
//! buffers are available.

mod listeners;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::backend::{Completion, PacketIo, PoolKind, RxBatch, WaitTime, place, source};
use super::buffer_pool::{BufferId, BufferPool};
use super::buffer_ring::{BufferRing, UdpBufferRings};
use super::busy_poll::BusyPoll;
use super::cmsg;
use super::time_slice;
use listeners::{Listeners, MUCH};

const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 4096;
const TUN_GROUP: u16 = 0;
/// Batching in bulk: number of completions that a sleeping worker waits for, and the time limit if fewer arrive, in
/// µs.
const BULK_COMPANY: usize = 8;
const BULK_WAIT: u32 = 50;
/// Overall timeout in seconds: the kernel honours the batching time limit only in combination with one.
const LONG_WAIT: Timespec = Timespec::new().sec(3600);
/// Maximum number of submissions to make room in the queue for one entry.
const SUBMIT_TRIES: usize = 4;
/// Room for the sender's address in a received datagram's buffer.
const NAME_ROOM: u32 = 32;

/// Kind of operation that a completion belongs to: the upper byte of its user data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum CompletionTag {
    Tun,
    Socket,
    Send,
    Write,
    Bell,
    Cancel,
}

fn user_data(tag: CompletionTag, id: u32) -> u64 {
    u64::from(tag as u8) << 56 | u64::from(id)
}

/// Backend on io_uring; see the module documentation.
pub(super) struct Uring {
    // The ring is dropped before the memory that it points to.
    ring: IoUring,
    tun_pool: BufferRing,
    udp_pools: UdpBufferRings,
    tuns: Vec<Option<RawFd>>,
    listeners: Listeners,
    rearm_tun: Vec<u32>,
    /// Removed while they waited for buffers; reported by the next turn.
    ended: Vec<(CompletionTag, u32)>,
    /// Removals for which the queue had no room; the next turn retries them.
    leaving: Vec<(CompletionTag, u32)>,
    /// Sends and writes for which the queue had no room; reported by the next turn.
    refused: Vec<Completion>,
    /// The queue had no room for an entry: the worker must not sleep before the next turn has retried it.
    full: bool,
    bell: RawFd,
    bell_armed: bool,
    recv_template: Box<libc::msghdr>,
    /// Sends and writes whose completion is outstanding.
    in_flight: usize,
    busy_poll: BusyPoll,
    bulk: bool,
    /// Whether the kernel can wait for several completions for a limited time (Linux 6.12).
    min_wait: bool,
}

impl Uring {
    /// Creates a ring that fills these buffers and polls the eventfd `bell`.
    ///
    /// # Errors
    /// If the kernel has no io_uring, forbids it, or lacks a required feature.
    pub(super) fn new(tun: &BufferPool, udp: &BufferPool, bell: RawFd) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        let min_wait = ring.params().is_feature_min_timeout();
        let tun_pool = BufferRing::new(&ring, TUN_GROUP, tun, 0..tun.count())?;
        let udp_pools = UdpBufferRings::new(&ring, udp)?;
        // SAFETY: msghdr is plain data of integers and pointers, for which zero is valid.
        let mut recv_template: Box<libc::msghdr> = Box::new(unsafe { std::mem::zeroed() });
        recv_template.msg_namelen = NAME_ROOM;
        recv_template.msg_controllen = cmsg::RECV_ROOM;
        let mut uring = Uring {
            ring,
            tun_pool,
            udp_pools,
            tuns: Vec::new(),
            listeners: Listeners::new(),
            rearm_tun: Vec::with_capacity(64),
            ended: Vec::new(),
            leaving: Vec::new(),
            refused: Vec::new(),
            full: false,
            bell,
            bell_armed: false,
            recv_template,
            in_flight: 0,
            busy_poll: BusyPoll::default(),
            bulk: false,
            min_wait,
        };
        uring.arm_bell();
        Ok(uring)
    }

    fn arm_bell(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.bell), libc::POLLIN as u32)
            .multi(true)
            .build();
        // SAFETY: the entry points to nothing. The worker keeps the eventfd open for as long as the ring.
        self.bell_armed = unsafe { self.push(&poll.user_data(user_data(CompletionTag::Bell, 0))) };
    }

    /// Arms the multishot read from a TUN queue; false if the submission queue is full.
    fn arm_tun(&mut self, slot: u32) -> bool {
        let Some(Some(fd)) = self.tuns.get(slot as usize) else {
            return true;
        };
        // With length 0 the kernel uses the buffer's own length.
        let read = opcode::ReadMulti::new(Fd(*fd), 0, TUN_GROUP).build();
        // SAFETY: the entry points to nothing; the buffers are those of the group, which outlive the ring. The worker
        // closes the descriptor only after `TunEnd`.
        unsafe { self.push(&read.user_data(user_data(CompletionTag::Tun, slot))) }
    }

    /// Arms the multishot receive with the buffer group that suits the socket; false if that has no buffers, or the
    /// submission queue is full.
    fn arm_socket(&mut self, slot: u32) -> bool {
        let Some(listener) = self.listeners.get(slot) else {
            return true;
        };
        let much = self.listeners.has_much(slot);
        let Some(group) = self.udp_pools.group_for(listener.stray, much) else {
            return false;
        };
        let template = &raw const *self.recv_template;
        let recv = opcode::RecvMsgMulti::new(Fd(listener.fd), template, group).build();
        // SAFETY: the template is boxed in self, never changed, and dropped after the ring; the buffers are those of
        // the group, which outlive it, too. The worker closes the descriptor only after `SocketEnd`.
        unsafe { self.push(&recv.user_data(user_data(CompletionTag::Socket, slot))) }
    }

    fn cancel(&mut self, tag: CompletionTag, slot: u32) {
        let cancel = opcode::AsyncCancel::new(user_data(tag, slot)).build();
        // SAFETY: the entry points to nothing.
        if !unsafe { self.push(&cancel.user_data(user_data(CompletionTag::Cancel, slot))) } {
            self.leaving.push((tag, slot));
        }
    }

    /// Queues an entry; false if the queue is full and the kernel takes nothing from it.
    ///
    /// # Safety
    /// What the entry points to must stay valid until its completion, or until the ring is dropped.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        for _ in 0..SUBMIT_TRIES {
            // SAFETY: the caller vouches for what the entry points to.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return true;
            }
            // The queue is full: submit it. An error will recur in the next turn and be reported there.
            let _ = self.ring.submit();
        }
        self.full = true;
        false
    }

    fn completed(&mut self, entry: &cqueue::Entry, done: &mut Vec<Completion>) {
        let (data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        let id = data as u32;
        match (data >> 56) as u8 {
            t if t == CompletionTag::Tun as u8 => self.tun_completed(id, result, flags, done),
            t if t == CompletionTag::Socket as u8 => self.socket_completed(id, result, flags, done),
            t if t == CompletionTag::Send as u8 => {
                self.in_flight -= 1;
                done.push(Completion::Sent { id, result });
            }
            t if t == CompletionTag::Write as u8 => {
                self.in_flight -= 1;
                done.push(Completion::Wrote { id, result });
            }
            t if t == CompletionTag::Bell as u8 => {
                if !cqueue::more(flags) {
                    self.arm_bell();
                }
                done.push(Completion::Bell);
            }
            _ => {}
        }
    }

    fn collect(&mut self, done: &mut Vec<Completion>) {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            self.completed(&entry, done);
        }
    }

    /// Keeps reading from TUNs with more packets while the worker is behind: per round the kernel takes a single
    /// packet from each TUN, but many from a socket.
    fn read_more(&mut self, done: &mut Vec<Completion>) -> io::Result<()> {
        let mut seen = 0;
        for _ in 0..MUCH {
            let from_tun = |event: &Completion| matches!(event, Completion::Tun { .. });
            let had = std::mem::replace(&mut seen, done.len());
            if !done[had..].iter().any(from_tun) || !self.ring.submission().taskrun() {
                break;
            }
            match self.ring.submit_and_wait(0) {
                Err(e)
                    if !matches!(
                        e.raw_os_error(),
                        Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
                    ) =>
                {
                    return Err(e);
                }
                _ => self.collect(done),
            }
        }
        Ok(())
    }

    fn tun_completed(&mut self, slot: u32, result: i32, flags: u32, done: &mut Vec<Completion>) {
        if let Some(buffer_id) = cqueue::buffer_select(flags) {
            self.tun_pool.taken();
            if result > 0 {
                done.push(Completion::Tun {
                    slot,
                    buffer_id,
                    len: result as usize,
                });
            } else {
                self.tun_pool.give(buffer_id);
            }
        }
        if cqueue::more(flags) {
            return;
        }
        match -result {
            libc::ECANCELED => self.tun_ended(slot, libc::ECANCELED, done),
            error if error <= 0 || error == libc::ENOBUFS => self.rearm_tun.push(slot),
            libc::EAGAIN | libc::EINTR => self.rearm_tun.push(slot),
            error => self.tun_ended(slot, error, done),
        }
    }

    fn tun_ended(&mut self, slot: u32, error: i32, done: &mut Vec<Completion>) {
        if let Some(fd) = self.tuns.get_mut(slot as usize) {
            *fd = None;
        }
        done.push(Completion::TunEnd { slot, error });
    }

    fn socket_completed(&mut self, slot: u32, result: i32, flags: u32, done: &mut Vec<Completion>) {
        if let Some(buffer_id) = cqueue::buffer_select(flags) {
            self.udp_pools.of(buffer_id).taken();
            self.listeners.note_train(slot);
            match usize::try_from(result)
                .ok()
                .and_then(|len| self.arrived(buffer_id, len))
            {
                Some(train) => done.push(Completion::Datagrams {
                    slot,
                    buffer_id,
                    train,
                }),
                None => self.udp_pools.of(buffer_id).give(buffer_id),
            }
        }
        if cqueue::more(flags) {
            return;
        }
        match -result {
            libc::ECANCELED | libc::EBADF | libc::ENOTSOCK => {
                self.socket_ended(slot, -result, done);
            }
            // An error of a single receive, such as a pending ICMP error, is no reason to stop listening.
            _ => self.listeners.wait(slot),
        }
    }

    fn socket_ended(&mut self, slot: u32, error: i32, done: &mut Vec<Completion>) {
        self.listeners.remove(slot);
        done.push(Completion::SocketEnd { slot, error });
    }

    /// Submits what is queued and waits until something completes: polls for a while, then sleeps.
    ///
    /// In bulk it does not poll, because the producers and consumers of the packets need the core. It sleeps until a
    /// few completions have arrived, or for a moment if they do not, because every wake-up costs as much as a packet
    /// does.
    ///
    /// If `time` is given, it sleeps no longer than that.
    fn sleep(&mut self, time: Option<Duration>) -> io::Result<usize> {
        let Uring {
            ring, busy_poll, ..
        } = self;
        let company = self.bulk && self.min_wait;
        if let Some(time) = time {
            let timespec = Timespec::from(time);
            let mut until = SubmitArgs::new().timespec(&timespec);
            if company {
                let wait = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
                until = until.min_wait_usec(wait.min(BULK_WAIT));
            }
            let completions = if company { BULK_COMPANY } else { 1 };
            return ring.submitter().submit_with_args(completions, &until);
        }
        if company {
            let company = SubmitArgs::new()
                .timespec(&LONG_WAIT)
                .min_wait_usec(BULK_WAIT);
            return ring.submitter().submit_with_args(BULK_COMPANY, &company);
        }
        if self.bulk {
            return ring.submit_and_wait(1);
        }
        if !ring.submission().is_empty() {
            ring.submit()?;
        }
        if busy_poll.poll(|| ring.submission().taskrun() || !ring.completion().is_empty()) {
            return ring.submit_and_wait(0);
        }
        busy_poll.sleep(|| ring.submit_and_wait(1))
    }

    fn arrived(&mut self, buffer_id: BufferId, len: usize) -> Option<RxBatch> {
        let addr = self.udp_pools.of(buffer_id).map.addr(buffer_id);
        // SAFETY: the completion gave the first `len` bytes of this buffer to us; nothing writes to them until the
        // buffer is given back.
        let bytes = unsafe { std::slice::from_raw_parts(addr, len) };
        let out = RecvMsgOut::parse(bytes, &self.recv_template).ok()?;
        let payload = out.payload_data();
        Some(RxBatch {
            start: (payload.as_ptr() as usize - bytes.as_ptr() as usize) as u32,
            len: payload.len() as u32,
            src: source(out.name_data())?,
            notes: cmsg::read(out.control_data()),
            truncated: out.is_payload_truncated(),
        })
    }

    /// Rearms operations that ended for lack of buffers, as far as buffers are available, and retries what the queue
    /// had no room for.
    fn rearm(&mut self) {
        if !self.bell_armed {
            self.arm_bell();
        }
        for (tag, slot) in std::mem::take(&mut self.leaving) {
            match tag {
                CompletionTag::Tun => self.remove_tun(slot),
                _ => self.remove_socket(slot),
            }
        }
        if self.tun_pool.supply() {
            while let Some(slot) = self.rearm_tun.pop() {
                if !self.arm_tun(slot) {
                    self.rearm_tun.push(slot);
                    break;
                }
            }
        }
        self.udp_pools.supply();
        let mut waiting = self.listeners.take_waiting();
        waiting.retain(|&slot| !self.arm_socket(slot));
        self.listeners.keep_waiting(waiting);
    }
}

impl PacketIo for Uring {
    fn add_tun(&mut self, slot: u32, fd: RawFd) {
        // Left over from the previous user of the slot.
        self.leaving.retain(|&l| l != (CompletionTag::Tun, slot));
        place(&mut self.tuns, slot, fd);
        if !self.arm_tun(slot) {
            self.rearm_tun.push(slot);
        }
    }

    fn remove_tun(&mut self, slot: u32) {
        match self.rearm_tun.iter().position(|&s| s == slot) {
            // It is waiting for buffers, so there is no operation to cancel.
            Some(at) => {
                self.rearm_tun.swap_remove(at);
                self.ended.push((CompletionTag::Tun, slot));
            }
            None => self.cancel(CompletionTag::Tun, slot),
        }
    }

    fn add_socket(&mut self, slot: u32, fd: RawFd, stray: bool) {
        self.leaving.retain(|&l| l != (CompletionTag::Socket, slot));
        self.listeners.add(slot, fd, stray);
        if !self.arm_socket(slot) {
            self.listeners.wait(slot);
        }
    }

    fn remove_socket(&mut self, slot: u32) {
        match self.listeners.stop_waiting(slot) {
            true => self.ended.push((CompletionTag::Socket, slot)),
            false => self.cancel(CompletionTag::Socket, slot),
        }
    }

    fn bulk(&mut self, bulk: bool) {
        self.bulk = bulk;
        self.tun_pool.bulk = bulk;
        self.udp_pools.usual.bulk = bulk;
        time_slice::set_slice(bulk);
    }

    fn recycle(&mut self, side: PoolKind, buffer_id: BufferId) {
        match side {
            PoolKind::Tun => self.tun_pool.give(buffer_id),
            PoolKind::Udp => self.udp_pools.of(buffer_id).give(buffer_id),
            PoolKind::Waiting(_) => {}
        }
    }

    unsafe fn send(&mut self, id: u32, fd: RawFd, msg: *const libc::msghdr) {
        let send = opcode::SendMsg::new(Fd(fd), msg)
            .flags(libc::MSG_DONTWAIT as u32)
            .build();
        // SAFETY: the caller vouches for the message until `Sent`.
        if unsafe { self.push(&send.user_data(user_data(CompletionTag::Send, id))) } {
            self.in_flight += 1;
        } else {
            let result = -libc::EBUSY;
            self.refused.push(Completion::Sent { id, result });
        }
    }

    unsafe fn write(&mut self, id: u32, fd: RawFd, iov: &[libc::iovec]) {
        let write = opcode::Writev::new(Fd(fd), iov.as_ptr(), iov.len() as u32).build();
        // SAFETY: the caller vouches for the iovecs until `Wrote`.
        if unsafe { self.push(&write.user_data(user_data(CompletionTag::Write, id))) } {
            self.in_flight += 1;
        } else {
            let result = -libc::EBUSY;
            self.refused.push(Completion::Wrote { id, result });
        }
    }

    fn idle(&self) -> bool {
        self.in_flight == 0
    }

    fn turn(&mut self, wait: WaitTime, done: &mut Vec<Completion>) -> io::Result<()> {
        let full = std::mem::take(&mut self.full);
        self.rearm();
        self.listeners.begin_turn();
        // Sends and writes complete while they are submitted, and the same call collects what has arrived meanwhile.
        // The worker must not sleep before they are settled: a refused send would wait for the next packet.
        let time = match wait {
            WaitTime::For(time) => Some(time),
            WaitTime::No | WaitTime::Forever => None,
        };
        let no =
            full || self.full || wait == WaitTime::No || time.is_some_and(|time| time.is_zero());
        let submitted = if no || !self.ended.is_empty() {
            self.ring.submit_and_wait(0)
        } else if self.in_flight > 0 {
            self.ring.submit_and_wait(self.in_flight)
        } else {
            self.sleep(time)
        };
        match submitted {
            Ok(_) => {}
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ETIME)
                ) => {}
            Err(e) => return Err(e),
        }
        self.collect(done);
        if wait == WaitTime::No {
            self.read_more(done)?;
        }
        done.append(&mut self.refused);
        while let Some((tag, slot)) = self.ended.pop() {
            match tag {
                CompletionTag::Tun => self.tun_ended(slot, libc::ECANCELED, done),
                _ => self.socket_ended(slot, libc::ECANCELED, done),
            }
        }
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Closing a ring ends its operations later, in the background; the buffers must not be freed before that.
        let _ = self
            .ring
            .submitter()
            .register_sync_cancel(None, io_uring::types::CancelBuilder::any());
    }
}

#[cfg(test)]
mod tests;
