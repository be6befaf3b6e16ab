//! Interface between a worker and the kernel, with two implementations.
//!
//! The worker queues trains and TUN writes, returns buffers, and takes turns; a turn submits what is queued,
//! optionally waits, and returns the completions. [`super::uring`] implements it with io_uring, [`super::syscalls`]
//! with epoll and plain system calls.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use super::buffer_pool::BufferId;
use super::cmsg::RxMetadata;
use super::direct;
use super::shape::SlotSize;

/// Selects a buffer pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolKind {
    /// Filled by TUN reads.
    Tun,
    /// Filled by UDP receives.
    Udp,
    /// Copies of packets that wait for their rate limits; never owned by the backend.
    Waiting(SlotSize),
}

/// Completion of a turn. `slot` is the number that the worker assigned to the TUN queue or socket.
#[derive(Debug)]
pub(super) enum Completion {
    /// A packet was read from a TUN queue: virtio header and packet are the first `len` bytes of the buffer.
    Tun {
        slot: u32,
        buffer_id: BufferId,
        len: usize,
    },
    /// A TUN queue ended: it was removed, or the interface is gone.
    TunEnd { slot: u32, error: i32 },
    /// A train of datagrams arrived.
    Datagrams {
        slot: u32,
        buffer_id: BufferId,
        train: RxBatch,
    },
    /// A receiving socket ended.
    SocketEnd { slot: u32, error: i32 },
    /// A train was sent; `result` is a negative errno if that failed.
    Sent { id: u32, result: i32 },
    /// A TUN write completed; `result` is a negative errno if it failed.
    Wrote { id: u32, result: i32 },
    /// The worker's eventfd was signalled.
    Bell,
}

/// Position of a received train in its buffer, and its metadata from the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct RxBatch {
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) src: SocketAddr,
    pub(super) notes: RxMetadata,
    /// The datagram did not fit into the buffer.
    pub(super) truncated: bool,
}

/// How long a turn may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitTime {
    /// Only collects what has completed already.
    No,
    /// Waits until something completes.
    Forever,
    /// Waits until something completes, but no longer than this.
    For(Duration),
}

/// Who computes the UDP checksum of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Left to the kernel, which may offload it to the network card.
    Offloaded,
    /// The kernel, in software.
    Finished,
}

/// I/O backend. All calls come from the worker's own thread.
pub(super) trait PacketIo {
    /// Starts reading packets from this TUN queue, until it is removed.
    fn add_tun(&mut self, slot: u32, fd: RawFd);
    /// Stops reading; [`Completion::TunEnd`] follows, after which the worker may close the descriptor.
    fn remove_tun(&mut self, slot: u32);
    /// Starts receiving from this socket, until it is removed. Reads only a little in each turn if the socket gets
    /// the datagrams of no VPC (`stray`).
    fn add_socket(&mut self, slot: u32, fd: RawFd, stray: bool);
    /// Stops receiving; [`Completion::SocketEnd`] follows.
    fn remove_socket(&mut self, slot: u32);
    /// Says whether packets come in bulk ([`super::pace`]).
    fn bulk(&mut self, bulk: bool);
    /// Returns a buffer to the backend.
    fn recycle(&mut self, side: PoolKind, buffer_id: BufferId);
    /// Queues a train.
    ///
    /// # Safety
    /// Until [`Completion::Sent`] of `id`, or until the backend is dropped: `fd` stays open; `msg` and all that it points to may be
    /// read and stay where they are.
    unsafe fn send(&mut self, id: u32, fd: RawFd, msg: *const libc::msghdr);
    /// Queues a TUN write.
    ///
    /// # Safety
    /// Until [`Completion::Wrote`] of `id`, or until the backend is dropped: `fd` stays open; the iovecs and all that they point to
    /// may be read and stay where they are.
    unsafe fn write(&mut self, id: u32, fd: RawFd, iov: &[libc::iovec]);
    /// Sends one datagram or train synchronously; `checksum` says who computes the UDP checksum.
    ///
    /// # Safety
    /// `msg` and everything it points to must be readable, and `fd` open, until the call returns.
    unsafe fn send_now(
        &mut self,
        fd: RawFd,
        msg: *const libc::msghdr,
        checksum: Checksum,
    ) -> Result<(), i32> {
        // SAFETY: the caller vouches for the message and the socket.
        unsafe { direct::send(fd, msg, checksum) }
    }
    /// Writes to the tunnel GSO device synchronously and returns whether the kernel forwarded the packet.
    ///
    /// # Safety
    /// The iovecs and everything they point to must be readable, and `fd` open, until the call returns.
    unsafe fn write_watched(&mut self, fd: RawFd, iov: &[libc::iovec]) -> bool {
        // SAFETY: the caller vouches for the iovecs and the device.
        unsafe { direct::write_watched(fd, iov) }
    }
    /// Whether no train and no write is queued or in flight.
    fn idle(&self) -> bool;
    /// Submits, waits, and appends completions to `done`.
    ///
    /// # Errors
    /// Only if the backend itself is broken; errors of single operations are in `done`.
    fn turn(&mut self, wait: WaitTime, done: &mut Vec<Completion>) -> io::Result<()>;
}

/// Parses the address and port of a `sockaddr_in` or `sockaddr_in6`.
pub(super) fn source(name: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(name.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(name.get(2..4)?.try_into().ok()?);
    let addr: IpAddr = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(name.get(4..8)?).ok()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(<[u8; 16]>::try_from(name.get(8..24)?).ok()?).into(),
        _ => return None,
    };
    Some(SocketAddr::new(addr, port))
}

/// Stores `what` at a slot and grows the list as needed.
pub(super) fn place<T>(list: &mut Vec<Option<T>>, slot: u32, what: T) {
    let slot = slot as usize;
    if list.len() <= slot {
        list.resize_with(slot + 1, || None);
    }
    list[slot] = Some(what);
}
