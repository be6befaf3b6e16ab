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
        let words = split(&line).map_err(|e| CliError::Usage(format!("{file}:{number}: {e}")))?;
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

/// The words of a line. What is in quotes is one word; `#` outside of quotes begins a comment.
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
    use super::split;

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
}
