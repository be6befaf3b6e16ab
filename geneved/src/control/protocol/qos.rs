//! Classes as shown on the control socket.

use serde::{Deserialize, Serialize};

use crate::config::args::QosArgs;

/// The reply of `ListClasses`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassesReply {
    /// Sorted by link, then by name.
    pub classes: Vec<ClassInfo>,
}

/// A class with its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassInfo {
    /// The class.
    pub class: QosArgs,
    /// Inner bytes that passed.
    pub passed_bytes: u64,
    /// Inner bytes dropped for exceeding the rate.
    pub dropped_bytes: u64,
    /// Inner bytes that passed with a congestion mark.
    pub marked_bytes: u64,
    /// Inner bytes currently queued for the rate.
    pub backlog_bytes: u64,
}
