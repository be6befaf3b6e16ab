//! Routing loops: the underlay's route to a host leads back into the link that sends to it, or into another link that
//! leads there, or the host's address is this host's own.
//!
//! A packet to such a host would be encapsulated again on every round. The packet path sends none, which cuts off
//! only that host; a change at run time that would cause a loop is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::compile::Outdated;
use super::core::{Core, CoreState, host_event, hosts_of};
use crate::config::state::{DesiredState, LinkSpec};
use crate::config::value::{IfName, ModeValue};
use crate::control::yielding;
use crate::net::host_path::HostPath;
use crate::net::mtu::{NestedTunnels, PathTable, RoutingLoop};
use crate::refusal::Refusal;

/// Maximum number of links for which loops are searched without a separate thread.
const FEW_LINKS: usize = 64;

/// Why packets to a host would loop, by link name and host.
pub(super) type LoopMap = BTreeMap<(IfName, IpAddr), RoutingLoop>;

/// Finds every link and host of `state` between which packets would loop.
pub(super) fn loops(state: &DesiredState, paths: &PathTable) -> LoopMap {
    let mut found = LoopMap::new();
    for link in state.links.values() {
        for host in hosts_of(state, link) {
            if let Some(why) = find_loop(state, paths, link, host) {
                found.insert((link.name.clone(), host), why);
            }
        }
    }
    found
}

fn find_loop(
    state: &DesiredState,
    paths: &PathTable,
    link: &LinkSpec,
    host: IpAddr,
) -> Option<RoutingLoop> {
    let host_path = paths.path(host, link.local)?.ok()?;
    if host_path.own {
        let meant = !is_configured_host(state, link, host);
        return Some(RoutingLoop::Own { meant });
    }
    if links_entered(state, host_path).any(|entered| entered.name == link.name) {
        return Some(RoutingLoop::Itself);
    }
    if let Some(shared) = shared(state, host_path) {
        return Some(shared);
    }
    let mut seen = BTreeSet::new();
    let by = links_entered(state, host_path)
        .find(|next| ends_in(state, paths, (next, host), link, &mut seen))?;
    Some(RoutingLoop::Through(by.name.clone()))
}

/// Why a path must not be used if it leads through a bridge that has a link among its ports.
pub(super) fn shared(state: &DesiredState, host_path: &HostPath) -> Option<RoutingLoop> {
    host_path.ports.iter().find_map(|(bridge, port)| {
        let link = state.links.get(&port.parse::<IfName>().ok()?)?;
        let here = link.netns.is_none();
        here.then(|| RoutingLoop::Shared(bridge.clone(), link.name.clone()))
    })
}

/// All hosts that are reached through other links.
pub(super) fn nested(state: &DesiredState, paths: &PathTable) -> NestedTunnels {
    let mut found = NestedTunnels::new();
    for link in state.links.values() {
        for host in hosts_of(state, link) {
            let (Some(Ok(host_path)), None) = (
                paths.path(host, link.local),
                paths.loop_of(&link.name, host),
            ) else {
                continue;
            };
            let outer = links_entered(state, host_path).map(|outer| outer.name.clone());
            found.extend(outer.map(|outer| (link.name.clone(), host, outer)));
        }
    }
    found
}

/// The hosts of a link that its MTU is computed from. A host behind another link whose own MTU follows from this
/// one's is left out: the two would keep shrinking each other.
pub(super) fn measured(state: &DesiredState, paths: &PathTable, link: &LinkSpec) -> Vec<IpAddr> {
    let mut hosts = hosts_of(state, link);
    hosts.retain(|host| {
        let host_path = paths.path(*host, link.local);
        let (Some(Ok(host_path)), None) = (host_path, paths.loop_of(&link.name, *host)) else {
            return true;
        };
        let mut seen = BTreeSet::new();
        !links_entered(state, host_path)
            .any(|next| is_nested_in(state, paths, next, &link.name, &mut seen))
    });
    hosts
}

