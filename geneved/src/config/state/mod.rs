//! The desired state: validated, mutually consistent objects.
//!
//! [`DesiredState::apply`] is the only way in, for a line of a file as for a command at run time, so both
//! obey the same rules and meet the same words of refusal. What must be done to get from one state
//! to another is [`super::plan`]'s.

mod encapsulation;
mod endpoint;
mod fdb;
mod link;
mod named;
mod nat;
mod nearest;
mod option;
mod policy;
mod port;
mod qos;
mod route;
mod service;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use libgeneve::wire::ethernet::Mac;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::endpoint::EndpointSpec;
pub use self::fdb::{BridgingSpec, FdbSpec};
pub use self::link::LinkSpec;
pub use self::nat::NatSpec;
pub use self::nearest::nearest;
pub use self::option::{DefinedOption, size as options_size};
pub use self::policy::PolicySpec;
pub use self::qos::ClassSpec;
pub use self::route::RouteSpec;
pub use self::service::{CheckTiming, ServiceSpec};
use super::args::{ChangeVerb, ObjectArgs, ObjectChange};
use super::shared_map::SharedMap;
use super::value::{IfName, ObjectName, OptionClassValue};
use crate::refusal::{Refusal, RefusalCause};

/// Up to this many objects are processed inline.
const FEW_DESIRED: usize = 256;

/// Daemon settings that objects depend on; they do not change while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// Whether there is a secret, which labels need.
    pub secret: bool,
    /// Class of geneved's own options.
    pub option_class: OptionClassValue,
}

/// All configured objects. Objects of a link are sorted by link, then by their own key. Clones share the objects
/// until one of them is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredState {
    /// Daemon settings that the objects depend on.
    pub fabric: Fabric,
    /// User-defined options by name.
    pub options: SharedMap<ObjectName, DefinedOption>,
    /// Links by name. Modified only by `put_link` and `take_link`.
    pub links: SharedMap<IfName, LinkSpec>,
    /// Index of links by port and VNI, so that a new link need not be compared with all others.
    pub(super) by_port: SharedMap<(u16, u32), IfName>,
    /// Routes by prefix.
    pub routes: SharedMap<(IfName, IpNet), RouteSpec>,
    /// Static FDB entries by MAC address, on Ethernet links.
    pub fdb: SharedMap<(IfName, Mac), FdbSpec>,
    /// Classes by name.
    pub classes: SharedMap<(IfName, ObjectName), ClassSpec>,
    /// Endpoints by overlay address.
    pub endpoints: SharedMap<(IfName, IpAddr), EndpointSpec>,
    /// Rules by name.
    pub policies: SharedMap<(IfName, ObjectName), PolicySpec>,
    /// Translations by name.
    pub nats: SharedMap<(IfName, ObjectName), NatSpec>,
    /// Services by name.
    pub services: SharedMap<(IfName, ObjectName), ServiceSpec>,
}

impl DesiredState {
    /// Creates an empty state.
    #[must_use]
    pub fn on(fabric: Fabric) -> Self {
        DesiredState {
            fabric,
            ..DesiredState::default()
        }
    }

    /// Applies one change.
    ///
    /// # Errors
    /// If the change does not fit; the state is then as before.
    pub fn apply(&mut self, change: &ObjectChange) -> Result<(), Refusal> {
        let verb = change.verb;
        let instead = match verb {
            ChangeVerb::Del => self.removal(change)?,
            _ => self.without(change)?,
        };
        if let Some(instead) = instead {
            if let Some(ObjectArgs::Link(words)) = instead.subject() {
                self.check_reset(words)?;
            }
            return self.apply(&instead);
        }
        match change.subject() {
            Some(ObjectArgs::Link(link)) => match verb {
                ChangeVerb::Add => self.add_link(link),
                ChangeVerb::Set => self.set_link(link),
                ChangeVerb::Replace => self.replace_link(link),
                ChangeVerb::Del => self.del_link(&link.name),
            },
            Some(ObjectArgs::Address(address)) => self.change_address(verb, address),
            Some(ObjectArgs::Route(route)) => self.change_route(verb, route),
            Some(ObjectArgs::Fdb(entry)) => self.change_fdb(verb, entry),
            Some(ObjectArgs::Endpoint(endpoint)) => self.change_endpoint(verb, endpoint),
            Some(ObjectArgs::Policy(rule)) => self.change_policy(verb, rule),
            Some(ObjectArgs::Nat(nat)) => self.change_nat(verb, nat),
            Some(ObjectArgs::Service(service)) => self.change_service(verb, service),
            Some(ObjectArgs::Qos(class)) => self.change_class(verb, class),
            Some(ObjectArgs::Option(option)) => self.change_option(verb, option),
            None => Err(Refusal::new("a change must name exactly one object", "")),
        }
    }

