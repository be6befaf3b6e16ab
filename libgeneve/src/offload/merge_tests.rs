use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::offload::samples::{SamplePacket, SegmentCollector, any_sample};
use crate::offload::split::split;
use crate::wire::ip::write_ipv4_checksum;
use crate::wire::packet::tests::sample;

/// Output of a merger, with the bytes of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MergedPacket {
    lane: u64,
    vnet: VnetHdr,
    bytes: Vec<u8>,
    segments: u16,
    tags: Vec<usize>,
}

impl MergedPacket {
    /// The packets that it was merged from.
    fn expand(mut self) -> Vec<Vec<u8>> {
        if self.vnet == VnetHdr::NONE {
            return vec![self.bytes];
        }
        let packet = Packet::parse(&self.bytes).unwrap();
        let mut out = SegmentCollector::default();
        let split = split(&[], &self.vnet, &packet, &mut self.bytes, &mut out).unwrap();
        assert_eq!(split.segments, self.segments);
        out.packets(&self.bytes)
    }
}

/// A merger and its buffers: every packet has its own, at an offset.
struct MergeRig {
    merger: Merger<usize>,
    buffers: Vec<Vec<u8>>,
    outs: Vec<MergedPacket>,
}

impl MergeRig {
    fn new(flows: usize, uso: bool) -> MergeRig {
        MergeRig {
            merger: Merger::new(flows, uso),
            buffers: Vec::new(),
            outs: Vec::new(),
        }
    }

    fn push(&mut self, lane: u64, inner: &[u8]) {
        let packet = Packet::parse(inner).expect("a packet");
        let start = self.buffers.len() % 7;
        let tag = self.buffers.len();
        self.buffers
            .push([&vec![0xee; start], inner, b"behind"].concat());
        let (buffers, outs) = (&self.buffers, &mut self.outs);
        let mut out =
            |lane, packet: SuperPacket<'_, usize>| outs.push(collect(buffers, lane, &packet));
        self.merger
            .push(lane, tag, start as u32, inner, &packet, &mut out);
    }

    fn flush(&mut self) -> Vec<MergedPacket> {
        let (buffers, outs) = (&self.buffers, &mut self.outs);
        let mut out =
            |lane, packet: SuperPacket<'_, usize>| outs.push(collect(buffers, lane, &packet));
        self.merger.flush(&mut out);
        std::mem::take(outs)
    }
}

fn collect(buffers: &[Vec<u8>], lane: u64, packet: &SuperPacket<'_, usize>) -> MergedPacket {
    let mut bytes = packet.header.to_vec();
    for part in packet.parts {
        let (start, len) = (part.start as usize, part.len as usize);
        bytes.extend_from_slice(&buffers[part.tag][start..start + len]);
    }
    MergedPacket {
        lane,
        vnet: packet.vnet,
        bytes,
        segments: packet.segments,
        tags: packet.parts.iter().map(|part| part.tag).collect(),
    }
}

fn segments_of(sample: &SamplePacket, gso_size: u16) -> Vec<Vec<u8>> {
    let (vnet, packet, mut bytes) = sample.super_packet(gso_size);
    let mut out = SegmentCollector::default();
    split(&[], &vnet, &packet, &mut bytes, &mut out).unwrap();
    out.packets(&bytes)
}

/// Number of packets in each of the super-packets.
fn shape(packets: &[Vec<u8>]) -> Vec<u16> {
    let mut rig = MergeRig::new(4, true);
    packets.iter().for_each(|packet| rig.push(1, packet));
    let outs = rig.flush();
    let expanded: Vec<_> = outs
        .iter()
        .cloned()
        .flat_map(MergedPacket::expand)
        .collect();
    assert_eq!(expanded, packets);
    outs.iter().map(|out| out.segments).collect()
}

fn tcp(len: usize) -> SamplePacket {
    SamplePacket {
        payload: vec![0x5a; len],
        ..SamplePacket::default()
    }
}

fn finished(mut bytes: Vec<u8>) -> Vec<u8> {
    let packet = Packet::parse(&bytes).unwrap();
    packet.write_checksum(&mut bytes);
    write_ipv4_checksum(&mut bytes);
    bytes
}

