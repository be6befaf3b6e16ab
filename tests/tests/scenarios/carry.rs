//! The overlay carries traffic: both underlay families, both inner families, both backends.

use geneved::lab::netns::LabNetns;
use geneved::traffic::{Pattern, TrafficEnds};
use geneved_tests::on_both_backends;
use geneved_tests::packet::{RawGeneve, udp};
use geneved_tests::sniffer::Sniffer;
use geneved_tests::world::{
    Duo, TestBackend, TestWorld, UnderlayFamily, assert_no_ping, assert_ping, assert_tcp,
    assert_udp, link,
};
use nix::sys::socket::{setsockopt, sockopt};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

fn carry(io: TestBackend, family: UnderlayFamily) {
    let duo = Duo::new();
    let [a, b] = duo.overlay(io, family, "");
    for address in ["10.0.0.2", "fd00::2"] {
        let ends = duo.ends(address);
        assert_ping(&ends);
        assert_tcp(&ends, 2, 10_000_000);
        // The last size is cut into fragments by the inner kernel.
        for size in [16, 64, 1200, 3000] {
            assert_udp(&ends, size);
        }
    }
    let back = TrafficEnds::new(duo.b.netns(), duo.a.netns(), "10.0.0.1".parse().unwrap());
    assert_ping(&back);
    assert_tcp(&back, 1, 10_000_000);
    let stats = &a.link("gnv0")["stats64"];
    for direction in ["rx", "tx"] {
        assert!(stats[direction]["packets"].as_u64() > Some(1000), "{stats}");
        assert!(
            stats[direction]["bytes"].as_u64() > Some(10_000_000),
            "{stats}"
        );
    }
    a.stop();
    b.stop();
    assert!(
        duo.a.ip("link show gnv0").is_err(),
        "the interface is still there after the daemon's end"
    );
}

/// Two hosts on each of which two VPCs live in namespaces of their own.
struct NetnsTenants {
    /// `[VPC][host]`
    hosts: [[LabNetns; 2]; 2],
    duo: Duo,
}

impl NetnsTenants {
    fn new() -> Self {
        let duo = Duo::new();
        let hosts = [
            [duo.world.host("1a"), duo.world.host("1b")],
            [duo.world.host("2a"), duo.world.host("2b")],
        ];
        Self { hosts, duo }
    }

    fn config(&self, side: usize) -> String {
        let mut text = String::new();
        for (vpc, name) in [(0, "gnv1"), (1, "gnv2")] {
            let more = format!(
                "remote = \"192.0.2.{}\"\nnetns = \"{}\"",
                2 - side,
                self.hosts[vpc][side].name()
            );
            let address = format!("10.0.0.{}/24", side + 1);
            writeln!(text, "{}", link(name, vpc as u32 + 1, &[&address], &more)).unwrap();
        }
        text
    }

    fn ends(&self, vpc: usize) -> TrafficEnds {
        let [a, b] = &self.hosts[vpc];
        TrafficEnds::new(a.netns(), b.netns(), "10.0.0.2".parse().unwrap())
    }

    fn world(&self) -> &TestWorld {
        &self.duo.world
    }
}

