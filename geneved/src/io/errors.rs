//! Error queues of the sending sockets: read as they fill, and judged.
//!
//! An ICMP error is queued on the socket whose port it quotes, whoever sent it. The main thread is notified through
//! an epoll descriptor of its own and reads a bounded share per round; the backlog is bounded by the sockets' small
//! receive buffers. The kernel also leaves the error pending on the socket, where it fails the next send, which is
//! then retried ([`super::recover`]).

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use libgeneve::datapath::{ErrorRejection, OuterError, PacketContext, validate_icmp_error};
use libgeneve::vpc::{PathMtuEvidence, RxInterface};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::backend::source;
use super::cmsg::{self, QueuedError};
use super::engine::SendErrors;
use super::rx_interfaces::RxInterfaces;
use super::udp::SourcePortPool;

/// Maximum number of sockets read per round.
const SOCKETS: usize = 64;
/// Maximum number of errors read from one socket per round. Reading one leaves the next one pending, and a send may
/// run into it meanwhile.
const ERRORS_PER_ROUND: usize = 4;
/// Bytes of a quoted packet that are examined: the longest encapsulation header, an Ethernet header, an IP header
/// with the usual extension headers, and the ports.
const QUOTED: usize = 512;

/// Watches the error queues of the sending sockets.
#[derive(Debug)]
pub(super) struct ErrorQueues {
    epoll: Epoll,
    refusals: Mutex<HashMap<IpAddr, SendErrors>>,
    counts: [AtomicU64; ErrorVerdict::ALL.len()],
    forged: AtomicU64,
}

/// Verdict on an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ErrorVerdict {
    /// Credible.
    Believed,
    /// Nothing was sent to that host from that port lately.
    NotSent,
    /// The quoted packet does not belong to any link.
    NotOurs,
    /// The packets sent fit the MTU that it reports.
    Fits,
    /// It arrived on an interface that is not part of the underlay: a tenant can quote any datagram.
    NotFromUnderlay,
}

impl ErrorVerdict {
    /// All verdicts.
    pub const ALL: [ErrorVerdict; 5] = [
        ErrorVerdict::Believed,
        ErrorVerdict::NotSent,
        ErrorVerdict::NotOurs,
        ErrorVerdict::Fits,
        ErrorVerdict::NotFromUnderlay,
    ];

    /// Keyword in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            ErrorVerdict::Believed => "believed",
            ErrorVerdict::NotSent => "not-sent",
            ErrorVerdict::NotOurs => "not-ours",
            ErrorVerdict::Fits => "fits",
            ErrorVerdict::NotFromUnderlay => "not-from-underlay",
        }
    }
}

impl From<ErrorRejection> for ErrorVerdict {
    fn from(doubt: ErrorRejection) -> Self {
        match doubt {
            ErrorRejection::NotSent => ErrorVerdict::NotSent,
            ErrorRejection::NotOurs => ErrorVerdict::NotOurs,
            ErrorRejection::Fits => ErrorVerdict::Fits,
        }
    }
}

/// Consequence of an error that takes effect at once. Unreachable hosts are reported by
/// [`Engine::refusals`](super::Engine::refusals).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderlayEvent {
    /// A credible report says that the path to a host is narrower than what was sent.
    PathMtu {
        /// The host's address.
        host: IpAddr,
        /// MTU in bytes of the outer IP packet.
        mtu: u32,
        /// Source address of the error.
        by: IpAddr,
        /// Why it is credible.
        evidence: PathMtuEvidence,
    },
    /// This host's own kernel does not send longer packets to a host.
    OwnMtu {
        /// The host's address.
        host: IpAddr,
        /// MTU in bytes of the outer IP packet.
        mtu: u32,
    },
}

impl ErrorQueues {
    /// Returns an instance that watches no socket yet.
    ///
    /// # Errors
    /// If epoll cannot be set up.
    pub(super) fn new() -> io::Result<Self> {
        Ok(ErrorQueues {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            refusals: Mutex::default(),
            counts: Default::default(),
            forged: AtomicU64::default(),
        })
    }

