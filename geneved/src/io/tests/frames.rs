use std::time::Duration;

use libgeneve::drop::DropReason;
use libgeneve::wire::arp::{Arp, ArpOperation};
use libgeneve::wire::ethernet::{Ethernet, Mac, ethertype, tagged_header};

use super::*;
use crate::io::simulation::{REMOTE_HOSTS, SIMULATED_MAC, SimulatedLink};

const TAP: SimulatedLink = SimulatedLink::Tap;
const FRAME_NEIGHBORS: SimulatedLink = SimulatedLink::Neighbors;
const STATION: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn frame(dst: Mac, src: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let (header, len) = tagged_header(dst, src, &[], kind).unwrap();
    [&header[..len], payload].concat()
}

fn in_datagram(link: SimulatedLink, frame: &[u8]) -> Vec<u8> {
    let header = GeneveBuilder::new(link.vni(), 0x6558).finish();
    packets::behind(&header, frame)
}

fn hosts(simulation: &mut Simulation) -> Vec<IpAddr> {
    let sent = simulation.take_sent();
    sent.iter().map(|datagram| datagram.dst.ip()).collect()
}

#[test]
fn a_flooded_frame_goes_to_every_host_out_of_one_buffer() {
    let mut simulation = Simulation::new(false);
    let packet = Segments::udp(0, 0, 1).packet(0..1, true);
    let unknown = frame(STATION, SIMULATED_MAC, ethertype::IPV4, &packet);
    simulation.feed_tun(TAP, with_vnet(&VnetHdr::NONE, &unknown));
    let other = frame(Mac::BROADCAST, SIMULATED_MAC, 0x88cc, b"hello");
    simulation.feed_tun(TAP, with_vnet(&VnetHdr::NONE, &other));
    simulation.set_disorder(Some(5));
    simulation.drain();
    let sent = simulation.take_sent();
    for host in REMOTE_HOSTS {
        let got: Vec<_> = sent
            .iter()
            .filter(|datagram| datagram.dst.ip() == host)
            .map(|datagram| Geneve::parse(&datagram.payload).unwrap().payload())
            .collect();
        assert_eq!(got, [&unknown[..], &other[..]]);
    }
    assert_eq!(simulation.counters(TAP).tx_packets, 4);
}

#[test]
fn frames_from_the_wire_reach_tap_as_they_came_and_teach_where_their_senders_are() {
    let mut simulation = Simulation::new(false);
    let packet = Segments::udp(1, 0, 1).packet(0..1, false);
    let came = frame(SIMULATED_MAC, STATION, ethertype::IPV4, &packet);
    simulation.feed_socket(REMOTE_HOSTS[1], 0, in_datagram(TAP, &came));
    let other = frame(Mac::BROADCAST, STATION, 0x88cc, b"hello");
    simulation.feed_socket(REMOTE_HOSTS[1], 0, in_datagram(TAP, &other));
    simulation.drain();
    let mut written = simulation.take_written(TAP);
    written.iter_mut().for_each(|bytes| {
        bytes.drain(..vnet::LEN);
    });
    written.sort_unstable_by_key(Vec::len);
    assert_eq!(written, [other, came]);
    let packet = Segments::udp(1, 1, 1).packet(1..2, true);
    let answer = frame(STATION, SIMULATED_MAC, ethertype::IPV4, &packet);
    simulation.feed_tun(TAP, with_vnet(&VnetHdr::NONE, &answer));
    simulation.drain();
    assert_eq!(hosts(&mut simulation), [REMOTE_HOSTS[1]]);
}

#[test]
fn a_frame_that_tap_refuses_is_counted_once() {
    let mut simulation = Simulation::new(false);
    let fault = InjectedFault::Errno(libc::EIO);
    simulation.faults().writes.push_back(Some(fault));
    let other = frame(Mac::BROADCAST, STATION, 0x88cc, b"hello");
    simulation.feed_socket(REMOTE_HOSTS[1], 0, in_datagram(TAP, &other));
    simulation.drain();
    let lost = (TrafficDirection::Ingress, DropReason::TunRefused, 1);
    assert_eq!(drops(&simulation.all_counters()), [lost]);
}

/// Reply of 10.0.0.2 to the ARP request that was sent for it.
fn arp_reply() -> Vec<u8> {
    let reply = Arp {
        operation: ArpOperation::Reply,
        sender_mac: STATION,
        sender: [10, 0, 0, 2].into(),
        target_mac: SIMULATED_MAC,
        target: [10, 0, 0, 1].into(),
    };
    frame(SIMULATED_MAC, STATION, ethertype::ARP, &reply.to_bytes())
}

#[test]
fn packets_wait_for_their_neighbour_and_leave_in_order_when_it_answers() {
    let mut simulation = Simulation::new(false);
    let packets: Vec<_> = (0..5).map(|n| Segments::udp(0, n, 1)).collect();
    for packet in &packets {
        simulation.feed_tun(FRAME_NEIGHBORS, packet.as_tun_read());
    }
    simulation.turn();
    simulation.turn();
    let asked = simulation.take_sent();
    assert!(!asked.is_empty(), "nobody was asked");
    for question in &asked {
        let geneve = Geneve::parse(&question.payload).unwrap();
        let question = Ethernet::parse(geneve.payload()).unwrap();
        assert_eq!(question.ether_type(), ethertype::ARP);
    }
    simulation.feed_socket(
        REMOTE_HOSTS[0],
        0,
        in_datagram(FRAME_NEIGHBORS, &arp_reply()),
    );
    simulation.drain();
    let sent = simulation.take_sent();
    let numbers: Vec<_> = sent
        .iter()
        .flat_map(|datagram| {
            let geneve = Geneve::parse(&datagram.payload).unwrap();
            let frame = Ethernet::parse(geneve.payload()).unwrap();
            assert_eq!(frame.dst(), STATION);
            stamps(frame.payload())
        })
        .collect();
    let all: Vec<_> = packets.iter().flat_map(Segments::stamps).collect();
    assert_eq!(numbers, all);
}

#[test]
fn packets_whose_neighbour_stays_silent_are_dropped_after_a_second() {
    let mut simulation = Simulation::new(false);
    for number in 0..30 {
        simulation.feed_tun(FRAME_NEIGHBORS, Segments::udp(0, number, 1).as_tun_read());
    }
    simulation.turn();
    simulation.turn();
    let unresolved = |simulation: &Simulation| {
        let counters = simulation.counters(FRAME_NEIGHBORS);
        counters.drops_of(TrafficDirection::Egress, DropReason::NeighborUnresolved)
    };
    // Sixteen wait; the others were dropped at once.
    assert_eq!(unresolved(&simulation), 14);
    simulation.advance(Duration::from_millis(900));
    simulation.turn();
    assert_eq!(unresolved(&simulation), 14);
    simulation.drain();
    assert_eq!(unresolved(&simulation), 30);
}

#[test]
fn packets_that_wait_for_a_neighbour_go_with_their_link() {
    let mut simulation = Simulation::new(false);
    for number in 0..4 {
        simulation.feed_tun(FRAME_NEIGHBORS, Segments::udp(0, number, 1).as_tun_read());
    }
    simulation.turn();
    simulation.turn();
    simulation.detach(FRAME_NEIGHBORS);
    simulation.drain();
    let lost = (TrafficDirection::Egress, DropReason::LinkGone, 4);
    assert_eq!(drops(&simulation.counters(FRAME_NEIGHBORS)), [lost]);
}
