//! `geneved link`: VPC links of this host.

use libgeneve::drop::DropReason;
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use serde_json::{Value, json};

use super::command::ObjectDef;
use super::context::CommandContext;
use super::error::CliError;
use super::field::{flag, key};
use super::grammar::{self, Keyword, Repetition};
use super::ip_compat::REFUSED_KEYWORDS;
use super::object::{self, CliObject};
use super::output::{Show, reasons};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::args::{ChangeVerb, LinkArgs, LinkKind, ObjectChange};
use crate::config::value::{IfName, InnerValue, ValueError};
use crate::control::client::CallError;
use crate::control::protocol::{HostReply, LinkInfo, LinksReply, Request, TrafficInfo};
use crate::net::netns;
use crate::refusal::Refusal;

type LinkKeyword = Keyword<LinkArgs>;

const LINK_NAME: LinkKeyword = key!(LinkArgs; "dev" | "name", "NAME", name)
    .bare()
    .times(Repetition::Once);
const LINK_TYPE: LinkKeyword = LinkKeyword::value(&["type"], "{ geneve | vxlan }", |link, word| {
    link.kind = Some(kind(word)?);
    Ok(())
});

fn kind(word: &str) -> Result<LinkKind, ValueError> {
    let known = Encapsulation::ALL.into_iter().find(|e| e.name() == word);
    known.map(LinkKind::from).ok_or_else(|| {
        ValueError::new("unknown link type: geneved makes \"geneve\" and \"vxlan\" links")
            .expecting(&["geneve", "vxlan"])
    })
}

/// The type follows the name, as with `ip`.
const LINK_OWN: [LinkKeyword; 40] = [
    LINK_NAME,
    LINK_TYPE.times(Repetition::Once),
    key!(LinkArgs; "id" | "vni", "VNI", id),
    key!(LinkArgs; "mode", "{ ip | ethernet }", mode),
    key!(LinkArgs; "inner", "{ ip | ethernet }", inner),
    flag!(LinkArgs; "innerprotoinherit", inner = Some(InnerValue(InnerProtocol::Ip))),
    flag!(
        LinkArgs; "noinnerprotoinherit",
        inner = Some(InnerValue(InnerProtocol::Ethernet))
    ),
    key!(LinkArgs; "lladdr", "MAC", lladdr),
    key!(LinkArgs; "remote", "ADDR", remote),
    key!(LinkArgs; "local", "ADDR", local),
    key!(LinkArgs; "dstport", "PORT", dstport),
    key!(LinkArgs; "ttl" | "hoplimit", "TTL", ttl),
    key!(LinkArgs; "tos" | "dsfield", "TOS", tos),
    key!(LinkArgs; "df", "DF", df),
    flag!(LinkArgs; "udpcsum", udpcsum = Some(true)),
    flag!(LinkArgs; "noudpcsum", udpcsum = Some(false)),
    flag!(LinkArgs; "udp6zerocsumtx", udp6zerocsumtx = Some(true)),
    flag!(LinkArgs; "noudp6zerocsumtx", udp6zerocsumtx = Some(false)),
    flag!(LinkArgs; "udp6zerocsumrx", udp6zerocsumrx = Some(true)),
    flag!(LinkArgs; "noudp6zerocsumrx", udp6zerocsumrx = Some(false)),
    // Always the case with geneved.
    LinkKeyword::flag(&["noexternal"], |_| ()),
    key!(LinkArgs; "srcport", "MIN-MAX", srcport),
    key!(LinkArgs; "segmentation", "{ auto | off }", segmentation),
    key!(LinkArgs; "mtu", "{ auto | N }", mtu),
    key!(LinkArgs; "address", "PREFIX", address).times(Repetition::Many),
    key!(LinkArgs; "allowed", "PREFIX", allowed).times(Repetition::Many),
    key!(LinkArgs; "netns", "NETNS", netns),
    key!(LinkArgs; "ingress", "{ allow | deny }", ingress),
    key!(LinkArgs; "egress", "{ allow | deny }", egress),
    key!(LinkArgs; "labels", "{ optional | critical }", labels),
    key!(LinkArgs; "option", "OPTION=HEX", option).times(Repetition::Many),
    key!(LinkArgs; "rate", "{ RATE | none }", rate),
    key!(LinkArgs; "burst", "{ SIZE | none }", burst),
    flag!(LinkArgs; "learning", learning = Some(true)),
    flag!(LinkArgs; "nolearning", learning = Some(false)),
    key!(LinkArgs; "ageing", "SECONDS", ageing),
    key!(LinkArgs; "maxaddress", "N", maxaddress),
    key!(LinkArgs; "floodrate", "FRAMES", floodrate),
    flag!(LinkArgs; "up", up = Some(true)).at_most_one(1),
    flag!(LinkArgs; "down", up = Some(false)).at_most_one(1),
];

