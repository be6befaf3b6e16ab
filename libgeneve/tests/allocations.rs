//! The packet path allocates nothing: after set-up, thousands of packets of every kind go both ways,
//! good ones and bad ones, and the allocator is not called once.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use libgeneve::datapath::{self, Arrival, Ingress};
use libgeneve::drop::DropReason;
use libgeneve::flow::FlowHasher;
use libgeneve::label::{LabelKey, LabelMap, Labels, Selector};
use libgeneve::link::{
    Df, HostRegistry, Link, LinkConfig, LinkIndex, RouteConfig, Tables, Tos, Ttl,
};
use libgeneve::mtu;
use libgeneve::offload::fragment::fragment;
use libgeneve::offload::merge::{Merger, SuperPacket};
use libgeneve::offload::partial::partial;
use libgeneve::offload::segments::Segments;
use libgeneve::offload::split::split;
use libgeneve::offload::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use libgeneve::options::{Attach, ClassOption, OptionMatch, Received, Schema};
use libgeneve::route::Origin;
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, Vni};
use libgeneve::wire::ip::{Ipv4Header, Ipv6Header, protocol, write_ipv4_checksum};
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport::udp_header;

const HERE4: &str = "10.0.0.1";
const THERE4: &str = "10.0.0.2";
const HERE6: &str = "fd00::1";
const THERE6: &str = "fd00::2";
const HOST: &str = "192.0.2.2";
const ROUNDS: usize = 500;

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn tables() -> Tables {
    let there = |prefix: &str| RouteConfig {
        prefix: prefix.parse().unwrap(),
        hosts: vec![ip(HOST)],
        origin: Origin::Endpoint,
    };
    let config = LinkConfig {
        index: LinkIndex(0),
        vni: Vni::new(100).unwrap(),
        port: GENEVE_PORT,
        local: None,
        ttl: Ttl::Auto,
        tos: Tos::Inherit,
        df: Df::Set,
        udp6_zero_csum_rx: false,
        mtu: 1464,
        addresses: vec![ip(HERE4), ip(HERE6)],
        routes: vec![there("10.0.0.2/32"), there("fd00::2/128")],
    };
    let link = Link::new(config, &mut HostRegistry::default());
    Tables::new([Arc::new(link)], FlowHasher::new([1, 2]))
}

/// A whole packet with good checksums. TCP has 20 bytes of header.
fn packet(src: &str, dst: &str, tcp: bool, seq: u32, payload: usize) -> Vec<u8> {
    let mut transport = if tcp {
        let mut header = vec![0; 20];
        header[..4].copy_from_slice(&[0x9c, 0x40, 0x01, 0xbb]);
        header[4..8].copy_from_slice(&seq.to_be_bytes());
        header[12..14].copy_from_slice(&[0x50, 0x10]);
        header
    } else {
        udp_header(1000, 53, (8 + payload) as u16, 0).to_vec()
    };
    transport.resize(transport.len() + payload, 0x5a);
    let number = if tcp { protocol::TCP } else { protocol::UDP };
    let header = match (ip(src), ip(dst)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => Ipv4Header {
            tos: 2,
            total_len: (20 + transport.len()) as u16,
            identification: 0,
            dont_fragment: tcp,
            ttl: 64,
            protocol: number,
            src,
            dst,
        }
        .to_bytes()
        .to_vec(),
        (IpAddr::V6(src), IpAddr::V6(dst)) => Ipv6Header {
            traffic_class: 2,
            flow_label: 0,
            payload_len: transport.len() as u16,
            next_header: number,
            hop_limit: 64,
            src,
            dst,
        }
        .to_bytes()
        .to_vec(),
        _ => panic!("one family"),
    };
    let mut bytes = [header, transport].concat();
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.write_checksum(&mut bytes));
    bytes
}

/// What TUN would say about the super-packet.
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

/// Counts what it is given, and writes the headers down where there is room already.
struct Wire {
    packets: usize,
    header: [u8; 512],
}

impl Segments for Wire {
    fn segment(&mut self, header: &[u8], _payload: Range<usize>) {
        self.header[..header.len()].copy_from_slice(header);
        self.packets += 1;
    }
}

fn send(
    tables: &Tables,
    vnet: &VnetHdr,
    bytes: &mut [u8],
    out: &mut Wire,
) -> Result<(), DropReason> {
    let link = tables.link(LinkIndex(0)).ok_or(DropReason::LinkGone)?;
    let packet = Packet::parse(bytes).map_err(datapath::parse_reason)?;
    let forward = datapath::egress(tables, link, &packet)?;
    let most = forward.limit.min(link.config.mtu);
    mtu::clamp_mss(bytes, &packet, most, vnet.needs_checksum());
    if datapath::longest_segment(vnet, &packet) > usize::from(most) {
        fragment(forward.encap, vnet, &packet, bytes, most, out)?;
    } else {
        split(forward.encap, vnet, &packet, bytes, out)?;
    }
    Ok(())
}

