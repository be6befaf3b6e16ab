//! Changes that others make to the interfaces of links: detected, reported, and reverted where the daemon is in
//! charge.
//!
//! The daemon is in charge of the MTU and of the configured addresses. Whether an interface is up is the operator's
//! choice: one that was set down from outside stays down and is shown so.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Display;
use std::time::Instant;

use ipnet::IpNet;

use super::address_follower::follow;
use super::running::{InterfaceDrift, Obstacle};
use super::{Core, CoreState, host_event};
use crate::config::state::LinkSpec;
use crate::config::value::IfName;
use crate::daemon::compile::Outdated;
use crate::net::interface::{self, InterfaceStatus, can_have};
use crate::net::netlink_watch::InterfaceEvent;

/// Seconds between two checks of interfaces for which no netlink events arrive.
const DEAF_LOOKS: u32 = 5;

/// Index of the links' interfaces, for filtering netlink events.
#[derive(Debug, Default)]
pub(super) struct LinkInterfaces {
    names: RefCell<HashSet<String>>,
    /// Names by interface index; indices may repeat across namespaces.
    by_index: RefCell<HashMap<u32, Vec<String>>>,
    /// Events from other namespaces are not received, so interfaces there are polled.
    deaf: Cell<bool>,
    looks: Cell<u32>,
}

/// The links whose interfaces may have changed.
#[derive(Debug)]
pub(in crate::daemon) enum AffectedLinks {
    /// The links with these names.
    Some(HashSet<String>),
    /// Any link.
    All,
}

impl AffectedLinks {
    /// No links.
    pub(in crate::daemon) fn none() -> Self {
        AffectedLinks::Some(HashSet::new())
    }

    /// Whether there are none.
    pub(in crate::daemon) fn is_none(&self) -> bool {
        matches!(self, AffectedLinks::Some(names) if names.is_empty())
    }

    pub(super) fn has(&self, name: &IfName) -> bool {
        match self {
            AffectedLinks::Some(names) => names.contains(name.as_str()),
            AffectedLinks::All => true,
        }
    }
}

impl Core {
    /// Sets whether events from other network namespaces are received.
    pub(in crate::daemon) fn hears_of_namespaces(&self, hears: bool) {
        self.interfaces.deaf.set(!hears);
    }

    /// Adds the links that these events are about.
    pub(in crate::daemon) fn note(&self, news: &[InterfaceEvent], concerned: &mut AffectedLinks) {
        for news in news {
            match (news, &mut *concerned) {
                (_, AffectedLinks::All) => {}
                (InterfaceEvent::Anything, _) => *concerned = AffectedLinks::All,
                (InterfaceEvent::Link(name, index), AffectedLinks::Some(names)) => {
                    if self.interfaces.names.borrow().contains(name) {
                        names.insert(name.clone());
                    }
                    // The interface may have been renamed.
                    let by_index = self.interfaces.by_index.borrow();
                    names.extend(by_index.get(index).into_iter().flatten().cloned());
                }
                (InterfaceEvent::Address(index), AffectedLinks::Some(names)) => {
                    let by_index = self.interfaces.by_index.borrow();
                    names.extend(by_index.get(index).into_iter().flatten().cloned());
                }
            }
        }
    }

    /// Starts listening to events of these links.
    pub(super) fn listen_for(&self, inner: &CoreState, changed: &Outdated) {
        let mut names = self.interfaces.names.borrow_mut();
        let Outdated::Links(changed) = changed else {
            *names = inner.running.keys().map(ToString::to_string).collect();
            return;
        };
        for name in changed {
            match inner.running.contains_key(name) && inner.state.links.contains_key(name) {
                true => names.insert(name.to_string()),
                false => names.remove(name.as_str()),
            };
        }
    }

    /// Does the same for links whose interfaces are about to be created.
    pub(super) fn listen_for_new(&self, links: &[IfName]) {
        let mut names = self.interfaces.names.borrow_mut();
        names.extend(links.iter().map(ToString::to_string));
    }

    /// Polls what the kernel sends no events for; call about once a second.
    pub(in crate::daemon) async fn check_interfaces(&self) {
        self.check_namespaces().await;
        self.note_namespaces(&*self.inner().await).await;
        let looks = self.interfaces.looks.get().wrapping_add(1);
        self.interfaces.looks.set(looks);
        let unheard = self.interfaces.deaf.get() && looks.is_multiple_of(DEAF_LOOKS);
        let inner = self.inner().await;
        let due = inner.running.iter().filter(|(_, r)| {
            r.repairs.pending || r.following.pending || r.absent || (unheard && r.netns.is_some())
        });
        let due = AffectedLinks::Some(due.map(|(name, _)| name.to_string()).collect());
        drop(inner);
        if !due.is_none() {
            self.interfaces_changed(&due).await;
        }
    }

