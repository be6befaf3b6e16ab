//! Who has a UDP port that geneved wants: a tunnel of the kernel, Open vSwitch, or a program.

use std::fmt;

use futures_util::TryStreamExt;
use procfs::process::{FDTarget, all_processes};
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    InfoData, InfoGeneve, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage,
};

/// Whoever has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A tunnel device of the kernel.
    Device {
        /// Its name.
        name: String,
        /// `geneve` or `vxlan`.
        kind: &'static str,
    },
    /// A program.
    Process {
        /// Its number.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// A program that cannot be seen from here, or the kernel by no device of this network namespace.
    Hidden {
        /// Its user.
        uid: u32,
    },
}

impl Holder {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        const OR: &str = "or use another \"dstport\", the same on every host";
        match self {
            Holder::Device { name, .. } if is_ovs(name) => {
                format!("remove its tunnel port (\"ovs-vsctl del-port\"), {OR}")
            }
            Holder::Device { name, .. } => format!("\"ip link del {name}\", {OR}"),
            Holder::Process { name, .. } if name == "geneved" => {
                "one daemon serves all links of a network namespace: stop the other one".into()
            }
            Holder::Process { .. } => format!("stop it, {OR}"),
            Holder::Hidden { .. } => {
                format!("\"geneved check\" as root names it; stop it, {OR}")
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Device { name, .. } if is_ovs(name) => {
                write!(f, "Open vSwitch, by its device \"{name}\"")
            }
            Holder::Device { name, kind } => write!(f, "the kernel's {kind} device \"{name}\""),
            Holder::Process { pid, name } if name == "geneved" => {
                write!(f, "another geneved (pid {pid})")
            }
            Holder::Process { pid, name } => write!(f, "process \"{name}\" (pid {pid})"),
            Holder::Hidden { uid } => {
                write!(f, "a program of user {uid} that cannot be seen from here")
            }
        }
    }
}

/// Whether Open vSwitch has made a device of this name (`genev_sys_6081`, `vxlan_sys_4789`).
fn is_ovs(name: &str) -> bool {
    name.starts_with("genev_sys_") || name.starts_with("vxlan_sys_") || name.starts_with("ovs-")
}

/// Who has this UDP port in the daemon's network namespace; `None` where nobody is found.
pub async fn holder(netlink: &Handle, port: u16) -> Option<Holder> {
    let table = [procfs::net::udp(), procfs::net::udp6()];
    let mut entries = table.into_iter().flatten().flatten();
    let entry = entries.find(|e| e.local_address.port() == port)?;
    if let Some(device) = device(netlink, port).await {
        return Some(device);
    }
    Some(process(entry.inode).unwrap_or(Holder::Hidden { uid: entry.uid }))
}

fn process(inode: u64) -> Option<Holder> {
    all_processes().ok()?.flatten().find_map(|process| {
        let mut open = process.fd().ok()?.flatten();
        open.any(|fd| matches!(fd.target, FDTarget::Socket(i) if i == inode))
            .then(|| Holder::Process {
                pid: process.pid,
                name: process.stat().map(|s| s.comm).unwrap_or_default(),
            })
    })
}

async fn device(netlink: &Handle, port: u16) -> Option<Holder> {
    let mut links = netlink.link().get().execute();
    while let Ok(Some(link)) = links.try_next().await {
        if let Some(kind) = tunnel_of(&link, port) {
            let name = link.attributes.iter().find_map(|a| match a {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            });
            return Some(Holder::Device { name: name?, kind });
        }
    }
    None
}

/// The kind of the tunnel that this link is, if it has this port.
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
