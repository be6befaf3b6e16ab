//! A trace shows the real verdict, with and without an existing flow, and has no side effects.

use super::support::packets::in_ip;
use super::support::*;
use super::*;
use crate::options::{ClassOption, EndpointOption, SentOptions};
use crate::policy::{Direction, PolicyAction, RulePeer};
use crate::qos::{ClassCounters, QosClass};
use crate::service::Affinity;
use crate::vpc::{EndpointConfig, ProxyTarget};
use crate::wire::header::HeaderBytes;

/// A host with all functions at once.
fn busy() -> TestHost {
    let mut config = vpc(LOCAL_HOST, 0, RED);
    let scaled = RouteConfig {
        kind: EndpointType::Scaled,
        local: true,
        ..route("10.0.9.9/32", &[HOST_B, HOST_C], RouteOrigin::Endpoint)
    };
    let gateway = RouteConfig {
        kind: EndpointType::Gateway,
        ..route("0.0.0.0/0", &[HOST_C], RouteOrigin::Route)
    };
    config.routes.extend([
        scaled,
        gateway,
        route("10.0.0.9/32", &[], RouteOrigin::Endpoint),
    ]);
    let mut web = rule("web", Direction::Ingress, PolicyAction::Allow);
    web.from = RulePeer::Selector("app=web".parse().unwrap());
    let mut ping = rule("ping", Direction::Ingress, PolicyAction::Allow);
    ping.icmp = Some((8, None));
    let mut no = rule("no-telnet", Direction::Egress, PolicyAction::Reject);
    no.dports = vec![23..=23];
    let mut gold = rule("gold", Direction::Egress, PolicyAction::Allow);
    (gold.dports, gold.class, gold.log) = (vec![443..=443], Some(7), true);
    let rules = vec![
        snat(
            "out",
            "10.0.0.0/28",
            ("198.51.100.1", "198.51.100.1"),
            (5000, 5000),
        ),
        dnat("203.0.113.9", None, "10.0.0.3", None),
    ];
    let functions = &mut config.functions;
    functions.policy = policy(
        PolicyAction::Deny,
        PolicyAction::Allow,
        vec![web, ping, no, gold],
    );
    functions.nat = translation(0, rules);
    functions.services = service(
        "10.0.9.1",
        protocol::UDP,
        Affinity::None,
        vec![backend("10.0.0.2", 1), backend("10.0.0.3", 1)],
    );
    functions.classes = vec![Arc::new(QosClass {
        id: 7,
        name: "gold".into(),
        bucket: None,
        ingress: None,
        dscp: Some(46),
        tally: Arc::new(ClassCounters::default()),
    })];
    functions.labels = true;
    let local = |kind| EndpointConfig {
        kind,
        local: true,
        ..EndpointConfig::default()
    };
    let proxied = EndpointConfig {
        target: Some(ProxyTarget {
            addr: ip("10.0.0.2"),
            link: LinkIndex(1),
        }),
        ..local(EndpointType::Proxied)
    };
    functions.endpoints.insert(ip("10.0.0.9"), proxied);
    functions
        .endpoints
        .insert(ip("10.0.9.9"), local(EndpointType::Scaled));
    let mut other = vpc(LOCAL_HOST, 1, BLUE);
    let stand_in = snat(
        "any",
        "0.0.0.0/0",
        ("10.0.0.1", "10.0.0.1"),
        (40_000, 40_999),
    );
    other.functions.stand_ins = translation(1, vec![stand_in]);
    TestHost::new(LOCAL_HOST, vec![config, other])
}

