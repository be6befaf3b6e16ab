//! Compiles the configured state into what the packet path reads.
//!
//! Keeps what must survive a change: NAT pools with their ports, token buckets with their levels, hit counters, and
//! the compiled forms of rules that do not change.

mod l2;
mod lladdr;
mod proxies;
mod routes;
mod rules;
mod tables;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;
use libgeneve::label::{LabelKey, LabelMap, LabelSet};
use libgeneve::nat;
use libgeneve::options::{EndpointType, OptionDef, OptionSchema};
use libgeneve::policy::{self, Policy};
use libgeneve::qos::{Bucket, BucketKey, BucketRegistry, ClassCounters, QosClass};
use libgeneve::service::{self, ServiceTable};
use libgeneve::vpc::{
    EndpointConfig, LinkConfig, LinkFunctions, LinkIndex, NeighborCache, ProxyTarget,
    UndeliveredPackets,
};

pub(super) use self::lladdr::lladdr;
use self::proxies::Proxies;
pub(super) use self::routes::options_len;
use self::routes::routes;
use self::rules::{attachments, compiled_rule, default_action, deny_all, translation};
pub(super) use self::tables::{Outdated, RunningLink, TableBuilder, TableInput};
use crate::config::plan::Plan;
use crate::config::state::{DesiredState, LinkSpec, ServiceSpec};
use crate::config::value::{AffinityValue, IfName, RateValue, SizeValue};
use crate::random::HashKeys;
use crate::refusal::Refusal;

/// Ports of this host's own overlay address that stand for endpoints of other VPCs. They lie outside the range that
/// Linux gives to its own sockets by default (ip(7), `ip_local_port_range`).
const STAND_IN_PORTS: std::ops::RangeInclusive<u16> = 16_384..=32_767;
/// Marks the pools of stand-ins, so that their ports are counted apart from those of the link's rules.
const STAND_IN: u32 = 1 << 31;

/// Broadcast addresses of the networks that have one (RFC 919; RFC 3021 exempts the smallest).
fn broadcasts<'a>(addresses: impl Iterator<Item = &'a IpNet>) -> Vec<Ipv4Addr> {
    let of = |address: &IpNet| match address {
        IpNet::V4(net) if net.prefix_len() < 31 => Some(net.broadcast()),
        _ => None,
    };
    addresses.filter_map(of).collect()
}

/// The links with endpoints that are proxies for one of `link`, each once.
pub(super) fn proxies_into<'a>(
    state: &'a DesiredState,
    link: &'a IfName,
) -> impl Iterator<Item = &'a IfName> {
    let proxied = state
        .endpoints
        .iter()
        .filter_map(move |((dev, _), endpoint)| {
            let (on, _) = endpoint.target.as_ref()?;
            (on == link).then_some(dev)
        });
    proxied.collect::<BTreeSet<_>>().into_iter()
}

/// Compiles links, and keeps what outlives a compilation.
pub(super) struct Compiler {
    pub(super) key: Option<LabelKey>,
    /// Hash keys of the links' tables.
    keys: HashKeys,
    pools: nat::PoolRegistry,
    buckets: BucketRegistry,
    hits: BTreeMap<IfName, HashMap<String, Arc<AtomicU64>>>,
    tallies: BTreeMap<IfName, HashMap<String, Arc<ClassCounters>>>,
    proxies: Proxies,
    policies: BTreeMap<IfName, (policy::PolicyDefaults, Vec<policy::PolicyRule>, Arc<Policy>)>,
    nats: BTreeMap<IfName, (LinkIndex, Vec<nat::NatRule>, Arc<nat::Nat>)>,
    stand_ins: BTreeMap<IfName, (LinkIndex, Vec<nat::NatRule>, usize, Arc<nat::Nat>)>,
    services: BTreeMap<IfName, (Vec<service::ServiceConfig>, Arc<ServiceTable>)>,
    bridges: BTreeMap<IfName, l2::RetainedBridge>,
    neighborhoods: BTreeMap<IfName, Arc<NeighborCache>>,
    undelivered: BTreeMap<IfName, Arc<UndeliveredPackets>>,
}

