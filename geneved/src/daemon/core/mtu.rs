//! MTUs, as the ways through the underlay allow.

use std::collections::BTreeSet;
use std::net::IpAddr;

use libgeneve::mtu::TunnelMtu;
use libgeneve::wire::packet::IpVersion;

use super::Core;
use crate::config::state::{Link, State};
use crate::config::value::MtuWord;
use crate::control::protocol::MtuSum;
use crate::daemon::compile::options_len;
use crate::net::mtu::Ways;

impl Core {
    /// What each host of these links is reached by.
    pub(super) async fn ways(&self, state: &State) -> Ways {
        let mut ways = Ways::default();
        for link in state.links.values() {
            ways.ask(&self.netlink, &hosts_of(state, link), link.local)
                .await;
        }
        ways
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

/// The MTU that a link is to have, and the sum behind the one that is computed.
pub(super) fn mtu_of(state: &State, link: &Link, ways: &Ways) -> (u16, MtuSum) {
    let shape = TunnelMtu {
        underlay: 0,
        outer: IpVersion::V4,
        encapsulation: link.encapsulation,
        inner: link.inner,
        options: options_len(state, link),
    };
    let sum = ways.sum(&hosts_of(state, link), link.local, shape);
    match link.mtu {
        MtuWord::Auto => {
            // An interface cannot have less, however little the underlay leaves.
            (u16::try_from(sum.inner).unwrap_or(u16::MAX).max(68), sum)
        }
        MtuWord::Fixed(mtu) => {
            let text = format!("{mtu} as configured; computed: {}", sum.text);
            (mtu, MtuSum { text, ..sum })
        }
    }
}
