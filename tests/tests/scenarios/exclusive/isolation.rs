//! No tenant wraps packets for another: outer datagrams, and ICMP errors about those that were sent, are believed from
//! interfaces of the underlay only. And what no network carries comes out of no link.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use geneved::lab::netns::LabNetns;
use geneved_tests::packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Parsed, RawGeneve, ip, sum, udp};
use geneved_tests::peer::{INNER6, Peer};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::world::{Duo, TestBackend, TestDaemon, UnderlayFamily, answers, link};
use geneved_tests::{eventually, on_both_backends};

/// Packets of an attack.
const COUNT: u64 = 20;
/// How long something that must not come is waited for.
const ISOLATION_SILENCE: Duration = Duration::from_millis(200);
/// EtherType of frames in Geneve.
const FRAME_ETHERTYPE: u16 = 0x6558;
/// MAC addresses: of the interface out of which the attack comes, of the victim's, of whoever sends.
const THIEF: [u8; 6] = [2, 0, 0, 0, 0, 0x64];
const VICTIM: [u8; 6] = [2, 0, 0, 0, 0, 0xc8];
const ISOLATION_SENDER: [u8; 6] = [2, 0, 0, 0, 0, 0x0b];

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ethernet(to: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let ether_type = ether_type.to_be_bytes();
    [&to[..], &ISOLATION_SENDER, &ether_type, payload].concat()
}

/// Host a with two VPCs: 100, whose tenants on host b send what they like, and 200, into which they must not get. Host b is
/// a socket.
struct IsolatedHost {
    daemon: TestDaemon,
    socket: UdpSocket,
    victim: Sniffer,
    vxlan: bool,
    ethernet: bool,
    family: UnderlayFamily,
    duo: Duo,
}

impl IsolatedHost {
    /// `vxlan` is what VPC 200 is wrapped in, `ethernet` the mode of the link of VPC 100.
    fn new(io: TestBackend, family: UnderlayFamily, vxlan: bool, ethernet: bool) -> IsolatedHost {
        let duo = Duo::new();
        for setting in ["all", "default", "u0"] {
            duo.a
                .sysctl(&format!("ipv4/conf/{setting}/rp_filter"), "0")
                .unwrap();
        }
        let remote = Duo::underlay(family, 1);
        let socket = Peer::bind(&duo, SocketAddr::new(remote, 6081));
        // Even a link that delivers there lets nobody wrap packets.
        let here = Duo::underlay(family, 0);
        let mode = match ethernet {
            true => "mode = \"ethernet\"\nlladdr = \"02:00:00:00:00:64\"".to_owned(),
            false => format!("allowed = [\"{here}\"]"),
        };
        let thief = link(
            "gnv0",
            100,
            &["10.0.0.1/24", "fd00::1/64"],
            &format!("remote = \"{remote}\"\n{mode}"),
        );
        let victim = link(
            "gnv1",
            200,
            &["10.2.0.1/24"],
            &format!("remote = \"{remote}\""),
        );
        let victim = match vxlan {
            true => victim.replace("\"geneve\"", "\"vxlan\"") + "lladdr = \"02:00:00:00:00:c8\"\n",
            false => victim,
        };
        let daemon = duo.world.daemon(&duo.a, io, "", &(thief + &victim));
        let victim = Sniffer::new(duo.a.netns(), "gnv1");
        IsolatedHost {
            daemon,
            socket,
            victim,
            vxlan,
            ethernet,
            family,
            duo,
        }
    }

    fn port(&self) -> u16 {
        if self.vxlan { 4789 } else { 6081 }
    }

    /// What host b sends to VPC 200, from this inner UDP port.
    fn good(&self, port: u16) -> Vec<u8> {
        let inner = udp((addr("10.2.0.2"), port), (addr("10.2.0.1"), 9), &[0x5a; 40]);
        match self.vxlan {
            true => [
                &[8, 0, 0, 0, 0, 0, 200, 0][..],
                &ethernet(VICTIM, ETHERTYPE_IPV4, &inner),
            ]
            .concat(),
            false => RawGeneve::new(200).datagram(&inner),
        }
    }

