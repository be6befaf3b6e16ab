//! `-b FILE`: one command per line, `#` starts a comment, `\` at the end of a line continues it, `-` reads standard
//! input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use super::context::CommandContext;
use super::error::CliError;
use super::{dispatch, output, report};

/// Maximum line length in bytes; a longer line is no command, and the file may be an endless device.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Runs the commands of a file one after the other. With `force` it continues after a failure.
///
/// # Errors
/// If the file cannot be read, or a command failed; each failure was already reported with its line.
pub fn run(context: &mut CommandContext, file: &str, force: bool) -> Result<(), CliError> {
    let mut failed = None;
    for command in commands(file)? {
        let (number, words) = command.map_err(|(number, e)| unreadable(file, number, &e))?;
        if let Err(error) = carry_out(context, words) {
            failed.get_or_insert(complain(file, number, &error));
            if !force {
                break;
            }
        }
    }
    failed.map_or(Ok(()), |code| Err(CliError::Reported(code)))
}

/// Applies all changes of a file, or none. Reports every faulty line, not only the first.
///
/// # Errors
/// As [`run`]; also if the daemon refused the changes, and then the line of the refused one is reported.
pub fn run_atomic(context: &mut CommandContext, file: &str) -> Result<(), CliError> {
    context.gather();
    let mut failed = None;
    // Line number of each change.
    let mut lines = Vec::new();
    for command in commands(file)? {
        let (number, words) = command.map_err(|(number, e)| unreadable(file, number, &e))?;
        if let Err(error) = carry_out(context, words) {
            failed.get_or_insert(complain(file, number, &error));
        }
        lines.resize(context.gathered().map_or(0, <[_]>::len), number);
    }
    if failed.is_none()
        && let Err((change, error)) = context.apply_gathered()
    {
        failed = Some(match change.and_then(|change| lines.get(change)) {
            Some(number) => complain(file, *number, &error),
            None => {
                report(&error);
                error.code()
            }
        });
    }
    match failed {
        None => Ok(()),
        Some(code) => {
            output::tell("Nothing of the batch was done");
            Err(CliError::Reported(code))
        }
    }
}

fn commands(file: &str) -> Result<BatchCommands<Box<dyn BufRead>>, CliError> {
    let reader: Box<dyn BufRead> = if file == "-" {
        Box::new(io::stdin().lock())
    } else {
        let opened = File::open(file).map_err(|e| {
            CliError::Usage(format!("Cannot open file \"{file}\" for reading: {e}"))
        })?;
        Box::new(BufReader::new(opened))
    };
    Ok(BatchCommands::of(reader))
}

fn carry_out(
    context: &mut CommandContext,
    words: Result<Vec<String>, &'static str>,
) -> Result<(), CliError> {
    let words = words.map_err(|e| CliError::Usage(format!("Error: {e}")))?;
    match words[..] {
        [] => Ok(()),
        _ => dispatch(context, &words),
    }
}

fn unreadable(file: &str, number: usize, error: &io::Error) -> CliError {
    CliError::Usage(format!("{file}:{number}: cannot be read: {error}"))
}

/// Reports a failure with its line. Returns its exit code.
fn complain(file: &str, number: usize, error: &CliError) -> u8 {
    report(&error.within(file, number));
    output::tell(format_args!("Command failed {file}:{number}"));
    error.code()
}

/// A command's line number, and its words or a syntax error.
type NumberedCommand = (usize, Result<Vec<String>, &'static str>);

/// Iterator over the commands of a file, each with the number of its first line.
struct BatchCommands<R> {
    from: R,
    number: usize,
}

impl<R: BufRead> BatchCommands<R> {
    fn of(reader: R) -> Self {
        BatchCommands {
            from: reader,
            number: 0,
        }
    }

    /// Reads the next line, without its newline.
    fn line(&mut self) -> Option<io::Result<String>> {
        let mut line = Vec::new();
        let most = MAX_LINE_BYTES as u64 + 1;
        match self.from.by_ref().take(most).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) if line.len() > MAX_LINE_BYTES => {
                let what = format!("the line is longer than {} MiB", MAX_LINE_BYTES >> 20);
                return Some(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
            }
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
        line.pop_if(|last| *last == b'\n');
        line.pop_if(|last| *last == b'\r');
        let text = String::from_utf8(line);
        Some(text.map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "stream did not contain valid UTF-8",
            )
        }))
    }
}

impl<R: BufRead> Iterator for BatchCommands<R> {
    type Item = Result<NumberedCommand, (usize, io::Error)>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = self.number + 1;
        let mut command: Option<String> = None;
        loop {
            let line = match self.line() {
                Some(Ok(line)) => line,
                Some(Err(error)) => return Some(Err((self.number + 1, error))),
                // The last line may end with a backslash.
                None => return command.map(|command| Ok((first, split(&command)))),
            };
            self.number += 1;
            let command = command.get_or_insert_default();
            match line.strip_suffix('\\') {
                Some(line) => command.push_str(line),
                None => {
                    command.push_str(&line);
                    return Some(Ok((first, split(command))));
                }
            }
        }
    }
}

/// Splits a line into words. Quotes group a word; `#` outside of quotes starts a comment.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') => break,
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(_) => Err("a quotation mark is not closed"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, BufReader};

    use super::{BatchCommands, split};

    #[test]
    fn quotes_keep_words_together_and_comments_are_left_out() {
        let words = |line| split(line).unwrap().join("|");
        assert_eq!(words(" link  show\tgnv0 # all"), "link|show|gnv0");
        assert_eq!(
            words("from \"app in (a, b)\" to 'x'"),
            "from|app in (a, b)|to|x"
        );
        assert_eq!(words("a='b c'd # \""), "a=b cd");
        assert_eq!(words("labels ''"), "labels|");
        assert_eq!(split("# only"), Ok(vec![]));
        assert!(split("from \"app").is_err());
    }

    #[test]
    fn a_command_has_the_number_of_its_first_line() {
        let text = "a b\n\nc \\\n d\\\ne # f\n\"open\nlast \\";
        let all: Vec<_> = BatchCommands::of(text.as_bytes())
            .map(Result::unwrap)
            .collect();
        let words = |at: usize| all[at].1.clone().unwrap().join("|");
        let numbers: Vec<_> = all.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 6, 7]);
        assert_eq!((words(0), words(1)), ("a|b".into(), String::new()));
        assert_eq!((words(2), words(4)), ("c|de".into(), "last".into()));
        assert!(all[3].1.is_err());
        assert!(
            BatchCommands::of(&b"a\n\xff\n"[..])
                .nth(1)
                .unwrap()
                .is_err()
        );
        // Endless input is not read to its end.
        let (line, error) = BatchCommands::of(BufReader::new(io::repeat(0)))
            .next()
            .unwrap()
            .unwrap_err();
        assert_eq!((line, error.kind()), (1, io::ErrorKind::InvalidData));
    }
}
