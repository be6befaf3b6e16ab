//! Defined options as they are shown.

use serde::{Deserialize, Serialize};

use crate::config::args::OptionArgs;

/// The reply of `ListOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionsReply {
    /// By name.
    pub options: Vec<OptionInfo>,
}

/// A defined option.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionInfo {
    /// The definition.
    pub option: OptionArgs,
    /// Packets received with it.
    pub rx: u64,
    /// Packets sent with it.
    pub tx: u64,
}
