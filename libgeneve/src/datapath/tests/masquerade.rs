//! Hairpinning to the sender's own host: the answer returns here, from the address that was asked.

use super::l2_forwarding::{LOCAL_MAC, OWN_MAC, bridged, frame, request, send, turn_back};
use super::services::{SERVICE_ADDRESS, VIP6, fabric};
use super::support::*;
use super::*;
use crate::policy::PolicyAction;
use crate::service::Affinity;
use crate::wire::ethernet::{Ethernet, Mac};
use crate::wire::icmp::QuotedTransport;

/// Clients of this host, routed by the kernel, with the service and the backend, which is an address of the
/// interface.
const CLIENTS: [(&str, &str, &str); 2] = [
    ("172.16.0.1", SERVICE_ADDRESS, "10.0.0.1"),
    ("fd02::1", VIP6, "fd00::1"),
];

fn make(number: u8, from: (&str, u16), to: (&str, u16), flags: TcpFlags) -> Vec<u8> {
    match number {
        protocol::UDP => udp(from.0, to.0, (from.1, to.1), 0),
        _ => tcp(from.0, to.0, (from.1, to.1), flags),
    }
}

fn serving(number: u8, vip: &str, addr: &str) -> TestHost {
    site(LinkFunctions {
        services: service(vip, number, Affinity::None, vec![backend(addr, 1)]),
        ..LinkFunctions::default()
    })
}

#[test]
fn a_backend_of_this_host_answers_a_client_of_this_host_in_the_name_of_the_service() {
    for number in [protocol::TCP, protocol::UDP] {
        for (client, vip, addr) in CLIENTS {
            // The second client is the backend itself.
            for client in [client, addr] {
                let site = serving(number, vip, addr);
                for flags in [SYN, ACK] {
                    let ask = make(number, (client, 1000), (vip, 80), flags);
                    let there = site.send(&ask).unwrap();
                    let expected = (0, format!("{vip} 1000 > {addr} 8080"));
                    assert_eq!((there.tun(), there.tuple()), expected);
                    let reply = make(number, (addr, 8080), (vip, 1000), ACK);
                    let back = site.send(&reply).unwrap();
                    let expected = (0, format!("{vip} 80 > {client} 1000"));
                    assert_eq!((back.tun(), back.tuple()), expected);
                }
                assert_eq!(site.flows(), 1);
            }
        }
    }
}

/// Returns the translated source port of a packet from this client to the virtual address.
fn port(site: &TestHost, client: &str, sport: u16) -> Result<u16, DropReason> {
    let there = site.send(&tcp(client, SERVICE_ADDRESS, (sport, 80), SYN))?;
    assert_eq!(there.packet().src, ip(SERVICE_ADDRESS));
    Ok(there.packet().ports().unwrap().0)
}

#[test]
fn clients_with_one_port_are_told_apart_and_keep_their_ports() {
    let mut site = serving(protocol::TCP, SERVICE_ADDRESS, "10.0.0.1");
    let clients: Vec<_> = (1..9).map(|n| format!("172.16.0.{n}")).collect();
    let ports: Vec<_> = clients
        .iter()
        .map(|c| port(&site, c, 1000).unwrap())
        .collect();
    assert_eq!(ports[0], 1000);
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
    assert!(ports[1..].iter().all(|&p| p >= 1024));
    // A client that sends from the service's port gets another one.
    assert_ne!(port(&site, "172.16.1.1", 80), Ok(80));
    site.functions(|f| f.rate = None);
    for (client, before) in clients.iter().zip(ports) {
        assert_eq!(port(&site, client, 1000), Ok(before));
        let back = site.send(&tcp("10.0.0.1", SERVICE_ADDRESS, (8080, before), SYN_ACK));
        assert_eq!(
            back.unwrap().tuple(),
            format!("{SERVICE_ADDRESS} 80 > {client} 1000")
        );
    }
}

#[test]
fn errors_pass_as_the_packets_do() {
    for (client, vip, addr) in CLIENTS {
        let site = serving(protocol::UDP, vip, addr);
        let there = site.send(&udp(client, vip, (1000, 80), 0)).unwrap();
        // The backend's port is closed: the same error from the backend and from the client's address.
        for from in [addr, client] {
            let told = site.send(&error_about(from, there.inner())).unwrap();
            let quote = told.packet().quote(told.inner()).unwrap();
            let seen = if from == addr { vip } else { from };
            let expected = (ip(seen), ip(client), ip(client), ip(vip));
            let packet = told.packet();
            assert_eq!((packet.src, packet.dst, quote.src, quote.dst), expected);
            let ports = QuotedTransport::Udp { src: 1000, dst: 80 };
            assert_eq!(quote.transport, ports);
        }
        // The client's port is closed.
        let back = site.send(&udp(addr, vip, (8080, 1000), 0)).unwrap();
        let told = site.send(&error_about(client, back.inner())).unwrap();
        let quote = told.packet().quote(told.inner()).unwrap();
        let packet = told.packet();
        assert_eq!((packet.src, packet.dst), (ip(vip), ip(addr)));
        assert_eq!((quote.src, quote.dst), (ip(addr), ip(vip)));
    }
}

