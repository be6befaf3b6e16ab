//! Links in mode ip whose datagrams carry Ethernet frames, over Geneve and over VXLAN.

use super::*;
use crate::l2::NeighborNotice;
use crate::vpc::EndpointConfig;
use crate::wire::arp::{Arp, ArpOperation};
use crate::wire::encapsulation::{Encapsulation, InnerProtocol};
use crate::wire::ethernet::{Ethernet, Mac, VlanTag, ethernet_header, tagged_header};
use crate::wire::nd::{self, Nd};

pub(super) const TAP_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
pub(super) const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// The VPC of [`config`], but carrying frames, with the MAC address of B's endpoints configured.
pub(super) fn framed(encapsulation: Encapsulation) -> LinkConfig {
    let known = EndpointConfig {
        lladdr: Some(PEER),
        ..EndpointConfig::default()
    };
    let mut config = LinkConfig {
        encapsulation,
        inner: InnerProtocol::Ethernet,
        lladdr: TAP_MAC,
        ..config(0, RED, GENEVE_PORT)
    };
    for addr in ["10.0.0.2", "fd00::2"] {
        config.functions.endpoints.insert(ip(addr), known.clone());
    }
    config
}

/// A datagram of the VPC with this frame.
pub(super) fn with_frame(encapsulation: Encapsulation, frame: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = encapsulation.header(Vni::new(RED).unwrap(), 0x6558);
    [&header[..], frame, payload].concat()
}

fn reason_of(encapsulation: Encapsulation, frame: &[u8], payload: &[u8]) -> DropReason {
    let datagram = with_frame(encapsulation, frame, payload);
    let refused = decide(
        &tables(vec![framed(encapsulation)]),
        &arrival(HOST_B),
        datagram,
    );
    refused.unwrap_err().reason
}

#[test]
fn a_packet_leaves_in_a_frame_and_is_read_at_the_other_end() {
    for encapsulation in Encapsulation::ALL {
        for (src, dst, ether_type) in [
            ("10.0.0.1", "10.0.0.2", ethertype::IPV4),
            ("fd00::1", "fd00::2", ethertype::IPV6),
        ] {
            let world = tables(vec![framed(encapsulation)]);
            let link = world.link(LinkIndex(0)).unwrap();
            let forward = egress(&world, link, &parsed(src, dst)).unwrap();
            let frame = ethernet_header(PEER, TAP_MAC, ether_type);
            assert_eq!(forward.encap[..], with_frame(encapsulation, &frame, &[]));
            assert_eq!(forward.encap.len(), link.encap_len());

            let back = ethernet_header(TAP_MAC, PEER, ether_type);
            let inner = udp(dst, src, (53, 1000), 0);
            let datagram = with_frame(encapsulation, &back, &inner);
            let decap = decide(&world, &arrival(HOST_B), datagram.clone()).unwrap();
            assert_eq!(decap.start, forward.encap.len());
            assert_eq!(decap.packet, Packet::parse(&inner).unwrap());
            let (header, behind) = way_back(link, &datagram).unwrap();
            assert_eq!(
                (header[..].to_vec(), behind),
                (forward.encap.to_vec(), &inner[..])
            );
        }
    }
}

#[test]
fn the_mtu_leaves_room_for_the_frame() {
    let world = tables(vec![framed(Encapsulation::Vxlan)]);
    let link = world.link(LinkIndex(0)).unwrap();
    assert_eq!(inner_limit(ip(HOST_B), 1500, link.encap_len()), 1450);
    link.host(ip(HOST_B)).unwrap().set_path_mtu(Some(1400));
    let forward = egress(&world, link, &parsed("10.0.0.1", "10.0.0.2")).unwrap();
    assert_eq!(forward.limit, 1350);
}

#[test]
fn a_packet_whose_neighbour_is_not_known_waits() {
    let mut config = framed(Encapsulation::Geneve);
    config.functions.endpoints.clear();
    let world = tables(vec![config]);
    let link = world.link(LinkIndex(0)).unwrap();
    assert_eq!(
        egress(&world, link, &parsed("10.0.0.1", "10.0.0.2")).unwrap_err(),
        DropReason::NeighborUnresolved
    );
}

#[test]
fn only_frames_for_the_link_or_for_a_group_are_taken() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    for encapsulation in Encapsulation::ALL {
        let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
        for dst in [TAP_MAC, Mac::BROADCAST, group] {
            let frame = ethernet_header(dst, PEER, ethertype::IPV4);
            let datagram = with_frame(encapsulation, &frame, &inner);
            let world = tables(vec![framed(encapsulation)]);
            assert!(decide(&world, &arrival(HOST_B), datagram).is_ok(), "{dst}");
        }
        let other = ethernet_header(PEER, PEER, ethertype::IPV4);
        assert_eq!(
            reason_of(encapsulation, &other, &inner),
            DropReason::WrongMac
        );
    }
}

