//! Nanoseconds per super-packet for split and merge, with common payload sizes:
//! `cargo bench -p libgeneve --bench offload`.
//!
//! Every number is the best of several rounds, on an unpinned core: for comparing two versions on one machine, not
//! for publication.

use std::hint::black_box;
use std::ops::Range;
use std::time::Instant;

use libgeneve::offload::merge::{Merger, SuperPacket};
use libgeneve::offload::split::{SegmentSink, split};
use libgeneve::offload::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use libgeneve::wire::ip::{Ipv4Header, protocol};
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport::udp_header;

const BENCH_ENCAP: [u8; 8] = *b"\0\0\x08\0\0\0\x64\0";
const OFFLOAD_ROUNDS: usize = 20;
const PACKETS_PER_ROUND: u32 = 500;

fn main() {
    println!(
        "{:<28}{:>9}{:>12}{:>12}",
        "", "segments", "split ns", "merge ns"
    );
    let cases = [
        ("TCP 60 KB, 1400 B segments", true, 60_000, 1400),
        ("TCP 60 KB, 8900 B segments", true, 60_000, 8900),
        ("TCP 14 KB, 1400 B segments", true, 14_000, 1400),
        ("UDP 60 KB, 1200 B segments", false, 60_000, 1200),
        ("UDP 4 KB, 64 B segments", false, 4096, 64),
    ];
    for (name, tcp, payload, gso_size) in cases {
        let (vnet, packet, mut bytes) = super_packet(tcp, payload, gso_size);
        let mut collect = SizeCollector::default();
        split(&[], &vnet, &packet, &mut bytes, &mut collect).expect("a sound super-packet");
        let segments = collect.packets(&bytes);
        let split_ns = best(|| {
            let mut count = SegmentCounter(0);
            let result = split(&BENCH_ENCAP, &vnet, &packet, &mut bytes, &mut count);
            black_box((result.is_ok(), count.0));
        });
        let mut merger: Merger<u16> = Merger::new(16, true);
        let merge_ns = best(|| {
            let mut out = |_, packet: SuperPacket<'_, u16>| {
                black_box(packet.parts.len());
            };
            for (tag, segment) in segments.iter().enumerate() {
                let packet = Packet::parse(segment).expect("a packet that split made");
                merger.push(1, tag as u16, 0, segment, &packet, &mut out);
            }
            merger.flush(&mut out);
        });
        println!(
            "{name:<28}{:>9}{split_ns:>12.0}{merge_ns:>12.0}",
            segments.len()
        );
    }
}

fn best(mut work: impl FnMut()) -> f64 {
    let round = |_| {
        let begin = Instant::now();
        (0..PACKETS_PER_ROUND).for_each(|_| work());
        begin.elapsed().as_nanos() as f64 / f64::from(PACKETS_PER_ROUND)
    };
    (0..OFFLOAD_ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn super_packet(tcp: bool, payload: usize, gso_size: u16) -> (VnetHdr, Packet, Vec<u8>) {
    let mut transport = if tcp {
        let mut header = vec![0; 32];
        header[0..4].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
        header[12] = 0x80;
        header[13] = 0x10;
        header[20..24].copy_from_slice(&[1, 1, 8, 10]);
        header
    } else {
        udp_header(40_000, 443, payload as u16 + 8, 0).to_vec()
    };
    transport.extend((0..payload).map(|i| i as u8));
    let [src, dst] = [1, 2].map(|last| [10, 0, 0, last].into());
    let number = if tcp { protocol::TCP } else { protocol::UDP };
    let header = Ipv4Header::new(src, dst, number, transport.len() as u16);
    let bytes = [&header.to_bytes()[..], &transport].concat();
    let packet = Packet::parse(&bytes).expect("a packet of our own");
    let vnet = VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: if tcp { GsoType::TcpV4 } else { GsoType::UdpL4 },
        ecn: false,
        hdr_len: packet.payload_offset,
        gso_size,
        csum_start: 20,
        csum_offset: if tcp { 16 } else { 6 },
    };
    (vnet, packet, bytes)
}

struct SegmentCounter(usize);

impl SegmentSink for SegmentCounter {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.0 += black_box(header).len() + payload.len();
    }
}

#[derive(Default)]
struct SizeCollector(Vec<(Vec<u8>, Range<usize>)>);

impl SegmentSink for SizeCollector {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.0.push((header.to_vec(), payload));
    }
}

impl SizeCollector {
    fn packets(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let join = |(header, payload): &(Vec<u8>, Range<usize>)| {
            [header, &bytes[payload.clone()]].concat()
        };
        self.0.iter().map(join).collect()
    }
}
