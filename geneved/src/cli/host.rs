//! `geneved host`: the daemon's own state, and what it knows of other hosts.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::command::{Command, Object};
use super::context::Context;
use super::error::CliError;
use super::field::key;
use super::grammar::{self, Keyword};
use super::honours::Honours;
use super::link::{consumed, dropped, drops};
use super::object;
use super::output::Record;
use super::style::Style;
use crate::config::value::IfName;
use crate::control::protocol::{Flushed, Host, HostInfo, PathMtuInfo, Request};
use crate::counted::counted;

const NOTHING: [Keyword<()>; 0] = [];

/// Which host's way is forgotten.
#[derive(Default)]
struct Wanted {
    address: Option<IpAddr>,
}

const FLUSH: &[Keyword<Wanted>] = &[key!(Wanted; "host" | "remote", "HOST", address).bare()];

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "host",
    about: "the daemon's own state, and other hosts",
    commands: &[
        Command::new(object::SHOWN, show, Vec::new)
            .honouring(Honours::BRIEF.and(Honours::DETAILS).and(Honours::COUNTERS)),
        Command::new(&["flush"], flush, || grammar::words(FLUSH)),
    ],
    usual: Some(0),
    notes: "HOST := ADDR\nWhat was learned of the way to HOST, or to all hosts, is flushed.",
};

fn show(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    grammar::parse(&NOTHING, words, &mut ())?;
    let Host { host } = context.call(&Request::GetHost)?;
    context.print(&[&host as &dyn Record])
}

fn flush(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut wanted = Wanted::default();
    grammar::parse(FLUSH, words, &mut wanted)?;
    let address = wanted.address;
    let request = Request::FlushHosts { address };
    let Flushed { count } = context.call(&request)?;
    context.print(&[&Count(count)])
}

struct Count(u64);

impl Record for Count {
    fn text(&self, _: &Style) -> String {
        format!("{} flushed", counted(self.0, "host"))
    }

    fn json(&self, _: &Style) -> Value {
        json!({ "flushed": self.0 })
    }
}

impl Record for HostInfo {
    fn text(&self, style: &Style) -> String {
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

    fn brief(&self, _: &Style) -> String {
        format!(
            "{:<10} {:<10} workers {} links {}",
            self.version, self.io, self.workers, self.links
        )
    }

    fn json(&self, _: &Style) -> Value {
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

/// Who reported a path MTU, and until when it holds.
fn said(style: &Style, report: &PathMtuInfo) -> String {
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
