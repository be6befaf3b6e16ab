//! `geneved run`, `reload` and `save`: the daemon, and what it runs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::command::{Command, Verb};
use super::context::Context;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::honours::Honours;
use super::output::Record;
use super::style::Style;
use crate::config::file::DEFAULT_PATH;
use crate::control::protocol::{Reloaded, Request, Saved};

#[derive(Default)]
struct Words {
    config: Option<PathBuf>,
}

const RUN_KEYS: [Keyword<Words>; 1] = [Keyword::value(
    &["--config", "-config", "config"],
    "FILE",
    |words: &mut Words, file| {
        words.config = Some(file.into());
        Ok(())
    },
)];

#[derive(Default)]
struct Reload {
    dry_run: bool,
}

const RELOAD_KEYS: [Keyword<Reload>; 1] = [Keyword::flag(
    &["--dry-run", "-n", "-dry-run", "dry-run"],
    |how: &mut Reload| how.dry_run = true,
)];
const NOTHING: [Keyword<()>; 0] = [];

/// The daemon, in the foreground.
pub const RUN: Verb = Verb {
    name: "run",
    about: "the daemon, in the foreground",
    command: Command::new(&["run"], run, || grammar::words(&RUN_KEYS))
        .honouring_only(Honours::NETNS.and(Honours::SOCKET)),
    notes: "FILE := /etc/geneved/geneved.toml if left out; *.toml in conf.d beside it is\nread as well",
};

/// Reads the configuration again.
pub const RELOAD: Verb = Verb {
    name: "reload",
    about: "read the configuration again and apply the differences, all or none",
    command: Command::new(
        &["reload"],
        |context, words| {
            let mut how = Reload::default();
            grammar::parse(&RELOAD_KEYS, words, &mut how)?;
            let dry_run = how.dry_run;
            let done: Reloaded = context.call(&Request::Reload { dry_run })?;
            context.print(&[&done as &dyn Record])
        },
        || grammar::words(&RELOAD_KEYS),
    )
    .honouring(Honours::BRIEF),
    notes: "--dry-run, or -n, changes nothing and says what would be done",
};

/// Prints the running state.
pub const SAVE: Verb = Verb {
    name: "save",
    about: "print what runs, as a configuration",
    command: Command::new(
        &["save"],
        |context, words| {
            grammar::parse(&NOTHING, words, &mut ())?;
            let saved: Saved = context.call(&Request::Save)?;
            context.print(&[&saved as &dyn Record])
        },
        Vec::new,
    ),
    notes: "",
};

fn run(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    // `--config=FILE` is one word.
    let apart = words.iter().flat_map(|word| match word.split_once('=') {
        Some((option, file)) if option.starts_with('-') => vec![option.to_owned(), file.to_owned()],
        _ => vec![word.clone()],
    });
    let apart: Vec<String> = apart.collect();
    let mut given = Words::default();
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

impl Record for Reloaded {
    fn text(&self, _: &Style) -> String {
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

    fn brief(&self, _: &Style) -> String {
        self.summary.clone()
    }

    fn json(&self, _: &Style) -> Value {
        json!(self)
    }
}

impl Record for Saved {
    fn text(&self, _: &Style) -> String {
        self.text.clone()
    }

    fn json(&self, _: &Style) -> Value {
        self.config.clone()
    }
}
