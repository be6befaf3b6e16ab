//! Long-running CLI command whose output is read line by line.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::TestDaemon;

/// A running command; killed when dropped.
pub struct RunningCommand {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

fn follow(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl RunningCommand {
    /// Starts `geneved WORDS` against a daemon.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(daemon: &TestDaemon, words: &str) -> Self {
        let site = daemon.process().site();
        let mut child = Command::new(&site.binary)
            .arg("--socket")
            .arg(site.socket())
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let lines = follow(child.stdout.take().expect("it is piped"));
        let errors = follow(child.stderr.take().expect("it is piped"));
        RunningCommand {
            child,
            lines,
            errors,
        }
    }

    /// Waits for a line on standard output with all of these words, and discards the lines before it.
    ///
    /// # Panics
    /// If none comes within ten seconds; shows the lines that came.
    pub fn line(&self, words: &[&str]) -> String {
        await_line(&self.lines, words)
    }

    /// Waits for a line on standard error.
    ///
    /// # Panics
    /// As [`RunningCommand::line`].
    pub fn error(&self, words: &[&str]) -> String {
        await_line(&self.errors, words)
    }

    /// Whether a line comes within `time`; consumes it.
    #[must_use]
    pub fn any(&self, time: Duration) -> bool {
        self.lines.recv_timeout(time).is_ok()
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the exit. Returns whether it succeeded.
    ///
    /// # Panics
    /// If it cannot be interrupted.
    pub fn interrupt(&mut self) -> bool {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("it runs");
        self.end()
    }

    /// Waits for the exit. Returns whether it succeeded.
    ///
    /// # Panics
    /// If it is not our child.
    pub fn end(&mut self) -> bool {
        self.child.wait().expect("our child").success()
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn await_line(lines: &Receiver<String>, words: &[&str]) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    let mut seen = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match lines.recv_timeout(left) {
            Ok(line) if words.iter().all(|word| line.contains(word)) => return line,
            Ok(line) => seen.push(line),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                panic!("no line with {words:?}; there were:\n{}", seen.join("\n"))
            }
        }
    }
}