#[test]
fn what_is_in_the_frame_is_an_ip_packet_of_its_ether_type() {
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    for encapsulation in Encapsulation::ALL {
        let reason = |ether_type, inner: &[u8]| {
            reason_of(
                encapsulation,
                &ethernet_header(TAP_MAC, PEER, ether_type),
                inner,
            )
        };
        assert_eq!(reason(ethertype::IPV6, &inner), DropReason::InnerMalformed);
        assert_eq!(reason(0x88cc, &inner), DropReason::NotIp);
        assert_eq!(reason(0x0026, &inner), DropReason::NotIp);
        assert_eq!(
            reason(ethertype::IPV4, &inner[..19]),
            DropReason::InnerMalformed
        );
        assert_eq!(
            reason_of(encapsulation, &[0; 13], &[]),
            DropReason::InnerMalformed
        );
        let group = ethernet_header(TAP_MAC, Mac::BROADCAST, ethertype::IPV4);
        assert_eq!(
            reason_of(encapsulation, &group, &inner),
            DropReason::InnerMalformed
        );
    }
}

#[test]
fn rfc7348_61_a_frame_with_a_vlan_tag_is_dropped() {
    let tag = VlanTag {
        tpid: ethertype::VLAN.into(),
        tci: 7.into(),
    };
    let (header, len) = tagged_header(TAP_MAC, PEER, &[tag], ethertype::IPV4).unwrap();
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    for encapsulation in Encapsulation::ALL {
        assert_eq!(
            reason_of(encapsulation, &header[..len], &inner),
            DropReason::VlanTagged
        );
    }
}

#[test]
fn a_link_takes_only_what_it_carries() {
    let world = tables(vec![framed(Encapsulation::Geneve)]);
    let refused = decide(&world, &arrival(HOST_B), from_b(RED)).unwrap_err();
    assert_eq!(refused.reason, DropReason::ProtocolType);
    let frame = ethernet_header(TAP_MAC, PEER, ethertype::IPV4);
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    assert_refused(
        with_frame(Encapsulation::Geneve, &frame, &inner),
        DropReason::ProtocolType,
    );
}

#[test]
fn a_vxlan_header_is_checked() {
    let frame = ethernet_header(TAP_MAC, PEER, ethertype::IPV4);
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    let sound = with_frame(Encapsulation::Vxlan, &frame, &inner);
    let reason = |datagram: Vec<u8>| {
        let world = tables(vec![framed(Encapsulation::Vxlan)]);
        decide(&world, &arrival(HOST_B), datagram)
            .unwrap_err()
            .reason
    };
    assert_eq!(reason(sound[..7].to_vec()), DropReason::VxlanTruncated);
    let mut unset = sound.clone();
    unset[0] = 0;
    assert_eq!(reason(unset), DropReason::VxlanNoVni);
    let mut other = sound.clone();
    other[6] ^= 1;
    assert_eq!(reason(other), DropReason::UnknownVni);
    assert_eq!(reason(sound[..8].to_vec()), DropReason::InnerMalformed);
}

#[test]
fn frames_of_one_sender_share_a_lane_and_those_of_another_do_not() {
    let world = tables(vec![framed(Encapsulation::Vxlan)]);
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    let mut ingress = Ingress::default();
    let mut lane = |src: Mac| {
        let frame = ethernet_header(TAP_MAC, src, ethertype::IPV4);
        let mut datagram = with_frame(Encapsulation::Vxlan, &frame, &inner);
        ingress
            .decide(&world.cx(), &arrival(HOST_B), &mut datagram)
            .unwrap()
            .lane
    };
    let first = lane(PEER);
    assert_eq!(lane(PEER), first);
    assert_ne!(lane(Mac([2, 0, 0, 0, 0, 9])), first);
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(
        vxlan: bool,
        payload in proptest::collection::vec(any::<u8>(), 0..120),
        sound: bool,
    ) {
        let encapsulation = if vxlan { Encapsulation::Vxlan } else { Encapsulation::Geneve };
        let world = tables(vec![framed(encapsulation)]);
        let frame = ethernet_header(TAP_MAC, PEER, ethertype::IPV4);
        let frame = if sound { &frame[..] } else { &[] };
        let _ = decide(&world, &arrival(HOST_B), with_frame(encapsulation, frame, &payload));
    }
}

