//! Rules as shown on the control socket.

use serde::{Deserialize, Serialize};

use crate::config::args::PolicyArgs;

/// The reply of `ListPolicies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoliciesReply {
    /// Sorted by link, then in the order of evaluation.
    pub policies: Vec<PolicyInfo>,
}

/// A rule with its hit counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// The rule.
    pub policy: PolicyArgs,
    /// Number of flows that it decided.
    pub hits: u64,
}
