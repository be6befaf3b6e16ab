//! Endpoint types: the option alone can change where an inner packet goes, and a false option is dropped.

use super::support::*;
use super::*;
use crate::options::{EndpointOption, SentOptions};
use crate::vpc::ProxyTarget;

/// From a simple endpoint to one of this type.
fn to(dst: EndpointType) -> SentOptions {
    typed(EndpointType::Simple, dst)
}

fn typed(src: EndpointType, dst: EndpointType) -> SentOptions {
    SentOptions {
        endpoint: Some(EndpointOption {
            src,
            dst,
            ..EndpointOption::default()
        }),
        ..SentOptions::default()
    }
}

/// Uses a fresh host for each packet, so that earlier packets do not matter.
fn heard(
    functions: &LinkFunctions,
    dst: &str,
    options: &SentOptions,
) -> Result<TestOutput, DropReason> {
    let inner = udp("10.0.0.2", dst, (1000, 80), 0);
    site(functions.clone()).hear(HOST_B, &inner, options)
}

fn local(kind: EndpointType) -> crate::vpc::EndpointConfig {
    let mut endpoint = endpoint(kind);
    endpoint.local = true;
    endpoint
}

const LIE: DropReason = DropReason::EndpointType;

#[test]
fn simple_is_for_what_is_simple_here() {
    let mut functions = LinkFunctions::default();
    let simple = to(EndpointType::Simple);
    assert_eq!(heard(&functions, "10.0.0.1", &simple).unwrap().tun(), 0);
    for kind in [
        EndpointType::Scaled,
        EndpointType::Host,
        EndpointType::Proxied,
    ] {
        functions.endpoints.insert(ip("10.0.0.1"), local(kind));
        assert_eq!(heard(&functions, "10.0.0.1", &plain()).unwrap().tun(), 0);
        assert_eq!(heard(&functions, "10.0.0.1", &simple).unwrap_err(), LIE);
    }
}

#[test]
fn the_source_type_is_what_the_source_is() {
    let mut functions = LinkFunctions::default();
    functions
        .endpoints
        .insert(ip("10.0.0.2"), endpoint(EndpointType::Scaled));
    let from = |src| heard(&functions, "10.0.0.1", &typed(src, EndpointType::Simple));
    assert!(from(EndpointType::Scaled).is_ok());
    assert_eq!(from(EndpointType::Simple).unwrap_err(), LIE);
    assert!(heard(&functions, "10.0.0.1", &plain()).is_ok());
}

#[test]
fn scaled_is_for_what_is_here_among_others() {
    let mut functions = LinkFunctions::default();
    functions
        .endpoints
        .insert(ip("10.0.0.9"), local(EndpointType::Scaled));
    let scaled = to(EndpointType::Scaled);
    assert_eq!(heard(&functions, "10.0.0.9", &scaled).unwrap().tun(), 0);
    // Without the option the packet has merely come to the wrong host; with it, the option is false.
    let elsewhere = heard(&functions, "10.0.0.3", &plain());
    assert_eq!(elsewhere.unwrap_err(), DropReason::DestinationNotHere);
    assert_eq!(heard(&functions, "10.0.0.3", &scaled).unwrap_err(), LIE);
    functions
        .endpoints
        .insert(ip("10.0.0.9"), local(EndpointType::Simple));
    assert_eq!(heard(&functions, "10.0.0.9", &scaled).unwrap_err(), LIE);
}