#[test]
fn a_port_forward_to_this_host_serves_this_host_too() {
    let rules = vec![
        dnat("198.51.100.9", Some((6, 443)), "10.0.0.1", Some(8443)),
        dnat("198.51.100.10", None, "10.0.0.1", None),
    ];
    let site = site(LinkFunctions {
        nat: translation(0, rules),
        ..LinkFunctions::default()
    });
    let ask = tcp("172.16.0.1", "198.51.100.9", (1000, 443), SYN);
    let there = site.send(&ask).unwrap();
    assert_eq!(there.tuple(), "198.51.100.9 1000 > 10.0.0.1 8443");
    let reply = tcp("10.0.0.1", "198.51.100.9", (8443, 1000), SYN_ACK);
    let back = site.send(&reply).unwrap();
    assert_eq!(back.tuple(), "198.51.100.9 443 > 172.16.0.1 1000");
    // An ICMP identifier stands for both ports; two hosts may use the same one.
    let mut seen = HashSet::new();
    for client in ["172.16.0.1", "172.16.0.2"] {
        let there = site.send(&echo(client, "198.51.100.10", 7, false)).unwrap();
        let Transport::Icmp { id: Some(id), .. } = there.packet().transport else {
            panic!("an echo request");
        };
        assert!(seen.insert(id));
        assert_eq!(there.packet().src, ip("198.51.100.10"));
        let back = site.send(&echo("10.0.0.1", "198.51.100.10", id, true));
        assert_eq!(
            back.unwrap().tuple(),
            format!("198.51.100.10 7 > {client} 7")
        );
    }
}

#[test]
fn what_another_host_relays_back_to_the_clients_own_host_is_told_apart() {
    for (number, client, vip) in [
        (protocol::TCP, "10.0.0.3", SERVICE_ADDRESS),
        (protocol::UDP, "10.0.0.3", SERVICE_ADDRESS),
        (protocol::TCP, "fd00::3", VIP6),
    ] {
        // C is the host of the backend and of this client.
        let [balancer, _, mut own] = fabric(number);
        for epoch in 0..2 {
            let ask = make(number, (client, 1000), (vip, 80), SYN);
            let asked = own.send(&ask).unwrap();
            assert_eq!(asked.host(), ip(LOCAL_HOST));
            let relayed = balancer.receive(HOST_C, &asked.datagram()).unwrap();
            let arrived = own.receive(LOCAL_HOST, &relayed.datagram()).unwrap();
            let expected = (0, format!("{vip} 1000 > {client} 8080"));
            assert_eq!((arrived.tun(), arrived.tuple()), expected, "{epoch}");
            let reply = make(number, (client, 8080), (vip, 1000), SYN_ACK);
            let back = own.send(&reply).unwrap();
            let expected = (0, format!("{vip} 80 > {client} 1000"));
            assert_eq!((back.tun(), back.tuple()), expected, "{epoch}");
            own.functions(|f| f.rate = None);
            // The reply is first to reach the outdated decision.
            assert_eq!(own.send(&reply).unwrap().tuple(), back.tuple());
        }
    }
}

const OTHER_MAC: Mac = Mac([2, 0, 0, 0, 0, 5]);

#[test]
fn stations_of_one_bridge_are_kept_apart() {
    let mut config = bridged(PolicyAction::Allow);
    let services = service(
        SERVICE_ADDRESS,
        protocol::UDP,
        Affinity::None,
        vec![backend("10.0.0.5", 1)],
    );
    config.functions.services = services;
    let world = tables(vec![config]);
    let bridge = world.link(LinkIndex(0)).unwrap().bridge.as_ref().unwrap();
    for (mac, addr) in [(LOCAL_MAC, "10.0.0.1"), (OTHER_MAC, "10.0.0.5")] {
        let claim = frame(
            Mac::BROADCAST,
            mac,
            ethertype::ARP,
            &request(mac, addr, "10.0.0.99"),
        );
        send(&world, claim).unwrap();
    }
    let between = |bytes: &[u8]| {
        let frame = Ethernet::parse(bytes).unwrap();
        let packet = Packet::parse(frame.payload()).unwrap();
        assert_ne!(
            packet.checksum_state(frame.payload()),
            crate::wire::transport_checksum::ChecksumState::Wrong
        );
        let key = FlowKey::of(LinkIndex(0), &packet);
        let tuple = format!("{} {} > {} {}", key.src, key.sport, key.dst, key.dport);
        (frame.src(), frame.dst(), tuple)
    };
    let own = bridge.virtual_mac;
    let sent = |src: Mac, packet: &[u8]| {
        turn_back(&world, frame(own, src, ethertype::IPV4, packet)).unwrap()
    };
    // The second client is the backend itself.
    for (client, addr) in [(LOCAL_MAC, "10.0.0.1"), (OTHER_MAC, "10.0.0.5")] {
        let there = sent(client, &udp(addr, SERVICE_ADDRESS, (1000, 80), 0));
        let (src, dst, tuple) = between(&there);
        assert_eq!((src, dst), (own, OTHER_MAC));
        let at = Ethernet::parse(&there).unwrap().payload().to_vec();
        let port = Packet::parse(&at).unwrap().ports().unwrap().0;
        assert_eq!(tuple, format!("{SERVICE_ADDRESS} {port} > 10.0.0.5 8080"));
        let back = sent(
            OTHER_MAC,
            &udp("10.0.0.5", SERVICE_ADDRESS, (8080, port), 0),
        );
        let expected = (own, client, format!("{SERVICE_ADDRESS} 80 > {addr} 1000"));
        assert_eq!(between(&back), expected);
        let told = sent(OTHER_MAC, &error_about("10.0.0.5", &at));
        let frame = Ethernet::parse(&told).unwrap();
        let packet = Packet::parse(frame.payload()).unwrap();
        assert_eq!((packet.src, packet.dst), (ip(SERVICE_ADDRESS), ip(addr)));
        assert_eq!(frame.dst(), client);
    }
    assert_ne!(own, OWN_MAC);
}
