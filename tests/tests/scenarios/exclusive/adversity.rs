//! A bad underlay, a killed daemon, interfaces and namespaces that vanish under load.

use geneved::traffic::{EchoRun, SendAmount, TrafficEnds, UdpBurst};
use geneved_tests::peer::Peer;
use geneved_tests::relay::{ADDRESSES, Impairment, Relay};
use geneved_tests::world::{
    Duo, TestBackend, TestDaemon, TestWorld, UnderlayFamily, assert_ping, assert_tcp, link,
};
use geneved_tests::{eventually, on_both_backends};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

/// A flood that goes on whatever happens to its path.
fn flood(ends: &TrafficEnds, seconds: f64) {
    let burst = UdpBurst {
        size: 800,
        amount: SendAmount::For(Duration::from_secs_f64(seconds)),
        pace: Some(50_000.0),
        verify: false,
        ..UdpBurst::default()
    };
    // The path is taken away from under it, so that it may end with an error.
    let _ = burst.run(ends);
}

fn assert_idle(daemon: &TestDaemon) {
    let before = daemon.cpu();
    thread::sleep(Duration::from_secs(1));
    let used = daemon.cpu() - before;
    assert!(
        used < Duration::from_millis(150),
        "it used {used:?} in an idle second"
    );
}

fn answers(ends: &TrafficEnds) -> bool {
    let echo = EchoRun {
        count: 1,
        timeout: Duration::from_millis(200),
        ..EchoRun::default()
    };
    echo.run(&ends.client, ends.address)
        .is_ok_and(|report| report.all_answered())
}

/// Two links to the other host: `gnv0` (VNI 100, 10.0.0.x) in this namespace, or in another one, and
/// `gnv1` (VNI 101, 10.0.1.x).
fn two_links(duo: &Duo, io: TestBackend, netns: Option<&str>) -> [TestDaemon; 2] {
    let config = |side: usize| {
        let remote = format!("remote = \"192.0.2.{}\"\n", 2 - side);
        let place = netns
            .filter(|_| side == 0)
            .map(|name| format!("netns = \"{name}\"\n"));
        link(
            "gnv0",
            100,
            &[&format!("10.0.0.{}/24", side + 1)],
            &(remote.clone() + &place.unwrap_or_default()),
        ) + &link("gnv1", 101, &[&format!("10.0.1.{}/24", side + 1)], &remote)
    };
    [
        duo.world.daemon(&duo.a, io, "", &config(0)),
        duo.world.daemon(&duo.b, io, "", &config(1)),
    ]
}

