//! The options before the object, spelled like `ip`'s: one dash, and any unambiguous prefix.
//!
//! argh's own parser does not support this spelling, so this one implements its trait.

use std::path::PathBuf;

use argh::{EarlyExit, FromArgs, TopLevelCommand};

use super::error::CliError;
use crate::config::state::nearest;
use crate::config::value::ValueError;

/// VPC overlays over Geneve in user space: the daemon and its command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobalOptions {
    /// Print the version.
    pub version: bool,
    /// Print the grammar.
    pub help_wanted: bool,
    /// More statistics; repeatable.
    pub statistics: u8,
    /// More details.
    pub details: bool,
    /// Numbers with unit prefixes.
    pub human: bool,
    /// Unit prefixes that are powers of 1024.
    pub iec: bool,
    /// JSON output.
    pub json: bool,
    /// JSON output for people.
    pub pretty: bool,
    /// One line an object, in columns.
    pub brief: bool,
    /// One line an object, joined with a backslash.
    pub oneline: bool,
    /// Colours: auto, always or never.
    pub color: Option<ColorMode>,
    /// A line with the time before each event.
    pub timestamp: bool,
    /// The time in brackets before each event.
    pub tshort: bool,
    /// Read commands from FILE, or standard input for -.
    pub batch: Option<String>,
    /// Go on after a failure in a batch.
    pub force: bool,
    /// Make all changes of a batch, or none.
    pub atomic: bool,
    /// The network namespace of the interfaces.
    pub netns: Option<String>,
    /// Numbers instead of names.
    pub numeric: bool,
    /// Only what is of IPv4.
    pub inet: bool,
    /// Only what is of IPv6.
    pub inet6: bool,
    /// The daemon's control socket.
    pub socket: Option<PathBuf>,
    /// Object, command and keywords.
    pub words: Vec<String>,
}

/// When to colour output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorMode {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl std::str::FromStr for ColorMode {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(ColorMode::Auto),
            "always" => Ok(ColorMode::Always),
            "never" => Ok(ColorMode::Never),
            _ => Err(ValueError::new("\"auto\", \"always\" or \"never\"")
                .expecting(&["auto", "always", "never"])),
        }
    }
}

/// Argument of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionArgument {
    /// Nothing.
    Nothing,
    /// A value in the next word, or after `=`.
    Value(&'static str),
    /// An optional value after `=`.
    Choice,
}

/// Spelling of an option.
#[derive(Clone, Copy, Debug)]
pub struct OptionSpelling {
    /// Full name.
    pub name: &'static str,
    /// Minimum number of letters.
    pub enough: usize,
    /// Argument.
    pub takes: OptionArgument,
    /// Sets the option; the value is empty if it takes none.
    set: Set,
}

/// Sets an option to a value. If an option is repeated, the last value wins.
type Set = fn(&mut GlobalOptions, &str) -> Result<(), ValueError>;

const fn spelling(
    name: &'static str,
    enough: usize,
    takes: OptionArgument,
    set: Set,
) -> OptionSpelling {
    OptionSpelling {
        name,
        enough,
        takes,
        set,
    }
}

/// Sets a field of the options to a constant.
macro_rules! set {
    ($field:ident = $value:expr) => {
        |options, _| {
            options.$field = $value;
            Ok(())
        }
    };
    ($field:ident from $text:ident: $value:expr) => {
        |options, $text| {
            options.$field = Some($value);
            Ok(())
        }
    };
}

fn more_statistics(options: &mut GlobalOptions, _: &str) -> Result<(), ValueError> {
    options.statistics = options.statistics.saturating_add(1);
    Ok(())
}

fn color(options: &mut GlobalOptions, when: &str) -> Result<(), ValueError> {
    options.color = Some(when.parse()?);
    Ok(())
}