    /// Checks interfaces after the kernel reported a change.
    pub(in crate::daemon) async fn interfaces_changed(&self, concerned: &AffectedLinks) {
        let mut inner = self.inner().await;
        let mut changed = self.recover_returned(&mut inner, concerned).await;
        let seen = observe(&inner, |name| concerned.has(name)).await;
        let followed = follow(&mut inner, &seen);
        if !followed.is_empty() {
            self.publish(&mut inner, Outdated::Links(followed)).await;
        }
        for (name, seen) in seen {
            let Some(seen) = seen else {
                changed.extend(self.note_absent(&mut inner, name));
                continue;
            };
            // Watchers are not told of the address that the kernel generates.
            let seen = InterfaceStatus {
                link_local: None,
                ..seen
            };
            let Some(link) = inner.state.links.get(&name).cloned() else {
                continue;
            };
            let Some(running) = inner.running.get_mut(&name) else {
                continue;
            };
            running.absent = false;
            if running.told.as_ref() != Some(&seen) {
                let first = running.told.is_none();
                running.told = Some(seen.clone());
                if !first {
                    changed.push(name.clone());
                }
            }
            let drift = InterfaceDrift::of(&seen, running.mtu, &link.addresses);
            if drift.is_none() {
                running.repairs.pending = false;
                let barred = unusable_addresses(&link.addresses, running.mtu);
                if let Some(barred) = &barred
                    && running.defect.as_ref() != Some(barred)
                {
                    tracing::warn!(link = %name, "link \"{name}\" is not as configured: {barred}");
                }
                running.defect = barred;
                continue;
            }
            if !running.repairs.allow(Instant::now()) {
                if running.repairs.just_ended() {
                    let defect = "somebody else changes its MTU or addresses again and again; it is left so for half a minute".to_owned();
                    tracing::warn!(link = %name, "link \"{name}\": {defect}");
                    self.hub.announce(host_event(
                        None,
                        "link-repaired",
                        format!("link \"{name}\": {defect}"),
                    ));
                    running.defect = Some(defect);
                }
                continue;
            }
            let what = in_words(&seen, &drift);
            let restored = interface::restore(running.own(&link), drift.mtu, drift.missing);
            match restored.await {
                Ok(()) => {
                    running.defect = None;
                    tracing::warn!(link = %name, what, "link \"{name}\" was changed from outside, and is set right: {what}");
                    let detail = format!("link \"{name}\": {what}");
                    self.hub.announce(host_event(None, "link-repaired", detail));
                }
                Err(error) => self.note_defect(&mut inner, &link, &error),
            }
        }
        let mut by_index = HashMap::<u32, Vec<String>>::new();
        for (name, running) in &inner.running {
            if running.ifindex != 0 {
                let names = by_index.entry(running.ifindex).or_default();
                names.push(name.to_string());
            }
        }
        *self.interfaces.by_index.borrow_mut() = by_index;
        self.tell_links(&inner, &changed).await;
    }

    /// Records what the kernel refused; it is retried later.
    pub(super) fn note_defect(&self, inner: &mut CoreState, link: &LinkSpec, error: &dyn Display) {
        let Some(running) = inner.running.get_mut(&link.name) else {
            return;
        };
        let (name, text) = (&link.name, error.to_string());
        let error = text.trim_start_matches(&format!("link \"{name}\": "));
        let defect = Some(error.to_owned());
        if running.defect != defect {
            tracing::warn!(link = %name, %error, "link \"{name}\" is not as configured: {error}");
        }
        running.repairs.failed();
        running.defect = defect;
    }

    /// Links whose interfaces are missing; and those whose interfaces differ from the configuration in MTU, addresses
    /// or admin state.
    pub(super) async fn misplaced(&self, inner: &CoreState) -> (Vec<IfName>, Vec<IfName>) {
        let (mut absent, mut astray) = (Vec::new(), Vec::new());
        for (name, seen) in observe(inner, |_| true).await {
            let Some(seen) = seen else {
                absent.push(name);
                continue;
            };
            if let (Some(link), Some(running)) =
                (inner.state.links.get(&name), inner.running.get(&name))
                && (seen.is_up() != link.up
                    || !InterfaceDrift::of(&seen, running.mtu, &link.addresses).is_none())
            {
                astray.push(name);
            }
        }
        (absent, astray)
    }

    /// Records that an interface is not found under its name. Reports it on the second check only, because a removal
    /// has been reported by other means by then.
    fn note_absent(&self, inner: &mut CoreState, name: IfName) -> Option<IfName> {
        let running = inner.running.get_mut(&name)?;
        if !std::mem::replace(&mut running.absent, true) {
            return None;
        }
        running.absent = false;
        let cause = RENAMED_HINT.to_owned();
        tracing::error!(link = %name, cause, "link \"{name}\" lost: {cause}");
        let detail = format!("link \"{name}\": {cause}");
        self.hub.announce(host_event(None, "link-lost", detail));
        running.obstacle = Some(Obstacle::Elsewhere(cause));
        Some(name)
    }

