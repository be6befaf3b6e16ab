//! Random configuration of every function of a link.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libgeneve::vpc::{AttachedOption, EndpointConfig, LinkFunctions, LinkIndex, ProxyTarget};
use libgeneve::nat::{self, Nat};
use libgeneve::options::{EndpointType, OptionMatch};
use libgeneve::policy::{PolicyAction, PolicyDefaults, Direction, Policy, PolicyRule, RulePeer};
use libgeneve::qos::{Bucket, QosClass};
use libgeneve::service::ServiceTable;
use libgeneve::wire::ip::protocol;
use libgeneve::wire::option::{OptionClass, OptionType};

use crate::world::{self, ip, label_key, labels, services};

pub const V4: [&str; 12] = [
    "10.0.0.1",
    "10.0.0.2",
    "10.0.0.3",
    "10.0.0.5",
    "10.0.0.9",
    "10.5.0.7",
    "10.7.0.8",
    world::WORLD_VIP,
    "198.51.100.1",
    "198.51.100.5",
    "203.0.113.9",
    "255.255.255.255",
];
pub const V6: [&str; 6] = [
    "fd00::1",
    "fd00::2",
    "fd00::5",
    "fd00::9",
    "2001:db8:5::1",
    "2001:db8::9",
];
pub const RULE_PORTS: [u16; 6] = [80, 53, 8080, 1000, 40_000, 40_001];
/// Option that rules match and links attach.
pub const TAG: (OptionClass, OptionType) = (OptionClass(0xfff0), OptionType(1));

