//! IPv4 and IPv6 headers: views, builders, and the IPv4 header checksum.
//!
//! Owns the fixed headers and the sizes of IPv4 options and IPv6 extension headers. The walk to the
//! transport header, and what a whole packet means, is [`packet`](super::packet)'s.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::checksum::Sum;

/// Bytes of an IPv4 header without options (RFC 791 section 3.1).
pub const IPV4_HEADER_LEN: usize = 20;
/// Bytes of the fixed IPv6 header (RFC 8200 section 3).
pub const IPV6_HEADER_LEN: usize = 40;

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
    /// Encapsulating Security Payload (RFC 4303): what follows is not readable.
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

/// An IPv4 header whose length was checked against the buffer.
///
/// The total length field and the checksum are not checked here: see
/// [`Packet::parse`](super::packet::Packet::parse) and [`Ipv4::checksum_holds`].
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    fixed: &'a [u8; IPV4_HEADER_LEN],
    header: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// The header at the start of `bytes`; `None` if the version is not 4, the header length is
    /// below 20 bytes, or the buffer ends before the header does.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Ipv4<'a>> {
        let fixed = bytes.first_chunk::<IPV4_HEADER_LEN>()?;
        let header_len = usize::from(fixed[0] & 0x0f) * 4;
        if fixed[0] >> 4 != 4 || header_len < IPV4_HEADER_LEN {
            return None;
        }
        Some(Ipv4 {
            fixed,
            header: bytes.get(..header_len)?,
        })
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header.len()
    }

    /// DSCP (6 bits) and ECN (2 bits).
    #[inline]
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Bytes of header and payload, as the header says.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> u16 {
        self.word(2)
    }

    /// The identification field, which fragments of one packet share.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.word(4)
    }

    /// The DF bit.
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.fixed[6] & 0x40 != 0
    }

    /// The MF bit.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.fixed[6] & 0x20 != 0
    }

    /// Where this fragment's payload belongs in the whole, in units of 8 bytes: 0 to 8191.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        self.word(6) & 0x1fff
    }

    /// The time to live.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// The protocol of the payload.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// The header checksum field.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.word(10)
    }

    /// Whether the header checksum is right (RFC 791 section 3.1).
    #[inline]
    #[must_use]
    pub fn checksum_holds(&self) -> bool {
        Sum::ZERO.bytes(self.header).checksum() == 0
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.fixed[12],
            self.fixed[13],
            self.fixed[14],
            self.fixed[15],
        )
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::new(
            self.fixed[16],
            self.fixed[17],
            self.fixed[18],
            self.fixed[19],
        )
    }

    /// The options, unparsed: 0 to 40 bytes.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header.get(IPV4_HEADER_LEN..).unwrap_or_default()
    }

    #[inline]
    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.fixed[at], self.fixed[at + 1]])
    }
}

/// Whether the checksum of the IPv4 header at the start of `bytes` is right; `false` too if there is
/// no such header.
#[inline]
#[must_use]
pub fn ipv4_checksum_holds(bytes: &[u8]) -> bool {
    Ipv4::parse(bytes).is_some_and(|header| header.checksum_holds())
}

/// Computes and stores the checksum of the IPv4 header at the start of `bytes`; does nothing if there
/// is no such header.
#[inline]
pub fn write_ipv4_checksum(bytes: &mut [u8]) {
    let Some(header_len) = Ipv4::parse(bytes).map(|header| header.header_len()) else {
        return;
    };
    bytes[10..12].fill(0);
    let check = Sum::ZERO.bytes(&bytes[..header_len]).checksum();
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
}

/// Takes one off the TTL or hop limit of the packet at the start of `bytes`, as a router does; the IPv4 header checksum
/// follows (RFC 1624). Does nothing where it is zero or the header is not there.
pub fn decrement_ttl(bytes: &mut [u8], version: IpVersion) {
    match version {
        IpVersion::V4 => {
            let Some(header) = bytes.first_chunk_mut::<IPV4_HEADER_LEN>() else {
                return;
            };
            let old = u16::from_be_bytes([header[8], header[9]]);
            header[8] = header[8].saturating_sub(1);
            let new = u16::from_be_bytes([header[8], header[9]]);
            let check = u16::from_be_bytes([header[10], header[11]]);
            let check = super::checksum::update16(check, old, new);
            header[10..12].copy_from_slice(&check.to_be_bytes());
        }
        IpVersion::V6 => {
            if let Some(hops) = bytes.get_mut(7) {
                *hops = hops.saturating_sub(1);
            }
        }
    }
}

/// What a new IPv4 header without options says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Header {
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of header and payload: 20 to 65,535.
    pub total_len: u16,
    /// The identification field.
    pub identification: u16,
    /// The DF bit.
    pub dont_fragment: bool,
    /// The time to live.
    pub ttl: u8,
    /// The protocol of the payload.
    pub protocol: u8,
    /// The source address.
    pub src: Ipv4Addr,
    /// The destination address.
    pub dst: Ipv4Addr,
}

impl Ipv4Header {
    /// The header's bytes, with its checksum.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IPV4_HEADER_LEN] {
        let mut bytes = [0; IPV4_HEADER_LEN];
        bytes[0] = 0x45;
        bytes[1] = self.tos;
        bytes[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.identification.to_be_bytes());
        bytes[6] = if self.dont_fragment { 0x40 } else { 0 };
        bytes[8] = self.ttl;
        bytes[9] = self.protocol;
        bytes[12..16].copy_from_slice(&self.src.octets());
        bytes[16..20].copy_from_slice(&self.dst.octets());
        write_ipv4_checksum(&mut bytes);
        bytes
    }
}

