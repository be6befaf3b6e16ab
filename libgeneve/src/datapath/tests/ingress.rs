//! Ingress from the wire to TUN: all drop reasons, and what passes.

use std::net::Ipv6Addr;

use super::*;
use crate::offload::samples::SamplePacket;

#[test]
fn a_good_packet_passes_in_both_families() {
    let decap = decide(&red(), &arrival(HOST_B), from_b(RED)).unwrap();
    assert_eq!((decap.link, decap.start), (LinkIndex(0), 8));
    assert_eq!(decap.packet.dst, ip("10.0.0.1"));
    let six = udp("fd00::2", "fd00::1", (1, 2), 0);
    let decap = decide(
        &red(),
        &arrival(HOST_B),
        behind(geneve(RED, ethertype::IPV6), &six),
    );
    assert_eq!(decap.unwrap().packet.src, ip("fd00::2"));
}

#[test]
fn headers_that_are_not_sound_belong_to_no_link() {
    let good = from_b(RED);
    assert_nobodys(good[..7].to_vec(), DropReason::GeneveTruncated);
    assert_nobodys(Vec::new(), DropReason::GeneveTruncated);
    let mut version = good.clone();
    version[0] |= 0x40;
    assert_nobodys(version, DropReason::GeneveVersion);
    let mut beyond = good;
    beyond[0] = 63;
    assert_nobodys(beyond, DropReason::GeneveTruncated);
    let option = geneve(RED, ethertype::IPV4).option(OPTION_CLASS, OptionType(1), &[0; 4]);
    let mut lengths = behind(option.unwrap(), &[]);
    lengths[11] = 2;
    assert_nobodys(lengths, DropReason::GeneveOptionLength);
}

#[test]
fn an_unknown_vni_belongs_to_no_link() {
    for vni in [0, RED + 1, 0xff_ffff] {
        assert_nobodys(from_b(vni), DropReason::UnknownVni);
    }
    let elsewhere = OuterRx {
        port: OTHER_PORT,
        ..arrival(HOST_B)
    };
    let refused = decide(&red(), &elsewhere, from_b(RED)).unwrap_err();
    assert_eq!(refused.reason, DropReason::UnknownVni);
}

#[test]
fn only_hosts_of_the_vpc_may_send() {
    for stranger in [STRANGER, LOCAL_HOST, "2001:db8::1", "::ffff:192.0.2.2"] {
        let refused = decide(&red(), &arrival(stranger), from_b(RED)).unwrap_err();
        assert_eq!(refused.reason, DropReason::UnknownHost, "{stranger}");
        assert_eq!(refused.link, Some(LinkIndex(0)));
    }
}

#[test]
fn the_outer_destination_must_be_the_links_own() {
    let mut at_home = config(0, RED, GENEVE_PORT);
    at_home.local = Some(ip(LOCAL_HOST));
    let tables = tables(vec![at_home]);
    let to = |dst: Option<&str>| OuterRx {
        dst: dst.map(ip),
        ..arrival(HOST_B)
    };
    assert!(decide(&tables, &to(Some(LOCAL_HOST)), from_b(RED)).is_ok());
    // If the kernel did not report the destination address, there is nothing to compare.
    assert!(decide(&tables, &to(None), from_b(RED)).is_ok());
    let refused = decide(&tables, &to(Some("192.0.2.99")), from_b(RED)).unwrap_err();
    assert_eq!(refused.reason, DropReason::WrongLocal);
    // A link without a local address accepts any destination address of the machine.
    assert!(decide(&red(), &to(Some("192.0.2.99")), from_b(RED)).is_ok());
}

#[test]
fn the_inner_source_must_live_on_the_sender() {
    let source = |src: &str, host: &str| {
        let inner = udp(src, "10.0.0.1", (1, 2), 0);
        let datagram = behind(geneve(RED, ethertype::IPV4), &inner);
        decide(&red(), &arrival(host), datagram)
            .map(|_| ())
            .map_err(|r| r.reason)
    };
    assert_eq!(source("10.0.0.2", HOST_B), Ok(()));
    assert_eq!(source("10.0.0.2", HOST_C), Err(DropReason::SourceMismatch));
    assert_eq!(source("10.0.0.3", HOST_B), Err(DropReason::SourceMismatch));
    // Our own addresses, our own endpoints, and unassigned addresses.
    assert_eq!(source("10.0.0.1", HOST_B), Err(DropReason::SourceMismatch));
    assert_eq!(source("10.0.0.4", HOST_B), Err(DropReason::SourceMismatch));
    assert_eq!(source("10.9.9.9", HOST_B), Err(DropReason::SourceMismatch));
    // A prefix behind two hosts is a valid source from both.
    assert_eq!(source("10.7.1.1", HOST_B), Ok(()));
    assert_eq!(source("10.7.1.1", HOST_C), Ok(()));
}

