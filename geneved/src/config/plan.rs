//! The steps from the running state to another one.
//!
//! Defines the order and the kinds of steps. [`crate::daemon`] carries them out, and rolls them back if one fails.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::difference::{ChangeKind, ChangedObject, Difference, differences};
use super::state::{DesiredState, LinkSpec};
use super::value::IfName;

/// Steps from one state to another. Links in none of the lists keep their interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links whose interface is created.
    pub add: Vec<IfName>,
    /// Links whose interface is removed.
    pub del: Vec<IfName>,
    /// Links whose interface is recreated because the mode or the namespace changes.
    pub replace: Vec<IfName>,
    /// Links that change in place: addresses, MTU, sockets, or settings that only the packet path reads.
    pub set: Vec<IfName>,
    /// Steps for all other objects.
    pub objects: Vec<PlanStep>,
}

/// Step for one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// What happens to the object.
    pub verb: ChangeKind,
    /// The kind of object, as the command line calls it.
    pub object: String,
    /// Name, prefix or address of the object.
    pub name: String,
    /// Link of the object, if it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
}

impl fmt::Display for PlanStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {} {}", self.verb.word(), self.object, self.name)?;
        match &self.dev {
            Some(dev) => write!(f, " dev {dev}"),
            None => Ok(()),
        }
    }
}

/// Formats steps for a log line; a long list is cut.
#[must_use]
pub fn told(steps: &[PlanStep]) -> String {
    const MAX_TOLD: usize = 8;
    if steps.is_empty() {
        return Plan::default().to_string();
    }
    let one = |step: &PlanStep| {
        let of = step.dev.as_ref().map(|dev| format!(" of {dev}"));
        let (object, name) = (&step.object, &step.name);
        let verb = step.verb.word();
        format!("{object} {name}{} {verb}", of.unwrap_or_default())
    };
    let first: Vec<String> = steps.iter().take(MAX_TOLD).map(one).collect();
    match steps.len().saturating_sub(MAX_TOLD) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

impl Plan {
    /// Compares two states.
    #[must_use]
    pub fn between(old: &DesiredState, new: &DesiredState) -> Self {
        let mut plan = Plan::default();
        for Difference { change, object } in differences(old, new) {
            let ChangedObject::Link(name, link) = object else {
                plan.objects.push(PlanStep {
                    verb: change,
                    object: object.kind().to_owned(),
                    name: object.name(),
                    dev: object.dev().cloned(),
                });
                continue;
            };
            let was = old.links.get(name);
            let list = match change {
                ChangeKind::Added => &mut plan.add,
                ChangeKind::Deleted => &mut plan.del,
                _ if was.is_some_and(|was| needs_new_interface(was, link)) => &mut plan.replace,
                _ => &mut plan.set,
            };
            list.push(name.clone());
        }
        plan
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }

    /// All steps, links first.
    #[must_use]
    pub fn into_steps(self) -> Vec<PlanStep> {
        let link = |verb, name: &IfName| PlanStep {
            verb,
            object: "link".into(),
            name: name.to_string(),
            dev: None,
        };
        let lists = [
            (ChangeKind::Deleted, self.del),
            (ChangeKind::Added, self.add),
            (ChangeKind::Replaced, self.replace),
            (ChangeKind::Changed, self.set),
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
        let routing =
            |step: &&PlanStep| matches!(step.object.as_str(), "route" | "endpoint" | "fdb");
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

/// The kind of an interface is fixed, and moving it to another namespace loses its addresses.
fn needs_new_interface(was: &LinkSpec, link: &LinkSpec) -> bool {
    (&was.netns, was.mode) != (&link.netns, link.mode)
}