/// All options. As with `ip` the first match wins, so `-b` is batch and `-br` is brief.
pub const SPELLINGS: [OptionSpelling; 23] = [
    spelling("Version", 1, OptionArgument::Nothing, set!(version = true)),
    spelling("statistics", 1, OptionArgument::Nothing, more_statistics),
    spelling("stats", 1, OptionArgument::Nothing, more_statistics),
    spelling("details", 1, OptionArgument::Nothing, set!(details = true)),
    spelling("human", 1, OptionArgument::Nothing, set!(human = true)),
    spelling("iec", 1, OptionArgument::Nothing, set!(iec = true)),
    spelling("json", 1, OptionArgument::Nothing, set!(json = true)),
    spelling("pretty", 1, OptionArgument::Nothing, set!(pretty = true)),
    spelling("brief", 2, OptionArgument::Nothing, set!(brief = true)),
    spelling("oneline", 1, OptionArgument::Nothing, set!(oneline = true)),
    spelling("color", 1, OptionArgument::Choice, color),
    spelling(
        "timestamp",
        1,
        OptionArgument::Nothing,
        set!(timestamp = true),
    ),
    spelling("tshort", 2, OptionArgument::Nothing, set!(tshort = true)),
    spelling(
        "batch",
        1,
        OptionArgument::Value("FILE"),
        set!(batch from v: v.to_owned()),
    ),
    spelling("force", 2, OptionArgument::Nothing, set!(force = true)),
    spelling("atomic", 2, OptionArgument::Nothing, set!(atomic = true)),
    spelling(
        "netns",
        1,
        OptionArgument::Value("NETNS"),
        set!(netns from v: v.to_owned()),
    ),
    spelling("Numeric", 1, OptionArgument::Nothing, set!(numeric = true)),
    spelling("4", 1, OptionArgument::Nothing, set!(inet = true)),
    spelling("6", 1, OptionArgument::Nothing, set!(inet6 = true)),
    spelling(
        "socket",
        2,
        OptionArgument::Value("PATH"),
        set!(socket from v: PathBuf::from(v)),
    ),
    spelling("help", 2, OptionArgument::Nothing, set!(help_wanted = true)),
    spelling("version", 2, OptionArgument::Nothing, set!(version = true)),
];
/// Accepted spellings that help does not show.
const OTHERS: [(&str, &str); 5] = [
    ("v", "Version"),
    ("human-readable", "human"),
    ("colour", "color"),
    ("numeric", "Numeric"),
    ("inet6", "6"),
];

/// Options as `help` shows them, without braces.
#[must_use]
pub fn bnf() -> Vec<String> {
    let shown = SPELLINGS
        .iter()
        .filter(|s| !matches!(s.name, "stats" | "version"));
    let one = |s: &OptionSpelling| {
        let (head, tail) = s.name.split_at(s.enough);
        let optional = match tail {
            "" => String::new(),
            tail => format!("[{tail}]"),
        };
        match (s.name, s.takes) {
            ("socket", _) => "--socket PATH".to_owned(),
            ("force" | "atomic" | "iec" | "help", _) => format!("-{}", s.name),
            ("batch", _) => format!("-{head}{optional} {{ FILE | - }}"),
            (_, OptionArgument::Nothing) => format!("-{head}{optional}"),
            (_, OptionArgument::Value(value)) => format!("-{head}{optional} {value}"),
            (_, OptionArgument::Choice) => format!("-{head}{optional}[=auto|always|never]"),
        }
    };
    shown.map(one).collect()
}

/// Finds the option spelled `word`, without dashes.
#[must_use]
pub fn find(word: &str) -> Option<&'static OptionSpelling> {
    let other = OTHERS.iter().find(|(name, _)| *name == word);
    let word = other.map_or(word, |(_, name)| *name);
    let fits = |s: &&OptionSpelling| s.name.starts_with(word) && word.len() >= s.enough;
    let whole = SPELLINGS.iter().find(|s| s.name == word);
    whole.or_else(|| SPELLINGS.iter().find(fits))
}

impl TopLevelCommand for GlobalOptions {}

impl FromArgs for GlobalOptions {
    fn from_args(_: &[&str], arguments: &[&str]) -> Result<Self, EarlyExit> {
        read(arguments).map_err(|error| error.to_string().into())
    }
}

/// Parses the options before the object; the remaining words are kept as they are.
///
/// # Errors
/// If an option is unknown or lacks its value.
pub fn parse(arguments: &[String]) -> Result<GlobalOptions, CliError> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    GlobalOptions::from_args(&["geneved"], &arguments)
        .map_err(|early| CliError::Usage(early.output))
}

