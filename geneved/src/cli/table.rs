//! The objects and the commands that work on none: one table that dispatch, help and completion read.

use super::command::{Object, Verb};
use super::{
    address, capture, check, complete, endpoint, fdb, flow, grammar, host, lab, link, monitor, nat,
    option, policy, qos, route, service, state, top, trace,
};

/// Every object.
pub const OBJECTS: [&Object; 14] = [
    &link::OBJECT,
    &address::OBJECT,
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
