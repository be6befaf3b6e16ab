//! Segmentation of super-packets: by geneved into datagrams, by geneved into trains, or by the kernel. The result is
//! the same.

use geneved::lab::netns::LabNetns;
use geneved_tests::packet::{Parsed, RawGeneve, udp};
use geneved_tests::peer::Peer;
use geneved_tests::trio::{EchoConnection, EchoServer};
use geneved_tests::world::{
    Duo, TestBackend, UnderlayFamily, assert_ping, assert_tcp, assert_udp, link,
};
use geneved_tests::{eventually, on_both_backends};
use nix::sys::socket::{setsockopt, sockopt};
use std::net::IpAddr;
use std::time::Duration;

/// What the kernel counted on the device for tunnel GSO; `None` where there is no such device.
fn handed_over(host: &LabNetns) -> Option<u64> {
    let text = host.ip("-json -statistics link show gnvgso0").ok()?;
    let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64()
}

/// The link of one side, over IPv4.
fn side(side: usize) -> String {
    let remote = format!(
        "remote = \"{}\"",
        Duo::underlay(UnderlayFamily::V4, 1 - side)
    );
    link("gnv0", 100, &[&format!("10.0.0.{}/24", side + 1)], &remote)
}

/// Runs traffic with `segmentation` on both sides, and returns what host a handed over.
fn carry(io: TestBackend, segmentation: &str, duo: &Duo) -> Option<u64> {
    let daemon = format!("segmentation = \"{segmentation}\"");
    let start = |side: usize, host: &LabNetns| {
        let remote = format!(
            "remote = \"{}\"",
            Duo::underlay(UnderlayFamily::V4, 1 - side)
        );
        let addresses = [
            format!("10.0.0.{}/24", side + 1),
            format!("fd00::{}/64", side + 1),
        ];
        let link = link("gnv0", 100, &[&addresses[0], &addresses[1]], &remote);
        duo.world.daemon(host, io, &daemon, &link)
    };
    let [a, b] = [start(0, &duo.a), start(1, &duo.b)];
    for address in ["10.0.0.2", "fd00::2"] {
        let ends = duo.ends(address);
        assert_ping(&ends);
        assert_tcp(&ends, 2, 10_000_000);
        assert_udp(&ends, 1200);
    }
    let handed_over = handed_over(&duo.a);
    assert_eq!(a.drops(), Default::default(), "{segmentation}");
    a.stop();
    b.stop();
    handed_over
}

/// Two equal UDP datagrams in frames to `mac` that host a gets in one train, as a packet socket at its interface sees them.
fn seen_of_two(peer: &Peer, mac: [u8; 6], to: &str, port: u16) -> usize {
    let [from, to]: [IpAddr; 2] = ["10.0.0.2", to].map(|text| text.parse().unwrap());
    let packet = udp((from, port), (to, 9), &[0x5a; 40]);
    let frame = [&mac[..], &[2, 0, 0, 0, 0, 2, 0x08, 0x00], &packet].concat();
    let mut header = RawGeneve::new(100);
    header.protocol = 0x6558;
    let datagram = header.datagram(&frame);
    setsockopt(
        &peer.socket,
        sockopt::UdpGsoSegment,
        &(datagram.len() as i32),
    )
    .unwrap();
    peer.send(&[&datagram[..], &datagram].concat());
    let lengths = peer.tun.all(Duration::from_millis(500), |bytes| {
        let (src, _, payload) = Parsed::new(bytes)?.udp()?;
        (src == port).then_some(payload.len())
    });
    assert_eq!(lengths.iter().sum::<usize>(), 80, "{lengths:?}");
    lengths.len()
}

