//! Daemon started through a wrapper program or with an environment, as a service manager would.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use geneved::lab::daemon::cli;
use geneved::lab::netns::LabNetns;

use crate::world::{TestWorld, binary};

/// Daemon process; killed when dropped.
pub struct Launch {
    child: Child,
    directory: PathBuf,
}

/// How to start a daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaunchOptions<'a> {
    /// Command that precedes `geneved run` on the command line.
    pub wrapper: &'a [&'a str],
    /// Further environment variables.
    pub environment: &'a [(&'a str, &'a str)],
    /// Lines of `[daemon]`.
    pub daemon: &'a str,
    /// Configuration below `[daemon]`.
    pub objects: &'a str,
    /// Replaces the whole configuration, with [`Launch::SOCKET`] in place of the control socket's path.
    pub file: Option<&'a str>,
}

impl Launch {
    /// Placeholder for the path of the control socket.
    pub const SOCKET: &'static str = "@socket@";

    /// Starts it in the namespace of `host`, with files named after it.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn new(world: &TestWorld, host: &LabNetns, how: LaunchOptions<'_>) -> Self {
        let directory = world.directory().join(format!("{}.d", host.name()));
        fs::create_dir_all(&directory).unwrap();
        let launch = |directory: &PathBuf| {
            let socket = directory.join("control.sock");
            let config = directory.join("geneved.toml");
            let usual = format!(
                "[daemon]\nsocket = \"{}\"\n{}\n{}",
                Self::SOCKET,
                how.daemon,
                how.objects
            );
            let text = how.file.unwrap_or(&usual);
            let text = text.replace(Self::SOCKET, socket.to_str().unwrap());
            fs::write(&config, text).unwrap();
            let log = File::create(directory.join("log")).unwrap();
            let mut words = how.wrapper.iter().map(PathBuf::from);
            let program = words.next().unwrap_or_else(|| binary().to_owned());
            let mut command = Command::new(program);
            command.args(words);
            if !how.wrapper.is_empty() {
                command.arg(binary());
            }
            command
                .args(["run", "--config"])
                .arg(&config)
                .envs(how.environment.iter().copied())
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}"))
        };
        let child = host.netns().run(|| launch(&directory)).unwrap();
        Launch { child, directory }
    }

    /// Waits until the control socket answers.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn ready(mut self) -> Self {
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < Duration::from_secs(30),
                "not ready ({ended:?}):\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Waits until the process exits by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            let log = self.log();
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "it runs on:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asserts that startup fails with exit code 2 and these words.
    ///
    /// # Panics
    /// If it starts, or prints something else.
    pub fn assert_refused(mut self, words: &[&str]) {
        let status = self.ended();
        let log = self.log();
        assert_eq!(status.code(), Some(2), "{log}");
        for words in words {
            assert!(log.contains(words), "\"{words}\" is not in:\n{log}");
        }
    }

    /// Asserts that the daemon runs and that a link waits, for a reason with these words.
    ///
    /// # Panics
    /// If it exits, or the link does not wait, or the reason differs.
    pub fn assert_waits(self, words: &[&str]) {
        let daemon = self.ready();
        let shown = daemon.cli("link show").unwrap();
        for words in ["    waiting: "].iter().chain(words) {
            assert!(shown.contains(words), "\"{words}\" is not in:\n{shown}");
        }
    }

    /// Path of its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Path of its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.join("geneved.toml")
    }

    /// Its output and log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Its process ID, or that of a wrapper which has not exec'ed the daemon.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Runs a CLI command against it.
    ///
    /// # Errors
    /// If the command fails; with its message.
    pub fn cli(&self, arguments: &str) -> std::io::Result<String> {
        cli(binary(), &self.socket(), arguments)
    }
}

impl Drop for Launch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- log ----\n{}", self.log());
        }
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.pid()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < Duration::from_secs(10)
        {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
