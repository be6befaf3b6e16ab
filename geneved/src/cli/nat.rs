//! `geneved nat`: addresses that become others.

use serde_json::{Value, json};

use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Line, Record, Style, with};
use super::policy::{given, is_or_any};
use super::{Context, Object};
use crate::config::value::NatKind;
use crate::config::words::{Change, NatWords, Verb};
use crate::control::protocol::{NatInfo, Nats, Request};

type Key = Keyword<NatWords>;

const NAME: Key = key!("name", "NAME", name).bare().times(Times::Once);
const DEV: Key = key!("dev", "LINK", dev).times(Times::Once);

impl Subject for NatWords {
    const NAME: &'static str = "nat";
    const ADD: &'static [Key] = &[
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
    const DEL: &'static [Key] = &[NAME, DEV];
    const SHOW: &'static [Key] = &[NAME.times(Times::Optional), DEV.times(Times::Optional)];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        Ok(Change::nat(verb, self))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let dev = given(self.dev);
        let Nats { mut nats } = context.call(&Request::ListNats { dev })?;
        nats.retain(|n| is_or_any(&self.name, &n.nat.name));
        object::print(context, &nats);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "nat",
    about: "addresses that become others",
    commands: &object::commands_without_set::<NatWords>(),
    notes: "snat takes \"from PREFIX source ADDR[-ADDR] [ ports MIN-MAX ]\",\n     ports 1024-65535 if left out;\ndnat takes \"to ADDR [ proto P dport PORT ] target ADDR[:PORT]\";\nstatic takes \"inside ADDR outside ADDR\".",
};

impl Record for NatInfo {
    fn text(&self, style: &Style) -> String {
        let n = &self.nat;
        let ports = (style.statistics && self.total > 0).then(|| {
            format!(
                "{} of {}",
                style.number(self.in_use),
                style.number(self.total)
            )
        });
        let mut text = Line::new(style.name(n.name.as_str()))
            .value("dev", Some(style.name(n.dev.as_str())))
            .word(n.kind.map_or("", NatKind::word))
            .value("from", n.from)
            .value("source", n.source)
            .value("ports", n.ports.as_ref())
            .value("to", n.to)
            .value("proto", n.proto)
            .value("dport", n.dport)
            .value("target", n.target)
            .value("inside", n.inside)
            .value("outside", n.outside)
            .end();
        if let Some(ports) = ports {
            text += &format!("\n    ports in use {ports}");
        }
        text
    }

    fn brief(&self, style: &Style) -> String {
        let plain = Style {
            statistics: false,
            ..*style
        };
        self.text(&plain)
    }

    fn json(&self, _: &Style) -> Value {
        with(
            &self.nat,
            &json!({ "in_use": self.in_use, "total": self.total }),
        )
    }
}
