//! Egress from TUN to the wire: host selection, hash, outer header, size limit, and packets without a route.

use super::*;
use crate::offload::cut::Cut;
use crate::offload::samples::SamplePacket;
use crate::wire::transport_checksum::ChecksumState;

fn to(tables: &TestTables, src: &str, dst: &str) -> Result<IpAddr, DropReason> {
    let link = tables.link(LinkIndex(0)).unwrap();
    egress(tables, link, &parsed(src, dst)).map(|forward| forward.host.addr)
}

#[test]
fn a_packet_goes_to_the_host_of_its_destination() {
    assert_eq!(to(&red(), "10.0.0.1", "10.0.0.2"), Ok(ip(HOST_B)));
    assert_eq!(to(&red(), "10.0.0.1", "10.0.0.3"), Ok(ip(HOST_C)));
    assert_eq!(to(&red(), "fd00::1", "fd00::2"), Ok(ip(HOST_B)));
}

#[test]
fn without_a_host_there_is_no_way() {
    let none = Err(DropReason::NoRoute);
    assert_eq!(to(&red(), "10.0.0.1", "10.9.9.9"), none);
    // Multicast has a drop reason of its own, because hosts send some of it by themselves.
    let multicast = Err(DropReason::NoMulticastRoute);
    assert_eq!(to(&red(), "10.0.0.1", "224.0.0.251"), multicast);
    assert_eq!(to(&red(), "10.0.0.1", "255.255.255.255"), multicast);
    assert_eq!(to(&red(), "fd00::1", "ff02::2"), multicast);
    // Packets for endpoints on this host do not leave.
    assert_eq!(to(&red(), "10.0.0.2", "10.0.0.1").unwrap_err(), {
        DropReason::SourceNotLocal
    });
    assert_eq!(to(&red(), "10.0.0.1", "10.0.0.1"), none);
    assert_eq!(to(&red(), "10.0.0.1", "10.0.0.4"), none);
}

#[test]
fn an_endpoint_of_another_host_is_no_source() {
    let forged = Err(DropReason::SourceNotLocal);
    assert_eq!(to(&red(), "10.0.0.3", "10.0.0.2"), forged);
    assert_eq!(to(&red(), "fd00::2", "fd00::2"), forged);
    // Allowed sources: our own endpoint, an address behind this host, and a routed prefix.
    assert_eq!(to(&red(), "10.0.0.4", "10.0.0.2"), Ok(ip(HOST_B)));
    assert_eq!(to(&red(), "172.16.0.1", "10.0.0.2"), Ok(ip(HOST_B)));
    assert_eq!(to(&red(), "10.7.0.1", "10.0.0.2"), Ok(ip(HOST_B)));
}

#[test]
fn rfc8926_01_a_flow_keeps_its_hash_and_its_host() {
    let tables = red();
    let link = tables.link(LinkIndex(0)).unwrap();
    let seen: HashSet<_> = (0..100u8)
        .map(|tos| {
            // Another packet of the same flow: DSCP and identification do not affect the hash.
            let mut bytes = udp("10.0.0.1", "10.7.0.9", (1000, 53), tos);
            bytes[5] = tos;
            let forward = egress(&tables, link, &Packet::parse(&bytes).unwrap()).unwrap();
            (forward.hash, forward.host.addr)
        })
        .collect();
    assert_eq!(seen.len(), 1);
}

#[test]
fn rfc8926_01_the_fragments_of_a_packet_share_a_hash() {
    let whole = parsed("10.0.0.1", "10.0.0.2");
    let first = Packet {
        fragment: Fragment::First,
        ..whole
    };
    let later = Packet {
        fragment: Fragment::Later,
        transport: crate::wire::packet::Transport::Unavailable,
        ..whole
    };
    let hasher = FlowHasher::new([1, 2]);
    assert_eq!(hasher.hash(&first), hasher.hash(&later));
    assert_ne!(hasher.hash(&first), hasher.hash(&whole));
}

#[test]
fn rfc8926_02_the_hash_covers_the_inner_headers_and_a_key() {
    let hasher = FlowHasher::new([1, 2]);
    let base = parsed("10.0.0.1", "10.0.0.2");
    let of = |src: &str, dst: &str, ports| {
        hasher.hash(&Packet::parse(&udp(src, dst, ports, 0)).unwrap())
    };
    let hashes = [
        hasher.hash(&base),
        of("10.0.0.9", "10.0.0.2", (1000, 53)),
        of("10.0.0.1", "10.0.0.3", (1000, 53)),
        of("10.0.0.1", "10.0.0.2", (1001, 53)),
        of("10.0.0.1", "10.0.0.2", (1000, 54)),
        of("10.0.0.1", "10.0.0.2", (53, 1000)),
        of("fd00::1", "fd00::2", (1000, 53)),
        hasher.hash(&Packet {
            protocol: protocol::TCP,
            ..base
        }),
        FlowHasher::new([1, 3]).hash(&base),
    ];
    assert_eq!(HashSet::from(hashes).len(), hashes.len());
}

