//! The TCP header and its flags: layout and view (RFC 9293 section 3.1).
//!
//! [`packet`](super::packet) checks that it fits the IP packet around it; its checksum is in
//! [`transport_checksum`](super::transport_checksum).

use std::fmt;
use std::mem::offset_of;
use std::ops::{BitOr, Deref};

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::prefix;

/// Bytes of a TCP header without options.
pub const TCP_HEADER_LEN: usize = size_of::<TcpHeader>();

/// The TCP header without its options (RFC 9293 section 3.1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct TcpHeader {
    /// Source Port.
    pub source_port: U16,
    /// Destination Port.
    pub destination_port: U16,
    /// Sequence Number.
    pub sequence_number: U32,
    /// Acknowledgment Number.
    pub acknowledgment_number: U32,
    /// Data Offset (4 bits): length of the header with its options in words of four bytes; 4 reserved bits.
    pub data_offset: u8,
    /// Control bits.
    pub flags: TcpFlags,
    /// Window, unscaled.
    pub window: U16,
    /// Checksum, over the pseudo-header, this header and the payload.
    pub checksum: U16,
    /// Urgent Pointer.
    pub urgent_pointer: U16,
}

impl TcpHeader {
    /// Offset of the checksum: `csum_offset` of `virtio_net_hdr`.
    pub const CHECKSUM_OFFSET: u16 = offset_of!(TcpHeader, checksum) as u16;

    /// Returns a header without options, with window, checksum and urgent pointer zero.
    #[must_use]
    pub fn new(ports: (u16, u16), seq: u32, ack: u32, flags: TcpFlags) -> TcpHeader {
        TcpHeader {
            source_port: ports.0.into(),
            destination_port: ports.1.into(),
            sequence_number: seq.into(),
            acknowledgment_number: ack.into(),
            data_offset: ((TCP_HEADER_LEN / 4) << 4) as u8,
            flags,
            window: U16::ZERO,
            checksum: U16::ZERO,
            urgent_pointer: U16::ZERO,
        }
    }

    /// Bytes of the header with its options: 0 to 60 in the header, 20 to 60 in a view.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }
}

/// The eight flag bits of a TCP header.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(transparent)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push buffered data.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment number is valid.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer is valid.
    pub const URG: TcpFlags = TcpFlags(0x20);
    /// ECN echo (RFC 3168).
    pub const ECE: TcpFlags = TcpFlags(0x40);
    /// Congestion window reduced (RFC 3168).
    pub const CWR: TcpFlags = TcpFlags(0x80);

    /// Whether every bit of `flags` is set.
    #[inline]
    #[must_use]
    pub const fn contains(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Whether any bit of `flags` is set.
    #[inline]
    #[must_use]
    pub const fn intersects(self, flags: TcpFlags) -> bool {
        self.0 & flags.0 != 0
    }

    /// Returns these flags without those in `flags`.
    #[inline]
    #[must_use]
    pub const fn without(self, flags: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 & !flags.0)
    }
}

impl BitOr for TcpFlags {
    type Output = TcpFlags;
    fn bitor(self, other: TcpFlags) -> TcpFlags {
        TcpFlags(self.0 | other.0)
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The letters used by `tcpdump` and firewalls, such as `SA`; `-` if no flag is set.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("-");
        }
        for (bit, letter) in "FSRPAUEW".chars().enumerate() {
            if self.0 & 1 << bit != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// A TCP header whose length was checked against the buffer.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    fixed: &'a TcpHeader,
    header: &'a [u8],
}

impl Deref for Tcp<'_> {
    type Target = TcpHeader;
    #[inline]
    fn deref(&self) -> &TcpHeader {
        self.fixed
    }
}

impl<'a> Tcp<'a> {
    /// Parses the header at the start of `segment`; `None` if the data offset is below 20 bytes or the buffer ends
    /// within the header.
    #[inline]
    #[must_use]
    pub fn parse(segment: &'a [u8]) -> Option<Tcp<'a>> {
        let fixed: &TcpHeader = prefix(segment)?;
        if fixed.header_len() < TCP_HEADER_LEN {
            return None;
        }
        Some(Tcp {
            fixed,
            header: segment.get(..fixed.header_len())?,
        })
    }

    /// The options, unparsed: 0 to 40 bytes.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header.get(TCP_HEADER_LEN..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tcp_header_with_options_is_read() {
        let bytes = [
            0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x60, 0x12, 0xff, 0xff, 0xab, 0xcd, 0,
            0, 2, 4, 5, 0xb4, 0xee,
        ];
        let tcp = Tcp::parse(&bytes).unwrap();
        assert_eq!(
            (tcp.source_port.get(), tcp.destination_port.get()),
            (12345, 443)
        );
        assert_eq!(
            (tcp.sequence_number.get(), tcp.acknowledgment_number.get()),
            (1, 2)
        );
        assert_eq!(tcp.flags, TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(
            (tcp.window.get(), tcp.checksum.get(), tcp.header_len()),
            (0xffff, 0xabcd, 24)
        );
        assert_eq!(TcpHeader::CHECKSUM_OFFSET, 16);
        assert_eq!(tcp.options(), [2, 4, 5, 0xb4]);
    }

    #[test]
    fn tcp_headers_that_do_not_fit_are_refused() {
        let mut bytes = [0u8; 60];
        bytes[12] = 0x40;
        assert!(Tcp::parse(&bytes).is_none());
        bytes[12] = 0xf0;
        assert!(Tcp::parse(&bytes[..59]).is_none());
        assert_eq!(Tcp::parse(&bytes).unwrap().header_len(), 60);
        assert!(Tcp::parse(&bytes[..19]).is_none());
    }

    #[test]
    fn flags_print_as_letters() {
        assert_eq!((TcpFlags::SYN | TcpFlags::ACK).to_string(), "SA");
        assert_eq!(TcpFlags::default().to_string(), "-");
        assert_eq!(TcpFlags(0xff).to_string(), "FSRPAUEW");
        assert_eq!(
            TcpFlags(0xff).without(TcpFlags::CWR | TcpFlags::FIN),
            TcpFlags(0x7e)
        );
        assert!(TcpFlags(0x12).contains(TcpFlags::SYN));
        assert!(!TcpFlags(0x02).contains(TcpFlags::SYN | TcpFlags::ACK));
        assert!(TcpFlags(0x02).intersects(TcpFlags::SYN | TcpFlags::ACK));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(src: u16, dst: u16, seq: u32, ack: u32, flags: u8, window: u16, check: u16) {
            let header = TcpHeader {
                window: window.into(),
                checksum: check.into(),
                ..TcpHeader::new((src, dst), seq, ack, TcpFlags(flags))
            };
            let tcp = Tcp::parse(header.as_bytes()).unwrap();
            prop_assert_eq!(*tcp, header);
            prop_assert!(tcp.options().is_empty());
            prop_assert_eq!((tcp.source_port.get(), tcp.flags.0), (src, flags));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(tcp) = Tcp::parse(&bytes) {
                prop_assert_eq!(tcp.options().len() + 20, tcp.header_len());
            }
        }
    }
}
