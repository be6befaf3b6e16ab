//! `geneved check`: validates a configuration; without one, shows what this host supports. With `--service`,
//! [`service`] runs the same check as the service's user.

mod service;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::command::{CommandDef, GlobalCommand};
use super::context::CommandContext;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::output::{self, Show};
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::file::{self, Config, ConfigFault};
use crate::control::protocol::FeatureInfo;
use crate::daemon::{capability_probe, preflight};
use crate::io::FeatureReport;

#[derive(Default)]
struct CheckCommand {
    file: Option<PathBuf>,
    service: bool,
}

const CHECK_KEYWORDS: [Keyword<CheckCommand>; 2] = [
    Keyword::value(&["file"], "FILE", |words: &mut CheckCommand, file| {
        words.file = Some(match file {
            "default" => file::DEFAULT_PATH.into(),
            path => path.into(),
        });
        Ok(())
    })
    .bare(),
    Keyword::flag(&["--service"], |words: &mut CheckCommand| {
        words.service = true;
    }),
];

/// The command.
pub const CHECK_COMMAND: GlobalCommand = GlobalCommand {
    name: "check",
    about: "is a configuration valid; without one, what can this host do",
    command: CommandDef::new(&["check"], run, || grammar::words(&CHECK_KEYWORDS)).honouring_only(
        SupportedOptions::SHAPE
            .and(SupportedOptions::BRIEF)
            .and(SupportedOptions::NETNS)
            .and(SupportedOptions::SOCKET),
    ),
    notes: "FILE := { PATH | DIRECTORY | default }, default for /etc/geneved/geneved.toml\n\"--service\" asks as the user of geneved.service, with its capabilities.",
};

fn run(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let mut given = CheckCommand::default();
    grammar::parse(&CHECK_KEYWORDS, words, &mut given)?;
    context.enter_netns()?;
    match given.file {
        file if given.service => service::check(context, file.as_deref()),
        None => probe(context),
        Some(path) => check(&context.style(), &path),
    }
}

/// Result of checking a configuration.
struct CheckReport {
    path: PathBuf,
    found: Result<Config, Vec<ConfigFault>>,
    /// What this host lacks for the configuration.
    warnings: Vec<String>,
}

fn check(style: &OutputStyle, path: &Path) -> Result<(), CliError> {
    let path = match path.is_dir() {
        true => path.join("geneved.toml"),
        false => path.to_owned(),
    };
    let found = file::load(&path);
    let warnings = found.as_ref().map_or_else(
        |_| Vec::new(),
        |config| preflight::warnings(config, &file::files(&path)),
    );
    let checked = CheckReport {
        path,
        found,
        warnings,
    };
    match &checked.found {
        Err(faults) if !style.json => {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            Err(CliError::Refused(faults.join("\n")))
        }
        found => {
            output::print(style, &[&checked as &dyn Show])?;
            found.as_ref().map_err(|_| CliError::Reported(2)).map(drop)
        }
    }
}

fn counts(config: &Config) -> [(&'static str, usize); 8] {
    let state = &config.state;
    [
        ("links", state.links.len()),
        ("routes", state.routes.len()),
        ("endpoints", state.endpoints.len()),
        ("policies", state.policies.len()),
        ("nats", state.nats.len()),
        ("services", state.services.len()),
        ("classes", state.classes.len()),
        ("options", state.options.len()),
    ]
}

impl Show for CheckReport {
    fn text(&self, _: &OutputStyle) -> String {
        let counts = self.found.as_ref().map(counts).unwrap_or_default();
        // The first three counts are always shown, the others only if not zero.
        let told = counts.iter().enumerate();
        let told = told.filter(|(at, (_, count))| *at < 3 || *count > 0);
        let told: Vec<_> = told.map(|(_, (what, n))| format!("{n} {what}")).collect();
        let mut text = format!("{}: valid: {}", self.path.display(), told.join(", "));
        for warning in &self.warnings {
            text += &format!("\nwarning: {warning}");
        }
        text
    }

    fn json(&self, _: &OutputStyle) -> Value {
        let counts = self.found.as_ref().map(counts).unwrap_or_default();
        let objects: serde_json::Map<_, _> = counts
            .into_iter()
            .filter(|(what, _)| !what.is_empty())
            .map(|(what, count)| (what.to_owned(), count.into()))
            .collect();
        let faults = self.found.as_ref().err().into_iter().flatten();
        let faults: Vec<_> = faults
            .map(|fault| {
                let (line, column) = fault.at.unzip();
                json!({ "file": fault.file, "line": line, "column": column, "fault": fault.what })
            })
            .collect();
        json!({
            "file": self.path,
            "valid": self.found.is_ok(),
            "objects": objects,
            "faults": faults,
            "warnings": self.warnings,
        })
    }
}

fn probe(context: &CommandContext) -> Result<(), CliError> {
    let found = capability_probe::features(context.socket());
    let info = |f: &FeatureReport| FeatureInfo {
        name: f.kind.name().into(),
        available: f.available,
        detail: f.detail.clone(),
    };
    let features: Vec<FeatureInfo> = found.iter().map(info).collect();
    let records: Vec<&dyn Show> = features.iter().map(|f| f as &dyn Show).collect();
    context.print(&records)?;
    let fatal =
        |f: &&FeatureReport| !f.available && capability_probe::INDISPENSABLE.contains(&f.kind);
    match found.iter().find(fatal) {
        None => Ok(()),
        Some(feature) => Err(CliError::Refused(format!(
            "Error: geneved cannot make links here: {}: {}",
            feature.kind.name(),
            feature.detail
        ))),
    }
}

/// Formats one feature as a line.
#[must_use]
pub fn feature(style: &OutputStyle, feature: &FeatureInfo) -> String {
    let state = if feature.available { "yes" } else { "no" };
    let padded = format!("{state:<3}");
    format!(
        "{:<12} {} {}",
        feature.name,
        style.health(feature.available, &padded),
        feature.detail
    )
}

impl Show for FeatureInfo {
    fn text(&self, style: &OutputStyle) -> String {
        feature(style, self)
    }

    fn brief(&self, _: &OutputStyle) -> String {
        format!(
            "{:<12} {}",
            self.name,
            if self.available { "yes" } else { "no" }
        )
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}
