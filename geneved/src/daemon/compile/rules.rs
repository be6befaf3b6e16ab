//! Converts policy and NAT rules to those of the packet path.

use std::sync::Arc;

use libgeneve::nat;
use libgeneve::options::OptionMatch;
use libgeneve::policy::{self, Policy};
use libgeneve::vpc::AttachedOption;

use crate::config::state::{DesiredState, LinkSpec, NatSpec};
use crate::config::value::{DefaultAction, DirectionValue, NamedData, RuleAction, RulePeerValue};

pub(super) fn deny_all() -> Option<Arc<Policy>> {
    let defaults = policy::PolicyDefaults {
        ingress: policy::PolicyAction::Deny,
        egress: policy::PolicyAction::Deny,
    };
    let policy = Policy::compile(Vec::new(), defaults, None, &mut |_| Arc::default());
    policy.ok().map(Arc::new)
}

pub(super) fn default_action(action: DefaultAction) -> policy::PolicyAction {
    match action {
        DefaultAction::Allow => policy::PolicyAction::Allow,
        DefaultAction::Deny => policy::PolicyAction::Deny,
    }
}

pub(super) fn compiled_rule(
    state: &DesiredState,
    link: &LinkSpec,
    name: &str,
    rule: &crate::config::state::PolicySpec,
) -> policy::PolicyRule {
    let who = |who: &RulePeerValue| match who {
        RulePeerValue::Any => policy::RulePeer::Any,
        RulePeerValue::Prefix(prefix) => policy::RulePeer::Prefix(*prefix),
        RulePeerValue::Selector(selector) => policy::RulePeer::Selector(selector.0.clone()),
    };
    let class = rule.class.as_ref();
    let class = class.and_then(|name| state.classes.get(&(link.name.clone(), name.clone())));
    policy::PolicyRule {
        name: name.to_owned(),
        direction: match rule.direction {
            DirectionValue::Ingress => policy::Direction::Ingress,
            DirectionValue::Egress => policy::Direction::Egress,
        },
        pref: rule.pref,
        from: who(&rule.from),
        to: who(&rule.to),
        protocol: rule.proto.map(|p| p.0),
        sports: rule.sport.as_ref().map_or_else(Vec::new, |p| p.0.clone()),
        dports: rule.dport.as_ref().map_or_else(Vec::new, |p| p.0.clone()),
        icmp: rule.icmp.map(|i| (i.kind, i.code)),
        option: rule.option.as_ref().map(|m| OptionMatch {
            class: m.class.0,
            kind: m.kind.0,
            value: m.value.clone(),
        }),
        endpoint_type: rule.endpoint_type,
        action: match rule.action {
            RuleAction::Allow => policy::PolicyAction::Allow,
            RuleAction::Deny => policy::PolicyAction::Deny,
            RuleAction::Reject => policy::PolicyAction::Reject,
        },
        log: rule.log,
        class: class.map(|c| c.id),
    }
}

pub(super) fn translation(name: String, nat: &NatSpec) -> nat::NatRule {
    match nat {
        NatSpec::Snat {
            from,
            source,
            ports,
        } => nat::NatRule::Snat {
            name,
            from: *from,
            pool: source.first..=source.last,
            ports: ports.0.clone(),
        },
        NatSpec::Dnat {
            to,
            port,
            target,
            target_port,
        } => nat::NatRule::Dnat {
            name,
            to: *to,
            port: port.map(|(proto, port)| (proto.0, port)),
            target: *target,
            target_port: *target_port,
        },
        NatSpec::Static { inside, outside } => nat::NatRule::Static {
            name,
            inside: *inside,
            outside: *outside,
        },
    }
}

pub(super) fn attachments(state: &DesiredState, options: &[NamedData]) -> Vec<AttachedOption> {
    let known = options.iter().filter_map(|option| {
        let defined = state.options.get(&option.name)?;
        Some(AttachedOption {
            class: defined.class,
            kind: defined.kind,
            data: option.data.clone(),
        })
    });
    known.collect()
}
