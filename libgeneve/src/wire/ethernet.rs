//! The Ethernet II header with up to two VLAN tags: layout, view and writers (IEEE 802.3, 802.1Q, 802.1ad).
//!
//! Owns MAC addresses, tags and the EtherType of the payload. The payload is parsed by [`arp`](super::arp) and
//! [`packet`](super::packet).

use std::fmt;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::prefix;

/// Bytes of a header without tags.
pub const ETHERNET_HEADER_LEN: usize = size_of::<EthernetHeader>();
/// Bytes of one VLAN tag.
pub const VLAN_TAG_LEN: usize = size_of::<VlanTag>();
/// Bytes of the longest header: two tags.
pub const MAX_ETHERNET_HEADER_LEN: usize = ETHERNET_HEADER_LEN + 2 * VLAN_TAG_LEN;
/// Offset of the first tag, or of the EtherType in an untagged frame.
const TAGS: usize = offset_of!(EthernetHeader, ether_type);
/// Lowest EtherType; smaller values are lengths (IEEE 802.3 section 3.2.6).
const MIN_ETHER_TYPE: u16 = 0x600;

/// EtherTypes (IEEE 802 numbers).
pub mod ethertype {
    /// An IPv4 packet.
    pub const IPV4: u16 = 0x0800;
    /// An IPv6 packet.
    pub const IPV6: u16 = 0x86dd;
    /// An ARP message.
    pub const ARP: u16 = 0x0806;
    /// A customer VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A service VLAN tag (802.1ad).
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// The header of an untagged frame (IEEE 802.3 section 3.1.1).
///
/// In a tagged frame the tags are between `source` and the EtherType, so that `ether_type` is the TPID of the first
/// tag.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct EthernetHeader {
    /// Whom the frame is for.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// The EtherType of the payload, or the TPID of the first tag.
    pub ether_type: U16,
}

/// One VLAN tag (IEEE 802.1Q section 9.6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VlanTag {
    /// The tag protocol identifier: [`ethertype::VLAN`] or [`ethertype::SERVICE_VLAN`].
    pub tpid: U16,
    /// The tag control information: priority (3 bits), drop eligibility (1 bit), VLAN ID (12 bits).
    pub tci: U16,
}

impl VlanTag {
    /// The VLAN ID: 0 (priority tag) to 4,095.
    #[inline]
    #[must_use]
    pub const fn id(self) -> u16 {
        self.tci.get() & 0xfff
    }
}

/// A MAC address.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether this is a group address (I/G bit), which includes the broadcast address.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this can be the address of a single station: neither a group nor all zeros.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }

    /// Returns the MAC address of the multicast group `group` (RFC 2464 section 7).
    #[must_use]
    pub const fn of_multicast_v6(group: Ipv6Addr) -> Mac {
        let [.., a, b, c, d] = group.octets();
        Mac([0x33, 0x33, a, b, c, d])
    }

    /// Returns the MAC address of the multicast group `group` (RFC 1112 section 6.4).
    #[must_use]
    pub const fn of_multicast_v4(group: Ipv4Addr) -> Mac {
        let [_, a, b, c] = group.octets();
        Mac([0x01, 0x00, 0x5e, a & 0x7f, b, c])
    }

    /// Returns a locally administered address (U/L bit set) with these last 40 bits.
    #[must_use]
    pub const fn local(rest: [u8; 5]) -> Mac {
        let [a, b, c, d, e] = rest;
        Mac([0x02, a, b, c, d, e])
    }

    /// Returns a second, locally administered address for the same host: the U/L bit is set, and the next higher bit
    /// is inverted.
    #[must_use]
    pub const fn companion(self) -> Mac {
        let [a, rest @ ..] = self.0;
        let [b, c, d, e, f] = rest;
        Mac([(a | 0x02) ^ 0x04, b, c, d, e, f])
    }

    /// Returns the link-local address derived from it (RFC 4291 appendix A).
    #[must_use]
    pub const fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::new(
            0xfe80,
            0,
            0,
            0,
            (a as u16 ^ 2) << 8 | b as u16,
            (c as u16) << 8 | 0xff,
            0xfe00 | d as u16,
            (e as u16) << 8 | f as u16,
        )
    }
}

/// As printed by `ip`: `52:54:00:12:34:56`.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a MAC address is six bytes in hexadecimal, such as 52:54:00:12:34:56")]
pub struct MacError;

/// Accepts six groups of one or two hexadecimal digits, separated by colons.
impl FromStr for Mac {
    type Err = MacError;
    fn from_str(text: &str) -> Result<Mac, MacError> {
        let mut bytes = [0; 6];
        let mut groups = text.split(':');
        for byte in &mut bytes {
            let group = groups.next().ok_or(MacError)?;
            let digits = group.bytes().all(|b| b.is_ascii_hexdigit());
            if !digits || !(1..=2).contains(&group.len()) {
                return Err(MacError);
            }
            *byte = u8::from_str_radix(group, 16).map_err(|_| MacError)?;
        }
        match groups.next() {
            None => Ok(Mac(bytes)),
            Some(_) => Err(MacError),
        }
    }
}

