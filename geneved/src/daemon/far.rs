//! Which hosts need whole datagrams: those behind a device whose far end leaves nothing to a card or a kernel.
//!
//! [`crate::net::far`] looks at devices; here is which hosts are behind which, and what is done about it. With
//! `segmentation = "auto"` only: who asks for a certain way gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use libgeneve::link::Whole;
use rtnetlink::Handle;

use super::core::{Core, Inner, host_event};
use crate::config::file::Segmentation;
use crate::net::far::{FarEnd, far_end};
use crate::net::mtu::Ways;

/// What is known of the underlay's devices.
#[derive(Debug, Default)]
pub(super) struct FarEnds {
    /// The devices that lead to each host.
    devices: BTreeMap<IpAddr, BTreeSet<u32>>,
    hosts: BTreeMap<IpAddr, FarEnd>,
    /// What was seen of each device last.
    ends: BTreeMap<u32, FarEnd>,
}

impl FarEnds {
    /// Which datagrams to this host leave whole, if any do, and why.
    pub(super) fn whole(&self, host: IpAddr) -> Option<(&'static str, &str)> {
        match self.hosts.get(&host)? {
            FarEnd::Finishes => None,
            FarEnd::Unseen(why) => Some(("frames", why)),
            FarEnd::Program(why) => Some(("all", why)),
        }
    }

    /// Looks at every device, or at those that are new; returns the hosts whose datagrams are sent differently now.
    async fn look(&mut self, netlink: &Handle, look: Look) -> Vec<IpAddr> {
        let indices: BTreeSet<u32> = self.devices.values().flatten().copied().collect();
        let mut ends = BTreeMap::new();
        for index in indices {
            let end = match self.ends.get(&index).filter(|_| look == Look::AtNew) {
                Some(known) => known.clone(),
                // A device that is gone leads nowhere.
                None => far_end(netlink, index).await.unwrap_or_default(),
            };
            ends.insert(index, end);
        }
        let worst = |devices: &BTreeSet<u32>| {
            let ends = devices.iter().filter_map(|index| ends.get(index));
            ends.max().cloned().unwrap_or_default()
        };
        self.ends = ends.clone();
        let hosts = self.devices.iter().map(|(host, d)| (*host, worst(d)));
        let old = std::mem::replace(&mut self.hosts, hosts.collect());
        let was = |host: &IpAddr| old.get(host).map_or(Whole::None, whole);
        let changed = self
            .hosts
            .iter()
            .filter(|(host, end)| was(host) != whole(end));
        changed.map(|(host, _)| *host).collect()
    }
}

fn whole(end: &FarEnd) -> Whole {
    match end {
        FarEnd::Finishes => Whole::None,
        // What speaks IP without Ethernet is no switch: those carry frames.
        FarEnd::Unseen(_) => Whole::Frames,
        FarEnd::Program(_) => Whole::All,
    }
}

/// Which devices are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All.
    AtAll,
    /// Those that were not looked at before: who reads the far end of the others is asked every second.
    AtNew,
}

impl Core {
    /// Looks at the far ends of the devices by which these ways lead, or of those known so far, and has datagrams to the
    /// hosts behind them leave as they need.
    pub(super) async fn look_far(&self, inner: &mut Inner, ways: Option<&Ways>, look: Look) {
        if self.settings().segmentation != Segmentation::Auto {
            return;
        }
        let Inner { builder, far, .. } = inner;
        if let Some(ways) = ways {
            far.devices = ways.devices();
        }
        let changed = far.look(self.netlink(), look).await;
        let needed = far.hosts.values().any(|end| *end != FarEnd::Finishes);
        if needed && let Err(error) = self.engine().open_whole() {
            tracing::error!(%error, "datagrams cannot leave whole, which some hosts need: {error}");
            return;
        }
        for (address, end) in &far.hosts {
            builder.registry.host(*address).set_whole(whole(end));
        }
        for host in changed {
            let finished = ("none", "a kernel or a network card finishes them");
            let (which, cause) = far.whole(host).unwrap_or(finished);
            tracing::info!(%host, whole = which, cause, "datagrams to {host} that leave by themselves and with finished checksums: {which}, as {cause}");
            let detail = format!("{which}: {cause}");
            self.hub().tell(host_event(Some(host), "whole", detail));
        }
    }

    /// Looks again: a program that begins to read the far end is told by nobody.
    pub(super) async fn far_ends_changed(&self) {
        let mut inner = self.inner().await;
        self.look_far(&mut inner, None, Look::AtAll).await;
    }
}
