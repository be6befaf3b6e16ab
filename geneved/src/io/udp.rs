//! UDP sockets: receivers on the Geneve port, and pools of source ports.
//!
//! A receiving socket belongs to one worker, and a port has several ([`super::steering`]). The sockets of a pool are
//! shared by all workers and only send: a filter that rejects everything keeps out stray datagrams to those ports,
//! while ICMP errors still reach the error queue.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, OnceLock};

use libgeneve::datapath::OuterTx;
use libgeneve::vpc::Df;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::steering::refuse_groups;
use crate::random;

/// Requested send buffer size of each socket, in bytes.
const SEND_BUFFER: usize = 8 << 20;
/// Requested receive buffer size of a send-only socket, in bytes, which bounds its error queue: eight errors with
/// long quotes, or fifty with short ones. The kernel allows twice as much.
const ERROR_QUEUE: usize = 16 << 10;
/// Requested receive buffer size of each socket for VPCs, in bytes; the kernel counts its own overhead, and allows
/// twice as much.
const QUEUE_BUFFER: usize = 8 << 20;
/// Requested receive buffer size of the socket for datagrams of no VPC: only the latest of them matter.
const STRAY_BUFFER: usize = 128 << 10;
/// Maximum number of source-port sockets per family; from a larger range, this many ports are drawn.
const POOL_SOCKETS: usize = 64;
/// Maximum number of sockets for datagrams that are fragmented only because the path is narrower than the IPv6
/// minimum MTU: no router spreads fragments by ports.
const FRAGMENT_SOCKETS: usize = 4;

// linux/udp.h
const UDP_NO_CHECK6_TX: i32 = 101;
const UDP_NO_CHECK6_RX: i32 = 102;

