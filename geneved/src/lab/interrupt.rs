//! Clean-up on Ctrl-C and SIGTERM.

use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::thread;

/// Makes SIGINT, SIGTERM and SIGHUP run `tidy` on a dedicated thread and then exit with 128 plus the signal number,
/// as shells report it.
///
/// Call before other threads are started, so that they inherit the blocked signals.
///
/// # Errors
/// If the signals cannot be blocked.
pub fn tidy_on_signal(tidy: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let Ok(signal) = signals.wait() else { return };
            eprintln!("\n{signal}: cleaning up");
            tidy();
            std::process::exit(128 + signal as i32);
        })?;
    Ok(())
}

/// Runs `work` on a thread with no signals blocked, because child processes inherit the signal mask of the thread
/// that starts them.
pub(crate) fn with_signals<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let outcome = scope.spawn(|| {
            // Fails only for an invalid argument.
            let _ = SigSet::all().thread_unblock();
            work()
        });
        outcome
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
