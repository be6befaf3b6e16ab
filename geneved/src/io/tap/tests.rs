//! Tests of taps, with both sides: workers that offer packets, and readers.

use super::filter::{FlowTuple, TapFilter};
use super::*;
use crate::io::TrafficDirection::{Egress, Ingress};
use ipnet::IpNet;
use libgeneve::vpc::LinkIndex;
use std::net::IpAddr;

/// UDP from 10.0.0.1:1000 to 10.0.0.2:53, 4 bytes of payload.
const PACKET: [u8; 32] = [
    0x45, 0, 0, 32, 0, 0, 0x40, 0, 64, 17, 0x26, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2, 0x03, 0xe8, 0, 53,
    0, 12, 0, 0, 1, 2, 3, 4,
];
/// No options, VNI 100.
const GENEVE_HEADER: [u8; 8] = [0, 0, 0x08, 0, 0, 0, 100, 0];

fn packet_outcome(reason: Option<DropReason>, now: u64) -> PacketOutcome {
    PacketOutcome {
        now: Now(now),
        link: Some(LinkIndex(3)),
        direction: if reason.is_some() { Ingress } else { Egress },
        reason,
        packets: 1,
    }
}

fn tap(config: TapConfig) -> (Taps, TapReader) {
    let (reader, mut all) = TapReader::new(config, 1, Arc::default());
    let mut taps = Taps::new();
    taps.add(all.pop().unwrap());
    (taps, reader)
}

fn usual() -> TapConfig {
    TapConfig {
        snaplen: 65_535,
        room: 4096,
        ..TapConfig::default()
    }
}

fn read(reader: &mut TapReader) -> Vec<(RecordLayer, Option<DropReason>, Vec<u8>)> {
    let mut all = Vec::new();
    reader.read(|r| {
        all.push((r.layer, r.reason, r.bytes.to_vec()));
        true
    });
    all
}

#[test]
fn a_packet_is_read_as_it_was_offered() {
    let (mut taps, mut reader) = tap(TapConfig {
        snaplen: 20,
        ..usual()
    });
    assert!(taps.inner && !taps.outer);
    taps.stage([&PACKET[..10], &PACKET[10..]]);
    taps.offer_inner(&packet_outcome(None, 7), InnerProtocol::Ip);
    let mut seen = 0;
    reader.read(|record| {
        seen += 1;
        assert_eq!(record.time, Now(7));
        assert_eq!(
            (record.link, record.direction),
            (Some(LinkIndex(3)), Egress)
        );
        assert_eq!((record.reason, record.layer), (None, RecordLayer::Inner));
        let tuple = record.tuple.unwrap();
        assert_eq!((tuple.sport, tuple.dport, tuple.protocol), (1000, 53, 17));
        assert_eq!(tuple.src, IpAddr::from([10, 0, 0, 1]));
        assert_eq!((record.length, record.bytes), (32, &PACKET[..20]));
        true
    });
    assert_eq!((seen, reader.lost()), (1, 0));
}

#[test]
fn what_finds_no_room_is_counted_and_what_fits_again_is_whole() {
    let (mut taps, mut reader) = tap(TapConfig {
        room: 300,
        ..usual()
    });
    let offer = |taps: &mut Taps| {
        taps.stage([&PACKET[..]]);
        taps.offer_inner(&packet_outcome(None, 1), InnerProtocol::Ip);
    };
    for _ in 0..1000 {
        offer(&mut taps);
        offer(&mut taps);
        offer(&mut taps);
        let all = read(&mut reader);
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|(_, _, bytes)| *bytes == PACKET));
        assert_eq!(reader.lost(), 1);
    }
}

