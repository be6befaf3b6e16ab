//! Links in mode ethernet: stations behind Linux bridges on two hosts, with the real binary and real traffic.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use geneved::traffic::{EchoRun, SendAmount, UdpBurst};
use geneved_tests::bridged::{Bridged, mac, mac_bytes, send_frame};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::trio::{EchoConnection, EchoServer};
use geneved_tests::tshark::tshark;
use geneved_tests::world::{assert_no_ping, assert_ping, assert_tcp, assert_udp};
use geneved_tests::{eventually, on_both_backends};
use socket2::{Domain, Socket, Type};

/// Each host floods to the other.
const ETHERNET_REMOTES: [&str; 2] = ["remote = \"192.0.2.2\"", "remote = \"192.0.2.1\""];

/// The lines of `fdb show` for this MAC address, as JSON.
fn entries(bridged: &Bridged, side: usize, mac: &str) -> Vec<serde_json::Value> {
    let all = bridged.daemons[side].json("-s fdb show dev gnv0");
    let all = all.as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|e| e["mac"] == mac).collect()
}

on_both_backends! {
    /// ARP, duplicate address detection, ping, TCP with checksums and segments, and UDP between all of them.
    fn stations_behind_bridges_reach_each_other(io) {
        let bridged = Bridged::new(io, ETHERNET_REMOTES);
        for (from, to) in [(0, 2), (1, 3), (3, 0), (0, 1)] {
            assert_ping(&bridged.ends(from, to, &format!("10.0.0.{}", to + 1)));
            assert_ping(&bridged.ends(from, to, &format!("fd00::{}", to + 1)));
        }
        for address in ["10.0.0.3", "fd00::3"] {
            assert_tcp(&bridged.ends(0, 2, address), 2, 10_000_000);
            assert_udp(&bridged.ends(0, 2, address), 1200);
        }
        let seen = entries(&bridged, 0, &mac(2));
        assert_eq!((seen.len(), &seen[0]["dst"], &seen[0]["state"]), (1, &"192.0.2.2".into(), &"".into()));
        assert!(seen[0]["used"].is_u64(), "{seen:?}");
        assert!(entries(&bridged, 0, &mac(0))[0]["dst"].is_null());
        let own = entries(&bridged, 0, "02:00:00:00:00:01");
        assert_eq!(own[0]["state"], "permanent");
        for daemon in &bridged.daemons {
            let expected = ["neighbor-answered", "split-horizon"];
            let unexpected = |name: &&String| !expected.iter().any(|e| name.ends_with(e));
            let drops = daemon.drops();
            let unexpected: Vec<_> = drops.keys().filter(unexpected).collect();
            assert!(unexpected.is_empty(), "{drops:?}");
        }
        bridged.daemons[0].cli("fdb flush dev gnv0");
        assert!(entries(&bridged, 0, &mac(2)).is_empty());
    }

    /// As a DHCP client asks: from nobody to everybody.
    fn a_broadcast_reaches_every_station(io) {
        let bridged = Bridged::new(io, ETHERNET_REMOTES);
        let open = |n: usize, port: u16| {
            bridged.stations[n].netns().run(|| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
                socket.set_broadcast(true).unwrap();
                socket.bind_device(Some(b"e0")).unwrap();
                socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into()).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                std::net::UdpSocket::from(socket)
            }).unwrap()
        };
        let client = open(0, 68);
        let others: Vec<_> = (1..4).map(|n| open(n, 67)).collect();
        client.send_to(b"discover", (Ipv4Addr::BROADCAST, 67)).unwrap();
        for other in &others {
            let mut bytes = [0; 100];
            let (len, _) = other.recv_from(&mut bytes).expect("the broadcast arrives");
            assert_eq!(&bytes[..len], b"discover");
        }
    }

    /// The interface has the MTU of stations, and the underlay is too narrow for it: they are told.
    fn a_station_is_told_what_fits(io) {
        let wide = ETHERNET_REMOTES.map(|remote| format!("mtu = 1500\n{remote}"));
        let bridged = Bridged::new(io, [&wide[0], &wide[1]]);
        for (address, size, mtu) in [("10.0.0.3", 1472, 1450), ("fd00::3", 1452, 1450)] {
            let ends = bridged.ends(0, 2, address);
            assert_ping(&ends);
            let echo = EchoRun { count: 2, size, interval: Duration::from_millis(50), timeout: Duration::from_secs(1), ..EchoRun::default() };
            let mut told = None;
            eventually(5, "the station is told", || {
                told = echo.run(&ends.client, ends.address).unwrap().too_big.or(told);
                told.is_some()
            });
            assert_eq!(told, Some(mtu), "{address}");
            assert_tcp(&ends, 1, 2_000_000);
        }
    }

    /// Without any list of hosts: what is configured of endpoints is enough, and who lies about it is not heard.
    fn endpoints_are_found_without_flooding_and_not_impersonated(io) {
        let endpoints = |side: usize| {
            let line = |n: usize| {
                let place = if n / 2 == side { "local = true".to_owned() } else { format!("host = [\"192.0.2.{}\"]", n / 2 + 1) };
                let entry = |address: String| format!("[[endpoint]]\naddress = \"{address}\"\ndev = \"gnv0\"\nlladdr = \"{}\"\n{place}\n", mac(n));
                entry(format!("10.0.0.{}", n + 1)) + &entry(format!("fd00::{}", n + 1))
            };
            format!("learning = false\n{}{}", line(0), line(2))
        };
        let (a, b) = (endpoints(0), endpoints(1));
        let bridged = Bridged::new(io, [&a, &b]);
        for address in ["10.0.0.3", "fd00::3"] {
            assert_ping(&bridged.ends(0, 2, address));
            assert_tcp(&bridged.ends(0, 2, address), 1, 1_000_000);
        }
        let link = &bridged.daemons[0].json("-s link show gnv0")[0];
        let answered = link["consumed"]["egress"]["neighbor-answered"].as_u64();
        assert!(answered > Some(1), "{link}");
        // Station 1 is known to nobody.
        assert_no_ping(&bridged.ends(1, 2, "10.0.0.3"));
        // It takes the address of station 2, which is on the other host.
        let stolen = [&[0xff; 6][..], &mac_bytes(1), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac_bytes(1), &[10, 0, 0, 3, 0, 0, 0, 0, 0, 0, 10, 0, 0, 3]].concat();
        send_frame(bridged.stations[1].netns(), &stolen);
        eventually(5, "the lie is counted", || {
            bridged.daemons[0].drops().contains_key("gnv0/egress/source-not-local")
        });
    }

    /// A station that moves to the other host is followed.
    fn a_station_that_moves_is_followed(io) {
        let bridged = Bridged::new(io, ETHERNET_REMOTES);
        assert_ping(&bridged.ends(0, 3, "10.0.0.4"));
        bridged.unplug(3, 1);
        bridged.plug(3, 0);
        bridged.stations[3].exec("ping", &["-c", "1", "-W", "1", "10.0.0.3"]).ok();
        eventually(10, "it is found on its new host", || {
            entries(&bridged, 0, &mac(3)).iter().all(|e| e["dst"].is_null())
                && entries(&bridged, 1, &mac(3)).iter().all(|e| e["dst"] == "192.0.2.1")
        });
        assert_ping(&bridged.ends(2, 3, "10.0.0.4"));
        assert_tcp(&bridged.ends(2, 3, "fd00::4"), 1, 1_000_000);
    }

    /// Rules, translations and defaults see the IP packets in frames.
    fn policy_and_nat_see_what_is_in_frames(io) {
        let rules = "remote = \"192.0.2.2\"\negress = \"deny\"\n\
            [[policy]]\nname = \"ping\"\ndev = \"gnv0\"\ndirection = \"egress\"\nproto = \"icmp\"\naction = \"allow\"\n\
            [[policy]]\nname = \"tcp\"\ndev = \"gnv0\"\ndirection = \"egress\"\nproto = \"tcp\"\nto = \"10.0.0.3/32\"\naction = \"allow\"\n\
            [[nat]]\nname = \"door\"\ndev = \"gnv0\"\ntype = \"dnat\"\nto = \"10.0.0.99\"\ntarget = \"10.0.0.3\"\n";
        let bridged = Bridged::new(io, [rules, ETHERNET_REMOTES[1]]);
        assert_ping(&bridged.ends(0, 2, "10.0.0.3"));
        assert_tcp(&bridged.ends(0, 2, "10.0.0.3"), 1, 1_000_000);
        assert_no_ping(&bridged.ends(0, 2, "fd00::3"));
        assert!(bridged.daemons[0].drops().contains_key("gnv0/egress/policy-denied"));
        // Nobody has the address; whoever sends to it reaches station 2.
        bridged.stations[0].ip(&format!("neighbor add 10.0.0.99 lladdr {} dev e0", mac(3))).unwrap();
        assert_ping(&bridged.ends(0, 2, "10.0.0.99"));
        let _server = EchoServer::start(&bridged.stations[2], 7000, "inside");
        let mut talk = EchoConnection::open(&bridged.stations[0], "10.0.0.99:7000").unwrap();
        assert!(talk.carries(1_000_000));
    }
}

