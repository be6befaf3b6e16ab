//! What policy, NAT, services, classes and options are made of, as users write it.

use std::fmt;
use std::net::IpAddr;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::value::{
    AddrPort, AddrRange, Affinity, CheckWord, ClassWord, DfWord, Direction, Dscp, FlowState, Icmp,
    IfName, KindWord, LabelsWord, MatchWord, Name, NatKind, OrNone, PortRange, Ports, Prefix,
    Proto, Rate, RawOption, RuleAction, Seconds, Size, TypeWord, Who,
};

/// `[[policy]]`, `geneved policy add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyWords {
    /// The rule's name, unique on its link.
    pub name: Name,
    /// The link.
    pub dev: IfName,
    /// The side of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Rules with a lower one are asked first; 100 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pref: Option<u32>,
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Who>,
    /// The destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Who>,
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// The source ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<Ports>,
    /// The destination ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<Ports>,
    /// The ICMP type, and perhaps its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// What an option of the packet must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<MatchWord>,
    /// What the destination must be.
    #[serde(
        alias = "endpoint-type",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub endpoint_type: Option<TypeWord>,
    /// What is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<RuleAction>,
    /// Whether `monitor` shows its flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<bool>,
    /// The class of its flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<OrNone<Name>>,
}

/// `[[nat]]`, `geneved nat add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatWords {
    /// The translation's name, unique on its link.
    pub name: Name,
    /// The link.
    pub dev: IfName,
    /// What kind.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<NatKind>,
    /// snat: the sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Prefix>,
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
    pub proto: Option<Proto>,
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

/// `[[service]]`, `geneved service add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceWords {
    /// The service's name, unique on its link.
    pub name: Name,
    /// The link.
    pub dev: IfName,
    /// The address that clients ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// TCP or UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// The port that clients ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Who serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend: Vec<BackendWords>,
    /// What keeps a client at its backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How backends are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckWord>,
    /// From the start of one check to the start of the next; 2 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Seconds>,
    /// How long an answer may take; 1, or the interval where that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Seconds>,
    /// So many answers in a row bring a backend back; 2 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rise: Option<u8>,
    /// So many failures in a row put a backend out; 3 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fall: Option<u8>,
}

/// A backend of a service: a table, or a text `ADDR[:PORT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackendWords {
    /// Its overlay address.
    pub address: IpAddr,
    /// Its port; the service's if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Its share, 1 if it is left out; 0 gives it no new flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
}

impl From<AddrPort> for BackendWords {
    fn from(at: AddrPort) -> Self {
        BackendWords {
            address: at.addr,
            port: at.port,
            weight: None,
        }
    }
}

impl<'de> Deserialize<'de> for BackendWords {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            address: IpAddr,
            port: Option<u16>,
            weight: Option<u16>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = BackendWords;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text ADDR[:PORT] or a table of address, port and weight")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<BackendWords, E> {
                text.parse::<AddrPort>()
                    .map(BackendWords::from)
                    .map_err(|e| E::custom(format_args!("argument \"{text}\" is wrong: {e}")))
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<BackendWords, M::Error> {
                let table = Table::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(BackendWords {
                    address: table.address,
                    port: table.port,
                    weight: table.weight,
                })
            }
        }
        from.deserialize_any(Either)
    }
}

/// `[[qos]]`, `geneved qos add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosWords {
    /// The class's name, unique on its link.
    pub name: Name,
    /// The link.
    pub dev: IfName,
    /// Its number on the wire, unique on its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u8>,
    /// The rate that its flows share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OrNone<Rate>>,
    /// How much may pass at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<OrNone<Size>>,
    /// The outer code point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<OrNone<Dscp>>,
}

/// `[[option]]`, `geneved option add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionWords {
    /// Its name, unique on this host.
    pub name: Name,
    /// The name space of its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ClassWord>,
    /// Its type; the high bit makes it critical.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<KindWord>,
    /// Bytes of data: a multiple of 4, at most 124.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u8>,
    /// Whether receivers that do not know it drop the packet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
}

/// Which flows are meant; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Those of this link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
    /// Those from an address in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Prefix>,
    /// Those to an address in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Prefix>,
    /// Those of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<Proto>,
    /// Those from this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Those to this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Those that have got so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowState>,
}

/// A packet that is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceWords {
    /// The link.
    pub dev: IfName,
    /// The way that it goes.
    pub direction: Direction,
    /// Its inner source.
    pub from: IpAddr,
    /// Its inner destination.
    pub to: IpAddr,
    /// Its protocol.
    pub proto: Proto,
    /// Its source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Its destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Its ICMP type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
    /// ingress: the host that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// ingress: the options that it carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<RawOption>,
    /// ingress: the labels of its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsWord>,
    /// Bytes of the whole IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u16>,
    /// Of IPv4 with a length: the DF bit, set unless it is said; never `inherit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub df: Option<DfWord>,
}
