//! Policy lookup for a flow.

use std::net::IpAddr;

use super::{FirstPacket, Resolution};
use crate::datapath::trace_observer::TraceObserver;
use crate::label::Labels;
use crate::options::EndpointType;
use crate::policy::{Direction, Policy, PolicyAction, PolicyQuery, PolicyVerdict};
use crate::vpc::Link;
use crate::wire::option::OptionIter;

/// Evaluates the egress policy for a resolved packet from this host to an endpoint of this type.
pub(super) fn evaluate_egress<E: TraceObserver>(
    link: &Link,
    initial: &FirstPacket,
    resolution: &Resolution,
    kind: EndpointType,
    log: &mut E,
) -> PolicyVerdict {
    let (dst, dport) = resolution.dst;
    let query = PolicyQuery {
        direction: Direction::Egress,
        src: initial.key.src,
        dst,
        protocol: initial.key.protocol,
        ports: initial.ports().map(|(src, _)| (src, dport)),
        icmp: initial.icmp,
        from: own_labels(link, initial.key.src),
        to: configured_labels(link, dst),
        dst_type: kind,
        options: OptionIter::default(),
    };
    evaluate(link, &query, log)
}

/// Evaluates the policy of a link.
pub(super) fn evaluate<E: TraceObserver>(
    link: &Link,
    query: &PolicyQuery<'_>,
    log: &mut E,
) -> PolicyVerdict {
    let Some(policy) = &link.config.functions.policy else {
        return PolicyVerdict {
            action: PolicyAction::Allow,
            rule: None,
            log: false,
            class: None,
        };
    };
    let verdict = if E::DRY {
        policy.explain(query)
    } else {
        policy.decide(query)
    };
    if E::DRY {
        trace_mismatches(policy, query, log);
    }
    log.record("policy", || {
        let direction = query.direction;
        match verdict.rule.and_then(|id| policy.rule(id)) {
            Some(rule) => format!("{direction} rule {}: {}", rule.name, verdict.action),
            None => format!(
                "no {direction} rule matches; the link's default is {}",
                verdict.action
            ),
        }
    });
    verdict
}

/// Maximum number of non-matching rules that a trace lists one by one.
const TOLD_RULES: usize = 32;

/// Traces which rules do not match, and why.
fn trace_mismatches<E: TraceObserver>(policy: &Policy, query: &PolicyQuery<'_>, log: &mut E) {
    let mut rules = policy.mismatches(query);
    for (rule, why) in rules.by_ref().take(TOLD_RULES) {
        log.record("rule", || {
            format!("{} {} does not match: {why}", query.direction, rule.name)
        });
    }
    let more = rules.count();
    if more > 0 {
        log.record("rule", || format!("{more} more rules do not match"));
    }
}

/// Returns the configured labels of an address.
pub(super) fn configured_labels(link: &Link, addr: IpAddr) -> Labels<'_> {
    let endpoint = link.config.functions.endpoints.get(&addr);
    match endpoint.and_then(|e| e.labels.as_ref()) {
        Some(labels) => Labels::Known(labels.as_slice()),
        None => Labels::Unknown,
    }
}

/// Returns the labels of an address on this host: those of its endpoint, or none.
pub(super) fn own_labels(link: &Link, addr: IpAddr) -> Labels<'_> {
    match configured_labels(link, addr) {
        Labels::Unknown => Labels::Known(&[]),
        known => known,
    }
}
