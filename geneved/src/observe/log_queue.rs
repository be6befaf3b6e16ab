//! Log lines on their way to standard error.
//!
//! A dedicated thread writes them, because the reader of a pipe may be stuck. Lines beyond a bound are dropped and
//! counted, and the count is logged as soon as there is room again. The thread is started after privileges were
//! dropped, so it has none.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of bytes waiting to be written.
const MAX_QUEUED_BYTES: usize = 1 << 20;

/// Queue of lines to be written.
#[derive(Debug)]
pub(super) struct LogQueue {
    sender: Sender<Vec<u8>>,
    receiver: Mutex<Option<Receiver<Vec<u8>>>>,
    waiting: AtomicUsize,
    left_out: AtomicU64,
    /// Standard error is a regular file that cannot block, so the logging thread writes directly.
    direct: AtomicBool,
}

impl LogQueue {
    pub(super) fn new() -> Self {
        let (sender, receiver) = channel();
        LogQueue {
            sender,
            receiver: Mutex::new(Some(receiver)),
            waiting: AtomicUsize::new(0),
            left_out: AtomicU64::new(0),
            direct: AtomicBool::new(false),
        }
    }

    /// Starts the writer thread; a second call does nothing. Without the thread, lines are never written.
    pub(super) fn start(&'static self, mut to: impl Write + Send + 'static) -> io::Result<()> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = receiver.take() else {
            return Ok(());
        };
        let write = move || {
            crate::io::give_up_capabilities();
            for line in lines {
                // If the log is gone there is nowhere to report it.
                let _ = to.write_all(&line);
                self.waiting.fetch_sub(line.len(), Ordering::AcqRel);
            }
        };
        thread::Builder::new()
            .name("log".into())
            .spawn(write)
            .map(drop)
    }

    /// Writes lines to standard error directly from now on; call only if that cannot block.
    pub(super) fn write_directly(&self) {
        self.direct.store(true, Ordering::Release);
    }

    /// Waits until all lines are written, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let began = Instant::now();
        while self.waiting.load(Ordering::Acquire) > 0 && began.elapsed() < patience {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Number of dropped lines, once there is room to report it.
    pub(super) fn take_left_out(&self) -> Option<u64> {
        if self.waiting.load(Ordering::Acquire) > MAX_QUEUED_BYTES / 2 {
            return None;
        }
        let left_out = self.left_out.swap(0, Ordering::AcqRel);
        (left_out > 0).then_some(left_out)
    }
}

impl<'a> MakeWriter<'a> for &'static LogQueue {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine(self)
    }
}

/// One line to be written, as the formatter hands it over in one piece.
#[derive(Debug)]
pub(super) struct LogLine(&'static LogQueue);

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let lines = self.0;
        if lines.direct.load(Ordering::Acquire) {
            return io::stderr().write_all(line).map(|()| line.len());
        }
        let before = lines.waiting.fetch_add(line.len(), Ordering::AcqRel);
        let waits =
            before + line.len() <= MAX_QUEUED_BYTES && lines.sender.send(line.to_vec()).is_ok();
        if !waits {
            lines.waiting.fetch_sub(line.len(), Ordering::AcqRel);
            lines.left_out.fetch_add(1, Ordering::AcqRel);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_left_out_and_counted() {
        let lines: &'static LogQueue = Box::leak(Box::new(LogQueue::new()));
        let (reader, writer) = UnixStream::pair().unwrap();
        lines.start(writer).unwrap();
        let line = [b'x'; 1000];
        let began = Instant::now();
        for _ in 0..5000 {
            lines.make_writer().write_all(&line).unwrap();
        }
        lines.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(lines.take_left_out(), None, "there is no room to tell it");
        let mut reader = reader;
        thread::spawn(move || io::copy(&mut reader, &mut io::sink()));
        lines.flush(Duration::from_secs(5));
        let left_out = lines.take_left_out().unwrap();
        assert!((3000..5000).contains(&left_out), "{left_out}");
        assert_eq!(lines.take_left_out(), None);
    }
}
