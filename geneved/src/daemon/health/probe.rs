//! A single health check: a TCP connection or an ICMP echo, made in the network namespace of the calling thread.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use libgeneve::wire::checksum::Sum;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::CheckTarget;
use crate::config::value::CheckValue;
use crate::random;

/// Outcome of a check.
pub(super) enum ProbeOutcome {
    /// The backend answered.
    Answered,
    /// The backend did not answer, with the reason.
    Failed(String),
    /// Nothing was sent because of an error of this host, which says nothing about the backend.
    Untested(io::Error),
}

/// Checks a target once.
pub(super) async fn probe(target: &CheckTarget, patience: Duration) -> ProbeOutcome {
    let asked = async {
        match (target.check, target.port) {
            (CheckValue::Tcp, Some(port)) => connect(target, port).await,
            (CheckValue::Icmp, _) => echo(target).await,
            (CheckValue::Tcp | CheckValue::None, _) => {
                Err(io::Error::from(io::ErrorKind::InvalidInput))
            }
        }
    };
    match timeout(patience, asked).await {
        Ok(Ok(())) => ProbeOutcome::Answered,
        Ok(Err(error)) if is_ours(&error) => ProbeOutcome::Untested(error),
        Ok(Err(error)) => ProbeOutcome::Failed(reason(&error)),
        Err(_) => ProbeOutcome::Failed(format!("no answer within {patience:?}")),
    }
}

/// Whether an error is local: missing permission, descriptors, memory, or interface.
fn is_ours(error: &io::Error) -> bool {
    !matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::ETIMEDOUT
        )
    )
}

fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => "connection refused".into(),
        Some(libc::ECONNRESET | libc::ECONNABORTED) => "connection reset".into(),
        Some(libc::EHOSTUNREACH | libc::ENETUNREACH) => "no route to it".into(),
        _ => error.to_string(),
    }
}

/// Binds a socket to the link's interface, except for an address of this host: the kernel delivers such packets
/// through the loopback interface, which a bound socket does not receive from.
fn keep_to_link(socket: &Socket, target: &CheckTarget) -> io::Result<()> {
    if is_own(target.addr) {
        return Ok(());
    }
    socket.bind_device(Some(target.link.as_bytes()))
}

/// Whether an address is local: the kernel then chooses it as the source as well.
fn is_own(addr: IpAddr) -> bool {
    let any: IpAddr = match addr {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Connecting a UDP socket sends nothing.
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((addr, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == addr)
}

async fn connect(target: &CheckTarget, port: u16) -> io::Result<()> {
    let to = SocketAddr::new(target.addr, port);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    keep_to_link(&socket, target)?;
    TcpSocket::from_std_stream(socket.into())
        .connect(to)
        .await?;
    Ok(())
}

async fn echo(target: &CheckTarget) -> io::Result<()> {
    let socket = echo_socket(target.addr)?;
    socket.set_nonblocking(true)?;
    keep_to_link(&socket, target)?;
    socket.connect(&SocketAddr::new(target.addr, 0).into())?;
    // Sending and receiving on a connected socket is the same for all kinds of datagrams.
    let socket = tokio::net::UdpSocket::from_std(socket.into())?;
    let request = EchoProbe::new(target.addr)?;
    socket.send(&request.bytes).await?;
    let mut room = [0; 512];
    loop {
        let len = socket.recv(&mut room).await?;
        if request.is_answered_by(&room[..len]) {
            return Ok(());
        }
    }
}

/// Opens a raw socket, which needs CAP_NET_RAW, or the kernel's ping socket, which needs a group in its sysctl.
fn echo_socket(addr: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match addr {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Socket::new(domain, Type::DGRAM, Some(protocol))
        }
        result => result,
    }
}

/// An ICMP echo request, and how to recognize its reply among what a raw socket receives.
struct EchoProbe {
    bytes: [u8; EchoProbe::LEN],
    v4: bool,
}

impl EchoProbe {
    const HEADER: usize = 8;
    const LEN: usize = Self::HEADER + 16;

    /// # Errors
    /// If there is no random number, as the reply could then be forged.
    fn new(to: IpAddr) -> io::Result<EchoProbe> {
        static SEQUENCE: AtomicU64 = AtomicU64::new(0);
        let sequence = SEQUENCE.fetch_add(1, Relaxed);
        let v4 = to.is_ipv4();
        let mut bytes = [0; Self::LEN];
        bytes[0] = if v4 { 8 } else { 128 };
        bytes[4..6].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&(sequence as u16).to_be_bytes());
        // The payload identifies the request: a ping socket writes its own identifier into the header.
        bytes[8..16].copy_from_slice(&sequence.to_be_bytes());
        bytes[16..].copy_from_slice(&random::bytes::<8>()?);
        if v4 {
            let check = Sum::ZERO.bytes(&bytes).checksum();
            bytes[2..4].copy_from_slice(&check.to_be_bytes());
        }
        Ok(EchoProbe { bytes, v4 })
    }

    /// Whether `packet` is the reply: an ICMP message, which an IPv4 raw socket delivers with its IP header.
    fn is_answered_by(&self, packet: &[u8]) -> bool {
        // An ICMP echo reply starts with 0, which an IPv4 header never does.
        let header = match packet.first() {
            Some(first) if self.v4 && first >> 4 == 4 => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        let Some(message) = packet.get(header..) else {
            return false;
        };
        let reply = if self.v4 { 0 } else { 129 };
        message.first() == Some(&reply)
            && message.get(Self::HEADER..) == Some(&self.bytes[Self::HEADER..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_told_from_other_icmp_by_type_and_payload() {
        let request = EchoProbe::new(Ipv4Addr::LOCALHOST.into()).unwrap();
        assert_eq!(Sum::ZERO.bytes(&request.bytes).checksum(), 0);
        let mut reply = request.bytes;
        assert!(!request.is_answered_by(&reply), "the request itself");
        reply[0] = 0;
        assert!(request.is_answered_by(&reply), "a ping socket's");
        let header = [&[0x46][..], &[0; 23]].concat();
        assert!(request.is_answered_by(&[&header[..], &reply].concat()));
        assert!(
            !EchoProbe::new(Ipv4Addr::LOCALHOST.into())
                .unwrap()
                .is_answered_by(&reply)
        );
        for len in 0..reply.len() {
            assert!(!request.is_answered_by(&reply[..len]));
        }
        assert!(!request.is_answered_by(&[0x4f]));

        let request = EchoProbe::new(Ipv6Addr::LOCALHOST.into()).unwrap();
        let mut reply = request.bytes;
        reply[0] = 129;
        assert!(request.is_answered_by(&reply));
    }

    #[test]
    fn an_address_of_this_host_is_known() {
        assert!(is_own(Ipv4Addr::LOCALHOST.into()));
        assert!(!is_own("192.0.2.77".parse().unwrap()));
    }
}
