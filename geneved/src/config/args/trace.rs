//! The words of a packet whose way is asked for.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::value::{
    DfValue, DirectionValue, IcmpValue, IfName, LabelsValue, ProtocolValue, RawOption,
};

/// A packet that is described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceArgs {
    /// The link.
    pub dev: IfName,
    /// The way that it goes.
    pub direction: DirectionValue,
    /// Its inner source.
    pub from: IpAddr,
    /// Its inner destination.
    pub to: IpAddr,
    /// Its protocol.
    pub proto: ProtocolValue,
    /// Its source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Its destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Its ICMP type and code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpValue>,
    /// ingress: the host that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// ingress: the options that it carries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub option: Vec<RawOption>,
    /// ingress: the labels of its source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<LabelsValue>,
    /// Bytes of the whole IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u16>,
    /// Of IPv4 with a length: the DF bit, set unless it is said; never `inherit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub df: Option<DfValue>,
}
