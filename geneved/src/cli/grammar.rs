//! The grammar table: keywords with typed values, in any order, by any unambiguous prefix.
//!
//! An object's file lists its keywords; this file matches words against the list, writes `ip`'s
//! complaints, and prints the BNF of `help` from the same list, so that they cannot drift apart.

use super::error::CliError;
use super::foreign::why_not;
use crate::config::state::nearest;
use crate::config::value::ValueError;

/// What a keyword does to the command under construction.
pub enum Action<T: 'static> {
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
    /// Exactly one of all keywords with the same number is given; 0 is no such group.
    pub choice: u8,
    /// What it does.
    pub action: Action<T>,
}

// What is derived would ask that the command be copied, too.
impl<T> Clone for Action<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Action<T> {}
impl<T> Clone for Keyword<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Keyword<T> {}

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
            choice: 0,
            action: Action::Value(metavariable, set),
        }
    }

    /// A keyword without a value.
    pub const fn flag(names: &'static [&'static str], set: fn(&mut T)) -> Self {
        Keyword {
            names,
            times: Times::Optional,
            bare: false,
            choice: 0,
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

    /// The same, one of a group of which exactly one is given.
    #[must_use]
    pub const fn choice(self, group: u8) -> Self {
        Keyword {
            choice: group,
            ..self
        }
    }

    fn synopsis(&self) -> String {
        let name = self.names[0];
        let inner = match self.action {
            Action::Flag(_) => name.to_owned(),
            Action::Value(metavariable, _) if self.bare => metavariable.to_owned(),
            Action::Value(metavariable, _) => format!("{name} {metavariable}"),
        };
        match self.times {
            _ if self.choice != 0 => inner,
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
                    None => words
                        .next()
                        .map(|(_, w)| w)
                        .ok_or_else(CliError::incomplete)?,
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
    one_of_each_choice(keywords, &given)?;
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

fn one_of_each_choice<T>(keywords: &[Keyword<T>], given: &[usize]) -> Result<(), CliError> {
    for group in 1..=keywords.iter().map(|k| k.choice).max().unwrap_or(0) {
        let members = || {
            keywords
                .iter()
                .zip(given)
                .filter(|(k, _)| k.choice == group)
        };
        let names: Vec<_> = members().map(|(k, _)| k.names[0]).collect();
        match members().map(|(_, n)| n).sum() {
            1 => {}
            0usize => {
                return Err(CliError::Usage(format!(
                    "Not enough information: one of \"{}\" is required.",
                    names.join("\", \"")
                )));
            }
            _ => {
                return Err(CliError::Usage(format!(
                    "Error: only one of \"{}\" can be given.",
                    names.join("\", \"")
                )));
            }
        }
    }
    Ok(())
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
    if let Some(why) = why_not(word) {
        return wrong(word, why);
    }
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

/// `NAME [ key VALUE ] ...`, broken into lines of at most 79 columns that hang below `head`.
#[must_use]
pub fn synopsis<T>(head: &str, keywords: &[Keyword<T>]) -> String {
    // What stands without its keyword stands first.
    let (bare, rest): (Vec<_>, Vec<_>) = keywords.iter().partition(|k| k.bare);
    let mut text = head.to_owned();
    let mut column = head.chars().count();
    let indent = " ".repeat(head.find(char::is_alphabetic).unwrap_or(0) + 8);
    for piece in pieces(bare.into_iter().chain(rest)) {
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

/// One piece a keyword, or a choice of keywords.
fn pieces<'a, T: 'static>(keywords: impl Iterator<Item = &'a Keyword<T>>) -> Vec<String> {
    let mut pieces: Vec<(u8, String)> = Vec::new();
    for keyword in keywords {
        match pieces
            .iter_mut()
            .find(|(c, _)| *c != 0 && *c == keyword.choice)
        {
            Some((_, piece)) => *piece += &format!(" | {}", keyword.synopsis()),
            None => pieces.push((keyword.choice, keyword.synopsis())),
        }
    }
    let braces = |(choice, piece)| match choice {
        0 => piece,
        _ => format!("{{ {piece} }}"),
    };
    pieces.into_iter().map(braces).collect()
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
