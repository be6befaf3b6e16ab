//! What the policy of a link says of a flow.

use std::net::IpAddr;

use super::{Course, Subject};
use crate::datapath::explain::Explain;
use crate::label::Labels;
use crate::link::Link;
use crate::options::EndpointType;
use crate::policy::{Action, Direction, Policy, Query, Verdict};
use crate::wire::option::OptionIter;

/// Asks about a packet that this host sends to where its course leads, an endpoint of this type.
pub(super) fn ask_egress<E: Explain>(
    link: &Link,
    subject: &Subject,
    course: &Course,
    kind: EndpointType,
    log: &mut E,
) -> Verdict {
    let (dst, dport) = course.dst;
    let query = Query {
        direction: Direction::Egress,
        src: subject.key.src,
        dst,
        protocol: subject.key.protocol,
        ports: subject.ports().map(|(src, _)| (src, dport)),
        icmp: subject.icmp,
        from: own_labels(link, subject.key.src),
        to: configured_labels(link, dst),
        dst_type: kind,
        options: OptionIter::default(),
    };
    ask(link, &query, log)
}

/// Asks the policy of a link.
pub(super) fn ask<E: Explain>(link: &Link, query: &Query<'_>, log: &mut E) -> Verdict {
    let Some(policy) = &link.config.functions.policy else {
        return Verdict {
            action: Action::Allow,
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
        passed_over(policy, query, log);
    }
    log.note("policy", || {
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

/// So many rules that do not match are told of one by one.
const TOLD_RULES: usize = 32;

/// Which rules do not match, and why.
fn passed_over<E: Explain>(policy: &Policy, query: &Query<'_>, log: &mut E) {
    let mut rules = policy.passed_over(query);
    for (rule, why) in rules.by_ref().take(TOLD_RULES) {
        log.note("rule", || {
            format!("{} {} does not match: {why}", query.direction, rule.name)
        });
    }
    let more = rules.count();
    if more > 0 {
        log.note("rule", || format!("{more} more rules do not match"));
    }
}

/// What the configuration says of an endpoint's labels.
pub(super) fn configured_labels(link: &Link, addr: IpAddr) -> Labels<'_> {
    let endpoint = link.config.functions.endpoints.get(&addr);
    match endpoint.and_then(|e| e.labels.as_ref()) {
        Some(labels) => Labels::Known(labels.as_slice()),
        None => Labels::Unknown,
    }
}

/// The labels of an address on this host: those of its endpoint, or none.
pub(super) fn own_labels(link: &Link, addr: IpAddr) -> Labels<'_> {
    match configured_labels(link, addr) {
        Labels::Unknown => Labels::Known(&[]),
        known => known,
    }
}
