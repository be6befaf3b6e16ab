//! Complete inner packets with correct checksums, and ways to modify them.

use std::net::IpAddr;

use libgeneve::wire::header::HeaderBytes;
use libgeneve::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, UnreachableReason};
use libgeneve::wire::ip::{Ipv4Header, Ipv6Header, protocol, write_ipv4_checksum};
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport::{TcpFlags, udp_header};
use libgeneve::wire::transport_checksum::ChecksumState;

/// Transport protocol of a packet.
#[derive(Clone, Copy, Debug)]
pub enum PayloadKind {
    /// TCP with these flags and this sequence number, and a header of 20 bytes.
    Tcp(TcpFlags, u32),
    Udp,
    /// ICMP echo request or reply; the source port is the identifier.
    Echo {
        reply: bool,
    },
    /// This protocol, without a known header.
    Other(u8),
}

/// A TCP segment in the middle of a connection.
pub const TCP_ACK: PayloadKind = PayloadKind::Tcp(TcpFlags::ACK, 1);
/// The first segment of a connection.
pub const TCP_SYN: PayloadKind = PayloadKind::Tcp(TcpFlags::SYN, 1);

/// Returns a packet with `payload` bytes after its transport header.
pub fn packet(
    src: (IpAddr, u16),
    dst: (IpAddr, u16),
    kind: PayloadKind,
    payload: usize,
) -> Vec<u8> {
    let v4 = src.0.is_ipv4();
    let (number, mut transport) = match kind {
        PayloadKind::Tcp(flags, seq) => (protocol::TCP, tcp_header((src.1, dst.1), flags, seq)),
        PayloadKind::Udp => {
            let header = udp_header(src.1, dst.1, (8 + payload) as u16, 0);
            (protocol::UDP, header.to_vec())
        }
        PayloadKind::Echo { reply } => {
            let (number, header) = echo_header(v4, src.1, reply);
            (number, header.to_vec())
        }
        PayloadKind::Other(number) => (number, Vec::new()),
    };
    transport.resize(transport.len() + payload, 0x5a);
    let bytes = in_ip(
        (src.0, dst.0),
        number,
        (2, number == protocol::TCP),
        &transport,
    );
    let whole = Packet::parse(&bytes).expect("a sound packet");
    let known = !matches!(kind, PayloadKind::Other(_));
    assert!(!known || whole.checksum_state(&bytes) != ChecksumState::Wrong);
    bytes
}

/// Returns an IP packet with this payload, DSCP and ECN field and, for IPv4, DF bit. The transport checksum is filled
/// in if the protocol is known.
pub fn in_ip(
    (src, dst): (IpAddr, IpAddr),
    number: u8,
    (tos, dont_fragment): (u8, bool),
    transport: &[u8],
) -> Vec<u8> {
    let header = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4Header {
            tos,
            identification: 7.into(),
            flags_fragment_offset: if dont_fragment {
                Ipv4Header::DONT_FRAGMENT.into()
            } else {
                0.into()
            },
            ..Ipv4Header::new(src, dst, number, transport.len() as u16)
        }
        .to_bytes()
        .to_vec(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
            version_class_flow: Ipv6Header::class_and_flow(tos, 0),
            ..Ipv6Header::new(src, dst, number, transport.len() as u16)
        }
        .to_bytes()
        .to_vec(),
        _ => panic!("one family"),
    };
    let mut bytes = [&header, transport].concat();
    let packet = Packet::parse(&bytes).expect("a sound packet");
    // The position of the checksum of other protocols is unknown.
    let _ = packet.write_checksum(&mut bytes);
    bytes
}

/// Returns a header of 20 bytes without a checksum.
pub fn tcp_header((src, dst): (u16, u16), flags: TcpFlags, seq: u32) -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&src.to_be_bytes());
    header[2..4].copy_from_slice(&dst.to_be_bytes());
    header[4..8].copy_from_slice(&seq.to_be_bytes());
    if flags.contains(TcpFlags::ACK) {
        // The peer's SYN had the sequence number 0.
        header[8..12].copy_from_slice(&1_u32.to_be_bytes());
    }
    header[12..14].copy_from_slice(&[0x50, flags.0]);
    header
}

/// Returns the protocol number and the header of an echo request or reply with this identifier, without a checksum.
pub fn echo_header(v4: bool, id: u16, reply: bool) -> (u8, [u8; 8]) {
    let (number, kind) = match (v4, reply) {
        (true, false) => (protocol::ICMP, 8),
        (true, true) => (protocol::ICMP, 0),
        (false, false) => (protocol::ICMPV6, 128),
        (false, true) => (protocol::ICMPV6, 129),
    };
    let [high, low] = id.to_be_bytes();
    (number, [kind, 0, 0, 0, high, low, 0, 1])
}

/// Turns an IPv4 packet into a fragment with this word of flags and offset.
pub fn fragment_of(mut bytes: Vec<u8>, word: u16) -> Vec<u8> {
    bytes[6..8].copy_from_slice(&word.to_be_bytes());
    write_ipv4_checksum(&mut bytes);
    bytes
}

/// Returns a host-unreachable error from `from` about a packet.
pub fn error_about(bytes: &[u8], from: IpAddr) -> Vec<u8> {
    unreachable(bytes, from, UnreachableReason::Host)
}

/// Returns an unreachable error from `from` about a packet, with this reason.
pub fn unreachable(bytes: &[u8], from: IpAddr, why: UnreachableReason) -> Vec<u8> {
    let packet = Packet::parse(bytes).expect("a sound packet");
    let mut out = vec![0; MAX_V6_ERROR_LEN];
    let len = IcmpError::Unreachable(why)
        .build(from, &packet, bytes, &mut out)
        .expect("it may be answered, and there is room");
    out.truncate(len);
    out
}

/// Returns a tunnel datagram.
pub fn behind(header: &HeaderBytes, inner: &[u8]) -> Vec<u8> {
    [&header[..], inner].concat()
}