#[test]
fn flows_spread_over_the_hosts_of_a_prefix_and_over_source_ports() {
    let tables = red();
    let link = tables.link(LinkIndex(0)).unwrap();
    let mut hosts: HashMap<IpAddr, HashSet<u64>> = HashMap::new();
    for port in 0..1000 {
        let bytes = udp("10.0.0.1", "10.7.0.9", (port, 53), 0);
        let forward = egress(&tables, link, &Packet::parse(&bytes).unwrap()).unwrap();
        let upper = forward.hash >> 60;
        hosts.entry(forward.host.addr).or_default().insert(upper);
    }
    // Both hosts are used, each with all source ports.
    assert_eq!(hosts.len(), 2);
    assert!(hosts.values().all(|ports| ports.len() == 16));
}

#[test]
fn the_header_names_the_vpc_and_the_family() {
    let tables = red();
    let link = tables.link(LinkIndex(0)).unwrap();
    for (src, dst, protocol) in [
        ("10.0.0.1", "10.0.0.2", ethertype::IPV4),
        ("fd00::1", "fd00::2", ethertype::IPV6),
    ] {
        let packet = parsed(src, dst);
        let forward = egress(&tables, link, &packet).unwrap();
        let header = Geneve::parse(&forward.encap).unwrap();
        assert_eq!(header.protocol(), protocol);
        assert_eq!(header.vni(), link.config.vni);
        assert_eq!(header.header_len(), link.encap_len());
    }
}

#[test]
fn the_limit_follows_what_the_underlay_taught() {
    let tables = red();
    let link = tables.link(LinkIndex(0)).unwrap();
    let packet = parsed("10.0.0.1", "10.0.0.2");
    let limit = || egress(&tables, link, &packet).unwrap().limit;
    assert_eq!(limit(), u16::MAX);
    let host = link.host(ip(HOST_B)).unwrap();
    host.set_path_mtu(Some(1400));
    assert_eq!(limit(), 1400 - 20 - 8 - 8);
    host.set_path_mtu(Some(20));
    assert_eq!(limit(), 68);
    host.set_path_mtu(Some(u32::MAX));
    assert_eq!(limit(), u16::MAX);
    host.set_path_mtu(None);
    assert_eq!(limit(), u16::MAX);
    assert_eq!(inner_limit(ip("2001:db8::1"), 1500, link.encap_len()), 1444);
}

#[test]
fn what_every_link_must_carry_is_fragmented_outside() {
    let tables = red();
    let link = tables.link(LinkIndex(0)).unwrap();
    let host = link.host(ip(HOST_B)).unwrap();
    let four = parsed("10.0.0.1", "10.0.0.2");
    let six = parsed("fd00::1", "fd00::2");
    let flow_verdict = |packet: &Packet, total_len| {
        let packet = Packet {
            total_len,
            dont_fragment: true,
            ..*packet
        };
        let forward = egress(&tables, link, &packet)?;
        Ok((forward.outer.df, forward.outer.fragment))
    };
    for (path, packet, longest, outer) in [
        // 36 bytes of outer headers.
        (1316, &six, 1280, (true, false)),
        (1315, &six, 1280, (false, true)),
        (576, &six, 1280, (false, true)),
        (1315, &four, 1279, (true, false)),
        (104, &four, 68, (true, false)),
        (68, &four, 68, (false, true)),
    ] {
        host.set_path_mtu(Some(path));
        assert_eq!(flow_verdict(packet, longest), Ok(outer), "{path}");
        let longer = flow_verdict(packet, longest + 1);
        assert_eq!(longer, Err(DropReason::TooBig), "{path}");
    }
}

#[test]
fn what_the_route_allows_limits_only_what_must_not_be_fragmented() {
    let limit = |df: Df, packet: &Packet| {
        let mut config = config(0, RED, GENEVE_PORT);
        config.df = df;
        let tables = tables(vec![config]);
        let link = tables.link(LinkIndex(0)).unwrap();
        let host = link.host(ip(HOST_B)).unwrap();
        host.path.set_route(Some(1450));
        let route = egress(&tables, link, packet).unwrap().limit;
        host.set_path_mtu(Some(1400));
        (route, egress(&tables, link, packet).unwrap().limit)
    };
    let packet = parsed("10.0.0.1", "10.0.0.2");
    assert_eq!(limit(Df::Set, &packet), (1450 - 36, 1400 - 36));
    assert_eq!(limit(Df::Unset, &packet), (u16::MAX, 1400 - 36));
}

