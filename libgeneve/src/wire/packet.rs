//! One IP packet, parsed through to its transport header.
//!
//! Owns the walk over IPv4 options and IPv6 extension headers, fragments, and the check of every
//! length on the way. Leaves checksums to [`ip`](super::ip) and
//! [`transport_checksum`](super::transport_checksum), and the packet that an ICMP error quotes to
//! [`icmp`](super::icmp).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use super::ip::IpVersion;
use super::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, protocol};
use super::transport::{TCP_HEADER_LEN, TcpFlags, UDP_HEADER_LEN};

/// IPv6 extension headers that are walked before a packet is refused. RFC 8200 section 4.1 knows
/// seven places; the bound keeps the work for a hostile packet small.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Where the parts of an IP packet are, and what its headers say. Holds offsets, no borrow.
///
/// ```
/// use libgeneve::wire::ip::{Ipv4Header, protocol};
/// use libgeneve::wire::packet::{Packet, PacketError, Transport};
/// use libgeneve::wire::transport::udp_header;
///
/// let header = Ipv4Header {
///     tos: 0,
///     total_len: 28,
///     identification: 1,
///     dont_fragment: true,
///     ttl: 64,
///     protocol: protocol::UDP,
///     src: [10, 0, 0, 1].into(),
///     dst: [10, 0, 0, 2].into(),
/// };
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
    /// The first byte of the transport header (or of a fragment's payload), from the packet's start.
    pub transport_offset: u16,
    /// The first byte after the TCP, UDP or ICMP header (8 bytes of ICMP); equals
    /// `transport_offset` for [`Transport::Other`] and [`Transport::Unavailable`].
    pub payload_offset: u16,
    /// Bytes of the whole packet by its own length field. Bytes after it are not part of it.
    pub total_len: u16,
    /// The transport protocol: after IPv6 extension headers.
    pub protocol: u8,
    /// The source address.
    pub src: IpAddr,
    /// The destination address.
    pub dst: IpAddr,
    /// What the transport header says.
    pub transport: Transport,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// The identification that the fragments of one packet share: 16 bits in IPv4, 32 in IPv6; 0 if
    /// the packet is whole.
    pub fragment_id: u32,
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// The DF bit; always `true` for IPv6, whose packets no router fragments.
    pub dont_fragment: bool,
    /// An IPv6 routing header has segments left: `dst` is not the address that the transport
    /// checksum covers (RFC 8200 section 8.1).
    pub source_routed: bool,
}

/// The part of a transport header that decisions are made on.
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
        /// Bytes of header and payload by the length field: at least 8, and never more than the IP
        /// payload unless this is a first fragment.
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
    /// A later fragment, or a first fragment that is cut off before its transport header ends.
    Unavailable,
}

/// Which part of a fragmented packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// Not a fragment (IPv6 "atomic fragments" are whole, RFC 6946).
    Whole,
    /// The first of several; it has the transport header.
    First,
    /// One without a transport header.
    Later,
}

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacketError {
    /// The version is neither 4 nor 6.
    #[error("neither IPv4 nor IPv6")]
    NotIp,
    /// The buffer ends before the fixed header, or before the packet's own length field says.
    #[error("shorter than its own length field")]
    Truncated,
    /// A length inside the packet contradicts another.
    #[error("malformed header")]
    BadHeader,
    /// More than [`MAX_EXTENSION_HEADERS`] IPv6 extension headers.
    #[error("too many IPv6 extension headers")]
    TooManyExtensions,
}

