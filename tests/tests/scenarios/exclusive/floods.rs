//! A greedy sender and a modest one: a flood of one VPC, or of none, costs another VPC no packets.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use geneved::traffic::{SendAmount, TrafficEnds, UdpBurst, UdpReport};
use geneved_tests::eventually;
use geneved_tests::flooder::Flooder;
use geneved_tests::on_both_backends;
use geneved_tests::packet::{RawGeneve, udp};
use geneved_tests::world::{Duo, TestBackend, TestDaemon, UnderlayFamily, assert_ping, link};

/// The VNIs of the modest and of the greedy VPC, and one of which nobody has a link.
const MODEST: u32 = 100;
const GREEDY: u32 = 200;
const NOBODY: u32 = 300;
/// Datagrams in one train of the greedy sender.
const FLOOD_TRAIN: u16 = 40;

/// How a VNI and a packet become a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FloodEncapsulation {
    Geneve,
    Vxlan,
}

impl FloodEncapsulation {
    fn name(self) -> &'static str {
        match self {
            FloodEncapsulation::Geneve => "geneve",
            FloodEncapsulation::Vxlan => "vxlan",
        }
    }

    fn port(self) -> u16 {
        match self {
            FloodEncapsulation::Geneve => 6081,
            FloodEncapsulation::Vxlan => 4789,
        }
    }

    fn datagram(self, vni: u32, packet: &[u8]) -> Vec<u8> {
        match self {
            FloodEncapsulation::Geneve => RawGeneve::new(vni).datagram(packet),
            FloodEncapsulation::Vxlan => {
                let mut bytes = vec![8, 0, 0, 0];
                bytes.extend(&(vni << 8).to_be_bytes());
                bytes.extend([0xff; 6]);
                bytes.extend([2, 0, 0, 0, 0, 9, 8, 0]);
                bytes.extend(packet);
                bytes
            }
        }
    }

    /// A train of datagrams of different flows: none can be merged with the one before.
    fn train(self, vni: u32, from: &str, to: &str) -> Vec<Vec<u8>> {
        let [from, to]: [IpAddr; 2] = [from, to].map(|text| text.parse().unwrap());
        let flow = |number| udp((from, 30_000 + number), (to, 9), &[0x5a; 40]);
        (0..FLOOD_TRAIN)
            .map(|number| self.datagram(vni, &flow(number)))
            .collect()
    }
}

/// Two hosts with two VPCs: 10.0.0.0/24 is the modest one's, 10.0.1.0/24 the greedy one's.
struct FloodedHosts {
    daemons: [TestDaemon; 2],
    duo: Duo,
    family: UnderlayFamily,
    kind: FloodEncapsulation,
}

impl FloodedHosts {
    fn new(
        io: TestBackend,
        family: UnderlayFamily,
        kind: FloodEncapsulation,
        settings: &str,
    ) -> Self {
        let duo = Duo::new();
        let start = |side: usize, host| {
            let remote = format!("remote = \"{}\"", Duo::underlay(family, 1 - side));
            let one = |name, vni, net| {
                let address = format!("10.0.{net}.{}/24", side + 1);
                let table = link(name, vni, &[&address], &remote);
                table.replace("\"geneve\"", &format!("\"{}\"", kind.name()))
            };
            let links = one("modest", MODEST, 0) + &one("greedy", GREEDY, 1);
            duo.world.daemon(host, io, settings, &links)
        };
        let daemons = [start(0, &duo.a), start(1, &duo.b)];
        let crowd = FloodedHosts {
            daemons,
            duo,
            family,
            kind,
        };
        assert_ping(&crowd.back("10.0.0.1"));
        assert_ping(&crowd.back("10.0.1.1"));
        crowd
    }

    /// From host b to this address of host a.
    fn back(&self, address: &str) -> TrafficEnds {
        let (a, b) = (self.duo.a.netns(), self.duo.b.netns());
        TrafficEnds::new(b, a, address.parse().unwrap())
    }

    /// Pours these datagrams into host a's port.
    fn pour(&self, datagrams: &[Vec<u8>]) -> Flooder {
        let from = SocketAddr::new(Duo::underlay(self.family, 1), 0);
        let to = SocketAddr::new(Duo::underlay(self.family, 0), self.kind.port());
        Flooder::start(&self.duo.b, from, to, datagrams)
    }

    /// Datagrams that host a's daemon has looked at.
    fn looked_at(&self) -> u64 {
        let links = self.daemons[0].json("-s link show");
        let links = links.as_array().unwrap();
        let received: u64 = links
            .iter()
            .map(|link| link["stats64"]["rx"]["packets"].as_u64().unwrap())
            .sum();
        received + self.daemons[0].drops().values().sum::<u64>()
    }

    /// Asserts that the modest VPC keeps its packets, both ways, while `flooder` works.
    fn assert_modest_keeps(&self, what: &str, flooder: &Flooder) {
        std::thread::sleep(Duration::from_millis(200));
        let (sent, seen) = (flooder.sent(), self.looked_at());
        for ends in [self.back("10.0.0.1"), self.duo.ends("10.0.0.2")] {
            assert_keeps(what, &ends);
        }
        let (sent, seen) = (flooder.sent() - sent, self.looked_at() - seen);
        eprintln!("{what}: {sent} offered, {seen} looked at");
    }
}

