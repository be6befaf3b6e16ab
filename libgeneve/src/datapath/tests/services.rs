//! Services: backends of new and of established flows, and direct server return through three hosts.

use super::support::*;
use super::*;
use crate::options::{SentOptions, ServiceOption};
use crate::service::{Affinity, Backend};

pub(super) const SERVICE_ADDRESS: &str = "10.0.9.1";
pub(super) const VIP6: &str = "fd00::9:1";

/// This host knows the service; its clients are here.
fn serving(affinity: Affinity, backends: Vec<Backend>) -> TestHost {
    site(LinkFunctions {
        services: service(SERVICE_ADDRESS, protocol::TCP, affinity, backends),
        ..LinkFunctions::default()
    })
}

fn ask(site: &TestHost, port: u16) -> Result<IpAddr, DropReason> {
    let went = site.send(&tcp("10.0.0.1", SERVICE_ADDRESS, (port, 80), ACK))?;
    assert_eq!(went.packet().ports().unwrap().1, 8080);
    Ok(went.packet().dst)
}

fn both() -> Vec<Backend> {
    vec![backend("10.0.0.2", 1), backend("10.0.0.3", 1)]
}

#[test]
fn a_virtual_address_leads_to_a_backend_and_its_answer_comes_from_it() {
    let site = serving(Affinity::None, both());
    for port in 1..50 {
        let chosen = ask(&site, port).unwrap();
        assert_eq!(ask(&site, port), Ok(chosen));
        let host = if chosen == ip("10.0.0.2") {
            HOST_B
        } else {
            HOST_C
        };
        let reply = tcp(&chosen.to_string(), "10.0.0.1", (8080, port), ACK);
        let back = site.hear(host, &reply, &plain()).unwrap();
        assert_eq!(
            back.tuple(),
            format!("{SERVICE_ADDRESS} 80 > 10.0.0.1 {port}")
        );
    }
    assert_eq!(site.flows(), 49);
}

/// Returns the backend of many flows before the change, after the change, and of new flows after it.
fn moved(before: Vec<Backend>, after: Vec<Backend>) -> Vec<[IpAddr; 3]> {
    let mut site = serving(Affinity::None, before);
    let first: Vec<_> = (0..100).map(|port| ask(&site, port).unwrap()).collect();
    let changed = service(SERVICE_ADDRESS, protocol::TCP, Affinity::None, after);
    site.functions(|f| f.services = changed);
    let flow = |(port, first): (u16, IpAddr)| {
        [
            first,
            ask(&site, port).unwrap(),
            ask(&site, 1000 + port).unwrap(),
        ]
    };
    (0..).zip(first).map(flow).collect()
}

#[test]
fn an_established_flow_keeps_its_backend_when_the_set_changes() {
    let three = [both(), vec![backend("10.7.0.9", 5)]].concat();
    let flows = moved(both(), three);
    assert!(flows.iter().all(|[first, kept, _]| first == kept));
    assert!(flows.iter().any(|[.., new]| *new == ip("10.7.0.9")));
}

#[test]
fn a_drained_backend_keeps_its_flows_and_gets_no_new_ones() {
    let drained = vec![backend("10.0.0.2", 0), backend("10.0.0.3", 1)];
    let flows = moved(both(), drained);
    assert!(flows.iter().any(|[first, ..]| *first == ip("10.0.0.2")));
    for [first, kept, new] in flows {
        assert_eq!((first, new), (kept, ip("10.0.0.3")));
    }
}

#[test]
fn an_unhealthy_backend_loses_its_flows() {
    let mut ill = both();
    ill[0].healthy = false;
    for [_, kept, new] in moved(both(), ill) {
        assert_eq!((kept, new), (ip("10.0.0.3"), ip("10.0.0.3")));
    }
}

#[test]
fn a_reply_of_a_backend_that_was_lost_is_none() {
    let mut site = serving(Affinity::None, vec![backend("10.0.0.2", 1)]);
    ask(&site, 1000).unwrap();
    let reply = tcp("10.0.0.2", "10.0.0.1", (8080, 1000), ACK);
    site.hear(HOST_B, &reply, &plain()).unwrap();
    let other = service(
        SERVICE_ADDRESS,
        protocol::TCP,
        Affinity::None,
        vec![backend("10.0.0.3", 1)],
    );
    site.functions(|f| f.services = other);
    let late = site.hear(HOST_B, &reply, &plain());
    assert_eq!(late.unwrap_err(), DropReason::NatUntranslatable);
    assert_eq!(ask(&site, 1000), Ok(ip("10.0.0.3")));
}