impl Packet {
    /// Whether it is for a group or for everybody, and nobody learns of each receiver. A subnet's directed broadcast
    /// cannot be told from the packet.
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
    /// [`PacketError::NotIp`] for another version; [`PacketError::Truncated`] if the buffer ends
    /// early; [`PacketError::BadHeader`] if lengths contradict each other (an IPv4 header below 20
    /// bytes, a total length below the header's, a UDP length below 8 or beyond the IP payload, a TCP
    /// or extension header that does not fit, an IPv6 packet above 65,535 bytes);
    /// [`PacketError::TooManyExtensions`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Packet, PacketError> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => parse_v4(bytes),
            Some(6) => parse_v6(bytes),
            Some(_) => Err(PacketError::NotIp),
            None => Err(PacketError::Truncated),
        }
    }

    /// Whether the sender prescribes the packet's route: by an IPv4 source route option (RFC 791 section 3.1), or by an
    /// IPv6 routing header of any type but 2, which only names the home of a mobile node (RFC 6275 section 6.4). `bytes` are
    /// those that it was parsed from.
    #[must_use]
    pub fn prescribes_route(&self, bytes: &[u8]) -> bool {
        let before = bytes.get(..usize::from(self.transport_offset));
        let Some(before) = before else { return false };
        match self.version {
            IpVersion::V4 => before.get(IPV4_HEADER_LEN..).is_some_and(has_source_route),
            IpVersion::V6 => before.get(6).is_some_and(|&next| has_route(before, next)),
        }
    }

    /// The source and destination port of TCP or UDP.
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
    let fixed = bytes
        .first_chunk::<IPV4_HEADER_LEN>()
        .ok_or(PacketError::Truncated)?;
    let header_len = usize::from(fixed[0] & 0x0f) * 4;
    let total_len = u16::from_be_bytes([fixed[2], fixed[3]]);
    if header_len < IPV4_HEADER_LEN || usize::from(total_len) < header_len {
        return Err(PacketError::BadHeader);
    }
    let packet = bytes
        .get(..usize::from(total_len))
        .ok_or(PacketError::Truncated)?;
    let flags = u16::from_be_bytes([fixed[6], fixed[7]]);
    let fragment = v4_fragment(flags & 0x1fff, flags & 0x2000 != 0);
    let (transport, payload_offset) =
        parse_transport(packet, header_len, IpVersion::V4, fixed[9], fragment)?;
    Ok(Packet {
        version: IpVersion::V4,
        transport_offset: header_len as u16,
        payload_offset: payload_offset as u16,
        total_len,
        protocol: fixed[9],
        src: Ipv4Addr::new(fixed[12], fixed[13], fixed[14], fixed[15]).into(),
        dst: Ipv4Addr::new(fixed[16], fixed[17], fixed[18], fixed[19]).into(),
        transport,
        fragment,
        fragment_id: match fragment {
            Fragment::Whole => 0,
            Fragment::First | Fragment::Later => {
                u32::from(u16::from_be_bytes([fixed[4], fixed[5]]))
            }
        },
        tos: fixed[1],
        ttl: fixed[8],
        dont_fragment: flags & 0x4000 != 0,
        source_routed: false,
    })
}

#[inline]
fn parse_v6(bytes: &[u8]) -> Result<Packet, PacketError> {
    let fixed = bytes
        .first_chunk::<IPV6_HEADER_LEN>()
        .ok_or(PacketError::Truncated)?;
    let total_len = u16::from_be_bytes([fixed[4], fixed[5]])
        .checked_add(IPV6_HEADER_LEN as u16)
        .ok_or(PacketError::BadHeader)?;
    let packet = bytes
        .get(..usize::from(total_len))
        .ok_or(PacketError::Truncated)?;
    let chain = if is_extension(fixed[6]) {
        walk_extensions(packet, fixed[6])?
    } else {
        Chain::new(fixed[6])
    };
    let (transport, payload_offset) = parse_transport(
        packet,
        chain.offset,
        IpVersion::V6,
        chain.protocol,
        chain.fragment,
    )?;
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&fixed[at..at + 16]);
        IpAddr::from(Ipv6Addr::from(octets))
    };
    Ok(Packet {
        version: IpVersion::V6,
        transport_offset: chain.offset as u16,
        payload_offset: payload_offset as u16,
        total_len,
        protocol: chain.protocol,
        src: address(8),
        dst: address(24),
        transport,
        fragment: chain.fragment,
        fragment_id: chain.fragment_id,
        tos: fixed[0] << 4 | fixed[1] >> 4,
        ttl: fixed[7],
        dont_fragment: true,
        source_routed: chain.source_routed,
    })
}

/// What a walk over IPv6 extension headers found.
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

/// Whether there is a loose or a strict source route among these IPv4 options (RFC 791 section 3.1). What follows an option
/// whose length cannot be is none.
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

/// Whether a routing header that prescribes a route is in the chain of IPv6 extension headers, of which the first is `next`;
/// `before` ends with it.
fn has_route(before: &[u8], mut next: u8) -> bool {
    const MOBILE: u8 = 2;
    let mut offset = IPV6_HEADER_LEN;
    while let Some(header) = before.get(offset..).and_then(<[u8]>::first_chunk::<8>) {
        if next == protocol::ROUTING && header[2] != MOBILE {
            return true;
        }
        offset += match next {
            protocol::FRAGMENT => 8,
            protocol::AH => usize::from(header[1]) * 4 + 8,
            _ => usize::from(header[1]) * 8 + 8,
        };
        next = header[0];
    }
    false
}

