//! Changes to an inner packet in transit: ECN, DSCP, MSS, and fragmentation.
//!
//! Input: outer TOS, another TOS, limit (2 bytes), the inner packet.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use libgeneve::offload::fragment::fragment;
use libgeneve::offload::split::SegmentSink;
use libgeneve::offload::vnet::VnetHdr;
use libgeneve::wire::ip::{self, Ipv4};
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport_checksum::ChecksumState;
use libgeneve::{ecn, mtu};

#[derive(Default)]
struct HeaderCollector(Vec<(Vec<u8>, Range<usize>)>);

impl SegmentSink for HeaderCollector {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.0.push((header.to_vec(), payload));
    }
}

fuzz_target!(|data: &[u8]| {
    let [outer, tos, high, low, bytes @ ..] = data else {
        return;
    };
    let limit = u16::from_be_bytes([*high, *low]);
    let mut bytes = bytes.to_vec();
    ip::write_ipv4_checksum(&mut bytes);
    let Ok(mut packet) = Packet::parse(&bytes) else {
        return;
    };

    let before = packet.checksum_state(&bytes);
    ecn::set_tos(&mut bytes, &mut packet, *tos);
    let _ = ecn::decapsulate(*outer, &mut bytes, &mut packet);
    assert_eq!(Packet::parse(&bytes), Ok(packet));
    assert_eq!(packet.checksum_state(&bytes), before);
    assert!(bytes[0] >> 4 == 6 || ip::ipv4_checksum_holds(&bytes));

    let is_partial = before == ChecksumState::Partial;
    mtu::clamp_mss(&mut bytes, &packet, limit, is_partial);
    let after = packet.checksum_state(&bytes);
    // An updated checksum may look partial by chance.
    assert!(
        after == before
            || before == ChecksumState::Valid && after == ChecksumState::Partial
            || before == ChecksumState::Wrong && after == ChecksumState::Partial
    );

    let mut out = HeaderCollector::default();
    if fragment(&[], &VnetHdr::NONE, &packet, &mut bytes, limit, &mut out).is_err() {
        assert!(out.0.is_empty());
        return;
    }
    if out.0.len() == 1 {
        return;
    }
    let mut at = usize::from(packet.transport_offset);
    for (header, payload) in &out.0 {
        assert_eq!(payload.start, at);
        at = payload.end;
        let piece = [header, &bytes[payload.clone()]].concat();
        assert!(piece.len() <= usize::from(limit));
        let header = Ipv4::parse(&piece).expect("an IPv4 packet");
        assert!(header.checksum_holds());
        assert_eq!(usize::from(header.total_len.get()), piece.len());
    }
    assert_eq!(at, usize::from(packet.total_len));
});
