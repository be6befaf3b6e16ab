//! Segmentation of super-packets: the segments carry the payload of the whole, and each is a sound packet.
//!
//! Input: `virtio_net_hdr` (10 bytes), the inner packet.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use libgeneve::offload::split::{SegmentSink, split};
use libgeneve::offload::vnet::{self, GsoType, VnetHdr};
use libgeneve::wire::ip;
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport_checksum::ChecksumState;

const FUZZ_SPLIT_ENCAP: [u8; 16] = *b"\x02\0\x08\0\0\0\x64\0\xff\x47\x01\x01abcd";

#[derive(Default)]
struct SplitCollector(Vec<(Vec<u8>, Range<usize>)>);

impl SegmentSink for SplitCollector {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.0.push((header.to_vec(), payload));
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(vnet) = VnetHdr::parse(data) else {
        return;
    };
    let mut hdr = [0; vnet::LEN];
    vnet.write(&mut hdr);
    assert_eq!(hdr, data[..vnet::LEN]);

    let mut bytes = data[vnet::LEN..].to_vec();
    let Ok(packet) = Packet::parse(&bytes) else {
        return;
    };
    let mut out = SplitCollector::default();
    let Ok(split) = split(&FUZZ_SPLIT_ENCAP, &vnet, &packet, &mut bytes, &mut out) else {
        assert!(out.0.is_empty());
        return;
    };
    assert_eq!(usize::from(split.segments), out.0.len());
    if vnet.gso_type == GsoType::None {
        let whole = 0..usize::from(packet.total_len);
        assert_eq!(out.0, [(FUZZ_SPLIT_ENCAP.to_vec(), whole)]);
        assert_eq!(Packet::parse(&bytes), Ok(packet));
        return;
    }
    let mut at = usize::from(packet.payload_offset);
    for (header, payload) in &out.0 {
        assert_eq!(payload.start, at);
        at = payload.end;
        let whole = [header, &bytes[payload.clone()]].concat();
        let inner = whole.strip_prefix(&FUZZ_SPLIT_ENCAP).expect("encapsulated");
        assert!(whole.len() <= split.segment_len as usize);
        let piece = Packet::parse(inner).expect("a sound packet");
        assert_eq!(usize::from(piece.total_len), inner.len());
        let state = piece.checksum_state(inner);
        assert!(matches!(
            state,
            ChecksumState::Valid | ChecksumState::Partial
        ));
        assert!(inner[0] >> 4 == 6 || ip::ipv4_checksum_holds(inner));
    }
    assert_eq!(at, usize::from(packet.total_len));
});
