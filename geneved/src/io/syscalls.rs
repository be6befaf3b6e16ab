//! Backend on plain system calls: epoll, `read`, `recvmsg`, `sendmsg`, `writev`.
//!
//! For hosts that forbid io_uring. Sends and writes are done when they are queued; their results are reported by the
//! next turn. The buffer returned last is reused first, while it is in the cache.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;

use super::backend::{Completion, PacketIo, PoolKind, RxBatch, WaitTime, place, source};
use super::buffer_pool::{BufferId, BufferPool, PoolLayout};
use super::cmsg;
use super::pool_sizes::STRAY_BUFFERS;
use super::time_slice;

/// Maximum number of packets taken from one descriptor before the others get their turn. It also takes no more than
/// half of the free buffers, so that some are left for the others.
const BUDGET: usize = 32;

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum EpollTag {
    Tun,
    Socket,
    Bell,
}

/// Backend on plain system calls; see the module documentation.
pub(super) struct Syscalls {
    epoll: Epoll,
    tuns: Vec<Option<RawFd>>,
    sockets: Vec<Option<EpollSocket>>,
    tun_pool: FreeBuffers,
    udp_pool: FreeBuffers,
    finished: Vec<Completion>,
    ready: [EpollEvent; 64],
    /// Index of the ready descriptor that is read first.
    first: usize,
}

#[derive(Clone, Copy)]
struct EpollSocket {
    fd: RawFd,
    stray: bool,
}

struct FreeBuffers {
    free: Vec<BufferId>,
    map: PoolLayout,
    len: usize,
}

impl FreeBuffers {
    fn new(buffers: &BufferPool) -> Self {
        FreeBuffers {
            free: (0..buffers.count()).rev().collect(),
            map: buffers.map(),
            len: buffers.len(),
        }
    }

    /// How many packets one descriptor may take.
    fn budget(&self) -> usize {
        (self.free.len() / 2).clamp(1, BUDGET)
    }
}

impl Syscalls {
    /// Creates a backend that fills these buffers and polls the eventfd `bell`.
    ///
    /// # Errors
    /// If epoll cannot be set up.
    pub(super) fn new(tun: &BufferPool, udp: &BufferPool, bell: RawFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let backend = Syscalls {
            epoll,
            tuns: Vec::new(),
            sockets: Vec::new(),
            tun_pool: FreeBuffers::new(tun),
            udp_pool: FreeBuffers::new(udp),
            finished: Vec::with_capacity(1024),
            ready: [EpollEvent::empty(); 64],
            first: 0,
        };
        backend.watch(bell, EpollTag::Bell, 0)?;
        Ok(backend)
    }

    fn watch(&self, fd: RawFd, tag: EpollTag, slot: u32) -> io::Result<()> {
        let event = EpollEvent::new(
            EpollFlags::EPOLLIN,
            u64::from(tag as u8) << 32 | u64::from(slot),
        );
        // SAFETY: the worker keeps the descriptor open until the end of the queue or socket has been reported.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.epoll.add(fd, event)?;
        Ok(())
    }

    fn unwatch(&self, fd: RawFd) {
        // SAFETY: as in `watch`. A descriptor that is not watched any more does no harm.
        let _ = self.epoll.delete(unsafe { BorrowedFd::borrow_raw(fd) });
    }

    /// Waits as long as `wait` says. The timeout has nanosecond resolution, because rate-limited packets are sent by
    /// it.
    fn epoll_wait(&self, ready: &mut [EpollEvent], wait: WaitTime) -> nix::Result<usize> {
        let time = match wait {
            WaitTime::No => return self.epoll.wait(ready, EpollTimeout::ZERO),
            WaitTime::Forever => return self.epoll.wait(ready, EpollTimeout::NONE),
            WaitTime::For(time) => time,
        };
        let timeout = TimeSpec::from_duration(time);
        // SAFETY: `EpollEvent` is transparent over `epoll_event`; the kernel writes at most as many as there are. The
        // timeout lives through the call, and no signal mask is given.
        let count = Errno::result(unsafe {
            libc::epoll_pwait2(
                self.epoll.0.as_raw_fd(),
                ready.as_mut_ptr().cast(),
                ready.len() as i32,
                timeout.as_ref(),
                std::ptr::null(),
            )
        });
        match count {
            // Before Linux 5.11; the burst allowance makes up for the rest of the millisecond.
            Err(Errno::ENOSYS) => {
                let millis = u16::try_from(time.as_millis() + 1).unwrap_or(u16::MAX);
                self.epoll.wait(ready, EpollTimeout::from(millis))
            }
            count => count.map(|count| count as usize),
        }
    }