#[test]
fn rfc8926_16_an_unknown_critical_option_drops_the_packet() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1, 2), 0);
    let with = |kind: u8| {
        geneve(RED, ethertype::IPV4)
            .option(OPTION_CLASS, OptionType(1), &[0; 8])
            .and_then(|b| b.option(OPTION_CLASS, OptionType(kind), &[0; 4]))
            .unwrap()
    };
    assert_refused(
        behind(with(0x81), &inner),
        DropReason::UnknownCriticalOption,
    );
    // The C bit was cleared on the path.
    let mut cleared = behind(with(0x81), &inner);
    cleared[1] &= !0x40;
    assert_refused(cleared, DropReason::UnknownCriticalOption);
    assert!(decide(&red(), &arrival(HOST_B), behind(with(1), &inner)).is_ok());
}

#[test]
fn rfc8926_21_no_option_is_passed_on_for_somebody_else_to_judge() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1, 2), 0);
    for kind in 0..=0xff {
        let header = geneve(RED, ethertype::IPV4).option(OPTION_CLASS, OptionType(kind), &[]);
        let verdict = decide(&red(), &arrival(HOST_B), behind(header.unwrap(), &inner));
        assert_eq!(verdict.is_err(), kind & 0x80 != 0, "type {kind:#x}");
        // The packet for TUN starts after the options: tenants never see them.
        if let Ok(decap) = verdict {
            assert_eq!(decap.start, 12);
        }
    }
}

#[test]
fn rfc8926_34_a_multicast_packet_with_an_unknown_critical_option_is_dropped() {
    for dst in ["224.0.0.251", "255.255.255.255", "10.0.0.255"] {
        let inner = udp("10.0.0.2", dst, (5353, 5353), 0);
        let header = geneve(RED, ethertype::IPV4).option(OPTION_CLASS, OptionType(0x80), &[]);
        assert_refused(
            behind(header.unwrap(), &inner),
            DropReason::UnknownCriticalOption,
        );
    }
    let inner = udp("fd00::2", "ff02::fb", (5353, 5353), 0);
    let header = geneve(RED, ethertype::IPV6).option(OPTION_CLASS, OptionType(0x80), &[]);
    assert_refused(
        behind(header.unwrap(), &inner),
        DropReason::UnknownCriticalOption,
    );
}

#[test]
fn rfc8926_12_the_payload_of_a_control_message_is_never_forwarded() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1, 2), 0);
    let control = || behind(geneve(RED, ethertype::IPV4).control(), &inner);
    assert_refused(control(), DropReason::ControlMessage);
    // Not even after data with the same header, nor does it affect what follows.
    let (tables, arrival) = (red(), arrival(HOST_B));
    let mut ingress = Ingress::default();
    for _ in 0..2 {
        assert!(
            ingress
                .decide(&tables.cx(), &arrival, &mut from_b(RED))
                .is_ok()
        );
        let refused = ingress
            .decide(&tables.cx(), &arrival, &mut control())
            .unwrap_err();
        assert_eq!(refused.reason, DropReason::ControlMessage);
    }
}

#[test]
fn only_ip_is_carried() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1, 2), 0);
    for protocol in [0, 0x6558, 0x0806, 0x8847, 0xffff] {
        assert_refused(
            behind(geneve(RED, protocol), &inner),
            DropReason::ProtocolType,
        );
    }
    // The header and the packet disagree on the IP version.
    assert_refused(
        behind(geneve(RED, ethertype::IPV6), &inner),
        DropReason::InnerMalformed,
    );
}

#[test]
fn an_inner_packet_that_is_not_sound_is_dropped() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1, 2), 0);
    let carry = |inner: &[u8]| behind(geneve(RED, ethertype::IPV4), inner);
    assert_refused(carry(&inner[..59]), DropReason::InnerMalformed);
    assert_refused(carry(&inner[..19]), DropReason::InnerMalformed);
    let mut words = inner.clone();
    words[0] = 0x44;
    assert_refused(carry(&words), DropReason::InnerMalformed);
    let mut version = inner;
    version[0] = 0x95;
    assert_refused(carry(&version), DropReason::NotIp);
}

