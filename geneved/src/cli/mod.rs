//! The command line: `ip`'s grammar, one file per object, text and JSON output.
//!
//! Owns argument parsing, exit codes and what is printed. What the words mean is decided by the
//! daemon, which is reached through [`crate::control`].

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command line `argv` (its first word is the program's name).
#[must_use]
pub fn main(argv: impl Iterator<Item = OsString>) -> ExitCode {
    drop(argv);
    ExitCode::SUCCESS
}
