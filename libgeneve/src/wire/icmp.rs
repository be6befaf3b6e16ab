//! ICMP and ICMPv6 errors: building them, and reading the packets that they quote.
//!
//! Owns the layout of the header that all messages share and of "unreachable", "too big" and "time exceeded", and the
//! rules for when an error may be sent at all. The caller decides when to send one, at which rate, and with which
//! MTU. [`packet`](super::packet) looks up the identifier of a query.

use std::mem::offset_of;
use std::net::IpAddr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::checksum::{Sum, pseudo_header};
use super::ip::{IPV6_HEADER_LEN, IpVersion, Ipv4, Ipv4Header, Ipv6, Ipv6Header, protocol};
use super::packet::{Fragment, Packet, Transport, is_icmp_query, walk_extensions};
use super::prefix;
use super::udp::UdpHeader;

/// Most bytes of an ICMP error over IPv4, IP header included (RFC 1812 section 4.3.2.3).
pub const MAX_V4_ERROR_LEN: usize = 576;
/// Most bytes of an ICMPv6 error, IP header included: the minimum MTU (RFC 4443 section 2.4 c).
pub const MAX_V6_ERROR_LEN: usize = 1280;
/// Bytes of an ICMP message before the quoted packet.
pub const ICMP_HEADER_LEN: usize = size_of::<IcmpHeader>();
/// The precedence of ICMP errors over IPv4, "internetwork control" (RFC 1812 section 4.3.2.5).
const V4_TOS: u8 = 0xc0;

/// The first 8 bytes of every message (RFC 792; RFC 4443 section 2.1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IcmpHeader {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum: over the message, for ICMPv6 with the pseudo-header.
    pub checksum: U16,
    /// Depends on the type: for a query, the identifier and the sequence number.
    pub rest: [u8; 4],
}

impl IcmpHeader {
    /// Offset of the checksum: `csum_offset` of `virtio_net_hdr`.
    pub const CHECKSUM_OFFSET: u16 = offset_of!(IcmpHeader, checksum) as u16;

    /// The identifier of a query or its reply.
    #[inline]
    pub(super) fn query_id(&self, version: IpVersion) -> Option<u16> {
        let [high, low, ..] = self.rest;
        is_icmp_query(version, self.kind).then_some(u16::from_be_bytes([high, low]))
    }

    /// Sets the identifier of a query or its reply.
    #[inline]
    pub const fn set_query_id(&mut self, id: u16) {
        [self.rest[0], self.rest[1]] = id.to_be_bytes();
    }

    /// The MTU of "fragmentation needed" (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2).
    const fn reported_mtu(&self, version: IpVersion) -> Option<u32> {
        match (version, self.kind, self.code) {
            (IpVersion::V4, 3, 4) => Some(u32::from_be_bytes(self.rest) & 0xffff),
            (IpVersion::V6, 2, _) => Some(u32::from_be_bytes(self.rest)),
            _ => None,
        }
    }
}

/// The part of a TCP header that every quote has: its first eight bytes (RFC 9293 section 3.1).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TcpBeginning {
    source_port: U16,
    destination_port: U16,
    sequence_number: U32,
}

/// An ICMP error to send. The packet that it answers determines the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// "Fragmentation needed" (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2).
    TooBig {
        /// MTU of the next hop in bytes of inner packet. At most 65,535 is sent over IPv4.
        mtu: u32,
    },
    /// TTL or hop limit exceeded in transit (RFC 792, RFC 4443 section 3.3).
    TimeExceeded,
    /// Destination unreachable.
    Unreachable(UnreachableReason),
}

/// Why a destination is unreachable, for both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreachableReason {
    /// No route: IPv4 code 0, "net unreachable"; IPv6 code 0.
    NoRoute,
    /// The host does not answer: IPv4 code 1, "host unreachable"; IPv6 code 3, "address unreachable".
    Host,
    /// No listener on the port: IPv4 code 3, IPv6 code 4.
    Port,
    /// Administratively prohibited: IPv4 code 13 (RFC 1812 section 5.2.7.1), IPv6 code 1.
    Prohibited,
}

impl IcmpError {
    /// Returns the header, without its checksum.
    fn header(self, version: IpVersion) -> IcmpHeader {
        let (kind, code, rest) = match (self, version) {
            (IcmpError::TooBig { mtu }, IpVersion::V4) => (3, 4, mtu.min(0xffff).to_be_bytes()),
            (IcmpError::TooBig { mtu }, IpVersion::V6) => (2, 0, mtu.to_be_bytes()),
            (IcmpError::TimeExceeded, IpVersion::V4) => (11, 0, [0; 4]),
            (IcmpError::TimeExceeded, IpVersion::V6) => (3, 0, [0; 4]),
            (IcmpError::Unreachable(why), IpVersion::V4) => {
                let code = match why {
                    UnreachableReason::NoRoute => 0,
                    UnreachableReason::Host => 1,
                    UnreachableReason::Port => 3,
                    UnreachableReason::Prohibited => 13,
                };
                (3, code, [0; 4])
            }
            (IcmpError::Unreachable(why), IpVersion::V6) => {
                let code = match why {
                    UnreachableReason::NoRoute => 0,
                    UnreachableReason::Prohibited => 1,
                    UnreachableReason::Host => 3,
                    UnreachableReason::Port => 4,
                };
                (1, code, [0; 4])
            }
        };
        IcmpHeader {
            kind,
            code,
            checksum: U16::ZERO,
            rest,
        }
    }

