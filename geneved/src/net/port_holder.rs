//! Finds the holder of a UDP port that geneved needs: a kernel tunnel, Open vSwitch, or a program.

use std::fmt;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use procfs::process::{FDTarget, Process, all_processes};
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    InfoData, InfoGeneve, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};

/// Holder of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortHolder {
    /// A tunnel device of the kernel.
    Device {
        /// Its name.
        name: String,
        /// `geneve` or `vxlan`.
        kind: &'static str,
    },
    /// A program.
    Process {
        /// Its process ID.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// A program that cannot be seen from here, or the kernel without a device in this network namespace.
    Hidden {
        /// User ID of its socket.
        uid: u32,
    },
}

impl PortHolder {
    /// Whether it may release the port soon.
    fn may_let_go(&self) -> bool {
        match self {
            PortHolder::Device { .. } => false,
            PortHolder::Process { pid, .. } => is_ending(*pid),
            PortHolder::Hidden { .. } => true,
        }
    }

    /// How to free the port.
    #[must_use]
    pub fn remedy(&self) -> String {
        const OR: &str = "or use another \"dstport\", the same on every host";
        match self {
            PortHolder::Device { name, .. } if is_ovs(name) => {
                format!("remove its tunnel port (\"ovs-vsctl del-port\"), {OR}")
            }
            PortHolder::Device { name, .. } => format!("\"ip link del {name}\", {OR}"),
            PortHolder::Process { name, .. } if name == "geneved" => {
                "one daemon serves all links of a network namespace: stop the other one".into()
            }
            PortHolder::Process { .. } => format!("stop it, {OR}"),
            PortHolder::Hidden { .. } => {
                format!("\"geneved check\" as root names it; stop it, {OR}")
            }
        }
    }
}

impl fmt::Display for PortHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortHolder::Device { name, .. } if is_ovs(name) => {
                write!(f, "Open vSwitch, by its device \"{name}\"")
            }
            PortHolder::Device { name, kind } => write!(f, "the kernel's {kind} device \"{name}\""),
            PortHolder::Process { pid, name } if name == "geneved" => {
                write!(f, "another geneved (pid {pid})")
            }
            PortHolder::Process { pid, name } => write!(f, "process \"{name}\" (pid {pid})"),
            PortHolder::Hidden { uid } => {
                write!(f, "a program of user {uid} that cannot be seen from here")
            }
        }
    }
}

/// Whether Open vSwitch created the device of this name (`genev_sys_6081`, `vxlan_sys_4789`).
fn is_ovs(name: &str) -> bool {
    name.starts_with("genev_sys_") || name.starts_with("vxlan_sys_") || name.starts_with("ovs-")
}

/// Waits for a UDP port that is about to be released: by a program that is exiting, or without a visible holder,
/// because the kernel releases what an io_uring held only some time after the program is gone. Returns the remaining
/// holder, at once if it will not release the port; `None` if the port is free or no holder is found.
pub fn wait_until_free(
    taken: impl Fn() -> bool,
    holder: impl Fn() -> Option<PortHolder>,
    patience: Duration,
) -> Option<PortHolder> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(20);
    let began = Instant::now();
    while taken() {
        let found = holder();
        let lives = found.as_ref().is_some_and(|holder| !holder.may_let_go());
        if lives || began.elapsed() >= patience {
            return found;
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    None
}

/// Whether a process is exiting: dead, on its way out, or about to be killed. Also true if it is gone.
#[must_use]
pub fn is_ending(pid: i32) -> bool {
    // linux/sched.h
    const PF_EXITING: u32 = 4;
    const SIGKILL_BIT: u64 = 1 << (nix::libc::SIGKILL - 1);
    if kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH) {
        return true;
    }
    let seen = Process::new(pid).and_then(|process| Ok((process.stat()?, process)));
    // A process that cannot be seen may be alive.
    let Ok((stat, process)) = seen else {
        return false;
    };
    let killed = process
        .status()
        .is_ok_and(|status| (status.sigpnd | status.shdpnd) & SIGKILL_BIT != 0);
    matches!(stat.state, 'Z' | 'X' | 'x') || stat.flags & PF_EXITING != 0 || killed
}

/// Finds the holder of this UDP port in the daemon's network namespace; `None` if none is found.
pub async fn holder(netlink: &Handle, port: u16) -> Option<PortHolder> {
    let table = [procfs::net::udp(), procfs::net::udp6()];
    let mut entries = table.into_iter().flatten().flatten();
    let entry = entries.find(|e| e.local_address.port() == port)?;
    if let Some(device) = device(netlink, port).await {
        return Some(device);
    }
    Some(process(entry.inode).unwrap_or(PortHolder::Hidden { uid: entry.uid }))
}

fn process(inode: u64) -> Option<PortHolder> {
    all_processes().ok()?.flatten().find_map(|process| {
        let mut open = process.fd().ok()?.flatten();
        open.any(|fd| matches!(fd.target, FDTarget::Socket(i) if i == inode))
            .then(|| PortHolder::Process {
                pid: process.pid,
                name: process.stat().map(|s| s.comm).unwrap_or_default(),
            })
    })
}

async fn device(netlink: &Handle, port: u16) -> Option<PortHolder> {
    let mut links = netlink.link().get().execute();
    while let Ok(Some(link)) = links.try_next().await {
        if let Some(kind) = tunnel_of(&link, port) {
            let name = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            return Some(PortHolder::Device { name: name?, kind });
        }
    }
    None
}

/// Kind of the tunnel device, if it has this port.
fn tunnel_of(link: &LinkMessage, port: u16) -> Option<&'static str> {
    let infos = link.attributes.iter().filter_map(|a| match a {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    infos.flatten().find_map(|info| match info {
        LinkInfo::Data(InfoData::Geneve(data)) => data
            .iter()
            .any(|d| matches!(d, InfoGeneve::Port(p) if *p == port))
            .then_some("geneve"),
        LinkInfo::Data(InfoData::Vxlan(data)) => data
            .iter()
            .any(|d| matches!(d, InfoVxlan::Port(p) if *p == port))
            .then_some("vxlan"),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn held(holder: Option<&PortHolder>, looks: u32) -> (Option<PortHolder>, u32) {
        let left = Cell::new(looks);
        let taken = || {
            left.set(left.get().saturating_sub(1));
            left.get() > 0
        };
        let found = wait_until_free(taken, || holder.cloned(), Duration::from_millis(200));
        (found, left.get())
    }

    #[test]
    fn who_is_ending_or_not_there_is_waited_for_and_nobody_else() {
        let hidden = PortHolder::Hidden { uid: 0 };
        assert_eq!(held(Some(&hidden), 3), (None, 0));
        assert_eq!(held(None, 3), (None, 0));
        let live = PortHolder::Process {
            pid: std::process::id().cast_signed(),
            name: "geneved".into(),
        };
        assert_eq!(held(Some(&live), 9), (Some(live), 8));
        let device = PortHolder::Device {
            name: "geneve0".into(),
            kind: "geneve",
        };
        assert_eq!(held(Some(&device), 9), (Some(device), 8));
        // The wait is bounded for any holder.
        assert_eq!(held(Some(&hidden), u32::MAX).0, Some(hidden));
    }

    #[test]
    fn a_process_that_was_killed_is_ending() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        assert!(!is_ending(pid));
        child.kill().unwrap();
        assert!(is_ending(pid), "as long as nobody has waited for it");
        child.wait().unwrap();
        assert!(is_ending(pid));
    }
}
