//! `geneved check`: is a configuration valid; without one, what can this host do.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::context::Context;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::output::{self, Record};
use super::style::Style;
use super::table::{Command, Verb};
use crate::config::file;
use crate::control::protocol::FeatureInfo;

#[derive(Default)]
struct Words {
    file: Option<PathBuf>,
}

const KEYS: [Keyword<Words>; 1] = [
    Keyword::value(&["file"], "FILE", |words: &mut Words, file| {
        words.file = Some(match file {
            "default" => file::DEFAULT_PATH.into(),
            path => path.into(),
        });
        Ok(())
    })
    .bare(),
];

/// The command.
pub const VERB: Verb = Verb {
    name: "check",
    about: "is a configuration valid; without one, what can this host do",
    command: Command {
        names: &["check"],
        run,
        words: || grammar::words(&KEYS),
        netns: true,
    },
    notes: "FILE := { PATH | default }, default for /etc/geneved/geneved.toml",
};

fn run(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let mut given = Words::default();
    grammar::parse(&KEYS, words, &mut given)?;
    context.enter_netns()?;
    match given.file {
        None => host(&context.style()),
        Some(path) => check(&path),
    }
}

fn check(path: &Path) -> Result<(), CliError> {
    let config = file::load(path).map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        CliError::Refused(faults.join("\n"))
    })?;
    let state = &config.state;
    let counts = [
        (state.links.len(), "links"),
        (state.routes.len(), "routes"),
        (state.endpoints.len(), "endpoints"),
        (state.policies.len(), "policies"),
        (state.nats.len(), "nats"),
        (state.services.len(), "services"),
        (state.classes.len(), "classes"),
        (state.options.len(), "options"),
    ];
    // Every configuration is about the first three; the others are named where they are there.
    let told = counts.iter().enumerate();
    let told = told.filter(|(at, (count, _))| *at < 3 || *count > 0);
    let told: Vec<_> = told.map(|(_, (n, what))| format!("{n} {what}")).collect();
    output::say(&format!("{}: valid: {}", path.display(), told.join(", ")))
}

fn host(style: &Style) -> Result<(), CliError> {
    let features: Vec<FeatureInfo> = crate::io::probe()
        .into_iter()
        .map(|f| FeatureInfo {
            name: f.name.into(),
            available: f.available,
            detail: f.detail,
        })
        .chain(surroundings())
        .collect();
    let records: Vec<&dyn Record> = features.iter().map(|f| f as &dyn Record).collect();
    output::print(style, &records)?;
    let fatal = |f: &&FeatureInfo| !f.available && matches!(f.name.as_str(), "tun" | "net-admin");
    match features.iter().find(fatal) {
        None => Ok(()),
        Some(feature) => Err(CliError::Refused(format!(
            "Error: geneved cannot make links here: {}: {}",
            feature.name, feature.detail
        ))),
    }
}

/// What is not the packet path's to know.
fn surroundings() -> Vec<FeatureInfo> {
    let feature = |name: &str, available, with: &str, without: &str| FeatureInfo {
        name: name.into(),
        available,
        detail: if available { with } else { without }.into(),
    };
    let capable = |bit: u32| effective_capabilities().is_some_and(|set| set >> bit & 1 == 1);
    const CAP_NET_ADMIN: u32 = 12;
    const CAP_SYS_ADMIN: u32 = 21;
    let port = std::net::UdpSocket::bind(("0.0.0.0", 6081)).map(drop);
    let port_detail = match &port {
        Ok(()) => "UDP port 6081 is free".to_owned(),
        Err(e) => format!(
            "UDP port 6081: {e}; is a geneved running, a kernel geneve device (\"ip -d link show type geneve\") or Open vSwitch? \"ss -lunp\" names it; \"dstport\" chooses another port"
        ),
    };
    vec![
        feature(
            "net-admin",
            capable(CAP_NET_ADMIN),
            "CAP_NET_ADMIN is there",
            "CAP_NET_ADMIN is missing; run as root, or give the service AmbientCapabilities=CAP_NET_ADMIN",
        ),
        feature(
            "netns",
            capable(CAP_SYS_ADMIN),
            "links can be put into other network namespaces",
            "CAP_SYS_ADMIN is missing; links stay in the daemon's network namespace",
        ),
        FeatureInfo {
            name: "port-6081".into(),
            available: port.is_ok(),
            detail: port_detail,
        },
        feature(
            "ipv6",
            Path::new("/proc/net/if_inet6").exists(),
            "the kernel has IPv6",
            "the kernel has no IPv6; underlay and overlay are IPv4 only",
        ),
    ]
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// One feature on one line.
#[must_use]
pub fn feature(style: &Style, feature: &FeatureInfo) -> String {
    let state = if feature.available { "yes" } else { "no" };
    let padded = format!("{state:<3}");
    format!(
        "{:<12} {} {}",
        feature.name,
        style.health(feature.available, &padded),
        feature.detail
    )
}

impl Record for FeatureInfo {
    fn text(&self, style: &Style) -> String {
        feature(style, self)
    }

    fn brief(&self, _: &Style) -> String {
        format!(
            "{:<12} {}",
            self.name,
            if self.available { "yes" } else { "no" }
        )
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}