const LINK_SETTINGS: [LinkKeyword; 47] = grammar::joined(LINK_OWN, REFUSED_KEYWORDS);

/// Filter of `show`.
#[derive(Default)]
pub struct LinkFilter {
    name: Option<IfName>,
    kind: Option<LinkKind>,
    up: bool,
}

impl CliObject for LinkArgs {
    const KIND: &'static str = "link";
    const ADD: &'static [LinkKeyword] = &LINK_SETTINGS;
    const SET: &'static [LinkKeyword] = &grammar::settable(LINK_SETTINGS, 1);
    const DEL: &'static [LinkKeyword] = &[LINK_NAME, LINK_TYPE];

    const HONOURS: SupportedOptions = SupportedOptions::BRIEF
        .and(SupportedOptions::BRIEF_JSON)
        .and(SupportedOptions::DETAILS)
        .and(SupportedOptions::COUNTERS)
        .and(SupportedOptions::FAMILY)
        .and(SupportedOptions::NETNS);
    const CHANGE_HONOURS: SupportedOptions = SupportedOptions::NETNS;

    type Info = LinkInfo;
    type Filter = LinkFilter;
    const SHOW: &'static [Keyword<LinkFilter>] = &[
        key!(LinkFilter; "dev" | "name", "NAME", name).bare(),
        flag!(LinkFilter; "up", up = true),
        Keyword::<LinkFilter>::value(&["type"], "{ geneve | vxlan }", |wanted, word| {
            wanted.kind = Some(kind(word)?);
            Ok(())
        }),
        Keyword::<LinkFilter>::refused(
            &["master", "nomaster", "vrf", "group"],
            "that is the interface's, not the tunnel's: use \"ip link show\"",
        ),
    ];

    fn change(
        mut self,
        verb: ChangeVerb,
        context: &mut CommandContext,
    ) -> Result<ObjectChange, CliError> {
        let makes = matches!(verb, ChangeVerb::Add | ChangeVerb::Replace);
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
        Ok(ObjectChange::link(verb, self))
    }

    fn all(context: &mut CommandContext, filter: &LinkFilter) -> Result<Vec<LinkInfo>, CliError> {
        let name = filter.name.clone();
        Ok(context
            .call::<LinksReply>(&Request::ListLinks { name })?
            .links)
    }

    fn named(filter: &LinkFilter, _: &OutputStyle) -> Option<String> {
        filter.name.as_ref().map(IfName::to_string)
    }

    fn name(info: &LinkInfo, _: &OutputStyle) -> String {
        info.settings.name.to_string()
    }

    fn wants(filter: &LinkFilter, _: &OutputStyle, info: &LinkInfo) -> bool {
        let kind = info.settings.kind.unwrap_or_default();
        (!filter.up || info.flags.iter().any(|flag| flag == "UP"))
            && filter.kind.is_none_or(|wanted| wanted == kind)
    }

    fn show(filter: &LinkFilter, context: &mut CommandContext) -> Result<(), CliError> {
        let style = context.style();
        let mut links = Self::all(context, filter)?;
        in_netns(context, filter.name.as_ref(), &mut links)?;
        links.retain(|link| Self::wants(filter, &style, link));
        // Packets of no link would otherwise go unnoticed here; in JSON there is no place for them in the array of
        // links.
        let everything = filter.name.is_none() && context.netns().is_none() && !style.json;
        let host = match everything && style.statistics > 0 {
            true => Some(UnmatchedTraffic(
                context.call::<HostReply>(&Request::GetHost)?.host.traffic,
            )),
            false => None,
        };
        let mut records: Vec<&dyn Show> = host.iter().map(|h| h as &dyn Show).collect();
        records.extend(links.iter().map(|l| l as &dyn Show));
        context.print(&records)
    }
}

