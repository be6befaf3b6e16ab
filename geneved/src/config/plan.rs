//! What must be done to get from the running state to another.
//!
//! Owns the order and the kinds of steps. Taking them, and taking them back when one fails, is
//! [`crate::daemon`]'s.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::state::{Link, State};
use super::value::{IfName, Name};

/// Steps from one state to another. Links that no list names keep their interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links whose interface is made.
    pub add: Vec<IfName>,
    /// Links whose interface is removed.
    pub del: Vec<IfName>,
    /// Links whose interface must be made anew, because its mode or its namespace changes.
    pub replace: Vec<IfName>,
    /// Links that change in place: addresses, MTU, sockets, or what only the packet path reads.
    pub set: Vec<IfName>,
    /// What happens to everything else.
    pub objects: Vec<Step>,
}

/// What happens to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What is done.
    pub verb: StepVerb,
    /// The kind of object, in the command line's word for it.
    pub object: String,
    /// What it is called: a name, a prefix or an address.
    pub name: String,
    /// Its link, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepVerb {
    /// It was not there.
    Added,
    /// It stays, with other settings.
    Changed,
    /// Its interface is made anew; only links.
    Replaced,
    /// It is not there any more.
    Removed,
}

impl fmt::Display for StepVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StepVerb::Added => "added",
            StepVerb::Changed => "changed",
            StepVerb::Replaced => "replaced",
            StepVerb::Removed => "removed",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {} {}", self.verb, self.object, self.name)?;
        match &self.dev {
            Some(dev) => write!(f, " dev {dev}"),
            None => Ok(()),
        }
    }
}

/// What happens to which object, for a log; of many objects the first ones.
#[must_use]
pub fn told(steps: &[Step]) -> String {
    const FEW: usize = 8;
    if steps.is_empty() {
        return Plan::default().to_string();
    }
    let one = |step: &Step| {
        let of = step.dev.as_ref().map(|dev| format!(" of {dev}"));
        let (object, name) = (&step.object, &step.name);
        format!("{object} {name}{} {}", of.unwrap_or_default(), step.verb)
    };
    let first: Vec<String> = steps.iter().take(FEW).map(one).collect();
    match steps.len().saturating_sub(FEW) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

impl Plan {
    /// Compares two states.
    #[must_use]
    pub fn between(old: &State, new: &State) -> Self {
        let mut plan = Plan::default();
        plan.del.extend(
            old.links
                .keys()
                .filter(|n| !new.links.contains_key(*n))
                .cloned(),
        );
        for (name, link) in &new.links {
            match old.links.get(name) {
                None => plan.add.push(name.clone()),
                Some(was) if was == link => {}
                Some(was) if needs_new_interface(was, link) => plan.replace.push(name.clone()),
                Some(_) => plan.set.push(name.clone()),
            }
        }
        let objects = &mut plan.objects;
        differences("option", (&old.options, &new.options), alone, objects);
        differences("route", (&old.routes, &new.routes), on_link, objects);
        let endpoints = (&old.endpoints, &new.endpoints);
        differences("endpoint", endpoints, on_link, objects);
        differences("fdb", (&old.fdb, &new.fdb), on_link, objects);
        differences("qos", (&old.classes, &new.classes), on_link, objects);
        differences("policy", (&old.policies, &new.policies), on_link, objects);
        differences("nat", (&old.nats, &new.nats), on_link, objects);
        differences("service", (&old.services, &new.services), on_link, objects);
        plan
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    /// All that happens, links first.
    #[must_use]
    pub fn into_steps(self) -> Vec<Step> {
        let link = |verb, name: &IfName| Step {
            verb,
            object: "link".into(),
            name: name.to_string(),
            dev: None,
        };
        let lists = [
            (StepVerb::Removed, self.del),
            (StepVerb::Added, self.add),
            (StepVerb::Replaced, self.replace),
            (StepVerb::Changed, self.set),
        ];
        let links = lists
            .into_iter()
            .flat_map(|(verb, names)| names.into_iter().map(move |name| link(verb, &name)));
        links.chain(self.objects).collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing changed");
        }
        let routing = |step: &&Step| matches!(step.object.as_str(), "route" | "endpoint" | "fdb");
        let routes = self.objects.iter().filter(routing).count();
        write!(
            f,
            "links: {} added, {} deleted, {} replaced, {} changed; routes and endpoints: {routes} changed",
            self.add.len(),
            self.del.len(),
            self.replace.len(),
            self.set.len(),
        )?;
        let functions = self.objects.len() - routes;
        if functions == 0 {
            return Ok(());
        }
        write!(
            f,
            "; policies, nats, services, classes and options: {functions} changed"
        )
    }
}

/// An interface cannot become another kind, and one that is given to another namespace comes there without addresses.
fn needs_new_interface(was: &Link, link: &Link) -> bool {
    (&was.netns, was.mode) != (&link.netns, link.mode)
}

fn alone(name: &Name) -> (String, Option<IfName>) {
    (name.to_string(), None)
}

fn on_link<N: fmt::Display>((dev, name): &(IfName, N)) -> (String, Option<IfName>) {
    (name.to_string(), Some(dev.clone()))
}

fn differences<K: Ord, V: PartialEq>(
    object: &str,
    (old, new): (&BTreeMap<K, V>, &BTreeMap<K, V>),
    name: impl Fn(&K) -> (String, Option<IfName>),
    into: &mut Vec<Step>,
) {
    let step = |verb, key: &K| {
        let (name, dev) = name(key);
        let object = object.to_owned();
        Step {
            verb,
            object,
            name,
            dev,
        }
    };
    let gone = old.keys().filter(|key| !new.contains_key(key));
    into.extend(gone.map(|key| step(StepVerb::Removed, key)));
    for (key, value) in new {
        match old.get(key) {
            None => into.push(step(StepVerb::Added, key)),
            Some(was) if was != value => into.push(step(StepVerb::Changed, key)),
            Some(_) => {}
        }
    }
}
