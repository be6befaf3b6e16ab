//! `geneved link`: the VPC's presence on this host.

use libgeneve::drop::DropReason;
use libgeneve::wire::encapsulation::{Encapsulation, Inner};
use serde_json::{Value, json};

use super::command::Object;
use super::context::Context;
use super::error::CliError;
use super::field::{flag, key};
use super::foreign::REFUSED;
use super::grammar::{self, Keyword, Times};
use super::honours::Honours;
use super::object::{self, Subject};
use super::output::{Record, reasons};
use super::style::Style;
use crate::config::value::{IfName, InnerWord, ValueError};
use crate::config::words::{Change, Kind, LinkWords, Verb};
use crate::control::client::ClientError;
use crate::control::protocol::{Host, LinkInfo, Links, Request, Traffic};
use crate::net::netns;
use crate::refusal::Refusal;

type Key = Keyword<LinkWords>;

const NAME: Key = key!("dev" | "name", "NAME", name).bare().times(Times::Once);
const TYPE: Key = Key::value(&["type"], "{ geneve | vxlan }", |link, word| {
    link.kind = Some(kind(word)?);
    Ok(())
});

fn kind(word: &str) -> Result<Kind, ValueError> {
    let known = Encapsulation::ALL.into_iter().find(|e| e.name() == word);
    known.map(Kind::from).ok_or_else(|| {
        ValueError::new("unknown link type: geneved makes \"geneve\" and \"vxlan\" links")
            .expecting(&["geneve", "vxlan"])
    })
}

/// The type stands behind the name, as `ip` has it.
const OWN: [Key; 40] = [
    NAME,
    TYPE.times(Times::Once),
    key!("id" | "vni", "VNI", id),
    key!("mode", "{ ip | ethernet }", mode),
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
    // What geneved does anyhow.
    Key::flag(&["noexternal"], |_| ()),
    key!("srcport", "MIN-MAX", srcport),
    key!("segmentation", "{ auto | off }", segmentation),
    key!("mtu", "{ auto | N }", mtu),
    key!("address", "PREFIX", address).times(Times::Many),
    key!("allowed", "PREFIX", allowed).times(Times::Many),
    key!("netns", "NETNS", netns),
    key!("ingress", "{ allow | deny }", ingress),
    key!("egress", "{ allow | deny }", egress),
    key!("labels", "{ optional | critical }", labels),
    key!("option", "OPTION=HEX", option).times(Times::Many),
    key!("rate", "{ RATE | none }", rate),
    key!("burst", "{ SIZE | none }", burst),
    flag!("learning", learning = Some(true)),
    flag!("nolearning", learning = Some(false)),
    key!("ageing", "SECONDS", ageing),
    key!("maxaddress", "N", maxaddress),
    key!("floodrate", "FRAMES", floodrate),
    flag!("up", up = Some(true)).at_most_one(1),
    flag!("down", up = Some(false)).at_most_one(1),
];

const SETTINGS: [Key; 47] = grammar::joined(OWN, REFUSED);

/// Which links are shown.
#[derive(Default)]
pub struct Wanted {
    name: Option<IfName>,
    kind: Option<Kind>,
    up: bool,
}

impl Subject for LinkWords {
    const KIND: &'static str = "link";
    const ADD: &'static [Key] = &SETTINGS;
    const SET: &'static [Key] = &grammar::settable(SETTINGS, 1);
    const DEL: &'static [Key] = &[NAME, TYPE];

    const HONOURS: Honours = Honours::BRIEF
        .and(Honours::BRIEF_JSON)
        .and(Honours::DETAILS)
        .and(Honours::COUNTERS)
        .and(Honours::FAMILY)
        .and(Honours::NETNS);
    const CHANGE_HONOURS: Honours = Honours::NETNS;

    type Info = LinkInfo;
    type Filter = Wanted;
    const SHOW: &'static [Keyword<Wanted>] = &[
        key!(Wanted; "dev" | "name", "NAME", name).bare(),
        flag!(Wanted; "up", up = true),
        Keyword::<Wanted>::value(&["type"], "{ geneve | vxlan }", |wanted, word| {
            wanted.kind = Some(kind(word)?);
            Ok(())
        }),
        Keyword::<Wanted>::refused(
            &["master", "nomaster", "vrf", "group"],
            "that is the interface's, not the tunnel's: use \"ip link show\"",
        ),
    ];

    fn change(mut self, verb: Verb, context: &mut Context) -> Result<Change, CliError> {
        let makes = matches!(verb, Verb::Add | Verb::Replace);
        if makes && self.id.is_none() {
            let encapsulation = Encapsulation::from(self.kind.unwrap_or_default());
            return Err(CliError::Usage(format!(
                "{encapsulation}: missing virtual network identifier"
            )));
        }
        if let Some(netns) = context.netns().map(str::to_owned) {
            match (makes, &self.netns) {
                (true, None) => self.netns = Some(netns),
                (true, Some(other)) if *other != netns => {
                    return Err(grammar::wrong(
                        other,
                        format_args!("option \"-n\" says \"{netns}\""),
                    ));
                }
                (true, Some(_)) => {}
                _ => is_in(context, &self.name, &netns)?,
            }
        }
        Ok(Change::link(verb, self))
    }

    fn all(context: &mut Context, filter: &Wanted) -> Result<Vec<LinkInfo>, CliError> {
        let name = filter.name.clone();
        Ok(context.call::<Links>(&Request::ListLinks { name })?.links)
    }

    fn named(filter: &Wanted, _: &Style) -> Option<String> {
        filter.name.as_ref().map(IfName::to_string)
    }

    fn name(info: &LinkInfo, _: &Style) -> String {
        info.settings.name.to_string()
    }

    fn wants(filter: &Wanted, _: &Style, info: &LinkInfo) -> bool {
        let kind = info.settings.kind.unwrap_or_default();
        (!filter.up || info.flags.iter().any(|flag| flag == "UP"))
            && filter.kind.is_none_or(|wanted| wanted == kind)
    }

    fn show(filter: &Wanted, context: &mut Context) -> Result<(), CliError> {
        let style = context.style();
        let mut links = Self::all(context, filter)?;
        in_netns(context, filter.name.as_ref(), &mut links)?;
        links.retain(|link| Self::wants(filter, &style, link));
        // What belongs to no link would otherwise be seen by nobody who only looks here; JSON is an array of links.
        let everything = filter.name.is_none() && context.netns().is_none() && !style.json;
        let host = match everything && style.statistics > 0 {
            true => Some(OfNoLink(
                context.call::<Host>(&Request::GetHost)?.host.traffic,
            )),
            false => None,
        };
        let mut records: Vec<&dyn Record> = host.iter().map(|h| h as &dyn Record).collect();
        records.extend(links.iter().map(|l| l as &dyn Record));
        context.print(&records)
    }
}

