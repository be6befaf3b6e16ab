//! NAT of whole flows: both directions, all translatable protocols, and what remains afterwards.

use std::collections::HashSet;

use super::support::*;
use super::*;
use crate::offload::samples::{SamplePacket, SegmentCollector};
use crate::policy::PolicyAction;
use crate::vpc::EndpointConfig;
use crate::wire::ip::Ipv4;
use crate::wire::transport_checksum::ChecksumState;

const POOL_ADDRESS: &str = "198.51.100.1";
const POOL6: &str = "2001:db8:1::1";

/// This host as a gateway of the VPC, with this range of ports.
fn gateway(ports: (u16, u16)) -> TestHost {
    let rules = vec![
        snat("out", "10.0.0.0/24", (POOL_ADDRESS, POOL_ADDRESS), ports),
        snat("out6", "fd00::/64", (POOL6, POOL6), ports),
    ];
    site(LinkFunctions {
        nat: translation(0, rules),
        ..LinkFunctions::default()
    })
}

fn from_tuple(src: &str, dst: &str, ports: (u16, u16)) -> String {
    format!("{src} {} > {dst} {}", ports.0, ports.1)
}

type MakePacket = fn(&str, &str, (u16, u16), bool) -> Vec<u8>;

/// All kinds of packets with ports or an identifier; `reply` matters only for ICMP.
const PACKET_KINDS: [MakePacket; 3] = [
    |src, dst, ports, _| udp(src, dst, ports, 0),
    |src, dst, ports, _| tcp(src, dst, ports, ACK),
    |src, dst, ports, reply| echo(src, dst, if reply { ports.1 } else { ports.0 }, reply),
];

fn is_echo(packet: &Packet) -> bool {
    matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6)
}

#[test]
fn what_leaves_has_an_address_of_the_pool_and_its_replies_find_back() {
    let site = gateway((5000, 5999));
    for make in PACKET_KINDS {
        for (src, dst, pool) in [
            ("10.0.0.2", "8.8.8.8", POOL_ADDRESS),
            ("fd00::2", "2001:db8::8", POOL6),
        ] {
            let ask = make(src, dst, (1000, 53), false);
            let out = site.hear(HOST_B, &ask, &plain()).unwrap();
            assert_eq!(out.tun(), 0);
            let packet = out.packet();
            assert_eq!((packet.src, packet.dst), (ip(pool), ip(dst)));
            let key = FlowKey::of(LinkIndex(0), &packet);
            assert!((5000..=5999).contains(&key.sport));
            for _ in 0..2 {
                let back = site
                    .send(&make(dst, pool, (key.dport, key.sport), true))
                    .unwrap();
                let port = if is_echo(&packet) { 1000 } else { 53 };
                assert_eq!(back.host(), ip(HOST_B));
                assert_eq!(back.tuple(), from_tuple(dst, src, (port, 1000)));
            }
            // The second packet gets the same translation.
            let again = site.hear(HOST_B, &ask, &plain()).unwrap();
            assert_eq!(unidentified(again.inner()), unidentified(out.inner()));
        }
    }
    assert_eq!(site.flows(), 6);
}

#[test]
fn one_inside_port_is_one_outside_port_whoever_is_asked() {
    let site = gateway((5000, 5999));
    let to = |dst: &str, sport| {
        let ask = udp("10.0.0.2", dst, (sport, 53), 0);
        let packet = site.hear(HOST_B, &ask, &plain()).unwrap().packet();
        packet.ports().unwrap().0
    };
    let port = to("8.8.8.8", 1000);
    assert_eq!(to("9.9.9.9", 1000), port);
    assert_ne!(to("9.9.9.9", 1001), port);
}

#[test]
fn packets_between_endpoints_of_the_vpc_are_not_translated() {
    let site = gateway((5000, 5999));
    let inside = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    assert_eq!(
        site.hear(HOST_B, &inside, &plain()).unwrap().inner(),
        inside
    );
    let own = udp("10.0.0.1", "10.0.0.3", (1000, 53), 0);
    assert_eq!(site.send(&own).unwrap().inner(), own);
}