    /// Watches these sockets until they are closed.
    pub(super) fn watch(&self, pool: &SourcePortPool) {
        pool.each_socket(|socket| {
            // epoll reports errors without being asked to.
            let event = EpollEvent::new(EpollFlags::empty(), name(pool.serial, socket));
            // SAFETY: the pool, which the caller holds, keeps the descriptor open; closing it removes it from epoll.
            let socket = unsafe { BorrowedFd::borrow_raw(socket) };
            // A socket that is watched already stays as it is; one that cannot be watched is still used for sending,
            // and its queue is bounded.
            let _ = self.epoll.add(socket, event);
        });
    }

    /// Returns the descriptor that is readable while there are errors.
    ///
    /// # Errors
    /// If no more descriptors are available.
    pub(super) fn descriptor(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let own = self.epoll.0.as_fd().try_clone_to_owned()?;
        // SAFETY: the `OwnedFd` is moved in and not taken out again, so it stays the same open descriptor for as long
        // as the `AsyncFd` lives.
        let readable = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) };
        Ok(readable?)
    }

    /// Reads and judges a bounded share of the errors of these pools' sockets. Only errors received on `believed`
    /// interfaces are trusted; consequences are passed to `tell`. Returns whether there may be more.
    pub(super) fn read(
        &self,
        cx: &PacketContext<'_>,
        pools: &[Arc<SourcePortPool>],
        believed: &RxInterfaces,
        tell: &mut impl FnMut(UnderlayEvent),
    ) -> bool {
        let mut ready = [EpollEvent::empty(); SOCKETS];
        let Ok(count) = self.epoll.wait(&mut ready, EpollTimeout::ZERO) else {
            return false;
        };
        for event in &ready[..count] {
            let (serial, socket) = of_name(event.data());
            // A late event may refer to a pool that is gone, and its descriptor's number may be in use by another
            // one.
            let pool = pools.iter().find(|pool| pool.serial == serial);
            if let Some(port) = pool.and_then(|pool| pool.port_of(socket)) {
                self.read_socket(cx, believed, socket, port, tell);
            }
        }
        count > 0
    }

    fn read_socket(
        &self,
        cx: &PacketContext<'_>,
        believed: &RxInterfaces,
        socket: RawFd,
        source_port: u16,
        tell: &mut impl FnMut(UnderlayEvent),
    ) {
        let mut quoted = [0; QUOTED];
        for _ in 0..ERRORS_PER_ROUND {
            let Some((error, about, len)) = read_one(socket, &mut quoted) else {
                // The queue was full when an error arrived, which is pending nevertheless.
                forget_pending(socket);
                return;
            };
            let mtu = (error.number == libc::EMSGSIZE).then_some(error.info);
            if !error.of_icmp {
                if let Some(mtu) = mtu.filter(|&mtu| mtu > 0) {
                    let host = about.ip();
                    tell(UnderlayEvent::OwnMtu { host, mtu });
                }
                continue;
            }
            // If a neighbour does not answer, this host's own kernel reports it over loopback.
            let rx = believed.of(error.interface);
            if !matches!(rx, RxInterface::Underlay | RxInterface::Loopback) {
                self.count(ErrorVerdict::NotFromUnderlay);
                self.forged.fetch_add(1, Relaxed);
                continue;
            }
            let outer = OuterError {
                host: about.ip(),
                port: about.port(),
                source_port,
                mtu,
                quoted: &quoted[..len],
            };
            let evidence = match validate_icmp_error(cx, &outer) {
                Ok(evidence) => evidence,
                Err(doubt) => {
                    self.count(doubt.into());
                    continue;
                }
            };
            self.count(ErrorVerdict::Believed);
            match (mtu, error.by) {
                (Some(mtu), Some(by)) => tell(UnderlayEvent::PathMtu {
                    host: outer.host,
                    mtu,
                    by,
                    evidence,
                }),
                (Some(_), None) => {}
                (None, _) => self.note_refusal(outer.host, error.number),
            }
        }
    }

    fn count(&self, verdict: ErrorVerdict) {
        self.counts[verdict as usize].fetch_add(1, Relaxed);
    }

    /// Takes the number of errors since the last call that did not arrive on an underlay interface.
    pub(super) fn take_forged(&self) -> u64 {
        self.forged.swap(0, Relaxed)
    }

    /// Returns the number of errors by verdict.
    pub(super) fn counts(&self) -> [(ErrorVerdict, u64); ErrorVerdict::ALL.len()] {
        ErrorVerdict::ALL.map(|verdict| (verdict, self.counts[verdict as usize].load(Relaxed)))
    }

    /// Records an unreachable host. Something was sent to it lately, so there are no more entries than hosts.
    fn note_refusal(&self, host: IpAddr, error: i32) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refusals = refusals.entry(host).or_insert_with(|| SendErrors {
            host,
            error: io::Error::from_raw_os_error(error),
            count: 0,
            certain: false,
        });
        refusals.error = io::Error::from_raw_os_error(error);
        refusals.count += 1;
    }

    /// Takes the errors since the last call, by host.
    pub(super) fn take_refusals(&self) -> Vec<SendErrors> {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.drain().map(|(_, refusals)| refusals).collect()
    }
}

