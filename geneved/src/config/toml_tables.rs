//! The tables of one configuration file, with all faults of their keys and values.
//!
//! A table is deserialized again after each fault, without the faulty part, so that one fault does not hide another.
//! [`super::state`] checks how the objects fit together.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::args::{ChangeVerb, ObjectChange, keys_of};
use super::settings::DaemonSettings;
use super::state::nearest;

/// Content of a file.
#[derive(Debug, Default)]
pub(super) struct ParsedFile {
    text: String,
    /// `[daemon]`, with the positions of the table and its keys.
    pub daemon: Option<DaemonTable>,
    /// Objects without faults of their own, with their positions.
    pub changes: Vec<(Range<usize>, ObjectChange)>,
    /// Names of faulty objects; `None` if the name is unknown.
    pub broken: Vec<Option<String>>,
    /// Faults with their positions.
    pub faults: Vec<(Range<usize>, String)>,
    /// Number of leading faults that are TOML syntax errors, which may hide whole objects.
    pub garbled: usize,
}

/// `[daemon]` of a file.
#[derive(Debug)]
pub(super) struct DaemonTable {
    /// The settings.
    pub settings: DaemonSettings,
    /// Position of the table.
    pub span: Range<usize>,
    keys: Vec<(String, Range<usize>)>,
}

impl DaemonTable {
    /// Position of a key, written `table.key` for nested tables; position of the table if there is no such key.
    pub fn at(&self, key: &str) -> Range<usize> {
        let found = self.keys.iter().find(|(name, _)| name == key);
        found.map_or(&self.span, |(_, span)| span).clone()
    }
}

type TomlValue<'i> = Spanned<DeValue<'i>>;

/// Parses the text of a file.
pub(super) fn read(text: &str) -> ParsedFile {
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut tables = ParsedFile {
        text: text.to_owned(),
        garbled: errors.len(),
        ..ParsedFile::default()
    };
    for error in errors {
        let at = error.span().unwrap_or_default();
        tables.faults.push((at, one_line(error.message())));
    }
    for (key, value) in root.into_inner() {
        tables.table(key.get_ref(), key.span(), value);
    }
    tables
}

/// Names of the tables that a file may contain besides `[daemon]`.
const TABLE_NAMES: [&str; 9] = [
    "option", "link", "qos", "route", "fdb", "endpoint", "policy", "nat", "service",
];

impl ParsedFile {
    fn table(&mut self, key: &str, at: Range<usize>, value: TomlValue<'_>) {
        match key {
            "daemon" => self.daemon(at, value),
            "option" => self.list(key, at, value, ObjectChange::option),
            "link" => self.list(key, at, value, ObjectChange::link),
            "qos" => self.list(key, at, value, ObjectChange::qos),
            "route" => self.list(key, at, value, ObjectChange::route),
            "fdb" => self.list(key, at, value, ObjectChange::fdb),
            "endpoint" => self.list(key, at, value, ObjectChange::endpoint),
            "policy" => self.list(key, at, value, ObjectChange::policy),
            "nat" => self.list(key, at, value, ObjectChange::nat),
            "service" => self.list(key, at, value, ObjectChange::service),
            _ => {
                let known = ["daemon"].into_iter().chain(TABLE_NAMES);
                self.faults.push((at, unknown(key, known)));
            }
        }
    }

    fn daemon(&mut self, at: Range<usize>, value: TomlValue<'_>) {
        let span = value.span();
        let keys = match value.get_ref() {
            DeValue::Table(table) => positions(table, ""),
            _ => {
                let what = "daemon: expected one table, which begins with [daemon]";
                self.faults.push((at, what.into()));
                return;
            }
        };
        if let Some((settings, _)) = self.object("[daemon]", value) {
            self.daemon = Some(DaemonTable {
                settings,
                span,
                keys,
            });
        }
    }

    fn list<T: DeserializeOwned>(
        &mut self,
        key: &str,
        at: Range<usize>,
        value: TomlValue<'_>,
        change: fn(ChangeVerb, T) -> ObjectChange,
    ) {
        let title = format!("[[{key}]]");
        let span = value.span();
        let (each, single) = match value.into_inner() {
            DeValue::Array(all) => (all.into_iter().collect(), false),
            table @ DeValue::Table(_) => (vec![Spanned::new(span, table)], true),
            _ => (Vec::new(), true),
        };
        if single {
            let what =
                format!("{key}: expected an array of tables, each of which begins with {title}");
            self.faults.push((at, what));
        }
        for one in each {
            let span = one.span();
            let name = name(one.get_ref());
            match self.object(&title, one) {
                Some((words, true)) if !single => {
                    self.changes.push((span, change(ChangeVerb::Add, words)));
                }
                _ => self.broken.push(name),
            }
        }
    }

