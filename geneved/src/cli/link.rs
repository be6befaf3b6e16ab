//! `geneved link`: the VPC's presence on this host.

use libgeneve::wire::encapsulation::{Encapsulation, Inner};
use serde_json::{Value, json};

use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{Keyword, Times};
use super::object::{self, Subject};
use super::output::{Record, Style, reasons};
use super::{Context, Object};
use crate::config::value::{InnerWord, ValueError};
use crate::config::words::{Change, LinkWords, Verb};
use crate::control::protocol::{Host, Links, Request, Traffic};

type Key = Keyword<LinkWords>;

const NAME: Key = key!("name" | "dev", "NAME", name).bare().times(Times::Once);
const TYPE: Key = Key::value(&["type"], "{ geneve | vxlan }", |l, v| {
    let known = Encapsulation::ALL.into_iter().find(|e| e.name() == v);
    let Some(encapsulation) = known else {
        return Err(ValueError(
            "unknown link type: geneved makes \"geneve\" and \"vxlan\" links".into(),
        ));
    };
    l.kind = Some(encapsulation.into());
    Ok(())
});

/// Settings that `add` and `set` share.
const SETTINGS: [Key; 28] = [
    NAME,
    key!("id" | "vni", "VNI", id),
    key!("inner", "{ ip | ethernet }", inner),
    flag!("innerprotoinherit", inner = Some(InnerWord(Inner::Ip))),
    flag!(
        "noinnerprotoinherit",
        inner = Some(InnerWord(Inner::Ethernet))
    ),
    key!("lladdr", "MAC", lladdr),
    key!("remote", "ADDR", remote),
    key!("local", "ADDR", local),
    key!("dstport", "PORT", dstport),
    key!("ttl" | "hoplimit", "TTL", ttl),
    key!("tos" | "dsfield", "TOS", tos),
    key!("df", "DF", df),
    flag!("udpcsum", udpcsum = Some(true)),
    flag!("noudpcsum", udpcsum = Some(false)),
    flag!("udp6zerocsumtx", udp6zerocsumtx = Some(true)),
    flag!("noudp6zerocsumtx", udp6zerocsumtx = Some(false)),
    flag!("udp6zerocsumrx", udp6zerocsumrx = Some(true)),
    flag!("noudp6zerocsumrx", udp6zerocsumrx = Some(false)),
    key!("srcport", "MIN-MAX", srcport),
    key!("mtu", "{ auto | N }", mtu),
    key!("address", "PREFIX", address).times(Times::Many),
    Key::value(&["netns"], "NAME", |l, v| {
        l.netns = Some(v.to_owned());
        Ok(())
    }),
    key!("ingress", "{ allow | deny }", ingress),
    key!("egress", "{ allow | deny }", egress),
    key!("labels", "{ optional | critical }", labels),
    key!("option", "NAME=HEX", option).times(Times::Many),
    key!("rate", "RATE", rate),
    key!("burst", "SIZE", burst),
];

/// The type stands behind the name, as `ip` has it.
const ADD: [Key; 29] = {
    let mut all = [TYPE; 29];
    let mut at = 0;
    while at < SETTINGS.len() {
        all[if at == 0 { 0 } else { at + 1 }] = SETTINGS[at];
        at += 1;
    }
    all[1] = TYPE.times(Times::Once);
    all
};

impl Subject for LinkWords {
    const NAME: &'static str = "link";
    const ADD: &'static [Key] = &ADD;
    const SET: &'static [Key] = &SETTINGS;
    const DEL: &'static [Key] = &[NAME, TYPE];
    const SHOW: &'static [Key] = &[NAME.times(Times::Optional), TYPE];

    fn change(self, verb: Verb) -> Result<Change, CliError> {
        if verb == Verb::Add && self.id.is_none() {
            let encapsulation = Encapsulation::from(self.kind.unwrap_or_default());
            return Err(CliError::Usage(format!(
                "{encapsulation}: missing virtual network identifier"
            )));
        }
        Ok(Change::link(verb, self))
    }

    fn show(self, context: &mut Context) -> Result<(), CliError> {
        let name = Some(self.name).filter(|n| !n.as_str().is_empty());
        let everything = name.is_none();
        let Links { links } = context.call(&Request::ListLinks { name })?;
        // What belongs to no link would otherwise be seen by nobody who only looks here.
        let host = match everything && context.style().statistics {
            true => Some(OfNoLink(
                context.call::<Host>(&Request::GetHost)?.host.traffic,
            )),
            false => None,
        };
        let mut records: Vec<&dyn Record> = host.iter().map(|h| h as &dyn Record).collect();
        records.extend(links.iter().map(|l| l as &dyn Record));
        context.print(&records);
        Ok(())
    }
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "link",
    about: "VPCs on this host",
    commands: &object::commands::<LinkWords>(),
    notes: "TTL := { 1..255 | auto | inherit }\nTOS := { N | inherit }\nDF := { set | unset | inherit }\ninnerprotoinherit := inner ip, as \"ip\" has it\nVNI := 0..16777215",
};

/// Packets that belong to no link: an own record before the links.
struct OfNoLink(Traffic);

impl Record for OfNoLink {
    fn text(&self, style: &Style) -> String {
        let drops = dropped(style, &self.0);
        if drops.is_empty() {
            drops
        } else {
            format!("host: packets of no link{drops}")
        }
    }

    fn brief(&self, _: &Style) -> String {
        String::new()
    }

    fn json(&self, _: &Style) -> Value {
        json!({ "scope": "host", "drops": drops(&self.0) })
    }
}

/// `{"ingress":{reason:n},"egress":{reason:n}}`.
pub fn drops(traffic: &Traffic) -> Value {
    json!({ "ingress": traffic.drops_ingress, "egress": traffic.drops_egress })
}

/// Lines with the drops by reason, each with a newline before it.
pub fn dropped(style: &Style, traffic: &Traffic) -> String {
    let mut text = String::new();
    for (direction, drops) in [
        ("RX", &traffic.drops_ingress),
        ("TX", &traffic.drops_egress),
    ] {
        if !drops.is_empty() {
            text += &format!("\n    {direction} dropped: {}", reasons(style, drops));
        }
    }
    text
}
