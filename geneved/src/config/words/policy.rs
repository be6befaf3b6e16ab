//! The words of rules.

use serde::{Deserialize, Serialize};

use super::super::value::{
    Direction, Icmp, IfName, MatchWord, Name, OrNone, Ports, Proto, RuleAction, TypeWord, Who,
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
