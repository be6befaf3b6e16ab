//! What this host can do, feature by feature: what the packet path can use, and what surrounds it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use caps::{CapSet, Capability};
use nix::unistd::User;

use super::core::needed_ports;
use crate::config::file::{DEFAULT_PATH, DEFAULT_SOCKET};
use crate::config::state::State;
use crate::io::{Feature, probe};
use crate::net::port::{Holder, holder, wait_until_free};

/// Without these there is nothing that geneved could do.
pub const INDISPENSABLE: [&str; 2] = ["tun", "net-admin"];
/// The port of Geneve (RFC 8926, section 3.3).
const GENEVE: u16 = 6081;

/// Tries every feature; nothing is left behind.
#[must_use]
pub fn features() -> Vec<Feature> {
    let mut all = probe();
    all.extend([
        capability(
            "net-admin",
            Capability::CAP_NET_ADMIN,
            "interfaces, addresses and large socket buffers",
            "no link can be made; run it as root, or give the service AmbientCapabilities=CAP_NET_ADMIN",
        ),
        capability(
            "netns",
            Capability::CAP_SYS_ADMIN,
            "links can be put into other network namespaces",
            "links stay in the daemon's network namespace; geneved.service(8) has the drop-in that changes it",
        ),
        capability(
            "low-ports",
            Capability::CAP_NET_BIND_SERVICE,
            "dstport and srcport may be below 1024",
            "dstport and srcport stay above 1023; geneved.service(8) has the drop-in that changes it",
        ),
        port(),
        feature(
            "ipv6",
            Path::new("/proc/net/if_inet6").exists(),
            "the kernel has IPv6",
            "the kernel has no IPv6; underlay and overlay are IPv4 only",
        ),
        user(),
        configuration(),
        daemon(),
    ]);
    all
}

fn feature(name: &'static str, available: bool, with: &str, without: &str) -> Feature {
    Feature {
        name,
        available,
        detail: if available { with } else { without }.into(),
    }
}

fn capability(name: &'static str, wanted: Capability, with: &str, without: &str) -> Feature {
    let has = caps::has_cap(None, CapSet::Effective, wanted).unwrap_or(false);
    let without = format!("{wanted} is missing: {without}");
    feature(name, has, &format!("{wanted}: {with}"), &without)
}

/// How long a start waits for a port that is about to become free.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who has ports of these links. Only with all of root's capabilities can it be seen which program has one, so it is
/// looked before they are given away.
pub(super) fn port_holders(state: &State) -> BTreeMap<u16, Holder> {
    let ports = needed_ports(state).into_keys();
    let holder = |port| wait_until_free(|| taken(port), || whose(port), PATIENCE);
    ports
        .filter_map(|port| Some((port, holder(port)?)))
        .collect()
}

fn taken(port: u16) -> bool {
    crate::io::port_is_taken(port)
}

fn port() -> Feature {
    let holder = taken(GENEVE).then(|| whose(GENEVE));
    let available = holder.is_none();
    let detail = match holder {
        None => format!("UDP port {GENEVE} is free"),
        Some(None) => format!("UDP port {GENEVE} is taken"),
        Some(Some(holder)) => {
            format!(
                "UDP port {GENEVE} is taken by {holder}; {}",
                holder.remedy()
            )
        }
    };
    Feature {
        name: "port-6081",
        available,
        detail,
    }
}

fn whose(port: u16) -> Option<Holder> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .ok()?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection().ok()?;
        tokio::spawn(connection);
        holder(&netlink, port).await
    })
}

fn user() -> Feature {
    let found = User::from_name("geneved").is_ok_and(|user| user.is_some());
    feature(
        "user",
        found,
        "the service's user geneved is there; its group may use the control socket",
        "there is no user geneved, which the service runs as; the packages make it, or \"useradd --system geneved\"",
    )
}

fn configuration() -> Feature {
    let (available, detail) = match fs::metadata(DEFAULT_PATH) {
        Ok(_) => (
            true,
            format!("{DEFAULT_PATH} is there; \"geneved check default\" reads it"),
        ),
        Err(error) => (
            false,
            format!("{DEFAULT_PATH}: {error}; an empty file is enough to start with"),
        ),
    };
    Feature {
        name: "config",
        available,
        detail,
    }
}

fn daemon() -> Feature {
    let (available, detail) = match UnixStream::connect(DEFAULT_SOCKET) {
        Ok(_) => (true, format!("a daemon answers at {DEFAULT_SOCKET}")),
        Err(error) => (
            false,
            format!(
                "{DEFAULT_SOCKET}: {error}; start one with \"systemctl start geneved\" or \"geneved run\""
            ),
        ),
    };
    Feature {
        name: "daemon",
        available,
        detail,
    }
}