fn outer_of(change: impl Fn(&mut LinkConfig), inner: &[u8]) -> OuterTx {
    let mut config = config(0, RED, GENEVE_PORT);
    change(&mut config);
    let tables = tables(vec![config]);
    let link = tables.link(LinkIndex(0)).unwrap();
    egress(&tables, link, &Packet::parse(inner).unwrap())
        .unwrap()
        .outer
}

#[test]
fn rfc8926_33_the_pipe_model_unless_the_operator_says_otherwise() {
    let inner = udp("10.0.0.1", "10.0.0.2", (1, 2), 0xb8);
    let pipe = outer_of(|_| {}, &inner);
    assert_eq!((pipe.tos, pipe.ttl), (0, None));
    let fixed = outer_of(
        |c| {
            c.tos = Tos::Fixed(0x28);
            c.ttl = Ttl::Fixed(3);
        },
        &inner,
    );
    assert_eq!((fixed.tos, fixed.ttl), (0x28, Some(3)));
    let uniform = outer_of(
        |c| {
            c.tos = Tos::Inherit;
            c.ttl = Ttl::Inherit;
        },
        &inner,
    );
    assert_eq!((uniform.tos, uniform.ttl), (0xb8, Some(7)));
    // A packet with a TTL of 0 must not be sent.
    let mut dying = inner;
    dying[8] = 0;
    assert_eq!(outer_of(|c| c.ttl = Ttl::Inherit, &dying).ttl, Some(1));
}

#[test]
fn the_ecn_bits_are_the_inner_ones_whatever_the_dscp() {
    for tos in [Tos::Fixed(0), Tos::Fixed(0xff), Tos::Inherit] {
        for ecn in 0..4 {
            let inner = udp("10.0.0.1", "10.0.0.2", (1, 2), 0x20 | ecn);
            assert_eq!(outer_of(|c| c.tos = tos, &inner).tos & 3, ecn);
        }
    }
}

#[test]
fn the_df_bit_is_what_the_operator_says() {
    let four = udp("10.0.0.1", "10.0.0.2", (1, 2), 0);
    let mut with_df = four.clone();
    with_df[6] = 0x40;
    let six = udp("fd00::1", "fd00::2", (1, 2), 0);
    for (df, expected) in [
        (Df::Set, [true, true, true]),
        (Df::Unset, [false, false, false]),
        (Df::Inherit, [false, true, true]),
    ] {
        let got = [&four, &with_df, &six].map(|inner| outer_of(|c| c.df = df, inner).df);
        assert_eq!(got, expected, "{df:?}");
    }
}

#[test]
fn rfc8926_42_a_tenants_own_geneve_packet_is_forwarded_like_any_other() {
    let tables = red();
    let link = tables.link(LinkIndex(0)).unwrap();
    // To the Geneve port, with a header of another VPC as payload.
    let mut inner = udp("10.0.0.1", "10.0.0.2", (6081, 6081), 0);
    let header = geneve(BLUE, ethertype::IPV4).control().finish();
    inner[28..36].copy_from_slice(&header);
    let packet = Packet::parse(&inner).unwrap();
    let forward = egress(&tables, link, &packet).unwrap();
    assert_eq!(forward.host.addr, ip(HOST_B));
    assert_eq!(Geneve::parse(&forward.encap).unwrap().vni().value(), RED);
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(bytes in sample::mutated(), mtu in any::<u32>()) {
        let tables = red();
        let link = tables.link(LinkIndex(0)).unwrap();
        link.host(ip(HOST_B)).unwrap().set_path_mtu(Some(mtu));
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = egress(&tables, link, &packet);
        }
    }
}

#[test]
fn what_was_wrapped_for_a_host_is_not_wrapped_for_it_again() {
    let mut config = config(0, RED, GENEVE_PORT);
    config
        .routes
        .push(route("0.0.0.0/0", &[HOST_B], RouteOrigin::Remote));
    let tables = tables(vec![config]);
    let link = tables.link(LinkIndex(0)).unwrap();
    let sent = |dst, port| {
        let bytes = udp(LOCAL_HOST, dst, (50_000, port), 0);
        egress(&tables, link, &Packet::parse(&bytes).unwrap()).map(|f| f.host.addr)
    };
    assert_eq!(sent(HOST_B, GENEVE_PORT), Err(DropReason::UnderlayLoop));
    // Other traffic to that machine may take the tunnel, and so may tunnels to other machines.
    assert_eq!(sent(HOST_B, 53), Ok(ip(HOST_B)));
    assert_eq!(sent(STRANGER, GENEVE_PORT), Ok(ip(HOST_B)));
}