/// Input of a described packet.
#[derive(Clone, Copy)]
enum TraceOrigin {
    Tun(u32),
    Host(&'static str, u32, SentOptions),
}

fn trace_packet(site: &TestHost, at: TraceOrigin, bytes: &[u8]) -> TraceResult {
    let packet = Packet::parse(bytes).unwrap();
    let (index, trace_input) = match at {
        TraceOrigin::Tun(index) => (index, TraceInput::Egress),
        TraceOrigin::Host(host, index, options) => {
            let link = site.link(index);
            let datagram = marked(link.config.vni.value(), &options, bytes);
            let header =
                HeaderBytes::copy_of(Geneve::parse(&datagram).unwrap().header_bytes()).unwrap();
            (
                index,
                TraceInput::Ingress {
                    host: ip(host),
                    header: Box::new(header),
                },
            )
        }
    };
    let icmp = match packet.transport {
        Transport::Icmp { kind, code, .. } => Some((kind, code)),
        _ => None,
    };
    let trace_packet = TracePacket {
        key: FlowKey::of(LinkIndex(index), &packet),
        icmp,
        trace_input,
        length: Some(TraceLength {
            bytes: packet.total_len,
            dont_fragment: packet.dont_fragment,
        }),
    };
    trace(&site.world.cx(), &site.link(index), &trace_packet)
}

fn really(site: &TestHost, at: TraceOrigin, bytes: &[u8]) -> Result<TestOutput, DropReason> {
    match at {
        TraceOrigin::Tun(index) => site.send_on(index, bytes),
        TraceOrigin::Host(host, index, options) => {
            let vni = site.link(index).config.vni.value();
            site.receive(host, &marked(vni, &options, bytes))
        }
    }
}

/// Everything that a packet could change.
fn traces_left(site: &TestHost) -> (Vec<u64>, Vec<u64>, crate::flow::FlowStats) {
    let link = site.link(0);
    let functions = &link.config.functions;
    let hits = functions
        .policy
        .iter()
        .flat_map(|p| p.rules().map(|(_, hits)| hits).collect::<Vec<_>>());
    let other = site.link(1);
    let nats = functions
        .nat
        .iter()
        .chain(&other.config.functions.stand_ins);
    let used = nats.flat_map(|nat| {
        nat.usages()
            .map(|(_, usage)| usage.in_use)
            .collect::<Vec<_>>()
    });
    (
        hits.collect(),
        used.collect(),
        site.world.state.flows.stats(),
    )
}

#[track_caller]
fn assert_told(site: &TestHost, at: TraceOrigin, bytes: &[u8]) -> TraceResult {
    let before = traces_left(site);
    let told = trace_packet(site, at, bytes);
    assert_eq!(traces_left(site), before, "a trace changed something");
    let went = really(site, at, bytes);
    match (&told.outcome, &went) {
        (Ok(NextHop::Tun(link)), Ok(TestOutput::Tun(other, _))) => assert_eq!(link, other),
        (Ok(NextHop::Wire(tunnel)), Ok(TestOutput::Wire(forward, _))) => {
            assert_eq!(
                (tunnel.link, tunnel.host.addr),
                (forward.link, forward.host.addr)
            );
            assert_eq!(tunnel.encap[..], forward.encap[..]);
            let key = told.translated.unwrap();
            assert_eq!(key.src, went.as_ref().unwrap().packet().src);
            assert_eq!(key.dst, went.as_ref().unwrap().packet().dst);
        }
        (Err(told), Err(got)) => assert_eq!(told, got),
        (told, went) => panic!("told {told:?}, went {went:?}"),
    }
    assert_eq!(told.reject, matches!(went, Err(DropReason::PolicyRejected)));
    told
}

fn with(text: &str, dst: Option<EndpointType>, class: Option<u8>) -> SentOptions {
    SentOptions {
        labels: Some((labels(text), false)),
        endpoint: dst.map(|dst| EndpointOption {
            dst,
            ..EndpointOption::default()
        }),
        class: class.map(|class| ClassOption {
            class,
            drop_precedence: 0,
        }),
        service: None,
    }
}

fn cases() -> Vec<(TraceOrigin, Vec<u8>)> {
    let tun = TraceOrigin::Tun(0);
    let web = with("app=web", None, None);
    let from = |host, options| TraceOrigin::Host(host, 0, options);
    let kind = |kind| from(HOST_B, with("app=web", Some(kind), None));
    let out = |dst: &str, ports| udp("10.0.0.1", dst, ports, 0);
    let inbound = |dst: &str, ports| udp("10.0.0.2", dst, ports, 0);
    vec![
        (tun, out("10.0.0.2", (1, 53))),
        (tun, out("10.0.0.3", (1, 443))),
        (tun, out("10.0.0.3", (1, 23))),
        (tun, tcp("10.0.0.1", "10.0.0.3", (1, 23), SYN)),
        (tun, out("8.8.8.8", (1, 53))),
        (tun, out("8.8.8.8", (2, 53))),
        (tun, out("203.0.113.9", (3, 80))),
        (tun, out("10.0.9.1", (3, 80))),
        (tun, out("10.0.9.9", (3, 80))),
        (tun, out("10.0.9.9", (4, 80))),
        (tun, out("10.0.0.9", (5, 80))),
        (tun, udp("10.0.0.3", "10.0.0.2", (5, 80), 0)),
        (tun, udp("fd00::1", "fd00::2", (5, 80), 0)),
        (tun, udp("fd00::1", "2001:db8::1", (5, 80), 0)),
        (tun, echo("10.0.0.1", "10.0.0.2", 5, false)),
        (from(HOST_B, web), inbound("10.0.0.1", (5, 80))),
        (
            from(HOST_B, with("app=db", None, None)),
            inbound("10.0.0.1", (6, 80)),
        ),
        (
            from(HOST_B, plain()),
            echo("10.0.0.2", "10.0.0.1", 6, false),
        ),
        (from(HOST_C, web), inbound("10.0.0.1", (7, 80))),
        (from(STRANGER, web), inbound("10.0.0.1", (7, 80))),
        (
            from(HOST_B, with("app=web", None, Some(7))),
            inbound("10.0.0.1", (8, 80)),
        ),
        (from(HOST_B, web), inbound("10.0.9.1", (9, 80))),
        (from(HOST_B, web), inbound("203.0.113.9", (9, 81))),
        (kind(EndpointType::Gateway), inbound("9.9.9.9", (9, 80))),
        (kind(EndpointType::Proxied), inbound("10.0.0.9", (9, 80))),
        (kind(EndpointType::Scaled), inbound("10.0.9.9", (9, 80))),
        (kind(EndpointType::Host), inbound("10.0.9.9", (9, 82))),
    ]
}

#[test]
fn a_trace_says_what_the_packet_gets() {
    let outcomes: Vec<_> = cases()
        .into_iter()
        .map(|(at, bytes)| {
            let mut site = busy();
            let told = assert_told(&site, at, &bytes);
            assert!(told.stages.len() > 1);
            // Again with the flow in the table, and with one of an older configuration.
            assert_told(&site, at, &bytes);
            site.functions(|_| ());
            assert_told(&site, at, &bytes);
            match told.outcome {
                Ok(NextHop::Wire(_)) => "wire".to_owned(),
                Ok(_) => "tun".to_owned(),
                Err(reason) => reason.to_string(),
            }
        })
        .collect();
    // The cases cover many different outcomes.
    let count = |what: &str| outcomes.iter().filter(|o| *o == what).count();
    assert!(count("wire") >= 10 && count("tun") >= 5, "{outcomes:?}");
    for reason in [
        "policy-denied",
        "policy-rejected",
        "endpoint-type",
        "source-mismatch",
        "source-not-local",
        "unknown-host",
        "no-route",
    ] {
        assert_eq!(count(reason).min(1), 1, "{reason}: {outcomes:?}");
    }
}

#[test]
fn a_trace_says_what_the_packet_gets_after_all_others_came() {
    let mut site = busy();
    for _ in 0..2 {
        for (at, bytes) in cases() {
            assert_told(&site, at, &bytes);
        }
        site.functions(|_| ());
    }
}

/// Returns the answer to a forwarded packet, and its input.
fn reply(went: &TestOutput) -> (TraceOrigin, Vec<u8>) {
    let packet = went.packet();
    let (src, dst) = (packet.dst.to_string(), packet.src.to_string());
    let bytes = match packet.transport {
        Transport::Icmp { id, .. } => echo(&src, &dst, id.unwrap(), true),
        _ => {
            let (from, to) = packet.ports().unwrap();
            udp(&src, &dst, (to, from), 0)
        }
    };
    let at = match went {
        TestOutput::Tun(link, _) => TraceOrigin::Tun(link.0),
        TestOutput::Wire(forward, _) => {
            let host = if forward.host.addr == ip(HOST_B) {
                HOST_B
            } else {
                HOST_C
            };
            TraceOrigin::Host(host, forward.link.0, plain())
        }
    };
    (at, bytes)
}

#[test]
fn a_trace_says_what_a_reply_gets() {
    let mut seen = 0;
    for (at, bytes) in cases() {
        // The configuration stays, changes before the first reply, or ends the flow.
        for change in 0..3 {
            let mut site = busy();
            let Ok(went) = really(&site, at, &bytes) else {
                continue;
            };
            let (back, answer) = reply(&went);
            match change {
                1 => site.functions(|_| ()),
                2 => {
                    assert_told(&site, back, &answer);
                    site.functions(|f| {
                        f.policy = policy(PolicyAction::Deny, PolicyAction::Deny, Vec::new());
                    });
                }
                _ => {}
            }
            for _ in 0..2 {
                let told = assert_told(&site, back, &answer);
                assert_eq!(told.outcome.is_err(), change == 2);
            }
            seen += 1;
        }
    }
    assert!(seen > 45, "{seen}");
}

#[test]
fn a_trace_keeps_the_backend_of_a_flow() {
    let mut site = busy();
    let asks: Vec<_> = (0..30)
        .map(|port| udp("10.0.0.1", "10.0.9.1", (port, 80), 0))
        .collect();
    let hosts: Vec<_> = asks
        .iter()
        .map(|ask| site.send(ask).unwrap().host())
        .collect();
    let drained = vec![backend("10.0.0.2", 0), backend("10.0.0.3", 1)];
    site.functions(|f| f.services = service("10.0.9.1", protocol::UDP, Affinity::None, drained));
    for (ask, host) in asks.iter().zip(hosts) {
        for _ in 0..2 {
            let told = assert_told(&site, TraceOrigin::Tun(0), ask);
            let Ok(NextHop::Wire(tunnel)) = told.outcome else {
                panic!()
            };
            assert_eq!(tunnel.host.addr, host);
        }
    }
}

/// Returns the results of a trace at this stage.
fn said<'t>(told: &'t TraceResult, stage: &str) -> Vec<&'t str> {
    let of_stage = told.stages.iter().filter(|s| s.stage == stage);
    of_stage.map(|s| s.result.as_str()).collect()
}

