//! Differences between two states.
//!
//! Plans, replies to reloads and monitor events are all derived from these, so that none of them can miss a kind of
//! object.

use std::net::IpAddr;

use ipnet::IpNet;
use libgeneve::wire::ethernet::Mac;
use serde::{Deserialize, Serialize};

use super::shared_map::SharedMap;
use super::state::{
    ClassSpec, DefinedOption, DesiredState, EndpointSpec, FdbSpec, LinkSpec, NatSpec, PolicySpec,
    RouteSpec, ServiceSpec,
};
use super::value::{IfName, ObjectName};

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// The object is new.
    Added,
    /// The object has changed.
    Changed,
    /// The interface is created anew: how a plan handles a link that changed too much.
    Replaced,
    /// The object was deleted; it is reported as it was.
    Deleted,
}

impl ChangeKind {
    /// Keyword of the kind.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Replaced => "replaced",
            ChangeKind::Deleted => "deleted",
        }
    }
}

/// An object that differs between two states.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference<'a> {
    /// Added, changed or deleted.
    pub change: ChangeKind,
    /// The object in the new state, or in the old one if it was deleted.
    pub object: ChangedObject<'a>,
}

/// Reference to an object of a state, with its link and its name, prefix or address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ChangedObject<'a> {
    /// An option.
    Option(&'a ObjectName, &'a DefinedOption),
    /// A link.
    Link(&'a IfName, &'a LinkSpec),
    /// A class.
    Qos(&'a IfName, &'a ObjectName, &'a ClassSpec),
    /// A route.
    Route(&'a IfName, IpNet, &'a RouteSpec),
    /// An endpoint.
    Endpoint(&'a IfName, IpAddr, &'a EndpointSpec),
    /// The hosts of a MAC address.
    Fdb(&'a IfName, Mac, &'a FdbSpec),
    /// A rule.
    Policy(&'a IfName, &'a ObjectName, &'a PolicySpec),
    /// A translation.
    Nat(&'a IfName, &'a ObjectName, &'a NatSpec),
    /// A service.
    Service(&'a IfName, &'a ObjectName, &'a ServiceSpec),
}

impl<'a> ChangedObject<'a> {
    /// The kind of object, as the command line calls it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            ChangedObject::Option(..) => "option",
            ChangedObject::Link(..) => "link",
            ChangedObject::Qos(..) => "qos",
            ChangedObject::Route(..) => "route",
            ChangedObject::Endpoint(..) => "endpoint",
            ChangedObject::Fdb(..) => "fdb",
            ChangedObject::Policy(..) => "policy",
            ChangedObject::Nat(..) => "nat",
            ChangedObject::Service(..) => "service",
        }
    }

    /// Name, prefix or address of the object.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            ChangedObject::Link(name, _) => name.to_string(),
            ChangedObject::Route(_, prefix, _) => prefix.to_string(),
            ChangedObject::Endpoint(_, address, _) => address.to_string(),
            ChangedObject::Fdb(_, mac, _) => mac.to_string(),
            ChangedObject::Option(name, _)
            | ChangedObject::Qos(_, name, _)
            | ChangedObject::Policy(_, name, _)
            | ChangedObject::Nat(_, name, _)
            | ChangedObject::Service(_, name, _) => name.to_string(),
        }
    }

    /// Link of the object, if it belongs to one.
    #[must_use]
    pub const fn dev(&self) -> Option<&'a IfName> {
        match self {
            ChangedObject::Option(..) | ChangedObject::Link(..) => None,
            ChangedObject::Qos(dev, ..)
            | ChangedObject::Route(dev, ..)
            | ChangedObject::Endpoint(dev, ..)
            | ChangedObject::Fdb(dev, ..)
            | ChangedObject::Policy(dev, ..)
            | ChangedObject::Nat(dev, ..)
            | ChangedObject::Service(dev, ..) => Some(dev),
        }
    }
}

