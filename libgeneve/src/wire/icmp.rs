//! ICMP and ICMPv6 errors: build one for a packet, and read what one quotes.
//!
//! Owns the layout of "unreachable", "too big" and "time exceeded", and the rules for when an error
//! may be sent at all. When to send one, and at which rate, is the caller's decision; what an MTU is,
//! too. The lookup of a query's identifier is [`packet`](super::packet)'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::checksum::{Sum, pseudo_header};
use super::ip::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, IpVersion, Ipv4, Ipv4Header, Ipv6, Ipv6Header, protocol,
};
use super::packet::{Fragment, Packet, Transport, v4_fragment, walk_extensions};

/// The most bytes of an ICMP error over IPv4 with its IP header (RFC 1812 section 4.3.2.3).
pub const MAX_V4_ERROR_LEN: usize = 576;
/// The most bytes of an ICMPv6 error with its IP header: the minimum MTU (RFC 4443 section 2.4 c).
pub const MAX_V6_ERROR_LEN: usize = 1280;
/// Bytes of an ICMP message before what it quotes.
pub const ICMP_HEADER_LEN: usize = 8;
/// The TTL or hop limit of errors that are built here.
const TTL: u8 = 64;
/// The precedence of ICMP errors over IPv4, "internetwork control" (RFC 1812 section 4.3.2.5).
const V4_TOS: u8 = 0xc0;

/// What an ICMP error says. The packet it answers decides the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// "Fragmentation needed" (RFC 1191 section 4) or "packet too big" (RFC 4443 section 3.2).
    TooBig {
        /// The MTU of the next hop in bytes of inner packet. Over IPv4 at most 65,535 is sent.
        mtu: u32,
    },
    /// The TTL or hop limit ran out in transit (RFC 792, RFC 4443 section 3.3).
    TimeExceeded,
    /// The destination cannot be reached.
    Unreachable(Unreachable),
}

/// Why a destination cannot be reached, in the terms of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route: IPv4 code 0, "net unreachable"; IPv6 code 0.
    NoRoute,
    /// The host does not answer: IPv4 code 1, "host unreachable"; IPv6 code 3, "address unreachable".
    Host,
    /// Nobody listens: IPv4 code 3, IPv6 code 4.
    Port,
    /// Administratively prohibited: IPv4 code 13 (RFC 1812 section 5.2.7.1), IPv6 code 1.
    Prohibited,
}

impl IcmpError {
    /// Type, code and the four bytes after the checksum.
    fn header(self, version: IpVersion) -> (u8, u8, [u8; 4]) {
        match (self, version) {
            (IcmpError::TooBig { mtu }, IpVersion::V4) => (3, 4, mtu.min(0xffff).to_be_bytes()),
            (IcmpError::TooBig { mtu }, IpVersion::V6) => (2, 0, mtu.to_be_bytes()),
            (IcmpError::TimeExceeded, IpVersion::V4) => (11, 0, [0; 4]),
            (IcmpError::TimeExceeded, IpVersion::V6) => (3, 0, [0; 4]),
            (IcmpError::Unreachable(why), IpVersion::V4) => {
                let code = match why {
                    Unreachable::NoRoute => 0,
                    Unreachable::Host => 1,
                    Unreachable::Port => 3,
                    Unreachable::Prohibited => 13,
                };
                (3, code, [0; 4])
            }
            (IcmpError::Unreachable(why), IpVersion::V6) => {
                let code = match why {
                    Unreachable::NoRoute => 0,
                    Unreachable::Prohibited => 1,
                    Unreachable::Host => 3,
                    Unreachable::Port => 4,
                };
                (1, code, [0; 4])
            }
        }
    }

    /// Whether `packet` may be answered with this error (RFC 1122 section 3.2.2, RFC 4443 section
    /// 2.4 e): never an ICMP error or an unknown ICMP message, a later fragment, a source that is not
    /// one host, a multicast or broadcast. Only "packet too big" may answer an IPv6 multicast.
    ///
    /// A subnet's directed broadcast cannot be told from the packet.
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

