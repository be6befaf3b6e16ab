//! A real daemon, started in a namespace with its own configuration.

use super::interrupt::with_signals;
use super::netns::LabNetns;
use crate::traffic::Netns;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Location of a daemon's files and its program.
#[derive(Clone, Debug)]
pub struct DaemonFiles {
    /// The `geneved` binary.
    pub binary: PathBuf,
    /// Directory for configuration, control socket and log; created if missing.
    pub directory: PathBuf,
    /// Base name of the files in `directory`.
    pub name: String,
}

impl DaemonFiles {
    /// Path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join(format!("{}.sock", self.name))
    }

    /// Path of the configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join(format!("{}.toml", self.name))
    }

    /// Path of the log: the daemon's standard output and standard error.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }
}

/// A running daemon; killed when dropped, unless [`DaemonProcess::keep`] was called.
#[derive(Debug)]
pub struct DaemonProcess {
    site: DaemonFiles,
    child: Option<Child>,
}

/// Time limit for a daemon to become ready.
const READY: Duration = Duration::from_secs(20);

/// Time limit for a daemon to exit: with a thousand links the kernel alone needs seconds.
const ENDED: Duration = Duration::from_secs(30);

impl DaemonProcess {
    /// Writes the configuration, starts the daemon in the host's namespace, and waits until it is ready: its control
    /// socket accepts a connection.
    ///
    /// `config` is appended to the `[daemon]` table's `socket` line, so it may begin with more keys of that table.
    ///
    /// # Errors
    /// If it could not be started, exited at once, or was not ready in time; with the end of its log.
    pub fn start(site: DaemonFiles, host: &LabNetns, config: &str) -> io::Result<Self> {
        Self::start_in(site, host.netns(), config)
    }

    /// As [`DaemonProcess::start`], in any namespace.
    ///
    /// # Errors
    /// As [`DaemonProcess::start`].
    pub fn start_in(site: DaemonFiles, netns: &Netns, config: &str) -> io::Result<Self> {
        fs::create_dir_all(&site.directory)?;
        let _ = fs::remove_file(site.socket());
        let head = format!("[daemon]\nsocket = \"{}\"\n", site.socket().display());
        fs::write(site.config(), head + config)?;
        let log = File::options().create(true).append(true).open(site.log())?;
        let mut command = Command::new(&site.binary);
        command
            .arg("run")
            .arg("--config")
            .arg(site.config())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal is for the parent, which stops the daemon properly.
            .process_group(0);
        let child = netns
            .run(|| with_signals(|| command.spawn()))?
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot start {}: {error}", site.binary.display()),
                )
            })?;
        let mut daemon = Self {
            site,
            child: Some(child),
        };
        daemon.await_ready()?;
        Ok(daemon)
    }

    fn await_ready(&mut self) -> io::Result<()> {
        let start = Instant::now();
        loop {
            if UnixStream::connect(self.site.socket()).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.exited()? {
                return Err(io::Error::other(format!(
                    "the daemon ended before it was ready ({status}); its log:\n{}",
                    self.log()
                )));
            }
            if start.elapsed() > READY {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!(
                        "the daemon was not ready in {READY:?}; its log:\n{}",
                        self.log()
                    ),
                ));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns its exit status if it has exited.
    ///
    /// # Errors
    /// If the kernel does not know the process.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Location of its files.
    #[must_use]
    pub const fn site(&self) -> &DaemonFiles {
        &self.site
    }

    /// Path of its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.site.socket()
    }

    /// Its log, including that of earlier runs.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.site.log()).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).map_err(io::Error::from)
    }

    /// Stops it (SIGTERM) and waits; kills it if it takes longer than half a minute.
    ///
    /// # Errors
    /// If it had to be killed.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        while start.elapsed() < ENDED {
            if let Some(status) = self.exited()? {
                self.child = None;
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("SIGTERM did not end it; log:\n{}", self.log()),
        ))
    }

    /// Kills it (SIGKILL) and waits.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn kill(mut self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.child
            .take()
            .map_or(Ok(()), |mut child| child.wait().map(drop))
    }

    /// Leaves it running when the value is dropped.
    pub fn keep(mut self) {
        self.child = None;
    }

    /// Runs the CLI against this daemon; `arguments` as typed in a shell.
    ///
    /// # Errors
    /// If the program could not be run, or its exit status is not zero; with its output.
    pub fn cli(&self, arguments: &str) -> io::Result<String> {
        cli(&self.site.binary, &self.site.socket(), arguments)
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs `geneved --socket SOCKET ARGUMENTS` and returns what it printed.
///
/// # Errors
/// If the program could not be run, or its exit status is not zero; with its output.
pub fn cli(binary: &Path, socket: &Path, arguments: &str) -> io::Result<String> {
    let output = Command::new(binary)
        .arg("--socket")
        .arg(socket)
        .args(arguments.split_whitespace())
        .output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(io::Error::other(format!(
        "`geneved {arguments}` ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr).trim(),
    )))
}
