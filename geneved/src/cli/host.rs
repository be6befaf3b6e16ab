//! `geneved host`: the daemon's own state, and what it knows of other hosts.

use serde_json::{Value, json};

use super::command::{Command, Object};
use super::context::Context;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::honours::Honours;
use super::link::{consumed, dropped, drops};
use super::object;
use super::output::Record;
use super::style::Style;
use crate::config::value::IfName;
use crate::control::protocol::{Host, HostInfo, Request};

const NOTHING: [Keyword<()>; 0] = [];

/// The object's commands.
pub const OBJECT: Object = Object {
    name: "host",
    about: "the daemon's own state, and other hosts",
    commands: &[Command::new(object::SHOWN, show, Vec::new)
        .honouring(Honours::BRIEF.and(Honours::DETAILS).and(Honours::COUNTERS))],
    usual: Some(0),
    notes: "",
};

fn show(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    grammar::parse(&NOTHING, words, &mut ())?;
    let Host { host } = context.call(&Request::GetHost)?;
    context.print(&[&host as &dyn Record])
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
            "remotes": self.remotes,
        })
    }
}