#[test]
fn endpoints_reach_each_other_by_their_outside_ports() {
    let site = gateway((5000, 5999));
    let ask = udp("10.0.0.2", "8.8.8.8", (1000, 53), 0);
    let outside = site
        .hear(HOST_B, &ask, &plain())
        .unwrap()
        .packet()
        .ports()
        .unwrap()
        .0;
    let knock = udp("10.0.0.3", POOL_ADDRESS, (2000, outside), 0);
    let there = site.hear(HOST_C, &knock, &plain()).unwrap();
    let packet = there.packet();
    let port = packet.ports().unwrap().0;
    assert_eq!(there.host(), ip(HOST_B));
    assert_eq!(
        there.tuple(),
        from_tuple(POOL_ADDRESS, "10.0.0.2", (port, 1000))
    );
    assert_eq!(packet.ttl, 6);
    // The answer returns by the same path.
    let reply = udp("10.0.0.2", POOL_ADDRESS, (1000, port), 0);
    let back = site.hear(HOST_B, &reply, &plain()).unwrap();
    assert_eq!(back.host(), ip(HOST_C));
    assert_eq!(
        back.tuple(),
        from_tuple(POOL_ADDRESS, "10.0.0.3", (outside, 2000))
    );
}

#[test]
fn a_port_forward_leads_inside_and_answers_in_its_own_name() {
    let forward = dnat(
        POOL_ADDRESS,
        Some((protocol::UDP, 80)),
        "10.0.0.2",
        Some(8080),
    );
    let whole = dnat("2001:db8:1::9", None, "fd00::3", None);
    let site = site(LinkFunctions {
        nat: translation(0, vec![forward, whole]),
        ..LinkFunctions::default()
    });
    for (outside, inside, host, port) in [
        (POOL_ADDRESS, "10.0.0.2", HOST_B, 8080),
        ("2001:db8:1::9", "fd00::3", HOST_C, 80),
    ] {
        let client = if outside == POOL_ADDRESS {
            "203.0.113.50"
        } else {
            "2001:db8::50"
        };
        let there = site.send(&udp(client, outside, (1000, 80), 0)).unwrap();
        assert_eq!(there.host(), ip(host));
        assert_eq!(there.tuple(), from_tuple(client, inside, (1000, port)));
        let reply = udp(inside, client, (port, 1000), 0);
        let back = site.hear(host, &reply, &plain()).unwrap();
        assert_eq!(
            (back.tun(), back.tuple()),
            (0, from_tuple(outside, client, (80, 1000)))
        );
    }
    // Other ports are not forwarded.
    let other = site.send(&udp("203.0.113.50", POOL_ADDRESS, (1000, 81), 0));
    assert_eq!(other.unwrap_err(), DropReason::NoRoute);
}

#[test]
fn a_static_rule_translates_in_both_directions() {
    let pair = |inside: &str, outside: &str| crate::nat::NatRule::Static {
        name: format!("static-{inside}"),
        inside: ip(inside),
        outside: ip(outside),
    };
    let rules = vec![
        pair("10.0.0.2", "198.51.100.7"),
        pair("fd00::2", "2001:db8:1::7"),
    ];
    for make in PACKET_KINDS {
        for (inside, outside, far) in [
            ("10.0.0.2", "198.51.100.7", "8.8.8.8"),
            ("fd00::2", "2001:db8:1::7", "2001:db8::8"),
        ] {
            let site = site(LinkFunctions {
                nat: translation(0, rules.clone()),
                ..LinkFunctions::default()
            });
            let out = site
                .hear(HOST_B, &make(inside, far, (1000, 53), false), &plain())
                .unwrap();
            let key = FlowKey::of(LinkIndex(0), &out.packet());
            assert_eq!((out.tun(), key.src, key.sport), (0, ip(outside), 1000));
            let back = make(far, outside, (key.dport, 1000), true);
            let back = site.send(&back).unwrap();
            assert_eq!((back.host(), back.packet().dst), (ip(HOST_B), ip(inside)));
            // The far end starts the flow.
            let ask = make(far, outside, (3000, 22), false);
            let there = site.send(&ask).unwrap();
            assert_eq!((there.host(), there.packet().dst), (ip(HOST_B), ip(inside)));
            let reply = make(inside, far, (22, 3000), true);
            let back = site.hear(HOST_B, &reply, &plain()).unwrap();
            assert_eq!((back.tun(), back.packet().src), (0, ip(outside)));
        }
    }
}

