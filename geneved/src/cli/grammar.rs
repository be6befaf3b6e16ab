//! The grammar table: keywords with typed values, in any order, by any unambiguous prefix.
//!
//! An object's file lists its keywords; this file matches words against the list, writes `ip`'s
//! complaints, and prints the BNF of `help` from the same list, so that they cannot drift apart.

use super::error::CliError;
use crate::config::state::nearest;
use crate::config::value::ValueError;

/// What a keyword does to the command under construction.
pub enum Action<T> {
    /// It stands alone.
    Flag(fn(&mut T)),
    /// One value follows; the metavariable is what BNF shows.
    Value(&'static str, fn(&mut T, &str) -> Result<(), ValueError>),
}

/// Whether and how often a keyword is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Must be there.
    Once,
    /// May be there.
    Optional,
    /// May be there more than once.
    Many,
}

/// One keyword of a command.
pub struct Keyword<T: 'static> {
    /// Its spellings; the first one is shown.
    pub names: &'static [&'static str],
    /// How often.
    pub times: Times,
    /// Its first value may stand without the keyword: `link add NAME`.
    pub bare: bool,
    /// What it does.
    pub action: Action<T>,
}

impl<T> Keyword<T> {
    /// A keyword with a value that may be left out.
    pub const fn value(
        names: &'static [&'static str],
        metavariable: &'static str,
        set: fn(&mut T, &str) -> Result<(), ValueError>,
    ) -> Self {
        Keyword {
            names,
            times: Times::Optional,
            bare: false,
            action: Action::Value(metavariable, set),
        }
    }

    /// A keyword without a value.
    pub const fn flag(names: &'static [&'static str], set: fn(&mut T)) -> Self {
        Keyword {
            names,
            times: Times::Optional,
            bare: false,
            action: Action::Flag(set),
        }
    }

    /// The same, given as often as `times` says.
    #[must_use]
    pub const fn times(self, times: Times) -> Self {
        Keyword { times, ..self }
    }

    /// The same, but its value may stand alone.
    #[must_use]
    pub const fn bare(self) -> Self {
        Keyword { bare: true, ..self }
    }

    fn synopsis(&self) -> String {
        let name = self.names[0];
        let inner = match self.action {
            Action::Flag(_) => name.to_owned(),
            Action::Value(metavariable, _) if self.bare => metavariable.to_owned(),
            Action::Value(metavariable, _) => format!("{name} {metavariable}"),
        };
        match self.times {
            Times::Once => inner,
            Times::Optional => format!("[ {inner} ]"),
            Times::Many => format!("[ {inner} ]..."),
        }
    }
}

/// A word that is wrong.
pub fn wrong(word: &str, reason: impl std::fmt::Display) -> CliError {
    CliError::Usage(format!("Error: argument \"{word}\" is wrong: {reason}"))
}

/// Finds `word` among `candidates` by its whole or by an unambiguous prefix.
///
/// # Errors
/// It is a prefix of several; their names.
pub fn find<'a, C: Copy>(
    word: &str,
    candidates: impl IntoIterator<Item = (&'a str, C)>,
) -> Result<Option<C>, Vec<&'a str>> {
    let mut found: Vec<(&str, C)> = Vec::new();
    for (name, candidate) in candidates {
        if name == word {
            return Ok(Some(candidate));
        }
        if !word.is_empty() && name.starts_with(word) {
            found.push((name, candidate));
        }
    }
    match found[..] {
        [] => Ok(None),
        [(_, candidate)] => Ok(Some(candidate)),
        _ => Err(found.iter().map(|(name, _)| *name).collect()),
    }
}

/// Reads the words of a command into `into`.
///
/// # Errors
/// The first word that does not fit, in `ip`'s wording.
pub fn parse<T>(keywords: &[Keyword<T>], words: &[String], into: &mut T) -> Result<(), CliError> {
    let mut given = vec![0usize; keywords.len()];
    let bare = keywords.iter().position(|k| k.bare);
    let mut words = words.iter().enumerate();
    while let Some((at, word)) = words.next() {
        let exact = keywords.iter().any(|k| k.names.contains(&word.as_str()));
        let bare_open = bare.filter(|&b| given[b] == 0);
        // A name may look like the beginning of a keyword, so the first word is a name if it can be.
        let found = match bare_open {
            Some(_) if at == 0 && !exact => None,
            _ => match lookup(keywords, word) {
                Ok(found) => found,
                Err(names) => {
                    let names = names.join(", ");
                    return Err(wrong(word, format_args!("ambiguous: could be {names}")));
                }
            },
        };
        let (index, value) = match (found, bare_open) {
            (Some(index), _) => (index, None),
            (None, Some(bare)) => (bare, Some(word)),
            (None, None) => return Err(garbage(keywords, bare, word)),
        };
        let keyword = &keywords[index];
        given[index] += 1;
        match keyword.action {
            Action::Flag(set) => set(into),
            Action::Value(_, set) => {
                let value = match value {
                    Some(word) => word,
                    None => words.next().map(|(_, w)| w).ok_or_else(incomplete)?,
                };
                if given[index] > 1 && keyword.times != Times::Many {
                    return Err(CliError::Usage(format!(
                        "Error: either \"{}\" is duplicate, or \"{value}\" is a garbage.",
                        keyword.names[0]
                    )));
                }
                set(into, value).map_err(|e| wrong(value, e))?;
            }
        }
    }
    let missing = keywords
        .iter()
        .zip(&given)
        .find(|(k, n)| k.times == Times::Once && **n == 0);
    match missing {
        None => Ok(()),
        Some((keyword, _)) => Err(CliError::Usage(format!(
            "Not enough information: \"{}\" argument is required.",
            keyword.names[0]
        ))),
    }
}

