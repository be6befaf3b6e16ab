//! What a reload did, and what it could not do.

use serde::{Deserialize, Serialize};

use crate::config::plan::PlanStep;
use crate::config::settings::RestartSetting;

/// The reply of `Reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// What was done, or would be, in one sentence.
    pub summary: String,
    /// What was done with each object.
    pub steps: Vec<PlanStep>,
    /// Settings that changed in the file and go on as they were.
    pub restart: Vec<RestartSetting>,
}