#[test]
fn a_static_rule_leaves_packets_between_endpoints_as_they_are() {
    let pair = |inside: &str, outside: &str| crate::nat::NatRule::Static {
        name: format!("static-{inside}"),
        inside: ip(inside),
        outside: ip(outside),
    };
    let site = site(LinkFunctions {
        nat: translation(
            0,
            vec![
                pair("10.0.0.1", "198.51.100.1"),
                pair("10.0.0.2", "198.51.100.2"),
            ],
        ),
        ..LinkFunctions::default()
    });
    for make in PACKET_KINDS {
        // The far end is an endpoint without a rule, and one with a rule.
        for far in ["10.0.0.3", "10.0.0.2"] {
            let out = site.send(&make("10.0.0.1", far, (1000, 53), false));
            assert_eq!(out.unwrap().packet().src, ip("10.0.0.1"));
        }
        let heard = site.hear(
            HOST_B,
            &make("10.0.0.2", "10.0.0.1", (7, 8), false),
            &plain(),
        );
        assert_eq!(heard.unwrap().packet().src, ip("10.0.0.2"));
        let out = site.send(&make("10.0.0.1", "10.7.0.9", (1000, 53), false));
        assert_eq!(out.unwrap().packet().src, ip("198.51.100.1"));
        // An endpoint is reached from inside by its outside address, too, and answers from it.
        let ask = site.send(&make("10.0.0.1", "198.51.100.2", (2000, 53), false));
        let ask = ask.unwrap();
        assert_eq!((ask.host(), ask.packet().dst), (ip(HOST_B), ip("10.0.0.2")));
        let key = FlowKey::of(LinkIndex(0), &ask.packet()).reversed();
        let [from, to] = [key.src, key.dst].map(|addr| addr.to_string());
        let reply = make(&from, &to, (key.sport, key.dport), true);
        let back = site.hear(HOST_B, &reply, &plain()).unwrap();
        assert_eq!(back.packet().src, ip("198.51.100.2"));
        assert_eq!(back.packet().dst, ip("10.0.0.1"));
    }
}

#[test]
fn what_has_no_port_is_not_given_one() {
    let site = gateway((5000, 5999));
    let esp = in_ip("10.0.0.2", "8.8.8.8", 50, &[1; 16]);
    let heard = site.hear(HOST_B, &esp, &plain());
    assert_eq!(heard.unwrap_err(), DropReason::NatUntranslatable);
}

