//! Who cuts super-packets: geneved datagram by datagram, geneved in trains, or the kernel. What arrives is the same.

use geneved::lab::net::Host;
use geneved_tests::on_both_backends;
use geneved_tests::world::{Duo, Family, Io, assert_ping, assert_tcp, assert_udp, link};

/// What the kernel counted on the device for tunnel GSO; `None` where there is no such device.
fn handed_over(host: &Host) -> Option<u64> {
    let text = host.ip("-json -statistics link show gnvgso0").ok()?;
    let links: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    links[0]["stats64"]["rx"]["packets"].as_u64()
}

/// Runs traffic with `segmentation` on both sides, and returns what host a handed over.
fn carry(io: Io, segmentation: &str, duo: &Duo) -> Option<u64> {
    let daemon = format!("segmentation = \"{segmentation}\"");
    let start = |side: usize, host: &Host| {
        let remote = format!("remote = \"{}\"", Duo::underlay(Family::V4, 1 - side));
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

on_both_backends! {
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
    let count = carry(Io::Uring, "tunnel", &duo);
    assert!(
        count < Some(20),
        "{count:?} were handed over though none can leave"
    );
}
