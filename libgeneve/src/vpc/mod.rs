//! Links, hosts, and the snapshot of both that workers read.
//!
//! A [`Tables`] value is immutable. The daemon builds a new one for each change of the configuration and publishes
//! it; workers that still hold the old one finish their batch with it. The only values that change inside are those
//! learned from the underlay about a [`Host`].

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
    /// Copied from the inner packet (the uniform model).
    Inherit,
    /// This value, 1 to 255.
    Fixed(u8),
}

/// How the outer DSCP is chosen. The two ECN bits always follow RFC 6040.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tos {
    /// Copied from the inner packet (the uniform model).
    Inherit,
    /// The upper six bits of this value (the pipe model).
    Fixed(u8),
}

impl Default for Tos {
    fn default() -> Self {
        Tos::Fixed(0)
    }
}

/// How the outer IPv4 DF bit is chosen. IPv6 always behaves as [`Df::Set`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Df {
    /// Set: path MTU discovery works (RFC 8926 section 4.4.1).
    #[default]
    Set,
    /// Clear: routers of the underlay may fragment.
    Unset,
    /// Copied from the inner IPv4 packet; set for inner IPv6.
    Inherit,
}

/// A prefix of a VPC and the hosts that it is behind; an empty list of hosts means this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// The inner prefix; its host bits are ignored.
    pub prefix: IpNet,
    /// Underlay addresses.
    pub hosts: Vec<IpAddr>,
    /// The kind of configuration object that it comes from.
    pub origin: RouteOrigin,
    /// Type of what is behind it: simple, scaled or gateway for routes and for endpoints of several hosts.
    pub kind: EndpointType,
    /// Whether this host is one of them, too.
    pub local: bool,
}

/// Configuration of a link, as far as the packet path needs it.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The link's index in the tables.
    pub index: LinkIndex,
    /// Encapsulation of its packets.
    pub encapsulation: Encapsulation,
    /// Inner protocol of its datagrams: IP or Ethernet.
    pub inner: InnerProtocol,
    /// The link's own MAC address, if its datagrams carry frames.
    pub lladdr: Mac,
    /// Neighbour table, for an interface that has none itself.
    pub neighbors: Arc<NeighborCache>,
    /// The VPC's VNI.
    pub vni: Vni,
    /// UDP port to send to and listen on.
    pub port: u16,
    /// Local underlay address, if the operator set one.
    pub local: Option<IpAddr>,
    /// The outer TTL.
    pub ttl: Ttl,
    /// The outer DSCP.
    pub tos: Tos,
    /// The outer DF bit.
    pub df: Df,
    /// Whether an IPv6 datagram with checksum zero is accepted (`udp6zerocsumrx`).
    pub udp6_zero_csum_rx: bool,
    /// Inner MTU in force, in bytes of inner IP packet.
    pub mtu: u16,
    /// Addresses of the TUN interface: first the configured ones, then those added by others.
    pub addresses: Vec<IpAddr>,
    /// Broadcast addresses of the interface's networks.
    pub broadcasts: Vec<Ipv4Addr>,
    /// Prefixes that are declared to be behind the interface.
    pub allowed: Vec<IpNet>,
    /// Packets that were not delivered because their destination is not behind the interface.
    pub undelivered: Arc<UndeliveredPackets>,
    /// The link's `remote`, its routes and its endpoints.
    pub routes: Vec<RouteConfig>,
    /// Functions beyond carrying packets.
    pub functions: LinkFunctions,
    /// MAC address configuration, if the interface is a TAP that carries the frames of others.
    pub bridge: Option<BridgeConfig>,
}

impl LinkConfig {
    /// Returns the IPv6 address that geneved uses as its own on the link: the interface's first one, or the
    /// link-local address derived from its MAC address.
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

/// One VPC on this host, compiled for the packet path.
#[derive(Debug)]
pub struct Link {
    /// The configuration that it was built from.
    pub config: LinkConfig,
    /// Route table: the hosts of each inner address.
    pub routes: RouteTable,
    /// MAC address tables, if the interface is a TAP.
    pub bridge: Option<Bridge>,
    /// Prefixes that are declared to be behind the interface, even if `routes` has another entry.
    allowed: AllowedPrefixes,
    /// Hosts named by any route or endpoint, sorted by address.
    hosts: Vec<Arc<Host>>,
    /// IDs of hosts whose underlay route leads back to this host. Mostly none.
    back: Vec<u32>,
    /// IDs of hosts that may be heard through other interfaces than the underlay's, or not at all. Mostly none.
    heard_by: Vec<(u32, ExpectedInterface)>,
    encap_len: usize,
    /// The link's own rate limits, for packets that belong to no flow.
    pub(crate) meters: Meters,
}

/// Rate limits of a link in each direction.
#[derive(Debug)]
pub(crate) struct Meters {
    pub(crate) egress: Option<Arc<Meter>>,
    pub(crate) ingress: Option<Arc<Meter>>,
}

impl Link {
    /// Compiles a link; adds new hosts to `registry`.
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

    /// Returns the link with sending blocked to the hosts for which `comes_back` returns true: packets to them would
    /// come back to this host.
    #[must_use]
    pub fn excluding_loops(mut self, comes_back: impl Fn(IpAddr) -> bool) -> Self {
        let back = self.hosts.iter().filter(|host| comes_back(host.addr));
        self.back = back.map(|host| host.id).collect();
        self
    }

    /// Whether packets sent to `host` would come back to this host, so that nothing may be sent there.
    #[inline]
    #[must_use]
    pub fn loops_to(&self, host: &Host) -> bool {
        !self.back.is_empty() && self.back.contains(&host.id)
    }

    /// Returns the host with the underlay address `addr`, if this VPC knows it.
    #[inline]
    #[must_use]
    pub fn host(&self, addr: IpAddr) -> Option<&Arc<Host>> {
        self.hosts
            .binary_search_by_key(&addr, |h| h.addr)
            .ok()
            .map(|at| &self.hosts[at])
    }

    /// Returns all hosts of this VPC, sorted by address.
    #[must_use]
    pub fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    /// Whether an inner packet was already encapsulated for `host`: the underlay's route to the host leads into the
    /// link, and encapsulating it again would loop forever. Catches the first packet, even before that route is known.
    #[inline]
    #[must_use]
    pub fn is_recursive(&self, host: &Host, dst: IpAddr, udp_port: Option<u16>) -> bool {
        host.addr == dst && udp_port == Some(self.config.port)
    }

    /// Returns the most bytes that this link puts before an inner packet: the encapsulation header with its options,
    /// and the Ethernet header if there is one.
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

/// Maglev table to choose one of the hosts of a scaled endpoint; identical on all hosts of a fabric. If this host is
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

/// Identity of a host in the Maglev table, the same on all hosts.
fn identity(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

#[cfg(test)]
mod tests;
