//! How records are printed: text, one line each, or JSON, which is always an array.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

use super::options::{Color, Options};

/// What the options say of output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// JSON.
    pub json: bool,
    /// JSON for people.
    pub pretty: bool,
    /// One line an object, in columns.
    pub brief: bool,
    /// One line an object, joined with a backslash.
    pub oneline: bool,
    /// Details.
    pub details: bool,
    /// Statistics.
    pub statistics: bool,
    /// Unit prefixes.
    pub human: bool,
    /// Colours.
    pub color: bool,
}

impl Style {
    /// What these options ask for on this terminal.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        use std::io::IsTerminal;
        let wanted = match options.color {
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            Color::Always => std::env::var_os("NO_COLOR").is_none(),
        };
        Style {
            json: options.json,
            pretty: options.pretty,
            brief: options.brief,
            oneline: options.oneline,
            details: options.details,
            statistics: options.statistics > 0,
            human: options.human,
            color: wanted && !options.json,
        }
    }

    /// A number, shortened where `-h` asks for it.
    #[must_use]
    pub fn number(&self, number: u64) -> String {
        if !self.human || number < 1000 {
            return number.to_string();
        }
        let mut value = number as f64;
        let mut unit = "";
        for next in ["k", "M", "G", "T", "P", "E"] {
            if value < 999.5 {
                break;
            }
            value /= 1000.0;
            unit = next;
        }
        if value < 9.95 {
            format!("{value:.1}{unit}")
        } else {
            format!("{value:.0}{unit}")
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// An interface's name.
    #[must_use]
    pub fn name(&self, text: &str) -> String {
        self.paint("36", text)
    }

    /// An address or a prefix.
    #[must_use]
    pub fn address(&self, text: &str) -> String {
        self.paint("35", text)
    }

    /// Something that is well, or not.
    #[must_use]
    pub fn health(&self, good: bool, text: &str) -> String {
        self.paint(if good { "32" } else { "31" }, text)
    }
}

/// An object that can be shown.
pub trait Record {
    /// Lines for people; the first one starts at the margin, none ends with a newline.
    fn text(&self, style: &Style) -> String;
    /// One line in columns.
    fn brief(&self, style: &Style) -> String;
    /// One element of the array.
    fn json(&self, style: &Style) -> Value;
}

/// Prints records to standard output; a reader that hangs up is no error.
pub fn print(style: &Style, records: &[&dyn Record]) {
    let _ = io::stdout()
        .lock()
        .write_all(render(style, records).as_bytes());
}

/// Prints one text to standard output.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end_matches('\n'));
}

/// What [`print`] prints.
#[must_use]
pub fn render(style: &Style, records: &[&dyn Record]) -> String {
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

fn json(style: &Style, value: &Value) -> String {
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

/// Reasons and counts for people: `unknown-host 3, too-big 1`.
#[must_use]
pub fn reasons(style: &Style, drops: &std::collections::BTreeMap<String, u64>) -> String {
    let all: Vec<_> = drops
        .iter()
        .map(|(r, n)| format!("{r} {}", style.number(*n)))
        .collect();
    all.join(", ")
}

/// `WORD VALUE` pairs on one line, as a command takes them.
#[derive(Debug, Default)]
pub struct Line(String);

impl Line {
    /// A line that begins so.
    #[must_use]
    pub fn new(head: impl Into<String>) -> Self {
        Line(head.into())
    }

    /// A word of its own.
    #[must_use]
    pub fn word(mut self, word: &str) -> Self {
        self.0 += " ";
        self.0 += word;
        self
    }

    /// A flag, if it is set.
    #[must_use]
    pub fn flag(self, word: &str, on: bool) -> Self {
        if on { self.word(word) } else { self }
    }

    /// A value behind its word, if there is one; in quotes where it has spaces.
    #[must_use]
    pub fn value(mut self, word: &str, value: Option<impl std::fmt::Display>) -> Self {
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

    /// The text.
    #[must_use]
    pub fn end(self) -> String {
        self.0
    }
}

/// Adds the words of an object to JSON; keys that are there already keep their place.
pub fn extend(into: &mut Value, words: &impl Serialize) {
    let words = serde_json::to_value(words).expect("words have a form in JSON");
    if let (Value::Object(into), Value::Object(words)) = (into, words) {
        into.extend(words);
    }
}

/// The words of an object as JSON, with more keys behind them.
#[must_use]
pub fn with(words: &impl Serialize, more: &Value) -> Value {
    let mut all = serde_json::json!({});
    extend(&mut all, words);
    extend(&mut all, more);
    all
}