    /// Writes the error about `packet` into `out`, as a whole IP packet from `from` to the packet's
    /// source with all checksums, and gives its length.
    ///
    /// `bytes` are those that `packet` was parsed from; as much of them is quoted as
    /// [`MAX_V4_ERROR_LEN`] or [`MAX_V6_ERROR_LEN`] allows. `None` if `from` is not of the packet's
    /// family, `bytes` end before the packet does, or `out` is too small (those lengths always
    /// suffice). Does not ask [`IcmpError::may_answer`].
    #[must_use]
    pub fn build(
        self,
        from: IpAddr,
        packet: &Packet,
        bytes: &[u8],
        out: &mut [u8],
    ) -> Option<usize> {
        let offender = bytes.get(..usize::from(packet.total_len))?;
        let (header_len, max_len) = match packet.version {
            IpVersion::V4 => (IPV4_HEADER_LEN, MAX_V4_ERROR_LEN),
            IpVersion::V6 => (IPV6_HEADER_LEN, MAX_V6_ERROR_LEN),
        };
        let quote = &offender[..offender.len().min(max_len - header_len - ICMP_HEADER_LEN)];
        let message_len = ICMP_HEADER_LEN + quote.len();
        let out = out.get_mut(..header_len + message_len)?;
        let (ip, message) = out.split_at_mut(header_len);

        let (kind, code, rest) = self.header(packet.version);
        message[..4].copy_from_slice(&[kind, code, 0, 0]);
        message[4..8].copy_from_slice(&rest);
        message[8..].copy_from_slice(quote);
        let covered = match (from, packet.src) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                ip.copy_from_slice(&v4_header(src, dst, header_len + message_len));
                Sum::ZERO
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                ip.copy_from_slice(&v6_header(src, dst, message_len));
                pseudo_header(from, packet.src, protocol::ICMPV6, message_len as u32)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
        };
        let check = covered.bytes(message).checksum();
        message[2..4].copy_from_slice(&check.to_be_bytes());
        Some(header_len + message_len)
    }
}

fn v4_header(src: Ipv4Addr, dst: Ipv4Addr, total_len: usize) -> [u8; IPV4_HEADER_LEN] {
    Ipv4Header {
        tos: V4_TOS,
        total_len: total_len as u16,
        identification: 0,
        // An identification of zero is only good for packets that are never fragmented (RFC 6864).
        dont_fragment: true,
        ttl: TTL,
        protocol: protocol::ICMP,
        src,
        dst,
    }
    .to_bytes()
}

fn v6_header(src: Ipv6Addr, dst: Ipv6Addr, payload_len: usize) -> [u8; IPV6_HEADER_LEN] {
    Ipv6Header {
        traffic_class: 0,
        flow_label: 0,
        payload_len: payload_len as u16,
        next_header: protocol::ICMPV6,
        hop_limit: TTL,
        src,
        dst,
    }
    .to_bytes()
}

/// Whether an address can be that of a single host to which an error finds its way.
fn is_one_host(address: IpAddr) -> bool {
    match address {
        // RFC 1122 section 3.2.2 names zero, loopback, broadcast, multicast and class E.
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.is_loopback()),
    }
}

/// Whether an ICMP packet's type is known not to be an error (nor a redirect).
fn is_harmless_icmp(packet: &Packet) -> bool {
    match (packet.transport, packet.version) {
        (Transport::Icmp { kind, .. }, IpVersion::V4) => matches!(kind, 0 | 8 | 9 | 10 | 13..=18),
        (Transport::Icmp { kind, .. }, IpVersion::V6) => kind >= 128 && kind != 137,
        _ => false,
    }
}

/// What an ICMP error quotes of the packet that it is about.
///
/// A quote is a beginning: its lengths may say more than is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where the quoted packet starts, from the start of the packet that carries the error.
    pub offset: u16,
    /// Bytes that are there of it; with RFC 4884 extensions, their bytes are counted, too.
    pub len: u16,
    /// Bytes that the quoted packet says to have, its headers included.
    pub packet_len: u32,
    /// The quoted packet's transport header, from the quoted packet's start.
    pub transport_offset: u16,
    /// The quoted packet's transport protocol.
    pub protocol: u8,
    /// The quoted packet's source: whom the error is for.
    pub src: IpAddr,
    /// The quoted packet's destination.
    pub dst: IpAddr,
    /// Which fragment the quoted packet was.
    pub fragment: Fragment,
    /// The first eight bytes of the quoted transport header.
    pub transport: QuotedTransport,
}

