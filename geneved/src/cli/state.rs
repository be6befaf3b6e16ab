//! `geneved run`, `reload` and `save`: the daemon and its configuration.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::command::{CommandDef, GlobalCommand};
use super::context::CommandContext;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::output::Show;
use super::style::OutputStyle;
use super::supported_options::SupportedOptions;
use crate::config::file::DEFAULT_PATH;
use crate::control::protocol::{ReloadReply, Request, SaveReply};

#[derive(Default)]
struct StateCommand {
    config: Option<PathBuf>,
}

const RUN_KEYS: [Keyword<StateCommand>; 1] = [Keyword::value(
    &["--config", "-config", "config"],
    "FILE",
    |words: &mut StateCommand, file| {
        words.config = Some(file.into());
        Ok(())
    },
)];

#[derive(Default)]
struct ReloadCommand {
    dry_run: bool,
}

const RELOAD_KEYS: [Keyword<ReloadCommand>; 1] = [Keyword::flag(
    &["--dry-run", "-n", "-dry-run", "dry-run"],
    |how: &mut ReloadCommand| how.dry_run = true,
)];
const STATE_NO_KEYWORDS: [Keyword<()>; 0] = [];

/// Runs the daemon in the foreground.
pub const RUN_COMMAND: GlobalCommand = GlobalCommand {
    name: "run",
    about: "the daemon, in the foreground",
    command: CommandDef::new(&["run"], run, || grammar::words(&RUN_KEYS))
        .honouring_only(SupportedOptions::NETNS.and(SupportedOptions::SOCKET)),
    notes: "FILE := /etc/geneved/geneved.toml if left out; *.toml in conf.d beside it is\nread as well",
};

/// Reloads the configuration.
pub const RELOAD: GlobalCommand = GlobalCommand {
    name: "reload",
    about: "read the configuration again and apply the differences, all or none",
    command: CommandDef::new(
        &["reload"],
        |context, words| {
            let mut how = ReloadCommand::default();
            grammar::parse(&RELOAD_KEYS, words, &mut how)?;
            let dry_run = how.dry_run;
            let done: ReloadReply = context.call(&Request::Reload { dry_run })?;
            context.print(&[&done as &dyn Show])
        },
        || grammar::words(&RELOAD_KEYS),
    )
    .honouring(SupportedOptions::BRIEF),
    notes: "--dry-run, or -n, changes nothing and says what would be done",
};

/// Prints the running state.
pub const SAVE: GlobalCommand = GlobalCommand {
    name: "save",
    about: "print what runs, as a configuration",
    command: CommandDef::new(
        &["save"],
        |context, words| {
            grammar::parse(&STATE_NO_KEYWORDS, words, &mut ())?;
            let saved: SaveReply = context.call(&Request::Save)?;
            context.print(&[&saved as &dyn Show])
        },
        Vec::new,
    ),
    notes: "",
};

fn run(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    // `--config=FILE` is a single word.
    let apart = words.iter().flat_map(|word| match word.split_once('=') {
        Some((option, file)) if option.starts_with('-') => vec![option.to_owned(), file.to_owned()],
        _ => vec![word.clone()],
    });
    let apart: Vec<String> = apart.collect();
    let mut given = StateCommand::default();
    grammar::parse(&RUN_KEYS, &apart, &mut given)?;
    context.enter_netns()?;
    let path = given.config.unwrap_or_else(|| DEFAULT_PATH.into());
    let socket = context.named_socket();
    crate::daemon::run(Path::new(&path), socket).map_err(|faults| {
        let text: Vec<_> = faults
            .iter()
            .map(|fault| format!("Error: {fault}"))
            .collect();
        CliError::Refused(text.join("\n"))
    })
}

impl Show for ReloadReply {
    fn text(&self, _: &OutputStyle) -> String {
        let mut lines: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        lines.extend(self.restart.iter().map(|kept| {
            format!(
                "restart  [daemon] {} = {} ({} runs): {}",
                kept.key, kept.configured, kept.running, kept.reason
            )
        }));
        lines.push(self.summary.clone());
        lines.join("\n")
    }

    fn brief(&self, _: &OutputStyle) -> String {
        self.summary.clone()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        json!(self)
    }
}

impl Show for SaveReply {
    fn text(&self, _: &OutputStyle) -> String {
        self.text.clone()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        self.config.clone()
    }
}