/// Whether a path to a host of `link` leads through the link `end`, directly or through other links.
fn is_nested_in<'a>(
    state: &'a DesiredState,
    paths: &PathTable,
    link: &'a LinkSpec,
    end: &IfName,
    seen: &mut BTreeSet<&'a IfName>,
) -> bool {
    if link.name == *end {
        return true;
    }
    if !seen.insert(&link.name) {
        return false;
    }
    hosts_of(state, link).into_iter().any(|host| {
        let Some(Ok(host_path)) = paths.path(host, link.local) else {
            return false;
        };
        let next: Vec<_> = links_entered(state, host_path).collect();
        next.into_iter()
            .any(|next| is_nested_in(state, paths, next, end, seen))
    })
}

/// Whether packets that enter `link` for the address `inner` end up in `end`.
fn ends_in<'a>(
    state: &'a DesiredState,
    paths: &PathTable,
    (link, inner): (&'a LinkSpec, IpAddr),
    end: &LinkSpec,
    seen: &mut BTreeSet<(&'a IfName, IpAddr)>,
) -> bool {
    if !seen.insert((&link.name, inner)) {
        return false;
    }
    hosts_for(state, link, inner).into_iter().any(|host| {
        let Some(Ok(host_path)) = paths.path(host, link.local) else {
            return false;
        };
        let next: Vec<_> = links_entered(state, host_path).collect();
        next.iter().any(|next| next.name == end.name)
            || next
                .into_iter()
                .any(|next| ends_in(state, paths, (next, host), end, seen))
    })
}

/// The links whose interfaces a path leads into. Interfaces in other namespaces are not part of the underlay.
fn links_entered<'a>(
    state: &'a DesiredState,
    host_path: &HostPath,
) -> impl Iterator<Item = &'a LinkSpec> {
    let links = host_path
        .through
        .iter()
        .filter_map(|name| state.links.get(&name.parse::<IfName>().ok()?));
    links.filter(|link| link.netns.is_none())
}

/// The hosts that a link may send packets for `inner` to.
fn hosts_for(state: &DesiredState, link: &LinkSpec, inner: IpAddr) -> Vec<IpAddr> {
    if link.mode == ModeValue::Ethernet {
        // Frames are sent by MAC address, and any host may have the one in question.
        return hosts_of(state, link);
    }
    let mut endpoints = state.endpoints_of(&link.name);
    if let Some((_, endpoint)) = endpoints.find(|(address, _)| *address == inner) {
        return endpoint.hosts.clone();
    }
    let routes = state
        .routes_of(&link.name)
        .filter(|(net, _)| net.contains(&inner));
    match routes.max_by_key(|(net, _)| net.prefix_len()) {
        Some((_, route)) => route.hosts.clone(),
        None => link.remote.into_iter().collect(),
    }
}

/// Predicts the paths after interfaces get the addresses that they do not have in `old`: the kernel routes an
/// address's prefix to its interface unless there is a longer one. `None` if no path changes.
fn with_addresses<'a>(
    old: &DesiredState,
    changed: impl Iterator<Item = &'a LinkSpec>,
    paths: &PathTable,
) -> Option<PathTable> {
    let here = changed.filter(|link| link.netns.is_none() && link.up);
    let is_old = |link: &LinkSpec, net: &IpNet| {
        let before = old.links.get(&link.name);
        before.is_some_and(|before| before.addresses.contains(net))
    };
    let fresh = here.flat_map(|link| link.addresses.iter().map(move |net| (link, net)));
    let fresh: Vec<_> = fresh.filter(|(link, net)| !is_old(link, net)).collect();
    if fresh.is_empty() {
        return None;
    }
    let mut foreseen = paths.clone();
    let mut any = false;
    foreseen.change_each(|host, host_path| {
        let mut drawn: Option<HostPath> = None;
        for (link, net) in &fresh {
            let shorter = match drawn.as_ref().map_or(host_path.as_ref(), Ok) {
                Ok(host_path) => {
                    host_path.in_main && !host_path.own && host_path.prefix_len < net.prefix_len()
                }
                Err(_) => true,
            };
            if net.contains(&host) && (shorter || net.addr() == host) {
                drawn = Some(HostPath {
                    devices: Vec::new(),
                    through: vec![link.name.to_string()],
                    ports: Vec::new(),
                    mtu: 0,
                    own: net.addr() == host,
                    prefix_len: net.prefix_len(),
                    in_main: true,
                });
            }
        }
        any |= drawn.is_some();
        drawn
    });
    any.then_some(foreseen)
}

