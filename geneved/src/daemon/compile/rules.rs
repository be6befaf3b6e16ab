//! Rules and translations in the terms of the packet path.

use std::sync::Arc;

use libgeneve::link::Attachment;
use libgeneve::nat;
use libgeneve::options::OptionMatch;
use libgeneve::policy::{self, Policy};

use crate::config::state::{Link, Nat, State};
use crate::config::value::{Action, Direction, NamedData, RuleAction, Who};

pub(super) fn deny_all() -> Option<Arc<Policy>> {
    let defaults = policy::Defaults {
        ingress: policy::Action::Deny,
        egress: policy::Action::Deny,
    };
    let policy = Policy::compile(Vec::new(), defaults, None, &mut |_| Arc::default());
    policy.ok().map(Arc::new)
}

pub(super) fn default_action(action: Action) -> policy::Action {
    match action {
        Action::Allow => policy::Action::Allow,
        Action::Deny => policy::Action::Deny,
    }
}

pub(super) fn compiled_rule(
    state: &State,
    link: &Link,
    name: &str,
    rule: &crate::config::state::Policy,
) -> policy::Rule {
    let who = |who: &Who| match who {
        Who::Any => policy::Who::Any,
        Who::Prefix(prefix) => policy::Who::Prefix(*prefix),
        Who::Selector(selector) => policy::Who::Selector(selector.0.clone()),
    };
    let class = rule.class.as_ref();
    let class = class.and_then(|name| state.classes.get(&(link.name.clone(), name.clone())));
    policy::Rule {
        name: name.to_owned(),
        direction: match rule.direction {
            Direction::Ingress => policy::Direction::Ingress,
            Direction::Egress => policy::Direction::Egress,
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
            RuleAction::Allow => policy::Action::Allow,
            RuleAction::Deny => policy::Action::Deny,
            RuleAction::Reject => policy::Action::Reject,
        },
        log: rule.log,
        class: class.map(|c| c.id),
    }
}

pub(super) fn translation(name: String, nat: &Nat) -> nat::Rule {
    match nat {
        Nat::Snat {
            from,
            source,
            ports,
        } => nat::Rule::Snat {
            name,
            from: *from,
            pool: source.first..=source.last,
            ports: ports.0.clone(),
        },
        Nat::Dnat {
            to,
            port,
            target,
            target_port,
        } => nat::Rule::Dnat {
            name,
            to: *to,
            port: port.map(|(proto, port)| (proto.0, port)),
            target: *target,
            target_port: *target_port,
        },
        Nat::Static { inside, outside } => nat::Rule::Static {
            name,
            inside: *inside,
            outside: *outside,
        },
    }
}

pub(super) fn attachments(state: &State, options: &[NamedData]) -> Vec<Attachment> {
    let known = options.iter().filter_map(|option| {
        let defined = state.options.get(&option.name)?;
        Some(Attachment {
            class: defined.class,
            kind: defined.kind,
            data: option.data.clone(),
        })
    });
    known.collect()
}