fn read(arguments: &[&str]) -> Result<GlobalOptions, CliError> {
    let mut options = GlobalOptions::default();
    let mut rest = arguments.iter();
    while let Some(&word) = rest.next() {
        let dashed = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some(option) = dashed.filter(|o| !o.is_empty()) else {
            options
                .words
                .extend((word != "--").then(|| word.to_owned()));
            break;
        };
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (option, None),
        };
        let found = find(option).ok_or_else(|| unknown(word, option))?;
        let value = match (found.takes, value) {
            (OptionArgument::Nothing, Some(_)) => return Err(unknown(word, option)),
            (OptionArgument::Nothing, None) => "",
            (OptionArgument::Choice, None) => "always",
            (OptionArgument::Choice | OptionArgument::Value(_), Some(value)) => value,
            (OptionArgument::Value(what), None) => rest.next().ok_or_else(|| {
                CliError::Usage(format!(
                    "Option \"{word}\" needs a value: {what}. Try \"geneved -help\"."
                ))
            })?,
        };
        (found.set)(&mut options, value)
            .map_err(|error| super::grammar::wrong_value(value, &error))?;
    }
    options.words.extend(rest.map(|&word| word.to_owned()));
    // `-h` means "human" before an object, and asks for help without one.
    let only_human = options.human && options.words.is_empty() && options.batch.is_none();
    if options.help_wanted || (only_human && !options.version) {
        options.words = vec!["help".into()];
    }
    Ok(options)
}

fn unknown(word: &str, option: &str) -> CliError {
    let names = SPELLINGS.iter().map(|s| s.name);
    let hint = match nearest(option, names) {
        Some("socket") => " Did you mean \"--socket\"?".to_owned(),
        Some(near) if option.len() > 2 => format!(" Did you mean \"-{near}\"?"),
        _ => String::new(),
    };
    CliError::Usage(format!(
        "Option \"{word}\" is unknown, try \"geneved -help\".{hint}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<GlobalOptions, String> {
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
        assert_eq!(
            (o.color, o.socket),
            (Some(ColorMode::Auto), Some("/s".into()))
        );
        assert_eq!(o.words, ["link", "show"]);
        assert_eq!(options("-statistics -json link").unwrap().statistics, 1);
        assert_eq!(options("-b - ").unwrap().batch.as_deref(), Some("-"));
        assert_eq!(options("-batch=f").unwrap().batch.as_deref(), Some("f"));
        assert_eq!(options("-c link").unwrap().color, Some(ColorMode::Always));
        let o = options("-h -iec -t -N -4 -n blue link").unwrap();
        assert_eq!((o.human, o.iec, o.timestamp), (true, true, true));
        assert_eq!((o.numeric, o.inet, o.inet6), (true, true, false));
        assert_eq!(o.netns.as_deref(), Some("blue"));
        let o = options("-c=never --socket /a -c=auto --socket /b link").unwrap();
        assert_eq!(
            (o.color, o.socket),
            (Some(ColorMode::Auto), Some("/b".into()))
        );
        let o = options("-stats -6 --netns=red -hu link").unwrap();
        assert_eq!((o.statistics, o.inet6, o.human), (1, true, true));
        for version in ["-V", "-Version", "-ver", "--version"] {
            assert!(options(version).unwrap().version, "{version}");
        }
    }

    #[test]
    fn words_after_the_object_are_left_alone() {
        assert_eq!(
            options("run --config f").unwrap().words,
            ["run", "--config", "f"]
        );
        for help in ["-help", "--help", "-he", "-h", "-s -h"] {
            assert_eq!(options(help).unwrap().words, ["help"], "{help}");
        }
        assert_eq!(options("-- link").unwrap().words, ["link"]);
    }

    #[test]
    fn an_unknown_option_is_named_as_ip_names_it() {
        assert_eq!(
            options("-zz link").unwrap_err(),
            "Option \"-zz\" is unknown, try \"geneved -help\"."
        );
        assert!(
            options("-jsno link")
                .unwrap_err()
                .contains("Did you mean \"-json\"?")
        );
        assert_eq!(
            options("-c=alway link").unwrap_err(),
            "Error: argument \"alway\" is wrong: \"auto\", \"always\" or \"never\"; did you mean \"always\"?"
        );
        assert_eq!(
            options("--socket").unwrap_err(),
            "Option \"--socket\" needs a value: PATH. Try \"geneved -help\"."
        );
        assert!(options("-j=1 link").is_err());
        assert!(options("-c= link").is_err());
    }

    #[test]
    fn every_option_that_is_shown_is_taken() {
        for shown in bnf() {
            let word = shown.split(' ').next().unwrap_or_default();
            let short = word.split('[').next().unwrap_or_default();
            let whole: String = word.replace("[=auto|always|never]", "");
            let whole: String = whole.chars().filter(|c| !"[]".contains(*c)).collect();
            for spelled in [short, &whole] {
                let value = if shown.contains(' ') { " x" } else { "" };
                options(&format!("{spelled}{value}")).unwrap_or_else(|e| panic!("{e}"));
            }
        }
    }
}