/// VLAN tags pass, and what is in them is an IP packet like any other.
#[test]
fn a_vlan_tag_comes_out_as_it_went_in() {
    let bridged = Bridged::new(geneved_tests::world::TestBackend::Uring, ETHERNET_REMOTES);
    let netns = bridged.stations[2].netns();
    let capture = netns.run(|| {
        Command::new("tshark")
            .args([
                "-l",
                "-n",
                "-i",
                "e0",
                "-a",
                "duration:50",
                "-c",
                "6",
                "-f",
                "vlan",
            ])
            .args([
                "-T",
                "fields",
                "-e",
                "eth.src",
                "-e",
                "vlan.id",
                "-e",
                "udp.dstport",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    let mut child = capture
        .unwrap()
        .expect("tshark is required by this test (Debian: apt-get install tshark)");
    let ip = |n| IpAddr::from([10, 9, 0, n]);
    let udp = geneved_tests::packet::udp((ip(1), 1000), (ip(3), 4242), b"in a VLAN");
    let tags: [&[u8]; 2] = [&[0x81, 0, 0, 10][..], &[0x88, 0xa8, 0, 20, 0x81, 0, 0, 10]];
    // tshark takes its time until it listens.
    eventually(60, "tshark has seen enough", || {
        for tag in tags {
            let frame = [&mac_bytes(2)[..], &mac_bytes(0), tag, &[8, 0][..], &udp].concat();
            send_frame(bridged.stations[0].netns(), &frame);
        }
        std::thread::sleep(Duration::from_millis(100));
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines: Vec<_> = text.lines().map(|l| l.replace('\t', " ")).collect();
    lines.sort();
    lines.dedup();
    let single = format!("{} 10 4242", mac(0));
    assert!(
        lines.contains(&single),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        bridged
            .daemons
            .iter()
            .all(|d| d.drops().keys().all(|k| !k.contains("malformed")))
    );
}

/// What is refused names the object and the next step; what is saved loads again.
#[test]
fn the_forwarding_table_is_kept_and_guarded() {
    let bridged = Bridged::new(
        geneved_tests::world::TestBackend::Syscalls,
        ETHERNET_REMOTES,
    );
    let daemon = &bridged.daemons[0];
    daemon.cli("fdb add 02:00:00:00:07:01 dev gnv0 dst 192.0.2.2");
    daemon.cli("fdb append 00:00:00:00:00:00 dev gnv0 via 192.0.2.7,192.0.2.8");
    let shown = daemon.cli("fdb show dev gnv0");
    assert!(
        shown.contains("02:00:00:00:07:01 dev gnv0 dst 192.0.2.2 self permanent"),
        "{shown}"
    );
    assert!(
        shown.contains("00:00:00:00:00:00 dev gnv0 dst 192.0.2.8 self permanent"),
        "{shown}"
    );
    let saved = daemon.cli("save");
    assert!(
        saved.contains("[[fdb]]") && saved.contains("mode = \"ethernet\""),
        "{saved}"
    );
    for (words, expected) in [
        (
            "fdb add 02:00:00:00:07:01 dev gnv0 dst 192.0.2.3",
            "exists already",
        ),
        (
            "fdb add 02:00:00:00:07:02 dev gnv0 dst 192.0.2.3,192.0.2.4",
            "a station is on one host",
        ),
        (
            "fdb add 02:00:00:00:00:01 dev gnv0 dst 192.0.2.3",
            "is the lladdr of link",
        ),
        ("fdb del 02:00:00:00:07:09 dev gnv0", "Cannot find fdb"),
        (
            "fdb add 02:00:00:00:07:02 dev gnv9 dst 192.0.2.3",
            "Cannot find device",
        ),
        (
            "route add 10.9.0.0/16 dev gnv0 via 192.0.2.2",
            "sends by MAC address",
        ),
        ("link set gnv0 mode ip", "its mode cannot be changed"),
        (
            "link add gnv1 type geneve id 5 ageing 10",
            "is for links in mode ethernet",
        ),
        (
            "link add gnv1 type geneve id 5 mode ethernet inner ip",
            "inner \"ip\" is wrong",
        ),
    ] {
        let said = daemon.refused(words);
        assert!(said.contains(expected), "{words}: {said}");
    }
    daemon.cli("fdb del 00:00:00:00:00:00 dev gnv0 dst 192.0.2.7");
    daemon.cli("fdb del 02:00:00:00:07:01 dev gnv0");
    let shown = daemon.cli("fdb show dev gnv0");
    assert!(
        !shown.contains("192.0.2.7") && !shown.contains("07:01"),
        "{shown}"
    );
    // A loop or a storm is held back.
    daemon.cli("link set gnv0 floodrate 1");
    let frame = [&[0xff; 6][..], &mac_bytes(0), &[0x88, 0xb5], &[0; 50]].concat();
    for _ in 0..20 {
        send_frame(bridged.stations[0].netns(), &frame);
    }
    eventually(5, "the flood is limited", || {
        daemon.drops().get("gnv0/egress/flood-rate") > Some(&10)
    });
}

/// Every kind of frame that leaves, as it is on the wire: nothing of it is malformed, and every inner checksum is right.
#[test]
fn tshark_finds_nothing_wrong_with_what_is_sent() {
    let more = ETHERNET_REMOTES.map(|remote| format!("udpcsum = false\n{remote}"));
    // What is handed to the kernel uncut would be seen uncut on a veth.
    let cut = "segmentation = \"off\"";
    let io = geneved_tests::world::TestBackend::Syscalls;
    let bridged = Bridged::with(io, cut, [&more[0], &more[1]]);
    let ears = Sniffer::new(bridged.duo.b.netns(), "u0");
    for address in ["10.0.0.3", "fd00::3"] {
        assert_ping(&bridged.ends(0, 2, address));
        assert_tcp(&bridged.ends(0, 2, address), 1, 100_000);
        let burst = UdpBurst {
            size: 300,
            amount: SendAmount::Count(5),
            ..UdpBurst::default()
        };
        burst.run(&bridged.ends(0, 2, address)).unwrap();
    }
    let ip = |n| IpAddr::from([10, 9, 0, n]);
    let udp = geneved_tests::packet::udp((ip(1), 1000), (ip(3), 4242), b"in a VLAN");
    let from = bridged.stations[0].netns();
    let to = |dst: &[u8], rest: &[&[u8]]| [dst, &mac_bytes(0), &rest.concat()].concat();
    send_frame(from, &to(&mac_bytes(2), &[&[0x81, 0, 0, 10, 8, 0], &udp]));
    send_frame(from, &to(&[0xff; 6], &[&[0x88, 0xb5], &[0; 46]]));
    let packets = ears.all(Duration::from_millis(500), |packet| Some(packet.to_vec()));
    let geneve = |packet: &&Vec<u8>| packet.get(22..24) == Some(&6081_u16.to_be_bytes()[..]);
    let packets: Vec<_> = packets.iter().filter(geneve).cloned().collect();
    let fields = [
        "frame.protocols",
        "_ws.malformed",
        "ip.checksum.status",
        "tcp.checksum.status",
        "udp.checksum.status",
        "icmp.checksum.status",
        "icmpv6.checksum.status",
        "geneve.proto_type",
    ];
    let dissected = tshark("ethernet", &packets, &fields);
    assert_eq!(dissected.len(), packets.len());
    let mut kinds = BTreeSet::new();
    for (line, packet) in dissected.iter().zip(&packets) {
        let bad = line[2..7]
            .iter()
            .any(|s| s.split(',').any(|state| state == "0"));
        assert!(line[1].is_empty() && !bad, "{line:?} {packet:02x?}");
        assert_eq!(line[7], "0x6558", "{line:?}");
        let inner = line[0].split_once("geneve:").expect("it is Geneve").1;
        kinds.insert(inner.split(":data").next().unwrap_or(inner).to_owned());
    }
    for kind in [
        "arp",
        "ip:icmp",
        "ip:tcp",
        "ip:udp",
        "ipv6:icmpv6",
        "ipv6:tcp",
        "vlan:ethertype:ip:udp",
    ] {
        assert!(
            kinds.iter().any(|k| k.contains(kind)),
            "{kind} is not in {kinds:?}"
        );
    }
}
