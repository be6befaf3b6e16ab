//! Proxy ARP and ND: Ethernet stations resolve virtual addresses of services and outside addresses of NAT.

use geneved::lab::netns::LabNetns;
use geneved::traffic::TrafficEnds;
use geneved_tests::bridged::Bridged;
use geneved_tests::trio::{EchoConnection, EchoServer};
use geneved_tests::world::{Duo, TestBackend, TestDaemon, answers, assert_tcp};
use geneved_tests::{eventually, on_both_backends};

fn static_nat(name: &str, inside: &str, outside: &str) -> String {
    format!(
        "[[nat]]\nname = \"{name}\"\ndev = \"gnv0\"\ntype = \"static\"\ninside = \"{inside}\"\noutside = \"{outside}\"\n"
    )
}

fn pool(name: &str, from: &str, source: &str) -> String {
    format!(
        "[[nat]]\nname = \"{name}\"\ndev = \"gnv0\"\ntype = \"snat\"\nfrom = \"{from}\"\nsource = \"{source}\"\n"
    )
}

fn service(vip: &str, backend: &str) -> String {
    format!(
        "[[service]]\nname = \"web{}\"\ndev = \"gnv0\"\nvip = \"{vip}\"\nproto = \"tcp\"\nport = 80\ncheck = \"none\"\n\
         backend = [\"{backend}\"]\n",
        if vip.contains(':') { "6" } else { "4" }
    )
}

/// geneved on host a, in mode ip: its TUN knows of no MAC addresses. What asks for them is on host b.
fn speaker(duo: &Duo, kind: &str, more: &str) -> TestDaemon {
    let lines = format!(
        "[[link]]\nname = \"gnv0\"\ntype = \"{kind}\"\ninner = \"ethernet\"\nid = 100\nremote = \"192.0.2.2\"\n\
         address = [\"10.0.0.1/24\", \"fd00::1/64\", \"10.1.0.1/24\", \"fd01::1/64\"]\n{}{}{}{}{more}",
        static_nat("one4", "10.0.0.1", "10.0.0.50"),
        static_nat("one6", "fd00::1", "fd00::50"),
        pool("out4", "10.1.0.0/24", "10.0.0.60"),
        pool("out6", "fd01::/64", "fd00::60"),
    );
    duo.world.daemon(&duo.a, TestBackend::Uring, "", &lines)
}

fn assert_translated(duo: &Duo, daemon: &TestDaemon) {
    for address in ["10.0.0.50", "fd00::50"] {
        let ends = TrafficEnds::new(duo.b.netns(), duo.a.netns(), address.parse().unwrap());
        eventually(5, "the outside address answers", || answers(&ends));
    }
    // From an address that the peer has no route to: it answers the pool's.
    for (source, to) in [("10.1.0.1", "10.0.0.2"), ("fd01::1", "fd00::2")] {
        let ping = ["-c", "2", "-i", "0.2", "-W", "2", "-I", source, to];
        let pinged = duo.a.exec("ping", &ping);
        pinged.unwrap_or_else(|error| panic!("{error}\n{:?}", daemon.drops()));
    }
}

#[test]
fn a_kernel_device_finds_translated_addresses() {
    let duo = Duo::new();
    for command in [
        "link add vx0 type vxlan id 100 local 192.0.2.2 remote 192.0.2.1 dstport 4789",
        "address add 10.0.0.2/24 dev vx0",
        "address add fd00::2/64 dev vx0 nodad",
        "link set vx0 up",
    ] {
        duo.b.ip(command).unwrap();
    }
    let daemon = speaker(&duo, "vxlan", "");
    assert_translated(&duo, &daemon);
}

/// The kernel asks through the TAP of a link in mode ethernet.
#[test]
fn a_link_in_mode_ip_answers_for_services_and_translated_addresses() {
    let duo = Duo::new();
    let services = service("10.0.0.100", "10.1.0.1:7000") + &service("fd00::100", "[fd01::1]:7000");
    let daemon = speaker(&duo, "geneve", &services);
    // On one machine both would have the same address.
    let there = "[[link]]\nname = \"gnv0\"\nlladdr = \"02:00:00:00:00:0b\"\nid = 100\nmode = \"ethernet\"\nremote = \"192.0.2.1\"\n\
        address = [\"10.0.0.2/24\", \"fd00::2/64\"]\n";
    let _other = duo.world.daemon(&duo.b, TestBackend::Uring, "", there);
    assert_translated(&duo, &daemon);
    let _server = EchoServer::start(&duo.a, 7000, "here");
    for vip in ["10.0.0.100:80", "[fd00::100]:80"] {
        let mut talk = EchoConnection::open(&duo.b, vip).unwrap();
        assert!(talk.carries(1_000_000), "{vip}");
    }
}

/// What a station's neighbour cache has of an address.
fn neighbor(station: &LabNetns, address: &str) -> String {
    station.ip(&format!("neighbour show {address}")).unwrap()
}

