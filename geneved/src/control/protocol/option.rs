//! User-defined options as shown on the control socket.

use serde::{Deserialize, Serialize};

use crate::config::args::OptionArgs;

/// The reply of `ListOptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionsReply {
    /// Sorted by name.
    pub options: Vec<OptionInfo>,
}

/// A user-defined option with its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptionInfo {
    /// The definition.
    pub option: OptionArgs,
    /// Number of packets received with it.
    pub rx: u64,
    /// Number of packets sent with it.
    pub tx: u64,
}
