//! The objects as users write them: every keyword optional, nothing judged yet.
//!
//! One type per object serves the configuration file, the control socket and the command line, so
//! that a key is spelled and typed the same everywhere. [`super::state`] makes them whole.

use std::net::{IpAddr, Ipv4Addr};

use libgeneve::wire::encapsulation::Encapsulation;
use serde::{Deserialize, Serialize};

mod fdb;
mod flow;
mod keys;
mod nat;
mod option;
mod policy;
mod qos;
mod service;
mod trace;

pub use self::fdb::FdbWords;
pub use self::flow::FlowFilter;
pub use self::keys::{keys, keys_of};
pub use self::nat::NatWords;
pub use self::option::OptionWords;
pub use self::policy::PolicyWords;
pub use self::qos::QosWords;
pub use self::service::{BackendWords, ServiceWords};
pub use self::trace::TraceWords;
use super::value::{
    Action, DfWord, IfName, InnerWord, LabelsUse, LabelsWord, LinkSegmentation, MacWord, Mode,
    MtuWord, Name, NamedData, OrNone, PortRange, Prefix, Rate, Size, Target, TosWord, TtlWord,
    TypeWord, Vni,
};

/// What a link is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Geneve (RFC 8926).
    #[default]
    Geneve,
    /// VXLAN (RFC 7348).
    Vxlan,
}

impl From<Kind> for Encapsulation {
    fn from(kind: Kind) -> Encapsulation {
        match kind {
            Kind::Geneve => Encapsulation::Geneve,
            Kind::Vxlan => Encapsulation::Vxlan,
        }
    }
}

impl From<Encapsulation> for Kind {
    fn from(encapsulation: Encapsulation) -> Kind {
        match encapsulation {
            Encapsulation::Geneve => Kind::Geneve,
            Encapsulation::Vxlan => Kind::Vxlan,
        }
    }
}

/// `[[link]]`, `geneved link add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkWords {
    /// The interface's name.
    pub name: IfName,
    /// `geneve`, where nothing is said, or `vxlan`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The virtual network identifier, 0 to 16,777,215.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Vni>,
    /// What the interface is: `ip`, where nothing is said, or `ethernet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// What the datagrams carry: `ip` or `ethernet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<InnerWord>,
    /// The link's own MAC address, where its datagrams carry frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacWord>,
    /// The host that is the default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// The outer source address; the only one that packets are taken at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The UDP port that is sent to and listened on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dstport: Option<u16>,
    /// The outer TTL or hop limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlWord>,
    /// The outer DSCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<TosWord>,
    /// The outer DF bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub df: Option<DfWord>,
    /// Whether a UDP checksum is sent over IPv4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udpcsum: Option<bool>,
    /// Whether the UDP checksum over IPv6 is left zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp6zerocsumtx: Option<bool>,
    /// Whether a zero UDP checksum is accepted over IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp6zerocsumrx: Option<bool>,
    /// The UDP source ports that flows are spread over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub srcport: Option<PortRange>,
    /// Who finishes what the link sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<LinkSegmentation>,
    /// The inner MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<MtuWord>,
    /// Addresses of the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<Prefix>,
    /// Prefixes that live behind the interface, besides its own addresses; mode ip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<Prefix>,
    /// The network namespace that the interface is put into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// What happens to an incoming flow that no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Action>,
    /// What happens to an outgoing flow that no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Action>,
    /// Whether receivers may do without understanding the label option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsUse>,
    /// Options that every packet of the link carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<NamedData>,
    /// The rate of everything that the link sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OrNone<Rate>>,
    /// How much may pass at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<OrNone<Size>>,
    /// Whether the interface is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
    /// Whether MAC addresses are learned from frames; mode ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning: Option<bool>,
    /// How long a MAC address is known that was not seen, in seconds; mode ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ageing: Option<u32>,
    /// How many MAC addresses are known at most; mode ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxaddress: Option<u32>,
    /// How many frames a second may be sent to everybody; mode ethernet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floodrate: Option<u32>,
}

/// `geneved address add`: one address of a link, where `[[link]]` has all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressWords {
    /// The address, with the length of its prefix.
    pub prefix: Prefix,
    /// The link.
    pub dev: IfName,
}

/// `[[route]]`, `geneved route add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteWords {
    /// The inner prefix.
    pub prefix: Prefix,
    /// The link.
    pub dev: IfName,
    /// The hosts that the prefix is behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<IpAddr>,
    /// What the prefix is: `simple` or `gateway`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TypeWord>,
}

/// `[[endpoint]]`, `geneved endpoint add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointWords {
    /// The overlay address.
    pub address: IpAddr,
    /// The link.
    pub dev: IfName,
    /// The hosts that it is on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<IpAddr>,
    /// Whether it is on this host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// What it is.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TypeWord>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsWord>,
    /// Its MAC address, for links whose datagrams carry frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacWord>,
    /// The class of its flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<OrNone<Name>>,
    /// The rate of everything that it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OrNone<Rate>>,
    /// Options that every packet to it carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<NamedData>,
    /// Whether this host is one of its hosts and preferred; scaled endpoints only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colocated: Option<bool>,
    /// What it stands for; proxied endpoints only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

impl Default for EndpointWords {
    /// What a command begins with, before its words fill it.
    fn default() -> Self {
        EndpointWords {
            address: Ipv4Addr::UNSPECIFIED.into(),
            dev: IfName::default(),
            host: Vec::new(),
            local: false,
            kind: None,
            labels: None,
            lladdr: None,
            class: None,
            rate: None,
            option: Vec::new(),
            colocated: None,
            target: None,
        }
    }
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It must not be there yet.
    Add,
    /// It must be there; only what is named changes.
    Set,
    /// It takes the place of what is there, if anything is; links have no such thing.
    Replace,
    /// It must be there.
    Del,
}

