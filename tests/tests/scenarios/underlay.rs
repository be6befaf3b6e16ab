//! Underlay changes under a running daemon: addresses, routes, hosts that go and come back.

use geneved::lab::netns::{self, LabNetns};
use geneved::traffic::{EchoRun, TrafficEnds};
use geneved_tests::world::{Duo, TestDaemon, TestWorld, UnderlayFamily, answers, assert_tcp, link};
use geneved_tests::{eventually, on_both_backends};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The MTU of an interface, and how many packets the kernel has given to it.
fn kernel_link(host: &LabNetns, device: &str) -> (u64, u64) {
    let text = host.ip(&format!("-s -j link show {device}")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let packets = json[0]["stats64"]["tx"]["packets"].as_u64();
    (json[0]["mtu"].as_u64().unwrap(), packets.unwrap())
}

/// What the daemon says of the one host that it knows.
fn remote(daemon: &TestDaemon) -> serde_json::Value {
    daemon.json("host show")[0]["remotes"][0].clone()
}

/// Why nothing arrives at it; empty where nothing is known of that.
fn unreachable(daemon: &TestDaemon) -> String {
    let why = remote(daemon)["unreachable"].as_str().map(str::to_owned);
    why.unwrap_or_default()
}

/// A ping that is lost soon.
fn knock(ends: &TrafficEnds, count: u16) {
    let echo = EchoRun {
        count,
        interval: Duration::from_millis(20),
        timeout: Duration::from_millis(50),
        ..EchoRun::default()
    };
    let _ = echo.run(&ends.client, ends.address);
}

fn host_route(address: IpAddr) -> String {
    let v6 = if address.is_ipv6() { "-6 " } else { "" };
    format!("{v6}route {{}} {address} dev gnv0")
}

on_both_backends! {
    fn what_is_sent_follows_the_hosts_address(io) {
        for (family, first, second) in [
            (UnderlayFamily::V4, "192.0.2.1/24", "192.0.2.11/24"),
            (UnderlayFamily::V6, "2001:db8::1/64", "2001:db8::11/64"),
        ] {
            let duo = Duo::new();
            let more = format!("remote = \"{}\"", Duo::underlay(family, 1));
            let _a = duo.world.daemon(&duo.a, io, "", &link("gnv0", 100, &["10.0.0.1/24"], &more));
            let b = duo.world.daemon(&duo.b, io, "", &link("gnv0", 100, &["10.0.0.2/24"], ""));
            let via = |verb: &str, address: &str| {
                let host = address.split('/').next().unwrap();
                b.cli(&format!("route {verb} 10.0.0.1/32 dev gnv0 via {host}"));
            };
            via("add", first);
            let ends = duo.ends("10.0.0.2");
            assert_tcp(&ends, 1, 20_000_000);
            let nodad = if family == UnderlayFamily::V6 { " nodad" } else { "" };
            duo.a.ip(&format!("address del {first} dev u0")).unwrap();
            duo.a.ip(&format!("address add {second} dev u0{nodad}")).unwrap();
            via("replace", second);
            eventually(5, "pings come from the new address", || answers(&ends));
            assert_tcp(&ends, 1, 20_000_000);
        }
    }

    fn a_route_into_the_link_stops_what_is_for_the_host_and_nothing_else(io) {
        let ethernet = "mode = \"ethernet\"";
        for (family, more) in [(UnderlayFamily::V4, ""), (UnderlayFamily::V6, ""), (UnderlayFamily::V4, ethernet)] {
            let duo = Duo::new();
            let [a, _b] = duo.overlay(io, family, more);
            let ends = duo.ends("10.0.0.2");
            eventually(5, "the overlay carries", || answers(&ends));
            let route = host_route(Duo::underlay(family, 1));
            let (mtu, before) = kernel_link(&duo.a, "gnv0");
            duo.a.ip(&route.replace("{}", "add")).unwrap();
            knock(&ends, 20);
            eventually(5, "it is said of the host", || {
                unreachable(&a).contains("the underlay's route to it leads into the link itself")
            });
            let cause = a.link("gnv0")["cause"].as_str().unwrap_or("").to_owned();
            assert!(cause.starts_with("nothing is sent to host"), "{cause}");
            knock(&ends, 20);
            let (during, after) = kernel_link(&duo.a, "gnv0");
            // 40 pings, each of them wrapped once before the route is known, and what the kernel says by itself.
            assert!(after - before < 100, "{} packets came of 40", after - before);
            assert_eq!(during, mtu);
            assert!(a.drops().contains_key("gnv0/egress/underlay-loop"), "{:?}", a.drops());
            duo.a.ip(&route.replace("{}", "del")).unwrap();
            eventually(5, "it carries again", || answers(&ends));
            assert_eq!(unreachable(&a), "");
            assert_eq!(a.link("gnv0")["cause"], serde_json::Value::Null);
            let said = a.process().log().matches("nothing is sent to host").count();
            assert_eq!(said, 1, "once is enough");
            assert_tcp(&ends, 1, 3_000_000);
        }
    }

    fn links_that_lead_to_each_other_are_a_loop_and_nested_ones_are_none(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        a.cli("link add gnv1 type geneve id 101 remote 10.0.0.2 address 10.1.0.1/24");
        let remotes = a.json("host show")[0]["remotes"].clone();
        let faults = remotes.as_array().unwrap().iter().filter(|r| r["unreachable"].is_string());
        assert_eq!(faults.count(), 0, "{remotes}");
        duo.a.ip("route add 192.0.2.2 dev gnv1").unwrap();
        eventually(5, "both links say so", || {
            ["gnv0", "gnv1"].iter().all(|name| a.link(name)["cause"].is_string())
        });
        let cause = a.link("gnv0")["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains("leads back into the link, through \"gnv1\""), "{cause}");
        duo.a.ip("route del 192.0.2.2 dev gnv1").unwrap();
        eventually(5, "it carries again", || answers(&duo.ends("10.0.0.2")));
    }

    fn hosts_that_would_lead_back_are_refused(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let before = a.cli("save");
        for (words, why) in [
            ("route add 10.9.0.0/24 dev gnv0 via 10.0.0.7", "leads into the link itself"),
            ("route add fd09::/64 dev gnv0 via fd00::7", "leads into the link itself"),
            ("endpoint add 10.0.0.8 dev gnv0 host 10.0.0.7", "leads into the link itself"),
            ("route add 10.9.0.0/24 dev gnv0 via 192.0.2.1", "an address of this host itself"),
            ("link add gnv2 type geneve id 102 remote 192.0.2.1", "an address of this host itself"),
            (
                "link add gnv2 type geneve id 102 remote 10.50.0.9 address 10.50.0.1/24",
                "leads into the link itself",
            ),
        ] {
            let refused = a.refused(words);
            assert!(refused.contains(why), "{words}: {refused}");
            assert!(refused.contains("addresses of other machines in the underlay"), "{refused}");
        }
        assert_eq!(a.cli("save"), before);
        assert!(duo.a.ip("link show gnv2").is_err(), "nothing was made");
    }

    fn a_learned_path_mtu_is_that_of_one_host(io) {
        for six in [false, true] {
            let world = TestWorld::new();
            let [a, r, b, c] = ["a", "r", "b", "c"].map(|name| world.host(name));
            for (host, device, net) in [(&a, "ra", 1), (&b, "rb", 2), (&c, "rc", 3)] {
                let addresses = |n: u32| [format!("198.51.{net}.{n}/24"), format!("2001:db8:{net}::{n}/64")];
                let ([h4, h6], [r4, r6]) = (addresses(1), addresses(254));
                netns::veth((host, "u0", &[&h4, &h6]), (&r, device, &[&r4, &r6]), 1500).unwrap();
                host.ip(&format!("route add default via 198.51.{net}.254")).unwrap();
                host.ip(&format!("-6 route add default via 2001:db8:{net}::254")).unwrap();
            }
            r.sysctl("ipv4/ip_forward", "1").unwrap();
            r.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
            let via = |net: u32| match six {
                false => format!("198.51.{net}.1"),
                true => format!("2001:db8:{net}::1"),
            };
            let routes: String = [2, 3].map(|net| {
                format!("[[route]]\nprefix = \"10.0.0.{net}\"\ndev = \"gnv0\"\nvia = [\"{}\"]\n", via(net))
            }).concat();
            let config = link("gnv0", 100, &["10.0.0.1/24"], "") + &routes;
            let daemon = world.daemon(&a, io, "", &config);
            let more = format!("remote = \"{}\"", via(1));
            let _b = world.daemon(&b, io, "", &link("gnv0", 100, &["10.0.0.2/24"], &more));
            let full = if six { 1444 } else { 1464 };
            assert_eq!(kernel_link(&a, "gnv0").0, full);
            let narrow = match six {
                false => "route add 198.51.2.1/32 dev rb mtu 1300",
                true => "-6 route add 2001:db8:2::1/128 dev rb mtu 1300",
            };
            r.ip(narrow).unwrap();
            let to = "10.0.0.2".parse().unwrap();
            let large = EchoRun { count: 1, size: 1350, timeout: Duration::from_millis(300), ..EchoRun::default() };
            let known = || {
                let remotes = daemon.json("host show")[0]["remotes"].clone();
                let host = remotes.as_array().unwrap().iter().find(|r| r["address"] == via(2).as_str());
                host.and_then(|host| host["path_mtu"].as_u64())
            };
            eventually(10, "the path MTU is learned", || {
                let _ = large.run(a.netns(), to);
                known() == Some(1300)
            });
            // All ways are looked at again, and the route to the other host says something.
            let limit = match six {
                false => "route replace 198.51.3.0/24 via 198.51.1.254 mtu 1450",
                true => "-6 route replace 2001:db8:3::/64 via 2001:db8:1::254 mtu 1450",
            };
            a.ip("link add dummy9 type veth peer name dummy8").unwrap();
            a.ip("link set dummy9 up").unwrap();
            a.ip(limit).unwrap();
            eventually(5, "the link follows the route, not the exception", || {
                kernel_link(&a, "gnv0").0 == full - 50
            });
            assert!(known().is_some());
            a.ip(&limit.replace("replace", "del")).unwrap();
            eventually(5, "and the route that is there now", || kernel_link(&a, "gnv0").0 == full);
        }
    }

    fn churn_without_end_does_not_hold_up_what_counts(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        duo.a.ip("link add v9 type veth peer name v8").unwrap();
        duo.a.ip("link set v9 up").unwrap();
        let on = AtomicBool::new(true);
        thread::scope(|scope| {
            scope.spawn(|| {
                while on.load(Ordering::Relaxed) {
                    duo.a.ip("address add 203.0.113.7/32 dev v9").unwrap();
                    thread::sleep(Duration::from_millis(20));
                    duo.a.ip("address del 203.0.113.7/32 dev v9").unwrap();
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let followed = std::panic::catch_unwind(|| {
                duo.a.ip("route replace 192.0.2.2 dev u0 mtu 1400").unwrap();
                eventually(10, "the MTU follows the route", || kernel_link(&duo.a, "gnv0").0 == 1364);
            });
            on.store(false, Ordering::Relaxed);
            followed.unwrap();
        });
        assert_eq!(a.link("gnv0")["mtu_sum"]["underlay"], 1400);
    }

    fn without_a_route_the_mtu_stays_and_the_host_says_so(io) {
        let duo = Duo::with_mtu(9000);
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        assert_eq!(kernel_link(&duo.a, "gnv0").0, 8964);
        duo.a.ip("route add unreachable 192.0.2.2/32").unwrap();
        eventually(5, "it is said of the host", || unreachable(&a).contains("no route"));
        assert_eq!(kernel_link(&duo.a, "gnv0").0, 8964);
        duo.a.ip("route del unreachable 192.0.2.2/32").unwrap();
        eventually(5, "it carries again", || answers(&duo.ends("10.0.0.2")));
        eventually(5, "and nothing is said", || unreachable(&a).is_empty());
        assert_eq!(kernel_link(&duo.a, "gnv0").0, 8964);
    }

    fn a_host_is_unreachable_while_it_is_away_and_no_longer(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let [a, b] = duo.overlay(io, family, "");
            let ends = duo.ends("10.0.0.2");
            eventually(5, "the overlay carries", || answers(&ends));
            b.kill();
            eventually(10, "it is said that no program listens", || {
                knock(&ends, 5);
                unreachable(&a).contains("no program listens")
            });
            let more = format!("remote = \"{}\"", Duo::underlay(family, 0));
            let config = link("gnv0", 100, &["10.0.0.2/24", "fd00::2/64"], &more);
            let _b = duo.world.daemon(&duo.b, io, "", &config);
            eventually(5, "the overlay carries again", || answers(&ends));
            // Whoever answers is there: at once, and as long as it does. A worker notes it once a second.
            eventually(5, "the host is not unreachable", || {
                assert!(answers(&ends));
                unreachable(&a).is_empty()
            });
            for _ in 0..10 {
                assert!(answers(&ends));
                assert_eq!(unreachable(&a), "");
            }
            eventually(5, "it is said, too", || a.process().log().contains("is heard again"));
        }
    }

    fn a_host_that_nobody_finds_is_said_to_be_away_within_seconds(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let ends = duo.ends("10.0.0.2");
        eventually(5, "the overlay carries", || answers(&ends));
        duo.b.ip("address del 192.0.2.2/24 dev u0").unwrap();
        duo.a.ip("neigh flush dev u0").unwrap();
        eventually(15, "it is said that no such host answers", || {
            knock(&ends, 5);
            unreachable(&a).contains("no such host answers")
        });
        duo.b.ip("address add 192.0.2.2/24 dev u0").unwrap();
        eventually(15, "the overlay carries again", || answers(&ends));
        eventually(5, "the host is not unreachable", || {
            answers(&ends) && unreachable(&a).is_empty()
        });
    }

    fn a_daemon_that_was_killed_under_load_starts_again_at_once(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let ends = duo.ends("10.0.0.2");
        let config = link("gnv0", 100, &["10.0.0.1/24"], "remote = \"192.0.2.2\"");
        let mut daemon = Some(a);
        for _ in 0..5 {
            thread::scope(|scope| {
                let load = scope.spawn(|| knock(&ends, 20));
                thread::sleep(Duration::from_millis(100));
                daemon.take().unwrap().kill();
                daemon = Some(duo.world.daemon(&duo.a, io, "", &config));
                load.join().unwrap();
            });
            eventually(5, "the overlay carries again", || answers(&ends));
        }
    }
}
