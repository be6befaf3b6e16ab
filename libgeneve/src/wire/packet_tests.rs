//! Tests of the packet walk, and the sample packets shared by other wire tests.

use super::*;
use proptest::prelude::*;

/// Small valid packets, with zero checksums where a test fills them in.
pub(crate) mod sample {
    use super::super::super::ip::{Ipv4Header, Ipv6Header, protocol};
    use super::super::super::udp::udp_header;
    use proptest::prelude::*;

    pub(crate) fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let header = Ipv4Header {
            tos: 0x2a,
            identification: 7.into(),
            ..Ipv4Header::new(src, dst, protocol, payload.len() as u16)
        };
        [&header.to_bytes()[..], payload].concat()
    }

    pub(crate) fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let (src, dst) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let header = Ipv6Header {
            version_class_flow: Ipv6Header::class_and_flow(0x2a, 0x12345),
            hop_limit: 63,
            ..Ipv6Header::new(src, dst, next_header, payload.len() as u16)
        };
        [&header.to_bytes()[..], payload].concat()
    }

    pub(crate) fn tcp(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; 24];
        bytes[0..4].copy_from_slice(&[0x30, 0x39, 0x01, 0xbb]);
        bytes[4..8].copy_from_slice(&0x0102_0304u32.to_be_bytes());
        bytes[8..12].copy_from_slice(&0x0506_0708u32.to_be_bytes());
        bytes[12] = 0x60;
        bytes[13] = 0x18;
        bytes[20..24].copy_from_slice(&[2, 4, 5, 0xb4]);
        bytes.extend_from_slice(payload);
        bytes
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        [
            &udp_header(4000, 53, (8 + payload.len()) as u16, 0)[..],
            payload,
        ]
        .concat()
    }

    pub(crate) fn udp4(payload: &[u8]) -> Vec<u8> {
        v4(protocol::UDP, &udp(payload))
    }

    pub(crate) fn udp6(payload: &[u8]) -> Vec<u8> {
        v6(protocol::UDP, &udp(payload))
    }

    pub(crate) fn all_transports() -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("tcp4", v4(protocol::TCP, &tcp(b"hello"))),
            ("tcp6", v6(protocol::TCP, &tcp(b"hello!"))),
            ("udp4", udp4(b"hello")),
            ("udp6", udp6(b"hello!")),
            (
                "icmp4",
                v4(protocol::ICMP, &[8, 0, 0, 0, 0x12, 0x34, 0, 1, 9, 9]),
            ),
            (
                "icmp6",
                v6(protocol::ICMPV6, &[128, 0, 0, 0, 0x12, 0x34, 0, 1, 9]),
            ),
        ]
    }

    /// Hop-by-hop, routing, destination options, fragment and AH before UDP.
    pub(crate) fn extended(fragment_word: u16) -> Vec<u8> {
        let word = fragment_word.to_be_bytes();
        let mut payload = vec![protocol::ROUTING, 0, 1, 4, 0, 0, 0, 0];
        payload.extend([protocol::DESTINATION_OPTIONS, 0, 4, 0, 0, 0, 0, 0]);
        payload.extend([
            protocol::FRAGMENT,
            1,
            1,
            12,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ]);
        payload.extend([protocol::AH, 0, word[0], word[1], 0, 0, 0, 9]);
        payload.extend([protocol::UDP, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
        payload.extend([0; 12]);
        payload.extend(udp(b"hello"));
        v6(protocol::HOP_BY_HOP, &payload)
    }

    /// Valid packets with a few bytes changed and the end truncated or extended.
    pub(crate) fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let mut seeds: Vec<Vec<u8>> = all_transports()
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect();
        seeds.extend([extended(0), extended(1), extended(8)]);
        let edits = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        (
            prop::sample::select(seeds),
            edits,
            0usize..40,
            any::<bool>(),
        )
            .prop_map(|(mut bytes, edits, size, cut)| {
                for (at, value) in edits {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                let len = if cut {
                    bytes.len().saturating_sub(size)
                } else {
                    bytes.len() + size
                };
                bytes.resize(len, 0xa5);
                bytes
            })
    }
}

#[test]
fn tcp_over_ipv4_is_read() {
    let packet = Packet::parse(&sample::v4(protocol::TCP, &sample::tcp(b"hello"))).unwrap();
    assert_eq!(
        (packet.version, packet.protocol, packet.ttl),
        (IpVersion::V4, 6, 64)
    );
    assert_eq!(
        (
            packet.transport_offset,
            packet.payload_offset,
            packet.total_len
        ),
        (20, 44, 49)
    );
    assert_eq!((packet.transport_len(), packet.payload_len()), (29, 5));
    assert_eq!((packet.tos, packet.dont_fragment), (0x2a, true));
    assert_eq!(packet.src, IpAddr::from([10, 0, 0, 1]));
    assert_eq!(packet.dst, IpAddr::from([10, 0, 0, 2]));
    let flags = TcpFlags::PSH | TcpFlags::ACK;
    let tcp = Transport::Tcp {
        src: 12345,
        dst: 443,
        flags,
        seq: 0x0102_0304,
        ack: 0x0506_0708,
    };
    assert_eq!(packet.transport, tcp);
}

#[test]
fn udp_and_icmp_over_both_families_are_read() {
    let packet = Packet::parse(&sample::udp6(b"hello!")).unwrap();
    assert_eq!(
        (
            packet.transport_offset,
            packet.payload_offset,
            packet.total_len
        ),
        (40, 48, 54)
    );
    assert_eq!(
        packet.transport,
        Transport::Udp {
            src: 4000,
            dst: 53,
            len: 14
        }
    );
    assert_eq!(
        (packet.tos, packet.ttl, packet.ports()),
        (0x2a, 63, Some((4000, 53)))
    );
    assert_eq!(packet.src, "fd00::1".parse::<IpAddr>().unwrap());
    for (name, kind) in [("icmp4", 8), ("icmp6", 128)] {
        let (_, bytes) = sample::all_transports()
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(
            packet.transport,
            Transport::Icmp {
                kind,
                code: 0,
                id: Some(0x1234)
            }
        );
        assert_eq!(packet.payload_offset, packet.transport_offset + 8);
        assert_eq!(packet.ports(), None);
    }
}

#[test]
fn an_icmp_error_has_no_identifier() {
    let packet =
        Packet::parse(&sample::v4(protocol::ICMP, &[3, 4, 0, 0, 0x12, 0x34, 0, 1])).unwrap();
    assert_eq!(
        packet.transport,
        Transport::Icmp {
            kind: 3,
            code: 4,
            id: None
        }
    );
}

#[test]
fn icmp_of_the_other_family_is_just_a_protocol() {
    let message = [128, 0, 0, 0, 0, 1, 0, 1];
    for bytes in [
        sample::v4(protocol::ICMPV6, &message),
        sample::v6(protocol::ICMP, &message),
    ] {
        assert_eq!(Packet::parse(&bytes).unwrap().transport, Transport::Other);
    }
}

#[test]
fn ipv4_options_are_skipped() {
    let mut bytes = sample::udp4(b"x");
    bytes.splice(20..20, [0x94, 4, 0, 0]);
    bytes[0] = 0x46;
    bytes[3] += 4;
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(
        (packet.transport_offset, packet.ports()),
        (24, Some((4000, 53)))
    );
}

#[test]
fn extension_headers_are_walked() {
    let packet = Packet::parse(&sample::extended(0)).unwrap();
    assert_eq!(
        (packet.protocol, packet.ports()),
        (protocol::UDP, Some((4000, 53)))
    );
    assert_eq!(packet.transport_offset, 40 + 8 + 8 + 16 + 8 + 24);
    assert_eq!(packet.fragment, Fragment::Whole);
    assert!(!packet.source_routed);
    let mut routed = sample::extended(0);
    routed[40 + 8 + 3] = 1;
    assert!(Packet::parse(&routed).unwrap().source_routed);
}

#[test]
fn esp_and_no_next_header_end_the_walk() {
    for next in [protocol::ESP, protocol::NO_NEXT_HEADER] {
        let packet = Packet::parse(&sample::v6(next, &[0xff; 9])).unwrap();
        assert_eq!(
            (packet.transport, packet.protocol),
            (Transport::Other, next)
        );
        assert_eq!((packet.transport_offset, packet.payload_offset), (40, 40));
    }
}

#[test]
fn fragments_are_told_apart() {
    let mut v4 = sample::udp4(b"hello");
    assert_eq!(Packet::parse(&v4).unwrap().fragment_id, 0);
    v4[6] = 0x20;
    let first = Packet::parse(&v4).unwrap();
    assert_eq!(
        (first.fragment, first.ports()),
        (Fragment::First, Some((4000, 53)))
    );
    assert_eq!(first.fragment_id, 7);
    v4[7] = 1;
    for flags in [0x00, 0x20] {
        v4[6] = flags;
        let later = Packet::parse(&v4).unwrap();
        assert_eq!(
            (later.fragment, later.transport),
            (Fragment::Later, Transport::Unavailable)
        );
        assert_eq!((later.transport_offset, later.payload_offset), (20, 20));
    }

    let first = Packet::parse(&sample::extended(1)).unwrap();
    assert_eq!(
        (first.fragment, first.ports()),
        (Fragment::First, Some((4000, 53)))
    );
    assert_eq!(first.fragment_id, 9);
    assert_eq!(Packet::parse(&sample::extended(0)).unwrap().fragment_id, 0);
    let later = Packet::parse(&sample::extended(8)).unwrap();
    assert_eq!(
        (later.fragment, later.transport),
        (Fragment::Later, Transport::Unavailable)
    );
    assert_eq!((later.protocol, later.transport_offset), (protocol::AH, 80));
}

#[test]
fn a_first_fragment_may_be_shorter_than_its_datagram() {
    let mut bytes = sample::udp4(b"hello");
    bytes[24..26].copy_from_slice(&4000u16.to_be_bytes());
    assert_eq!(Packet::parse(&bytes), Err(PacketError::BadHeader));
    bytes[6] = 0x20;
    assert_eq!(
        Packet::parse(&bytes).unwrap().transport,
        Transport::Udp {
            src: 4000,
            dst: 53,
            len: 4000
        }
    );
    let mut cut = sample::v4(protocol::TCP, &[0; 16]);
    assert_eq!(Packet::parse(&cut), Err(PacketError::BadHeader));
    cut[6] = 0x20;
    assert_eq!(
        Packet::parse(&cut).unwrap().transport,
        Transport::Unavailable
    );
}

#[test]
fn an_inner_packet_shorter_than_its_own_length_field_is_truncated() {
    for (name, bytes) in sample::all_transports() {
        for len in 0..bytes.len() {
            assert_eq!(
                Packet::parse(&bytes[..len]),
                Err(PacketError::Truncated),
                "{name} {len}"
            );
        }
    }
}

#[test]
fn bytes_after_the_packet_are_not_part_of_it() {
    for (name, mut bytes) in sample::all_transports() {
        let packet = Packet::parse(&bytes).unwrap();
        bytes.extend([0xee; 7]);
        assert_eq!(Packet::parse(&bytes), Ok(packet), "{name}");
    }
}

#[test]
fn contradicting_lengths_are_bad_headers() {
    let bad = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        Packet::parse(&bytes).unwrap_err()
    };
    let (udp4, udp6) = (sample::udp4(b"hello"), sample::udp6(b"hello"));
    let (tcp4, tcp6) = (
        sample::v4(6, &sample::tcp(b"")),
        sample::v6(6, &sample::tcp(b"")),
    );
    assert_eq!(bad(udp4.clone(), 0, 0x44), PacketError::BadHeader);
    assert_eq!(bad(udp4.clone(), 3, 19), PacketError::BadHeader);
    assert_eq!(bad(udp4.clone(), 0, 0x4f), PacketError::BadHeader);
    for (bytes, at) in [(&udp4, 25), (&udp6, 45)] {
        assert_eq!(bad(bytes.clone(), at, 7), PacketError::BadHeader);
        assert_eq!(bad(bytes.clone(), at, 14), PacketError::BadHeader);
    }
    for (bytes, at) in [(&tcp4, 32), (&tcp6, 52)] {
        assert_eq!(bad(bytes.clone(), at, 0x40), PacketError::BadHeader);
        assert_eq!(bad(bytes.clone(), at, 0x70), PacketError::BadHeader);
    }
    assert_eq!(bad(udp4.clone(), 0, 0x55), PacketError::NotIp);
    assert_eq!(bad(udp4, 0, 0x05), PacketError::NotIp);
    assert_eq!(bad(sample::extended(0), 41, 200), PacketError::BadHeader);
    assert_eq!(
        Packet::parse(&sample::v6(protocol::HOP_BY_HOP, &[])),
        Err(PacketError::BadHeader)
    );
    assert_eq!(
        Packet::parse(&sample::v4(protocol::ICMP, &[8; 7])),
        Err(PacketError::BadHeader)
    );
}

