//! Errors of the command line with their exit codes.

use std::fmt;
use std::process::ExitCode;

use crate::control::client::CallError;

/// Why a command failed; each text is complete, as printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CliError {
    /// Invalid command line: exit code 1.
    Usage(String),
    /// The daemon or the kernel refused: exit code 2.
    Refused(String),
    /// No daemon is running: exit code 3.
    NoDaemon(String),
    /// The failure was already reported, as batches do line by line.
    Reported(u8),
}

impl CliError {
    /// Error for a command line that ends too early.
    #[must_use]
    pub fn incomplete() -> Self {
        CliError::Usage("Command line is not complete. Try option \"help\"".into())
    }

    /// If the rejected word is an option, adds the hint that options precede the object.
    #[must_use]
    pub fn after_options(self, words: &[String]) -> Self {
        let CliError::Usage(text) = self else {
            return self;
        };
        let stray = words.iter().find(|word| {
            let option = word.trim_start_matches('-');
            option.len() < word.len()
                && text.contains(&format!("\"{word}\""))
                && super::options::find(option).is_some()
        });
        CliError::Usage(match stray {
            Some(word) => format!(
                "Error: argument \"{word}\" is wrong: options stand before the object, as in \"geneved {word} ...\""
            ),
            None => text,
        })
    }

    /// Prefixes the error with file and line, for batches.
    #[must_use]
    pub fn within(&self, file: &str, line: usize) -> Self {
        let at = |text: &String| format!("{file}:{line}: {text}");
        match self {
            CliError::Usage(text) => CliError::Usage(at(text)),
            CliError::Refused(text) => CliError::Refused(at(text)),
            CliError::NoDaemon(text) => CliError::NoDaemon(at(text)),
            CliError::Reported(code) => CliError::Reported(*code),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            CliError::Usage(_) => 1,
            CliError::Refused(_) => 2,
            CliError::NoDaemon(_) => 3,
            CliError::Reported(code) => *code,
        }
    }

    /// The exit code as the type that `main` returns.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CliError::Usage(text) | CliError::Refused(text) | CliError::NoDaemon(text) => {
                f.write_str(text)
            }
            CliError::Reported(_) => Ok(()),
        }
    }
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        let text = error.to_string();
        match error {
            CallError::NoDaemon { .. } => CliError::NoDaemon(format!("Error: {text}")),
            // `ip` prints this one without "Error: ".
            CallError::Refused(_) if text.starts_with("Cannot find ") => CliError::Refused(text),
            _ => CliError::Refused(format!("Error: {text}")),
        }
    }
}
