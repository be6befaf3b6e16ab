//! Ctrl-C and SIGTERM: tidy up, then end.

use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::thread;

/// From now on SIGINT, SIGTERM and SIGHUP run `tidy` on a thread of its own and end the process with
/// 128 plus the signal's number, as a shell reports it.
///
/// To be called before other threads are started: they inherit that the signals are held back.
///
/// # Errors
/// The signals cannot be held back.
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

/// Runs `work` on a thread that holds no signal back, for the sake of child processes, which inherit
/// that from the thread that starts them.
pub(crate) fn with_signals<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let outcome = scope.spawn(|| {
            // It can only fail for an invalid argument.
            let _ = SigSet::all().thread_unblock();
            work()
        });
        outcome
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