/// An Ethernet frame whose header was checked: it is complete, and has at most two tags.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    header: &'a EthernetHeader,
    bytes: &'a [u8],
    header_len: usize,
    ether_type: u16,
}

/// Why bytes are not an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EthernetError {
    /// The frame ends within the header.
    #[error("the frame ends before its Ethernet header does")]
    Truncated,
    /// More than two VLAN tags.
    #[error("the frame has more than two VLAN tags")]
    TooManyTags,
    /// A length instead of an EtherType (IEEE 802.3 with LLC).
    #[error("the frame has a length where its EtherType should be")]
    NoEtherType,
    /// The source address is a group address, or all zeros.
    #[error("the frame's source is nobody's own address")]
    Source,
}

impl<'a> Ethernet<'a> {
    /// Parses a frame without preamble and FCS.
    ///
    /// # Errors
    ///
    /// See [`EthernetError`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Ethernet<'a>, EthernetError> {
        let header: &EthernetHeader = prefix(bytes).ok_or(EthernetError::Truncated)?;
        let mut header_len = ETHERNET_HEADER_LEN;
        let mut ether_type = header.ether_type.get();
        while matches!(ether_type, ethertype::VLAN | ethertype::SERVICE_VLAN) {
            if header_len == MAX_ETHERNET_HEADER_LEN {
                return Err(EthernetError::TooManyTags);
            }
            let next = bytes.get(header_len + VLAN_TAG_LEN - size_of::<U16>()..);
            let next: &U16 = next.and_then(prefix).ok_or(EthernetError::Truncated)?;
            header_len += VLAN_TAG_LEN;
            ether_type = next.get();
        }
        if ether_type < MIN_ETHER_TYPE {
            return Err(EthernetError::NoEtherType);
        }
        if !header.source.is_unicast() {
            return Err(EthernetError::Source);
        }
        Ok(Ethernet {
            header,
            bytes,
            header_len,
            ether_type,
        })
    }

    /// Whom the frame is for.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Mac {
        self.header.destination
    }

    /// The source address; never a group.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Mac {
        self.header.source
    }

    /// The EtherType of the payload, after all tags.
    #[inline]
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// The VLAN tags, outermost first: at most two.
    #[inline]
    #[must_use]
    pub fn tags(&self) -> &'a [VlanTag] {
        let tags = self.bytes.get(TAGS..self.header_len - size_of::<U16>());
        tags.and_then(|tags| FromBytes::ref_from_bytes(tags).ok())
            .unwrap_or_default()
    }

    /// Whether the frame has a VLAN tag.
    #[inline]
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.header_len > ETHERNET_HEADER_LEN
    }

    /// Bytes of the header: 14, 18 or 22.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The header as received.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8] {
        &self.bytes[..self.header_len]
    }

    /// The payload, padding included.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }
}

/// Returns the header of an untagged frame.
#[must_use]
pub fn ethernet_header(dst: Mac, src: Mac, ether_type: u16) -> [u8; ETHERNET_HEADER_LEN] {
    transmute!(EthernetHeader {
        destination: dst,
        source: src,
        ether_type: ether_type.into(),
    })
}

