//! Links, routes and endpoints that come and go while the daemon runs; several hosts in one VPC.

use geneved::lab::net;
use geneved::traffic::Ends;
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
        let ends = Ends::new(tenant.netns(), duo.b.netns(), "10.0.0.2".parse().unwrap());
        assert_ping(&ends);
        assert_tcp(&ends, 1, 1_000_000);
        a.cli("link del gnv0");
        assert!(tenant.ip("link show gnv0").is_err(), "the interface is still there");
    }

    fn the_longest_prefix_chooses_the_host(io) {
        let duo = Duo::new();
        let c = duo.world.host("c");
        net::veth(
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
        let ends = |address: &str, server: &geneved::lab::net::Host|
            Ends::new(duo.a.netns(), server.netns(), address.parse().unwrap());
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