fn lookup<'a, T>(keywords: &'a [Keyword<T>], word: &str) -> Result<Option<usize>, Vec<&'a str>> {
    let names = keywords
        .iter()
        .enumerate()
        .flat_map(|(i, k)| k.names.iter().map(move |n| (*n, i)));
    match find(word, names) {
        // Two spellings of one keyword are not ambiguous.
        Err(found) => {
            let owner = |name: &str| keywords.iter().position(|k| k.names.contains(&name));
            match owner(found[0]) {
                first if found.iter().all(|n| owner(n) == first) => Ok(first),
                _ => Err(found),
            }
        }
        found => found,
    }
}

fn garbage<T>(keywords: &[Keyword<T>], bare: Option<usize>, word: &str) -> CliError {
    let names = keywords.iter().flat_map(|k| k.names.iter().copied());
    if let Some(near) = nearest(word, names) {
        return wrong(
            word,
            format_args!("unknown keyword; did you mean \"{near}\"?"),
        );
    }
    match bare {
        Some(bare) => CliError::Usage(format!(
            "Error: either \"{}\" is duplicate, or \"{word}\" is a garbage.",
            keywords[bare].names[0]
        )),
        None => wrong(word, "unknown keyword; try option \"help\""),
    }
}

fn incomplete() -> CliError {
    CliError::Usage("Command line is not complete. Try option \"help\"".into())
}

/// `NAME [ key VALUE ] ...`, broken into lines of at most 79 columns that hang below `head`.
#[must_use]
pub fn synopsis<T>(head: &str, keywords: &[Keyword<T>]) -> String {
    // What stands without its keyword stands first.
    let (bare, rest): (Vec<_>, Vec<_>) = keywords.iter().partition(|k| k.bare);
    let mut text = head.to_owned();
    let mut column = head.chars().count();
    let indent = " ".repeat(head.find(char::is_alphabetic).unwrap_or(0) + 8);
    for piece in bare.into_iter().chain(rest).map(Keyword::synopsis) {
        if column + 1 + piece.len() > 79 {
            text.push('\n');
            text.push_str(&indent);
            text.push_str(&piece);
            column = indent.len() + piece.len();
        } else {
            text.push(' ');
            text.push_str(&piece);
            column += 1 + piece.len();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Command {
        name: String,
        count: u32,
        list: Vec<String>,
        on: bool,
    }

    const KEYWORDS: &[Keyword<Command>] = &[
        Keyword::value(&["name", "dev"], "NAME", |c: &mut Command, v| {
            c.name = v.into();
            Ok(())
        })
        .bare()
        .times(Times::Once),
        Keyword::value(&["count"], "N", |c: &mut Command, v| {
            c.count = v.parse().map_err(|_| ValueError("not a number".into()))?;
            Ok(())
        }),
        Keyword::value(&["column"], "C", |c: &mut Command, v| {
            c.list.push(v.into());
            Ok(())
        })
        .times(Times::Many),
        Keyword::flag(&["on"], |c: &mut Command| c.on = true),
        Keyword::flag(&["noon"], |c: &mut Command| c.on = false),
    ];

    fn words(line: &str) -> Result<Command, String> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        let mut command = Command::default();
        parse(KEYWORDS, &words, &mut command).map_err(|e| e.to_string())?;
        Ok(command)
    }

    #[test]
    fn keywords_come_in_any_order_and_by_prefix() {
        let command = words("count 3 x on col a col b").unwrap();
        assert_eq!(command, words("x col a on col b cou 3").unwrap());
        assert_eq!(
            (command.name.as_str(), command.count, command.list.len()),
            ("x", 3, 2)
        );
    }

    #[test]
    fn the_first_word_is_the_name_even_if_a_keyword_begins_so() {
        assert_eq!(words("c count 1").unwrap().name, "c");
        assert_eq!(words("on name c").unwrap().name, "c");
    }

    #[test]
    fn complaints_have_the_words_of_ip() {
        let complaint = |line| words(line).unwrap_err();
        assert_eq!(
            complaint("x co 1"),
            "Error: argument \"co\" is wrong: ambiguous: could be count, column"
        );
        assert_eq!(
            complaint("x count many"),
            "Error: argument \"many\" is wrong: not a number"
        );
        assert_eq!(
            complaint("x count 1 count 2"),
            "Error: either \"count\" is duplicate, or \"2\" is a garbage."
        );
        assert_eq!(
            complaint("x banana"),
            "Error: either \"name\" is duplicate, or \"banana\" is a garbage."
        );
        assert_eq!(
            complaint("x cuont 1"),
            "Error: argument \"cuont\" is wrong: unknown keyword; did you mean \"count\"?"
        );
        assert_eq!(
            complaint("x count"),
            "Command line is not complete. Try option \"help\""
        );
        assert_eq!(
            complaint("count 1"),
            "Not enough information: \"name\" argument is required."
        );
    }

    #[test]
    fn help_is_made_of_the_same_table() {
        assert_eq!(
            synopsis("geneved x add", KEYWORDS),
            "geneved x add NAME [ count N ] [ column C ]... [ on ] [ noon ]"
        );
    }
}
