//! Trains: every packet comes out again, in its lane, and merged packets are sound super-packets.
//!
//! Input: packets, each after a control byte (bit 0: lane; bit 1: fix its checksums; bit 2: flush afterwards) and the
//! low byte of its length.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use libgeneve::offload::merge::{Merger, SuperPacket, partial};
use libgeneve::offload::vnet::{GsoType, VnetHdr};
use libgeneve::wire::ip;
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport_checksum::ChecksumState;

fuzz_target!(|data: &[u8]| {
    let mut merger: Merger<usize> = Merger::new(3, true);
    let mut packets: Vec<(u64, Vec<u8>, Packet)> = Vec::new();
    let mut out: Vec<MergeOutput> = Vec::new();
    let mut rest = data;
    while let [control, len, after @ ..] = rest {
        let (bytes, next) = after.split_at(usize::from(*len).min(after.len()));
        rest = next;
        let mut bytes = bytes.to_vec();
        let Ok(packet) = Packet::parse(&bytes) else {
            continue;
        };
        if control & 2 != 0 {
            ip::write_ipv4_checksum(&mut bytes);
            packet.write_checksum(&mut bytes);
        }
        let _ = partial(&bytes, &packet, 60);
        let lane = u64::from(control & 1);
        let mut sink = |lane, packet: SuperPacket<'_, usize>| out.push(MergeOutput::of(lane, &packet));
        merger.push(lane, packets.len(), 3, &bytes, &packet, &mut sink);
        if control & 4 != 0 {
            merger.flush(&mut sink);
        }
        packets.push((lane, bytes, packet));
    }
    merger.flush(&mut |lane, packet: SuperPacket<'_, usize>| out.push(MergeOutput::of(lane, &packet)));

    let mut seen = vec![false; packets.len()];
    let mut newest = HashMap::new();
    for out in &out {
        assert_eq!(usize::from(out.segments), out.parts.len());
        let mut whole = out.header.clone();
        for &(tag, start, len) in &out.parts {
            let (lane, bytes, packet) = &packets[tag];
            assert!(!std::mem::replace(&mut seen[tag], true), "twice");
            assert_eq!(*lane, out.lane);
            let start = start as usize - 3;
            whole.extend_from_slice(&bytes[start..start + len as usize]);
            let flow = (packet.src, packet.dst, packet.protocol, packet.ports());
            let before = newest.insert(flow, tag);
            assert!(before.is_none_or(|before| before < tag), "reordered");
        }
        if out.vnet.gso_type == GsoType::None {
            assert_eq!((out.vnet, out.segments), (VnetHdr::NONE, 1));
            let (_, bytes, packet) = &packets[out.parts[0].0];
            assert_eq!(whole, bytes[..usize::from(packet.total_len)]);
            continue;
        }
        assert!(out.segments > 1);
        let packet = Packet::parse(&whole).expect("a sound super-packet");
        assert_eq!(usize::from(packet.total_len), whole.len());
        assert_eq!(packet.checksum_state(&whole), ChecksumState::Partial);
        assert!(whole[0] >> 4 == 6 || ip::ipv4_checksum_holds(&whole));
    }
    assert!(seen.iter().all(|&seen| seen), "lost");
});

struct MergeOutput {
    lane: u64,
    vnet: VnetHdr,
    header: Vec<u8>,
    parts: Vec<(usize, u32, u32)>,
    segments: u16,
}

impl MergeOutput {
    fn of(lane: u64, packet: &SuperPacket<'_, usize>) -> MergeOutput {
        let parts = packet.parts.iter();
        MergeOutput {
            lane,
            vnet: packet.vnet,
            header: packet.header.to_vec(),
            parts: parts.map(|part| (part.tag, part.start, part.len)).collect(),
            segments: packet.segments,
        }
    }
}
