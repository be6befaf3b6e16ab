//! What a worker needs to know of the VPCs: links, hosts, and the snapshot that holds them.
//!
//! A [`Tables`] value is immutable. The daemon builds a new one for each change of configuration
//! and publishes it; workers that still hold the old one finish their batch with it. The only
//! values that change inside are what the underlay taught about a [`Host`].

mod delivery;
mod functions;
mod generation;
mod neighbor_cache;
mod rx_interface;
mod tables;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

pub use self::delivery::{AllowedPrefixes, DeliveredAs, Undelivered, UndeliveredPackets};
pub use self::functions::{
    AttachedOption, EndpointConfig, LinkFunctions, OptionLengths, ProxyTarget,
};
pub use self::generation::LinkChange;
pub use self::neighbor_cache::{NeighborCache, NeighborProbe, NeighborUse};
pub use self::rx_interface::{ExpectedInterface, RxInterface};
pub use self::tables::Tables;
pub use crate::host::{
    Host, HostRegistry, OffloadNeeds, PathMtu, PathMtuEvidence, PathMtuReport, REPORT_LIFETIME,
    least_of,
};
use crate::l2::{Bridge, BridgeConfig};
pub use crate::link_index::LinkIndex;
use crate::options::EndpointType;
use crate::qos::Meter;
use crate::route::{RouteEntry, RouteOrigin, RouteTable, RouteTarget};
use crate::service::maglev::Maglev;
use crate::wire::encapsulation::{Encapsulation, InnerProtocol};
use crate::wire::ethernet::Mac;
use crate::wire::geneve::Vni;

/// How the outer TTL or hop limit is chosen (RFC 8926 section 4.4.2, RFC 2983).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// The system's default, as the kernel's geneve device does.
    #[default]
    Auto,
    /// The inner packet's (the uniform model).
    Inherit,
    /// This value, 1 to 255.
    Fixed(u8),
}

/// How the outer DSCP is chosen. The two ECN bits always follow RFC 6040.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tos {
    /// The inner packet's DSCP (the uniform model).
    Inherit,
    /// This value's upper six bits (the pipe model).
    Fixed(u8),
}

impl Default for Tos {
    fn default() -> Self {
        Tos::Fixed(0)
    }
}

/// The outer IPv4 header's DF bit. IPv6 always behaves as [`Df::Set`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Df {
    /// Set: path MTU discovery works (RFC 8926 section 4.4.1).
    #[default]
    Set,
    /// Clear: routers of the underlay may fragment.
    Unset,
    /// The inner IPv4 packet's; set for IPv6 inside.
    Inherit,
}

/// One prefix of a VPC and the hosts that it is behind; an empty list of hosts means this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The inner prefix; its host bits are ignored.
    pub prefix: IpNet,
    /// Underlay addresses.
    pub hosts: Vec<IpAddr>,
    /// Which object of the configuration it is.
    pub origin: RouteOrigin,
    /// What is behind it: simple, scaled or gateway for routes and endpoints of several hosts.
    pub kind: EndpointType,
    /// This host is one of them, too.
    pub local: bool,
}

/// Everything that the packet path must know of a link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The link's place in the tables.
    pub index: LinkIndex,
    /// How its packets are wrapped.
    pub encapsulation: Encapsulation,
    /// What its datagrams carry.
    pub inner: InnerProtocol,
    /// The link's own MAC address, where its datagrams carry frames.
    pub lladdr: Mac,
    /// MAC addresses of its neighbours, where the interface knows of none itself.
    pub neighbors: Arc<NeighborCache>,
    /// The VPC's id.
    pub vni: Vni,
    /// The UDP port that is sent to and listened on.
    pub port: u16,
    /// The one local underlay address, where the operator named one.
    pub local: Option<IpAddr>,
    /// The outer TTL.
    pub ttl: Ttl,
    /// The outer DSCP.
    pub tos: Tos,
    /// The outer DF bit.
    pub df: Df,
    /// Whether an IPv6 datagram with checksum zero is accepted (`udp6zerocsumrx`).
    pub udp6_zero_csum_rx: bool,
    /// The inner MTU in force, in bytes of inner IP packet.
    pub mtu: u16,
    /// Addresses of the TUN interface: those of the configuration, then those that others gave it.
    pub addresses: Vec<IpAddr>,
    /// The broadcast addresses of their networks.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Prefixes that are said to live behind the interface.
    pub allowed: Vec<IpNet>,
    /// What came for other destinations than those behind the interface.
    pub undelivered: Arc<UndeliveredPackets>,
    /// The link's `remote`, its routes and its endpoints.
    pub routes: Vec<RouteConfig>,
    /// What the link does beyond carrying packets.
    pub functions: LinkFunctions,
    /// What it knows of MAC addresses, where its interface is a TAP that others' frames come from.
    pub bridge: Option<BridgeConfig>,
}

impl LinkConfig {
    /// The IPv6 address by which geneved speaks for the link: the first that the interface has, or the link-local one of
    /// its MAC address.
    #[must_use]
    pub fn own_v6(&self) -> Ipv6Addr {
        let own = self.addresses.iter().find_map(|addr| match addr {
            IpAddr::V6(addr) => Some(*addr),
            IpAddr::V4(_) => None,
        });
        let link_local = || self.neighbors.link_local();
        own.or_else(link_local)
            .unwrap_or_else(|| self.lladdr.link_local())
    }
}

