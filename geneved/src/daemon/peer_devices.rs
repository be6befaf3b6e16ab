//! Finds the hosts that need whole datagrams: those behind a peer device that does not finish checksums and
//! segmentation.
//!
//! [`crate::net::far`] inspects devices; this module maps hosts to devices and acts on the result. With `segmentation
//! = "auto"` only: an explicit setting is obeyed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use libgeneve::vpc::OffloadNeeds;
use rtnetlink::Handle;

use super::core::{Core, CoreState, host_event};
use crate::config::file::SegmentationSetting;
use crate::net::mtu::PathTable;
use crate::net::peer_device::{PeerDevice, peer_device};

/// What is known of the underlay's devices.
#[derive(Debug, Default)]
pub(super) struct PeerDevices {
    /// Devices on the path to each host.
    devices: BTreeMap<IpAddr, BTreeSet<u32>>,
    hosts: BTreeMap<IpAddr, PeerDevice>,
    /// What was last seen of each device.
    ends: BTreeMap<u32, PeerDevice>,
}

impl PeerDevices {
    /// Which datagrams to this host are sent whole, if any, and why.
    pub(super) fn needs_whole(&self, host: IpAddr) -> Option<(&'static str, &str)> {
        match self.hosts.get(&host)? {
            PeerDevice::Finishes => None,
            PeerDevice::Unseen(why) => Some(("frames", why)),
            PeerDevice::Program(why) => Some(("all", why)),
        }
    }

    /// Inspects every device, or only new ones. Returns the hosts whose datagrams are now sent differently.
    async fn refresh(&mut self, netlink: &Handle, look: Look) -> Vec<IpAddr> {
        let indices: BTreeSet<u32> = self.devices.values().flatten().copied().collect();
        let mut ends = BTreeMap::new();
        for index in indices {
            let end = match self.ends.get(&index).filter(|_| look == Look::AtNew) {
                Some(known) => known.clone(),
                // A device that is gone leads nowhere.
                None => peer_device(netlink, index).await.unwrap_or_default(),
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
        let was = |host: &IpAddr| old.get(host).map_or(OffloadNeeds::None, offload_needs);
        let changed = self
            .hosts
            .iter()
            .filter(|(host, end)| was(host) != offload_needs(end));
        changed.map(|(host, _)| *host).collect()
    }
}

fn offload_needs(end: &PeerDevice) -> OffloadNeeds {
    match end {
        PeerDevice::Finishes => OffloadNeeds::None,
        // A device that speaks IP without Ethernet is not a switch, as switches carry frames.
        PeerDevice::Unseen(_) => OffloadNeeds::Frames,
        PeerDevice::Program(_) => OffloadNeeds::All,
    }
}

/// Which devices to inspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All devices.
    AtAll,
    /// Devices that were not inspected before. The rest is checked again every second by `far_ends_changed`.
    AtNew,
}

impl Core {
    /// Inspects the peer devices on these paths, or on the paths known so far, and sets how datagrams are sent to the
    /// hosts behind them.
    pub(super) async fn refresh_peer_devices(
        &self,
        inner: &mut CoreState,
        ways: Option<&PathTable>,
        look: Look,
    ) {
        if self.settings().segmentation != SegmentationSetting::Auto {
            return;
        }
        let CoreState { builder, far, .. } = inner;
        if let Some(ways) = ways {
            far.devices = ways.devices();
        }
        let changed = far.refresh(self.netlink(), look).await;
        let needed = far.hosts.values().any(|end| *end != PeerDevice::Finishes);
        if needed && let Err(error) = self.engine().open_whole() {
            tracing::error!(%error, "datagrams cannot leave whole, which some hosts need: {error}");
            return;
        }
        for (address, end) in &far.hosts {
            builder
                .registry
                .host(*address)
                .set_offload_needs(offload_needs(end));
        }
        for host in changed {
            let finished = ("none", "a kernel or a network card finishes them");
            let (which, cause) = far.needs_whole(host).unwrap_or(finished);
            tracing::info!(%host, whole = which, cause, "datagrams to {host} that leave by themselves and with finished checksums: {which}, as {cause}");
            let detail = format!("{which}: {cause}");
            self.hub().announce(host_event(Some(host), "whole", detail));
        }
    }

    /// Inspects all devices again: the kernel sends no event when a program starts reading the far end.
    pub(super) async fn peer_devices_changed(&self) {
        let mut inner = self.inner().await;
        self.refresh_peer_devices(&mut inner, None, Look::AtAll)
            .await;
    }
}
