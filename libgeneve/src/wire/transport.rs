//! TCP and UDP headers: views and flags.
//!
//! Owns the layout of the two headers. Whether they fit the IP packet around them is
//! [`packet`](super::packet)'s; their checksums are
//! [`transport_checksum`](super::transport_checksum)'s.

use std::fmt;
use std::ops::BitOr;

/// Bytes of a TCP header without options (RFC 9293 section 3.1).
pub const TCP_HEADER_LEN: usize = 20;
/// Bytes of a UDP header (RFC 768).
pub const UDP_HEADER_LEN: usize = 8;

/// The eight flag bits of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: TcpFlags = TcpFlags(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: TcpFlags = TcpFlags(0x02);
    /// Reset the connection.
    pub const RST: TcpFlags = TcpFlags(0x04);
    /// Push what is buffered.
    pub const PSH: TcpFlags = TcpFlags(0x08);
    /// The acknowledgment field counts.
    pub const ACK: TcpFlags = TcpFlags(0x10);
    /// The urgent pointer counts.
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

    /// These flags without those of `flags`.
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

/// The letters that `tcpdump` and firewalls use, such as `SA`; `-` if no flag is set.
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
    fixed: &'a [u8; TCP_HEADER_LEN],
    header: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// The header at the start of `segment`; `None` if the data offset is below 20 bytes or the
    /// buffer ends before the header does.
    #[inline]
    #[must_use]
    pub fn parse(segment: &'a [u8]) -> Option<Tcp<'a>> {
        let fixed = segment.first_chunk::<TCP_HEADER_LEN>()?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        if header_len < TCP_HEADER_LEN {
            return None;
        }
        Some(Tcp {
            fixed,
            header: segment.get(..header_len)?,
        })
    }

    /// Bytes of the header with its options: 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header.len()
    }

    /// The source port.
    #[inline]
    #[must_use]
    pub fn src(&self) -> u16 {
        self.word(0)
    }

    /// The destination port.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> u16 {
        self.word(2)
    }

    /// The sequence number.
    #[inline]
    #[must_use]
    pub fn seq(&self) -> u32 {
        u32::from(self.word(4)) << 16 | u32::from(self.word(6))
    }

    /// The acknowledgment number.
    #[inline]
    #[must_use]
    pub fn ack(&self) -> u32 {
        u32::from(self.word(8)) << 16 | u32::from(self.word(10))
    }

    /// The flag bits.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> TcpFlags {
        TcpFlags(self.fixed[13])
    }

    /// The window, unscaled.
    #[inline]
    #[must_use]
    pub fn window(&self) -> u16 {
        self.word(14)
    }

    /// The checksum field.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.word(16)
    }

    /// The options, unparsed: 0 to 40 bytes.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header.get(TCP_HEADER_LEN..).unwrap_or_default()
    }

    #[inline]
    fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.fixed[at], self.fixed[at + 1]])
    }
}

/// A UDP header.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a>(&'a [u8; UDP_HEADER_LEN]);

impl<'a> Udp<'a> {
    /// The header at the start of `datagram`; `None` if fewer than 8 bytes are there. The length
    /// field is not checked.
    #[inline]
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Udp<'a>> {
        datagram.first_chunk().map(Udp)
    }

    /// The source port.
    #[inline]
    #[must_use]
    pub fn src(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The destination port.
    #[inline]
    #[must_use]
    pub fn dst(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Bytes of header and payload, as the header says.
    #[inline]
    #[must_use]
    pub fn datagram_len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// The checksum field; 0 over IPv4 means none.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

/// The bytes of a UDP header. `datagram_len` counts header and payload; `checksum` is 0 if there is
/// none (yet).
#[must_use]
pub fn udp_header(src: u16, dst: u16, datagram_len: u16, checksum: u16) -> [u8; UDP_HEADER_LEN] {
    let mut bytes = [0; UDP_HEADER_LEN];
    bytes[0..2].copy_from_slice(&src.to_be_bytes());
    bytes[2..4].copy_from_slice(&dst.to_be_bytes());
    bytes[4..6].copy_from_slice(&datagram_len.to_be_bytes());
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
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
            (tcp.src(), tcp.dst(), tcp.seq(), tcp.ack()),
            (12345, 443, 1, 2)
        );
        assert_eq!(tcp.flags(), TcpFlags::SYN | TcpFlags::ACK);
        assert_eq!(
            (tcp.window(), tcp.checksum(), tcp.header_len()),
            (0xffff, 0xabcd, 24)
        );
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
        fn udp_reads_what_it_builds(src: u16, dst: u16, len: u16, check: u16) {
            let bytes = udp_header(src, dst, len, check);
            let udp = Udp::parse(&bytes).unwrap();
            prop_assert_eq!((udp.src(), udp.dst(), udp.datagram_len(), udp.checksum()), (src, dst, len, check));
            prop_assert!(Udp::parse(&bytes[..7]).is_none());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(tcp) = Tcp::parse(&bytes) {
                prop_assert_eq!(tcp.options().len() + 20, tcp.header_len());
            }
        }
    }
}
