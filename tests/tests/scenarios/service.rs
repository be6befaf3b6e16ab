//! The daemon under a service manager: ready, watched, unprivileged, logged; and why it does not start.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use geneved_tests::eventually;
use geneved_tests::launch::{Launch, LaunchOptions};
use geneved_tests::world::{Duo, assert_ping, binary, link};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

const SERVICE_LINK: &str = "remote = \"192.0.2.2\"";

fn packaging(file: &str) -> String {
    format!("{}/../packaging/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
}

/// A service manager's ear.
struct ManagerSocket {
    socket: UnixDatagram,
    path: String,
}

impl ManagerSocket {
    fn new(duo: &Duo) -> Self {
        let path = duo.world.directory().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        ManagerSocket { socket, path }
    }

    /// The next message, or nothing for so long.
    fn hears(&self, patience: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let mut bytes = [0; 4096];
        let got = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..got]).into_owned())
    }

    fn hears_within(&self, what: &str, seconds: u64) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if let Some(message) = self.hears(Duration::from_secs(seconds))
                && message.contains(what)
            {
                return;
            }
        }
        panic!("{what} was not said within {seconds} s");
    }
}

/// The numbers of the threads of this name.
fn threads(pid: i32, name: &str) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let named = tasks.flatten().filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    named
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

fn status(pid: i32, thread: i32, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
        .trim()
        .to_owned()
}

fn capabilities(pid: i32, thread: i32) -> u64 {
    u64::from_str_radix(&status(pid, thread, "CapPrm:"), 16).unwrap()
}

#[test]
fn the_unit_is_hardened() {
    let told = output(
        "systemd-analyze",
        &["security", "--offline=true", &packaging("geneved.service")],
    );
    let level = told
        .lines()
        .find_map(|line| line.split_once("exposure level for geneved.service: "))
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    let level = level.unwrap_or_else(|| panic!("no level in:\n{told}"));
    assert!(level <= 2.0, "{told}");
}

/// A thread of another process that stands still until this is dropped: a test that fails while it is
/// traced would wait for its daemon for ever.
struct StoppedThread(Pid);

