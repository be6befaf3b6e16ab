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

pub use self::fdb::FdbArgs;
pub use self::flow::FlowFilter;
pub use self::keys::{keys, keys_of};
pub use self::nat::NatArgs;
pub use self::option::OptionArgs;
pub use self::policy::PolicyArgs;
pub use self::qos::QosArgs;
pub use self::service::{BackendArgs, ServiceArgs};
pub use self::trace::TraceArgs;
use super::value::{
    DefaultAction, DfValue, EndpointTypeValue, IfName, InnerValue, LabelsUse, LabelsValue,
    LinkSegmentation, MacValue, ModeValue, MtuValue, NamedData, ObjectName, OrNone, PortRange,
    PrefixValue, ProxyTargetValue, RateValue, SizeValue, TosValue, TtlValue, VniValue,
};

/// What a link is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Geneve (RFC 8926).
    #[default]
    Geneve,
    /// VXLAN (RFC 7348).
    Vxlan,
}

impl From<LinkKind> for Encapsulation {
    fn from(kind: LinkKind) -> Encapsulation {
        match kind {
            LinkKind::Geneve => Encapsulation::Geneve,
            LinkKind::Vxlan => Encapsulation::Vxlan,
        }
    }
}

impl From<Encapsulation> for LinkKind {
    fn from(encapsulation: Encapsulation) -> LinkKind {
        match encapsulation {
            Encapsulation::Geneve => LinkKind::Geneve,
            Encapsulation::Vxlan => LinkKind::Vxlan,
        }
    }
}

/// `[[link]]`, `geneved link add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkArgs {
    /// The interface's name.
    pub name: IfName,
    /// `geneve`, where nothing is said, or `vxlan`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<LinkKind>,
    /// The virtual network identifier, 0 to 16,777,215.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<VniValue>,
    /// What the interface is: `ip`, where nothing is said, or `ethernet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeValue>,
    /// What the datagrams carry: `ip` or `ethernet`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<InnerValue>,
    /// The link's own MAC address, where its datagrams carry frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacValue>,
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
    pub ttl: Option<TtlValue>,
    /// The outer DSCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tos: Option<TosValue>,
    /// The outer DF bit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub df: Option<DfValue>,
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
    pub mtu: Option<MtuValue>,
    /// Addresses of the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<PrefixValue>,
    /// Prefixes that live behind the interface, besides its own addresses; mode ip.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<PrefixValue>,
    /// The network namespace that the interface is put into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// What happens to an incoming flow that no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<DefaultAction>,
    /// What happens to an outgoing flow that no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<DefaultAction>,
    /// Whether receivers may do without understanding the label option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsUse>,
    /// Options that every packet of the link carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<NamedData>,
    /// The rate of everything that the link sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OrNone<RateValue>>,
    /// How much may pass at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<OrNone<SizeValue>>,
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
pub struct AddressArgs {
    /// The address, with the length of its prefix.
    pub prefix: PrefixValue,
    /// The link.
    pub dev: IfName,
}

/// `[[route]]`, `geneved route add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteArgs {
    /// The inner prefix.
    pub prefix: PrefixValue,
    /// The link.
    pub dev: IfName,
    /// The hosts that the prefix is behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<IpAddr>,
    /// What the prefix is: `simple` or `gateway`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<EndpointTypeValue>,
}

/// `[[endpoint]]`, `geneved endpoint add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointArgs {
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
    pub kind: Option<EndpointTypeValue>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsValue>,
    /// Its MAC address, for links whose datagrams carry frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lladdr: Option<MacValue>,
    /// The class of its flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<OrNone<ObjectName>>,
    /// The rate of everything that it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OrNone<RateValue>>,
    /// Options that every packet to it carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<NamedData>,
    /// Whether this host is one of its hosts and preferred; scaled endpoints only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colocated: Option<bool>,
    /// What it stands for; proxied endpoints only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<ProxyTargetValue>,
}

