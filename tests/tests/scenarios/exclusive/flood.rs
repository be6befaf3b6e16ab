//! Flood of a flow table: existing flows survive, with the real binary and a small table.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use geneved_tests::on_both_backends;
use geneved_tests::packet::ip;
use geneved_tests::trio::{EchoConnection, EchoServer};
use geneved_tests::world::{Duo, UnderlayFamily, link};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// So many flows fit.
const TABLE: usize = 2048;
/// Connections that live on.
const CONNECTIONS: usize = 1000;

/// The first segment of a connection that nobody will answer.
fn syn(number: u32) -> Vec<u8> {
    let [from, to]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.77"].map(|text| text.parse().unwrap());
    let (sport, dport) = (
        (1024 + number % 60_000) as u16,
        (1 + number / 60_000) as u16,
    );
    let mut segment = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x20, 0, 0, 0, 0, 0]);
    let sum = geneved_tests::packet::pseudo(from, to, 6, segment.len());
    let check = !(geneved_tests::packet::sum(sum, &segment) as u16);
    segment[16..18].copy_from_slice(&check.to_be_bytes());
    ip(from, to, 6, &segment)
}

on_both_backends! {
    /// Ten times as many half-open connections as the table has room for end none that is established.
    fn a_thousand_connections_live_through_a_flood_of_ten_times_the_table(io) {
        // Both ends of each connection are this process's.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(8192)), hard).unwrap();
        let duo = Duo::new();
        let flows = format!("flows = {TABLE}");
        let start = |side: usize, host| {
            let remote = format!("remote = \"{}\"", Duo::underlay(UnderlayFamily::V4, 1 - side));
            // Nobody answers there, but packets for it are delivered.
            let nobody = ["", "\nallowed = [\"10.0.0.77\"]"][side];
            let link = link("gnv0", 100, &[&format!("10.0.0.{}/24", side + 1)], &(remote + nobody));
            duo.world.daemon(host, io, &flows, &link)
        };
        let daemons = [start(0, &duo.a), start(1, &duo.b)];
        let _server = EchoServer::start(&duo.b, 7000, "b");
        let mut talks: Vec<_> =
            (0..CONNECTIONS).map(|_| EchoConnection::open(&duo.a, "10.0.0.2:7000").unwrap()).collect();
        let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
        let raw = duo.a.netns().run(raw).unwrap().unwrap();
        let nobody: SocketAddr = "10.0.0.77:0".parse().unwrap();
        for number in 0..10 * TABLE as u32 {
            raw.send_to(&syn(number), &nobody.into()).unwrap();
            if number % 64 == 0 {
                // Slower than what a busy machine would lose on the way.
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        for daemon in &daemons {
            let all = daemon.json("flow show dev gnv0");
            let all = all.as_array().unwrap().len();
            assert!((TABLE * 3 / 4..=TABLE).contains(&all), "{all} flows");
            let established = daemon.json("flow show dev gnv0 state established");
            assert_eq!(established.as_array().unwrap().len(), CONNECTIONS);
        }
        for (number, talk) in talks.iter_mut().enumerate() {
            assert!(talk.echoes(Duration::from_secs(3)), "connection {number} is dead");
        }
        // New ones find room, too.
        let mut late = EchoConnection::open(&duo.a, "10.0.0.2:7000").unwrap();
        assert!(late.carries(100_000));
    }
}
