//! Partial changes of existing objects: words that must match before a deletion, hosts removed one by one, and
//! settings reset by `none`.
//!
//! Compares words with words, so that it works alike for every kind of object.

use serde_json::{Map, Value};

use super::DesiredState;
use crate::config::args::{ChangeVerb, ObjectArgs, ObjectChange};
use crate::refusal::Refusal;

type WordMap = Map<String, Value>;

/// Key of the list whose members can be removed one by one, by kind of object.
fn members(kind: &str) -> Option<&'static str> {
    match kind {
        "route" => Some("via"),
        "endpoint" => Some("host"),
        "fdb" => Some("dst"),
        "service" => Some("backend"),
        _ => None,
    }
}

/// Whether a value is the default.
fn is_usual(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::String(text) => matches!(text.as_str(), "none" | "any" | "simple"),
        Value::Array(all) => all.is_empty(),
        _ => false,
    }
}

/// Whether every named property of a list member matches.
fn is_so(named: &Value, has: &Value) -> bool {
    match (named, has) {
        (Value::Object(named), Value::Object(has)) => {
            named.iter().all(|(key, value)| has.get(key) == Some(value))
        }
        _ => named == has,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => {
            let all: Vec<_> = all.iter().map(text).collect();
            all.join(",")
        }
        Value::Object(backend) => {
            let part = |key: &str| backend.get(key).map(text).unwrap_or_default();
            let address = part("address");
            let weight = match backend.get("weight") {
                Some(weight) => format!(" weight {weight}"),
                None => String::new(),
            };
            match address.contains(':') {
                true => format!("[{address}]:{}{weight}", part("port")),
                false => format!("{address}:{}{weight}", part("port")),
            }
        }
        other => other.to_string(),
    }
}

/// Splits a change into its kind, as serialized, and its words.
fn parts(change: &ObjectChange) -> (String, WordMap) {
    let all = serde_json::to_value(change).expect("words have a form in JSON");
    let Value::Object(all) = all else {
        return Default::default();
    };
    let body = |(kind, words)| match words {
        Value::Object(words) => Some((kind, words)),
        _ => None,
    };
    all.into_iter().find_map(body).unwrap_or_default()
}

/// Builds a change from words.
fn change(
    verb: ChangeVerb,
    kind: &str,
    words: &WordMap,
    object: &str,
) -> Result<ObjectChange, Refusal> {
    serde_json::from_value(serde_json::json!({ "verb": verb, kind: words }))
        .map_err(|error| Refusal::new(format!("{object}: {error}"), ""))
}

/// Title of the object in messages.
fn title(kind: &str, words: &WordMap) -> String {
    let identity = ["name", "prefix", "address", "mac"];
    // Links have addresses too, so the order matters.
    let name = identity
        .iter()
        .find_map(|key| words.get(*key).filter(|value| value.is_string()));
    let name = name.map(text).unwrap_or_default();
    let kind = match kind {
        "qos" => "class",
        kind => kind,
    };
    match words.get("dev") {
        Some(dev) => format!("{kind} \"{name}\" dev {}", text(dev)),
        None => format!("{kind} \"{name}\""),
    }
}

impl DesiredState {
    /// The object of a change with all values resolved; `None` if there is none.
    fn words_of(&self, change: &ObjectChange) -> Option<ObjectChange> {
        let verb = change.verb;
        Some(match change.subject()? {
            ObjectArgs::Link(w) => ObjectChange::link(verb, self.links.get(&w.name)?.words()),
            // An address has no properties besides its name.
            ObjectArgs::Address(_) => return None,
            ObjectArgs::Route(w) => {
                let route = self.routes.get(&(w.dev.clone(), w.prefix.0))?;
                ObjectChange::route(verb, route.words(&w.dev, w.prefix.0))
            }
            ObjectArgs::Fdb(w) => {
                let entry = self.fdb.get(&(w.dev.clone(), w.mac.0))?;
                ObjectChange::fdb(verb, entry.words(&w.dev, w.mac.0))
            }
            ObjectArgs::Endpoint(w) => {
                let endpoint = self.endpoints.get(&(w.dev.clone(), w.address))?;
                ObjectChange::endpoint(verb, endpoint.words(&w.dev, w.address))
            }
            ObjectArgs::Policy(w) => {
                let rule = self.policies.get(&(w.dev.clone(), w.name.clone()))?;
                ObjectChange::policy(verb, rule.words(&w.dev, &w.name))
            }
            ObjectArgs::Nat(w) => {
                let nat = self.nats.get(&(w.dev.clone(), w.name.clone()))?;
                ObjectChange::nat(verb, nat.words(&w.dev, &w.name))
            }
            ObjectArgs::Service(w) => {
                let service = self.services.get(&(w.dev.clone(), w.name.clone()))?;
                let mut words = service.words(&w.dev, &w.name);
                for (backend, (_, port, weight)) in words.backend.iter_mut().zip(service.targets())
                {
                    (backend.port, backend.weight) = (Some(port), Some(weight));
                }
                ObjectChange::service(verb, words)
            }
            ObjectArgs::Qos(w) => {
                let class = self.classes.get(&(w.dev.clone(), w.name.clone()))?;
                ObjectChange::qos(verb, class.words(&w.dev, &w.name))
            }
            ObjectArgs::Option(w) => {
                ObjectChange::option(verb, self.options.get(&w.name)?.words(&w.name))
            }
        })
    }

