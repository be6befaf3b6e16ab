//! In-place rewriting of a packet's addresses and ports.
//!
//! Owns which fields change together with an address or a port: the IPv4 header checksum and the transport checksum,
//! both updated incrementally (RFC 1624), so that a wrong one stays wrong. The caller decides the new values;
//! [`icmp`](super::icmp) rewrites ICMP errors.

use std::net::IpAddr;

use crate::wire::checksum::{self, Sum};
use crate::wire::icmp::{ICMP_HEADER_LEN, IcmpHeader};
use crate::wire::ip::{Ipv4Header, Ipv6Header, protocol};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport};
use crate::wire::prefix_mut;
use crate::wire::transport::{TcpHeader, UDP_HEADER_LEN, UdpHeader};

/// The checksums of UDP-Lite and DCCP cover a pseudo-header that is not implemented here (RFC 3828, RFC 4340).
const UDP_LITE: u8 = 136;
const DCCP: u8 = 33;

/// Bytes of a TCP header up to the end of the last field that NAT may change: its checksum.
pub(super) const TCP_REWRITTEN: usize = TcpHeader::CHECKSUM_OFFSET as usize + size_of::<u16>();

/// New addresses and ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rewrite {
    /// Source address and port. This port is also the identifier of an ICMP query or reply; a caller that identifies
    /// flows by it puts the same number into `dst`.
    pub src: (IpAddr, u16),
    /// Destination address and port.
    pub dst: (IpAddr, u16),
}

/// The packet's addresses or ports cannot be rewritten, because a field that would have to change is missing or
/// unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the packet cannot be translated")]
pub struct Untranslatable;

/// Rewrites the packet's addresses and ports to `to`. Also updates `packet`, which was parsed from `bytes`.
///
/// For a later fragment or a protocol without ports only the addresses change; the ports of `to` are ignored. A
/// super-packet is rewritten like any other packet, before it is split. A UDP checksum of zero stays zero, and no
/// other becomes zero (RFC 768).
///
/// `partial` means that the checksum field holds only the sum of the pseudo-header (`VIRTIO_NET_HDR_F_NEEDS_CSUM`),
/// which covers the addresses but not the ports.
///
/// # Errors
///
/// [`Untranslatable`], and nothing was changed: an address of the other family; an ICMP error; a first fragment that
/// ends before its transport header does; another destination for a packet that an IPv6 routing header forwards; a
/// protocol whose checksum covers addresses in a way that is not implemented here (AH, UDP-Lite, DCCP); `bytes` that
/// are not the packet's.
#[inline]
pub fn rewrite(
    bytes: &mut [u8],
    packet: &mut Packet,
    to: &Rewrite,
    partial: bool,
) -> Result<(), Untranslatable> {
    let kind = RewritableTransport::of(packet)?;
    let source_routed = packet.source_routed && to.dst.0 != packet.dst;
    if source_routed || !families_match(packet.version, to.src.0, to.dst.0) {
        return Err(Untranslatable);
    }
    let transport = usize::from(packet.transport_offset);
    let ip = bytes
        .get_mut(..usize::from(packet.total_len))
        .filter(|ip| ip.len() >= transport + kind.len())
        .filter(|_| transport >= packet.version.header_len())
        .ok_or(Untranslatable)?;
    let (head, segment) = ip.split_at_mut(transport);
    let addresses = set_addresses(head, (packet.src, packet.dst), (to.src.0, to.dst.0));
    kind.apply(segment, packet.version, addresses, to, partial);
    match &mut packet.transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => {
            (*src, *dst) = (to.src.1, to.dst.1);
        }
        Transport::Icmp { id: Some(id), .. } => *id = to.src.1,
        Transport::Icmp { id: None, .. } | Transport::Other | Transport::Unavailable => {}
    }
    (packet.src, packet.dst) = (to.src.0, to.dst.0);
    Ok(())
}

/// Whether both addresses are of the version's family.
pub(super) fn families_match(version: IpVersion, src: IpAddr, dst: IpAddr) -> bool {
    let v4 = version == IpVersion::V4;
    src.is_ipv4() == v4 && dst.is_ipv4() == v4
}

/// Returns what must be added to a sum when `new` replaces `old`.
fn change(old: Sum, new: Sum) -> Sum {
    Sum::ZERO.word(!old.fold()).add(new)
}

/// Writes the addresses to the IP header at the start of `head`, which holds all of it, and updates an IPv4 header's
/// checksum. Returns what must be added to a sum that covers the addresses.
pub(super) fn set_addresses(
    head: &mut [u8],
    (old_src, old_dst): (IpAddr, IpAddr),
    (src, dst): (IpAddr, IpAddr),
) -> Sum {
    let added = change(
        Sum::ZERO.address(old_src).address(old_dst),
        Sum::ZERO.address(src).address(dst),
    );
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            if let Some(header) = prefix_mut::<Ipv4Header>(head) {
                (header.source, header.destination) = (src.octets(), dst.octets());
                let check = header.checksum.get();
                header.checksum = added_to(check, added).into();
            }
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            if let Some(header) = prefix_mut::<Ipv6Header>(head) {
                (header.source, header.destination) = (src.octets(), dst.octets());
            }
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
    }
    added
}

