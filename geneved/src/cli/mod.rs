//! The command line: `ip`'s grammar, one file per object, text and JSON output.
//!
//! Owns argument parsing, exit codes and what is printed. What the words mean is decided by the
//! daemon, which is reached through [`crate::control`].

mod batch;
mod capture;
mod check;
mod complete;
mod context;
mod endpoint;
mod error;
mod fdb;
mod field;
mod flow;
mod foreign;
mod grammar;
mod help;
mod host;
mod lab;
mod link;
mod link_record;
mod monitor;
mod nat;
mod object;
mod option;
mod options;
mod output;
mod policy;
mod qos;
mod route;
mod service;
mod state;
mod style;
mod synopsis;
mod table;
mod top;
mod trace;

#[cfg(test)]
mod function_tests;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use self::context::Context;
use self::error::CliError;
use self::options::Options;
use self::table::{Command, Object, Target};
use crate::config::state::nearest;

/// Runs the command line `argv` (its first word is the program's name).
#[must_use]
pub fn main(argv: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = argv
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match options::parse(&arguments).and_then(|options| start(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            error.exit_code()
        }
    }
}

fn report(error: &CliError) {
    let text = error.to_string();
    if !text.is_empty() {
        eprintln!("{}", text.trim_end());
    }
}

fn start(options: &Options) -> Result<(), CliError> {
    if options.version {
        return output::say(&format!("geneved {}", env!("CARGO_PKG_VERSION")));
    }
    let mut context = Context::new(options);
    match &options.batch {
        Some(file) => batch::run(&mut context, file, options.force),
        None => dispatch(&mut context, &options.words),
    }
}

/// Runs one command.
fn dispatch(context: &mut Context, words: &[String]) -> Result<(), CliError> {
    let Some((first, rest)) = words.split_first() else {
        return Err(CliError::Usage(help::everything()));
    };
    match target(first)? {
        Target::Object(object) => on_object(context, object, rest),
        Target::Verb(verb) => match rest.first().map(String::as_str) {
            Some("help" | "-help" | "--help") => output::say(&help::verb(verb)),
            _ => run(context, verb.name, &verb.command, rest),
        },
        Target::Help => match rest.first() {
            None => output::say(&help::everything()),
            Some(word) => match target(word)? {
                Target::Object(object) => output::say(&help::object(object)),
                Target::Verb(verb) => output::say(&help::verb(verb)),
                Target::Help => output::say(&help::everything()),
            },
        },
    }
}

fn target(word: &str) -> Result<Target, CliError> {
    match grammar::find(word, table::targets()) {
        Ok(Some(target)) => Ok(target),
        Ok(None) => Err(unknown("Object", word, "geneved help", table::names())),
        Err(found) => Err(ambiguous("Object", word, &found)),
    }
}

fn on_object(context: &mut Context, object: &Object, words: &[String]) -> Result<(), CliError> {
    let (first, rest) = match words.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => match object.usual {
            Some(usual) => (object.commands[usual].names[0], words),
            None => return Err(CliError::incomplete()),
        },
    };
    let command = match grammar::find(first, object.names()) {
        Ok(Some(Some(command))) => &object.commands[command],
        Ok(Some(None)) => return output::say(&help::object(object)),
        Ok(None) => {
            let help = format!("geneved {} help", object.name);
            let names = object.names().map(|(name, _)| name);
            return Err(unknown("Command", first, &help, names));
        }
        Err(found) => return Err(ambiguous("Command", first, &found)),
    };
    if let Some("help" | "-help" | "--help") = rest.first().map(String::as_str) {
        return output::say(&help::command(object, command));
    }
    let name = format!("{} {}", object.name, command.names[0]);
    run(context, &name, command, rest)
}

fn run(
    context: &mut Context,
    name: &str,
    command: &Command,
    words: &[String],
) -> Result<(), CliError> {
    if let (Some(_), false) = (context.netns(), command.netns) {
        return Err(CliError::Usage(format!(
            "Error: option \"-n\" has no meaning for \"{name}\": the daemon serves the links of all namespaces at one socket. It can be given with \"link\", \"check\" and \"run\"; a daemon of another namespace is reached with --socket."
        )));
    }
    (command.run)(context, words).map_err(|error| error.after_options(words))
}

fn unknown<'a>(
    kind: &str,
    word: &str,
    help: &str,
    names: impl Iterator<Item = &'a str>,
) -> CliError {
    let hint = nearest(word, names)
        .map(|near| format!(" Did you mean \"{near}\"?"))
        .unwrap_or_default();
    CliError::Usage(format!(
        "{kind} \"{word}\" is unknown, try \"{help}\".{hint}"
    ))
}

fn ambiguous(kind: &str, word: &str, found: &[&str]) -> CliError {
    CliError::Usage(format!(
        "{kind} \"{word}\" is ambiguous: could be {}",
        found.join(", ")
    ))
}
