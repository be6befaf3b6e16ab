//! One IP packet, parsed through to its transport header.
//!
//! Owns the walk over IPv4 options and IPv6 extension headers, fragments, and the check of every length on the way.
//! Checksums are in [`ip`](super::ip) and [`transport_checksum`](super::transport_checksum), and the packet that an
//! ICMP error quotes in [`icmp`](super::icmp).

use std::net::{IpAddr, Ipv4Addr};

use zerocopy::transmute_ref;

use super::icmp::{ICMP_HEADER_LEN, IcmpHeader};
pub use super::ip::IpVersion;
use super::ip::protocol;
use super::ipv4::{IPV4_HEADER_LEN, Ipv4Header};
use super::ipv6::{ExtensionHeader, FragmentHeader, IPV6_HEADER_LEN, Ipv6Header, RoutingHeader};
use super::prefix;
use super::tcp::{TCP_HEADER_LEN, TcpFlags, TcpHeader};
use super::udp::{UDP_HEADER_LEN, UdpHeader};

/// Most IPv6 extension headers of a packet; one with more is refused. RFC 8200 section 4.1 lists seven positions; the
/// bound limits the work for a hostile packet.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Offsets of the parts of an IP packet, and its decoded header fields. Does not borrow the packet.
///
/// ```
/// use libgeneve::wire::ip::{Ipv4Header, protocol};
/// use libgeneve::wire::packet::{Packet, PacketError, Transport};
/// use libgeneve::wire::udp::udp_header;
///
/// let header = Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), protocol::UDP, 8);
/// let mut bytes = [&header.to_bytes()[..], &udp_header(5000, 53, 8, 0)].concat();
/// let packet = Packet::parse(&bytes)?;
/// assert_eq!(packet.transport, Transport::Udp { src: 5000, dst: 53, len: 8 });
/// assert!(packet.write_checksum(&mut bytes));
/// assert!(Packet::parse(&bytes[..27]).is_err());
/// # Ok::<(), PacketError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The IP version.
    pub version: IpVersion,
    /// Offset of the transport header, or of a fragment's payload.
    pub transport_offset: u16,
    /// Offset of the payload after the TCP, UDP or ICMP header (8 bytes of ICMP); equals `transport_offset` for
    /// [`Transport::Other`] and [`Transport::Unavailable`].
    pub payload_offset: u16,
    /// Length of the packet by its own length field, in bytes. Bytes after it are not part of it.
    pub total_len: u16,
    /// The transport protocol, after IPv6 extension headers.
    pub protocol: u8,
    /// The source address.
    pub src: IpAddr,
    /// The destination address.
    pub dst: IpAddr,
    /// The decoded transport header.
    pub transport: Transport,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// The identification that the fragments of one packet share: 16 bits in IPv4, 32 in IPv6; 0 if the packet is
    /// whole.
    pub fragment_id: u32,
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The DF bit; always `true` for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// An IPv6 routing header has segments left: `dst` is not the address that the transport
    /// checksum covers (RFC 8200 section 8.1).
    pub source_routed: bool,
}

/// The fields of a transport header that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
        /// The flag bits.
        flags: TcpFlags,
        /// The sequence number.
        seq: u32,
        /// The acknowledgment number.
        ack: u32,
    },
    /// UDP (RFC 768).
    Udp {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
        /// Length of header and payload by the length field: at least 8, and never more than the IP payload unless
        /// this is a first fragment.
        len: u16,
    },
    /// ICMP in an IPv4 packet or ICMPv6 in an IPv6 packet.
    Icmp {
        /// The message type.
        kind: u8,
        /// The code.
        code: u8,
        /// The identifier of a query or its reply.
        id: Option<u16>,
    },
    /// Another protocol, or nothing (No Next Header, ESP).
    Other,
    /// A later fragment, or a first fragment that ends within its transport header.
    Unavailable,
}

/// Whether a packet is a fragment, and which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment (IPv6 "atomic fragments" are whole, RFC 6946).
    Whole,
    /// The first fragment, which has the transport header.
    First,
    /// A later fragment, without a transport header.
    Later,
}

