//! Packets follow their flow's decision for as long as it is valid.

use super::support::*;
use super::*;
use crate::options::SentOptions;
use crate::policy::{Direction, PolicyAction, RulePeer};
use crate::service::Affinity;

fn allowing(direction: Direction) -> LinkFunctions {
    let rules = vec![rule("web", direction, PolicyAction::Allow)];
    LinkFunctions {
        policy: policy(PolicyAction::Deny, PolicyAction::Deny, rules),
        ..LinkFunctions::default()
    }
}

/// Packets in both directions of a connection between 10.0.0.2, behind B, and 10.0.0.1, here.
fn inbound(site: &TestHost, flags: TcpFlags) -> Result<TestOutput, DropReason> {
    let segment = tcp("10.0.0.2", "10.0.0.1", (1000, 80), flags);
    site.hear(HOST_B, &segment, &plain())
}

fn outbound(site: &TestHost, flags: TcpFlags) -> Result<TestOutput, DropReason> {
    site.send(&tcp("10.0.0.1", "10.0.0.2", (80, 1000), flags))
}

#[test]
fn a_second_packet_asks_no_rule_and_both_directions_are_one_flow() {
    let site = site(allowing(Direction::Ingress));
    for _ in 0..3 {
        assert_eq!(inbound(&site, ACK).unwrap().tun(), 0);
        assert_eq!(outbound(&site, ACK).unwrap().host(), ip(HOST_B));
    }
    assert_eq!((hits(&site, "web"), site.flows()), (1, 1));
    let mut counts = ([0; 2], [0; 2]);
    let now = site.world.now;
    site.world
        .state
        .flows
        .for_each(now, |flow| counts = (flow.packets, flow.bytes));
    assert_eq!(counts, ([3; 2], [120; 2]));
}

#[test]
fn a_deleted_rule_stops_an_established_connection_at_once_whichever_end_speaks_first() {
    for direction in [Direction::Ingress, Direction::Egress] {
        for reply_first in [false, true] {
            let mut site = site(allowing(direction));
            type SendPacket = fn(&TestHost, TcpFlags) -> Result<TestOutput, DropReason>;
            let [mut ask, mut reply]: [SendPacket; 2] = [inbound, outbound];
            if direction == Direction::Egress {
                (ask, reply) = (outbound, inbound);
            }
            ask(&site, SYN).unwrap();
            reply(&site, SYN_ACK).unwrap();
            ask(&site, ACK).unwrap();
            // A new flow in the reply direction would be allowed.
            let other = match direction {
                Direction::Ingress => (PolicyAction::Deny, PolicyAction::Allow),
                Direction::Egress => (PolicyAction::Allow, PolicyAction::Deny),
            };
            site.functions(|f| f.policy = policy(other.0, other.1, Vec::new()));
            let denied = Err(DropReason::PolicyDenied);
            for turn in 0..4 {
                let end = if (turn % 2 == 0) == reply_first {
                    reply
                } else {
                    ask
                };
                let verdict = end(&site, ACK).map(|_| ());
                assert_eq!(verdict, denied, "{direction} {reply_first} {turn}");
            }
            // Another change of the configuration allows it again, whichever end sends first.
            site.functions(|f| *f = allowing(direction));
            let [first, second] = if reply_first {
                [reply, ask]
            } else {
                [ask, reply]
            };
            first(&site, ACK).unwrap();
            second(&site, ACK).unwrap();
            assert_eq!(site.flows(), 1);
        }
    }
}

#[test]
fn what_was_cut_off_may_begin_anew_from_the_other_end() {
    let mut site = site(allowing(Direction::Ingress));
    inbound(&site, ACK).unwrap();
    outbound(&site, ACK).unwrap();
    site.functions(|f| f.policy = policy(PolicyAction::Deny, PolicyAction::Allow, Vec::new()));
    assert_eq!(outbound(&site, ACK).unwrap_err(), DropReason::PolicyDenied);
    outbound(&site, SYN).unwrap();
    inbound(&site, SYN_ACK).unwrap();
    assert_eq!(site.flows(), 1);
}

