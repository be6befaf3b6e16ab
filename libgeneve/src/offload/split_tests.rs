use proptest::prelude::*;

use super::*;
use crate::offload::samples::{SamplePacket, SegmentCollector, any_sample};
use crate::offload::vnet::NEEDS_CSUM;
use crate::wire::ip::{Ipv4, ipv4_checksum_holds};
use crate::wire::packet::tests::sample;
use crate::wire::transport_checksum::ChecksumState;

const SPLIT_ENCAP: [u8; 16] = *b"\x02\0\x08\0\0\0\x64\0\xff\x47\x01\x01abcd";

/// Splits, checks the encapsulation, and returns the inner packets.
fn inner_packets(
    vnet: &VnetHdr,
    packet: &Packet,
    bytes: &mut [u8],
) -> Result<Vec<Vec<u8>>, OffloadError> {
    let mut out = SegmentCollector::default();
    let split = split(&SPLIT_ENCAP, vnet, packet, bytes, &mut out)?;
    let whole = out.packets(bytes);
    assert_eq!(whole.len(), usize::from(split.segments));
    assert_eq!(
        whole.iter().map(Vec::len).max(),
        Some(split.segment_len as usize)
    );
    assert_eq!(whole.last().map(Vec::len), Some(split.last_len as usize));
    Ok(whole
        .iter()
        .map(|segment| {
            segment
                .strip_prefix(&SPLIT_ENCAP)
                .expect("encapsulated")
                .to_vec()
        })
        .collect())
}

fn tcp_of(packet: &Packet) -> (TcpFlags, u32) {
    let Transport::Tcp { flags, seq, .. } = packet.transport else {
        panic!("not TCP: {packet:?}");
    };
    (flags, seq)
}

fn refused(vnet: &VnetHdr, packet: &Packet, bytes: &[u8]) -> Option<OffloadError> {
    let mut out = SegmentCollector::default();
    let result = split(&SPLIT_ENCAP, vnet, packet, &mut bytes.to_vec(), &mut out);
    assert!(result.is_ok() || out.pieces.is_empty());
    result.err()
}

#[test]
fn rfc8926_35_every_segment_begins_with_the_header_and_all_options() {
    let sample = SamplePacket {
        payload: vec![1; 1000],
        ..SamplePacket::default()
    };
    let (vnet, packet, mut bytes) = sample.super_packet(300);
    let mut out = SegmentCollector::default();
    split(&SPLIT_ENCAP, &vnet, &packet, &mut bytes, &mut out).unwrap();
    assert_eq!(out.pieces.len(), 4);
    for (header, _) in &out.pieces {
        assert_eq!(header[..SPLIT_ENCAP.len()], SPLIT_ENCAP);
    }
}

#[test]
fn rfc8926_36_options_keep_their_order_in_every_segment() {
    // Two options in an order that is sorted neither by class nor by type.
    let encap = *b"\x04\0\x86\xdd\0\0\x07\0\xff\x47\x03\x01wxyz\x01\x08\x01\x01abcd";
    let sample = SamplePacket {
        v6: true,
        payload: vec![1; 64],
        ..SamplePacket::default()
    };
    let (vnet, packet, mut bytes) = sample.super_packet(10);
    let mut out = SegmentCollector::default();
    split(&encap, &vnet, &packet, &mut bytes, &mut out).unwrap();
    assert_eq!(out.pieces.len(), 7);
    assert!(
        out.pieces
            .iter()
            .all(|(header, _)| header.starts_with(&encap))
    );
}

