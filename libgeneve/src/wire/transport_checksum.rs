//! Transport checksums of inner TCP, UDP, ICMP and ICMPv6 messages: verifying, finishing, making partial.
//!
//! Owns which bytes each protocol's checksum covers and where its field is. The arithmetic is in
//! [`super::checksum`].

use super::checksum::{self, Sum, is_partial, pseudo_header};
use super::icmp::IcmpHeader;
use super::ip::IpVersion;
use super::packet::{Fragment, Packet, Transport};
use super::tcp::TcpHeader;
use super::udp::UdpHeader;

/// State of a packet's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumState {
    /// Correct.
    Valid,
    /// The field holds only the sum of the pseudo-header, to be finished by an offload. By chance, one valid packet
    /// in 65,536 looks like that; finishing it again does no harm.
    Partial,
    /// Wrong.
    Wrong,
    /// UDP over IPv4 without a checksum (RFC 768).
    Absent,
    /// Cannot be verified here: a fragment, another protocol, or a source route whose last address is not the
    /// packet's destination.
    Unknown,
}

/// Coverage and position of a packet's transport checksum.
#[derive(Clone, Copy, Debug)]
struct ChecksumCoverage {
    start: usize,
    end: usize,
    /// Offset of the field from `start`.
    field: usize,
    /// The pseudo-header's sum; `None` for ICMP over IPv4, which has none.
    pseudo_header: Option<Sum>,
}

impl Packet {
    /// Verifies the transport checksum. `bytes` is what the packet was parsed from.
    #[inline]
    #[must_use]
    pub fn checksum_state(&self, bytes: &[u8]) -> ChecksumState {
        let Some(cover) = self.cover() else {
            return ChecksumState::Unknown;
        };
        let Some(covered) = bytes.get(cover.start..cover.end) else {
            return ChecksumState::Unknown;
        };
        let is_udp = matches!(self.transport, Transport::Udp { .. });
        let field = checksum::field(covered, cover.field);
        if is_udp && field == 0 {
            // Over IPv6 a UDP checksum is mandatory inside the overlay (RFC 8200 section 8.1).
            return match self.version {
                IpVersion::V4 => ChecksumState::Absent,
                IpVersion::V6 => ChecksumState::Wrong,
            };
        }
        let pseudo_header = cover.pseudo_header.unwrap_or(Sum::ZERO);
        if cover.pseudo_header.is_some() && is_partial(field, pseudo_header) {
            return ChecksumState::Partial;
        }
        match pseudo_header.bytes(covered).checksum() {
            0 => ChecksumState::Valid,
            _ => ChecksumState::Wrong,
        }
    }

    /// Computes and stores the transport checksum; UDP's zero becomes 0xffff (RFC 768). Returns `false` and changes
    /// nothing if there is none to compute: a fragment, another protocol, a source route, or `bytes` of another
    /// packet.
    #[inline]
    pub fn write_checksum(&self, bytes: &mut [u8]) -> bool {
        let Some(cover) = self.cover() else {
            return false;
        };
        let Some(covered) = bytes.get_mut(cover.start..cover.end) else {
            return false;
        };
        checksum::set_field(covered, cover.field, 0);
        let sum = cover.pseudo_header.unwrap_or(Sum::ZERO).bytes(covered);
        let check = match (self.transport, sum.checksum()) {
            (Transport::Udp { .. }, 0) => 0xffff,
            (_, check) => check,
        };
        checksum::set_field(covered, cover.field, check);
        true
    }

    /// Stores the partial checksum that goes with `VIRTIO_NET_HDR_F_NEEDS_CSUM`. Returns `false` and changes nothing
    /// if there is none: as [`Packet::write_checksum`], and for ICMP over IPv4.
    #[inline]
    pub fn write_partial_checksum(&self, bytes: &mut [u8]) -> bool {
        let Some(cover) = self.cover() else {
            return false;
        };
        let Some(pseudo_header) = cover.pseudo_header else {
            return false;
        };
        let Some(covered) = bytes.get_mut(cover.start..cover.end) else {
            return false;
        };
        checksum::set_field(covered, cover.field, pseudo_header.fold());
        true
    }