#[test]
fn egress_allocates_nothing() {
    let tables = tables();
    let plain = VnetHdr::NONE;
    let tcp4 = packet(HERE4, THERE4, true, 1, 64_000);
    let tcp6 = packet(HERE6, THERE6, true, 1, 64_000);
    let udp4 = packet(HERE4, THERE4, false, 0, 9_000);
    let mut syn = packet(HERE4, THERE4, true, 1, 4);
    // The payload becomes an MSS option that is to be clamped.
    syn[32..34].copy_from_slice(&[0x60, 0x02]);
    syn[40..44].copy_from_slice(&[2, 4, 0x23, 0]);
    let mut work = [
        (offload(&tcp4, GsoType::TcpV4, 1400), tcp4),
        (offload(&tcp6, GsoType::TcpV6, 1380), tcp6),
        (offload(&udp4, GsoType::UdpL4, 1200), udp4.clone()),
        (plain, udp4),
        (plain, packet(HERE6, THERE6, false, 0, 100)),
        (plain, syn),
        // No way, forged, too big, not IP, broken.
        (plain, packet(HERE4, "10.9.9.9", true, 1, 10)),
        (plain, packet(THERE4, THERE4, true, 1, 10)),
        (plain, packet(HERE6, THERE6, false, 0, 2_000)),
        (plain, vec![0x50; 40]),
        (plain, vec![0x45; 12]),
    ];
    let mut out = Wire {
        packets: 0,
        header: [0; 512],
    };
    let mut drops = [0u64; DropReason::COUNT];
    let counted = allocation_counter::measure(|| {
        for _ in 0..ROUNDS {
            for (vnet, bytes) in &mut work {
                if let Err(reason) = send(&tables, vnet, bytes, &mut out) {
                    drops[reason as usize] += 1;
                }
            }
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
    let dropped: u64 = drops.iter().sum();
    assert_eq!(dropped, 5 * ROUNDS as u64);
    assert!(out.packets > 100 * ROUNDS, "{}", out.packets);
}

#[test]
fn ingress_allocates_nothing() {
    let tables = tables();
    let header4 = tables.link(LinkIndex(0)).unwrap().encap_v4;
    let header6 = tables.link(LinkIndex(0)).unwrap().encap_v6;
    let mut train: Vec<Vec<u8>> = Vec::new();
    // A flow of either family, which merge; then what does not merge, and what is dropped.
    for (header, src, dst) in [(header4, THERE4, HERE4), (header6, THERE6, HERE6)] {
        for at in 0..40u32 {
            let mut segment = packet(src, dst, true, 1000 * at, 1000);
            if header == header4 {
                segment[5] = at as u8;
                write_ipv4_checksum(&mut segment);
            }
            train.push([&header[..], &segment].concat());
        }
    }
    for at in 0..40 {
        let udp = packet(THERE4, HERE4, false, 0, 100 + at);
        train.push([&header4[..], &udp].concat());
    }
    let mut unfinished = packet(THERE4, HERE4, true, 1, 8_000);
    let parsed = Packet::parse(&unfinished).unwrap();
    assert!(parsed.write_partial_checksum(&mut unfinished));
    train.push([&header4[..], &unfinished].concat());
    train.push([&header6[..], &unfinished].concat());
    train.push(header4[..7].to_vec());
    train.push([&header4[..], &packet(HERE4, THERE4, true, 1, 10)].concat());
    let arrival = Arrival {
        port: GENEVE_PORT,
        src: ip(HOST),
        dst: None,
        tos: 3,
    };
    let mut ingress = Ingress::default();
    let mut merger: Merger<usize> = Merger::new(16, true);
    let (mut packets, mut written, mut unmerged, mut dropped) = (0, 0, 0, 0);
    let counted = allocation_counter::measure(|| {
        for _ in 0..ROUNDS {
            let mut out = |_: u64, packet: SuperPacket<'_, usize>| {
                written += 1;
                packets += usize::from(packet.segments);
            };
            for (tag, datagram) in train.iter_mut().enumerate() {
                let Ok(decap) = ingress.decide(&tables, &arrival, datagram) else {
                    dropped += 1;
                    continue;
                };
                let inner = &mut datagram[decap.start..];
                match partial(inner, &decap.packet, 1464) {
                    Err(_) => dropped += 1,
                    Ok(Some(_)) => {
                        merger.flush(&mut out);
                        unmerged += 1;
                    }
                    Ok(None) => {
                        mtu::clamp_mss(inner, &decap.packet, 1464, false);
                        merger.push(decap.lane, tag, 0, inner, &decap.packet, &mut out);
                    }
                }
            }
            merger.flush(&mut out);
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert_eq!(unmerged, ROUNDS);
    assert_eq!(packets + unmerged + dropped, train.len() * ROUNDS);
    assert_eq!(dropped, 3 * ROUNDS);
    // Both families were merged, each flow into one.
    assert!(
        written <= packets - 2 * 39 * ROUNDS,
        "{written} of {packets}"
    );
}

#[test]
fn options_and_labels_allocate_nothing() {
    let key = LabelKey::from_secret(b"a secret for tests");
    let labels: LabelMap = "app=web,tier=front".parse().unwrap();
    let selector: Selector = "app in (web,db),!gone".parse().unwrap();
    let (labels, selector) = (labels.hashed(&key).unwrap(), selector.hashed(&key));
    let wanted: OptionMatch = "geneved:3=0700/ff00".parse().unwrap();
    let schema = Schema::default();
    let attach = Attach {
        labels: Some((labels, true)),
        class: Some(ClassOption {
            class: 7,
            drop_precedence: 1,
        }),
        ..Attach::default()
    };
    let counted = allocation_counter::measure(|| {
        for _ in 0..ROUNDS {
            let header = attach.header(&schema, Vni::MAX, 0x0800, []).unwrap();
            let geneve = Geneve::parse(&header).unwrap();
            let received = Received::read(&schema, &geneve).unwrap();
            let known = Labels::Known(received.labels.as_deref().unwrap());
            assert_eq!(selector.decide(known), Some(true));
            assert!(wanted.matches(geneve.options()));
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn an_allocation_would_be_counted() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1u8; 9])));
    assert_eq!(counted.count_total, 1);
}