/// Stations ask their own host for virtual addresses, and the host that translates for outside addresses, over the tunnel.
#[test]
fn stations_find_services_and_translated_addresses() {
    let services = service("10.0.0.100", "10.0.0.3:7000") + &service("fd00::100", "[fd00::3]:7000");
    let nat = static_nat("one4", "10.0.0.1", "10.0.0.50")
        + &static_nat("one6", "fd00::1", "fd00::50")
        + &pool("out4", "10.0.0.2/32", "10.0.0.60-10.0.0.61");
    let a = format!("remote = \"192.0.2.2\"\n{nat}{services}");
    let bridged = Bridged::new(TestBackend::Uring, [&a, "remote = \"192.0.2.1\""]);
    // Backends are found by what they say.
    for address in ["10.0.0.3", "fd00::3"] {
        let ends = bridged.ends(0, 2, address);
        eventually(5, "the backend is known", || answers(&ends));
    }
    let _server = EchoServer::start(&bridged.stations[2], 7000, "there");
    for (vip, address) in [
        ("10.0.0.100:80", "10.0.0.100"),
        ("[fd00::100]:80", "fd00::100"),
    ] {
        let mut talk = EchoConnection::open(&bridged.stations[0], vip).unwrap();
        assert!(talk.carries(1_000_000), "{vip}");
        let seen = neighbor(&bridged.stations[0], address);
        assert!(seen.contains("lladdr 06:00:00:00:00:01"), "{seen}");
    }
    // From the other host, by the address that stands for station 0.
    for address in ["10.0.0.50", "fd00::50"] {
        let ends = bridged.ends(3, 0, address);
        eventually(5, "the outside address answers", || answers(&ends));
        let seen = neighbor(&bridged.stations[3], address);
        assert!(seen.contains("lladdr 06:00:00:00:00:01"), "{seen}");
    }
    let _inside = EchoServer::start(&bridged.stations[0], 7001, "inside");
    for outside in ["10.0.0.50:7001", "[fd00::50]:7001"] {
        let mut talk = EchoConnection::open(&bridged.stations[3], outside).unwrap();
        assert!(talk.carries(1_000_000), "{outside}");
    }
    // Station 1 is translated to a pool's address; whom it talks to finds that.
    let ends = bridged.ends(1, 3, "10.0.0.4");
    eventually(5, "answers to the pool's address arrive", || answers(&ends));
    assert_tcp(&ends, 1, 1_000_000);
    let seen = bridged.stations[3].ip("neighbour show").unwrap();
    assert!(seen.contains("10.0.0.6"), "{seen}");
}

/// A VXLAN device of the kernel on host b with this MAC address, which says nothing by itself.
fn silent_device(duo: &Duo, mac: &str) {
    for command in [
        format!(
            "link add vx0 address {mac} type vxlan id 100 local 192.0.2.2 remote 192.0.2.1 dstport 4789"
        ),
        "address add 10.0.0.2/24 dev vx0".to_owned(),
        "address add fd00::2/64 dev vx0 nodad".to_owned(),
        "link set vx0 up".to_owned(),
    ] {
        duo.b.ip(&command).unwrap();
    }
}

on_both_backends! {
    /// A neighbour that flows go to is asked whether it is still there, and found at its new MAC address.
    fn a_peer_with_a_new_mac_address_is_found(io) {
        let duo = Duo::new();
        let lines = "[[link]]\nname = \"ov0\"\ntype = \"vxlan\"\nid = 100\nremote = \"192.0.2.2\"\n\
            address = [\"10.0.0.1/24\", \"fd00::1/64\"]\n";
        let _daemon = duo.world.daemon(&duo.a, io, "", lines);
        silent_device(&duo, "02:00:00:00:00:b1");
        let both = ["10.0.0.2", "fd00::2"].map(|address| duo.ends(address));
        for ends in &both {
            eventually(10, "the peer answers", || answers(ends));
        }
        duo.b.ip("link del vx0").unwrap();
        silent_device(&duo, "02:00:00:00:00:b2");
        for ends in &both {
            eventually(40, "the peer answers at its new address", || answers(ends));
        }
    }
}

/// The address that the kernel gave to an interface by itself.
fn link_local(host: &LabNetns, device: &str) -> String {
    let mut found = None;
    eventually(10, "the interface has a link-local address", || {
        let shown = host.ip(&format!("-6 address show dev {device} scope link"));
        let shown = shown.unwrap();
        found = shown
            .split_whitespace()
            .find_map(|word| word.strip_suffix("/64").map(str::to_owned));
        found.is_some() && !shown.contains("tentative")
    });
    found.unwrap()
}

#[test]
fn link_local_addresses_of_both_ends_answer() {
    let duo = Duo::new();
    let lines = "[[link]]\nname = \"ov0\"\ntype = \"vxlan\"\nid = 100\nremote = \"192.0.2.2\"\n\
        address = [\"10.0.0.1/24\", \"fd00::1/64\"]\n";
    let _daemon = duo.world.daemon(&duo.a, TestBackend::Uring, "", lines);
    silent_device(&duo, "02:00:00:00:00:b1");
    let (here, there) = (link_local(&duo.a, "ov0"), link_local(&duo.b, "vx0"));
    for (from, device, to) in [(&duo.a, "ov0", there), (&duo.b, "vx0", here)] {
        let to = format!("{to}%{device}");
        eventually(10, &format!("{to} answers"), || {
            from.exec("ping", &["-n", "-q", "-c", "1", "-W", "1", &to])
                .is_ok()
        });
    }
}

/// Who hears that its router is none takes the routes by it away: an answer in a router's name says that it is one.
#[test]
fn a_router_behind_another_host_stays_one() {
    let bridged = Bridged::new(
        TestBackend::Uring,
        ["remote = \"192.0.2.2\"", "remote = \"192.0.2.1\""],
    );
    let router = &bridged.stations[2];
    router.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    let asker = &bridged.stations[0];
    let ends = bridged.ends(0, 2, "fd00::3");
    eventually(10, "the router answers", || answers(&ends));
    let answered = || {
        let consumed = &bridged.daemons[0].link("gnv0")["consumed"]["egress"];
        consumed["neighbor-answered"].as_u64().unwrap_or(0)
    };
    let before = answered();
    eventually(20, "geneved answers for the router", || {
        asker.ip("-6 neighbour flush dev e0").unwrap();
        // What the router said last is fresh then.
        assert!(answers(&ends));
        let seen = neighbor(asker, "fd00::3");
        assert!(seen.contains("router"), "{seen}");
        answered() > before
    });
}
