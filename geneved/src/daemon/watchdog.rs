//! The service manager's watchdog: fed as long as every worker gets on with its work.
//!
//! That the daemon's own thread runs says nothing about the packet path. So it is only told that all is well while no worker
//! is stalled ([`WorkerReport::stalled`](crate::io::WorkerReport)). One that is, or has ended, is waited for until the
//! service manager's patience ends and it starts the daemon anew.

use std::time::Duration;

use sd_notify::NotifyState;

use super::core::Core;

/// Whether workers were stuck at the last look.
#[derive(Default)]
pub(super) struct Watchdog {
    stuck: bool,
}

/// How often to look, where the service manager wants to be told; it asked for three times as much.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|asked| asked / 3)
}

impl Watchdog {
    /// Tells the service manager that all is well, if it is.
    pub(super) fn check(&mut self, core: &Core) {
        let reports = core.engine().worker_reports();
        let still: Vec<usize> = (0..reports.len())
            .filter(|&n| !reports[n].stalled.is_zero())
            .collect();
        if still.is_empty() {
            if std::mem::take(&mut self.stuck) {
                tracing::info!("all workers answer again");
            }
            core.service_manager().mention(&[NotifyState::Watchdog]);
        } else if !std::mem::replace(&mut self.stuck, true) {
            tracing::error!(
                workers = ?still,
                "workers do not answer: {still:?}; the service manager's watchdog is not fed until they do"
            );
        }
    }
}