    fn read_tun(&mut self, slot: u32, done: &mut Vec<Completion>) {
        let Some(Some(fd)) = self.tuns.get(slot as usize).copied() else {
            return;
        };
        for _ in 0..self.tun_pool.budget() {
            let Some(buffer_id) = self.tun_pool.free.pop() else {
                return;
            };
            // SAFETY: the buffer is free, `len` bytes long, and nothing else accesses it until it is reported.
            let rc = unsafe {
                libc::read(
                    fd,
                    self.tun_pool.map.addr(buffer_id).cast(),
                    self.tun_pool.len,
                )
            };
            if rc > 0 {
                done.push(Completion::Tun {
                    slot,
                    buffer_id,
                    len: rc as usize,
                });
                continue;
            }
            let error = errno();
            self.tun_pool.free.push(buffer_id);
            if rc < 0 && !matches!(error, libc::EAGAIN | libc::EINTR) {
                self.unwatch(fd);
                self.tuns[slot as usize] = None;
                done.push(Completion::TunEnd { slot, error });
            }
            return;
        }
    }

    fn receive(&mut self, slot: u32, done: &mut Vec<Completion>) {
        let Some(Some(EpollSocket { fd, stray })) = self.sockets.get(slot as usize).copied() else {
            return;
        };
        let budget = match stray {
            true => self.udp_pool.budget().min(STRAY_BUFFERS.into()),
            false => self.udp_pool.budget(),
        };
        for _ in 0..budget {
            let Some(buffer_id) = self.udp_pool.free.pop() else {
                return;
            };
            let (base, room) = (self.udp_pool.map.addr(buffer_id), self.udp_pool.len);
            // SAFETY: the buffer has `len` bytes, and nothing else accesses it: it was free, and has not been
            // reported yet.
            match unsafe { receive_one(fd, base, room) } {
                Some(train) => done.push(Completion::Datagrams {
                    slot,
                    buffer_id,
                    train,
                }),
                None => {
                    self.udp_pool.free.push(buffer_id);
                    return;
                }
            }
        }
    }
}

/// Receives one train into the `room` bytes at `base`; `None` if there is none.
///
/// # Safety
/// These bytes must be writable, and nothing else may read or write them, until the call returns.
unsafe fn receive_one(fd: RawFd, base: *mut u8, room: usize) -> Option<RxBatch> {
    #[repr(align(8))]
    struct RxControlBuffer([u8; cmsg::RECV_ROOM]);
    let mut control = RxControlBuffer([0; cmsg::RECV_ROOM]);
    let mut name = [0u8; 32];
    let mut iov = libc::iovec {
        iov_base: base.cast(),
        iov_len: room,
    };
    // SAFETY: msghdr is plain data of integers and pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = name.len() as libc::socklen_t;
    message.msg_iov = &raw mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: name, control and iov live through the call, and their lengths are given; the caller vouches for the
    // `room` bytes at `base`.
    let rc = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) };
    let len = u32::try_from(rc).ok()?;
    Some(RxBatch {
        start: 0,
        len,
        src: source(&name)?,
        notes: cmsg::read(control.0.get(..message.msg_controllen)?),
        truncated: message.msg_flags & libc::MSG_TRUNC != 0,
    })
}

fn errno() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

impl PacketIo for Syscalls {
    fn add_tun(&mut self, slot: u32, fd: RawFd) {
        set_nonblocking(fd);
        place(&mut self.tuns, slot, fd);
        if let Err(e) = self.watch(fd, EpollTag::Tun, slot) {
            self.finished.push(Completion::TunEnd {
                slot,
                error: e.raw_os_error().unwrap_or(libc::EIO),
            });
        }
    }

