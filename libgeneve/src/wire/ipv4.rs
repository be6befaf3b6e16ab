//! The IPv4 header: layout, view, writer, and its checksum (RFC 791 section 3.1).
//!
//! Owns the fixed header and the size of its options. [`packet`](super::packet) interprets the whole packet.

use std::net::Ipv4Addr;
use std::ops::Deref;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::checksum::{Sum, update16};
use super::ip::DEFAULT_TTL;
use super::{prefix, prefix_mut};

/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_LEN: usize = size_of::<Ipv4Header>();

/// The IPv4 header without its options (RFC 791 section 3.1).
///
/// ```
/// use libgeneve::wire::ip::{Ipv4, Ipv4Header, protocol};
///
/// let header = Ipv4Header {
///     ttl: 1,
///     ..Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), protocol::UDP, 8)
/// };
/// let bytes = header.to_bytes();
/// let read = Ipv4::parse(&bytes).expect("just written");
/// assert_eq!((read.ttl, read.total_len.get()), (1, 28));
/// assert!(read.dont_fragment() && read.checksum_holds());
/// ```
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4 bits) and IHL (4 bits): length of the header with its options in words of four bytes.
    pub version_ihl: u8,
    /// Type of Service: DSCP (6 bits, RFC 2474) and ECN (2 bits, RFC 3168).
    pub tos: u8,
    /// Total Length: bytes of header and payload.
    pub total_len: U16,
    /// Identification, shared by the fragments of a packet.
    pub identification: U16,
    /// A reserved bit, DF, MF, and the Fragment Offset (13 bits, in units of 8 bytes).
    pub flags_fragment_offset: U16,
    /// Time to Live.
    pub ttl: u8,
    /// The protocol of the payload.
    pub protocol: u8,
    /// Header Checksum, options included.
    pub checksum: U16,
    /// Source Address.
    pub source: [u8; 4],
    /// Destination Address.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// The reserved bit of [`flags_fragment_offset`](Self::flags_fragment_offset).
    pub const RESERVED: u16 = 0x8000;
    /// The DF bit of [`flags_fragment_offset`](Self::flags_fragment_offset).
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// The MF bit of [`flags_fragment_offset`](Self::flags_fragment_offset).
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// The Fragment Offset in [`flags_fragment_offset`](Self::flags_fragment_offset).
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;

    /// Returns a header without options, with DF set. Its identification is zero, which is only allowed with DF (RFC
    /// 6864); its checksum is zero until [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload_len: u16) -> Ipv4Header {
        Ipv4Header {
            version_ihl: 4 << 4 | (IPV4_HEADER_LEN / 4) as u8,
            tos: 0,
            total_len: payload_len.saturating_add(IPV4_HEADER_LEN as u16).into(),
            identification: U16::ZERO,
            flags_fragment_offset: Ipv4Header::DONT_FRAGMENT.into(),
            ttl: DEFAULT_TTL,
            protocol,
            checksum: U16::ZERO,
            source: src.octets(),
            destination: dst.octets(),
        }
    }

    /// Returns the header in wire format, with the checksum of a header without options.
    #[must_use]
    pub fn to_bytes(mut self) -> [u8; IPV4_HEADER_LEN] {
        self.checksum = U16::ZERO;
        self.checksum = Sum::ZERO.bytes(self.as_bytes()).checksum().into();
        transmute!(self)
    }

    /// The version: 4.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header with its options: 0 to 60 in the header, 20 to 60 in a view.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    /// The DF bit.
    #[inline]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.flags_fragment_offset.get() & Ipv4Header::DONT_FRAGMENT != 0
    }

    /// The MF bit.
    #[inline]
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.flags_fragment_offset.get() & Ipv4Header::MORE_FRAGMENTS != 0
    }

    /// Offset of this fragment's payload in the packet, in units of 8 bytes: 0 to 8191.
    #[inline]
    #[must_use]
    pub const fn fragment_offset(&self) -> u16 {
        self.flags_fragment_offset.get() & Ipv4Header::FRAGMENT_OFFSET
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Ipv4Addr {
        self.source.into()
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Ipv4Addr {
        self.destination.into()
    }

    /// Updates the checksum after a word of the header changed from `old` to `new` (RFC 1624).
    #[inline]
    pub fn update_checksum(&mut self, old: [u8; 2], new: [u8; 2]) {
        let (old, new) = (u16::from_be_bytes(old), u16::from_be_bytes(new));
        self.checksum = update16(self.checksum.get(), old, new).into();
    }
}

/// An IPv4 header whose version and length were checked against the buffer.
///
/// The total length field and the checksum are not checked here: see
/// [`Packet::parse`](super::packet::Packet::parse) and [`Ipv4::checksum_holds`].
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    fixed: &'a Ipv4Header,
    header: &'a [u8],
}

