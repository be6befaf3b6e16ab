//! Classes as they are shown.

use serde::{Deserialize, Serialize};

use crate::config::args::QosArgs;

/// The reply of `ListClasses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassesReply {
    /// By link, then by name.
    pub classes: Vec<ClassInfo>,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassInfo {
    /// The class.
    pub class: QosArgs,
    /// Inner bytes that passed.
    pub passed_bytes: u64,
    /// Inner bytes that were over its rate.
    pub dropped_bytes: u64,
    /// Inner bytes that passed with a congestion mark.
    pub marked_bytes: u64,
    /// Inner bytes that wait for the rate now.
    pub backlog_bytes: u64,
}
