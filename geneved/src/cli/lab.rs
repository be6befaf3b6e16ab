//! `geneved lab`: the two-host demonstration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::error::CliError;
use super::grammar::{self, Keyword};
use crate::config::value::ValueError;
use crate::lab::{self, LabCommand, LabOptions};

type Key = Keyword<LabOptions>;

/// The keywords after `lab { run | up | down }`.
pub const KEYWORDS: [Key; 4] = [
    Key::value(&["prefix"], "NAME", |o, v| {
        o.prefix = v.to_owned();
        Ok(())
    }),
    Key::value(&["seconds"], "N", |o, v| {
        let seconds = v
            .parse()
            .map_err(|_| ValueError("not a number of seconds".into()))?;
        o.duration = Duration::from_secs(seconds);
        Ok(())
    }),
    Key::value(&["io"], "{ auto | io_uring | syscalls }", |o, v| {
        if !["auto", "io_uring", "syscalls"].contains(&v) {
            return Err(ValueError("\"auto\", \"io_uring\" or \"syscalls\"".into()));
        }
        o.io = v.to_owned();
        Ok(())
    }),
    Key::value(&["binary"], "FILE", |o, v| {
        o.binary = Some(PathBuf::from(v));
        Ok(())
    }),
];

/// Runs the demonstration.
///
/// # Errors
/// A word is wrong, or the demonstration could not be set up.
pub fn run(words: &[String]) -> Result<ExitCode, CliError> {
    let commands = [
        ("run", LabCommand::Run),
        ("up", LabCommand::Up),
        ("down", LabCommand::Down),
    ];
    let first = words.first().map_or("run", String::as_str);
    let (command, rest) = match grammar::find(first, commands) {
        Ok(Some(command)) => (command, words.get(1..).unwrap_or_default()),
        _ => return Err(grammar::wrong(first, "\"run\", \"up\" or \"down\"")),
    };
    let mut options = LabOptions::default();
    grammar::parse(&KEYWORDS, rest, &mut options)?;
    lab::run(command, &options).map_err(|e| CliError::Refused(format!("Error: {e}")))
}
