//! The words of classes.

use serde::{Deserialize, Serialize};

use super::super::value::{Dscp, IfName, Name, OrNone, Rate, Size};

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