/// Flags of advertisements on behalf of a link.
const ROUTER_FLAGS: nd::AdvertisementFlags = nd::AdvertisementFlags {
    router: true,
    overrides: false,
};

/// The VPC of [`framed`] without any configured MAC address.
fn asking(encapsulation: Encapsulation) -> TestTables {
    let mut config = framed(encapsulation);
    config.functions.endpoints.clear();
    tables(vec![config])
}

/// A broadcast from B: a request or an answer.
pub(super) fn message(encapsulation: Encapsulation, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let frame = ethernet_header(Mac::BROADCAST, PEER, ether_type);
    with_frame(encapsulation, &frame, payload)
}

pub(super) fn arp(operation: ArpOperation, sender: &str, target: &str) -> Vec<u8> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (ip(sender), ip(target)) else {
        panic!("IPv4");
    };
    let arp = Arp {
        operation,
        sender_mac: PEER,
        sender,
        target_mac: Mac::default(),
        target,
    };
    arp.to_bytes().to_vec()
}

pub(super) fn solicitation(from: &str, target: &str) -> Vec<u8> {
    let (IpAddr::V6(from), IpAddr::V6(target)) = (ip(from), ip(target)) else {
        panic!("IPv6");
    };
    nd::solicitation(target, PEER, from, nd::solicited_node(target)).to_vec()
}

#[test]
fn a_link_answers_for_its_own_addresses_and_endpoints() {
    for encapsulation in Encapsulation::ALL {
        for (ether_type, question) in [
            (
                ethertype::ARP,
                arp(ArpOperation::Request, "10.0.0.2", "10.0.0.1"),
            ),
            (
                ethertype::ARP,
                arp(ArpOperation::Request, "10.0.0.2", "10.0.0.4"),
            ),
            (
                ethertype::ARP,
                arp(ArpOperation::Request, "0.0.0.0", "10.0.0.1"),
            ),
            (ethertype::IPV6, solicitation("fd00::2", "fd00::1")),
            (ethertype::IPV6, solicitation("fe80::2", "fd00::1")),
        ] {
            let world = asking(encapsulation);
            let datagram = message(encapsulation, ether_type, &question);
            let refused = decide(&world, &arrival(HOST_B), datagram.clone()).unwrap_err();
            assert_eq!(refused.reason, DropReason::NeighborAnswered);
            assert_eq!(
                refused.answer,
                Some(SenderReply::Neighbor(TAP_MAC, ROUTER_FLAGS))
            );
            let link = world.link(LinkIndex(0)).unwrap();
            let (header, payload) = way_back(link, &datagram).unwrap();
            let mut out = [0; 100];
            let len = neighbor_answer(link, payload, &mut out).unwrap();
            let frame = &header[encapsulation.header_len()..];
            assert_eq!(frame, ethernet_header(PEER, TAP_MAC, ether_type));
            let notice = match ether_type {
                ethertype::ARP => NeighborNotice::from(&Arp::parse(&out[..len]).unwrap()),
                _ => {
                    let packet = Packet::parse(&out[..len]).unwrap();
                    NeighborNotice::from(&Nd::parse(&packet, &out[..len], false).unwrap().unwrap())
                }
            };
            let (addr, mac) = notice.claim.unwrap();
            assert_eq!(mac, TAP_MAC);
            assert!(link.routes.lookup(addr).unwrap().local);
        }
    }
}

#[test]
fn a_link_does_not_answer_for_others() {
    for encapsulation in Encapsulation::ALL {
        for (ether_type, question) in [
            (
                ethertype::ARP,
                arp(ArpOperation::Request, "10.0.0.2", "10.0.0.3"),
            ),
            (ethertype::IPV6, solicitation("fd00::2", "fd00::9")),
        ] {
            let datagram = message(encapsulation, ether_type, &question);
            let refused = decide(&asking(encapsulation), &arrival(HOST_B), datagram).unwrap_err();
            assert_eq!(
                (refused.reason, refused.answer),
                (DropReason::NeighborNoted, None)
            );
        }
        for (ether_type, broken) in [
            (ethertype::ARP, vec![0; 28]),
            (
                ethertype::ARP,
                arp(ArpOperation::Request, "10.0.0.2", "10.0.0.1")[..27].to_vec(),
            ),
            (ethertype::IPV6, {
                let mut message = solicitation("fd00::2", "fd00::1");
                message[7] = 64;
                message
            }),
        ] {
            let datagram = message(encapsulation, ether_type, &broken);
            let refused = decide(&asking(encapsulation), &arrival(HOST_B), datagram).unwrap_err();
            assert_eq!(refused.reason, DropReason::InnerMalformed);
        }
    }
}