/// One change of the running state; exactly one object is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What is done.
    pub verb: Verb,
    /// A link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkWords>,
    /// An address of a link; it is added or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressWords>,
    /// A route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteWords>,
    /// A MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb: Option<FdbWords>,
    /// An endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointWords>,
    /// A rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyWords>,
    /// A translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatWords>,
    /// A service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceWords>,
    /// A class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<QosWords>,
    /// An option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<OptionWords>,
    /// Keys of settings that are taken away, so that each is as if it had never been named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub none: Vec<String>,
}

/// The one object of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Subject<'a> {
    /// A link.
    Link(&'a LinkWords),
    /// An address of a link.
    Address(&'a AddressWords),
    /// A route.
    Route(&'a RouteWords),
    /// A MAC address.
    Fdb(&'a FdbWords),
    /// An endpoint.
    Endpoint(&'a EndpointWords),
    /// A rule.
    Policy(&'a PolicyWords),
    /// A translation.
    Nat(&'a NatWords),
    /// A service.
    Service(&'a ServiceWords),
    /// A class.
    Qos(&'a QosWords),
    /// An option.
    Option(&'a OptionWords),
}

impl Change {
    fn of(verb: Verb) -> Self {
        Change {
            verb,
            link: None,
            address: None,
            route: None,
            fdb: None,
            endpoint: None,
            policy: None,
            nat: None,
            service: None,
            qos: None,
            option: None,
            none: Vec::new(),
        }
    }

    /// The same, and these settings are taken away.
    #[must_use]
    pub fn without(self, none: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let none = none.into_iter().map(Into::into).collect();
        Change { none, ..self }
    }

    /// A change of a link.
    #[must_use]
    pub fn link(verb: Verb, link: LinkWords) -> Self {
        Change {
            link: Some(link),
            ..Change::of(verb)
        }
    }

    /// A change of the addresses of a link.
    #[must_use]
    pub fn address(verb: Verb, address: AddressWords) -> Self {
        Change {
            address: Some(address),
            ..Change::of(verb)
        }
    }

    /// A change of a route.
    #[must_use]
    pub fn route(verb: Verb, route: RouteWords) -> Self {
        Change {
            route: Some(route),
            ..Change::of(verb)
        }
    }

    /// A change of a MAC address.
    #[must_use]
    pub fn fdb(verb: Verb, fdb: FdbWords) -> Self {
        Change {
            fdb: Some(fdb),
            ..Change::of(verb)
        }
    }

    /// A change of an endpoint.
    #[must_use]
    pub fn endpoint(verb: Verb, endpoint: EndpointWords) -> Self {
        Change {
            endpoint: Some(endpoint),
            ..Change::of(verb)
        }
    }

    /// A change of a rule.
    #[must_use]
    pub fn policy(verb: Verb, policy: PolicyWords) -> Self {
        Change {
            policy: Some(policy),
            ..Change::of(verb)
        }
    }

    /// A change of a translation.
    #[must_use]
    pub fn nat(verb: Verb, nat: NatWords) -> Self {
        Change {
            nat: Some(nat),
            ..Change::of(verb)
        }
    }

    /// A change of a service.
    #[must_use]
    pub fn service(verb: Verb, service: ServiceWords) -> Self {
        Change {
            service: Some(service),
            ..Change::of(verb)
        }
    }

    /// A change of a class.
    #[must_use]
    pub fn qos(verb: Verb, qos: QosWords) -> Self {
        Change {
            qos: Some(qos),
            ..Change::of(verb)
        }
    }

    /// A change of an option.
    #[must_use]
    pub fn option(verb: Verb, option: OptionWords) -> Self {
        Change {
            option: Some(option),
            ..Change::of(verb)
        }
    }

    /// Whether both are about one object, whatever they say of it.
    #[must_use]
    pub fn names_the_same(&self, other: &Change) -> bool {
        match (self.subject(), other.subject()) {
            (Some(Subject::Link(a)), Some(Subject::Link(b))) => a.name == b.name,
            (Some(Subject::Address(a)), Some(Subject::Address(b))) => a == b,
            (Some(Subject::Route(a)), Some(Subject::Route(b))) => {
                (&a.dev, &a.prefix) == (&b.dev, &b.prefix)
            }
            (Some(Subject::Endpoint(a)), Some(Subject::Endpoint(b))) => {
                (&a.dev, a.address) == (&b.dev, b.address)
            }
            (Some(Subject::Policy(a)), Some(Subject::Policy(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(Subject::Nat(a)), Some(Subject::Nat(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(Subject::Service(a)), Some(Subject::Service(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(Subject::Qos(a)), Some(Subject::Qos(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(Subject::Fdb(a)), Some(Subject::Fdb(b))) => (&a.dev, &a.mac) == (&b.dev, &b.mac),
            (Some(Subject::Option(a)), Some(Subject::Option(b))) => a.name == b.name,
            _ => false,
        }
    }

    /// The object, if exactly one is named.
    #[must_use]
    pub fn subject(&self) -> Option<Subject<'_>> {
        let all = [
            self.link.as_ref().map(Subject::Link),
            self.address.as_ref().map(Subject::Address),
            self.route.as_ref().map(Subject::Route),
            self.fdb.as_ref().map(Subject::Fdb),
            self.endpoint.as_ref().map(Subject::Endpoint),
            self.policy.as_ref().map(Subject::Policy),
            self.nat.as_ref().map(Subject::Nat),
            self.service.as_ref().map(Subject::Service),
            self.qos.as_ref().map(Subject::Qos),
            self.option.as_ref().map(Subject::Option),
        ];
        let mut named = all.into_iter().flatten();
        named.next().filter(|_| named.next().is_none())
    }
}
