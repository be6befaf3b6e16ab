//! Rude clients of the control socket, who are not root: root is served all the same, and memory stays bounded.

use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use geneved_tests::world::{Duo, link};
use geneved_tests::{eventually, on_both_backends};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Names the control socket to the process that [`attacker`] is.
const SOCKET: &str = "GENEVED_ATTACKED";
/// Nobody, in the group that may use the socket.
const UID: u32 = 65_534;

fn call(method: &str, parameters: &str, flag: &str) -> Vec<u8> {
    let text = format!(
        "{{\"method\":\"io.geneved.Control1.{method}\",\"parameters\":{parameters}{flag}}}\0"
    );
    text.into_bytes()
}

/// Sends as much as the daemon takes at once.
fn pour(stream: &mut UnixStream, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(sent) => bytes = &bytes[sent..],
            // Hung up on, or full.
            Err(error) if error.kind() != ErrorKind::Interrupted => return,
            Err(_) => {}
        }
    }
}

/// No test by itself: [`root_is_served_beside_rude_clients`] runs it as another user.
#[test]
#[ignore = "it is a part of root_is_served_beside_rude_clients"]
fn attacker() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    let connect = || {
        let stream = UnixStream::connect(Path::new(&socket)).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    };
    let flows = call("ListFlows", "{\"limit\":4294967295}", ",\"more\":true");
    let capture = call("Capture", "{}", ",\"more\":true");
    let small = call("ListOptions", "{}", ",\"oneway\":true").repeat(60_000);
    let half = [b"{\"method\":\"".to_vec(), vec![b'x'; 4_000_000]].concat();
    let mut held = Vec::new();
    for _ in 0..7 {
        let Some(mut stream) = connect() else {
            continue;
        };
        pour(&mut stream, &capture);
        pour(&mut stream, &small);
        held.push((stream, small.as_slice()));
    }
    for (count, bytes) in [(60, &flows), (100, &half)] {
        for _ in 0..count {
            let Some(mut stream) = connect() else {
                continue;
            };
            pour(&mut stream, bytes);
            held.push((stream, bytes.as_slice()));
        }
    }
    held.extend((0..700).filter_map(|_| Some((connect()?, &[][..]))));
    println!("attacking");
    loop {
        for (stream, bytes) in &mut held {
            pour(stream, bytes);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

on_both_backends! {
    /// Some wait in a capture and send calls ahead, some ask for all flows and do not read, some never end a message, and
    /// the others take all places.
    fn root_is_served_beside_rude_clients(io) {
        let duo = Duo::new();
        let many = link("gnv0", 100, &["10.0.0.1/16"], "remote = \"192.0.2.2\"");
        let mut daemon = duo.world.daemon(&duo.a, io, "flows = 200000\ntimeouts.udp = 600\n", &many);
        let socket = duo.a.netns().run(|| UdpSocket::bind("10.0.0.1:0").unwrap()).unwrap();
        // Those who ask for flows keep the daemon busy only if they are there. A queue holds a few hundred packets, so on a busy
        // machine some are lost.
        eventually(120, "there are 100,000 flows", || {
            for n in 0..100_000_u32 {
                let address = format!("10.0.1.{}", 1 + n / 60_000);
                if n % 100 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                let _ = socket.send_to(b"x", (address, 1 + (n % 60_000) as u16));
            }
            daemon.cli("flow show limit 200000").lines().count() >= 95_000
        });
        let quiet = daemon.resident();
        let socket = daemon.process().site().socket();
        std::fs::set_permissions(socket.parent().unwrap(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        // Through /proc, because another user may not get to where the program is.
        let mut attacker = Command::new("/proc/self/exe")
            .args(["--exact", "exclusive::clients::attacker", "--ignored", "--nocapture"])
            .env(SOCKET, &socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .uid(UID)
            .gid(0)
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_secs(3));
        assert!(attacker.try_wait().unwrap().is_none(), "nobody attacks");
        let mut used = Vec::new();
        let mut waits = Vec::new();
        let mut most = 0;
        for _ in 0..20 {
            let (began, before) = (Instant::now(), daemon.cpu());
            daemon.cli("link show");
            used.push(daemon.cpu().saturating_sub(before));
            waits.push(began.elapsed());
            most = most.max(daemon.resident());
            thread::sleep(Duration::from_millis(200));
        }
        attacker.kill().unwrap();
        attacker.wait().unwrap();
        used.sort_unstable();
        waits.sort_unstable();
        let (usual, longest, worst) = (waits[waits.len() / 2], waits[waits.len() - 1], used[used.len() - 1]);
        println!("root waited {usual:?}, at most {longest:?}; the daemon worked {worst:?} at most; {} MiB more", most.saturating_sub(quiet) >> 20);
        // Others may have this machine's processors, but not all the time.
        assert!(usual < Duration::from_secs(2) && longest < Duration::from_secs(5), "root waited: {waits:?}");
        assert!(worst < Duration::from_secs(2), "the daemon worked before it answered root: {used:?}");
        assert!(most < quiet + (400 << 20), "{quiet} became {most}");
        daemon.assert_alive();
        assert!(!daemon.process().log().contains("do not answer"));
        // Everybody gets in again.
        assert_eq!(daemon.links(), ["gnv0"]);
    }
}
