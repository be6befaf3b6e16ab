//! Virtual MAC address: answers for addresses without a station, virtual ones of services and outside ones of NAT.

use super::frames::{PEER, arp, framed, message, solicitation};
use super::l2_forwarding::{LOCAL_MAC, OWN_MAC, bridged, frame, receive, request, send};
use super::support::*;
use super::*;
use crate::policy::PolicyAction;
use crate::service::Affinity;
use crate::wire::arp::ArpOperation;
use crate::wire::encapsulation::Encapsulation;
use crate::wire::ethernet::{Ethernet, Mac, ethertype};

const FRAME_VIP: &str = "10.0.0.100";
/// Outside addresses of a pool, of a static rule, and of destination NAT.
const OUTSIDE_ADDRESSES: [&str; 3] = ["10.0.0.61", "10.0.0.50", "10.0.0.70"];

fn functions() -> LinkFunctions {
    let one_to_one = crate::nat::NatRule::Static {
        name: "one".into(),
        inside: ip("10.0.0.1"),
        outside: ip(OUTSIDE_ADDRESSES[1]),
    };
    let rules = vec![
        snat(
            "out",
            "10.1.0.0/24",
            ("10.0.0.60", "10.0.0.62"),
            (5000, 5999),
        ),
        one_to_one,
        dnat(OUTSIDE_ADDRESSES[2], None, "10.0.0.1", None),
        snat("six", "fd01::/64", ("fd00::60", "fd00::60"), (5000, 5999)),
    ];
    LinkFunctions {
        nat: translation(0, rules),
        services: service(
            FRAME_VIP,
            protocol::TCP,
            Affinity::None,
            vec![backend("10.0.0.2", 1)],
        ),
        ..LinkFunctions::default()
    }
}

#[test]
fn a_link_in_mode_ip_answers_for_all_of_them() {
    for encapsulation in Encapsulation::ALL {
        let mut config = framed(encapsulation);
        let endpoints = config.functions.endpoints.clone();
        config.functions = LinkFunctions {
            endpoints,
            ..functions()
        };
        let world = tables(vec![config]);
        let ask = |ether_type, question: &[u8]| {
            decide(
                &world,
                &arrival(HOST_B),
                message(encapsulation, ether_type, question),
            )
            .unwrap_err()
        };
        for target in OUTSIDE_ADDRESSES.iter().chain([&FRAME_VIP]) {
            let question = arp(ArpOperation::Request, "10.0.0.2", target);
            let refused = ask(ethertype::ARP, &question);
            assert_eq!(refused.reason, DropReason::NeighborAnswered, "{target}");
        }
        let six = ask(ethertype::IPV6, &solicitation("fd00::2", "fd00::60"));
        assert_eq!(six.reason, DropReason::NeighborAnswered);
        let beside = ask(
            ethertype::ARP,
            &arp(ArpOperation::Request, "10.0.0.2", "10.0.0.63"),
        );
        assert_eq!(beside.reason, DropReason::NeighborNoted);
    }
}

fn switched() -> TestTables {
    let mut config = bridged(PolicyAction::Allow);
    config.functions = functions();
    tables(vec![config])
}

fn question(target: &str) -> Vec<u8> {
    let question = request(LOCAL_MAC, "10.0.0.1", target);
    frame(Mac::BROADCAST, LOCAL_MAC, ethertype::ARP, &question)
}

#[test]
fn stations_are_told_another_mac_address_than_the_interfaces() {
    let world = switched();
    let link = world.link(LinkIndex(0)).unwrap();
    let bridge = link.bridge.as_ref().unwrap();
    assert_eq!(bridge.virtual_mac, OWN_MAC.companion());
    for target in OUTSIDE_ADDRESSES.iter().chain([&FRAME_VIP]) {
        let mut again = question(target);
        for dst in [Mac::BROADCAST, bridge.virtual_mac] {
            again[..6].copy_from_slice(&dst.0);
            let refused = send(&world, again.clone()).unwrap_err();
            assert_eq!(
                refused.answer,
                Some(SenderReply::Neighbor(
                    bridge.virtual_mac,
                    Default::default()
                ))
            );
            let mut out = [0; 100];
            let answer = refused.answer.unwrap();
            let len = answer_frame(&link.config, answer, bridge, &again, &mut out).unwrap();
            assert_eq!(
                Ethernet::parse(&out[..len]).unwrap().src(),
                bridge.virtual_mac
            );
        }
    }
    // A packet to the virtual MAC address with an unassigned destination is dropped.
    let packet = udp("10.0.0.1", "10.0.0.9", (1, 2), 0);
    let lost = send(
        &world,
        frame(bridge.virtual_mac, LOCAL_MAC, ethertype::IPV4, &packet),
    );
    assert_eq!(lost.unwrap_err().reason, DropReason::SplitHorizon);
}

#[test]
fn hosts_are_told_of_what_is_translated_here_only() {
    let world = switched();
    let link = world.link(LinkIndex(0)).unwrap();
    let virtual_mac = link.bridge.as_ref().unwrap().virtual_mac;
    let ask = |target| {
        let question = request(PEER, "10.0.0.2", target);
        frame(Mac::BROADCAST, PEER, ethertype::ARP, &question)
    };
    for target in OUTSIDE_ADDRESSES {
        let question = ask(target);
        let refused = receive(&world, HOST_B, &question).unwrap_err();
        assert_eq!(
            refused.answer,
            Some(SenderReply::Neighbor(virtual_mac, Default::default())),
            "{target}"
        );
        let datagram = super::frames::with_frame(Encapsulation::Geneve, &question, &[]);
        let (header, payload) = way_back(link, &datagram).unwrap();
        assert_eq!(Ethernet::parse(&header[8..]).unwrap().src(), virtual_mac);
        let mut out = [0; 100];
        let len = neighbor_answer(link, payload, &mut out).unwrap();
        let reply = crate::wire::arp::Arp::parse(&out[..len]).unwrap();
        assert_eq!((reply.sender_mac, reply.target_mac), (virtual_mac, PEER));
    }
    assert!(
        receive(&world, HOST_B, &ask(FRAME_VIP)).is_ok(),
        "its backend may be on another host"
    );
    // The host itself has the address, on a bridge around the interface.
    let claim = request(LOCAL_MAC, OUTSIDE_ADDRESSES[1], "10.0.0.9");
    let _ = send(
        &world,
        frame(Mac::BROADCAST, LOCAL_MAC, ethertype::ARP, &claim),
    );
    assert!(receive(&world, HOST_B, &ask(OUTSIDE_ADDRESSES[1])).is_ok());
}
