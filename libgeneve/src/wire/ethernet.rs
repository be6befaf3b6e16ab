//! The Ethernet II header with up to two VLAN tags: view and builder (IEEE 802.3, 802.1Q, 802.1ad).
//!
//! Owns MAC addresses, tags and the EtherType of what follows. What the frame carries is others': [`arp`](super::arp),
//! [`packet`](super::packet).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Bytes of a header without tags.
pub const ETHERNET_HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const VLAN_TAG_LEN: usize = 4;
/// Bytes of the longest header: two tags.
pub const MAX_ETHERNET_HEADER_LEN: usize = ETHERNET_HEADER_LEN + 2 * VLAN_TAG_LEN;

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

/// A MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody: `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names a group, the broadcast included (the I/G bit), and so nobody's own address.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it can be somebody's own address: neither a group nor all zeros.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self.0 != [0; 6]
    }

    /// The address of the group `group` (RFC 2464 section 7).
    #[must_use]
    pub const fn of_multicast_v6(group: Ipv6Addr) -> Mac {
        let [.., a, b, c, d] = group.octets();
        Mac([0x33, 0x33, a, b, c, d])
    }

    /// The address of the group `group` (RFC 1112 section 6.4).
    #[must_use]
    pub const fn of_multicast_v4(group: Ipv4Addr) -> Mac {
        let [_, a, b, c] = group.octets();
        Mac([0x01, 0x00, 0x5e, a & 0x7f, b, c])
    }

    /// An address of one's own making (the U/L bit is set) with these last 40 bits.
    #[must_use]
    pub const fn local(rest: [u8; 5]) -> Mac {
        let [a, b, c, d, e] = rest;
        Mac([0x02, a, b, c, d, e])
    }

    /// Another address for the same host, of its own making: the U/L bit is set, and the bit before it is the other way
    /// round.
    #[must_use]
    pub const fn companion(self) -> Mac {
        let [a, rest @ ..] = self.0;
        let [b, c, d, e, f] = rest;
        Mac([(a | 0x02) ^ 0x04, b, c, d, e, f])
    }

    /// The link-local address that is made of it (RFC 4291 appendix A).
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

/// As `ip` writes it: `52:54:00:12:34:56`.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A text is not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a MAC address is six bytes in hexadecimal, such as 52:54:00:12:34:56")]
pub struct MacError;

/// Takes six groups of one or two hexadecimal digits, separated by colons.
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

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// [`ethertype::VLAN`] or [`ethertype::SERVICE_VLAN`].
    pub kind: u16,
    /// Priority (3 bits), drop eligibility (1 bit), VLAN id (12 bits).
    pub control: u16,
}

impl VlanTag {
    /// The VLAN id: 0 (only a priority) to 4,095.
    #[inline]
    #[must_use]
    pub const fn id(self) -> u16 {
        self.control & 0xfff
    }
}

/// An Ethernet frame whose header was checked: it is whole, and has two tags at most.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    bytes: &'a [u8],
    header_len: usize,
    ether_type: u16,
}

/// Why bytes are not an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EthernetError {
    /// The frame ends before its header does.
    #[error("the frame ends before its Ethernet header does")]
    Truncated,
    /// More VLAN tags than two.
    #[error("the frame has more than two VLAN tags")]
    TooManyTags,
    /// What follows has a length instead of an EtherType (IEEE 802.3 with LLC).
    #[error("the frame has a length where its EtherType should be")]
    NoEtherType,
    /// The source address is that of a group, or all zeros.
    #[error("the frame's source is nobody's own address")]
    Source,
}

impl<'a> Ethernet<'a> {
    /// Parses a frame, without preamble and check sequence.
    ///
    /// # Errors
    ///
    /// As [`EthernetError`] says.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Ethernet<'a>, EthernetError> {
        let mut at = ETHERNET_HEADER_LEN;
        loop {
            let field = bytes.get(at - 2..at).ok_or(EthernetError::Truncated)?;
            let ether_type = u16::from_be_bytes([field[0], field[1]]);
            match ether_type {
                ethertype::VLAN | ethertype::SERVICE_VLAN if at == MAX_ETHERNET_HEADER_LEN => {
                    return Err(EthernetError::TooManyTags);
                }
                ethertype::VLAN | ethertype::SERVICE_VLAN => at += VLAN_TAG_LEN,
                0..0x600 => return Err(EthernetError::NoEtherType),
                _ => {
                    let frame = Ethernet {
                        bytes,
                        header_len: at,
                        ether_type,
                    };
                    return if frame.src().is_unicast() {
                        Ok(frame)
                    } else {
                        Err(EthernetError::Source)
                    };
                }
            }
        }
    }

    /// Whom the frame is for.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = *self.bytes else {
            unreachable!("parsed")
        };
        Mac([a, b, c, d, e, f])
    }

    /// Who sent it: never a group.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Mac {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.bytes else {
            unreachable!("parsed")
        };
        Mac([a, b, c, d, e, f])
    }

    /// The EtherType of the payload, behind all tags.
    #[inline]
    #[must_use]
    pub fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// The VLAN tags, the outermost first: none, one or two.
    #[inline]
    pub fn tags(&self) -> impl Iterator<Item = VlanTag> + 'a {
        let tags = &self.bytes[ETHERNET_HEADER_LEN - 2..self.header_len - 2];
        tags.chunks_exact(VLAN_TAG_LEN).map(|tag| VlanTag {
            kind: u16::from_be_bytes([tag[0], tag[1]]),
            control: u16::from_be_bytes([tag[2], tag[3]]),
        })
    }

    /// Whether there is a VLAN tag.
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

    /// The header as it was received.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8] {
        &self.bytes[..self.header_len]
    }

    /// What the frame carries, padding included.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }
}

