//! Underlay routing as the kernel does it: the interfaces towards a host, and their MTU.

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

/// Path to a host, over all next hops that the kernel may choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// Interfaces that packets leave by, at least one.
    pub devices: Vec<UnderlayDevice>,
    /// Names of the devices on the path: these interfaces, and those below a VLAN or the like.
    pub through: Vec<String>,
    /// Bridges and the like among them with each of their ports, by name: what leaves by one reaches the other.
    pub ports: Vec<(String, String)>,
    /// The smallest MTU of these next hops: that of the route if it has one, otherwise that of the interface; bytes
    /// of the outer IP packet. Learned path MTUs of this host are not included.
    pub mtu: u32,
    /// The address is local to this host.
    pub own: bool,
    /// Prefix length of the matched route.
    pub prefix_len: u8,
    /// The route is in the main table, like those of interface addresses.
    pub in_main: bool,
}

/// An interface of the underlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayDevice {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The device below, if this is a VLAN, macvlan or ipvlan.
    pub lower: Option<u32>,
    /// Whether it may have ports: a bridge, a bond, a team.
    pub has_ports: bool,
}

impl HostPath {
    /// The interface that packets leave by, or the first of several.
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

/// Maximum nesting of VLANs; more than that is a cycle.
const MAX_STACKED_VLANS: usize = 4;

/// Devices looked up already, by index.
pub type UnderlayDevices = HashMap<u32, UnderlayDevice>;

/// Looks up the path from `local` (or an address of the kernel's choice) to `host`.
///
/// # Errors
/// If there is none, in the kernel's words.
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
        // A route cannot raise the MTU above the interface's.
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

/// Relevant attributes of a route reply.
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

/// Request for the route itself: without `RTM_F_FIB_MATCH` the kernel replies with its cached entry for this host,
/// which has the path MTU that an ICMP error claimed instead of the route's own.
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