#[test]
fn flows_of_one_client_stay_together_where_that_is_asked_for() {
    let chosen = |affinity| {
        let site = serving(affinity, both());
        let all: HashSet<_> = (0..50).map(|port| ask(&site, port).unwrap()).collect();
        all.len()
    };
    assert_eq!((chosen(Affinity::None), chosen(Affinity::Client)), (2, 1));
}

#[test]
fn without_a_backend_there_is_no_service() {
    for backends in [Vec::new(), vec![backend("10.0.0.2", 0)]] {
        let site = serving(Affinity::None, backends);
        assert_eq!(ask(&site, 1), Err(DropReason::NoBackend));
        assert_eq!(site.flows(), 0);
    }
}

/// The load balancer (this host), the client's host B and the backend's host C. Only the first knows the service.
pub(super) fn fabric(number: u8) -> [TestHost; 3] {
    [LOCAL_HOST, HOST_B, HOST_C].map(|here| {
        let mut config = vpc(here, 0, RED);
        for vip in [SERVICE_ADDRESS, VIP6] {
            let length = if vip == SERVICE_ADDRESS { 32 } else { 128 };
            let hosts: &[&str] = if here == LOCAL_HOST {
                &[]
            } else {
                &[LOCAL_HOST]
            };
            config.routes.push(route(
                &format!("{vip}/{length}"),
                hosts,
                RouteOrigin::Endpoint,
            ));
        }
        if here == LOCAL_HOST {
            let configs = [(SERVICE_ADDRESS, "10.0.0.3"), (VIP6, "fd00::3")].map(|(vip, addr)| {
                let services = service(vip, number, Affinity::None, vec![backend(addr, 1)]);
                let config = services.unwrap().iter().next().unwrap().config.clone();
                crate::service::ServiceConfig {
                    name: vip.into(),
                    ..config
                }
            });
            let services = crate::service::ServiceTable::new(configs, None).unwrap();
            config.functions.services = Some(Arc::new(services));
        }
        TestHost::new(here, vec![config])
    })
}

#[test]
fn a_backend_on_another_host_answers_the_client_directly_in_the_name_of_the_service() {
    for (number, client, vip, addr) in [
        (protocol::UDP, "10.0.0.2", SERVICE_ADDRESS, "10.0.0.3"),
        (protocol::TCP, "10.0.0.2", SERVICE_ADDRESS, "10.0.0.3"),
        (protocol::TCP, "fd00::2", VIP6, "fd00::3"),
    ] {
        let [balancer, near, far] = fabric(number);
        let make = |src: &str, dst: &str, ports, flags| match number {
            protocol::UDP => udp(src, dst, ports, 0),
            _ => tcp(src, dst, ports, flags),
        };
        for flags in [SYN, ACK] {
            let asked = near.send(&make(client, vip, (1000, 80), flags)).unwrap();
            assert_eq!(asked.host(), ip(LOCAL_HOST));
            let relayed = balancer.receive(HOST_B, &asked.datagram()).unwrap();
            assert_eq!(relayed.host(), ip(HOST_C));
            let option = relayed.options().service.unwrap();
            assert_eq!(
                (option.addr, option.port, option.protocol),
                (ip(vip), 80, number)
            );
            assert_eq!(relayed.packet().ttl, asked.packet().ttl - 1);
            let arrived = far.receive(LOCAL_HOST, &relayed.datagram()).unwrap();
            let expected = format!("{client} 1000 > {addr} 8080");
            assert_eq!((arrived.tun(), arrived.tuple()), (0, expected));

            let reply = make(
                addr,
                client,
                (8080, 1000),
                if flags == SYN { SYN_ACK } else { ACK },
            );
            let answer = far.send(&reply).unwrap();
            assert_eq!(answer.host(), ip(HOST_B));
            let back = near.receive(HOST_C, &answer.datagram()).unwrap();
            let expected = format!("{vip} 80 > {client} 1000");
            assert_eq!((back.tun(), back.tuple()), (0, expected));
        }
        let flows = [&balancer, &near, &far].map(TestHost::flows);
        assert_eq!(flows, [1; 3]);
    }
}

