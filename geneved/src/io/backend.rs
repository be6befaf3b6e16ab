//! What the worker asks of the kernel, and what comes back: one interface, two backends.
//!
//! The worker queues trains and TUN writes, gives buffers back, and takes turns; a turn submits
//! what is queued, waits if it is told to, and returns what was completed. [`super::uring`] does so
//! with io_uring, [`super::syscalls`] with epoll and plain system calls.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use super::buffer_pool::BufferId;
use super::cmsg::RxMetadata;
use super::direct;
use super::shape::SlotSize;

/// Which pool of buffers is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolKind {
    /// Filled by TUN reads.
    Tun,
    /// Filled by UDP receives.
    Udp,
    /// Copies of packets that waited for their rates; never the backend's.
    Waiting(SlotSize),
}

/// What a turn brought. `slot` is the number that the worker gave to the TUN queue or socket.
#[derive(Debug)]
pub(super) enum Completion {
    /// A TUN queue gave a packet: virtio header and packet are `len` bytes of the buffer.
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
    /// A train was sent, or a negative errno.
    Sent { id: u32, result: i32 },
    /// A TUN write was done, or a negative errno.
    Wrote { id: u32, result: i32 },
    /// Somebody rang the worker's bell.
    Bell,
}

/// Where a received train lies in its buffer, and what the kernel said of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RxBatch {
    pub(super) start: u32,
    pub(super) len: u32,
    pub(super) src: SocketAddr,
    pub(super) notes: RxMetadata,
    /// The datagram did not fit the buffer.
    pub(super) truncated: bool,
}

/// How long a turn may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitTime {
    /// Only what is there.
    No,
    /// Until something completes.
    Forever,
    /// The same, but no longer than this.
    For(Duration),
}

/// Who sums the UDP checksum of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Whoever the kernel leaves it to, perhaps the network card.
    Offloaded,
    /// The kernel, before the datagram leaves it.
    Finished,
}

/// A way to do I/O. All calls come from the worker's own thread.
pub(super) trait PacketIo {
    /// Reads packets from this TUN queue until it is removed.
    fn add_tun(&mut self, slot: u32, fd: RawFd);
    /// Stops reading; [`Completion::TunEnd`] follows, after which the worker may close the descriptor.
    fn remove_tun(&mut self, slot: u32);
    /// Receives from this socket until it is removed; little in each turn where it takes what is of no VPC (`stray`).
    fn add_socket(&mut self, slot: u32, fd: RawFd, stray: bool);
    /// Stops receiving; [`Completion::SocketEnd`] follows.
    fn remove_socket(&mut self, slot: u32);
    /// Packets come in bulk from now on, or do so no longer ([`super::pace`]).
    fn bulk(&mut self, bulk: bool);
    /// Takes a buffer back.
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
    /// Sends one datagram, or train, before it returns; `checksum` says who sums the UDP checksum.
    ///
    /// # Safety
    /// `msg` and all that it points to may be read, and `fd` is open, until the call returns.
    unsafe fn send_now(
        &mut self,
        fd: RawFd,
        msg: *const libc::msghdr,
        checksum: Checksum,
    ) -> Result<(), i32> {
        // SAFETY: the caller vouches for the message and the socket.
        unsafe { direct::send(fd, msg, checksum) }
    }
    /// Writes to the device for tunnel GSO before it returns, and says whether the kernel forwarded what it got.
    ///
    /// # Safety
    /// The iovecs and all that they point to may be read, and `fd` is open, until the call returns.
    unsafe fn write_watched(&mut self, fd: RawFd, iov: &[libc::iovec]) -> bool {
        // SAFETY: the caller vouches for the iovecs and the device.
        unsafe { direct::write_watched(fd, iov) }
    }
    /// Whether no train and no write is queued or under way.
    fn idle(&self) -> bool;
    /// Submits, waits, and appends what was completed to `done`.
    ///
    /// # Errors
    /// Only where the backend itself is broken; errors of single operations are in `done`.
    fn turn(&mut self, wait: WaitTime, done: &mut Vec<Completion>) -> io::Result<()>;
}

/// The address and the port in a `sockaddr_in` or `sockaddr_in6`.
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

/// Notes what is at a slot.
pub(super) fn place<T>(list: &mut Vec<Option<T>>, slot: u32, what: T) {
    let slot = slot as usize;
    if list.len() <= slot {
        list.resize_with(slot + 1, || None);
    }
    list[slot] = Some(what);
}