#[test]
fn a_super_packet_is_translated_once_and_every_segment_is_whole() {
    for (v6, is_tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let sample = SamplePacket {
            v6,
            tcp: is_tcp,
            payload: (0..5000).map(|n| n as u8).collect(),
            ..SamplePacket::default()
        };
        let rules = vec![
            snat(
                "out",
                "10.0.0.1/32",
                (POOL_ADDRESS, POOL_ADDRESS),
                (5000, 5000),
            ),
            snat("out6", "fd00::1/128", (POOL6, POOL6), (5000, 5000)),
        ];
        let site = site(LinkFunctions {
            nat: translation(0, rules),
            ..LinkFunctions::default()
        });
        let (vnet, mut packet, mut bytes) = sample.super_packet(1400);
        let link = site.link(0);
        let mut egress = Egress::default();
        let encap = egress.decide(&site.world.cx(), &link, &mut bytes, &mut packet, &vnet);
        let Forward { encap, cut, .. } = forwarded(encap.unwrap());
        let mut out = SegmentCollector::default();
        cut.carry_out(&encap, &vnet, &packet, &mut bytes, &mut out)
            .unwrap();
        let segments = out.packets(&bytes);
        assert_eq!(segments.len(), 4);
        for segment in segments {
            let inner = &segment[encap.len()..];
            let packet = Packet::parse(inner).unwrap();
            assert_eq!(packet.checksum_state(inner), ChecksumState::Valid);
            let pool = if v6 { POOL6 } else { POOL_ADDRESS };
            assert_eq!((packet.src, packet.ports().unwrap().0), (ip(pool), 5000));
            assert!(v6 || ipv4_checksum_holds(&inner[..20]));
        }
        // It counts as the number of packets on the wire.
        let mut counted = [0; 2];
        let now = site.world.now;
        site.world
            .state
            .flows
            .for_each(now, |flow| counted = flow.packets);
        assert_eq!(counted, [4, 0]);
    }
}

/// Each segment has its own identification, even if the path requires more segments than the sender asked for.
#[test]
fn segments_of_a_narrow_path_take_no_identifications_from_others() {
    let rules = vec![snat(
        "out",
        "10.0.0.1/32",
        (POOL_ADDRESS, POOL_ADDRESS),
        (5000, 5000),
    )];
    let site = site(LinkFunctions {
        nat: translation(0, rules),
        ..LinkFunctions::default()
    });
    let link = site.link(0);
    link.host(ip(HOST_B)).unwrap().set_path_mtu(Some(588));
    let sample = SamplePacket {
        df: false,
        payload: vec![1; 4000],
        ..SamplePacket::default()
    };
    let mut seen = HashSet::new();
    for _ in 0..2 {
        let (vnet, mut packet, mut bytes) = sample.super_packet(1400);
        let mut egress = Egress::default();
        let encap = egress.decide(&site.world.cx(), &link, &mut bytes, &mut packet, &vnet);
        let Forward { encap, cut, .. } = forwarded(encap.unwrap());
        let mut out = SegmentCollector::default();
        cut.carry_out(&encap, &vnet, &packet, &mut bytes, &mut out)
            .unwrap();
        for segment in out.packets(&bytes) {
            let ip = Ipv4::parse(&segment[encap.len()..]).unwrap();
            assert!(seen.insert(ip.identification.get()), "two packets have one");
        }
    }
    assert_eq!(seen.len(), 16);
}

#[test]
fn two_vpcs_with_equal_addresses_share_a_gateway() {
    let mut configs = Vec::new();
    for (index, vni, pool) in [(0, RED, POOL_ADDRESS), (1, BLUE, "198.51.100.2")] {
        let mut config = vpc(LOCAL_HOST, index, vni);
        let rule = snat("out", "10.0.0.0/24", (pool, pool), (5000, 5999));
        config.functions.nat = translation(index, vec![rule]);
        configs.push(config);
    }
    let site = TestHost::new(LOCAL_HOST, configs);
    let ask = udp("10.0.0.2", "8.8.8.8", (1000, 53), 0);
    for (index, vni, pool) in [(0, RED, POOL_ADDRESS), (1, BLUE, "198.51.100.2")] {
        let out = site.receive(HOST_B, &marked(vni, &plain(), &ask)).unwrap();
        assert_eq!((out.tun(), out.packet().src), (index, ip(pool)));
        let port = out.packet().ports().unwrap().0;
        let reply = udp("8.8.8.8", pool, (53, port), 0);
        let back = site.send_on(index, &reply).unwrap();
        assert_eq!(back.tuple(), from_tuple("8.8.8.8", "10.0.0.2", (53, 1000)));
        assert_eq!(Geneve::parse(&back.datagram()).unwrap().vni().value(), vni);
    }
}