    /// Whether `packet` may be answered with this error (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e): never an
    /// ICMP error or an unknown ICMP message, a later fragment, a source that is not a single host, a multicast or
    /// broadcast. Only "packet too big" may answer an IPv6 multicast.
    ///
    /// A subnet's directed broadcast cannot be recognised from the packet.
    #[must_use]
    pub fn may_answer(self, packet: &Packet) -> bool {
        if packet.fragment == Fragment::Later || !is_one_host(packet.src) {
            return false;
        }
        let to_one_host = match packet.dst {
            IpAddr::V4(dst) => !dst.is_multicast() && !dst.is_broadcast() && !dst.is_unspecified(),
            IpAddr::V6(dst) if dst.is_multicast() => matches!(self, IcmpError::TooBig { .. }),
            IpAddr::V6(dst) => !dst.is_unspecified(),
        };
        let is_icmp = match packet.version {
            IpVersion::V4 => packet.protocol == protocol::ICMP,
            IpVersion::V6 => packet.protocol == protocol::ICMPV6,
        };
        to_one_host && (!is_icmp || is_harmless_icmp(packet))
    }

    /// Writes the error about `packet` into `out`, as a complete IP packet with all checksums from `from` to the
    /// packet's source, and returns its length.
    ///
    /// `bytes` is what `packet` was parsed from; as much of it is quoted as [`MAX_V4_ERROR_LEN`] or
    /// [`MAX_V6_ERROR_LEN`] allows. `None` if `from` is not of the packet's family, `bytes` ends before the packet
    /// does, or `out` is too small (those lengths always suffice). Does not check [`IcmpError::may_answer`].
    #[must_use]
    pub fn build(
        self,
        from: IpAddr,
        packet: &Packet,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let offender = bytes.get(..usize::from(packet.total_len))?;
        let header_len = packet.version.header_len();
        let max_len = match packet.version {
            IpVersion::V4 => MAX_V4_ERROR_LEN,
            IpVersion::V6 => MAX_V6_ERROR_LEN,
        };
        let quote = &offender[..offender.len().min(max_len - header_len - ICMP_HEADER_LEN)];
        let message_len = ICMP_HEADER_LEN + quote.len();
        let out = out.get_mut(..header_len + message_len)?;
        let (ip, message) = out.split_at_mut(header_len);

        let covered = match (from, packet.src) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = Ipv4Header {
                    tos: V4_TOS,
                    ..Ipv4Header::new(src, dst, protocol::ICMP, message_len as u16)
                };
                ip.copy_from_slice(&header.to_bytes());
                Sum::ZERO
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header::new(src, dst, protocol::ICMPV6, message_len as u16);
                ip.copy_from_slice(&header.to_bytes());
                pseudo_header(from, packet.src, protocol::ICMPV6, message_len as u32)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let (header, rest) = IcmpHeader::mut_from_prefix(message).ok()?;
        *header = self.header(packet.version);
        rest.copy_from_slice(quote);
        let sum = covered.bytes(header.as_bytes()).bytes(rest);
        header.checksum = sum.checksum().into();
        Some(header_len + message_len)
    }
}

/// Whether an address can be that of a single host that an error can reach.
fn is_one_host(address: IpAddr) -> bool {
    match address {
        // RFC 1122 section 3.2.2 names zero, loopback, broadcast, multicast and class E.
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_loopback()),
    }
}

/// Whether an ICMP packet's type is known to be neither an error nor a redirect.
fn is_harmless_icmp(packet: &Packet) -> bool {
    match (packet.transport, packet.version) {
        (Transport::Icmp { kind, .. }, IpVersion::V4) => matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        (Transport::Icmp { kind, .. }, IpVersion::V6) => kind >= 128 && kind != 137,
        _ => false,
    }
}

/// The packet quoted by an ICMP error.
///
/// A quote is truncated: its length fields may exceed the bytes that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Offset of the quoted packet in the packet that carries the error.
    pub offset: u16,
    /// Bytes quoted; RFC 4884 extensions are included.
    pub len: u16,
    /// Length of the quoted packet by its own length field, headers included.
    pub packet_len: u32,
    /// Offset of the transport header in the quoted packet.
    pub transport_offset: u16,
    /// The quoted packet's transport protocol.
    pub protocol: u8,
    /// The quoted packet's source, which the error is for.
    pub src: IpAddr,
    /// The quoted packet's destination.
    pub dst: IpAddr,
    /// Whether the quoted packet is a fragment.
    pub fragment: Fragment,
    /// The first eight bytes of the quoted transport header.
    pub transport: QuotedTransport,
}

