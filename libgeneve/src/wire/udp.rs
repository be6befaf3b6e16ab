//! The UDP header: layout and writer (RFC 768).
//!
//! [`packet`](super::packet) checks that its length fits the IP packet around it; its checksum is in
//! [`transport_checksum`](super::transport_checksum).

use std::mem::offset_of;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

/// Bytes of a UDP header.
pub const UDP_HEADER_LEN: usize = size_of::<UdpHeader>();

/// The UDP header (RFC 768, "Format").
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct UdpHeader {
    /// Source Port.
    pub source_port: U16,
    /// Destination Port.
    pub destination_port: U16,
    /// Length: bytes of header and payload.
    pub length: U16,
    /// Checksum, over the pseudo-header, this header and the payload; 0 over IPv4 means none.
    pub checksum: U16,
}

impl UdpHeader {
    /// Offset of the checksum: `csum_offset` of `virtio_net_hdr`.
    pub const CHECKSUM_OFFSET: u16 = offset_of!(UdpHeader, checksum) as u16;
}

/// Returns a UDP header in wire format. `datagram_len` counts header and payload; `checksum` is 0 if there is none
/// (yet).
#[must_use]
pub fn udp_header(src: u16, dst: u16, datagram_len: u16, checksum: u16) -> [u8; UDP_HEADER_LEN] {
    transmute!(UdpHeader {
        source_port: src.into(),
        destination_port: dst.into(),
        length: datagram_len.into(),
        checksum: checksum.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::prefix;
    use proptest::prelude::*;

    #[test]
    fn the_fields_are_where_rfc_768_has_them() {
        let bytes = [0x13, 0x88, 0, 53, 0, 12, 0xab, 0xcd];
        assert_eq!(udp_header(5000, 53, 12, 0xabcd), bytes);
        assert_eq!(UdpHeader::CHECKSUM_OFFSET, 6);
        assert_eq!(prefix::<UdpHeader>(&bytes[..7]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(src: u16, dst: u16, len: u16, check: u16) {
            let bytes = udp_header(src, dst, len, check);
            let udp: &UdpHeader = prefix(&bytes).unwrap();
            prop_assert_eq!((udp.source_port.get(), udp.destination_port.get()), (src, dst));
            prop_assert_eq!((udp.length.get(), udp.checksum.get()), (len, check));
        }
    }
}
