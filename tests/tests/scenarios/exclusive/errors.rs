//! ICMP errors of the underlay: a storm of them costs no packets, and a single one proves little.

use geneved::lab::netns::LabNetns;
use geneved::traffic::{EchoRun, TrafficEnds};
use geneved_tests::forged::{ForgedError, Forger, source_ports};
use geneved_tests::packet::{ETHERTYPE_IPV6, RawGeneve, udp};
use geneved_tests::world::{
    Duo, TestBackend, TestDaemon, UnderlayFamily, answers, assert_tcp, link,
};
use geneved_tests::{eventually, on_both_backends};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The range that source ports are drawn from.
const SRCPORT: &str = "srcport = \"40000-60000\"";
const LOW: u16 = 40_000;
/// The port of the flow that is quoted, at both ends.
const FLOW: u16 = 7777;

/// Two daemons with IPv4 and IPv6 inside; host a's link is that of a tenant, where one is named.
fn overlay(
    duo: &Duo,
    io: TestBackend,
    family: UnderlayFamily,
    daemon: &str,
    tenant: Option<&LabNetns>,
) -> [TestDaemon; 2] {
    let start = |side: usize| {
        let remote = Duo::underlay(family, 1 - side);
        let tenant = tenant.filter(|_| side == 0);
        let place = tenant.map(|tenant| format!("\nnetns = \"{}\"", tenant.name()));
        let place = place.unwrap_or_default();
        let more = format!("remote = \"{remote}\"\n{SRCPORT}{place}");
        let addresses = [
            format!("10.0.0.{}/24", side + 1),
            format!("fd00::{}/64", side + 1),
        ];
        let link = link("gnv0", 100, &[&addresses[0], &addresses[1]], &more);
        let host = if side == 0 { &duo.a } else { &duo.b };
        duo.world.daemon(host, io, daemon, &link)
    };
    [start(0), start(1)]
}

/// A datagram of the quoted flow as it leaves host a, without outer headers; with `len` bytes inside.
fn encapsulated(vni: u32, len: usize) -> Vec<u8> {
    let [from, to]: [IpAddr; 2] = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
    let mut header = RawGeneve::new(vni);
    header.protocol = ETHERTYPE_IPV6;
    header.datagram(&udp((from, FLOW), (to, FLOW), &vec![7; len - 48]))
}

/// Sends long datagrams of the quoted flow, so that it is there.
fn talk(duo: &Duo) {
    let open = |at: &str| UdpSocket::bind(SocketAddr::new(at.parse().unwrap(), FLOW));
    let from = duo.a.netns().run(|| open("fd00::1")).unwrap().unwrap();
    let to = duo.b.netns().run(|| open("fd00::2")).unwrap().unwrap();
    to.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    eventually(5, "the flow is there", || {
        let target: SocketAddr = format!("[fd00::2]:{FLOW}").parse().unwrap();
        let _ = from.send_to(&[7; 1350], target);
        to.recv(&mut [0; 2000]).is_ok()
    });
}

/// What the daemon says of the one host that it knows.
fn remote(daemon: &TestDaemon) -> serde_json::Value {
    daemon.json("host show")[0]["remotes"][0].clone()
}

/// How many ICMP errors came to a verdict.
fn judged(daemon: &TestDaemon, verdict: &str) -> u64 {
    daemon.json("host show")[0]["icmp_errors"][verdict]
        .as_u64()
        .unwrap()
}

/// Bytes that wait in the receive and error queues of a host's UDP sockets.
fn queued(duo: &Duo) -> u64 {
    let text = duo.a.exec("ss", &["-Huanm"]).unwrap();
    let of = |line: &str| {
        line.split_once("skmem:(r")?
            .1
            .split(',')
            .next()?
            .parse::<u64>()
            .ok()
    };
    text.lines().filter_map(of).sum()
}

