//! `geneved monitor`, by the real binary: what is changed, dropped, logged and found out is told as it happens.

use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use geneved_tests::running_command::RunningCommand;
use geneved_tests::world::{Duo, TestBackend, TestDaemon, UnderlayFamily, link};
use geneved_tests::{eventually, on_both_backends};
use serde_json::Value;

/// A monitor that is known to listen.
fn monitor(daemon: &TestDaemon, words: &str) -> RunningCommand {
    let live = RunningCommand::start(daemon, words);
    let mut n = 0;
    eventually(10, "the monitor listens", || {
        n += 1;
        daemon.cli(&format!(
            "option add marker{n} class 0x0109 type 0x01 len 4"
        ));
        daemon.cli(&format!("option del marker{n}"));
        live.any(Duration::from_millis(100))
    });
    live
}

fn json(line: &str) -> Value {
    let all: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(all.as_array().map(Vec::len), Some(1), "{line}");
    all[0].clone()
}

on_both_backends! {
    fn changes_are_told_in_the_words_of_show(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let text = monitor(&a, "monitor");
        let data = monitor(&a, "-j monitor link route endpoint fdb policy option");
        a.cli("route add 10.7.0.0/16 dev gnv0 via 192.0.2.2");
        let shown = a.cli("route show 10.7.0.0/16");
        assert_eq!(text.line(&["10.7.0.0"]), shown.trim_end());
        let event = json(&data.line(&["10.7.0.0"]));
        assert_eq!((&event["object"], &event["change"]), (&"route".into(), &"added".into()));
        assert!(event.get("deleted").is_none() && event["dst"] == "10.7.0.0/16", "{event}");
        a.cli("route set 10.7.0.0/16 dev gnv0 via 192.0.2.9");
        assert!(json(&data.line(&["192.0.2.9"]))["change"] == "changed");
        a.cli("route del 10.7.0.0/16 dev gnv0");
        assert!(text.line(&["Deleted"]).starts_with("Deleted 10.7.0.0/16 dev gnv0 via 192.0.2.9"));
        assert_eq!(json(&data.line(&["deleted"]))["deleted"], true);
        a.cli("policy add p dev gnv0 egress proto tcp dport 1 deny");
        assert_eq!(json(&data.line(&["policy"]))["name"], "p");
        a.cli("link add gnv1 type geneve id 7");
        assert_eq!(json(&data.line(&["gnv1"]))["linkinfo"]["info_data"]["id"], 7);
        a.cli("endpoint add 10.1.0.1 dev gnv1 local");
        a.cli("link del gnv1");
        data.line(&["endpoint", "\"deleted\":true", "10.1.0.1"]);
        let event = json(&data.line(&["\"object\":\"link\"", "\"deleted\":true"]));
        assert_eq!(event["ifname"], "gnv1");
        assert!(event["ifindex"].as_u64() > Some(0), "{event}");
        a.cli("link add gnv2 type geneve id 8 mode ethernet");
        a.cli("fdb add 02:00:00:00:00:07 dev gnv2 dst 192.0.2.2");
        let shown = a.cli("fdb show 02:00:00:00:00:07 dev gnv2");
        assert_eq!(text.line(&["02:00:00:00:00:07"]), shown.trim_end());
        let event = json(&data.line(&["02:00:00:00:00:07"]));
        assert_eq!((&event["object"], &event["change"]), (&"fdb".into(), &"added".into()));
        assert_eq!((&event["dst"], &event["state"]), (&"192.0.2.2".into(), &"permanent".into()));
        a.cli("fdb del 02:00:00:00:00:07 dev gnv2");
        assert!(text.line(&["Deleted 02:00"]).starts_with("Deleted 02:00:00:00:00:07 dev gnv2 dst 192.0.2.2"));
        assert_eq!(json(&data.line(&["\"object\":\"fdb\"", "\"deleted\":true"]))["ifname"], "gnv2");
    }

    fn drops_are_told_with_their_reason_their_number_and_one_of_them(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        a.cli("policy add no dev gnv0 egress proto udp dport 4242 deny");
        let text = RunningCommand::start(&a, "-ts monitor drop");
        let socket = duo.a.netns().run(|| UdpSocket::bind("10.0.0.1:5151")).unwrap().unwrap();
        let enough = AtomicBool::new(false);
        let line = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !enough.load(Relaxed) {
                    let _ = socket.send_to(b"x", "10.0.0.2:4242");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let line = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| text.line(&["policy-denied"])));
            enough.store(true, Relaxed);
            line.unwrap()
        });
        let head = ["dev gnv0 egress policy-denied count ", "proto udp from 10.0.0.1:5151 to 10.0.0.2:4242 len 29"];
        assert!(head.iter().all(|words| line.contains(words)), "{line}");
        assert!(line.starts_with("[20"), "{line}");
        let counted = a.drops()["gnv0/egress/policy-denied"];
        let told: u64 = line.split(' ').skip_while(|w| *w != "count").nth(1).unwrap().parse().unwrap();
        assert!(told > 0 && told <= counted, "{told} of {counted}");
    }
}

#[test]
fn rules_that_log_and_backends_that_fail_are_told() {
    let duo = Duo::new();
    let service = "[[service]]\nname = \"web\"\ndev = \"gnv0\"\nvip = \"10.0.0.80\"\nproto = \"tcp\"\nport = 80\nbackend = [\"10.0.0.2:9\"]\ncheck = \"tcp\"\n";
    let rule = "[[policy]]\nname = \"watched\"\ndev = \"gnv0\"\ndirection = \"egress\"\nproto = \"tcp\"\ndport = \"7\"\naction = \"reject\"\nlog = true\n";
    let tables = link("gnv0", 100, &["10.0.0.1/24"], "remote = \"192.0.2.2\"") + rule;
    let a = duo.world.daemon(&duo.a, TestBackend::Uring, "", &tables);
    let _b = duo.world.daemon(
        &duo.b,
        TestBackend::Uring,
        "",
        &link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\""),
    );
    // Until the addresses that the kernel makes are known, tables are published anew, and rules of old ones have no name.
    std::thread::sleep(Duration::from_secs(3));
    let all = monitor(&a, "-j monitor");
    let _ = duo
        .a
        .netns()
        .run(|| TcpStream::connect("10.0.0.2:7"))
        .unwrap();
    let event = json(&all.line(&["\"object\":\"log\""]));
    assert_eq!(
        (&event["rule"], &event["verdict"]),
        (&"watched".into(), &"reject".into())
    );
    assert_eq!(
        (&event["dst"], &event["dport"]),
        (&"10.0.0.2".into(), &7.into())
    );
    let path = a.process().site().config();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + service).unwrap();
    a.cli("reload");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let event = json(&all.line(&["object"]));
        match event["object"].as_str() {
            Some("service") => assert_eq!(event["change"], "added"),
            // One host was there before the other.
            Some("host")
                if event["what"]
                    .as_str()
                    .is_some_and(|what| what.ends_with("reachable")) =>
            {
                continue;
            }
            Some("host") => assert_eq!(event["what"], "reloaded"),
            Some("health") => assert_eq!(
                (&event["health"], &event["port"]),
                (&"down".into(), &9.into())
            ),
            _ => continue,
        }
        seen.push(event);
    }
    let refused = a.refused("monitor lnik");
    assert!(refused.contains("did you mean \"link\""), "{refused}");
}
