//! Addresses that others assign to the interfaces of links: packets for them are delivered there, like those for
//! configured addresses.

use std::collections::BTreeSet;
use std::time::Instant;

use ipnet::IpNet;

use super::repair::observe;
use super::{AffectedLinks, Core, CoreState};
use crate::config::state::LinkSpec;
use crate::config::value::{IfName, ModeValue};
use crate::daemon::compile::Outdated;
use crate::net::interface::InterfaceStatus;

/// Maximum number of followed addresses per interface beside the configured ones. Whoever may assign addresses,
/// perhaps a tenant in its own namespace, must not be able to grow the tables without limit.
const MAX_FOLLOWED: usize = 1024;

/// Number of changes to one interface that are followed at once, before the limit of one a second: each recompiles
/// the link's tables.
const FOLLOW_BURST: u64 = 10;

/// Addresses that others assigned to one interface, and the rate limit of changes.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct AddressFollower {
    addresses: Vec<IpNet>,
    /// Beyond [`MAX_FOLLOWED`].
    left_out: usize,
    since: Option<Instant>,
    changes: u64,
    /// A change was deferred by the rate limit.
    pub(super) pending: bool,
}

impl AddressFollower {
    /// The addresses that are not in the configuration.
    pub(super) fn addresses(&self) -> &[IpNet] {
        &self.addresses
    }

    /// Follows the observed addresses unless the rate limit defers it; returns whether anything changed.
    fn follow(&mut self, seen: &InterfaceStatus, link: &LinkSpec, now: Instant) -> bool {
        let (addresses, left_out) = others(seen, link);
        self.pending = false;
        if addresses == self.addresses {
            return false;
        }
        if !self.allow(now) {
            self.pending = true;
            return false;
        }
        let name = &link.name;
        if left_out > 0 && self.left_out == 0 {
            tracing::warn!(link = %name, left_out, "link \"{name}\": its interface has {left_out} addresses beyond the first {MAX_FOLLOWED}, and packets for those are dropped; allow their prefix: \"geneved link set {name} allowed PREFIX\"");
        }
        (self.addresses, self.left_out) = (addresses, left_out);
        true
    }

    fn allow(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let seconds = now.duration_since(since).as_secs();
        if seconds > 0 {
            self.changes = self.changes.saturating_sub(seconds);
            self.since = Some(now);
        }
        let allowed = self.changes < FOLLOW_BURST;
        self.changes += u64::from(allowed);
        allowed
    }
}

/// The addresses of an interface that are not configured, and how many of them are left out.
fn others(seen: &InterfaceStatus, link: &LinkSpec) -> (Vec<IpNet>, usize) {
    // Frames are delivered by MAC address.
    if link.mode == ModeValue::Ethernet {
        return (Vec::new(), 0);
    }
    let all = seen.addresses.iter().chain(&seen.link_local);
    let mut all: Vec<_> = all
        .filter(|address| !link.addresses.contains(address))
        .copied()
        .collect();
    all.sort_unstable();
    all.dedup();
    let left_out = all.len().saturating_sub(MAX_FOLLOWED);
    all.truncate(MAX_FOLLOWED);
    (all, left_out)
}

impl Core {
    /// Follows the addresses of these links after the kernel reported changes.
    pub(in crate::daemon) async fn follow_addresses(&self, concerned: &AffectedLinks) {
        let mut inner = self.inner().await;
        let seen = observe(&inner, |name| concerned.has(name)).await;
        let changed = follow(&mut inner, &seen);
        if !changed.is_empty() {
            self.publish(&mut inner, Outdated::Links(changed)).await;
        }
    }
}

/// Follows the observed addresses of these links; returns the links whose tables are outdated.
pub(super) fn follow(
    inner: &mut CoreState,
    seen: &[(IfName, Option<InterfaceStatus>)],
) -> BTreeSet<IfName> {
    let now = Instant::now();
    let mut changed = BTreeSet::new();
    for (name, seen) in seen {
        if let (Some(seen), Some(link), Some(running)) = (
            seen,
            inner.state.links.get(name),
            inner.running.get_mut(name),
        ) && running.following.follow(seen, link, now)
        {
            changed.insert(name.clone());
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_changes_addresses_again_and_again_is_followed_once_a_second() {
        let (mut following, start) = (AddressFollower::default(), Instant::now());
        let mut at = |ms| following.allow(start + Duration::from_millis(ms));
        assert!((0..10).all(&mut at));
        assert!(!at(900));
        assert!(at(1100) && !at(1200));
        assert!(at(2200) && !at(2300));
    }
}