/// Whether a backend of a link's service passes its checks.
pub(super) type IsHealthy<'a> = dyn Fn(&IfName, &ServiceSpec, (IpAddr, u16)) -> bool + 'a;

/// Running links and their indices in the tables.
pub(super) type LinkIndices = BTreeMap<IfName, LinkIndex>;

/// Checks that a state can be compiled with this label key, given that `old` could.
///
/// # Errors
/// If two labels of one endpoint have the same hash.
pub(super) fn verify(
    key: Option<&LabelKey>,
    old: &DesiredState,
    state: &DesiredState,
) -> Result<(), Refusal> {
    for ((dev, addr), endpoint) in state.endpoints.beside(&old.endpoints) {
        if let Some(labels) = &endpoint.labels {
            hashed(key, labels).map_err(|why| {
                Refusal::new(
                    format!("endpoint \"{addr}\" dev {dev}: {why}"),
                    "rename one of the labels",
                )
            })?;
        }
    }
    Ok(())
}

fn hashed(key: Option<&LabelKey>, labels: &LabelMap) -> Result<LabelSet, String> {
    let key = key.ok_or("there is no label-secret-file")?;
    labels.hashed(key).map_err(|e| e.to_string())
}

impl Compiler {
    /// Returns a compiler that hashes labels with `key` and gives the links' tables `keys`.
    pub(super) fn new(key: Option<LabelKey>, keys: HashKeys) -> Self {
        Compiler {
            key,
            keys,
            pools: nat::PoolRegistry::default(),
            buckets: BucketRegistry::default(),
            hits: BTreeMap::new(),
            tallies: BTreeMap::new(),
            proxies: Proxies::default(),
            nats: BTreeMap::new(),
            stand_ins: BTreeMap::new(),
            policies: BTreeMap::new(),
            services: BTreeMap::new(),
            bridges: BTreeMap::new(),
            neighborhoods: BTreeMap::new(),
            undelivered: BTreeMap::new(),
        }
    }

    /// A compiler with the same keys that has compiled nothing yet.
    pub(super) fn without_links(&self) -> Self {
        Compiler::new(self.key.clone(), self.keys.clone())
    }

    /// Hashes labels.
    pub(super) fn hashed(&self, labels: &LabelMap) -> Result<LabelSet, String> {
        hashed(self.key.as_ref(), labels)
    }

    /// Schema of the known options.
    pub(super) fn schema(state: &DesiredState) -> OptionSchema {
        let defined = state
            .options
            .values()
            .enumerate()
            .map(|(place, option)| OptionDef {
                // The user's name may have characters that a schema's must not have.
                name: format!("option-{place}"),
                class: option.class,
                kind: option.kind,
                len: option.len,
            })
            .collect();
        // Definitions that do not fit were refused when they were added.
        OptionSchema::new(state.fabric.option_class.0, defined).unwrap_or_default()
    }

    /// Compiles a link for the packet path. `followed` are the addresses that others gave its interface; `healthy`
    /// says whether a backend passes its checks.
    pub(super) fn link(
        &mut self,
        state: &DesiredState,
        link: &LinkSpec,
        mtu: u16,
        followed: &[IpNet],
        places: &LinkIndices,
        healthy: &IsHealthy<'_>,
    ) -> LinkConfig {
        let addresses = || link.addresses.iter().chain(followed);
        let index = places.get(&link.name).copied().unwrap_or_default();
        let functions = self
            .functions(state, link, places, healthy)
            .unwrap_or_else(|why| {
                tracing::error!(link = %link.name, why, "link \"{}\": its functions cannot be compiled, it drops everything: {why}", link.name);
                LinkFunctions {
                    policy: deny_all(),
                    ..LinkFunctions::default()
                }
            });
        LinkConfig {
            index,
            encapsulation: link.encapsulation,
            inner: link.inner,
            lladdr: lladdr(link),
            neighbors: self.neighborhood(&link.name),
            vni: link.vni,
            port: link.port,
            local: link.local,
            ttl: link.ttl,
            tos: link.tos,
            df: link.df,
            udp6_zero_csum_rx: link.udp6_zero_csum_rx,
            mtu,
            addresses: addresses().map(IpNet::addr).collect(),
            broadcasts: broadcasts(addresses()),
            allowed: link.allowed.clone(),
            undelivered: Arc::clone(self.undelivered.entry(link.name.clone()).or_default()),
            routes: routes(state, link),
            functions,
            bridge: self.bridge(state, link),
        }
    }