impl Fragment {
    /// Classifies a fragment offset and the more-fragments bit.
    #[inline]
    #[must_use]
    pub const fn of(offset: u16, more_fragments: bool) -> Fragment {
        match (offset, more_fragments) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            _ => Fragment::Later,
        }
    }
}

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The version is neither 4 nor 6.
    #[error("neither IPv4 nor IPv6")]
    NotIp,
    /// The buffer ends within the fixed header, or before the length given by the packet's own length field.
    #[error("shorter than its own length field")]
    Truncated,
    /// Length fields inside the packet contradict each other.
    #[error("malformed header")]
    BadHeader,
    /// More than [`MAX_EXTENSION_HEADERS`] IPv6 extension headers.
    #[error("too many IPv6 extension headers")]
    TooManyExtensions,
}

impl Packet {
    /// Whether the destination is a multicast or broadcast address. A subnet's directed broadcast cannot be
    /// recognised from the packet.
    #[inline]
    #[must_use]
    pub fn is_for_group(&self) -> bool {
        let everybody = self.dst == IpAddr::V4(Ipv4Addr::BROADCAST);
        everybody || self.dst.is_multicast()
    }

    /// Parses the IP packet at the start of `bytes`.
    ///
    /// Bytes after the packet's own length are allowed and ignored. Checksums are not verified.
    ///
    /// # Errors
    ///
    /// [`PacketError::NotIp`] for another version; [`PacketError::Truncated`] if the buffer ends early;
    /// [`PacketError::BadHeader`] if lengths contradict each other (an IPv4 header below 20 bytes, a total length
    /// below the header's, a UDP length below 8 or beyond the IP payload, a TCP or extension header that does not
    /// fit, an IPv6 packet above 65,535 bytes); [`PacketError::TooManyExtensions`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Packet, PacketError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => parse_v4(bytes),
            Some(6) => parse_v6(bytes),
            Some(_) => Err(PacketError::NotIp),
            None => Err(PacketError::Truncated),
        }
    }

    /// Whether the packet is source-routed: by an IPv4 source route option (RFC 791 section 3.1), or by an IPv6
    /// routing header of any type but 2, which only gives the home address of a mobile node (RFC 6275 section 6.4).
    /// `bytes` is what the packet was parsed from.
    #[must_use]
    pub fn prescribes_route(&self, bytes: &[u8]) -> bool {
        let before = bytes.get(..usize::from(self.transport_offset));
        let Some(before) = before else { return false };
        match self.version {
            IpVersion::V4 => before.get(IPV4_HEADER_LEN..).is_some_and(has_source_route),
            IpVersion::V6 => has_route(before),
        }
    }

    /// Returns the source and destination port of TCP or UDP.
    #[inline]
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => Some((src, dst)),
            Transport::Icmp { .. } | Transport::Other | Transport::Unavailable => None,
        }
    }

    /// Bytes from the transport header to the packet's end.
    #[inline]
    #[must_use]
    pub fn transport_len(&self) -> u16 {
        self.total_len - self.transport_offset
    }

    /// Bytes from `payload_offset` to the packet's end.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        self.total_len - self.payload_offset
    }
}

#[inline]
fn parse_v4(bytes: &[u8]) -> Result<Packet, PacketError> {
    let header: &Ipv4Header = prefix(bytes).ok_or(PacketError::Truncated)?;
    let header_len = header.header_len();
    let total_len = header.total_len.get();
    if header_len < IPV4_HEADER_LEN || usize::from(total_len) < header_len {
        return Err(PacketError::BadHeader);
    }
    let packet = bytes
        .get(..usize::from(total_len))
        .ok_or(PacketError::Truncated)?;
    let fragment = Fragment::of(header.fragment_offset(), header.more_fragments());
    let (transport, payload_offset) =
        parse_transport(packet, header_len, IpVersion::V4, header.protocol, fragment)?;
    Ok(Packet {
        version: IpVersion::V4,
        transport_offset: header_len as u16,
        payload_offset: payload_offset as u16,
        total_len,
        protocol: header.protocol,
        src: header.src().into(),
        dst: header.dst().into(),
        transport,
        fragment,
        fragment_id: match fragment {
            Fragment::Whole => 0,
            Fragment::First | Fragment::Later => header.identification.get().into(),
        },
        tos: header.tos,
        ttl: header.ttl,
        dont_fragment: header.dont_fragment(),
        source_routed: false,
    })
}