/// Decides a super-packet from TUN; returns the decision and the rewritten bytes.
fn cut_of(
    world: &TestTables,
    sample: &SamplePacket,
    gso_size: u16,
) -> Result<(Encap, Packet, Vec<u8>), RefusedPacket> {
    let link = world.link(LinkIndex(0)).unwrap();
    let (vnet, mut packet, mut bytes) = sample.super_packet(gso_size);
    let mut egress = Egress::default();
    let encap = egress.decide(&world.cx(), link, &mut bytes, &mut packet, &vnet)?;
    Ok((encap, packet, bytes))
}

#[test]
fn what_leaves_is_cut_as_the_path_needs_it() {
    let world = red();
    let host = world.link(LinkIndex(0)).unwrap().host(ip(HOST_B)).unwrap();
    let of = |df, path| {
        host.set_path_mtu(Some(path));
        let sample = SamplePacket {
            df,
            payload: vec![1; 4000],
            ..SamplePacket::default()
        };
        cut_of(&world, &sample, 1000).map(|(encap, ..)| {
            let size = (encap.size.packets, encap.size.bytes);
            (forwarded(encap).cut, size)
        })
    };
    // 36 bytes of outer headers, 52 of inner ones.
    let asked = (Cut::Segments(1000), (4, 4000 + 4 * 52));
    assert_eq!(of(true, 1088), Ok(asked));
    assert_eq!(of(false, 1088), Ok(asked));
    let shorter = (Cut::Segments(500), (8, 4000 + 8 * 52));
    assert_eq!(of(false, 588), Ok(shorter));
    let refused = of(true, 588).unwrap_err();
    let told = (refused.reason, refused.answer);
    assert_eq!(told, (DropReason::TooBig, Some(SenderReply::TooBig(552))));
    host.set_path_mtu(Some(92));
    let packet = parsed("10.0.0.1", "10.0.0.2");
    let one = |dont_fragment| {
        let packet = Packet {
            dont_fragment,
            total_len: 100,
            ..packet
        };
        egress(&world, world.link(LinkIndex(0)).unwrap(), &packet).map(|forward| forward.cut)
    };
    assert_eq!(one(false), Ok(Cut::Fragments(68)));
    assert_eq!(one(true), Err(DropReason::TooBig));
}

#[test]
fn the_mss_fits_the_path_and_the_interface() {
    let world = red();
    let link = world.link(LinkIndex(0)).unwrap();
    let mss = |path| {
        link.host(ip(HOST_B)).unwrap().set_path_mtu(path);
        let sample = SamplePacket {
            flags: TcpFlags::SYN,
            options: vec![2, 4, 0xff, 0xff],
            payload: Vec::new(),
            ..SamplePacket::default()
        };
        let mut bytes = sample.bytes();
        let mut packet = Packet::parse(&bytes).unwrap();
        let mut egress = Egress::default();
        let none = &VnetHdr::NONE;
        let encap = egress.decide(&world.cx(), link, &mut bytes, &mut packet, none);
        assert!(matches!(encap.unwrap().output, Output::Host(_)));
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
        u16::from_be_bytes([bytes[42], bytes[43]])
    };
    assert_eq!(mss(None), link.config.mtu - 40);
    assert_eq!(mss(Some(1000)), 1000 - 36 - 40);
}

#[test]
fn a_super_packet_may_leave_uncut_whose_segments_are_what_its_receiver_takes_them_for() {
    let world = red();
    let link = world.link(LinkIndex(0)).unwrap();
    let full = link.config.mtu - 52;
    let sample = SamplePacket {
        payload: vec![1; 8000],
        ..SamplePacket::default()
    };
    let uncut = |gso_size| forwarded(cut_of(&world, &sample, gso_size).unwrap().0).uncut;
    assert!(uncut(full) && !uncut(full - 1) && !uncut(1000));
    let mtus = &world.state.path_mtus;
    mtus.report(LinkIndex(0), ip("10.0.0.2"), 1052, world.now);
    assert!(uncut(1000) && !uncut(full));
}

#[test]
fn nothing_is_sent_that_would_come_back() {
    let mut registry = HostRegistry::default();
    let link = Link::new(config(0, RED, GENEVE_PORT), &mut registry)
        .excluding_loops(|addr| addr == ip(HOST_B));
    let tables = Tables::new([Arc::new(link)], FlowHasher::new([1, 2]));
    let world = TestTables { tables, ..red() };
    assert_eq!(
        to(&world, "10.0.0.1", "10.0.0.2"),
        Err(DropReason::UnderlayLoop)
    );
    assert_eq!(to(&world, "10.0.0.1", "10.0.0.3"), Ok(ip(HOST_C)));
}
