//! The options before the object: `ip`'s spelling, made digestible for argh.

use std::path::PathBuf;

use argh::FromArgs;

use super::error::CliError;
use crate::config::state::nearest;
use crate::config::value::ValueError;

/// VPC overlays over Geneve in user space: the daemon and its command line.
#[derive(Clone, Debug, FromArgs, PartialEq, Eq)]
pub struct Options {
    /// print the version
    #[argh(switch)]
    pub version: bool,
    /// print the grammar
    #[argh(switch)]
    pub help_wanted: bool,
    /// more statistics; repeatable
    #[argh(switch)]
    pub statistics: u8,
    /// more details
    #[argh(switch)]
    pub details: bool,
    /// numbers with unit prefixes
    #[argh(switch)]
    pub human: bool,
    /// unit prefixes that are powers of 1024
    #[argh(switch)]
    pub iec: bool,
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
    #[argh(option)]
    pub color: Option<Color>,
    /// a line with the time before each event
    #[argh(switch)]
    pub timestamp: bool,
    /// the time in brackets before each event
    #[argh(switch)]
    pub tshort: bool,
    /// read commands from FILE, or standard input for -
    #[argh(option)]
    pub batch: Option<String>,
    /// go on after a failure in a batch
    #[argh(switch)]
    pub force: bool,
    /// make all changes of a batch, or none
    #[argh(switch)]
    pub atomic: bool,
    /// the network namespace of the interfaces
    #[argh(option)]
    pub netns: Option<String>,
    /// numbers instead of names
    #[argh(switch)]
    pub numeric: bool,
    /// only what is of IPv4
    #[argh(switch)]
    pub inet: bool,
    /// only what is of IPv6
    #[argh(switch)]
    pub inet6: bool,
    /// the daemon's control socket
    #[argh(option)]
    pub socket: Option<PathBuf>,
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
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Color::Auto),
            "always" => Ok(Color::Always),
            "never" => Ok(Color::Never),
            _ => Err(ValueError::new("\"auto\", \"always\" or \"never\"")
                .expecting(&["auto", "always", "never"])),
        }
    }
}

/// What follows an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// A value in the next word, or behind `=`.
    Value(&'static str),
    /// Perhaps a value behind `=`.
    Choice,
}

/// An option as users spell it.
#[derive(Clone, Copy, Debug)]
pub struct Spelling {
    /// Its whole name.
    pub name: &'static str,
    /// How many of its letters are enough.
    pub enough: usize,
    /// argh's name for it.
    long: &'static str,
    /// What follows.
    pub takes: Takes,
}

const fn spelling(name: &'static str, enough: usize, long: &'static str, takes: Takes) -> Spelling {
    Spelling {
        name,
        enough,
        long,
        takes,
    }
}

/// Every option. As `ip` has it the first one that fits is meant, so `-b` is a batch and `-br` is brief.
pub const SPELLINGS: [Spelling; 23] = [
    spelling("Version", 1, "version", Takes::Nothing),
    spelling("statistics", 1, "statistics", Takes::Nothing),
    spelling("stats", 1, "statistics", Takes::Nothing),
    spelling("details", 1, "details", Takes::Nothing),
    spelling("human", 1, "human", Takes::Nothing),
    spelling("iec", 1, "iec", Takes::Nothing),
    spelling("json", 1, "json", Takes::Nothing),
    spelling("pretty", 1, "pretty", Takes::Nothing),
    spelling("brief", 2, "brief", Takes::Nothing),
    spelling("oneline", 1, "oneline", Takes::Nothing),
    spelling("color", 1, "color", Takes::Choice),
    spelling("timestamp", 1, "timestamp", Takes::Nothing),
    spelling("tshort", 2, "tshort", Takes::Nothing),
    spelling("batch", 1, "batch", Takes::Value("FILE")),
    spelling("force", 2, "force", Takes::Nothing),
    spelling("atomic", 2, "atomic", Takes::Nothing),
    spelling("netns", 1, "netns", Takes::Value("NETNS")),
    spelling("Numeric", 1, "numeric", Takes::Nothing),
    spelling("4", 1, "inet", Takes::Nothing),
    spelling("6", 1, "inet6", Takes::Nothing),
    spelling("socket", 2, "socket", Takes::Value("PATH")),
    spelling("help", 2, "help-wanted", Takes::Nothing),
    spelling("version", 2, "version", Takes::Nothing),
];
/// Spellings that are taken, but not shown.
const OTHERS: [(&str, &str); 5] = [
    ("v", "Version"),
    ("human-readable", "human"),
    ("colour", "color"),
    ("numeric", "Numeric"),
    ("inet6", "6"),
];