on_both_backends! {
    fn udp_is_merged_for_the_interface_itself_and_not_for_what_is_behind_it(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "mode = \"ethernet\"");
        let text = peer.duo.a.ip("-json link show gnv0").unwrap();
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut own = [0; 6];
        let octets = links[0]["address"].as_str().unwrap().split(':');
        for (byte, text) in own.iter_mut().zip(octets) {
            *byte = u8::from_str_radix(text, 16).unwrap();
        }
        let station = [2, 0, 0, 0, 0, 9];
        assert_eq!(seen_of_two(&peer, station, "10.0.0.9", 4001), 2);
        assert_eq!(seen_of_two(&peer, [0xff; 6], "255.255.255.255", 4002), 2);
        assert_eq!(seen_of_two(&peer, [1, 0, 0x5e, 0, 0, 1], "224.0.0.1", 4003), 2);
        assert_eq!(seen_of_two(&peer, own, "10.0.0.1", 4004), 1);
    }

    fn every_way_of_cutting_carries_the_same(io) {
        let duo = Duo::new();
        for segmentation in ["off", "gso"] {
            assert_eq!(carry(io, segmentation, &duo), None, "{segmentation} makes no device");
        }
        for segmentation in ["tunnel", "auto"] {
            let count = carry(io, segmentation, &duo);
            assert!(count > Some(100), "{segmentation} handed {count:?} super-packets over");
        }
    }

    /// Firewall rules for routed packets must not hit the tunnel: a host that routes is left alone.
    fn a_host_that_routes_is_not_given_a_device_by_itself(io) {
        let duo = Duo::new();
        for host in [&duo.a, &duo.b] {
            host.sysctl("ipv4/ip_forward", "1").unwrap();
        }
        assert_eq!(carry(io, "auto", &duo), None);
    }
}

/// The kernel forwards nothing any more: packets are cut by geneved instead, and none is lost for it.
#[test]
fn packets_that_the_kernel_does_not_forward_are_cut_by_geneved() {
    let duo = Duo::new();
    for host in [&duo.a, &duo.b] {
        // Strict reverse-path filtering of all interfaces refuses what comes from the device.
        host.sysctl("ipv4/conf/all/rp_filter", "1").unwrap();
    }
    let count = carry(TestBackend::Uring, "tunnel", &duo);
    assert!(
        count < Some(20),
        "{count:?} were handed over though none can leave"
    );
}

/// Firewall rules come while a stream runs: the kernel drops silently what is handed over, and is found out.
#[test]
fn packets_that_the_kernel_forwards_no_longer_are_cut_by_geneved() {
    let duo = Duo::new();
    let daemon = "segmentation = \"tunnel\"";
    let a = duo
        .world
        .daemon(&duo.a, TestBackend::Uring, daemon, &side(0));
    let _b = duo
        .world
        .daemon(&duo.b, TestBackend::Uring, daemon, &side(1));
    let _server = EchoServer::start(&duo.b, 7000, "b");
    let carries =
        |len| EchoConnection::open(&duo.a, "10.0.0.2:7000").is_ok_and(|mut talk| talk.carries(len));
    assert!(carries(2_000_000));
    let before = handed_over(&duo.a);
    assert!(before > Some(10), "{before:?} were handed over");
    duo.a.sysctl("ipv4/conf/all/rp_filter", "1").unwrap();
    eventually(30, "host a cuts super-packets itself", || {
        carries(100_000);
        a.process().log().contains("geneved cuts them itself")
    });
    let found_out = handed_over(&duo.a);
    assert!(carries(5_000_000), "{:?}", a.drops());
    assert_eq!(handed_over(&duo.a), found_out);
    assert_eq!(a.drops(), Default::default());
}

/// The device goes away under a running stream: what was handed over by then is cut by geneved, translated or not.
#[test]
fn what_the_kernel_refuses_late_is_cut_by_geneved() {
    for translated in [false, true] {
        let duo = Duo::new();
        let daemon = "segmentation = \"tunnel\"";
        let mut tables = side(0);
        if translated {
            // A pool for this host alone: what it sends to the other one is not inside.
            tables += "[[nat]]\nname = \"out\"\ndev = \"gnv0\"\ntype = \"snat\"\n\
                from = \"10.0.0.1/32\"\nsource = \"198.51.100.1\"\n";
        }
        let a = duo
            .world
            .daemon(&duo.a, TestBackend::Uring, daemon, &tables);
        let _b = duo
            .world
            .daemon(&duo.b, TestBackend::Uring, daemon, &side(1));
        duo.b.ip("route add 198.51.100.1 dev gnv0").unwrap();
        let _server = EchoServer::start(&duo.b, 7000, "b");
        let mut talk = EchoConnection::open(&duo.a, "10.0.0.2:7000").unwrap();
        let expected = if translated {
            "198.51.100.1"
        } else {
            "10.0.0.1"
        };
        assert_eq!(talk.seen.ip().to_string(), expected);
        assert!(talk.carries(2_000_000));
        let count = handed_over(&duo.a);
        assert!(count > Some(10), "{count:?} were handed over");
        duo.a.ip("link set gnvgso0 down").unwrap();
        assert!(talk.carries(2_000_000), "{:?}", a.drops());
        assert_eq!(a.drops(), Default::default(), "translated: {translated}");
    }
}
