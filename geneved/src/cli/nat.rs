//! `geneved nat`: addresses that become others.

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
use crate::config::value::NatKind;
use crate::config::words::{Change, NatWords, Verb};
use crate::control::protocol::{NatInfo, Nats, Request};

type Key = Keyword<NatWords>;

named!();

const SETTINGS: [Key; 14] = [
    NAME,
    DEV,
    flag!("snat", kind = Some(NatKind::Snat)).choice(1),
    flag!("dnat", kind = Some(NatKind::Dnat)).choice(1),
    flag!("static", kind = Some(NatKind::Static)).choice(1),
    key!("from", "PREFIX", from),
    key!("source", "ADDR[-ADDR]", source),
    key!("ports", "MIN-MAX", ports),
    key!("to", "ADDR", to),
    key!("proto", "{ tcp | udp }", proto),
    key!("dport", "PORT", dport),
    key!("target", "ADDR[:PORT]", target),
    key!("inside", "ADDR", inside),
    key!("outside", "ADDR", outside),
];

impl Subject for NatWords {
    const KIND: &'static str = "nat";
    const ADD: &'static [Key] = &SETTINGS;
    const SET: &'static [Key] = &grammar::settable(SETTINGS, 2);
    const DEL: &'static [Key] = &[NAME, DEV];

    const HONOURS: Honours = Honours::COUNTERS.and(Honours::NUMERIC);

    type Info = NatInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[BY_NAME, BY_LINK];

    fn change(self, verb: Verb, _: &mut Context) -> Result<Change, CliError> {
        Ok(Change::nat(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<NatInfo>, CliError> {
        let dev = filter.dev.clone();
        let request = Request::ListNats { dev };
        Ok(context.call::<Nats>(&request)?.nats)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.named()
    }

    fn name(info: &NatInfo, _: &Style) -> String {
        info.nat.name.to_string()
    }

    fn wants(_: &Wanted, _: &Style, _: &NatInfo) -> bool {
        true
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "nat",
    about: "addresses that become others",
    commands: &object::commands::<NatWords>(),
    usual: Some(object::SHOW),
    notes: "snat takes \"from PREFIX source ADDR[-ADDR] [ ports MIN-MAX ]\",\n     ports 1024-65535 if left out;\ndnat takes \"to ADDR [ proto P dport PORT ] target ADDR[:PORT]\";\nstatic takes \"inside ADDR outside ADDR\".",
};

impl Record for NatInfo {
    fn text(&self, style: &Style) -> String {
        let n = &self.nat;
        let ports = (style.statistics > 0 && self.total > 0).then(|| {
            format!(
                "{} of {}",
                style.number(self.in_use),
                style.number(self.total)
            )
        });
        let mut text = Line::new(style.name(&n.name))
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

    fn json(&self, _: &Style) -> Value {
        with(
            &self.nat,
            &json!({ "in_use": self.in_use, "total": self.total, "missing": self.missing }),
        )
    }
}
