//! Values: words that the grammar names, and names that live in the daemon.

use std::time::Duration;

use serde_json::Value;

use super::super::context::Context;
use super::super::object;
use super::Candidate;
use crate::config::value::IfName;
use crate::control::protocol::{Host, Request};
use crate::net::netns;

/// Whoever presses a key does not wait for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Knows what was typed so far.
pub struct Values<'a> {
    context: &'a mut Context,
    object: &'static str,
    notes: &'static str,
    /// Whether the object's own name is one that is there, as it is for all but `add`.
    existing: bool,
    dev: Option<IfName>,
}

impl<'a> Values<'a> {
    pub fn new(context: &'a mut Context) -> Self {
        Values {
            context,
            object: "",
            notes: "",
            existing: false,
            dev: None,
        }
    }

    /// Values are those of this object from here on.
    pub fn on(&mut self, object: &'static str, notes: &'static str, existing: bool) {
        self.object = object;
        self.notes = notes;
        self.existing = existing;
    }

    /// An option or keyword with its value was typed.
    pub fn heed(&mut self, keyword: &str, value: &str) {
        match keyword {
            "socket" => self.context.use_socket(value),
            "dev" => self.dev = value.parse().ok(),
            _ => {}
        }
    }

    /// The values of a keyword.
    pub fn of_keyword(&mut self, keyword: &str, metavariable: &str, last: &str) -> Vec<Candidate> {
        let own = match (self.object, keyword) {
            ("link", "dev") => Some((Request::ListLinks { name: None }, "name")),
            ("route", "to") => Some((Request::ListRoutes { dev: self.dev() }, "prefix")),
            ("endpoint", "address") => {
                Some((Request::ListEndpoints { dev: self.dev() }, "address"))
            }
            ("policy", "name") => Some((Request::ListPolicies { dev: self.dev() }, "name")),
            ("nat", "name") => Some((Request::ListNats { dev: self.dev() }, "name")),
            ("service", "name") => Some((Request::ListServices { dev: self.dev() }, "name")),
            ("qos", "name") => Some((Request::ListClasses { dev: self.dev() }, "name")),
            ("option", "name") => Some((Request::ListOptions, "name")),
            _ => None,
        };
        match own {
            Some((request, key)) if self.existing => self.listed(&request, key),
            Some(_) => Vec::new(),
            None => self.of(metavariable, last),
        }
    }

    /// The values that a metavariable stands for.
    pub fn of(&mut self, metavariable: &str, last: &str) -> Vec<Candidate> {
        let mut notes = alternatives(self.notes, metavariable);
        if matches!(metavariable, "FILE" | "PATH") {
            notes.insert(0, Candidate::files());
        }
        if !notes.is_empty() {
            return notes;
        }
        match metavariable {
            "LINK" => self.listed(&Request::ListLinks { name: None }, "name"),
            "CLASS" => self.listed(&Request::ListClasses { dev: self.dev() }, "name"),
            "{ CLASS | none }" => {
                let mut all = self.of("CLASS", last);
                all.extend(in_braces(metavariable));
                all
            }
            "OPTION=HEX" => {
                let mut all = self.listed(&Request::ListOptions, "name");
                all.iter_mut().for_each(|option| option.word += "=");
                all
            }
            "NETNS" => namespaces(),
            "HOST" | "HOST[,HOST...]" => self.hosts(last),
            _ => in_braces(metavariable),
        }
    }

    fn dev(&self) -> Option<IfName> {
        self.dev.clone()
    }

    /// What the daemon lists, by one of its keys.
    fn listed(&mut self, request: &Request, key: &str) -> Vec<Candidate> {
        self.context.hurry(PATIENCE);
        let all = object::all::<Value>(self.context, request).unwrap_or_default();
        let mut found: Vec<Candidate> = Vec::new();
        for one in &all {
            let Some((inner, value)) = named(one, key) else {
                continue;
            };
            let dev = inner.get("dev").and_then(Value::as_str);
            let about = dev.map(|dev| format!("dev {dev}")).unwrap_or_default();
            found.push(Candidate::new(value, about));
        }
        found.dedup_by(|a, b| a.word == b.word);
        found
    }

    /// Hosts, of which those before the last comma are kept.
    fn hosts(&mut self, last: &str) -> Vec<Candidate> {
        self.context.hurry(PATIENCE);
        let Ok(Host { host }) = self.context.call(&Request::GetHost) else {
            return Vec::new();
        };
        let kept = last.rfind(',').map_or("", |at| &last[..=at]);
        let hosts = host.remotes.iter().map(|remote| {
            let about = remote.links.iter().map(IfName::as_str);
            let about: Vec<_> = about.collect();
            Candidate::new(format!("{kept}{}", remote.address), about.join(","))
        });
        hosts.collect()
    }
}

/// The object of an entry that has the key, at the top or one step below, and its text.
fn named<'v>(entry: &'v Value, key: &str) -> Option<(&'v Value, &'v str)> {
    let text = |value: &'v Value| Some((value, value.get(key)?.as_str()?));
    let below = || entry.as_object()?.values().find_map(text);
    text(entry).or_else(below)
}

/// The words of `METAVARIABLE := { a | b | C }` in the notes of an object.
fn alternatives(notes: &str, metavariable: &str) -> Vec<Candidate> {
    let head = format!("{metavariable} := {{");
    let found = notes.match_indices(&head).find(|(at, _)| {
        let before = notes[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    });
    match found {
        None => Vec::new(),
        Some((at, head)) => in_braces(&notes[at + head.len() - 1..]),
    }
}

/// The words in `{ a | b | C }` that stand for themselves.
fn in_braces(text: &str) -> Vec<Candidate> {
    let inside = match text.split_once('{') {
        Some((_, inside)) => inside.split('}').next().unwrap_or_default(),
        None => text,
    };
    let itself = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    let words = inside.split('|').map(str::trim).filter(itself);
    words.map(|word| Candidate::new(word, "")).collect()
}

fn namespaces() -> Vec<Candidate> {
    let entries = std::fs::read_dir(netns::DIRECTORY).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut all: Vec<_> = names.map(|name| Candidate::new(name, "")).collect();
    all.sort_by(|a, b| a.word.cmp(&b.word));
    all
}