#[test]
fn rfc8926_37_packets_of_different_geneve_headers_are_never_merged() {
    let segments = segments_of(&tcp(600), 100);
    let mut rig = MergeRig::new(4, true);
    for (index, segment) in segments.iter().enumerate() {
        rig.push(index as u64 / 2, segment);
    }
    let outs = rig.flush();
    let lanes: Vec<_> = outs.iter().map(|out| (out.lane, out.segments)).collect();
    assert_eq!(lanes, [(0, 2), (1, 2), (2, 2)]);
    let expanded: Vec<_> = outs.into_iter().flat_map(MergedPacket::expand).collect();
    assert_eq!(expanded, segments);
}

#[test]
fn psh_fin_or_a_short_packet_ends_a_super_packet() {
    let mut segments = segments_of(&tcp(500), 100);
    segments[2][33] |= TcpFlags::PSH.0;
    segments[2] = finished(segments[2].clone());
    assert_eq!(shape(&segments), [3, 2]);
    let mut segments = segments_of(&tcp(250), 100);
    segments.extend(segments_of(
        &SamplePacket {
            seq: 1250,
            id: 10,
            ..tcp(200)
        },
        100,
    ));
    assert_eq!(shape(&segments), [3, 2]);
    let fin = SamplePacket {
        flags: TcpFlags::ACK | TcpFlags::FIN,
        ..tcp(300)
    };
    assert_eq!(shape(&segments_of(&fin, 100)), [3]);
}

#[test]
fn a_longer_packet_begins_something_new() {
    let mut segments = segments_of(&tcp(200), 100);
    segments.extend(segments_of(
        &SamplePacket {
            seq: 1200,
            id: 9,
            ..tcp(300)
        },
        150,
    ));
    assert_eq!(shape(&segments), [2, 2]);
}

#[test]
fn a_packet_that_differs_where_gro_compares_is_not_merged() {
    let base = segments_of(&tcp(300), 100);
    assert_eq!(shape(&base), [3]);
    // Offset and new value: TOS, TTL, DF, identification, ack, data offset's low bits, ECE, CWR, window, urgent
    // pointer, an option; sequence number.
    let edits = [
        (1, 2),
        (8, 9),
        (6, 0),
        (5, 77),
        (31, 9),
        (32, 0x81),
        (33, 0x50),
        (33, 0x90),
        (35, 1),
        (39, 1),
        (50, 9),
        (27, 0),
    ];
    for (at, value) in edits {
        let mut segments = base.clone();
        assert_ne!(segments[1][at], value, "{at}");
        segments[1][at] = value;
        segments[1] = finished(segments[1].clone());
        let shape = shape(&segments);
        assert!(shape[0] == 1 && shape.len() >= 2, "byte {at}: {shape:?}");
    }
    let v6 = segments_of(
        &SamplePacket {
            v6: true,
            ..tcp(300)
        },
        100,
    );
    assert_eq!(shape(&v6), [3]);
    for (at, value) in [(0, 0x61), (1, 0x11), (3, 0x46), (7, 9)] {
        let mut segments = v6.clone();
        assert_ne!(segments[1][at], value, "{at}");
        segments[1][at] = value;
        assert_eq!(shape(&segments), [1, 1, 1], "byte {at}");
    }
}

#[test]
fn a_packet_with_syn_rst_or_urg_or_without_payload_goes_alone_and_in_order() {
    for flags in [TcpFlags::SYN, TcpFlags::RST, TcpFlags::URG, TcpFlags::ACK] {
        let mut segments = segments_of(&tcp(200), 100);
        let payload = if flags == TcpFlags::ACK {
            Vec::new()
        } else {
            vec![1; 100]
        };
        segments.push(
            SamplePacket {
                seq: 1200,
                id: 9,
                flags,
                payload,
                ..SamplePacket::default()
            }
            .bytes(),
        );
        segments.extend(segments_of(
            &SamplePacket {
                seq: 1300,
                id: 10,
                ..tcp(200)
            },
            100,
        ));
        assert_eq!(shape(&segments), [2, 1, 2], "{flags}");
    }
}

#[test]
fn a_wrong_checksum_goes_alone_and_unchanged_behind_its_flow() {
    for (at, v6) in [(60, false), (10, false), (100, true)] {
        let mut segments = segments_of(&SamplePacket { v6, ..tcp(400) }, 100);
        segments[2][at] ^= 0x10;
        assert_eq!(shape(&segments), [2, 1, 1], "byte {at}");
    }
}

