//! The kernel's own VXLAN device at the other end: both underlays, offloads on and off, every MTU.

use geneved::lab::netns::LabNetns;
use geneved::traffic::TrafficEnds;
use geneved_tests::on_both_backends;
use geneved_tests::world::{
    Duo, TestBackend, TestDaemon, UnderlayFamily, assert_datagrams, assert_ping, assert_tcp,
};

/// A `[[link]]` table of a link whose datagrams carry frames.
fn framed(kind: &str, side: usize, family: UnderlayFamily, more: &str) -> String {
    let here = side + 1;
    let remote = Duo::underlay(family, 1 - side);
    format!(
        "[[link]]\nname = \"ov0\"\ntype = \"{kind}\"\ninner = \"ethernet\"\nid = 100\nremote = \"{remote}\"\n\
         address = [\"10.0.0.{here}/24\", \"fd00::{here}/64\"]\n{more}\n"
    )
}

/// A VXLAN device of the kernel on host b, 10.0.0.2 and fd00::2.
fn kernel_device(host: &LabNetns, family: UnderlayFamily, more: &str) {
    let (local, remote) = (Duo::underlay(family, 1), Duo::underlay(family, 0));
    for command in [
        format!("link add vx0 type vxlan id 100 local {local} remote {remote} dstport 4789 {more}"),
        "address add 10.0.0.2/24 dev vx0".to_owned(),
        "address add fd00::2/64 dev vx0 nodad".to_owned(),
        "link set vx0 up".to_owned(),
    ] {
        host.ip(&command).unwrap();
    }
}

/// geneved on host a, the kernel on host b.
fn against_the_kernel(
    duo: &Duo,
    io: TestBackend,
    family: UnderlayFamily,
    more: &str,
) -> TestDaemon {
    kernel_device(&duo.b, family, "");
    duo.world
        .daemon(&duo.a, io, "", &framed("vxlan", 0, family, more))
}

fn back(duo: &Duo, address: &str) -> TrafficEnds {
    TrafficEnds::new(duo.b.netns(), duo.a.netns(), address.parse().unwrap())
}

/// Everything in both directions; `sizes` are those of UDP datagrams.
fn assert_carries(duo: &Duo, bytes: u64, sizes: &[usize]) {
    for (there, here) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
        for ends in [duo.ends(there), back(duo, here)] {
            assert_ping(&ends);
            assert_tcp(&ends, 2, bytes);
            for size in sizes {
                assert_datagrams(&ends, *size);
            }
        }
    }
}

fn ethtool(host: &LabNetns, device: &str, features: &[&str], value: &str) {
    for feature in features {
        host.exec("ethtool", &["-K", device, feature, value])
            .unwrap();
    }
}

/// Whether anything but messages between neighbours was dropped.
fn assert_clean(daemon: &TestDaemon) {
    let mut drops = daemon.drops();
    // Multicast of both kernels: router solicitations and group reports, from link-local addresses. What came before the
    // link was there is of no link.
    let usual = ["neighbor-answered", "neighbor-noted", "source-mismatch"];
    drops.retain(|name, _| {
        name.starts_with("ov0/") && !usual.iter().any(|reason| name.ends_with(reason))
    });
    assert!(drops.is_empty(), "{drops:?}");
}

on_both_backends! {
    fn a_kernel_device_over_ipv4(io) {
        let duo = Duo::new();
        let a = against_the_kernel(&duo, io, UnderlayFamily::V4, "");
        assert_eq!(a.link("ov0")["mtu"], 1450);
        assert_carries(&duo, 10_000_000, &[16, 1200, 3000]);
        assert_clean(&a);
    }

    fn a_kernel_device_over_ipv6(io) {
        let duo = Duo::new();
        let a = against_the_kernel(&duo, io, UnderlayFamily::V6, "");
        assert_eq!(a.link("ov0")["mtu"], 1430);
        assert_carries(&duo, 10_000_000, &[16, 1200, 3000]);
        assert_clean(&a);
    }

    fn two_daemons_speak_frames_with_each_other(io) {
        for kind in ["geneve", "vxlan"] {
            let duo = Duo::new();
            let start = |side, host| {
                duo.world.daemon(host, io, "", &framed(kind, side, UnderlayFamily::V4, ""))
            };
            let [a, b] = [start(0, &duo.a), start(1, &duo.b)];
            assert_carries(&duo, 10_000_000, &[16, 1200, 3000]);
            for daemon in [a, b] {
                assert_clean(&daemon);
                daemon.stop();
            }
        }
    }
}

#[test]
fn offloads_on_and_off_at_each_end() {
    const FEATURES: [&str; 4] = ["tso", "gso", "gro", "tx"];
    for (device_a, device_b, family) in [
        ("on", "off", UnderlayFamily::V4),
        ("off", "on", UnderlayFamily::V4),
        ("off", "off", UnderlayFamily::V4),
        ("on", "off", UnderlayFamily::V6),
        ("off", "on", UnderlayFamily::V6),
    ] {
        let duo = Duo::new();
        let a = against_the_kernel(&duo, TestBackend::Uring, family, "");
        ethtool(&duo.a, "u0", &FEATURES, device_a);
        ethtool(&duo.b, "u0", &FEATURES, device_b);
        ethtool(&duo.b, "vx0", &["tso", "gso", "gro", "tx"], device_b);
        assert_carries(&duo, 5_000_000, &[1200]);
        assert_clean(&a);
    }
}

