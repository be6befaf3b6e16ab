//! Rules as they are shown.

use serde::{Deserialize, Serialize};

use crate::config::args::PolicyArgs;

/// The reply of `ListPolicies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoliciesReply {
    /// By link, then in the order in which they are asked.
    pub policies: Vec<PolicyInfo>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyInfo {
    /// The rule.
    pub policy: PolicyArgs,
    /// How many flows it decided.
    pub hits: u64,
}
