//! `geneved completions`: shell completion from the same tables as the grammar.
//!
//! The scripts only ask: `geneved completions words -- WORD...` prints the candidates for the last word, one per
//! line, with a short description after a tab; `:files` stands for the shell's own file completion. Names of objects
//! come from the daemon, and are left out if it is not running.

mod values;

#[cfg(test)]
mod tests;

use self::values::ValueCompleter;
use super::command::{CommandDef, ObjectDef};
use super::context::CommandContext;
use super::error::CliError;
use super::grammar::{self, Keyword, Repetition};
use super::options::{self, OptionArgument, SPELLINGS};
use super::output;
use super::supported_options::SupportedOptions;
use super::synopsis::KeywordHelp;
use super::table::{self, FirstWord};

const NO_KEYWORDS_TEST: [Keyword<()>; 0] = [];

/// Commands of the object.
pub const TEST_OBJECT: ObjectDef = ObjectDef {
    name: "completions",
    about: "what a shell completes the command line by",
    commands: &[
        script(&["bash"], |_, words| say(words, include_str!("bash"))),
        script(&["zsh"], |_, words| say(words, include_str!("zsh"))),
        script(&["fish"], |_, words| say(words, include_str!("fish"))),
        script(&["words"], |context, words| {
            let words = words.strip_prefix(&["--".to_owned()]).unwrap_or(words);
            for candidate in candidates(context, words) {
                output::say(&candidate.line())?;
            }
            Ok(())
        })
        // Object names come from the daemon.
        .honouring(SupportedOptions::SOCKET),
    ],
    usual: None,
    notes: "bash, zsh, fish: print the script of that shell\nwords -- WORD...: print what can stand in the place of the last WORD",
};

const fn script(
    names: &'static [&'static str],
    run: fn(&mut CommandContext, &[String]) -> Result<(), CliError>,
) -> CommandDef {
    CommandDef::new(names, run, Vec::new).honouring_only(SupportedOptions::NOTHING)
}

fn say(words: &[String], script: &str) -> Result<(), CliError> {
    grammar::parse(&NO_KEYWORDS_TEST, words, &mut ())?;
    output::say(script)
}

/// Candidate for the last word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The full word.
    word: String,
    /// Short description.
    about: String,
}

impl Candidate {
    fn new(word: impl Into<String>, about: impl Into<String>) -> Self {
        Candidate {
            word: word.into(),
            about: about.into(),
        }
    }

    /// Asks the shell to complete file names.
    fn files() -> Self {
        Candidate::new(":files", "")
    }

    fn line(&self) -> String {
        format!("{}\t{}", self.word, self.about)
            .trim_end()
            .to_owned()
    }
}

/// Candidates for the last of these words.
fn candidates(context: &mut CommandContext, words: &[String]) -> Vec<Candidate> {
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", words),
    };
    let mut values = ValueCompleter::new(context);
    let mut all = next(&mut values, before, last).unwrap_or_default();
    all.retain(|candidate| candidate.word == ":files" || candidate.word.starts_with(last));
    all
}

/// Everything that can follow `before`; `None` if that is invalid.
fn next(values: &mut ValueCompleter<'_>, before: &[String], last: &str) -> Option<Vec<Candidate>> {
    let mut rest = before;
    while let Some((option, after)) = rest.split_first().filter(|(w, _)| w.starts_with('-')) {
        rest = after;
        let name = option.trim_start_matches('-');
        if name.contains('=') || name.is_empty() {
            continue;
        }
        if let OptionArgument::Value(what) = options::find(name)?.takes {
            let Some((value, after)) = rest.split_first() else {
                return Some(values.of(what, last));
            };
            values.heed(options::find(name)?.name, value);
            rest = after;
        }
    }
    let Some((first, rest)) = rest.split_first() else {
        return Some(match last.starts_with('-') {
            true => all_options(),
            false => all_names(),
        });
    };
    match table::target(first).ok().flatten()? {
        FirstWord::Help => rest.is_empty().then(all_names),
        FirstWord::Verb(verb) => {
            values.on(verb.name, verb.notes, true);
            Some(keywords(values, &(verb.command.words)(), rest, last))
        }
        FirstWord::Object(object) => {
            let Some((command, rest)) = rest.split_first() else {
                return Some(commands(object));
            };
            let found = grammar::find(command, object.names()).ok().flatten()??;
            let command = &object.commands[found];
            if object.name == TEST_OBJECT.name {
                return None;
            }
            values.on(object.name, object.notes, command.names[0] != "add");
            Some(keywords(values, &(command.words)(), rest, last))
        }
    }
}

fn all_options() -> Vec<Candidate> {
    let shown = SPELLINGS
        .iter()
        .filter(|s| !matches!(s.name, "stats" | "version"));
    let spelled = shown.map(|s| match s.name {
        "socket" => Candidate::new("--socket", ""),
        name => Candidate::new(format!("-{name}"), ""),
    });
    spelled.collect()
}

fn all_names() -> Vec<Candidate> {
    let about = |target| match target {
        FirstWord::Object(object) => object.about,
        FirstWord::Verb(verb) => verb.about,
        FirstWord::Help => "the grammar",
    };
    let all = table::targets();
    all.map(|(name, target)| Candidate::new(name, about(target)))
        .collect()
}

fn commands(object: &ObjectDef) -> Vec<Candidate> {
    let all = object.commands.iter().map(|c| c.names[0]);
    all.chain(["help"])
        .map(|name| Candidate::new(name, ""))
        .collect()
}

/// Candidates after the words of a command: a value, or keywords and values that need none.
fn keywords(
    values: &mut ValueCompleter<'_>,
    words: &[KeywordHelp],
    before: &[String],
    last: &str,
) -> Vec<Candidate> {
    let mut given = vec![0usize; words.len()];
    let bare = words.iter().position(|w| w.bare);
    let mut rest = before.iter();
    while let Some(word) = rest.next() {
        let names = words.iter().enumerate();
        let names = names.flat_map(|(at, w)| w.names.iter().map(move |name| (*name, at)));
        let exact = words.iter().any(|w| w.names.contains(&word.as_str()));
        let open = bare.filter(|at| given[*at] == 0);
        let found = match grammar::find(word, names) {
            Ok(Some(at)) if exact || open.is_none() => at,
            _ => match open {
                Some(at) => {
                    given[at] += 1;
                    continue;
                }
                None => return Vec::new(),
            },
        };
        given[found] += 1;
        if let Some(metavariable) = words[found].metavariable {
            let Some(value) = rest.next() else {
                return values.of_keyword(words[found].names[0], metavariable, last);
            };
            values.heed(words[found].names[0], value);
        }
    }
    let free = |(at, word): &(usize, &KeywordHelp)| {
        let chosen = |(other, n): (&KeywordHelp, &usize)| {
            word.choice != 0 && other.choice == word.choice && *n > 0
        };
        (given[*at] == 0 || word.times == Repetition::Many) && !words.iter().zip(&given).any(chosen)
    };
    let mut all = Vec::new();
    if let Some(word) = bare.filter(|at| given[*at] == 0).map(|at| &words[at]) {
        all.extend(values.of_keyword(word.names[0], word.metavariable.unwrap_or_default(), last));
    }
    if before.is_empty() {
        all.push(Candidate::new("help", "the grammar"));
    }
    let free = words.iter().enumerate().filter(free);
    all.extend(
        free.map(|(_, word)| Candidate::new(word.names[0], word.metavariable.unwrap_or_default())),
    );
    all
}