#[test]
fn options_and_extension_headers_are_never_merged() {
    let mut with_options = segments_of(&tcp(200), 100);
    for bytes in &mut with_options {
        bytes[0] = 0x46;
        let total_len = bytes.len() as u16 + 4;
        bytes[2..4].copy_from_slice(&total_len.to_be_bytes());
        bytes.splice(20..20, [1, 1, 1, 1]);
        write_ipv4_checksum(bytes);
    }
    assert_eq!(shape(&with_options), [1, 1]);
    let mut extended = segments_of(
        &SamplePacket {
            v6: true,
            ..tcp(200)
        },
        100,
    );
    for bytes in &mut extended {
        bytes[6] = 60;
        bytes[5] += 8;
        bytes.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
    }
    assert_eq!(shape(&extended), [1, 1]);
}

#[test]
fn a_fixed_identification_is_merged_with_df_only() {
    for (df, expected) in [(true, &[3][..]), (false, &[1, 1, 1])] {
        let mut segments = segments_of(&SamplePacket { df, ..tcp(300) }, 100);
        for segment in &mut segments {
            segment[4..6].fill(0);
            write_ipv4_checksum(segment);
        }
        let mut rig = MergeRig::new(4, true);
        segments.iter().for_each(|segment| rig.push(1, segment));
        let shape: Vec<_> = rig.flush().iter().map(|out| out.segments).collect();
        assert_eq!(shape, expected);
    }
}

#[test]
fn cwr_begins_a_super_packet_and_is_told_to_tun() {
    let cwr = SamplePacket {
        flags: TcpFlags::ACK | TcpFlags::CWR,
        ..tcp(300)
    };
    let mut rig = MergeRig::new(4, true);
    segments_of(&cwr, 100)
        .iter()
        .for_each(|segment| rig.push(1, segment));
    let outs = rig.flush();
    assert_eq!(outs.len(), 1);
    assert!(outs[0].vnet.ecn);
    let mut segments = segments_of(&tcp(200), 100);
    segments.extend(segments_of(
        &SamplePacket {
            seq: 1200,
            id: 9,
            ..cwr
        },
        100,
    ));
    assert_eq!(shape(&segments), [2, 3]);
}

#[test]
fn super_packets_stay_below_their_limits() {
    let udp = SamplePacket {
        tcp: false,
        payload: vec![1; 1300],
        ..SamplePacket::default()
    };
    let mut segments = segments_of(&udp, 10);
    segments.extend(segments_of(&SamplePacket { id: 137, ..udp }, 10));
    assert_eq!(shape(&segments), [128, 128, 4]);
    let mut segments = segments_of(&tcp(65_000), 1000);
    segments.extend(segments_of(
        &SamplePacket {
            seq: 66_000,
            id: 72,
            ..tcp(2000)
        },
        1000,
    ));
    assert_eq!(shape(&segments), [65, 2]);
}

#[test]
fn udp_to_a_group_or_to_everybody_is_never_merged() {
    for (v6, dst) in [
        (false, &[224, 0, 0, 251][..]),
        (false, &[255; 4]),
        (
            true,
            &[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb],
        ),
    ] {
        let udp = SamplePacket {
            tcp: false,
            v6,
            payload: vec![1; 250],
            ..SamplePacket::default()
        };
        let at = if v6 { 24 } else { 16 };
        let to_group = |mut bytes: Vec<u8>| {
            bytes[at..at + dst.len()].copy_from_slice(dst);
            if v6 {
                let packet = Packet::parse(&bytes).unwrap();
                packet.write_checksum(&mut bytes);
                bytes
            } else {
                finished(bytes)
            }
        };
        let segments: Vec<_> = segments_of(&udp, 100).into_iter().map(to_group).collect();
        assert_eq!(shape(&segments), [1, 1, 1], "{dst:?}");
    }
}

