//! MTUs of the links, as the paths through the underlay allow.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use libgeneve::mtu::{TunnelMtu, minimum};
use libgeneve::wire::packet::IpVersion;

use super::interfaces::update_mtu;
use super::{Core, CoreState, LinkRuntime};
use crate::config::state::{DesiredState, LinkSpec};
use crate::config::value::{ModeValue, MtuValue};
use crate::control::yielding::{self, Yielder};
use crate::daemon::compile::{Outdated, options_len};
use crate::daemon::peer_devices::Look;
use crate::daemon::routing_loops::{entangled, loops, measured, nested, note_own_loops};
use crate::net::mtu::{ComputedMtu, MtuBasis, PathKey, PathTable};
use crate::net::underlay_monitor::UnderlayChanges;

impl Core {
    /// Looks up the paths to all hosts of these links; known paths are not looked up again. Only `changed` links are
    /// evaluated anew, unless links lead through each other.
    pub(in crate::daemon) async fn paths(
        &self,
        inner: &CoreState,
        state: &Arc<DesiredState>,
        changed: &Outdated,
    ) -> Arc<PathTable> {
        let Outdated::Links(names) = changed else {
            return self
                .paths_after(inner, &UnderlayChanges::default(), state)
                .await;
        };
        if inner.paths.entangled {
            return self
                .paths_after(inner, &UnderlayChanges::default(), state)
                .await;
        }
        let mut paths = PathTable::clone(&inner.paths);
        let mut steps = Yielder::default();
        for name in names {
            let link = state.links.get(name);
            paths.set_hosts(name, link.map(|link| pairs_of(state, link)));
            steps.yield_if_due().await;
        }
        for name in names {
            let pairs = paths.hosts(name).to_vec();
            for pair in pairs.into_iter().filter(|pair| !inner.paths.knows(pair)) {
                paths.query(&self.netlink, pair).await;
                steps.yield_if_due().await;
            }
        }
        paths.entangled = entangled(state, &paths);
        if paths.entangled {
            return self.conclude(paths, state).await;
        }
        for link in names.iter().filter_map(|name| state.links.get(name)) {
            note_own_loops(state, &mut paths, link);
            let basis = basis(state, &paths, link);
            paths.bases.insert(link.name.clone(), basis);
            steps.yield_if_due().await;
        }
        Arc::new(paths)
    }

    /// Looks up the paths again that these changes of the underlay may affect.
    async fn paths_after(
        &self,
        inner: &CoreState,
        changes: &UnderlayChanges,
        state: &Arc<DesiredState>,
    ) -> Arc<PathTable> {
        let long = state.is_long();
        let (known, all, changes) = (Arc::clone(&inner.paths), Arc::clone(state), changes.clone());
        let look = move || {
            let mut paths = PathTable::clone(&known);
            paths.forget(&changes);
            paths.forget_hosts();
            let mut unknown = BTreeSet::new();
            for link in all.links.values() {
                let pairs = pairs_of(&all, link);
                unknown.extend(pairs.iter().filter(|pair| !paths.knows(pair)).copied());
                paths.set_hosts(&link.name, Some(pairs));
            }
            paths.keep_used();
            (paths, unknown)
        };
        let (mut paths, unknown) = yielding::spawn_blocking_if(long, look).await;
        let mut steps = Yielder::default();
        for pair in unknown {
            paths.query(&self.netlink, pair).await;
            steps.yield_if_due().await;
        }
        self.conclude(paths, state).await
    }

    /// Evaluates the paths of all links.
    async fn conclude(&self, mut paths: PathTable, state: &Arc<DesiredState>) -> Arc<PathTable> {
        let long = state.is_long();
        let state = Arc::clone(state);
        let conclude = move || {
            paths.entangled = entangled(&state, &paths);
            let loops = loops(&state, &paths);
            paths.set_loops(loops);
            paths.nested = nested(&state, &paths);
            let links = state.links.values();
            let bases = links.map(|link| (link.name.clone(), basis(&state, &paths, link)));
            paths.bases = bases.collect();
            Arc::new(paths)
        };
        yielding::spawn_blocking_if(long, conclude).await
    }

