//! Default MAC address of a link.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use libgeneve::wire::ethernet::Mac;

use crate::config::state::LinkSpec;

/// Returns the configured MAC address, or one derived from this machine, the link's name and its VNI: stable across
/// restarts and changes of the underlay, and different on every host and for every VPC. A network namespace counts as
/// a host of its own, and its addresses last as long as it does.
pub(in crate::daemon) fn lladdr(link: &LinkSpec) -> Mac {
    link.lladdr.unwrap_or_else(|| {
        let seed = format!("{}\n{}\n{}", machine(), link.name, link.vni);
        let hash = blake3::derive_key("geneved 2026-11 MAC address of a link", seed.as_bytes());
        let [a, b, c, d, e, ..] = hash;
        Mac::local([a, b, c, d, e])
    })
}

/// Identifies this machine, or this network namespace (machine-id(5)).
fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"]
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok())
            .map(|id| id.trim().to_owned() + &namespace().unwrap_or_default())
            .unwrap_or_default()
    })
}

/// The daemon's network namespace, if it is not the initial one.
fn namespace() -> Option<String> {
    // The kernel shows global network settings in the initial namespace only (net/core/sysctl_net_core.c).
    if Path::new("/proc/sys/net/core/netdev_max_backlog").exists() {
        return None;
    }
    let own = fs::read_link("/proc/self/ns/net").ok()?;
    own.into_os_string().into_string().ok()
}
