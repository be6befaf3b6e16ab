//! Hosts in network namespaces, the veth between them, and the daemons that run in them.

use geneved::lab::daemon::{DaemonFiles, DaemonProcess as Process};
use geneved::lab::netns::{self, LabNetns};
use geneved::traffic::{EchoRun, SendAmount, TcpBulk, TrafficEnds, UdpBurst};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// I/O backend of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestBackend {
    /// `io = "io_uring"`
    Uring,
    /// `io = "syscalls"`
    Syscalls,
}

impl TestBackend {
    /// Its keyword in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Syscalls => "syscalls",
        }
    }
}

/// Address family of the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderlayFamily {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl UnderlayFamily {
    /// Both families.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];
}

const TEST_PREFIX: &str = "gnvt";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Namespace names unique to this process, and a directory for its daemons' files; cleans up after itself.
pub struct TestWorld {
    prefix: String,
    directory: PathBuf,
}

impl TestWorld {
    /// Checks that namespaces can be created, and removes leftovers of dead test processes.
    ///
    /// # Panics
    /// If they cannot be created; the message says what is missing.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        static READY: OnceLock<Result<(), String>> = OnceLock::new();
        let ready = READY.get_or_init(|| {
            netns::prepare().map_err(|error| error.to_string())?;
            for name in netns::namespaces(&format!("{TEST_PREFIX}-")) {
                let pid = name.split('-').nth(1).unwrap_or("");
                if !Path::new("/proc").join(pid).exists() {
                    let _ = netns::remove(&name);
                }
            }
            Ok(())
        });
        if let Err(words) = ready {
            panic!("these scenarios need network namespaces: {words}");
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{TEST_PREFIX}-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        Self { prefix, directory }
    }

    /// Directory of the daemons' files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Creates a host.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn host(&self, name: &str) -> LabNetns {
        LabNetns::new(&format!("{}-{name}", self.prefix)).expect("a namespace can be made")
    }

    /// The name that [`TestWorld::host`] gives, without making it.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Panics
    /// If the directory of this world cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.join(name);
        std::fs::write(&path, text).expect("the directory is writable");
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("the file is ours");
        path
    }

    /// Starts a daemon in `host`; `daemon` is further lines of the `[daemon]` table.
    ///
    /// # Panics
    /// If it does not become ready; the message has its log.
    #[must_use]
    pub fn daemon(
        &self,
        host: &LabNetns,
        io: TestBackend,
        daemon: &str,
        links: &str,
    ) -> TestDaemon {
        self.try_daemon(host, io, daemon, links)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`TestWorld::daemon`], for a daemon that may be refused.
    ///
    /// # Errors
    /// If it does not become ready; with its log.
    pub fn try_daemon(
        &self,
        host: &LabNetns,
        io: TestBackend,
        daemon: &str,
        links: &str,
    ) -> std::io::Result<TestDaemon> {
        let site = DaemonFiles {
            binary: binary().to_owned(),
            directory: self.directory.clone(),
            name: host.name().rsplit('-').next().unwrap_or("x").to_owned(),
        };
        let config = format!("io = \"{}\"\n{daemon}\n{links}", io.name());
        Ok(TestDaemon(Some(Process::start(site, host, &config)?)))
    }
}

