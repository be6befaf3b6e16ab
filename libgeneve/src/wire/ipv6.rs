//! The IPv6 header and its extension headers: layout, view, writer (RFC 8200 sections 3 and 4).
//!
//! Owns the layout of each header. [`packet`](super::packet) walks the extension headers, and interprets the whole
//! packet.

use std::net::Ipv6Addr;
use std::ops::Deref;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::ip::{DEFAULT_TTL, protocol};
use super::prefix;

/// Bytes of the fixed IPv6 header.
pub const IPV6_HEADER_LEN: usize = size_of::<Ipv6Header>();

/// The fixed IPv6 header (RFC 8200 section 3).
///
/// ```
/// use libgeneve::wire::ip::{Ipv6, Ipv6Header, protocol};
///
/// let [src, dst] = ["fd00::1".parse()?, "fd00::2".parse()?];
/// let header = Ipv6Header {
///     version_class_flow: Ipv6Header::class_and_flow(0xb8, 0x12345),
///     ..Ipv6Header::new(src, dst, protocol::UDP, 8)
/// };
/// let bytes = header.to_bytes();
/// let read = Ipv6::parse(&bytes).expect("just written");
/// assert_eq!((read.traffic_class(), read.flow_label()), (0xb8, 0x12345));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), Traffic Class (8 bits), Flow Label (20 bits).
    pub version_class_flow: U32,
    /// Payload Length: bytes after this header, extension headers included.
    pub payload_len: U16,
    /// Next Header: the protocol of the payload, or of an extension header.
    pub next_header: u8,
    /// Hop Limit.
    pub hop_limit: u8,
    /// Source Address.
    pub source: [u8; 16],
    /// Destination Address.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Returns a header with traffic class and flow label zero.
    #[must_use]
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, next_header: u8, payload_len: u16) -> Ipv6Header {
        Ipv6Header {
            version_class_flow: Ipv6Header::class_and_flow(0, 0),
            payload_len: payload_len.into(),
            next_header,
            hop_limit: DEFAULT_TTL,
            source: src.octets(),
            destination: dst.octets(),
        }
    }

    /// Returns the first word of a header, with this traffic class and the low 20 bits of `flow_label`.
    #[must_use]
    pub const fn class_and_flow(traffic_class: u8, flow_label: u32) -> U32 {
        U32::new(6 << 28 | (traffic_class as u32) << 20 | flow_label & 0xf_ffff)
    }

    /// Returns the header in wire format.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; IPV6_HEADER_LEN] {
        transmute!(self)
    }

    /// The version: 6.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }

    /// The traffic class: DSCP (6 bits) and ECN (2 bits).
    #[inline]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// The flow label: 20 bits.
    #[inline]
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0xf_ffff
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn src(&self) -> Ipv6Addr {
        self.source.into()
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> Ipv6Addr {
        self.destination.into()
    }
}

/// The first 8 bytes of any extension header (RFC 8200 section 4, RFC 4302 section 2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ExtensionHeader {
    /// Next Header: the protocol of the next header.
    pub next_header: u8,
    /// Hdr Ext Len, in units that depend on the header: see [`len`](Self::len).
    pub header_ext_len: u8,
    /// Contents of the header, or their beginning.
    pub data: [u8; 6],
}

impl ExtensionHeader {
    /// Returns the length in bytes of a header with this protocol number. The authentication header counts words of
    /// four bytes (RFC 4302 section 2.2), the fragment header has no length field, all others count words of eight.
    #[inline]
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "an extension header is never empty"
    )]
    pub const fn len(&self, number: u8) -> usize {
        let more = match number {
            protocol::FRAGMENT => 0,
            protocol::AH => self.header_ext_len as usize * 4,
            _ => self.header_ext_len as usize * 8,
        };
        size_of::<ExtensionHeader>() + more
    }
}

/// The first 8 bytes of a routing header (RFC 8200 section 4.4).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RoutingHeader {
    /// Next Header: the protocol of the next header.
    pub next_header: u8,
    /// Hdr Ext Len: length in words of eight bytes, not counting the first.
    pub header_ext_len: u8,
    /// Routing Type.
    pub routing_type: u8,
    /// Segments Left: number of nodes still to be visited.
    pub segments_left: u8,
    /// Beginning of the type-specific data.
    pub data: [u8; 4],
}