#[test]
fn nobody_else_speaks_in_the_name_of_a_service() {
    let [balancer, near, far] = fabric(protocol::UDP);
    let asked = near
        .send(&udp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), 0))
        .unwrap();
    let relayed = balancer.receive(HOST_B, &asked.datagram()).unwrap();
    far.receive(LOCAL_HOST, &relayed.datagram()).unwrap();
    let answer = far
        .send(&udp("10.0.0.3", "10.0.0.2", (8080, 1000), 0))
        .unwrap();
    // Without the option the source is forged.
    let bare = near.hear(HOST_C, answer.inner(), &plain());
    assert_eq!(bare.unwrap_err(), DropReason::SourceMismatch);
    // The option does not allow answers to a flow that nobody began.
    let mut other = answer.datagram();
    let start = answer.forward().encap.len();
    other[start..].copy_from_slice(&udp(SERVICE_ADDRESS, "10.0.0.2", (80, 1001), 0));
    let heard = near.receive(HOST_C, &other);
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    // Only the host of a virtual address may relay requests to it.
    let forged = far.receive(
        HOST_B,
        &[
            &relayed.forward().encap[..],
            &udp("10.0.0.1", "10.0.0.3", (9, 8080), 0),
        ]
        .concat(),
    );
    assert_eq!(forged.unwrap_err(), DropReason::SourceMismatch);
}

#[test]
fn errors_find_the_way_that_the_packets_of_a_service_take() {
    let [balancer, near, far] = fabric(protocol::UDP);
    let ask = udp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), 0);
    let asked = near.send(&ask).unwrap();
    let relayed = balancer.receive(HOST_B, &asked.datagram()).unwrap();
    let arrived = far.receive(LOCAL_HOST, &relayed.datagram()).unwrap();
    // The backend's port is closed.
    let refused = far.send(&error_about("10.0.0.3", arrived.inner())).unwrap();
    let told = near.receive(HOST_C, &refused.datagram()).unwrap();
    let quote = told.packet().quote(told.inner()).unwrap();
    assert_eq!(
        (told.packet().src, quote.dst),
        (ip(SERVICE_ADDRESS), ip(SERVICE_ADDRESS))
    );
    assert_eq!(
        (quote.src, quote.transport),
        (
            ip("10.0.0.2"),
            crate::wire::icmp::QuotedTransport::Udp { src: 1000, dst: 80 }
        )
    );
    // The client's port is closed.
    let answer = far
        .send(&udp("10.0.0.3", "10.0.0.2", (8080, 1000), 0))
        .unwrap();
    let back = near.receive(HOST_C, &answer.datagram()).unwrap();
    let closed = near.send(&error_about("10.0.0.2", back.inner())).unwrap();
    assert_eq!(closed.host(), ip(LOCAL_HOST));
    let passed = balancer.receive(HOST_B, &closed.datagram()).unwrap();
    assert_eq!(passed.host(), ip(HOST_C));
    let told = far.receive(LOCAL_HOST, &passed.datagram()).unwrap();
    let quote = told.packet().quote(told.inner()).unwrap();
    assert_eq!((quote.src, quote.dst), (ip("10.0.0.3"), ip("10.0.0.2")));
}

#[test]
fn a_service_of_a_gateway_sees_its_clients_themselves() {
    let [mut balancer, near, _] = fabric(protocol::UDP);
    balancer.functions(|f| {
        let out = snat(
            "out",
            "10.0.0.0/28",
            ("198.51.100.1", "198.51.100.1"),
            (5000, 5999),
        );
        f.nat = translation(0, vec![out]);
    });
    let asked = near
        .send(&udp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), 0))
        .unwrap();
    let relayed = balancer.receive(HOST_B, &asked.datagram()).unwrap();
    assert_eq!(relayed.tuple(), "10.0.0.2 1000 > 10.0.0.3 8080");
}

/// The three hosts, after a request has reached the backend's host C.
fn asked(number: u8) -> [TestHost; 3] {
    let [balancer, near, far] = fabric(number);
    let ask = match number {
        protocol::UDP => udp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), 0),
        _ => tcp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), SYN),
    };
    let asked = near.send(&ask).unwrap();
    let relayed = balancer.receive(HOST_B, &asked.datagram()).unwrap();
    far.receive(LOCAL_HOST, &relayed.datagram()).unwrap();
    [balancer, near, far]
}