/// One VPC on this host, ready for the packet path.
#[derive(Debug)]
pub struct Link {
    /// What it was built from.
    pub config: LinkConfig,
    /// Where each inner address lives.
    pub routes: RouteTable,
    /// Where each MAC address lives, for a link whose interface is a TAP.
    pub bridge: Option<Bridge>,
    /// What is said to live behind the interface, whatever else the routes have for it.
    allowed: AllowedPrefixes,
    /// The hosts that any route or endpoint names, sorted by address.
    hosts: Vec<Arc<Host>>,
    /// Ids of those that the underlay's route leads away from: back to this host. Mostly none.
    back: Vec<u32>,
    /// Ids of those that are not heard through the underlay alone. Mostly none.
    heard_by: Vec<(u32, ExpectedInterface)>,
    encap_len: usize,
    /// The link's own rates, for what belongs to no flow.
    pub(crate) meters: Meters,
}

/// The rates of a link in each direction.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) egress: Option<Arc<Meter>>,
    pub(crate) ingress: Option<Arc<Meter>>,
}

impl Link {
    /// Compiles a link; hosts that `registry` does not have yet are added to it.
    #[must_use]
    pub fn new(config: LinkConfig, registry: &mut HostRegistry) -> Self {
        let mut routes = RouteTable::default();
        let mut hosts: Vec<Arc<Host>> = Vec::new();
        for addr in &config.addresses {
            routes.insert(IpNet::from(*addr), RouteEntry::local(RouteOrigin::Own));
        }
        for prefix in &config.allowed {
            routes.insert(*prefix, RouteEntry::local(RouteOrigin::Allowed));
        }
        for route in &config.routes {
            let list: Vec<_> = route
                .hosts
                .iter()
                .map(|&addr| registry.host(addr))
                .collect();
            hosts.extend(list.iter().cloned());
            let entry = RouteEntry {
                origin: route.origin,
                kind: route.kind,
                spread: spread(route, config.local),
                local: route.local || list.is_empty(),
                target: if list.is_empty() {
                    RouteTarget::Local
                } else {
                    RouteTarget::Hosts(Arc::from(list))
                },
            };
            routes.insert(route.prefix, entry);
        }
        let bridge = config.bridge.as_ref();
        let bridge = bridge.map(|config| Bridge::new(config, |addr| registry.host(addr)));
        hosts.extend(bridge.iter().flat_map(Bridge::hosts).cloned());
        hosts.sort_unstable_by_key(|h| h.addr);
        hosts.dedup_by_key(|h| h.addr);
        Link {
            encap_len: encap_len(&config),
            meters: Meters {
                egress: Meter::of(config.functions.rate.as_ref()),
                ingress: Meter::of(config.functions.rate_ingress.as_ref()),
            },
            allowed: AllowedPrefixes::new(&config.allowed),
            routes,
            bridge,
            hosts,
            back: Vec::new(),
            heard_by: Vec::new(),
            config,
        }
    }

    /// The same link, which sends nothing to hosts of which `comes_back` says that it would come back to this host.
    #[must_use]
    pub fn excluding_loops(mut self, comes_back: impl Fn(IpAddr) -> bool) -> Self {
        let back = self.hosts.iter().filter(|host| comes_back(host.addr));
        self.back = back.map(|host| host.id).collect();
        self
    }

    /// Whether what is sent to `host` would come back to this host, so that nothing may be.
    #[inline]
    #[must_use]
    pub fn loops_to(&self, host: &Host) -> bool {
        !self.back.is_empty() && self.back.contains(&host.id)
    }

    /// The host with the underlay address `addr`, if this VPC knows it.
    #[inline]
    #[must_use]
    pub fn host(&self, addr: IpAddr) -> Option<&Arc<Host>> {
        self.hosts
            .binary_search_by_key(&addr, |h| h.addr)
            .ok()
            .map(|at| &self.hosts[at])
    }

    /// Every host that this VPC knows, sorted by address.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Whether an inner packet is one that was wrapped for `host` already, so that wrapping it again would go on without
    /// end: the underlay's route to the host leads into the link. Says so from the first packet on, when nobody has told of
    /// the route yet.
    #[inline]
    #[must_use]
    pub fn is_recursive(&self, host: &Host, dst: IpAddr, udp_port: Option<u16>) -> bool {
        host.addr == dst && udp_port == Some(self.config.port)
    }

    /// The most bytes that this link sends before an inner packet: the encapsulation's header, options included, and
    /// the Ethernet header where there is one.
    #[inline]
    #[must_use]
    pub fn encap_len(&self) -> usize {
        self.encap_len
    }
}

fn encap_len(config: &LinkConfig) -> usize {
    let options = if config.encapsulation.has_options() {
        config.functions.options_len()
    } else {
        0
    };
    config.encapsulation.header_len() + options + config.inner.header_len()
}

/// The table that all hosts of a fabric use alike to choose one of the hosts of a scaled endpoint. Where this host is
/// one of them, it is the last member.
fn spread(route: &RouteConfig, local: Option<IpAddr>) -> Option<Arc<Maglev>> {
    if route.kind != EndpointType::Scaled {
        return None;
    }
    let own = local.filter(|_| route.local);
    let members: Vec<_> = route
        .hosts
        .iter()
        .copied()
        .chain(own)
        .map(|addr| (identity(addr), 1))
        .collect();
    Maglev::compact(&members).map(Arc::new)
}

/// What tells a host from others, on all hosts alike.
fn identity(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

#[cfg(test)]
mod tests;
