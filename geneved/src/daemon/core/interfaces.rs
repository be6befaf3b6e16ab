//! The interfaces of links: made, changed and removed.

use std::collections::{BTreeMap, BTreeSet};

use libgeneve::link::LinkIndex;

use super::mtu::mtu_of;
use super::{Core, Inner, Running, refuse};
use crate::config::file::{DaemonSettings, Segmentation};
use crate::config::state::{Link, Refusal, State};
use crate::config::value::{IfName, LinkSegmentation, Mode};
use crate::daemon::compile::lladdr;
use crate::io::SocketProfile;
use crate::net::interface::{self, Wanted};
use crate::net::mtu::Ways;

impl Core {
    /// Makes the interfaces of these links and hands them to the workers; all or none.
    pub(super) async fn bring_up(
        &self,
        inner: &mut Inner,
        state: &State,
        names: &[IfName],
        ways: &Ways,
    ) -> Result<(), Refusal> {
        let links = names.iter().filter_map(|n| state.links.get(n));
        let mut by_netns: BTreeMap<Option<String>, Vec<&Link>> = BTreeMap::new();
        for link in links {
            by_netns.entry(link.netns.clone()).or_default().push(link);
        }
        let mut up: Vec<IfName> = Vec::new();
        for (netns, links) in by_netns {
            let mut outcome = Ok(());
            let wanted = links
                .iter()
                .map(|l| wanted(l, mtu_of(state, l, ways, None).0))
                .collect();
            match interface::create(netns, wanted, self.engine.workers()).await {
                Ok(tuns) => {
                    for (link, tun) in links.iter().zip(tuns) {
                        let index = free_index(&inner.running);
                        outcome = self
                            .engine
                            .attach(index, tun, profile(link, &self.settings))
                            .map_err(|e| refuse(&link.name, &e));
                        if outcome.is_err() {
                            break;
                        }
                        let (mtu, sum) = mtu_of(state, link, ways, None);
                        let running = Running {
                            index,
                            sum,
                            mtu,
                            lost: None,
                        };
                        inner.running.insert(link.name.clone(), running);
                        up.push(link.name.clone());
                    }
                }
                Err((name, error)) => {
                    outcome = Err(Refusal::new(format!("link \"{name}\": {error}"), ""));
                }
            }
            if let Err(refusal) = outcome {
                self.take_down(inner, &up);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Removes the interfaces of these links.
    pub(super) fn take_down(&self, inner: &mut Inner, names: &[IfName]) {
        for name in names {
            if let Some(running) = inner.running.remove(name) {
                self.engine.detach(running.index);
                // Another link may get the index.
                self.engine.flows().flows.remove_link(running.index);
            }
        }
    }
}

/// Removes the interfaces of many links at once; a few are as quick one by one.
pub(super) async fn remove_many(inner: &Inner, state: &State, names: &[IfName]) {
    const MANY: usize = 8;
    if names.len() < MANY {
        return;
    }
    let mut by_netns: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for name in names {
        let there = inner.running.get(name).is_some_and(|r| r.lost.is_none());
        if let (Some(link), true) = (state.links.get(name), there) {
            by_netns
                .entry(link.netns.clone())
                .or_default()
                .push(name.to_string());
        }
    }
    for (netns, names) in by_netns {
        if let Err(error) = interface::remove(netns, names).await {
            // They go when the workers let go of them.
            tracing::debug!(%error, "interfaces cannot be removed at once");
        }
    }
}

/// Has the interface of a link that was like `was` be like `link`.
pub(super) async fn update(link: &Link, mtu: u16, was: &Link) -> Result<(), Refusal> {
    let before = was.addresses.clone();
    interface::update(link.netns.clone(), wanted(link, mtu), before)
        .await
        .map_err(|e| refuse(&link.name, &e))
}

pub(super) async fn update_mtu(link: &Link, mtu: u16) -> Result<(), Refusal> {
    interface::set_mtu(link.netns.clone(), link.name.to_string(), mtu)
        .await
        .map_err(|e| refuse(&link.name, &e))
}

fn wanted(link: &Link, mtu: u16) -> Wanted {
    Wanted {
        name: link.name.to_string(),
        tap: (link.mode == Mode::Ethernet).then(|| lladdr(link)),
        mtu,
        addresses: link.addresses.clone(),
        up: link.up,
    }
}

fn profile(link: &Link, daemon: &DaemonSettings) -> SocketProfile {
    SocketProfile {
        local: link.local,
        srcport: link.srcport.0.clone(),
        df: link.df,
        udp_csum: link.udp_csum,
        udp6_zero_csum_tx: link.udp6_zero_csum_tx,
        whole: link.segmentation == LinkSegmentation::Off
            || daemon.segmentation == Segmentation::Off,
    }
}

/// The lowest index that no link has.
pub(super) fn free_index(running: &BTreeMap<IfName, Running>) -> LinkIndex {
    let used: BTreeSet<u32> = running.values().map(|r| r.index.0).collect();
    let free = used
        .iter()
        .zip(0..)
        .find(|(used, n)| **used != *n)
        .map(|(_, n)| n);
    LinkIndex(free.unwrap_or(u32::try_from(used.len()).unwrap_or(u32::MAX)))
}
