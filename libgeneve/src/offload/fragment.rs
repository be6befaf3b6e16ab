//! IPv4 fragmentation of inner packets that are longer than the tunnel MTU.
//!
//! Owns RFC 791 section 3.2: the tunnel is the link to the next hop, and fragmenting is a router's duty. The caller
//! decides the limit, and sends the ICMP error if DF forbids fragmentation. Payload is not copied.

use super::OffloadError;
use super::segments::{MAX_SPLIT_SEGMENTS, SegmentHeaders, SegmentSink};
use super::split::{SplitResult, check_bounds, finish_checksum, pass_whole};
use super::vnet::{GsoType, VnetHdr};
use crate::wire::ip::{IPV4_HEADER_LEN, Ipv4Header, write_ipv4_checksum};
use crate::wire::packet::{IpVersion, Packet};
use crate::wire::{prefix, prefix_mut};

/// The copied flag of an option's type: the option is copied into every fragment.
const COPIED: u8 = 0x80;

/// Cuts `packet` into fragments of at most `limit` bytes of inner IP packet, and passes each to `out` behind `encap`:
/// the header is `encap` and the fragment's IP header, the payload a range of `bytes`, which `packet` was parsed
/// from.
///
/// A packet within `limit` is passed on whole. A partial checksum is finished first. The packet may itself be a
/// fragment: offsets and MF continue from its own. The first fragment keeps all IP options, the others only those
/// with the copied flag.
///
/// # Errors
///
/// Nothing was given to `out` then.
/// - [`OffloadError::TooBig`]: IPv6 or DF; a limit that leaves no 8 bytes behind the header, or asks for
///   more than [`MAX_SPLIT_SEGMENTS`] fragments.
/// - [`OffloadError::Unfit`]: a super-packet, or as in [`split`](super::split::split).
/// - [`OffloadError::Malformed`]: IP options with inconsistent lengths; a fragment that would end beyond the 65,535
///   bytes that a packet may have; `packet` does not describe `bytes`.
#[inline]
pub fn fragment(
    encap: &[u8],
    vnet: &VnetHdr,
    packet: &Packet,
    bytes: &mut [u8],
    limit: u16,
    out: &mut impl SegmentSink,
) -> Result<SplitResult, OffloadError> {
    check_bounds(packet, bytes)?;
    if vnet.gso_type != GsoType::None {
        return Err(OffloadError::Unfit);
    }
    if packet.total_len > limit && (packet.version == IpVersion::V6 || packet.dont_fragment) {
        return Err(OffloadError::TooBig);
    }
    finish_checksum(vnet, packet, bytes)?;
    if packet.total_len <= limit {
        return Ok(pass_whole(encap, packet, out));
    }
    cut(encap, packet, bytes, usize::from(limit), out)
}

fn cut(
    encap: &[u8],
    packet: &Packet,
    bytes: &[u8],
    limit: usize,
    out: &mut impl SegmentSink,
) -> Result<SplitResult, OffloadError> {
    let header_len = usize::from(packet.transport_offset);
    let total_len = usize::from(packet.total_len);
    let header = prefix::<Ipv4Header>(bytes).ok_or(OffloadError::Malformed)?;
    let flags = header.flags_fragment_offset.get();
    let before = usize::from(header.fragment_offset()) * 8;
    if before + total_len > usize::from(u16::MAX) {
        return Err(OffloadError::Malformed);
    }
    let least = limit.saturating_sub(header_len) & !7;
    if least == 0 || (total_len - header_len).div_ceil(least) > MAX_SPLIT_SEGMENTS {
        return Err(OffloadError::TooBig);
    }
    let (later, later_len) = later_header(&bytes[..header_len])?;
    let mut headers = SegmentHeaders::new(encap, &bytes[..header_len])?;
    let mut split = SplitResult {
        segments: 0,
        segment_len: 0,
        last_len: 0,
    };
    let mut at = header_len;
    while at < total_len {
        let room = limit - headers.inner().len();
        let last = total_len - at <= room;
        let len = if last { total_len - at } else { room & !7 };
        let more = if last {
            flags & Ipv4Header::MORE_FRAGMENTS
        } else {
            Ipv4Header::MORE_FRAGMENTS
        };
        let kept = flags & (Ipv4Header::RESERVED | Ipv4Header::DONT_FRAGMENT);
        let offset = (before + at - header_len) / 8;
        let header = headers.inner();
        let fragment_len = (header.len() + len) as u16;
        if let Some(fixed) = prefix_mut::<Ipv4Header>(header) {
            fixed.total_len = fragment_len.into();
            fixed.flags_fragment_offset = (kept | more | offset as u16).into();
        }
        write_ipv4_checksum(header);
        split.last_len = (encap.len() + header.len() + len) as u32;
        split.segment_len = split.segment_len.max(split.last_len);
        split.segments += 1;
        out.segment(headers.all(), at..at + len);
        if at == header_len {
            headers = SegmentHeaders::new(encap, &later[..later_len])?;
        }
        at += len;
    }
    Ok(split)
}

