//! Life cycle of a link: created when possible, changed in place, lost, and created again.

use geneved::lab::netns::{self, LabNetns};
use geneved_tests::running_command::RunningCommand;
use geneved_tests::scrape::scrape;
use geneved_tests::world::{
    Duo, TestBackend, TestDaemon, TestWorld, UnderlayFamily, answers, assert_ping, assert_tcp, link,
};
use geneved_tests::{eventually, on_both_backends};

/// Generous for a slow machine.
const SOON: u64 = 20;

/// What `ip -j` says of a device; `Null` where it is not there.
fn device(host: &LabNetns, name: &str) -> serde_json::Value {
    let text = host.ip(&format!("-j address show dev {name}"));
    let json: serde_json::Value =
        serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
    json[0].clone()
}

fn has_address(host: &LabNetns, name: &str, address: &str) -> bool {
    let all = device(host, name)["addr_info"].clone();
    let mut all = all.as_array().into_iter().flatten();
    all.any(|a| a["local"] == address)
}

fn shows_address(daemon: &TestDaemon, address: &str) -> bool {
    let all = daemon.link("gnv0")["addr_info"].clone();
    let mut all = all.as_array().into_iter().flatten();
    all.any(|a| a["local"] == address)
}

fn is_flagged(host: &LabNetns, name: &str, flag: &str) -> bool {
    let flags = device(host, name)["flags"].clone();
    flags
        .as_array()
        .is_some_and(|f| f.iter().any(|f| f == flag))
}

/// Waits until `link show` has this state, and a cause with these words.
fn await_state(daemon: &TestDaemon, name: &str, state: &str, cause: &str) {
    eventually(SOON, &format!("{name} is {state}: {cause}"), || {
        let link = daemon.link(name);
        let why = link["cause"].as_str().unwrap_or_default();
        link["state"] == state && why.contains(cause)
    });
}

