//! Forwarding tables of Ethernet links, as shown by the control socket.

use std::net::IpAddr;

use libgeneve::l2::{Bridge, StationLocation};
use libgeneve::wire::ethernet::Mac;

use super::compile::lladdr;
use super::core::{Core, CoreState};
use crate::config::difference::ChangeKind;
use crate::config::state::{self, LinkSpec};
use crate::config::value::{FdbMac, IfName, ModeValue};
use crate::control::protocol::{FdbInfo, FdbOrigin, FdbReply, FlushReply};
use crate::refusal::Refusal;

impl Core {
    /// Lists the MAC addresses of these links, one entry per host.
    pub(super) async fn list_fdb(&self, dev: Option<IfName>) -> Result<FdbReply, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, dev.as_ref())?;
        let mut fdb = Vec::new();
        for link in bridges(&inner, dev.as_ref()) {
            configured(&inner, link, &mut fdb);
            self.with_bridge(&inner, &link.name, |bridge| {
                learned(self, link, bridge, &mut fdb);
            });
        }
        Ok(FdbReply { fdb })
    }

    /// Flushes learned entries.
    pub(super) async fn flush_fdb(&self, dev: Option<IfName>) -> Result<FlushReply, Refusal> {
        let inner = self.inner().await;
        super::show::check(&inner, dev.as_ref())?;
        let mut count = 0;
        for link in bridges(&inner, dev.as_ref()) {
            self.with_bridge(&inner, &link.name, |bridge| {
                count += bridge.live.fdb.retain(|_, _| false) as u64;
                bridge.live.neighbors.clear();
            });
        }
        Ok(FlushReply { count })
    }

    /// Expires MAC addresses and neighbours.
    pub(super) fn expire_learned(&self) {
        let now = self.engine().now();
        for link in self.engine().tables().iter() {
            if let Some(bridge) = &link.bridge {
                bridge.live.fdb.expire(bridge.limits(), now);
                bridge.live.neighbors.expire(bridge.limits(), now);
            }
        }
    }

    fn with_bridge(&self, inner: &CoreState, name: &IfName, f: impl FnOnce(&Bridge)) {
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

fn bridges<'a>(
    inner: &'a CoreState,
    dev: Option<&'a IfName>,
) -> impl Iterator<Item = &'a LinkSpec> {
    let links = inner.state.links.values();
    links
        .filter(move |link| link.mode == ModeValue::Ethernet && super::show::wants(dev, &link.name))
}

/// Change events for each host of a configured entry; `was` is the entry before the change.
pub(super) fn changes(
    change: ChangeKind,
    (dev, mac): (&IfName, Mac),
    entry: &state::FdbSpec,
    was: Option<&state::FdbSpec>,
) -> Vec<(ChangeKind, FdbInfo)> {
    let told = |change, host: &IpAddr| (change, configured_entry(dev, mac, *host));
    match was {
        // A list counts as one entry per host; a change of it adds or removes some of them.
        Some(was) if change == ChangeKind::Changed && FdbMac(mac).is_list() => {
            let new = entry.hosts.iter().filter(|host| !was.hosts.contains(host));
            let gone = was.hosts.iter().filter(|host| !entry.hosts.contains(host));
            let new = new.map(|host| told(ChangeKind::Added, host));
            new.chain(gone.map(|host| told(ChangeKind::Deleted, host)))
                .collect()
        }
        _ => entry.hosts.iter().map(|host| told(change, host)).collect(),
    }
}

fn configured_entry(dev: &IfName, mac: Mac, host: IpAddr) -> FdbInfo {
    FdbInfo {
        dst: Some(host),
        ..entry(dev, mac, FdbOrigin::Static)
    }
}

fn entry(dev: &IfName, mac: Mac, origin: FdbOrigin) -> FdbInfo {
    FdbInfo {
        mac: FdbMac(mac),
        dev: dev.clone(),
        dst: None,
        origin,
        used_s: None,
        updated_s: None,
    }
}

fn configured(inner: &CoreState, link: &LinkSpec, fdb: &mut Vec<FdbInfo>) {
    fdb.push(entry(&link.name, lladdr(link), FdbOrigin::Own));
    for (_, endpoint) in inner.state.endpoints_of(&link.name) {
        let Some(mac) = endpoint.lladdr else { continue };
        fdb.push(FdbInfo {
            dst: endpoint.hosts.first().copied(),
            ..entry(&link.name, mac, FdbOrigin::Endpoint)
        });
    }
    if let Some(remote) = link.remote {
        fdb.push(FdbInfo {
            dst: Some(remote),
            ..entry(&link.name, Mac::default(), FdbOrigin::Remote)
        });
    }
    for (mac, listed) in inner.state.fdb_of(&link.name) {
        let hosts = listed.hosts.iter();
        fdb.extend(hosts.map(|&host| configured_entry(&link.name, mac, host)));
    }
}

fn learned(core: &Core, link: &LinkSpec, bridge: &Bridge, fdb: &mut Vec<FdbInfo>) {
    let entries = bridge
        .live
        .fdb
        .entries_at(bridge.limits(), core.engine().now());
    fdb.extend(entries.into_iter().map(|seen| FdbInfo {
        dst: match seen.place {
            StationLocation::Here => None,
            StationLocation::Host(host) => Some(host.addr),
        },
        used_s: Some(seen.used.as_secs()),
        updated_s: Some(seen.updated.as_secs()),
        ..entry(&link.name, seen.mac, FdbOrigin::Learned)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::{EventKind, Topic};
    use crate::observe::event_hub::EventHub;

    fn hosts(last: &[u8]) -> state::FdbSpec {
        let hosts = last.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect();
        state::FdbSpec { hosts }
    }

    #[tokio::test]
    async fn an_entry_that_changes_gives_an_event() {
        let hub = EventHub::default();
        let mut watch = hub.subscribe(&[Topic::Fdb]);
        assert!(hub.wants_changes());
        let (dev, station) = ("a".parse::<IfName>().unwrap(), Mac([2, 0, 0, 0, 0, 1]));
        let (old, new) = (hosts(&[1]), hosts(&[2]));
        for (change, info) in changes(ChangeKind::Changed, (&dev, station), &new, Some(&old)) {
            hub.changed(change, EventKind::Fdb(info));
        }
        let event = watch.next().await;
        assert_eq!(event.change, Some(ChangeKind::Changed));
        let EventKind::Fdb(info) = &event.what else {
            panic!("{event:?}")
        };
        assert_eq!(
            (info.dst, info.origin),
            (Some([192, 0, 2, 2].into()), FdbOrigin::Static)
        );
    }

    #[test]
    fn a_list_changes_by_its_hosts() {
        let dev: IfName = "a".parse().unwrap();
        let told = |change, new: &state::FdbSpec, old: Option<&state::FdbSpec>| -> Vec<_> {
            let all = changes(change, (&dev, Mac::default()), new, old);
            all.into_iter()
                .map(|(change, info)| (change, info.dst.unwrap().to_string()))
                .collect()
        };
        let (old, new) = (hosts(&[1, 2]), hosts(&[2, 3]));
        let expected = [
            (ChangeKind::Added, "192.0.2.3".to_owned()),
            (ChangeKind::Deleted, "192.0.2.1".to_owned()),
        ];
        assert_eq!(told(ChangeKind::Changed, &new, Some(&old)), expected);
        assert_eq!(told(ChangeKind::Added, &new, None).len(), 2);
        assert_eq!(told(ChangeKind::Deleted, &old, Some(&old)).len(), 2);
    }
}