/// The header of an untagged frame.
#[must_use]
pub fn ethernet_header(dst: Mac, src: Mac, ether_type: u16) -> [u8; ETHERNET_HEADER_LEN] {
    let mut bytes = [0; ETHERNET_HEADER_LEN];
    bytes[..6].copy_from_slice(&dst.0);
    bytes[6..12].copy_from_slice(&src.0);
    bytes[12..].copy_from_slice(&ether_type.to_be_bytes());
    bytes
}

/// Puts a header with tags, the outermost first, before what `out` holds; `None` for more than two.
#[must_use]
pub fn tagged_header(
    dst: Mac,
    src: Mac,
    tags: &[VlanTag],
    ether_type: u16,
) -> Option<([u8; MAX_ETHERNET_HEADER_LEN], usize)> {
    if tags.len() > 2 {
        return None;
    }
    let mut bytes = [0; MAX_ETHERNET_HEADER_LEN];
    bytes[..6].copy_from_slice(&dst.0);
    bytes[6..12].copy_from_slice(&src.0);
    let mut at = 12;
    for tag in tags {
        bytes[at..at + 2].copy_from_slice(&tag.kind.to_be_bytes());
        bytes[at + 2..at + 4].copy_from_slice(&tag.control.to_be_bytes());
        at += VLAN_TAG_LEN;
    }
    bytes[at..at + 2].copy_from_slice(&ether_type.to_be_bytes());
    Some((bytes, at + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const B: Mac = Mac([0x02, 0, 0, 0, 0, 1]);

    #[test]
    fn an_address_is_written_as_ip_does_and_read_back() {
        assert_eq!(A.to_string(), "52:54:00:12:34:56");
        assert_eq!("52:54:0:12:34:56".parse(), Ok(A));
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
        assert!(Mac::BROADCAST.is_multicast() && !A.is_multicast());
        assert!(A.is_unicast() && !Mac::default().is_unicast());
        let solicited = "ff02::1:ff00:2".parse().unwrap();
        assert_eq!(
            Mac::of_multicast_v6(solicited).to_string(),
            "33:33:ff:00:00:02"
        );
        let all = "224.128.0.5".parse().unwrap();
        assert_eq!(Mac::of_multicast_v4(all).to_string(), "01:00:5e:00:00:05");
        assert_eq!(Mac::local([1, 2, 3, 4, 5]).to_string(), "02:01:02:03:04:05");
        assert_eq!(A.link_local().to_string(), "fe80::5054:ff:fe12:3456");
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = ethernet_header(A, B, ethertype::IPV4);
        let bytes = [&header[..], b"payload"].concat();
        let frame = Ethernet::parse(&bytes).unwrap();
        assert_eq!((frame.dst(), frame.src()), (A, B));
        assert_eq!(frame.ether_type(), ethertype::IPV4);
        assert_eq!(frame.payload(), b"payload");
        assert!(!frame.is_tagged());
        assert_eq!(frame.header_bytes(), header);
    }

    #[test]
    fn two_tags_are_read_and_a_third_is_refused() {
        let outer = VlanTag {
            kind: ethertype::SERVICE_VLAN,
            control: 0x6fff,
        };
        let inner = VlanTag {
            kind: ethertype::VLAN,
            control: 5,
        };
        let tags = [outer, inner];
        for n in 0..=2 {
            let (bytes, len) = tagged_header(A, B, &tags[..n], ethertype::ARP).unwrap();
            let frame = Ethernet::parse(&bytes[..len]).unwrap();
            assert_eq!(frame.tags().collect::<Vec<_>>(), tags[..n]);
            assert_eq!(frame.ether_type(), ethertype::ARP);
            assert_eq!(frame.header_len(), ETHERNET_HEADER_LEN + n * VLAN_TAG_LEN);
        }
        assert_eq!((outer.id(), inner.id()), (0xfff, 5));
        assert_eq!(tagged_header(A, B, &[outer, inner, inner], 0x0800), None);
        let (bytes, len) = tagged_header(A, B, &tags, ethertype::VLAN).unwrap();
        assert_eq!(
            Ethernet::parse(&bytes[..len]).unwrap_err(),
            EthernetError::TooManyTags
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let header = ethernet_header(A, B, ethertype::IPV4);
        for short in 0..ETHERNET_HEADER_LEN {
            let error = Ethernet::parse(&header[..short]).unwrap_err();
            assert_eq!(error, EthernetError::Truncated);
        }
        let group = ethernet_header(A, Mac::BROADCAST, ethertype::IPV4);
        assert_eq!(Ethernet::parse(&group).unwrap_err(), EthernetError::Source);
        let nobody = ethernet_header(A, Mac::default(), ethertype::IPV4);
        assert_eq!(Ethernet::parse(&nobody).unwrap_err(), EthernetError::Source);
        let length = ethernet_header(A, B, 0x05ff);
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
                prop_assert!(frame.tags().count() <= 2 && frame.src().is_unicast());
                let _ = (frame.dst(), frame.ether_type());
            }
        }

        #[test]
        fn addresses_survive_text(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }
    }
}