    /// The words of a change, with unambiguous omissions filled in.
    fn spelled_out(&self, change: &ObjectChange) -> (String, WordMap) {
        let mut change = change.clone();
        if let Some(words) = &mut change.service {
            let key = (words.dev.clone(), words.name.clone());
            let port = self.services.get(&key).map(|service| service.port);
            for backend in &mut words.backend {
                backend.port = backend.port.or(port);
            }
        }
        if let Some(words) = &mut change.endpoint
            && let Some(target) = &mut words.target
        {
            target.dev = target.dev.take().filter(|dev| *dev != words.dev);
        }
        parts(&change)
    }

    /// Returns the change that leaves the other hosts or backends, or `None` if the whole object is deleted.
    ///
    /// # Errors
    /// If something that is named does not match.
    pub(super) fn removal(&self, del: &ObjectChange) -> Result<Option<ObjectChange>, Refusal> {
        // The object's own code reports that it does not exist.
        let Some(has) = self.words_of(del) else {
            return Ok(None);
        };
        let (kind, mut has) = parts(&has);
        let (_, named) = self.spelled_out(del);
        let object = title(&kind, &named);
        for (key, value) in &named {
            let there = has.get(key);
            let so = match (value, there) {
                (Value::Array(value), Some(Value::Array(there))) => value
                    .iter()
                    .all(|one| there.iter().any(|other| is_so(one, other))),
                (value, Some(there)) => value == there,
                (value, None) => is_usual(value),
            };
            if !so {
                let is = match (value, there) {
                    (Value::Bool(true), _) => format!("it is not \"{key}\""),
                    (Value::Bool(false), _) => format!("it is \"{key}\""),
                    (_, None) if key == "type" => format!("{key} is simple, not {}", text(value)),
                    (_, None) => format!("{key} is none, not {}", text(value)),
                    (_, Some(there)) => format!("{key} is {}, not {}", text(there), text(value)),
                };
                return Err(Refusal::new(
                    format!("{object}: {is}"),
                    format!("nothing was deleted; \"geneved {kind} show\" has what is there"),
                ));
            }
        }
        for key in &del.none {
            if let Some(there) = has.get(key).filter(|there| !is_usual(there)) {
                return Err(Refusal::new(
                    format!("{object}: {key} is {}, not none", text(there)),
                    format!("nothing was deleted; \"geneved {kind} show\" has what is there"),
                ));
            }
        }
        let Some(key) = members(&kind) else {
            return Ok(None);
        };
        let taken = match named.get(key) {
            Some(Value::Array(taken)) => taken.as_slice(),
            _ => &[],
        };
        let here = named.get("local").is_some() || named.contains_key("colocated");
        if taken.is_empty() && !here {
            return Ok(None);
        }
        if let Some(Value::Array(all)) = has.get_mut(key) {
            all.retain(|one| !taken.iter().any(|gone| is_so(gone, one)));
        }
        if here {
            has.remove("local");
            has.remove("colocated");
        }
        let some_left = has.get(key).is_some_and(|list| !is_usual(list));
        let elsewhere = has.contains_key("local") || has.contains_key("target");
        match some_left || elsewhere {
            true => change(ChangeVerb::Replace, &kind, &has, &object).map(Some),
            false => Ok(None),
        }
    }

    /// Converts a `set` that resets settings to a `replace` with the existing words, without the reset ones, plus
    /// those named.
    ///
    /// # Errors
    /// If there is no such setting, or the object cannot exist without it.
    pub(super) fn without(&self, set: &ObjectChange) -> Result<Option<ObjectChange>, Refusal> {
        if set.none.is_empty() || set.verb == ChangeVerb::Del {
            return Ok(None);
        }
        let (kind, named) = parts(set);
        let object = title(&kind, &named);
        let known = crate::config::args::keys(set);
        let none: Vec<String> = set.none.iter().map(|key| key.replace('-', "_")).collect();
        for key in &none {
            if !known.contains(&key.as_str()) {
                return Err(Refusal::new(
                    format!("{object} has no setting \"{key}\" that could be none"),
                    "",
                ));
            }
            if named.contains_key(key) {
                return Err(Refusal::new(
                    format!("{object}: {key} is both none and {}", text(&named[key])),
                    "say one of them",
                ));
            }
        }
        let has = match set.verb {
            ChangeVerb::Set => self.words_of(set),
            // There is no existing setting to reset.
            ChangeVerb::Add | ChangeVerb::Replace | ChangeVerb::Del => None,
        };
        let Some(has) = has else {
            return Ok(None);
        };
        let (_, mut all) = parts(&has);
        for key in &none {
            all.remove(key);
        }
        // Naming any of these replaces all of them.
        let place = ["host", "local"];
        if place.iter().any(|key| named.contains_key(*key)) {
            place.iter().for_each(|key| drop(all.remove(*key)));
        }
        if none.iter().any(|key| key == "rate") || named.get("rate").is_some_and(is_usual) {
            all.remove("burst");
        }
        all.extend(named);
        change(ChangeVerb::Replace, &kind, &all, &object).map(Some)
    }
}
