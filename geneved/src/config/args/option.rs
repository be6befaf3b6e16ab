//! The words of options that users define.

use serde::{Deserialize, Serialize};

use super::super::value::{ObjectName, OptionClassValue, OptionTypeValue};

/// `[[option]]`, `geneved option add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionArgs {
    /// Its name, unique on this host.
    pub name: ObjectName,
    /// The name space of its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<OptionClassValue>,
    /// Its type; the high bit makes it critical.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<OptionTypeValue>,
    /// Bytes of data: a multiple of 4, at most 124.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub len: Option<u8>,
    /// Whether receivers that do not know it drop the packet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
}
