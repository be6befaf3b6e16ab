//! `virtio_net_hdr` as a tenant may forge it: what it is said to mean is the same everywhere, and what is written for
//! the kernel is a header that it can act on.
//!
//! Input: an MTU (two bytes, big-endian), a number of bytes, `virtio_net_hdr` (10 bytes), the inner packet.
#![no_main]

use std::ops::Range;

use libfuzzer_sys::fuzz_target;
use libgeneve::offload::cut::{Cut, WireSize, longest_segment};
use libgeneve::offload::partial::{cut_to, partial};
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::split::split;
use libgeneve::offload::vnet::{self, GsoType, VnetError, VnetHdr};
use libgeneve::wire::packet::Packet;

const FUZZ_VNET_ENCAP: [u8; 8] = *b"\0\0\x08\0\0\0\x64\0";

/// Lengths of the inner packets, and their payloads in order.
#[derive(Default)]
struct LengthCollector(Vec<(usize, Range<usize>)>);

impl SegmentSink for LengthCollector {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        let len = header.len() - FUZZ_VNET_ENCAP.len() + payload.len();
        self.0.push((len, payload));
    }
}

fuzz_target!(|data: &[u8]| {
    let [high, low, moved, rest @ ..] = data else {
        return;
    };
    let mtu = u16::from_be_bytes([*high, *low]);
    let vnet = match VnetHdr::parse(rest) {
        Err(VnetError::Truncated) => {
            assert!(rest.len() < vnet::LEN);
            return;
        }
        Err(VnetError::GsoType(kind)) => {
            assert_eq!(kind, rest[1]);
            return;
        }
        Err(other) => panic!("an error that nobody told of: {other}"),
        Ok(vnet) => vnet,
    };
    let (header, bytes) = rest.split_at(vnet::LEN);
    assert_eq!(written(&vnet), header);
    moves(&vnet, usize::from(*moved));

    let mut bytes = bytes.to_vec();
    let Ok(packet) = Packet::parse(&bytes) else {
        return;
    };
    egress(vnet, &packet, &mut bytes, mtu);
    ingress(&packet, &mut bytes, mtu);
});

fn written(vnet: &VnetHdr) -> [u8; vnet::LEN] {
    let mut bytes = [0xaa; vnet::LEN];
    vnet.write(&mut bytes);
    bytes
}

/// Checks that a header can be shifted for an outer header and back.
fn moves(vnet: &VnetHdr, len: usize) {
    let before = vnet.before(len);
    assert_eq!(before.gso_size, vnet.gso_size);
    assert_eq!(VnetHdr::parse(&written(&before)), Ok(before));
    let Some(behind) = vnet.behind(len) else {
        assert!(vnet.needs_checksum() && usize::from(vnet.csum_start) < len);
        return;
    };
    if vnet.needs_checksum() {
        assert_eq!(behind.before(len).csum_start, vnet.csum_start);
    }
}

/// Checks that the predicted counts of packets and bytes are exact, that no packet exceeds the limit, and that none
/// that fits is refused.
fn egress(vnet: VnetHdr, packet: &Packet, bytes: &mut [u8], mtu: u16) {
    let Some(cut) = Cut::to_fit(&vnet, packet, mtu) else {
        assert!(longest_segment(&vnet, packet) > usize::from(mtu));
        return;
    };
    let size = WireSize::of(&cut.resized(&vnet), packet);
    let mut out = LengthCollector::default();
    let Ok(split) = cut.carry_out(&FUZZ_VNET_ENCAP, &vnet, packet, bytes, &mut out) else {
        assert!(out.0.is_empty());
        assert!(size.packets > 0, "what is dropped is counted");
        return;
    };
    assert_eq!(usize::from(split.segments), out.0.len());
    assert!(out.0.iter().all(|(len, _)| *len <= usize::from(mtu)));
    for pair in out.0.windows(2) {
        assert_eq!(pair[0].1.end, pair[1].1.start);
    }
    let end = out.0.last().expect("there is one").1.end;
    assert_eq!(end, usize::from(packet.total_len));
    if !matches!(cut, Cut::Fragments(_)) {
        assert_eq!(out.0.len() as u64, size.packets);
        assert_eq!(
            out.0.iter().map(|(len, _)| *len as u64).sum::<u64>(),
            size.bytes
        );
    }
}

/// Checks that the offsets reported to the kernel for an unfinished packet are in bounds, and that our own parser
/// accepts them.
fn ingress(packet: &Packet, bytes: &mut [u8], mtu: u16) {
    let Ok(Some(mut finish)) = partial(bytes, packet, mtu.into()) else {
        return;
    };
    cut_to(&mut finish, packet, mtu / 2);
    assert_eq!(VnetHdr::parse(&written(&finish)), Ok(finish));
    assert!(finish.needs_checksum());
    assert!(finish.csum_start + finish.csum_offset + 2 <= packet.total_len);
    assert!(finish.hdr_len <= packet.total_len);
    assert_eq!(finish.gso_type == GsoType::None, finish.gso_size == 0);
    let mut out = LengthCollector::default();
    let split = split(&FUZZ_VNET_ENCAP, &finish, packet, bytes, &mut out);
    assert!(split.is_ok() || finish.gso_type != GsoType::None);
}
