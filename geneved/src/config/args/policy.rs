//! The words of rules.

use serde::{Deserialize, Serialize};

use super::super::value::{
    DirectionValue, EndpointTypeValue, IcmpValue, IfName, ObjectName, OptionMatchValue, OrNone,
    PortListValue, ProtocolValue, RuleAction, RulePeerValue,
};

/// `[[policy]]`, `geneved policy add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyArgs {
    /// The rule's name, unique on its link.
    pub name: ObjectName,
    /// The link.
    pub dev: IfName,
    /// The side of the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<DirectionValue>,
    /// Rules with a lower one are asked first; 100 if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pref: Option<u32>,
    /// The source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RulePeerValue>,
    /// The destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RulePeerValue>,
    /// The protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<ProtocolValue>,
    /// The source ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sport: Option<PortListValue>,
    /// The destination ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<PortListValue>,
    /// The ICMP type, and perhaps its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpValue>,
    /// What an option of the packet must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<OptionMatchValue>,
    /// What the destination must be.
    #[serde(
        alias = "endpoint-type",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub endpoint_type: Option<EndpointTypeValue>,
    /// What is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<RuleAction>,
    /// Whether `monitor` shows its flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<bool>,
    /// The class of its flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<OrNone<ObjectName>>,
}