#[test]
fn gateway_sends_through_nat_what_would_stay_inside() {
    let out = snat(
        "out",
        "10.0.0.0/24",
        ("198.51.100.1", "198.51.100.1"),
        (5000, 5999),
    );
    let functions = LinkFunctions {
        nat: translation(0, vec![out]),
        ..LinkFunctions::default()
    };
    let gateway = to(EndpointType::Gateway);
    let inside = heard(&functions, "10.0.0.3", &plain());
    assert_eq!(inside.unwrap_err(), DropReason::DestinationNotHere);
    let inside = heard(&functions, "10.0.0.1", &plain()).unwrap();
    assert_eq!(inside.packet().src, ip("10.0.0.2"));
    let outside = heard(&functions, "10.0.0.3", &gateway).unwrap();
    assert_eq!(
        (outside.tun(), outside.packet().src),
        (0, ip("198.51.100.1"))
    );
    // An endpoint of this host is not behind a gateway, and a host without a NAT rule is no gateway.
    assert_eq!(heard(&functions, "10.0.0.1", &gateway).unwrap_err(), LIE);
    let none = heard(&LinkFunctions::default(), "8.8.8.8", &gateway);
    assert_eq!(none.unwrap_err(), DropReason::NotGateway);
    let nobodys = heard(&LinkFunctions::default(), "8.8.8.8", &plain());
    assert_eq!(nobodys.unwrap_err(), DropReason::DestinationNotHere);
    let other = snat(
        "out",
        "10.9.0.0/24",
        ("198.51.100.1", "198.51.100.1"),
        (5000, 5999),
    );
    let functions = LinkFunctions {
        nat: translation(0, vec![other, dnat("203.0.113.9", None, "10.0.0.3", None)]),
        ..LinkFunctions::default()
    };
    let uncovered = heard(&functions, "8.8.8.8", &gateway);
    assert_eq!(uncovered.unwrap_err(), DropReason::NotGateway);
    // A destination NAT rule covers it as well.
    let turned = heard(&functions, "203.0.113.9", &gateway).unwrap();
    assert_eq!(
        (turned.host(), turned.packet().dst),
        (ip(HOST_C), ip("10.0.0.3"))
    );
}

#[test]
fn host_is_for_the_host_itself() {
    let mut functions = LinkFunctions::default();
    let host = to(EndpointType::Host);
    assert_eq!(heard(&functions, "10.0.0.1", &host).unwrap().tun(), 0);
    assert_eq!(heard(&functions, "10.0.0.3", &host).unwrap_err(), LIE);
    functions
        .endpoints
        .insert(ip("10.0.0.1"), local(EndpointType::Simple));
    assert_eq!(heard(&functions, "10.0.0.1", &host).unwrap_err(), LIE);
}

fn scaled(config: &mut LinkConfig, hosts: &[&str], local: bool) {
    config.routes.push(RouteConfig {
        kind: EndpointType::Scaled,
        local,
        ..route("10.0.9.9/32", hosts, RouteOrigin::Endpoint)
    });
    let mut endpoint = endpoint(EndpointType::Scaled);
    endpoint.local = local;
    config.functions.endpoints.insert(ip("10.0.9.9"), endpoint);
}

#[test]
fn all_hosts_choose_alike_among_the_hosts_of_a_scaled_endpoint() {
    const FAR_HOST: &str = "192.0.2.4";
    let on = |here: &'static str, hosts: &[&str], local: bool| {
        let mut config = vpc(here, 0, RED);
        scaled(&mut config, hosts, local);
        TestHost::new(here, vec![config])
    };
    let (here, far) = (
        on(LOCAL_HOST, &[HOST_B, HOST_C], false),
        on(FAR_HOST, &[HOST_C, HOST_B], false),
    );
    let mut member = on(HOST_B, &[HOST_C], true);
    let packet = |port| udp("172.16.0.1", "10.0.9.9", (port, 80), 0);
    let mut chosen = HashMap::new();
    for port in 0..200 {
        let went = here.send(&packet(port)).unwrap();
        let option = went.options().endpoint.unwrap();
        assert_eq!(
            (option.src, option.dst),
            (EndpointType::Simple, EndpointType::Scaled)
        );
        assert_eq!(far.send(&packet(port)).unwrap().host(), went.host());
        // A host that selects itself keeps the packet.
        match member.send(&packet(port)).unwrap() {
            TestOutput::Tun(..) => assert_eq!(went.host(), ip(HOST_B)),
            other => assert_eq!(went.host(), other.host()),
        }
        *chosen.entry(went.host()).or_insert(0) += 1;
    }
    assert!(
        chosen.len() == 2 && chosen.values().all(|&n| n > 50),
        "{chosen:?}"
    );
    // A host that prefers itself keeps all of them.
    member.functions(|f| f.endpoints.get_mut(&ip("10.0.9.9")).unwrap().colocated = true);
    for port in 0..50 {
        assert_eq!(member.send(&packet(port)).unwrap().tun(), 0);
    }
}

