//! Bad surroundings: few descriptors, special files, a log that is not read, signals during a hang.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use geneved_tests::eventually;
use geneved_tests::launch::{Launch, LaunchOptions};
use geneved_tests::shell::Shell;
use geneved_tests::world::{Duo, binary, link};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, mkfifo};

const REMOTE: &str = "remote = \"192.0.2.2\"";

/// Sends SIGTERM; how long the daemon takes to end.
fn terminate(daemon: &mut Launch) -> (Duration, Option<i32>) {
    let began = Instant::now();
    kill(Pid::from_raw(daemon.pid()), Signal::SIGTERM).unwrap();
    let status = daemon.ended();
    (began.elapsed(), status.code())
}

/// Ends a daemon that is to end in order.
fn assert_ends(mut daemon: Launch) {
    let (took, code) = terminate(&mut daemon);
    assert!(
        took < Duration::from_secs(5) && code == Some(0),
        "{took:?}, {code:?}"
    );
}

/// Descriptors are used up to the hard limit, and the change that would go beyond is refused with the number.
#[test]
fn what_does_not_fit_into_the_descriptors_is_refused_and_the_rest_works_on() {
    let duo = Duo::new();
    let how = LaunchOptions {
        wrapper: &["prlimit", "--nofile=128:1024"],
        objects: &link("gnv0", 100, &["10.0.0.1/24"], REMOTE),
        ..LaunchOptions::default()
    };
    let daemon = Launch::new(&duo.world, &duo.a, how).ready();
    let add = |n: u16| {
        let ports = 20_000 + 100 * n;
        daemon.cli(&format!(
            "link add gnv{n} type geneve id {} {} srcport {ports}-{} address 10.0.{n}.1/24",
            100 + n,
            REMOTE.replace([' ', '=', '"'], " "),
            ports + 99
        ))
    };
    let told = (1..20).find_map(|n| add(n).err()).unwrap().to_string();
    assert!(
        told.contains("more file descriptors; of the 1024 that the daemon may have"),
        "{told}"
    );
    let shown = daemon.cli("link show").unwrap();
    assert!(
        shown.matches("gnv").count() >= 3 && !shown.contains("lost"),
        "{shown}"
    );
    // What needs no more sockets than there are still fits, and the reserve is there for clients.
    daemon
        .cli(&format!(
            "link add last type geneve id 999 {}",
            REMOTE.replace([' ', '=', '"'], " ")
        ))
        .unwrap();
    let idle: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(daemon.socket()))
        .collect();
    daemon.cli("link show").unwrap();
    drop(idle);

    // A file may ask for more: what does not fit waits, and says why; check says so beforehand.
    let many: String = (0..9)
        .map(|n: u32| {
            let ports = format!(
                "srcport = \"{}-{}\"\n{REMOTE}",
                20_000 + 100 * n,
                20_099 + 100 * n
            );
            link(&format!("gnv{n}"), 100 + n, &[], &ports)
        })
        .collect();
    let text = fs::read_to_string(daemon.config()).unwrap();
    let (settings, _) = text.split_once("[[link]]").unwrap();
    fs::write(daemon.config(), format!("{settings}\n{many}")).unwrap();
    let told = daemon.cli("reload").unwrap();
    assert!(told.contains("wait"), "{told}");
    let shown = daemon.cli("link show").unwrap();
    assert!(
        shown.contains("waiting: ") && shown.contains("more file descriptors"),
        "{shown}"
    );
    assert!(
        shown.contains("state UP") || shown.contains("UNKNOWN"),
        "{shown}"
    );
    let shell = Shell::at(&daemon.socket(), &duo.a);
    let check = format!(
        "prlimit --nofile=128:1024 {} check {}",
        binary().display(),
        daemon.config().display()
    );
    let checked = shell.types(&check);
    assert!(
        checked.contains("not all links can be made: the configuration needs"),
        "{checked}"
    );
    assert_ends(daemon);
}