/// Whether the walk looks behind this header. ESP hides what follows; after No Next Header nothing
/// follows.
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

/// Walks the extension headers of an IPv6 packet from its fixed header, of which the first is `next`.
pub(super) fn walk_extensions(packet: &[u8], next: u8) -> Result<Chain, PacketError> {
    let mut chain = Chain::new(next);
    let mut fragmented = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension(chain.protocol) || chain.fragment == Fragment::Later {
            return Ok(chain);
        }
        // Every extension header has at least 8 bytes (RFC 8200 section 4, RFC 4302 section 2).
        let header = packet
            .get(chain.offset..)
            .and_then(<[u8]>::first_chunk::<8>)
            .ok_or(PacketError::BadHeader)?;
        let len = match chain.protocol {
            protocol::FRAGMENT => {
                // A second one could make a fragment look whole to us and not to the receiver.
                if std::mem::replace(&mut fragmented, true) {
                    return Err(PacketError::BadHeader);
                }
                let word = u16::from_be_bytes([header[2], header[3]]);
                chain.fragment = match (word & 0xfff8, word & 1) {
                    (0, 0) => Fragment::Whole,
                    (0, _) => Fragment::First,
                    _ => Fragment::Later,
                };
                if chain.fragment != Fragment::Whole {
                    chain.fragment_id =
                        u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                }
                8
            }
            protocol::AH => usize::from(header[1]) * 4 + 8,
            _ => usize::from(header[1]) * 8 + 8,
        };
        chain.source_routed |= chain.protocol == protocol::ROUTING && header[3] != 0;
        chain.offset += len;
        chain.protocol = header[0];
        if chain.offset > packet.len() {
            return Err(PacketError::BadHeader);
        }
    }
    if is_extension(chain.protocol) && chain.fragment != Fragment::Later {
        return Err(PacketError::TooManyExtensions);
    }
    Ok(chain)
}

/// Reads the transport header at `offset` of `packet`, which ends where the IP packet ends, and gives
/// the payload's offset.
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
            let Some(h) = segment.first_chunk::<TCP_HEADER_LEN>() else {
                return cut_off();
            };
            let header_len = usize::from(h[12] >> 4) * 4;
            if header_len < TCP_HEADER_LEN {
                return Err(PacketError::BadHeader);
            }
            if header_len > segment.len() {
                return cut_off();
            }
            let transport = Transport::Tcp {
                src: u16::from_be_bytes([h[0], h[1]]),
                dst: u16::from_be_bytes([h[2], h[3]]),
                flags: TcpFlags(h[13]),
                seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
                ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
            };
            Ok((transport, offset + header_len))
        }
        (protocol::UDP, _) => {
            let Some(h) = segment.first_chunk::<UDP_HEADER_LEN>() else {
                return cut_off();
            };
            let len = u16::from_be_bytes([h[4], h[5]]);
            let too_long = usize::from(len) > segment.len() && fragment == Fragment::Whole;
            if usize::from(len) < UDP_HEADER_LEN || too_long {
                return Err(PacketError::BadHeader);
            }
            let transport = Transport::Udp {
                src: u16::from_be_bytes([h[0], h[1]]),
                dst: u16::from_be_bytes([h[2], h[3]]),
                len,
            };
            Ok((transport, offset + UDP_HEADER_LEN))
        }
        (protocol::ICMP, IpVersion::V4) | (protocol::ICMPV6, IpVersion::V6) => {
            let Some(h) = segment.first_chunk::<8>() else {
                return cut_off();
            };
            let id = is_icmp_query(version, h[0]).then(|| u16::from_be_bytes([h[4], h[5]]));
            Ok((
                Transport::Icmp {
                    kind: h[0],
                    code: h[1],
                    id,
                },
                offset + 8,
            ))
        }
        _ => Ok((Transport::Other, offset)),
    }
}

/// Which fragment an IPv4 header's fragment offset and MF bit describe.
#[inline]
pub(super) fn v4_fragment(offset: u16, more_fragments: bool) -> Fragment {
    match (offset, more_fragments) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Whether an ICMP message has an identifier: echo, timestamp, information and address mask requests
/// and replies of IPv4, echo of IPv6.
#[inline]
pub(crate) fn is_icmp_query(version: IpVersion, kind: u8) -> bool {
    match version {
        IpVersion::V4 => matches!(kind, 0 | 8 | 13..=18),
        IpVersion::V6 => matches!(kind, 128 | 129),
    }
}

#[cfg(test)]
#[path = "packet_tests.rs"]
pub(crate) mod tests;
