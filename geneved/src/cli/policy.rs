//! `geneved policy`: which flows of a link are allowed.

use serde_json::{Value, json};

use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style, with};
use super::{Context, Object};
use crate::config::value::{Direction, IfName, Name, RuleAction};
use crate::config::words::{Change, PolicyWords, Verb};
use crate::control::protocol::{Policies, PolicyInfo, Request};

type Key = Keyword<PolicyWords>;

const NAME: Key = key!("name", "NAME", name).bare().times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);
const INGRESS: Key = flag!("ingress", direction = Some(Direction::Ingress));
const EGRESS: Key = flag!("egress", direction = Some(Direction::Egress));

impl Subject for PolicyWords {
    const NAME: &'static str = "policy";
    const ADD: &'static [Key] = &[
        NAME,
        DEV,
        INGRESS.choice(1),
        EGRESS.choice(1),
        key!("pref", "N", pref),
        key!("from", "WHO", from),
        key!("to", "WHO", to),
        key!("proto", "PROTO", proto),
        key!("sport", "PORTS", sport),
        key!("dport", "PORTS", dport),
        key!("icmp", "TYPE[/CODE]", icmp),
        key!("option", "CLASS:TYPE[=HEX[/MASK]]", option),
        key!("endpoint-type" | "endpoint_type", "ETYPE", endpoint_type),
        flag!("allow", action = Some(RuleAction::Allow)).choice(2),
        flag!("deny", action = Some(RuleAction::Deny)).choice(2),
        flag!("reject", action = Some(RuleAction::Reject)).choice(2),
        flag!("log", log = true),
        key!("class", "NAME", class),
    ];
    const DEL: &'static [Key] = &[NAME, DEV];
    const SHOW: &'static [Key] = &[
        NAME.times(Times::Optional),
        DEV.times(Times::Optional),
        INGRESS,
        EGRESS,
    ];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        Ok(Change::policy(verb, self))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let dev = given(self.dev);
        let Policies { mut policies } = context.call(&Request::ListPolicies { dev })?;
        policies.retain(|p| {
            is_or_any(&self.name, &p.policy.name)
                && (self.direction.is_none() || self.direction == p.policy.direction)
        });
        object::print(context, &policies);
        Ok(())
    }
}

/// The link that was named, if one was.
pub fn given(dev: IfName) -> Option<IfName> {
    Some(dev).filter(|dev| !dev.as_str().is_empty())
}

/// Whether no name was given, or this one.
pub fn is_or_any(wanted: &Name, name: &Name) -> bool {
    wanted.as_str().is_empty() || wanted == name
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "policy",
    about: "rules: which flows are allowed",
    commands: &object::commands_without_set::<PolicyWords>(),
    notes: "WHO := { any | PREFIX | SELECTOR }\nSELECTOR := KEY=VALUE,KEY in (VALUE,...),!KEY,...\nPROTO := { tcp | udp | icmp | icmpv6 | sctp | N }    PORTS := N[-N][,...]\nETYPE := { simple | scaled | gateway | proxied | host }\nA lower pref is asked first, 100 if left out; at equal pref deny wins.",
};

impl Record for PolicyInfo {
    fn text(&self, style: &Style) -> String {
        let p = &self.policy;
        let action = p.action.map_or("", RuleAction::word);
        Line::new(style.name(p.name.as_str()))
            .value("dev", Some(style.name(p.dev.as_str())))
            .word(p.direction.map_or("", Direction::word))
            .value("pref", p.pref)
            .value("from", p.from.as_ref())
            .value("to", p.to.as_ref())
            .value("proto", p.proto)
            .value("sport", p.sport.as_ref())
            .value("dport", p.dport.as_ref())
            .value("icmp", p.icmp)
            .value("option", p.option.as_ref())
            .value("endpoint-type", p.endpoint_type)
            .word(&style.health(p.action == Some(RuleAction::Allow), action))
            .flag("log", p.log)
            .value("class", p.class.as_ref())
            .value("hits", style.statistics.then(|| style.number(self.hits)))
            .end()
    }

    fn brief(&self, style: &Style) -> String {
        self.text(style)
    }

    fn json(&self, _: &Style) -> Value {
        with(&self.policy, &json!({ "hits": self.hits }))
    }
}
