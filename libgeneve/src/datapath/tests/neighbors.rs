//! Neighbours of links that put IP packets into frames: probing, and the flags announced for them.

use super::frames::{PEER, TAP_MAC, arp, framed, message, solicitation};
use super::l2_forwarding::{LOCAL_MAC, bridged, frame, send};
use super::*;
use crate::l2::NeighborNotice;
use crate::policy::PolicyAction;
use crate::wire::arp::{Arp, ArpOperation};
use crate::wire::encapsulation::Encapsulation;
use crate::wire::ethernet::{Ethernet, Mac};
use crate::wire::nd::{self, AdvertisementFlags, Nd};

const MOVED: Mac = Mac([2, 0, 0, 0, 0, 7]);
const VXLAN_ENCAP: Encapsulation = Encapsulation::Vxlan;

/// A VPC without configured neighbours, after an answer for B's endpoint from this MAC address.
fn world() -> TestTables {
    let mut config = framed(VXLAN_ENCAP);
    config.functions.endpoints.clear();
    tables(vec![config])
}

fn tell(world: &TestTables, mac: Mac) {
    let mut claim = arp(ArpOperation::Reply, "10.0.0.2", "10.0.0.1");
    claim[8..14].copy_from_slice(&mac.0);
    let datagram = message(VXLAN_ENCAP, ethertype::ARP, &claim);
    let heard = super::decide(world, &arrival(HOST_B), datagram).unwrap_err();
    assert_eq!(heard.reason, DropReason::NeighborNoted);
}

/// Returns the MAC address to which a packet for B's endpoint goes.
fn goes(world: &TestTables) -> Result<Mac, DropReason> {
    let link = world.link(LinkIndex(0)).unwrap();
    let forward = egress(world, link, &parsed("10.0.0.1", "10.0.0.2"))?;
    Ok(Ethernet::parse(&forward.encap[8..]).unwrap().dst())
}

/// Returns the destination MAC addresses of the requests sent in a second, and whether flows must be decided again.
fn tend(world: &mut TestTables, second: u64) -> (Vec<Mac>, bool) {
    world.now = Now(second * 1_000_000_000);
    let moved = !probe_neighbors(&world.cx()).is_empty();
    let link = world.link(LinkIndex(0)).unwrap();
    let asked = std::iter::from_fn(|| world.state.question()).map(|ask| {
        let mut out = [0; 100];
        let (header, len) = neighbor_question(link, &ask, &mut out).unwrap();
        let arp = Arp::parse(&out[..len]).unwrap();
        assert_eq!(
            (arp.sender_mac, arp.target),
            (TAP_MAC, "10.0.0.2".parse().unwrap())
        );
        Ethernet::parse(&header[8..]).unwrap().dst()
    });
    (asked.collect(), moved)
}

#[test]
fn a_neighbour_that_flows_go_to_is_probed_and_followed() {
    let mut world = world();
    tell(&world, PEER);
    assert_eq!(goes(&world), Ok(PEER));
    assert_eq!(tend(&mut world, 5), (vec![], false));
    assert_eq!(tend(&mut world, 11), (vec![PEER], false));
    assert_eq!(tend(&mut world, 12), (vec![PEER], false));
    assert_eq!(tend(&mut world, 13), (vec![Mac::BROADCAST], false));
    // It has moved to another MAC address and answers from it.
    tell(&world, MOVED);
    assert_eq!(tend(&mut world, 14), (vec![], true));
    world.tables.epoch += 1;
    assert_eq!(goes(&world), Ok(MOVED));
    // An unsolicited announcement.
    tell(&world, PEER);
    assert_eq!(tend(&mut world, 15), (vec![], true));
    world.tables.epoch += 1;
    assert_eq!(goes(&world), Ok(PEER));
}

#[test]
fn a_silent_neighbour_is_forgotten_and_its_flow_is_not() {
    let mut world = world();
    tell(&world, PEER);
    assert_eq!(goes(&world), Ok(PEER));
    for second in 11..15 {
        assert_eq!(tend(&mut world, second).0.len(), 1);
    }
    assert_eq!(tend(&mut world, 15), (vec![], true));
    world.tables.epoch += 1;
    assert_eq!(goes(&world), Err(DropReason::NeighborUnresolved));
    assert_eq!(world.state.flows.stats().flows, 1);
    tell(&world, MOVED);
    assert_eq!(goes(&world), Ok(MOVED));
    assert_eq!(world.state.flows.stats().flows, 1);
    // Without a flow no requests are sent.
    while world.state.question().is_some() {}
    world.state.flows.flush(|_| true);
    world.state.expire(world.now);
    assert_eq!(tend(&mut world, 100), (vec![], false));
}

#[test]
fn the_interfaces_own_link_local_address_is_answered_for() {
    let world = world();
    let link = world.link(LinkIndex(0)).unwrap();
    let ask = || {
        let question = solicitation("fe80::2", "fe80::1");
        let datagram = message(VXLAN_ENCAP, ethertype::IPV6, &question);
        super::decide(&world, &arrival(HOST_B), datagram)
            .unwrap_err()
            .reason
    };
    assert_eq!(ask(), DropReason::NeighborNoted);
    let own = "fe80::1".parse().unwrap();
    link.config.neighbors.set_link_local(vec![own]);
    assert_eq!(ask(), DropReason::NeighborAnswered);
}

#[test]
fn an_advertisement_in_the_name_of_a_station_says_what_the_station_says() {
    let target = "fd00::5".parse().unwrap();
    let asker = "fd00::1".parse().unwrap();
    for router in [false, true] {
        for overrides in [false, true] {
            let flags = AdvertisementFlags { router, overrides };
            let mut world = tables(vec![bridged(PolicyAction::Allow)]);
            let answer = |world: &TestTables| {
                let group = nd::solicited_node(target);
                let question = nd::solicitation(target, LOCAL_MAC, asker, group);
                let frame = frame(
                    Mac::of_multicast_v6(group),
                    LOCAL_MAC,
                    ethertype::IPV6,
                    &question,
                );
                let refused = send(world, frame.clone()).err()?;
                let link = world.link(LinkIndex(0)).unwrap();
                let bridge = link.bridge.as_ref().unwrap();
                let mut out = [0; 200];
                let len = answer_frame(&link.config, refused.answer?, bridge, &frame, &mut out)?;
                let payload = Ethernet::parse(&out[..len]).unwrap().payload().to_vec();
                let packet = Packet::parse(&payload).unwrap();
                let Nd::Advertisement { flags, mac, .. } =
                    Nd::parse(&packet, &payload, false)?.ok()?
                else {
                    return None;
                };
                Some((mac, flags))
            };
            let hear = |world: &TestTables, message: &[u8]| {
                let frame = frame(LOCAL_MAC, PEER, ethertype::IPV6, message);
                super::l2_forwarding::receive(world, HOST_B, &frame).unwrap();
            };
            // A solicitation does not show whether its sender is a router.
            hear(&world, &nd::solicitation(asker, PEER, target, asker));
            assert_eq!(answer(&world), None);
            hear(&world, &nd::advertisement(target, PEER, asker, flags));
            assert_eq!(answer(&world), Some((Some(PEER), flags)));
            hear(&world, &nd::solicitation(asker, PEER, target, asker));
            assert_eq!(answer(&world), Some((Some(PEER), flags)));
            // After a while the station must answer for itself.
            world.now = Now(31_000_000_000);
            assert_eq!(answer(&world), None);
            assert_eq!(NeighborNotice::default().flags, None);
        }
    }
}
