//! Metrics as Prometheus gets them, from the real binary under traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use geneved::observe::metrics::ALL;
use geneved_tests::scrape::{ask, get, idle, names, promtool, scrape, series};
use geneved_tests::world::{Duo, TestBackend, TestDaemon, assert_ping, assert_udp, link};
use geneved_tests::{eventually, on_both_backends};
use libgeneve::drop::DropReason;
use serde_json::Value;

/// Shown only where the underlay reported a path MTU, or a neighbour's question was answered; the tests of MTUs and of
/// Ethernet links look at them.
const RARE: [&str; 4] = [
    "geneved_host_path_mtu_bytes",
    "geneved_consumed_packets_total",
    // Once a proxied endpoint has had clients.
    "geneved_stand_in_ports_in_use",
    "geneved_stand_in_ports_limit",
];

fn socket(duo: &Duo) -> PathBuf {
    std::env::temp_dir().join(duo.world.name("metrics"))
}

/// Two hosts; host a has one of everything that is counted, and serves metrics.
fn busy(duo: &Duo, io: TestBackend) -> [TestDaemon; 2] {
    let functions = r#"
        [[qos]]
        name = "gold"
        dev = "gnv0"
        id = 1
        rate = "1gbit"
        [[policy]]
        name = "gold"
        dev = "gnv0"
        direction = "egress"
        proto = "udp"
        action = "allow"
        class = "gold"
        [[policy]]
        name = "no-ssh"
        dev = "gnv0"
        direction = "egress"
        pref = 5
        proto = "tcp"
        dport = "22"
        action = "reject"
        [[nat]]
        name = "out"
        dev = "gnv0"
        type = "snat"
        from = "10.9.0.0/24"
        source = "10.0.0.77"
        [[service]]
        name = "web"
        dev = "gnv0"
        vip = "10.0.0.80"
        proto = "tcp"
        port = 80
        backend = ["10.0.0.2:8080", { address = "10.0.0.3", port = 8080, weight = 0 }]
        [[option]]
        name = "colour"
        class = "0x0108"
        type = "0x01"
        len = 4
    "#;
    let daemon = format!(
        "metrics-socket = \"{}\"\nmetrics = \"127.0.0.1:9481\"",
        socket(duo).display()
    );
    let remote = |host| format!("remote = \"{host}\"");
    let a = link("gnv0", 100, &["10.0.0.1/24"], &remote("192.0.2.2"))
        + functions
        + &link("gnv1", 101, &[], "mode = \"ethernet\"");
    let b = link("gnv0", 100, &["10.0.0.2/24"], &remote("192.0.2.1"));
    [
        duo.world.daemon(&duo.a, io, &daemon, &a),
        duo.world.daemon(&duo.b, io, "", &b),
    ]
}

/// Pings, datagrams, and connections that a rule rejects.
fn traffic(duo: &Duo) {
    assert_ping(&duo.ends("10.0.0.2"));
    assert_udp(&duo.ends("10.0.0.2"), 400);
    let refused = duo
        .a
        .netns()
        .run(|| TcpStream::connect("10.0.0.2:22"))
        .unwrap();
    assert!(refused.is_err());
}

