//! Hairpin: services and port forwards whose backend is on the client's own host. Replies come from the address that
//! the client contacted, in both modes and families.

use geneved::lab::netns::{LabNetns, veth};
use geneved_tests::bridged::Bridged;
use geneved_tests::datagrams::{Asker, Reflector};
use geneved_tests::trio::{EchoConnection, EchoServer, endpoint};
use geneved_tests::world::{Duo, TestBackend, TestDaemon, link};
use geneved_tests::{eventually, on_both_backends};

/// Virtual addresses, and as they stand before a port.
const VIPS: [(&str, &str); 2] = [("10.0.9.9", "10.0.9.9"), ("fd00:9::9", "[fd00:9::9]")];

fn service(name: &str, vip: &str, proto: &str, backend: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\ndev = \"gnv0\"\nvip = \"{vip}\"\nproto = \"{proto}\"\nport = 80\ncheck = \"none\"\n\
         backend = [\"{backend}\"]\n"
    )
}

/// For both families and protocols, in front of these addresses.
fn services(vips: [&str; 2], backends: [&str; 2]) -> String {
    let mut text = String::new();
    for (at, vip) in vips.into_iter().enumerate() {
        for proto in ["tcp", "udp"] {
            text += &service(&format!("{proto}{at}"), vip, proto, backends[at]);
        }
    }
    text
}

/// Host a, which routes for a backend, 10.0.1.5 and fd00:1::5, and a client, 10.0.2.6 and fd00:2::6.
struct RoutedHost {
    backend: LabNetns,
    client: LabNetns,
    daemon: TestDaemon,
    duo: Duo,
}

impl RoutedHost {
    fn new(io: TestBackend, more: &str) -> Self {
        let duo = Duo::new();
        let host = |name: &str, net: usize, own: usize| {
            let made = duo.world.host(name);
            let gateway = [format!("10.0.{net}.1/24"), format!("fd00:{net}::1/64")];
            let address = [
                format!("10.0.{net}.{own}/24"),
                format!("fd00:{net}::{own}/64"),
            ];
            veth(
                (&duo.a, &format!("p{net}"), &[&gateway[0], &gateway[1]]),
                (&made, "e0", &[&address[0], &address[1]]),
                1400,
            )
            .unwrap();
            made.ip(&format!("route add default via 10.0.{net}.1"))
                .unwrap();
            made.ip(&format!("-6 route add default via fd00:{net}::1"))
                .unwrap();
            made
        };
        let (backend, client) = (host("backend", 1, 5), host("client", 2, 6));
        duo.a.sysctl("ipv4/ip_forward", "1").unwrap();
        duo.a.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        let objects = link(
            "gnv0",
            100,
            &["10.0.0.1/24", "fd00::1/64"],
            "remote = \"192.0.2.2\"",
        ) + &endpoint("gnv0", "10.0.1.5", None, "")
            + &endpoint("gnv0", "fd00:1::5", None, "")
            + more;
        let daemon = duo.world.daemon(&duo.a, io, "", &objects);
        for vip in ["10.0.9.0/24", "fd00:9::/64"] {
            duo.a.ip(&format!("route add {vip} dev gnv0")).unwrap();
        }
        RoutedHost {
            backend,
            client,
            daemon,
            duo,
        }
    }
}

/// These clients reach a server by this address; it sees `seen`, and says `name`.
fn assert_served(clients: &[&LabNetns], to: &str, seen: &str, name: &str) {
    for client in clients {
        let mut talk = None;
        eventually(10, &format!("{to} answers"), || {
            talk = EchoConnection::open(client, to).ok();
            talk.is_some()
        });
        let mut talk = talk.unwrap();
        assert_eq!(
            (talk.server.as_str(), talk.seen.ip().to_string().as_str()),
            (name, seen)
        );
        assert!(talk.carries(500_000));
    }
}

