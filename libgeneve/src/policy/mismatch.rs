//! Explains why a rule does not match, by checking its conditions one by one.
//!
//! For people only; packets are decided by the compiled form. A property test checks that both agree.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::rule::{has_ports, is_icmp};
use super::{PolicyAction, PolicyQuery, PolicyRule, RulePeer};
use crate::label::{LabelKey, Labels, Selector};
use crate::wire::ip::protocol;

/// Returns the first condition of `rule` that the packet does not meet, and what the packet has instead; `None` if
/// the rule matches. The rule's direction is not checked.
pub(super) fn mismatch(
    rule: &PolicyRule,
    query: &PolicyQuery<'_>,
    key: Option<&LabelKey>,
) -> Option<String> {
    transport(rule, query)
        .or_else(|| who("from", rule, &rule.from, (query.src, query.from), key))
        .or_else(|| who("to", rule, &rule.to, (query.dst, query.to), key))
        .or_else(|| endpoint_type(rule, query))
        .or_else(|| option(rule, query))
}

fn transport(rule: &PolicyRule, query: &PolicyQuery<'_>) -> Option<String> {
    let has = protocol_name(query.protocol);
    if let Some(wanted) = rule.protocol.filter(|&wanted| wanted != query.protocol) {
        return Some(format!("proto {}: it is {has}", protocol_name(wanted)));
    }
    let sides = [
        ("sport", &rule.sports, query.ports.map(|ports| ports.0)),
        ("dport", &rule.dports, query.ports.map(|ports| ports.1)),
    ];
    for (word, ranges, port) in sides {
        if ranges.is_empty() {
            continue;
        }
        let wanted = port_list(ranges);
        match port {
            _ if !has_ports(query.protocol) => {
                return Some(format!("{word} {wanted}: {has} has no ports"));
            }
            Some(port) if ranges.iter().any(|range| range.contains(&port)) => {}
            Some(port) => return Some(format!("{word} {wanted}: it is {port}")),
            None if rule.action.where_unknown() => {}
            None => return Some(format!("{word} {wanted}: the port is not known")),
        }
    }
    let (kind, code) = rule.icmp?;
    let mut wanted = format!("icmp {kind}");
    if let Some(code) = code {
        let _ = write!(wanted, "/{code}");
    }
    let of_its_family = (query.protocol == protocol::ICMP) == query.dst.is_ipv4();
    match query.icmp {
        _ if !is_icmp(query.protocol) || !of_its_family => Some(format!("{wanted}: it is {has}")),
        Some((k, c)) if k == kind && code.is_none_or(|code| code == c) => None,
        Some((k, c)) => Some(format!("{wanted}: it is type {k} code {c}")),
        None if rule.action.where_unknown() => None,
        None => Some(format!("{wanted}: the type is not known")),
    }
}

fn who(
    word: &str,
    rule: &PolicyRule,
    wanted: &RulePeer,
    (addr, labels): (IpAddr, Labels<'_>),
    key: Option<&LabelKey>,
) -> Option<String> {
    match wanted {
        RulePeer::Any => None,
        RulePeer::Prefix(prefix) => {
            (!prefix.contains(&addr)).then(|| format!("{word} {prefix}: it is {addr}"))
        }
        RulePeer::Selector(selector) => {
            let why = unfulfilled(selector, labels, rule.action, key?)?;
            Some(match why {
                Some(requirement) => {
                    format!("{word} {selector}: {addr} does not fulfil {requirement}")
                }
                None => format!("{word} {selector}: the labels of {addr} are not known"),
            })
        }
    }
}

/// Explains why a selector does not match: the requirement that is not met, or that the labels are unknown.
fn unfulfilled(
    selector: &Selector,
    labels: Labels<'_>,
    action: PolicyAction,
    key: &LabelKey,
) -> Option<Option<String>> {
    let labels = match labels {
        Labels::Known(labels) => labels,
        Labels::Unknown if selector.is_empty() || action.where_unknown() => return None,
        Labels::Unknown => return Some(None),
    };
    let hashed = selector.hashed(key).requirements;
    let mut both = selector.requirements().iter().zip(hashed);
    let failed = both.find(|(_, hashed)| !hashed.matches(labels));
    failed.map(|(requirement, _)| Some(requirement.to_string()))
}

fn endpoint_type(rule: &PolicyRule, query: &PolicyQuery<'_>) -> Option<String> {
    let wanted = rule.endpoint_type.filter(|&kind| kind != query.dst_type)?;
    let is = query.dst_type;
    Some(format!("type {wanted}: its destination is {is}"))
}

fn option(rule: &PolicyRule, query: &PolicyQuery<'_>) -> Option<String> {
    let wanted = rule.option.as_ref()?;
    if wanted.matches(query.options.clone()) {
        return None;
    }
    let mut same = query
        .options
        .clone()
        .filter(|option| (option.class, option.kind) == (wanted.class, wanted.kind));
    Some(match same.next() {
        Some(option) => format!("option {wanted}: it carries {option}"),
        None => format!("option {wanted}: it carries none of that class and type"),
    })
}

fn port_list(ranges: &[RangeInclusive<u16>]) -> String {
    let words: Vec<_> = ranges
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (from, to) if from == to => from.to_string(),
            (from, to) => format!("{from}-{to}"),
        })
        .collect();
    words.join(",")
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".into(),
        protocol::TCP => "tcp".into(),
        protocol::UDP => "udp".into(),
        protocol::ICMPV6 => "icmpv6".into(),
        number => format!("protocol {number}"),
    }
}
