//! The underlay as the kernel routes it: which interfaces lead to a host, and with what MTU.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{first, netlink_error};

/// The way to a host, by all next hops that the kernel may choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// The interfaces that packets leave by, at least one.
    pub devices: Vec<UnderlayDevice>,
    /// Names of what they go through: these interfaces, and those that a VLAN or the like is a part of.
    pub through: Vec<String>,
    /// The bridges and the like among them with each of their ports, by name: what leaves by the one reaches the other.
    pub ports: Vec<(String, String)>,
    /// The least that these allow: the route's MTU where it has one, otherwise the interface's; bytes of outer IP packet.
    /// What was learned of the path to this one host is no part of it.
    pub mtu: u32,
    /// The host is this one: the address is its own.
    pub own: bool,
    /// Bits of the prefix that the route is for.
    pub prefix_len: u8,
    /// The route is in the main table, where those of interfaces' addresses are.
    pub in_main: bool,
}

/// An interface of the underlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayDevice {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The device that its packets go through, where it is no more than a part of that: a VLAN, a macvlan, an ipvlan.
    pub lower: Option<u32>,
    /// Whether it may have ports: a bridge, a bond, a team.
    pub has_ports: bool,
}

impl HostPath {
    /// The interface by which packets leave, or the first of several.
    #[must_use]
    pub fn dev(&self) -> &str {
        self.devices.first().map_or("", |device| &device.name)
    }
}

impl HostPath {
    async fn add_ports(&mut self, handle: &Handle, device: &UnderlayDevice) -> io::Result<()> {
        if !device.has_ports {
            return Ok(());
        }
        let mut all = handle.link().get().execute();
        while let Some(message) = all.try_next().await.map_err(netlink_error)? {
            let attributes = message.attributes;
            let of_it = LinkAttribute::Controller(device.index);
            if !attributes.contains(&of_it) {
                continue;
            }
            let names = attributes.into_iter().filter_map(|a| match a {
                LinkAttribute::IfName(name) => Some((device.name.clone(), name)),
                _ => None,
            });
            self.ports.extend(names);
        }
        Ok(())
    }
}

/// More than these VLANs of VLANs are a circle.
const MAX_STACKED_VLANS: usize = 4;

/// Devices that were asked for already, by their numbers.
pub type UnderlayDevices = HashMap<u32, UnderlayDevice>;

/// Asks the kernel for the way from `local` (or its own choice) to `host`.
///
/// # Errors
/// There is none, in the kernel's words.
pub async fn query_host_path(
    handle: &Handle,
    host: IpAddr,
    local: Option<IpAddr>,
    known: &mut UnderlayDevices,
) -> io::Result<HostPath> {
    let route = first(handle.route().get(question(host, local)).execute()).await?;
    let route = KernelRoute::read(&route);
    let mut way = HostPath {
        devices: Vec::new(),
        through: Vec::new(),
        ports: Vec::new(),
        mtu: u32::MAX,
        own: route.own,
        prefix_len: route.prefix_len,
        in_main: route.in_main,
    };
    for index in route.hops {
        let device = device(handle, index, known).await?;
        // A route cannot make more of an interface than it is.
        let mtu = route.mtu.map_or(device.mtu, |m| m.min(device.mtu));
        way.mtu = way.mtu.min(mtu);
        if way.devices.iter().any(|there| there.index == index) {
            continue;
        }
        let mut lower = device.lower;
        way.through.push(device.name.clone());
        way.add_ports(handle, &device).await?;
        way.devices.push(device);
        for _ in 0..MAX_STACKED_VLANS {
            let Some(index) = lower else { break };
            let below = self::device(handle, index, known).await?;
            way.add_ports(handle, &below).await?;
            way.through.push(below.name);
            lower = below.lower;
        }
    }
    if way.devices.is_empty() {
        return Err(io::Error::from_raw_os_error(nix::libc::ENETUNREACH));
    }
    Ok(way)
}

async fn device(
    handle: &Handle,
    index: u32,
    known: &mut UnderlayDevices,
) -> io::Result<UnderlayDevice> {
    if let Some(device) = known.get(&index) {
        return Ok(device.clone());
    }
    let request = handle.link().get().match_index(index);
    let device = UnderlayDevice::read(first(request.execute()).await?);
    known.insert(index, device.clone());
    Ok(device)
}