#[test]
fn a_trace_says_which_rules_do_not_match_and_why() {
    let site = busy();
    let from = |text: &str| TraceOrigin::Host(HOST_B, 0, with(text, None, None));
    let db = trace_packet(
        &site,
        from("app=db"),
        &udp("10.0.0.2", "10.0.0.1", (6, 80), 0),
    );
    assert_eq!(
        said(&db, "rule"),
        [
            "ingress ping does not match: icmp 8: it is udp",
            "ingress web does not match: from app=web: 10.0.0.2 does not fulfil app=web",
        ]
    );
    assert_eq!(
        said(&db, "policy"),
        ["no ingress rule matches; the link's default is deny"]
    );
    let unknown = TraceOrigin::Host(HOST_B, 0, SentOptions::default());
    let unknown = trace_packet(&site, unknown, &udp("10.0.0.2", "10.0.0.1", (6, 80), 0));
    assert!(said(&unknown, "rule")[1].ends_with("the labels of 10.0.0.2 are not known"));
}

#[test]
fn a_trace_says_whether_a_packet_fits_is_cut_or_refused_as_packets_then_are() {
    let site = busy();
    let mtu = usize::from(site.link(0).config.mtu);
    let udp_of = |len: usize, v6: bool, whole: bool| {
        let (ends, ip_header) = match v6 {
            false => ((ip("10.0.0.1"), ip("10.0.0.2")), 20),
            true => ((ip("fd00::1"), ip("fd00::2")), 40),
        };
        let payload = vec![0x5a; len - ip_header - 8];
        let header = udp_header(1, 53, (8 + payload.len()) as u16, 0);
        in_ip(
            ends,
            protocol::UDP,
            (0, whole),
            &[&header[..], &payload].concat(),
        )
    };
    let fits = trace_packet(&site, TraceOrigin::Tun(0), &udp_of(mtu, false, true));
    assert!(said(&fits, "mtu")[0].contains("bytes fit"), "{fits:?}");
    let long = trace_packet(&site, TraceOrigin::Tun(0), &udp_of(mtu + 1, false, true));
    assert_eq!(long.outcome.clone().err(), Some(DropReason::TooBig));
    let cut = trace_packet(&site, TraceOrigin::Tun(0), &udp_of(mtu + 1, false, false));
    assert!(cut.outcome.is_ok() && said(&cut, "mtu")[0].contains("into 2 fragments"));
    // The path to the host is narrower than the interface.
    let Ok(NextHop::Wire(tunnel)) = fits.outcome else {
        panic!()
    };
    let outer = u32::try_from(28 + tunnel.encap.len()).unwrap();
    tunnel.host.set_path_mtu(Some(outer + 1300));
    for v6 in [false, true] {
        for whole in [false, true] {
            for len in [1280, 1300, 1301, 1400] {
                let told = assert_told(&site, TraceOrigin::Tun(0), &udp_of(len, v6, whole));
                let expected = match (len > 1300, v6 || whole) {
                    (false, _) => format!("{len} bytes fit"),
                    (true, false) => format!("{len} bytes are cut into 2 fragments"),
                    (true, true) => format!("{len} bytes are too long"),
                };
                assert!(said(&told, "mtu")[0].starts_with(&expected), "{told:?}");
            }
        }
    }
}