impl StoppedThread {
    fn new(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

/// Ready when everything is there, watched by the workers' progress, and not when one of them is stuck.
#[test]
fn the_watchdog_is_fed_by_what_workers_do() {
    let duo = Duo::new();
    let manager = ManagerSocket::new(&duo);
    let objects = link("gnv0", 100, &["10.0.0.1/24"], SERVICE_LINK);
    let how = LaunchOptions {
        environment: &[
            ("NOTIFY_SOCKET", manager.path.as_str()),
            ("WATCHDOG_USEC", "900000"),
        ],
        daemon: "workers = 2",
        objects: &objects,
        ..LaunchOptions::default()
    };
    let daemon = Launch::new(&duo.world, &duo.a, how);
    let first = manager.hears(Duration::from_secs(30));
    assert_eq!(first.as_deref().map(str::trim), Some("READY=1"));
    assert!(duo.a.ip("link show gnv0").is_ok());
    assert!(
        daemon.cli("link show gnv0").is_ok(),
        "ready without control"
    );
    for _ in 0..3 {
        manager.hears_within("WATCHDOG=1", 10);
    }

    let worker = threads(daemon.pid(), "worker-1");
    let stopped = StoppedThread::new(Pid::from_raw(worker[0]));
    // A service manager reads what it is told: ten words that nobody reads would hold the daemon up.
    let drain = || while manager.hears(Duration::from_millis(10)).is_some() {};
    eventually(10, "the stuck worker is told of", || {
        drain();
        daemon.log().contains("workers do not answer")
    });
    drain();
    let silence = manager.hears(Duration::from_secs(2));
    assert_eq!(silence, None, "fed while a worker is stuck");
    drop(stopped);
    manager.hears_within("WATCHDOG=1", 10);
    assert!(daemon.log().contains("all workers answer again"));

    daemon.cli("reload").unwrap();
    manager.hears_within("RELOADING=1", 5);
    manager.hears_within("READY=1", 5);
    drop(daemon);
    manager.hears_within("STOPPING=1", 5);
}

/// A reload that is refused fails as a program, so that `systemctl reload` does.
#[test]
fn a_refused_reload_is_a_failure_and_changes_nothing() {
    let duo = Duo::new();
    let objects = link("gnv0", 100, &["10.0.0.1/24"], SERVICE_LINK);
    let how = LaunchOptions {
        objects: &objects,
        ..LaunchOptions::default()
    };
    let daemon = Launch::new(&duo.world, &duo.a, how).ready();
    let good = fs::read_to_string(daemon.config()).unwrap();
    fs::write(
        daemon.config(),
        good.clone() + "[[link]]\nname = \"gnv1\"\n",
    )
    .unwrap();
    let refused = daemon.cli("reload").unwrap_err().to_string();
    assert!(
        refused.contains("geneved.toml:10:1: link \"gnv1\""),
        "{refused}"
    );
    assert!(refused.contains("exit status: 2"), "{refused}");
    assert!(!daemon.cli("link show").unwrap().contains("gnv1"));
    let unit = fs::read_to_string(packaging("geneved.service")).unwrap();
    assert!(unit.contains("ExecReload=/usr/bin/geneved reload\n"));
}

/// Workers can do nothing but their work; the rest keeps what changes at run time need.
#[test]
fn root_gives_its_capabilities_away() {
    let duo = Duo::new();
    let objects = link("gnv0", 100, &["10.0.0.1/24"], SERVICE_LINK);
    let how = |daemon| LaunchOptions {
        daemon,
        objects: &objects,
        ..LaunchOptions::default()
    };
    let bit = |capability: u32| 1u64 << capability;
    // NET_ADMIN, NET_BIND_SERVICE, NET_RAW, SYS_ADMIN; DAC_OVERRIDE.
    let (needed, of_root) = (bit(12) | bit(10) | bit(13) | bit(21), bit(1));
    let daemon = Launch::new(&duo.world, &duo.a, how("")).ready();
    let pid = daemon.pid();
    assert_eq!(capabilities(pid, pid), needed | of_root);
    assert_eq!(status(pid, pid, "NoNewPrivs:"), "1");
    for worker in threads(pid, "worker-0") {
        assert_eq!(capabilities(pid, worker), 0);
    }
    daemon
        .cli("link add gnv1 type geneve id 101 dstport 999")
        .unwrap();
    drop(daemon);

    let stranger = how("user = \"no-such-user\"");
    Launch::new(&duo.world, &duo.a, stranger).assert_refused(&["there is no such user", "useradd"]);
    if fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.trim().ends_with(" 1")) {
        // A user namespace with root alone: nobody else is there to become.
        let how = how("user = \"daemon\"");
        Launch::new(&duo.world, &duo.a, how).assert_refused(&["cannot become user \"daemon\""]);
        return;
    }
    let directory = duo.world.directory().join(format!("{}.d", duo.a.name()));
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    nix::unistd::chown(&directory, Some(daemon.uid), None).unwrap();
    // /dev/net/tun as udev makes it, which not every container has.
    let script =
        "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";
    let how = LaunchOptions {
        wrapper: &["unshare", "-m", "sh", "-c", script, "sh"],
        ..how("user = \"daemon\"")
    };
    let daemon = Launch::new(&duo.world, &duo.a, how).ready();
    let pid = daemon.pid();
    assert_eq!(capabilities(pid, pid), needed);
    assert_eq!(status(pid, pid, "Uid:").split('\t').next(), Some("1"));
    let other = duo.world.daemon(
        &duo.b,
        geneved_tests::world::TestBackend::Uring,
        "",
        &link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\""),
    );
    assert_ping(&duo.ends("10.0.0.2"));
    daemon
        .cli("link add gnv1 type geneve id 101 dstport 999")
        .unwrap();
    drop((daemon, other));
}

/// System calls that a filter of the unit's words lets through.
fn admitted() -> BTreeSet<String> {
    fn members(set: &str, into: &mut BTreeSet<String>) {
        for line in output("systemd-analyze", &["syscall-filter", set]).lines() {
            let word = line.trim();
            if word.starts_with('@') && word != set {
                members(word, into);
            } else if line.starts_with(' ') && !word.starts_with(['#', '@']) {
                into.insert(word.to_owned());
            }
        }
    }
    let unit = fs::read_to_string(packaging("geneved.service")).unwrap();
    let mut admitted = BTreeSet::new();
    for words in unit
        .lines()
        .filter_map(|l| l.strip_prefix("SystemCallFilter="))
    {
        let (deny, words) = match words.strip_prefix('~') {
            Some(words) => (true, words),
            None => (false, words),
        };
        for word in words.split(' ') {
            let mut set = BTreeSet::new();
            match word.starts_with('@') {
                true => members(word, &mut set),
                false => drop(set.insert(word.to_owned())),
            }
            match deny {
                true => admitted.retain(|call| !set.contains(call)),
                false => admitted.extend(set),
            }
        }
    }
    // systemd adds these by itself, for programs to be started at all.
    members("@default", &mut admitted);
    admitted
}

