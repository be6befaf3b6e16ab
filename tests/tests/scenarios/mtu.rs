//! MTU: the sum, Packet Too Big, the path's MTU, the MSS clamp.

use geneved::lab::netns::{self, LabNetns};
use geneved::traffic::{EchoRun, TrafficEnds};
use geneved_tests::packet::Parsed;
use geneved_tests::peer::Peer;
use geneved_tests::world::{Duo, TestWorld, UnderlayFamily, answers, assert_tcp, link};
use geneved_tests::{eventually, on_both_backends};
use socket2::SockRef;
use std::net::{Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// The MTU of an interface, as the kernel has it.
fn kernel_mtu(host: &LabNetns, device: &str) -> u64 {
    let text = host.ip(&format!("-j link show {device}")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json[0]["mtu"].as_u64().unwrap()
}

/// The MSS option of a TCP segment.
fn mss(segment: &[u8]) -> Option<u16> {
    let mut options = segment.get(20..usize::from(segment.get(12)? >> 4) * 4)?;
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [kind, length, ..] if *kind != 0 && *length >= 2 => {
                options = options.get(usize::from(*length)..)?;
            }
            _ => return None,
        }
    }
}

/// Hosts a and b with a router between them, whose way to b has this MTU.
fn routed(mtu: u32) -> (TestWorld, [LabNetns; 3]) {
    let world = TestWorld::new();
    let (a, router, b) = (world.host("a"), world.host("r"), world.host("b"));
    netns::veth(
        (&a, "u0", &["192.0.2.1/25", "2001:db8:1::1/64"]),
        (&router, "ra", &["192.0.2.2/25", "2001:db8:1::2/64"]),
        1500,
    )
    .unwrap();
    netns::veth(
        (&router, "rb", &["192.0.2.129/25", "2001:db8:2::1/64"]),
        (&b, "u0", &["192.0.2.130/25", "2001:db8:2::2/64"]),
        mtu,
    )
    .unwrap();
    router.sysctl("ipv4/ip_forward", "1").unwrap();
    router.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    for (host, v4, v6) in [
        (&a, "192.0.2.2", "2001:db8:1::2"),
        (&b, "192.0.2.129", "2001:db8:2::1"),
    ] {
        host.ip(&format!("route add default via {v4}")).unwrap();
        host.ip(&format!("-6 route add default via {v6}")).unwrap();
    }
    (world, [a, router, b])
}