#[test]
fn udp_is_merged_only_when_tun_takes_it_and_with_a_checksum() {
    let udp = SamplePacket {
        tcp: false,
        payload: vec![1; 250],
        ..SamplePacket::default()
    };
    let segments = segments_of(&udp, 100);
    assert_eq!(shape(&segments), [3]);
    let mut rig = MergeRig::new(4, false);
    segments.iter().for_each(|segment| rig.push(1, segment));
    assert_eq!(rig.flush().len(), 3);
    let mut without = segments;
    without.iter_mut().for_each(|bytes| bytes[26..28].fill(0));
    assert_eq!(shape(&without), [1, 1, 1]);
    let empty = SamplePacket {
        tcp: false,
        payload: Vec::new(),
        ..SamplePacket::default()
    }
    .bytes();
    assert_eq!(shape(&[empty.clone(), empty]), [1, 1]);
}

#[test]
fn fragments_let_go_of_what_their_hosts_sent_before() {
    let segments = segments_of(
        &SamplePacket {
            tcp: false,
            payload: vec![1; 200],
            ..SamplePacket::default()
        },
        100,
    );
    let mut fragment = SamplePacket {
        tcp: false,
        ..SamplePacket::default()
    }
    .bytes();
    fragment[6..8].copy_from_slice(&[0, 9]);
    write_ipv4_checksum(&mut fragment);
    let order = [segments[0].clone(), segments[1].clone(), fragment];
    assert_eq!(shape(&order), [2, 1]);
}

#[test]
fn a_full_table_lets_the_oldest_go() {
    let flow = |port| segments_of(&SamplePacket { port, ..tcp(200) }, 100);
    let (a, b, c) = (flow(1), flow(2), flow(3));
    let mut rig = MergeRig::new(2, true);
    for packet in [&a[0], &b[0], &c[0], &b[1], &c[1]] {
        rig.push(1, packet);
    }
    let shape: Vec<_> = rig
        .flush()
        .iter()
        .map(|out| (out.tags[0], out.segments))
        .collect();
    assert_eq!(shape, [(0, 1), (1, 2), (2, 2)]);
}

#[test]
fn pushing_takes_no_memory() {
    let mut rig = MergeRig::new(3, true);
    let before: Vec<_> = rig
        .merger
        .slots
        .iter()
        .map(|held| held.parts.capacity())
        .collect();
    for port in 0..9 {
        for segment in segments_of(&SamplePacket { port, ..tcp(3000) }, 10) {
            rig.push(1, &segment);
        }
    }
    rig.flush();
    let after: Vec<_> = rig
        .merger
        .slots
        .iter()
        .map(|held| held.parts.capacity())
        .collect();
    assert_eq!(before, after);
    assert_eq!((rig.merger.open.capacity(), rig.merger.free.len()), (3, 3));
}

/// One packet of a random stream: usually the next of its flow.
#[derive(Clone, Debug)]
struct StreamPacket {
    flow: usize,
    lane: u64,
    len: usize,
    twist: u8,
    flags: u8,
}

fn any_step() -> impl Strategy<Value = StreamPacket> {
    let len = prop_oneof![6 => Just(100usize), 1 => Just(60usize), 1 => 0usize..130];
    let lane = prop_oneof![9 => Just(0u64), 1 => 0u64..3];
    let twist = prop_oneof![5 => Just(0u8), 1 => 1u8..12];
    let flags = prop_oneof![8 => Just(0x10u8), 1 => any::<u8>()];
    (0usize..8, lane, len, twist, flags).prop_map(|(flow, lane, len, twist, flags)| StreamPacket {
        flow,
        lane,
        len,
        twist,
        flags,
    })
}

/// The packets of a stream, with their flows and lanes.
fn stream(steps: &[StreamPacket]) -> Vec<(usize, u64, Vec<u8>)> {
    let mut state: HashMap<usize, (u32, u16)> = HashMap::new();
    let packet = |step: &StreamPacket| {
        let (seq, id) = state
            .entry(step.flow)
            .or_insert((step.flow as u32 * 1000, 0xfff0));
        let mut sample = SamplePacket {
            v6: step.flow & 1 != 0,
            tcp: step.flow & 2 != 0,
            port: step.flow as u16,
            seq: *seq,
            id: if step.flow & 4 != 0 { 0 } else { *id },
            flags: TcpFlags(step.flags),
            payload: vec![step.flow as u8; step.len],
            ..SamplePacket::default()
        };
        *seq = seq.wrapping_add(step.len as u32);
        *id = id.wrapping_add(1);
        match step.twist {
            1 => sample.seq ^= 1,
            2 => sample.ttl = 3,
            3 => sample.tos = 0xb8,
            4 => sample.df = false,
            5 => sample.id ^= 0x100,
            6 => sample.options[11] = 9,
            7 => sample.options.clear(),
            _ => {}
        }
        let mut bytes = sample.bytes();
        match step.twist {
            8 => *bytes.last_mut().unwrap() ^= 1,
            9 if !sample.v6 => bytes[11] ^= 1,
            10 if !sample.v6 => bytes[6] |= 0x20,
            11 if !sample.v6 && !sample.tcp => bytes[26..28].fill(0),
            _ => {}
        }
        (step.flow, step.lane, bytes)
    };
    steps.iter().map(packet).collect()
}

