//! The words of options that users define.

use serde::{Deserialize, Serialize};

use super::super::value::{ClassWord, KindWord, Name};

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
