//! The words of translations.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::value::{
    AddrPort, AddrRange, IfName, NatKind, ObjectName, PortRange, PrefixValue, ProtocolValue,
};

/// `[[nat]]`, `geneved nat add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatArgs {
    /// The translation's name, unique on its link.
    pub name: ObjectName,
    /// The link.
    pub dev: IfName,
    /// What kind.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NatKind>,
    /// snat: the sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PrefixValue>,
    /// snat: what they become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<AddrRange>,
    /// snat: the ports that are handed out; 1024-65535 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<PortRange>,
    /// dnat: the destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// dnat: the protocol of the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<ProtocolValue>,
    /// dnat: the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// dnat: what the destination becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<AddrPort>,
    /// static: the address in the VPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inside: Option<IpAddr>,
    /// static: the address outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<IpAddr>,
}
