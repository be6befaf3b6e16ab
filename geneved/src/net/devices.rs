//! Network devices of the daemon's namespace, and through which of them packets that leave a link's interface can
//! come back.
//!
//! A packet that comes out of a TUN or TAP is received by that device, by VLANs and the like above it, by the bridge
//! or bond that it is a port of, and by whatever can be reached from there: out of another port of the bridge, and in
//! again at the other end of that port's veth. Devices that lead through another namespace with links are not part of
//! the underlay either.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use futures_util::{Stream, StreamExt, TryStreamExt};
use libgeneve::vpc::{LinkIndex, RxInterface};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};

use super::netlink_error;

/// Relevant attributes of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DeviceInfo {
    name: String,
    /// The name that it was first seen with: a renamed device is still the same device.
    first_name: String,
    kind: Option<InfoKind>,
    loopback: bool,
    /// Index of the device below, or of the other end of a veth.
    link: Option<u32>,
    /// Namespace of `link`, if it is another one.
    link_netns: Option<i32>,
    controller: Option<u32>,
    /// It is, or was, an interface of the daemon.
    was_own: bool,
}

impl DeviceInfo {
    fn read(message: LinkMessage) -> Self {
        let mut device = DeviceInfo {
            loopback: message.header.flags.contains(LinkFlags::Loopback),
            ..DeviceInfo::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Link(index) if index > 0 => device.link = Some(index),
                LinkAttribute::LinkNetNsId(id) => device.link_netns = Some(id),
                LinkAttribute::Controller(index) if index > 0 => device.controller = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    device.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        device.first_name.clone_from(&device.name);
        device
    }

    /// Whether it is one end of a pair whose other end is `link`.
    fn is_pair(&self) -> bool {
        matches!(self.kind, Some(InfoKind::Veth | InfoKind::Netkit))
    }

    /// Whether it belongs to the kernel datapath of Open vSwitch, which can forward between any of its ports.
    fn is_switch(&self) -> bool {
        matches!(&self.kind, Some(InfoKind::Other(kind)) if kind == "openvswitch")
    }

    /// The device below, or the other end, if in the same namespace.
    fn here(&self) -> Option<u32> {
        self.link.filter(|_| self.link_netns.is_none())
    }
}

/// Devices that belong to the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnDevices {
    /// Interfaces of links in the daemon's namespace by name, including those being created, which have no index yet.
    pub links: BTreeMap<String, Option<LinkIndex>>,
    /// Other devices of the daemon.
    pub others: BTreeSet<String>,
    /// IDs of other namespaces with links.
    pub namespaces: BTreeSet<i32>,
}

impl OwnDevices {
    /// Classifies a device by itself; `None` if it may belong to the underlay.
    fn of(&self, device: &DeviceInfo) -> Option<RxInterface> {
        if device.loopback {
            return Some(RxInterface::Loopback);
        }
        let elsewhere = device.link_netns;
        if elsewhere.is_some_and(|netns| self.namespaces.contains(&netns)) {
            return Some(RxInterface::Unknown);
        }
        if device.kind != Some(InfoKind::Tun) {
            return None;
        }
        let names = [&device.name, &device.first_name];
        if let Some(index) = names.iter().find_map(|name| self.links.get(*name)) {
            return Some(index.map_or(RxInterface::Unknown, RxInterface::Link));
        }
        let own = names.iter().any(|name| self.others.contains(*name));
        own.then_some(RxInterface::Unknown)
    }
}

/// Devices of one namespace, as reported by the kernel.
#[derive(Clone, Debug, Default)]
pub struct DeviceMap(BTreeMap<u32, DeviceInfo>);

impl DeviceMap {
    /// Lists all devices.
    ///
    /// # Errors
    /// If netlink fails.
    pub async fn dump(handle: &Handle) -> io::Result<DeviceMap> {
        let stream = handle.link().get().execute();
        let messages: Vec<_> = stream.try_collect().await.map_err(netlink_error)?;
        let mut devices = DeviceMap::default();
        for message in messages {
            devices.note(message);
        }
        Ok(devices)
    }

    /// Replaces the known devices; what was learned about those that still exist is kept.
    pub fn replace(&mut self, mut devices: DeviceMap) {
        for (index, device) in &mut devices.0 {
            if let Some(before) = self.0.get(index) {
                device.first_name.clone_from(&before.first_name);
                device.was_own = before.was_own;
            }
        }
        *self = devices;
    }

    /// Records the attributes of a device; returns whether they changed.
    fn note(&mut self, message: LinkMessage) -> bool {
        let index = message.header.index;
        let mut device = DeviceInfo::read(message);
        let before = self.0.get(&index);
        if let Some(before) = before {
            device.first_name.clone_from(&before.first_name);
            device.was_own = before.was_own;
        }
        let news = before != Some(&device);
        self.0.insert(index, device);
        news
    }