    /// Deserializes an object without its faulty parts, which are recorded, and tells whether all of it is right;
    /// `None` if nothing can be read.
    fn object<T: DeserializeOwned>(
        &mut self,
        title: &str,
        value: TomlValue<'_>,
    ) -> Option<(T, bool)> {
        let span = value.span();
        let before = self.faults.len();
        let DeValue::Table(table) = value.into_inner() else {
            self.faults
                .push((span, format!("expected a table, {title}")));
            return None;
        };
        let keys = keys_of::<T>();
        let (known, strange): (Vec<_>, Vec<_>) = table
            .into_iter()
            .partition(|(key, _)| keys.contains(&key.get_ref().as_ref()));
        for (key, _) in strange {
            let what = unknown(key.get_ref(), keys.iter().copied());
            self.faults.push((key.span(), what));
        }
        let mut table: DeTable<'_> = known.into_iter().collect();
        loop {
            let whole = Spanned::new(span.clone(), DeValue::Table(table.clone()));
            let error = match T::deserialize(ValueDeserializer::from(whole)) {
                Ok(words) => return Some((words, self.faults.len() == before)),
                Err(error) => error,
            };
            let at = error.span().unwrap_or_else(|| span.clone());
            let told = one_line(error.message());
            match take_out(&mut table, at.start) {
                Some(key) => {
                    let found = self.text.get(at.clone()).unwrap_or_default();
                    let what = wrong(&key, &told, found);
                    self.faults.push((at, what));
                }
                None => {
                    // The faulty key was removed above, so it is reported missing.
                    let missing = told
                        .strip_prefix("missing field `")
                        .and_then(|rest| rest.strip_suffix('`'));
                    match missing {
                        Some(_) if self.faults.len() > before => {}
                        Some(key) => self
                            .faults
                            .push((span, format!("{title}: key \"{key}\" is missing"))),
                        None => self.faults.push((at, format!("{title}: {told}"))),
                    }
                    return None;
                }
            }
        }
    }
}

/// Name of an object, if it can be read.
fn name(value: &DeValue<'_>) -> Option<String> {
    let DeValue::Table(table) = value else {
        return None;
    };
    let named = |wanted: &str| {
        let found = table.iter().find(|(key, _)| key.get_ref() == wanted);
        match found?.1.get_ref() {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        }
    };
    let own = ["prefix", "mac", "address"].into_iter().find_map(named);
    named("name").or(own)
}

/// Positions of the keys of a table and of its nested tables.
fn positions(table: &DeTable<'_>, prefix: &str) -> Vec<(String, Range<usize>)> {
    let mut all = Vec::new();
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            all.extend(positions(inner, &format!("{name}.")));
        }
        all.push((name, value.span()));
    }
    all
}

/// Removes the innermost removable entry at this position and returns its key.
fn take_out(table: &mut DeTable<'_>, at: usize) -> Option<String> {
    let holds = |span: Range<usize>| span.contains(&at);
    let mut found = None;
    for (key, value) in &mut *table {
        let name = key.get_ref();
        if holds(key.span()) {
            found = Some(key.clone());
            break;
        }
        let span = value.span();
        match value.get_mut() {
            // The span of a table with its own header is that of the header.
            DeValue::Table(inner) => {
                if let Some(inner) = take_out(inner, at) {
                    return Some(format!("{name}.{inner}"));
                }
            }
            DeValue::Array(all) => {
                let others = all.iter().filter(|one| !holds(one.span()));
                let others: DeArray<'_> = others.cloned().collect();
                if others.len() < all.len() {
                    *all = others;
                    return Some(name.to_string());
                }
            }
            _ => {}
        }
        if holds(span) {
            found = Some(key.clone());
            break;
        }
    }
    let key = found?;
    table.remove(&key);
    Some(key.into_inner().into_owned())
}

fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(key, known.clone()) {
        Some(near) => format!("unknown key \"{key}\"; did you mean \"{near}\"?"),
        None => {
            let known: Vec<_> = known.collect();
            format!(
                "unknown key \"{key}\"; expected one of \"{}\"",
                known.join("\", \"")
            )
        }
    }
}

/// Rewrites serde's error about the value of a key in TOML's terms.
fn wrong(key: &str, told: &str, found: &str) -> String {
    let type_or_value = told
        .strip_prefix("invalid type: ")
        .or_else(|| told.strip_prefix("invalid value: "));
    if let Some((found, expected)) = type_or_value.and_then(|rest| rest.rsplit_once(", expected "))
    {
        return format!(
            "{key}: expected {}, found {}",
            expectation(expected),
            finding(found)
        );
    }
    // A nested table, whose keys only its type knows.
    if let Some((key, known)) = told
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once("`, expected "))
    {
        return unknown(key, known.split('`').skip(1).step_by(2));
    }
    let quoted = |text: &str| text.replace('`', "\"");
    if let Some((variant, known)) = told
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.split_once("`, expected "))
    {
        let known = quoted(known.trim_start_matches("one of "));
        return format!("{key}: expected {known}, found the string \"{variant}\"");
    }
    match told {
        "invalid IP address syntax" => {
            format!("{key}: expected a string with an IPv4 or IPv6 address, found {found}")
        }
        // The message already names the value and what it must be.
        told if told.starts_with("argument ") => told.to_owned(),
        told => format!("{key}: {}", quoted(told)),
    }
}

fn expectation(serde: &str) -> String {
    let up_to = |most: u64| format!("an integer from 0 to {most}");
    match serde {
        "u8" => up_to(u8::MAX.into()),
        "u16" => up_to(u16::MAX.into()),
        "u32" => up_to(u32::MAX.into()),
        "i64" => "an integer".into(),
        "u64" | "usize" => "an integer of at least 0".into(),
        "a sequence" => "an array".into(),
        "a map" => "a table".into(),
        "IP address" => "a string with an IPv4 or IPv6 address".into(),
        "path string" => "a string with a path".into(),
        other if other.starts_with("struct ") => "a table".into(),
        other if other.starts_with("enum ") => "a string".into(),
        other => other.replace('`', "\""),
    }
}

fn finding(serde: &str) -> String {
    let plain = serde.replace('`', "");
    match plain.split_once(' ') {
        Some(("floating", rest)) => format!("the float {}", rest.trim_start_matches("point ")),
        Some((kind @ ("string" | "integer" | "boolean"), rest)) => format!("the {kind} {rest}"),
        _ if plain == "sequence" => "an array".into(),
        _ if plain == "map" => "a table".into(),
        _ => plain,
    }
}

/// Joins the lines of a message from toml, as each fault is one line.
fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