/// A modest sender: a thousand datagrams a second.
fn modest(ends: &TrafficEnds) -> UdpReport {
    let burst = UdpBurst {
        size: 100,
        amount: SendAmount::Count(1500),
        pace: Some(1000.0),
        batch: 1,
        settle: Duration::from_secs(1),
        ..UdpBurst::default()
    };
    burst.run(ends).unwrap()
}

fn assert_keeps(what: &str, ends: &TrafficEnds) {
    let report = modest(ends);
    eprintln!("{what}: to {}: {report}", ends.address);
    assert!(report.loss() < 0.1, "{what}: to {}: {report}", ends.address);
}

on_both_backends! {
    fn another_vpc_is_flooded(io) {
        for (family, settings) in [(UnderlayFamily::V4, "workers = 2"), (UnderlayFamily::V6, "")] {
            let crowd = FloodedHosts::new(io, family, FloodEncapsulation::Geneve, settings);
            let flooder = crowd.pour(&crowd.kind.train(GREEDY, "10.0.1.2", "10.0.1.1"));
            crowd.assert_modest_keeps("another VPC", &flooder);
        }
    }

    fn another_vpc_is_flooded_by_vxlan(io) {
        let crowd = FloodedHosts::new(io, UnderlayFamily::V4, FloodEncapsulation::Vxlan, "");
        let flooder = crowd.pour(&crowd.kind.train(GREEDY, "10.0.1.2", "10.0.1.1"));
        crowd.assert_modest_keeps("another VPC", &flooder);
    }

    /// A second host of the same VPC, 192.0.2.3, is the greedy one; and whoever says that it is one.
    fn another_host_of_the_vpc_floods(io) {
        let crowd = FloodedHosts::new(io, UnderlayFamily::V4, FloodEncapsulation::Geneve, "");
        let greedy: SocketAddr = "192.0.2.3:0".parse().unwrap();
        crowd.duo.b.ip("address add 192.0.2.3/24 dev u0").unwrap();
        let [a, _] = &crowd.daemons;
        a.cli("route add 10.0.0.3/32 dev modest via 192.0.2.3");
        let train = crowd.kind.train(MODEST, "10.0.0.3", "10.0.0.1");
        let to = SocketAddr::new(Duo::underlay(crowd.family, 0), crowd.kind.port());
        let flooder = Flooder::start(&crowd.duo.b, greedy, to, &train);
        crowd.assert_modest_keeps("another host", &flooder);
    }

    /// The greedy link's own programs send as fast as they can.
    fn another_link_sends_without_end(io) {
        let crowd = FloodedHosts::new(io, UnderlayFamily::V4, FloodEncapsulation::Geneve, "");
        let greedy = UdpBurst {
            size: 1000,
            amount: SendAmount::For(Duration::from_secs(6)),
            verify: false,
            ..UdpBurst::default()
        };
        std::thread::scope(|scope| {
            let ends = crowd.duo.ends("10.0.1.2");
            let sending = scope.spawn(move || greedy.run(&ends));
            std::thread::sleep(Duration::from_millis(200));
            assert_keeps("another link", &crowd.duo.ends("10.0.0.2"));
            assert_keeps("another link", &crowd.back("10.0.0.1"));
            eprintln!("another link: {}", sending.join().unwrap().unwrap());
        });
    }

    /// The kernel hands a broadcast datagram to every socket of a port.
    fn a_broadcast_datagram_is_taken_once(io) {
        let crowd = FloodedHosts::new(io, UnderlayFamily::V4, FloodEncapsulation::Geneve, "workers = 2");
        let bind = || UdpSocket::bind("192.0.2.2:0");
        let socket = crowd.duo.b.netns().run(bind).unwrap().unwrap();
        socket.set_broadcast(true).unwrap();
        let before = crowd.looked_at();
        let train = crowd.kind.train(GREEDY, "10.0.1.2", "10.0.1.1");
        for datagram in &train[..5] {
            socket.send_to(datagram, "192.0.2.255:6081").unwrap();
        }
        eventually(5, "they are looked at", || crowd.looked_at() >= before + 5);
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(crowd.looked_at(), before + 5);
    }

    fn vnis_of_nobody_and_garbage_are_poured_in(io) {
        let crowd = FloodedHosts::new(io, UnderlayFamily::V4, FloodEncapsulation::Geneve, "");
        let unknown = crowd.kind.train(NOBODY, "10.0.1.2", "10.0.1.1");
        let garbage: Vec<_> = (0..FLOOD_TRAIN as u8).map(|at| vec![at | 0x80; 100]).collect();
        let short: Vec<_> = (0..FLOOD_TRAIN as u8).map(|at| vec![at; 5]).collect();
        for (what, datagrams) in [("unknown VNI", unknown), ("garbage", garbage), ("short", short)] {
            let flooder = crowd.pour(&datagrams);
            crowd.assert_modest_keeps(what, &flooder);
        }
    }
}