#[test]
fn a_neighbour_is_asked_for_and_its_answer_is_used() {
    for encapsulation in Encapsulation::ALL {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let world = asking(encapsulation);
            let link = world.link(LinkIndex(0)).unwrap();
            let packet = parsed(src, dst);
            for _ in 0..2 {
                let unresolved = egress(&world, link, &packet).unwrap_err();
                assert_eq!(unresolved, DropReason::NeighborUnresolved);
            }
            let ask = world.state.question().unwrap();
            assert_eq!((ask.link, ask.addr), (LinkIndex(0), ip(dst)));
            assert!(
                matches!(&ask.audience, RequestAudience::Host(host, None) if host.addr == ip(HOST_B))
            );
            assert!(world.state.question().is_none(), "once a second");
            let mut out = [0; 100];
            let (header, len) = neighbor_question(link, &ask, &mut out).unwrap();
            let frame = Ethernet::parse(&header[encapsulation.header_len()..]).unwrap();
            assert!(frame.dst().is_multicast());
            assert_eq!(frame.src(), TAP_MAC);
            let mut answer = [0; 100];
            // The other end answers as this one would, with its own address.
            let mut there = framed(encapsulation);
            there.lladdr = PEER;
            let there = tables(vec![there]);
            let other = there.link(LinkIndex(0)).unwrap();
            let len = neighbor_answer(other, &out[..len], &mut answer).unwrap();
            let datagram = message(encapsulation, frame.ether_type(), &answer[..len]);
            let taken = decide(&world, &arrival(HOST_B), datagram).unwrap_err();
            assert_eq!(taken.reason, DropReason::NeighborNoted);
            let forward = egress(&world, link, &packet).unwrap();
            let frame = Ethernet::parse(&forward.encap[encapsulation.header_len()..]).unwrap();
            assert_eq!(frame.dst(), PEER);
        }
    }
}

#[test]
fn groups_are_nobodys_neighbours() {
    let mut config = framed(Encapsulation::Vxlan);
    config.broadcasts = vec!["10.0.0.255".parse().unwrap()];
    config.routes = vec![
        route("0.0.0.0/0", &[HOST_B], RouteOrigin::Remote),
        route("::/0", &[HOST_B], RouteOrigin::Remote),
    ];
    let world = tables(vec![config]);
    let link = world.link(LinkIndex(0)).unwrap();
    for (src, dst, mac) in [
        ("10.0.0.1", "224.0.0.251", "01:00:5e:00:00:fb"),
        ("10.0.0.1", "255.255.255.255", "ff:ff:ff:ff:ff:ff"),
        ("10.0.0.1", "10.0.0.255", "ff:ff:ff:ff:ff:ff"),
        ("fd00::1", "ff02::16", "33:33:00:00:00:16"),
    ] {
        let forward = egress(&world, link, &parsed(src, dst)).unwrap();
        let frame = Ethernet::parse(&forward.encap[8..]).unwrap();
        assert_eq!(frame.dst().to_string(), mac);
    }
    assert!(world.state.question().is_none());
}

#[test]
fn a_neighbour_is_known_by_what_it_sends_first() {
    let world = asking(Encapsulation::Vxlan);
    let link = world.link(LinkIndex(0)).unwrap();
    let frame = ethernet_header(TAP_MAC, PEER, ethertype::IPV4);
    let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    decide(
        &world,
        &arrival(HOST_B),
        with_frame(Encapsulation::Vxlan, &frame, &inner),
    )
    .unwrap();
    let forward = egress(&world, link, &parsed("10.0.0.1", "10.0.0.2")).unwrap();
    let frame = Ethernet::parse(&forward.encap[8..]).unwrap();
    assert_eq!(frame.dst(), PEER);
}

#[test]
fn nobody_claims_the_address_of_another_host() {
    let world = asking(Encapsulation::Vxlan);
    let link = world.link(LinkIndex(0)).unwrap();
    // C claims B's endpoint.
    let claim = arp(ArpOperation::Reply, "10.0.0.2", "10.0.0.1");
    let datagram = message(Encapsulation::Vxlan, ethertype::ARP, &claim);
    decide(&world, &arrival(HOST_C), datagram.clone()).unwrap_err();
    let stranger = decide(&world, &arrival(STRANGER), datagram).unwrap_err();
    assert_eq!(stranger.reason, DropReason::UnknownHost);
    assert_eq!(
        egress(&world, link, &parsed("10.0.0.1", "10.0.0.2")).unwrap_err(),
        DropReason::NeighborUnresolved
    );
}
