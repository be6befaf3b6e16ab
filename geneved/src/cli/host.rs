//! `geneved host`: state of the daemon, and what it knows of other hosts.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::{CommandDef, ObjectDef};
use super::context::CommandContext;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword};
use super::link::{consumed, dropped, drops};
use super::object;
use super::output::Show;
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::value::IfName;
use crate::control::protocol::{FlushReply, HostInfo, HostReply, PathMtuInfo, Request};
use crate::plural::counted;

const NO_KEYWORDS: [Keyword<()>; 0] = [];

/// Which host's way is forgotten.
#[derive(Default)]
struct HostSelection {
    address: Option<IpAddr>,
}

const HOST_FLUSH: &[Keyword<HostSelection>] =
    &[key!(HostSelection; "host" | "remote", "HOST", address).bare()];

/// Commands of the object.
pub const HOST_OBJECT: ObjectDef = ObjectDef {
    name: "host",
    about: "the daemon's own state, and other hosts",
    commands: &[
        CommandDef::new(object::SHOW_NAMES, show, Vec::new).honouring(
            SupportedOptions::BRIEF
                .and(SupportedOptions::DETAILS)
                .and(SupportedOptions::COUNTERS),
        ),
        CommandDef::new(&["flush"], flush, || grammar::words(HOST_FLUSH)),
    ],
    usual: Some(0),
    notes: "HOST := ADDR\nWhat was learned of the way to HOST, or to all hosts, is flushed.",
};

fn show(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    grammar::parse(&NO_KEYWORDS, words, &mut ())?;
    let HostReply { host } = context.call(&Request::GetHost)?;
    context.print(&[&host as &dyn Show])
}

fn flush(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut wanted = HostSelection::default();
    grammar::parse(HOST_FLUSH, words, &mut wanted)?;
    let address = wanted.address;
    let request = Request::FlushHosts { address };
    let FlushReply { count } = context.call(&request)?;
    context.print(&[&FlushedHosts(count)])
}

struct FlushedHosts(u64);

impl Show for FlushedHosts {
    fn text(&self, _: &OutputStyle) -> String {
        format!("{} flushed", counted(self.0, "host"))
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!({ "flushed": self.0 })
    }
}

impl Show for HostInfo {
    fn text(&self, style: &OutputStyle) -> String {
        let ports: Vec<_> = self.ports.iter().map(ToString::to_string).collect();
        let mut text = format!(
            "geneved {} pid {} links {} ports {}\n    io {} ({}) workers {}",
            self.version,
            self.pid,
            self.links,
            if ports.is_empty() {
                "none".into()
            } else {
                ports.join(",")
            },
            self.io,
            self.io_cause,
            self.workers
        );
        for feature in self
            .features
            .iter()
            .filter(|f| style.details || !f.available)
        {
            text += &format!("\n    {}", super::check::feature(style, feature));
        }
        text += &dropped(style, &self.traffic);
        for one in self.unknown_vnis.iter().filter(|_| style.statistics > 0) {
            text += &format!(
                "\n    unknown-vni {} port {} host {} count {}",
                one.vni,
                one.port,
                style.address(one.host),
                style.number(one.count)
            );
        }
        let errors = self.icmp_errors.iter().filter(|(_, count)| **count > 0);
        for (verdict, count) in errors.filter(|_| style.statistics > 0) {
            text += &format!("\n    icmp-errors {verdict} {}", style.number(*count));
        }
        for remote in &self.remotes {
            let links: Vec<_> = remote.links.iter().map(IfName::as_str).collect();
            text += &format!("\n    remote {}", style.address(remote.address));
            if let Some(mtu) = remote.path_mtu {
                text += &format!(" path-mtu {mtu}");
            }
            text += if remote.gso { " gso on" } else { " gso off" };
            if let Some(whole) = &remote.whole {
                text += &format!(" whole {whole}");
            }
            if style.details || links.len() <= 4 {
                text += &format!(" dev {}", style.name(links.join(",")));
            } else {
                text += &format!(" links {}", links.len());
            }
            if let (true, Some(cause)) = (style.details, &remote.whole_cause) {
                text += &format!(" ({cause})");
            }
            if let Some(report) = &remote.path_mtu_report {
                text += &format!("\n        {}", said(style, report));
            }
            if let Some(why) = &remote.unreachable {
                text += &format!("\n        unreachable: {why}");
            }
            if let Some(age) = remote.unreachable_age {
                text += &format!(", {age} s ago");
            }
        }
        text
    }

    fn brief(&self, _: &OutputStyle) -> String {
        format!(
            "{:<10} {:<10} workers {} links {}",
            self.version, self.io, self.workers, self.links
        )
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!({
            "version": self.version,
            "pid": self.pid,
            "io": self.io,
            "io_cause": self.io_cause,
            "workers": self.workers,
            "features": self.features,
            "ports": self.ports,
            "links": self.links,
            "drops": drops(&self.traffic),
            "consumed": consumed(&self.traffic),
            "unknown_vnis": self.unknown_vnis,
            "icmp_errors": self.icmp_errors,
            "remotes": self.remotes,
        })
    }
}

/// Formats who reported a path MTU, and until when it is valid.
fn said(style: &OutputStyle, report: &PathMtuInfo) -> String {
    let PathMtuInfo {
        by,
        reported,
        evidence,
        age_s,
        left_s,
    } = report;
    let by = style.address(by);
    format!(
        "path-mtu reported {reported} by {by} evidence {evidence} {age_s} s ago, longer packets are tried again in {left_s} s"
    )
}
