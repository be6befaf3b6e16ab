//! NAT with the real binary: a VPC on two hosts, its gateway, and an outside host that has no routes to the VPC.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use geneved::lab::netns::{LabNetns, veth};
use geneved::traffic::{EchoRun, TrafficEnds};
use geneved_tests::datagrams::{Asker, Reflector};
use geneved_tests::packet::{Parsed, fragments};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::trio::{EchoConnection, EchoServer, Trio, endpoint};
use geneved_tests::world::{TestBackend, TestDaemon, link};
use geneved_tests::{eventually, on_both_backends};
use socket2::{Domain, Protocol, Socket, Type};

/// Takes whole IP packets.
const IPPROTO_RAW: i32 = 255;

/// 10.0.0.1 and fd00::1 live on host a, .3 on host c; host b leads to the outside, which is 203.0.113.9 and 2001:db8:9::9.
struct NatHosts {
    /// Of a, of the gateway, of c.
    daemons: [TestDaemon; 3],
    outside: LabNetns,
    trio: Trio,
}

/// The host outside, by both families.
const OUTSIDE_HOST: [&str; 2] = ["203.0.113.9", "[2001:db8:9::9]"];
/// The outside addresses that pools have.
const POOL_ADDRESSES: [&str; 2] = ["198.51.100.1", "2001:db8:5::1"];

impl NatHosts {
    /// `nat` is what the gateway does.
    fn new(io: TestBackend, nat: &str) -> Self {
        let trio = Trio::new();
        let outside = trio.world.host("outside");
        let [a, b, c] = &trio.hosts;
        veth(
            (b, "o0", &["203.0.113.1/24", "2001:db8:9::1/64"]),
            (&outside, "o0", &["203.0.113.9/24", "2001:db8:9::9/64"]),
            1500,
        )
        .unwrap();
        let member = |own: usize, other: usize| {
            let addresses = [format!("10.0.0.{own}/24"), format!("fd00::{own}/64")];
            let mut text = link("gnv0", 100, &[&addresses[0], &addresses[1]], "");
            for address in [format!("10.0.0.{other}"), format!("fd00::{other}")] {
                text += &endpoint("gnv0", &address, Some(&format!("192.0.2.{other}")), "");
            }
            for prefix in ["0.0.0.0/0", "::/0"] {
                text += &format!(
                    "[[route]]\nprefix = \"{prefix}\"\ndev = \"gnv0\"\nvia = [\"192.0.2.2\"]\ntype = \"gateway\"\n"
                );
            }
            text
        };
        let mut gateway = link("gnv0", 100, &[], "");
        for (address, host) in [
            ("10.0.0.1", 1),
            ("fd00::1", 1),
            ("10.0.0.3", 3),
            ("fd00::3", 3),
        ] {
            gateway += &endpoint("gnv0", address, Some(&format!("192.0.2.{host}")), "");
        }
        let tables = [member(1, 3), gateway + nat, member(3, 1)];
        let daemons = trio.daemons(io, "", [&tables[0], &tables[1], &tables[2]]);
        b.sysctl("ipv4/ip_forward", "1").unwrap();
        b.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        for device in ["all", "gnv0"] {
            b.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0")
                .unwrap();
        }
        for pool in ["198.51.100.0/24", "2001:db8:5::/64"] {
            b.ip(&format!("route add {pool} dev gnv0")).unwrap();
            let via = if pool.contains(':') {
                "2001:db8:9::1"
            } else {
                "203.0.113.1"
            };
            outside.ip(&format!("route add {pool} via {via}")).unwrap();
            for host in [a, c] {
                host.ip(&format!("route add {pool} dev gnv0")).unwrap();
            }
        }
        for host in [a, c] {
            host.ip("route add 203.0.113.0/24 dev gnv0").unwrap();
            host.ip("route add 2001:db8:9::/64 dev gnv0").unwrap();
        }
        // Finds the neighbours outside, which may not be asked before an address has settled.
        for address in ["203.0.113.9", "2001:db8:9::9"] {
            let ends = TrafficEnds::new(b.netns(), outside.netns(), address.parse().unwrap());
            eventually(10, "the outside answers", || {
                let echo = EchoRun {
                    count: 1,
                    ..EchoRun::default()
                };
                let report = echo.run(&ends.client, ends.address);
                report.is_ok_and(|report| report.all_answered())
            });
        }
        // Forwarding and routes are as the translations need them, in both families.
        let shown = daemons[1].cli("nat show");
        assert!(!shown.contains("missing"), "{shown}");
        NatHosts {
            daemons,
            outside,
            trio,
        }
    }