impl Drop for TestWorld {
    fn drop(&mut self) {
        for name in netns::namespaces(&format!("{}-", self.prefix)) {
            let _ = netns::remove(&name);
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Path of the daemon's binary: `GENEVED`, or built from this workspace in the profile of the tests.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn binary() -> &'static Path {
    static GENEVED_BINARY: OnceLock<PathBuf> = OnceLock::new();
    GENEVED_BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("GENEVED") {
            return path.into();
        }
        let own = std::env::current_exe().expect("this program has a path");
        let profile = own.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
        let target = profile.parent().expect("target/PROFILE");
        let mut build = Command::new(env!("CARGO"));
        build
            .args(["build", "-q", "-p", "geneved", "--bin", "geneved"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .arg("--target-dir")
            .arg(target);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo can be run");
        assert!(status.success(), "geneved does not build");
        profile.join("geneved")
    })
}

/// Running daemon; prints its counters and log if the test fails.
pub struct TestDaemon(Option<Process>);

impl TestDaemon {
    /// The process.
    ///
    /// # Panics
    /// Never: it is there until the value is dropped.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.0.as_ref().expect("there until dropped")
    }

    /// Runs a CLI command against it.
    ///
    /// # Panics
    /// If the command fails.
    pub fn cli(&self, arguments: &str) -> String {
        self.process()
            .cli(arguments)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a CLI command that must fail; returns its message.
    ///
    /// # Panics
    /// If it succeeds.
    pub fn refused(&self, arguments: &str) -> String {
        match self.process().cli(arguments) {
            Ok(words) => panic!("`{arguments}` was not refused: {words}"),
            Err(error) => error.to_string(),
        }
    }

    /// Runs `-j ARGUMENTS` and parses the output.
    ///
    /// # Panics
    /// If the command fails or does not print JSON.
    pub fn json(&self, arguments: &str) -> Value {
        let text = self.cli(&format!("-j {arguments}"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments}: {error}: {text}"))
    }

    /// Returns the only link of this name, with statistics.
    ///
    /// # Panics
    /// If there is none.
    pub fn link(&self, name: &str) -> Value {
        let links = self.json(&format!("-s link show {name}"));
        let found = links
            .as_array()
            .and_then(|all| all.iter().find(|l| l["ifname"] == name));
        found
            .cloned()
            .unwrap_or_else(|| panic!("no link {name} in {links}"))
    }

    /// Returns the names of its links.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn links(&self) -> Vec<String> {
        let links = self.json("link show");
        let names = links.as_array().into_iter().flatten();
        names
            .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
            .collect()
    }

    /// Returns all non-zero drop counters as `LINK/DIRECTION/REASON`; those without a link as `-/…`.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut counters = BTreeMap::new();
        let (links, host) = (self.json("-s link show"), self.json("host show"));
        let all = [links, host].into_iter();
        for one in all.flat_map(|all| all.as_array().cloned().unwrap_or_default()) {
            let name = one["ifname"].as_str().unwrap_or("-");
            for (direction, reasons) in one["drops"].as_object().into_iter().flatten() {
                for (reason, count) in reasons.as_object().into_iter().flatten() {
                    counters.insert(
                        format!("{name}/{direction}/{reason}"),
                        count.as_u64().unwrap_or(0),
                    );
                }
            }
        }
        counters.retain(|_, count| *count > 0);
        counters
    }

    /// Resident memory in bytes.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process().pid());
        let status = std::fs::read_to_string(path).expect("the daemon runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kilobytes.expect("VmRSS is a number") * 1024
    }

    /// CPU time used so far, user and system.
    ///
    /// # Panics
    /// If the process is gone.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process().pid());
        let stat = std::fs::read_to_string(path).expect("the daemon runs");
        // After the name in parentheses: state, then 10 fields, then utime and stime in 1/100 s.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
        let ticks = |i: usize| fields[i].parse::<u64>().unwrap_or(0);
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    /// Asserts that it still runs and has not panicked.
    ///
    /// # Panics
    /// If it has.
    pub fn assert_alive(&mut self) {
        let process = self.0.as_mut().expect("there until dropped");
        let ended = process.exited().expect("it is our child");
        assert!(ended.is_none(), "the daemon ended: {ended:?}");
        assert!(
            !process.log().contains("panicked"),
            "the daemon panicked; see its log"
        );
    }

    /// Stops it with SIGTERM.
    ///
    /// # Panics
    /// If it does not exit, or its exit status is not zero.
    pub fn stop(mut self) {
        let process = self.0.take().expect("there until dropped");
        let status = process.stop().unwrap_or_else(|error| panic!("{error}"));
        assert!(status.success(), "the daemon ended with {status}");
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// If it has already exited.
    pub fn kill(mut self) {
        let process = self.0.take().expect("there until dropped");
        process.kill().expect("it ran until now");
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if let Some(process) = &self.0
            && std::thread::panicking()
        {
            let state = process.cli("-s link show");
            eprintln!(
                "---- daemon {} ----\n{}\n---- its log ----\n{}",
                process.site().name,
                state.unwrap_or_else(|error| error.to_string()),
                process.log()
            );
        }
    }
}

/// Formats a `[[link]]` table; `more` is further lines.
#[must_use]
pub fn link(name: &str, vni: u32, addresses: &[&str], more: &str) -> String {
    let mut text =
        format!("[[link]]\nname = \"{name}\"\ntype = \"geneve\"\nid = {vni}\naddress = [");
    for address in addresses {
        write!(text, "\"{address}\", ").unwrap();
    }
    text + "]\n" + more + "\n"
}

/// Two hosts joined by a veth `u0`: 192.0.2.1 and 192.0.2.2, 2001:db8::1 and 2001:db8::2.
pub struct Duo {
    /// Host 192.0.2.1.
    pub a: LabNetns,
    /// Host 192.0.2.2.
    pub b: LabNetns,
    /// Dropped last.
    pub world: TestWorld,
}

impl Duo {
    /// Creates them, with an underlay MTU of 1500.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self::with_mtu(1500)
    }

    /// Creates them, with this underlay MTU.
    ///
    /// # Panics
    /// If the kernel refuses.
    #[must_use]
    pub fn with_mtu(mtu: u32) -> Self {
        let world = TestWorld::new();
        let (a, b) = (world.host("a"), world.host("b"));
        netns::veth(
            (&a, "u0", &["192.0.2.1/24", "2001:db8::1/64"]),
            (&b, "u0", &["192.0.2.2/24", "2001:db8::2/64"]),
            mtu,
        )
        .expect("a veth can be made");
        let duo = Self { a, b, world };
        // Resolves the neighbours first, so that loss or delay in the overlay is the overlay's own.
        for family in UnderlayFamily::BOTH {
            let echo = EchoRun {
                count: 1,
                ..EchoRun::default()
            };
            crate::eventually(10, "the underlay carries", || {
                let report = echo.run(duo.a.netns(), Self::underlay(family, 1));
                report.is_ok_and(|report| report.all_answered())
            });
        }
        duo
    }

    /// Returns the underlay address of host a (0) or b (1).
    #[must_use]
    pub fn underlay(family: UnderlayFamily, side: usize) -> IpAddr {
        let text = match family {
            UnderlayFamily::V4 => ["192.0.2.1", "192.0.2.2"][side],
            UnderlayFamily::V6 => ["2001:db8::1", "2001:db8::2"][side],
        };
        text.parse().expect("an address")
    }

    /// Starts a daemon on each side with one link `gnv0`, VNI 100, 10.0.0.1 and .2, fd00::1 and ::2.
    #[must_use]
    pub fn overlay(&self, io: TestBackend, family: UnderlayFamily, more: &str) -> [TestDaemon; 2] {
        let start = |side: usize, host: &LabNetns| {
            let more = format!("remote = \"{}\"\n{more}", Self::underlay(family, 1 - side));
            let [v4, v6] = [
                format!("10.0.0.{}/24", side + 1),
                format!("fd00::{}/64", side + 1),
            ];
            self.world
                .daemon(host, io, "", &link("gnv0", 100, &[&v4, &v6], &more))
        };
        [start(0, &self.a), start(1, &self.b)]
    }

    /// Both ends of a conversation from host a to this address of host b.
    ///
    /// # Panics
    /// If it is not an address.
    #[must_use]
    pub fn ends(&self, address: &str) -> TrafficEnds {
        TrafficEnds::new(
            self.a.netns(),
            self.b.netns(),
            address.parse().expect("an address"),
        )
    }
}

/// Asserts that every ping from `ends.client` is answered.
///
/// # Panics
/// If one is not.
pub fn assert_ping(ends: &TrafficEnds) {
    let echo = EchoRun {
        count: 3,
        interval: Duration::from_millis(10),
        ..EchoRun::default()
    };
    let report = echo.run(&ends.client, ends.address).expect("a raw socket");
    assert!(report.all_answered(), "ping {}: {report}", ends.address);
}

/// Whether a single ping from `ends.client` is answered; false if it cannot be sent.
#[must_use]
pub fn answers(ends: &TrafficEnds) -> bool {
    let once = EchoRun {
        count: 1,
        ..EchoRun::default()
    };
    let report = once.run(&ends.client, ends.address);
    report.is_ok_and(|report| report.all_answered())
}

/// Asserts that no ping from `ends.client` is answered.
///
/// # Panics
/// If one is.
pub fn assert_no_ping(ends: &TrafficEnds) {
    let echo = EchoRun {
        count: 2,
        interval: Duration::from_millis(10),
        timeout: Duration::from_millis(300),
        ..EchoRun::default()
    };
    let report = echo.run(&ends.client, ends.address).expect("a raw socket");
    assert_eq!(report.received, 0, "ping {}: {report}", ends.address);
}

/// Asserts that `bytes` arrive unchanged over each of `streams` TCP connections.
///
/// # Panics
/// If they do not.
pub fn assert_tcp(ends: &TrafficEnds, streams: usize, bytes: u64) {
    let bulk = TcpBulk {
        streams,
        amount: SendAmount::Count(bytes),
        ..TcpBulk::default()
    };
    let report = bulk
        .run(ends)
        .unwrap_or_else(|error| panic!("TCP to {}: {error}", ends.address));
    assert!(report.is_intact(), "TCP to {}: {report}", ends.address);
}

/// Asserts that datagrams of `size` bytes arrive unchanged, at a pace that fills no queue.
///
/// # Panics
/// If they do not.
pub fn assert_datagrams(ends: &TrafficEnds, size: usize) {
    let burst = UdpBurst {
        size,
        amount: SendAmount::Count(500),
        pace: Some(2_000.0),
        flows: 2,
        ..UdpBurst::default()
    };
    let report = burst.run(ends).unwrap();
    let name = format!("UDP {size} B to {}: {report}", ends.address);
    assert!(report.loss() <= 0.01, "{name}");
    assert_eq!(report.corrupted + report.duplicated, 0, "{name}");
}

/// Asserts that a paced burst of datagrams of `size` bytes arrives.
///
/// # Panics
/// If more than 1 % is lost, anything is changed or duplicated, or more than a few are reordered.
pub fn assert_udp(ends: &TrafficEnds, size: usize) {
    let burst = UdpBurst {
        size,
        amount: SendAmount::Count(2_000),
        pace: Some(10_000.0),
        flows: 2,
        ..UdpBurst::default()
    };
    let report = burst
        .run(ends)
        .unwrap_or_else(|error| panic!("UDP to {}: {error}", ends.address));
    assert!(
        report.loss() <= 0.01,
        "UDP {size} B to {}: {report}",
        ends.address
    );
    let unclean = report.corrupted + report.duplicated;
    assert_eq!(unclean, 0, "UDP {size} B to {}: {report}", ends.address);
    // A thread that migrates to another CPU leaves packets behind in the backlog of its old one.
    assert!(
        report.reordered <= 10,
        "UDP {size} B to {}: {report}",
        ends.address
    );
}
