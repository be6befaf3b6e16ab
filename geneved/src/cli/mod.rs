//! The command line: `ip`'s grammar, one file per object, text and JSON output.
//!
//! Handles argument parsing, exit codes and output. The daemon, reached through [`crate::control`], decides what the
//! words mean.

mod address;
mod batch;
mod capture;
mod check;
mod command;
mod complete;
mod context;
mod endpoint;
mod error;
mod fdb;
mod field;
mod flow;
mod grammar;
mod help;
mod host;
mod ip_compat;
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
mod supported_options;
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

use self::command::{CommandDef, ObjectDef};
use self::context::CommandContext;
use self::error::CliError;
use self::options::GlobalOptions;
use self::table::FirstWord;
use crate::config::state::nearest;

/// Runs the command line `argv`, whose first word is the program name.
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
        output::tell(text.trim_end());
    }
}

fn start(options: &GlobalOptions) -> Result<(), CliError> {
    if options.version {
        return output::say(&format!("geneved {}", env!("CARGO_PKG_VERSION")));
    }
    supported_options::check_alone(options)?;
    let mut context = CommandContext::new(options);
    match &options.batch {
        Some(_) if options.force && options.atomic => Err(CliError::Usage(
            "Error: only one of \"-force\", \"-atomic\" can be given: the one goes on after a failure, the other changes nothing then."
                .into(),
        )),
        Some(file) if options.atomic => batch::run_atomic(&mut context, file),
        Some(file) => batch::run(&mut context, file, options.force),
        None => dispatch(&mut context, &options.words),
    }
}

/// Runs one command.
fn dispatch(context: &mut CommandContext, words: &[String]) -> Result<(), CliError> {
    let Some((first, rest)) = words.split_first() else {
        return Err(CliError::Usage(help::everything()));
    };
    match target(first)? {
        // `link address` is the same as `address`, since an address belongs to a link.
        FirstWord::Object(object)
            if object.name == link::LINK_OBJECT.name
                && rest
                    .first()
                    .is_some_and(|word| word == address::ADDRESS_OBJECT.name) =>
        {
            on_object(context, &address::ADDRESS_OBJECT, &rest[1..])
        }
        FirstWord::Object(object) => on_object(context, object, rest),
        FirstWord::Verb(verb) => match asks_for_help(rest) {
            true => output::say(&help::verb(verb)),
            false => helped(run(context, verb.name, &verb.command, rest), rest, || {
                help::verb(verb)
            }),
        },
        FirstWord::Help => match rest.first() {
            None => output::say(&help::everything()),
            Some(word) => match target(word)? {
                FirstWord::Object(object) => output::say(&help::object(object)),
                FirstWord::Verb(verb) => output::say(&help::verb(verb)),
                FirstWord::Help => output::say(&help::everything()),
            },
        },
    }
}

fn target(word: &str) -> Result<FirstWord, CliError> {
    match table::target(word) {
        Ok(Some(target)) => Ok(target),
        Ok(None) => Err(match ip_compat::object(word) {
            Some(advice) => CliError::Usage(format!(
                "Object \"{word}\" is unknown, try \"geneved help\". {advice}"
            )),
            None => unknown("Object", word, "geneved help", table::names()),
        }),
        Err(found) => Err(ambiguous("Object", word, &found)),
    }
}

fn on_object(
    context: &mut CommandContext,
    object: &ObjectDef,
    words: &[String],
) -> Result<(), CliError> {
    let (first, rest) = match words.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => match object.usual {
            Some(usual) => (object.commands[usual].names[0], words),
            None => return Err(CliError::incomplete()),
        },
    };
    if is_help_option(first) {
        return output::say(&help::object(object));
    }
    let command = match grammar::find(first, object.names()) {
        Ok(Some(Some(command))) => &object.commands[command],
        Ok(Some(None)) => return output::say(&help::object(object)),
        Ok(None) => {
            let help = format!("geneved {} help", object.name);
            let names = object.names().map(|(name, _)| name);
            return Err(unknown("Command", first, &help, names).after_options(words));
        }
        Err(found) => return Err(ambiguous("Command", first, &found)),
    };
    // The words to complete may contain anything, even `help`.
    if asks_for_help(rest) && object.name != complete::TEST_OBJECT.name {
        return output::say(&help::command(object, command));
    }
    let name = format!("{} {}", object.name, command.names[0]);
    helped(run(context, &name, command, rest), rest, || {
        help::command(object, command)
    })
}

/// Replaces an error by the help text if the last word asks for help.
fn helped(
    done: Result<(), CliError>,
    words: &[String],
    help: impl FnOnce() -> String,
) -> Result<(), CliError> {
    match (done, words.last()) {
        (Err(CliError::Usage(_)), Some(last)) if last == "help" => output::say(&help()),
        (done, _) => done,
    }
}

/// Whether `help` is given as the first keyword, or a help option anywhere.
fn asks_for_help(words: &[String]) -> bool {
    words.first().is_some_and(|word| word == "help") || words.iter().any(|w| is_help_option(w))
}

fn is_help_option(word: &str) -> bool {
    matches!(word, "-h" | "-help" | "--help")
}

fn run(
    context: &mut CommandContext,
    name: &str,
    command: &CommandDef,
    words: &[String],
) -> Result<(), CliError> {
    supported_options::check(context.options(), name, command)?;
    if context.gathered().is_some() && !command.changes {
        return Err(CliError::Usage(format!(
            "Error: \"{name}\" is no change, and with \"-atomic\" a batch has nothing but changes: put it into a batch of its own."
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
    let names: Vec<&str> = names.collect();
    let hint = ip_compat::same(word, &names)
        .or_else(|| nearest(word, names.iter().copied()))
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
