//! Run-time status, as shown by the control socket.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use libgeneve::wire::encapsulation;

use super::compile::lladdr;
use super::core::{Core, CoreState, Obstacle, RENAMED_HINT, hosts_of};
use super::path_mtu::path_mtu_info;
use crate::config::args::RouteArgs;
use crate::config::value::{IfName, MacValue, ModeValue, PrefixValue};
use crate::control::protocol::{
    EndpointInfo, EndpointsReply, FeatureInfo, HostInfo, HostReply, LinkInfo, LinksReply, MtuSum,
    RemoteInfo, RouteInfo, RoutesReply, UnknownVniInfo,
};
use crate::control::yielding::Yielder;
use crate::io::UnknownVni;
use crate::net::interface::{self, InterfaceStatus};
use crate::net::mtu::ComputedMtu;
use crate::net::netns;
use crate::observe::counters::traffic;
use crate::refusal::Refusal;

impl Core {
    pub(super) async fn links(&self, name: Option<IfName>) -> Result<LinksReply, Refusal> {
        let inner = self.inner().await;
        let names: Vec<IfName> = match name {
            Some(name) => vec![inner.state.link(&name)?.name.clone()],
            None => inner.state.links.keys().cloned().collect(),
        };
        Ok(LinksReply {
            links: self.link_infos(&inner, &names).await,
        })
    }

    /// Returns these links as they run; links that do not run are left out.
    pub(super) async fn link_infos(&self, inner: &CoreState, names: &[IfName]) -> Vec<LinkInfo> {
        let mut seen = interface_statuses(inner, names).await;
        let mut infos = Vec::with_capacity(names.len());
        let mut steps = Yielder::default();
        for name in names {
            let sight = seen.remove(name);
            infos.extend(sight.and_then(|sight| self.link_info(inner, name, sight)));
            steps.yield_if_due().await;
        }
        infos
    }

    fn link_info(&self, inner: &CoreState, name: &IfName, sight: LinkStatus) -> Option<LinkInfo> {
        let (link, running) = (inner.state.links.get(name)?, inner.running.get(name)?);
        let LinkStatus { seen, state, cause } = sight;
        Some(LinkInfo {
            settings: link.words(),
            state: state.to_owned(),
            cause: cause.or_else(|| inner.paths.loop_warning(name)),
            ifindex: seen.ifindex,
            lladdr: (link.inner == encapsulation::InnerProtocol::Ethernet)
                .then(|| MacValue(lladdr(link))),
            flags: seen.flags,
            operstate: match (seen.operstate.is_empty(), state) {
                (false, _) => seen.operstate,
                (true, "lost") => "LOST".into(),
                (true, "waiting") => "DOWN".into(),
                (true, _) => "UNKNOWN".into(),
            },
            addresses: seen.addresses.into_iter().map(PrefixValue).collect(),
            undelivered: self.undelivered(inner, link),
            mtu: if seen.mtu > 0 {
                seen.mtu
            } else {
                running.mtu.into()
            },
            txqlen: seen.txqlen,
            mtu_sum: mtu_sum(&running.sum),
            io: self.engine().backend().backend.name().into(),
            traffic: traffic(&self.engine().link_counters(running.index)),
        })
    }

    pub(super) async fn routes(&self, dev: Option<IfName>) -> Result<RoutesReply, Refusal> {
        let inner = self.inner().await;
        check(&inner, dev.as_ref())?;
        let mut routes = Vec::new();
        let mut steps = Yielder::default();
        for link in inner
            .state
            .links
            .values()
            .filter(|l| wants(dev.as_ref(), &l.name))
        {
            for all in ["0.0.0.0/0", "::/0"] {
                let prefix: PrefixValue = all.parse().expect("a valid prefix");
                let named = inner
                    .state
                    .routes
                    .contains_key(&(link.name.clone(), prefix.0));
                let routed = link.mode == ModeValue::Ip && !named;
                if let (Some(remote), true) = (link.remote, routed) {
                    let route = RouteArgs {
                        prefix,
                        dev: link.name.clone(),
                        via: vec![remote],
                        kind: None,
                    };
                    let origin = "remote".into();
                    routes.push(RouteInfo { route, origin });
                }
            }
            for (prefix, own) in inner.state.routes_of(&link.name) {
                routes.push(RouteInfo {
                    route: own.words(&link.name, prefix),
                    origin: "static".into(),
                });
                steps.yield_if_due().await;
            }
            steps.yield_if_due().await;
        }
        Ok(RoutesReply { routes })
    }

    pub(super) async fn endpoints(&self, dev: Option<IfName>) -> Result<EndpointsReply, Refusal> {
        let inner = self.inner().await;
        check(&inner, dev.as_ref())?;
        let wanted = inner
            .state
            .endpoints
            .iter()
            .filter(|((d, _), _)| wants(dev.as_ref(), d));
        let shares = self.proxy_ports(&inner);
        let mut endpoints = Vec::new();
        let mut steps = Yielder::default();
        for ((dev, address), endpoint) in wanted {
            let target = endpoint.target.as_ref();
            let share = target.and_then(|(on, _)| {
                let mut shares = shares.iter();
                shares.find(|(link, consumer, _)| link == on && consumer == dev)
            });
            let usage = share.map(|(_, _, usage)| *usage).unwrap_or_default();
            endpoints.push(EndpointInfo {
                endpoint: endpoint.words(dev, *address),
                in_use: usage.in_use,
                total: usage.total,
            });
            steps.yield_if_due().await;
        }
        Ok(EndpointsReply { endpoints })
    }