/// A FIFO would block and a device has no end: neither is read, by check, at start, or on reload.
#[test]
fn only_regular_files_are_configuration() {
    let duo = Duo::new();
    let how = LaunchOptions {
        objects: &link("gnv0", 100, &["10.0.0.1/24"], REMOTE),
        ..LaunchOptions::default()
    };
    let daemon = Launch::new(&duo.world, &duo.a, how).ready();
    let beside = daemon.config().parent().unwrap().join("conf.d");
    fs::create_dir(&beside).unwrap();
    let shell = Shell::at(&daemon.socket(), &duo.a);
    let check = format!(
        "timeout 10 geneved check {} 2>&1",
        daemon.config().display()
    );
    for (n, what) in [
        "it is a FIFO, not a regular file",
        "it is a device, not a regular file",
    ]
    .into_iter()
    .enumerate()
    {
        let path = beside.join("50-rude.toml");
        match n {
            0 => mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap(),
            _ => std::os::unix::fs::symlink("/dev/zero", &path).unwrap(),
        }
        let began = Instant::now();
        let told = daemon.cli("reload").unwrap_err().to_string();
        assert!(
            told.contains(what) && told.contains("50-rude.toml"),
            "{told}"
        );
        let told = shell.types(&format!("{check} || true"));
        assert!(told.contains(what), "{told}");
        let run = format!(
            "timeout 10 {} run --config {} 2>&1 || true",
            binary().display(),
            daemon.config().display()
        );
        let told = shell.types(&run);
        assert!(told.contains(what), "{told}");
        assert!(began.elapsed() < Duration::from_secs(5));
        fs::remove_file(&path).unwrap();
    }
    assert!(daemon.cli("link show").unwrap().contains("gnv0"));
    let told = shell.types("timeout 10 geneved -batch /dev/zero 2>&1 || true");
    assert!(
        told.contains("/dev/zero:1: cannot be read: the line is longer than 1 MiB"),
        "{told}"
    );
}

/// Whoever reads the log may be stuck: the daemon is not, and says later how much is missing.
#[test]
fn a_log_that_nobody_reads_holds_up_nothing() {
    let duo = Duo::new();
    let fifo = duo.world.directory().join("log-fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    // Open at both ends, so that nobody waits for the other one.
    let mut held = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&fifo)
        .unwrap();
    let words = format!("exec \"$@\" 2>{}", fifo.display());
    let start = |name: &str| {
        let host = duo.world.host(name);
        let how = LaunchOptions {
            wrapper: &["sh", "-c", &words, "sh"],
            environment: &[("GENEVED_LOG", "trace")],
            ..LaunchOptions::default()
        };
        (Launch::new(&duo.world, &host, how).ready(), host)
    };
    let (daemon, _host) = start("c");
    let began = Instant::now();
    for n in 0..200 {
        daemon
            .cli(&format!(
                "link add gnv0 type geneve id {} remote 192.0.2.2 address 10.0.0.1/24",
                n + 1
            ))
            .unwrap();
        daemon.cli("link del gnv0").unwrap();
        assert!(began.elapsed() < Duration::from_secs(120));
    }
    assert_ends(daemon);
    let (daemon, _other) = start("d");
    for n in 0..200 {
        daemon
            .cli(&format!(
                "link add gnv0 type geneve id {} remote 192.0.2.2 address 10.0.0.1/24",
                n + 1
            ))
            .unwrap();
        daemon.cli("link del gnv0").unwrap();
    }
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let mut part = [0; 1 << 16];
        loop {
            let got = held.read(&mut part).unwrap();
            text.extend_from_slice(&part[..got]);
            let seen = String::from_utf8_lossy(&text);
            if seen.contains(" lines are missing in this log") {
                return;
            }
        }
    });
    eventually(20, "the log says what is missing", || reader.is_finished());
    drop(daemon);
}

/// The thread of the control side is stopped for good, as if the kernel did not answer it.
#[test]
fn a_daemon_that_hangs_obeys_sigterm_all_the_same() {
    let duo = Duo::new();
    let how = LaunchOptions {
        objects: &link("gnv0", 100, &["10.0.0.1/24"], REMOTE),
        ..LaunchOptions::default()
    };
    let mut daemon = Launch::new(&duo.world, &duo.a, how).ready();
    let main = Pid::from_raw(daemon.pid());
    ptrace::seize(main, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(main).unwrap();
    waitpid(main, Some(WaitPidFlag::__WALL)).unwrap();
    let (took, _) = terminate(&mut daemon);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(
        daemon.log().contains("not stopped within"),
        "{}",
        daemon.log()
    );
    eventually(5, "the interface is gone", || {
        duo.a.ip("link show gnv0").is_err()
    });
    assert!(File::open(Path::new("/proc").join(main.to_string())).is_err());
}
