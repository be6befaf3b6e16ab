//! Whether a packet fits an MTU, and how to cut it if it does not.
//!
//! Owns the choice between segmentation and fragmentation, and the number of packets and bytes that a super-packet
//! becomes. [`split`] and [`fragment`](super::fragment) do the cutting; the caller decides the limit.

use super::OffloadError;
use super::fragment::fragment;
use super::segments::SegmentSink;
use super::split::{SplitResult, split};
use super::vnet::{GsoType, VnetHdr};
use crate::wire::packet::{IpVersion, Packet};

/// How to cut a packet so that each piece fits.
///
/// ```
/// # fn show(vnet: &libgeneve::offload::vnet::VnetHdr, packet: &libgeneve::wire::packet::Packet) {
/// use libgeneve::offload::cut::Cut;
///
/// match Cut::to_fit(vnet, packet, 1450) {
///     Some(Cut::Whole) => println!("it fits"),
///     Some(Cut::Segments(size)) => println!("segments with {size} bytes of payload each"),
///     Some(Cut::Fragments(longest)) => println!("fragments of at most {longest} bytes"),
///     None => println!("it is too big, and must not be cut"),
/// }
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    /// It fits as it is.
    #[default]
    Whole,
    /// Segment a super-packet, with this many bytes of payload each; the last may have less.
    Segments(u16),
    /// Fragment into IPv4 fragments of at most this many bytes of inner IP packet.
    Fragments(u16),
}

impl Cut {
    /// Returns how to cut `packet`, described by `vnet`, into packets of at most `limit` bytes; `None` if it is too
    /// big and must not be cut.
    ///
    /// A super-packet is segmented as its sender asked if that fits. Only TCP over IPv4 without DF, whose sender does
    /// not do path MTU discovery, may get shorter segments; a packet without DF that is not a super-packet is
    /// fragmented (RFC 791).
    #[inline]
    #[must_use]
    pub fn to_fit(vnet: &VnetHdr, packet: &Packet, limit: u16) -> Option<Cut> {
        let shortened = vnet.gso_type == GsoType::TcpV4 && !packet.dont_fragment;
        Cut::choose(vnet, packet, limit, shortened)
    }

    /// Like [`to_fit`](Cut::to_fit), for a super-packet whose segment size was lost: segments may be as short as
    /// necessary.
    #[inline]
    #[must_use]
    pub fn to_fit_any_size(vnet: &VnetHdr, packet: &Packet, limit: u16) -> Option<Cut> {
        Cut::choose(vnet, packet, limit, true)
    }

    #[inline]
    fn choose(vnet: &VnetHdr, packet: &Packet, limit: u16, shortened: bool) -> Option<Cut> {
        let fits = longest_segment(vnet, packet) <= usize::from(limit);
        if vnet.gso_type != GsoType::None {
            if fits {
                return Some(Cut::Segments(vnet.gso_size));
            }
            let size = limit.saturating_sub(packet.payload_offset);
            return (shortened && size > 0).then_some(Cut::Segments(size));
        }
        if fits {
            return Some(Cut::Whole);
        }
        let fragmented = packet.version == IpVersion::V4 && !packet.dont_fragment;
        fragmented.then_some(Cut::Fragments(limit))
    }

    /// Returns `vnet` with the segment size of this cut.
    #[inline]
    #[must_use]
    pub fn resized(self, vnet: &VnetHdr) -> VnetHdr {
        match self {
            Cut::Segments(gso_size) => VnetHdr { gso_size, ..*vnet },
            Cut::Whole | Cut::Fragments(_) => *vnet,
        }
    }

    /// Whether this cut changes the segment size of `vnet`.
    #[inline]
    #[must_use]
    pub fn resizes(self, vnet: &VnetHdr) -> bool {
        matches!(self, Cut::Segments(size) if size != vnet.gso_size)
    }

    /// Cuts `packet`, and passes each piece to `out` behind `encap`. `bytes` is what `packet` was parsed from; this
    /// cut must have been chosen for `vnet` and `packet`.
    ///
    /// # Errors
    ///
    /// Those of [`split`] and [`fragment`]; nothing was passed to `out` then.
    #[inline]
    pub fn carry_out(
        self,
        encap: &[u8],
        vnet: &VnetHdr,
        packet: &Packet,
        bytes: &mut [u8],
        out: &mut impl SegmentSink,
    ) -> Result<SplitResult, OffloadError> {
        match self {
            Cut::Fragments(limit) => fragment(encap, vnet, packet, bytes, limit, out),
            Cut::Whole | Cut::Segments(_) => split(encap, &self.resized(vnet), packet, bytes, out),
        }
    }
}

/// Size of a packet on the wire, after it is cut as `vnet` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireSize {
    /// Number of packets; at least 1.
    pub packets: u64,
    /// Sum of their inner bytes.
    pub bytes: u64,
}

