//! What an operator does to a daemon that carries traffic: reload, save and restart, examples, and rude programs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use geneved::traffic::{Amount, TcpBulk};
use geneved_tests::launch::{How, Launch};
use geneved_tests::trio::{Echoing, Talk};
use geneved_tests::world::{Duo, Family, Io, link};
use geneved_tests::{eventually, on_both_backends};
use nix::sys::signal::Signal;
use serde_json::Value;

fn secret(duo: &Duo) -> String {
    let path = duo.world.file("secret", "a secret that only tests know");
    path.to_str().unwrap().to_owned()
}

on_both_backends! {
    /// A connection lives on through changes that do not concern it, and what was done is said.
    fn a_reload_keeps_the_flows_that_it_does_not_concern(io) {
        let duo = Duo::new();
        let [a, _b] = duo.overlay(io, Family::V4, "");
        let _server = Echoing::start(&duo.b, 7, "b");
        let mut talk = Talk::open(&duo.a, "10.0.0.2:7").unwrap();
        assert!(talk.echoes(Duration::from_secs(2)));
        let file = a.process().site().config();
        let before = fs::read_to_string(&file).unwrap();
        let more = link("gnv1", 101, &["10.1.0.1/24"], "remote = \"192.0.2.2\"")
            + "[[route]]\nprefix = \"10.2.0.0/16\"\ndev = \"gnv1\"\nvia = [\"192.0.2.2\"]\n";
        let wider = before.replace("[daemon]\n", "[daemon]\nworkers = 2\n") + &more;
        fs::write(&file, &wider).unwrap();

        let done = &a.json("reload")[0];
        let steps: Vec<String> = done["steps"].as_array().unwrap().iter()
            .map(|s| format!("{} {} {}", s["verb"], s["object"], s["name"]).replace('"', ""))
            .collect();
        assert_eq!(steps, ["added link gnv1", "added route 10.2.0.0/16"], "{done}");
        let kept = &done["restart"][0];
        assert_eq!((&kept["key"], &kept["running"], &kept["configured"]),
            (&"workers".into(), &"1".into(), &"2".into()), "{done}");
        assert!(talk.carries(300_000), "the connection broke");

        fs::write(&file, wider.replace("10.2.0.0/16", "10.3.0.0/16")).unwrap();
        let told = a.cli("reload");
        assert!(told.contains("removed  route 10.2.0.0/16 dev gnv1\n"), "{told}");
        assert!(told.contains("added    route 10.3.0.0/16 dev gnv1\n"), "{told}");
        assert!(told.contains("restart  [daemon] workers = 2 (1 runs): each has a queue"), "{told}");
        fs::write(&file, &before).unwrap();
        a.process().signal(Signal::SIGHUP).unwrap();
        eventually(10, "SIGHUP reloads", || a.links() == ["gnv0"]);
        assert!(talk.carries(300_000), "the connection broke");
        assert_eq!(a.cli("reload").trim(), "nothing changed");
    }

    /// Two hundred clients at once, most of them broken, while a stream runs.
    fn rude_control_clients_do_not_reach_the_packet_path(io) {
        let duo = Duo::new();
        let [mut a, _b] = duo.overlay(io, Family::V4, "");
        let socket = a.process().socket();
        let bulk = TcpBulk { amount: Amount::For(Duration::from_secs(4)), ..TcpBulk::default() };
        let ends = duo.ends("10.0.0.2");
        let report = std::thread::scope(|scope| {
            let running = scope.spawn(|| bulk.run(&ends));
            std::thread::sleep(Duration::from_millis(500));
            let mut all = Vec::new();
            for n in 0..200 {
                let mut client = UnixStream::connect(&socket).unwrap();
                let words: &[u8] = match n % 6 {
                    0 => b"",
                    1 => b"{\"method\":\"io.gene",
                    2 => b"\xff\xfe not json \0",
                    // Never reads what it asks for.
                    3 => b"{\"method\":\"io.geneved.Control1.ListLinks\"}\0{\"method\":\"io.geneved.Control1.Save\"}\0",
                    4 => b"{\"method\":\"io.geneved.Control1.Apply\",\"parameters\":{\"changes\":[{}]}}\0",
                    _ => b"\0\0\0\0",
                };
                let _ = client.write_all(words);
                all.push(client);
            }
            // One hangs up in the middle of a reply, one never ends its message.
            let mut rude = UnixStream::connect(&socket).unwrap();
            rude.write_all(b"{\"method\":\"io.geneved.Control1.Save\"}\0").unwrap();
            rude.read_exact(&mut [0; 10]).unwrap();
            drop(rude);
            let mut endless = UnixStream::connect(&socket).unwrap();
            let mut sent = 0;
            while sent < 64 && endless.write_all(&[b' '; 1 << 20]).is_ok() {
                sent += 1;
            }
            assert!(sent < 64, "64 MiB were taken");
            // Somebody who behaves is served meanwhile.
            a.cli("link show gnv0");
            running.join().unwrap().unwrap()
        });
        assert!(report.is_intact(), "{report}");
        a.assert_alive();
    }
}

