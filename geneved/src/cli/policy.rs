//! `geneved policy`: which flows of a link are allowed.

use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::object::{self, BY_LINK, BY_NAME, Subject, Wanted, named};
use super::output::{Line, Record, with};
use super::style::Style;
use crate::config::value::{Direction, RuleAction};
use crate::config::words::{Change, PolicyWords, Verb};
use crate::control::protocol::{Policies, PolicyInfo, Request};

type Key = Keyword<PolicyWords>;

named!();
const INGRESS: Key = flag!("ingress", direction = Some(Direction::Ingress));
const EGRESS: Key = flag!("egress", direction = Some(Direction::Egress));

const SETTINGS: [Key; 19] = [
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
    flag!("log", log = Some(true)),
    flag!("nolog", log = Some(false)),
    key!("class", "{ CLASS | none }", class),
];

impl Subject for PolicyWords {
    const KIND: &'static str = "policy";
    const ADD: &'static [Key] = &SETTINGS;
    const SET: &'static [Key] = &grammar::settable(SETTINGS, 2);
    const DEL: &'static [Key] = &[NAME, DEV];

    const HONOURS: Honours = Honours::COUNTERS.and(Honours::NUMERIC);

    type Info = PolicyInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[
        BY_NAME,
        BY_LINK,
        flag!(Wanted; "ingress", direction = Some(Direction::Ingress)).at_most_one(1),
        flag!(Wanted; "egress", direction = Some(Direction::Egress)).at_most_one(1),
    ];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::policy(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<PolicyInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListPolicies { dev };
        Ok(context.call::<Policies>(&request)?.policies)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.named()
    }

    fn name(info: &PolicyInfo, _: &Style) -> String {
        info.policy.name.to_string()
    }

    fn wants(filter: &Wanted, _: &Style, info: &PolicyInfo) -> bool {
        let rule = &info.policy;
        filter.direction.is_none() || filter.direction == rule.direction
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "policy",
    about: "rules: which flows are allowed",
    commands: &object::commands::<PolicyWords>(),
    usual: Some(object::SHOW),
    notes: "WHO := { any | PREFIX | SELECTOR }\nSELECTOR := KEY=VALUE,KEY in (VALUE,...),!KEY,...\nPROTO := { tcp | udp | icmp | icmpv6 | sctp | N }    PORTS := N[-N][,...]\nETYPE := { simple | scaled | gateway | proxied | host }\nA lower pref is asked first, 100 if left out; at equal pref deny wins.",
};

impl Record for PolicyInfo {
    fn text(&self, style: &Style) -> String {
        let p = &self.policy;
        let action = p.action.map_or("", RuleAction::word);
        Line::new(style.name(&p.name))
            .value("dev", Some(style.name(&p.dev)))
            .word(p.direction.map_or("", Direction::word))
            .value("pref", p.pref)
            .value("from", p.from.as_ref())
            .value("to", p.to.as_ref())
            .value("proto", p.proto.map(|proto| style.proto(proto)))
            .value("sport", p.sport.as_ref())
            .value("dport", p.dport.as_ref())
            .value("icmp", p.icmp)
            .value("option", p.option.as_ref())
            .value("endpoint-type", p.endpoint_type)
            .word(&style.health(p.action == Some(RuleAction::Allow), action))
            .flag("log", p.log == Some(true))
            .value("class", p.class.as_ref())
            .value("hits", style.count(self.hits))
            .end()
    }

    fn json(&self, _: &Style) -> Value {
        with(&self.policy, &json!({ "hits": self.hits }))
    }
}