/// The underlay addresses of a and b, and the bytes of a datagram's outer headers.
fn outside(six: bool) -> ([&'static str; 2], u32) {
    match six {
        true => (["2001:db8:1::1", "2001:db8:2::2"], 56),
        false => (["192.0.2.1", "192.0.2.130"], 36),
    }
}

on_both_backends! {
    fn rfc8926_31_the_tunnel_mtu_is_the_underlays_less_the_headers(io) {
        // IP, UDP and Geneve without options: 20 or 40, 8 and 8 bytes.
        for (family, expected) in [(UnderlayFamily::V4, 1464), (UnderlayFamily::V6, 1444)] {
            let duo = Duo::new();
            let [a, _b] = duo.overlay(io, family, "");
            assert_eq!(kernel_mtu(&duo.a, "gnv0"), expected, "{family:?}");
            assert_eq!(a.link("gnv0")["mtu"], expected, "{family:?}");
        }
        let duo = Duo::new();
        let _daemons = duo.overlay(io, UnderlayFamily::V4, "mtu = 1300");
        assert_eq!(kernel_mtu(&duo.a, "gnv0"), 1300);
        assert_tcp(&duo.ends("10.0.0.2"), 1, 1_000_000);
    }

    fn rfc8926_30_the_path_mtu_of_the_underlay_is_learned(io) {
        for six in [false, true] {
            let (world, [a, router, b]) = routed(1400);
            let ([from, to], overhead) = outside(six);
            let learned = 1400 - overhead;
            let config = |address: [&str; 2], remote| {
                link("gnv0", 100, &address, &format!("remote = \"{remote}\"\ndf = \"set\""))
            };
            let daemon = world.daemon(&a, io, "", &config(["10.0.0.1/24", "fd00::1/64"], to));
            let _b = world.daemon(&b, io, "", &config(["10.0.0.2/24", "fd00::2/64"], from));
            assert_eq!(kernel_mtu(&a, "gnv0"), u64::from(if six { 1444_u32 } else { 1464 }));
            for address in ["10.0.0.2", "fd00::2"] {
                let to = address.parse().unwrap();
                let echo = EchoRun { count: 1, size: 1380, timeout: Duration::from_millis(300), ..EchoRun::default() };
                // By Packet Too Big; or the interface has become as narrow as the path, and the
                // inner kernel cuts by itself.
                eventually(5, "the inner sender is told", || {
                    let report = echo.run(a.netns(), to).unwrap();
                    if let Some(mtu) = report.too_big {
                        assert_eq!(mtu, learned, "{address}");
                    }
                    report.too_big.is_some() || kernel_mtu(&a, "gnv0") == u64::from(learned)
                });
                // The inner sender obeys: its packets arrive, in pieces.
                let three = EchoRun { count: 3, size: 1380, ..EchoRun::default() };
                eventually(5, "what was too big arrives in pieces", || {
                    three.run(a.netns(), to).unwrap().all_answered()
                });
                assert_tcp(&TrafficEnds::new(a.netns(), b.netns(), to), 1, 3_000_000);
            }
            let host = &daemon.json("host show")[0]["remotes"][0];
            assert_eq!((&host["address"], &host["path_mtu"]), (&to.into(), &1400.into()), "{host}");
            let by = if six { "2001:db8:1::2" } else { "192.0.2.2" };
            assert_eq!(host["path_mtu_report"]["by"], by, "{host}");
            // The path becomes wider.
            router.ip("link set rb mtu 1500").unwrap();
            b.ip("link set u0 mtu 1500").unwrap();
            daemon.cli("host flush");
            let whole = EchoRun { count: 3, size: 1400, ..EchoRun::default() };
            for address in ["10.0.0.2", "fd00::2"] {
                eventually(5, "long packets pass whole", || {
                    whole.run(a.netns(), address.parse().unwrap()).unwrap().all_answered()
                });
            }
            assert_eq!(daemon.json("host show")[0]["remotes"][0]["path_mtu"], serde_json::Value::Null);
        }
    }

    fn ipv6_lives_on_a_path_that_is_narrower_than_it_may_be(io) {
        for (six, mode) in [(false, "ip"), (false, "ethernet"), (true, "ip")] {
            let (world, [a, router, b]) = routed(1500);
            let ([from, to], _) = outside(six);
            let config = |address: [&str; 2], remote| {
                let more = format!("remote = \"{remote}\"\nmode = \"{mode}\"\ndf = \"set\"");
                link("gnv0", 100, &address, &more)
            };
            let _a = world.daemon(&a, io, "", &config(["10.0.0.1/24", "fd00::1/64"], to));
            let _b = world.daemon(&b, io, "", &config(["10.0.0.2/24", "fd00::2/64"], from));
            let ends = |to: &str| TrafficEnds::new(a.netns(), b.netns(), to.parse().unwrap());
            eventually(5, "the overlay carries", || answers(&ends("fd00::2")));
            router.ip("link set rb mtu 1290").unwrap();
            b.ip("link set u0 mtu 1290").unwrap();
            for address in ["fd00::2", "10.0.0.2"] {
                // The first packets that are too long are lost, and their sender is told.
                let long = EchoRun { count: 3, size: 1400, timeout: Duration::from_millis(300), ..EchoRun::default() };
                eventually(10, "long packets pass", || {
                    long.run(a.netns(), address.parse().unwrap()).unwrap().all_answered()
                });
                assert_tcp(&ends(address), 1, 1_000_000);
            }
            assert!(kernel_mtu(&a, "gnv0") >= 1280 && kernel_mtu(&b, "gnv0") >= 1280);
            // A packet of the smallest MTU, for whose sender nothing narrower exists.
            let least = EchoRun { count: 3, size: 1280 - 48, ..EchoRun::default() };
            assert!(least.run(a.netns(), "fd00::2".parse().unwrap()).unwrap().all_answered());
        }
    }

    fn what_is_too_big_for_a_group_arrives(io) {
        let (world, [a, _router, b]) = routed(1400);
        let ([from, to], _) = outside(false);
        let config = |address, remote| {
            link("gnv0", 100, &[address], &format!("remote = \"{remote}\"\nmtu = 1464"))
        };
        let daemon = world.daemon(&a, io, "", &config("fd00::1/64", to));
        let _b = world.daemon(&b, io, "", &config("fd00::2/64", from));
        let group: Ipv6Addr = "ff05::123".parse().unwrap();
        let open = |port| {
            let socket = UdpSocket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
            let index = nix::net::if_::if_nametoindex("gnv0")?;
            socket.join_multicast_v6(&group, index)?;
            SockRef::from(&socket).set_multicast_if_v6(index)?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            Ok::<_, std::io::Error>(socket)
        };
        let sender = a.netns().run(|| open(0)).unwrap().unwrap();
        let receiver = b.netns().run(|| open(7000)).unwrap().unwrap();
        eventually(5, "a long datagram arrives", || {
            sender.send_to(&[7; 1400], (group, 7000)).unwrap();
            receiver.recv(&mut [0; 2000]).is_ok_and(|n| n == 1400)
        });
        // That the path is narrow was learned with the first one; what follows goes in fragments, and nobody is told
        // of what arrives.
        let host = &daemon.json("host show")[0]["remotes"][0];
        assert_eq!((&host["path_mtu"], &host["path_mtu_report"]["by"]), (&1400.into(), &"192.0.2.2".into()), "{host}");
        assert_eq!(daemon.drops().get("gnv0/egress/too-big"), None);
    }

    fn super_packets_pass_a_narrow_way_behind_the_receiver(io) {
        let duo = Duo::new();
        let (middle, client) = (duo.world.host("m"), duo.world.host("k"));
        netns::veth(
            (&duo.a, "a1", &["10.5.0.1/24", "fd05::1/64"]),
            (&middle, "m0", &["10.5.0.2/24", "fd05::2/64"]),
            1500,
        ).unwrap();
        netns::veth(
            (&middle, "m1", &["10.4.0.1/24", "fd04::1/64"]),
            (&client, "k0", &["10.4.0.7/24", "fd04::7/64"]),
            1500,
        ).unwrap();
        let side = |own: usize, other: usize, more: &str| {
            let remote = format!("remote = \"192.0.2.{other}\"\n{more}");
            link("gnv0", 100, &[&format!("10.0.0.{own}/24"), &format!("fd00::{own}/64")], &remote)
        };
        let behind_a = "allowed = [\"10.4.0.0/24\", \"fd04::/64\"]\n";
        let _a = duo.world.daemon(&duo.a, io, "", &side(1, 2, behind_a));
        let _b = duo.world.daemon(&duo.b, io, "", &side(2, 1, ""));
        for (family, through, net, address) in [
            ("-4", "10.5.0", "10.4.0.0/24", "10.4.0.7"),
            ("-6", "fd05:", "fd04::/64", "fd04::7"),
        ] {
            let dot = if family == "-4" { "." } else { ":" };
            let ends = TrafficEnds::new(duo.b.netns(), client.netns(), address.parse().unwrap());
            duo.b.ip(&format!("{family} route add {net} dev gnv0")).unwrap();
            middle.ip(&format!("{family} route add default via {through}{dot}1")).unwrap();
            let gateway = net.replace("0/24", "1").replace("/64", "1");
            client.ip(&format!("{family} route add default via {gateway}")).unwrap();
            for host in [&duo.a, &middle] {
                host.sysctl("ipv4/ip_forward", "1").unwrap();
                host.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
            }
            duo.a.ip(&format!("{family} route add {net} via {through}{dot}2")).unwrap();
            eventually(5, "the client is reached", || answers(&ends));
            assert_tcp(&ends, 1, 5_000_000);
            duo.a.ip(&format!("{family} route change {net} via {through}{dot}2 mtu 1300")).unwrap();
            assert_tcp(&ends, 1, 20_000_000);
            assert_tcp(&ends, 1, 20_000_000);
        }
    }

    fn the_mss_of_a_forwarded_connection_is_clamped(io) {
        let duo = Duo::new();
        let tenant = duo.world.host("t");
        netns::veth(
            (&tenant, "t0", &["10.5.0.2/24", "fd05::2/64"]),
            (&duo.a, "t1", &["10.5.0.1/24", "fd05::1/64"]),
            1500,
        ).unwrap();
        tenant.ip("route add default via 10.5.0.1").unwrap();
        tenant.ip("-6 route add default via fd05::1").unwrap();
        duo.a.sysctl("ipv4/ip_forward", "1").unwrap();
        duo.a.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        let peer = Peer::on(duo, io, UnderlayFamily::V4, "");
        for (to, expected) in [("10.0.0.2", 1464 - 40), ("fd00::2", 1464 - 60)] {
            let to = SocketAddr::new(to.parse().unwrap(), 80);
            let dial = || TcpStream::connect_timeout(&to, Duration::from_millis(100)).is_err();
            assert!(tenant.netns().run(dial).unwrap(), "nobody answers");
            let mut buffer = [0; 2000];
            let clamped = loop {
                let n = peer.socket.recv(&mut buffer).expect("the SYN arrives");
                let Some(packet) = Parsed::new(&buffer[8..n]) else { continue };
                if packet.protocol == 6 && packet.to == to.ip() {
                    let whole = geneved_tests::packet::pseudo(packet.from, packet.to, 6, packet.segment.len());
                    assert_eq!(geneved_tests::packet::sum(whole, packet.segment), 0xffff, "the checksum");
                    break mss(packet.segment).expect("a SYN has an MSS");
                }
            };
            assert_eq!(clamped, expected, "{to}");
        }
    }
}