    fn functions(
        &mut self,
        state: &DesiredState,
        link: &LinkSpec,
        places: &LinkIndices,
        healthy: &IsHealthy<'_>,
    ) -> Result<LinkFunctions, String> {
        let mut endpoints = HashMap::new();
        for (addr, endpoint) in state.endpoints_of(&link.name) {
            let labels = endpoint
                .labels
                .as_ref()
                .map(|l| self.hashed(l))
                .transpose()?;
            let class = endpoint.class.as_ref();
            let class =
                class.and_then(|name| state.classes.get(&(link.name.clone(), name.clone())));
            let target = endpoint.target.as_ref().and_then(|(on, addr)| {
                Some(ProxyTarget {
                    addr: *addr,
                    link: *places.get(on)?,
                })
            });
            let compiled = EndpointConfig {
                kind: endpoint.kind(),
                labels,
                class: class.map(|c| c.id),
                rate: self.bucket(link, BucketKey::Endpoint(addr), endpoint.rate, None),
                target: target.filter(|_| endpoint.hosts.is_empty()),
                colocated: endpoint.colocated,
                local: endpoint.local || endpoint.hosts.is_empty(),
                lladdr: endpoint.lladdr,
                options: attachments(state, &endpoint.options),
            };
            endpoints.insert(addr, compiled);
        }
        let classes = state.classes_of(&link.name);
        let classes: Vec<_> = classes
            .map(|(name, class)| (name.to_string(), class))
            .collect();
        let classes = classes
            .into_iter()
            .map(|(name, class)| {
                let limited = BucketKey::Class(name.clone());
                Arc::new(QosClass {
                    id: class.id,
                    bucket: self.bucket(link, limited, class.rate, class.burst),
                    ingress: self.bucket(
                        link,
                        BucketKey::ClassIngress(name.clone()),
                        class.rate,
                        class.burst,
                    ),
                    dscp: class.dscp.map(|d| d.0),
                    tally: Arc::clone(
                        self.tallies
                            .entry(link.name.clone())
                            .or_default()
                            .entry(name.clone())
                            .or_default(),
                    ),
                    name,
                })
            })
            .collect();
        Ok(LinkFunctions {
            endpoints,
            policy: self.policy(state, link)?,
            nat: self.nat(state, link, places)?,
            services: self.services(state, link, healthy)?,
            classes,
            rate: self.bucket(link, BucketKey::Link, link.rate, link.burst),
            rate_ingress: self.bucket(link, BucketKey::LinkIngress, link.rate, link.burst),
            options: attachments(state, &link.options),
            stand_ins: self.proxy_pools(link, places)?,
            labels: state.uses_labels(&link.name),
            labels_critical: link.labels == crate::config::value::LabelsUse::Critical,
            gateway: state
                .routes_of(&link.name)
                .any(|(_, r)| r.kind == EndpointType::Gateway),
        })
    }

    fn neighborhood(&mut self, name: &IfName) -> Arc<NeighborCache> {
        let key = || self.keys.of(&format!("neighbors of {name}"));
        let new = || Arc::new(NeighborCache::new(key()));
        Arc::clone(self.neighborhoods.entry(name.clone()).or_insert_with(new))
    }