/// The options as `help` shows them, without braces.
#[must_use]
pub fn bnf() -> Vec<String> {
    let shown = SPELLINGS
        .iter()
        .filter(|s| !matches!(s.name, "stats" | "version"));
    let one = |s: &Spelling| {
        let (head, tail) = s.name.split_at(s.enough);
        let optional = match tail {
            "" => String::new(),
            tail => format!("[{tail}]"),
        };
        match (s.name, s.takes) {
            ("socket", _) => "--socket PATH".to_owned(),
            ("force" | "atomic" | "iec" | "help", _) => format!("-{}", s.name),
            ("batch", _) => format!("-{head}{optional} {{ FILE | - }}"),
            (_, Takes::Nothing) => format!("-{head}{optional}"),
            (_, Takes::Value(value)) => format!("-{head}{optional} {value}"),
            (_, Takes::Choice) => format!("-{head}{optional}[=auto|always|never]"),
        }
    };
    shown.map(one).collect()
}

/// The option that `word` is, without its dashes.
#[must_use]
pub fn find(word: &str) -> Option<&'static Spelling> {
    let other = OTHERS.iter().find(|(name, _)| *name == word);
    let word = other.map_or(word, |(_, name)| *name);
    let fits = |s: &&Spelling| s.name.starts_with(word) && word.len() >= s.enough;
    let whole = SPELLINGS.iter().find(|s| s.name == word);
    whole.or_else(|| SPELLINGS.iter().find(fits))
}

/// Reads the options in front of the object; what follows it is left alone.
///
/// # Errors
/// An option is unknown or lacks its value.
pub fn parse(arguments: &[String]) -> Result<Options, CliError> {
    let mut normal: Vec<String> = Vec::new();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let dashed = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let Some(option) = dashed.filter(|o| !o.is_empty()) else {
            normal.push("--".into());
            normal.extend((word != "--").then(|| word.clone()));
            break;
        };
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (option, None),
        };
        let found = find(option).ok_or_else(|| unknown(word, option))?;
        let long = format!("--{}", found.long);
        // Of a value that is given twice the last one counts; argh would complain.
        if let (Some(at), false) = (
            normal.iter().position(|w| *w == long),
            found.takes == Takes::Nothing,
        ) {
            normal.drain(at..at + 2);
        }
        normal.push(long);
        match (found.takes, value) {
            (Takes::Nothing, None) => {}
            (Takes::Nothing, Some(_)) => return Err(unknown(word, option)),
            (Takes::Choice, value) => normal.push(colour(value.unwrap_or("always"))?),
            (Takes::Value(_), Some(value)) => normal.push(value.to_owned()),
            (Takes::Value(what), None) => {
                normal.push(rest.next().cloned().ok_or_else(|| {
                    CliError::Usage(format!(
                        "Option \"{word}\" needs a value: {what}. Try \"geneved -help\"."
                    ))
                })?);
            }
        }
    }
    normal.extend(rest.cloned());
    let normal: Vec<&str> = normal.iter().map(String::as_str).collect();
    let mut options = Options::from_args(&["geneved"], &normal)
        .map_err(|early| CliError::Usage(early.output.trim().to_owned()))?;
    // `-h` is "human" before an object, and asks for help where there is none.
    let only_human = options.human && options.words.is_empty() && options.batch.is_none();
    if options.help_wanted || (only_human && !options.version) {
        options.words = vec!["help".into()];
    }
    Ok(options)
}

fn colour(value: &str) -> Result<String, CliError> {
    value
        .parse::<Color>()
        .map(|_| value.to_owned())
        .map_err(|error| super::grammar::wrong_value(value, &error))
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
        assert_eq!((o.color, o.socket), (Some(Color::Auto), Some("/s".into())));
        assert_eq!(o.words, ["link", "show"]);
        assert_eq!(options("-statistics -json link").unwrap().statistics, 1);
        assert_eq!(options("-b - ").unwrap().batch.as_deref(), Some("-"));
        assert_eq!(options("-batch=f").unwrap().batch.as_deref(), Some("f"));
        assert_eq!(options("-c link").unwrap().color, Some(Color::Always));
        let o = options("-h -iec -t -N -4 -n blue link").unwrap();
        assert_eq!((o.human, o.iec, o.timestamp), (true, true, true));
        assert_eq!((o.numeric, o.inet, o.inet6), (true, true, false));
        assert_eq!(o.netns.as_deref(), Some("blue"));
        let o = options("-c=never --socket /a -c=auto --socket /b link").unwrap();
        assert_eq!((o.color, o.socket), (Some(Color::Auto), Some("/b".into())));
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