/// What a daemon calls from its start to its end, traffic and changes included, passes the unit's filter.
#[test]
fn the_units_filter_admits_every_system_call() {
    let admitted = admitted();
    for io in ["io_uring", "syscalls"] {
        let duo = Duo::new();
        let trace = duo.world.directory().join("calls");
        let config = format!("io = \"{io}\"");
        let objects = link("gnv0", 100, &["10.0.0.1/24"], SERVICE_LINK);
        let how = LaunchOptions {
            wrapper: &["strace", "-f", "-qq", "-o", trace.to_str().unwrap()],
            daemon: &config,
            objects: &objects,
            ..LaunchOptions::default()
        };
        let daemon = Launch::new(&duo.world, &duo.a, how).ready();
        let other = duo.world.daemon(
            &duo.b,
            geneved_tests::world::TestBackend::Uring,
            "",
            &link("gnv0", 100, &["10.0.0.2/24"], "remote = \"192.0.2.1\""),
        );
        assert_ping(&duo.ends("10.0.0.2"));
        daemon.cli("link add gnv1 type geneve id 101").unwrap();
        daemon.cli("link del gnv1").unwrap();
        daemon.cli("reload").unwrap();
        drop((daemon, other));
        let text = fs::read_to_string(&trace).unwrap();
        let called: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' ')?.1.trim().split_once('('))
            .map(|(name, _)| name)
            .filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
            .collect();
        assert!(
            called.contains("sched_setattr") && called.contains("capset"),
            "{called:?}"
        );
        assert_eq!(called.contains("io_uring_enter"), io == "io_uring");
        let stopped: Vec<_> = called.iter().filter(|c| !admitted.contains(**c)).collect();
        assert!(stopped.is_empty(), "{io}: {stopped:?}");
    }
}

#[test]
fn in_the_journal_values_are_fields() {
    let duo = Duo::new();
    let journal = duo.world.directory().join("journal");
    fs::create_dir_all(&journal).unwrap();
    let ear = UnixDatagram::bind(journal.join("socket")).unwrap();
    ear.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A journal of its own, in a mount namespace of its own.
    let script = format!(
        "mount --bind {} \"$(mktemp -d)\" && mount -t tmpfs none /run && mkdir -p /run/systemd/journal && \
         mount --bind {} /run/systemd/journal && exec \"$@\"",
        journal.display(),
        journal.display()
    );
    let objects = link("gnv0", 100, &["10.0.0.1/24"], SERVICE_LINK);
    let how = LaunchOptions {
        wrapper: &[
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            &script,
            "sh",
        ],
        environment: &[("JOURNAL_STREAM", "1:1")],
        objects: &objects,
        ..LaunchOptions::default()
    };
    let daemon = Launch::new(&duo.world, &duo.a, how).ready();
    duo.a.ip("link del gnv0").unwrap();
    let start = Instant::now();
    let mut seen = String::new();
    while !seen.contains("link \"gnv0\" lost: its interface") {
        let mut bytes = [0; 8192];
        let got = ear
            .recv(&mut bytes)
            .unwrap_or_else(|error| panic!("{error}: {seen}"));
        seen += &String::from_utf8_lossy(&bytes[..got]);
        assert!(start.elapsed() < Duration::from_secs(20), "{seen}");
    }
    // A value with a line feed in it, or one that may have, is written with its length instead of "=".
    let lines: Vec<&str> = seen.lines().collect();
    for field in ["SYSLOG_IDENTIFIER", "PRIORITY", "LINK", "CAUSE"] {
        assert!(
            lines
                .iter()
                .any(|l| l.starts_with(&format!("{field}=")) || l == &field),
            "no {field} in {seen}"
        );
    }
    drop(daemon);
}