/// Keeps the links that are in the namespace that `-n` names, if it names one.
///
/// # Errors
/// There is no such namespace, or `name` is not in it.
pub fn in_netns(
    context: &mut Context,
    name: Option<&IfName>,
    links: &mut Vec<LinkInfo>,
) -> Result<(), CliError> {
    let Some(netns) = context.netns().map(str::to_owned) else {
        return Ok(());
    };
    let wanted = netns::inode(&netns).map_err(|error| {
        CliError::Refused(format!(
            "Cannot open network namespace \"{netns}\": {error}; \"ip netns\" lists the names"
        ))
    })?;
    // A link that names none is where the daemon is.
    let Host { host } = context.call(&Request::GetHost)?;
    links.retain(|link| match &link.settings.netns {
        Some(other) => *other == netns || netns::inode(other).is_ok_and(|inode| inode == wanted),
        None => host.netns_inode == wanted,
    });
    match name {
        Some(name) if links.is_empty() => Err(not_there(name, &netns)),
        _ => Ok(()),
    }
}

/// Sees to it that `-n` names the namespace of a link that is changed.
pub fn is_in(context: &mut Context, name: &IfName, netns: &str) -> Result<(), CliError> {
    // With -atomic it may be on its way.
    let mut added = context.gathered().into_iter().flatten();
    let is_added = |change: &Change| {
        let link = change.link.as_ref();
        link.is_some_and(|l| l.name == *name && l.netns.as_deref() == Some(netns))
    };
    if added.any(is_added) {
        return Ok(());
    }
    let request = Request::ListLinks {
        name: Some(name.clone()),
    };
    let Links { mut links } = context.call(&request)?;
    in_netns(context, Some(name), &mut links)
}

fn not_there(name: &IfName, netns: &str) -> CliError {
    ClientError::Refused(Refusal::new(
        format!("Cannot find device \"{name}\" in network namespace \"{netns}\""),
        "\"geneved link show\" lists the links of all namespaces",
    ))
    .into()
}

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "link",
    about: "VPCs on this host",
    commands: &object::commands::<LinkWords>(),
    usual: Some(object::SHOW),
    notes: "VNI := 0..16777215\nTTL := { 1..255 | auto | inherit }\nTOS := { N | inherit }\nDF := { set | unset | inherit }\ninnerprotoinherit := inner ip, as \"ip\" has it\nPREFIX := ADDR/LENGTH\nRATE := N{ bit | kbit | mbit | gbit | bps | kbps | mbps | ... } as in tc\nSIZE := N[ k | m | g ]",
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

    /// It is none of the array of links.
    fn json(&self, _: &Style) -> Value {
        Value::Null
    }
}

/// `{"ingress":{reason:n},"egress":{reason:n}}`.
pub fn drops(traffic: &Traffic) -> Value {
    json!({ "ingress": traffic.drops_ingress, "egress": traffic.drops_egress })
}

/// The same of what was for this host itself.
pub fn consumed(traffic: &Traffic) -> Value {
    json!({ "ingress": traffic.consumed_ingress, "egress": traffic.consumed_egress })
}

/// Lines with the drops by reason, each with a newline before it, and with what was for this host itself.
pub fn dropped(style: &Style, traffic: &Traffic) -> String {
    let mut text = String::new();
    for (kind, drops) in [
        ("RX dropped", &traffic.drops_ingress),
        ("TX dropped", &traffic.drops_egress),
        ("RX consumed", &traffic.consumed_ingress),
        ("TX consumed", &traffic.consumed_egress),
    ] {
        if !drops.is_empty() {
            text += &format!("\n    {kind}: {}", reasons(style, drops));
            // Twice -s: what each of them means.
            let known = DropReason::ALL
                .iter()
                .filter(|r| drops.contains_key(r.name()));
            for reason in known.filter(|_| style.statistics > 1) {
                let (name, why) = (reason.name(), reason.explanation());
                text += &format!("\n        {name}: {why}");
            }
        }
    }
    text
}