on_both_backends! {
    fn ipv4_underlay(io) {
        carry(io, UnderlayFamily::V4);
    }

    fn ipv6_underlay(io) {
        carry(io, UnderlayFamily::V6);
    }

    fn two_workers_keep_each_flow_in_order(io) {
        let duo = Duo::new();
        let config = |side: usize| {
            let address = format!("10.0.0.{}/24", side + 1);
            link("gnv0", 100, &[&address], &format!("remote = \"192.0.2.{}\"", 2 - side))
        };
        let _a = duo.world.daemon(&duo.a, io, "workers = 2", &config(0));
        let _b = duo.world.daemon(&duo.b, io, "workers = 2", &config(1));
        let ends = duo.ends("10.0.0.2");
        assert_ping(&ends);
        assert_tcp(&ends, 4, 10_000_000);
        assert_udp(&ends, 200);
        assert_tcp(&TrafficEnds::new(duo.b.netns(), duo.a.netns(), "10.0.0.1".parse().unwrap()), 4, 1_000_000);
    }

    fn a_udp_super_packet_arrives_as_its_datagrams(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let _daemons = duo.overlay(io, family, "");
            for address in ["10.0.0.2", "fd00::2"] {
                let to = SocketAddr::new(address.parse().unwrap(), 9000);
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let receiver = duo.b.netns().run(|| UdpSocket::bind(to)).unwrap().unwrap();
                let sender = duo.a.netns().run(|| UdpSocket::bind(any)).unwrap().unwrap();
                receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                for (segment, total) in [(1000_usize, 30_000_usize), (1200, 1201), (100, 6_350), (8, 1024)] {
                    setsockopt(&sender, sockopt::UdpGsoSegment, &(segment as i32)).unwrap();
                    let mut sent = vec![0; total];
                    Pattern::new(total as u64).fill(&mut sent);
                    assert_eq!(sender.send_to(&sent, to).unwrap(), total);
                    let mut buffer = [0; 2000];
                    for expected in sent.chunks(segment) {
                        let n = receiver.recv(&mut buffer).expect("it arrives");
                        assert_eq!(&buffer[..n], expected, "{segment} of {total} to {address}");
                    }
                }
            }
        }
    }

    fn rfc8926_41_equal_addresses_in_two_vpcs_do_not_touch_each_other(io) {
        let tenants = NetnsTenants::new();
        let _a = tenants.world().daemon(&tenants.duo.a, io, "", &tenants.config(0));
        let b = tenants.world().daemon(&tenants.duo.b, io, "", &tenants.config(1));
        assert!(tenants.duo.a.ip("link show gnv1").is_err(), "the TUN is in the daemon's namespace");
        let other = Sniffer::new(tenants.hosts[1][1].netns(), "gnv2");
        assert_ping(&tenants.ends(0));
        assert_tcp(&tenants.ends(0), 1, 1_000_000);
        let strayed = other.all(Duration::from_millis(100), |bytes| {
            (bytes[0] >> 4 == 4).then(|| bytes.to_vec())
        });
        assert!(strayed.is_empty(), "VPC 2 saw {} packets of VPC 1", strayed.len());
        assert_ping(&tenants.ends(1));
        b.cli("link del gnv2");
        assert_no_ping(&tenants.ends(1));
        assert_ping(&tenants.ends(0));
    }

    fn rfc8926_42_a_tenants_own_geneve_packet_is_payload(io) {
        let tenants = NetnsTenants::new();
        let _a = tenants.world().daemon(&tenants.duo.a, io, "", &tenants.config(0));
        let _b = tenants.world().daemon(&tenants.duo.b, io, "", &tenants.config(1));
        let ends = tenants.ends(0);
        let receiver = ends.server.run(|| UdpSocket::bind("10.0.0.2:6081")).unwrap().unwrap();
        let sender = ends.client.run(|| UdpSocket::bind("10.0.0.1:6081")).unwrap().unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let [from, to]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        // Meant to break out into the other VPC.
        let escape = RawGeneve::new(2).datagram(&udp((from, 7), (to, 9), b"out of my VPC"));
        let other = Sniffer::new(tenants.hosts[1][1].netns(), "gnv2");
        sender.send_to(&escape, "10.0.0.2:6081").unwrap();
        let mut buffer = [0; 2000];
        let n = receiver.recv(&mut buffer).expect("the datagram arrives as it is");
        assert_eq!(&buffer[..n], escape);
        assert!(other.find(Duration::from_millis(150), |b| (b[0] >> 4 == 4).then_some(())).is_none());
    }

    fn rfc8926_40_geneve_packets_are_never_handed_to_a_tenant(io) {
        // The tenant's TUN is in the daemon's own namespace: what is addressed to the Geneve port
        // there reaches the daemon, and is not from a host that it knows.
        let duo = Duo::new();
        let [_a, b] = duo.overlay(io, UnderlayFamily::V4, "");
        assert_ping(&duo.ends("10.0.0.2"));
        let sender = duo.a.netns().run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
        let [from, to]: [IpAddr; 2] = ["10.0.0.9", "10.0.0.2"].map(|text| text.parse().unwrap());
        let forged = RawGeneve::new(100).datagram(&udp((from, 7), (to, 9), b"forged"));
        let tun = Sniffer::new(duo.b.netns(), "gnv0");
        let before = b.drops();
        sender.send_to(&forged, "10.0.0.2:6081").unwrap();
        geneved_tests::eventually(3, "the forged packet is counted", || b.drops() != before);
        let forged = tun.find(Duration::from_millis(150), |bytes| {
            let packet = geneved_tests::packet::Parsed::new(bytes)?;
            (packet.from == from).then_some(())
        });
        assert!(forged.is_none(), "a tenant's packet was taken for the underlay's");
    }

    fn rfc8926_38_a_vxlan_device_of_the_kernel_works_beside_it(io) {
        let duo = Duo::new();
        let _daemons = duo.overlay(io, UnderlayFamily::V4, "");
        for (side, host) in [&duo.a, &duo.b].into_iter().enumerate() {
            let (here, there) = (side + 1, 2 - side);
            for command in [
                format!("link add vx0 type vxlan id 100 local 192.0.2.{here} remote 192.0.2.{there} dstport 4789"),
                format!("address add 10.0.1.{here}/24 dev vx0"),
                "link set vx0 up".to_owned(),
            ] {
                host.ip(&command).unwrap();
            }
        }
        for address in ["10.0.0.2", "10.0.1.2"] {
            assert_ping(&duo.ends(address));
            assert_tcp(&duo.ends(address), 1, 1_000_000);
        }
    }
}
