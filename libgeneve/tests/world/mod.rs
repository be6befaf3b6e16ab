//! One host's view of a VPC, for tests and benchmarks of the whole packet path.
//!
//! The endpoints .1 and .5 of 10.0.0.0/24 and fd00::/64 are on this host, .2 on the host B and .3 on the host C.
//! 10.7.0.0/16 and, if there is a gateway, the default route are behind B.
#![allow(dead_code)]

pub mod packets;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use libgeneve::datapath::{PacketContext, SharedState};
use libgeneve::flow::{FlowHasher, FlowLimits};
use libgeneve::label::{LabelKey, LabelSet, Selector};
use libgeneve::nat::{self, Nat};
use libgeneve::options::EndpointType;
use libgeneve::policy::{Direction, Policy, PolicyAction, PolicyDefaults, PolicyRule, RulePeer};
use libgeneve::qos::{Bucket, QosClass};
use libgeneve::route::RouteOrigin;
use libgeneve::service::{Affinity, Backend, ServiceConfig, ServiceTable};
use libgeneve::time::Now;
use libgeneve::vpc::{
    AttachedOption, Df, EndpointConfig, HostRegistry, Link, LinkConfig, LinkFunctions, LinkIndex,
    RouteConfig, Tables, Tos, Ttl,
};
use libgeneve::wire::geneve::{GENEVE_PORT, Vni};
use libgeneve::wire::ip::protocol;
use libgeneve::wire::option::{OptionClass, OptionType};

pub const WORLD_HOST_A: &str = "192.0.2.1";
pub const WORLD_HOST_B: &str = "192.0.2.2";
pub const WORLD_HOST_C: &str = "192.0.2.3";
pub const WORLD_VNI: Vni = Vni::new(100).expect("24 bits");
pub const WORLD_LINK: LinkIndex = LinkIndex(0);
/// Virtual address of the service with the backends 10.0.0.2 and 10.0.0.3.
pub const WORLD_VIP: &str = "10.0.0.100";
/// ID of the class that the policy assigns to allowed packets.
pub const WORLD_CLASS: u8 = 7;

pub fn ip(addr: &str) -> IpAddr {
    addr.parse().expect("an address")
}

pub fn route(prefix: &str, hosts: &[&str], origin: RouteOrigin, kind: EndpointType) -> RouteConfig {
    RouteConfig {
        prefix: prefix.parse().expect("a prefix"),
        hosts: hosts.iter().map(|host| ip(host)).collect(),
        origin,
        kind,
        local: hosts.is_empty(),
    }
}

/// Returns a link with these functions.
pub fn link(functions: LinkFunctions) -> LinkConfig {
    let endpoint =
        |addr, hosts: &[&str]| route(addr, hosts, RouteOrigin::Endpoint, EndpointType::Simple);
    let gateway = if functions.gateway {
        EndpointType::Gateway
    } else {
        EndpointType::Simple
    };
    let mut routes = vec![
        endpoint("10.0.0.2/32", &[WORLD_HOST_B]),
        endpoint("10.0.0.3/32", &[WORLD_HOST_C]),
        endpoint("10.0.0.5/32", &[]),
        endpoint("10.5.0.0/16", &[]),
        endpoint("fd00::2/128", &[WORLD_HOST_B]),
        route(
            "10.7.0.0/16",
            &[WORLD_HOST_B],
            RouteOrigin::Route,
            EndpointType::Simple,
        ),
    ];
    if functions.gateway {
        routes.push(route(
            "0.0.0.0/0",
            &[WORLD_HOST_B],
            RouteOrigin::Route,
            gateway,
        ));
    }
    LinkConfig {
        index: WORLD_LINK,
        encapsulation: Default::default(),
        inner: Default::default(),
        lladdr: Default::default(),
        neighbors: Default::default(),
        vni: WORLD_VNI,
        port: GENEVE_PORT,
        local: Some(ip(WORLD_HOST_A)),
        ttl: Ttl::Auto,
        tos: Tos::Inherit,
        df: Df::Set,
        udp6_zero_csum_rx: false,
        mtu: 1464,
        addresses: vec![ip("10.0.0.1"), ip("fd00::1")],
        broadcasts: Vec::new(),
        allowed: Vec::new(),
        undelivered: Default::default(),
        routes,
        functions,
        bridge: None,
    }
}

/// Tables with one link, and the state of its packets.
pub struct LinkWorld {
    pub tables: Tables,
    pub state: SharedState,
    pub now: Now,
}

impl LinkWorld {
    pub fn new(functions: LinkFunctions, limits: FlowLimits) -> LinkWorld {
        let link = Link::new(link(functions), &mut HostRegistry::default());
        LinkWorld {
            tables: Tables::new([Arc::new(link)], FlowHasher::new([1, 2])),
            state: SharedState::new(limits, [3, 4]),
            now: Now(1_000_000_000),
        }
    }

    pub fn cx(&self) -> PacketContext<'_> {
        PacketContext {
            tables: &self.tables,
            state: &self.state,
            now: self.now,
        }
    }

    pub fn link(&self) -> &Arc<Link> {
        self.tables.link(WORLD_LINK).expect("there is one")
    }
}

pub fn label_key() -> LabelKey {
    LabelKey::from_secret(b"a secret for tests")
}