    /// The same, wrapped by a tenant of VPC 100: it leaves `gnv0` for host a's own underlay address.
    fn wrapped(&self, port: u16, to: [u8; 6]) -> Vec<u8> {
        let [from, here] = [1, 0].map(|side| Duo::underlay(self.family, side));
        let outer = udp((from, 4000), (here, self.port()), &self.good(port));
        let protocol = match self.family {
            UnderlayFamily::V4 => ETHERTYPE_IPV4,
            UnderlayFamily::V6 => ETHERTYPE_IPV6,
        };
        let (protocol, payload) = match self.ethernet {
            false => (protocol, outer),
            true => (FRAME_ETHERTYPE, ethernet(to, protocol, &outer)),
        };
        RawGeneve {
            protocol,
            ..RawGeneve::new(100)
        }
        .datagram(&payload)
    }

    fn send(&self, datagram: &[u8], port: u16) {
        let to = SocketAddr::new(Duo::underlay(self.family, 0), port);
        self.socket
            .send_to(datagram, to)
            .expect("the underlay takes it");
    }

    /// Whether anything from these inner ports comes out of the victim's link.
    fn arrives(&self, ports: Range<u16>) -> bool {
        let came = self.victim.find(ISOLATION_SILENCE, |bytes| {
            let (from, _, _) = Parsed::new(bytes)?.udp()?;
            ports.contains(&from).then_some(())
        });
        came.is_some()
    }

    /// What the underlay brings arrives.
    #[track_caller]
    fn assert_open(&self) {
        eventually(5, "ordinary traffic arrives", || {
            self.send(&self.good(7000), self.port());
            self.arrives(7000..7001)
        });
    }

    /// What was dropped as not from the underlay: at the link that it came out of, and where no link is known.
    fn counted(&self) -> [u64; 2] {
        let drops = self.daemon.drops();
        ["gnv0", "-"].map(|link| {
            let name = format!("{link}/ingress/not-from-underlay");
            drops.get(&name).copied().unwrap_or(0)
        })
    }

    /// Probes until the daemon knows that what comes by a device came out of the link.
    #[track_caller]
    fn probe(&self, name: &str, to: [u8; 6]) {
        // The kernel may lose the first packets through a device that is new; what it carries is counted before the next
        // one is sent.
        eventually(10, &format!("{name}: it is known"), || {
            let before = self.counted();
            self.send(&self.wrapped(8999, to), 6081);
            let deadline = Instant::now() + Duration::from_secs(1);
            while self.counted() == before && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            self.counted()[0] > before[0]
        });
    }

    /// None of an attack by a device that belongs to the link since it was made arrives, not even the first packet, and
    /// each is counted once, at the link that it came out of.
    #[track_caller]
    fn assert_closed(&self, name: &str, to: [u8; 6]) {
        self.probe(name, to);
        assert!(!self.arrives(8999..9000), "{name}");
        self.assert_known(name, to);
    }

    /// The same where a device was one of the underlay before: from when the daemon has heard of the change.
    #[track_caller]
    fn assert_closes(&self, name: &str, to: [u8; 6]) {
        self.probe(name, to);
        self.assert_known(name, to);
    }

    #[track_caller]
    fn assert_known(&self, name: &str, to: [u8; 6]) {
        let [before, unknown] = self.counted();
        let ports = 9000..9000 + COUNT as u16;
        for port in ports.clone() {
            self.send(&self.wrapped(port, to), 6081);
        }
        eventually(5, &format!("{name}: all are counted"), || {
            self.counted()[0] >= before + COUNT
        });
        assert!(!self.arrives(ports), "{name}");
        assert_eq!(self.counted(), [before + COUNT, unknown], "{name}");
    }
}

