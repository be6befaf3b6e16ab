//! Feeds the service manager's watchdog while all workers make progress.
//!
//! That the daemon's main thread runs says nothing about the packet path, so the watchdog is fed only while no worker
//! is stalled ([`WorkerReport::stalled`](crate::io::WorkerReport)). If a worker is stalled or has ended, the watchdog
//! expires and the service manager restarts the daemon.

use std::time::Duration;

use sd_notify::NotifyState;

use super::core::Core;

/// Whether workers were stalled at the last check.
#[derive(Default)]
pub(super) struct Watchdog {
    stuck: bool,
}

/// Interval of checks if the service manager wants them: a third of its timeout.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|asked| asked / 3)
}

impl Watchdog {
    /// Feeds the watchdog if all is well.
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