/// A fixed IPv6 header whose length was checked against the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(&'a [u8; IPV6_HEADER_LEN]);

impl<'a> Ipv6<'a> {
    /// The header at the start of `bytes`; `None` if the version is not 6 or fewer than 40 bytes are
    /// there.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Ipv6<'a>> {
        bytes
            .first_chunk::<IPV6_HEADER_LEN>()
            .filter(|fixed| fixed[0] >> 4 == 6)
            .map(Ipv6)
    }

    /// The traffic class: DSCP (6 bits) and ECN (2 bits).
    #[inline]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// The flow label: 20 bits.
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.0[1] & 0x0f, self.0[2], self.0[3]])
    }

    /// Bytes after the fixed header, as the header says.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The protocol of what follows the fixed header; it may be an extension header.
    #[inline]
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// The hop limit.
    #[inline]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Ipv6Addr {
        address(self.0, 8)
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Ipv6Addr {
        address(self.0, 24)
    }
}

/// What a new IPv6 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Header {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The flow label; only the low 20 bits are sent.
    pub flow_label: u32,
    /// Bytes after the header.
    pub payload_len: u16,
    /// The protocol of the payload.
    pub next_header: u8,
    /// The hop limit.
    pub hop_limit: u8,
    /// The source address.
    pub src: Ipv6Addr,
    /// The destination address.
    pub dst: Ipv6Addr,
}

impl Ipv6Header {
    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; IPV6_HEADER_LEN] {
        let mut bytes = [0; IPV6_HEADER_LEN];
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff;
        bytes[..4].copy_from_slice(&first.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        bytes[6] = self.next_header;
        bytes[7] = self.hop_limit;
        bytes[8..24].copy_from_slice(&self.src.octets());
        bytes[24..40].copy_from_slice(&self.dst.octets());
        bytes
    }
}

#[inline]
fn address(fixed: &[u8; IPV6_HEADER_LEN], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&fixed[at..at + 16]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_ipv4_header_has_its_known_checksum() {
        // The worked example that textbooks share: checksum 0xb861.
        let mut bytes = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(!ipv4_checksum_holds(&bytes));
        write_ipv4_checksum(&mut bytes);
        assert_eq!(Ipv4::parse(&bytes).unwrap().checksum(), 0xb861);
        assert!(ipv4_checksum_holds(&bytes));
    }

    #[test]
    fn ipv4_options_are_part_of_the_header_and_its_checksum() {
        let mut bytes = [0u8; 24];
        bytes[0] = 0x46;
        bytes[20] = 0x94;
        bytes[21] = 4;
        write_ipv4_checksum(&mut bytes);
        let header = Ipv4::parse(&bytes).unwrap();
        assert_eq!(header.header_len(), 24);
        assert_eq!(header.options(), [0x94, 4, 0, 0]);
        assert!(header.checksum_holds());
        bytes[20] = 0;
        assert!(!ipv4_checksum_holds(&bytes));
    }

    #[test]
    fn headers_that_do_not_fit_are_refused() {
        assert!(Ipv4::parse(&[0x45; 19]).is_none());
        assert!(Ipv4::parse(&[0x46; 23]).is_none());
        assert!(Ipv4::parse(&[0x44; 60]).is_none());
        assert!(Ipv4::parse(&[0x65; 60]).is_none());
        assert!(Ipv6::parse(&[0x60; 39]).is_none());
        assert!(Ipv6::parse(&[0x45; 60]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_built_is_what_is_read(
            tos: u8, total_len: u16, identification: u16, dont_fragment: bool, ttl: u8, protocol: u8,
            src: Ipv4Addr, dst: Ipv4Addr, flow_label in 0u32..1 << 20, src6: Ipv6Addr, dst6: Ipv6Addr
        ) {
            let built = Ipv4Header { tos, total_len, identification, dont_fragment, ttl, protocol, src, dst };
            let bytes = built.to_bytes();
            let read = Ipv4::parse(&bytes).unwrap();
            prop_assert!(read.checksum_holds());
            prop_assert_eq!(built, Ipv4Header {
                tos: read.tos(), total_len: read.total_len(), identification: read.identification(),
                dont_fragment: read.dont_fragment(), ttl: read.ttl(), protocol: read.protocol(),
                src: read.src(), dst: read.dst(),
            });
            prop_assert!(!read.more_fragments());
            prop_assert_eq!(read.fragment_offset(), 0);

            let built = Ipv6Header {
                traffic_class: tos, flow_label, payload_len: total_len, next_header: protocol,
                hop_limit: ttl, src: src6, dst: dst6,
            };
            let bytes = built.to_bytes();
            let read = Ipv6::parse(&bytes).unwrap();
            prop_assert_eq!(built, Ipv6Header {
                traffic_class: read.traffic_class(), flow_label: read.flow_label(),
                payload_len: read.payload_len(), next_header: read.next_header(),
                hop_limit: read.hop_limit(), src: read.src(), dst: read.dst(),
            });
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(header) = Ipv4::parse(&bytes) {
                prop_assert_eq!(header.options().len() + 20, header.header_len());
            }
            if let Some(header) = Ipv6::parse(&bytes) {
                let _ = (header.src(), header.dst(), header.flow_label());
            }
            write_ipv4_checksum(&mut bytes);
            prop_assert_eq!(ipv4_checksum_holds(&bytes), Ipv4::parse(&bytes).is_some());
        }
    }
}