#[test]
fn a_deleted_denial_frees_datagrams_of_both_directions_at_once() {
    let ask = |site: &TestHost| {
        let question = udp("10.0.0.2", "10.0.0.1", (1000, 80), 0);
        site.hear(HOST_B, &question, &plain()).map(drop)
    };
    let tell = |site: &TestHost| {
        let answer = udp("10.0.0.1", "10.0.0.2", (80, 1000), 0);
        site.send(&answer).map(drop)
    };
    type SendPacket<'a> = &'a dyn Fn(&TestHost) -> Result<(), DropReason>;
    let orders: [[SendPacket<'_>; 2]; 2] = [[&ask, &tell], [&tell, &ask]];
    let denial = |direction| LinkFunctions {
        policy: policy(
            PolicyAction::Allow,
            PolicyAction::Allow,
            vec![rule("no", direction, PolicyAction::Deny)],
        ),
        ..LinkFunctions::default()
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        for before in orders.map(Some).into_iter().chain([None]) {
            for during in orders {
                for after in orders {
                    let mut site = site(LinkFunctions::default());
                    for tunnel in before.into_iter().flatten() {
                        tunnel(&site).unwrap();
                    }
                    site.functions(|f| *f = denial(direction));
                    for tunnel in during {
                        let _ = tunnel(&site);
                    }
                    site.functions(|f| *f = LinkFunctions::default());
                    for tunnel in after {
                        assert_eq!(tunnel(&site), Ok(()));
                    }
                }
            }
        }
    }
}

#[test]
fn who_was_cut_off_begins_anew_once_the_other_end_is_silent() {
    let mut site = site(allowing(Direction::Ingress));
    let question = udp("10.0.0.2", "10.0.0.1", (1000, 80), 0);
    let answer = udp("10.0.0.1", "10.0.0.2", (80, 1000), 0);
    site.hear(HOST_B, &question, &plain()).unwrap();
    site.send(&answer).unwrap();
    site.functions(|f| f.policy = policy(PolicyAction::Deny, PolicyAction::Allow, Vec::new()));
    let denied = DropReason::PolicyDenied;
    assert_eq!(site.hear(HOST_B, &question, &plain()).unwrap_err(), denied);
    // It may retry in the meantime.
    for _ in 0..7 {
        assert_eq!(site.send(&answer).unwrap_err(), denied);
        site.world.now.0 += 4_000_000_000;
    }
    site.world.now.0 += 4_000_000_000;
    site.send(&answer).unwrap();
    site.hear(HOST_B, &question, &plain()).unwrap();
}

#[test]
fn a_denied_flow_does_not_block_the_flow_of_the_other_direction() {
    let site = site(LinkFunctions {
        policy: policy(PolicyAction::Deny, PolicyAction::Allow, Vec::new()),
        ..LinkFunctions::default()
    });
    for _ in 0..2 {
        assert_eq!(inbound(&site, ACK).unwrap_err(), DropReason::PolicyDenied);
    }
    outbound(&site, SYN).unwrap();
    inbound(&site, SYN_ACK).unwrap();
}

#[test]
fn a_removed_link_takes_its_flows_with_it() {
    let mut site = site(LinkFunctions::default());
    site.send(&udp("10.0.0.1", "10.0.0.2", (1, 2), 0)).unwrap();
    site.change(Vec::clear);
    assert!(site.world.tables.link(LinkIndex(0)).is_none());
    let heard = site.hear(HOST_B, &udp("10.0.0.2", "10.0.0.1", (2, 1), 0), &plain());
    assert_eq!(heard.unwrap_err(), DropReason::UnknownVni);
}

#[test]
fn later_fragments_follow_the_first_and_others_are_dropped_where_ports_matter() {
    let whole = udp("10.0.0.1", "10.0.0.2", (1000, 53), 0);
    let translated = LinkFunctions {
        nat: translation(
            0,
            vec![snat(
                "out",
                "10.0.0.1/32",
                ("198.51.100.1", "198.51.100.1"),
                (5000, 5000),
            )],
        ),
        ..LinkFunctions::default()
    };
    let mut dns = rule("dns", Direction::Egress, PolicyAction::Allow);
    dns.protocol = Some(protocol::UDP);
    dns.dports = vec![53..=53];
    let ruled = LinkFunctions {
        policy: policy(PolicyAction::Allow, PolicyAction::Deny, vec![dns]),
        ..LinkFunctions::default()
    };
    for (functions, source) in [(ruled, "10.0.0.1"), (translated, "198.51.100.1")] {
        let site = site(functions);
        let [first, later] = fragments(&whole, 9);
        assert_eq!(site.send(&later).unwrap_err(), DropReason::FragmentUnknown);
        let one = site.send(&first).unwrap();
        let two = site.send(&later).unwrap();
        let packets = [one.packet(), two.packet()];
        assert!(packets.iter().all(|p| p.src == ip(source)));
        assert_eq!(one.forward().hash, two.forward().hash);
        assert_eq!(site.flows(), 1);
        let [_, other] = fragments(&whole, 10);
        assert_eq!(site.send(&other).unwrap_err(), DropReason::FragmentUnknown);
    }
}

#[test]
fn a_later_fragment_passes_before_its_first_where_no_port_matters() {
    let mut from_b = rule("b", Direction::Ingress, PolicyAction::Allow);
    from_b.from = RulePeer::Prefix("10.0.0.2/32".parse().unwrap());
    let by_address = LinkFunctions {
        policy: policy(PolicyAction::Deny, PolicyAction::Allow, vec![from_b]),
        ..LinkFunctions::default()
    };
    for functions in [LinkFunctions::default(), by_address] {
        let site = site(functions);
        let [first, later] = fragments(&udp("10.0.0.1", "10.0.0.2", (1000, 53), 0), 9);
        for fragment in [&later, &first, &later] {
            assert_eq!(site.send(fragment).unwrap().host(), ip(HOST_B));
        }
        let [first, later] = fragments(&udp("10.0.0.2", "10.0.0.1", (1000, 53), 0), 9);
        for fragment in [&later, &first, &later] {
            assert_eq!(site.hear(HOST_B, fragment, &plain()).unwrap().tun(), 0);
        }
        // It might go to a different host than the first fragment.
        let [_, later] = fragments(&udp("10.0.0.1", "10.7.0.9", (1000, 53), 0), 9);
        assert_eq!(site.send(&later).unwrap_err(), DropReason::FragmentUnknown);
        // Its source is checked like that of any packet.
        let [_, forged] = fragments(&udp("10.0.0.3", "10.0.0.1", (1000, 53), 0), 9);
        let heard = site.hear(HOST_B, &forged, &plain());
        assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    }
}

#[test]
fn a_denied_packet_takes_its_fragments_with_it() {
    let site = site(LinkFunctions {
        policy: policy(PolicyAction::Allow, PolicyAction::Deny, Vec::new()),
        ..LinkFunctions::default()
    });
    for fragment in fragments(&udp("10.0.0.1", "10.0.0.2", (1000, 53), 0), 9) {
        assert_eq!(site.send(&fragment).unwrap_err(), DropReason::PolicyDenied);
    }
}

#[test]
fn an_error_belongs_to_the_flow_that_it_quotes() {
    let site = site(allowing(Direction::Egress));
    for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let bytes = udp(a, b, (1000, 53), 0);
        let error = error_about(b, &bytes);
        // Without a flow the error is unrelated.
        let early = site.hear(HOST_B, &error, &plain());
        assert_eq!(early.unwrap_err(), DropReason::IcmpUnrelated);
        site.send(&bytes).unwrap();
        let flows = site.flows();
        assert_eq!(site.hear(HOST_B, &error, &plain()).unwrap().tun(), 0);
        // An error about the replies, from this end.
        let reply = udp(b, a, (53, 1000), 0);
        site.hear(HOST_B, &reply, &plain()).unwrap();
        assert_eq!(
            site.send(&error_about(a, &reply)).unwrap().host(),
            ip(HOST_B)
        );
        assert_eq!(site.flows(), flows);
    }
    assert_eq!(hits(&site, "web"), 2);
}

#[test]
fn an_error_is_believed_only_from_where_its_source_lives() {
    let site = site(allowing(Direction::Egress));
    let bytes = udp("10.0.0.1", "10.0.0.2", (1000, 53), 0);
    site.send(&bytes).unwrap();
    for answered in [false, true] {
        if answered {
            let reply = udp("10.0.0.2", "10.0.0.1", (53, 1000), 0);
            site.hear(HOST_B, &reply, &plain()).unwrap();
        }
        let forged = site.hear(HOST_C, &error_about("10.0.0.2", &bytes), &plain());
        assert_eq!(
            forged.unwrap_err(),
            DropReason::SourceMismatch,
            "{answered}"
        );
        // From a router on the path, behind another host than the destination.
        let routed = site.hear(HOST_C, &error_about("10.7.9.9", &bytes), &plain());
        assert_eq!(routed.unwrap().packet().src, ip("10.7.9.9"));
    }
    // Replies still have the same input as before.
    let reply = udp("10.0.0.2", "10.0.0.1", (53, 1000), 0);
    site.hear(HOST_B, &reply, &plain()).unwrap();
}

#[test]
fn an_error_about_a_refused_packet_is_about_nothing() {
    let site = site(LinkFunctions {
        policy: policy(PolicyAction::Allow, PolicyAction::Deny, Vec::new()),
        ..LinkFunctions::default()
    });
    let bytes = udp("10.0.0.1", "10.0.0.2", (1000, 53), 0);
    site.send(&bytes).unwrap_err();
    let error = site.hear(HOST_B, &error_about("10.0.0.2", &bytes), &plain());
    assert_eq!(error.unwrap_err(), DropReason::IcmpUnrelated);
    assert_eq!(site.send(&bytes).unwrap_err(), DropReason::PolicyDenied);
}

#[test]
fn errors_about_translated_flows_are_translated_with_what_they_quote() {
    let out = snat(
        "out",
        "10.0.0.0/24",
        ("198.51.100.1", "198.51.100.1"),
        (5000, 5999),
    );
    let sites = [
        // The packet as it leaves and as its sender knows it.
        (
            LinkFunctions {
                nat: translation(0, vec![out]),
                ..LinkFunctions::default()
            },
            udp("10.0.0.1", "10.7.0.9", (1000, 80), 0),
        ),
        (
            LinkFunctions {
                nat: translation(0, vec![dnat("203.0.113.9", None, "10.7.0.9", None)]),
                ..LinkFunctions::default()
            },
            udp("10.0.0.1", "203.0.113.9", (1000, 80), 0),
        ),
        (
            LinkFunctions {
                services: service(
                    "203.0.113.9",
                    protocol::UDP,
                    Affinity::None,
                    vec![backend("10.7.0.9", 1)],
                ),
                ..LinkFunctions::default()
            },
            udp("10.0.0.1", "203.0.113.9", (1000, 80), 0),
        ),
    ];
    for (functions, bytes) in sites {
        let site = site(functions);
        let went = site.send(&bytes).unwrap();
        assert_ne!(went.inner(), bytes);
        // From the destination itself, and from a router on the path.
        for from in [went.packet().dst.to_string(), "10.7.200.1".to_owned()] {
            let error = error_about(&from, went.inner());
            let back = site.hear(HOST_B, &error, &plain()).unwrap();
            let quote = back.packet().quote(back.inner()).unwrap();
            assert_eq!((back.tun(), back.packet().dst), (0, ip("10.0.0.1")));
            let quoted = &back.inner()[usize::from(quote.offset)..];
            assert_eq!(unidentified(quoted), unidentified(&bytes), "from {from}");
            let own = Packet::parse(&bytes).unwrap().dst;
            let source = if from == "10.7.200.1" { ip(&from) } else { own };
            assert_eq!(back.packet().src, source);
        }
        let unrelated = error_about("10.7.0.9", &udp("198.51.100.1", "10.7.0.9", (4999, 80), 0));
        let verdict = site.hear(HOST_B, &unrelated, &plain()).map(|_| ());
        let rules = site.link(0).config.functions.nat.is_some();
        let expected = if rules {
            DropReason::IcmpUnrelated
        } else {
            DropReason::DestinationNotHere
        };
        assert_eq!(verdict, Err(expected));
    }
}

#[test]
fn a_flow_is_checked_again_where_it_comes_from_another_host() {
    let site = site(allowing(Direction::Ingress));
    // A prefix behind two hosts may move between them.
    let routed = udp("10.7.0.9", "10.0.0.1", (1, 2), 0);
    site.hear(HOST_B, &routed, &plain()).unwrap();
    site.hear(HOST_C, &routed, &plain()).unwrap();
    assert_eq!(hits(&site, "web"), 2);
    // An endpoint of one host may not move, and a forged packet does not affect its flow.
    inbound(&site, ACK).unwrap();
    outbound(&site, ACK).unwrap();
    let flows = site.flows();
    let forged = tcp("10.0.0.2", "10.0.0.1", (1000, 80), TcpFlags::RST);
    let heard = site.hear(HOST_C, &forged, &plain());
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    outbound(&site, ACK).unwrap();
    inbound(&site, ACK).unwrap();
    assert_eq!((hits(&site, "web"), site.flows()), (3, flows));
}

#[test]
fn forged_packets_end_no_flow_of_an_older_configuration_either() {
    let mut site = site(allowing(Direction::Ingress));
    inbound(&site, ACK).unwrap();
    outbound(&site, ACK).unwrap();
    site.functions(|_| ());
    let forged = tcp("10.0.0.2", "10.0.0.1", (1000, 80), ACK);
    let heard = site.hear(HOST_C, &forged, &plain());
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    assert_eq!(site.flows(), 1);
    outbound(&site, ACK).unwrap();
}

#[test]
fn replies_come_from_where_the_destination_lives() {
    let site = site(LinkFunctions::default());
    site.send(&udp("10.0.0.1", "10.0.0.2", (1000, 53), 0))
        .unwrap();
    let reply = udp("10.0.0.2", "10.0.0.1", (53, 1000), 0);
    let forged = site.hear(HOST_C, &reply, &plain());
    assert_eq!(forged.unwrap_err(), DropReason::SourceMismatch);
    site.hear(HOST_B, &reply, &plain()).unwrap();
    let forged = site.hear(HOST_C, &reply, &plain());
    assert_eq!(forged.unwrap_err(), DropReason::SourceMismatch);
}

#[test]
fn other_labels_in_the_middle_of_a_flow_are_decided_again() {
    let mut web = rule("web", Direction::Ingress, PolicyAction::Allow);
    web.from = crate::policy::RulePeer::Selector("app=web".parse().unwrap());
    let site = site(LinkFunctions {
        policy: policy(PolicyAction::Deny, PolicyAction::Allow, vec![web]),
        ..LinkFunctions::default()
    });
    let with = |text: &str| SentOptions {
        labels: Some((labels(text), false)),
        ..SentOptions::default()
    };
    let segment = tcp("10.0.0.2", "10.0.0.1", (1000, 80), ACK);
    let hear = |text: &str| site.hear(HOST_B, &segment, &with(text)).map(|_| ());
    let denied = Err(DropReason::PolicyDenied);
    assert_eq!(hear("app=web"), Ok(()));
    assert_eq!(hear("app=web"), Ok(()));
    assert_eq!(hits(&site, "web"), 1);
    outbound(&site, ACK).unwrap();
    assert_eq!(hear("app=db"), denied);
    // Its replies are dropped as well.
    assert_eq!(outbound(&site, ACK).map(|_| ()), denied);
    assert_eq!(hear(""), denied);
    assert_eq!(hear("app=web,tier=front"), Ok(()));
    outbound(&site, ACK).unwrap();
}

#[test]
fn a_flow_that_was_flushed_is_forgotten_by_whoever_used_it_last() {
    let site = site(LinkFunctions::default());
    let (link, mut egress) = (site.link(0), Egress::default());
    let bytes = udp("10.0.0.1", "10.0.0.2", (1, 2), 0);
    let mut turn = || {
        for _ in 0..2 {
            site.send_with(&mut egress, &link, &bytes).unwrap();
        }
        egress.flush(&site.world.cx());
    };
    turn();
    site.world.state.flows.flush(|_| true);
    turn();
    turn();
    assert_eq!(site.flows(), 1);
}