    fn bucket(
        &mut self,
        link: &LinkSpec,
        limited: BucketKey,
        rate: Option<RateValue>,
        burst: Option<SizeValue>,
    ) -> Option<Arc<Bucket>> {
        let rate = rate?.bytes();
        let burst = burst.map_or_else(|| Bucket::default_burst(rate), SizeValue::bytes);
        Some(
            self.buckets
                .bucket(link.name.as_str(), limited, rate, burst),
        )
    }

    fn policy(
        &mut self,
        state: &DesiredState,
        link: &LinkSpec,
    ) -> Result<Option<Arc<Policy>>, String> {
        let defaults = policy::PolicyDefaults {
            ingress: default_action(link.ingress),
            egress: default_action(link.egress),
        };
        let rules = state.policies_of(&link.name);
        let rules: Vec<_> = rules
            .map(|(name, rule)| compiled_rule(state, link, name.as_str(), rule))
            .collect();
        let open = defaults.ingress == policy::PolicyAction::Allow
            && defaults.egress == policy::PolicyAction::Allow;
        if rules.is_empty() && open {
            self.policies.remove(&link.name);
            return Ok(None);
        }
        if let Some((before, known, policy)) = self.policies.get(&link.name)
            && *before == defaults
            && *known == rules
        {
            return Ok(Some(Arc::clone(policy)));
        }
        let hits = self.hits.entry(link.name.clone()).or_default();
        let mut counter = |name: &str| Arc::clone(hits.entry(name.to_owned()).or_default());
        let policy = Policy::compile(rules.clone(), defaults, self.key.as_ref(), &mut counter)
            .map_err(|e| e.to_string())?;
        let policy = Arc::new(policy);
        let entry = (defaults, rules, Arc::clone(&policy));
        self.policies.insert(link.name.clone(), entry);
        Ok(Some(policy))
    }

    fn nat(
        &mut self,
        state: &DesiredState,
        link: &LinkSpec,
        places: &LinkIndices,
    ) -> Result<Option<Arc<nat::Nat>>, String> {
        let rules = state.nats_of(&link.name);
        let rules: Vec<_> = rules
            .map(|(name, nat)| translation(name.to_string(), nat))
            .collect();
        if rules.is_empty() {
            self.nats.remove(&link.name);
            return Ok(None);
        }
        let index = places.get(&link.name).copied().unwrap_or_default();
        if let Some((at, known, nat)) = self.nats.get(&link.name)
            && (*at, known) == (index, &rules)
        {
            return Ok(Some(Arc::clone(nat)));
        }
        let nat = nat::Nat::compile(index, rules.clone(), &mut self.pools);
        let nat = Arc::new(nat.map_err(|e| e.to_string())?);
        let kept = (index, rules, Arc::clone(&nat));
        self.nats.insert(link.name.clone(), kept);
        Ok(Some(nat))
    }

    /// NAT rule for endpoints of this VPC that are proxied in other VPCs: this host talks to them from its own
    /// address.
    fn proxy_pools(
        &mut self,
        link: &LinkSpec,
        places: &LinkIndices,
    ) -> Result<Option<Arc<nat::Nat>>, String> {
        let consumers = self.proxies.consumers(&link.name).count();
        if consumers == 0 {
            self.stand_ins.remove(&link.name);
            return Ok(None);
        }
        let own = |v4: bool| {
            link.addresses
                .iter()
                .map(IpNet::addr)
                .find(|a| a.is_ipv4() == v4)
        };
        let rule = |v4: bool, all: &str| {
            Some(nat::NatRule::Snat {
                name: format!("stand-in for {all}"),
                from: all.parse().ok()?,
                pool: own(v4)?..=own(v4)?,
                ports: STAND_IN_PORTS,
            })
        };
        let rules: Vec<_> = [rule(true, "0.0.0.0/0"), rule(false, "::/0")]
            .into_iter()
            .flatten()
            .collect();
        let index = places.get(&link.name).copied().unwrap_or_default();
        if let Some((at, known, shared, nat)) = self.stand_ins.get(&link.name)
            && (*at, known, *shared) == (index, &rules, consumers)
        {
            return Ok(Some(Arc::clone(nat)));
        }
        let place = LinkIndex(index.0 | STAND_IN);
        let nat = nat::Nat::compile(place, rules.clone(), &mut self.pools);
        let nat = nat.map_err(|e| e.to_string())?;
        let shared = u32::try_from(consumers).unwrap_or(u32::MAX);
        let nat = Arc::new(nat.shared_by(shared));
        let kept = (index, rules, consumers, Arc::clone(&nat));
        self.stand_ins.insert(link.name.clone(), kept);
        Ok(Some(nat))
    }

