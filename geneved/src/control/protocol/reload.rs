//! Result of a reload.

use serde::{Deserialize, Serialize};

use crate::config::plan::PlanStep;
use crate::config::settings::RestartSetting;

/// The reply of `Reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Summary of what was done, or would be, in one sentence.
    pub summary: String,
    /// Steps for each object.
    pub steps: Vec<PlanStep>,
    /// Settings that changed in the file but need a restart.
    pub restart: Vec<RestartSetting>,
}