/// Returns the header of all fragments but the first, and its length: the fixed part, and the options with the copied
/// flag.
fn later_header(header: &[u8]) -> Result<([u8; 60], usize), OffloadError> {
    let mut later = [0; 60];
    later[..IPV4_HEADER_LEN].copy_from_slice(&header[..IPV4_HEADER_LEN]);
    let mut len = IPV4_HEADER_LEN;
    let mut options = &header[IPV4_HEADER_LEN..];
    while let [kind, rest @ ..] = options {
        match kind {
            0 => break,
            1 => options = rest,
            _ => {
                let option_len = usize::from(*rest.first().ok_or(OffloadError::Malformed)?);
                if option_len < 2 || option_len > options.len() {
                    return Err(OffloadError::Malformed);
                }
                let (option, after) = options.split_at(option_len);
                if kind & COPIED != 0 {
                    later[len..len + option_len].copy_from_slice(option);
                    len += option_len;
                }
                options = after;
            }
        }
    }
    // The padding is zero, which is End of Option List.
    let len = len.next_multiple_of(4);
    later[0] = 0x40 | (len / 4) as u8;
    Ok((later, len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::samples::{SamplePacket, SegmentCollector};
    use crate::offload::vnet::NEEDS_CSUM;
    use crate::wire::ip::{Ipv4, ipv4_checksum_holds};
    use crate::wire::packet::tests::sample;
    use crate::wire::transport_checksum::ChecksumState;
    use proptest::prelude::*;

    const FRAGMENT_ENCAP: [u8; 12] = *b"\x01\0\x08\0\0\0\x64\0\xff\x47\x01\0";

    fn cut(bytes: &mut [u8], vnet: &VnetHdr, limit: u16) -> Result<Vec<Vec<u8>>, OffloadError> {
        let packet = Packet::parse(bytes).unwrap();
        let mut out = SegmentCollector::default();
        let result = fragment(&FRAGMENT_ENCAP, vnet, &packet, bytes, limit, &mut out);
        let all = out.packets(bytes);
        let split = result.inspect_err(|_| assert!(all.is_empty()))?;
        assert_eq!(all.len(), usize::from(split.segments));
        assert_eq!(
            all.iter().map(Vec::len).max(),
            Some(split.segment_len as usize)
        );
        assert_eq!(all.last().map(Vec::len), Some(split.last_len as usize));
        let inner = |fragment: &Vec<u8>| fragment.strip_prefix(&FRAGMENT_ENCAP).unwrap().to_vec();
        Ok(all.iter().map(inner).collect())
    }

    fn sample_of(len: usize) -> SamplePacket {
        let payload = (0..len).map(|i| i as u8).collect();
        SamplePacket {
            tcp: false,
            df: false,
            payload,
            ..SamplePacket::default()
        }
    }

    /// Payload of the fragments, starting at the offset of the first, if there is no gap.
    fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
        let first = Ipv4::parse(&fragments[0]).unwrap().fragment_offset();
        let mut payload = Vec::new();
        for bytes in fragments {
            let header = Ipv4::parse(bytes).unwrap();
            assert!(header.checksum_holds());
            assert_eq!(usize::from(header.total_len.get()), bytes.len());
            let offset = usize::from(header.fragment_offset() - first) * 8;
            assert_eq!(offset, payload.len());
            payload.extend_from_slice(&bytes[header.header_len()..]);
        }
        payload
    }

    #[test]
    fn fragments_say_where_they_belong() {
        let mut bytes = sample_of(3000).bytes();
        let original = bytes.clone();
        let fragments = cut(&mut bytes, &VnetHdr::NONE, 1001).unwrap();
        let shape: Vec<_> = fragments
            .iter()
            .map(|bytes| {
                let header = Ipv4::parse(bytes).unwrap();
                assert_eq!(header.identification.get(), 7);
                (
                    bytes.len(),
                    header.fragment_offset(),
                    header.more_fragments(),
                )
            })
            .collect();
        assert_eq!(
            shape,
            [
                (996, 0, true),
                (996, 122, true),
                (996, 244, true),
                (100, 366, false)
            ]
        );
        assert_eq!(reassembled(&fragments), original[20..]);
    }

    #[test]
    fn a_fragment_is_fragmented_further() {
        let mut bytes = sample_of(992).bytes();
        bytes[6..8].copy_from_slice(&(0x2000u16 | 100).to_be_bytes());
        write_ipv4_checksum(&mut bytes);
        let original = bytes.clone();
        let fragments = cut(&mut bytes, &VnetHdr::NONE, 600).unwrap();
        let headers: Vec<_> = fragments
            .iter()
            .map(|bytes| Ipv4::parse(bytes).unwrap())
            .collect();
        assert_eq!(headers[0].fragment_offset(), 100);
        assert!(headers.iter().all(|header| header.more_fragments()));
        assert_eq!(reassembled(&fragments), original[20..]);
    }

    #[test]
    fn only_options_with_the_copied_flag_are_in_later_fragments() {
        let mut bytes = sample_of(200).bytes();
        // NOP, record route (not copied), router alert (copied), end.
        let options = [1, 7, 7, 4, 0, 0, 0, 0, 0x94, 4, 0, 0, 0, 0, 0, 0];
        bytes[0] = 0x49;
        bytes[2..4].copy_from_slice(&(228u16 + 16).to_be_bytes());
        bytes.splice(20..20, options);
        write_ipv4_checksum(&mut bytes);
        let fragments = cut(&mut bytes, &VnetHdr::NONE, 100).unwrap();
        assert_eq!(Ipv4::parse(&fragments[0]).unwrap().options(), options);
        for later in &fragments[1..] {
            assert_eq!(Ipv4::parse(later).unwrap().options(), [0x94, 4, 0, 0]);
        }
        bytes[21..23].copy_from_slice(&[7, 40]);
        assert_eq!(
            cut(&mut bytes, &VnetHdr::NONE, 100),
            Err(OffloadError::Malformed)
        );
        bytes[21..23].copy_from_slice(&[7, 1]);
        assert_eq!(
            cut(&mut bytes, &VnetHdr::NONE, 100),
            Err(OffloadError::Malformed)
        );
    }

    #[test]
    fn a_partial_checksum_is_finished_before_the_cut() {
        let sample = sample_of(500);
        let mut bytes = sample.bytes();
        let packet = Packet::parse(&bytes).unwrap();
        packet.write_partial_checksum(&mut bytes);
        let vnet = VnetHdr {
            flags: NEEDS_CSUM,
            csum_start: 20,
            csum_offset: 6,
            ..VnetHdr::NONE
        };
        let fragments = cut(&mut bytes, &vnet, 200).unwrap();
        assert_eq!(reassembled(&fragments), sample.bytes()[20..]);
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
    }

    #[test]
    fn what_may_not_be_fragmented_is_too_big() {
        let too_big = Err(OffloadError::TooBig);
        let with_df = SamplePacket {
            df: true,
            ..sample_of(500)
        };
        assert_eq!(cut(&mut with_df.bytes(), &VnetHdr::NONE, 200), too_big);
        let v6 = SamplePacket {
            v6: true,
            ..sample_of(500)
        };
        assert_eq!(cut(&mut v6.bytes(), &VnetHdr::NONE, 200), too_big);
        assert_eq!(
            cut(&mut sample_of(500).bytes(), &VnetHdr::NONE, 27),
            too_big
        );
        assert_eq!(cut(&mut sample_of(500).bytes(), &VnetHdr::NONE, 0), too_big);
        assert_eq!(
            cut(&mut sample_of(60_000).bytes(), &VnetHdr::NONE, 28),
            too_big
        );
        assert_eq!(
            cut(&mut sample_of(500).bytes(), &VnetHdr::NONE, 28)
                .unwrap()
                .len(),
            64
        );
        assert_eq!(
            cut(&mut with_df.bytes(), &VnetHdr::NONE, 528).unwrap(),
            [with_df.bytes()]
        );
        let mut far = sample_of(500).bytes();
        far[6..8].copy_from_slice(&8191u16.to_be_bytes());
        write_ipv4_checksum(&mut far);
        assert_eq!(
            cut(&mut far, &VnetHdr::NONE, 200),
            Err(OffloadError::Malformed)
        );
        let (vnet, _, mut bytes) = sample_of(500).super_packet(100);
        assert_eq!(cut(&mut bytes, &vnet, 200), Err(OffloadError::Unfit));
    }

    proptest! {
        #[test]
        fn fragments_make_the_packet_again(len in 1usize..5000, limit in 68u16..1500) {
            let mut bytes = sample_of(len).bytes();
            let original = bytes.clone();
            let fragments = cut(&mut bytes, &VnetHdr::NONE, limit).unwrap();
            prop_assert!(fragments.iter().all(|bytes| bytes.len() <= usize::from(limit)));
            prop_assert!(fragments.iter().all(|bytes| ipv4_checksum_holds(bytes)));
            let last = Ipv4::parse(fragments.last().unwrap()).unwrap();
            prop_assert!(!last.more_fragments());
            prop_assert_eq!(reassembled(&fragments), &original[20..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            mut bytes in sample::mutated(), limit in 0u16..200, df: bool, flags in 0u8..2, lie: u16
        ) {
            if !df && bytes.len() > 6 && bytes[0] >> 4 == 4 {
                bytes[6] &= !0x40;
            }
            let Ok(packet) = Packet::parse(&bytes) else { return Ok(()); };
            let csum_start = packet.transport_offset;
            let vnet = VnetHdr { flags, csum_start, csum_offset: lie % 20, ..VnetHdr::NONE };
            let mut out = SegmentCollector::default();
            if fragment(&[], &vnet, &packet, &mut bytes, limit, &mut out).is_ok() {
                prop_assert!(out.packets(&bytes).iter().all(|f| f.len() <= usize::from(limit)));
            }
            let packet = Packet { transport_offset: lie, dont_fragment: false, ..packet };
            let _ = fragment(&[], &vnet, &packet, &mut bytes, limit, &mut out);
        }
    }
}
