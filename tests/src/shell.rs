//! A shell in a host's namespace, whose `geneved` speaks to one daemon: for what users type.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use geneved::lab::netns::LabNetns;

use crate::world::{self, TestDaemon};

/// Runs scripts in a host's namespace.
pub struct Shell<'h> {
    host: &'h LabNetns,
    /// Holds a program `geneved` that names the daemon's socket.
    path: PathBuf,
}

impl<'h> Shell<'h> {
    /// A shell beside this daemon.
    ///
    /// # Panics
    /// If the daemon's directory cannot be written.
    #[must_use]
    pub fn beside(daemon: &TestDaemon, host: &'h LabNetns) -> Self {
        let site = daemon.process().site();
        Self::at(&site.socket(), host)
    }

    /// A shell in the namespace of `host`, for the daemon at this socket.
    ///
    /// # Panics
    /// If the socket's directory cannot be written.
    #[must_use]
    pub fn at(socket: &Path, host: &'h LabNetns) -> Self {
        let path = socket.with_extension("bin");
        fs::create_dir_all(&path).expect("the daemon's directory is writable");
        let program = path.join("geneved");
        // What asks no daemon has no socket.
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
        // A script that ends early does not read its rest.
        let _ = input.write_all(script.as_bytes());
        drop(input);
        child.wait_with_output().expect("it is our child")
    }

    /// Runs a script that must succeed, by `bash -eu`, and returns what it printed.
    ///
    /// # Panics
    /// If it does not succeed; with its words.
    #[must_use]
    pub fn types(&self, script: &str) -> String {
        let output = self.run(&["bash", "-eu"], script);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{text}{errors}");
        text
    }

    /// What a terminal would show: each line of `script` behind a `$`, what it printed, and its exit
    /// status where that is not zero.
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
