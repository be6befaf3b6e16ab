//! `geneved policy`: which flows of a link are allowed.

use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Repetition};
use super::object::{self, BY_LINK, BY_NAME, CliObject, NamedFilter, named};
use super::output::{OutputLine, Show, with};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, ObjectChange, PolicyArgs};
use crate::config::value::{DirectionValue, RuleAction};
use crate::control::protocol::{PoliciesReply, PolicyInfo, Request};

type PolicyKeyword = Keyword<PolicyArgs>;

named!(PolicyArgs);
const INGRESS: PolicyKeyword =
    flag!(PolicyArgs; "ingress", direction = Some(DirectionValue::Ingress));
const POLICY_EGRESS: PolicyKeyword =
    flag!(PolicyArgs; "egress", direction = Some(DirectionValue::Egress));

const POLICY_SETTINGS: [PolicyKeyword; 19] = [
    NAME,
    DEV,
    INGRESS.choice(1),
    POLICY_EGRESS.choice(1),
    key!(PolicyArgs; "pref", "N", pref),
    key!(PolicyArgs; "from", "WHO", from),
    key!(PolicyArgs; "to", "WHO", to),
    key!(PolicyArgs; "proto", "PROTO", proto),
    key!(PolicyArgs; "sport", "PORTS", sport),
    key!(PolicyArgs; "dport", "PORTS", dport),
    key!(PolicyArgs; "icmp", "TYPE[/CODE]", icmp),
    key!(PolicyArgs; "option", "CLASS:TYPE[=HEX[/MASK]]", option),
    key!(PolicyArgs; "endpoint-type" | "endpoint_type", "ETYPE", endpoint_type),
    flag!(PolicyArgs; "allow", action = Some(RuleAction::Allow)).choice(2),
    flag!(PolicyArgs; "deny", action = Some(RuleAction::Deny)).choice(2),
    flag!(PolicyArgs; "reject", action = Some(RuleAction::Reject)).choice(2),
    flag!(PolicyArgs; "log", log = Some(true)),
    flag!(PolicyArgs; "nolog", log = Some(false)),
    key!(PolicyArgs; "class", "{ CLASS | none }", class),
];

impl CliObject for PolicyArgs {
    const KIND: &'static str = "policy";
    const ADD: &'static [PolicyKeyword] = &POLICY_SETTINGS;
    const SET: &'static [PolicyKeyword] = &grammar::settable(POLICY_SETTINGS, 2);
    const DEL: &'static [PolicyKeyword] = &[NAME, DEV];

    const HONOURS: SupportedOptions = SupportedOptions::COUNTERS.and(SupportedOptions::NUMERIC);

    type Info = PolicyInfo;
    type Filter = NamedFilter;
    const SHOW: &'static [Keyword<NamedFilter>] = &[
        BY_NAME,
        BY_LINK,
        flag!(NamedFilter; "ingress", direction = Some(DirectionValue::Ingress)).at_most_one(1),
        flag!(NamedFilter; "egress", direction = Some(DirectionValue::Egress)).at_most_one(1),
    ];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::policy(verb, self))
    }

    fn all(
        context: &mut CommandContext,
        filter: &NamedFilter,
    ) -> Result<Vec<PolicyInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListPolicies { dev };
        Ok(context.call::<PoliciesReply>(&request)?.policies)
    }

    fn named(filter: &NamedFilter, _: &OutputStyle) -> Option<String> {
        filter.named()
    }

    fn name(info: &PolicyInfo, _: &OutputStyle) -> String {
        info.policy.name.to_string()
    }

    fn wants(filter: &NamedFilter, _: &OutputStyle, info: &PolicyInfo) -> bool {
        let rule = &info.policy;
        filter.direction.is_none() || filter.direction == rule.direction
    }
}

/// Commands of the object.
pub const POLICY_OBJECT: ObjectDef = ObjectDef {
    name: "policy",
    about: "rules: which flows are allowed",
    commands: &object::commands::<PolicyArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "WHO := { any | PREFIX | SELECTOR }\nSELECTOR := KEY=VALUE,KEY in (VALUE,...),!KEY,...\nPROTO := { tcp | udp | icmp | icmpv6 | sctp | N }    PORTS := N[-N][,...]\nETYPE := { simple | scaled | gateway | proxied | host }\nA lower pref is asked first, 100 if left out; at equal pref deny wins.",
};

impl Show for PolicyInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let p = &self.policy;
        let action = p.action.map_or("", RuleAction::word);
        OutputLine::new(style.name(&p.name))
            .value("dev", Some(style.name(&p.dev)))
            .word(p.direction.map_or("", DirectionValue::word))
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

    fn json(&self, _: &OutputStyle) -> Value {
        with(&self.policy, &json!({ "hits": self.hits }))
    }
}
