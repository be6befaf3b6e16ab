//! Forwarding tables of Ethernet links, as the control socket shows them.

use libgeneve::bridge::{Bridge, Place};
use libgeneve::wire::ethernet::Mac;

use super::compile::lladdr;
use super::core::{Core, Inner};
use crate::config::state::{Link, Refusal};
use crate::config::value::{FdbMac, IfName, Mode};
use crate::control::protocol::{Fdb, FdbInfo, FdbOrigin, Flushed};

impl Core {
    /// Every MAC address of these links, one for each host that it is on.
    pub(super) async fn list_fdb(&self, dev: Option<IfName>) -> Result<Fdb, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, dev.as_ref())?;
        let mut fdb = Vec::new();
        for link in bridges(&inner, dev.as_ref()) {
            configured(&inner, link, &mut fdb);
            self.with_bridge(&inner, &link.name, |bridge| {
                learned(self, link, bridge, &mut fdb);
            });
        }
        Ok(Fdb { fdb })
    }

    /// Forgets what was learned.
    pub(super) async fn flush_fdb(&self, dev: Option<IfName>) -> Result<Flushed, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, dev.as_ref())?;
        let mut count = 0;
        for link in bridges(&inner, dev.as_ref()) {
            self.with_bridge(&inner, &link.name, |bridge| {
                count += bridge.live.fdb.retain(|_, _| false) as u64;
                bridge.live.neighbors.clear();
            });
        }
        Ok(Flushed { count })
    }

    /// Forgets MAC addresses and neighbours that were not seen for long.
    pub(super) fn tend_bridges(&self) {
        let now = self.engine().now();
        for link in self.engine().tables().iter() {
            if let Some(bridge) = &link.bridge {
                bridge.live.fdb.expire(bridge.limits(), now);
                bridge.live.neighbors.expire(bridge.limits(), now);
            }
        }
    }

    fn with_bridge(&self, inner: &Inner, name: &IfName, f: impl FnOnce(&Bridge)) {
        let tables = self.engine().tables();
        let link = inner
            .running
            .get(name)
            .and_then(|running| tables.link(running.index));
        if let Some(bridge) = link.and_then(|link| link.bridge.as_ref()) {
            f(bridge);
        }
    }
}

fn bridges<'a>(inner: &'a Inner, dev: Option<&'a IfName>) -> impl Iterator<Item = &'a Link> {
    let links = inner.state.links.values();
    links.filter(move |link| link.mode == Mode::Ethernet && super::show::wants(dev, &link.name))
}

fn entry(link: &Link, mac: Mac, origin: FdbOrigin) -> FdbInfo {
    FdbInfo {
        mac: FdbMac(mac),
        dev: link.name.clone(),
        dst: None,
        origin,
        used_s: None,
        updated_s: None,
    }
}

fn configured(inner: &Inner, link: &Link, fdb: &mut Vec<FdbInfo>) {
    fdb.push(entry(link, lladdr(link), FdbOrigin::Own));
    for (_, endpoint) in inner.state.endpoints_of(&link.name) {
        let Some(mac) = endpoint.lladdr else { continue };
        fdb.push(FdbInfo {
            dst: endpoint.hosts.first().copied(),
            ..entry(link, mac, FdbOrigin::Endpoint)
        });
    }
    if let Some(remote) = link.remote {
        fdb.push(FdbInfo {
            dst: Some(remote),
            ..entry(link, Mac::default(), FdbOrigin::Remote)
        });
    }
    for (mac, listed) in inner.state.fdb_of(&link.name) {
        fdb.extend(listed.hosts.iter().map(|&host| FdbInfo {
            dst: Some(host),
            ..entry(link, mac, FdbOrigin::Static)
        }));
    }
}

fn learned(core: &Core, link: &Link, bridge: &Bridge, fdb: &mut Vec<FdbInfo>) {
    let entries = bridge
        .live
        .fdb
        .entries_at(bridge.limits(), core.engine().now());
    fdb.extend(entries.into_iter().map(|seen| FdbInfo {
        dst: match seen.place {
            Place::Here => None,
            Place::Host(host) => Some(host.addr),
        },
        used_s: Some(seen.used.as_secs()),
        updated_s: Some(seen.updated.as_secs()),
        ..entry(link, seen.mac, FdbOrigin::Learned)
    }));
}
