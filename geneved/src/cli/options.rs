//! The options before the object: `ip`'s spelling, made digestible for argh.

use std::path::PathBuf;

use argh::FromArgs;

use super::error::CliError;
use crate::config::file::DEFAULT_SOCKET;
use crate::config::state::nearest;

/// VPC overlays over Geneve in user space: the daemon and its command line.
#[derive(Clone, Debug, FromArgs, PartialEq, Eq)]
pub struct Options {
    /// print the version
    #[argh(switch)]
    pub version: bool,
    /// more statistics; repeatable
    #[argh(switch)]
    pub statistics: i16,
    /// more details
    #[argh(switch)]
    pub details: bool,
    /// JSON output
    #[argh(switch)]
    pub json: bool,
    /// JSON output for people
    #[argh(switch)]
    pub pretty: bool,
    /// one line an object, in columns
    #[argh(switch)]
    pub brief: bool,
    /// one line an object, joined with a backslash
    #[argh(switch)]
    pub oneline: bool,
    /// colours: auto, always or never
    #[argh(option, default = "Color::Never")]
    pub color: Color,
    /// a time before each line of monitor
    #[argh(switch)]
    pub tshort: bool,
    /// read commands from FILE, or standard input for -
    #[argh(option)]
    pub batch: Option<String>,
    /// go on after a failure in a batch
    #[argh(switch)]
    pub force: bool,
    /// numbers with unit prefixes
    #[argh(switch)]
    pub human: bool,
    /// the daemon's control socket
    #[argh(option, default = "PathBuf::from(DEFAULT_SOCKET)")]
    pub socket: PathBuf,
    /// object, command and keywords
    #[argh(positional, greedy)]
    pub words: Vec<String>,
}

/// When output is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl std::str::FromStr for Color {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Color::Auto),
            "always" => Ok(Color::Always),
            "never" => Ok(Color::Never),
            _ => Err("\"auto\", \"always\" or \"never\"".into()),
        }
    }
}

/// Short spellings that `ip` has, each with argh's one.
const SPELLINGS: &[(&str, &str)] = &[
    ("V", "--version"),
    ("s", "--statistics"),
    ("stats", "--statistics"),
    ("d", "--details"),
    ("j", "--json"),
    ("p", "--pretty"),
    ("br", "--brief"),
    ("o", "--oneline"),
    ("ts", "--tshort"),
    ("force", "--force"),
    ("h", "--human"),
    ("human-readable", "--human"),
];
const LONG: &[&str] = &[
    "version",
    "statistics",
    "details",
    "json",
    "pretty",
    "brief",
    "oneline",
    "tshort",
    "force",
    "human",
    "color",
    "batch",
    "socket",
];

/// Reads the options in front of the object; what follows it is left alone.
///
/// # Errors
/// An option is unknown or lacks its value.
pub fn parse(arguments: &[String]) -> Result<Options, CliError> {
    let mut normal: Vec<String> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            normal.push("--".into());
            normal.push(word.clone());
            break;
        };
        if option.is_empty() {
            normal.push("--".into());
            break;
        }
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, Some(value.to_owned())),
            None => (option, None),
        };
        match option {
            "help" => {
                normal.extend(["--".into(), "help".into()]);
                break;
            }
            "c" | "color" | "colour" => {
                normal.push("--color".into());
                normal.push(value.unwrap_or_else(|| "always".into()));
            }
            "b" | "batch" | "socket" => {
                let value = value.or_else(|| rest.next().cloned()).ok_or_else(|| {
                    CliError::Usage(format!(
                        "Option \"{word}\" needs a value, try \"geneved help\"."
                    ))
                })?;
                normal.push(
                    if option == "socket" {
                        "--socket"
                    } else {
                        "--batch"
                    }
                    .into(),
                );
                normal.push(value);
            }
            _ => {
                let short = SPELLINGS
                    .iter()
                    .find(|(name, _)| *name == option)
                    .map(|(_, l)| *l);
                let long = || {
                    let mut found = LONG.iter().filter(|l| l.starts_with(option));
                    match (found.next(), found.next()) {
                        (Some(long), None) if option.len() > 1 => Some(format!("--{long}")),
                        _ => None,
                    }
                };
                match short.map(str::to_owned).or_else(long) {
                    Some(spelling) if value.is_none() => normal.push(spelling),
                    _ => return Err(unknown(word, option)),
                }
            }
        }
    }
    normal.extend(rest.cloned());
    let normal: Vec<&str> = normal.iter().map(String::as_str).collect();
    Options::from_args(&["geneved"], &normal)
        .map_err(|early| CliError::Usage(early.output.trim().to_owned()))
}

fn unknown(word: &str, option: &str) -> CliError {
    let hint = match nearest(option, LONG.iter().copied()) {
        Some(near) if option.len() > 2 => format!(" Did you mean \"-{near}\"?"),
        _ => String::new(),
    };
    CliError::Usage(format!(
        "Option \"{word}\" is unknown, try \"geneved help\".{hint}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<Options, String> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words).map_err(|e| e.to_string())
    }

    #[test]
    fn options_are_spelled_as_ip_spells_them() {
        let o = options("-s -s -d -j -p -br -o -ts -force -c=auto --socket /s link show").unwrap();
        assert_eq!(
            (o.statistics, o.details, o.json, o.pretty),
            (2, true, true, true)
        );
        assert_eq!(
            (o.brief, o.oneline, o.tshort, o.force),
            (true, true, true, true)
        );
        assert_eq!((o.color, o.socket), (Color::Auto, PathBuf::from("/s")));
        assert_eq!(o.words, ["link", "show"]);
        assert_eq!(options("-statistics -json link").unwrap().statistics, 1);
        assert_eq!(options("-b - ").unwrap().batch.as_deref(), Some("-"));
        assert_eq!(options("-c link").unwrap().color, Color::Always);
    }

    #[test]
    fn words_after_the_object_are_left_alone() {
        assert_eq!(
            options("run --config f").unwrap().words,
            ["run", "--config", "f"]
        );
        assert_eq!(options("-help").unwrap().words, ["help"]);
    }

    #[test]
    fn an_unknown_option_is_named_as_ip_names_it() {
        assert_eq!(
            options("-zz link").unwrap_err(),
            "Option \"-zz\" is unknown, try \"geneved help\"."
        );
        assert!(
            options("-jsno link")
                .unwrap_err()
                .contains("Did you mean \"-json\"?")
        );
        assert!(options("-c=pink link").is_err());
        assert!(options("--socket").unwrap_err().contains("needs a value"));
    }
}