    pub(super) async fn host(&self) -> HostReply {
        let inner = self.inner().await;
        let report = self.engine().backend();
        let now = self.engine().now();
        let mut remotes = Vec::new();
        let mut steps = Yielder::default();
        for (address, links) in inner.known_hosts().await {
            steps.yield_if_due().await;
            let host = inner.builder.registry.find(address);
            let of = links.iter().filter_map(|name| inner.state.links.get(name));
            let fault = inner.fault(address, of, now);
            let (why, age) = fault.map_or((None, None), |(why, age)| (Some(why), age));
            remotes.push(RemoteInfo {
                address,
                path_mtu: host.and_then(|h| h.path_mtu()),
                path_mtu_report: host.and_then(|h| path_mtu_info(h, now)),
                gso: host.is_none_or(|h| h.gso()),
                whole: inner
                    .far
                    .needs_whole(address)
                    .map(|(which, _)| which.to_owned()),
                whole_cause: inner
                    .far
                    .needs_whole(address)
                    .map(|(_, why)| why.to_owned()),
                unreachable: why,
                unreachable_age: age,
                links,
            });
        }
        let features = report.features.iter().map(|f| FeatureInfo {
            name: f.kind.name().into(),
            available: f.available,
            detail: f.detail.clone(),
        });
        let ports = inner.open_port_numbers().collect();
        let unknown = self.engine().unknown_vnis();
        let seen = |one: UnknownVni| UnknownVniInfo {
            vni: one.vni,
            port: one.port,
            host: one.host,
            count: one.count,
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        HostReply {
            host: HostInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                pid: std::process::id(),
                netns_inode: netns::own_inode(),
                io: report.backend.name().into(),
                io_cause: report.cause.clone(),
                workers: count(self.engine().workers()),
                features: features.collect(),
                ports,
                links: count(inner.state.links.len()),
                traffic: traffic(&self.engine().host_counters()),
                unknown_vnis: unknown.into_iter().map(seen).collect(),
                icmp_errors: self
                    .engine()
                    .error_verdicts()
                    .into_iter()
                    .map(|(verdict, count)| (verdict.name().to_owned(), count))
                    .collect(),
                remotes,
            },
        }
    }
}

impl CoreState {
    /// Every host that any link knows, with the links that know it.
    pub(super) async fn known_hosts(&self) -> BTreeMap<IpAddr, Vec<IfName>> {
        let mut links: BTreeMap<IpAddr, Vec<IfName>> = BTreeMap::new();
        let mut steps = Yielder::default();
        for link in self.state.links.values() {
            steps.yield_if_due().await;
            for host in hosts_of(&self.state, link) {
                links.entry(host).or_default().push(link.name.clone());
            }
        }
        links
    }
}

pub(super) fn wants(dev: Option<&IfName>, name: &IfName) -> bool {
    dev.is_none_or(|dev| dev == name)
}

pub(super) fn check(inner: &CoreState, dev: Option<&IfName>) -> Result<(), Refusal> {
    dev.map_or(Ok(()), |dev| inner.state.link(dev).map(drop))
}

/// A link's interface as observed.
#[derive(Clone, Debug)]
struct LinkStatus {
    seen: InterfaceStatus,
    state: &'static str,
    cause: Option<String>,
}

/// Observes interfaces namespace by namespace; the reason for those that are not found.
async fn interface_statuses(inner: &CoreState, names: &[IfName]) -> BTreeMap<IfName, LinkStatus> {
    let mut by_netns: BTreeMap<Option<String>, Vec<&IfName>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    for name in names {
        let (Some(link), Some(running)) = (inner.state.links.get(name), inner.running.get(name))
        else {
            continue;
        };
        let obstacle = running.obstacle.as_ref();
        let sight = LinkStatus {
            seen: InterfaceStatus::default(),
            state: obstacle.map_or("running", Obstacle::state),
            cause: obstacle
                .map(|o| o.cause().to_owned())
                .or_else(|| running.defect.clone()),
        };
        all.insert(name.clone(), sight);
        if running.has_interface() {
            by_netns.entry(link.netns.clone()).or_default().push(name);
        }
    }
    for (netns, names) in by_netns {
        let texts = names.iter().map(ToString::to_string).collect();
        let observed = interface::observe(netns, texts).await;
        let observed = observed.map(|seen| {
            let named = seen.into_iter().map(|seen| (seen.name.clone(), seen));
            named.collect::<HashMap<_, _>>()
        });
        for name in names {
            let Some(sight) = all.get_mut(name) else {
                continue;
            };
            match &observed {
                Ok(seen) => match (seen.get(name.as_str()), inner.running.get(name)) {
                    (Some(seen), Some(running)) if running.owns(seen) => {
                        sight.seen = seen.clone();
                    }
                    // The queues are open, so the interface exists; another one may have its name.
                    _ => {
                        sight.state = "lost";
                        sight.cause = Some(RENAMED_HINT.to_owned());
                    }
                },
                // The link keeps working if its namespace lives on without its name.
                Err(error) => sight.cause = Some(format!("its interface cannot be seen: {error}")),
            }
        }
    }
    all
}

fn mtu_sum(computed: &ComputedMtu) -> MtuSum {
    MtuSum {
        text: computed.text.clone(),
        underlay: computed.underlay,
        host: computed.host,
        dev: computed.dev.clone(),
        inner: computed.inner,
    }
}