fn in_use(site: &TestHost) -> u64 {
    let link = site.link(0);
    let nat = link.config.functions.nat.as_ref().unwrap();
    nat.usages().map(|(_, usage)| usage.in_use).sum()
}

#[test]
fn a_port_is_lent_for_as_long_as_its_flow_lives() {
    let mut site = gateway((5000, 5000));
    let from = |sport| udp("10.0.0.2", "8.8.8.8", (sport, 53), 0);
    site.hear(HOST_B, &from(1), &plain()).unwrap();
    for _ in 0..2 {
        let full = site.hear(HOST_B, &from(2), &plain());
        assert_eq!(full.unwrap_err(), DropReason::NatExhausted);
    }
    assert_eq!((in_use(&site), site.flows()), (1, 1));
    // A new configuration with the same rules changes nothing.
    site.functions(|_| ());
    let full = site.hear(HOST_B, &from(2), &plain());
    assert_eq!(full.unwrap_err(), DropReason::NatExhausted);
    site.hear(HOST_B, &from(1), &plain()).unwrap();
    site.world.state.flows.flush(|_| true);
    assert_eq!(in_use(&site), 0);
    site.hear(HOST_B, &from(2), &plain()).unwrap();
    // It also ends by timeout.
    site.world.now = Now(3600 * 1_000_000_000);
    site.world.state.expire(site.world.now);
    assert_eq!(in_use(&site), 0);
}

#[test]
fn a_flow_that_is_cut_off_keeps_its_port_from_others_while_its_replies_come() {
    use crate::policy::PolicyAction;
    let mut site = gateway((5000, 5000));
    let ask = udp("10.0.0.2", "8.8.8.8", (1, 53), 0);
    site.hear(HOST_B, &ask, &plain()).unwrap();
    let reply = udp("8.8.8.8", POOL_ADDRESS, (53, 5000), 0);
    site.send(&reply).unwrap();
    site.functions(|f| f.policy = policy(PolicyAction::Deny, PolicyAction::Allow, Vec::new()));
    for _ in 0..2 {
        assert_eq!(site.send(&reply).unwrap_err(), DropReason::PolicyDenied);
        let heard = site.hear(HOST_B, &ask, &plain());
        assert_eq!(heard.unwrap_err(), DropReason::PolicyDenied);
    }
    assert_eq!(in_use(&site), 1);
    site.functions(|f| f.policy = None);
    assert_eq!(site.send(&reply).unwrap().host(), ip(HOST_B));
    assert_eq!(
        site.hear(HOST_B, &ask, &plain()).unwrap().packet().src,
        ip(POOL_ADDRESS)
    );
}

#[test]
fn a_rule_that_goes_away_ends_the_translation() {
    let mut site = gateway((5000, 5999));
    let ask = udp("10.0.0.2", "8.8.8.8", (1000, 53), 0);
    let port = site
        .hear(HOST_B, &ask, &plain())
        .unwrap()
        .packet()
        .ports()
        .unwrap()
        .0;
    let reply = udp("8.8.8.8", POOL_ADDRESS, (53, port), 0);
    site.send(&reply).unwrap();
    site.functions(|f| f.nat = None);
    assert!(site.send(&reply).is_err());
    let untranslated = site.hear(HOST_B, &ask, &plain());
    assert_eq!(untranslated.unwrap_err(), DropReason::DestinationNotHere);
}