on_both_backends! {
    fn tcp_survives_loss_reordering_and_duplication(io) {
        let world = TestWorld::new();
        let (a, middle, b) = (world.host("a"), world.host("m"), world.host("b"));
        let harm = Impairment { loss: 0.01, duplication: 0.01, reorder: 0.02 };
        let relay = Relay::start(&a, &middle, &b, harm);
        let config = |address, remote| link("gnv0", 100, &[address], &format!("remote = \"{remote}\""));
        // Uncut super-packets would be few: here every packet is a frame of its own, that can be harmed.
        let cut = "segmentation = \"gso\"";
        let _a = world.daemon(&a, io, cut, &config("10.0.0.1/24", ADDRESSES[1]));
        let _b = world.daemon(&b, io, cut, &config("10.0.0.2/24", ADDRESSES[2]));
        let ends = TrafficEnds::new(a.netns(), b.netns(), "10.0.0.2".parse().unwrap());
        assert_tcp(&ends, 2, 3_000_000);
        let burst = UdpBurst { pace: Some(10_000.0), ..UdpBurst::default() };
        let report = burst.run(&ends).unwrap();
        assert_eq!(report.corrupted, 0, "{report}");
        assert!(report.loss() < 0.03 && report.loss() > 0.001, "{report}");
        assert!(report.duplicated > 0 && report.reordered > 0, "{report}");
        assert!(relay.harmed() > 100 && relay.forwarded() > 10_000);
    }

    fn a_killed_daemon_comes_back(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            let [mut a, b] = duo.overlay(io, family, "");
            let ends = duo.ends("10.0.0.2");
            assert_ping(&ends);
            thread::scope(|scope| {
                let load = scope.spawn(|| flood(&ends, 3.0));
                thread::sleep(Duration::from_millis(300));
                b.kill();
                load.join().unwrap();
            });
            a.assert_alive();
            let host = a.json("host show");
            let why = host[0]["remotes"][0]["unreachable"].as_str().unwrap_or("");
            assert!(why.contains("no program listens"), "{host}");
            let more = format!("remote = \"{}\"", Duo::underlay(family, 0));
            let config = link("gnv0", 100, &["10.0.0.2/24", "fd00::2/64"], &more);
            let _b = duo.world.daemon(&duo.b, io, "", &config);
            eventually(5, "the overlay carries again", || answers(&ends));
            assert_tcp(&ends, 1, 1_000_000);
            assert_idle(&a);
        }
    }

    fn an_interface_that_vanishes_under_load_harms_no_other(io) {
        let duo = Duo::new();
        let [mut a, mut b] = two_links(&duo, io, None);
        let (ends, other) = (duo.ends("10.0.0.2"), duo.ends("10.0.1.2"));
        assert_ping(&ends);
        thread::scope(|scope| {
            let load = scope.spawn(|| flood(&ends, 1.5));
            thread::sleep(Duration::from_millis(300));
            duo.b.ip("link del gnv0").unwrap();
            thread::sleep(Duration::from_millis(300));
            duo.a.ip("link del gnv0").unwrap();
            load.join().unwrap();
        });
        assert_ping(&other);
        assert_tcp(&other, 1, 1_000_000);
        for daemon in [&mut a, &mut b] {
            daemon.assert_alive();
            daemon.json("-s link show");
            assert_idle(daemon);
        }
        a.stop();
        b.stop();
    }

    fn a_namespace_that_vanishes_under_load_harms_no_other(io) {
        let duo = Duo::new();
        let tenant = duo.world.host("t");
        let [mut a, b] = two_links(&duo, io, Some(tenant.name()));
        let ends = TrafficEnds::new(tenant.netns(), duo.b.netns(), "10.0.0.2".parse().unwrap());
        let back = TrafficEnds::new(duo.b.netns(), tenant.netns(), "10.0.0.1".parse().unwrap());
        assert_ping(&ends);
        thread::scope(|scope| {
            let load = [scope.spawn(|| flood(&ends, 1.0)), scope.spawn(|| flood(&back, 1.0))];
            thread::sleep(Duration::from_millis(300));
            geneved::lab::netns::remove(tenant.name()).unwrap();
            load.into_iter().for_each(|one| one.join().unwrap());
        });
        assert_ping(&duo.ends("10.0.1.2"));
        a.assert_alive();
        a.json("-s link show");
        assert_idle(&a);
        a.cli("link del gnv0");
        a.stop();
        b.stop();
    }

    fn rfc8926_04_a_datagram_after_a_refused_one_is_not_held_back(io) {
        for family in UnderlayFamily::BOTH {
            let duo = Duo::new();
            // Else the kernel itself sends into a new interface.
            duo.a.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
            let more = format!("remote = \"{}\"\nsrcport = \"50000-50000\"", Duo::underlay(family, 1));
            let config = link("gnv0", 100, &["10.0.0.1/24"], &more);
            let _a = duo.world.daemon(&duo.a, io, "", &config);
            let inner = duo.a.netns().run(|| UdpSocket::bind("10.0.0.1:0")).unwrap().unwrap();
            // Nobody listens at the other host: its kernel says so to the socket that sent it.
            inner.send_to(b"refused", "10.0.0.2:9").unwrap();
            thread::sleep(Duration::from_millis(100));
            let peer = Peer::bind(&duo, SocketAddr::new(Duo::underlay(family, 1), 6081));
            inner.send_to(b"awaited", "10.0.0.2:9").unwrap();
            let mut buffer = [0; 2000];
            let came = || peer.recv(&mut buffer).map(|n| buffer[..n].ends_with(b"awaited"));
            assert!(std::iter::repeat_with(came).map_while(Result::ok).any(|right| right), "{family:?}");
        }
    }

    fn an_underlay_that_goes_down_and_up_is_used_again(io) {
        let duo = Duo::new();
        let [mut a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let ends = duo.ends("10.0.0.2");
        assert_ping(&ends);
        thread::scope(|scope| {
            let load = scope.spawn(|| flood(&ends, 1.0));
            thread::sleep(Duration::from_millis(200));
            duo.a.ip("link set u0 down").unwrap();
            load.join().unwrap();
        });
        let drops = a.drops();
        assert!(drops.contains_key("gnv0/egress/underlay-unreachable"), "{drops:?}");
        duo.a.ip("link set u0 up").unwrap();
        eventually(5, "the overlay carries again", || answers(&ends));
        a.assert_alive();
    }
}
