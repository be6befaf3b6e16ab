//! The command line: `ip`'s grammar, one file per object, text and JSON output.
//!
//! Owns argument parsing, exit codes and what is printed. What the words mean is decided by the
//! daemon, which is reached through [`crate::control`].

mod batch;
mod check;
mod endpoint;
mod error;
mod field;
mod flow;
mod foreign;
mod grammar;
mod host;
mod lab;
mod link;
mod link_record;
mod nat;
mod object;
mod option;
mod options;
mod output;
mod policy;
mod qos;
mod route;
mod service;
mod trace;

#[cfg(test)]
mod function_tests;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::de::DeserializeOwned;

use self::error::CliError;
use self::options::Options;
use self::output::{Record, Style};
use crate::config::file::DEFAULT_PATH;
use crate::config::state::nearest;
use crate::config::words::Change;
use crate::control::client::Client;
use crate::control::protocol::{Applied, Request, Saved};

/// What a command works with: the options and, once it is needed, the daemon.
struct Context {
    style: Style,
    socket: PathBuf,
    client: Option<Client>,
}

impl Context {
    fn new(options: &Options) -> Self {
        Context {
            style: Style::of(options),
            socket: options.socket.clone(),
            client: None,
        }
    }

    fn style(&self) -> Style {
        self.style
    }

    fn print(&self, records: &[&dyn Record]) {
        output::print(&self.style, records);
    }

    fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, CliError> {
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::connect(&self.socket)?),
        };
        Ok(client.call(request)?)
    }

    /// Makes one change; like `ip`, it says nothing when that worked.
    fn apply(&mut self, change: Change) -> Result<(), CliError> {
        self.call::<Applied>(&Request::Apply {
            changes: vec![change],
        })
        .map(drop)
    }
}

/// One command of an object.
struct Command {
    /// Its spellings; the first one is shown.
    names: &'static [&'static str],
    run: fn(&mut Context, &[String]) -> Result<(), CliError>,
    /// Its BNF, without "Usage: ".
    usage: fn() -> String,
}

/// A kind of thing that commands work on.
struct Object {
    name: &'static str,
    /// A few words for `geneved help`.
    about: &'static str,
    commands: &'static [Command],
    /// Below the BNF: what its metavariables are.
    notes: &'static str,
}

const OBJECTS: [&Object; 10] = [
    &link::OBJECT,
    &route::OBJECT,
    &endpoint::OBJECT,
    &policy::OBJECT,
    &nat::OBJECT,
    &service::OBJECT,
    &qos::OBJECT,
    &option::OBJECT,
    &flow::OBJECT,
    &host::OBJECT,
];

/// A command that works on no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Run,
    Check,
    Lab,
    Reload,
    Save,
    Trace,
    Help,
}

const VERBS: [(&str, Verb); 7] = [
    ("run", Verb::Run),
    ("check", Verb::Check),
    ("lab", Verb::Lab),
    ("reload", Verb::Reload),
    ("save", Verb::Save),
    ("trace", Verb::Trace),
    ("help", Verb::Help),
];

/// Runs the command line `argv` (its first word is the program's name).
#[must_use]
pub fn main(argv: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = argv
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    match options::parse(&arguments).and_then(|options| start(&options)) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            error.exit_code()
        }
    }
}

fn report(error: &CliError) {
    let text = error.to_string();
    if !text.is_empty() {
        eprintln!("{text}");
    }
}

fn start(options: &Options) -> Result<ExitCode, CliError> {
    if options.version {
        output::say(&format!("geneved {}", env!("CARGO_PKG_VERSION")));
        return Ok(ExitCode::SUCCESS);
    }
    let mut context = Context::new(options);
    match &options.batch {
        Some(file) => batch::run(&mut context, file, options.force).map(|()| ExitCode::SUCCESS),
        None => dispatch(&mut context, &options.words),
    }
}

