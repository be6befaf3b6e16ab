//! Cost of an idle daemon, with one link and with a thousand.

use geneved::traffic::TrafficEnds;
use geneved_tests::on_both_backends;
use geneved_tests::world::{Duo, TestDaemon, assert_ping, link};
use std::thread;
use std::time::Duration;

const MIB: u64 = 1 << 20;
const SCALE_LINKS: u32 = 1000;
/// An interface group (`ip link set group`) of this scenario's own.
const SCALE_GROUP: u32 = 6081;

/// Asserts that the daemon comes to rest: within some seconds there are two in which it works for `limit` at most.
fn assert_idle(daemon: &TestDaemon, limit: Duration) {
    let mut used = Vec::new();
    for _ in 0..5 {
        let before = daemon.cpu();
        thread::sleep(Duration::from_secs(2));
        used.push(daemon.cpu() - before);
        if used.last() <= Some(&limit) {
            return;
        }
    }
    panic!("an idle daemon used {used:?} of 2 s each");
}

/// Link number `i` and its address on this side.
fn numbered(i: u32, side: usize) -> String {
    let address = format!("10.{}.{}.{}/24", i / 250, i % 250, side + 1);
    link(
        &format!("gnv{i}"),
        i + 1,
        &[&address],
        &format!("remote = \"192.0.2.{}\"", 2 - side),
    )
}

on_both_backends! {
    fn an_idle_daemon_with_one_link_is_small_and_sleeps(io) {
        let duo = Duo::new();
        let daemon = duo.world.daemon(&duo.a, io, "", &numbered(0, 0));
        assert_idle(&daemon, Duration::from_millis(20));
        let resident = daemon.resident();
        assert!(resident <= 64 * MIB, "{} MiB resident", resident / MIB);
    }

    fn a_thousand_vpcs_fit(io) {
        let duo = Duo::new();
        // A fresh interface solicits routers three times, further and further apart: a thousand of
        // them are not idle for a quarter of a minute, whatever the daemon does.
        duo.a.sysctl("ipv6/conf/default/accept_ra", "0").unwrap();
        let links: String = (0..SCALE_LINKS).map(|i| numbered(i, 0)).collect();
        let a = duo.world.daemon(&duo.a, io, "", &links);
        let few: String = [0, SCALE_LINKS / 2, SCALE_LINKS - 1].map(|i| numbered(i, 1)).concat();
        let _b = duo.world.daemon(&duo.b, io, "", &few);
        for i in [0, SCALE_LINKS / 2, SCALE_LINKS - 1] {
            let address = format!("10.{}.{}.2", i / 250, i % 250);
            assert_ping(&TrafficEnds::new(duo.a.netns(), duo.b.netns(), address.parse().unwrap()));
        }
        assert_eq!(a.links().len(), SCALE_LINKS as usize);
        let resident = a.resident();
        assert!(resident <= 1024 * MIB, "{} MiB resident", resident / MIB);
        // What else the kernel sends into fresh interfaces has ended by then.
        thread::sleep(Duration::from_secs(1));
        // 50 µs a second for each link: its neighbours and addresses are looked at once a second.
        assert_idle(&a, Duration::from_millis(100));
        // One by one, as the daemon closes them, the kernel needs 20 ms for each; all at once, less
        // than a second. And the daemon must bear to lose them all.
        let group: String =
            (0..SCALE_LINKS).map(|i| format!("link set dev gnv{i} group {SCALE_GROUP}\n")).collect();
        let batch = std::env::temp_dir().join(duo.world.name("batch"));
        std::fs::write(&batch, group + &format!("link del group {SCALE_GROUP}\n")).unwrap();
        let removed = duo.a.ip(&format!("-batch {}", batch.display()));
        std::fs::remove_file(&batch).unwrap();
        removed.unwrap();
        a.stop();
    }
}
