//! `geneved lab`: the two-host demonstration.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::command::{CommandDef, ObjectDef};
use super::error::CliError;
use super::grammar::{self, Keyword};
use super::supported_options::SupportedOptions;
use crate::config::value::ValueError;
use crate::lab::{self, LabCommand, LabOptions};

type LabKeyword = Keyword<LabOptions>;

const LAB_PREFIX: LabKeyword = LabKeyword::value(&["prefix"], "NAME", |o, v| {
    o.prefix = v.to_owned();
    Ok(())
});
const LAB_SECONDS: LabKeyword = LabKeyword::value(&["seconds"], "N", |o, v| {
    let seconds = v
        .parse()
        .map_err(|_| ValueError::new("not a number of seconds"))?;
    o.duration = Duration::from_secs(seconds);
    Ok(())
});
const IO: LabKeyword = LabKeyword::value(&["io"], "{ auto | io_uring | syscalls }", |o, v| {
    const CHOICES: &[&str] = &["auto", "io_uring", "syscalls"];
    if !CHOICES.contains(&v) {
        let wrong = ValueError::new("\"auto\", \"io_uring\" or \"syscalls\"");
        return Err(wrong.expecting(CHOICES));
    }
    o.io = v.to_owned();
    Ok(())
});
const LAB_BINARY: LabKeyword = LabKeyword::value(&["binary"], "FILE", |o, v| {
    o.binary = Some(PathBuf::from(v));
    Ok(())
});

/// Keywords of each command: `up` sends no traffic, and removal needs no daemon binary.
const LAB_RUN: &[LabKeyword] = &[LAB_PREFIX, LAB_SECONDS, IO, LAB_BINARY];
const UP: &[LabKeyword] = &[LAB_PREFIX, IO, LAB_BINARY];
const DOWN: &[LabKeyword] = &[LAB_PREFIX];

/// Commands of the object.
pub const LAB_OBJECT: ObjectDef = ObjectDef {
    name: "lab",
    about: "two hosts in network namespaces on this machine, to see it work",
    commands: &[
        CommandDef::new(
            &["run"],
            |_, words| run(LabCommand::Run, LAB_RUN, words),
            || grammar::words(LAB_RUN),
        )
        .honouring_only(SupportedOptions::NOTHING),
        CommandDef::new(
            &["up"],
            |_, words| run(LabCommand::Up, UP, words),
            || grammar::words(UP),
        )
        .honouring_only(SupportedOptions::NOTHING),
        CommandDef::new(
            &["down"],
            |_, words| run(LabCommand::Down, DOWN, words),
            || grammar::words(DOWN),
        )
        .honouring_only(SupportedOptions::NOTHING),
    ],
    usual: Some(0),
    notes: "NAME := what the names of the namespaces begin with: geneved-lab if left out\nN := how long each transfer runs: 2 if left out",
};

fn run(command: LabCommand, keywords: &[LabKeyword], words: &[String]) -> Result<(), CliError> {
    let mut options = LabOptions::default();
    grammar::parse(keywords, words, &mut options)?;
    let code = lab::run(command, &options).map_err(|e| CliError::Refused(format!("Error: {e}")))?;
    match code == ExitCode::SUCCESS {
        true => Ok(()),
        false => Err(CliError::Reported(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_mean_nothing_to_a_command_are_refused() {
        let refused = |keywords: &[LabKeyword]| {
            let words = ["seconds".to_owned(), "5".to_owned()];
            let parsed = grammar::parse(keywords, &words, &mut LabOptions::default());
            match parsed {
                Err(CliError::Usage(text)) => text,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            refused(DOWN),
            "Error: argument \"seconds\" is wrong: unknown keyword; expected \"prefix\""
        );
        assert!(refused(UP).ends_with("expected \"prefix\", \"io\", \"binary\""));
        let mut options = LabOptions::default();
        let words = ["seconds".to_owned(), "5".to_owned()];
        grammar::parse(LAB_RUN, &words, &mut options).unwrap();
        assert_eq!(options.duration, Duration::from_secs(5));
    }
}