on_both_backends! {
    /// Every metric of the list is served, in a form that promtool has no objection to, and says what the command line
    /// says.
    fn what_is_scraped_is_what_the_command_line_shows(io) {
        let duo = Duo::new();
        let [a, _b] = busy(&duo, io);
        traffic(&duo);
        let path = socket(&duo);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let told = || (a.link("gnv0"), a.drops(), a.json("policy show"), a.json("qos show"));
        // The last packets are still on their way, and the kernel sends some of its own whenever it likes.
        let mut page = String::new();
        let mut link = Value::Null;
        let mut drops = BTreeMap::new();
        let mut rules = Value::Null;
        let mut classes = Value::Null;
        eventually(10, "nothing passes while it is asked", || {
            let before = told();
            let (status, scraped) = get(&path, "/metrics");
            assert_eq!(status, 200);
            page = scraped;
            let quiet = before == told();
            (link, drops, rules, classes) = before;
            quiet
        });
        assert_eq!(promtool(&["check", "metrics"], &page), (true, String::new()));
        let scraped = series(&page);
        let listed: BTreeSet<_> = ALL.iter().map(|m| m.name.to_owned()).collect();
        let mut found = names(&scraped);
        found.extend(RARE.map(str::to_owned));
        assert_eq!(found, listed);

        for (metric, side, key) in [
            ("packets", "rx", "packets"),
            ("packets", "tx", "packets"),
            ("bytes", "rx", "bytes"),
            ("bytes", "tx", "bytes"),
        ] {
            let direction = if side == "rx" { "ingress" } else { "egress" };
            let name = format!("geneved_{metric}_total{{link=\"gnv0\",direction=\"{direction}\"}}");
            assert_eq!(scraped[&name] as u64, link["stats64"][side][key], "{name}");
            assert!(scraped[&name] > 0.0, "{name}");
        }
        for (at, count) in drops {
            let [link, direction, reason] = at.split('/').collect::<Vec<_>>()[..] else { panic!("{at}") };
            let link = if link == "-" { "" } else { link };
            let name = format!("geneved_dropped_packets_total{{link=\"{link}\",direction=\"{direction}\",reason=\"{reason}\"}}");
            assert_eq!(scraped[&name] as u64, count, "{name}");
        }
        for rule in rules.as_array().unwrap() {
            let name = format!("geneved_rule_hits_total{{link=\"gnv0\",rule={}}}", rule["name"]);
            assert_eq!(scraped[&name] as u64, rule["hits"], "{name}");
            assert!(scraped[&name] > 0.0, "{name}");
        }
        let gold = &classes[0];
        assert_eq!(scraped["geneved_class_passed_bytes_total{link=\"gnv0\",class=\"gold\"}"] as u64, gold["passed_bytes"]);
        let backend = "link=\"gnv0\",service=\"web\",backend=\"10.0.0.3:8080\"";
        assert_eq!(scraped[&format!("geneved_backend_state{{{backend},state=\"draining\"}}")], 1.0);
        assert_eq!(scraped[&format!("geneved_backend_state{{{backend},state=\"up\"}}")], 0.0);
        let backend = format!("geneved_io_info{{backend=\"{}\",cause=\"the configuration asks for it\"}}", io.name());
        assert_eq!(scraped[&backend], 1.0);
        let cpu = scraped["geneved_worker_cpu_seconds_total{worker=\"0\"}"];
        assert!(cpu > 0.0, "{cpu}");
        let option = "geneved_option_packets_total{link=\"gnv0\",direction=\"egress\",option=\"class\"}";
        assert!(scraped[option] >= 2000.0, "{}", scraped[option]);
        assert!(scraped.contains_key(&option.replace("\"class\"", "\"colour\"")));
    }
}

