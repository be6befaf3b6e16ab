//! MTU: the sum, Packet Too Big, the path's MTU, the MSS clamp.

use geneved::lab::net::{self, Host};
use geneved::traffic::{Echo, Ends};
use geneved_tests::packet::Parsed;
use geneved_tests::peer::Peer;
use geneved_tests::world::{Duo, Family, World, assert_tcp, link};
use geneved_tests::{eventually, on_both_backends};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The MTU of an interface, as the kernel has it.
fn kernel_mtu(host: &Host, device: &str) -> u64 {
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

on_both_backends! {
    fn rfc8926_31_the_tunnel_mtu_is_the_underlays_less_the_headers(io) {
        // IP, UDP and Geneve without options: 20 or 40, 8 and 8 bytes.
        for (family, expected) in [(Family::V4, 1464), (Family::V6, 1444)] {
            let duo = Duo::new();
            let [a, _b] = duo.overlay(io, family, "");
            assert_eq!(kernel_mtu(&duo.a, "gnv0"), expected, "{family:?}");
            assert_eq!(a.link("gnv0")["mtu"], expected, "{family:?}");
        }
        let duo = Duo::new();
        let _daemons = duo.overlay(io, Family::V4, "mtu = 1300");
        assert_eq!(kernel_mtu(&duo.a, "gnv0"), 1300);
        assert_tcp(&duo.ends("10.0.0.2"), 1, 1_000_000);
    }

    fn rfc8926_30_the_path_mtu_of_the_underlay_is_learned(io) {
        for six in [false, true] {
            let world = World::new();
            let (a, router, b) = (world.host("a"), world.host("r"), world.host("b"));
            net::veth(
                (&a, "u0", &["192.0.2.1/25", "2001:db8:1::1/64"]),
                (&router, "ra", &["192.0.2.2/25", "2001:db8:1::2/64"]),
                1500,
            ).unwrap();
            net::veth(
                (&router, "rb", &["192.0.2.129/25", "2001:db8:2::1/64"]),
                (&b, "u0", &["192.0.2.130/25", "2001:db8:2::2/64"]),
                1400,
            ).unwrap();
            router.sysctl("ipv4/ip_forward", "1").unwrap();
            router.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
            for (host, v4, v6) in [(&a, "192.0.2.2", "2001:db8:1::2"), (&b, "192.0.2.129", "2001:db8:2::1")] {
                host.ip(&format!("route add default via {v4}")).unwrap();
                host.ip(&format!("-6 route add default via {v6}")).unwrap();
            }
            let [from, to, overhead] = if six {
                ["2001:db8:1::1", "2001:db8:2::2", "56"]
            } else {
                ["192.0.2.1", "192.0.2.130", "36"]
            };
            let learned = 1400 - overhead.parse::<u32>().unwrap();
            let config = |address: [&str; 2], remote| {
                link("gnv0", 100, &address, &format!("remote = \"{remote}\"\ndf = \"set\""))
            };
            let daemon = world.daemon(&a, io, "", &config(["10.0.0.1/24", "fd00::1/64"], to));
            let _b = world.daemon(&b, io, "", &config(["10.0.0.2/24", "fd00::2/64"], from));
            assert_eq!(kernel_mtu(&a, "gnv0"), u64::from(if six { 1444_u32 } else { 1464 }));
            for address in ["10.0.0.2", "fd00::2"] {
                let to = address.parse().unwrap();
                let echo = Echo { count: 1, size: 1380, timeout: Duration::from_millis(300), ..Echo::default() };
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
                let three = Echo { count: 3, size: 1380, ..Echo::default() };
                eventually(5, "what was too big arrives in pieces", || {
                    three.run(a.netns(), to).unwrap().all_answered()
                });
                assert_tcp(&Ends::new(a.netns(), b.netns(), to), 1, 3_000_000);
            }
            // The path becomes wider, and the kernel forgets what it had learned.
            router.ip("link set rb mtu 1500").unwrap();
            b.ip("link set u0 mtu 1500").unwrap();
            a.ip(if six { "-6 route flush cache" } else { "route flush cache" }).unwrap();
            eventually(15, "a path MTU that holds no more is forgotten", || {
                let host = &daemon.json("host show")[0]["remotes"][0];
                assert_eq!(host["address"], to, "{host}");
                host["path_mtu"].as_u64().is_none_or(|mtu| mtu == 1500)
            });
        }
    }

    fn the_mss_of_a_forwarded_connection_is_clamped(io) {
        let duo = Duo::new();
        let tenant = duo.world.host("t");
        net::veth(
            (&tenant, "t0", &["10.5.0.2/24", "fd05::2/64"]),
            (&duo.a, "t1", &["10.5.0.1/24", "fd05::1/64"]),
            1500,
        ).unwrap();
        tenant.ip("route add default via 10.5.0.1").unwrap();
        tenant.ip("-6 route add default via fd05::1").unwrap();
        duo.a.sysctl("ipv4/ip_forward", "1").unwrap();
        duo.a.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        let peer = Peer::on(duo, io, Family::V4, "");
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
