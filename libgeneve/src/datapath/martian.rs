//! Martians: inner packets that no network should carry, with addresses that never leave a host or with a source
//! route.
//!
//! A kernel drops most of them too, but which ones depends on its settings; and a rule or route for an IPv4 address
//! does not match the IPv6 address that an application treats as the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::drop::DropReason;
use crate::vpc::LinkConfig;
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN};
use crate::wire::packet::{IpVersion, Packet};

/// Drops martians of this link, from the wire or from its interface; `packet` was parsed from `bytes`.
///
/// # Errors
/// The reason for which the packet is a martian.
#[inline]
pub fn martian(link: &LinkConfig, packet: &Packet, bytes: &[u8]) -> Result<(), DropReason> {
    martian_addresses(link, packet.src, packet.dst)?;
    let plain = match packet.version {
        IpVersion::V4 => IPV4_HEADER_LEN,
        IpVersion::V6 => IPV6_HEADER_LEN,
    };
    if usize::from(packet.transport_offset) > plain && packet.prescribes_route(bytes) {
        return Err(DropReason::SourceRoute);
    }
    Ok(())
}

/// Address part of [`martian`].
#[inline]
pub(super) fn martian_addresses(
    link: &LinkConfig,
    src: IpAddr,
    dst: IpAddr,
) -> Result<(), DropReason> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => v4(link, src, dst),
        (IpAddr::V6(src), IpAddr::V6(dst)) => v6(src, dst),
        // No packet mixes address families.
        _ => Ok(()),
    }
}

#[inline]
fn v4(link: &LinkConfig, src: Ipv4Addr, dst: Ipv4Addr) -> Result<(), DropReason> {
    if src.is_loopback() || dst.is_loopback() {
        return Err(DropReason::LoopbackAddress);
    }
    // A host without an address broadcasts for one (RFC 2131 section 4.1) or reports its group memberships (RFC 3376
    // section 4.2.13).
    let for_group = || dst.is_broadcast() || dst.is_multicast();
    if src.is_multicast()
        || src.is_broadcast()
        || (src.is_unspecified() && !for_group())
        || link.broadcasts.contains(&src)
    {
        return Err(DropReason::SourceNotUnicast);
    }
    Ok(())
}

#[inline]
fn v6(src: Ipv6Addr, dst: Ipv6Addr) -> Result<(), DropReason> {
    // The special addresses are all within ::/80; other addresses that are not multicast are valid.
    let low = |addr: Ipv6Addr| addr.to_bits() >> 48 == 0;
    if low(src) || low(dst) {
        let mapped = |addr: Ipv6Addr| addr.to_ipv4_mapped().is_some();
        if mapped(src) || mapped(dst) {
            return Err(DropReason::MappedAddress);
        }
        if src.is_loopback() || dst.is_loopback() {
            return Err(DropReason::LoopbackAddress);
        }
        // Duplicate address detection and hosts without an address send to multicast groups (RFC 4862 section 5.4.2).
        if src.is_unspecified() && !dst.is_multicast() {
            return Err(DropReason::SourceNotUnicast);
        }
    }
    match src.is_multicast() {
        true => Err(DropReason::SourceNotUnicast),
        false => Ok(()),
    }
}
