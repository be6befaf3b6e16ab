//! `geneved nat`: NAT rules.

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
use crate::config::args::{ChangeVerb, NatArgs, ObjectChange};
use crate::config::value::NatKind;
use crate::control::protocol::{NatInfo, NatsReply, Request};

type NatKeyword = Keyword<NatArgs>;

named!(NatArgs);

const NAT_SETTINGS: [NatKeyword; 14] = [
    NAME,
    DEV,
    flag!(NatArgs; "snat", kind = Some(NatKind::Snat)).choice(1),
    flag!(NatArgs; "dnat", kind = Some(NatKind::Dnat)).choice(1),
    flag!(NatArgs; "static", kind = Some(NatKind::Static)).choice(1),
    key!(NatArgs; "from", "PREFIX", from),
    key!(NatArgs; "source", "ADDR[-ADDR]", source),
    key!(NatArgs; "ports", "MIN-MAX", ports),
    key!(NatArgs; "to", "ADDR", to),
    key!(NatArgs; "proto", "{ tcp | udp }", proto),
    key!(NatArgs; "dport", "PORT", dport),
    key!(NatArgs; "target", "ADDR[:PORT]", target),
    key!(NatArgs; "inside", "ADDR", inside),
    key!(NatArgs; "outside", "ADDR", outside),
];

impl CliObject for NatArgs {
    const KIND: &'static str = "nat";
    const ADD: &'static [NatKeyword] = &NAT_SETTINGS;
    const SET: &'static [NatKeyword] = &grammar::settable(NAT_SETTINGS, 2);
    const DEL: &'static [NatKeyword] = &[NAME, DEV];

    const HONOURS: SupportedOptions = SupportedOptions::COUNTERS.and(SupportedOptions::NUMERIC);

    type Info = NatInfo;
    type Filter = NamedFilter;
    const SHOW: &'static [Keyword<NamedFilter>] = &[BY_NAME, BY_LINK];

    fn change(self, verb: ChangeVerb, _: &mut CommandContext) -> Result<ObjectChange, CliError> {
        Ok(ObjectChange::nat(verb, self))
    }

    fn all(context: &mut CommandContext, filter: &NamedFilter) -> Result<Vec<NatInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListNats { dev };
        Ok(context.call::<NatsReply>(&request)?.nats)
    }

    fn named(filter: &NamedFilter, _: &OutputStyle) -> Option<String> {
        filter.named()
    }

    fn name(info: &NatInfo, _: &OutputStyle) -> String {
        info.nat.name.to_string()
    }

    fn wants(_: &NamedFilter, _: &OutputStyle, _: &NatInfo) -> bool {
        true
    }
}

/// Commands of the object.
pub const NAT_OBJECT: ObjectDef = ObjectDef {
    name: "nat",
    about: "addresses that become others",
    commands: &object::commands::<NatArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "snat takes \"from PREFIX source ADDR[-ADDR] [ ports MIN-MAX ]\",\n     ports 1024-65535 if left out;\ndnat takes \"to ADDR [ proto P dport PORT ] target ADDR[:PORT]\";\nstatic takes \"inside ADDR outside ADDR\".",
};

impl Show for NatInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let n = &self.nat;
        let ports = (style.statistics > 0 && self.total > 0).then(|| {
            format!(
                "{} of {}",
                style.number(self.in_use),
                style.number(self.total)
            )
        });
        let mut text = OutputLine::new(style.name(&n.name))
            .value("dev", Some(style.name(&n.dev)))
            .word(n.kind.map_or("", NatKind::word))
            .value("from", n.from.map(|p| style.address(p)))
            .value("source", n.source.map(|a| style.address(a)))
            .value("ports", n.ports.as_ref())
            .value("to", n.to.map(|a| style.address(a)))
            .value("proto", n.proto.map(|proto| style.proto(proto)))
            .value("dport", n.dport)
            .value("target", n.target.map(|a| style.address(a)))
            .value("inside", n.inside.map(|a| style.address(a)))
            .value("outside", n.outside.map(|a| style.address(a)))
            .end();
        if let Some(ports) = ports {
            text += &format!("\n    ports in use {ports}");
        }
        for missing in &self.missing {
            text += &format!("\n    missing: {missing}");
        }
        text
    }

    fn json(&self, _: &OutputStyle) -> Value {
        with(
            &self.nat,
            &json!({ "in_use": self.in_use, "total": self.total, "missing": self.missing }),
        )
    }
}
