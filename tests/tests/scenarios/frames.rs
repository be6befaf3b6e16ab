//! Links in mode ethernet with frames of bridges, VLANs and virtual machines: super-packets, VLAN tags, partial
//! checksums.

use std::time::Duration;

use geneved::traffic::{EchoRun, SendAmount, TrafficEnds, UdpBurst};
use geneved_tests::bridged::Bridged;
use geneved_tests::guest::Guest;
use geneved_tests::world::{Duo, TestBackend, assert_no_ping, assert_ping, assert_tcp, assert_udp};
use geneved_tests::{eventually, on_both_backends};

/// Each host floods to the other.
const FRAME_REMOTES: [&str; 2] = ["remote = \"192.0.2.2\"", "remote = \"192.0.2.1\""];

fn asks(ends: &TrafficEnds, size: usize) -> bool {
    let echo = EchoRun {
        count: 2,
        size,
        interval: Duration::from_millis(20),
        ..EchoRun::default()
    };
    let report = echo.run(&ends.client, ends.address).expect("a raw socket");
    report.all_answered()
}

on_both_backends! {
    /// An underlay of 9000 bytes leaves 8950 for stations, and all of them are used.
    fn jumbo_frames_pass(io) {
        let bridged = Bridged::over(Duo::with_mtu(9000), 8950, io, "", FRAME_REMOTES);
        for daemon in &bridged.daemons {
            assert_eq!(daemon.link("gnv0")["mtu"], 8950);
        }
        for (address, headers) in [("10.0.0.3", 28), ("fd00::3", 48)] {
            let ends = bridged.ends(0, 2, address);
            assert_ping(&ends);
            assert!(asks(&ends, 8950 - headers), "{address}: a frame that just fits");
            assert_tcp(&ends, 2, 10_000_000);
            // A receiver has room for few of them.
            let burst = UdpBurst {
                size: 8900 - headers,
                amount: SendAmount::Count(200),
                pace: Some(200.0),
                ..UdpBurst::default()
            };
            let report = burst.run(&ends).expect("datagrams arrive");
            assert!(report.loss() <= 0.05 && report.corrupted == 0, "{report}");
        }
        for daemon in &bridged.daemons {
            let drops = daemon.drops();
            assert!(!drops.keys().any(|name| name.contains("too-big")), "{drops:?}");
        }
    }

    /// A virtual machine on each host: what its network card leaves unfinished crosses the tunnel, and what was merged reaches it.
    fn virtual_machines_reach_each_other(io) {
        let bridged = Bridged::new(io, FRAME_REMOTES);
        let guests = guests(&bridged, &[]);
        // From a station of the other host, and to one.
        let inwards = TrafficEnds::new(bridged.stations[2].netns(), guests[0].inside.netns(), "10.0.0.11".parse().unwrap());
        let outwards = TrafficEnds::new(guests[0].inside.netns(), bridged.stations[2].netns(), "fd00::3".parse().unwrap());
        for ends in [inwards, outwards] {
            eventually(10, "neighbours find each other", || asks(&ends, 56));
            assert_tcp(&ends, 1, 2_000_000);
        }
    }
}

/// Two machines, on host a and b, with the same VLAN tags, talk to each other.
fn guests(bridged: &Bridged, tags: &[u8]) -> [Guest; 2] {
    let guest = |host, n: usize| {
        let addresses = [format!("10.0.0.{n}/24"), format!("fd00::{n}/64")];
        let inside = bridged.duo.world.host(&format!("g{n}"));
        let guest = Guest::start(host, inside, &[&addresses[0], &addresses[1]], tags);
        // The underlay leaves no room for tags.
        let mtu = 1450 - tags.len();
        guest.inside.ip(&format!("link set e0 mtu {mtu}")).unwrap();
        guest
    };
    let guests = [guest(&bridged.duo.a, 11), guest(&bridged.duo.b, 12)];
    for address in ["10.0.0.12", "fd00::12"] {
        let (from, to) = (guests[0].inside.netns(), guests[1].inside.netns());
        let ends = TrafficEnds::new(from, to, address.parse().unwrap());
        eventually(10, "neighbours find each other", || asks(&ends, 56));
        assert_tcp(&ends, 2, 5_000_000);
        assert_udp(&ends, 1200);
    }
    for guest in &guests {
        let large = guest.large();
        assert!(large > 100, "{large} frames crossed uncut");
    }
    guests
}

/// Super-packets with one VLAN tag, and with a second one of a provider's, are cut and merged, and nobody sees them without.
#[test]
fn tcp_in_vlans_is_cut_and_merged() {
    let tags: [&[u8]; 2] = [&[0x81, 0, 0, 10], &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10]];
    for tags in tags {
        let bridged = Bridged::new(TestBackend::Uring, FRAME_REMOTES);
        let guests = guests(&bridged, tags);
        let (from, to) = (bridged.stations[2].netns(), guests[0].inside.netns());
        assert_no_ping(&TrafficEnds::new(from, to, "10.0.0.11".parse().unwrap()));
    }
}

/// An interface that takes more than the underlay leaves.
#[test]
fn a_tap_takes_the_largest_mtu_and_tells_stations_what_fits() {
    let wide = FRAME_REMOTES.map(|remote| format!("mtu = 9000\n{remote}"));
    let bridged = Bridged::over(
        Duo::with_mtu(2000),
        9000,
        TestBackend::Uring,
        "",
        [&wide[0], &wide[1]],
    );
    for address in ["10.0.0.3", "fd00::3"] {
        let ends = bridged.ends(0, 2, address);
        assert_ping(&ends);
        assert_tcp(&ends, 1, 2_000_000);
    }
}
