//! `-b FILE`: one command a line, `#` comments, `-` is standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use super::error::CliError;
use super::{Context, dispatch, report};

/// Runs the commands of a file one after the other. With `force` a failure does not end it.
///
/// # Errors
/// The file cannot be read, or the first command that failed, with its line.
pub fn run(context: &mut Context, file: &str, force: bool) -> Result<(), CliError> {
    let reader: Box<dyn BufRead> = if file == "-" {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).map_err(|e| {
            CliError::Usage(format!("Cannot open file \"{file}\" for reading: {e}"))
        })?;
        Box::new(BufReader::new(opened))
    };
    let mut worst = None;
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line.map_err(|e| CliError::Usage(format!("{file}:{number}: {e}")))?;
        let words: Vec<String> = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if words.is_empty() {
            continue;
        }
        if let Err(error) = dispatch(context, &words) {
            report(&error);
            eprintln!("Command failed {file}:{number}");
            worst.get_or_insert(error.code());
            if !force {
                break;
            }
        }
    }
    worst.map_or(Ok(()), |code| Err(CliError::Reported(code)))
}
