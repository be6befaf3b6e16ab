//! Shutdown on SIGTERM and SIGINT, with a time limit.
//!
//! A dedicated thread waits for the signals, so that neither a stuck control side nor an unresponsive kernel keeps
//! the daemon alive: if it has not exited in time, the thread ends the process. Its interfaces and ports disappear
//! with the process.

use std::io;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Time limit for a regular exit; flushing the log may take another second.
const STOP_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Receives the first termination signal.
pub(super) struct Termination(UnboundedReceiver<()>);

impl Termination {
    /// Starts watching for the signals. Call it before any other thread is created that must not get them, and after
    /// privileges were dropped.
    ///
    /// # Errors
    /// If the thread cannot be created.
    pub(super) fn watch() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        let (sender, receiver) = unbounded_channel();
        thread::Builder::new()
            .name("termination".into())
            .spawn(move || {
                crate::io::give_up_capabilities();
                while signals.wait().is_err() {}
                let _ = sender.send(());
                thread::sleep(STOP_TIMEOUT);
                tracing::error!("not stopped within {STOP_TIMEOUT:?}: killed");
                crate::observe::log::finish();
                let _ = raise(Signal::SIGKILL);
            })?;
        Ok(Termination(receiver))
    }

    /// Waits for the first signal.
    pub(super) async fn recv(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