#[test]
fn an_ipv6_packet_above_65535_bytes_is_refused() {
    let mut bytes = sample::v6(protocol::NO_NEXT_HEADER, &[0; 65_495]);
    assert_eq!(Packet::parse(&bytes).unwrap().total_len, 65_535);
    bytes.push(0);
    bytes[5] += 1;
    assert_eq!(Packet::parse(&bytes), Err(PacketError::BadHeader));
}

#[test]
fn the_walk_over_extension_headers_is_bounded() {
    let chain = |count: usize| {
        let mut payload = Vec::new();
        for left in (0..count).rev() {
            let next = if left == 0 {
                protocol::NO_NEXT_HEADER
            } else {
                protocol::DESTINATION_OPTIONS
            };
            payload.extend([next, 0, 1, 4, 0, 0, 0, 0]);
        }
        sample::v6(protocol::DESTINATION_OPTIONS, &payload)
    };
    assert!(Packet::parse(&chain(MAX_EXTENSION_HEADERS)).is_ok());
    let error = Packet::parse(&chain(MAX_EXTENSION_HEADERS + 1)).unwrap_err();
    assert_eq!(error, PacketError::TooManyExtensions);
}

#[test]
fn a_second_fragment_header_is_refused() {
    let mut payload = vec![protocol::FRAGMENT, 0, 0, 1, 0, 0, 0, 9];
    payload.extend([protocol::NO_NEXT_HEADER, 0, 0, 0, 0, 0, 0, 9]);
    assert_eq!(
        Packet::parse(&sample::v6(protocol::FRAGMENT, &payload)),
        Err(PacketError::BadHeader)
    );
}