/// Sets an integer socket option.
pub(super) fn set_int(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the kernel reads four bytes from `value`, which lives until the call returns.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if rc == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Address family of the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressFamily {
    V4,
    V6,
}

impl AddressFamily {
    pub(super) fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() {
            AddressFamily::V4
        } else {
            AddressFamily::V6
        }
    }

    fn domain(self) -> Domain {
        match self {
            AddressFamily::V4 => Domain::IPV4,
            AddressFamily::V6 => Domain::IPV6,
        }
    }

    pub(super) fn unspecified(self) -> IpAddr {
        match self {
            AddressFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// Checks that `port` is free: the workers' sockets share it, and sharing would let them join another program's.
///
/// # Errors
/// `EADDRINUSE` if the port is taken.
pub(super) fn ensure_free(family: AddressFamily, port: u16) -> io::Result<()> {
    let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    if family == AddressFamily::V6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(family.unspecified(), port).into())
}

/// Whether `port` is taken, in any family that the host has.
#[must_use]
pub fn port_is_taken(port: u16) -> bool {
    let taken = |family| {
        ensure_free(family, port).is_err_and(|e: io::Error| e.kind() == io::ErrorKind::AddrInUse)
    };
    taken(AddressFamily::V4) || taken(AddressFamily::V6)
}

/// Opens a receiving socket of `port`; the first one takes the datagrams of no VPC ([`super::steering`]).
///
/// # Errors
/// Any error of `socket(2)` or `bind(2)`, `EADDRINUSE` if another program has the port.
pub(super) fn receiver(
    family: AddressFamily,
    port: u16,
    zero_checksum6: bool,
    first: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    if family == AddressFamily::V6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    if first {
        force_receive_buffer(&socket, STRAY_BUFFER);
    } else {
        force_receive_buffer(&socket, QUEUE_BUFFER);
        refuse_groups(&socket)?;
    }
    set_int(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).or_else(unless_unknown)?;
    match family {
        AddressFamily::V4 => {
            set_int(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        }
        AddressFamily::V6 => {
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            set_int(
                &socket,
                libc::SOL_UDP,
                UDP_NO_CHECK6_RX,
                i32::from(zero_checksum6),
            )?;
        }
    }
    socket.bind(&SocketAddr::new(family.unspecified(), port).into())?;
    Ok(socket)
}

fn unless_unknown(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOPROTOOPT) => Ok(()),
        _ => Err(error),
    }
}

/// Exceeding the kernel's limit needs `CAP_NET_ADMIN`; without it the limit applies.
fn force_receive_buffer(socket: &Socket, bytes: usize) {
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

fn force_send_buffer(socket: &Socket) {
    if setsockopt(socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
    }
}

/// A link's requirements for the sockets that it sends from. Links with equal profiles share sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketProfile {
    /// Local underlay address, if the operator configured one.
    pub local: Option<IpAddr>,
    /// UDP source ports.
    pub srcport: RangeInclusive<u16>,
    /// Outer DF bit.
    pub df: Df,
    /// Whether datagrams over IPv4 carry a UDP checksum (RFC 8926 section 3.3).
    pub udp_csum: bool,
    /// Whether datagrams over IPv6 carry a zero checksum.
    pub udp6_zero_csum_tx: bool,
    /// Whether each datagram is sent by itself with a finished checksum, for receivers that get what a network card
    /// would have finished.
    pub whole: bool,
}

/// Pool of sockets for one [`SocketProfile`].
#[derive(Debug)]
pub(super) struct SourcePortPool {
    pub(super) profile: SocketProfile,
    /// Serial number, unique among the daemon's pools, including those that are gone.
    pub(super) serial: u32,
    /// Ports of the range in the order in which they are tried.
    ports: Vec<u16>,
    /// Sockets for trains; `None` if every datagram needs a finished checksum.
    usual: Option<SourcePortSockets>,
    /// Sockets for datagrams with finished checksums, which are corked, from the same ports. A datagram that another
    /// worker sent from the same socket meanwhile would become part of the corked one.
    whole: OnceLock<SourcePortSockets>,
    /// Held while a datagram is corked, because all workers share the sockets.
    pub(super) cork: Mutex<()>,
}

/// Sockets of one pool for one way of sending.
#[derive(Debug)]
struct SourcePortSockets {
    df_set: [Vec<SourcePort>; 2],
    /// For datagrams that may be fragmented.
    df_unset: [Vec<SourcePort>; 2],
}

impl SourcePortPool {
    /// Opens the sockets. `serial` must be unique.
    ///
    /// # Errors
    /// If not a single port of the range can be bound in a family that the host has, or none can be drawn.
    pub(super) fn open(profile: SocketProfile, serial: u32) -> io::Result<Arc<Self>> {
        let mut pool = SourcePortPool {
            // Some ports may be taken, so up to four times as many as needed are tried.
            ports: draw_ports(&profile.srcport, 4 * POOL_SOCKETS)?,
            profile,
            serial,
            usual: None,
            whole: OnceLock::new(),
            cork: Mutex::default(),
        };
        if pool.profile.whole {
            pool.open_whole()?;
        } else {
            pool.usual = Some(SourcePortSockets::open(&pool.profile, &pool.ports)?);
        }
        Ok(Arc::new(pool))
    }

    /// Returns a pool without sockets, from which nothing can be sent.
    pub(super) fn closed(profile: SocketProfile) -> Arc<Self> {
        Arc::new(SourcePortPool {
            profile,
            serial: 0,
            ports: Vec::new(),
            usual: None,
            whole: OnceLock::new(),
            cork: Mutex::default(),
        })
    }

    /// Returns a pool of four ports with descriptors from `descriptor`, for a backend without a kernel.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn of_descriptors(
        profile: SocketProfile,
        mut descriptor: impl FnMut() -> OwnedFd,
    ) -> Arc<Self> {
        let first = *profile.srcport.start();
        let mut sources = || {
            let source = |port| SourcePort {
                socket: descriptor(),
                port,
            };
            (first..first + 4).map(source).collect()
        };
        let mut sockets = || SourcePortSockets {
            df_set: [sources(), sources()],
            df_unset: [sources(), sources()],
        };
        Arc::new(SourcePortPool {
            profile,
            serial: 1,
            ports: Vec::new(),
            usual: Some(sockets()),
            whole: OnceLock::from(sockets()),
            cork: Mutex::default(),
        })
    }

    /// Opens the sockets for finished checksums, if they are not open yet.
    ///
    /// # Errors
    /// As [`SourcePortPool::open`].
    pub(super) fn open_whole(&self) -> io::Result<()> {
        if self.lacks_whole() {
            let sockets = SourcePortSockets::open(&self.profile, &self.ports)?;
            // Only the main thread opens sockets.
            let _ = self.whole.set(sockets);
        }
        Ok(())
    }

    /// Whether it lacks sockets for finished checksums.
    pub(super) fn lacks_whole(&self) -> bool {
        self.whole.get().is_none()
    }

    /// Whether it has sockets for finished checksums in addition to the usual ones.
    pub(super) fn has_both(&self) -> bool {
        self.usual.is_some() && self.whole.get().is_some()
    }

    /// Calls `visit` for every socket.
    pub(super) fn each_socket(&self, mut visit: impl FnMut(RawFd)) {
        self.sources()
            .for_each(|source| visit(source.socket.as_raw_fd()));
    }

    /// Returns the source port of a socket of this pool.
    pub(super) fn port_of(&self, socket: RawFd) -> Option<u16> {
        let mut sources = self.sources();
        let source = sources.find(|source| source.socket.as_raw_fd() == socket)?;
        Some(source.port)
    }

    fn sources(&self) -> impl Iterator<Item = &SourcePort> {
        let all = self.usual.iter().chain(self.whole.get());
        all.flat_map(|sockets| sockets.df_set.iter().chain(&sockets.df_unset).flatten())
    }

    /// Picks the socket for a flow's hash, from those for finished checksums if `whole`, otherwise from the usual
    /// ones; `None` if the family is not available.
    #[inline]
    pub(super) fn pick(
        &self,
        family: AddressFamily,
        outer: &OuterTx,
        hash: u64,
        whole: bool,
    ) -> Option<SourcePortChoice> {
        let checksum = match family {
            AddressFamily::V6 => !self.profile.udp6_zero_csum_tx,
            AddressFamily::V4 => self.profile.udp_csum,
        };
        // A datagram without a checksum has none to finish.
        let whole = self.profile.whole || (whole && checksum);
        let all = match whole {
            true => self.whole.get()?,
            false => self.usual.as_ref()?,
        };
        let df = match self.profile.df {
            _ if outer.fragment => false,
            // While old tables outlive the old sockets for a moment, they may ask for a DF setting that these sockets
            // lack.
            Df::Set => true,
            Df::Unset => false,
            Df::Inherit => outer.df,
        };
        let sockets = match family {
            AddressFamily::V4 if df => &all.df_set[0],
            AddressFamily::V4 => &all.df_unset[0],
            AddressFamily::V6 if outer.fragment => &all.df_unset[1],
            AddressFamily::V6 => &all.df_set[1],
        };
        // Scales the upper half of the hash to the pool, because the lower half selects among hosts.
        let at = ((hash >> 32) * sockets.len() as u64) >> 32;
        let source = sockets.get(at as usize)?;
        Some(SourcePortChoice {
            socket: source.socket.as_raw_fd(),
            port: source.port,
            checksum,
        })
    }
}

