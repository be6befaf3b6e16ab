//! `geneved lab`: the two-host demonstration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::command::{Command, Object};
use super::context::Context;
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::honours::Honours;
use crate::config::value::ValueError;
use crate::lab::{self, LabCommand, LabOptions};

type Key = Keyword<LabOptions>;

const KEYWORDS: [Key; 4] = [
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

/// The demonstration's commands.
pub const OBJECT: Object = Object {
    name: "lab",
    about: "two hosts in network namespaces on this machine, to see it work",
    commands: &[
        command(&["run"], |_, words| run(LabCommand::Run, words)),
        command(&["up"], |_, words| run(LabCommand::Up, words)),
        command(&["down"], |_, words| run(LabCommand::Down, words)),
    ],
    usual: Some(0),
    notes: "NAME := what the names of the namespaces begin with: geneved-lab if left out\nN := how long each transfer runs: 2 if left out",
};

const fn command(
    names: &'static [&'static str],
    run: fn(&mut Context, &[String]) -> Result<(), CliError>,
) -> Command {
    Command::new(names, run, || grammar::words(&KEYWORDS)).honouring_only(Honours::NOTHING)
}

fn run(command: LabCommand, words: &[String]) -> Result<(), CliError> {
    let mut options = LabOptions::default();
    grammar::parse(&KEYWORDS, words, &mut options)?;
    let code = lab::run(command, &options).map_err(|e| CliError::Refused(format!("Error: {e}")))?;
    match code == ExitCode::SUCCESS {
        true => Ok(()),
        false => Err(CliError::Reported(1)),
    }
}