/// Each thing that keeps a daemon from starting, or a link from working, is named with its remedy.
#[test]
fn what_is_missing_is_named_with_its_remedy() {
    let duo = Duo::new();
    let objects = link("gnv0", 100, &["10.0.0.1/24"], SERVICE_LINK);
    let how = |wrapper: &'static [&'static str], daemon: &'static str| LaunchOptions {
        wrapper,
        daemon,
        objects: &objects,
        ..LaunchOptions::default()
    };
    let launch = |wrapper, daemon| Launch::new(&duo.world, &duo.a, how(wrapper, daemon));

    // The port, by a geneve device of the kernel or of Open vSwitch, or by a program.
    for (device, by) in [
        (
            "gen0",
            "the kernel's vxlan device \"gen0\"; \"ip link del gen0\"",
        ),
        (
            "genev_sys_6081",
            "Open vSwitch, by its device \"genev_sys_6081\"",
        ),
    ] {
        // Any tunnel of the kernel will do, and a kernel without geneve devices has these.
        let add = format!("link add {device} type vxlan id 5 remote 192.0.2.9 dstport 6081");
        duo.a.ip(&add).unwrap();
        duo.a.ip(&format!("link set {device} up")).unwrap();
        let words = format!("UDP port 6081 is taken by {by}");
        launch(&[], "").assert_waits(&[&words, "dstport"]);
        let checked = duo
            .a
            .netns()
            .run(|| output(binary().to_str().unwrap(), &["check"]))
            .unwrap();
        assert!(checked.contains(&format!("is taken by {by}")), "{checked}");
        duo.a.ip(&format!("link del {device}")).unwrap();
    }
    let socket = duo
        .a
        .netns()
        .run(|| std::net::UdpSocket::bind("0.0.0.0:6081").unwrap())
        .unwrap();
    let me = format!("(pid {})", std::process::id());
    launch(&[], "").assert_waits(&["UDP port 6081 is taken by process \"", &me, "stop it"]);
    drop(socket);
    let other = Launch::new(
        &duo.world,
        &duo.a,
        LaunchOptions {
            objects: &objects,
            ..LaunchOptions::default()
        },
    )
    .ready();
    let config = other.config();
    let (second, socket) = ("second.toml", "second.sock");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace("control.sock", socket).replace("gnv0", "gnv9");
    let second = duo.world.file(second, &text);
    let told = duo
        .a
        .netns()
        .run(|| {
            let (binary, file) = (binary().to_str().unwrap(), second.to_str().unwrap());
            output("timeout", &["2", binary, "run", "--config", file])
        })
        .unwrap();
    assert!(
        told.contains(&format!(
            "link \"gnv9\" waits: UDP port 6081 is taken by another geneved (pid {})",
            other.pid()
        )),
        "{told}"
    );
    let run = |file: &Path| {
        let file = file.to_str().unwrap();
        duo.a
            .netns()
            .run(|| output(binary().to_str().unwrap(), &["run", "--config", file]))
            .unwrap()
    };
    let told = run(&config);
    assert!(
        told.contains("control.sock: another daemon answers there"),
        "{told}"
    );
    let pid = Pid::from_raw(other.pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    drop(other);
    // The socket of one that was killed is stale.
    drop(launch(&[], "").ready());

    // The device.
    launch(
        &[
            "unshare",
            "-m",
            "sh",
            "-c",
            "mount -t tmpfs none /dev/net && exec \"$@\"",
            "sh",
        ],
        "",
    )
    .assert_waits(&["there is no /dev/net/tun", "modprobe tun"]);
    // The capability.
    launch(&["setpriv", "--bounding-set=-all", "--inh-caps=-all"], "")
        .assert_refused(&["CAP_NET_ADMIN is missing", "AmbientCapabilities"]);

    // io_uring: the kernel says no, and a seccomp filter does.
    const INJECT: &str = "inject=io_uring_setup:error=EPERM";
    let plain = &[
        "strace",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=io_uring_setup",
        "-e",
        INJECT,
    ];
    launch(plain, "io = \"io_uring\"").assert_refused(&[
        "io_uring is forbidden by a security module",
        "io = \"auto\"",
    ]);
    let filtered = &[
        "strace",
        "--seccomp-bpf",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=io_uring_setup",
        "-e",
        INJECT,
    ];
    launch(filtered, "io = \"io_uring\"").assert_refused(&[
        "io_uring is forbidden by a seccomp filter",
        "io_uring_setup",
    ]);
    // Without being asked for it is done without, and why is told.
    let daemon = launch(filtered, "").ready();
    let host = daemon.cli("host show").unwrap();
    assert!(
        host.contains("io syscalls (io_uring is forbidden by a seccomp filter"),
        "{host}"
    );
}