/// All changes of one transaction, or none.
#[test]
fn a_transaction_with_one_wrong_change_changes_nothing() {
    let duo = Duo::new();
    let a = duo
        .world
        .daemon(&duo.a, Io::Uring, "", &link("gnv0", 100, &[], ""));
    let call = |changes: &str| -> Value {
        let mut client = UnixStream::connect(a.process().socket()).unwrap();
        let call = format!(
            "{{\"method\":\"io.geneved.Control1.Apply\",\"parameters\":{{\"changes\":[{changes}]}}}}\0"
        );
        client.write_all(call.as_bytes()).unwrap();
        let mut reply = Vec::new();
        let mut byte = [0];
        while client.read_exact(&mut byte).is_ok() && byte != [0] {
            reply.push(byte[0]);
        }
        serde_json::from_slice(&reply).unwrap()
    };
    let add = r#"{"verb":"add","link":{"name":"gnv1","id":101}}"#;
    let route =
        r#"{"verb":"add","route":{"prefix":"10.1.0.0/16","dev":"gnv1","via":["192.0.2.2"]}}"#;
    let wrong =
        r#"{"verb":"add","route":{"prefix":"10.2.0.0/16","dev":"nosuch","via":["192.0.2.2"]}}"#;
    // The last one is wrong for the daemon, or only for the kernel.
    let taken = r#"{"verb":"add","link":{"name":"lo","id":102}}"#;
    for last in [wrong, taken] {
        let reply = call(&format!("{add},{route},{last}"));
        assert_eq!(reply["error"], "io.geneved.Control1.Refused", "{reply}");
        assert_eq!(a.links(), ["gnv0"]);
        assert!(duo.a.ip("link show gnv1").is_err());
    }
    let reply = call(&format!("{add},{route}"));
    assert!(reply["error"].is_null(), "{reply}");
    assert_eq!(a.links(), ["gnv0", "gnv1"]);
}

const EVERYTHING: &str = r#"
[[option]]
name = "tag"
class = "0x0199"
type = 5
len = 4
[[link]]
name = "gnv0"
id = 100
remote = "192.0.2.2"
local = "192.0.2.1"
dstport = 6082
ttl = 64
tos = "inherit"
srcport = "50000-50099"
mtu = 1300
address = ["10.0.0.1/24", "fd00::1/64"]
ingress = "deny"
labels = "critical"
option = ["tag=01020304"]
rate = "10gbit"
burst = "1mb"
[[link]]
name = "gnv1"
id = 101
[[qos]]
name = "gold"
dev = "gnv0"
id = 7
rate = "1.5gbit"
burst = "64k"
dscp = 46
[[route]]
prefix = "0.0.0.0/0"
dev = "gnv1"
via = ["192.0.2.9"]
type = "gateway"
[[endpoint]]
address = "10.0.0.50"
dev = "gnv0"
type = "scaled"
host = ["192.0.2.5", "192.0.2.6"]
colocated = true
class = "gold"
labels = "app=web"
[[endpoint]]
address = "10.0.0.9"
dev = "gnv1"
local = true
[[endpoint]]
address = "10.0.0.200"
dev = "gnv0"
type = "proxied"
target = "10.0.0.9@gnv1"
[[policy]]
name = "web-in"
dev = "gnv0"
direction = "ingress"
pref = 10
from = "app in (api,web),!legacy"
proto = "tcp"
dport = "80,8000-8999"
action = "allow"
log = true
class = "gold"
[[nat]]
name = "out"
dev = "gnv1"
type = "snat"
from = "10.0.0.0/24"
source = "198.51.100.1-198.51.100.4"
[[nat]]
name = "www"
dev = "gnv1"
type = "dnat"
to = "198.51.100.1"
proto = "tcp"
dport = 80
target = "10.0.0.5:8080"
[[service]]
name = "dns"
dev = "gnv0"
vip = "10.0.0.53"
proto = "udp"
port = 53
backend = ["10.0.0.5", { address = "10.0.0.7", port = 54, weight = 0 }]
check = "none"
"#;

#[test]
fn what_runs_is_saved_and_a_restart_with_it_saves_the_same_bytes() {
    let duo = Duo::new();
    let daemon = format!("label-secret-file = \"{}\"", secret(&duo));
    let how = How {
        daemon: &daemon,
        objects: EVERYTHING,
        ..How::default()
    };
    let first = Launch::new(&duo.world, &duo.a, how).ready();
    first
        .cli("route add 10.7.0.0/16 dev gnv0 via 192.0.2.2")
        .unwrap();
    let saved = first.cli("save").unwrap();
    drop(first);
    for object in [
        "option", "link", "qos", "route", "endpoint", "policy", "nat", "service",
    ] {
        assert!(
            saved.contains(&format!("[[{object}]]")),
            "{object}: {saved}"
        );
    }
    let how = How {
        file: Some(&saved),
        ..How::default()
    };
    let second = Launch::new(&duo.world, &duo.a, how).ready();
    assert_eq!(second.cli("save").unwrap(), saved);
}

#[test]
fn every_example_starts() {
    let duo = Duo::new();
    let (red, blue) = (duo.world.host("red"), duo.world.host("blue"));
    let secret = secret(&duo);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/examples");
    let mut seen = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let mut text = fs::read_to_string(&path)
            .unwrap()
            .replace("/etc/geneved/label-secret", &secret)
            .replace("netns = \"red\"", &format!("netns = \"{}\"", red.name()))
            .replace("netns = \"blue\"", &format!("netns = \"{}\"", blue.name()));
        let socket = format!("[daemon]\nsocket = \"{}\"\n", Launch::SOCKET);
        match text.contains("\n[daemon]\n") {
            true => text = text.replacen("[daemon]\n", &socket, 1),
            false => text.insert_str(0, &socket),
        }
        let how = How {
            file: Some(&text),
            ..How::default()
        };
        let daemon = Launch::new(&duo.world, &duo.a, how).ready();
        let links = daemon.cli("-j link show").unwrap();
        let links: Value = serde_json::from_str(&links).unwrap();
        let wanted = text.matches("[[link]]").count();
        assert_eq!(
            links.as_array().unwrap().len(),
            wanted,
            "{}",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 6);
}
