//! Backends that fail and recover, with the real binary between three hosts.

use std::time::{Duration, Instant};

use geneved_tests::on_both_backends;
use geneved_tests::trio::{EchoConnection, EchoServer, Trio, endpoint};
use geneved_tests::world::{TestDaemon, link};

/// What `service show` says of the backend at `address`: its health, and why it is down.
fn health(daemon: &TestDaemon, address: &str) -> (String, String) {
    let services = daemon.json("service show web dev gnv0");
    let backends = services[0]["backend"].as_array().unwrap();
    let backend = backends.iter().find(|b| b["address"] == address).unwrap();
    let text = |key: &str| backend[key].as_str().unwrap_or_default().to_owned();
    (text("health"), text("reason"))
}

fn wait_for(daemon: &TestDaemon, address: &str, state: &str) -> String {
    let start = Instant::now();
    loop {
        let (is, reason) = health(daemon, address);
        if is == state {
            return reason;
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{address} is {is}, not {state}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The servers that so many new connections reach.
fn reached(from: &geneved::lab::netns::LabNetns, count: usize) -> Vec<String> {
    let server = |_| EchoConnection::open(from, "10.0.0.100:80").unwrap().server;
    (0..count).map(server).collect()
}

on_both_backends! {
    /// A backend whose server ends gets nothing more, what it had is told so, and it comes back with its server.
    fn flows_leave_a_backend_that_fails_and_come_back_to_it(io) {
        let trio = Trio::new();
        let [a, b, c] = &trio.hosts;
        let net = |own: usize| link("gnv0", 100, &[&format!("10.0.0.{own}/24")], "");
        let at = |address: &str, host: usize| endpoint("gnv0", address, Some(&format!("192.0.2.{host}")), "");
        let vip = at("10.0.0.100", 2);
        let service = "[[service]]\nname = \"web\"\ndev = \"gnv0\"\nvip = \"10.0.0.100\"\nproto = \"tcp\"\nport = 80\n\
            check = \"tcp\"\ninterval = 0.2\ntimeout = 0.2\nfall = 2\nrise = 2\n\
            backend = [\"10.0.0.2:7000\", \"10.0.0.3:7000\"]\n";
        let tables = [
            net(1) + &at("10.0.0.3", 3) + &at("10.0.0.2", 2) + &vip,
            net(2) + &at("10.0.0.1", 1) + &at("10.0.0.3", 3) + service,
            net(3) + &at("10.0.0.1", 1) + &at("10.0.0.2", 2) + &vip,
        ];
        let daemons = trio.daemons(io, "", [&tables[0], &tables[1], &tables[2]]);
        let balancer = &daemons[1];
        let _near = EchoServer::start(b, 7000, "b");
        let far = EchoServer::start(c, 7000, "c");
        wait_for(balancer, "10.0.0.2", "up");
        wait_for(balancer, "10.0.0.3", "up");
        let mut talks: Vec<_> = (0..16).map(|_| EchoConnection::open(a, "10.0.0.100:80").unwrap()).collect();
        assert!(talks.iter().any(|t| t.server == "b") && talks.iter().any(|t| t.server == "c"));

        drop(far);
        let reason = wait_for(balancer, "10.0.0.3", "down");
        assert_eq!(reason, "connection refused");
        assert!(reached(a, 8).iter().all(|server| server == "b"));
        for talk in &mut talks {
            let lives = talk.echoes(Duration::from_secs(2));
            assert_eq!(lives, talk.server == "b", "a flow to {}", talk.server);
        }

        let far = EchoServer::start(c, 7000, "c");
        wait_for(balancer, "10.0.0.3", "up");
        assert!(reached(a, 16).iter().any(|server| server == "c"));

        // What nobody checks any more counts as up, also where it was found down.
        drop(far);
        wait_for(balancer, "10.0.0.3", "down");
        balancer.cli("service set web dev gnv0 check none");
        assert_eq!(health(balancer, "10.0.0.3").0, "unknown");
        let _far = EchoServer::start(c, 7000, "c");
        assert!(reached(a, 16).iter().any(|server| server == "c"));
    }
}