    fn services(
        &mut self,
        state: &DesiredState,
        link: &LinkSpec,
        healthy: &IsHealthy<'_>,
    ) -> Result<Option<Arc<ServiceTable>>, String> {
        let services = state.services_of(&link.name);
        let configs: Vec<_> = services
            .map(|(name, service)| service::ServiceConfig {
                name: name.to_string(),
                vip: service.vip,
                protocol: service.proto.0,
                port: service.port,
                backends: service
                    .targets()
                    .map(|(addr, port, weight)| service::Backend {
                        addr,
                        port: Some(port),
                        weight: weight.into(),
                        healthy: healthy(&link.name, service, (addr, port)),
                    })
                    .collect(),
                affinity: match service.affinity {
                    AffinityValue::None => service::Affinity::None,
                    AffinityValue::Client => service::Affinity::Client,
                },
            })
            .collect();
        if configs.is_empty() {
            self.services.remove(&link.name);
            return Ok(None);
        }
        let before = self.services.get(&link.name);
        if let Some((known, services)) = before
            && *known == configs
        {
            return Ok(Some(Arc::clone(services)));
        }
        let before = before.map(|(_, services)| &**services);
        let services = ServiceTable::new(configs.clone(), before).map_err(|e| e.to_string())?;
        let services = Arc::new(services);
        let kept = (configs, Arc::clone(&services));
        self.services.insert(link.name.clone(), kept);
        Ok(Some(services))
    }

    /// Forgets what a link no longer uses; call after tables were made from its compiled form.
    fn prune(&mut self, state: &DesiredState, name: &IfName) {
        self.buckets.prune(name.as_str());
        if !state.links.contains_key(name) {
            self.policies.remove(name);
            self.nats.remove(name);
            self.stand_ins.remove(name);
            self.services.remove(name);
            self.bridges.remove(name);
            self.undelivered.remove(name);
            self.neighborhoods.remove(name);
        }
        keep_used(&mut self.tallies, name);
        keep_used(&mut self.hits, name);
    }

    /// How often a rule decided.
    pub(super) fn hits(&self, link: &IfName, rule: &str) -> u64 {
        let count = self.hits.get(link).and_then(|of| of.get(rule));
        count.map_or(0, |c| c.load(std::sync::atomic::Ordering::Relaxed))
    }
}

/// Drops the counters of a link that nothing else refers to.
fn keep_used<T>(all: &mut BTreeMap<IfName, HashMap<String, Arc<T>>>, name: &IfName) {
    if let Some(of) = all.get_mut(name) {
        of.retain(|_, counter| Arc::strong_count(counter) > 1);
        if of.is_empty() {
            all.remove(name);
        }
    }
}

/// Links whose tables a plan outdates, as far as objects within links are concerned.
pub(super) fn outdated_by(plan: &Plan) -> Outdated {
    // Options belong to all links.
    if plan.objects.iter().any(|step| step.dev.is_none()) {
        return Outdated::All;
    }
    let lists = [&plan.add, &plan.del, &plan.replace, &plan.set];
    let links = lists.into_iter().flatten();
    let objects = plan.objects.iter().filter_map(|step| step.dev.as_ref());
    Outdated::Links(links.chain(objects).cloned().collect())
}