impl SourcePortSockets {
    fn open(profile: &SocketProfile, ports: &[u16]) -> io::Result<Self> {
        let family_ok = |family| {
            profile
                .local
                .is_none_or(|local| AddressFamily::of(local) == family)
        };
        let open = |family: AddressFamily, df, most| -> io::Result<Vec<SourcePort>> {
            if !family_ok(family) {
                return Ok(Vec::new());
            }
            match senders(profile, (family, df), most, ports) {
                Err(e) if family == AddressFamily::V6 && no_ipv6(&e) && profile.local.is_none() => {
                    Ok(Vec::new())
                }
                other => other,
            }
        };
        let want_set = profile.df != Df::Unset;
        let df_set = [
            if want_set {
                open(AddressFamily::V4, true, POOL_SOCKETS)?
            } else {
                Vec::new()
            },
            open(AddressFamily::V6, true, POOL_SOCKETS)?,
        ];
        let most = match profile.df {
            Df::Set => FRAGMENT_SOCKETS,
            Df::Unset | Df::Inherit => POOL_SOCKETS,
        };
        let df_unset = [
            open(AddressFamily::V4, false, most)?,
            open(AddressFamily::V6, false, FRAGMENT_SOCKETS)?,
        ];
        Ok(SourcePortSockets { df_set, df_unset })
    }
}

/// Maximum number of sockets that a pool of this profile has for one way of sending.
#[must_use]
pub fn sockets_of(profile: &SocketProfile) -> usize {
    let (low, high) = (*profile.srcport.start(), *profile.srcport.end());
    let range = usize::from(high.saturating_sub(low)) + 1;
    let (many, few) = (POOL_SOCKETS.min(range), FRAGMENT_SOCKETS.min(range));
    let v4 = match profile.df {
        Df::Set => many + few,
        Df::Unset => many,
        Df::Inherit => 2 * many,
    };
    match profile.local.map(AddressFamily::of) {
        Some(AddressFamily::V4) => v4,
        Some(AddressFamily::V6) => many + few,
        None => v4 + many + few,
    }
}

/// Source port.
#[derive(Debug)]
struct SourcePort {
    socket: OwnedFd,
    port: u16,
}

/// Socket and source port picked for a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SourcePortChoice {
    pub(super) socket: RawFd,
    pub(super) port: u16,
    /// Whether datagrams carry a UDP checksum; those without cannot be sent as trains.
    pub(super) checksum: bool,
}

fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// Draws up to `most` different ports of a range, in an order that outsiders cannot guess: knowing the source ports
/// allows forging ICMP errors.
fn draw_ports(range: &RangeInclusive<u16>, most: usize) -> io::Result<Vec<u16>> {
    let mut ports: Vec<u16> = range.clone().collect();
    let most = most.min(ports.len());
    for at in 0..most {
        let left = (ports.len() - at) as u64;
        let drawn = (u128::from(random::number()?) * u128::from(left)) >> 64;
        ports.swap(at, at + drawn as usize);
    }
    ports.truncate(most);
    Ok(ports)
}