#[test]
fn cwr_stays_with_the_first_segment_and_psh_and_fin_with_the_last() {
    let all = TcpFlags::ACK | TcpFlags::CWR | TcpFlags::PSH | TcpFlags::FIN | TcpFlags::ECE;
    let sample = SamplePacket {
        flags: all,
        seq: u32::MAX - 150,
        id: 0xffff,
        payload: vec![3; 250],
        ..SamplePacket::default()
    };
    let (vnet, packet, mut bytes) = sample.super_packet(100);
    let packets = inner_packets(&vnet, &packet, &mut bytes).unwrap();
    let middle = TcpFlags::ACK | TcpFlags::ECE;
    let expected = [
        (middle | TcpFlags::CWR, u32::MAX - 150, 0xffff),
        (middle, u32::MAX - 50, 0),
        (middle | TcpFlags::PSH | TcpFlags::FIN, 49, 1),
    ];
    let found: Vec<_> = packets
        .iter()
        .map(|bytes| {
            let (flags, seq) = tcp_of(&Packet::parse(bytes).unwrap());
            (flags, seq, Ipv4::parse(bytes).unwrap().identification.get())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_packet_without_segmentation_is_passed_on_as_it_is() {
    for (_, original) in sample::all_transports() {
        let packet = Packet::parse(&original).unwrap();
        let mut bytes = original.clone();
        let mut out = SegmentCollector::default();
        let split = split(&SPLIT_ENCAP, &VnetHdr::NONE, &packet, &mut bytes, &mut out).unwrap();
        assert_eq!(split.segments, 1);
        assert_eq!(out.pieces, [(SPLIT_ENCAP.to_vec(), 0..original.len())]);
        assert_eq!(bytes, original);
    }
}

#[test]
fn a_partial_checksum_is_finished_in_place() {
    for (name, mut bytes) in sample::all_transports() {
        let packet = Packet::parse(&bytes).unwrap();
        packet.write_partial_checksum(&mut bytes);
        let vnet = VnetHdr {
            flags: NEEDS_CSUM,
            csum_start: packet.transport_offset,
            csum_offset: packet.checksum_offset().unwrap(),
            ..VnetHdr::NONE
        };
        let packets = inner_packets(&vnet, &packet, &mut bytes).unwrap();
        assert_eq!(
            packet.checksum_state(&packets[0]),
            ChecksumState::Valid,
            "{name}"
        );
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ffff() {
    // The payload's last word makes the sum 0xffff.
    let mut sample = SamplePacket {
        tcp: false,
        payload: vec![0; 4],
        ..SamplePacket::default()
    };
    let plain = sample.bytes();
    let check = checksum::field(&plain, 26);
    sample.payload[2..].copy_from_slice(&check.to_be_bytes());
    for gso in [GsoType::None, GsoType::UdpL4] {
        let (mut vnet, packet, mut bytes) = sample.super_packet(4);
        vnet.gso_type = gso;
        let packets = inner_packets(&vnet, &packet, &mut bytes).unwrap();
        assert_eq!(checksum::field(&packets[0], 26), 0xffff);
    }
}

#[test]
fn rfc8926_42_a_checksum_inside_a_tenants_own_tunnel_is_finished_there() {
    // UDP/6081 with a Geneve header and a TCP packet whose checksum is partial.
    let inside = SamplePacket::default();
    let (_, inside_packet, inside_bytes) = inside.super_packet(100);
    let payload = [b"\0\0\x08\0\0\0\x01\0", &inside_bytes[..]].concat();
    let outside = SamplePacket {
        tcp: false,
        payload,
        ..SamplePacket::default()
    };
    let mut bytes = outside.bytes();
    let packet = Packet::parse(&bytes).unwrap();
    let vnet = VnetHdr {
        flags: NEEDS_CSUM,
        csum_start: 28 + 8 + inside_packet.transport_offset,
        csum_offset: 16,
        ..VnetHdr::NONE
    };
    let packets = inner_packets(&vnet, &packet, &mut bytes).unwrap();
    assert_eq!(packets[0][36..], inside.bytes());
}

#[test]
fn offloads_that_do_not_fit_their_packet_are_refused() {
    let bad = Some(OffloadError::Unfit);
    let (good, packet, bytes) = SamplePacket::default().super_packet(50);
    assert_eq!(refused(&good, &packet, &bytes), None);
    let wrong = [
        VnetHdr {
            gso_size: 0,
            ..good
        },
        VnetHdr {
            gso_type: GsoType::TcpV6,
            ..good
        },
        VnetHdr {
            gso_type: GsoType::UdpL4,
            ..good
        },
        VnetHdr {
            csum_start: 21,
            ..good
        },
        VnetHdr {
            csum_offset: 6,
            ..good
        },
        VnetHdr {
            gso_type: GsoType::None,
            csum_offset: 6,
            ..good
        },
        VnetHdr {
            gso_type: GsoType::None,
            csum_start: 0,
            csum_offset: 10,
            ..good
        },
        VnetHdr {
            gso_type: GsoType::None,
            csum_start: 22,
            ..good
        },
        VnetHdr {
            gso_type: GsoType::None,
            csum_start: u16::MAX,
            csum_offset: u16::MAX,
            ..good
        },
    ];
    for vnet in wrong {
        assert_eq!(refused(&vnet, &packet, &bytes), bad, "{vnet:?}");
    }
    let fragment = Packet {
        fragment: Fragment::First,
        ..packet
    };
    assert_eq!(refused(&good, &fragment, &bytes), bad);
    let routed = Packet {
        source_routed: true,
        ..packet
    };
    assert_eq!(refused(&good, &routed, &bytes), bad);
    let syn = SamplePacket {
        flags: TcpFlags::SYN,
        ..SamplePacket::default()
    };
    let (vnet, packet, bytes) = syn.super_packet(50);
    assert_eq!(refused(&vnet, &packet, &bytes), bad);
    let long = SamplePacket {
        payload: vec![0; 60_000],
        ..SamplePacket::default()
    };
    let (vnet, packet, bytes) = long.super_packet(40);
    assert_eq!(refused(&vnet, &packet, &bytes), bad);
    let (vnet, packet, bytes) = long.super_packet(48);
    assert_eq!(refused(&vnet, &packet, &bytes), None);
}

#[test]
fn a_packet_that_does_not_describe_the_bytes_is_refused() {
    let (vnet, packet, bytes) = SamplePacket::default().super_packet(50);
    let malformed = Some(OffloadError::Malformed);
    let lies = [
        Packet {
            total_len: packet.total_len + 1,
            ..packet
        },
        Packet {
            transport_offset: 0,
            ..packet
        },
        Packet {
            transport_offset: 24,
            ..packet
        },
        Packet {
            payload_offset: 19,
            ..packet
        },
        Packet {
            payload_offset: 39,
            ..packet
        },
        Packet {
            payload_offset: packet.total_len + 1,
            ..packet
        },
    ];
    for lie in lies {
        assert_eq!(refused(&vnet, &lie, &bytes), malformed, "{lie:?}");
    }
    assert_eq!(refused(&vnet, &packet, &[]), malformed);
}

proptest! {
    #[test]
    fn segments_carry_the_payload_and_whole_checksums(
        sample in any_sample(5000), gso_size in 8u16..3000
    ) {
        let (vnet, packet, mut bytes) = sample.super_packet(gso_size);
        let packets = inner_packets(&vnet, &packet, &mut bytes).unwrap();
        let mut payload = Vec::new();
        for (index, segment) in packets.iter().enumerate() {
            let parsed = Packet::parse(segment).unwrap();
            prop_assert_eq!(usize::from(parsed.total_len), segment.len());
            let state = parsed.checksum_state(segment);
            prop_assert!(matches!(state, ChecksumState::Valid | ChecksumState::Partial), "{state:?}");
            prop_assert!(sample.v6 || ipv4_checksum_holds(segment));
            let part = &segment[usize::from(parsed.payload_offset)..];
            prop_assert!(part.len() == usize::from(gso_size) || index + 1 == packets.len());
            payload.extend_from_slice(part);
            prop_assert_eq!((parsed.tos, parsed.ttl), (packet.tos, packet.ttl));
            prop_assert_eq!(parsed.dont_fragment, packet.dont_fragment);
        }
        prop_assert_eq!(payload, sample.payload);
    }

    #[test]
    fn one_segment_equals_the_packet_itself(sample in any_sample(500)) {
        let (vnet, packet, mut bytes) = sample.super_packet(u16::MAX);
        let packets = inner_packets(&vnet, &packet, &mut bytes).unwrap();
        prop_assert_eq!(packets, vec![sample.bytes()]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in sample::mutated(), hdr: [u8; 10], gso in 0u8..6, shift in -40i32..40, encap in 0usize..600
    ) {
        let mut hdr = hdr;
        hdr[1] = gso;
        let (Ok(vnet), Ok(packet)) = (VnetHdr::parse(&hdr), Packet::parse(&bytes)) else {
            return Ok(());
        };
        let near = |at: u16| (i32::from(at) + shift).clamp(0, 65_535) as u16;
        for csum_start in [vnet.csum_start, packet.transport_offset, near(packet.transport_offset)] {
            let vnet = VnetHdr { csum_start, csum_offset: vnet.csum_offset % 20, ..vnet };
            let mut copy = bytes.clone();
            let mut out = SegmentCollector::default();
            if split(&vec![9; encap], &vnet, &packet, &mut copy, &mut out).is_ok() {
                prop_assert!(out.pieces.iter().all(|(_, range)| range.end <= bytes.len()));
            }
        }
    }
}

#[test]
fn only_what_a_kernel_says_of_its_own_super_packets_is_handed_to_one() {
    for v6 in [false, true] {
        let sample = SamplePacket {
            v6,
            payload: vec![1; 1000],
            ..SamplePacket::default()
        };
        let (mut vnet, packet, _) = sample.super_packet(300);
        vnet.flags = NEEDS_CSUM;
        vnet.csum_start = packet.transport_offset;
        vnet.csum_offset = 16;
        assert!(is_sound_tcp(&vnet, &packet), "{vnet:?} {packet:?}");
        let other = match vnet.gso_type {
            GsoType::TcpV4 => GsoType::TcpV6,
            _ => GsoType::TcpV4,
        };
        let forgeries: [fn(&mut VnetHdr); 8] = [
            |vnet| vnet.flags = 0,
            |vnet| vnet.csum_start += 2,
            |vnet| vnet.csum_start = u16::MAX,
            |vnet| vnet.csum_offset = 6,
            |vnet| vnet.gso_size = 0,
            |vnet| vnet.gso_size = 1000,
            |vnet| vnet.gso_type = GsoType::UdpL4,
            |vnet| vnet.gso_type = GsoType::None,
        ];
        for (number, forge) in forgeries.iter().enumerate() {
            let mut forged = vnet;
            forge(&mut forged);
            assert!(!is_sound_tcp(&forged, &packet), "{number}");
        }
        let crossed = VnetHdr {
            gso_type: other,
            ..vnet
        };
        assert!(!is_sound_tcp(&crossed, &packet));
        let mut routed = packet;
        routed.source_routed = true;
        assert!(!is_sound_tcp(&vnet, &routed));
        let mut fragment = packet;
        fragment.fragment = Fragment::First;
        assert!(!is_sound_tcp(&vnet, &fragment));
    }
}