    /// Whether the state is large enough that walking it takes long. Below that, starting a thread costs more than it
    /// saves.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.objects() > FEW_DESIRED
    }

    /// Number of objects that belong to this link.
    #[must_use]
    pub fn objects_of(&self, link: &IfName) -> usize {
        self.routes_of(link).count()
            + self.endpoints_of(link).count()
            + self.policies_of(link).count()
            + self.nats_of(link).count()
            + self.services_of(link).count()
            + self.fdb_of(link).count()
    }

    /// Number of all objects.
    fn objects(&self) -> usize {
        let of_links = [
            self.routes.len(),
            self.fdb.len(),
            self.classes.len(),
            self.endpoints.len(),
            self.policies.len(),
            self.nats.len(),
            self.services.len(),
        ];
        self.options.len() + self.links.len() + of_links.iter().sum::<usize>()
    }

    /// Looks up a link.
    ///
    /// # Errors
    /// If there is no link of this name.
    pub fn link(&self, name: &IfName) -> Result<&LinkSpec, Refusal> {
        self.links.get(name).ok_or_else(|| {
            let names: Vec<_> = self.links.keys().map(IfName::as_str).collect();
            let hint = match nearest(name.as_str(), names) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "\"geneved link show\" lists the links".to_owned(),
            };
            Refusal::new(format!("Cannot find device \"{name}\""), hint)
                .because(RefusalCause::NoLink(name.to_string()))
        })
    }

    /// Routes of a link, by prefix.
    pub fn routes_of(&self, link: &IfName) -> impl Iterator<Item = (IpNet, &RouteSpec)> {
        let first = (link.clone(), IpNet::V4(Ipv4Net::default()));
        let rest = self.routes.range(first..);
        rest.take_while(move |((dev, _), _)| dev == link)
            .map(|((_, prefix), route)| (*prefix, route))
    }

    /// Endpoints of a link, by address.
    pub fn endpoints_of(&self, link: &IfName) -> impl Iterator<Item = (IpAddr, &EndpointSpec)> {
        let first = (link.clone(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let rest = self.endpoints.range(first..);
        rest.take_while(move |((dev, _), _)| dev == link)
            .map(|((_, addr), endpoint)| (*addr, endpoint))
    }

    /// Rules of a link, by name.
    pub fn policies_of(&self, link: &IfName) -> impl Iterator<Item = (&ObjectName, &PolicySpec)> {
        named(&self.policies, link)
    }

    /// NAT rules of a link, by name.
    pub fn nats_of(&self, link: &IfName) -> impl Iterator<Item = (&ObjectName, &NatSpec)> {
        named(&self.nats, link)
    }

    /// Services of a link, by name.
    pub fn services_of(&self, link: &IfName) -> impl Iterator<Item = (&ObjectName, &ServiceSpec)> {
        named(&self.services, link)
    }

    /// Classes of a link, by name.
    pub fn classes_of(&self, link: &IfName) -> impl Iterator<Item = (&ObjectName, &ClassSpec)> {
        named(&self.classes, link)
    }

    /// Whether any object of this link needs the fabric's secret.
    #[must_use]
    pub fn uses_labels(&self, link: &IfName) -> bool {
        self.endpoints_of(link).any(|(_, e)| e.labels.is_some())
            || self.policies_of(link).any(|(_, p)| p.has_selector())
    }

    fn needs_secret(&self, object: &str) -> Result<(), Refusal> {
        if self.fabric.secret {
            return Ok(());
        }
        Err(Refusal::new(
            format!("{object}: labels need the secret of the fabric, and there is none"),
            "name its file with \"label-secret-file\" in [daemon], the same secret on every host, and restart",
        ))
    }

    fn class_of(
        &self,
        object: &str,
        dev: &IfName,
        class: &ObjectName,
    ) -> Result<&ClassSpec, Refusal> {
        self.classes
            .get(&(dev.clone(), class.clone()))
            .ok_or_else(|| {
                let names = self.classes_of(dev).map(|(name, _)| name.as_str());
                let hint = match nearest(class.as_str(), names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("add it with \"geneved qos add {class} dev {dev} id N\""),
                };
                Refusal::new(format!("{object}: class \"{class}\" does not exist"), hint)
                    .because(RefusalCause::Missing(class.to_string()))
            })
    }

    /// Checks that every object is still valid after a link has changed.
    fn is_whole(&self) -> Result<(), Refusal> {
        let mut again = DesiredState::on(self.fabric);
        self.changes()
            .iter()
            .try_for_each(|change| again.apply(change))
    }

    /// Changes that recreate every object, ordered so that references resolve.
    #[must_use]
    pub fn changes(&self) -> Vec<ObjectChange> {
        let add = ChangeVerb::Add;
        let mut all: Vec<ObjectChange> = Vec::new();
        let options = self.options.iter();
        all.extend(options.map(|(name, o)| ObjectChange::option(add, o.words(name))));
        all.extend(
            self.links
                .values()
                .map(|l| ObjectChange::link(add, l.words())),
        );
        let classes = self.classes.iter();
        all.extend(classes.map(|((dev, name), c)| ObjectChange::qos(add, c.words(dev, name))));
        let routes = self.routes.iter();
        all.extend(
            routes.map(|((dev, prefix), r)| ObjectChange::route(add, r.words(dev, *prefix))),
        );
        let fdb = self.fdb.iter();
        all.extend(fdb.map(|((dev, mac), entry)| ObjectChange::fdb(add, entry.words(dev, *mac))));
        let (proxies, others): (Vec<_>, Vec<_>) =
            self.endpoints.iter().partition(|(_, e)| e.target.is_some());
        let endpoints = others.into_iter().chain(proxies);
        all.extend(
            endpoints.map(|((dev, addr), e)| ObjectChange::endpoint(add, e.words(dev, *addr))),
        );
        let rules = self.policies.iter();
        all.extend(rules.map(|((dev, name), p)| ObjectChange::policy(add, p.words(dev, name))));
        let nats = self.nats.iter();
        all.extend(nats.map(|((dev, name), n)| ObjectChange::nat(add, n.words(dev, name))));
        let services = self.services.iter();
        all.extend(services.map(|((dev, name), s)| ObjectChange::service(add, s.words(dev, name))));
        all
    }
}

fn named<'a, T>(
    all: &'a SharedMap<(IfName, ObjectName), T>,
    link: &IfName,
) -> impl Iterator<Item = (&'a ObjectName, &'a T)> {
    let rest = all.range((link.clone(), ObjectName::default())..);
    rest.take_while(move |((dev, _), _)| dev == link)
        .map(|((_, name), value)| (name, value))
}

