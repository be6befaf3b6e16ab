//! Common parts of IPv4 and IPv6: protocol numbers, the version, and forwarding.
//!
//! The headers are in [`ipv4`](super::ipv4) and [`ipv6`](super::ipv6). [`packet`](super::packet) walks to the
//! transport header, and interprets the whole packet.

pub use super::ipv4::{
    IPV4_HEADER_LEN, Ipv4, Ipv4Header, ipv4_checksum_holds, write_ipv4_checksum,
};
pub use super::ipv6::{IPV6_HEADER_LEN, Ipv6, Ipv6Header};
use super::prefix_mut;

/// The TTL or hop limit of new packets (RFC 1700, "IP TIME TO LIVE PARAMETER").
pub const DEFAULT_TTL: u8 = 64;

/// Protocol numbers that geneved knows (IANA, shared by IPv4 and IPv6).
pub mod protocol {
    /// IPv6 Hop-by-Hop Options (RFC 8200 section 4.3).
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP for IPv4 (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 Routing header (RFC 8200 section 4.4).
    pub const ROUTING: u8 = 43;
    /// IPv6 Fragment header (RFC 8200 section 4.5).
    pub const FRAGMENT: u8 = 44;
    /// Encapsulating Security Payload (RFC 4303), which hides what follows.
    pub const ESP: u8 = 50;
    /// Authentication Header (RFC 4302).
    pub const AH: u8 = 51;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6 No Next Header (RFC 8200 section 4.7).
    pub const NO_NEXT_HEADER: u8 = 59;
    /// IPv6 Destination Options (RFC 8200 section 4.6).
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// The version of the Internet Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Bytes of the header without IPv4 options and IPv6 extension headers: 20 or 40.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            IpVersion::V4 => IPV4_HEADER_LEN,
            IpVersion::V6 => IPV6_HEADER_LEN,
        }
    }
}

/// Decrements the TTL or hop limit of the packet at the start of `bytes`, and updates the IPv4 header checksum (RFC
/// 1624). Does nothing if it is zero or there is no complete header.
pub fn decrement_ttl(bytes: &mut [u8], version: IpVersion) {
    match version {
        IpVersion::V4 => {
            if let Some(header) = prefix_mut::<Ipv4Header>(bytes) {
                let old = [header.ttl, header.protocol];
                header.ttl = header.ttl.saturating_sub(1);
                header.update_checksum(old, [header.ttl, header.protocol]);
            }
        }
        IpVersion::V6 => {
            if let Some(header) = prefix_mut::<Ipv6Header>(bytes) {
                header.hop_limit = header.hop_limit.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::tests::sample;

    #[test]
    fn a_router_takes_one_off_and_the_checksum_stays_right() {
        let mut bytes = sample::udp4(b"hello");
        let before = Ipv4::parse(&bytes).unwrap().ttl;
        decrement_ttl(&mut bytes, IpVersion::V4);
        let header = Ipv4::parse(&bytes).unwrap();
        assert_eq!(header.ttl, before - 1);
        assert!(header.checksum_holds());
        let mut header = Ipv6Header::new([0; 16].into(), [0; 16].into(), protocol::UDP, 0);
        header.hop_limit = 1;
        let mut bytes = header.to_bytes();
        for _ in 0..2 {
            decrement_ttl(&mut bytes, IpVersion::V6);
            assert_eq!(Ipv6::parse(&bytes).unwrap().hop_limit, 0);
        }
        decrement_ttl(&mut bytes[..7], IpVersion::V6);
        decrement_ttl(&mut bytes[..19], IpVersion::V4);
    }
}
