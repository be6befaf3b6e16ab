//! What a worker needs to know of the VPCs: links, hosts, and the snapshot that holds them.
//!
//! A [`Tables`] value is immutable. The daemon builds a new one for each change of configuration
//! and publishes it; workers that still hold the old one finish their batch with it. The only
//! values that change inside are what the underlay taught about a [`Host`].

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use ipnet::IpNet;
use siphasher::sip::SipHasher13;

use crate::flow::FlowHasher;
use crate::route::{Entry, Origin, Routes, Target};
use crate::wire::geneve::{GeneveBuilder, HeaderBytes, Vni};

/// A link's place in [`Tables`]: small, handed out by the daemon, reused after the link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkIndex(pub u32);

/// A tunnel endpoint (the RFC's NVE), known by its underlay address.
#[derive(Debug)]
pub struct Host {
    /// A small number, unique among the hosts of one daemon.
    pub id: u32,
    /// The underlay address.
    pub addr: IpAddr,
    path_mtu: AtomicU32,
    no_gso: AtomicBool,
}

impl Host {
    /// A host of which nothing was learned yet.
    #[must_use]
    pub fn new(id: u32, addr: IpAddr) -> Self {
        Host {
            id,
            addr,
            path_mtu: AtomicU32::new(0),
            no_gso: AtomicBool::new(false),
        }
    }

    /// The path MTU that the underlay reported, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn path_mtu(&self) -> Option<u32> {
        Some(self.path_mtu.load(Relaxed)).filter(|&mtu| mtu != 0)
    }

    /// Learns a path MTU in bytes of outer IP packet; `None` forgets it.
    pub fn set_path_mtu(&self, mtu: Option<u32>) {
        self.path_mtu.store(mtu.unwrap_or(0), Relaxed);
    }

    /// Whether trains to this host may use `UDP_SEGMENT`.
    #[inline]
    #[must_use]
    pub fn gso(&self) -> bool {
        !self.no_gso.load(Relaxed)
    }

    /// Switches `UDP_SEGMENT` on or off for this host.
    pub fn set_gso(&self, on: bool) {
        self.no_gso.store(!on, Relaxed);
    }
}

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
    pub origin: Origin,
}

/// Everything that the packet path must know of a link.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The link's place in the tables.
    pub index: LinkIndex,
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
    /// Addresses of the TUN interface.
    pub addresses: Vec<IpAddr>,
    /// The link's `remote`, its routes and its endpoints.
    pub routes: Vec<RouteConfig>,
}

/// One VPC on this host, ready for the packet path.
#[derive(Debug)]
pub struct Link {
    /// What it was built from.
    pub config: LinkConfig,
    /// Where each inner address lives.
    pub routes: Routes,
    /// The hosts that any route or endpoint names, sorted by address.
    hosts: Vec<Arc<Host>>,
    /// The Geneve header of IPv4 packets (protocol 0x0800), ready to be sent.
    pub encap_v4: HeaderBytes,
    /// The Geneve header of IPv6 packets (protocol 0x86dd).
    pub encap_v6: HeaderBytes,
}

impl Link {
    /// Compiles a link; hosts that `registry` does not have yet are added to it.
    #[must_use]
    pub fn new(config: LinkConfig, registry: &mut HostRegistry) -> Self {
        let mut routes = Routes::default();
        let mut hosts: Vec<Arc<Host>> = Vec::new();
        for addr in &config.addresses {
            routes.insert(
                IpNet::from(*addr),
                Entry {
                    target: Target::Local,
                    origin: Origin::Own,
                },
            );
        }
        for route in &config.routes {
            let list: Vec<_> = route
                .hosts
                .iter()
                .map(|&addr| registry.host(addr))
                .collect();
            hosts.extend(list.iter().cloned());
            let target = if list.is_empty() {
                Target::Local
            } else {
                Target::Hosts(Arc::from(list))
            };
            routes.insert(
                route.prefix,
                Entry {
                    target,
                    origin: route.origin,
                },
            );
        }
        hosts.sort_unstable_by_key(|h| h.addr);
        hosts.dedup_by_key(|h| h.addr);
        let encap = |ether_type| GeneveBuilder::new(config.vni, ether_type).finish();
        Link {
            encap_v4: encap(0x0800),
            encap_v6: encap(0x86dd),
            routes,
            hosts,
            config,
        }
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

    /// The length of the longest Geneve header, options included, that this link sends; in bytes.
    #[must_use]
    pub fn encap_len(&self) -> usize {
        self.encap_v4.len().max(self.encap_v6.len())
    }
}

/// Hands out one [`Host`] for each underlay address, so that what was learned survives a change of configuration.
#[derive(Debug, Default)]
pub struct HostRegistry {
    hosts: HashMap<IpAddr, Arc<Host>>,
    next: u32,
}

impl HostRegistry {
    /// The host of this address, made where it is new.
    pub fn host(&mut self, addr: IpAddr) -> Arc<Host> {
        let next = &mut self.next;
        let host = self.hosts.entry(addr).or_insert_with(|| {
            *next += 1;
            Arc::new(Host::new(*next, addr))
        });
        Arc::clone(host)
    }

    /// The host of this address, if there is one.
    #[must_use]
    pub fn find(&self, addr: IpAddr) -> Option<&Arc<Host>> {
        self.hosts.get(&addr)
    }