/// Keeps the links in the namespace given by `-n`, if any.
///
/// # Errors
/// If there is no such namespace, or `name` is not in it.
pub fn in_netns(
    context: &mut CommandContext,
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
    // A link without a namespace is in the daemon's.
    let HostReply { host } = context.call(&Request::GetHost)?;
    links.retain(|link| match &link.settings.netns {
        Some(other) => *other == netns || netns::inode(other).is_ok_and(|inode| inode == wanted),
        None => host.netns_inode == wanted,
    });
    match name {
        Some(name) if links.is_empty() => Err(not_there(name, &netns)),
        _ => Ok(()),
    }
}

/// Checks that `-n` names the namespace of a link that is to be changed.
pub fn is_in(context: &mut CommandContext, name: &IfName, netns: &str) -> Result<(), CliError> {
    // With -atomic the link may be added earlier in the same batch.
    let mut added = context.gathered().into_iter().flatten();
    let is_added = |change: &ObjectChange| {
        let link = change.link.as_ref();
        link.is_some_and(|l| l.name == *name && l.netns.as_deref() == Some(netns))
    };
    if added.any(is_added) {
        return Ok(());
    }
    let request = Request::ListLinks {
        name: Some(name.clone()),
    };
    let LinksReply { mut links } = context.call(&request)?;
    in_netns(context, Some(name), &mut links)
}

fn not_there(name: &IfName, netns: &str) -> CliError {
    CallError::Refused(Refusal::new(
        format!("Cannot find device \"{name}\" in network namespace \"{netns}\""),
        "\"geneved link show\" lists the links of all namespaces",
    ))
    .into()
}

/// Commands of the object.
pub const LINK_OBJECT: ObjectDef = ObjectDef {
    name: "link",
    about: "VPCs on this host",
    commands: &object::commands::<LinkArgs>(),
    usual: Some(object::SHOW_INDEX),
    notes: "VNI := 0..16777215\nTTL := { 1..255 | auto | inherit }\nTOS := { N | inherit }\nDF := { set | unset | inherit }\ninnerprotoinherit := inner ip, as \"ip\" has it\nPREFIX := ADDR/LENGTH\nRATE := N{ bit | kbit | mbit | gbit | bps | kbps | mbps | ... } as in tc\nSIZE := N[ k | m | g ]",
};

/// Packets that belong to no link, shown as a separate record before the links.
struct UnmatchedTraffic(TrafficInfo);

impl Show for UnmatchedTraffic {
    fn text(&self, style: &OutputStyle) -> String {
        let drops = dropped(style, &self.0);
        if drops.is_empty() {
            drops
        } else {
            format!("host: packets of no link{drops}")
        }
    }

    fn brief(&self, _: &OutputStyle) -> String {
        String::new()
    }

    /// Not part of the array of links.
    fn json(&self, _: &OutputStyle) -> Value {
        Value::Null
    }
}

/// `{"ingress":{reason:n},"egress":{reason:n}}`.
pub fn drops(traffic: &TrafficInfo) -> Value {
    json!({ "ingress": traffic.drops_ingress, "egress": traffic.drops_egress })
}

/// The same for packets that this host consumed itself.
pub fn consumed(traffic: &TrafficInfo) -> Value {
    json!({ "ingress": traffic.consumed_ingress, "egress": traffic.consumed_egress })
}

/// Drops by reason and packets consumed by this host, each on a line that starts with a newline.
pub fn dropped(style: &OutputStyle, traffic: &TrafficInfo) -> String {
    let mut text = String::new();
    for (kind, drops) in [
        ("RX dropped", &traffic.drops_ingress),
        ("TX dropped", &traffic.drops_egress),
        ("RX consumed", &traffic.consumed_ingress),
        ("TX consumed", &traffic.consumed_egress),
    ] {
        if !drops.is_empty() {
            text += &format!("\n    {kind}: {}", reasons(style, drops));
            // `-s -s` explains the reasons.
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
