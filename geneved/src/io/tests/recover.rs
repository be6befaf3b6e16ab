use libgeneve::drop::DropReason;
use libgeneve::wire::ip::protocol;

use super::*;
use crate::io::engine::EngineEvent;
use crate::io::simulation::{REMOTE_HOSTS, SIMULATED_MTU};

const IP: SimulatedLink = SimulatedLink::Ip;

fn errno(errno: i32) -> Option<InjectedFault> {
    Some(InjectedFault::Errno(errno))
}

#[test]
fn a_host_that_takes_no_trains_gets_datagrams_and_loses_none() {
    for error in [libc::EIO, libc::EINVAL, libc::EMSGSIZE] {
        let mut simulation = Simulation::new(false);
        simulation.faults().trains = Some(error);
        let packet = Segments::tcp(0, 0, 30);
        simulation.feed_tun(IP, packet.as_tun_read());
        simulation.drain();
        let sent = simulation.take_sent();
        assert!(sent.iter().all(|datagram| datagram.direct));
        assert_eq!(sent.len(), 30);
        assert_eq!(drops(&simulation.all_counters()), []);
        let news = simulation.take_events();
        assert!(
            matches!(&news[..], [EngineEvent::GsoOff { host, .. }] if *host == REMOTE_HOSTS[0]),
            "{news:?}"
        );
        // From now on trains are not tried any more; the other host is not affected.
        assert!(!simulation.host(REMOTE_HOSTS[0]).gso());
        assert!(simulation.host(REMOTE_HOSTS[1]).gso());
        simulation.faults().trains = None;
        simulation.feed_tun(IP, packet.as_tun_read());
        simulation.drain();
        assert!(simulation.take_sent().iter().all(|sent| sent.direct));
    }
}

#[test]
fn a_pending_icmp_error_costs_no_packet() {
    for error in [libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EMSGSIZE] {
        let mut simulation = Simulation::new(false);
        simulation.faults().sends.push_back(errno(error));
        simulation.faults().direct.extend([errno(error); 3]);
        let packet = Segments::udp(0, 0, 5);
        simulation.feed_tun(IP, packet.as_tun_read());
        simulation.drain();
        assert_eq!(sent_stamps(&mut simulation), packet.stamps());
        assert_eq!(drops(&simulation.all_counters()), []);
        assert!(simulation.host(REMOTE_HOSTS[0]).gso());
    }
}

#[test]
fn each_refusal_has_its_reason_and_is_not_tried_for_ever() {
    for (error, reason) in [
        (libc::EAGAIN, DropReason::SocketFull),
        (libc::ENOBUFS, DropReason::SocketFull),
        (libc::ENETUNREACH, DropReason::UnderlayUnreachable),
        (libc::EPERM, DropReason::UnderlayUnreachable),
        (libc::EINVAL, DropReason::SendFailed),
        (libc::EBUSY, DropReason::SendFailed),
    ] {
        let mut simulation = Simulation::new(false);
        simulation.faults().sends.push_back(errno(error));
        simulation.faults().direct.extend([errno(error); 100]);
        simulation.feed_tun(IP, Segments::udp(0, 0, 4).as_tun_read());
        simulation.drain();
        let lost = (TrafficDirection::Egress, reason, 4);
        assert_eq!(drops(&simulation.counters(IP)), [lost], "errno {error}");
        let tries = 100 - simulation.faults().direct.len();
        assert!(tries <= 5 + 6 + 3, "{tries} tries");
        assert_eq!(simulation.take_sent(), []);
    }
}

#[test]
fn what_is_too_long_for_the_path_is_told_to_its_sender() {
    let mut simulation = Simulation::new(false);
    simulation.faults().sends.push_back(errno(libc::EMSGSIZE));
    simulation
        .faults()
        .direct
        .extend([errno(libc::EMSGSIZE); 9]);
    let ends = [1, 2].map(|last| (IpAddr::from([10, 0, 0, last]), PORT));
    let packet = packets::packet(ends[0], ends[1], packets::TCP_ACK, 1000);
    simulation.feed_tun(IP, with_vnet(&VnetHdr::NONE, &packet));
    // The kernel learns the path MTU first, and geneved before the train is settled.
    simulation.turn();
    simulation.host(REMOTE_HOSTS[0]).set_path_mtu(Some(700));
    simulation.drain();
    let lost = (TrafficDirection::Egress, DropReason::TooBig, 1);
    assert_eq!(drops(&simulation.counters(IP)), [lost]);
    let told = simulation.take_written(IP);
    assert_eq!(told.len(), 1);
    let error = Packet::parse(&told[0][vnet::LEN..]).unwrap();
    assert_eq!(error.protocol, protocol::ICMP);
    // Fragmentation needed, with the MTU (RFC 1191 section 4).
    let icmp = &told[0][vnet::LEN + usize::from(error.transport_offset)..];
    assert_eq!((icmp[0], icmp[1]), (3, 4));
    let mtu = u16::from_be_bytes([icmp[6], icmp[7]]);
    assert!(mtu < SIMULATED_MTU && mtu == 700 - 20 - 8 - 8, "{mtu}");
}

#[test]
fn a_train_of_which_half_was_taken_is_not_sent_twice() {
    let mut simulation = Simulation::new(false);
    let short = Some(InjectedFault::Short);
    simulation.faults().sends.push_back(short);
    simulation.feed_tun(IP, Segments::udp(0, 0, 4).as_tun_read());
    simulation.drain();
    let lost = (TrafficDirection::Egress, DropReason::SendFailed, 4);
    assert_eq!(drops(&simulation.counters(IP)), [lost]);
    assert_eq!(simulation.take_sent(), []);
}