pub fn labels(text: &str) -> LabelSet {
    let map: libgeneve::label::LabelMap = text.parse().expect("labels");
    map.hashed(&label_key()).expect("no collision")
}

pub fn rule(
    name: impl Into<String>,
    direction: Direction,
    pref: u32,
    action: PolicyAction,
) -> PolicyRule {
    PolicyRule::new(name, direction, pref, action)
}

/// Returns a policy of `count` rules with labels, prefixes and ports that match no packet, followed by `last`.
pub fn policy(count: u32, last: Vec<PolicyRule>) -> Arc<Policy> {
    let mut rules: Vec<PolicyRule> = (0..count)
        .map(|n| {
            let direction = [Direction::Ingress, Direction::Egress][n as usize % 2];
            let mut rule = rule(format!("rule-{n}"), direction, 10 + n, PolicyAction::Deny);
            match n / 2 % 3 {
                0 => {
                    let selector: Selector = format!("app=none-{n}").parse().expect("a selector");
                    rule.from = RulePeer::Selector(selector);
                }
                1 => {
                    let prefix = format!("172.{}.{}.0/24", 16 + n / 256 % 16, n % 256);
                    rule.to = RulePeer::Prefix(prefix.parse().expect("a prefix"));
                }
                _ => {
                    rule.protocol = Some(protocol::TCP);
                    rule.dports = vec![10_000 + n as u16..=10_003 + n as u16];
                    rule.from = RulePeer::Prefix("172.31.0.0/16".parse().expect("a prefix"));
                }
            }
            rule
        })
        .collect();
    rules.extend(last);
    let defaults = PolicyDefaults {
        ingress: PolicyAction::Deny,
        egress: PolicyAction::Deny,
    };
    let policy = Policy::compile(rules, defaults, Some(&label_key()), &mut |_| Arc::default());
    Arc::new(policy.expect("sound rules"))
}

/// Rules that allow everything in both directions, and assign the class.
pub fn allow_all() -> Vec<PolicyRule> {
    [Direction::Ingress, Direction::Egress]
        .map(|direction| {
            let mut allow = rule(
                format!("allow-{direction}"),
                direction,
                1_000_000,
                PolicyAction::Allow,
            );
            allow.class = Some(WORLD_CLASS);
            allow
        })
        .into()
}

/// Returns source NAT for 10.5.0.0/16 here and 10.7.0.0/16 behind B, each with a pool of this many addresses and
/// these ports.
pub fn snat(addresses: u8, ports: std::ops::RangeInclusive<u16>) -> Arc<Nat> {
    let rule = |from: &str, net: u8| nat::NatRule::Snat {
        name: from.into(),
        from: from.parse().expect("a prefix"),
        pool: IpAddr::from([100, net, 0, 1])..=IpAddr::from([100, net, 0, addresses]),
        ports: ports.clone(),
    };
    let rules = vec![rule("10.5.0.0/16", 64), rule("10.7.0.0/16", 65)];
    let nat = Nat::compile(WORLD_LINK, rules, &mut nat::PoolRegistry::default());
    Arc::new(nat.expect("sound rules"))
}

/// Rate limit of 10 GB/s, which no test exceeds.
fn ample() -> Arc<Bucket> {
    Arc::new(Bucket::new(10_000_000_000, u64::from(u32::MAX)))
}

/// Returns a class with a rate limit.
pub fn class() -> Arc<QosClass> {
    Arc::new(QosClass {
        id: WORLD_CLASS,
        name: "gold".into(),
        bucket: Some(ample()),
        ingress: Some(ample()),
        dscp: Some(10),
        tally: Arc::default(),
    })
}

pub fn services(backends: &[&str]) -> Arc<ServiceTable> {
    let backend = |addr: &&str| Backend {
        addr: ip(addr),
        port: Some(8080),
        weight: 1,
        healthy: true,
    };
    let config = ServiceConfig {
        name: "web".into(),
        vip: ip(WORLD_VIP),
        protocol: protocol::TCP,
        port: 80,
        backends: backends.iter().map(backend).collect(),
        affinity: Affinity::None,
    };
    Arc::new(ServiceTable::new([config], None).expect("a sound service"))
}

/// Returns all functions at once, with a policy of `rules` rules and more.
pub fn functions(rules: u32) -> LinkFunctions {
    let labelled = |text: &str, local| EndpointConfig {
        labels: Some(labels(text)),
        local,
        ..EndpointConfig::default()
    };
    LinkFunctions {
        endpoints: HashMap::from([
            (ip("10.0.0.1"), labelled("app=web,tier=front", true)),
            (ip("10.0.0.2"), labelled("app=db", false)),
        ]),
        policy: Some(policy(rules, allow_all())),
        nat: Some(snat(16, 1024..=u16::MAX)),
        services: Some(services(&["10.0.0.2", "10.0.0.3"])),
        classes: vec![class()],
        rate: Some(ample()),
        rate_ingress: Some(ample()),
        options: vec![AttachedOption {
            class: OptionClass(0xfff0),
            kind: OptionType(1),
            data: vec![1, 2, 3, 4],
        }],
        labels: true,
        gateway: true,
        ..LinkFunctions::default()
    }
}