/// Compares two states kind by kind: options, links, then objects of links. Within each kind, additions and changes
/// come before deletions.
pub fn differences<'a>(
    old: &'a DesiredState,
    new: &'a DesiredState,
) -> impl Iterator<Item = Difference<'a>> + use<'a> {
    // Destructured, so that a new kind of object in the state cannot be forgotten here.
    let DesiredState {
        fabric: _,
        by_port: _,
        options,
        links,
        routes,
        fdb,
        classes,
        endpoints,
        policies,
        nats,
        services,
    } = new;
    let options = of_one_kind(&old.options, options, ChangedObject::Option);
    let links = of_one_kind(&old.links, links, ChangedObject::Link);
    let classes = of_one_kind(&old.classes, classes, |(dev, name), class| {
        ChangedObject::Qos(dev, name, class)
    });
    let routes = of_one_kind(&old.routes, routes, |(dev, prefix), route| {
        ChangedObject::Route(dev, *prefix, route)
    });
    let endpoints = of_one_kind(&old.endpoints, endpoints, |(dev, address), endpoint| {
        ChangedObject::Endpoint(dev, *address, endpoint)
    });
    let fdb = of_one_kind(&old.fdb, fdb, |(dev, mac), entry| {
        ChangedObject::Fdb(dev, *mac, entry)
    });
    let policies = of_one_kind(&old.policies, policies, |(dev, name), rule| {
        ChangedObject::Policy(dev, name, rule)
    });
    let nats = of_one_kind(&old.nats, nats, |(dev, name), nat| {
        ChangedObject::Nat(dev, name, nat)
    });
    let services = of_one_kind(&old.services, services, |(dev, name), service| {
        ChangedObject::Service(dev, name, service)
    });
    let first = options.chain(links).chain(classes);
    let ways = routes.chain(endpoints).chain(fdb);
    let functions = policies.chain(nats).chain(services);
    first.chain(ways).chain(functions)
}

fn of_one_kind<'a, K: Ord, V: PartialEq>(
    old: &'a SharedMap<K, V>,
    new: &'a SharedMap<K, V>,
    object: impl Fn(&'a K, &'a V) -> ChangedObject<'a> + Copy,
) -> impl Iterator<Item = Difference<'a>> {
    let there = new.beside(old).filter_map(move |(key, value)| {
        let change = match old.get(key) {
            None => ChangeKind::Added,
            Some(before) if before != value => ChangeKind::Changed,
            Some(_) => return None,
        };
        let object = object(key, value);
        Some(Difference { change, object })
    });
    let gone = old.beside(new).filter(|(key, _)| !new.contains_key(key));
    let gone = gone.map(move |(key, value)| Difference {
        change: ChangeKind::Deleted,
        object: object(key, value),
    });
    there.chain(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(routes: &str) -> DesiredState {
        let link = "[[link]]\nname = \"a\"\nid = 1\nmode = \"ethernet\"\n";
        let text = format!("{link}{routes}");
        crate::config::tests::load(&text).unwrap().state
    }

    fn entry(mac: u8, host: u8) -> String {
        format!(
            "[[fdb]]\nmac = \"02:00:00:00:00:0{mac}\"\ndev = \"a\"\ndst = [\"192.0.2.{host}\"]\n"
        )
    }

    #[test]
    fn what_is_equal_is_no_difference_and_what_is_gone_comes_last() {
        let old = state(&(entry(1, 1) + &entry(2, 2) + &entry(3, 3)));
        let new = state(&(entry(2, 2) + &entry(3, 9) + &entry(4, 4)));
        let all: Vec<_> = differences(&old, &new)
            .map(|d| (d.change, d.object.kind(), d.object.name()))
            .collect();
        let expected = [
            (ChangeKind::Changed, "fdb", "02:00:00:00:00:03".to_owned()),
            (ChangeKind::Added, "fdb", "02:00:00:00:00:04".to_owned()),
            (ChangeKind::Deleted, "fdb", "02:00:00:00:00:01".to_owned()),
        ];
        assert_eq!(all, expected);
        assert_eq!(differences(&old, &old).count(), 0);
    }

    #[test]
    fn an_object_knows_its_link_and_a_link_is_on_none() {
        let (old, new) = (DesiredState::default(), state(&entry(1, 1)));
        let dev: IfName = "a".parse().unwrap();
        let all: Vec<_> = differences(&old, &new)
            .map(|d| (d.object.kind(), d.object.dev().cloned()))
            .collect();
        assert_eq!(all, [("link", None), ("fdb", Some(dev))]);
    }
}
