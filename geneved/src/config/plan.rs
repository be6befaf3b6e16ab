//! What must be done to get from the running state to another.
//!
//! Owns the order and the kinds of steps. Taking them, and taking them back when one fails, is
//! [`crate::daemon`]'s.

use std::fmt;

use super::state::{Link, State};
use super::value::{IfName, Mode};

/// Steps from one state to another. Links that neither list names keep their interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Links whose interface is made.
    pub add: Vec<IfName>,
    /// Links whose interface is removed.
    pub del: Vec<IfName>,
    /// Links whose interface must be made anew, because a setting of its sockets or its namespace changes.
    pub replace: Vec<IfName>,
    /// Links that change in place: addresses, MTU, or what only the packet path reads.
    pub set: Vec<IfName>,
    /// How many routes, forwarding entries and endpoints come, go or change.
    pub routing: usize,
    /// How many rules, translations, services, classes and options come, go or change.
    pub functions: usize,
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
        plan.routing = differences(&old.routes, &new.routes)
            + differences(&old.endpoints, &new.endpoints)
            + differences(&old.fdb, &new.fdb);
        plan.functions = differences(&old.policies, &new.policies)
            + differences(&old.nats, &new.nats)
            + differences(&old.services, &new.services)
            + differences(&old.classes, &new.classes)
            + differences(&old.options, &new.options);
        plan
    }

    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Plan::default()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing changed");
        }
        write!(
            f,
            "links: {} added, {} deleted, {} replaced, {} changed; routes and endpoints: {} changed",
            self.add.len(),
            self.del.len(),
            self.replace.len(),
            self.set.len(),
            self.routing
        )?;
        if self.functions == 0 {
            return Ok(());
        }
        let functions = self.functions;
        write!(
            f,
            "; policies, nats, services, classes and options: {functions} changed"
        )
    }
}

fn needs_new_interface(was: &Link, link: &Link) -> bool {
    let sockets = |l: &Link| {
        (
            l.netns.clone(),
            l.local,
            l.srcport.clone(),
            l.df,
            l.udp_csum,
            l.udp6_zero_csum_tx,
            // Whoever stands behind a TAP interface may know its address.
            l.lladdr.filter(|_| l.mode == Mode::Ethernet),
        )
    };
    sockets(was) != sockets(link)
}

fn differences<K: Ord, V: PartialEq>(
    old: &std::collections::BTreeMap<K, V>,
    new: &std::collections::BTreeMap<K, V>,
) -> usize {
    let gone = old.keys().filter(|key| !new.contains_key(key)).count();
    gone + new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value))
        .count()
}
