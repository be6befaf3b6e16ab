//! The service manager's watchdog: fed as long as every worker gets on with its work.
//!
//! That the daemon's own thread runs says nothing about the packet path. So each worker's bell is rung at every look, and
//! the next look finds whether it has finished a turn since. A worker that is stuck, or has ended, is waited for until
//! the service manager's patience ends and it starts the daemon anew.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::io::Engine;

/// What was seen of the workers at the last look.
pub(super) struct Watchdog {
    seen: Vec<u64>,
    stuck: bool,
}

/// How often to look, where the service manager wants to be told; it asked for three times as much.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|asked| asked / 3)
}

impl Watchdog {
    /// Looks for the first time.
    pub(super) fn new(engine: &Engine) -> Self {
        Watchdog {
            seen: engine.pulses(),
            stuck: false,
        }
    }

    /// Tells the service manager that all is well, if it is.
    pub(super) fn look(&mut self, engine: &Engine) {
        let now = engine.pulses();
        let still: Vec<usize> = (0..now.len()).filter(|&n| now[n] == self.seen[n]).collect();
        self.seen = now;
        if still.is_empty() {
            if std::mem::take(&mut self.stuck) {
                tracing::info!("all workers answer again");
            }
            super::tell_systemd(&[NotifyState::Watchdog]);
        } else if !std::mem::replace(&mut self.stuck, true) {
            tracing::error!(
                workers = ?still,
                "workers do not answer; the service manager's watchdog is not fed until they do"
            );
        }
    }
}
