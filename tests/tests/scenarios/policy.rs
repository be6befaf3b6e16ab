//! Labels, rules and flows, with the real binary: which traffic is allowed, and how a change affects existing flows.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use geneved_tests::datagrams::{Asker, Reflector};
use geneved_tests::trio::{EchoConnection, EchoServer, endpoint};
use geneved_tests::world::{
    Duo, TestBackend, TestDaemon, UnderlayFamily, assert_no_ping, assert_ping, link,
};
use geneved_tests::{eventually, on_both_backends};

const DENIED_TIMEOUT: Duration = Duration::from_millis(700);
const ALLOWED_TIMEOUT: Duration = Duration::from_secs(5);

/// The fabric's secret, in a file that only its owner reads.
fn secret(duo: &Duo) -> String {
    let path = duo.world.file("secret", "a secret that only tests know");
    format!("label-secret-file = \"{}\"", path.display())
}

/// Host a has the endpoint 10.0.0.1 with `labels`, host b denies what no rule allows.
fn pair(duo: &Duo, io: TestBackend, labels: &str, rules: &str) -> [TestDaemon; 2] {
    let daemon = secret(duo);
    let a = link("gnv0", 100, &["10.0.0.1/24"], "")
        + &endpoint("gnv0", "10.0.0.1", None, &format!("labels = \"{labels}\""))
        + &endpoint("gnv0", "10.0.0.2", Some("192.0.2.2"), "");
    let b = link("gnv0", 100, &["10.0.0.2/24"], "ingress = \"deny\"")
        + &endpoint("gnv0", "10.0.0.1", Some("192.0.2.1"), "")
        + rules;
    let daemons = [
        duo.world.daemon(&duo.a, io, &daemon, &a),
        duo.world.daemon(&duo.b, io, &daemon, &b),
    ];
    let path = daemon.split('"').nth(1).unwrap();
    std::fs::remove_file(Path::new(path)).unwrap();
    daemons
}

fn rule(name: &str, words: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\ndev = \"gnv0\"\ndirection = \"ingress\"\n{words}\n")
}