    /// Returns the offset of the transport checksum field from the transport header (`csum_offset` of
    /// `virtio_net_hdr`): 16 for TCP, 6 for UDP, 2 for ICMP.
    #[inline]
    #[must_use]
    pub fn checksum_offset(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp { .. } => Some(TcpHeader::CHECKSUM_OFFSET),
            Transport::Udp { .. } => Some(UdpHeader::CHECKSUM_OFFSET),
            Transport::Icmp { .. } => Some(IcmpHeader::CHECKSUM_OFFSET),
            Transport::Other | Transport::Unavailable => None,
        }
    }

    #[inline]
    fn cover(&self) -> Option<ChecksumCoverage> {
        if self.fragment != Fragment::Whole || self.source_routed {
            return None;
        }
        let start = usize::from(self.transport_offset);
        let field = usize::from(self.checksum_offset()?);
        let end = match self.transport {
            // RFC 768: the checksum covers the UDP length, not bytes between it and the end of the IP payload.
            Transport::Udp { len, .. } => start + usize::from(len),
            _ => usize::from(self.total_len),
        };
        // The fields of `Packet` are public and may be inconsistent.
        if end < start + field + 2 {
            return None;
        }
        let has_pseudo_header = !matches!(
            (self.transport, self.version),
            (Transport::Icmp { .. }, IpVersion::V4)
        );
        let pseudo_header = has_pseudo_header
            .then(|| pseudo_header(self.src, self.dst, self.protocol, (end - start) as u32));
        Some(ChecksumCoverage {
            start,
            end,
            field,
            pseudo_header,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::sample;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_written_checksum_is_valid_and_a_partial_one_is_seen() {
        for (name, mut bytes) in sample::all_transports() {
            let packet = Packet::parse(&bytes).unwrap();
            assert!(packet.write_checksum(&mut bytes), "{name}");
            assert_eq!(
                packet.checksum_state(&bytes),
                ChecksumState::Valid,
                "{name}"
            );
            let last = usize::from(packet.total_len) - 1;
            bytes[last] ^= 0x10;
            assert_eq!(
                packet.checksum_state(&bytes),
                ChecksumState::Wrong,
                "{name}"
            );
            let partial = packet.write_partial_checksum(&mut bytes);
            assert_eq!(partial, name != "icmp4", "{name}");
            if partial {
                assert_eq!(
                    packet.checksum_state(&bytes),
                    ChecksumState::Partial,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn a_udp_checksum_of_zero_is_absent_over_ipv4_and_wrong_over_ipv6() {
        let bytes = sample::udp4(b"abc");
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Absent);
        let bytes = sample::udp6(b"abc");
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Wrong);
    }

    #[test]
    fn a_udp_checksum_that_comes_out_zero_is_sent_as_ones() {
        let mut bytes = sample::udp4(&[0, 0]);
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.write_checksum(&mut bytes));
        let check = [bytes[26], bytes[27]];
        // A payload equal to the checksum so far makes the sum 0xffff, and its inverse zero.
        bytes[28..30].copy_from_slice(&check);
        assert!(packet.write_checksum(&mut bytes));
        assert_eq!(bytes[26..28], [0xff, 0xff]);
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
    }

    #[test]
    fn bytes_after_the_udp_length_are_not_covered() {
        let mut bytes = sample::udp4(b"abcdef");
        bytes[25] -= 2;
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.write_checksum(&mut bytes));
        *bytes.last_mut().unwrap() ^= 0xff;
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
    }

    #[test]
    fn fragments_and_other_protocols_are_not_verified() {
        let mut bytes = sample::udp4(b"abcdefgh");
        bytes[6] = 0x20;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Unknown);
        let before = bytes.clone();
        assert!(!packet.write_checksum(&mut bytes));
        assert_eq!(bytes, before);
        bytes[6] = 0;
        bytes[9] = 47;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Unknown);
    }

    proptest! {
        #[test]
        fn any_packet_and_any_bytes_never_panic(
            bytes in sample::mutated(), mut others in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let mut bytes = bytes;
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = packet.checksum_state(&others);
                let _ = packet.write_checksum(&mut others);
                let _ = packet.write_partial_checksum(&mut others);
                if packet.write_checksum(&mut bytes) {
                    let state = packet.checksum_state(&bytes);
                    prop_assert!(matches!(state, ChecksumState::Valid | ChecksumState::Partial), "{:?}", state);
                }
            }
        }
    }
}