#[test]
fn a_filter_admits_both_directions_of_a_flow_and_nothing_else() {
    let admits = |filter: TapFilter| {
        let tuple = FlowTuple::of(&PACKET).unwrap();
        let both = [tuple, tuple.reversed()].map(|t| filter.admits(Some(LinkIndex(3)), Some(&t)));
        assert_eq!(both[0], both[1]);
        both[0]
    };
    let none = TapFilter::default;
    assert!(admits(none()));
    assert!(admits(TapFilter {
        dport: Some(53),
        ..none()
    }));
    assert!(!admits(TapFilter {
        dport: Some(54),
        ..none()
    }));
    let from: IpNet = "10.0.0.1/32".parse().unwrap();
    assert!(admits(TapFilter {
        from: Some(from),
        dport: Some(53),
        ..none()
    }));
    assert!(!admits(TapFilter {
        to: Some(from),
        dport: Some(53),
        ..none()
    }));
    assert!(!admits(TapFilter {
        protocol: Some(6),
        ..none()
    }));
    assert!(!admits(TapFilter {
        link: Some(LinkIndex(4)),
        ..none()
    }));
    let port = TapFilter {
        sport: Some(1),
        ..none()
    };
    assert!(
        !port.admits(None, None),
        "what cannot be read fits no filter"
    );
    assert!(none().admits(None, None));
}

#[test]
fn a_dropped_datagram_is_given_as_what_is_inside_if_that_can_be_read() {
    let (mut taps, mut reader) = tap(TapConfig {
        dropped: true,
        ..usual()
    });
    assert!(!taps.inner && !taps.outer);
    let reason = Some(DropReason::UnknownHost);
    assert!(taps.want_drop(&packet_outcome(reason, 1)));
    taps.stage([&GENEVE_HEADER[..], &PACKET]);
    taps.offer_outer(&packet_outcome(None, 1), Encapsulation::Geneve, None, 0);
    taps.offer_outer(&packet_outcome(reason, 1), Encapsulation::Geneve, None, 0);
    taps.stage([&GENEVE_HEADER[..4]]);
    taps.offer_outer(&packet_outcome(reason, 1), Encapsulation::Geneve, None, 0);
    let all = read(&mut reader);
    let inner = (RecordLayer::Inner, reason, PACKET.to_vec());
    assert_eq!(
        all,
        [
            inner,
            (RecordLayer::Payload, reason, GENEVE_HEADER[..4].to_vec())
        ]
    );
}

#[test]
fn a_frame_is_given_as_a_frame_and_is_filtered_by_the_packet_inside() {
    let filter = TapFilter {
        dport: Some(53),
        ..TapFilter::default()
    };
    let (mut taps, mut reader) = tap(TapConfig { filter, ..usual() });
    let frame = [&[2; 12][..], &[8, 0], &PACKET].concat();
    taps.stage([&frame[..]]);
    taps.offer_inner(&packet_outcome(None, 1), InnerProtocol::Ethernet);
    let arp = [&[2; 12][..], &[8, 6], &[0; 28]].concat();
    taps.stage([&arp[..]]);
    taps.offer_inner(&packet_outcome(None, 1), InnerProtocol::Ethernet);
    assert_eq!(read(&mut reader), [(RecordLayer::Frame, None, frame)]);
}

#[test]
fn a_pause_lets_one_packet_of_each_reason_through() {
    let pause = Duration::from_nanos(10);
    let (mut taps, mut reader) = tap(TapConfig {
        dropped: true,
        pause,
        ..usual()
    });
    taps.stage([&PACKET[..]]);
    for now in 0..30 {
        taps.offer_inner(
            &packet_outcome(Some(DropReason::NoRoute), now),
            InnerProtocol::Ip,
        );
    }
    assert!(!taps.want_drop(&packet_outcome(Some(DropReason::NoRoute), 29)));
    assert!(taps.want_drop(&packet_outcome(Some(DropReason::TooBig), 29)));
    assert_eq!(read(&mut reader).len(), 3);
}

#[test]
fn a_tap_ends_with_its_reader() {
    let (mut taps, reader) = tap(usual());
    drop(reader);
    taps.stage([&PACKET[..]]);
    taps.offer_inner(&packet_outcome(None, 1), InnerProtocol::Ip);
    assert!(!taps.inner && !taps.want_drop(&packet_outcome(Some(DropReason::NoRoute), 1)));
}
