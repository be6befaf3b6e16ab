//! Splits a TCP super-packet, as a TUN interface hands it over, into segments for the wire, and merges them again.
//!
//! `cargo run -p libgeneve --no-default-features --example split_and_merge`

use std::error::Error;
use std::ops::Range;

use libgeneve::offload::merge::{Merger, SuperPacket};
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::split::split;
use libgeneve::offload::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use libgeneve::wire::geneve::{GeneveBuilder, Vni, protocol_type};
use libgeneve::wire::ip::{Ipv4Header, protocol};
use libgeneve::wire::packet::Packet;

/// Payload bytes of each segment.
const MSS: u16 = 1400;

/// Returns a TCP packet with this many bytes of payload.
fn tcp(payload: u16) -> Vec<u8> {
    let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let header = Ipv4Header::new(src, dst, protocol::TCP, 20 + payload);
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend(40_000u16.to_be_bytes());
    bytes.extend(443u16.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend((0..payload).map(|at| at as u8));
    bytes
}

/// Collects the segments; a real sender would keep the ranges, and pass both to the kernel as an iovec.
struct Datagrams<'a> {
    payload: &'a [u8],
    made: Vec<Vec<u8>>,
}

impl SegmentSink for Datagrams<'_> {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.made.push([header, &self.payload[payload]].concat());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut bytes = tcp(10_000);
    let packet = Packet::parse(&bytes)?;
    packet.write_partial_checksum(&mut bytes);
    // The header that TUN puts before the packet: segment it, and finish the checksum of each segment.
    let vnet = VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: GsoType::TcpV4,
        gso_size: MSS,
        hdr_len: packet.payload_offset,
        csum_start: packet.transport_offset,
        csum_offset: 16,
        ..VnetHdr::NONE
    };
    let header = GeneveBuilder::new(Vni::new(100).ok_or("a VNI")?, protocol_type::IPV4).finish();
    let payload = bytes.clone();
    let mut out = Datagrams {
        payload: &payload,
        made: Vec::new(),
    };
    let cut = split(&header, &vnet, &packet, &mut bytes, &mut out)?;
    println!(
        "{} segments of {} bytes, the last of {}",
        cut.segments, cut.segment_len, cut.last_len
    );

    // The other direction: buffers are identified by a tag, here their number, and parts of the output are ranges in
    // them.
    let mut merged = Vec::new();
    let mut take = |_lane: u64, packet: SuperPacket<'_, usize>| {
        println!(
            "a super-packet of {} segments, cut at {} bytes: {} bytes of headers and {} ranges",
            packet.segments,
            packet.vnet.gso_size,
            packet.header.len(),
            packet.parts.len()
        );
        merged.push(packet.segments);
    };
    let mut merger = Merger::new(8, true);
    for (tag, datagram) in out.made.iter().enumerate() {
        let start = header.len() as u32;
        let inner = &datagram[header.len()..];
        merger.push(0, tag, start, inner, &Packet::parse(inner)?, &mut take);
    }
    merger.flush(&mut take);
    assert_eq!(merged, [cut.segments]);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