pub fn any<'a>(u: &mut Unstructured<'_>, list: &[&'a str]) -> Result<&'a str> {
    u.choose(list).copied()
}

pub fn addr(u: &mut Unstructured<'_>) -> Result<IpAddr> {
    let list: &[&str] = if u.ratio(3, 4)? { &V4 } else { &V6 };
    any(u, list).map(ip)
}

fn who(u: &mut Unstructured<'_>) -> Result<RulePeer> {
    Ok(match u.int_in_range(0..=3)? {
        0 => RulePeer::Any,
        1 => RulePeer::Selector(
            any(u, &["app=web", "!app", "app in (web,db),tier"])?
                .parse()
                .expect("a selector"),
        ),
        2 => RulePeer::Prefix(
            any(u, &["10.0.0.0/24", "10.5.0.0/16", "fd00::/64", "0.0.0.0/0"])?
                .parse()
                .expect("a prefix"),
        ),
        _ => RulePeer::Prefix(addr(u)?.into()),
    })
}

fn rules(u: &mut Unstructured<'_>) -> Result<Vec<PolicyRule>> {
    (0..u.int_in_range(0..=6)?)
        .map(|n| {
            let direction = *u.choose(&[Direction::Ingress, Direction::Egress])?;
            let action = *u.choose(&[PolicyAction::Allow, PolicyAction::Deny, PolicyAction::Reject])?;
            let pref = u.int_in_range(0..=3)?;
            let mut rule = PolicyRule::new(format!("rule-{n}"), direction, pref, action);
            (rule.from, rule.to) = (who(u)?, who(u)?);
            rule.protocol = *u.choose(&[
                None,
                Some(protocol::TCP),
                Some(protocol::UDP),
                Some(protocol::ICMP),
            ])?;
            if matches!(rule.protocol, Some(protocol::TCP | protocol::UDP)) && u.arbitrary()? {
                rule.dports = vec![53..=80];
            }
            if u.ratio(1, 4)? {
                let value = u
                    .arbitrary::<bool>()?
                    .then(|| (vec![1, 2], vec![0xff, 0x0f]));
                rule.option = Some(OptionMatch {
                    class: TAG.0,
                    kind: TAG.1,
                    value,
                });
            }
            if u.ratio(1, 4)? {
                rule.endpoint_type = Some(*u.choose(&EndpointType::ALL)?);
            }
            rule.log = u.arbitrary()?;
            rule.class = u.arbitrary::<bool>()?.then_some(world::WORLD_CLASS);
            Ok(rule)
        })
        .collect()
}

fn translations(
    u: &mut Unstructured<'_>,
    link: LinkIndex,
    registry: &mut nat::PoolRegistry,
) -> Result<Option<Arc<Nat>>> {
    let snat = |name: &str, from: &str, pool: &str, width: u16| nat::NatRule::Snat {
        name: name.into(),
        from: from.parse().expect("a prefix"),
        pool: ip(pool)..=ip(pool),
        ports: 40_000..=40_000 + width,
    };
    let dnat = |name: &str, to: &str, port, target: &str, target_port| nat::NatRule::Dnat {
        name: name.into(),
        to: ip(to),
        port,
        target: ip(target),
        target_port,
    };
    let fixed = |inside: &str, outside: &str| nat::NatRule::Static {
        name: inside.into(),
        inside: ip(inside),
        outside: ip(outside),
    };
    let width = u.int_in_range(0..=3)?;
    let all = vec![
        snat("out", "10.0.0.0/24", "198.51.100.1", width),
        snat("wide", "10.5.0.0/16", "198.51.100.2", width),
        snat("six", "fd00::/64", "2001:db8:5::1", width),
        dnat(
            "www",
            "198.51.100.1",
            Some((protocol::TCP, 80)),
            "10.0.0.2",
            Some(8080),
        ),
        dnat("near", "203.0.113.9", None, "10.0.0.5", None),
        fixed("10.0.0.3", "198.51.100.5"),
        fixed("fd00::2", "2001:db8::9"),
    ];
    let chosen: u8 = u.arbitrary()?;
    let rules = all
        .into_iter()
        .enumerate()
        .filter(|(n, _)| chosen >> n & 1 != 0)
        .map(|(_, rule)| rule);
    Ok(Nat::compile(link, rules.collect(), registry)
        .ok()
        .filter(|nat| !nat.is_empty())
        .map(Arc::new))
}

pub fn functions(
    u: &mut Unstructured<'_>,
    link: LinkIndex,
    registry: &mut nat::PoolRegistry,
) -> Result<LinkFunctions> {
    let mut endpoints = HashMap::new();
    for _ in 0..u.int_in_range(0..=5)? {
        let at = addr(u)?;
        let kind = *u.choose(&EndpointType::ALL)?;
        let target = ProxyTarget {
            addr: ip(any(u, &["10.0.0.2", "10.0.0.5", "fd00::2"])?),
            link: LinkIndex(1),
        };
        let proxied = kind == EndpointType::Proxied && target.addr.is_ipv4() == at.is_ipv4();
        endpoints.insert(
            at,
            EndpointConfig {
                kind,
                labels: u.arbitrary::<bool>()?.then(|| labels("app=web,tier=front")),
                class: u.arbitrary::<bool>()?.then_some(world::WORLD_CLASS),
                target: proxied.then_some(target),
                colocated: kind == EndpointType::Scaled && u.arbitrary()?,
                local: u.arbitrary()?,
                ..EndpointConfig::default()
            },
        );
    }
    let action = |allow| if allow { PolicyAction::Allow } else { PolicyAction::Deny };
    let defaults = PolicyDefaults {
        ingress: action(u.ratio(3, 4)?),
        egress: action(u.ratio(3, 4)?),
    };
    let rules = rules(u)?;
    // Some choices are contradictory, such as addresses of two families.
    let policy = Policy::compile(rules, defaults, Some(&label_key()), &mut |_| Arc::default());
    let bucket = |u: &mut Unstructured<'_>| -> Result<_> {
        Ok(u.ratio(1, 8)?.then(|| Arc::new(Bucket::new(1000, 500))))
    };
    let stand_in = |name: &str, from: &str, own: &str| nat::NatRule::Snat {
        name: name.into(),
        from: from.parse().expect("a prefix"),
        pool: ip(own)..=ip(own),
        ports: 41_000..=41_003,
    };
    let stand_ins = vec![
        stand_in("in4", "0.0.0.0/0", "10.0.0.1"),
        stand_in("in6", "::/0", "fd00::1"),
    ];
    let class = QosClass {
        id: world::WORLD_CLASS,
        name: "gold".into(),
        bucket: bucket(u)?,
        ingress: bucket(u)?,
        dscp: Some(10),
        tally: Arc::default(),
    };
    let balanced: bool = u.arbitrary()?;
    let far = u.arbitrary()?;
    Ok(LinkFunctions {
        endpoints,
        policy: if u.ratio(3, 4)? {
            policy.ok().map(Arc::new)
        } else {
            None
        },
        nat: translations(u, link, registry)?,
        services: balanced.then(|| balancer(far)),
        classes: vec![Arc::new(class)],
        rate: bucket(u)?,
        rate_ingress: bucket(u)?,
        options: if u.arbitrary()? {
            vec![AttachedOption {
                class: TAG.0,
                kind: TAG.1,
                data: vec![1, 2, 3, 4],
            }]
        } else {
            Vec::new()
        },
        stand_ins: Some(Arc::new(
            Nat::compile(link, stand_ins, registry).expect("sound rules"),
        )),
        labels: u.arbitrary()?,
        labels_critical: u.arbitrary()?,
        gateway: u.arbitrary()?,
    })
}

/// Service whose backends are on other hosts, or here. Its table is large, so it is built once.
fn balancer(far: bool) -> Arc<ServiceTable> {
    static BOTH: OnceLock<[Arc<ServiceTable>; 2]> = OnceLock::new();
    let both = BOTH.get_or_init(|| [services(&["10.0.0.5"]), services(&["10.0.0.2", "10.0.0.3"])]);
    Arc::clone(&both[usize::from(far)])
}
