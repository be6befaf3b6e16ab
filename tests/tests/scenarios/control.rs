//! Links, routes and endpoints added and removed while the daemon runs; several hosts in one VPC.

use std::collections::BTreeSet;

use geneved::lab::netns;
use geneved::traffic::TrafficEnds;
use geneved_tests::on_both_backends;
use geneved_tests::world::{Duo, assert_no_ping, assert_ping, assert_tcp, link};

on_both_backends! {
    fn links_routes_and_endpoints_come_and_go(io) {
        let duo = Duo::new();
        let a = duo.world.daemon(&duo.a, io, "", "");
        let b = duo.world.daemon(&duo.b, io, "", "");
        let ends = duo.ends("10.0.0.2");
        b.cli("link add gnv0 type geneve id 100 remote 192.0.2.1 address 10.0.0.2/24");
        a.cli("link add gnv0 type geneve id 100 address 10.0.0.1/24");
        assert_no_ping(&ends);
        let drops = a.drops();
        assert!(drops.contains_key("gnv0/egress/no-route"), "{drops:?}");

        a.cli("route add 10.0.0.0/24 dev gnv0 via 192.0.2.2");
        assert_ping(&ends);
        assert!(a.json("route show").to_string().contains("10.0.0.0/24"));
        a.cli("route del 10.0.0.0/24 dev gnv0");
        assert_no_ping(&ends);

        a.cli("endpoint add 10.0.0.2 dev gnv0 host 192.0.2.2");
        assert_ping(&ends);
        assert!(a.json("endpoint show").to_string().contains("10.0.0.2"));
        a.cli("endpoint del 10.0.0.2 dev gnv0");
        assert_no_ping(&ends);

        let shown = a.link("gnv0");
        assert_eq!(shown["linkinfo"]["info_data"]["id"], 100, "{shown}");
        a.refused("link add gnv0 type geneve id 101");
        a.refused("link add gnv1 type geneve id 100");
        a.refused("link add gnv1 type geneve id 16777216");
        a.refused("route add 10.0.0.0/24 dev nosuch via 192.0.2.2");
        assert_eq!(a.links(), ["gnv0"]);

        a.cli("link del gnv0");
        assert!(duo.a.ip("link show gnv0").is_err(), "the interface is still there");
        a.refused("link show gnv0");
        a.cli("link add gnv0 type geneve id 100 remote 192.0.2.2 address 10.0.0.1/24");
        assert_ping(&ends);
    }

    fn a_link_is_made_in_a_chosen_namespace(io) {
        let duo = Duo::new();
        let tenant = duo.world.host("t");
        let a = duo.world.daemon(&duo.a, io, "", "");
        let _b = duo.world.daemon(&duo.b, io, "",
            &link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\""));
        a.cli(&format!(
            "link add gnv0 type geneve id 100 remote 192.0.2.2 address 10.0.0.1/24 netns {}",
            tenant.name()
        ));
        let ends = TrafficEnds::new(tenant.netns(), duo.b.netns(), "10.0.0.2".parse().unwrap());
        assert_ping(&ends);
        assert_tcp(&ends, 1, 1_000_000);
        a.cli("link del gnv0");
        assert!(tenant.ip("link show gnv0").is_err(), "the interface is still there");
    }

    /// geneved takes away only what it gave, and a link that is set is as it is set, whoever touched it meanwhile.
    fn an_interface_is_shared_with_ip(io) {
        let duo = Duo::new();
        let a = duo.world.daemon(&duo.a, io, "", "");
        let addresses = || {
            let shown = duo.a.ip("-br -4 address show dev gnv0").unwrap();
            shown.split_whitespace().skip(2).map(str::to_owned).collect::<BTreeSet<_>>()
        };
        let set = |all: &[&str]| all.iter().map(|a| (*a).to_owned()).collect::<BTreeSet<_>>();
        a.cli("link add gnv0 type geneve id 100 remote 192.0.2.2 address 10.0.0.1/24 address 10.0.0.3/24");
        duo.a.ip("address add 10.0.0.77/24 dev gnv0").unwrap();
        duo.a.ip("address add 10.7.0.1/16 dev gnv0").unwrap();
        // The kernel takes the other addresses of a network away with its first one.
        a.cli("link set gnv0 address 10.0.0.3/24");
        assert_eq!(addresses(), set(&["10.0.0.3/24", "10.0.0.77/24", "10.7.0.1/16"]));
        a.cli("link set gnv0 address 10.0.0.4/24 address 10.0.0.5/24 mtu 1400");
        assert_eq!(addresses(), set(&["10.0.0.4/24", "10.0.0.5/24", "10.0.0.77/24", "10.7.0.1/16"]));

        duo.a.ip("address del 10.0.0.5/24 dev gnv0").unwrap();
        duo.a.ip("link set gnv0 down").unwrap();
        a.cli("route add 10.9.0.0/16 dev gnv0 via 192.0.2.2");
        let flags = || duo.a.ip("link show gnv0").unwrap();
        assert!(!flags().contains(",UP"), "{}", flags());
        a.cli("link set gnv0 up");
        assert!(flags().contains(",UP"), "{}", flags());
        assert_eq!(addresses(), set(&["10.0.0.4/24", "10.0.0.5/24", "10.0.0.77/24", "10.7.0.1/16"]));
    }

    /// Replacing gives a link other settings, all of them, and leaves what is on it.
    fn a_link_is_replaced_with_what_is_on_it(io) {
        let duo = Duo::new();
        let a = duo.world.daemon(&duo.a, io, "", "");
        let _b = duo.world.daemon(&duo.b, io, "",
            &link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\""));
        a.cli("link replace gnv0 type geneve id 7 remote 192.0.2.9 rate 1mbit ttl 9");
        a.cli("endpoint add 10.0.0.2 dev gnv0 host 192.0.2.2");
        a.cli("link replace gnv0 type geneve id 100 address 10.0.0.1/24");
        assert_ping(&duo.ends("10.0.0.2"));
        let shown = a.link("gnv0");
        let data = &shown["linkinfo"]["info_data"];
        assert!(data["remote"].is_null() && shown["rate"].is_null() && data["ttl"] == 0, "{shown}");
        // The endpoint's host is of IPv4.
        let told = a.refused("link replace gnv0 type geneve id 100 local 2001:db8::1");
        assert!(told.contains("different families"), "{told}");
        let told = a.refused("link set gnv0 local 2001:db8::1");
        assert!(told.contains("different families"), "{told}");
        assert_ping(&duo.ends("10.0.0.2"));
        a.cli("link replace gnv0 type vxlan mode ethernet id 100 address 10.0.0.1/24");
        assert!(duo.a.ip("-d link show gnv0").unwrap().contains("tun type tap"));
        assert_eq!(a.json("endpoint show").as_array().map(Vec::len), Some(1));
    }

    fn the_longest_prefix_chooses_the_host(io) {
        let duo = Duo::new();
        let c = duo.world.host("c");
        netns::veth(
            (&duo.a, "u1", &["198.51.100.1/24"]),
            (&c, "u0", &["198.51.100.3/24"]),
            1500,
        ).unwrap();
        let a = duo.world.daemon(&duo.a, io, "", &(link("gnv0", 100, &["10.0.0.1/8"], "") + "
            [[route]]
            prefix = \"10.1.0.0/16\"
            dev = \"gnv0\"
            via = [\"192.0.2.2\"]
            [[route]]
            prefix = \"10.1.2.0/24\"
            dev = \"gnv0\"
            via = [\"198.51.100.3\"]
            [[endpoint]]
            address = \"10.1.2.3\"
            dev = \"gnv0\"
            host = [\"192.0.2.2\"]
        "));
        let b = duo.world.daemon(&duo.b, io, "",
            &link("gnv0", 100, &["10.1.0.2/8", "10.1.2.3/32"], "remote = \"192.0.2.1\""));
        let c_daemon = duo.world.daemon(&c, io, "",
            &link("gnv0", 100, &["10.1.2.2/8"], "remote = \"198.51.100.1\""));
        let ends = |address: &str, server: &geneved::lab::netns::LabNetns|
            TrafficEnds::new(duo.a.netns(), server.netns(), address.parse().unwrap());
        for (address, server) in [("10.1.0.2", &duo.b), ("10.1.2.2", &c), ("10.1.2.3", &duo.b)] {
            assert_ping(&ends(address, server));
            assert_tcp(&ends(address, server), 1, 200_000);
        }
        // The endpoint gone, its address is the longer prefix's, and that host does not have it.
        a.cli("endpoint del 10.1.2.3 dev gnv0");
        assert_no_ping(&ends("10.1.2.3", &duo.b));
        assert_ping(&ends("10.1.0.2", &duo.b));
        for daemon in [a, b, c_daemon] {
            daemon.stop();
        }
    }
}