/// An answer from the service's address, from any host.
fn answer_of(number: u8, from: (&str, u16)) -> Vec<u8> {
    let inner = match number {
        protocol::UDP => udp(from.0, "10.0.0.2", (from.1, 1000), 0),
        _ => tcp(from.0, "10.0.0.2", (from.1, 1000), SYN_ACK),
    };
    let option = ServiceOption {
        addr: ip(from.0),
        port: from.1,
        protocol: number,
    };
    let options = SentOptions {
        service: Some(option),
        ..plain()
    };
    marked(RED, &options, &inner)
}

/// A further host of the client's VPC, which serves nothing.
const OTHER_HOST: &str = "192.0.2.9";

fn with_a_stranger(near: &mut TestHost) {
    let more = route("10.0.0.9/32", &[OTHER_HOST], RouteOrigin::Endpoint);
    near.change(|configs| configs[0].routes.push(more));
}

#[test]
fn only_the_host_that_answered_first_goes_on_to_answer_in_the_name_of_a_service() {
    for number in [protocol::TCP, protocol::UDP] {
        let [_, mut near, _] = asked(number);
        with_a_stranger(&mut near);
        let ask = match number {
            protocol::UDP => udp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), 0),
            _ => tcp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), SYN),
        };
        near.send(&ask).unwrap();
        let answer = answer_of(number, (SERVICE_ADDRESS, 80));
        let said = |near: &TestHost, host: &str| near.receive(host, &answer).map(|went| went.tun());
        for _ in 0..2 {
            assert_eq!(said(&near, HOST_C), Ok(0));
            assert_eq!(said(&near, OTHER_HOST), Err(DropReason::SourceMismatch));
        }
        // The backend fails and the service moves the flow to another; a TCP connection cannot move.
        near.world.now = Now(near.world.now.0 + 6_000_000_000);
        let moved = said(&near, OTHER_HOST);
        if number == protocol::UDP {
            assert_eq!(moved, Ok(0));
            assert_eq!(said(&near, HOST_C), Err(DropReason::SourceMismatch));
        } else {
            assert_eq!(moved, Err(DropReason::SourceMismatch));
            // Until the client begins a new connection with the same ports.
            near.send(&tcp("10.0.0.2", SERVICE_ADDRESS, (1000, 80), SYN))
                .unwrap();
            assert_eq!(said(&near, OTHER_HOST), Ok(0));
            assert_eq!(said(&near, HOST_C), Err(DropReason::SourceMismatch));
        }
    }
}

#[test]
fn who_chose_the_backend_itself_hears_no_other_in_its_name() {
    let mut site = serving(Affinity::None, vec![backend("10.0.0.2", 1)]);
    with_a_stranger(&mut site);
    ask(&site, 1000).unwrap();
    let option = ServiceOption {
        addr: ip("10.0.0.2"),
        port: 8080,
        protocol: protocol::TCP,
    };
    let options = SentOptions {
        service: Some(option),
        ..plain()
    };
    let forged = tcp("10.0.0.2", "10.0.0.1", (8080, 1000), SYN_ACK);
    let heard = site.hear(OTHER_HOST, &forged, &options);
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    assert!(site.hear(HOST_B, &forged, &plain()).is_ok());
}

#[test]
fn a_direct_answer_is_kept_to_the_mtu_with_its_longer_header() {
    let [_, _, far] = asked(protocol::UDP);
    let link = far.link(0);
    let answer = |len: usize| {
        let mut datagram = udp_header(8080, 1000, (len - 20) as u16, 0).to_vec();
        datagram.resize(len - 20, 7);
        in_ip("10.0.0.3", "10.0.0.2", protocol::UDP, &datagram)
    };
    let mtu = usize::from(link.config.mtu);
    let extra = far.send(&answer(100)).unwrap().forward().encap.len() - link.encap_len();
    assert!(extra > 0);
    let fits = far.send(&answer(mtu - extra)).unwrap();
    assert_eq!(usize::from(fits.forward().limit), mtu - extra);
    assert_eq!(
        far.send(&answer(mtu - extra + 1)).unwrap_err(),
        DropReason::TooBig
    );
}
