//! Delivery from a link in mode ip: nothing reaches an address that is not behind it, neither its host nor another
//! VPC.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use geneved::lab::netns::LabNetns;
use geneved::traffic::{EchoRun, TrafficEnds};
use geneved_tests::shell::Shell;
use geneved_tests::trio::{EchoConnection, EchoServer, Trio};
use geneved_tests::world::{TestBackend, TestDaemon, link};
use geneved_tests::{eventually, on_both_backends};

const NOT_HERE_NAME: &str = "destination-not-here";

/// A tenant of VPC 100 in a namespace of its own on host a; host b with links into VPC 100 and VPC 200 in its own namespace,
/// whose kernel forwards; and host c in VPC 200.
struct VpcTenants {
    daemons: [TestDaemon; 3],
    tenant: LabNetns,
    trio: Trio,
}

impl VpcTenants {
    fn new(io: TestBackend) -> Self {
        let trio = Trio::new();
        let [_, b, c] = &trio.hosts;
        let tenant = trio.world.host("tenant");
        let side = |name: &str, id: u32, net: u32, own: u32, remote: u32, more: &str| {
            let addresses = [
                format!("10.{net}.0.{own}/24"),
                format!("fd00:{net}::{own}/64"),
            ];
            let more = format!("remote = \"192.0.2.{remote}\"\n{more}");
            link(name, id, &addresses.each_ref().map(String::as_str), &more)
        };
        let netns = format!("netns = \"{}\"\n", tenant.name());
        let tables = [
            side("gnv0", 100, 0, 1, 2, &netns),
            side("gnv0", 100, 0, 2, 1, "") + &side("blue", 200, 20, 2, 3, ""),
            side("blue", 200, 20, 3, 2, ""),
        ];
        let daemons = trio.daemons(io, "", tables.each_ref().map(String::as_str));
        for family in ["-4", "-6"] {
            tenant
                .ip(&format!("{family} route add default dev gnv0"))
                .unwrap();
        }
        b.sysctl("ipv4/ip_forward", "1").unwrap();
        b.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        // What the host has of its own.
        for address in ["169.254.169.254/32", "2001:db8:77::2/128"] {
            b.ip(&format!("address add {address} dev lo")).unwrap();
        }
        // The way back, so that nothing but the delivery is in the way.
        c.ip("route add 10.0.0.0/24 dev blue").unwrap();
        c.ip("-6 route add fd00:0::/64 dev blue").unwrap();
        VpcTenants {
            daemons,
            tenant,
            trio,
        }
    }

    fn b(&self) -> &LabNetns {
        &self.trio.hosts[1]
    }

    /// Whether one echo request of the tenant is answered.
    fn reaches(&self, address: &str) -> bool {
        answers(&self.tenant, self.b(), address)
    }

    /// How many packets for VPC 100 were not delivered on host b.
    fn not_here(&self) -> u64 {
        not_here(&self.daemons[1])
    }

    /// Asserts that a packet for this address is dropped on host b, for this reason.
    #[track_caller]
    fn assert_barred(&self, address: &str) {
        let before = self.not_here();
        assert!(!self.reaches(address), "{address} answers");
        assert!(self.not_here() > before, "{address}: {:?}", self.drops());
    }

    fn drops(&self) -> BTreeMap<String, u64> {
        self.daemons[1].drops()
    }
}

fn answers(from: &LabNetns, to: &LabNetns, address: &str) -> bool {
    let ends = TrafficEnds::new(from.netns(), to.netns(), address.parse().unwrap());
    let one = EchoRun {
        count: 1,
        timeout: Duration::from_millis(400),
        ..EchoRun::default()
    };
    one.run(&ends.client, ends.address)
        .is_ok_and(|report| report.all_answered())
}

fn not_here(daemon: &TestDaemon) -> u64 {
    let drops = &daemon.link("gnv0")["drops"]["ingress"];
    drops[NOT_HERE_NAME].as_u64().unwrap_or(0)
}

/// Addresses of host b that are not of the link, of VPC 200, and of another host there.
const ELSEWHERE_ADDRESSES: [&str; 7] = [
    "192.0.2.2",
    "169.254.169.254",
    "10.20.0.2",
    "10.20.0.3",
    "2001:db8:77::2",
    "fd00:20::2",
    "fd00:20::3",
];

