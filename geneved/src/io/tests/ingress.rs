use libgeneve::drop::DropReason;

use super::*;
use crate::io::engine::EngineEvent;
use crate::io::simulation::REMOTE_HOSTS;

const IP: SimulatedLink = SimulatedLink::Ip;

fn feed(simulation: &mut Simulation, segments: &Segments) {
    let (segment, bytes) = segments.as_train(IP);
    let host = REMOTE_HOSTS[usize::from(segments.flow % 2)];
    simulation.feed_socket(host, segment, bytes);
}

#[test]
fn a_train_becomes_one_super_packet() {
    for segments in [Segments::tcp(0, 0, 30), Segments::udp(1, 0, 30)] {
        let mut simulation = Simulation::new(false);
        feed(&mut simulation, &segments);
        simulation.drain();
        let written = simulation.take_written(IP);
        assert_eq!(written.len(), 1);
        let vnet = VnetHdr::parse(&written[0]).unwrap();
        assert_eq!(usize::from(vnet.gso_size), SEGMENT);
        assert_eq!(stamps(&written[0][vnet::LEN..]), segments.stamps());
        assert_eq!(simulation.counters(IP).rx_packets, 30);
    }
}

#[test]
fn what_tun_does_not_take_in_full_is_refused() {
    for fault in [
        InjectedFault::Errno(libc::EIO),
        InjectedFault::Errno(libc::EINVAL),
        InjectedFault::Errno(libc::EBUSY),
        InjectedFault::Short,
    ] {
        let mut simulation = Simulation::new(false);
        simulation.faults().writes.push_back(Some(fault));
        feed(&mut simulation, &Segments::tcp(0, 0, 9));
        simulation.drain();
        let lost = (TrafficDirection::Ingress, DropReason::TunRefused, 9);
        assert_eq!(drops(&simulation.counters(IP)), [lost], "{fault:?}");
        assert_eq!(simulation.counters(IP).rx_packets, 0);
        assert_eq!(simulation.take_written(IP), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn a_tun_that_vanishes_takes_nothing_and_its_end_is_told_once() {
    let mut simulation = Simulation::new(false);
    feed(&mut simulation, &Segments::tcp(0, 0, 9));
    simulation.feed_tun(IP, Segments::udp(0, 0, 1).as_tun_read());
    // The packets are read and the writes queued when the interface vanishes.
    simulation.turn();
    simulation.vanish(IP);
    simulation.drain();
    let lost = (TrafficDirection::Ingress, DropReason::TunRefused, 9);
    assert_eq!(drops(&simulation.counters(IP)), [lost]);
    let news = simulation.take_events();
    assert!(
        matches!(&news[..], [EngineEvent::QueueLost { link, .. }] if *link == IP.index()),
        "{news:?}"
    );
    // What was read before is still sent, and the other links keep working.
    assert_eq!(sent_stamps(&mut simulation), [(0, 0)]);
    assert!(!simulation.feed_tun(IP, Segments::udp(0, 1, 1).as_tun_read()));
    simulation.feed_tun(SimulatedLink::Rated, Segments::udp(0, 2, 1).as_tun_read());
    simulation.detach(IP);
    simulation.drain();
    assert_eq!(sent_stamps(&mut simulation), [(0, 2)]);
}

#[test]
fn a_link_that_is_taken_away_while_its_packets_are_under_way_loses_no_buffer() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(false);
        simulation.set_disorder(Some(seed));
        for number in 0..20 {
            feed(&mut simulation, &Segments::tcp(0, 9 * number, 9));
            simulation.feed_tun(IP, Segments::udp(0, 5 * number, 5).as_tun_read());
        }
        simulation.turn();
        simulation.detach(IP);
        simulation.drain();
        let sum = simulation.all_counters();
        let dropped: u64 = drops(&sum).iter().map(|&(.., count)| count).sum();
        assert_eq!(sum.tx_packets + sum.rx_packets + dropped, 280);
    }
}

#[test]
fn what_did_not_fit_its_buffer_or_is_of_no_vpc_is_dropped_once() {
    let mut simulation = Simulation::new(false);
    simulation.feed_socket(REMOTE_HOSTS[0], 0, vec![0; 70_000]);
    simulation.feed_socket(REMOTE_HOSTS[0], 0, vec![0; 3]);
    let (_, mut unknown) = Segments::udp(0, 0, 1).as_train(IP);
    unknown[4..7].copy_from_slice(&[0, 9, 9]);
    simulation.feed_socket(REMOTE_HOSTS[0], 0, unknown);
    simulation.drain();
    let mut seen = drops(&simulation.all_counters());
    seen.sort_unstable_by_key(|&(_, reason, _)| reason);
    let ingress = TrafficDirection::Ingress;
    assert_eq!(
        seen,
        [
            (ingress, DropReason::GeneveTruncated, 2),
            (ingress, DropReason::UnknownVni, 1),
        ]
    );
}

#[test]
fn more_trains_than_there_are_buffers_and_writes_arrive_in_order() {
    let mut simulation = Simulation::new(false);
    simulation.set_disorder(Some(1));
    let trains: Vec<_> = (0..400).map(|n| Segments::tcp(0, 7 * n, 7)).collect();
    for train in &trains {
        feed(&mut simulation, train);
    }
    simulation.drain();
    let all: Vec<_> = trains.iter().flat_map(Segments::stamps).collect();
    assert_eq!(written_stamps(&mut simulation, IP), all);
}