/// The fragment header (RFC 8200 section 4.5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FragmentHeader {
    /// Next Header: the protocol of the fragmentable part.
    pub next_header: u8,
    /// Reserved: zero when sent, ignored when received.
    pub reserved: u8,
    /// Fragment Offset (13 bits, in units of 8 bytes), two reserved bits, and the M flag.
    pub offset_more: U16,
    /// Identification, shared by the fragments of a packet.
    pub identification: U32,
}

impl FragmentHeader {
    /// Offset of this fragment's payload in the packet, in units of 8 bytes: 0 to 8191.
    #[inline]
    #[must_use]
    pub const fn fragment_offset(&self) -> u16 {
        self.offset_more.get() >> 3
    }

    /// The M flag: more fragments follow.
    #[inline]
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.offset_more.get() & 1 != 0
    }
}

/// A fixed IPv6 header whose version was checked.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a>(&'a Ipv6Header);

impl Deref for Ipv6<'_> {
    type Target = Ipv6Header;
    #[inline]
    fn deref(&self) -> &Ipv6Header {
        self.0
    }
}

impl<'a> Ipv6<'a> {
    /// Parses the header at the start of `bytes`; `None` if the version is not 6 or there are fewer than 40 bytes.
    #[inline]
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Ipv6<'a>> {
        prefix::<Ipv6Header>(bytes)
            .filter(|fixed| fixed.version() == 6)
            .map(Ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fields_are_where_rfc_8200_has_them() {
        let mut bytes = [0; IPV6_HEADER_LEN];
        bytes[..8].copy_from_slice(&[0x6b, 0x81, 0x23, 0x45, 0x01, 0x02, 17, 63]);
        (bytes[8], bytes[23], bytes[24], bytes[39]) = (0xfd, 1, 0xfe, 2);
        let header = Ipv6::parse(&bytes).unwrap();
        assert_eq!((header.version(), header.traffic_class()), (6, 0xb8));
        assert_eq!(header.flow_label(), 0x12345);
        assert_eq!((header.payload_len.get(), header.next_header), (0x102, 17));
        assert_eq!(header.hop_limit, 63);
        assert_eq!(header.src(), "fd00::1".parse::<Ipv6Addr>().unwrap());
        assert_eq!(header.dst(), "fe00::2".parse::<Ipv6Addr>().unwrap());
    }

    #[test]
    fn extension_headers_are_laid_out_as_their_rfcs_say() {
        let bytes = [17, 2, 4, 3, 1, 2, 3, 4];
        let extension: &ExtensionHeader = prefix(&bytes).unwrap();
        let len = |number| extension.len(number);
        assert_eq!(len(protocol::HOP_BY_HOP), 24);
        assert_eq!((len(protocol::AH), len(protocol::FRAGMENT)), (16, 8));
        let routing: &RoutingHeader = prefix(&bytes).unwrap();
        assert_eq!((routing.routing_type, routing.segments_left), (4, 3));
        let fragment: &FragmentHeader = prefix(&bytes).unwrap();
        assert_eq!(fragment.fragment_offset(), 0x403 >> 3);
        assert!(fragment.more_fragments());
        assert_eq!(fragment.identification, 0x0102_0304);
    }

    #[test]
    fn headers_that_do_not_fit_are_refused() {
        assert!(Ipv6::parse(&[0x60; 39]).is_none());
        assert!(Ipv6::parse(&[0x45; 60]).is_none());
    }

    proptest! {
        #[test]
        fn what_is_built_is_what_is_read(
            class: u8, flow_label in 0u32..1 << 20, payload_len: u16, next_header: u8, hop_limit: u8,
            src: Ipv6Addr, dst: Ipv6Addr
        ) {
            let built = Ipv6Header {
                version_class_flow: Ipv6Header::class_and_flow(class, flow_label),
                hop_limit,
                ..Ipv6Header::new(src, dst, next_header, payload_len)
            };
            let bytes = built.to_bytes();
            let read = Ipv6::parse(&bytes).unwrap();
            prop_assert_eq!(built, *read);
            prop_assert_eq!((read.traffic_class(), read.flow_label()), (class, flow_label));
            prop_assert_eq!((read.src(), read.dst()), (src, dst));
        }

        #[test]
        fn extension_headers_survive_bytes(bytes: [u8; 8]) {
            let fragment: FragmentHeader = transmute!(bytes);
            prop_assert_eq!(fragment.as_bytes(), bytes);
            let routing: RoutingHeader = transmute!(bytes);
            prop_assert_eq!(routing.as_bytes(), bytes);
        }
    }
}
