//! UDP ports: RFC 8926 section 3.3.

use geneved_tests::on_both_backends;
use geneved_tests::packet::{Parsed, RawGeneve, ip};
use geneved_tests::peer::{INNER4, Peer};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::world::{Duo, UnderlayFamily, link};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Sends `count` datagrams of one inner flow out of host a; the outer source ports as host b sees them.
fn outer_ports(peer: &Peer, inner_port: u16, count: usize) -> Vec<u16> {
    let inner = peer
        .duo
        .a
        .netns()
        .run(|| UdpSocket::bind(("10.0.0.1", inner_port)));
    let inner = inner.unwrap().unwrap();
    let mut buffer = [0; 2000];
    let mut ports = Vec::new();
    for _ in 0..count {
        inner.send_to(b"one flow", "10.0.0.2:9").unwrap();
        loop {
            let (n, from) = peer.socket.recv_from(&mut buffer).unwrap_or_else(|error| {
                panic!("flow {inner_port}: {error}; {}", peer.daemon.link("gnv0"))
            });
            let udp = Parsed::new(&buffer[8..n]).and_then(|packet| packet.udp());
            if udp.is_some_and(|(port, _, _)| port == inner_port) {
                ports.push(from.port());
                break;
            }
        }
    }
    ports
}

on_both_backends! {
    fn rfc8926_01_one_flow_keeps_its_source_port(io) {
        for family in UnderlayFamily::BOTH {
            let peer = Peer::new(io, family, "");
            for flow in 0..5 {
                let ports: BTreeSet<_> = outer_ports(&peer, 3000 + flow, 8).into_iter().collect();
                assert_eq!(ports.len(), 1, "{ports:?}");
            }
        }
    }

    fn rfc8926_02_many_flows_spread_over_the_source_ports(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "srcport = \"50000-50015\"");
        let ports: BTreeSet<_> = (0..100).flat_map(|flow| outer_ports(&peer, 3000 + flow, 1)).collect();
        assert!(ports.iter().all(|port| (50_000..=50_015).contains(port)), "{ports:?}");
        // 100 flows over 16 ports leave one of them empty once in 40 runs, four of them never.
        assert!(ports.len() >= 12, "{ports:?}");
    }

    fn rfc8926_03_the_destination_port_is_6081_unless_set(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "");
        outer_ports(&peer, 3000, 1);
        drop(peer);
        let duo = Duo::new();
        let config = link("gnv0", 100, &["10.0.0.1/24"], "remote = \"192.0.2.2\"\ndstport = 7000");
        let _a = duo.world.daemon(&duo.a, io, "", &config);
        let socket = Peer::bind(&duo, "192.0.2.2:7000".parse().unwrap());
        let inner = duo.a.netns().run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
        inner.send_to(b"to port 7000", "10.0.0.2:9").unwrap();
        socket.recv(&mut [0; 2000]).expect("it arrives on the port that was set");
        // The same port is listened on.
        let [from, to]: [IpAddr; 2] = INNER4.map(|text| text.parse().unwrap());
        let datagram = RawGeneve::new(100).datagram(&geneved_tests::packet::udp((from, 5), (to, 9), b"x"));
        let tun = Sniffer::new(duo.a.netns(), "gnv0");
        socket.send_to(&datagram, "192.0.2.1:7000").unwrap();
        let came = tun.find(Duration::from_secs(3), |bytes| (Parsed::new(bytes)?.from == from).then_some(()));
        assert!(came.is_some(), "nothing listens on port 7000");
    }

    fn rfc8926_05_ports_are_not_swapped_for_the_reverse_direction(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "");
        let odd = Peer::bind(&peer.duo, "192.0.2.2:3333".parse().unwrap());
        let [from, to]: [IpAddr; 2] = INNER4.map(|text| text.parse().unwrap());
        let mut echo = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
        let check = !(geneved_tests::packet::sum(0, &echo) as u16);
        echo[2..4].copy_from_slice(&check.to_be_bytes());
        let datagram = RawGeneve::new(100).datagram(&ip(from, to, 1, &echo));
        odd.send_to(&datagram, peer.target).unwrap();
        let mut buffer = [0; 2000];
        loop {
            let (n, _) = peer.socket.recv_from(&mut buffer).expect("the reply comes to port 6081");
            let packet = Parsed::new(&buffer[8..n]).expect("an IP packet");
            if packet.protocol == 1 && packet.segment[0] == 0 {
                break;
            }
        }
        odd.set_nonblocking(true).unwrap();
        assert!(odd.recv(&mut buffer).is_err(), "a reply came to the sender's source port");
    }

    fn stray_packets_to_a_source_port_go_nowhere(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "srcport = \"50000-50000\"");
        outer_ports(&peer, 3000, 1);
        let (port, inner) = peer.inner();
        let stray = RawGeneve::new(100).datagram(&inner);
        for _ in 0..200 {
            peer.socket.send_to(&stray, SocketAddr::new(peer.target.ip(), 50_000)).unwrap();
        }
        assert!(peer.emerged(port, Duration::from_millis(200)).is_none(), "a stray packet was forwarded");
        // What they left in the socket's queue is in nobody's way.
        assert_eq!(outer_ports(&peer, 3001, 3), [50_000; 3]);
    }
}
