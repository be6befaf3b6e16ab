//! Network namespaces and the links between them, by means of iproute2.

use crate::traffic::Netns;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs `ip` with these arguments and returns its output.
///
/// # Errors
/// If `ip` is not installed, or fails; the error has its output and the command.
pub fn ip(arguments: &str) -> io::Result<String> {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &words)
}

/// Runs a program and returns its standard output.
///
/// # Errors
/// If it is not installed, or its exit status is not zero; the error has its output and the command.
pub fn run(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {program}: {error}")))?;
    text(program, arguments, &output)
}

fn text(program: &str, arguments: &[&str], output: &Output) -> io::Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!(
        "`{program} {}` failed: {}",
        arguments.join(" "),
        words.trim()
    )))
}

/// A named network namespace, removed with everything in it on drop.
#[derive(Debug)]
pub struct LabNetns {
    netns: Netns,
    name: String,
    kept: bool,
}

impl LabNetns {
    /// Creates the namespace and brings its loopback up.
    ///
    /// # Errors
    /// If the name is taken, or the privilege is missing.
    pub fn new(name: &str) -> io::Result<Self> {
        ip(&format!("netns add {name}"))?;
        let host = Self {
            netns: Netns::named(name),
            name: name.to_owned(),
            kept: false,
        };
        host.ip("link set dev lo up")?;
        Ok(host)
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace, to run something inside it.
    #[must_use]
    pub const fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Runs `ip` inside the namespace.
    ///
    /// # Errors
    /// As [`ip`].
    pub fn ip(&self, arguments: &str) -> io::Result<String> {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Runs a program inside the namespace and returns its output.
    ///
    /// # Errors
    /// As [`run`].
    pub fn exec(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        self.netns.run(|| run(program, arguments))?
    }

    /// Writes a setting below `/proc/sys/net`, for example `ipv4/ip_forward`.
    ///
    /// # Errors
    /// If there is no such setting, or it must not be written.
    pub fn sysctl(&self, setting: &str, value: &str) -> io::Result<()> {
        let path = Path::new("/proc/sys/net").join(setting);
        self.netns.run(|| fs::write(&path, value))?
    }

    /// Keeps the namespace when the value is dropped.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for LabNetns {
    fn drop(&mut self) {
        if !self.kept {
            // It may be gone already: removed by a scenario, or by Ctrl-C.
            let _ = remove(&self.name);
        }
    }
}

/// Joins two hosts with a veth pair; each end is up and has the given addresses.
///
/// # Errors
/// As [`ip`].
pub fn veth(
    a: (&LabNetns, &str, &[&str]),
    b: (&LabNetns, &str, &[&str]),
    mtu: u32,
) -> io::Result<()> {
    ip(&format!(
        "link add {} netns {} mtu {mtu} type veth peer name {} netns {} mtu {mtu}",
        a.1,
        a.0.name(),
        b.1,
        b.0.name()
    ))?;
    for (host, device, addresses) in [a, b] {
        for address in addresses {
            host.ip(&format!(
                "address add {address} dev {device}{}",
                no_dad(address)
            ))?;
        }
        host.ip(&format!("link set dev {device} up"))?;
    }
    await_carrier(a.0, a.1)?;
    await_carrier(b.0, b.1)
}

/// Waits for the carrier. Until the kernel notices that the peer is up, which may take a second, an interface
/// silently drops what it sends.
fn await_carrier(host: &LabNetns, device: &str) -> io::Result<()> {
    let start = Instant::now();
    while !host
        .ip(&format!("link show dev {device}"))?
        .contains("state UP")
    {
        if start.elapsed() > Duration::from_secs(5) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{device} in {} does not come up", host.name()),
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Option that skips duplicate address detection, which would delay an IPv6 address by a second or two.
pub(crate) fn no_dad(address: &str) -> &'static str {
    if address.contains(':') { " nodad" } else { "" }
}

/// Kills the processes in a namespace and removes its name; does nothing if there is none.
///
/// # Errors
/// If the privilege is missing.
pub fn remove(name: &str) -> io::Result<()> {
    if !Netns::named(name).exists() {
        return Ok(());
    }
    let pids = || ip(&format!("netns pids {name}")).unwrap_or_default();
    let tell = |signal| {
        for pid in pids().lines().filter_map(|line| line.trim().parse().ok()) {
            // A thread of this process may be in there; it must not take the process with it.
            if pid != std::process::id().cast_signed() {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    };
    if !pids().trim().is_empty() {
        tell(Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) && !pids().trim().is_empty() {
            std::thread::sleep(Duration::from_millis(20));
        }
        tell(Signal::SIGKILL);
    }
    ip(&format!("netns del {name}")).map(drop)
}

/// Names of the namespaces that begin with `prefix`.
#[must_use]
pub fn namespaces(prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(Netns::DIRECTORY) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Checks that namespaces can be created here, and says what is missing if not.
///
/// Inside `unshare -rnm` the real `/run` belongs to another user, so an empty one is mounted over it, visible only in
/// this mount namespace.
///
/// # Errors
/// A sentence for the user: what is missing, and what to type.
pub fn prepare() -> io::Result<()> {
    let refuse = |what: &str| {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{what}: network namespaces need root. Run it with `sudo`, or without root inside \
                 `unshare -rnm` (user, network and mount namespaces of its own)."
            ),
        ))
    };
    if !geteuid().is_root() {
        return refuse("not root");
    }
    // Two test processes must not mount over each other's names at the same time.
    let lock = File::create(std::env::temp_dir().join("geneved-lab.lock")).ok();
    let _lock = lock.and_then(|file| Flock::lock(file, FlockArg::LockExclusive).ok());
    if fs::create_dir_all(Netns::DIRECTORY).is_err() || !is_writable(Path::new(Netns::DIRECTORY)) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, None::<&str>).is_err() {
            return refuse("/run/netns is not writable");
        }
        fs::create_dir_all(Netns::DIRECTORY)?;
    }
    let probe = format!("geneved-probe-{}", std::process::id());
    if let Err(error) = ip(&format!("netns add {probe}")) {
        return if error.kind() == io::ErrorKind::NotFound {
            Err(error)
        } else {
            refuse(&error.to_string())
        };
    }
    ip(&format!("netns del {probe}"))?;
    if !Path::new("/dev/net/tun").exists() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "/dev/net/tun is missing: load the kernel's `tun` module (`modprobe tun`)",
        ));
    }
    Ok(())
}

fn is_writable(directory: &Path) -> bool {
    let probe = directory.join(format!(".geneved-{}", std::process::id()));
    File::create(&probe)
        .and_then(|_| fs::remove_file(&probe))
        .is_ok()
}

/// Whether this kernel can create devices of this type (`vxlan`, `veth`); tried in the host's namespace.
#[must_use]
pub fn has_device_type(host: &LabNetns, kind: &str, options: &str) -> bool {
    let made = host
        .ip(&format!("link add gnvprobe type {kind} {options}"))
        .is_ok();
    if made {
        let _ = host.ip("link del gnvprobe");
    }
    made
}