    /// Every host, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// Forgets the hosts that nobody else holds.
    pub fn prune(&mut self) {
        self.hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
}

/// An immutable snapshot of all links.
#[derive(Debug, Default)]
pub struct Tables {
    links: Vec<Option<Arc<Link>>>,
    by_vni: HashMap<u64, LinkIndex, BuildHasherDefault<SipHasher13>>,
    /// Keyed hash of flows: source ports, and the choice among several hosts.
    pub hasher: FlowHasher,
}

impl Tables {
    /// A snapshot of these links. Where two have the same VNI on the same port, the later one is
    /// reached by its VNI; the daemon refuses such a configuration.
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = Arc<Link>>, hasher: FlowHasher) -> Self {
        let mut tables = Tables {
            hasher,
            ..Tables::default()
        };
        for link in links {
            let index = link.config.index;
            let slot = index.0 as usize;
            if tables.links.len() <= slot {
                tables.links.resize(slot + 1, None);
            }
            tables
                .by_vni
                .insert(vni_key(link.config.port, link.config.vni), index);
            tables.links[slot] = Some(link);
        }
        tables
    }

    /// The link at `index`.
    #[inline]
    #[must_use]
    pub fn link(&self, index: LinkIndex) -> Option<&Arc<Link>> {
        self.links.get(index.0 as usize)?.as_ref()
    }

    /// The link that carries `vni` on UDP port `port`.
    #[inline]
    #[must_use]
    pub fn by_vni(&self, port: u16, vni: Vni) -> Option<&Arc<Link>> {
        self.link(*self.by_vni.get(&vni_key(port, vni))?)
    }

    /// Every link, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().flatten()
    }
}

fn vni_key(port: u16, vni: Vni) -> u64 {
    u64::from(port) << 32 | u64::from(u32::from(vni))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(addr: &str) -> IpAddr {
        addr.parse().unwrap()
    }

    fn config(index: u32, vni: u32, hosts: &[&str]) -> LinkConfig {
        LinkConfig {
            index: LinkIndex(index),
            vni: Vni::new(vni).unwrap(),
            port: 6081,
            local: None,
            ttl: Ttl::default(),
            tos: Tos::default(),
            df: Df::default(),
            udp6_zero_csum_rx: false,
            mtu: 1464,
            addresses: vec![ip("10.0.0.1")],
            routes: vec![RouteConfig {
                prefix: "10.0.0.0/24".parse().unwrap(),
                hosts: hosts.iter().map(|host| ip(host)).collect(),
                origin: Origin::Route,
            }],
        }
    }

    #[test]
    fn a_link_knows_each_host_once() {
        let mut registry = HostRegistry::default();
        let mut config = config(0, 1, &["192.0.2.9", "192.0.2.2", "2001:db8::1"]);
        config.routes.push(RouteConfig {
            prefix: "10.9.0.0/16".parse().unwrap(),
            hosts: vec![ip("192.0.2.2")],
            origin: Origin::Endpoint,
        });
        let link = Link::new(config, &mut registry);
        let known: Vec<_> = link.hosts().iter().map(|host| host.addr).collect();
        assert_eq!(known, [ip("192.0.2.2"), ip("192.0.2.9"), ip("2001:db8::1")]);
        assert!(known.iter().all(|&addr| link.host(addr).is_some()));
        assert!(link.host(ip("192.0.2.3")).is_none());
    }

    #[test]
    fn what_a_host_taught_survives_a_change_of_configuration() {
        let mut registry = HostRegistry::default();
        let before = Link::new(config(0, 1, &["192.0.2.2"]), &mut registry);
        let host = before.host(ip("192.0.2.2")).unwrap();
        assert!(host.gso() && host.path_mtu().is_none());
        host.set_path_mtu(Some(1400));
        host.set_gso(false);
        let after = Link::new(config(0, 1, &["192.0.2.3", "192.0.2.2"]), &mut registry);
        let host = after.host(ip("192.0.2.2")).unwrap();
        assert_eq!((host.path_mtu(), host.gso()), (Some(1400), false));
        assert_ne!(host.id, after.host(ip("192.0.2.3")).unwrap().id);
        host.set_path_mtu(None);
        assert!(host.path_mtu().is_none());
    }

    #[test]
    fn hosts_that_nobody_names_are_forgotten() {
        let mut registry = HostRegistry::default();
        let first = Link::new(config(0, 1, &["192.0.2.2"]), &mut registry);
        let second = Link::new(config(1, 2, &["192.0.2.3"]), &mut registry);
        drop(first);
        registry.prune();
        assert!(registry.find(ip("192.0.2.2")).is_none());
        assert_eq!(registry.iter().count(), 1);
        // A new one is not mistaken for one that is still on its way.
        let kept = second.host(ip("192.0.2.3")).unwrap().id;
        assert_ne!(registry.host(ip("192.0.2.4")).id, kept);
    }

    #[test]
    fn tables_find_links_by_place_and_by_vni() {
        let mut registry = HostRegistry::default();
        let links = [(4, 7), (1, 9)].map(|(index, vni)| {
            Arc::new(Link::new(config(index, vni, &["192.0.2.2"]), &mut registry))
        });
        let tables = Tables::new(links, FlowHasher::default());
        let vni = |id| Vni::new(id).unwrap();
        assert_eq!(
            tables.by_vni(6081, vni(7)).unwrap().config.index,
            LinkIndex(4)
        );
        assert!(tables.by_vni(6082, vni(7)).is_none() && tables.by_vni(6081, vni(8)).is_none());
        for gone in [0, 2, 3, 5, u32::MAX] {
            assert!(tables.link(LinkIndex(gone)).is_none(), "{gone}");
        }
        let order: Vec<_> = tables.iter().map(|link| link.config.index.0).collect();
        assert_eq!(order, [1, 4]);
    }
}