impl Default for EndpointArgs {
    /// What a command begins with, before its words fill it.
    fn default() -> Self {
        EndpointArgs {
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
pub enum ChangeVerb {
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
pub struct ObjectChange {
    /// What is done.
    pub verb: ChangeVerb,
    /// A link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<LinkArgs>,
    /// An address of a link; it is added or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressArgs>,
    /// A route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteArgs>,
    /// A MAC address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fdb: Option<FdbArgs>,
    /// An endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointArgs>,
    /// A rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyArgs>,
    /// A translation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<NatArgs>,
    /// A service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceArgs>,
    /// A class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<QosArgs>,
    /// An option.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<OptionArgs>,
    /// Keys of settings that are taken away, so that each is as if it had never been named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub none: Vec<String>,
}

/// The one object of a change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ObjectArgs<'a> {
    /// A link.
    Link(&'a LinkArgs),
    /// An address of a link.
    Address(&'a AddressArgs),
    /// A route.
    Route(&'a RouteArgs),
    /// A MAC address.
    Fdb(&'a FdbArgs),
    /// An endpoint.
    Endpoint(&'a EndpointArgs),
    /// A rule.
    Policy(&'a PolicyArgs),
    /// A translation.
    Nat(&'a NatArgs),
    /// A service.
    Service(&'a ServiceArgs),
    /// A class.
    Qos(&'a QosArgs),
    /// An option.
    Option(&'a OptionArgs),
}

impl ObjectChange {
    fn of(verb: ChangeVerb) -> Self {
        ObjectChange {
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
        ObjectChange { none, ..self }
    }

    /// A change of a link.
    #[must_use]
    pub fn link(verb: ChangeVerb, link: LinkArgs) -> Self {
        ObjectChange {
            link: Some(link),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of the addresses of a link.
    #[must_use]
    pub fn address(verb: ChangeVerb, address: AddressArgs) -> Self {
        ObjectChange {
            address: Some(address),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of a route.
    #[must_use]
    pub fn route(verb: ChangeVerb, route: RouteArgs) -> Self {
        ObjectChange {
            route: Some(route),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of a MAC address.
    #[must_use]
    pub fn fdb(verb: ChangeVerb, fdb: FdbArgs) -> Self {
        ObjectChange {
            fdb: Some(fdb),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of an endpoint.
    #[must_use]
    pub fn endpoint(verb: ChangeVerb, endpoint: EndpointArgs) -> Self {
        ObjectChange {
            endpoint: Some(endpoint),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of a rule.
    #[must_use]
    pub fn policy(verb: ChangeVerb, policy: PolicyArgs) -> Self {
        ObjectChange {
            policy: Some(policy),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of a translation.
    #[must_use]
    pub fn nat(verb: ChangeVerb, nat: NatArgs) -> Self {
        ObjectChange {
            nat: Some(nat),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of a service.
    #[must_use]
    pub fn service(verb: ChangeVerb, service: ServiceArgs) -> Self {
        ObjectChange {
            service: Some(service),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of a class.
    #[must_use]
    pub fn qos(verb: ChangeVerb, qos: QosArgs) -> Self {
        ObjectChange {
            qos: Some(qos),
            ..ObjectChange::of(verb)
        }
    }

    /// A change of an option.
    #[must_use]
    pub fn option(verb: ChangeVerb, option: OptionArgs) -> Self {
        ObjectChange {
            option: Some(option),
            ..ObjectChange::of(verb)
        }
    }

    /// Whether both are about one object, whatever they say of it.
    #[must_use]
    pub fn names_the_same(&self, other: &ObjectChange) -> bool {
        match (self.subject(), other.subject()) {
            (Some(ObjectArgs::Link(a)), Some(ObjectArgs::Link(b))) => a.name == b.name,
            (Some(ObjectArgs::Address(a)), Some(ObjectArgs::Address(b))) => a == b,
            (Some(ObjectArgs::Route(a)), Some(ObjectArgs::Route(b))) => {
                (&a.dev, &a.prefix) == (&b.dev, &b.prefix)
            }
            (Some(ObjectArgs::Endpoint(a)), Some(ObjectArgs::Endpoint(b))) => {
                (&a.dev, a.address) == (&b.dev, b.address)
            }
            (Some(ObjectArgs::Policy(a)), Some(ObjectArgs::Policy(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(ObjectArgs::Nat(a)), Some(ObjectArgs::Nat(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(ObjectArgs::Service(a)), Some(ObjectArgs::Service(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(ObjectArgs::Qos(a)), Some(ObjectArgs::Qos(b))) => {
                (&a.dev, &a.name) == (&b.dev, &b.name)
            }
            (Some(ObjectArgs::Fdb(a)), Some(ObjectArgs::Fdb(b))) => {
                (&a.dev, &a.mac) == (&b.dev, &b.mac)
            }
            (Some(ObjectArgs::Option(a)), Some(ObjectArgs::Option(b))) => a.name == b.name,
            _ => false,
        }
    }

    /// The object, if exactly one is named.
    #[must_use]
    pub fn subject(&self) -> Option<ObjectArgs<'_>> {
        let all = [
            self.link.as_ref().map(ObjectArgs::Link),
            self.address.as_ref().map(ObjectArgs::Address),
            self.route.as_ref().map(ObjectArgs::Route),
            self.fdb.as_ref().map(ObjectArgs::Fdb),
            self.endpoint.as_ref().map(ObjectArgs::Endpoint),
            self.policy.as_ref().map(ObjectArgs::Policy),
            self.nat.as_ref().map(ObjectArgs::Nat),
            self.service.as_ref().map(ObjectArgs::Service),
            self.qos.as_ref().map(ObjectArgs::Qos),
            self.option.as_ref().map(ObjectArgs::Option),
        ];
        let mut named = all.into_iter().flatten();
        named.next().filter(|_| named.next().is_none())
    }
}