    /// Classifies each device, by its index: where the packets that it receives can come from. A device that was ever
    /// a link's interface never counts as underlay.
    #[must_use]
    pub fn classify(&mut self, own: &OwnDevices) -> BTreeMap<u32, RxInterface> {
        let mut known: BTreeMap<u32, RxInterface> = BTreeMap::new();
        let mut reached = Vec::new();
        for (index, device) in &mut self.0 {
            let what = match own.of(device) {
                None if device.was_own => Some(RxInterface::Unknown),
                what => what,
            };
            let Some(what) = what else { continue };
            known.insert(*index, what);
            if what != RxInterface::Loopback {
                device.was_own |= device.kind == Some(InfoKind::Tun);
                reached.push((*index, what));
            }
        }
        let mut paths = DevicePaths::of(self);
        while let Some((index, what)) = reached.pop() {
            for next in paths.received_beyond(index) {
                known.entry(next).or_insert_with(|| {
                    reached.push((next, what));
                    what
                });
            }
        }
        for index in self.0.keys() {
            known.entry(*index).or_insert(RxInterface::Underlay);
        }
        known
    }

    /// The device's name for display.
    #[must_use]
    pub fn name(&self, index: u32) -> Option<&str> {
        self.0.get(&index).map(|device| device.name.as_str())
    }
}

/// Graph of how packets pass between devices.
struct DevicePaths<'a> {
    devices: &'a BTreeMap<u32, DeviceInfo>,
    /// VLANs, tunnels and the like on top of each device.
    above: HashMap<u32, Vec<u32>>,
    /// Ports of each bridge or bond.
    ports: HashMap<u32, Vec<u32>>,
    /// Ports that a switch shows as devices.
    switch: Vec<u32>,
    /// Devices already found to be transmitted on.
    sent: HashSet<u32>,
}

impl<'a> DevicePaths<'a> {
    fn of(DeviceMap(devices): &'a DeviceMap) -> Self {
        let mut paths = DevicePaths {
            devices,
            above: HashMap::new(),
            ports: HashMap::new(),
            switch: Vec::new(),
            sent: HashSet::new(),
        };
        for (index, device) in devices {
            if let Some(below) = device.here().filter(|_| !device.is_pair()) {
                paths.above.entry(below).or_default().push(*index);
            }
            if let Some(controller) = device.controller {
                paths.ports.entry(controller).or_default().push(*index);
            }
            if device.is_switch() {
                paths.switch.push(*index);
            }
        }
        paths
    }

    /// Devices that also receive what the device at `index` receives.
    fn received_beyond(&mut self, index: u32) -> Vec<u32> {
        let mut beyond = self.above.get(&index).cloned().unwrap_or_default();
        let Some(controller) = self.devices.get(&index).and_then(|d| d.controller) else {
            return beyond;
        };
        beyond.push(controller);
        let kind = self.devices.get(&controller);
        // A VRF is only a routing table: its other ports do not receive the packet.
        if kind.is_some_and(|device| device.kind == Some(InfoKind::Vrf)) {
            return beyond;
        }
        if kind.is_some_and(DeviceInfo::is_switch) {
            beyond.extend(&self.switch);
        }
        for port in self.ports.get(&controller).cloned().unwrap_or_default() {
            if port != index {
                self.sent_by(port, &mut beyond);
            }
        }
        beyond
    }

    /// Adds the devices that receive what is transmitted on `index`.
    fn sent_by(&mut self, mut index: u32, beyond: &mut Vec<u32>) {
        while self.sent.insert(index) {
            let Some(device) = self.devices.get(&index) else {
                return;
            };
            let Some(other) = device.here() else { return };
            if device.is_pair() {
                beyond.push(other);
                return;
            }
            // Through the device below; macvlans on one device reach each other.
            let siblings = self.above.get(&other).into_iter().flatten();
            beyond.extend(siblings.filter(|above| **above != index));
            index = other;
        }
    }
}

/// Stream of device events.
pub type LinkMessages = std::pin::Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>;

/// Starts listening in the calling thread's namespace. Must be called inside the daemon's runtime.
///
/// # Errors
/// If no netlink socket can be opened.
pub fn listen() -> io::Result<LinkMessages> {
    let groups = [MulticastGroup::Link];
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::task::spawn_local(connection);
    Ok(Box::pin(messages.map(|(message, _)| message)))
}

/// Effect of a message on the known devices; later variants take precedence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceChange {
    /// Nothing relevant.
    Nothing,
    /// Devices have changed.
    Changed,
    /// Events were lost: list all devices again.
    Lost,
}