on_both_backends! {
    fn a_tenant_reaches_neither_the_host_nor_another_vpc(io) {
        let tenants = VpcTenants::new(io);
        let _server = EchoServer::start(tenants.b(), 7000, "b");
        for address in ["10.0.0.2", "fd00:0::2"] {
            eventually(10, "the link's own address answers", || tenants.reaches(address));
        }
        assert_eq!(tenants.not_here(), 0);
        for address in ELSEWHERE_ADDRESSES {
            tenants.assert_barred(address);
        }
        assert!(EchoConnection::open(&tenants.tenant, "192.0.2.2:7000").is_err());
        // Broadcasts, but for that of the link's own network.
        let socket = tenants.tenant.netns().run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
        socket.set_broadcast(true).unwrap();
        for (to, delivered) in [("255.255.255.255:9", false), ("10.20.0.255:9", false), ("10.0.0.255:9", true)] {
            let before = (tenants.not_here(), received(&tenants.daemons[1]));
            socket.send_to(b"hear, hear", to).unwrap();
            eventually(5, &format!("{to} comes"), || {
                (tenants.not_here(), received(&tenants.daemons[1])) != before
            });
            assert_eq!(tenants.not_here() == before.0, delivered, "{to}");
        }
        // The operator is told, with the word for it.
        eventually(10, "the log tells", || {
            let log = tenants.daemons[1].process().log();
            log.contains("link set gnv0 allowed") && log.contains(" allowed 192.0.2.2/32")
        });
        let shell = Shell::beside(&tenants.daemons[1], tenants.b());
        let checked = shell.types("geneved check | grep -E '^(delivery|forwarding)'");
        assert!(checked.contains("forwarding   no  links \"blue\" and \"gnv0\" are in the host's network namespace"), "{checked}");
        assert!(checked.contains("net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0"), "{checked}");
        assert_eq!(checked.matches("came for link \"gnv0\"").count(), 1, "{checked}");
        assert!(checked.contains(" allowed 192.0.2.2/32"), "{checked}");
        let told = tenants.daemons[1].cli("trace dev gnv0 ingress from 10.0.0.1 to 10.20.0.3 proto tcp dport 80");
        assert!(told.contains("10.20.0.3 is not behind the link") && told.ends_with("drop destination-not-here\n"), "{told}");
        // The command that is named opens all of it, and then there is nothing more to tell.
        let command = checked.split('"').find(|words| words.starts_with("geneved ") && words.contains(" link set gnv0")).unwrap();
        let _ = shell.types(command);
        for address in ["192.0.2.2", "169.254.169.254", "2001:db8:77::2"] {
            assert!(tenants.reaches(address), "{command}: {address}: {:?}", tenants.drops());
        }
        let checked = shell.types("geneved check");
        assert!(!checked.contains("came for link \"gnv0\""), "{checked}");
        // What is behind this host must not be led into the link, and nobody is told to.
        let told = tenants.daemons[1].cli("trace dev gnv0 egress from 10.0.0.2 to 192.0.2.2 proto tcp dport 80");
        assert!(told.contains("the kernel must not route it into the link") && !told.contains("route add"), "{told}");
        let told = tenants.daemons[1].cli("trace dev gnv0 ingress from 10.0.0.1 to 10.0.0.255 proto udp dport 9");
        assert!(told.contains("whoever listens to it") && !told.contains("again"), "{told}");
        let told = tenants.daemons[1].cli("trace dev gnv0 egress from 198.51.100.9 to 10.0.0.1 proto tcp dport 80");
        assert!(told.contains("to 198.51.100.9 will be dropped") && told.contains(" allowed 198.51.100.9/32"), "{told}");
    }

    fn allowed_opens_what_it_names_and_nothing_else(io) {
        let tenants = VpcTenants::new(io);
        let b = &tenants.daemons[1];
        let _server = EchoServer::start(tenants.b(), 7000, "b");
        eventually(10, "the link's own address answers", || tenants.reaches("10.0.0.2"));
        for address in ELSEWHERE_ADDRESSES {
            let len = if address.contains(':') { 128 } else { 32 };
            b.cli(&format!("link set gnv0 allowed {address}/{len}"));
            // Another VPC answers if it may, too.
            b.cli("link set blue allowed 10.0.0.0/24 allowed fd00::/64");
            assert!(tenants.reaches(address), "{address}: {:?}", tenants.drops());
            for other in ELSEWHERE_ADDRESSES.iter().filter(|other| **other != address) {
                tenants.assert_barred(other);
            }
        }
        b.cli("link set gnv0 allowed 192.0.2.2/32");
        let mut talk = EchoConnection::open(&tenants.tenant, "192.0.2.2:7000").unwrap();
        assert!(talk.carries(100_000));
        // A flow that exists ends with what allowed it.
        b.cli("link set gnv0 allowed none");
        assert!(!talk.echoes(Duration::from_secs(1)));
        tenants.assert_barred("192.0.2.2");
        let saved = b.cli("save");
        assert!(saved.contains("allowed = [\"10.0.0.0/24\", \"fd00::/64\"]"), "{saved}");
    }

    fn addresses_that_others_give_and_take_are_followed(io) {
        let tenants = VpcTenants::new(io);
        let host = tenants.b();
        let _server = EchoServer::start(host, 7000, "b");
        eventually(10, "the link's own address answers", || tenants.reaches("10.0.0.2"));
        for (address, name) in [("10.0.0.77/32", "10.0.0.77"), ("fd00:0::77/128", "[fd00:0::77]")] {
            let plain = address.split('/').next().unwrap();
            // The host has it, but not for the link.
            host.ip(&format!("address add {address} dev lo")).unwrap();
            tenants.assert_barred(plain);
            host.ip(&format!("address add {address} dev gnv0")).unwrap();
            eventually(5, "the address is the link's", || tenants.reaches(plain));
            let mut talk = EchoConnection::open(&tenants.tenant, &format!("{name}:7000")).unwrap();
            assert!(talk.carries(100_000));
            host.ip(&format!("address del {address} dev gnv0")).unwrap();
            eventually(5, "the address is not the link's any more", || !tenants.reaches(plain));
            assert!(!talk.echoes(Duration::from_secs(1)));
            tenants.assert_barred(plain);
        }
        // In another namespace, too.
        let before = not_here(&tenants.daemons[0]);
        assert!(!answers(host, &tenants.tenant, "10.0.0.88"));
        assert!(not_here(&tenants.daemons[0]) > before);
        tenants.tenant.ip("address add 10.0.0.88/32 dev gnv0").unwrap();
        eventually(5, "the tenant's new address answers", || answers(host, &tenants.tenant, "10.0.0.88"));
    }
}

/// Packets that came into the link.
fn received(daemon: &TestDaemon) -> u64 {
    let packets = &daemon.link("gnv0")["stats64"]["rx"]["packets"];
    packets.as_u64().unwrap()
}
