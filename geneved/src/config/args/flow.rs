//! The words that choose flows.

use serde::{Deserialize, Serialize};

use super::super::value::{FlowStateValue, IfName, PrefixValue, ProtocolValue};

/// Which flows are meant; what is left out does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// Those of this link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
    /// Those from an address in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PrefixValue>,
    /// Those to an address in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<PrefixValue>,
    /// Those of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<ProtocolValue>,
    /// Those from this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<u16>,
    /// Those to this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Those that have got so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<FlowStateValue>,
}