/// Whether any path leads through the interface of a link, or through a bridge that has one as its port.
pub(super) fn entangled(state: &DesiredState, paths: &PathTable) -> bool {
    let links = paths
        .through()
        .filter_map(|name| state.links.get(&name.parse().ok()?));
    links.into_iter().any(|link| link.netns.is_none())
}

/// Records the loops of one link, given that no path leads through any link.
pub(super) fn note_own_loops(state: &DesiredState, paths: &mut PathTable, link: &LinkSpec) {
    for host in hosts_of(state, link) {
        if let Some(why) = find_loop(state, paths, link, host) {
            paths.add_loop(&link.name, host, why);
        }
    }
}

/// Whether anything but an endpoint names this host. Endpoint lists are the same on all hosts and include a host's
/// own.
fn is_configured_host(state: &DesiredState, link: &LinkSpec, host: IpAddr) -> bool {
    let mut routes = state.routes_of(&link.name);
    let mut fdb = state.fdb_of(&link.name);
    link.remote == Some(host)
        || routes.any(|(_, route)| route.hosts.contains(&host))
        || fdb.any(|(_, entry)| entry.hosts.contains(&host))
}

impl Core {
    /// Refuses a change that would cause new loops, and otherwise returns the paths; `changed` are the links that may
    /// differ.
    pub(super) async fn refuse_loops(
        &self,
        inner: &CoreState,
        new: &Arc<DesiredState>,
        changed: &Outdated,
    ) -> Result<Arc<PathTable>, Refusal> {
        let paths = self.paths(inner, new, changed).await;
        let (old, new) = (Arc::clone(&inner.state), Arc::clone(new));
        let (before, after) = (Arc::clone(&inner.paths), Arc::clone(&paths));
        let names: Vec<IfName> = match changed {
            Outdated::All => new.links.keys().cloned().collect(),
            Outdated::Links(names) => names.iter().cloned().collect(),
        };
        let long = names.len() > FEW_LINKS;
        let find = move || {
            let links = names.iter().filter_map(|name| new.links.get(name));
            let foreseen = with_addresses(&old, links, &after);
            let is_new = |((name, host), why): &((IfName, IpAddr), RoutingLoop)| {
                let meant = *why == RoutingLoop::Own { meant: true };
                !meant && before.loop_of(name, *host).is_none()
            };
            if let Some(foreseen) = foreseen {
                return loops(&new, &foreseen).into_iter().find(is_new);
            }
            let of = |((name, host), why): (&(IfName, IpAddr), &RoutingLoop)| {
                ((name.clone(), *host), why.clone())
            };
            after.loops().beside(before.loops()).map(of).find(is_new)
        };
        let Some(((name, host), why)) = yielding::spawn_blocking_if(long, find).await else {
            return Ok(paths);
        };
        Err(Refusal::new(
            format!("link \"{name}\": host {host}: {why}"),
            "hosts (\"remote\", \"via\", \"host\", \"dst\") are addresses of other machines in the underlay; \
             name that one, or give it a route that does not go through the link",
        ))
    }