    /// Takes back interfaces that had been renamed or moved and have their name again.
    async fn recover_returned(
        &self,
        inner: &mut CoreState,
        concerned: &AffectedLinks,
    ) -> Vec<IfName> {
        let mut returned = Vec::new();
        let elsewhere = inner.running.iter().filter(|(name, running)| {
            let gone = matches!(running.obstacle, Some(Obstacle::Elsewhere(_)));
            gone && concerned.has(name)
        });
        let elsewhere = elsewhere.map(|(name, _)| name.clone());
        for name in elsewhere.collect::<Vec<_>>() {
            let Some(link) = inner.state.links.get(&name) else {
                continue;
            };
            let up = link.up;
            let seen = interface::observe(link.netns.clone(), vec![name.to_string()]).await;
            let Some(running) = inner.running.get_mut(&name) else {
                continue;
            };
            let seen = seen.unwrap_or_default();
            if let Some(seen) = seen.iter().find(|seen| running.owns(seen)) {
                running.obstacle = None;
                self.tell_returned(&name, up && !seen.is_up());
                returned.push(name);
            }
        }
        returned
    }

    /// Reports that a link has its interface again. It had to be down for renaming, and may still be.
    fn tell_returned(&self, name: &IfName, down: bool) {
        let hint = match down {
            true => {
                format!(", but its interface is down; \"geneved link set {name} up\" brings it up")
            }
            false => String::new(),
        };
        tracing::info!(link = %name, "link \"{name}\" is ready{hint}");
        let detail = format!("link \"{name}\"{hint}");
        self.hub.announce(host_event(None, "link-ready", detail));
    }
}

/// Why a link with open queues is lost all the same, and what to do.
pub(in crate::daemon) const RENAMED_HINT: &str = "the interface was renamed or moved to another namespace; give its name back with \"ip link set\", or have it made anew with \"geneved reload\"";

/// Reads the interfaces of these links from the kernel; `None` if there is no interface of this name, or another one
/// has it.
pub(super) async fn observe(
    inner: &CoreState,
    wanted: impl Fn(&IfName) -> bool,
) -> Vec<(IfName, Option<InterfaceStatus>)> {
    let mut by_netns: BTreeMap<Option<String>, Vec<&IfName>> = BTreeMap::new();
    let running = inner.running.iter();
    for (name, _) in running.filter(|(name, r)| r.has_interface() && wanted(name)) {
        if let Some(link) = inner.state.links.get(name) {
            by_netns.entry(link.netns.clone()).or_default().push(name);
        }
    }
    let mut all = Vec::new();
    for (netns, names) in by_netns {
        let texts = names.iter().map(ToString::to_string).collect();
        // Nothing is known of a namespace that cannot be entered.
        let Ok(seen) = interface::observe(netns, texts).await else {
            continue;
        };
        let mut seen: HashMap<_, _> = seen.into_iter().map(|s| (s.name.clone(), s)).collect();
        let found = names.into_iter().map(|name| {
            let running = inner.running.get(name);
            let seen = seen.remove(name.as_str());
            let own = seen.filter(|seen| running.is_some_and(|r| r.owns(seen)));
            (name.clone(), own)
        });
        all.extend(found);
    }
    all
}

/// Why an interface with this MTU cannot have some of its addresses.
fn unusable_addresses(addresses: &[IpNet], mtu: u16) -> Option<String> {
    let mut barred = addresses.iter().filter(|a| !can_have(a, mtu));
    let first = barred.next()?;
    let more = match barred.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "address {first}{more}: IPv6 needs an MTU of at least 1280, and the link has {mtu}"
    ))
}

fn in_words(seen: &InterfaceStatus, drift: &InterfaceDrift) -> String {
    let mtu = drift
        .mtu
        .map(|mtu| format!("MTU {} becomes {mtu} again", seen.mtu));
    let addresses = drift
        .missing
        .iter()
        .map(|address| format!("address {address} is back"));
    mtu.into_iter()
        .chain(addresses)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_the_mtu_forbids_are_named() {
        let addresses = ["10.0.0.1/24", "fd00::1/64", "fd01::1/64"].map(|a| a.parse().unwrap());
        assert_eq!(unusable_addresses(&addresses, 1280), None);
        assert_eq!(unusable_addresses(&addresses[..1], 68), None);
        assert_eq!(
            unusable_addresses(&addresses, 1279).unwrap(),
            "address fd00::1/64 and 1 more: IPv6 needs an MTU of at least 1280, and the link has 1279"
        );
    }

    #[test]
    fn a_repair_is_told_in_words() {
        let seen = InterfaceStatus {
            mtu: 900,
            ..InterfaceStatus::default()
        };
        let drift = InterfaceDrift {
            mtu: Some(1464),
            missing: vec!["10.0.0.1/24".parse().unwrap()],
        };
        assert_eq!(
            in_words(&seen, &drift),
            "MTU 900 becomes 1464 again, address 10.0.0.1/24 is back"
        );
    }
}
