//! Endpoint types by the real binary: what a packet says that it is for decides where it goes, and lies lead nowhere.

use std::collections::BTreeSet;
use std::time::Duration;

use geneved::lab::netns::veth;
use geneved_tests::on_both_backends;
use geneved_tests::packet::{Parsed, RawGeneve, option};
use geneved_tests::peer::Peer;
use geneved_tests::trio::{EchoConnection, EchoServer, Trio, endpoint};
use geneved_tests::world::{Duo, TestBackend, UnderlayFamily, link};

const SIMPLE: u8 = 0;
const SCALED: u8 = 1;
const GATEWAY: u8 = 2;
const PROXIED_TYPE: u8 = 3;
const HOST_TYPE: u8 = 4;

/// A header whose endpoint option says these types.
fn typed(source: u8, destination: u8) -> RawGeneve {
    RawGeneve {
        options: option(0xff47, 0x01, &[source << 4 | destination, 0, 0, 0]),
        ..RawGeneve::new(100)
    }
}

/// A daemon with these tables, behind whose link two more addresses live, and a peer that says what it likes.
fn peer(io: TestBackend, tables: &str) -> Peer {
    let allowed = "allowed = [\"10.0.0.7/32\", \"10.0.0.9/32\"]\n";
    Peer::on(
        Duo::new(),
        io,
        UnderlayFamily::V4,
        &format!("{allowed}{tables}"),
    )
}

/// Asserts that a packet to `to` of this type is dropped, and that one of no type is not.
fn assert_lie(peer: &Peer, kind: u8, to: &str, reason: &str) {
    let (port, inner) = peer.inner_between(["10.0.0.2", to]);
    peer.assert_vanishes(Some(port), &typed(SIMPLE, kind).datagram(&inner), reason);
    let (port, inner) = peer.inner_between(["10.0.0.2", to]);
    peer.assert_emerges(port, &RawGeneve::new(100).datagram(&inner));
}

