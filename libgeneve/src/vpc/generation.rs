//! Generation of a link and of its endpoints: the epoch of their latest change. Older decisions are made again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::{BridgeConfig, EndpointConfig, Link, LinkConfig, RouteConfig};
use crate::qos::QosClass;
use crate::route::RouteOrigin;
use crate::vpc::LinkFunctions;

/// Endpoint changes kept per link. A flow that was last checked before the oldest of them is decided again.
const REMEMBERED: usize = 256;

/// Epochs of the latest changes of a link and of its endpoints.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    /// Epoch of the latest change that may affect every flow of the link.
    since: u64,
    /// Later changes of single endpoints, the latest last.
    endpoints: Option<Arc<[(u64, IpAddr)]>>,
}

impl Generation {
    /// Generation of an unknown link: never current.
    pub(super) const UNKNOWN: Generation = Generation {
        since: u64::MAX,
        endpoints: None,
    };

    /// Returns the generation of a link that changed as a whole in `epoch`.
    pub(super) const fn of(epoch: u64) -> Generation {
        Generation {
            since: epoch,
            endpoints: None,
        }
    }

    /// Returns the generation after these endpoints changed in `epoch`.
    pub(super) fn with(&self, epoch: u64, changed: &[IpAddr]) -> Generation {
        if changed.len() > REMEMBERED {
            return Generation::of(epoch);
        }
        let known = self.endpoints.iter().flat_map(|list| list.iter().copied());
        let mut all: Vec<_> = known
            .chain(changed.iter().map(|addr| (epoch, *addr)))
            .collect();
        let mut since = self.since;
        if let Some(last) = all.len().checked_sub(REMEMBERED + 1) {
            // Drop the changes of one epoch all together.
            since = since.max(all[last].0);
            all.retain(|(at, _)| *at > since);
        }
        Generation {
            since,
            endpoints: Some(all.into()),
        }
    }

    /// Whether no change after `epoch` affects a flow whose addresses satisfy `uses`.
    #[inline]
    pub(super) fn is_current(&self, epoch: u64, uses: impl Fn(IpAddr) -> bool) -> bool {
        let endpoints = self.endpoints.iter().flat_map(|list| list.iter().rev());
        let mut later = endpoints.take_while(|(at, _)| *at > epoch);
        self.since <= epoch && !later.any(|(_, addr)| uses(*addr))
    }
}

/// Difference between two versions of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// None.
    Nothing,
    /// Only these endpoints changed, and no other packets are affected.
    Endpoints(Vec<IpAddr>),
    /// Anything may have changed.
    Anything,
}

impl Link {
    /// Returns what changed since `before`, as far as packets are treated differently.
    #[must_use]
    pub fn change_from(&self, before: &Link) -> LinkChange {
        let same = (self.encap_len, &self.back, &self.heard_by)
            == (before.encap_len, &before.back, &before.heard_by)
            && same_hosts(self, before)
            && same_but_endpoints(&self.config, &before.config);
        if !same {
            return LinkChange::Anything;
        }
        let changed = changed_endpoints(&self.config, &before.config);
        match changed.is_empty() {
            true => LinkChange::Nothing,
            // The owners of a bridge's addresses are also looked up by MAC address.
            false if self.bridge.is_some() => LinkChange::Anything,
            false => LinkChange::Endpoints(changed),
        }
    }
}

/// A host that was removed and added again has another ID, and cached headers and next hops name the old one.
fn same_hosts(now: &Link, before: &Link) -> bool {
    now.hosts.iter().all(|host| match before.host(host.addr) {
        Some(known) => Arc::ptr_eq(host, known),
        None => true,
    })
}

fn same_but_endpoints(now: &LinkConfig, before: &LinkConfig) -> bool {
    let LinkConfig {
        index,
        encapsulation,
        inner,
        lladdr,
        neighbors,
        vni,
        port,
        local,
        ttl,
        tos,
        df,
        udp6_zero_csum_rx,
        mtu,
        addresses,
        broadcasts,
        allowed,
        undelivered,
        routes,
        functions,
        bridge,
    } = now;
    let others = |route: &&RouteConfig| route.origin != RouteOrigin::Endpoint;
    (index, encapsulation, inner, lladdr)
        == (
            &before.index,
            &before.encapsulation,
            &before.inner,
            &before.lladdr,
        )
        && Arc::ptr_eq(neighbors, &before.neighbors)
        && (vni, port, local, ttl, tos, df)
            == (
                &before.vni,
                &before.port,
                &before.local,
                &before.ttl,
                &before.tos,
                &before.df,
            )
        && (udp6_zero_csum_rx, mtu) == (&before.udp6_zero_csum_rx, &before.mtu)
        && (addresses, broadcasts, allowed)
            == (&before.addresses, &before.broadcasts, &before.allowed)
        && Arc::ptr_eq(undelivered, &before.undelivered)
        && routes
            .iter()
            .filter(others)
            .eq(before.routes.iter().filter(others))
        && same_functions(functions, &before.functions)
        && same_bridge(bridge.as_ref(), before.bridge.as_ref())
}