#[test]
fn congestion_reaches_the_inner_packet_or_drops_it() {
    let marked = OuterRx {
        tos: 0b11,
        ..arrival(HOST_B)
    };
    let carry = |tos| {
        behind(
            geneve(RED, ethertype::IPV4),
            &udp("10.0.0.2", "10.0.0.1", (1, 2), tos),
        )
    };
    let refused = decide(&red(), &marked, carry(0xb8)).unwrap_err();
    assert_eq!(refused.reason, DropReason::EcnCongestion);
    let mut datagram = carry(0xba);
    let decap = Ingress::default()
        .decide(&red().cx(), &marked, &mut datagram)
        .unwrap();
    assert_eq!((decap.packet.tos, datagram[9]), (0xbb, 0xbb));
    assert!(ipv4_checksum_holds(&datagram[8..]));
}

#[test]
fn rfc8926_33_the_outer_dscp_does_not_reach_the_inner_packet() {
    let marked = OuterRx {
        tos: 0xfc,
        ..arrival(HOST_B)
    };
    let decap = decide(&red(), &marked, from_b(RED)).unwrap();
    assert_eq!((decap.packet.tos, decap.packet.ttl), (0, 7));
}

#[test]
fn rfc8926_40_geneve_around_geneve_is_opened_once() {
    let nested = from_b(RED);
    let mut inner = udp("10.0.0.2", "10.0.0.1", (6081, 6081), 0);
    inner.truncate(28);
    inner.extend_from_slice(&nested);
    inner[2..4].copy_from_slice(&(28 + nested.len() as u16).to_be_bytes());
    inner[24..26].copy_from_slice(&(8 + nested.len() as u16).to_be_bytes());
    let before = inner.clone();
    let mut datagram = behind(geneve(RED, ethertype::IPV4), &inner);
    let decap = Ingress::default()
        .decide(&red().cx(), &arrival(HOST_B), &mut datagram)
        .unwrap();
    // TUN gets the inner packet, never the header in front of it.
    assert_eq!(datagram[decap.start..], before);
    // A second Geneve header in place of the packet is dropped.
    let header_twice = behind(geneve(RED, ethertype::IPV4), &nested);
    let refused = decide(&red(), &arrival(HOST_B), header_twice).unwrap_err();
    assert_eq!(refused.reason, DropReason::NotIp);
}

#[test]
fn a_host_is_heard_as_long_as_it_sends() {
    let mut world = red();
    let mut ingress = Ingress::default();
    for seconds in [1, 2, 30] {
        world.now = Now(seconds * 1_000_000_000);
        let arrived = ingress.decide(&world.cx(), &arrival(HOST_B), &mut from_b(RED));
        assert!(arrived.is_ok());
        let host = world.link(LinkIndex(0)).unwrap().host(ip(HOST_B)).unwrap();
        assert_eq!(host.last_received(), Some(world.now));
    }
    let other = world.link(LinkIndex(0)).unwrap().host(ip(HOST_C)).unwrap();
    assert_eq!(other.last_received(), None);
}

/// A kernel behind the interface that cannot forward a super-packet sends an error and then gets shorter segments.
#[test]
fn an_uncut_super_packet_follows_the_path_mtu_behind_the_interface() {
    let mut config = config(0, RED, GENEVE_PORT);
    config.mtu = 1464;
    let world = tables(vec![config]);
    let link = world.link(LinkIndex(0)).unwrap();
    let sample = SamplePacket {
        v6: true,
        payload: vec![7; 20_000],
        ..SamplePacket::default()
    };
    let (_, packet, mut inner) = sample.super_packet(1300);
    let (from, to): (Ipv6Addr, Ipv6Addr) = ("fd00::2".parse().unwrap(), "fd00::1".parse().unwrap());
    inner[8..24].copy_from_slice(&from.octets());
    inner[24..40].copy_from_slice(&to.octets());
    let headers = packet.payload_offset;
    let gso_size = || {
        let datagram = behind(geneve(RED, ethertype::IPV6), &inner);
        let decap = decide(&world, &arrival(HOST_B), datagram).unwrap();
        decap.vnet.unwrap().gso_size
    };
    assert_eq!(gso_size(), 1464 - headers);
    let report = |quoted: &[u8], mtu| {
        let packet = Packet::parse(quoted).unwrap();
        let mut error = [0; 1280];
        let len = IcmpError::TooBig { mtu }
            .build(ip("fd00::1"), &packet, quoted, &mut error)
            .unwrap();
        let error = &mut error[..len];
        let mut packet = Packet::parse(error).unwrap();
        let output =
            Egress::default().decide(&world.cx(), link, error, &mut packet, &VnetHdr::NONE);
        output.map_err(|refused| refused.reason).map(|_| ())
    };
    report(&inner, 1300).unwrap();
    assert_eq!(gso_size(), 1300 - headers);
    report(&inner, 10).unwrap();
    assert_eq!(gso_size(), 1280 - headers);
}