on_both_backends! {
    /// What would stay inside is translated because the packet says that it is for a gateway.
    fn a_gateway_translates_what_is_for_it(io) {
        let peer = peer(io, "[[nat]]\nname = \"out\"\ndev = \"gnv0\"\ntype = \"snat\"\nfrom = \"10.0.0.0/24\"\nsource = \"198.51.100.1\"\n");
        let to = ["10.0.0.2", "10.0.0.9"];
        let (port, inner) = peer.inner_between(to);
        let plain = peer.assert_emerges(port, &RawGeneve::new(100).datagram(&inner));
        assert_eq!(Parsed::new(&plain).unwrap().from.to_string(), "10.0.0.2");
        let (port, inner) = peer.inner_between(to);
        let translated = peer.assert_emerges(port, &typed(SIMPLE, GATEWAY).datagram(&inner));
        assert_eq!(Parsed::new(&translated).unwrap().from.to_string(), "198.51.100.1");
        // What lives here is behind no gateway, and who has no rule is none.
        assert_lie(&peer, GATEWAY, "10.0.0.1", "endpoint-type");
        let (port, inner) = peer.inner_between(["172.16.0.2", "10.0.0.9"]);
        peer.assert_vanishes(Some(port), &typed(SIMPLE, GATEWAY).datagram(&inner), "not-gateway");
    }

    /// What would be delivered here goes on into another VPC because the packet says that it is for a proxied endpoint.
    fn a_proxied_endpoint_sends_on_what_is_for_it(io) {
        let tables = endpoint("gnv0", "10.0.0.50", None, "type = \"proxied\"\ntarget = \"172.16.0.3@gnv1\"")
            + &link("gnv1", 200, &["172.16.0.1/24"], "")
            + &endpoint("gnv1", "172.16.0.3", Some("192.0.2.2"), "");
        let peer = peer(io, &tables);
        let to = ["10.0.0.2", "10.0.0.50"];
        let (_, inner) = peer.inner_between(to);
        peer.send(&typed(SIMPLE, PROXIED_TYPE).datagram(&inner));
        let mut bytes = [0; 2000];
        loop {
            // The kernel sends router solicitations of its own accord.
            let len = peer.socket.recv(&mut bytes).expect("it is sent on");
            let words = usize::from(bytes[0] & 0x3f);
            let packet = Parsed::new(&bytes[8 + 4 * words..len]).unwrap();
            if packet.protocol != 17 {
                continue;
            }
            assert_eq!(bytes[4..7], [0, 0, 200], "the VPC of the target");
            assert_eq!(packet.from.to_string(), "172.16.0.1");
            assert_eq!(packet.to.to_string(), "172.16.0.3");
            assert_eq!(packet.udp().unwrap().1, 9);
            break;
        }
        let (port, inner) = peer.inner_between(to);
        peer.assert_emerges(port, &RawGeneve::new(100).datagram(&inner));
        assert_lie(&peer, PROXIED_TYPE, "10.0.0.1", "endpoint-type");
    }

    /// Packets that say what the tables contradict, of their destination or of their source, are dropped.
    fn types_that_contradict_the_tables_are_dropped(io) {
        let tables = endpoint("gnv0", "10.0.0.2", Some("192.0.2.2"), "")
            + &endpoint("gnv0", "10.0.0.60", Some("192.0.2.9"), "type = \"scaled\"\ncolocated = true");
        let peer = peer(io, &tables);
        for (kind, to) in [(SCALED, "10.0.0.60"), (SIMPLE, "10.0.0.7"), (HOST_TYPE, "10.0.0.1")] {
            let (port, inner) = peer.inner_between(["10.0.0.2", to]);
            peer.assert_emerges(port, &typed(SIMPLE, kind).datagram(&inner));
        }
        for (kind, to) in [(SIMPLE, "10.0.0.60"), (SCALED, "10.0.0.7"), (HOST_TYPE, "10.0.0.7"), (HOST_TYPE, "10.0.0.60")] {
            assert_lie(&peer, kind, to, "endpoint-type");
        }
        let (port, inner) = peer.inner_between(["10.0.0.2", "10.0.0.1"]);
        peer.assert_vanishes(Some(port), &typed(SCALED, SIMPLE).datagram(&inner), "endpoint-type");
        // A type that nobody knows.
        peer.assert_drops(&typed(SIMPLE, 9), "option-malformed");
    }

    /// One address on two hosts: flows spread over both and stay; where this host is one of them and preferred, none leaves.
    fn a_scaled_endpoint_is_on_all_of_its_hosts(io) {
        let trio = Trio::new();
        let [a, b, c] = &trio.hosts;
        let net = |own: usize| link("gnv0", 100, &[&format!("10.0.0.{own}/24")], "");
        let at = |own: usize| endpoint("gnv0", &format!("10.0.0.{own}"), Some(&format!("192.0.2.{own}")), "");
        let here = |other: usize| endpoint(
            "gnv0", "10.0.0.50", Some(&format!("192.0.2.{other}")), "type = \"scaled\"\ncolocated = true");
        let scaled = "[[endpoint]]\naddress = \"10.0.0.50\"\ndev = \"gnv0\"\ntype = \"scaled\"\nhost = [\"192.0.2.2\", \"192.0.2.3\"]\n";
        let tables = [
            net(1) + &at(2) + &at(3) + scaled,
            net(2) + &at(1) + &at(3) + &here(3),
            net(3) + &at(1) + &at(2) + &here(2),
        ];
        let daemons = trio.daemons(io, "", [&tables[0], &tables[1], &tables[2]]);
        for host in [b, c] {
            host.ip("address add 10.0.0.50/32 dev lo").unwrap();
        }
        let _servers = [EchoServer::start(b, 7000, "b"), EchoServer::start(c, 7000, "c")];
        let mut talks: Vec<_> = (0..24).map(|_| EchoConnection::open(a, "10.0.0.50:7000").unwrap()).collect();
        let servers = |talks: &[EchoConnection]| talks.iter().map(|t| t.server.clone()).collect::<BTreeSet<_>>();
        assert_eq!(servers(&talks), BTreeSet::from(["b".into(), "c".into()]));
        for talk in &mut talks {
            assert!(talk.carries(20_000), "a flow to {}", talk.server);
        }

        // A machine behind host a has the address, too, and the host prefers it.
        let near = trio.world.host("near");
        veth((a, "x0", &["172.31.0.1/24"]), (&near, "x0", &["172.31.0.2/24"]), 1500).unwrap();
        near.ip("address add 10.0.0.50/32 dev lo").unwrap();
        near.ip("route add default via 172.31.0.1").unwrap();
        a.ip("rule add iif gnv0 lookup 7").unwrap();
        a.ip("route add 10.0.0.50 via 172.31.0.2 table 7").unwrap();
        a.sysctl("ipv4/ip_forward", "1").unwrap();
        for device in ["all", "gnv0"] {
            a.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0").unwrap();
        }
        a.sysctl("ipv4/conf/gnv0/accept_local", "1").unwrap();
        let _near = EchoServer::start(&near, 7000, "near");
        daemons[0].cli("endpoint set 10.0.0.50 dev gnv0 colocated");
        let mut talks: Vec<_> = (0..8).map(|_| EchoConnection::open(a, "10.0.0.50:7000").unwrap()).collect();
        assert_eq!(servers(&talks), BTreeSet::from(["near".into()]));
        assert!(talks[0].carries(200_000) && talks[7].echoes(Duration::from_secs(3)));
        daemons[0].cli("endpoint set 10.0.0.50 dev gnv0 nocolocated");
        let talks: Vec<_> = (0..16).map(|_| EchoConnection::open(a, "10.0.0.50:7000").unwrap()).collect();
        assert_eq!(servers(&talks), BTreeSet::from(["b".into(), "c".into()]));
    }
}