#[inline]
fn parse_v6(bytes: &[u8]) -> Result<Packet, PacketError> {
    let header: &Ipv6Header = prefix(bytes).ok_or(PacketError::Truncated)?;
    let payload_len = header.payload_len.get();
    let total_len = payload_len
        .checked_add(IPV6_HEADER_LEN as u16)
        .ok_or(PacketError::BadHeader)?;
    let packet = bytes
        .get(..usize::from(total_len))
        .ok_or(PacketError::Truncated)?;
    let chain = if is_extension(header.next_header) {
        walk_extensions(packet, header.next_header)?
    } else {
        Chain::new(header.next_header)
    };
    let (transport, payload_offset) = parse_transport(
        packet,
        chain.offset,
        IpVersion::V6,
        chain.protocol,
        chain.fragment,
    )?;
    Ok(Packet {
        version: IpVersion::V6,
        transport_offset: chain.offset as u16,
        payload_offset: payload_offset as u16,
        total_len,
        protocol: chain.protocol,
        src: header.src().into(),
        dst: header.dst().into(),
        transport,
        fragment: chain.fragment,
        fragment_id: chain.fragment_id,
        tos: header.traffic_class(),
        ttl: header.hop_limit,
        dont_fragment: true,
        source_routed: chain.source_routed,
    })
}

/// Result of a walk over IPv6 extension headers.
pub(super) struct Chain {
    pub(super) offset: usize,
    pub(super) protocol: u8,
    pub(super) fragment: Fragment,
    pub(super) fragment_id: u32,
    pub(super) source_routed: bool,
}

impl Chain {
    pub(super) fn new(protocol: u8) -> Chain {
        Chain {
            offset: IPV6_HEADER_LEN,
            protocol,
            fragment: Fragment::Whole,
            fragment_id: 0,
            source_routed: false,
        }
    }
}

/// Whether the IPv4 options include a loose or strict source route (RFC 791 section 3.1). The walk ends at an option
/// with an invalid length.
fn has_source_route(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some(&kind) = options.first() {
        let len = match kind {
            END => return false,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return true,
            NO_OPERATION => 1,
            _ => options.get(1).map_or(0, |&len| usize::from(len)),
        };
        match options.get(len..) {
            Some(rest) if len > 0 => options = rest,
            _ => return false,
        }
    }
    false
}

/// Whether the extension headers of an IPv6 packet include a routing header that prescribes a route. `before` is the
/// packet up to the end of the last extension header.
fn has_route(before: &[u8]) -> bool {
    const MOBILE: u8 = 2;
    let Some(mut next) = prefix(before).map(|fixed: &Ipv6Header| fixed.next_header) else {
        return false;
    };
    let mut offset = IPV6_HEADER_LEN;
    while let Some(header) = extension(before, offset) {
        let routing: &RoutingHeader = transmute_ref!(header);
        if next == protocol::ROUTING && routing.routing_type != MOBILE {
            return true;
        }
        offset += header.len(next);
        next = header.next_header;
    }
    false
}

/// Returns the first bytes of the IPv6 extension header at `offset`.
#[inline]
fn extension(packet: &[u8], offset: usize) -> Option<&ExtensionHeader> {
    prefix(packet.get(offset..)?)
}

/// Whether the walk continues through this header. ESP hides what follows; nothing follows No Next Header.
#[inline]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AH
            | protocol::DESTINATION_OPTIONS
    )
}