/// The checksum that covers `added` besides what `check` covers (RFC 1624 equation 3).
pub(super) fn added_to(check: u16, added: Sum) -> u16 {
    Sum::ZERO.word(!check).add(added).checksum()
}

/// Transport header fields that NAT may change, with their current values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RewritableTransport {
    Tcp(u16, u16),
    Udp(u16, u16),
    /// An ICMP message with an identifier.
    Query(u16),
    /// An ICMP message without an identifier.
    Message,
    /// No transport header, or one whose checksum does not cover addresses.
    Bare,
}

impl RewritableTransport {
    fn of(packet: &Packet) -> Result<RewritableTransport, Untranslatable> {
        match packet.transport {
            Transport::Tcp { src, dst, .. } => Ok(RewritableTransport::Tcp(src, dst)),
            Transport::Udp { src, dst, .. } => Ok(RewritableTransport::Udp(src, dst)),
            Transport::Icmp { .. } if packet.is_icmp_error() => Err(Untranslatable),
            Transport::Icmp { id: Some(id), .. } => Ok(RewritableTransport::Query(id)),
            Transport::Icmp { id: None, .. } => Ok(RewritableTransport::Message),
            Transport::Other => match packet.protocol {
                protocol::AH | UDP_LITE | DCCP => Err(Untranslatable),
                _ => Ok(RewritableTransport::Bare),
            },
            Transport::Unavailable if packet.fragment == Fragment::Later => {
                Ok(RewritableTransport::Bare)
            }
            Transport::Unavailable => Err(Untranslatable),
        }
    }

    /// Length of the transport header up to the last field that may change.
    fn len(self) -> usize {
        match self {
            RewritableTransport::Tcp(..) => TCP_REWRITTEN,
            RewritableTransport::Udp(..) => UDP_HEADER_LEN,
            RewritableTransport::Query(_) | RewritableTransport::Message => ICMP_HEADER_LEN,
            RewritableTransport::Bare => 0,
        }
    }

    /// Writes the ports or the identifier to `segment`, which has at least the first eight bytes of the transport
    /// header, and updates the checksum if `segment` includes it.
    pub(super) fn apply(
        self,
        segment: &mut [u8],
        version: IpVersion,
        addresses: Sum,
        to: &Rewrite,
        partial: bool,
    ) {
        let (field, ports) = match self {
            RewritableTransport::Tcp(src, dst) => (
                TcpHeader::CHECKSUM_OFFSET,
                set_ports(segment, (src, dst), to),
            ),
            RewritableTransport::Udp(src, dst) => (
                UdpHeader::CHECKSUM_OFFSET,
                set_ports(segment, (src, dst), to),
            ),
            RewritableTransport::Query(id) => {
                if let Some(header) = prefix_mut::<IcmpHeader>(segment) {
                    header.set_query_id(to.src.1);
                }
                let new = Sum::ZERO.word(to.src.1);
                (IcmpHeader::CHECKSUM_OFFSET, change(Sum::ZERO.word(id), new))
            }
            RewritableTransport::Message => (IcmpHeader::CHECKSUM_OFFSET, Sum::ZERO),
            RewritableTransport::Bare => return,
        };
        let field = usize::from(field);
        if segment.len() < field + 2 {
            return;
        }
        let is_udp = matches!(self, RewritableTransport::Udp(..));
        let icmp4 = matches!(
            self,
            RewritableTransport::Query(_) | RewritableTransport::Message
        ) && version == IpVersion::V4;
        let addresses = if icmp4 { Sum::ZERO } else { addresses };
        match (partial, checksum::field(segment, field)) {
            (true, _) if icmp4 => {}
            (true, sum) => {
                let sum = Sum::ZERO.word(sum).add(addresses);
                checksum::set_field(segment, field, sum.fold());
            }
            (false, 0) if is_udp => {}
            (false, check) => {
                let check = added_to(check, addresses.add(ports));
                checksum::set_field(segment, field, check);
                // An echo reply may be all zero: of the two ways to write a sum of zero, only the
                // other one verifies then.
                let all_zero = || segment.iter().all(|&byte| byte == 0);
                if check == 0 && (is_udp || all_zero()) {
                    checksum::set_field(segment, field, 0xffff);
                }
            }
        }
    }
}

/// Stores both ports, which TCP has where UDP has them, and gives what they add to a sum.
fn set_ports(segment: &mut [u8], (src, dst): (u16, u16), to: &Rewrite) -> Sum {
    if let Some(header) = prefix_mut::<UdpHeader>(segment) {
        header.source_port = to.src.1.into();
        header.destination_port = to.dst.1.into();
    }
    let new = Sum::ZERO.word(to.src.1).word(to.dst.1);
    change(Sum::ZERO.word(src).word(dst), new)
}

#[cfg(test)]
#[path = "rewrite_tests.rs"]
pub(crate) mod tests;