fn same_functions(now: &LinkFunctions, before: &LinkFunctions) -> bool {
    let LinkFunctions {
        endpoints: _,
        policy,
        nat,
        services,
        classes,
        rate,
        rate_ingress,
        options,
        stand_ins,
        labels,
        labels_critical,
        gateway,
    } = now;
    same(policy, &before.policy)
        && same(nat, &before.nat)
        && same(services, &before.services)
        && classes.len() == before.classes.len()
        && classes
            .iter()
            .zip(&before.classes)
            .all(|(a, b)| same_class(a, b))
        && same(rate, &before.rate)
        && same(rate_ingress, &before.rate_ingress)
        && *options == before.options
        && same(stand_ins, &before.stand_ins)
        && (labels, labels_critical, gateway)
            == (&before.labels, &before.labels_critical, &before.gateway)
}

fn same_bridge(now: Option<&BridgeConfig>, before: Option<&BridgeConfig>) -> bool {
    let (Some(now), Some(before)) = (now, before) else {
        return now.is_none() && before.is_none();
    };
    let BridgeConfig {
        mac,
        learning,
        limits,
        entries,
        flood,
        flood_rate,
        owners,
        others,
        live,
    } = now;
    (mac, learning, limits, entries)
        == (
            &before.mac,
            &before.learning,
            &before.limits,
            &before.entries,
        )
        && (flood, owners, others) == (&before.flood, &before.owners, &before.others)
        && Arc::ptr_eq(flood_rate, &before.flood_rate)
        && Arc::ptr_eq(live, &before.live)
}

/// Pointer equality: objects with state are handed on when the configuration changes, not rebuilt.
fn same<T>(now: &Option<Arc<T>>, before: &Option<Arc<T>>) -> bool {
    match (now, before) {
        (Some(now), Some(before)) => Arc::ptr_eq(now, before),
        (None, None) => true,
        _ => false,
    }
}

fn same_class(now: &QosClass, before: &QosClass) -> bool {
    let QosClass {
        id,
        name,
        bucket,
        ingress,
        dscp,
        tally,
    } = now;
    (id, name, dscp) == (&before.id, &before.name, &before.dscp)
        && same(bucket, &before.bucket)
        && same(ingress, &before.ingress)
        && Arc::ptr_eq(tally, &before.tally)
}

fn same_endpoint(now: &EndpointConfig, before: &EndpointConfig) -> bool {
    let EndpointConfig {
        kind,
        labels,
        class,
        rate,
        target,
        colocated,
        local,
        lladdr,
        options,
    } = now;
    (kind, labels, class, target) == (&before.kind, &before.labels, &before.class, &before.target)
        && same(rate, &before.rate)
        && (colocated, local, lladdr, options)
            == (
                &before.colocated,
                &before.local,
                &before.lladdr,
                &before.options,
            )
}

/// Addresses whose endpoints differ.
fn changed_endpoints(now: &LinkConfig, before: &LinkConfig) -> Vec<IpAddr> {
    let (new, old) = (&now.functions.endpoints, &before.functions.endpoints);
    let differs = |(addr, endpoint): &(&IpAddr, &EndpointConfig)| {
        old.get(*addr)
            .is_none_or(|old| !same_endpoint(endpoint, old))
    };
    let gone = old.keys().filter(|addr| !new.contains_key(*addr));
    let mut changed: Vec<_> = new.iter().filter(differs).map(|(addr, _)| *addr).collect();
    changed.extend(gone);
    if now.routes != before.routes {
        let (new, old) = (endpoint_routes(now), endpoint_routes(before));
        let differs = |(addr, route): &(&IpAddr, &&RouteConfig)| old.get(*addr) != Some(*route);
        changed.extend(new.iter().filter(differs).map(|(addr, _)| *addr));
        changed.extend(old.keys().filter(|addr| !new.contains_key(*addr)));
    }
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn endpoint_routes(config: &LinkConfig) -> HashMap<IpAddr, &RouteConfig> {
    let routes = config.routes.iter();
    let of_endpoints = routes.filter(|route| route.origin == RouteOrigin::Endpoint);
    of_endpoints
        .map(|route| (route.prefix.addr(), route))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn current(generation: &Generation, epoch: u64, used: IpAddr) -> bool {
        generation.is_current(epoch, |addr| addr == used)
    }

    #[test]
    fn an_endpoint_concerns_those_who_use_it_and_a_link_everybody() {
        let generation = Generation::of(3).with(5, &[A]);
        assert!(!current(&generation, 2, B) && current(&generation, 3, B));
        assert!(!current(&generation, 4, A) && current(&generation, 5, A));
        assert!(!Generation::UNKNOWN.is_current(7, |_| false));
    }

    #[test]
    fn what_is_forgotten_concerns_everybody() {
        let mut generation = Generation::of(0);
        for epoch in 1..=REMEMBERED as u64 {
            generation = generation.with(epoch, &[A]);
        }
        assert!(current(&generation, 0, B) && !current(&generation, 0, A));
        let next = REMEMBERED as u64 + 1;
        let generation = generation.with(next, &[A]);
        assert!(!current(&generation, 0, B) && current(&generation, 1, B));
        assert!(!current(&generation, next - 1, A) && current(&generation, next, A));
        let many = vec![B; REMEMBERED + 1];
        assert!(!current(&generation.with(next + 1, &many), next, A));
    }
}