impl UnderlayDevice {
    fn read(message: LinkMessage) -> Self {
        let index = message.header.index;
        let mut device = UnderlayDevice {
            name: format!("if{index}"),
            index,
            mtu: 1500,
            lower: None,
            has_ports: false,
        };
        let (mut link, mut elsewhere, mut part) = (None, false, false);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Mtu(mtu) => device.mtu = mtu,
                LinkAttribute::Link(index) if index > 0 => link = Some(index),
                LinkAttribute::LinkNetNsId(_) => elsewhere = true,
                LinkAttribute::LinkInfo(infos) => {
                    use InfoKind::{Bond, Bridge, IpVlan, MacVlan, MacVtap, Team, Vlan};
                    device.has_ports = infos
                        .iter()
                        .any(|info| matches!(info, LinkInfo::Kind(Bridge | Bond | Team)));
                    part = infos.iter().any(|info| {
                        matches!(info, LinkInfo::Kind(Vlan | MacVlan | MacVtap | IpVlan))
                    });
                }
                _ => {}
            }
        }
        device.lower = link.filter(|_| part && !elsewhere);
        device
    }
}

/// What counts of the kernel's answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct KernelRoute {
    hops: Vec<u32>,
    mtu: Option<u32>,
    own: bool,
    prefix_len: u8,
    in_main: bool,
}

impl KernelRoute {
    fn read(message: &RouteMessage) -> Self {
        // linux/rtnetlink.h
        const MAIN: u32 = 254;
        let mut route = KernelRoute {
            own: message.header.kind == RouteType::Local,
            prefix_len: message.header.destination_prefix_length,
            in_main: u32::from(message.header.table) == MAIN,
            ..KernelRoute::default()
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(oif) => route.hops.push(*oif),
                RouteAttribute::Table(table) => route.in_main = *table == MAIN,
                RouteAttribute::MultiPath(hops) => {
                    let dead = |flags: RouteNextHopFlags| flags.contains(RouteNextHopFlags::Dead);
                    let alive = hops.iter().filter(|hop| !dead(hop.flags));
                    route.hops.extend(alive.map(|hop| hop.interface_index));
                }
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.iter().find_map(|m| match m {
                        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        route
    }
}

/// The question for the route itself: without `RTM_F_FIB_MATCH` the answer is what the kernel has cached for this host, with
/// the path MTU that an ICMP error claimed in place of the route's own.
fn question(host: IpAddr, local: Option<IpAddr>) -> RouteMessage {
    let mut question = match host {
        IpAddr::V4(to) => {
            let question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32);
            match local {
                Some(IpAddr::V4(from)) => question.source_prefix(from, 32).build(),
                _ => question.build(),
            }
        }
        IpAddr::V6(to) => {
            let question = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128);
            match local {
                Some(IpAddr::V6(from)) => question.source_prefix(from, 128).build(),
                _ => question.build(),
            }
        }
    };
    question.header.flags |= RouteFlags::FibMatch | RouteFlags::LookupTable;
    question
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::RouteNextHop;

    fn message(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    #[test]
    fn the_kernel_is_asked_for_the_route_and_not_for_what_it_has_cached() {
        for host in ["192.0.2.1", "2001:db8::1"] {
            let flags = question(host.parse().unwrap(), None).header.flags;
            assert!(flags.contains(RouteFlags::FibMatch), "{host}");
        }
    }

    #[test]
    fn every_next_hop_that_lives_is_a_hop() {
        let hop = |index, flags| {
            let mut hop = RouteNextHop::default();
            (hop.interface_index, hop.flags) = (index, flags);
            hop
        };
        let none = RouteNextHopFlags::empty();
        let route = KernelRoute::read(&message(vec![
            RouteAttribute::Table(1000),
            RouteAttribute::MultiPath(vec![
                hop(3, none),
                hop(4, RouteNextHopFlags::Dead),
                hop(5, none),
            ]),
            RouteAttribute::Metrics(vec![RouteMetric::Mtu(1400)]),
        ]));
        assert_eq!((route.hops, route.mtu), (vec![3, 5], Some(1400)));
        assert!(!route.in_main && !route.own);
    }
}
