//! Gateways, services, proxied endpoints and classes, by the real binary between three hosts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use geneved::lab::netns::LabNetns;
use geneved::traffic::{EchoRun, SendAmount, TrafficEnds, UdpBurst};
use geneved_tests::trio::{EchoConnection, EchoServer, Trio, endpoint};
use geneved_tests::world::{Duo, UnderlayFamily, assert_ping, link};
use geneved_tests::{eventually, on_both_backends};

on_both_backends! {
    /// Two VPCs with equal addresses reach one outside through one gateway at once, each by an address of its own.
    fn a_gateway_translates_two_vpcs_with_equal_addresses(io) {
        let trio = Trio::new();
        let [a, b, outside] = &trio.hosts;
        let other = trio.world.host("other");
        let route = |link: &str| ["203.0.113.0/24", "2001:db8:9::/64"].map(|prefix| format!(
            "[[route]]\nprefix = \"{prefix}\"\ndev = \"{link}\"\nvia = [\"192.0.2.2\"]\ntype = \"gateway\"\n"
        )).concat();
        let own = ["10.0.0.1/24", "fd00::1/64"];
        let inside = link("gnv1", 100, &own, "") + &route("gnv1")
            + &link("gnv2", 200, &own, &format!("netns = \"{}\"", other.name())) + &route("gnv2");
        let snat = |link: &str, number: usize| {
            let rule = |name: &str, inside: &str, from: &str, to: &str| endpoint(link, inside, Some("192.0.2.1"), "")
                + &format!("[[nat]]\nname = \"{name}\"\ndev = \"{link}\"\ntype = \"snat\"\nfrom = \"{from}\"\nsource = \"{to}{number}\"\n");
            rule("out4", "10.0.0.1", "10.0.0.0/24", "198.51.100.") + &rule("out6", "fd00::1", "fd00::/64", "2001:db8:5::")
        };
        let gateway = link("gnv1", 100, &[], "") + &snat("gnv1", 1)
            + &link("gnv2", 200, &[], "") + &snat("gnv2", 2);
        let _daemons = [
            trio.world.daemon(a, io, "", &inside),
            trio.world.daemon(b, io, "", &gateway),
        ];
        b.sysctl("ipv4/ip_forward", "1").unwrap();
        b.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        for device in ["all", "gnv1", "gnv2"] {
            b.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0").unwrap();
        }
        let all = |host: &LabNetns, commands: &[&str]| commands.iter().for_each(|c| drop(host.ip(c).unwrap()));
        all(b, &[
            "address add 203.0.113.1/24 dev u0",
            "address add 2001:db8:9::1/64 dev u0 nodad",
            "route add 198.51.100.1 dev gnv1",
            "route add 198.51.100.2 dev gnv2",
            "route add 2001:db8:5::1 dev gnv1",
            "route add 2001:db8:5::2 dev gnv2",
        ]);
        all(outside, &[
            "address add 203.0.113.9/24 dev u0",
            "address add 2001:db8:9::9/64 dev u0 nodad",
            "route add 198.51.100.0/24 via 203.0.113.1",
            "route add 2001:db8:5::/64 via 2001:db8:9::1",
        ]);
        for (host, dev) in [(a, "gnv1"), (&other, "gnv2")] {
            for prefix in ["203.0.113.0/24", "2001:db8:9::/64"] {
                host.ip(&format!("route add {prefix} dev {dev}")).unwrap();
            }
        }
        let _server = EchoServer::start(outside, 7000, "outside");
        for (to, seen) in [("203.0.113.9", "198.51.100."), ("2001:db8:9::9", "2001:db8:5::")] {
            for host in [a, &other] {
                let ends = TrafficEnds::new(host.netns(), outside.netns(), to.parse().unwrap());
                let one = EchoRun { count: 1, ..EchoRun::default() };
                eventually(10, "neighbours are found", || {
                    one.run(&ends.client, ends.address).is_ok_and(|report| report.all_answered())
                });
                assert_ping(&ends);
            }
            let server = SocketAddr::new(to.parse().unwrap(), 7000).to_string();
            let mut first = EchoConnection::open(a, &server).unwrap();
            let mut second = EchoConnection::open(&other, &server).unwrap();
            assert_eq!(first.own(), second.own());
            assert_eq!(first.seen.ip().to_string(), format!("{seen}1"));
            assert_eq!(second.seen.ip().to_string(), format!("{seen}2"));
            assert!(first.carries(2_000_000) && second.carries(2_000_000));
        }
    }

    /// The balancer chooses, the backend's host answers the client directly, and a drained backend keeps what it has.
    fn a_service_spreads_keeps_and_drains(io) {
        let trio = Trio::new();
        let [a, b, c] = &trio.hosts;
        let net = |own: usize| link("gnv0", 100, &[&format!("10.0.0.{own}/24")], "");
        let at = |address: &str, host: usize| endpoint("gnv0", address, Some(&format!("192.0.2.{host}")), "");
        let vip = at("10.0.0.100", 2);
        let service = "[[service]]\nname = \"web\"\ndev = \"gnv0\"\nvip = \"10.0.0.100\"\nproto = \"tcp\"\nport = 80\n\
            check = \"none\"\nbackend = [\"10.0.0.2:7000\", \"10.0.0.3:7000\"]\n";
        let tables = [
            net(1) + &at("10.0.0.3", 3) + &at("10.0.0.2", 2) + &vip,
            net(2) + &at("10.0.0.1", 1) + &at("10.0.0.3", 3) + service,
            net(3) + &at("10.0.0.1", 1) + &vip,
        ];
        let daemons = trio.daemons(io, "", [&tables[0], &tables[1], &tables[2]]);
        let _servers = [EchoServer::start(b, 7000, "b"), EchoServer::start(c, 7000, "c")];
        let mut talks: Vec<_> = (0..24).map(|_| EchoConnection::open(a, "10.0.0.100:80").unwrap()).collect();
        let of = |talks: &[EchoConnection], name: &str| talks.iter().filter(|t| t.server == name).count();
        assert!(of(&talks, "b") > 2 && of(&talks, "c") > 2, "{} on b", of(&talks, "b"));
        daemons[1].cli("service set web dev gnv0 backend 10.0.0.2:7000 backend 10.0.0.3:7000 weight 0");
        for talk in &mut talks {
            assert!(talk.echoes(Duration::from_secs(3)), "a flow to {} ended", talk.server);
        }
        let new: Vec<_> = (0..12).map(|_| EchoConnection::open(a, "10.0.0.100:80").unwrap()).collect();
        assert_eq!(of(&new, "c"), 0, "a drained backend gets new flows");
        let far = talks.iter_mut().find(|t| t.server == "c").unwrap();
        assert!(far.carries(1_000_000), "relayed packets that are too big for the detour");
    }

    /// All connections of one client go to one backend, and to another one only when that is drained.
    fn clients_stay_with_their_backend(io) {
        let trio = Trio::new();
        let [a, b, c] = &trio.hosts;
        let net = |own: usize| link("gnv0", 100, &[&format!("10.0.0.{own}/24")], "");
        let at = |address: &str, host: usize| endpoint("gnv0", address, Some(&format!("192.0.2.{host}")), "");
        let clients = "[[route]]\nprefix = \"10.0.0.16/28\"\ndev = \"gnv0\"\nvia = [\"192.0.2.1\"]\n";
        let vip = at("10.0.0.100", 2);
        let service = "[[service]]\nname = \"web\"\ndev = \"gnv0\"\nvip = \"10.0.0.100\"\nproto = \"tcp\"\nport = 80\n\
            check = \"none\"\naffinity = \"client\"\nbackend = [\"10.0.0.2:7000\", \"10.0.0.3:7000\"]\n";
        let tables = [
            net(1) + &at("10.0.0.3", 3) + &at("10.0.0.2", 2) + &vip,
            net(2) + &at("10.0.0.3", 3) + clients + service,
            net(3) + &at("10.0.0.2", 2) + clients + &vip,
        ];
        let daemons = trio.daemons(io, "", [&tables[0], &tables[1], &tables[2]]);
        let _servers = [EchoServer::start(b, 7000, "b"), EchoServer::start(c, 7000, "c")];
        let calls = |client: usize, count: usize| -> Vec<EchoConnection> {
            a.ip(&format!("route replace 10.0.0.100 dev gnv0 src 10.0.0.{client}")).unwrap();
            (0..count).map(|_| EchoConnection::open(a, "10.0.0.100:80").unwrap()).collect()
        };
        let mut all = Vec::new();
        for client in 16..28 {
            a.ip(&format!("address add 10.0.0.{client}/32 dev gnv0")).unwrap();
            let talks = calls(client, 4);
            assert!(talks.iter().all(|t| t.server == talks[0].server && t.seen.ip() == t.own()));
            all.extend(talks);
        }
        let of = |talks: &[EchoConnection], name: &str| talks.iter().filter(|t| t.server == name).count();
        assert!(of(&all, "b") >= 4 && of(&all, "c") >= 4, "{} on b", of(&all, "b"));
        daemons[1].cli("service set web dev gnv0 backend 10.0.0.2:7000 weight 0 backend 10.0.0.3:7000");
        for client in 16..28 {
            let talks = calls(client, 2);
            assert_eq!(of(&talks, "c"), 2, "a drained backend gets new connections");
        }
        for talk in &mut all {
            assert!(talk.echoes(Duration::from_secs(3)), "a connection to {} ended", talk.server);
        }
    }

    /// One VPC offers an endpoint to another without a route between them.
    fn a_proxied_endpoint_joins_two_vpcs(io) {
        let trio = Trio::new();
        let [a, _, c] = &trio.hosts;
        let red = |own: usize| link("red", 100, &[&format!("10.0.0.{own}/24")], "");
        let blue = |own: usize| link("blue", 200, &[&format!("172.16.0.{own}/24")], "");
        let tables = [
            red(1) + &endpoint("red", "10.0.0.50", Some("192.0.2.2"), "type = \"proxied\""),
            red(2) + &endpoint("red", "10.0.0.1", Some("192.0.2.1"), "")
                + &blue(2) + &endpoint("blue", "172.16.0.3", Some("192.0.2.3"), "")
                + &endpoint("red", "10.0.0.50", None, "type = \"proxied\"\ntarget = \"172.16.0.3@blue\""),
            blue(3) + &endpoint("blue", "172.16.0.2", Some("192.0.2.2"), ""),
        ];
        let daemons = trio.daemons(io, "", [&tables[0], &tables[1], &tables[2]]);
        let _server = EchoServer::start(c, 7000, "target");
        let mut talk = EchoConnection::open(a, "10.0.0.50:7000").unwrap();
        assert_eq!(talk.seen.ip().to_string(), "172.16.0.2", "the stand-in's own address");
        assert!(talk.carries(2_000_000));
        let flow = &daemons[1].json("flow show dev red")[0];
        assert!(flow.to_string().contains("172.16.0.3"), "{flow}");
        // Without the type the packet is no business of the proxy's.
        daemons[0].cli("endpoint set 10.0.0.50 dev red type simple");
        assert!(EchoConnection::open(a, "10.0.0.50:7000").is_err());
    }

    /// A class is held to its rate while another runs free.
    fn a_class_is_held_to_its_rate(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        // The burst outlasts the 40 ms for which a busy machine may not let the daemon run.
        a.cli("qos add slow dev gnv0 id 1 rate 100mbit burst 512k dscp 10");
        a.cli("policy add slow dev gnv0 egress proto udp allow class slow");
        let burst = UdpBurst {
            size: 1200,
            amount: SendAmount::For(Duration::from_secs(3)),
            pace: Some(20_000.0),
            verify: false,
            ..UdpBurst::default()
        };
        let start = Instant::now();
        burst.run(&duo.ends("10.0.0.2")).unwrap();
        let seconds = start.elapsed().as_secs_f64().min(3.3);
        let class = &a.json("qos show dev gnv0")[0];
        let passed = class["passed_bytes"].as_f64().unwrap();
        let dropped = class["dropped_bytes"].as_f64().unwrap();
        // 20,000 packets a second of 1,228 bytes are 196 Mbit/s; a slow machine may send fewer, but never too many pass.
        assert!(passed <= 12.5e6 * seconds * 1.05 + 524_288.0, "{passed} bytes in {seconds} s");
        if passed + dropped > 12.5e6 * 3.0 * 1.2 {
            assert!(passed >= 12.5e6 * 3.0 * 0.95, "{passed} bytes in 3 s");
        }
        assert_ping(&duo.ends("10.0.0.2"));
    }
}
