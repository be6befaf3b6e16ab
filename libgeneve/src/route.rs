//! Longest-prefix match of one VPC: from an inner address to the hosts that it is on.
//!
//! Routes, endpoints and the link's own addresses share one trie, so that both directions get the same answer: egress
//! looks up the destination, ingress the source. [`crate::datapath`] decides what happens to the packet.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::host::Host;
use crate::options::EndpointType;
use crate::service::maglev::Maglev;

/// Where the addresses of a prefix are.
#[derive(Clone, Debug)]
pub enum RouteTarget {
    /// On this host, behind the link's TUN interface.
    Local,
    /// On one of these hosts, chosen by the flow's hash; never empty.
    Hosts(Arc<[Arc<Host>]>),
}

impl RouteTarget {
    /// Whether packets from the underlay address `host` may have an inner source in this prefix.
    #[must_use]
    pub fn includes(&self, host: IpAddr) -> bool {
        match self {
            RouteTarget::Local => false,
            RouteTarget::Hosts(hosts) => hosts.iter().any(|h| h.addr == host),
        }
    }
}

/// Origin of an entry: decides which of two equal prefixes wins, and what egress checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOrigin {
    /// `allowed PREFIX` of the link: behind the interface unless a more specific entry says otherwise.
    Allowed,
    /// `remote ADDR` of the link: the default route.
    Remote,
    /// `geneved route add`.
    Route,
    /// `geneved endpoint add`.
    Endpoint,
    /// An address of the link's own interface.
    Own,
}

/// Route table entry of one prefix.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// Where the prefix is.
    pub target: RouteTarget,
    /// Where the entry comes from.
    pub origin: RouteOrigin,
    /// Type of the endpoint behind it.
    pub kind: EndpointType,
    /// Whether the prefix is on this host; a scaled endpoint may be on others, too.
    pub local: bool,
    /// Maglev table that spreads flows over the hosts of a scaled endpoint.
    pub spread: Option<Arc<Maglev>>,
}

impl RouteEntry {
    /// Returns an entry for a prefix on this host.
    #[must_use]
    pub fn local(origin: RouteOrigin) -> RouteEntry {
        RouteEntry {
            target: RouteTarget::Local,
            origin,
            kind: EndpointType::Simple,
            local: true,
            spread: None,
        }
    }
}

/// Route table of one link, IPv4 and IPv6.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    v4: PrefixMap<Ipv4Net, RouteEntry>,
    v6: PrefixMap<Ipv6Net, RouteEntry>,
}

impl RouteTable {
    /// Inserts `prefix`, ignoring its host bits. If the prefix exists, the entry with the higher [`RouteOrigin`] stays: an
    /// interface's own address wins over an endpoint, and an endpoint over a route.
    pub fn insert(&mut self, prefix: IpNet, entry: RouteEntry) {
        match prefix.trunc() {
            IpNet::V4(net) => keep_higher(&mut self.v4, net, entry),
            IpNet::V6(net) => keep_higher(&mut self.v6, net, entry),
        }
    }

    /// Returns the entry of the longest prefix that covers `addr`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, addr: IpAddr) -> Option<&RouteEntry> {
        match addr {
            IpAddr::V4(a) => self.v4.get_lpm(&Ipv4Net::from(a)).map(|(_, entry)| entry),
            IpAddr::V6(a) => self.v6.get_lpm(&Ipv6Net::from(a)).map(|(_, entry)| entry),
        }
    }
}

fn keep_higher<P: prefix_trie::Prefix>(
    map: &mut PrefixMap<P, RouteEntry>,
    prefix: P,
    entry: RouteEntry,
) {
    match map.get_mut(&prefix) {
        Some(there) if there.origin > entry.origin => {}
        Some(there) => *there = entry,
        None => {
            map.insert(prefix, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(addr: &str) -> RouteTarget {
        RouteTarget::Hosts(Arc::new([Arc::new(Host::new(0, addr.parse().unwrap()))]))
    }

    fn entry(addr: &str, origin: RouteOrigin) -> RouteEntry {
        RouteEntry {
            target: hosts(addr),
            local: false,
            ..RouteEntry::local(origin)
        }
    }

    fn leads_to(routes: &RouteTable, inner: &str, host: &str) -> bool {
        routes
            .lookup(inner.parse().unwrap())
            .is_some_and(|e| e.target.includes(host.parse().unwrap()))
    }

    #[test]
    fn the_longest_prefix_wins_in_both_families() {
        let mut routes = RouteTable::default();
        routes.insert(
            "0.0.0.0/0".parse().unwrap(),
            entry("192.0.2.1", RouteOrigin::Remote),
        );
        routes.insert(
            "10.1.2.3/16".parse().unwrap(),
            entry("192.0.2.2", RouteOrigin::Route),
        );
        routes.insert(
            "10.1.7.0/24".parse().unwrap(),
            entry("192.0.2.3", RouteOrigin::Route),
        );
        routes.insert(
            "2001:db8:1::/48".parse().unwrap(),
            entry("192.0.2.4", RouteOrigin::Route),
        );
        assert!(leads_to(&routes, "8.8.8.8", "192.0.2.1"));
        assert!(leads_to(&routes, "10.1.0.1", "192.0.2.2"));
        assert!(leads_to(&routes, "10.1.7.9", "192.0.2.3"));
        assert!(leads_to(&routes, "2001:db8:1::5", "192.0.2.4"));
        assert!(routes.lookup("2001:db8:2::5".parse().unwrap()).is_none());
    }

    #[test]
    fn an_own_address_is_not_shadowed_by_an_endpoint() {
        let mut routes = RouteTable::default();
        let own = RouteEntry::local(RouteOrigin::Own);
        routes.insert("10.0.0.1/32".parse().unwrap(), own);
        routes.insert(
            "10.0.0.1/32".parse().unwrap(),
            entry("192.0.2.9", RouteOrigin::Endpoint),
        );
        assert!(!leads_to(&routes, "10.0.0.1", "192.0.2.9"));
    }
}
