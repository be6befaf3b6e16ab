//! Demonstration: two hosts in network namespaces on this machine, joined by a veth.
//!
//! Owns the namespaces, the daemons in them, and the result table. Traffic comes from [`crate::traffic`]. The
//! scenario tests and benchmarks build on [`netns`], [`daemon`] and [`interrupt`].

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

/// Subcommands of `geneved lab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabCommand {
    /// Create the hosts, show what goes through the overlay, remove them.
    Run,
    /// Create the hosts, leave them running, print what to type next.
    Up,
    /// Remove what `up`, or a crashed `run`, left behind.
    Down,
}

/// Options of `geneved lab`.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// Prefix of the namespaces' names, `PREFIX-a` and `PREFIX-b`. The daemons' files are in `/run/PREFIX`.
    pub prefix: String,
    /// Duration of each TCP transfer.
    pub duration: Duration,
    /// Program to run as the daemon; this one if `None`.
    pub binary: Option<PathBuf>,
    /// I/O backend of the daemons: `auto`, `io_uring` or `syscalls`.
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

    /// Marker file that exists while the hosts of `lab up` run.
    fn mark(&self) -> PathBuf {
        self.directory().join("up")
    }

    /// Command that removes what `up` with these options leaves behind.
    fn down(&self) -> String {
        match *self.prefix == *LabOptions::default().prefix {
            true => "lab down".to_owned(),
            false => format!("lab down prefix {}", self.prefix),
        }
    }

    /// Removes hosts, daemons and files, as far as they exist.
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

/// Runs `geneved lab`; call before the process starts other threads.
///
/// `run` fails if anything that it showed went wrong, and removes what it created in any case, also on Ctrl-C.
///
/// # Errors
/// A sentence for the user: a privilege or a program is missing, or a daemon did not start.
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