/// Clears the identification of a packet with DF, which carries no meaning (RFC 6864).
fn meaning(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes[0] >> 4 == 4 && bytes[6] == 0x40 && crate::wire::ip::ipv4_checksum_holds(&bytes) {
        bytes[4..6].fill(0);
        write_ipv4_checksum(&mut bytes);
    }
    bytes
}

proptest! {
    #[test]
    fn split_then_merge_gives_the_same_bytes(sample in any_sample(60_000), gso in 1u16..9000) {
        let least = sample.payload.len().div_ceil(MAX_PARTS) as u16;
        let gso_size = gso.max(least);
        let (vnet, _, bytes) = sample.super_packet(gso_size);
        let segments = segments_of(&sample, gso_size);
        let mut rig = MergeRig::new(1, true);
        segments.iter().for_each(|segment| rig.push(5, segment));
        let outs = rig.flush();
        prop_assert_eq!(outs.len(), 1);
        prop_assert_eq!(usize::from(outs[0].segments), segments.len());
        if segments.len() == 1 {
            prop_assert_eq!(outs[0].vnet, VnetHdr::NONE);
            prop_assert_eq!(&outs[0].bytes, &sample.bytes());
        } else {
            prop_assert_eq!(outs[0].vnet, vnet);
            prop_assert_eq!(&outs[0].bytes, &bytes);
        }
    }

    #[test]
    fn nothing_is_lost_or_reordered_within_a_flow(
        steps in proptest::collection::vec(any_step(), 0..120), flows in 1usize..6, flush_every in 1usize..60
    ) {
        let packets = stream(&steps);
        let mut rig = MergeRig::new(flows, true);
        let mut outs = Vec::new();
        for (index, (_, lane, bytes)) in packets.iter().enumerate() {
            rig.push(*lane, bytes);
            if index % flush_every == 0 {
                outs.extend(rig.flush());
            }
        }
        outs.extend(rig.flush());
        let mut found: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        for out in outs {
            let flow = packets[out.tags[0]].0;
            for &tag in &out.tags {
                prop_assert_eq!((packets[tag].0, packets[tag].1), (flow, out.lane));
            }
            prop_assert_eq!(out.tags.len(), usize::from(out.segments));
            found.entry(flow).or_default().extend(out.expand().into_iter().map(meaning));
        }
        let mut expected: HashMap<usize, Vec<Vec<u8>>> = HashMap::new();
        for (flow, _, bytes) in packets {
            expected.entry(flow).or_default().push(meaning(bytes));
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_come_out_again(
        packets in proptest::collection::vec((sample::mutated(), 0u64..2), 0..30), lie: u16
    ) {
        let mut rig = MergeRig::new(3, true);
        let mut count = 0;
        for (bytes, lane) in &packets {
            if Packet::parse(bytes).is_ok() {
                rig.push(*lane, bytes);
                count += 1;
            }
        }
        let outs = rig.flush();
        prop_assert_eq!(outs.iter().map(|out| usize::from(out.segments)).sum::<usize>(), count);
        // A `Packet` with fields changed by hand.
        if let Some((bytes, packet)) = packets.first().and_then(|(b, _)| Some((b, Packet::parse(b).ok()?))) {
            for packet in [
                Packet { total_len: lie, ..packet },
                Packet { payload_offset: lie, ..packet },
                Packet { transport_offset: lie, ..packet },
            ] {
                rig.merger.push(0, 0, 0, bytes, &packet, &mut |_, _| {});
            }
        }
    }
}
