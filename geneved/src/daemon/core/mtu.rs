//! MTUs, as the ways through the underlay allow.

use std::collections::BTreeSet;
use std::net::IpAddr;

use libgeneve::mtu::{TunnelMtu, minimum};
use libgeneve::wire::packet::IpVersion;

use super::interfaces::update_mtu;
use super::{Core, Inner, Running};
use crate::config::state::{Link, State};
use crate::config::value::{Mode, MtuWord};
use crate::control::protocol::MtuSum;
use crate::daemon::compile::options_len;
use crate::daemon::loops::{loops, measured};
use crate::net::changes::Changes;
use crate::net::mtu::Ways;

impl Core {
    /// What each host of these links is reached by; who was asked for before is not asked for again.
    pub(in crate::daemon) async fn ways(&self, inner: &Inner, state: &State) -> Ways {
        self.complete(inner.ways.clone(), state).await
    }

    async fn complete(&self, mut ways: Ways, state: &State) -> Ways {
        let mut wanted = BTreeSet::new();
        for link in state.links.values() {
            let hosts = hosts_of(state, link);
            ways.ask(&self.netlink, &hosts, link.local).await;
            wanted.extend(hosts.into_iter().map(|host| (host, link.local)));
        }
        ways.keep(|pair| wanted.contains(pair));
        let loops = loops(state, &ways);
        ways.set_loops(loops);
        ways
    }

    /// Looks at the ways anew that may be others after interfaces, routes or addresses of the underlay changed, and sets
    /// MTUs by them.
    pub(in crate::daemon) async fn underlay_changed(&self, changes: &Changes) {
        let mut inner = self.inner().await;
        self.look_at_locals(&mut inner).await;
        let mut ways = inner.ways.clone();
        ways.forget(changes);
        let ways = self.complete(ways, &inner.state).await;
        self.look_far(&mut inner, Some(&ways)).await;
        let mut changed = self.note_ways(&mut inner, ways);
        let Inner {
            state,
            running,
            ways,
            ..
        } = &mut *inner;
        for (name, running) in running.iter_mut() {
            let Some(link) = state.links.get(name) else {
                continue;
            };
            let (mtu, sum) = mtu_of(state, link, ways, Some(running));
            running.sum = sum;
            if mtu == running.mtu || !running.has_interface() {
                continue;
            }
            match update_mtu(link, mtu).await {
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
            self.publish(&mut inner).await;
            let changed: Vec<_> = changed.into_iter().collect();
            self.tell_links(&inner, &changed).await;
        }
    }
}

/// Every host that the link's remote, routes and endpoints name.
pub(in crate::daemon) fn hosts_of(state: &State, link: &Link) -> Vec<IpAddr> {
    let routes = state.routes_of(&link.name).map(|(_, r)| &r.hosts);
    let endpoints = state.endpoints_of(&link.name).map(|(_, e)| &e.hosts);
    let fdb = state.fdb_of(&link.name).map(|(_, entry)| &entry.hosts);
    let named = routes.chain(endpoints).chain(fdb).flatten().copied();
    let all: BTreeSet<IpAddr> = link.remote.into_iter().chain(named).collect();
    all.into_iter().collect()
}

/// Whether IPv6 is to live on the link: the kernel takes it away from an interface with a smaller MTU. Whose frames a TAP
/// carries is not known.
fn carries_ipv6(state: &State, link: &Link) -> bool {
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
    link.mode == Mode::Ethernet || own || routed() || endpoint()
}

/// The MTU that a link is to have, and the sum behind the one that is computed. What a link that is `running` had of the
/// underlay holds on while no way to any of its hosts is known.
pub(super) fn mtu_of(
    state: &State,
    link: &Link,
    ways: &Ways,
    running: Option<&Running>,
) -> (u16, MtuSum) {
    let shape = TunnelMtu {
        underlay: 0,
        outer: IpVersion::V4,
        encapsulation: link.encapsulation,
        inner: link.inner,
        options: options_len(state, link),
    };
    let before = running.map(|running| running.sum.underlay);
    let hosts = measured(state, ways, link);
    let sum = ways.sum(
        (&link.name, &hosts),
        link.local,
        shape,
        before.filter(|&mtu| mtu > 0),
    );
    match link.mtu {
        MtuWord::Auto => {
            // An interface cannot have less, however little the underlay leaves.
            let (least, family) = match carries_ipv6(state, link) {
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
            (least, MtuSum { text, ..sum })
        }
        MtuWord::Fixed(mtu) => {
            let text = format!("{mtu} as configured; computed: {}", sum.text);
            (mtu, MtuSum { text, ..sum })
        }
    }
}