impl Deref for Ipv4<'_> {
    type Target = Ipv4Header;
    #[inline]
    fn deref(&self) -> &Ipv4Header {
        self.fixed
    }
}

impl<'a> Ipv4<'a> {
    /// Parses the header at the start of `bytes`; `None` if the version is not 4, the header length is below 20
    /// bytes, or the buffer ends within the header.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Ipv4<'a>> {
        let fixed: &Ipv4Header = prefix(bytes)?;
        if fixed.version() != 4 || fixed.header_len() < IPV4_HEADER_LEN {
            return None;
        }
        Some(Ipv4 {
            fixed,
            header: bytes.get(..fixed.header_len())?,
        })
    }

    /// Whether the header checksum is correct.
    #[inline]
    #[must_use]
    pub fn checksum_holds(&self) -> bool {
        Sum::ZERO.bytes(self.header).checksum() == 0
    }

    /// The options, unparsed: 0 to 40 bytes.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header.get(IPV4_HEADER_LEN..).unwrap_or_default()
    }
}

/// Whether the checksum of the IPv4 header at the start of `bytes` is correct; `false` also if there is no such
/// header.
#[inline]
#[must_use]
pub fn ipv4_checksum_holds(bytes: &[u8]) -> bool {
    Ipv4::parse(bytes).is_some_and(|header| header.checksum_holds())
}

/// Computes and stores the checksum of the IPv4 header at the start of `bytes`; does nothing if there is no such
/// header.
#[inline]
pub fn write_ipv4_checksum(bytes: &mut [u8]) {
    let Some(header_len) = Ipv4::parse(bytes).map(|header| header.header_len()) else {
        return;
    };
    store_checksum(bytes, 0);
    let check = Sum::ZERO.bytes(&bytes[..header_len]).checksum();
    store_checksum(bytes, check);
}

#[inline]
fn store_checksum(bytes: &mut [u8], check: u16) {
    if let Some(header) = prefix_mut::<Ipv4Header>(bytes) {
        header.checksum = check.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_known_ipv4_header_has_its_known_checksum() {
        // The well-known textbook example: checksum 0xb861.
        let mut bytes = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0x00,
            0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(!ipv4_checksum_holds(&bytes));
        write_ipv4_checksum(&mut bytes);
        assert_eq!(Ipv4::parse(&bytes).unwrap().checksum, 0xb861);
        assert!(ipv4_checksum_holds(&bytes));
    }

    #[test]
    fn the_fields_are_where_rfc_791_has_them() {
        let bytes = [
            0x45, 0xb8, 0x01, 0x02, 0x03, 0x04, 0xa5, 0x06, 0x3f, 0x11, 0x0a, 0x0b, 192, 0, 2, 1,
            198, 51, 100, 7,
        ];
        let header = Ipv4::parse(&bytes).unwrap();
        assert_eq!((header.version(), header.header_len()), (4, 20));
        assert_eq!((header.tos, header.total_len.get()), (0xb8, 0x102));
        assert_eq!(header.identification, 0x304);
        assert!(!header.dont_fragment() && header.more_fragments());
        assert_eq!(header.fragment_offset(), 0x506);
        assert_eq!((header.ttl, header.protocol), (63, 17));
        assert_eq!(header.checksum, 0xa0b);
        assert_eq!(header.src(), Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(header.dst(), Ipv4Addr::new(198, 51, 100, 7));
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
    }

    proptest! {
        #[test]
        fn what_is_built_is_what_is_read(
            tos: u8, total_len: u16, identification: u16, flags_fragment_offset: u16, ttl: u8, protocol: u8,
            src: Ipv4Addr, dst: Ipv4Addr
        ) {
            let built = Ipv4Header {
                tos,
                total_len: total_len.into(),
                identification: identification.into(),
                flags_fragment_offset: flags_fragment_offset.into(),
                ttl,
                ..Ipv4Header::new(src, dst, protocol, 0)
            };
            let bytes = built.to_bytes();
            let read = Ipv4::parse(&bytes).unwrap();
            prop_assert!(read.checksum_holds());
            prop_assert_eq!(Ipv4Header { checksum: read.checksum, ..built }, *read);
            prop_assert_eq!((read.src(), read.dst()), (src, dst));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(header) = Ipv4::parse(&bytes) {
                prop_assert_eq!(header.options().len() + 20, header.header_len());
            }
            write_ipv4_checksum(&mut bytes);
            prop_assert_eq!(ipv4_checksum_holds(&bytes), Ipv4::parse(&bytes).is_some());
        }
    }
}