on_both_backends! {
    fn a_link_waits_for_its_local_address_and_follows_it(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let (local, remote) = (Duo::underlay(family, 0), Duo::underlay(family, 1));
            let length = if local.is_ipv4() { 24 } else { 64 };
            let nodad = if local.is_ipv4() { "" } else { "nodad" };
            let give = || duo.a.ip(&format!("address add {local}/{length} dev u0 {nodad}")).unwrap();
            let take = || duo.a.ip(&format!("address del {local}/{length} dev u0")).unwrap();
            let other = match family {
                UnderlayFamily::V4 => UnderlayFamily::V6,
                UnderlayFamily::V6 => UnderlayFamily::V4,
            };
            let back = |family, vni| format!("remote = \"{}\"\ndstport = {vni}", Duo::underlay(family, 0));
            let _b = duo.world.daemon(&duo.b, io, "",
                &(link("gnv0", 100, &["10.0.0.2/24"], &back(family, 6081)) + &link("gnv1", 101, &["10.1.0.2/24"], &back(other, 6081))));
            take();
            let metrics = duo.world.directory().join("metrics.sock");
            let a = duo.world.daemon(&duo.a, io, &format!("metrics-socket = \"{}\"", metrics.display()),
                &(link("gnv0", 100, &["10.0.0.1/24"], &format!("local = \"{local}\"\nremote = \"{remote}\""))
                    + &link("gnv1", 101, &["10.1.0.1/24"], &format!("remote = \"{}\"", Duo::underlay(other, 1)))));
            // The one that can work does.
            assert_ping(&duo.ends("10.1.0.2"));
            let cause = format!("its local address {local} is not on this host");
            await_state(&a, "gnv0", "waiting", &cause);
            assert_eq!(a.link("gnv0")["operstate"], "DOWN");
            assert!(is_flagged(&duo.a, "gnv0", "NO-CARRIER"));
            assert_eq!(scrape(&metrics)["geneved_links_waiting"], 1.0);
            assert_eq!(scrape(&metrics)["geneved_link_up{link=\"gnv0\"}"], 0.0);
            // What somebody types is done or refused.
            let refused = a.refused(&format!("link add gnv2 type geneve id 102 local {local} remote {remote}"));
            assert!(refused.contains(&cause), "{refused}");
            for _ in 0..2 {
                give();
                await_state(&a, "gnv0", "running", "");
                eventually(SOON, "it carries", || answers(&duo.ends("10.0.0.2")));
                assert!(!is_flagged(&duo.a, "gnv0", "NO-CARRIER"));
                take();
                await_state(&a, "gnv0", "waiting", &cause);
                assert!(!answers(&duo.ends("10.0.0.2")));
            }
            assert_eq!(a.process().log().matches("\"gnv0\" waits").count(), 3, "it is told once each time");
        }
    }

    fn a_link_waits_for_its_namespace_and_comes_back_with_it(io) {
        let duo = Duo::new();
        let inside = duo.world.name("in");
        let a = duo.world.daemon(&duo.a, io, "",
            &(link("gnv0", 100, &["10.0.0.1/24"], &format!("remote = \"192.0.2.2\"\nnetns = \"{inside}\""))
                + &link("gnv1", 101, &["10.1.0.1/24"], "remote = \"192.0.2.2\"")));
        let _b = duo.world.daemon(&duo.b, io, "",
            &(link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\"") + &link("gnv1", 101, &["10.1.0.2/24"], "remote = \"192.0.2.1\"")));
        assert_ping(&duo.ends("10.1.0.2"));
        await_state(&a, "gnv0", "waiting", &inside);
        assert_eq!(a.link("gnv0")["operstate"], "DOWN");
        let control = duo.world.host("control");
        for _ in 0..2 {
            let guest = duo.world.host("in");
            await_state(&a, "gnv0", "running", "");
            let ends = geneved::traffic::TrafficEnds::new(guest.netns(), duo.b.netns(), "10.0.0.2".parse().unwrap());
            eventually(SOON, "it carries", || answers(&ends));
            assert!(device(&duo.a, "gnv0").is_null());
            // Nothing that is left of the link keeps the namespace, and what else is in it, alive.
            netns::veth((&guest, "e0", &[]), (&control, "e1", &[]), 1500).unwrap();
            drop((guest, ends));
            eventually(SOON, "the namespace is gone", || device(&control, "e1").is_null());
            await_state(&a, "gnv0", "waiting", &inside);
        }
        let log = a.process().log();
        assert!(!log.contains("ERROR"), "{log}");
    }

    fn an_interface_that_is_renamed_or_moved_is_told_of_and_comes_back_or_is_made_anew(io) {
        let duo = Duo::new();
        let other = duo.world.host("other");
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let monitor = RunningCommand::start(&a, "monitor host");
        eventually(SOON, "the monitor watches", || {
            duo.a.ip("address del 10.0.0.1/24 dev gnv0").unwrap();
            eventually(SOON, "10.0.0.1 is back", || has_address(&duo.a, "gnv0", "10.0.0.1"));
            monitor.any(std::time::Duration::from_millis(500))
        });
        let rename = |from: &str, to: &str| {
            for words in [format!("{from} down"), format!("{from} name {to}"), format!("{to} up")] {
                duo.a.ip(&format!("link set {words}")).unwrap();
            }
        };
        rename("gnv0", "stolen0");
        monitor.line(&["link-lost", "gnv0", "renamed or moved"]);
        await_state(&a, "gnv0", "lost", "renamed or moved");
        // It has to be down to be renamed, and whoever forgets that is told.
        for words in ["stolen0 down", "stolen0 name gnv0"] {
            duo.a.ip(&format!("link set {words}")).unwrap();
        }
        monitor.line(&["link-ready", "gnv0", "is down", "geneved link set gnv0 up"]);
        await_state(&a, "gnv0", "running", "");
        a.cli("link set gnv0 up");
        eventually(SOON, "it carries", || answers(&duo.ends("10.0.0.2")));

        duo.a.ip(&format!("link set gnv0 netns {}", other.name())).unwrap();
        monitor.line(&["link-lost", "gnv0", "renamed or moved"]);
        // The log is written by a thread of its own.
        eventually(SOON, "the log tells of both times", || {
            a.process().log().matches("link \"gnv0\" lost").count() == 2
        });
        let told = a.cli("reload");
        assert!(told.contains("replaced link gnv0"), "{told}");
        await_state(&a, "gnv0", "running", "");
        assert!(device(&other, "gnv0").is_null(), "the one that was moved is still there");
        assert_ping(&duo.ends("10.0.0.2"));
        // Nobody has to wait until it is noticed.
        rename("gnv0", "stolen0");
        a.cli("reload");
        assert_ping(&duo.ends("10.0.0.2"));
        assert!(device(&duo.a, "stolen0").is_null());
    }

    fn another_interface_that_gets_the_name_of_a_link_is_never_touched(io) {
        let duo = Duo::new();
        let inside = duo.world.host("in");
        for host in [&duo.a, &inside] {
            let netns = match host.name() == inside.name() {
                true => format!("netns = \"{}\"\n", inside.name()),
                false => String::new(),
            };
            let daemon = duo.world.daemon(&duo.a, io, "",
                &link("gnv0", 100, &["10.0.0.1/24", "fd00::1/64"], &format!("{netns}remote = \"192.0.2.2\"")));
            await_state(&daemon, "gnv0", "running", "");
            // Between two looks of the daemon.
            for words in ["link set gnv0 down", "link set gnv0 name bar0", "link add gnv0 type veth peer name gnv0peer",
                "link set gnv0 mtu 1300", "link set gnv0 up"] {
                host.ip(words).unwrap();
            }
            await_state(&daemon, "gnv0", "lost", "renamed or moved");
            let check = daemon.cli("check");
            assert!(check.contains("gnv0 is lost: the interface was renamed"), "{check}");
            // Whoever changes the link is told, and "reload" makes none beside the other one.
            let refused = daemon.refused("link set gnv0 ttl 7");
            assert!(refused.contains("another interface is named \"gnv0\" now, and is left alone"), "{refused}");
            daemon.cli("reload");
            await_state(&daemon, "gnv0", "waiting", "an interface named \"gnv0\" exists already");
            host.ip("link set gnv0 down").unwrap();
            host.ip("link set gnv0 up").unwrap();
            std::thread::sleep(std::time::Duration::from_secs(3));
            assert_eq!(device(host, "gnv0")["mtu"], 1300);
            for address in ["10.0.0.1", "fd00::1"] {
                assert!(!has_address(host, "gnv0", address), "{address}");
            }
            host.ip("link del gnv0").unwrap();
            await_state(&daemon, "gnv0", "running", "");
            assert!(has_address(host, "gnv0", "10.0.0.1"));
        }
    }

    fn what_others_do_to_an_interface_is_seen_and_set_right(io) {
        for elsewhere in [false, true] {
            let duo = Duo::new();
            let guest = duo.world.host("in");
            let (host, more) = match elsewhere {
                true => (&guest, format!("netns = \"{}\"", guest.name())),
                false => (&duo.a, String::new()),
            };
            let a = duo.world.daemon(&duo.a, io, "",
                &link("gnv0", 100, &["10.0.0.1/24", "fd00::1/64"], &format!("remote = \"192.0.2.2\"\n{more}")));
            let monitor = RunningCommand::start(&a, "monitor host");
            eventually(SOON, "the monitor watches", || {
                host.ip("address del 10.0.0.1/24 dev gnv0").unwrap();
                eventually(SOON, "10.0.0.1 is back", || has_address(host, "gnv0", "10.0.0.1"));
                monitor.any(std::time::Duration::from_millis(500))
            });
            host.ip("link set gnv0 mtu 1290").unwrap();
            monitor.line(&["link-repaired", "gnv0", "MTU 1290 becomes 1464 again"]);
            assert_eq!(a.link("gnv0")["mtu"], 1464);
            // Down stays down, and is shown; up again, with the addresses that the kernel took.
            host.ip("link set gnv0 down").unwrap();
            eventually(SOON, "it is shown as down", || a.link("gnv0")["operstate"] == "DOWN");
            assert!(!shows_address(&a, "fd00::1"));
            host.ip("link set gnv0 up").unwrap();
            eventually(SOON, "fd00::1 is back", || has_address(host, "gnv0", "fd00::1"));
            assert!(shows_address(&a, "fd00::1"));
            // What others gave is theirs, and shown.
            host.ip("address add 10.9.9.9/24 dev gnv0").unwrap();
            assert!(shows_address(&a, "10.9.9.9"));
            a.cli("link set gnv0 ttl 7");
            assert!(has_address(host, "gnv0", "10.9.9.9"));
            // "reload" goes back to what is configured.
            host.ip("link set gnv0 down").unwrap();
            let done = a.cli("reload");
            assert!(done.contains("changed  link gnv0"), "{done}");
            assert!(is_flagged(host, "gnv0", "UP"));
        }
    }

    fn sockets_change_in_place(io) {
        for mode in ["ip", "ethernet"] {
            let duo = Duo::new();
            let [a, _b] = duo.overlay(io, UnderlayFamily::V4, &format!("mode = \"{mode}\""));
            eventually(SOON, "it carries", || answers(&duo.ends("10.0.0.2")));
            duo.a.ip("address add 10.0.0.77/24 dev gnv0").unwrap();
            duo.a.ip("route add 10.77.0.0/16 dev gnv0").unwrap();
            let before = device(&duo.a, "gnv0")["ifindex"].clone();
            for words in [
                "noudpcsum", "udpcsum", "df unset", "df set", "srcport 50000-50010", "local 192.0.2.1", "segmentation off",
                "dstport 6082", "dstport 6081", "udp6zerocsumtx",
            ] {
                a.cli(&format!("link set gnv0 {words}"));
                assert_eq!(device(&duo.a, "gnv0")["ifindex"], before, "{words}");
            }
            assert!(has_address(&duo.a, "gnv0", "10.0.0.77"));
            assert!(duo.a.ip("route show 10.77.0.0/16").unwrap().contains("gnv0"));
            assert_ping(&duo.ends("10.0.0.2"));
            assert_tcp(&duo.ends("10.0.0.2"), 1, 1_000_000);
            // A change that cannot be made changes nothing.
            let refused = a.refused("link set gnv0 local 192.0.2.99");
            assert!(refused.contains("192.0.2.99 is not on this host"), "{refused}");
            assert_ping(&duo.ends("10.0.0.2"));
            if mode == "ethernet" {
                a.cli("link set gnv0 lladdr 02:00:00:00:00:77");
                assert_eq!(device(&duo.a, "gnv0")["ifindex"], before);
                assert_eq!(device(&duo.a, "gnv0")["address"], "02:00:00:00:00:77");
            }
        }
    }

    fn a_lost_link_is_made_anew_by_whoever_asks(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        // The first is in the file, the other one is not.
        a.cli("link add gnv1 type geneve id 101 remote 192.0.2.2 address 10.1.0.1/24");
        for words in ["link set gnv1 up", "link set gnv1 mtu 1400", "link replace gnv1 type geneve id 101 remote 192.0.2.2 address 10.1.0.1/24"] {
            duo.a.ip("link del gnv1").unwrap();
            await_state(&a, "gnv1", "lost", "removed");
            assert!(a.process().log().contains("\"geneved link set gnv1 up\" makes it anew"));
            a.cli(words);
            assert_eq!(a.link("gnv1")["state"], "running", "{words}");
            assert!(has_address(&duo.a, "gnv1", "10.1.0.1"), "{words}");
        }
        // Where it cannot be made, that is said, and it is lost as before.
        duo.a.ip("link del gnv1").unwrap();
        await_state(&a, "gnv1", "lost", "removed");
        duo.a.ip("link add gnv1 type bridge").unwrap();
        let refused = a.refused("link set gnv1 up");
        assert!(refused.contains("an interface named \"gnv1\" exists already"), "{refused}");
        assert_eq!(a.link("gnv1")["state"], "lost");
        duo.a.ip("link del gnv1").unwrap();
        // "reload" makes anew what is in the file, and removes what is not: "--dry-run" says so before.
        duo.a.ip("link del gnv0").unwrap();
        await_state(&a, "gnv0", "lost", "removed");
        a.cli("route add 10.5.0.0/16 dev gnv1 via 192.0.2.2");
        for flag in ["--dry-run", "-n"] {
            let would = a.cli(&format!("reload {flag}"));
            for line in ["replaced link gnv0", "deleted  link gnv1", "deleted  route 10.5.0.0/16 dev gnv1", "nothing was changed"] {
                assert!(would.contains(line), "no \"{line}\" in {would}");
            }
        }
        assert_eq!(a.links(), ["gnv0", "gnv1"]);
        a.cli("reload");
        assert_eq!(a.links(), ["gnv0"]);
        assert_ping(&duo.ends("10.0.0.2"));
    }
}