/// The MAC address of an interface.
fn lladdr(host: &LabNetns, device: &str) -> [u8; 6] {
    let text = host.ip(&format!("-j link show {device}")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mac = json[0]["address"].as_str().unwrap();
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|b| u8::from_str_radix(b, 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

on_both_backends! {
    fn what_a_tenant_wraps_does_not_get_into_another_vpc(io) {
        for family in UnderlayFamily::BOTH {
            for (vxlan, ethernet) in [(false, false), (false, true), (true, false), (true, true)] {
                let site = IsolatedHost::new(io, family, vxlan, ethernet);
                site.assert_open();
                let name = format!("{family:?} vxlan {vxlan} ethernet {ethernet}");
                site.assert_closed(&name, THIEF);
                site.duo.a.sysctl("ipv4/conf/gnv0/rp_filter", "2").unwrap();
                site.assert_closed(&name, THIEF);
                site.assert_open();
                let drops = site.daemon.drops();
                assert!(!drops.keys().any(|name| name.starts_with("gnv1/ingress")), "{drops:?}");
                let log = site.daemon.process().log();
                assert!(log.contains("by gnv0 and not from the underlay"), "{log}");
            }
        }
    }

    fn devices_above_a_link_are_no_underlay(io) {
        for family in UnderlayFamily::BOTH {
            let site = IsolatedHost::new(io, family, false, true);
            let a = &site.duo.a;
            site.assert_open();
            a.ip("link add link gnv0 name mac0 type macvlan mode bridge").unwrap();
            a.ip("link set mac0 up").unwrap();
            a.sysctl("ipv4/conf/mac0/rp_filter", "0").unwrap();
            site.assert_open();
            site.assert_closed("a macvlan", lladdr(a, "mac0"));
            a.ip("link del mac0").unwrap();
            // A link that was renamed is the same.
            a.ip("link set gnv0 down").unwrap();
            a.ip("link set gnv0 name blue").unwrap();
            a.ip("link set blue up").unwrap();
            site.assert_open();
            let before: u64 = site.counted().iter().sum();
            site.send(&site.wrapped(9500, THIEF), 6081);
            assert!(!site.arrives(9500..9501));
            eventually(5, "it is counted", || site.counted().iter().sum::<u64>() == before + 1);
        }
    }

    fn a_bridge_with_a_tap_is_no_underlay(io) {
        let site = IsolatedHost::new(io, UnderlayFamily::V4, false, true);
        let a = &site.duo.a;
        a.ip("link add br0 type bridge").unwrap();
        a.ip("link set br0 up").unwrap();
        a.ip("link set gnv0 master br0").unwrap();
        site.assert_open();
        site.assert_closes("a bridge", lladdr(a, "br0"));
        // What hangs on another port of the bridge by a veth.
        a.ip("link add v0 type veth peer name v1").unwrap();
        for command in ["link set v0 up", "link set v1 up", "link set v0 master br0"] {
            a.ip(command).unwrap();
        }
        a.sysctl("ipv4/conf/v1/rp_filter", "0").unwrap();
        site.assert_open();
        site.assert_closes("a veth on a bridge", lladdr(a, "v1"));
    }

    fn a_bridge_of_underlay_and_link_is_refused(io) {
        let duo = Duo::new();
        let remote = "remote = \"192.0.2.2\"\n";
        let a = duo.world.daemon(&duo.a, io, "", &link("gnv0", 100, &["10.0.0.1/24"], remote));
        let _b = duo.world.daemon(&duo.b, io, "", &link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\"\n"));
        let ends = duo.ends("10.0.0.2");
        eventually(5, "the overlay carries", || answers(&ends));
        a.cli("link add tap0 type geneve id 200 mode ethernet");
        for command in [
            "link add br0 type bridge",
            "address del 192.0.2.1/24 dev u0",
            "address add 192.0.2.1/24 dev br0",
            "link set br0 up",
            "link set u0 master br0",
        ] {
            duo.a.ip(command).unwrap();
        }
        eventually(10, "the underlay may be a bridge", || answers(&ends));
        duo.a.ip("link set tap0 master br0").unwrap();
        let cause = || a.link("gnv0")["cause"].as_str().unwrap_or_default().to_owned();
        eventually(10, "it is said of the link", || {
            cause().contains("through br0, of which link \"tap0\" is a port")
        });
        assert!(!answers(&ends));
        assert!(a.process().log().contains("take one of them out of br0"));
        let refused = a.refused("link add gnv5 type geneve id 500 remote 192.0.2.2");
        assert!(refused.contains("of which link \"tap0\" is a port"), "{refused}");
        duo.a.ip("link set tap0 nomaster").unwrap();
        eventually(10, "it carries again", || answers(&ends));
        assert_eq!(cause(), "");
    }

    fn a_tunnel_in_a_tunnel_carries_as_it_is_configured(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let start = |side: usize, host| {
                let remote = Duo::underlay(family, 1 - side);
                let (here, there) = (side + 1, 2 - side);
                let outer = link("gnv0", 100, &[&format!("10.0.0.{here}/24")], &format!("remote = \"{remote}\""));
                let inner = link("gnv1", 200, &[&format!("10.2.0.{here}/24")], &format!("remote = \"10.0.0.{there}\""));
                duo.world.daemon(host, io, "", &(outer + &inner))
            };
            let [a, _b] = [start(0, &duo.a), start(1, &duo.b)];
            eventually(10, "the inner tunnel carries", || answers(&duo.ends("10.2.0.2")));
            // Until the kernel's route into gnv0 is heard of, nobody is behind it.
            let counted = || {
                let drops = a.drops();
                drops.get("gnv0/ingress/not-from-underlay").copied().unwrap_or(0)
            };
            let before = counted();
            for _ in 0..20 {
                assert!(answers(&duo.ends("10.2.0.2")));
            }
            assert_eq!(counted(), before);
            // A third VPC is not behind gnv0.
            a.cli("link add gnv2 type geneve id 300 remote 192.0.2.2 address 10.3.0.1/24");
            let socket = duo.b.netns().run(|| UdpSocket::bind("10.0.0.2:0")).unwrap().unwrap();
            let inner = udp((addr("10.3.0.2"), 1), (addr("10.3.0.1"), 9), &[0; 8]);
            socket.send_to(&RawGeneve::new(300).datagram(&inner), "10.0.0.1:6081").unwrap();
            eventually(5, "it is dropped", || counted() == before + 1);
        }
    }

    fn an_own_datagram_is_not_from_the_underlay(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "");
        peer.assert_passes(&RawGeneve::new(100));
        let (port, inner) = peer.inner();
        let own = peer.duo.a.netns().run(|| UdpSocket::bind("127.0.0.1:0")).unwrap().unwrap();
        own.send_to(&RawGeneve::new(100).datagram(&inner), "127.0.0.1:6081").unwrap();
        eventually(5, "it is counted", || {
            peer.daemon.drops().get("-/ingress/not-from-underlay") == Some(&1)
        });
        assert!(peer.emerged(port, ISOLATION_SILENCE).is_none());
    }

    fn an_icmp_error_out_of_a_link_is_not_believed(io) {
        for family in UnderlayFamily::BOTH {
            let site = IsolatedHost::new(io, family, false, false);
            // The ports that the daemon sends from: those of what host b gets.
            let underlay = Sniffer::new(site.duo.b.netns(), "u0");
            let to = addr("10.0.0.2");
            let _ = geneved::traffic::EchoRun {
                count: 1,
                timeout: Duration::from_millis(50),
                ..geneved::traffic::EchoRun::default()
            }
            .run(site.duo.a.netns(), to);
            let [there, here] = [1, 0].map(|side| Duo::underlay(family, side));
            let port = underlay.find(Duration::from_secs(3), |bytes| {
                let (from, to, _) = Parsed::new(bytes)?.udp()?;
                (to == 6081).then_some(from)
            });
            let port = port.expect("it sends");
            let quoted = udp((here, port), (there, 6081), &RawGeneve::new(100).datagram(&[0; 64]));
            let protocol = if family == UnderlayFamily::V4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
            let header = RawGeneve { protocol, ..RawGeneve::new(100) };
            // A flow of the VPC, so that an error about it is let into the link.
            site.send(&header.datagram(&udp((there, 6081), (here, port), &[0; 8])), 6081);
            for _ in 0..3 {
                site.send(&header.datagram(&port_unreachable(there, here, &quoted)), 6081);
            }
            eventually(5, "they are counted", || {
                site.daemon.drops().get("-/ingress/not-from-underlay").copied().unwrap_or(0) >= 3
            });
            let remotes = site.daemon.json("host show")[0]["remotes"].clone();
            assert_eq!(remotes[0]["unreachable"], serde_json::Value::Null, "{remotes}");
        }
    }

    fn what_no_network_carries_comes_out_of_no_link(io) {
        let peer = Peer::new(io, UnderlayFamily::V4, "");
        let gone = |[from, to]: [&str; 2], reason: &str| {
            let (port, inner) = peer.inner_between([from, to]);
            let protocol = if from.contains(':') { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let header = RawGeneve { protocol, ..RawGeneve::new(100) };
            peer.assert_vanishes(Some(port), &header.datagram(&inner), reason);
        };
        for addresses in [["::ffff:10.0.0.2", "fd00::1"], ["fd00::2", "::ffff:10.0.0.1"]] {
            gone(addresses, "mapped-address");
        }
        for addresses in [["127.0.0.1", "10.0.0.1"], ["10.0.0.2", "127.0.0.1"], ["::1", "fd00::1"], ["fd00::2", "::1"]] {
            gone(addresses, "loopback-address");
        }
        for addresses in [
            ["224.0.0.5", "10.0.0.1"],
            ["255.255.255.255", "10.0.0.1"],
            ["10.0.0.255", "10.0.0.1"],
            ["0.0.0.0", "10.0.0.1"],
            ["ff02::1", "fd00::1"],
            ["::", "fd00::1"],
        ] {
            gone(addresses, "source-not-unicast");
        }
        let [from, to] = INNER6.map(addr);
        for kind in [0, 3, 4] {
            let (port, plain) = peer.inner_between(INNER6);
            let routing = [&[17, 0, kind, 0, 0, 0, 0, 0][..], &plain[40..]].concat();
            let header = RawGeneve { protocol: ETHERTYPE_IPV6, ..RawGeneve::new(100) };
            peer.assert_vanishes(Some(port), &header.datagram(&ip(from, to, 43, &routing)), "source-route");
        }
        for kind in [131, 137] {
            let (port, plain) = peer.inner();
            let options = [1, kind, 7, 4, 10, 0, 0, 9];
            let routed = with_options(&plain, options);
            peer.assert_vanishes(Some(port), &RawGeneve::new(100).datagram(&routed), "source-route");
        }
        // Other options, and other extension headers, pass.
        let (port, plain) = peer.inner();
        let noted = with_options(&plain, [1, 7, 7, 4, 0, 0, 0, 0]);
        peer.assert_emerges(port, &RawGeneve::new(100).datagram(&noted));
    }
}

/// The same IPv4 packet with 8 bytes of options.
fn with_options(plain: &[u8], options: [u8; 8]) -> Vec<u8> {
    let mut bytes = [&plain[..20], &options, &plain[20..]].concat();
    bytes[0] = 0x47;
    let len = (bytes.len() as u16).to_be_bytes();
    bytes[2..4].copy_from_slice(&len);
    bytes[10..12].fill(0);
    let check = !(sum(0, &bytes[..28]) as u16);
    bytes[10..12].copy_from_slice(&check.to_be_bytes());
    bytes
}

/// An ICMP error: nobody listens where `quoted` went.
fn port_unreachable(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let (protocol, kind, code, base) = match from {
        IpAddr::V4(_) => (1, 3, 3, 0),
        IpAddr::V6(_) => (
            58,
            1,
            4,
            geneved_tests::packet::pseudo(from, to, 58, 8 + quoted.len()),
        ),
    };
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0][..], quoted].concat();
    let check = !(sum(base, &message) as u16);
    message[2..4].copy_from_slice(&check.to_be_bytes());
    ip(from, to, protocol, &message)
}
