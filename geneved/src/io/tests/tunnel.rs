use libgeneve::drop::DropReason;

use super::*;
use crate::io::engine::EngineEvent;
use crate::io::simulation::{REMOTE_HOSTS, SIMULATED_MTU, SimulatedLink};

const IP: SimulatedLink = SimulatedLink::Ip;
/// Length of the device's virtio header and the tunnel's headers behind it: Ethernet, IPv4, UDP, Geneve.
const BEFORE: usize = 24 + 14 + 20 + 8 + 8;

/// Returns a TCP super-packet whose segments are as long as the link's MTU allows.
fn super_packet(number: u32) -> Vec<u8> {
    let mss = usize::from(SIMULATED_MTU) - 40;
    let kind = packets::PayloadKind::Tcp(TcpFlags::ACK, 1 + number * 3 * mss as u32);
    let addr = |last| IpAddr::from([10, 0, 0, last]);
    let packet = packets::packet((addr(1), PORT), (addr(2), 2000), kind, 3 * mss);
    let vnet = VnetHdr {
        flags: NEEDS_CSUM,
        gso_type: GsoType::TcpV4,
        gso_size: mss as u16,
        hdr_len: 40,
        csum_start: 20,
        csum_offset: 16,
        ..VnetHdr::NONE
    };
    with_vnet(&vnet, &packet)
}

fn handed_over(simulation: &mut Simulation) -> Vec<Vec<u8>> {
    let written = simulation.take_all_written();
    written.into_iter().map(|packet| packet.bytes).collect()
}

#[test]
fn super_packets_are_handed_over_uncut_once_the_first_was_seen_to_leave() {
    let mut simulation = Simulation::new(true);
    for number in 0..3 {
        simulation.feed_tun(IP, super_packet(number));
    }
    simulation.drain();
    assert_eq!(simulation.take_sent(), []);
    let written = handed_over(&mut simulation);
    assert_eq!(written.len(), 3);
    for (number, bytes) in (0..).zip(&written) {
        assert_eq!(bytes[BEFORE..], super_packet(number)[vnet::LEN..]);
        let geneve = Geneve::parse(&bytes[BEFORE - 8..]).unwrap();
        assert_eq!(geneve.vni(), IP.vni());
    }
    assert_eq!(simulation.counters(IP).tx_packets, 9);
}

#[test]
fn where_the_first_does_not_leave_all_are_cut_here() {
    let mut simulation = Simulation::new(true);
    let fault = InjectedFault::Errno(libc::EINVAL);
    simulation.faults().direct.push_back(Some(fault));
    for number in 0..2 {
        simulation.feed_tun(IP, super_packet(number));
    }
    simulation.drain();
    assert_eq!(simulation.take_sent().len(), 6);
    assert_eq!(handed_over(&mut simulation), Vec::<Vec<u8>>::new());
    assert!(matches!(
        &simulation.take_events()[..],
        [EngineEvent::TunnelGso { works: false, host, .. }] if *host == REMOTE_HOSTS[0]
    ));
}

#[test]
fn what_is_refused_later_is_cut_and_sent_after_all() {
    let mut simulation = Simulation::new(true);
    simulation.feed_tun(IP, super_packet(0));
    simulation.drain();
    assert_eq!(handed_over(&mut simulation).len(), 1);
    for fault in [InjectedFault::Errno(libc::EIO), InjectedFault::Short] {
        let mut simulation = Simulation::new(true);
        simulation.feed_tun(IP, super_packet(0));
        simulation.drain();
        simulation.faults().writes.push_back(Some(fault));
        simulation.feed_tun(IP, super_packet(1));
        simulation.drain();
        let sent = simulation.take_sent();
        assert_eq!(sent.len(), 3, "{fault:?}");
        assert_eq!(simulation.counters(IP).tx_packets, 6);
        // The link's packets to this host do not try the device again for a while.
        simulation.feed_tun(IP, super_packet(2));
        simulation.drain();
        assert_eq!(simulation.take_sent().len(), 3);
        assert_eq!(drops(&simulation.all_counters()), []);
    }
}

#[test]
fn a_super_packet_of_a_link_that_went_meanwhile_is_dropped() {
    let mut simulation = Simulation::new(true);
    simulation.feed_tun(IP, super_packet(0));
    simulation.drain();
    simulation.feed_tun(IP, super_packet(1));
    let fault = InjectedFault::Errno(libc::EIO);
    simulation.faults().writes.push_back(Some(fault));
    simulation.turn();
    simulation.detach(IP);
    simulation.drain();
    let sum = simulation.all_counters();
    let lost: Vec<_> = sum.drops(TrafficDirection::Egress).collect();
    assert!(
        lost.is_empty() || lost == [(DropReason::LinkGone, 3)],
        "{lost:?}"
    );
}
