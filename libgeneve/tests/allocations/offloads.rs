//! Segmentation of super-packets, and merging of trains.

use super::*;

/// Returns the `virtio_net_hdr` of a super-packet.
fn offload(bytes: &[u8], gso_type: GsoType, gso_size: u16) -> VnetHdr {
    let packet = Packet::parse(bytes).unwrap();
    VnetHdr {
        flags: NEEDS_CSUM,
        gso_type,
        ecn: false,
        hdr_len: packet.payload_offset,
        gso_size,
        csum_start: packet.transport_offset,
        csum_offset: if gso_type == GsoType::UdpL4 { 6 } else { 16 },
    }
}

#[test]
fn cutting_super_packets_allocates_nothing() {
    let (a, b) = ((ip("10.0.0.1"), 40_000), (ip("10.0.0.2"), 443));
    let (a6, b6) = ((ip("fd00::1"), 40_000), (ip("fd00::2"), 443));
    let tcp4 = packet(a, b, TCP_ACK, 64_000);
    let tcp6 = packet(a6, b6, TCP_ACK, 64_000);
    let udp4 = packet(a, b, PayloadKind::Udp, 9_000);
    let mut syn = packet(a, b, TCP_SYN, 4);
    // Turn the payload into an MSS option, which is clamped.
    syn[32] = 0x60;
    syn[40..44].copy_from_slice(&[2, 4, 0x23, 0]);
    let cases = [
        (Ok(()), offload(&tcp4, GsoType::TcpV4, 1400), tcp4),
        (Ok(()), offload(&tcp6, GsoType::TcpV6, 1380), tcp6),
        (Ok(()), offload(&udp4, GsoType::UdpL4, 1200), udp4.clone()),
        (Ok(()), VnetHdr::NONE, udp4),
        (Ok(()), VnetHdr::NONE, syn),
        (
            Err(DropReason::TooBig),
            VnetHdr::NONE,
            packet(a6, b6, PayloadKind::Udp, 2_000),
        ),
    ];
    for functions in [LinkFunctions::default(), functions(100)] {
        let world = LinkWorld::new(functions, FlowLimits::default());
        let host = world.link().host(ip(WORLD_HOST_B)).expect("it is known");
        host.set_path_mtu(Some(1600));
        let mut worker = TestWorker::new();
        let work: Vec<_> = cases
            .iter()
            .map(|(fate, vnet, bytes)| {
                let mut parcel = outward("", bytes.clone());
                parcel.way = ParcelDirection::Out(*vnet);
                (*fate, parcel)
            })
            .collect();
        let mut round = || {
            for (fate, parcel) in &work {
                assert_eq!(worker.carry(&world, parcel), *fate);
            }
            worker.settle(&world);
        };
        round();
        assert_eq!(
            allocations(|| (0..ALLOCATION_ROUNDS).for_each(|_| round())),
            0
        );
        assert!(worker.out.packets > 100 * ALLOCATION_ROUNDS);
    }
}

#[test]
fn merging_trains_allocates_nothing() {
    let world = LinkWorld::new(LinkFunctions::default(), FlowLimits::default());
    let plain = |bytes: &[u8]| behind(&header(SentOptions::default(), bytes), bytes);
    let (a, b) = ((ip("10.0.0.1"), 443), (ip("10.0.0.2"), 40_000));
    let mut train: Vec<Vec<u8>> = Vec::new();
    // A flow of each family, which are merged; then packets that are not merged, and dropped ones.
    for (src, dst) in [(b, a), ((ip("fd00::2"), 40_000), (ip("fd00::1"), 443))] {
        for at in 0..40u32 {
            let kind = PayloadKind::Tcp(libgeneve::wire::transport::TcpFlags::ACK, 1000 * at);
            let mut segment = packet(src, dst, kind, 1000);
            if src == b {
                segment[5] = at as u8;
                write_ipv4_checksum(&mut segment);
            }
            train.push(plain(&segment));
        }
    }
    for at in 0..40 {
        train.push(plain(&packet(b, a, PayloadKind::Udp, 100 + at)));
    }
    let mut unfinished = packet(b, a, TCP_ACK, 8_000);
    let parsed = Packet::parse(&unfinished).unwrap();
    assert!(parsed.write_partial_checksum(&mut unfinished));
    train.push(plain(&unfinished));
    let mut other_family = plain(&unfinished);
    other_family[2..4].copy_from_slice(&[0x86, 0xdd]);
    train.push(other_family);
    train.push(train[0][..7].to_vec());
    train.push(plain(&packet(a, b, TCP_ACK, 10)));
    let ParcelDirection::In(arrival) = inward("", WORLD_HOST_B, Vec::new()).way else {
        unreachable!("it is inward");
    };
    let mut ingress = Ingress::default();
    let mut merger: Merger<usize> = Merger::new(16, true);
    let (mut packets, mut written, mut unmerged, mut dropped) = (0, 0, 0, 0);
    let mut round = || {
        let mut out = |_: u64, packet: SuperPacket<'_, usize>| {
            written += 1;
            packets += usize::from(packet.segments);
        };
        for (tag, datagram) in train.iter_mut().enumerate() {
            let Ok(decap) = ingress.decide(&world.cx(), &arrival, datagram) else {
                dropped += 1;
                continue;
            };
            let inner = &mut datagram[decap.start..];
            match decap.vnet {
                Some(_) => {
                    merger.flush(&mut out);
                    unmerged += 1;
                }
                None => merger.push(decap.lane, tag, 0, inner, &decap.packet, &mut out),
            }
        }
        merger.flush(&mut out);
        ingress.flush(&world.cx());
    };
    round();
    assert_eq!(
        allocations(|| (0..ALLOCATION_ROUNDS).for_each(|_| round())),
        0
    );
    let rounds = ALLOCATION_ROUNDS + 1;
    assert_eq!(unmerged, rounds);
    assert_eq!(packets + unmerged + dropped, train.len() * rounds);
    assert_eq!(dropped, 3 * rounds);
    // In both families, each flow was merged into one super-packet.
    assert!(
        written <= packets - 2 * 39 * rounds,
        "{written} of {packets}"
    );
}