#[test]
fn metrics_are_served_on_the_loopback_port_too_and_say_when_a_series_is_gone() {
    let duo = Duo::new();
    let [a, _b] = busy(&duo, TestBackend::Uring);
    let connected = duo.a.netns().run(|| TcpStream::connect("127.0.0.1:9481"));
    let (status, page) = ask(&mut connected.unwrap().unwrap(), "/metrics");
    assert_eq!(status, 200);
    assert!(names(&series(&page)).contains("geneved_rule_hits_total"));
    let connected = duo.a.netns().run(|| TcpStream::connect("127.0.0.1:9481"));
    assert_eq!(ask(&mut connected.unwrap().unwrap(), "/other").0, 404);
    a.cli("policy del no-ssh dev gnv0");
    let scraped = scrape(&socket(&duo));
    assert!(!scraped.keys().any(|name| name.contains("no-ssh")));
    let mut post = idle(&socket(&duo));
    post.write_all(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut words = String::new();
    post.read_to_string(&mut words).unwrap();
    assert!(words.starts_with("HTTP/1.1 405"), "{words}");
    a.stop();
    assert!(!socket(&duo).exists(), "the socket outlives the daemon");
}

#[test]
fn slow_and_broken_scrapers_hold_nobody_up() {
    let duo = Duo::new();
    let [mut a, _b] = busy(&duo, TestBackend::Uring);
    let path = socket(&duo);
    let mut crowd: Vec<_> = (0..300).map(|_| idle(&path)).collect();
    for (n, stream) in crowd.iter_mut().enumerate() {
        let words: &[u8] = match n % 4 {
            0 => b"",
            1 => b"GET /metr",
            2 => b"\xff\x00\xfe\r\n\r\n",
            // Never reads its page.
            _ => b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        };
        // Who comes when all places are taken has been hung up on already.
        let _ = stream.write_all(words);
    }
    let start = Instant::now();
    assert_ping(&duo.ends("10.0.0.2"));
    a.cli("link show");
    assert!(start.elapsed() < Duration::from_secs(5));
    eventually(20, "the slow ones are hung up on", || {
        let mut stream = idle(&path);
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut words = String::new();
        asked.is_ok()
            && stream.read_to_string(&mut words).is_ok()
            && words.starts_with("HTTP/1.1 200")
    });
    a.assert_alive();
}

#[test]
fn the_manual_page_lists_every_metric_with_its_kind_and_labels() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../man/geneved-metrics.7");
    let page = fs::read_to_string(path).unwrap();
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .map(str::to_owned)
        .collect();
    let expected: BTreeSet<String> = ALL
        .iter()
        .map(|m| {
            let labels = match m.labels {
                [] => String::new(),
                labels => format!(" No {{ Ar {} No }}", labels.join(" , ")),
            };
            format!("{}{labels} Pq {}", m.name, m.kind.word())
        })
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_manual_page_explains_every_drop_reason_as_the_daemon_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../man/geneved-metrics.7");
    let page = fs::read_to_string(path).unwrap();
    let (_, list) = page.split_once(".Ss Drop reasons").expect("a section");
    let (list, _) = list.split_once("\n.El").expect("its end");
    let listed: Vec<(String, String)> = list
        .split("\n.It Sy ")
        .skip(1)
        .map(|item| {
            let (name, text) = item.split_once('\n').expect("a name and a sentence");
            (name.to_owned(), text.replace('\n', " "))
        })
        .collect();
    let expected: Vec<(String, String)> = DropReason::ALL
        .iter()
        .map(|reason| (reason.name().to_owned(), reason.explanation().to_owned()))
        .collect();
    assert_eq!(listed, expected);
}

fn contrib(path: &str) -> String {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a text that are names of metrics.
fn mentioned(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |w: &&str| w.starts_with("geneved_") || w.starts_with("process_");
    words.filter(metric).map(str::to_owned).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_there_are() {
    let listed: BTreeSet<_> = ALL.iter().map(|m| m.name.to_owned()).collect();
    for path in ["prometheus/geneved.rules.yml", "grafana/geneved.json"] {
        let asked = mentioned(&contrib(path));
        assert!(asked.len() > 5, "{path}");
        let unknown: Vec<_> = asked.difference(&listed).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn promtool_accepts_the_alerts_and_what_the_dashboard_asks() {
    let rules = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../contrib/prometheus/geneved.rules.yml"
    );
    let (fine, words) = promtool(&["check", "rules", rules], "");
    assert!(fine, "{words}");
    let (fine, words) = promtool(&["test", "rules", &rules.replace(".yml", ".test.yml")], "");
    assert!(fine, "{words}");
    let board: serde_json::Value = serde_json::from_str(&contrib("grafana/geneved.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|p| p["targets"].as_array().into_iter().flatten());
    let mut asked = String::from("groups: [{name: dashboard, rules: [");
    for (n, target) in targets.enumerate() {
        let expression = target["expr"]
            .as_str()
            .unwrap()
            .replace("$__rate_interval", "1m");
        asked +=
            &serde_json::json!({ "record": format!("panel_{n}"), "expr": expression }).to_string();
        asked += ",";
    }
    let (fine, words) = promtool(&["check", "rules", "/dev/stdin"], &(asked + "]}]"));
    assert!(fine, "{words}");
}