/// Walks the extension headers of an IPv6 packet, starting after its fixed header, whose next header is `next`.
pub(super) fn walk_extensions(packet: &[u8], next: u8) -> Result<Chain, PacketError> {
    let mut chain = Chain::new(next);
    let mut fragmented = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(chain.protocol) || chain.fragment == Fragment::Later {
            return Ok(chain);
        }
        let header = extension(packet, chain.offset).ok_or(PacketError::BadHeader)?;
        match chain.protocol {
            protocol::FRAGMENT => {
                // With a second one, a fragment could look whole to us but not to the receiver.
                if std::mem::replace(&mut fragmented, true) {
                    return Err(PacketError::BadHeader);
                }
                let header: &FragmentHeader = transmute_ref!(header);
                chain.fragment = Fragment::of(header.fragment_offset(), header.more_fragments());
                if chain.fragment != Fragment::Whole {
                    chain.fragment_id = header.identification.get();
                }
            }
            protocol::ROUTING => {
                let header: &RoutingHeader = transmute_ref!(header);
                chain.source_routed |= header.segments_left != 0;
            }
            _ => {}
        }
        chain.offset += header.len(chain.protocol);
        chain.protocol = header.next_header;
        if chain.offset > packet.len() {
            return Err(PacketError::BadHeader);
        }
    }
    if is_extension(chain.protocol) && chain.fragment != Fragment::Later {
        return Err(PacketError::TooManyExtensions);
    }
    Ok(chain)
}

/// Parses the transport header at `offset` of `packet`, which ends where the IP packet ends, and returns it with the
/// payload's offset.
#[inline]
fn parse_transport(
    packet: &[u8],
    offset: usize,
    version: IpVersion,
    protocol: u8,
    fragment: Fragment,
) -> Result<(Transport, usize), PacketError> {
    let cut_off = || match fragment {
        Fragment::Whole => Err(PacketError::BadHeader),
        Fragment::First | Fragment::Later => Ok((Transport::Unavailable, offset)),
    };
    if fragment == Fragment::Later {
        return cut_off();
    }
    let Some(segment) = packet.get(offset..) else {
        return Err(PacketError::BadHeader);
    };
    match (protocol, version) {
        (protocol::TCP, _) => {
            let Some(header) = prefix::<TcpHeader>(segment) else {
                return cut_off();
            };
            let header_len = header.header_len();
            if header_len < TCP_HEADER_LEN {
                return Err(PacketError::BadHeader);
            }
            if header_len > segment.len() {
                return cut_off();
            }
            let transport = Transport::Tcp {
                src: header.source_port.get(),
                dst: header.destination_port.get(),
                flags: header.flags,
                seq: header.sequence_number.get(),
                ack: header.acknowledgment_number.get(),
            };
            Ok((transport, offset + header_len))
        }
        (protocol::UDP, _) => {
            let Some(header) = prefix::<UdpHeader>(segment) else {
                return cut_off();
            };
            let len = header.length.get();
            let too_long = usize::from(len) > segment.len() && fragment == Fragment::Whole;
            if usize::from(len) < UDP_HEADER_LEN || too_long {
                return Err(PacketError::BadHeader);
            }
            let transport = Transport::Udp {
                src: header.source_port.get(),
                dst: header.destination_port.get(),
                len,
            };
            Ok((transport, offset + UDP_HEADER_LEN))
        }
        (protocol::ICMP, IpVersion::V4) | (protocol::ICMPV6, IpVersion::V6) => {
            let Some(header) = prefix::<IcmpHeader>(segment) else {
                return cut_off();
            };
            let transport = Transport::Icmp {
                kind: header.kind,
                code: header.code,
                id: header.query_id(version),
            };
            Ok((transport, offset + ICMP_HEADER_LEN))
        }
        _ => Ok((Transport::Other, offset)),
    }
}

/// Whether an ICMP message has an identifier: echo, timestamp, information and address mask requests and replies of
/// IPv4, echo of IPv6.
#[inline]
pub(crate) const fn is_icmp_query(version: IpVersion, kind: u8) -> bool {
    match version {
        IpVersion::V4 => matches!(kind, 0 | 8 | 13..=18),
        IpVersion::V6 => matches!(kind, 128 | 129),
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(crate) mod tests;
