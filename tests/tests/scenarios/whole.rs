//! What leaves a host is whole for a receiver that gets what a network card would have finished: Open vSwitch's
//! user-space datapath reads the underlay by a packet socket, as this test does.

use geneved::traffic::{SendAmount, UdpBurst};
use geneved_tests::packet::{Parsed, pseudo, sum};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::world::{Duo, TestBackend, UnderlayFamily, assert_ping, assert_tcp};
use std::net::IpAddr;
use std::time::Duration;

const VETH_MTU: usize = 1500;
/// UDP ports and bytes before the inner IP packet.
const WHOLE_LINKS: [(&str, u16, usize, &str); 3] = [
    ("geneve", 6081, 8, "ip"),
    ("geneve", 6081, 22, "ethernet"),
    ("vxlan", 4789, 22, "ethernet"),
];

fn config(kind: &str, inner: &str, side: usize, family: UnderlayFamily, more: &str) -> String {
    let (here, remote) = (side + 1, Duo::underlay(family, 1 - side));
    format!(
        "[[link]]\nname = \"ov0\"\ntype = \"{kind}\"\ninner = \"{inner}\"\nid = 100\nremote = \"{remote}\"\n\
         address = [\"10.0.0.{here}/24\", \"fd00::{here}/64\"]\n{more}\n"
    )
}

/// What is unfinished about a frame that host a sent over the tunnel; `None` for all other frames.
fn look(bytes: &[u8], from: IpAddr, port: u16, before: usize) -> Option<Vec<String>> {
    let outer = Parsed::new(bytes)?;
    if outer.from != from || outer.protocol != 17 || outer.segment[2..4] != port.to_be_bytes() {
        return None;
    }
    let mut wrong = Vec::new();
    let mut check = |name: &str, packet: &Parsed<'_>| {
        let at = if packet.protocol == 6 { 16 } else { 6 };
        let field = u16::from_be_bytes([packet.segment[at], packet.segment[at + 1]]);
        let none = packet.protocol == 17 && field == 0;
        let whole = pseudo(
            packet.from,
            packet.to,
            packet.protocol,
            packet.segment.len(),
        );
        if !none && sum(whole, packet.segment) != 0xffff {
            wrong.push(format!("{name} checksum of {} bytes", packet.segment.len()));
        }
    };
    check("outer", &outer);
    if let Some(inner) = Parsed::new(&outer.segment[8 + before..])
        && matches!(inner.protocol, 6 | 17)
    {
        check("inner", &inner);
    }
    if bytes.len() > VETH_MTU {
        wrong.push(format!("{} bytes", bytes.len()));
    }
    Some(wrong)
}

/// Traffic from a to b, and what was unfinished about the frames that b's device saw, of how many.
fn unfinished(
    family: UnderlayFamily,
    link: (&str, u16, usize, &str),
    daemon: &str,
    more: &str,
    device: impl Fn(&Duo),
) -> (usize, Vec<String>) {
    let duo = Duo::new();
    let (kind, port, before, inner) = link;
    let a = config(kind, inner, 0, family, more);
    let b = config(kind, inner, 1, family, "");
    device(&duo);
    let _daemons = [
        duo.world.daemon(&duo.a, TestBackend::Uring, daemon, &a),
        duo.world.daemon(&duo.b, TestBackend::Uring, "", &b),
    ];
    let sniffer = Sniffer::new(duo.b.netns(), "u0");
    for address in ["10.0.0.2", "fd00::2"] {
        let ends = duo.ends(address);
        assert_ping(&ends);
        assert_tcp(&ends, 2, 1_000_000);
        let burst = UdpBurst {
            size: 1200,
            amount: SendAmount::Count(1000),
            pace: Some(10_000.0),
            flows: 2,
            ..UdpBurst::default()
        };
        // Not all of them need arrive: what is seen of them is what counts.
        let report = burst.run(&ends).unwrap();
        assert_eq!(report.corrupted, 0, "{report}");
    }
    let from = Duo::underlay(family, 0);
    let seen = sniffer.all(Duration::from_millis(300), |bytes| {
        look(bytes, from, port, before)
    });
    (seen.len(), seen.into_iter().flatten().collect())
}

fn without_offloads(duo: &Duo) {
    for feature in ["tso", "gso", "tx-udp-segmentation", "tx", "sg"] {
        duo.a
            .exec("ethtool", &["-K", "u0", feature, "off"])
            .unwrap();
    }
}

/// Host b's end of the underlay becomes a port of a bridge, behind which anybody may be.
fn behind_a_bridge(duo: &Duo) {
    for command in [
        "link add br0 type bridge",
        "link set br0 up",
        "address flush dev u0",
        "link set u0 master br0",
        "address add 192.0.2.2/24 dev br0",
        "address add 2001:db8::2/64 dev br0 nodad",
    ] {
        duo.b.ip(command).unwrap();
    }
}

#[test]
fn a_device_without_offloads_gets_whole_datagrams() {
    for family in UnderlayFamily::BOTH {
        for link in WHOLE_LINKS {
            let (frames, wrong) = unfinished(family, link, "", "", without_offloads);
            assert!(frames > 1000, "{frames}");
            assert!(wrong.is_empty(), "{link:?} {family:?}: {:?}", &wrong[..1]);
        }
    }
}

#[test]
fn a_link_that_is_told_so_sends_whole_datagrams_over_any_device() {
    for family in UnderlayFamily::BOTH {
        for link in WHOLE_LINKS {
            let more = "segmentation = \"off\"";
            let (frames, wrong) = unfinished(family, link, "", more, |_| ());
            assert!(frames > 1000, "{frames}");
            assert!(wrong.is_empty(), "{link:?} {family:?}: {:?}", &wrong[..1]);
        }
    }
}

#[test]
fn a_daemon_that_is_told_so_sends_whole_datagrams_over_any_device() {
    let daemon = "segmentation = \"off\"\nworkers = 2";
    let (frames, wrong) = unfinished(UnderlayFamily::V4, WHOLE_LINKS[2], daemon, "", |_| ());
    assert!(frames > 1000, "{frames}");
    assert!(wrong.is_empty(), "{:?}", &wrong[..1]);
}

/// The far end is a port of a bridge, and a switch that reads from another of its ports would get frames.
#[test]
fn frames_for_somebody_behind_a_bridge_leave_whole() {
    for (family, link) in [
        (UnderlayFamily::V4, WHOLE_LINKS[1]),
        (UnderlayFamily::V6, WHOLE_LINKS[2]),
    ] {
        let (frames, wrong) = unfinished(family, link, "", "", behind_a_bridge);
        assert!(frames > 1000, "{frames}");
        assert!(wrong.is_empty(), "{link:?} {family:?}: {:?}", &wrong[..1]);
    }
    let (_, wrong) = unfinished(UnderlayFamily::V4, WHOLE_LINKS[0], "", "", behind_a_bridge);
    assert!(!wrong.is_empty(), "no switch takes IP packets");
    let gso = "segmentation = \"gso\"";
    let (_, wrong) = unfinished(UnderlayFamily::V4, WHOLE_LINKS[1], gso, "", behind_a_bridge);
    assert!(!wrong.is_empty(), "who asks for trains gets them");
}

/// Else this test would see nothing: a veth hands over what its sender left to it.
#[test]
fn a_device_with_offloads_is_left_to_finish() {
    let (_, wrong) = unfinished(UnderlayFamily::V4, WHOLE_LINKS[0], "", "", |_| ());
    assert!(!wrong.is_empty());
}
