//! Logging: to the journal under systemd, to standard error otherwise.
//!
//! Messages are complete for human readers. In the journal each value is also a separate field for programs, such as
//! `LINK=gnv0` or `HOST=192.0.2.2`. Errors that repeat are logged a few times and then only counted
//! ([`super::repeat_filter`]).
//!
//! Logging never blocks on the reader of the log (`lines.rs`).

use std::io::{self, IsTerminal};
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::stat::{SFlag, fstat};
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use super::log_queue::LogQueue;
use super::repeat_filter::RepeatFilter;

/// Environment variable with the filter, such as `debug` or `geneved::net=trace`.
pub const FILTER_VARIABLE: &str = "GENEVED_LOG";

/// How long the daemon waits at exit for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

static LOG_QUEUE: LazyLock<LogQueue> = LazyLock::new(LogQueue::new);

/// Sets up logging for the whole process; a second call does nothing. Nothing is written to standard error before
/// [`begin`].
pub fn init() {
    let filter =
        EnvFilter::try_from_env(FILTER_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    // systemd sets JOURNAL_STREAM for processes connected to the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match journal {
        // Without the crate's default prefix the fields have the names used here.
        Some(journal) => journal.with_field_prefix(None).boxed(),
        None => tracing_subscriber::fmt::layer()
            .fmt_fields(debug_fn(|writer, field, value| {
                if field.name() == "message" {
                    write!(writer, "{value:?}")
                } else {
                    Ok(())
                }
            }))
            .with_writer(&*LOG_QUEUE)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .boxed(),
    };
    let layer = layer.with_filter(RepeatFilter).with_filter(filter);
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

/// Starts writing to standard error, on a thread that inherits the caller's present privileges.
pub fn begin() {
    if let Err(error) = LOG_QUEUE.start(io::stderr()) {
        eprintln!("the log cannot be written: {error}");
    }
    let found = fstat(io::stderr());
    if found.is_ok_and(|found| found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits()) {
        LOG_QUEUE.flush(LAST_LINES);
        LOG_QUEUE.write_directly();
    }
}

/// Logs how many lines were dropped because nothing read them. Called periodically.
pub fn tell_left_out() {
    if let Some(lines) = LOG_QUEUE.take_left_out() {
        tracing::warn!(
            lines,
            "{lines} lines are missing in this log: whoever reads it was too slow"
        );
    }
}

/// Waits a moment for the last lines to be written.
pub fn finish() {
    begin();
    tell_left_out();
    LOG_QUEUE.flush(LAST_LINES);
}