    /// Source NAT for both families, with these ports.
    fn translating(io: TestBackend, ports: &str) -> Self {
        let rules = snat("out4", "10.0.0.0/24", POOL_ADDRESSES[0], ports)
            + &snat("out6", "fd00::/64", POOL_ADDRESSES[1], ports);
        Self::new(io, &rules)
    }

    fn a(&self) -> &LabNetns {
        &self.trio.hosts[0]
    }

    fn c(&self) -> &LabNetns {
        &self.trio.hosts[2]
    }

    fn gateway(&self) -> &TestDaemon {
        &self.daemons[1]
    }

    /// Ports that a rule of the gateway has in use, and has in all.
    fn ports(&self, rule: &str) -> (u64, u64) {
        let shown = self.gateway().json(&format!("-s nat show {rule} dev gnv0"));
        let number = |key: &str| shown[0][key].as_u64().unwrap();
        (number("in_use"), number("total"))
    }
}

fn snat(name: &str, from: &str, source: &str, ports: &str) -> String {
    format!(
        "[[nat]]\nname = \"{name}\"\ndev = \"gnv0\"\ntype = \"snat\"\nfrom = \"{from}\"\nsource = \"{source}\"\nports = \"{ports}\"\n"
    )
}

fn static_rules() -> String {
    let rule = |name: &str, inside: &str, outside: &str| {
        format!(
            "[[nat]]\nname = \"{name}\"\ndev = \"gnv0\"\ntype = \"static\"\ninside = \"{inside}\"\noutside = \"{outside}\"\n"
        )
    };
    rule("one4", "10.0.0.1", "198.51.100.25")
        + &rule("one6", "fd00::1", "2001:db8:5::25")
        + &snat("out4", "10.0.0.3/32", POOL_ADDRESSES[0], "1024-65535")
        + &snat("out6", "fd00::3/128", POOL_ADDRESSES[1], "1024-65535")
}