    /// Looks up the paths again that may have changed with interfaces, routes or addresses of the underlay, and sets
    /// the MTUs accordingly.
    pub(in crate::daemon) async fn underlay_changed(&self, changes: &UnderlayChanges) {
        let mut inner = self.inner().await;
        self.refresh_local_addresses(&mut inner).await;
        // The address of a new link is a route, too, but does not lead to a host.
        if !inner.paths.are_concerned(changes) {
            return;
        }
        let paths = self.paths_after(&inner, changes, &inner.state).await;
        self.refresh_peer_devices(&mut inner, Some(&paths), Look::AtAll)
            .await;
        let mut changed = self.note_ways(&mut inner, paths);
        let CoreState {
            state,
            running,
            paths,
            ..
        } = &mut *inner;
        let mut steps = Yielder::default();
        for (name, running) in running.iter_mut() {
            steps.yield_if_due().await;
            let Some(link) = state.links.get(name) else {
                continue;
            };
            let (mtu, sum) = mtu_of(state, link, paths, Some(running));
            running.sum = sum;
            if mtu == running.mtu || !running.has_interface() {
                continue;
            }
            match update_mtu(running.own(link), link, mtu).await {
                Ok(()) => {
                    tracing::info!(link = %name, from = running.mtu, to = mtu, sum = running.sum.text, "link \"{name}\": MTU {} becomes {mtu}: {}", running.mtu, running.sum.text);
                    running.mtu = mtu;
                    changed.insert(name.clone());
                }
                Err(refusal) => {
                    tracing::warn!(%refusal, "the MTU cannot follow the underlay: {refusal}");
                }
            }
        }
        if !changed.is_empty() {
            self.publish(&mut inner, Outdated::Links(changed.clone()))
                .await;
            let changed: Vec<_> = changed.into_iter().collect();
            self.tell_links(&inner, &changed).await;
        }
    }
}

fn pairs_of(state: &DesiredState, link: &LinkSpec) -> Arc<[PathKey]> {
    let hosts = hosts_of(state, link).into_iter();
    hosts.map(|host| (host, link.local)).collect()
}

/// All hosts that the link's remote, routes, endpoints and FDB entries name.
pub(in crate::daemon) fn hosts_of(state: &DesiredState, link: &LinkSpec) -> Vec<IpAddr> {
    let routes = state.routes_of(&link.name).map(|(_, r)| &r.hosts);
    let endpoints = state.endpoints_of(&link.name).map(|(_, e)| &e.hosts);
    let fdb = state.fdb_of(&link.name).map(|(_, entry)| &entry.hosts);
    let named = routes.chain(endpoints).chain(fdb).flatten().copied();
    let all: BTreeSet<IpAddr> = link.remote.into_iter().chain(named).collect();
    all.into_iter().collect()
}

/// Whether the link may carry IPv6: the kernel disables it below an MTU of 1280. What frames a TAP
/// carries is unknown.
fn carries_ipv6(state: &DesiredState, link: &LinkSpec) -> bool {
    let own = link.addresses.iter().any(|addr| addr.addr().is_ipv6());
    let routed = || {
        state
            .routes_of(&link.name)
            .any(|(prefix, _)| prefix.addr().is_ipv6())
    };
    let endpoint = || {
        state
            .endpoints_of(&link.name)
            .any(|(addr, _)| addr.is_ipv6())
    };
    link.mode == ModeValue::Ethernet || own || routed() || endpoint()
}

/// The configuration that a link's MTU is computed from.
fn basis(state: &DesiredState, paths: &PathTable, link: &LinkSpec) -> MtuBasis {
    MtuBasis {
        hosts: measured(state, paths, link),
        options: options_len(state, link),
        ipv6: carries_ipv6(state, link),
    }
}

/// The MTU that a link should have, and how a computed one came about. While no path to any of its hosts is known, a
/// `running` link keeps the value that it last got from the underlay.
pub(super) fn mtu_of(
    state: &DesiredState,
    link: &LinkSpec,
    paths: &PathTable,
    running: Option<&LinkRuntime>,
) -> (u16, ComputedMtu) {
    let basis = match paths.bases.get(&link.name) {
        Some(basis) => Cow::Borrowed(basis),
        None => Cow::Owned(basis(state, paths, link)),
    };
    let shape = TunnelMtu {
        underlay: 0,
        outer: IpVersion::V4,
        encapsulation: link.encapsulation,
        inner: link.inner,
        options: basis.options,
    };
    let before = running.map(|running| running.sum.underlay);
    let sum = paths.sum(
        (&link.name, &basis.hosts),
        link.local,
        shape,
        before.filter(|&mtu| mtu > 0),
    );
    match link.mtu {
        MtuValue::Auto => {
            // No interface can have less, however little the underlay leaves.
            let (least, family) = match basis.ipv6 {
                true => (minimum(IpVersion::V6), "IPv6"),
                false => (minimum(IpVersion::V4), "IPv4"),
            };
            let mtu = u16::try_from(sum.inner).unwrap_or(u16::MAX);
            if mtu >= least {
                return (mtu, sum);
            }
            let text = format!(
                "{least}, which {family} needs, in fragments; computed: {}",
                sum.text
            );
            (least, ComputedMtu { text, ..sum })
        }
        MtuValue::Fixed(mtu) => {
            let text = format!("{mtu} as configured; computed: {}", sum.text);
            (mtu, ComputedMtu { text, ..sum })
        }
    }
}