fn put<T>(into: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *into = value;
    }
}

/// Refuses a change that needs the object to exist, or not to exist. `kind` is the command line's word for it;
/// `names` are the existing objects of that kind.
fn presence<N: ToString>(
    verb: ChangeVerb,
    there: bool,
    object: &str,
    (kind, name): (&str, &dyn fmt::Display),
    names: impl Iterator<Item = N>,
) -> Result<(), Refusal> {
    match (verb, there) {
        (ChangeVerb::Add, true) => Err(Refusal::new(
            format!("{object} exists already"),
            "change it with \"set\" or \"replace\", or delete it first",
        )
        .because(RefusalCause::Exists(name.to_string()))),
        (ChangeVerb::Set | ChangeVerb::Del, false) => {
            let names: Vec<String> = names.map(|name| name.to_string()).collect();
            Err(absent(object, &name.to_string(), &names, kind))
        }
        _ => Ok(()),
    }
}

/// Refusal for a missing object, which suggests the nearest existing name.
#[must_use]
pub fn absent(object: &str, name: &str, names: &[String], kind: &str) -> Refusal {
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) if near != name => format!("did you mean \"{near}\"?"),
        _ => format!("\"geneved {kind} show\" lists what is there"),
    };
    Refusal::new(format!("Cannot find {object}"), hint)
        .because(RefusalCause::Missing(name.to_owned()))
}

/// Completes the words of a `set` with the existing values; other verbs take the words as they are.
fn whole<W: Serialize + DeserializeOwned>(verb: ChangeVerb, has: Option<W>, words: W) -> W {
    let (ChangeVerb::Set, Some(has)) = (verb, has) else {
        return words;
    };
    let json = |words| serde_json::to_value(words).expect("words have a form in JSON");
    let (mut all, named) = (json(has), json(words));
    if let (Some(all), serde_json::Value::Object(named)) = (all.as_object_mut(), named) {
        all.extend(named);
    }
    serde_json::from_value(all).expect("what is named is of the same type")
}

/// Refuses if a required word is missing.
fn required<T>(object: &str, word: &str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(|| {
        Refusal::new(
            format!("{object}: Not enough information: \"{word}\" argument is required."),
            "",
        )
    })
}
