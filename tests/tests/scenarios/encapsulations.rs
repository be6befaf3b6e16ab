//! The same traffic on every type of link: each encapsulation, with a TUN or a TAP.

use std::collections::BTreeSet;
use std::time::Duration;

use geneved::traffic::{EchoRun, SendAmount, TrafficEnds, UdpBurst};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::tshark::tshark;
use geneved_tests::world::{
    Duo, TestBackend, TestDaemon, UnderlayFamily, assert_datagrams, assert_ping, assert_tcp,
};
use geneved_tests::{eventually, on_both_backends};

/// A kind of link: its type, the words for what is inside, and its UDP port.
type LinkVariant = (&'static str, &'static str, u16);

const LINK_VARIANTS: [LinkVariant; 5] = [
    ("geneve", "inner = \"ip\"", 6081),
    ("geneve", "inner = \"ethernet\"", 6081),
    ("geneve", "mode = \"ethernet\"", 6081),
    ("vxlan", "inner = \"ethernet\"", 4789),
    ("vxlan", "mode = \"ethernet\"", 4789),
];

/// A daemon on each side with one link `ov0`, 10.0.0.1 and .2, fd00::1 and ::2.
fn start(
    duo: &Duo,
    io: TestBackend,
    (kind, inner, _): LinkVariant,
    family: UnderlayFamily,
    daemon: &str,
) -> [TestDaemon; 2] {
    let start = |side: usize| {
        let (here, remote) = (side + 1, Duo::underlay(family, 1 - side));
        let link = format!(
            "[[link]]\nname = \"ov0\"\ntype = \"{kind}\"\n{inner}\nid = 100\nremote = \"{remote}\"\n\
             address = [\"10.0.0.{here}/24\", \"fd00::{here}/64\"]\n"
        );
        duo.world.daemon([&duo.a, &duo.b][side], io, daemon, &link)
    };
    [start(0), start(1)]
}

/// Both directions, both families inside, once each of them is answered: a TAP's addresses are probed for duplicates first.
fn directions(duo: &Duo) -> [TrafficEnds; 4] {
    let back =
        |address: &str| TrafficEnds::new(duo.b.netns(), duo.a.netns(), address.parse().unwrap());
    let all = [
        duo.ends("10.0.0.2"),
        duo.ends("fd00::2"),
        back("10.0.0.1"),
        back("fd00::1"),
    ];
    let once = EchoRun {
        count: 1,
        ..EchoRun::default()
    };
    for ends in &all {
        eventually(10, "the other end answers", || {
            let report = once.run(&ends.client, ends.address);
            report.is_ok_and(|report| report.all_answered())
        });
    }
    all
}

/// Whether every datagram that was lost has a usual reason.
fn assert_clean(daemon: &TestDaemon, kind: LinkVariant) {
    let mut drops = daemon.drops();
    // Messages between neighbours, multicasts of link-local addresses, and what came before the link was there.
    let usual = [
        "neighbor-answered",
        "neighbor-noted",
        "source-mismatch",
        "split-horizon",
    ];
    drops.retain(|name, _| {
        name.starts_with("ov0/") && !usual.iter().any(|reason| name.ends_with(reason))
    });
    assert!(drops.is_empty(), "{kind:?}: {drops:?}");
}

on_both_backends! {
    fn every_kind_carries_both_ways_over_both_underlays(io) {
        for kind in LINK_VARIANTS {
            for family in UnderlayFamily::BOTH {
                let duo = Duo::new();
                let daemons = start(&duo, io, kind, family, "");
                for ends in directions(&duo) {
                    assert_ping(&ends);
                    assert_tcp(&ends, 2, 3_000_000);
                    // The last size is cut into fragments by the inner kernel.
                    for size in [16, 1200, 3000] {
                        assert_datagrams(&ends, size);
                    }
                }
                for daemon in daemons {
                    assert_clean(&daemon, kind);
                    daemon.stop();
                }
            }
        }
    }
}

/// Every kind of packet that leaves, as it is on the wire.
#[test]
fn tshark_finds_nothing_malformed_in_any_kind() {
    const FIELDS: [&str; 6] = [
        "frame.protocols",
        "_ws.malformed",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmpv6.checksum.status",
    ];
    for kind in LINK_VARIANTS {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            // A veth would show what its receiver is left to finish.
            let _daemons = start(
                &duo,
                TestBackend::Uring,
                kind,
                family,
                "segmentation = \"off\"",
            );
            let ears = Sniffer::new(duo.b.netns(), "u0");
            for ends in directions(&duo) {
                assert_tcp(&ends, 1, 30_000);
                let burst = UdpBurst {
                    size: 300,
                    amount: SendAmount::Count(5),
                    ..UdpBurst::default()
                };
                burst.run(&ends).unwrap();
            }
            let to = match family {
                UnderlayFamily::V4 => 20 + 2,
                UnderlayFamily::V6 => 40 + 2,
            };
            let tunnel = |packet: &[u8]| packet.get(to..to + 2) == Some(&kind.2.to_be_bytes()[..]);
            let packets = ears.all(Duration::from_millis(500), |packet| {
                tunnel(packet).then(|| packet.to_vec())
            });
            let dissected = tshark("kinds", &packets, &FIELDS);
            assert_eq!(dissected.len(), packets.len());
            let mut protocols = BTreeSet::new();
            for (line, packet) in dissected.iter().zip(&packets) {
                let bad = line[2..]
                    .iter()
                    .flat_map(|s| s.split(','))
                    .any(|s| s == "0");
                assert!(
                    line[1].is_empty() && !bad,
                    "{kind:?} {line:?} {packet:02x?}"
                );
                let inner = line[0].split_once(&format!("{}:", kind.0));
                let (_, inner) = inner.unwrap_or_else(|| panic!("{kind:?} {line:?}"));
                protocols.insert(inner.split(":data").next().unwrap_or(inner).to_owned());
            }
            for wanted in [
                "ip:icmp",
                "ip:tcp",
                "ip:udp",
                "ipv6:icmpv6",
                "ipv6:tcp",
                "ipv6:udp",
            ] {
                let there = protocols.iter().any(|p| p.contains(wanted));
                assert!(there, "{kind:?}: {wanted} is not in {protocols:?}");
            }
        }
    }
}