impl WireSize {
    /// Returns the size of a packet that is not cut.
    #[must_use]
    pub fn of_one(bytes: usize) -> WireSize {
        WireSize {
            packets: 1,
            bytes: bytes as u64,
        }
    }

    /// Returns the size of `packet` when it is cut as `vnet` asks.
    #[inline]
    #[must_use]
    pub fn of(vnet: &VnetHdr, packet: &Packet) -> WireSize {
        if vnet.gso_type == GsoType::None {
            return WireSize::of_one(packet.total_len.into());
        }
        let payload = packet.total_len.saturating_sub(packet.payload_offset);
        let packets = u64::from(payload.div_ceil(vnet.gso_size.max(1))).max(1);
        let repeated = (packets - 1) * u64::from(packet.payload_offset);
        WireSize {
            packets,
            bytes: u64::from(packet.total_len) + repeated,
        }
    }
}

/// Returns the length of the longest inner packet that a super-packet is cut into, in bytes.
#[inline]
#[must_use]
pub fn longest_segment(vnet: &VnetHdr, packet: &Packet) -> usize {
    match vnet.gso_type {
        GsoType::None => usize::from(packet.total_len),
        _ => usize::from(packet.payload_offset)
            .saturating_add(usize::from(vnet.gso_size))
            .min(usize::from(packet.total_len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::samples::{SamplePacket, SegmentCollector, any_sample};
    use crate::offload::segments::MAX_SPLIT_SEGMENTS;
    use crate::wire::transport_checksum::ChecksumState;
    use proptest::prelude::*;

    fn tcp(v6: bool, df: bool, gso_size: u16) -> (VnetHdr, Packet) {
        let sample = SamplePacket {
            v6,
            df,
            payload: vec![7; 3000],
            ..SamplePacket::default()
        };
        let (vnet, packet, _) = sample.super_packet(gso_size);
        (vnet, packet)
    }

    #[test]
    fn a_super_packet_is_cut_as_its_sender_asked_where_that_fits() {
        for (v6, headers) in [(false, 52), (true, 72)] {
            let (vnet, packet) = tcp(v6, true, 1000);
            let cut = |limit| Cut::to_fit(&vnet, &packet, limit);
            assert_eq!(cut(headers + 1000), Some(Cut::Segments(1000)));
            assert_eq!(cut(u16::MAX), Some(Cut::Segments(1000)));
            assert_eq!(cut(headers + 999), None);
        }
    }

    #[test]
    fn only_tcp_over_ipv4_without_df_gets_shorter_segments_than_it_asked_for() {
        let (vnet, packet) = tcp(false, false, 1000);
        assert_eq!(Cut::to_fit(&vnet, &packet, 552), Some(Cut::Segments(500)));
        // No room for more than the headers.
        assert_eq!(Cut::to_fit(&vnet, &packet, 53), Some(Cut::Segments(1)));
        assert_eq!(Cut::to_fit(&vnet, &packet, 52), None);
        let (udp, packet, _) = SamplePacket {
            tcp: false,
            df: false,
            payload: vec![7; 3000],
            ..SamplePacket::default()
        }
        .super_packet(1000);
        assert_eq!(Cut::to_fit(&udp, &packet, 552), None);
    }

    #[test]
    fn a_super_packet_without_its_size_is_cut_as_short_as_it_has_to_be() {
        for v6 in [false, true] {
            let (vnet, packet) = tcp(v6, true, 1000);
            let headers = packet.payload_offset;
            let cut = |limit| Cut::to_fit_any_size(&vnet, &packet, limit);
            assert_eq!(cut(headers + 1000), Some(Cut::Segments(1000)));
            assert_eq!(cut(headers + 400), Some(Cut::Segments(400)));
            assert_eq!(cut(headers), None);
        }
    }

    #[test]
    fn one_packet_is_fragmented_where_ipv4_allows_it() {
        let packet = |v6, df| {
            let sample = SamplePacket {
                v6,
                df,
                ..SamplePacket::default()
            };
            Packet::parse(&sample.bytes()).unwrap()
        };
        let cut = |packet: &Packet, limit| Cut::to_fit(&VnetHdr::NONE, packet, limit);
        let len = packet(false, false).total_len;
        assert_eq!(cut(&packet(false, false), len), Some(Cut::Whole));
        assert_eq!(
            cut(&packet(false, false), len - 1),
            Some(Cut::Fragments(len - 1))
        );
        assert_eq!(cut(&packet(false, true), len), Some(Cut::Whole));
        assert_eq!(cut(&packet(false, true), len - 1), None);
        assert_eq!(cut(&packet(true, false), len + 19), None);
    }

    #[test]
    fn the_longest_segment_is_what_has_to_fit() {
        let (vnet, packet) = tcp(false, true, 10);
        let longest = |gso_size| longest_segment(&VnetHdr { gso_size, ..vnet }, &packet);
        assert_eq!(longest_segment(&VnetHdr::NONE, &packet), 3052);
        assert_eq!(longest(10), 62);
        assert_eq!(longest(3001), 3052);
        assert_eq!(longest(u16::MAX), 3052);
    }

    #[test]
    fn headers_that_lie_count_as_at_least_one_packet() {
        let (vnet, packet) = tcp(false, true, 0);
        assert_eq!(WireSize::of(&vnet, &packet).packets, 3000);
        let short = Packet {
            total_len: 0,
            ..packet
        };
        assert_eq!(WireSize::of(&vnet, &short).packets, 1);
    }

    /// Payload as received: put together from the pieces, each of which is checked.
    fn received(pieces: &[Vec<u8>], encap: &[u8], limit: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        for piece in pieces {
            let inner = piece.strip_prefix(encap).expect("behind its header");
            assert!(inner.len() <= limit, "{} of {limit}", inner.len());
            let packet = Packet::parse(inner).unwrap();
            assert_eq!(usize::from(packet.total_len), inner.len());
            assert_ne!(packet.checksum_state(inner), ChecksumState::Wrong);
            payload.extend_from_slice(&inner[usize::from(packet.payload_offset)..]);
        }
        payload
    }

    /// Payload after reassembly of IPv4 fragments.
    fn reassembled(pieces: &[Vec<u8>], encap: &[u8], limit: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        for piece in pieces {
            let inner = piece.strip_prefix(encap).expect("behind its header");
            assert!(inner.len() <= limit, "{} of {limit}", inner.len());
            let offset = usize::from(u16::from_be_bytes([inner[6], inner[7]]) & 0x1fff) * 8;
            assert_eq!(offset, payload.len());
            payload.extend_from_slice(&inner[20..]);
        }
        payload
    }

    proptest! {
        #[test]
        fn what_is_sent_fits_and_carries_every_byte(
            sample in any_sample(4000),
            gso_size in prop_oneof![Just(None), (0u16..2000).prop_map(Some)],
            limit in 60u16..2000,
            options in 0usize..=63,
            any_size: bool,
        ) {
            let encap = vec![0x5e; 8 + 4 * options];
            let (vnet, packet, mut bytes) = match gso_size {
                Some(gso_size) => sample.super_packet(gso_size),
                None => {
                    let (vnet, packet, bytes) = sample.super_packet(0);
                    let vnet = VnetHdr { gso_type: GsoType::None, ecn: false, ..vnet };
                    (vnet, packet, bytes)
                }
            };
            let cut = match any_size {
                true => Cut::to_fit_any_size(&vnet, &packet, limit),
                false => Cut::to_fit(&vnet, &packet, limit),
            };
            let Some(cut) = cut else {
                // A packet that fits is never refused.
                prop_assert!(longest_segment(&vnet, &packet) > usize::from(limit));
                return Ok(());
            };
            let mut out = SegmentCollector::default();
            let done = cut.carry_out(&encap, &vnet, &packet, &mut bytes, &mut out);
            let pieces = out.packets(&bytes);
            let Ok(done) = done else {
                prop_assert!(pieces.is_empty());
                // No segment size is possible, or it would take too many pieces.
                let size = cut.resized(&vnet);
                let many = WireSize::of(&size, &packet).packets > MAX_SPLIT_SEGMENTS as u64;
                prop_assert!(vnet.gso_type != GsoType::None && (size.gso_size == 0 || many), "{cut:?}");
                return Ok(());
            };
            prop_assert_eq!(usize::from(done.segments), pieces.len());
            let limit = usize::from(limit);
            if let Cut::Fragments(_) = cut {
                let transport = &bytes[usize::from(packet.transport_offset)..];
                prop_assert_eq!(reassembled(&pieces, &encap, limit), transport);
                return Ok(());
            }
            prop_assert_eq!(received(&pieces, &encap, limit), sample.payload);
            let size = WireSize::of(&cut.resized(&vnet), &packet);
            let sent: usize = pieces.iter().map(|piece| piece.len() - encap.len()).sum();
            prop_assert_eq!((size.packets, size.bytes), (pieces.len() as u64, sent as u64));
        }

        #[test]
        fn the_cut_keeps_what_the_sender_asked_for_or_makes_it_shorter(
            sample in any_sample(4000), gso_size in 1u16..2000, limit: u16,
        ) {
            let (vnet, packet, _) = sample.super_packet(gso_size);
            if let Some(cut) = Cut::to_fit_any_size(&vnet, &packet, limit) {
                let Cut::Segments(size) = cut else {
                    panic!("a super-packet is cut into segments");
                };
                prop_assert!(size <= gso_size);
                prop_assert!(size == gso_size || packet.payload_offset + size == limit);
            }
        }
    }
}