#[test]
fn labels_of_the_source_stay_with_a_packet_that_is_sent_on() {
    let mut functions = LinkFunctions {
        nat: translation(0, vec![dnat("203.0.113.9", None, "10.0.0.3", None)]),
        labels: true,
        ..LinkFunctions::default()
    };
    // Configured labels and options of another host's endpoint are for that host to attach.
    let other = EndpointConfig {
        labels: Some(labels("app=old")),
        options: vec![crate::vpc::AttachedOption {
            class: OPTION_CLASS,
            kind: OptionType(1),
            data: vec![0; 4],
        }],
        ..EndpointConfig::default()
    };
    functions.endpoints.insert(ip("10.0.0.2"), other);
    let site = site(functions);
    let options = crate::options::SentOptions {
        labels: Some((labels("app=web"), false)),
        ..plain()
    };
    let ask = udp("10.0.0.2", "203.0.113.9", (1000, 53), 0);
    let there = site.hear(HOST_B, &ask, &options).unwrap();
    assert_eq!(there.host(), ip(HOST_C));
    assert_eq!(there.options().labels, Some(labels("app=web")));
    let header = there.datagram();
    assert_eq!(Geneve::parse(&header).unwrap().options().count(), 1);
}

#[test]
fn a_flow_that_is_allowed_again_after_its_time_holds_its_port() {
    let mut site = gateway((5000, 5999));
    let allow = PolicyAction::Allow;
    let out = |site: &TestHost, flags| {
        let ask = tcp("10.0.0.2", "8.8.8.8", (1000, 53), flags);
        site.hear(HOST_B, &ask, &plain())
            .map(|went| went.packet().src)
    };
    let in_use = |site: &TestHost| {
        let link = site.link(0);
        let nat = link.config.functions.nat.as_ref().unwrap();
        nat.usages().map(|(_, usage)| usage.in_use).sum::<u64>()
    };
    // A reset connection ends soon, a refused one lives a little longer.
    assert_eq!(out(&site, SYN), Ok(ip(POOL_ADDRESS)));
    assert_eq!(out(&site, TcpFlags::RST), Ok(ip(POOL_ADDRESS)));
    site.functions(|f| f.policy = policy(PolicyAction::Deny, allow, Vec::new()));
    assert_eq!(out(&site, ACK), Err(DropReason::PolicyDenied));
    site.world.now = Now(site.world.now.0 + 15_000_000_000);
    site.functions(|f| f.policy = policy(allow, allow, Vec::new()));
    assert_eq!(out(&site, ACK), Ok(ip(POOL_ADDRESS)));
    assert_eq!((site.flows(), in_use(&site)), (1, 1));
}

/// Whole packets and fragments from two senders behind one address, all with the same identification.
#[test]
fn identifications_are_unique_behind_one_address() {
    let site = gateway((5000, 5999));
    let id_of = |went: &TestOutput| Ipv4::parse(went.inner()).unwrap().identification.get();
    let mut seen = HashSet::new();
    for round in 0..3u16 {
        for src in ["10.0.0.2", "10.0.0.3"] {
            let host = if src == "10.0.0.2" { HOST_B } else { HOST_C };
            let whole = udp(src, "8.8.8.8", (1000, 53), 0);
            let [first, later] = fragments(&whole, 9 + round);
            let one = site.hear(host, &first, &plain()).unwrap();
            let two = site.hear(host, &later, &plain()).unwrap();
            let again = site.hear(host, &later, &plain()).unwrap();
            assert_eq!((id_of(&one), id_of(&one)), (id_of(&two), id_of(&again)));
            assert!(seen.insert(id_of(&one)), "two packets have one");
            let alone = site.hear(host, &whole, &plain()).unwrap();
            assert!(seen.insert(id_of(&alone)), "two packets have one");
        }
    }
    // Atomic datagrams keep their identification (RFC 6864).
    let atomic = tcp("10.0.0.2", "8.8.8.8", (1000, 80), SYN);
    let own = Ipv4::parse(&atomic).unwrap();
    assert!(own.dont_fragment());
    let out = site.hear(HOST_B, &atomic, &plain()).unwrap();
    assert_eq!(id_of(&out), own.identification.get());
    // So do packets that are not translated.
    let inside = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
    let heard = site.hear(HOST_B, &inside, &plain()).unwrap();
    assert_eq!(
        id_of(&heard),
        Ipv4::parse(&inside).unwrap().identification.get()
    );
}
