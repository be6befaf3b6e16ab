//! Unfinished packets from a kernel tunnel on the same machine.
//!
//! A kernel VXLAN or Geneve device whose underlay is a veth gives a plain UDP socket what it would have given to a
//! network card: inner packets with a partial checksum, and TCP super-packets of up to 64 KB as one datagram. Owns
//! how such a packet is recognised, and the `virtio_net_hdr` with which the kernel behind TUN finishes it. The caller
//! must pass it on alone: it cannot be merged.
//!
//! - A TCP or UDP checksum field that equals the folded, non-inverted sum of the pseudo-header is partial. By chance,
//!   one finished packet in 65,536 looks like that; finishing it again gives the same value.
//! - TCP that is longer than the link's MTU was to be segmented. The segment size was lost; segments that fill the
//!   MTU are fine, since TCP is a stream, unless the path behind TUN has a smaller MTU: [`cut_to`].
//! - A UDP datagram that is longer than the MTU was to be segmented, too (a long datagram would have been fragmented
//!   before the tunnel, with a finished checksum). Its boundaries were lost, and inventing others would change what
//!   the application receives: [`OffloadError::TooBig`].
//! - A SYN or RST cannot be segmented: [`OffloadError::TooBig`].
//! - A UDP datagram with bytes after its own length cannot be finished by the kernel, which would sum them, too:
//!   [`OffloadError::Checksum`].
//!
//! Fragments and source-routed packets never have partial checksums.

use super::OffloadError;
use super::split::check_bounds;
use super::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use crate::wire::checksum::{self, is_partial, pseudo_header};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport};
use crate::wire::transport::{TcpFlags, TcpHeader, UdpHeader};

/// Returns the `virtio_net_hdr` for a packet with a partial checksum; `None` for any other packet.
///
/// `inner` is what `packet` was parsed from; `mtu` is the link's, in bytes of inner IP packet.
///
/// # Errors
///
/// [`OffloadError::TooBig`] or [`OffloadError::Checksum`] if it cannot be finished.
#[inline]
pub fn partial(inner: &[u8], packet: &Packet, mtu: usize) -> Result<Option<VnetHdr>, OffloadError> {
    let csum_offset: u16 = match packet.transport {
        Transport::Tcp { .. } => TcpHeader::CHECKSUM_OFFSET,
        Transport::Udp { .. } => UdpHeader::CHECKSUM_OFFSET,
        _ => return Ok(None),
    };
    if packet.fragment != Fragment::Whole
        || packet.source_routed
        || check_bounds(packet, inner).is_err()
    {
        return Ok(None);
    }
    let covered_len = match packet.transport {
        Transport::Udp { len, .. } => len,
        _ => packet.transport_len(),
    };
    let field = usize::from(packet.transport_offset + csum_offset);
    let field = checksum::field(inner, field);
    let (src, dst) = (packet.src, packet.dst);
    let pseudo = pseudo_header(src, dst, packet.protocol, u32::from(covered_len));
    if !is_partial(field, pseudo) {
        return Ok(None);
    }
    if covered_len != packet.transport_len() {
        return Err(OffloadError::Checksum);
    }
    let finish = VnetHdr {
        flags: NEEDS_CSUM,
        hdr_len: packet.payload_offset,
        csum_start: packet.transport_offset,
        csum_offset,
        ..VnetHdr::NONE
    };
    if usize::from(packet.total_len) <= mtu {
        return Ok(Some(finish));
    }
    let Transport::Tcp { flags, .. } = packet.transport else {
        return Err(OffloadError::TooBig);
    };
    let segmented = segmented(&finish, packet, flags, mtu);
    segmented.map(Some).ok_or(OffloadError::TooBig)
}

/// Limits the segments of a TCP packet that [`partial`] recognised to `mtu` bytes of inner IP packet. The kernel
/// behind TUN drops the whole packet if it cannot forward segments of the given size.
#[inline]
pub fn cut_to(vnet: &mut VnetHdr, packet: &Packet, mtu: u16) {
    let longest = match vnet.gso_type {
        GsoType::None => packet.total_len,
        _ => packet.payload_offset.saturating_add(vnet.gso_size),
    };
    if let Transport::Tcp { flags, .. } = packet.transport
        && longest > mtu
        && let Some(shorter) = segmented(vnet, packet, flags, mtu.into())
    {
        *vnet = shorter;
    }
}