/// Packs a pool's serial number and a socket into an epoll event's data.
fn name(serial: u32, socket: RawFd) -> u64 {
    u64::from(serial) << 32 | u64::from(socket.cast_unsigned())
}

fn of_name(name: u64) -> (u32, RawFd) {
    ((name >> 32) as u32, (name as u32).cast_signed())
}

/// Takes one error from the queue (ip(7), `IP_RECVERR`): the error, the destination of the datagram, and how many
/// bytes of its payload are quoted.
fn read_one(
    socket: RawFd,
    quoted: &mut [u8; QUOTED],
) -> Option<(QueuedError, std::net::SocketAddr, usize)> {
    #[repr(align(8))]
    struct ErrorControlBuffer([u8; 256]);
    let mut control = ErrorControlBuffer([0; 256]);
    let mut from = [0u8; size_of::<libc::sockaddr_in6>()];
    loop {
        let mut iov = libc::iovec {
            iov_base: quoted.as_mut_ptr().cast(),
            iov_len: quoted.len(),
        };
        // SAFETY: msghdr is plain data of integers and pointers, for which zero is valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = from.as_mut_ptr().cast();
        message.msg_namelen = from.len() as libc::socklen_t;
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        // SAFETY: the kernel writes at most msg_namelen bytes into `from`, msg_controllen into `control` and iov_len
        // into `quoted`, all of which live through the call.
        let rc = unsafe {
            libc::recvmsg(
                socket,
                &raw mut message,
                libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
            )
        };
        let len = usize::try_from(rc).ok()?;
        let error = control
            .0
            .get(..message.msg_controllen)
            .and_then(cmsg::error);
        // Entries without an error or a destination are skipped.
        if let (Some(error), Some(about)) = (error, source(&from)) {
            return Some((error, about, len.min(QUOTED)));
        }
    }
}

/// Clears the socket's pending error (socket(7), `SO_ERROR`).
fn forget_pending(socket: RawFd) {
    let mut error: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `error`.
    unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_by_its_name() {
        for (serial, socket) in [(0, 0), (1, 17), (u32::MAX, i32::MAX)] {
            assert_eq!(of_name(name(serial, socket)), (serial, socket));
        }
    }

    #[test]
    fn every_verdict_has_its_place_and_name() {
        for (at, verdict) in ErrorVerdict::ALL.into_iter().enumerate() {
            assert_eq!(verdict as usize, at);
        }
        let mut names = ErrorVerdict::ALL.map(ErrorVerdict::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorVerdict::ALL.len());
    }
}
