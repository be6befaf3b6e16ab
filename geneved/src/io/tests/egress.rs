use libgeneve::drop::DropReason;
use libgeneve::vpc::OffloadNeeds;
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve};

use super::*;
use crate::io::simulation::REMOTE_HOSTS;

const IP: SimulatedLink = SimulatedLink::Ip;

#[test]
fn a_packet_leaves_for_its_host_and_its_buffer_comes_back() {
    let mut simulation = Simulation::new(false);
    let packet = Segments::udp(0, 7, 1);
    assert!(simulation.feed_tun(IP, packet.as_tun_read()));
    simulation.drain();
    let sent = simulation.take_sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].dst, (REMOTE_HOSTS[0], GENEVE_PORT).into());
    let geneve = Geneve::parse(&sent[0].payload).unwrap();
    assert_eq!(geneve.vni(), IP.vni());
    assert_eq!(geneve.payload(), packet.packet(7..8, true));
    let counters = simulation.counters(IP);
    assert_eq!((counters.tx_packets, counters.tx_bytes), (1, 92));
    assert_eq!(drops(&simulation.all_counters()), []);
}

#[test]
fn super_packets_of_a_turn_and_a_host_become_one_train_in_order() {
    let mut simulation = Simulation::new(false);
    let (first, second) = (Segments::tcp(2, 0, 40), Segments::tcp(2, 40, 20));
    simulation.feed_tun(IP, first.as_tun_read());
    simulation.feed_tun(IP, second.as_tun_read());
    // If the train fails as a whole, both packets must have been in it.
    let fault = InjectedFault::Errno(libc::EAGAIN);
    simulation.faults().sends.push_back(Some(fault));
    simulation.drain();
    assert_eq!(sent_stamps(&mut simulation), []);
    let lost = (TrafficDirection::Egress, DropReason::SocketFull, 60);
    assert_eq!(drops(&simulation.counters(IP)), [lost]);
    simulation.feed_tun(IP, first.as_tun_read());
    simulation.feed_tun(IP, second.as_tun_read());
    simulation.drain();
    let both = [first.stamps(), second.stamps()].concat();
    assert_eq!(sent_stamps(&mut simulation), both);
}

#[test]
fn more_packets_than_there_are_buffers_and_trains_leave_in_order() {
    let mut simulation = Simulation::new(false);
    let packets: Vec<_> = (0..300).map(|n| Segments::udp(1, 20 * n, 20)).collect();
    for packet in &packets {
        simulation.feed_tun(IP, packet.as_tun_read());
    }
    simulation.set_disorder(Some(3));
    simulation.drain();
    let all: Vec<_> = packets.iter().flat_map(Segments::stamps).collect();
    assert_eq!(sent_stamps(&mut simulation), all);
    assert_eq!(simulation.counters(IP).tx_packets, 6000);
}

#[test]
fn what_has_no_way_is_dropped_for_its_reason() {
    let mut simulation = Simulation::new(false);
    let mut astray = Segments::udp(0, 0, 1).packet(0..1, true);
    astray[19] = 99;
    libgeneve::wire::ip::write_ipv4_checksum(&mut astray);
    simulation.feed_tun(IP, with_vnet(&VnetHdr::NONE, &astray));
    simulation.feed_tun(IP, vec![0; 3]);
    simulation.feed_tun(IP, with_vnet(&VnetHdr::NONE, b"\x10nonsense"));
    simulation.drain();
    let mut seen: Vec<_> = drops(&simulation.counters(IP));
    seen.sort_unstable_by_key(|&(_, reason, _)| reason);
    let mut expected = [
        DropReason::NotIp,
        DropReason::BadOffload,
        DropReason::NoRoute,
    ]
    .map(|reason| (TrafficDirection::Egress, reason, 1));
    expected.sort_unstable_by_key(|&(_, reason, _)| reason);
    assert_eq!(seen, expected);
    assert_eq!(simulation.take_sent(), []);
}

#[test]
fn a_host_that_needs_whole_datagrams_gets_each_by_itself() {
    let mut simulation = Simulation::new(false);
    simulation
        .host(REMOTE_HOSTS[0])
        .set_offload_needs(OffloadNeeds::All);
    let packet = Segments::udp(0, 0, 12);
    simulation.feed_tun(IP, packet.as_tun_read());
    simulation.drain();
    let sent = simulation.take_sent();
    assert_eq!(sent.len(), 12);
    assert!(sent.iter().all(|datagram| datagram.direct));
}

#[test]
fn packets_over_a_rate_wait_and_leave_later_in_order() {
    let mut simulation = Simulation::new(false);
    let packets: Vec<_> = (0..30).map(|n| Segments::udp(0, 10 * n, 10)).collect();
    for packet in &packets {
        simulation.feed_tun(SimulatedLink::Rated, packet.as_tun_read());
    }
    simulation.turn();
    simulation.turn();
    let at_once = simulation.take_sent().len();
    assert!((1..200).contains(&at_once), "{at_once} left at once");
    simulation.drain();
    let later = sent_stamps(&mut simulation);
    assert!(later.is_sorted());
    let counters = simulation.counters(SimulatedLink::Rated);
    let lost: u64 = drops(&counters).iter().map(|&(.., count)| count).sum();
    assert_eq!(counters.tx_packets + lost, 300);
    assert_eq!(counters.tx_packets, (at_once + later.len()) as u64);
}
