//! Two hosts in network namespaces on this machine, joined by a veth: the demonstration.
//!
//! Owns the namespaces, the daemons started in them and the table at the end. What it sends, it
//! sends with [`crate::traffic`]. The scenario tests and benchmarks build on [`net`], [`daemon`] and
//! [`interrupt`].

pub mod daemon;
mod hosts;
pub mod interrupt;
pub mod netns;
mod show;

use crate::plural::counted;
use hosts::LabHosts;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What `geneved lab` is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabCommand {
    /// Make the hosts, show what goes through the overlay, remove them.
    Run,
    /// Make the hosts, leave them standing, say what to type next.
    Up,
    /// Remove what `up`, or a crashed `run`, left.
    Down,
}

/// How `geneved lab` does it.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// What the names of the namespaces begin with: `PREFIX-a` and `PREFIX-b`. The daemons' files are
    /// in `/run/PREFIX`.
    pub prefix: String,
    /// How long each TCP transfer runs.
    pub duration: Duration,
    /// The program to run as daemon; this one if `None`.
    pub binary: Option<PathBuf>,
    /// The daemons' I/O backend: `auto`, `io_uring` or `syscalls`.
    pub io: String,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            prefix: "geneved-lab".to_owned(),
            duration: Duration::from_secs(2),
            binary: None,
            io: "auto".to_owned(),
        }
    }
}

impl LabOptions {
    fn directory(&self) -> PathBuf {
        PathBuf::from("/run").join(&self.prefix)
    }

    /// A file that is there while the hosts of `lab up` stand.
    fn mark(&self) -> PathBuf {
        self.directory().join("up")
    }

    /// The command that removes what `up` with these options leaves.
    fn down(&self) -> String {
        match *self.prefix == *LabOptions::default().prefix {
            true => "lab down".to_owned(),
            false => format!("lab down prefix {}", self.prefix),
        }
    }

    /// Removes hosts, daemons and files, whatever of them there is.
    fn remove_all(&self) -> io::Result<usize> {
        let names = netns::namespaces(&format!("{}-", self.prefix));
        for name in &names {
            netns::remove(name)?;
        }
        match fs::remove_dir_all(self.directory()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(names.len()),
        }
    }
}

/// Does what `geneved lab` was asked to do; to be called before the process starts other threads.
///
/// `run` ends with failure if anything that it showed went wrong, and removes what it made on every
/// way out, Ctrl-C included.
///
/// # Errors
/// A sentence for a person: a privilege or a program is missing, a daemon did not start.
pub fn run(command: LabCommand, options: &LabOptions) -> io::Result<ExitCode> {
    netns::prepare()?;
    if command == LabCommand::Down {
        let count = options.remove_all()?;
        println!("{} removed", counted(count, "host"));
        return Ok(ExitCode::SUCCESS);
    }
    if options.mark().exists() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "the hosts of an earlier \"geneved lab up\" are standing: remove them with \"geneved {}\"",
                options.down()
            ),
        ));
    }
    options.remove_all()?;
    let own = options.clone();
    interrupt::tidy_on_signal(move || {
        if let Err(error) = own.remove_all() {
            eprintln!("{error}");
        }
    })?;
    let outcome = if command == LabCommand::Up {
        up(options)
    } else {
        demonstrate(options)
    };
    if command == LabCommand::Run || outcome.is_err() {
        options.remove_all()?;
    }
    outcome
}

fn demonstrate(options: &LabOptions) -> io::Result<ExitCode> {
    let hosts = LabHosts::new(options)?;
    let good = show::all(&hosts, options.duration);
    if !good {
        for daemon in hosts.daemons() {
            println!(
                "\nLog of the daemon of host {}:\n{}",
                daemon.site().name,
                daemon.log()
            );
        }
    }
    hosts.stop()?;
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn up(options: &LabOptions) -> io::Result<ExitCode> {
    let hosts = LabHosts::new(options)?;
    fs::write(options.mark(), "")?;
    hosts.explain(&options.down());
    hosts.keep();
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::LabOptions;

    #[test]
    fn the_way_down_is_that_of_what_is_up() {
        let mut options = LabOptions::default();
        assert_eq!(options.down(), "lab down");
        options.prefix = "mine".to_owned();
        assert_eq!(options.down(), "lab down prefix mine");
    }
}