#[test]
fn replies_of_a_scaled_endpoint_come_from_any_of_its_hosts() {
    let mut config = vpc(LOCAL_HOST, 0, RED);
    scaled(&mut config, &[HOST_B, HOST_C], false);
    let site = TestHost::new(LOCAL_HOST, vec![config]);
    site.send(&udp("10.0.0.1", "10.0.9.9", (1000, 80), 0))
        .unwrap();
    for host in [HOST_B, HOST_C] {
        let reply = udp("10.0.9.9", "10.0.0.1", (80, 1000), 0);
        assert_eq!(site.hear(host, &reply, &plain()).unwrap().tun(), 0);
    }
}

const GREEN: u32 = 300;
const PROXIED_ADDRESS: &str = "10.0.0.9";

/// RED and GREEN offer 10.0.0.9, which is 10.0.0.2 of BLUE; they share no route.
fn proxy() -> TestHost {
    let mut configs = Vec::new();
    for (index, vni) in [(0, RED), (1, BLUE), (2, GREEN)] {
        let mut config = vpc(LOCAL_HOST, index, vni);
        if vni == BLUE {
            let stand_in = |name, from, addr| snat(name, from, (addr, addr), (40_000, 40_999));
            config.functions.stand_ins = translation(
                1,
                vec![
                    stand_in("v4", "0.0.0.0/0", "10.0.0.1"),
                    stand_in("v6", "::/0", "fd00::1"),
                ],
            );
        } else {
            config
                .routes
                .push(route("10.0.0.9/32", &[], RouteOrigin::Endpoint));
            let mut endpoint = local(EndpointType::Proxied);
            endpoint.target = Some(ProxyTarget {
                addr: ip("10.0.0.2"),
                link: LinkIndex(1),
            });
            config
                .functions
                .endpoints
                .insert(ip(PROXIED_ADDRESS), endpoint);
        }
        configs.push(config);
    }
    TestHost::new(LOCAL_HOST, configs)
}

/// Sends a request through the proxy and its answer back; returns the tuple that the target sees.
#[track_caller]
fn through(site: &TestHost, vni: u32, inner: &[u8], answer: impl Fn(&Packet) -> Vec<u8>) -> String {
    let there = site
        .receive(HOST_B, &marked(vni, &to(EndpointType::Proxied), inner))
        .unwrap();
    assert_eq!(
        (there.forward().link, there.host()),
        (LinkIndex(1), ip(HOST_B))
    );
    assert_eq!(
        Geneve::parse(&there.datagram()).unwrap().vni().value(),
        BLUE
    );
    assert_eq!(there.packet().dst, ip("10.0.0.2"));
    let reply = answer(&there.packet());
    let back = site
        .receive(HOST_B, &marked(BLUE, &plain(), &reply))
        .unwrap();
    assert_eq!(Geneve::parse(&back.datagram()).unwrap().vni().value(), vni);
    assert_eq!(back.host(), ip(HOST_B));
    let (back, asked) = (back.packet(), Packet::parse(inner).unwrap());
    assert_eq!((back.src, back.dst), (asked.dst, asked.src));
    assert_eq!(back.ports(), asked.ports().map(|(src, dst)| (dst, src)));
    there.tuple()
}

#[test]
fn a_proxied_endpoint_is_reached_in_another_vpc_and_answers_in_its_own_name() {
    let site = proxy();
    let ask = udp("10.0.0.2", PROXIED_ADDRESS, (1000, 80), 0);
    let reply = |asked: &Packet| {
        let (src, dst) = asked.ports().unwrap();
        udp("10.0.0.2", &asked.src.to_string(), (dst, src), 0)
    };
    // Two clients have the same address and port, in two VPCs.
    let red = through(&site, RED, &ask, reply);
    let green = through(&site, GREEN, &ask, reply);
    assert_ne!(red, green);
    assert_eq!(through(&site, RED, &ask, reply), red);
    assert_eq!(site.flows(), 2);
    let ping = echo("10.0.0.2", PROXIED_ADDRESS, 77, false);
    let pong = |asked: &Packet| {
        let Transport::Icmp { id, .. } = asked.transport else {
            panic!()
        };
        echo("10.0.0.2", &asked.src.to_string(), id.unwrap(), true)
    };
    through(&site, RED, &ping, pong);
    // Without the option the packet is not for the proxy.
    let plainly = proxy()
        .receive(HOST_B, &marked(RED, &plain(), &ask))
        .unwrap();
    assert_eq!(
        (plainly.tun(), plainly.packet().dst),
        (0, ip(PROXIED_ADDRESS))
    );
}

