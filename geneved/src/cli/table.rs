//! The objects and the commands that work on none: one table that dispatch, help and completion read.

use super::context::Context;
use super::error::CliError;
use super::synopsis::Word;
use super::{
    capture, check, complete, endpoint, fdb, flow, grammar, host, lab, link, monitor, nat, option,
    policy, qos, route, service, state, top, trace,
};

/// One command.
#[derive(Clone, Copy)]
pub struct Command {
    /// Its spellings; the first one is shown.
    pub names: &'static [&'static str],
    /// Runs it with the words behind it.
    pub run: fn(&mut Context, &[String]) -> Result<(), CliError>,
    /// The keywords that it takes.
    pub words: fn() -> Vec<Word>,
    /// Whether `-n NETNS` means something to it.
    pub netns: bool,
    /// Whether all that it does is to ask for a change, which can be gathered with others.
    pub changes: bool,
}

impl Command {
    /// A command that does not care for `-n`, and does more than to ask for a change.
    pub const fn new(
        names: &'static [&'static str],
        run: fn(&mut Context, &[String]) -> Result<(), CliError>,
        words: fn() -> Vec<Word>,
    ) -> Self {
        Command {
            names,
            run,
            words,
            netns: false,
            changes: false,
        }
    }

    /// The same, but `-n NETNS` means something to it.
    #[must_use]
    pub const fn in_netns(self) -> Self {
        Command {
            netns: true,
            ..self
        }
    }

    /// The same, but it only asks for a change.
    #[must_use]
    pub const fn changing(self) -> Self {
        Command {
            changes: true,
            ..self
        }
    }
}

/// A kind of thing that commands work on.
pub struct Object {
    /// Its name.
    pub name: &'static str,
    /// A few words for `geneved help`.
    pub about: &'static str,
    /// What can be done with it.
    pub commands: &'static [Command],
    /// Which of the commands is meant where none is named, if one is.
    pub usual: Option<usize>,
    /// Below the BNF: what its metavariables are.
    pub notes: &'static str,
}

impl Object {
    /// The spellings of its commands, and of `help`, which is none.
    pub fn names(&self) -> impl Iterator<Item = (&'static str, Option<usize>)> + Clone {
        let all = self.commands.iter().enumerate();
        all.flat_map(|(at, c)| c.names.iter().map(move |name| (*name, Some(at))))
            .chain([("help", None)])
    }
}

/// A command that works on no object.
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// A few words for `geneved help`.
    pub about: &'static str,
    /// What it does.
    pub command: Command,
    /// Below the BNF: what its metavariables are.
    pub notes: &'static str,
}

/// Every object.
pub const OBJECTS: [&Object; 13] = [
    &link::OBJECT,
    &route::OBJECT,
    &fdb::OBJECT,
    &endpoint::OBJECT,
    &policy::OBJECT,
    &nat::OBJECT,
    &service::OBJECT,
    &qos::OBJECT,
    &option::OBJECT,
    &flow::OBJECT,
    &host::OBJECT,
    &lab::OBJECT,
    &complete::OBJECT,
];

/// Every command that works on no object.
pub const VERBS: [&Verb; 8] = [
    &state::RUN,
    &check::VERB,
    &state::RELOAD,
    &state::SAVE,
    &trace::VERB,
    &monitor::VERB,
    &capture::VERB,
    &top::VERB,
];

/// What the first word is.
#[derive(Clone, Copy)]
pub enum Target {
    /// An object.
    Object(&'static Object),
    /// A command that works on none.
    Verb(&'static Verb),
    /// The grammar of everything, or of what follows.
    Help,
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Target::Object(object) => object.name,
            Target::Verb(verb) => verb.name,
            Target::Help => "help",
        }
    }
}

/// What `ip` calls these objects for short, although other words begin so as well.
const SHORT: [(&str, Target); 2] = [
    ("l", Target::Object(&link::OBJECT)),
    ("r", Target::Object(&route::OBJECT)),
];

/// What `word` is, by its whole name, an unambiguous beginning, or `ip`'s short form of it.
///
/// # Errors
/// It is the beginning of several names; those.
pub fn target(word: &str) -> Result<Option<Target>, Vec<&'static str>> {
    match SHORT.iter().find(|(short, _)| *short == word) {
        Some((_, target)) => Ok(Some(*target)),
        None => grammar::find(word, targets()),
    }
}

/// Everything that the first word can be.
pub fn targets() -> impl Iterator<Item = (&'static str, Target)> {
    let objects = OBJECTS.iter().map(|object| Target::Object(object));
    let verbs = VERBS.iter().map(|verb| Target::Verb(verb));
    let all = objects.chain(verbs).chain([Target::Help]);
    all.map(|target| (target.name(), target))
}

/// The names of everything that the first word can be.
pub fn names() -> impl Iterator<Item = &'static str> {
    targets().map(|(name, _)| name)
}