/// What the first eight bytes of a quoted transport header say.
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
    /// Whether this is an ICMP or ICMPv6 error, which quotes a packet: "unreachable", "source
    /// quench", "redirect" (IPv4), "time exceeded", "parameter problem", "packet too big".
    #[inline]
    #[must_use]
    pub fn is_icmp_error(&self) -> bool {
        match (self.transport, self.version) {
            (Transport::Icmp { kind, .. }, IpVersion::V4) => matches!(kind, 3 | 4 | 5 | 11 | 12),
            (Transport::Icmp { kind, .. }, IpVersion::V6) => kind < 128,
            _ => false,
        }
    }

    /// The MTU that a "fragmentation needed" or "packet too big" reports, in bytes. A router that
    /// does not know RFC 1191 reports 0. `bytes` are those that the packet was parsed from.
    #[must_use]
    pub fn reported_mtu(&self, bytes: &[u8]) -> Option<u32> {
        let Transport::Icmp { kind, code, .. } = self.transport else {
            return None;
        };
        let message = bytes
            .get(usize::from(self.transport_offset)..)?
            .first_chunk::<8>()?;
        match (self.version, kind, code) {
            (IpVersion::V4, 3, 4) => Some(u32::from(u16::from_be_bytes([message[6], message[7]]))),
            (IpVersion::V6, 2, _) => Some(u32::from_be_bytes([
                message[4], message[5], message[6], message[7],
            ])),
            _ => None,
        }
    }

    /// The packet that this ICMP error quotes; `None` if this is no ICMP error, is a fragment, or
    /// quotes less than the IP headers of a packet of its own family. `bytes` are those that the
    /// packet was parsed from.
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
    /// Reads the beginning of a packet of this family that an ICMP error quotes from `offset` on; `None` if it quotes
    /// less than the IP headers. A later part of the packet need not be there.
    #[must_use]
    pub fn read(version: IpVersion, quoted: &[u8], offset: u16) -> Option<Quote> {
        let (src, dst, transport_offset, protocol, fragment, packet_len) = match version {
            IpVersion::V4 => {
                let ip = Ipv4::parse(quoted)?;
                let fragment = v4_fragment(ip.fragment_offset(), ip.more_fragments());
                (
                    ip.src().into(),
                    ip.dst().into(),
                    ip.header_len(),
                    ip.protocol(),
                    fragment,
                    u32::from(ip.total_len()),
                )
            }
            IpVersion::V6 => {
                let ip = Ipv6::parse(quoted)?;
                let chain = walk_extensions(quoted, ip.next_header()).ok()?;
                (
                    ip.src().into(),
                    ip.dst().into(),
                    chain.offset,
                    chain.protocol,
                    chain.fragment,
                    IPV6_HEADER_LEN as u32 + u32::from(ip.payload_len()),
                )
            }
        };
        let start = quoted.get(transport_offset..);
        let transport = match start.and_then(<[u8]>::first_chunk::<8>) {
            Some(start) if fragment != Fragment::Later => {
                QuotedTransport::read(start, version, protocol)
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
    fn read(start: &[u8; 8], version: IpVersion, protocol: u8) -> QuotedTransport {
        let src = u16::from_be_bytes([start[0], start[1]]);
        let dst = u16::from_be_bytes([start[2], start[3]]);
        match (protocol, version) {
            (protocol::TCP, _) => {
                let seq = u32::from_be_bytes([start[4], start[5], start[6], start[7]]);
                QuotedTransport::Tcp { src, dst, seq }
            }
            (protocol::UDP, _) => QuotedTransport::Udp { src, dst },
            (protocol::ICMP, IpVersion::V4) | (protocol::ICMPV6, IpVersion::V6) => {
                let id = super::packet::is_icmp_query(version, start[0])
                    .then(|| u16::from_be_bytes([start[4], start[5]]));
                QuotedTransport::Icmp {
                    kind: start[0],
                    code: start[1],
                    id,
                }
            }
            _ => QuotedTransport::Other,
        }
    }
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
