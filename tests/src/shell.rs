//! Shell in a host's namespace whose `geneved` talks to one daemon: runs what users type.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use geneved::lab::netns::LabNetns;

use crate::world::{self, TestDaemon};

/// Shell that runs scripts in a host's namespace.
pub struct Shell<'h> {
    host: &'h LabNetns,
    /// Directory of a `geneved` wrapper that passes the daemon's socket.
    path: PathBuf,
}

impl<'h> Shell<'h> {
    /// Returns a shell for this daemon.
    ///
    /// # Panics
    /// If the daemon's directory cannot be written.
    #[must_use]
    pub fn beside(daemon: &TestDaemon, host: &'h LabNetns) -> Self {
        let site = daemon.process().site();
        Self::at(&site.socket(), host)
    }

    /// Returns a shell in the namespace of `host`, for the daemon at this socket.
    ///
    /// # Panics
    /// If the socket's directory cannot be written.
    #[must_use]
    pub fn at(socket: &Path, host: &'h LabNetns) -> Self {
        let path = socket.with_extension("bin");
        fs::create_dir_all(&path).expect("the daemon's directory is writable");
        let program = path.join("geneved");
        // Commands that need no daemon take no `--socket`.
        let words = format!(
            "#!/bin/sh\ncase \" $* \" in\n*' lab '*|*' completions '[bzf]*) exec '{0}' \"$@\";;\nesac\nexec '{0}' --socket '{1}' \"$@\"\n",
            world::binary().display(),
            socket.display()
        );
        fs::write(&program, words).expect("the daemon's directory is writable");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self { host, path }
    }

    /// Runs a script with a program such as `sh -eu` that reads it from standard input.
    ///
    /// # Panics
    /// If the program cannot be run.
    #[must_use]
    pub fn run(&self, program: &[&str], script: &str) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program[0]);
        command
            .args(&program[1..])
            .env("PATH", format!("{}:{path}", self.path.display()))
            .env("LC_ALL", "C.UTF-8")
            .current_dir(&self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.host.netns().run(|| command.spawn());
        let mut child = child
            .expect("the namespace is there")
            .unwrap_or_else(|e| panic!("cannot run {program:?}: {e}"));
        let mut input = child.stdin.take().expect("it is piped");
        // A script that exits early does not read the rest.
        let _ = input.write_all(script.as_bytes());
        drop(input);
        child.wait_with_output().expect("it is our child")
    }

    /// Runs a script with `bash -eu` and returns its output.
    ///
    /// # Panics
    /// If it fails; with its error output.
    #[must_use]
    pub fn types(&self, script: &str) -> String {
        let output = self.run(&["bash", "-eu"], script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{text}{errors}");
        text
    }

    /// Returns what a terminal would show: each line of `script` after a `$`, its output, and its exit status if that
    /// is not zero.
    #[must_use]
    pub fn transcript(&self, script: &str) -> String {
        let mut text = String::new();
        for line in script.lines().map(str::trim).filter(|l| !l.is_empty()) {
            let output = self.run(&["sh"], line);
            text += &format!("$ {line}\n");
            text += &String::from_utf8_lossy(&output.stdout);
            text += &String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0) => {}
                Some(code) => text += &format!("[exit {code}]\n"),
                None => text += "[killed]\n",
            }
        }
        text
    }
}
