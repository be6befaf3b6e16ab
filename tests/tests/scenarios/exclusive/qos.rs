//! Rate limits: their effect on TCP, the order of waiting packets, and what happens to them.

use std::time::Duration;

use geneved::traffic::{EchoRun, SendAmount, TcpBulk, TcpReport, TrafficEnds, UdpBurst};
use geneved_tests::world::{Duo, TestDaemon, UnderlayFamily, assert_ping};
use geneved_tests::{eventually, on_both_backends};

/// Bits a second that the limits allow.
const LIMIT_BITS: f64 = 50e6;
/// Bytes that pass at once: the usual burst, for the first transfer that meets a limit.
const BURST_BITS: f64 = 25e-3 * LIMIT_BITS;

/// A TCP stream with this congestion control, and the median time of an echo beside it.
fn beside_tcp(duo: &Duo, control: &'static str, address: &str) -> (TcpReport, Duration) {
    let ends: TrafficEnds = duo.ends(address);
    let bulk = TcpBulk {
        amount: SendAmount::For(Duration::from_secs(3)),
        verify: false,
        congestion: Some(control),
        ..TcpBulk::default()
    };
    let echo = EchoRun {
        count: 40,
        interval: Duration::from_millis(50),
        timeout: Duration::from_secs(1),
        ..EchoRun::default()
    };
    std::thread::scope(|scope| {
        let stream = scope.spawn(|| bulk.run(&ends).unwrap());
        let echo = echo.run(&ends.client, ends.address).unwrap();
        (stream.join().unwrap(), echo.times.median())
    })
}

/// Whatever the congestion control, TCP gets the rate, and echoes beside it do not wait behind it.
fn assert_tcp_gets_the_rate(duo: &Duo, address: &str) {
    for control in ["bbr", "cubic", "reno"] {
        let (report, echo) = beside_tcp(duo, control, address);
        let bits = report.bytes as f64 * 8.0;
        let seconds = report.elapsed.as_secs_f64();
        assert!(bits >= 0.8 * LIMIT_BITS * seconds, "{control}: {report}");
        assert!(
            bits <= LIMIT_BITS * (seconds + 0.2) + BURST_BITS,
            "{control}: {report}"
        );
        assert!(echo <= Duration::from_millis(40), "{control}: {echo:?}");
    }
}

fn backlog(daemon: &TestDaemon) -> u64 {
    daemon.json("-s qos show dev gnv0")[0]["backlog_bytes"]
        .as_u64()
        .unwrap()
}

on_both_backends! {
    fn tcp_gets_the_rate_of_a_class_and_of_a_receiving_link(io) {
        let duo = Duo::new();
        let [a, b] = duo.overlay(io, UnderlayFamily::V4, "");
        a.cli("qos add bulk dev gnv0 id 1 rate 50mbit");
        a.cli("policy add bulk dev gnv0 egress allow class bulk");
        assert_tcp_gets_the_rate(&duo, "10.0.0.2");
        let class = &a.json("qos show dev gnv0")[0];
        assert!(class["passed_bytes"].as_u64() > Some(30_000_000), "{class}");
        // The same on the way in, of a host that others send too much.
        a.cli("policy del bulk dev gnv0");
        b.cli("link set gnv0 rate 50mbit");
        assert_tcp_gets_the_rate(&duo, "fd00::2");
        // What did not fit the queue, or was too much for too long.
        assert!(b.drops().keys().all(|drop| drop == "gnv0/ingress/rate-exceeded"), "{:?}", b.drops());
    }

    fn frames_are_held_to_a_rate_and_arp_is_not_lost_over_it(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V6, "mode = \"ethernet\"\nrate = \"50mbit\"");
        let (report, _) = beside_tcp(&duo, "cubic", "10.0.0.2");
        assert!(report.rate().gigabits() * 1e9 >= 0.8 * LIMIT_BITS, "{report}");
        for _ in 0..3 {
            duo.a.ip("neigh flush dev gnv0").unwrap();
            let (report, echo) = beside_tcp(&duo, "bbr", "10.0.0.2");
            assert!(report.bytes > 0 && echo <= Duration::from_millis(40), "{report}, {echo:?}");
        }
        drop(a);
    }

    fn what_waits_leaves_with_its_limit_or_is_dropped_with_its_link(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        a.cli("qos add slow dev gnv0 id 1 rate 10kbit burst 2k");
        a.cli("policy add slow dev gnv0 egress proto udp allow class slow");
        let burst = UdpBurst {
            size: 1200,
            amount: SendAmount::For(Duration::from_secs(1)),
            pace: Some(1000.0),
            verify: false,
            ..UdpBurst::default()
        };
        burst.run(&duo.ends("10.0.0.2")).unwrap();
        // The queue holds 16 KiB, which last 13 seconds.
        assert!(backlog(&a) > 1200, "{}", a.cli("-s qos show"));
        assert!(a.drops()["gnv0/egress/rate-exceeded"] > 500, "{:?}", a.drops());
        // Who has no rate does not wait.
        assert_ping(&duo.ends("10.0.0.2"));
        a.cli("qos set slow dev gnv0 rate none");
        eventually(10, "nothing waits for a rate that is gone", || backlog(&a) == 0);
        a.cli("qos set slow dev gnv0 rate 10kbit burst 2k");
        burst.run(&duo.ends("10.0.0.2")).unwrap();
        assert!(backlog(&a) > 1200);
        a.cli("link del gnv0");
        a.cli("link add gnv0 type geneve id 100 remote 192.0.2.2 address 10.0.0.1/24");
        eventually(10, "the link that took its place works", || {
            geneved_tests::world::answers(&duo.ends("10.0.0.2"))
        });
    }
}
