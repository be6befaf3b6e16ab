//! How records are printed: text, one line each, or JSON, which is always an array.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

use super::error::CliError;
use super::style::OutputStyle;

/// An object that can be shown.
pub trait Show {
    /// Lines for people; the first one starts at the margin, none ends with a newline.
    fn text(&self, style: &OutputStyle) -> String;

    /// One line, in columns.
    fn brief(&self, style: &OutputStyle) -> String {
        self.text(&style.plain())
    }

    /// One element of the array.
    fn json(&self, style: &OutputStyle) -> Value;
}

/// Prints records to standard output. A closed pipe is no error.
///
/// # Errors
/// If writing to standard output fails.
pub fn print(style: &OutputStyle, records: &[&dyn Show]) -> Result<(), CliError> {
    write(render(style, records).as_bytes())
}

/// Prints a text with a final newline to standard output. A closed pipe is no error.
///
/// # Errors
/// If writing to standard output fails.
pub fn say(text: &str) -> Result<(), CliError> {
    write(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Writes bytes to standard output. A closed pipe is no error.
///
/// # Errors
/// If writing to standard output fails.
pub fn write(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            CLOSED.store(true, Ordering::Relaxed);
            Ok(())
        }
        Err(e) => Err(CliError::Refused(format!(
            "Error: cannot write to standard output: {e}"
        ))),
    }
}

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the reader of standard output has hung up, so that printing more is pointless.
#[must_use]
pub fn is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// Prints a line to standard error, ignoring errors.
pub fn tell(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Formats records for [`print`].
#[must_use]
pub fn render(style: &OutputStyle, records: &[&dyn Show]) -> String {
    if style.json {
        let all = Value::Array(records.iter().map(|r| r.json(style)).collect());
        return json(style, &all);
    }
    let mut out = String::new();
    for record in records {
        let text = if style.brief {
            record.brief(style)
        } else {
            record.text(style)
        };
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        if style.oneline {
            out.push_str(&text.replace('\n', "\\"));
        } else {
            out.push_str(text);
        }
        out.push('\n');
    }
    out
}

fn json(style: &OutputStyle, value: &Value) -> String {
    let mut bytes = Vec::new();
    let written = if style.pretty {
        let formatter = PrettyFormatter::with_indent(b"    ");
        value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut bytes, formatter,
        ))
    } else {
        serde_json::to_writer(&mut bytes, value)
    };
    written.expect("a value has a form in JSON");
    bytes.push(b'\n');
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Formats drop reasons with counts: `unknown-host 3, too-big 1`.
#[must_use]
pub fn reasons(style: &OutputStyle, drops: &std::collections::BTreeMap<String, u64>) -> String {
    let all: Vec<_> = drops
        .iter()
        .map(|(r, n)| format!("{r} {}", style.number(*n)))
        .collect();
    all.join(", ")
}

/// Builder of a line of `WORD VALUE` pairs, as commands take them.
#[derive(Debug, Default)]
pub struct OutputLine(String);

impl OutputLine {
    /// Starts a line.
    #[must_use]
    pub fn new(head: impl Into<String>) -> Self {
        OutputLine(head.into())
    }

    /// Appends a word.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        self.0 += " ";
        self.0 += word;
        self
    }

    /// Appends a word if the flag is set.
    #[must_use]
    pub fn flag(self, word: &str, on: bool) -> Self {
        if on { self.word(word) } else { self }
    }

    /// Appends a word with its value, if there is one; quoted if it contains spaces.
    #[must_use]
    pub fn value(mut self, word: &str, value: Option<impl Display>) -> Self {
        if let Some(value) = value {
            let value = value.to_string();
            let quote = if value.contains(char::is_whitespace) {
                "\""
            } else {
                ""
            };
            self.0 += &format!(" {word} {quote}{value}{quote}");
        }
        self
    }

    /// Appends the word with each of the values.
    #[must_use]
    pub fn values(self, word: &str, values: impl IntoIterator<Item = impl Display>) -> Self {
        let all = values.into_iter();
        all.fold(self, |line, value| line.value(word, Some(value)))
    }

    /// Returns the line.
    #[must_use]
    pub fn end(self) -> String {
        self.0
    }
}

/// Merges the words of an object into JSON; existing keys keep their position.
pub fn extend(into: &mut Value, words: &impl Serialize) {
    let words = serde_json::to_value(words).expect("words have a form in JSON");
    if let (Value::Object(into), Value::Object(words)) = (into, words) {
        into.extend(words);
    }
}

/// Converts the words of an object to JSON and appends more keys.
#[must_use]
pub fn with(words: &impl Serialize, more: &Value) -> Value {
    let mut all = serde_json::json!({});
    extend(&mut all, words);
    extend(&mut all, more);
    all
}