on_both_backends! {
    /// The receiver decides by the labels that the sender's host attaches, and at once when they change.
    fn labels_decide_who_may_speak(io) {
        let duo = Duo::new();
        let rules = rule("web", "from = \"app in (web,api),!legacy\"\naction = \"allow\"");
        let [a, b] = pair(&duo, io, "app=web,env=prod", &rules);
        assert_ping(&duo.ends("10.0.0.2"));
        a.cli("endpoint set 10.0.0.1 dev gnv0 labels app=web,legacy=yes");
        assert_no_ping(&duo.ends("10.0.0.2"));
        assert!(b.drops().contains_key("gnv0/ingress/policy-denied"), "{:?}", b.drops());
        a.cli("endpoint set 10.0.0.1 dev gnv0 labels app=api");
        assert_ping(&duo.ends("10.0.0.2"));
        let hits = b.json("policy show dev gnv0")[0]["hits"].as_u64();
        assert!(hits >= Some(2), "{hits:?}");
    }

    /// Established connections included: a rule that goes takes its flows with it, one that comes back gives them back.
    fn a_deleted_rule_stops_an_established_connection(io) {
        let duo = Duo::new();
        let rules = rule("talk", "proto = \"tcp\"\ndport = \"7000\"\naction = \"allow\"");
        let [_a, b] = pair(&duo, io, "app=web", &rules);
        let _server = EchoServer::start(&duo.b, 7000, "b");
        let mut talk = EchoConnection::open(&duo.a, "10.0.0.2:7000").unwrap();
        assert!(talk.echoes(ALLOWED_TIMEOUT));
        let flows = b.json("flow show dev gnv0 state established");
        assert_eq!(flows.as_array().map(Vec::len), Some(1), "{flows}");
        b.cli("policy del talk dev gnv0");
        assert!(!talk.echoes(DENIED_TIMEOUT), "a connection without a rule lives on");
        b.cli("policy add talk dev gnv0 ingress proto tcp dport 7000 allow");
        // What was not acknowledged is sent again.
        eventually(15, "the connection goes on", || talk.echoes(DENIED_TIMEOUT));
        let mut other = EchoConnection::open(&duo.a, "10.0.0.2:7000").unwrap();
        b.cli("flow flush dev gnv0");
        assert!(other.carries(300_000), "a forgotten flow is decided anew");
    }

    /// Replies need no rule; what is rejected hears of it, what is denied does not.
    fn rejected_connections_are_refused_and_denied_ones_time_out(io) {
        let duo = Duo::new();
        let rules = rule("no", "proto = \"tcp\"\ndport = \"81-89\"\naction = \"reject\"");
        let [_a, b] = pair(&duo, io, "app=web", &rules);
        let _server = EchoServer::start(&duo.a, 7001, "a");
        let refused = EchoConnection::open(&duo.a, "10.0.0.2:85").err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let silent = EchoConnection::open(&duo.a, "10.0.0.2:90").err().unwrap();
        assert!(matches!(silent.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock), "{silent}");
        let mut out = EchoConnection::open(&duo.b, "10.0.0.1:7001").unwrap();
        assert!(out.echoes(ALLOWED_TIMEOUT), "replies of a flow that b began");
        let drops = b.drops();
        assert!(drops.contains_key("gnv0/ingress/policy-rejected"), "{drops:?}");
        assert!(drops.contains_key("gnv0/ingress/policy-denied"), "{drops:?}");
    }

    /// A defined option travels with the packets of a link, and a rule at the other end looks at a part of its value.
    fn options_decide_by_value_and_mask(io) {
        let duo = Duo::new();
        let tag = "[[option]]\nname = \"tag\"\nclass = \"0x0199\"\ntype = 5\nlen = 4\n";
        let mark = rule("marked", "option = \"0x0199:5=00000007/0000000f\"\naction = \"allow\"");
        let [a, b] = pair(&duo, io, "none", &(tag.to_owned() + &mark));
        assert_no_ping(&duo.ends("10.0.0.2"));
        a.cli("option add tag class 0x0199 type 5 len 4");
        for (value, passes) in [("00000007", true), ("000000f8", false), ("abcdef17", true)] {
            a.cli(&format!("link set gnv0 option tag={value}"));
            let before = b.drops();
            if passes {
                assert_ping(&duo.ends("10.0.0.2"));
                assert_eq!(b.drops(), before, "{value}");
            } else {
                assert_no_ping(&duo.ends("10.0.0.2"));
                assert_ne!(b.drops().get("gnv0/ingress/policy-denied"), before.get("gnv0/ingress/policy-denied"));
            }
        }
        // The same by the option of an endpoint, which not all packets of the link carry.
        a.cli("link set gnv0 option tag=00000000");
        b.cli("policy set marked dev gnv0 option 0x0199:5=00000000/ffffffff");
        assert_ping(&duo.ends("10.0.0.2"));
    }

    /// The sender's own rules hold before a packet leaves, and whoever is rejected hears of it from either end.
    fn rules_of_the_sender_hold_and_rejected_datagrams_are_answered(io) {
        let duo = Duo::new();
        let [a, b] = duo.overlay(io, UnderlayFamily::V4, "");
        let _reflectors = [7000, 7001].map(|port| Reflector::start(&duo.b, port));
        a.cli("link set gnv0 egress deny");
        a.cli("policy add few dev gnv0 egress proto udp dport 7000 allow");
        a.cli("policy add no dev gnv0 egress proto udp dport 7001 reject");
        b.cli("policy add no dev gnv0 ingress proto udp dport 7003 reject");
        for address in ["10.0.0.2", "[fd00::2]"] {
            let asker = |port: u16| Asker::new(&duo.a, &format!("{address}:{port}"));
            let told = |port: u16| {
                // "Administratively prohibited", as Linux passes it on.
                let error = asker(port).ask(8).unwrap_err().kind();
                matches!(error, ErrorKind::HostUnreachable | ErrorKind::PermissionDenied)
            };
            assert_eq!(asker(7000).seen(300).ip().to_string(), address.replace("2", "1").trim_matches(['[', ']']));
            assert!(told(7001), "rejected by the sender");
            assert!(asker(7002).is_ignored());
            a.cli("policy add open dev gnv0 egress proto udp dport 7002-7003 allow");
            assert!(told(7003), "rejected by the receiver");
            a.cli("policy del open dev gnv0");
        }
        let (of_a, of_b) = (a.drops(), b.drops());
        for (drops, name) in [
            (&of_a, "gnv0/egress/policy-denied"),
            (&of_a, "gnv0/egress/policy-rejected"),
            (&of_b, "gnv0/ingress/policy-rejected"),
        ] {
            assert!(drops.contains_key(name), "{name}: {drops:?}");
        }
        assert!(!of_b.contains_key("gnv0/ingress/policy-denied"), "{of_b:?}");
        let hits = a.json("policy show few dev gnv0")[0]["hits"].as_u64();
        assert_eq!(hits, Some(2), "one for each family");
    }

    /// A rule that denies, and its end, reach datagrams of both directions with the next packet.
    fn a_denial_that_is_deleted_holds_nobody_up(io) {
        let duo = Duo::new();
        let [_a, b] = duo.overlay(io, UnderlayFamily::V4, "");
        let _reflector = Reflector::start(&duo.b, 7000);
        let asker = Asker::new(&duo.a, "10.0.0.2:7000");
        let own = asker.own();
        let _ = asker.seen(8);
        b.cli("policy add no dev gnv0 ingress proto udp deny");
        assert!(asker.is_ignored());
        // The other end speaks from the same port, while it may not and when it may again.
        let speak = || {
            let socket = duo.b.netns().run(|| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::UDP))?;
                let [high, low] = own.port().to_be_bytes();
                let datagram = [27, 88, high, low, 0, 13, 0, 0, b'1', b'\n', b'?', b'?', b'?'];
                socket.send_to(&datagram, &own.into()).map(drop)
            });
            socket.unwrap().unwrap();
        };
        speak();
        assert!(asker.is_ignored());
        b.cli("policy del no dev gnv0");
        let before = b.drops();
        speak();
        assert!(asker.is_told(), "{:?}", b.drops());
        let _ = asker.seen(8);
        assert_eq!(b.drops(), before);
    }

    /// `trace` says what packets then get.
    fn trace_explains_what_happens(io) {
        let duo = Duo::new();
        let rules = rule("web", "from = \"app=web\"\nproto = \"tcp\"\ndport = \"80\"\naction = \"allow\"");
        let [a, b] = pair(&duo, io, "app=web", &rules);
        let report = b.json("trace dev gnv0 ingress from 10.0.0.1 to 10.0.0.2 proto tcp sport 5000 dport 80 labels app=web");
        let text = report.to_string();
        assert!(text.contains("deliver") && text.contains("rule web"), "{text}");
        let report = b.json("trace dev gnv0 ingress from 10.0.0.1 to 10.0.0.2 proto tcp sport 5000 dport 80 labels app=db");
        assert!(report.to_string().contains("policy-denied"), "{report}");
        // Labels that nobody named: a hint, and those of the endpoint once they are known here.
        let unnamed = "trace dev gnv0 ingress from 10.0.0.1 to 10.0.0.2 proto tcp sport 5000 dport 80";
        let text = b.cli(unnamed);
        assert!(text.starts_with("packet     assumed: host 192.0.2.1\n"), "{text}");
        assert!(text.contains("labels     assumed: the packet carries none") && text.contains("\"labels K=V,...\""), "{text}");
        assert!(text.contains("rule       ingress web does not match: from app=web: the labels of 10.0.0.1 are not known"), "{text}");
        b.cli("endpoint set 10.0.0.1 dev gnv0 labels app=web");
        let text = b.cli(unnamed);
        assert!(text.contains("those that its endpoint has here, app=web") && text.ends_with("deliver\n"), "{text}");
        let report = a.json("trace dev gnv0 egress from 10.0.0.1 to 10.0.0.2 proto tcp dport 80");
        assert!(report.to_string().contains("192.0.2.2"), "{report}");
        let hits = &b.json("policy show dev gnv0")[0]["hits"];
        assert_eq!(hits.as_u64(), Some(0), "a trace is no hit");
    }
    /// `trace` says what the underlay does to a datagram: a host without a route, and one at which nothing arrives.
    fn trace_sees_the_underlay(io) {
        let duo = Duo::new();
        let [a, b] = duo.overlay(io, UnderlayFamily::V4, "");
        let to = |address: &str, more: &str| {
            a.cli(&format!("trace dev gnv0 egress from 10.0.0.1 to {address} proto udp dport 9 {more}"))
        };
        assert!(to("10.0.0.2", "").ends_with("underlay   to 192.0.2.2 by u0, MTU 1500\nforward host 192.0.2.2\n"));
        assert!(to("10.0.0.2", "").starts_with("packet     assumed: sport 40000\n"));
        let long = to("10.0.0.2", "len 1465");
        assert!(long.contains("the kernel refuses them") && long.ends_with("drop too-big\n"), "{long}");
        let cut = to("10.0.0.2", "len 1465 df unset");
        assert!(cut.contains("into 2 fragments") && cut.contains("\nforward host"), "{cut}");
        a.cli("route add 10.9.0.0/16 dev gnv0 via 198.51.100.77");
        duo.a.ip("route add 10.9.0.0/16 dev gnv0").unwrap();
        let lost = to("10.9.0.1", "");
        assert!(lost.ends_with("drop underlay-unreachable host 198.51.100.77\n"), "{lost}");
        let asker = Asker::new(&duo.a, "10.9.0.1:9");
        eventually(10, "packets get what the trace says", || {
            let _ = asker.is_ignored();
            a.drops().contains_key("gnv0/egress/underlay-unreachable")
        });
        // Nobody listens there any more, and says so.
        b.stop();
        let asker = Asker::new(&duo.a, "10.0.0.2:9");
        eventually(20, "the host is known as unreachable", || {
            let _ = asker.ask(8);
            to("10.0.0.2", "").contains("\nunreachable host 192.0.2.2\n")
        });
        assert!(to("10.0.0.2", "").contains("underlay   nothing arrives at 192.0.2.2: it says that no program listens on the port"));
    }
}