on_both_backends! {
    fn a_storm_of_icmp_errors_costs_nobody_a_packet(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            // A raw socket in the attacked namespace gets all of the storm, and none here.
            let tenant = duo.world.host("t");
            let [mut a, _b] = overlay(&duo, io, family, "", Some(&tenant));
            let ends = ["10.0.0.2", "fd00::2"].map(|address| {
                TrafficEnds::new(tenant.netns(), duo.b.netns(), address.parse().unwrap())
            });
            for ends in &ends {
                eventually(5, "the overlay carries", || answers(ends));
            }
            let ports = source_ports(&duo.a, family == UnderlayFamily::V6, LOW);
            assert!(ports.len() >= 32, "{ports:?}");
            let [victim, to] = [0, 1].map(|side| Duo::underlay(family, side));
            let forger = Forger::new(&duo.b, victim);
            let quoted = encapsulated(100, 1400);
            for rate in [2_500, 10_000] {
                let on = AtomicBool::new(true);
                thread::scope(|scope| {
                    let storm = scope.spawn(|| {
                        forger.storm((to, &ports), &quoted, rate, || on.load(Ordering::Relaxed))
                    });
                    thread::sleep(Duration::from_millis(300));
                    let works = std::panic::catch_unwind(|| calm(&ends));
                    let queued = queued(&duo);
                    on.store(false, Ordering::Relaxed);
                    let sent = storm.join().unwrap();
                    works.unwrap();
                    // Most of it is read as it comes.
                    assert!(queued < 8 << 20, "{queued} bytes after {sent} errors");
                });
            }
            // While nobody reads, the queues hold little.
            let pid = nix::unistd::Pid::from_raw(a.process().pid().cast_signed());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
            let end = std::time::Instant::now() + Duration::from_secs(2);
            forger.storm((to, &ports), &quoted, 20_000, || std::time::Instant::now() < end);
            let queued = queued(&duo);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
            assert!(queued < 8 << 20, "{queued} bytes");
            eventually(5, "it carries on", || answers(&ends[0]));
            calm(&ends);
            a.assert_alive();
        }
    }

    fn a_forged_path_mtu_ends_nothing(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let [a, _b] = overlay(&duo, io, family, "", None);
            let v6 = family == UnderlayFamily::V6;
            let [victim, to] = [0, 1].map(|side| Duo::underlay(family, side));
            let forger = Forger::new(&duo.b, victim);
            let ports = source_ports(&duo.a, v6, LOW);
            let ends = [duo.ends("fd00::2"), duo.ends("10.0.0.2")];
            eventually(5, "the overlay carries", || ends.iter().all(answers));
            let least = if v6 { 1280 } else { 576 };
            let (flow, short) = (encapsulated(100, 1400), encapsulated(100, 200));
            let other = encapsulated(101, 1400);
            let forge = |payload: &[u8], quoted: usize| {
                for &port in &ports {
                    forger.send(ForgedError::TooBig(576), (to, port), payload, quoted);
                }
            };
            let mtu = || remote(&a)["path_mtu"].as_u64();
            // Nothing that long left from anywhere yet.
            forge(&flow, 0);
            // All of them, before anything long leaves.
            let all = || ["not-sent", "fits"].map(|verdict| judged(&a, verdict)).iter().sum::<u64>();
            eventually(5, "they are judged", || all() >= ports.len() as u64);
            assert_eq!(mtu(), None, "nothing was sent");
            let whom: IpAddr = if v6 { "2001:db8::77" } else { "192.0.2.77" }.parse().unwrap();
            talk(&duo);
            let before = judged(&a, "not-sent");
            for &port in &ports {
                forger.send(ForgedError::TooBig(576), (whom, port), &flow, flow.len());
            }
            eventually(5, "it is judged", || judged(&a, "not-sent") >= before + ports.len() as u64);
            forge(&other, other.len());
            eventually(5, "it is judged", || judged(&a, "not-ours") > 0);
            forge(&short, short.len());
            eventually(5, "it is judged", || judged(&a, "fits") > 0);
            assert_eq!(mtu(), None, "about nobody, no link, and what fits");
            // One that may be true is believed, and ends nothing.
            for (payload, quoted, evidence) in [(&flow, flow.len(), "flow"), (&flow, 0, "length")] {
                talk(&duo);
                forge(payload, quoted);
                eventually(5, "it is believed", || mtu() == Some(least));
                let remote = remote(&a);
                let report = &remote["path_mtu_report"];
                assert_eq!(report["evidence"], evidence, "{remote}");
                assert_eq!(report["reported"], 576, "{remote}");
                assert_eq!(report["by"], to.to_string(), "{remote}");
                assert!(report["left_s"].as_u64().unwrap() <= 600, "{remote}");
                for ends in &ends {
                    eventually(5, "it carries on", || answers(ends));
                    assert_tcp(ends, 1, 3_000_000);
                    let long = EchoRun { count: 3, size: 1380, ..EchoRun::default() };
                    eventually(5, "long packets pass in pieces", || {
                        long.run(duo.a.netns(), ends.address).unwrap().all_answered()
                    });
                }
                assert_eq!(mtu(), Some(least));
                assert!(a.cli("host show").contains(&format!("reported 576 by {to}")));
                assert!(a.cli(&format!("host flush {to}")).contains("1 host flushed"));
                assert_eq!(mtu(), None);
                let whole = EchoRun { count: 3, size: 1380, ..EchoRun::default() };
                eventually(5, "long packets pass whole", || {
                    whole.run(duo.a.netns(), ends[0].address).unwrap().all_answered()
                });
                assert_eq!(mtu(), None, "the kernel has it still");
            }
            assert!(a.refused("host flush 192.0.2.99").contains("Cannot find host"));
        }
    }

    fn a_path_mtu_has_its_time_and_its_bound(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let v6 = family == UnderlayFamily::V6;
            let words = if v6 { "ipv6" } else { "ipv4" };
            duo.a.sysctl(&format!("{words}/route/mtu_expires"), "3").unwrap();
            let [a, _b] = overlay(&duo, io, family, "min-path-mtu = 1390", None);
            let [victim, to] = [0, 1].map(|side| Duo::underlay(family, side));
            let forger = Forger::new(&duo.b, victim);
            let ports = source_ports(&duo.a, v6, LOW);
            let ends = duo.ends("fd00::2");
            eventually(5, "the overlay carries", || answers(&ends));
            talk(&duo);
            let flow = encapsulated(100, 1400);
            for &port in &ports {
                forger.send(ForgedError::TooBig(700), (to, port), &flow, flow.len());
            }
            let mtu = || remote(&a)["path_mtu"].as_u64();
            eventually(2, "no less than the operator's bound is believed", || mtu() == Some(1390));
            assert_tcp(&ends, 1, 1_000_000);
            eventually(15, "longer packets are tried again", || mtu().is_none());
            assert!(a.process().log().contains("longer packets are tried again, because its time is over"));
            assert_tcp(&ends, 1, 1_000_000);
        }
    }
}

/// Asserts that pings are answered, all of them, and that connections are made and carry.
fn calm(ends: &[TrafficEnds]) {
    for ends in ends {
        let echo = EchoRun {
            count: 200,
            interval: Duration::from_millis(5),
            timeout: Duration::from_secs(1),
            ..EchoRun::default()
        };
        let report = echo.run(&ends.client, ends.address).unwrap();
        assert!(report.all_answered(), "{}: {report}", ends.address);
        for _ in 0..10 {
            assert_tcp(ends, 1, 100_000);
        }
    }
}