/// Returns the `virtio_net_hdr` for segments that fill `mtu`; `None` if TCP must not be segmented, or `mtu` leaves no
/// room for payload.
fn segmented(finish: &VnetHdr, packet: &Packet, flags: TcpFlags, mtu: usize) -> Option<VnetHdr> {
    let gso_size = mtu.saturating_sub(usize::from(packet.payload_offset)) as u16;
    if gso_size == 0 || flags.intersects(TcpFlags::SYN | TcpFlags::RST) {
        return None;
    }
    Some(VnetHdr {
        gso_type: match packet.version {
            IpVersion::V4 => GsoType::TcpV4,
            IpVersion::V6 => GsoType::TcpV6,
        },
        gso_size,
        ecn: flags.contains(TcpFlags::CWR),
        ..*finish
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::samples::{SamplePacket, SegmentCollector, any_sample};
    use crate::offload::split::split;
    use crate::wire::packet::tests::sample;
    use crate::wire::transport_checksum::ChecksumState;
    use proptest::prelude::*;

    #[test]
    fn a_finished_packet_is_left_alone() {
        for tcp in [true, false] {
            let bytes = SamplePacket {
                tcp,
                ..SamplePacket::default()
            }
            .bytes();
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!(partial(&bytes, &packet, 50), Ok(None));
        }
    }

    #[test]
    fn a_short_partial_packet_is_finished_by_the_kernel() {
        for (tcp, csum_offset) in [(true, 16), (false, 6)] {
            let sample = SamplePacket {
                tcp,
                v6: true,
                ..SamplePacket::default()
            };
            let (super_vnet, packet, bytes) = sample.super_packet(1);
            let vnet = partial(&bytes, &packet, bytes.len()).unwrap().unwrap();
            assert_eq!((vnet.gso_type, vnet.gso_size), (GsoType::None, 0));
            assert_eq!(vnet.flags, NEEDS_CSUM);
            assert_eq!((vnet.csum_start, vnet.csum_offset), (40, csum_offset));
            assert_eq!(vnet.hdr_len, super_vnet.hdr_len);
        }
    }

    #[test]
    fn a_partial_super_packet_is_cut_to_the_mtu_when_it_is_tcp() {
        let flags = TcpFlags::ACK | TcpFlags::CWR;
        let sample = SamplePacket {
            flags,
            payload: vec![7; 30_000],
            ..SamplePacket::default()
        };
        let (expected, packet, mut bytes) = sample.super_packet(1400 - 52);
        let vnet = partial(&bytes, &packet, 1400).unwrap().unwrap();
        assert_eq!(vnet, expected);
        let mut out = SegmentCollector::default();
        split(&[], &vnet, &packet, &mut bytes, &mut out).unwrap();
        for segment in out.packets(&bytes) {
            let packet = Packet::parse(&segment).unwrap();
            assert!(packet.total_len <= 1400);
            assert_eq!(packet.checksum_state(&segment), ChecksumState::Valid);
        }
    }

    #[test]
    fn tcp_is_cut_to_what_the_way_behind_takes() {
        let sample = SamplePacket {
            payload: vec![7; 3000],
            ..SamplePacket::default()
        };
        let (expected, packet, bytes) = sample.super_packet(1300 - 52);
        for mtu in [1400, 4000] {
            let mut vnet = partial(&bytes, &packet, mtu).unwrap().unwrap();
            cut_to(&mut vnet, &packet, 1300);
            assert_eq!(vnet, expected);
            cut_to(&mut vnet, &packet, 1350);
            assert_eq!(vnet, expected);
        }
        let udp = SamplePacket {
            tcp: false,
            payload: vec![7; 1300],
            ..SamplePacket::default()
        };
        let (_, packet, bytes) = udp.super_packet(1400);
        let mut vnet = partial(&bytes, &packet, 1400).unwrap().unwrap();
        let before = vnet;
        cut_to(&mut vnet, &packet, 1300);
        assert_eq!(vnet, before);
    }

    #[test]
    fn what_cannot_be_made_whole_has_a_reason() {
        let long = vec![1; 3000];
        let udp = SamplePacket {
            tcp: false,
            payload: long.clone(),
            ..SamplePacket::default()
        };
        let (_, packet, bytes) = udp.super_packet(1000);
        assert_eq!(partial(&bytes, &packet, 1400), Err(OffloadError::TooBig));
        for flags in [TcpFlags::SYN, TcpFlags::RST | TcpFlags::ACK] {
            let tcp = SamplePacket {
                flags,
                payload: long.clone(),
                ..SamplePacket::default()
            };
            let (_, packet, bytes) = tcp.super_packet(1000);
            assert_eq!(partial(&bytes, &packet, 1400), Err(OffloadError::TooBig));
        }
        let tcp = SamplePacket {
            payload: long,
            ..SamplePacket::default()
        };
        let (_, packet, bytes) = tcp.super_packet(1000);
        assert_eq!(partial(&bytes, &packet, 52), Err(OffloadError::TooBig));
        // Two bytes after the datagram's own length.
        let padded = SamplePacket {
            tcp: false,
            ..SamplePacket::default()
        };
        let mut bytes = padded.bytes();
        bytes[24..26].copy_from_slice(&106u16.to_be_bytes());
        let packet = Packet::parse(&bytes).unwrap();
        packet.write_partial_checksum(&mut bytes);
        assert_eq!(partial(&bytes, &packet, 1400), Err(OffloadError::Checksum));
    }

    proptest! {
        #[test]
        fn a_partial_packet_is_seen_whatever_it_carries(sample in any_sample(2000), mtu in 68usize..3000) {
            let (_, packet, mut bytes) = sample.super_packet(1);
            match partial(&bytes, &packet, mtu) {
                Ok(Some(vnet)) => {
                    let mut out = SegmentCollector::default();
                    split(&[], &vnet, &packet, &mut bytes, &mut out).unwrap();
                    let longest = out.packets(&bytes).iter().map(Vec::len).max();
                    prop_assert!(longest.unwrap() <= mtu);
                }
                other => {
                    prop_assert_eq!(other, Err(OffloadError::TooBig));
                    prop_assert!(bytes.len() > mtu);
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in sample::mutated(), mtu in 0usize..200, cut in 0usize..90) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let _ = partial(&bytes, &packet, mtu);
                let _ = partial(&bytes[..cut.min(bytes.len())], &packet, mtu);
            }
        }
    }
}