/// IPv6 ends below an MTU of 1280; its addresses come back with the MTU.
#[test]
fn ipv6_addresses_come_back_with_the_mtu() {
    for mode in ["ip", "ethernet"] {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(
            TestBackend::Uring,
            UnderlayFamily::V4,
            &format!("mode = \"{mode}\""),
        );
        for host in [&duo.a, &duo.b] {
            host.ip("link set gnv0 mtu 1200").unwrap();
        }
        eventually(SOON, "fd00::1 is back", || {
            has_address(&duo.a, "gnv0", "fd00::1") && has_address(&duo.b, "gnv0", "fd00::2")
        });
        eventually(SOON, "IPv6 works", || answers(&duo.ends("fd00::2")));
        assert!(shows_address(&a, "fd00::1"));
    }
}

/// An address that the kernel does not take is told, and keeps neither its link nor the others from what the file says.
#[test]
fn an_address_that_is_refused_keeps_nothing_else_from_working() {
    let duo = Duo::new();
    let links = |ttl: u8| {
        let more = format!("remote = \"192.0.2.2\"\nttl = {ttl}");
        link("gnv0", 100, &["fd00::1/64", "10.0.0.1/24"], &more)
            + &link("gnv1", 101, &["10.1.0.1/24"], &more)
    };
    duo.a.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
    let a = duo.world.daemon(&duo.a, TestBackend::Uring, "", &links(5));
    let back = "remote = \"192.0.2.1\"";
    let there = link("gnv0", 100, &["10.0.0.2/24"], back);
    let _b = duo.world.daemon(&duo.b, TestBackend::Uring, "", &there);
    await_state(&a, "gnv0", "running", "address fd00::1/64");
    assert!(!shows_address(&a, "fd00::1"));
    assert_ping(&duo.ends("10.0.0.2"));
    let refused = a.refused("link add gnv2 type geneve id 102 address fd02::1/64");
    assert!(refused.contains("is IPv6 disabled there"), "{refused}");
    let file = a.process().site().config();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("ttl = 5", "ttl = 6")).unwrap();
    a.cli("reload");
    for name in ["gnv0", "gnv1"] {
        assert_eq!(a.link(name)["linkinfo"]["info_data"]["ttl"], 6, "{name}");
    }
}

