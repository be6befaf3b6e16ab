//! SIGTERM and SIGINT: the daemon stops, and ends in any case.
//!
//! A thread of its own waits for them, so that neither a control side that hangs nor a kernel that does not answer keeps the
//! daemon: if it has not ended by itself in time, the thread ends it. Its interfaces and ports go with the process.

use std::io;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// So long the daemon may take to end by itself; a second for the last lines of the log may come on top.
const STOP_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Tells once that the daemon is to end.
pub(super) struct Termination(UnboundedReceiver<()>);

impl Termination {
    /// Waits for the signals from now on. To be called before any other thread is made that is not to get them, and after
    /// privileges were given away.
    ///
    /// # Errors
    /// The thread cannot be made.
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