on_both_backends! {
    /// An error about a translated packet is translated, with what it quotes, and finds the socket that it is about.
    fn errors_from_outside_find_the_inner_sender(io) {
        let site = NatHosts::translating(io, "1024-65535");
        let _reflector = Reflector::start(&site.outside, 7000);
        for outside in OUTSIDE_HOST {
            let closed = Asker::new(site.a(), &format!("{outside}:7001"));
            eventually(5, "a closed port outside is reported", || {
                closed.ask(8).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
            });
        }
        // The gateway's own way out becomes narrower than the tunnel.
        for host in [&site.trio.hosts[1], &site.outside] {
            host.ip("link set o0 mtu 1300").unwrap();
        }
        for outside in OUTSIDE_HOST {
            // Linux forbids fragments by itself; of IPv6 nobody on the way may make them.
            let asker = Asker::new(site.a(), &format!("{outside}:7000"));
            assert_eq!(asker.seen(1200).ip().is_ipv4(), outside == OUTSIDE_HOST[0]);
            eventually(5, "the sender learns the path MTU and fragments", || asker.ask(1350).is_ok());
            let known = site.a().ip(&format!("route get {}", outside.trim_matches(['[', ']']))).unwrap();
            assert!(known.contains("mtu 1300"), "{known}");
        }
    }

    /// Fragments are translated like the packet that they are of, both ways.
    fn fragments_pass_source_nat(io) {
        let site = NatHosts::translating(io, "1024-65535");
        let _reflector = Reflector::start(&site.outside, 7000);
        for (outside, pool) in OUTSIDE_HOST.iter().zip(POOL_ADDRESSES) {
            let asker = Asker::new(site.a(), &format!("{outside}:7000"));
            // Whoever answers by IPv6 must first learn that the tunnel is narrower than its own link.
            eventually(5, "a long answer comes", || asker.ask(2000).is_ok());
            for len in [20, 2000, 9000, 40] {
                let seen = asker.seen(len);
                assert_eq!(seen.ip().to_string(), pool, "{len} bytes");
            }
        }
    }

    /// Two senders behind one address that choose one identification: the receiver puts together what belongs together.
    fn fragments_of_two_senders_are_not_mixed_up(io) {
        let site = NatHosts::translating(io, "1024-65535");
        let to: SocketAddr = format!("{}:7000", OUTSIDE_HOST[0]).parse().unwrap();
        let receiver = site.outside.netns().run(|| UdpSocket::bind(to)).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let senders = [(site.a(), "10.0.0.1", 0xaa), (site.c(), "10.0.0.3", 0xcc)].map(|(host, from, byte)| {
            let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
            let socket = host.netns().run(raw).unwrap().unwrap();
            (socket, fragments((from.parse().unwrap(), 4000), (to.ip(), to.port()), &[byte; 1500], 77))
        });
        // Each is awaited outside before the next is sent, so that those of the two alternate.
        let wire = Sniffer::new(site.outside.netns(), "o0");
        for piece in 0..2 {
            for (socket, pieces) in &senders {
                socket.send_to(&pieces[piece], &to.into()).unwrap();
                let came = wire.find(Duration::from_secs(3), |bytes| {
                    (Parsed::new(bytes)?.to == to.ip()).then_some(())
                });
                assert!(came.is_some(), "a fragment is lost");
            }
        }
        let mut buffer = [0; 4000];
        let mut seen: Vec<u8> = (0..2).map(|_| {
            let n = receiver.recv(&mut buffer).expect("a datagram");
            assert_eq!(n, 1500);
            assert!(buffer[..n].iter().all(|&byte| byte == buffer[0]), "two were mixed up");
            buffer[0]
        }).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0xaa, 0xcc]);
    }

    /// One address for one: whoever begins, the inside keeps its port and is seen by its outside address, and what stays
    /// in the VPC is seen as it is.
    fn a_static_address_serves_both_directions(io) {
        let site = NatHosts::new(io, &static_rules());
        let _outer = EchoServer::start(&site.outside, 7000, "outside");
        let _inner = EchoServer::start(site.a(), 7001, "inside");
        for (at, fixed) in ["198.51.100.25", "[2001:db8:5::25]"].iter().enumerate() {
            let mut out = EchoConnection::open(site.a(), &format!("{}:7000", OUTSIDE_HOST[at])).unwrap();
            assert_eq!(out.seen.ip().to_string(), fixed.trim_matches(['[', ']']));
            let mut back = EchoConnection::open(&site.outside, &format!("{fixed}:7001")).unwrap();
            assert_eq!(back.server, "inside");
            assert_eq!(back.seen.ip().to_string(), OUTSIDE_HOST[at].trim_matches(['[', ']']));
            assert!(out.carries(500_000) && back.carries(500_000));
            // A member of the VPC that has an address outside itself may use that of another, too.
            let mut around = EchoConnection::open(site.c(), &format!("{fixed}:7001")).unwrap();
            assert!(around.server == "inside" && around.carries(500_000));
        }
        // A host that has such a rule for its own address uses it only for what is not in the VPC.
        site.daemons[2].cli("nat add own dev gnv0 static inside 10.0.0.3 outside 198.51.100.30");
        let shown = site.daemons[2].cli("nat show own");
        assert!(!shown.contains("missing"), "nobody comes to it here: {shown}");
        let near = EchoConnection::open(site.c(), "10.0.0.1:7001").unwrap();
        assert_eq!(near.seen.ip().to_string(), "10.0.0.3");
    }

    /// Two members meet by the outside port of one of them, and see each other only by outside addresses.
    fn members_reach_each_other_by_outside_ports(io) {
        let site = NatHosts::translating(io, "20000-29999");
        let _reflector = Reflector::start(&site.outside, 7000);
        let _inner = Reflector::start(site.a(), 7100);
        for (outside, pool) in OUTSIDE_HOST.iter().zip(POOL_ADDRESSES) {
            // A mapping comes to be by speaking from the port.
            let any = if outside.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let to = format!("{outside}:7000");
            let reuse = move || {
                let socket = std::net::UdpSocket::bind(any)?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                socket.send_to(b"hello", &to)?;
                let mut answer = [0; 200];
                let (len, _) = socket.recv_from(&mut answer)?;
                let text = String::from_utf8_lossy(&answer[..len]).into_owned();
                std::io::Result::Ok((socket, text))
            };
            let (socket, text) = site.a().netns().run(reuse).unwrap().unwrap();
            let mapped: std::net::SocketAddr = text.lines().next().unwrap().parse().unwrap();
            assert_eq!(mapped.ip().to_string(), pool);
            let caller = Asker::new(site.c(), &mapped.to_string());
            let reply = std::thread::spawn(move || {
                let mut bytes = [0; 100];
                let (len, from) = socket.recv_from(&mut bytes).expect("the call comes through");
                let answer = [format!("{from}\n").as_bytes(), &bytes[..len]].concat();
                socket.send_to(&answer, from).unwrap();
            });
            let seen = caller.seen(33);
            reply.join().unwrap();
            assert_eq!(seen.ip().to_string(), pool, "the caller's own outside address");
            assert_ne!(seen.port(), mapped.port());
        }
    }

    /// Who asks for one port of an outside address gets a server inside, which sees who asks; other ports lead nowhere.
    fn a_port_forward_leads_to_a_server_inside(io) {
        let rule = |name: &str, to: &str, target: &str| format!(
            "[[nat]]\nname = \"{name}\"\ndev = \"gnv0\"\ntype = \"dnat\"\nto = \"{to}\"\nproto = \"tcp\"\ndport = 443\ntarget = \"{target}\"\n"
        );
        let rules = rule("www4", POOL_ADDRESSES[0], "10.0.0.3:7001") + &rule("www6", POOL_ADDRESSES[1], "[fd00::3]:7001");
        let site = NatHosts::new(io, &rules);
        let _server = EchoServer::start(site.c(), 7001, "inside");
        for (outside, pool) in OUTSIDE_HOST.iter().zip([POOL_ADDRESSES[0].to_owned(), format!("[{}]", POOL_ADDRESSES[1])]) {
            let mut talk = EchoConnection::open(&site.outside, &format!("{pool}:443")).unwrap();
            assert_eq!(talk.server, "inside");
            assert_eq!(talk.seen.ip().to_string(), outside.trim_matches(['[', ']']));
            assert!(talk.carries(500_000));
            assert!(EchoConnection::open(&site.outside, &format!("{pool}:7001")).is_err());
        }
        let drops = site.gateway().drops();
        assert!(drops.contains_key("gnv0/egress/no-route"), "{drops:?}");
    }

    /// A pool that is empty drops with its own reason, says how full it is, and gives no port twice.
    fn a_pool_runs_out_and_gives_no_port_twice(io) {
        let site = NatHosts::translating(io, "40000-40007");
        let _reflector = Reflector::start(&site.outside, 7000);
        for (outside, rule) in OUTSIDE_HOST.iter().zip(["out4", "out6"]) {
            assert_eq!(site.ports(rule), (0, 8));
            let to = format!("{outside}:7000");
            let askers: Vec<_> = (0..8).map(|_| Asker::new(site.a(), &to)).collect();
            let seen: BTreeSet<u16> = askers.iter().map(|asker| asker.seen(8).port()).collect();
            assert_eq!(seen, (40_000..40_008).collect());
            assert_eq!(site.ports(rule), (8, 8));
            let before = site.gateway().drops();
            let late = Asker::new(site.a(), &to);
            assert!(late.is_ignored());
            let drops = site.gateway().drops();
            let count = |of: &std::collections::BTreeMap<String, u64>| {
                of.get("gnv0/ingress/nat-exhausted").copied().unwrap_or(0)
            };
            assert_eq!(count(&drops), count(&before) + 1, "{drops:?}");
            // Those that have one keep it, and what they give up is there for others.
            for asker in &askers {
                assert!(seen.contains(&asker.seen(8).port()));
            }
            let given = askers[3].own().port();
            site.gateway().cli(&format!("flow flush dev gnv0 proto udp sport {given}"));
            assert_eq!(site.ports(rule), (7, 8));
            assert!(seen.contains(&late.seen(8).port()));
        }
    }

    /// The server of a connection that ended may be in TIME-WAIT: while there are others, no other host gets its port, and
    /// then the one that was given back first.
    fn a_port_of_a_connection_that_ended_rests(io) {
        let site = NatHosts::translating(io, "40000-40001");
        let _server = EchoServer::start(&site.outside, 7000, "outside");
        for outside in OUTSIDE_HOST {
            let to = format!("{outside}:7000");
            let ports: Vec<u16> = (0..6).map(|turn| {
                let host = if turn % 2 == 0 { site.a() } else { site.c() };
                let port = EchoConnection::open(host, &to).unwrap().seen.port();
                eventually(5, "the connection is closed", || {
                    let flows = site.gateway().json("flow show dev gnv0 proto tcp");
                    let flows = flows.as_array().unwrap();
                    !flows.is_empty() && flows.iter().all(|flow| flow["state"] == "closed")
                });
                site.gateway().cli("flow flush dev gnv0 proto tcp");
                port
            }).collect();
            let (first, second) = (ports[0], ports[1]);
            assert_ne!(first, second);
            assert_eq!(ports, [first, second, first, second, first, second]);
        }
    }
}