/// Runs one command.
fn dispatch(context: &mut Context, words: &[String]) -> Result<ExitCode, CliError> {
    let Some((first, rest)) = words.split_first() else {
        return Err(CliError::Usage(usage()));
    };
    enum Target {
        Object(&'static Object),
        Verb(Verb),
    }
    let names = OBJECTS
        .iter()
        .enumerate()
        .map(|(at, o)| (o.name, (Some(at), None)));
    let names = names.chain(
        VERBS
            .iter()
            .map(|(name, verb)| (*name, (None, Some(*verb)))),
    );
    let target = match grammar::find(first, names.clone()) {
        Ok(Some((Some(at), _))) => Target::Object(OBJECTS[at]),
        Ok(Some((_, verb))) => Target::Verb(verb.unwrap_or(Verb::Help)),
        Ok(None) => {
            let near = nearest(first, names.map(|(name, _)| name));
            let hint = near
                .map(|near| format!(" Did you mean \"{near}\"?"))
                .unwrap_or_default();
            return Err(CliError::Usage(format!(
                "Object \"{first}\" is unknown, try \"geneved help\".{hint}"
            )));
        }
        Err(found) => return Err(ambiguous("Object", first, &found)),
    };
    match target {
        Target::Object(object) => on_object(context, object, rest).map(|()| ExitCode::SUCCESS),
        Target::Verb(verb) => verb_alone(context, verb, rest),
    }
}

fn on_object(context: &mut Context, object: &Object, words: &[String]) -> Result<(), CliError> {
    let (first, rest) = match words.split_first() {
        Some((first, rest)) => (first.as_str(), rest),
        None => ("show", words),
    };
    let names = object
        .commands
        .iter()
        .enumerate()
        .flat_map(|(at, c)| c.names.iter().map(move |n| (*n, at)));
    let names = names.chain([("help", usize::MAX)]);
    let found = grammar::find(first, names.clone()).or_else(|found| {
        // Two spellings of one command are not ambiguous.
        let at = |name: &str| object.commands.iter().position(|c| c.names.contains(&name));
        match found
            .iter()
            .all(|n| at(n).is_some() && at(n) == at(found[0]))
        {
            true => Ok(at(found[0])),
            false => Err(ambiguous("Command", first, &found)),
        }
    })?;
    match found.map(|at| object.commands.get(at)) {
        Some(Some(command)) => {
            if rest.first().is_some_and(|w| w == "help") {
                output::say(&format!("Usage: {}", (command.usage)()));
                return Ok(());
            }
            (command.run)(context, rest)
        }
        Some(None) => {
            output::say(&object_usage(object));
            Ok(())
        }
        None => {
            let near = nearest(first, names.map(|(name, _)| name));
            let hint = near
                .map(|near| format!(" Did you mean \"{near}\"?"))
                .unwrap_or_default();
            Err(CliError::Usage(format!(
                "Command \"{first}\" is unknown, try \"geneved {} help\".{hint}",
                object.name
            )))
        }
    }
}

fn ambiguous(kind: &str, word: &str, found: &[&str]) -> CliError {
    CliError::Usage(format!(
        "{kind} \"{word}\" is ambiguous: could be {}",
        found.join(", ")
    ))
}

fn verb_alone(context: &mut Context, verb: Verb, words: &[String]) -> Result<ExitCode, CliError> {
    if words.first().is_some_and(|w| w == "help") || verb == Verb::Help {
        output::say(&match verb {
            Verb::Trace => format!("Usage: {}", trace::usage()),
            _ => usage(),
        });
        return Ok(ExitCode::SUCCESS);
    }
    let nothing_follows = || match words.first() {
        None => Ok(()),
        Some(word) => Err(grammar::wrong(word, "nothing follows this command")),
    };
    match verb {
        Verb::Run => run(words)?,
        Verb::Check => check::run(&context.style(), words)?,
        Verb::Lab => return lab::run(words),
        Verb::Reload => {
            nothing_follows()?;
            output::say(&context.call::<Applied>(&Request::Reload)?.summary);
        }
        Verb::Save => {
            nothing_follows()?;
            output::say(&context.call::<Saved>(&Request::Save)?.text);
        }
        Verb::Trace => trace::run(context, words)?,
        Verb::Help => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// `run [ --config FILE ]`.
fn run(words: &[String]) -> Result<(), CliError> {
    let path = match words {
        [] => DEFAULT_PATH,
        [option] if option.starts_with("--config=") => &option["--config=".len()..],
        [option, path] if matches!(option.as_str(), "--config" | "-config" | "config") => path,
        [option] if option == "--config" => {
            return Err(CliError::Usage(
                "Command line is not complete. Try option \"help\"".into(),
            ));
        }
        [word, ..] => return Err(grammar::wrong(word, "expected \"--config FILE\"")),
    };
    crate::daemon::run(std::path::Path::new(path)).map_err(|faults| {
        let text: Vec<_> = faults
            .iter()
            .map(|fault| format!("Error: {fault}"))
            .collect();
        CliError::Refused(text.join("\n"))
    })
}

/// The BNF of everything.
fn usage() -> String {
    let mut text = String::from(
        "Usage: geneved [ OPTIONS ] OBJECT { COMMAND | help }
       geneved [ OPTIONS ] -b { FILE | - } [ -force ]
       geneved run [ --config FILE ]
       geneved check [ FILE ]
       geneved lab { run | up | down } [ prefix NAME ] [ seconds N ]
               [ io { auto | io_uring | syscalls } ] [ binary FILE ]
       geneved { reload | save }
       geneved trace dev LINK { egress | ingress } from ADDR to ADDR proto PROTO
               [ sport PORT dport PORT | icmp TYPE[/CODE] ] ...
where  OBJECT := {",
    );
    let names: Vec<_> = OBJECTS.iter().map(|o| o.name).collect();
    text += &format!(" {} }}\n", names.join(" | "));
    text += "       OPTIONS := { -V[ersion] | -s[tatistics] | -d[etails] | -j[son] | -p[retty] |\n";
    text += "               -br[ief] | -o[neline] | -c[olor][=auto|always|never] | -ts[hort] |\n";
    text += "               -h[uman] | --socket PATH }\n";
    for object in OBJECTS {
        text += &format!("       {:<9} {}\n", object.name, object.about);
    }
    text
}

fn object_usage(object: &Object) -> String {
    let mut text = String::new();
    for (at, command) in object.commands.iter().enumerate() {
        let head = if at == 0 { "Usage: " } else { "       " };
        text += &format!("{head}{}\n", (command.usage)().replace('\n', "\n       "));
    }
    if !object.notes.is_empty() {
        text += &format!("where  {}\n", object.notes.replace('\n', "\n       "));
    }
    text
}
