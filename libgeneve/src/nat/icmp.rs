//! Translation of ICMP errors about flows that NAT rewrites.
//!
//! Owns what changes in an error besides its own addresses: the quoted packet, as far as it is quoted (RFC 5508
//! section 4, RFC 3022 section 4.3). The caller knows which flow the error belongs to.

use std::net::IpAddr;

use super::rewrite::{
    RewritableTransport, Rewrite, TCP_REWRITTEN, Untranslatable, added_to, families_match,
    set_addresses,
};
use crate::wire::checksum::Sum;
use crate::wire::icmp::{ICMP_HEADER_LEN, IcmpHeader, Quote, QuotedTransport};
use crate::wire::packet::{Fragment, IpVersion, Packet};
use crate::wire::prefix_mut;

/// Rewrites the addresses of an ICMP error to `src` and `dst`, and those and the ports of the packet that it quotes
/// to `quoted`, in the direction of the quoted packet. Also updates `packet`, which was parsed from `bytes`.
///
/// The quoted IPv4 header checksum, the quoted transport checksum if it is included, and the error's own checksum are
/// updated incrementally, so a wrong one stays wrong. The identifier of a quoted ICMP query is the port of
/// `quoted.src`.
///
/// # Errors
///
/// [`Untranslatable`] if it is not an ICMP error, or is a fragment of one; if the quote ends before the first eight
/// bytes of its transport header; or if an address is of the other family. Nothing is changed then.
pub fn rewrite_error(
    bytes: &mut [u8],
    packet: &mut Packet,
    src: IpAddr,
    dst: IpAddr,
    quoted: &Rewrite,
) -> Result<(), Untranslatable> {
    let quote = packet.quote(bytes).ok_or(Untranslatable)?;
    let kind = RewritableTransport::of_quote(&quote)?;
    let transport = usize::from(packet.transport_offset);
    if !families_match(packet.version, src, dst)
        || !families_match(packet.version, quoted.src.0, quoted.dst.0)
        || transport < packet.version.header_len()
    {
        return Err(Untranslatable);
    }
    let ip = bytes
        .get_mut(..usize::from(packet.total_len))
        .filter(|ip| ip.len() >= transport + ICMP_HEADER_LEN)
        .ok_or(Untranslatable)?;
    let (head, message) = ip.split_at_mut(transport);
    let start = usize::from(quote.offset)
        .checked_sub(transport)
        .ok_or(Untranslatable)?;
    let end = start + usize::from(quote.transport_offset) + TCP_REWRITTEN;
    let end = end.min(message.len());
    let beginning = message.get_mut(start..end).ok_or(Untranslatable)?;

    let before = Sum::ZERO.bytes(beginning);
    let (quoted_head, segment) = beginning
        .split_at_mut_checked(usize::from(quote.transport_offset))
        .ok_or(Untranslatable)?;
    let addresses = set_addresses(
        quoted_head,
        (quote.src, quote.dst),
        (quoted.src.0, quoted.dst.0),
    );
    kind.apply(segment, packet.version, addresses, quoted, false);
    let mut added = Sum::ZERO.word(!before.fold()).bytes(beginning);

    let addresses = set_addresses(head, (packet.src, packet.dst), (src, dst));
    if packet.version == IpVersion::V6 {
        added = added.add(addresses);
    }
    if let Some(header) = prefix_mut::<IcmpHeader>(message) {
        header.checksum = added_to(header.checksum.get(), added).into();
    }
    (packet.src, packet.dst) = (src, dst);
    Ok(())
}

impl RewritableTransport {
    fn of_quote(quote: &Quote) -> Result<RewritableTransport, Untranslatable> {
        match quote.transport {
            QuotedTransport::Tcp { src, dst, .. } => Ok(RewritableTransport::Tcp(src, dst)),
            QuotedTransport::Udp { src, dst } => Ok(RewritableTransport::Udp(src, dst)),
            QuotedTransport::Icmp { id: Some(id), .. } => Ok(RewritableTransport::Query(id)),
            QuotedTransport::Icmp { id: None, .. } => Ok(RewritableTransport::Message),
            QuotedTransport::Other => Ok(RewritableTransport::Bare),
            QuotedTransport::Unavailable if quote.fragment == Fragment::Later => {
                Ok(RewritableTransport::Bare)
            }
            QuotedTransport::Unavailable => Err(Untranslatable),
        }
    }
}

#[cfg(test)]
#[path = "icmp_tests.rs"]
mod tests;
