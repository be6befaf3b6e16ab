//! The table of all objects and verbs, used by dispatch, help and completion.

use super::command::{GlobalCommand, ObjectDef};
use super::{
    address, capture, check, complete, endpoint, fdb, flow, grammar, host, lab, link, monitor, nat,
    option, policy, qos, route, service, state, top, trace,
};

/// All objects.
pub const ALL_OBJECTS: [&ObjectDef; 14] = [
    &link::LINK_OBJECT,
    &address::ADDRESS_OBJECT,
    &route::ROUTE_OBJECT,
    &fdb::FDB_OBJECT,
    &endpoint::ENDPOINT_OBJECT,
    &policy::POLICY_OBJECT,
    &nat::NAT_OBJECT,
    &service::SERVICE_OBJECT,
    &qos::QOS_OBJECT,
    &option::OPTION_OBJECT,
    &flow::FLOW_OBJECT,
    &host::HOST_OBJECT,
    &lab::LAB_OBJECT,
    &complete::TEST_OBJECT,
];

/// All commands that work on no object.
pub const VERBS: [&GlobalCommand; 8] = [
    &state::RUN_COMMAND,
    &check::CHECK_COMMAND,
    &state::RELOAD,
    &state::SAVE,
    &trace::TRACE_COMMAND,
    &monitor::MONITOR_COMMAND,
    &capture::CAPTURE_COMMAND,
    &top::TOP_COMMAND,
];

/// Meaning of the first word.
#[derive(Clone, Copy)]
pub enum FirstWord {
    /// An object.
    Object(&'static ObjectDef),
    /// A command that works on no object.
    Verb(&'static GlobalCommand),
    /// Help on everything, or on what follows.
    Help,
}

impl PartialEq for FirstWord {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl FirstWord {
    fn name(self) -> &'static str {
        match self {
            FirstWord::Object(object) => object.name,
            FirstWord::Verb(verb) => verb.name,
            FirstWord::Help => "help",
        }
    }
}

/// Abbreviations that `ip` gives to these objects although they are ambiguous.
const ABBREVIATIONS: [(&str, FirstWord); 2] = [
    ("l", FirstWord::Object(&link::LINK_OBJECT)),
    ("r", FirstWord::Object(&route::ROUTE_OBJECT)),
];

/// Resolves `word` by its full name, an unambiguous prefix, or `ip`'s abbreviation.
///
/// # Errors
/// If it is a prefix of several names; returns those.
pub fn target(word: &str) -> Result<Option<FirstWord>, Vec<&'static str>> {
    match ABBREVIATIONS.iter().find(|(short, _)| *short == word) {
        Some((_, target)) => Ok(Some(*target)),
        None => grammar::find(word, targets()),
    }
}

/// Everything that the first word can be.
pub fn targets() -> impl Iterator<Item = (&'static str, FirstWord)> {
    let objects = ALL_OBJECTS.iter().map(|object| FirstWord::Object(object));
    let verbs = VERBS.iter().map(|verb| FirstWord::Verb(verb));
    let all = objects.chain(verbs).chain([FirstWord::Help]);
    all.map(|target| (target.name(), target))
}

/// Names of everything that the first word can be.
pub fn names() -> impl Iterator<Item = &'static str> {
    targets().map(|(name, _)| name)
}
