//! Completion of values: words from the grammar, and object names from the daemon.

use std::time::Duration;

use serde::de::DeserializeOwned;

use super::super::context::CommandContext;
use super::Candidate;
use crate::config::value::IfName;
use crate::control::protocol::{
    ClassesReply, EndpointsReply, HostReply, LinksReply, NatsReply, OptionsReply, PoliciesReply,
    Request, RoutesReply, ServicesReply,
};
use crate::net::netns;

/// A user at the keyboard does not wait longer.
const COMPLETION_TIMEOUT: Duration = Duration::from_secs(2);

/// Kinds of objects that the daemon can list.
#[derive(Clone, Copy)]
enum Listing {
    Links,
    Routes,
    Endpoints,
    Policies,
    Nats,
    Services,
    Classes,
    Options,
}

/// Completes values in the context of the words typed so far.
pub struct ValueCompleter<'a> {
    context: &'a mut CommandContext,
    object: &'static str,
    notes: &'static str,
    /// Whether the object must exist already, as for every command but `add`.
    existing: bool,
    dev: Option<IfName>,
}

impl<'a> ValueCompleter<'a> {
    pub fn new(context: &'a mut CommandContext) -> Self {
        ValueCompleter {
            context,
            object: "",
            notes: "",
            existing: false,
            dev: None,
        }
    }

    /// Sets the object whose values are completed.
    pub fn on(&mut self, object: &'static str, notes: &'static str, existing: bool) {
        self.object = object;
        self.notes = notes;
        self.existing = existing;
    }

    /// Takes note of an option or keyword that was typed with its value.
    pub fn heed(&mut self, keyword: &str, value: &str) {
        match keyword {
            "socket" => self.context.use_socket(value),
            "dev" => self.dev = value.parse().ok(),
            _ => {}
        }
    }

    /// Candidates for the value of a keyword.
    pub fn of_keyword(&mut self, keyword: &str, metavariable: &str, last: &str) -> Vec<Candidate> {
        let own = match (self.object, keyword) {
            ("link", "dev") => Some(Listing::Links),
            ("route", "to") => Some(Listing::Routes),
            ("endpoint", "address") => Some(Listing::Endpoints),
            ("policy", "name") => Some(Listing::Policies),
            ("nat", "name") => Some(Listing::Nats),
            ("service", "name") => Some(Listing::Services),
            ("qos", "name") => Some(Listing::Classes),
            ("option", "name") => Some(Listing::Options),
            _ => None,
        };
        match own {
            Some(listing) if self.existing => self.listed(listing),
            Some(_) => Vec::new(),
            None => self.of(metavariable, last),
        }
    }

    /// Candidates for a metavariable.
    pub fn of(&mut self, metavariable: &str, last: &str) -> Vec<Candidate> {
        let mut notes = alternatives(self.notes, metavariable);
        if matches!(metavariable, "FILE" | "PATH") {
            notes.insert(0, Candidate::files());
        }
        if !notes.is_empty() {
            return notes;
        }
        match metavariable {
            "LINK" => self.listed(Listing::Links),
            "CLASS" => self.listed(Listing::Classes),
            "{ CLASS | none }" => {
                let mut all = self.of("CLASS", last);
                all.extend(in_braces(metavariable));
                all
            }
            "OPTION=HEX" => {
                let mut all = self.listed(Listing::Options);
                all.iter_mut().for_each(|option| option.word += "=");
                all
            }
            "NETNS" => namespaces(),
            "HOST" | "HOST[,HOST...]" => self.hosts(last),
            _ => in_braces(metavariable),
        }
    }

    /// Names of the objects that the daemon lists, limited to the typed link if there is one.
    fn listed(&mut self, listing: Listing) -> Vec<Candidate> {
        let dev = self.dev.clone();
        let on = |name: String, dev: &IfName| Candidate::new(name, format!("dev {dev}"));
        let mut found: Vec<_> = match listing {
            Listing::Links => {
                let LinksReply { links } = self.ask(&Request::ListLinks { name: None });
                let links = links.iter();
                links
                    .map(|l| Candidate::new(l.settings.name.as_str(), ""))
                    .collect()
            }
            Listing::Routes => {
                let RoutesReply { routes } = self.ask(&Request::ListRoutes { dev });
                let routes = routes.iter().map(|r| &r.route);
                routes.map(|r| on(r.prefix.to_string(), &r.dev)).collect()
            }
            Listing::Endpoints => {
                let EndpointsReply { endpoints } = self.ask(&Request::ListEndpoints { dev });
                let endpoints = endpoints.iter().map(|e| &e.endpoint);
                endpoints
                    .map(|e| on(e.address.to_string(), &e.dev))
                    .collect()
            }
            Listing::Policies => {
                let PoliciesReply { policies } = self.ask(&Request::ListPolicies { dev });
                let policies = policies.iter().map(|p| &p.policy);
                policies.map(|p| on(p.name.to_string(), &p.dev)).collect()
            }
            Listing::Nats => {
                let NatsReply { nats } = self.ask(&Request::ListNats { dev });
                let nats = nats.iter().map(|n| &n.nat);
                nats.map(|n| on(n.name.to_string(), &n.dev)).collect()
            }
            Listing::Services => {
                let ServicesReply { services } = self.ask(&Request::ListServices { dev });
                let services = services.iter().map(|s| &s.service);
                services.map(|s| on(s.name.to_string(), &s.dev)).collect()
            }
            Listing::Classes => {
                let ClassesReply { classes } = self.ask(&Request::ListClasses { dev });
                let classes = classes.iter().map(|c| &c.class);
                classes.map(|c| on(c.name.to_string(), &c.dev)).collect()
            }
            Listing::Options => {
                let OptionsReply { options } = self.ask(&Request::ListOptions);
                let options = options.iter().map(|o| &o.option.name);
                options
                    .map(|name| Candidate::new(name.as_str(), ""))
                    .collect()
            }
        };
        found.dedup_by(|a, b| a.word == b.word);
        found
    }

    /// Calls the daemon; returns an empty reply on failure.
    fn ask<R: DeserializeOwned + Default>(&mut self, request: &Request) -> R {
        self.context.set_timeout(COMPLETION_TIMEOUT);
        self.context.call(request).unwrap_or_default()
    }

    /// Candidates for a list of hosts, keeping those before the last comma.
    fn hosts(&mut self, last: &str) -> Vec<Candidate> {
        self.context.set_timeout(COMPLETION_TIMEOUT);
        let Ok(HostReply { host }) = self.context.call(&Request::GetHost) else {
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

/// Words of `METAVARIABLE := { a | b | C }` in the notes of an object.
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

/// The literal words in `{ a | b | C }`.
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
