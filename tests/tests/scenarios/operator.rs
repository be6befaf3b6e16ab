//! Operations on a daemon that carries traffic: check, reload, save and restart, and misbehaving programs.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use geneved::traffic::{SendAmount, TcpBulk};
use geneved_tests::launch::{Launch, LaunchOptions};
use geneved_tests::trio::{EchoConnection, EchoServer};
use geneved_tests::world::{Duo, TestBackend, UnderlayFamily, binary, link};
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
        let [a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let _server = EchoServer::start(&duo.b, 7, "b");
        let mut talk = EchoConnection::open(&duo.a, "10.0.0.2:7").unwrap();
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
        assert!(told.contains("deleted  route 10.2.0.0/16 dev gnv1\n"), "{told}");
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
        let [mut a, _b] = duo.overlay(io, UnderlayFamily::V4, "");
        let socket = a.process().socket();
        let bulk = TcpBulk { amount: SendAmount::For(Duration::from_secs(4)), ..TcpBulk::default() };
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
        .daemon(&duo.a, TestBackend::Uring, "", &link("gnv0", 100, &[], ""));
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
    let how = LaunchOptions {
        daemon: &daemon,
        objects: EVERYTHING,
        ..LaunchOptions::default()
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
    let how = LaunchOptions {
        file: Some(&saved),
        ..LaunchOptions::default()
    };
    let second = Launch::new(&duo.world, &duo.a, how).ready();
    assert_eq!(second.cli("save").unwrap(), saved);
}

/// Runs a command line in the namespace of host a.
fn run(duo: &Duo, program: &Path, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(program);
    command.args(words);
    let output = duo.a.netns().run(|| command.output()).unwrap();
    output.unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

/// What it printed, and its exit status.
fn said(output: &Output) -> (String, Option<i32>) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (String::from_utf8(text).unwrap(), output.status.code())
}

/// The daemon that is asked has the port for its links; another one that has it is in the way.
#[test]
fn check_knows_the_daemon_that_runs() {
    let duo = Duo::new();
    let [a, _b] = duo.overlay(TestBackend::Syscalls, UnderlayFamily::V4, "");
    let socket = a.process().site().socket();
    let socket = socket.to_str().unwrap();
    let pid = a.process().pid();
    let (own, status) = said(&run(&duo, binary(), &["--socket", socket, "check"]));
    assert_eq!(status, Some(0), "{own}");
    let line = format!("port-6081    yes UDP port 6081 is that of the running daemon (pid {pid})");
    assert!(own.contains(&line), "{own}");
    assert!(
        own.contains(&format!("answers at {socket}: pid {pid}, 1 link, syscalls")),
        "{own}"
    );
    let (foreign, _) = said(&run(&duo, binary(), &["--socket", "/nonexistent", "check"]));
    let taken = foreign
        .lines()
        .find(|line| line.starts_with("port-6081    no  "))
        .unwrap();
    assert!(
        taken.contains("is taken by ") && taken.contains(&format!("(pid {pid})")),
        "{taken}"
    );
    let config = a.process().site().config();
    let (checked, status) = said(&run(&duo, binary(), &["check", config.to_str().unwrap()]));
    assert_eq!(status, Some(0));
    assert!(!checked.contains("warning"), "{checked}");
}

/// A configuration that is valid and does not fit this host is told with what is missing.
#[test]
fn check_warns_of_what_the_host_lacks() {
    let duo = Duo::new();
    let taken = || std::net::UdpSocket::bind("0.0.0.0:7081").unwrap();
    let _taken = duo.a.netns().run(taken).unwrap();
    let objects = link("gnv0", 1, &[], "local = \"192.0.2.77\"")
        + &link("gnv1", 2, &[], "netns = \"gnvt-nowhere\"")
        + &link("gnv2", 3, &[], "remote = \"198.51.100.1\"\ndstport = 7081")
        + "[[route]]\nprefix = \"0.0.0.0/0\"\ndev = \"gnv2\"\nvia = [\"192.0.2.2\"]\ntype = \"gateway\"\n";
    let file = duo.world.file("checked.toml", &objects);
    let words = ["-j", "check", file.to_str().unwrap()];
    let (text, status) = said(&run(&duo, binary(), &words));
    assert_eq!(status, Some(0), "{text}");
    let checked: Value = serde_json::from_str(&text).unwrap();
    let warnings = checked[0]["warnings"].as_array().unwrap();
    for expected in [
        "link \"gnv0\" cannot be made yet: no interface of this host has its local address 192.0.2.77",
        "link \"gnv1\" cannot be made yet: there is no network namespace \"gnvt-nowhere\"",
        "link \"gnv2\": UDP port 7081 is taken by process",
        "link \"gnv2\": the kernel has no route to host 198.51.100.1",
        "route \"0.0.0.0/0\" dev gnv2: this host's own packets do not go into gnv2",
    ] {
        let told = warnings.iter().filter_map(Value::as_str);
        assert_eq!(
            told.filter(|w| w.starts_with(expected)).count(),
            1,
            "{expected}: {warnings:?}"
        );
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
}

/// As the service: its user may not read what is root's alone, and has one capability. The user is there in a mount
/// namespace only.
#[test]
fn check_asks_as_the_service() {
    let duo = Duo::new();
    let directory = duo.world.directory();
    let file = |name: &str, of: &str, more: &str| {
        let text = fs::read_to_string(of).unwrap() + more;
        fs::write(directory.join(name), text).unwrap();
    };
    file(
        "passwd",
        "/etc/passwd",
        "geneved:x:64999:64999::/:/usr/sbin/nologin\n",
    );
    file("group", "/etc/group", "geneved:x:64999:\n");
    // Where everybody may run it.
    let program = directory.join("geneved");
    fs::copy(binary(), &program).unwrap();
    let config = directory.join("geneved.toml");
    let secret = directory.join("label-secret");
    fs::write(
        &config,
        format!("[daemon]\nlabel-secret-file = \"{}\"\n", secret.display()),
    )
    .unwrap();
    let at = directory.display();
    let with_user = |script: &str| {
        let binds =
            format!("mount --bind {at}/passwd /etc/passwd; mount --bind {at}/group /etc/group");
        let script = format!("{binds}; {script}");
        said(&run(
            &duo,
            Path::new("unshare"),
            &["-m", "sh", "-euc", &script],
        ))
    };
    let _ = with_user(&format!(
        "umask 077; openssl rand -hex 32 >{at}/label-secret"
    ));
    let (root, status) = with_user(&format!("{at}/geneved check {at}/geneved.toml"));
    assert_eq!(status, Some(0), "{root}");
    let expected = format!(
        "warning: geneved.service cannot start: its user geneved may not read {at}/label-secret"
    );
    assert!(root.contains(&expected), "{root}");
    let check = format!("{at}/geneved check {at}/geneved.toml --service");
    let (service, status) = with_user(&check);
    assert_eq!(status, Some(2), "{service}");
    assert!(
        service.starts_with("as user geneved, group geneved, with net_admin"),
        "{service}"
    );
    let remedy = format!(
        "user geneved may not read it: Permission denied (os error 13); \"chown root:geneved {at}/label-secret; chmod 0640 {at}/label-secret\""
    );
    assert!(service.contains(&remedy), "{service}");
    // What the error says is what mends it.
    let (mended, status) = with_user(&format!(
        "chown root:geneved {at}/label-secret; chmod 0640 {at}/label-secret; {check}"
    ));
    assert!(
        status == Some(0) && mended.contains("valid") && !mended.contains("warning"),
        "{mended}"
    );
    fs::remove_file(&secret).unwrap();
    let (missing, _) = with_user(&check);
    let recipe = missing
        .split("make one with \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let recipe = recipe.unwrap_or_else(|| panic!("{missing}"));
    assert!(recipe.contains("install -m 0640 -g geneved"), "{recipe}");
    let (made, status) = with_user(&format!("{recipe}; {check}"));
    assert!(status == Some(0) && made.contains("valid"), "{made}");
    let (host, _) = with_user(&format!("{at}/geneved check --service"));
    for line in [
        "net-admin    yes",
        "netns        no  CAP_SYS_ADMIN is missing",
    ] {
        assert!(host.contains(line), "{host}");
    }
}
