//! Which options each command supports; all others are refused.

use std::ops::BitOr;

use super::command::CommandDef;
use super::error::CliError;
use super::options::GlobalOptions;

/// Set of options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SupportedOptions(u16);

impl SupportedOptions {
    /// None.
    pub const NOTHING: SupportedOptions = SupportedOptions(0);
    /// `-j`, `-p`, `-o`, `-c`: the output format.
    pub const SHAPE: SupportedOptions = SupportedOptions(1);
    /// `-br`.
    pub const BRIEF: SupportedOptions = SupportedOptions(1 << 1);
    /// `-br` together with `-j`.
    pub const BRIEF_JSON: SupportedOptions = SupportedOptions(1 << 2);
    /// `-d`.
    pub const DETAILS: SupportedOptions = SupportedOptions(1 << 3);
    /// `-s`.
    pub const STATISTICS: SupportedOptions = SupportedOptions(1 << 4);
    /// `-h` and `-iec`.
    pub const UNITS: SupportedOptions = SupportedOptions(1 << 5);
    /// `-N`.
    pub const NUMERIC: SupportedOptions = SupportedOptions(1 << 6);
    /// `-4` and `-6`.
    pub const FAMILY: SupportedOptions = SupportedOptions(1 << 7);
    /// `-t` and `-ts`.
    pub const TIME: SupportedOptions = SupportedOptions(1 << 8);
    /// `-n`.
    pub const NETNS: SupportedOptions = SupportedOptions(1 << 9);
    /// `--socket`.
    pub const SOCKET: SupportedOptions = SupportedOptions(1 << 10);

    /// Counters and their units.
    pub const COUNTERS: SupportedOptions = Self::STATISTICS.and(Self::UNITS);

    /// Union of both sets.
    #[must_use]
    pub const fn and(self, other: SupportedOptions) -> SupportedOptions {
        SupportedOptions(self.0 | other.0)
    }

    /// Whether all of `other` are in the set.
    #[must_use]
    pub const fn has(self, other: SupportedOptions) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for SupportedOptions {
    type Output = SupportedOptions;
    fn bitor(self, other: SupportedOptions) -> SupportedOptions {
        self.and(other)
    }
}

/// Options that only some commands support, as spelled in `help`.
const SPELLED: [(SupportedOptions, &str); 17] = [
    (SupportedOptions::SHAPE, "-j"),
    (SupportedOptions::SHAPE, "-p"),
    (SupportedOptions::SHAPE, "-o"),
    (SupportedOptions::SHAPE, "-c"),
    (SupportedOptions::BRIEF, "-br"),
    (SupportedOptions::DETAILS, "-d"),
    (SupportedOptions::STATISTICS, "-s"),
    (SupportedOptions::UNITS, "-h"),
    (SupportedOptions::UNITS, "-iec"),
    (SupportedOptions::NUMERIC, "-N"),
    (SupportedOptions::FAMILY, "-4"),
    (SupportedOptions::FAMILY, "-6"),
    (SupportedOptions::TIME, "-t"),
    (SupportedOptions::TIME, "-ts"),
    (SupportedOptions::NETNS, "-n"),
    (SupportedOptions::SOCKET, "--socket"),
    (SupportedOptions::BRIEF_JSON, "-br -j"),
];

fn is_given(options: &GlobalOptions, spelled: &str) -> bool {
    match spelled {
        "-j" => options.json,
        "-p" => options.pretty,
        "-o" => options.oneline,
        "-c" => options.color.is_some(),
        "-br" => options.brief,
        "-d" => options.details,
        "-s" => options.statistics > 0,
        "-h" => options.human,
        "-iec" => options.iec,
        "-N" => options.numeric,
        "-4" => options.inet,
        "-6" => options.inet6,
        "-t" => options.timestamp,
        "-ts" => options.tshort,
        "-n" => options.netns.is_some(),
        "--socket" => options.socket.is_some(),
        _ => options.brief && options.json,
    }
}

/// Refuses the first option that the command does not support. Options of a batch apply to those of its commands that
/// support them, except `-n`, which changes what a command is about.
///
/// # Errors
/// The unsupported option, and those that the command supports.
pub fn check(options: &GlobalOptions, name: &str, command: &CommandDef) -> Result<(), CliError> {
    let stray = SPELLED.iter().find(|(honours, spelled)| {
        let for_all = options.batch.is_some() && *honours != SupportedOptions::NETNS;
        is_given(options, spelled) && !command.honours.has(*honours) && !for_all
    });
    let Some((honours, spelled)) = stray else {
        return Ok(());
    };
    let advice = match *honours {
        SupportedOptions::NETNS => "the daemon serves the links of all namespaces at one socket. It can be given with \"link\", \"address\", \"check\" and \"run\"; a daemon of another namespace is reached with --socket".to_owned(),
        SupportedOptions::SOCKET => "it does not ask the daemon".to_owned(),
        SupportedOptions::BRIEF_JSON => "its JSON has every key: leave one of them out".to_owned(),
        _ => {
            let taken = SPELLED.iter().filter(|(h, s)| command.honours.has(*h) && !s.contains(' '));
            let taken: Vec<_> = taken.map(|(_, spelled)| *spelled).collect();
            match taken[..] {
                [] => "it takes no options".to_owned(),
                _ => format!("it takes {}", taken.join(", ")),
            }
        }
    };
    let plural = if spelled.contains(' ') {
        "options"
    } else {
        "option"
    };
    let verb = if spelled.contains(' ') { "have" } else { "has" };
    Err(CliError::Usage(format!(
        "Error: {plural} \"{spelled}\" {verb} no meaning for \"{name}\": {advice}."
    )))
}

/// Refuses options that are given without another one that they require.
///
/// # Errors
/// The names of both.
pub fn check_alone(options: &GlobalOptions) -> Result<(), CliError> {
    let batch = options.batch.is_some();
    let lacks = [
        (options.force && !batch, "-force", "-batch FILE"),
        (options.atomic && !batch, "-atomic", "-batch FILE"),
        (options.pretty && !options.json, "-p", "-j"),
    ];
    if let Some((_, option, needed)) = lacks.into_iter().find(|(lacks, ..)| *lacks) {
        return Err(CliError::Usage(format!(
            "Error: option \"{option}\" has no meaning without \"{needed}\"."
        )));
    }
    match options.words.first() {
        Some(word) if batch => Err(CliError::Usage(format!(
            "Error: argument \"{word}\" is wrong: with \"-batch\" the commands are in the file, and nothing follows it"
        ))),
        _ => Ok(()),
    }
}