on_both_backends! {
    /// Mode ip: the kernel routes between client and backend, and the backend may be its own client, or the host's.
    fn a_routed_backend_answers_its_neighbour_in_the_name_of_the_service(io) {
        let vips = VIPS.map(|(vip, _)| vip);
        let forward = |name: &str, to: &str, target: &str| format!(
            "[[nat]]\nname = \"{name}\"\ndev = \"gnv0\"\ntype = \"dnat\"\nto = \"{to}\"\nproto = \"tcp\"\ndport = 443\ntarget = \"{target}\"\n"
        );
        let more = services(vips, ["10.0.1.5:8080", "[fd00:1::5]:8080"])
            + &forward("four", "10.0.9.10", "10.0.1.5:8080")
            + &forward("six", "fd00:9::10", "[fd00:1::5]:8080");
        let site = RoutedHost::new(io, &more);
        let _server = EchoServer::start(&site.backend, 8080, "backend");
        let _reflector = Reflector::start(&site.backend, 8080);
        let clients = [&site.client, &site.backend, &site.duo.a];
        for (vip, name) in VIPS {
            assert_served(&clients, &format!("{name}:80"), vip, "backend");
            for client in clients {
                let asker = Asker::new(client, &format!("{name}:80"));
                assert_eq!(asker.seen(100).ip().to_string(), vip);
            }
        }
        for (to, name) in [("10.0.9.10", "10.0.9.10"), ("fd00:9::10", "[fd00:9::10]")] {
            assert_served(&clients, &format!("{name}:443"), to, "backend");
        }
        let told = site.daemon.cli("trace from 10.0.2.6 to 10.0.9.9 dev gnv0 egress proto tcp sport 1234 dport 80");
        assert!(told.contains("its source 10.0.2.6 becomes 10.0.9.9 port 1234"), "{told}");
    }

    /// The reason why a backend does not answer reaches the client.
    fn an_error_of_a_neighbour_is_one_of_the_service(io) {
        let more = services(VIPS.map(|(vip, _)| vip), ["10.0.1.5:8081", "[fd00:1::5]:8081"]);
        let site = RoutedHost::new(io, &more);
        for (_, name) in VIPS {
            let closed = Asker::new(&site.client, &format!("{name}:80"));
            eventually(5, "a closed port is reported", || {
                closed.ask(8).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
            });
        }
    }

    /// The service is another host's, which sends the client back to a backend of the client's own host.
    fn what_another_host_relays_back_is_answered_in_the_name_of_the_service(io) {
        let duo = Duo::new();
        let client = duo.world.host("client");
        veth(
            (&duo.b, "p2", &["10.0.2.1/24", "fd00:2::1/64"]),
            (&client, "e0", &["10.0.2.6/24", "fd00:2::6/64"]),
            1400,
        )
        .unwrap();
        client.ip("route add default via 10.0.2.1").unwrap();
        client.ip("-6 route add default via fd00:2::1").unwrap();
        duo.b.sysctl("ipv4/ip_forward", "1").unwrap();
        duo.b.sysctl("ipv6/conf/all/forwarding", "1").unwrap();
        let vips = ["10.0.0.100", "fd00::100"];
        let balancer = link("gnv0", 100, &["10.0.0.1/24", "fd00::1/64"], "remote = \"192.0.2.2\"")
            + &services(vips, ["10.0.0.2:8080", "[fd00::2]:8080"]);
        let _balancer = duo.world.daemon(&duo.a, io, "", &balancer);
        let own = link("gnv0", 100, &["10.0.0.2/24", "fd00::2/64"], "remote = \"192.0.2.1\"")
            + &endpoint("gnv0", vips[0], Some("192.0.2.1"), "")
            + &endpoint("gnv0", vips[1], Some("192.0.2.1"), "");
        let _own = duo.world.daemon(&duo.b, io, "", &own);
        let _server = EchoServer::start(&duo.b, 8080, "backend");
        for vip in vips {
            let name = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
            assert_served(&[&client, &duo.b], &format!("{name}:80"), vip, "backend");
        }
    }

    /// Mode ethernet: both are stations on one bridge, and nothing was heard of the backend before.
    fn a_station_answers_another_of_its_bridge_in_the_name_of_the_service(io) {
        let vips = ["10.0.0.100", "fd00::100"];
        let more = services(vips, ["10.0.0.2:8080", "[fd00::2]:8080"]);
        let a = format!("remote = \"192.0.2.2\"\n{more}");
        let bridged = Bridged::new(io, [&a, "remote = \"192.0.2.1\""]);
        let _server = EchoServer::start(&bridged.stations[1], 8080, "backend");
        let _reflector = Reflector::start(&bridged.stations[1], 8080);
        let clients = [&bridged.stations[0], &bridged.stations[1]];
        for vip in vips {
            let name = if vip.contains(':') { format!("[{vip}]") } else { vip.to_owned() };
            assert_served(&clients, &format!("{name}:80"), vip, "backend");
            for client in clients {
                let asker = Asker::new(client, &format!("{name}:80"));
                assert_eq!(asker.seen(100).ip().to_string(), vip);
            }
        }
    }
}
