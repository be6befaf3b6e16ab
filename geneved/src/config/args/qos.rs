//! The words of classes.

use serde::{Deserialize, Serialize};

use super::super::value::{DscpValue, IfName, ObjectName, OrNone, RateValue, SizeValue};

/// `[[qos]]`, `geneved qos add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosArgs {
    /// The class's name, unique on its link.
    pub name: ObjectName,
    /// The link.
    pub dev: IfName,
    /// Its number on the wire, unique on its link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u8>,
    /// The rate that its flows share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<OrNone<RateValue>>,
    /// How much may pass at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<OrNone<SizeValue>>,
    /// The outer code point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp: Option<OrNone<DscpValue>>,
}