#[test]
fn every_mtu() {
    for (underlay, inner, family) in [
        (1330, 1280, UnderlayFamily::V4),
        (1350, 1280, UnderlayFamily::V6),
        (9000, 8950, UnderlayFamily::V4),
        (9000, 8930, UnderlayFamily::V6),
    ] {
        let duo = Duo::with_mtu(underlay);
        let a = against_the_kernel(&duo, TestBackend::Uring, family, "");
        assert_eq!(a.link("ov0")["mtu"], inner);
        assert_carries(&duo, 5_000_000, &[1200, inner as usize + 1000]);
        assert_clean(&a);
    }
}

#[test]
fn a_configured_mtu_holds_at_both_ends() {
    let duo = Duo::new();
    let a = against_the_kernel(&duo, TestBackend::Uring, UnderlayFamily::V4, "mtu = 1280");
    duo.b.ip("link set vx0 mtu 1280").unwrap();
    assert_carries(&duo, 5_000_000, &[1200, 2000]);
    assert_clean(&a);
}

/// The way by the kernel's tunnel GSO takes the frame's header along.
#[test]
fn segmentation_by_the_kernel_carries_frames() {
    for kind in ["geneve", "vxlan"] {
        let duo = Duo::new();
        let start = |side: usize, host| {
            let link = framed(kind, side, UnderlayFamily::V4, "");
            duo.world
                .daemon(host, TestBackend::Uring, "segmentation = \"tunnel\"", &link)
        };
        let _daemons = [start(0, &duo.a), start(1, &duo.b)];
        assert_carries(&duo, 10_000_000, &[1200]);
        let text = duo
            .a
            .ip("-json -statistics link show gnvgso0")
            .expect("the device is there");
        let device: serde_json::Value = serde_json::from_str(&text).unwrap();
        let count = device[0]["stats64"]["rx"]["packets"].as_u64();
        assert!(count > Some(100), "{kind}: {count:?} were handed over");
    }
}

/// Static MAC addresses: nobody asks, nobody answers.
#[test]
fn configured_mac_addresses_need_no_questions() {
    let duo = Duo::new();
    duo.b
        .ip(
            "link add vx0 address 02:00:00:00:00:0b type vxlan id 100 local 192.0.2.2 remote 192.0.2.1 dstport 4789",
        )
        .unwrap();
    for command in [
        // An address of its own choice would be announced.
        "link set vx0 addrgenmode none",
        "address add 10.0.0.2/24 dev vx0",
        "link set vx0 up",
        "neighbour add 10.0.0.1 lladdr 02:00:00:00:00:0a dev vx0",
    ] {
        duo.b.ip(command).unwrap();
    }
    let links = framed(
        "vxlan",
        0,
        UnderlayFamily::V4,
        "lladdr = \"02:00:00:00:00:0a\"",
    );
    let endpoint = "[[endpoint]]\naddress = \"10.0.0.2\"\ndev = \"ov0\"\nhost = [\"192.0.2.2\"]\nlladdr = \"02:00:00:00:00:0b\"\n";
    let a = duo
        .world
        .daemon(&duo.a, TestBackend::Uring, "", &(links + endpoint));
    assert_ping(&duo.ends("10.0.0.2"));
    assert_tcp(&back(&duo, "10.0.0.1"), 1, 1_000_000);
    let drops = a.drops();
    assert!(
        !drops.keys().any(|name| name.contains("neighbor")),
        "{drops:?}"
    );
    assert_eq!(a.link("ov0")["lladdr"], "02:00:00:00:00:0a");
}

/// A neighbour that gets another MAC address is found again, though its flows go on.
#[test]
fn a_neighbour_that_moves_is_followed() {
    let duo = Duo::new();
    let _a = against_the_kernel(&duo, TestBackend::Uring, UnderlayFamily::V4, "");
    assert_ping(&duo.ends("10.0.0.2"));
    for command in [
        "link set vx0 down",
        "link set vx0 address 02:00:00:00:00:77",
        "link set vx0 up",
    ] {
        duo.b.ip(command).unwrap();
    }
    // What it sends first is a question, since it has forgotten everybody.
    geneved_tests::eventually(10, "the neighbour is found again", || {
        let echo = geneved::traffic::EchoRun {
            count: 1,
            ..Default::default()
        };
        let _ = echo.run(duo.b.netns(), "10.0.0.1".parse().unwrap());
        let report = echo.run(duo.a.netns(), "10.0.0.2".parse().unwrap());
        report.is_ok_and(|report| report.all_answered())
    });
}
