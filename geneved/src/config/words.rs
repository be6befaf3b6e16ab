//! The objects as users write them: every keyword optional, nothing judged yet.
//!
//! One type per object serves the configuration file, the control socket and the command line, so
//! that a key is spelled and typed the same everywhere. [`super::state`] makes them whole.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::value::{Action, DfWord, IfName, MtuWord, PortRange, Prefix, TosWord, TtlWord, Vni};

/// What a link is made of. Only one kind so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Geneve (RFC 8926).
    #[default]
    Geneve,
}

/// `[[link]]`, `geneved link add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkWords {
    /// The interface's name.
    pub name: IfName,
    /// Always `geneve`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The virtual network identifier, 0 to 16,777,215.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Vni>,
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
    /// The inner MTU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<MtuWord>,
    /// Addresses of the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<Prefix>,
    /// The network namespace that the interface is put into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// What happens to an incoming flow that no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Action>,
    /// What happens to an outgoing flow that no rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Action>,
}

/// `[[route]]`, `geneved route add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteWords {
    /// The inner prefix.
    pub prefix: Prefix,
    /// The link.
    pub dev: IfName,
    /// The hosts that the prefix is behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<IpAddr>,
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
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// It must not be there yet.
    Add,
    /// It must be there; only what is named changes.
    Set,
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
    /// A route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteWords>,
    /// An endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointWords>,
}

impl Change {
    /// A change of a link.
    #[must_use]
    pub fn link(verb: Verb, link: LinkWords) -> Self {
        Change {
            verb,
            link: Some(link),
            route: None,
            endpoint: None,
        }
    }

    /// A change of a route.
    #[must_use]
    pub fn route(verb: Verb, route: RouteWords) -> Self {
        Change {
            verb,
            link: None,
            route: Some(route),
            endpoint: None,
        }
    }

    /// A change of an endpoint.
    #[must_use]
    pub fn endpoint(verb: Verb, endpoint: EndpointWords) -> Self {
        Change {
            verb,
            link: None,
            route: None,
            endpoint: Some(endpoint),
        }
    }
}