/// Somebody who changes an interface again and again is not fought, and both are told.
#[test]
fn whoever_insists_is_left_alone_for_a_while() {
    let duo = Duo::new();
    let [a, _b] = duo.overlay(TestBackend::Uring, UnderlayFamily::V4, "");
    eventually(60, "the daemon gives in", || {
        duo.a.ip("link set gnv0 mtu 1300").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        let cause = a.link("gnv0")["cause"].clone();
        cause
            .as_str()
            .is_some_and(|c| c.contains("again and again"))
    });
    assert_eq!(a.link("gnv0")["mtu"], 1300);
    let repaired = a.process().log().matches("becomes 1464 again").count();
    assert_eq!(repaired, 5);
    // In the end it is right.
    eventually(60, "the MTU is back", || a.link("gnv0")["mtu"] == 1464);
    assert!(a.link("gnv0")["cause"].is_null());
}

/// A port and a name that are taken when the daemon starts are had as soon as they are free.
#[test]
fn a_link_waits_for_its_port_and_its_name() {
    let world = TestWorld::new();
    let (a, guest) = (world.host("a"), world.host("in"));
    guest.ip("link add gnv3 type bridge").unwrap();
    a.ip("link set lo up").unwrap();
    a.ip("link add gnv1 type bridge").unwrap();
    let bind = || std::net::UdpSocket::bind("0.0.0.0:6081").unwrap();
    let socket = a.netns().run(bind).unwrap();
    let links = link("gnv0", 100, &["10.0.0.1/24"], "")
        + &link("gnv1", 101, &["10.1.0.1/24"], "dstport = 6082")
        + &link("gnv2", 102, &["10.2.0.1/24"], "dstport = 6082")
        + &link(
            "gnv3",
            103,
            &["10.3.0.1/24"],
            &format!("dstport = 6082\nnetns = \"{}\"", guest.name()),
        );
    let daemon = world.daemon(&a, TestBackend::Uring, "", &links);
    let holder = format!("(pid {})", std::process::id());
    await_state(
        &daemon,
        "gnv0",
        "waiting",
        "UDP port 6081 is taken by process",
    );
    await_state(&daemon, "gnv0", "waiting", &holder);
    await_state(
        &daemon,
        "gnv1",
        "waiting",
        "an interface named \"gnv1\" exists",
    );
    assert_eq!(daemon.link("gnv2")["state"], "running");
    // A change of another object is not refused for that.
    daemon.cli("link set gnv2 ttl 9");
    drop(socket);
    await_state(&daemon, "gnv0", "running", "");
    a.ip("link del gnv1").unwrap();
    await_state(&daemon, "gnv1", "running", "");
    assert!(has_address(&a, "gnv1", "10.1.0.1"));
    await_state(
        &daemon,
        "gnv3",
        "waiting",
        "an interface named \"gnv3\" exists",
    );
    guest.ip("link del gnv3").unwrap();
    await_state(&daemon, "gnv3", "running", "");
    assert!(has_address(&guest, "gnv3", "10.3.0.1"));
}