    /// Makes the packet path avoid hosts whose packets would loop, and logs new loops and resolved ones. Returns the
    /// links for which that changed.
    pub(super) fn note_ways(
        &self,
        inner: &mut CoreState,
        paths: Arc<PathTable>,
    ) -> BTreeSet<IfName> {
        let old = std::mem::replace(&mut inner.paths, paths);
        self.note_path_mtus(inner, &old);
        let mut changed = BTreeSet::new();
        let others = inner.paths.nested.symmetric_difference(&old.nested);
        changed.extend(others.map(|(link, ..)| link.clone()));
        for ((link, host), why) in inner.paths.loops().beside(old.loops()) {
            if old.loop_of(link, *host).is_some() {
                continue;
            }
            changed.insert(link.clone());
            if *why == (RoutingLoop::Own { meant: true }) {
                continue;
            }
            tracing::warn!(%link, %host, %why, "link \"{link}\": nothing is sent to host {host}: {why}");
            let detail = format!("link \"{link}\": {why}");
            self.hub()
                .announce(host_event(Some(*host), "underlay-loop", detail));
        }
        for ((link, host), why) in old.loops().beside(inner.paths.loops()) {
            if inner.paths.loop_of(link, *host).is_some() {
                continue;
            }
            changed.insert(link.clone());
            if *why == (RoutingLoop::Own { meant: true }) {
                continue;
            }
            let named = inner.state.links.get(link);
            if named.is_some_and(|link| hosts_of(&inner.state, link).contains(host)) {
                tracing::info!(%link, %host, "link \"{link}\": the route to host {host} is right again");
                let detail = format!("link \"{link}\": the underlay's route to it is right again");
                self.hub()
                    .announce(host_event(Some(*host), "reachable", detail));
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::parse;

    fn state(text: &str) -> DesiredState {
        let file = ("geneved.toml".into(), text.to_owned());
        parse(&[file]).expect("a valid configuration").state
    }

    fn by(device: &str, prefix_len: u8) -> Result<HostPath, String> {
        Ok(HostPath {
            devices: Vec::new(),
            through: vec![device.into()],
            ports: Vec::new(),
            mtu: 1500,
            own: false,
            prefix_len,
            in_main: true,
        })
    }

    fn paths(list: &[(&str, Result<HostPath, String>)]) -> PathTable {
        let mut paths = PathTable::default();
        for (host, host_path) in list {
            paths.insert((host.parse().unwrap(), None), host_path.clone());
        }
        paths
    }

    fn foreseen(old: &DesiredState, new: &DesiredState, paths: &PathTable) -> PathTable {
        let foreseen = with_addresses(old, new.links.values(), paths);
        foreseen.unwrap_or_else(|| paths.clone())
    }

    const LOOP_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 50, 0, 9));

    const TWO: &str = r#"
        [[link]]
        name = "gnv0"
        id = 100
        remote = "192.0.2.2"
        address = ["10.0.0.1/24"]
        [[link]]
        name = "gnv1"
        id = 101
        remote = "10.0.0.2"
        address = ["10.1.0.1/24"]
    "#;

    fn found(state: &DesiredState, paths: &PathTable) -> Vec<(String, String)> {
        loops(state, paths)
            .into_keys()
            .map(|(link, host)| (link.to_string(), host.to_string()))
            .collect()
    }

    #[test]
    fn a_tunnel_in_a_tunnel_is_no_loop() {
        let state = state(TWO);
        let paths = paths(&[("192.0.2.2", by("eth0", 24)), ("10.0.0.2", by("gnv0", 24))]);
        assert_eq!(found(&state, &paths), []);
        assert_eq!(
            found(&state, &foreseen(&DesiredState::default(), &state, &paths)),
            []
        );
    }

    #[test]
    fn a_host_behind_a_link_is_heard_by_it() {
        let state = state(TWO);
        let paths = paths(&[("192.0.2.2", by("eth0", 24)), ("10.0.0.2", by("gnv0", 24))]);
        let name = |name: &str| name.parse::<IfName>().unwrap();
        let expected = (name("gnv1"), "10.0.0.2".parse().unwrap(), name("gnv0"));
        assert_eq!(nested(&state, &paths), NestedTunnels::from([expected]));
    }

    #[test]
    fn a_bridge_of_underlay_and_link_carries_nothing() {
        let state = state(TWO);
        let mut host_path = by("br0", 24).unwrap();
        host_path.ports = vec![("br0".into(), "eth0".into()), ("br0".into(), "gnv1".into())];
        let paths = paths(&[("192.0.2.2", Ok(host_path)), ("10.0.0.2", by("gnv0", 24))]);
        let found: Vec<_> = loops(&state, &paths).into_values().collect();
        assert_eq!(
            found,
            [RoutingLoop::Shared("br0".into(), "gnv1".parse().unwrap())]
        );
        let why = found[0].to_string();
        assert!(why.ends_with("take one of them out of br0"), "{why}");
    }

    #[test]
    fn links_behind_each_other_do_not_make_each_other_smaller() {
        let state = state(
            r#"
            [[link]]
            name = "x1"
            id = 501
            remote = "192.0.2.2"
            [[link]]
            name = "x2"
            id = 502
            remote = "192.0.2.2"
            [[route]]
            prefix = "10.71.0.0/16"
            dev = "x1"
            via = ["10.62.0.9"]
            [[route]]
            prefix = "10.72.0.0/16"
            dev = "x2"
            via = ["10.61.0.9"]
        "#,
        );
        let link = |name: &str| &state.links[&name.parse::<IfName>().unwrap()];
        let mutual = paths(&[
            ("192.0.2.2", by("eth0", 24)),
            ("10.62.0.9", by("x2", 24)),
            ("10.61.0.9", by("x1", 24)),
        ]);
        assert_eq!(found(&state, &mutual), []);
        for name in ["x1", "x2"] {
            let outside: IpAddr = "192.0.2.2".parse().unwrap();
            assert_eq!(measured(&state, &mutual, link(name)), [outside]);
        }
        // A link behind another one is narrower, as it should be.
        let nested = paths(&[
            ("192.0.2.2", by("eth0", 24)),
            ("10.62.0.9", by("x2", 24)),
            ("10.61.0.9", by("eth0", 24)),
        ]);
        assert_eq!(measured(&state, &nested, link("x1")).len(), 2);
    }

    #[test]
    fn a_route_into_the_link_itself_or_around_is_one() {
        let state = state(TWO);
        let itself = paths(&[("192.0.2.2", by("gnv0", 32)), ("10.0.0.2", by("gnv0", 24))]);
        let gnv0 = ("gnv0".to_owned(), "192.0.2.2".to_owned());
        let gnv1 = ("gnv1".to_owned(), "10.0.0.2".to_owned());
        assert_eq!(found(&state, &itself), vec![gnv0.clone()]);
        let around = paths(&[("192.0.2.2", by("gnv1", 32)), ("10.0.0.2", by("gnv0", 24))]);
        assert_eq!(found(&state, &around), [gnv0, gnv1]);
        let why = loops(&state, &around)
            .into_values()
            .next()
            .unwrap()
            .to_string();
        assert!(
            why.ends_with("leads back into the link, through \"gnv1\""),
            "{why}"
        );
    }

    #[test]
    fn what_an_address_will_draw_to_the_link_is_foreseen() {
        let state = state(
            r#"
            [[link]]
            name = "gnv0"
            id = 100
            remote = "10.50.0.9"
            address = ["10.50.0.1/24"]
        "#,
        );
        for (host_path, expected) in [
            (by("eth0", 0), 1),
            (Err("Network is unreachable".to_owned()), 1),
            // The underlay has a more specific route.
            (by("eth0", 32), 0),
        ] {
            let paths = paths(&[("10.50.0.9", host_path.clone())]);
            // If the address is configured already, the kernel's route counts.
            assert_eq!(
                foreseen(&state, &state, &paths).path(LOOP_HOST, None),
                paths.path(LOOP_HOST, None)
            );
            let found = found(&state, &foreseen(&DesiredState::default(), &state, &paths));
            assert_eq!(found.len(), expected, "{host_path:?}");
        }
    }

    #[test]
    fn an_own_address_is_one_and_another_namespace_is_none() {
        let state = state(
            r#"
            [[link]]
            name = "gnv0"
            id = 100
            netns = "blue"
            remote = "10.50.0.9"
            address = ["10.50.0.1/24"]
        "#,
        );
        let host = paths(&[("10.50.0.9", by("gnv0", 24))]);
        assert_eq!(
            found(&state, &foreseen(&DesiredState::default(), &state, &host)),
            []
        );
        let mut own = by("lo", 32).unwrap();
        own.own = true;
        let here = paths(&[("10.50.0.9", Ok(own.clone()))]);
        let found: Vec<_> = loops(&state, &here).into_values().collect();
        assert_eq!(found, [RoutingLoop::Own { meant: false }]);
    }

    #[test]
    fn an_endpoint_on_this_host_is_nothing_to_be_told() {
        let state = state(
            r#"
            [[link]]
            name = "gnv0"
            id = 100
            [[endpoint]]
            address = "10.0.0.7"
            dev = "gnv0"
            host = ["192.0.2.1"]
        "#,
        );
        let mut own = by("lo", 32).unwrap();
        own.own = true;
        let paths = paths(&[("192.0.2.1", Ok(own))]);
        let found: Vec<_> = loops(&state, &paths).into_values().collect();
        assert_eq!(found, [RoutingLoop::Own { meant: true }]);
    }
}