    fn remove_tun(&mut self, slot: u32) {
        if let Some(fd) = self.tuns.get_mut(slot as usize).and_then(Option::take) {
            self.unwatch(fd);
            self.finished.push(Completion::TunEnd {
                slot,
                error: libc::ECANCELED,
            });
        }
    }

    fn add_socket(&mut self, slot: u32, fd: RawFd, stray: bool) {
        place(&mut self.sockets, slot, EpollSocket { fd, stray });
        if let Err(e) = self.watch(fd, EpollTag::Socket, slot) {
            self.finished.push(Completion::SocketEnd {
                slot,
                error: e.raw_os_error().unwrap_or(libc::EIO),
            });
        }
    }

    fn remove_socket(&mut self, slot: u32) {
        let socket = self.sockets.get_mut(slot as usize).and_then(Option::take);
        if let Some(EpollSocket { fd, .. }) = socket {
            self.unwatch(fd);
            self.finished.push(Completion::SocketEnd {
                slot,
                error: libc::ECANCELED,
            });
        }
    }

    fn bulk(&mut self, bulk: bool) {
        // Free buffers form a stack here: the one that is most likely in the cache is used next, however many there
        // are.
        time_slice::set_slice(bulk);
    }

    fn recycle(&mut self, side: PoolKind, buffer_id: BufferId) {
        match side {
            PoolKind::Tun => self.tun_pool.free.push(buffer_id),
            PoolKind::Udp => self.udp_pool.free.push(buffer_id),
            PoolKind::Waiting(_) => {}
        }
    }

    unsafe fn send(&mut self, id: u32, fd: RawFd, msg: *const libc::msghdr) {
        // SAFETY: the caller vouches for the message beyond this call; the kernel only reads it.
        let rc = unsafe { libc::sendmsg(fd, msg, libc::MSG_DONTWAIT) };
        self.finished.push(Completion::Sent {
            id,
            result: if rc < 0 { -errno() } else { rc as i32 },
        });
    }

    unsafe fn write(&mut self, id: u32, fd: RawFd, iov: &[libc::iovec]) {
        // SAFETY: the caller vouches for the iovecs beyond this call; the kernel only reads what they point to.
        let rc = unsafe { libc::writev(fd, iov.as_ptr(), iov.len() as i32) };
        self.finished.push(Completion::Wrote {
            id,
            result: if rc < 0 { -errno() } else { rc as i32 },
        });
    }

    fn idle(&self) -> bool {
        // Operations are carried out as they are queued.
        true
    }

    fn turn(&mut self, wait: WaitTime, done: &mut Vec<Completion>) -> io::Result<()> {
        // Finished operations return buffers, so they are reported before anything is read into new ones; but a
        // worker that is behind finishes some in every turn, so it still reads.
        if !self.finished.is_empty() {
            done.append(&mut self.finished);
            if wait != WaitTime::No {
                return Ok(());
            }
        }
        let mut ready = std::mem::replace(&mut self.ready, [EpollEvent::empty(); 64]);
        let count = match self.epoll_wait(&mut ready, wait) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        // The kernel lists descriptors that stay ready in the same order each time.
        self.first = self.first.wrapping_add(1);
        let (late, early) = ready[..count].split_at(self.first.checked_rem(count).unwrap_or(0));
        for event in early.iter().chain(late) {
            let slot = event.data() as u32;
            match (event.data() >> 32) as u8 {
                t if t == EpollTag::Tun as u8 => self.read_tun(slot, done),
                t if t == EpollTag::Socket as u8 => self.receive(slot, done),
                _ => done.push(Completion::Bell),
            }
        }
        self.ready = ready;
        Ok(())
    }
}

fn set_nonblocking(fd: RawFd) {
    // SAFETY: F_GETFL and F_SETFL only touch the flags of an open descriptor that belongs to the worker.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
    }
}