/// The first eight bytes of a quoted transport header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotedTransport {
    /// TCP.
    Tcp {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
        /// The sequence number.
        seq: u32,
    },
    /// UDP.
    Udp {
        /// The source port.
        src: u16,
        /// The destination port.
        dst: u16,
    },
    /// ICMP of the packet's own family.
    Icmp {
        /// The message type.
        kind: u8,
        /// The code.
        code: u8,
        /// The identifier, if the message is a query or its reply.
        id: Option<u16>,
    },
    /// Another protocol.
    Other,
    /// A later fragment, or fewer than eight bytes are quoted.
    Unavailable,
}

impl Packet {
    /// Whether this is an ICMP or ICMPv6 error, which quotes a packet: "unreachable", "source quench", "redirect"
    /// (IPv4), "time exceeded", "parameter problem", "packet too big".
    #[inline]
    #[must_use]
    pub fn is_icmp_error(&self) -> bool {
        match (self.transport, self.version) {
            (Transport::Icmp { kind, .. }, IpVersion::V4) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (Transport::Icmp { kind, .. }, IpVersion::V6) => kind < 128,
            _ => false,
        }
    }

    /// Returns the MTU that a "fragmentation needed" or "packet too big" reports, in bytes. A router that does not
    /// implement RFC 1191 reports 0. `bytes` is what the packet was parsed from.
    #[must_use]
    pub fn reported_mtu(&self, bytes: &[u8]) -> Option<u32> {
        let Transport::Icmp { .. } = self.transport else {
            return None;
        };
        let message: &IcmpHeader = prefix(bytes.get(usize::from(self.transport_offset)..)?)?;
        message.reported_mtu(self.version)
    }

    /// Returns the packet that this ICMP error quotes; `None` if this is not an ICMP error, is a fragment, or quotes
    /// less than the IP headers of a packet of its own family. `bytes` is what the packet was parsed from.
    #[must_use]
    pub fn quote(&self, bytes: &[u8]) -> Option<Quote> {
        if !self.is_icmp_error() || self.fragment != Fragment::Whole {
            return None;
        }
        let quoted = bytes.get(usize::from(self.payload_offset)..usize::from(self.total_len))?;
        Quote::read(self.version, quoted, self.payload_offset)
    }
}

impl Quote {
    /// Parses the truncated packet of this family that an ICMP error quotes at `offset`; `None` if it quotes less
    /// than the IP headers. The rest of the packet may be missing.
    #[must_use]
    pub fn read(version: IpVersion, quoted: &[u8], offset: u16) -> Option<Quote> {
        let (src, dst, transport_offset, protocol, fragment, packet_len) = match version {
            IpVersion::V4 => {
                let ip = Ipv4::parse(quoted)?;
                let fragment = Fragment::of(ip.fragment_offset(), ip.more_fragments());
                (
                    ip.src().into(),
                    ip.dst().into(),
                    ip.header_len(),
                    ip.protocol,
                    fragment,
                    u32::from(ip.total_len.get()),
                )
            }
            IpVersion::V6 => {
                let ip = Ipv6::parse(quoted)?;
                let chain = walk_extensions(quoted, ip.next_header).ok()?;
                (
                    ip.src().into(),
                    ip.dst().into(),
                    chain.offset,
                    chain.protocol,
                    chain.fragment,
                    IPV6_HEADER_LEN as u32 + u32::from(ip.payload_len.get()),
                )
            }
        };
        let start = quoted.get(transport_offset..);
        let transport = match start.and_then(<[u8]>::first_chunk) {
            Some(start) if fragment != Fragment::Later => {
                QuotedTransport::read(*start, version, protocol)
            }
            _ => QuotedTransport::Unavailable,
        };
        Some(Quote {
            offset,
            len: quoted.len() as u16,
            packet_len,
            transport_offset: transport_offset as u16,
            protocol,
            src,
            dst,
            fragment,
            transport,
        })
    }
}

impl QuotedTransport {
    fn read(start: [u8; 8], version: IpVersion, protocol: u8) -> QuotedTransport {
        match (protocol, version) {
            (protocol::TCP, _) => {
                let tcp: TcpBeginning = transmute!(start);
                QuotedTransport::Tcp {
                    src: tcp.source_port.get(),
                    dst: tcp.destination_port.get(),
                    seq: tcp.sequence_number.get(),
                }
            }
            (protocol::UDP, _) => {
                let udp: UdpHeader = transmute!(start);
                QuotedTransport::Udp {
                    src: udp.source_port.get(),
                    dst: udp.destination_port.get(),
                }
            }
            (protocol::ICMP, IpVersion::V4) | (protocol::ICMPV6, IpVersion::V6) => {
                let icmp: IcmpHeader = transmute!(start);
                QuotedTransport::Icmp {
                    kind: icmp.kind,
                    code: icmp.code,
                    id: icmp.query_id(version),
                }
            }
            _ => QuotedTransport::Other,
        }
    }
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