#[test]
fn a_client_of_the_same_host_reaches_a_proxied_endpoint() {
    let site = proxy();
    let there = site
        .send(&udp("10.0.0.1", PROXIED_ADDRESS, (1000, 80), 0))
        .unwrap();
    assert_eq!(
        (there.forward().link, there.host()),
        (LinkIndex(1), ip(HOST_B))
    );
    let (src, dst) = there.packet().ports().unwrap();
    let reply = udp("10.0.0.2", "10.0.0.1", (dst, src), 0);
    let back = site
        .receive(HOST_B, &marked(BLUE, &plain(), &reply))
        .unwrap();
    assert_eq!(
        (back.tun(), back.tuple()),
        (0, "10.0.0.9 80 > 10.0.0.1 1000".into())
    );
}

#[test]
fn a_stand_in_marks_its_packets_with_the_precedence_of_their_class() {
    let mut site = proxy();
    site.change(|configs| {
        let class = crate::qos::QosClass {
            id: 5,
            name: "af42".into(),
            bucket: None,
            ingress: None,
            dscp: Some(36),
            tally: Arc::default(),
        };
        let functions = &mut configs[1].functions;
        functions.classes = vec![Arc::new(class)];
        let mut own = local(EndpointType::Simple);
        own.class = Some(5);
        functions.endpoints.insert(ip("10.0.0.1"), own);
    });
    let there = site
        .send(&udp("10.0.0.1", PROXIED_ADDRESS, (1000, 80), 0))
        .unwrap();
    let class = there.options().class.unwrap();
    assert_eq!((class.class, class.drop_precedence), (5, 1));
    assert_eq!(there.forward().outer.tos >> 2, 36);
}

#[test]
fn an_error_about_a_proxied_flow_reaches_its_client() {
    let site = proxy();
    let ask = udp("10.0.0.2", PROXIED_ADDRESS, (1000, 80), 0);
    let there = site
        .receive(HOST_B, &marked(RED, &to(EndpointType::Proxied), &ask))
        .unwrap();
    let error = error_about("10.0.0.2", there.inner());
    let back = site
        .receive(HOST_B, &marked(BLUE, &plain(), &error))
        .unwrap();
    assert_eq!(Geneve::parse(&back.datagram()).unwrap().vni().value(), RED);
    let quote = back.packet().quote(back.inner()).unwrap();
    assert_eq!(
        (quote.src, quote.dst),
        (ip("10.0.0.2"), ip(PROXIED_ADDRESS))
    );
    assert_eq!(back.packet().src, ip(PROXIED_ADDRESS));
}

#[test]
fn proxied_is_for_what_this_host_stands_for() {
    let mut functions = LinkFunctions::default();
    let proxied = to(EndpointType::Proxied);
    assert_eq!(heard(&functions, "10.0.0.1", &proxied).unwrap_err(), LIE);
    functions
        .endpoints
        .insert(ip("10.0.0.1"), local(EndpointType::Proxied));
    assert_eq!(heard(&functions, "10.0.0.1", &proxied).unwrap_err(), LIE);
    assert!(heard(&functions, "10.0.0.1", &plain()).is_ok());
}

#[test]
fn the_sender_names_both_types() {
    for src in EndpointType::ALL {
        for dst in EndpointType::ALL {
            let mut functions = LinkFunctions::default();
            functions.endpoints.insert(ip("10.0.0.1"), local(src));
            functions.endpoints.insert(ip("10.0.0.2"), endpoint(dst));
            let went = site(functions)
                .send(&udp("10.0.0.1", "10.0.0.2", (1, 2), 0))
                .unwrap();
            let named = went.options().endpoint.map(|o| (o.src, o.dst));
            let plain = (src, dst) == (EndpointType::Simple, EndpointType::Simple);
            assert_eq!(named, (!plain).then_some((src, dst)));
        }
    }
    // A route of type gateway makes everything behind it a gateway destination.
    let mut config = vpc(LOCAL_HOST, 0, RED);
    config.routes.push(RouteConfig {
        kind: EndpointType::Gateway,
        ..route("0.0.0.0/0", &[HOST_C], RouteOrigin::Route)
    });
    let went = TestHost::new(LOCAL_HOST, vec![config]).send(&udp("10.0.0.1", "8.8.8.8", (1, 2), 0));
    assert_eq!(
        went.unwrap().options().endpoint.unwrap().dst,
        EndpointType::Gateway
    );
}