/// Returns the header of a frame with tags, outermost first, and its length; `None` for more than two tags.
#[must_use]
pub fn tagged_header(
    dst: Mac,
    src: Mac,
    tags: &[VlanTag],
    ether_type: u16,
) -> Option<([u8; MAX_ETHERNET_HEADER_LEN], usize)> {
    let mut bytes = [0; MAX_ETHERNET_HEADER_LEN];
    let header_len = ETHERNET_HEADER_LEN + size_of_val(tags);
    let (before, last) = bytes
        .get_mut(TAGS..header_len)?
        .split_at_mut(size_of_val(tags));
    before.copy_from_slice(tags.as_bytes());
    last.copy_from_slice(&ether_type.to_be_bytes());
    bytes[..TAGS].copy_from_slice([dst, src].as_bytes());
    Some((bytes, header_len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC_A: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const MAC_B: Mac = Mac([0x02, 0, 0, 0, 0, 1]);

    #[test]
    fn an_address_is_written_as_ip_does_and_read_back() {
        assert_eq!(MAC_A.to_string(), "52:54:00:12:34:56");
        assert_eq!("52:54:0:12:34:56".parse(), Ok(MAC_A));
        for wrong in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52-54-00-12-34-56",
            "52:54:00:12:34:5g",
            "+2:54:00:12:34:56",
            "052:54:00:12:34:56",
            "52:54:00:12:34:",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(MacError), "{wrong}");
        }
    }

    #[test]
    fn groups_are_told_from_stations() {
        assert!(Mac::BROADCAST.is_multicast() && !MAC_A.is_multicast());
        assert!(MAC_A.is_unicast() && !Mac::default().is_unicast());
        let solicited = "ff02::1:ff00:2".parse().unwrap();
        assert_eq!(
            Mac::of_multicast_v6(solicited).to_string(),
            "33:33:ff:00:00:02"
        );
        let all = "224.128.0.5".parse().unwrap();
        assert_eq!(Mac::of_multicast_v4(all).to_string(), "01:00:5e:00:00:05");
        assert_eq!(Mac::local([1, 2, 3, 4, 5]).to_string(), "02:01:02:03:04:05");
        assert_eq!(MAC_A.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = ethernet_header(MAC_A, MAC_B, ethertype::IPV4);
        let bytes = [&header[..], b"payload"].concat();
        let frame = Ethernet::parse(&bytes).unwrap();
        assert_eq!((frame.dst(), frame.src()), (MAC_A, MAC_B));
        assert_eq!(frame.ether_type(), ethertype::IPV4);
        assert_eq!(frame.payload(), b"payload");
        assert!(!frame.is_tagged());
        assert_eq!(frame.header_bytes(), header);
    }

    #[test]
    fn two_tags_are_read_and_a_third_is_refused() {
        let outer = VlanTag {
            tpid: ethertype::SERVICE_VLAN.into(),
            tci: 0x6fff.into(),
        };
        let inner = VlanTag {
            tpid: ethertype::VLAN.into(),
            tci: 5.into(),
        };
        let tags = [outer, inner];
        for n in 0..=2 {
            let (bytes, len) = tagged_header(MAC_A, MAC_B, &tags[..n], ethertype::ARP).unwrap();
            let frame = Ethernet::parse(&bytes[..len]).unwrap();
            assert_eq!(frame.tags(), &tags[..n]);
            assert_eq!(frame.ether_type(), ethertype::ARP);
            assert_eq!(frame.header_len(), ETHERNET_HEADER_LEN + n * VLAN_TAG_LEN);
        }
        assert_eq!((outer.id(), inner.id()), (0xfff, 5));
        assert_eq!(
            tagged_header(MAC_A, MAC_B, &[outer, inner, inner], 0x0800),
            None
        );
        let (bytes, len) = tagged_header(MAC_A, MAC_B, &tags, ethertype::VLAN).unwrap();
        assert_eq!(
            Ethernet::parse(&bytes[..len]).unwrap_err(),
            EthernetError::TooManyTags
        );
    }

    #[test]
    fn a_tagged_header_has_the_layout_of_802_1q() {
        let tag = VlanTag {
            tpid: ethertype::VLAN.into(),
            tci: 0x2005.into(),
        };
        let (bytes, len) = tagged_header(MAC_A, MAC_B, &[tag], ethertype::IPV6).unwrap();
        let expected = [
            0x52, 0x54, 0, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 1, 0x81, 0, 0x20, 5, 0x86, 0xdd,
        ];
        assert_eq!(bytes[..len], expected);
        let header: &EthernetHeader = prefix(&bytes).unwrap();
        assert_eq!((header.destination, header.source), (MAC_A, MAC_B));
        assert_eq!(header.ether_type.get(), ethertype::VLAN);
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let header = ethernet_header(MAC_A, MAC_B, ethertype::IPV4);
        for short in 0..ETHERNET_HEADER_LEN {
            let error = Ethernet::parse(&header[..short]).unwrap_err();
            assert_eq!(error, EthernetError::Truncated);
        }
        let group = ethernet_header(MAC_A, Mac::BROADCAST, ethertype::IPV4);
        assert_eq!(Ethernet::parse(&group).unwrap_err(), EthernetError::Source);
        let nobody = ethernet_header(MAC_A, Mac::default(), ethertype::IPV4);
        assert_eq!(Ethernet::parse(&nobody).unwrap_err(), EthernetError::Source);
        let length = ethernet_header(MAC_A, MAC_B, 0x05ff);
        assert_eq!(
            Ethernet::parse(&length).unwrap_err(),
            EthernetError::NoEtherType
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(frame) = Ethernet::parse(&bytes) {
                prop_assert_eq!(frame.header_len() + frame.payload().len(), bytes.len());
                prop_assert!(frame.tags().len() <= 2 && frame.src().is_unicast());
                let _ = (frame.dst(), frame.ether_type());
            }
        }

        #[test]
        fn what_is_written_is_read(dst: [u8; 6], src: [u8; 5], tci in prop::collection::vec(any::<u16>(), 0..3), kind in 0x9000u16..) {
            let (dst, src) = (Mac(dst), Mac::local(src));
            let tags: Vec<_> = tci
                .iter()
                .map(|&tci| VlanTag { tpid: ethertype::VLAN.into(), tci: tci.into() })
                .collect();
            let (bytes, len) = tagged_header(dst, src, &tags, kind).unwrap();
            let frame = Ethernet::parse(&bytes[..len]).unwrap();
            prop_assert_eq!((frame.dst(), frame.src(), frame.ether_type()), (dst, src, kind));
            prop_assert_eq!(frame.tags(), tags);
            prop_assert!(frame.payload().is_empty());
            for short in 0..len {
                prop_assert_eq!(Ethernet::parse(&bytes[..short]).unwrap_err(), EthernetError::Truncated);
            }
        }

        #[test]
        fn addresses_survive_text(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }
    }
}