fn senders(
    profile: &SocketProfile,
    (family, df): (AddressFamily, bool),
    most: usize,
    ports: &[u16],
) -> io::Result<Vec<SourcePort>> {
    let mut sockets = Vec::with_capacity(most.min(ports.len()));
    let mut last_error = None;
    for &port in ports {
        match sender(profile, family, df, port) {
            Ok(socket) => sockets.push(SourcePort {
                socket: socket.into(),
                port,
            }),
            Err(e) => last_error = Some(e),
        }
        if sockets.len() == most {
            break;
        }
    }
    match last_error {
        Some(error) if sockets.is_empty() => Err(error),
        _ => Ok(sockets),
    }
}

/// How a socket treats the path MTU (ip(7), `IP_MTU_DISCOVER`). The kernel's cached path MTU may be forged, so it is
/// not used: with `PROBE` DF is set and the device's MTU applies; with `OMIT` DF is not set, and routers fragment.
/// IPv6 routers do not fragment, so there the kernel does, by its cached path MTU, which is never below 1280.
fn discover(family: AddressFamily, df: bool) -> i32 {
    match (family, df) {
        (AddressFamily::V4, true) => libc::IP_PMTUDISC_PROBE,
        (AddressFamily::V4, false) => libc::IP_PMTUDISC_OMIT,
        (AddressFamily::V6, true) => libc::IPV6_PMTUDISC_PROBE,
        (AddressFamily::V6, false) => libc::IPV6_PMTUDISC_DONT,
    }
}

fn sender(
    profile: &SocketProfile,
    family: AddressFamily,
    df: bool,
    port: u16,
) -> io::Result<Socket> {
    let socket = Socket::new(family.domain(), Type::DGRAM, Some(Protocol::UDP))?;
    let discover = discover(family, df);
    match family {
        AddressFamily::V4 => {
            set_int(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)?;
            set_int(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
            // Provides the interface that received an ICMP error.
            set_int(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
            if !profile.udp_csum {
                set_int(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)?;
            }
        }
        AddressFamily::V6 => {
            socket.set_only_v6(true)?;
            set_int(
                &socket,
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                discover,
            )?;
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
            set_int(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            if profile.udp6_zero_csum_tx {
                set_int(&socket, libc::SOL_UDP, UDP_NO_CHECK6_TX, 1)?;
            }
        }
    }
    // Pools of other profiles may use the same ports.
    socket.set_reuse_port(true)?;
    refuse_everything(&socket)?;
    force_send_buffer(&socket);
    socket.set_recv_buffer_size(ERROR_QUEUE)?;
    let local = profile.local.unwrap_or(family.unspecified());
    socket.bind(&SocketAddr::new(local, port).into())?;
    Ok(socket)
}

/// Attaches a filter of one instruction, "accept 0 bytes": nothing is ever queued on a socket that only sends.
fn refuse_everything(socket: &Socket) -> io::Result<()> {
    const BPF_RET_K: u16 = 0x06;
    let refuse = SockFilter::new(BPF_RET_K, 0, 0, 0);
    socket.attach_filter(&[refuse])
}

/// Receiving socket, as passed to a worker.
#[derive(Debug)]
pub(super) struct RxSocket {
    pub(super) port: u16,
    /// It takes the datagrams of no VPC: it is read last, and only a little at a time.
    pub(super) stray: bool,
    pub(super) fd: OwnedFd,
}

impl RxSocket {
    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_drawn_from_the_whole_range_and_no_two_alike() {
        let range = 49_152..=65_535;
        let ports = draw_ports(&range, 256).unwrap();
        let distinct: BTreeSet<_> = ports.iter().copied().collect();
        assert_eq!((ports.len(), distinct.len()), (256, 256));
        assert!(ports.iter().all(|port| range.contains(port)));
        // The range cannot be guessed from one port: the steps between neighbouring ports are not all equal.
        let sorted: Vec<_> = distinct.into_iter().collect();
        let steps: BTreeSet<_> = sorted.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.len() > 16, "{steps:?}");
        assert_ne!(draw_ports(&range, 256).unwrap(), ports, "another draw");
        let mut few = draw_ports(&(50_000..=50_003), 256).unwrap();
        few.sort_unstable();
        assert_eq!(few, [50_000, 50_001, 50_002, 50_003]);
        assert_eq!(draw_ports(&(7..=7), 256).unwrap(), [7]);
    }
}