fn offsets_hold(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else {
        return;
    };
    assert!(packet.transport_offset >= 20);
    assert!(packet.transport_offset <= packet.payload_offset);
    assert!(packet.payload_offset <= packet.total_len);
    assert!(usize::from(packet.total_len) <= bytes.len());
    if let (Transport::Udp { len, .. }, Fragment::Whole) = (packet.transport, packet.fragment) {
        assert!((8..=packet.transport_len()).contains(&len));
    }
    // The result depends only on the packet's own bytes.
    assert_eq!(
        Packet::parse(&bytes[..usize::from(packet.total_len)]),
        Ok(packet)
    );
}

proptest! {
    #[test]
    fn offsets_of_mutated_packets_stay_inside(bytes in sample::mutated()) {
        offsets_hold(&bytes);
    }

    #[test]
    fn offsets_of_arbitrary_bytes_stay_inside(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in prop::sample::select(vec![0x45u8, 0x46, 0x60]),
        len in 0u8..200, next in prop::sample::select(vec![0u8, 1, 6, 17, 43, 44, 51, 58, 60])
    ) {
        offsets_hold(&bytes);
        if bytes.len() >= 40 {
            bytes[0] = version;
            bytes[2..4].copy_from_slice(&[0, len]);
            bytes[4..7].copy_from_slice(&[0, len, next]);
            bytes[9] = next;
            offsets_hold(&bytes);
        }
    }
}