impl DeviceMap {
    /// Handles a message from the kernel.
    pub fn apply(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> DeviceChange {
        let changed = match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                // The bridge reports its ports in separate messages, which have no other attributes.
                link.header.interface_family == rtnetlink::packet_route::AddressFamily::Unspec
                    && self.note(link)
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
                link.header.interface_family == rtnetlink::packet_route::AddressFamily::Unspec
                    && self.0.remove(&link.header.index).is_some()
            }
            NetlinkPayload::Overrun(_) => return DeviceChange::Lost,
            _ => false,
        };
        match changed {
            true => DeviceChange::Changed,
            false => DeviceChange::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GNV0: RxInterface = RxInterface::Link(LinkIndex(4));

    fn device(name: &str, kind: Option<InfoKind>) -> DeviceInfo {
        DeviceInfo {
            name: name.into(),
            first_name: name.into(),
            kind,
            ..DeviceInfo::default()
        }
    }

    fn above(name: &str, kind: InfoKind, link: u32) -> DeviceInfo {
        DeviceInfo {
            link: Some(link),
            ..device(name, Some(kind))
        }
    }

    fn port(controller: u32, of: DeviceInfo) -> DeviceInfo {
        DeviceInfo {
            controller: Some(controller),
            ..of
        }
    }

    fn tap() -> DeviceInfo {
        device("gnv0", Some(InfoKind::Tun))
    }

    fn own() -> OwnDevices {
        OwnDevices {
            links: BTreeMap::from([("gnv0".into(), Some(LinkIndex(4)))]),
            others: BTreeSet::from(["geneved0".into()]),
            namespaces: BTreeSet::from([7]),
        }
    }

    /// Classes of these devices; the first has index 1.
    fn classified(devices: Vec<DeviceInfo>) -> Vec<RxInterface> {
        let mut devices = DeviceMap((1..).zip(devices).collect());
        devices.classify(&own()).into_values().collect()
    }

    #[test]
    fn a_link_is_a_tun_of_its_name_or_its_first_name() {
        let loopback = DeviceInfo {
            loopback: true,
            ..device("lo", None)
        };
        let renamed = DeviceInfo {
            name: "blue".into(),
            ..tap()
        };
        let all = vec![
            loopback,
            device("eth0", None),
            tap(),
            renamed,
            device("gnv0", Some(InfoKind::Dummy)),
            device("geneved0", Some(InfoKind::Tun)),
            device("wg-go0", Some(InfoKind::Tun)),
        ];
        let expected = [
            RxInterface::Loopback,
            RxInterface::Underlay,
            GNV0,
            GNV0,
            RxInterface::Underlay,
            RxInterface::Unknown,
            RxInterface::Underlay,
        ];
        assert_eq!(classified(all), expected);
    }

    #[test]
    fn what_is_above_a_link_is_not_of_the_underlay() {
        let all = vec![
            tap(),
            above("gnv0.5", InfoKind::Vlan, 1),
            above("mac", InfoKind::MacVlan, 2),
            above("eth0.5", InfoKind::Vlan, 5),
            device("eth0", None),
        ];
        let under = RxInterface::Underlay;
        assert_eq!(classified(all), [GNV0, GNV0, GNV0, under, under]);
    }

    #[test]
    fn a_bridge_with_a_tap_and_what_hangs_on_its_other_ports_is_not() {
        let all = vec![
            port(2, tap()),
            device("br0", Some(InfoKind::Bridge)),
            port(2, device("eth0", None)),
            above("br0.7", InfoKind::Vlan, 2),
            port(2, above("v0", InfoKind::Veth, 6)),
            above("v1", InfoKind::Veth, 5),
            port(9, above("v2", InfoKind::Veth, 8)),
            above("v3", InfoKind::Veth, 7),
            device("br1", Some(InfoKind::Bridge)),
        ];
        let under = RxInterface::Underlay;
        // Packets received by eth0 itself came from outside; a bridge port receives nothing itself.
        let expected = [GNV0, GNV0, under, GNV0, under, GNV0, under, under, under];
        assert_eq!(classified(all), expected);
    }

    #[test]
    fn a_switch_leads_to_all_of_its_ports() {
        let switch = |name| device(name, Some(InfoKind::Other("openvswitch".into())));
        let all = vec![
            port(2, tap()),
            switch("ovs-system"),
            switch("br-ex"),
            port(2, device("eth0", None)),
        ];
        let under = RxInterface::Underlay;
        assert_eq!(classified(all), [GNV0, GNV0, GNV0, under]);
    }

    #[test]
    fn a_link_that_is_taken_away_stays_none_of_the_underlay() {
        let mut devices = DeviceMap(BTreeMap::from([(1, tap())]));
        assert_eq!(devices.classify(&own())[&1], GNV0);
        assert_eq!(
            devices.classify(&OwnDevices::default())[&1],
            RxInterface::Unknown
        );
    }

    #[test]
    fn a_vrf_leads_to_none_of_its_other_ports() {
        let all = vec![
            port(2, tap()),
            device("red", Some(InfoKind::Vrf)),
            port(2, device("eth0", None)),
        ];
        let under = RxInterface::Underlay;
        assert_eq!(classified(all), [GNV0, GNV0, under]);
    }

    #[test]
    fn a_veth_into_the_namespace_of_a_link_is_not_known() {
        let veth = |netns| DeviceInfo {
            link_netns: Some(netns),
            ..above("v0", InfoKind::Veth, 3)
        };
        let all = vec![veth(7), veth(8), above("v0.1", InfoKind::Vlan, 1)];
        let unknown = RxInterface::Unknown;
        assert_eq!(classified(all), [unknown, RxInterface::Underlay, unknown]);
    }
}
