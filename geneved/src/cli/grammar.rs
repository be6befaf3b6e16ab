//! The grammar table: keywords with typed values, in any order, abbreviated to any unambiguous prefix.
//!
//! The file of each object lists its keywords; this file matches words against the list and produces error messages
//! like `ip`'s. [`super::synopsis`] prints the BNF of the same list.

use super::error::CliError;
use super::ip_compat;
use super::synopsis::KeywordHelp;
use crate::config::state::nearest;
use crate::config::value::{NONE_WORD, ValueError};

/// Effect of a keyword on the command under construction.
pub enum KeywordAction<T: 'static> {
    /// A flag without a value.
    Flag(fn(&mut T)),
    /// One value follows; BNF shows the metavariable.
    Value(&'static str, fn(&mut T, &str) -> Result<(), ValueError>),
    /// A keyword of `ip` that geneved does not have: the reason, as it follows `argument "x" is wrong: `.
    Refused(&'static str),
}

/// Number of times that a keyword is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Required.
    Once,
    /// Optional.
    Optional,
    /// Optional and repeatable.
    Many,
}

/// One keyword of a command.
pub struct Keyword<T: 'static> {
    /// Its spellings; the first one is displayed.
    pub names: &'static [&'static str],
    /// Number of times that it is given.
    pub times: Repetition,
    /// Whether the keyword may be left out before its first value: `link add NAME`.
    pub bare: bool,
    /// Group number: of the keywords in a group one must be given, or at most one if they are optional; 0 means no
    /// group.
    pub choice: u8,
    /// Effect of the keyword.
    pub action: KeywordAction<T>,
}

// A derived `Clone` would require `T: Clone`.
impl<T> Clone for KeywordAction<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for KeywordAction<T> {}
impl<T> Clone for Keyword<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Keyword<T> {}

impl<T> Keyword<T> {
    /// Creates an optional keyword with a value.
    pub const fn value(
        names: &'static [&'static str],
        metavariable: &'static str,
        set: fn(&mut T, &str) -> Result<(), ValueError>,
    ) -> Self {
        Keyword {
            names,
            times: Repetition::Optional,
            bare: false,
            choice: 0,
            action: KeywordAction::Value(metavariable, set),
        }
    }

    /// Creates a keyword without a value.
    pub const fn flag(names: &'static [&'static str], set: fn(&mut T)) -> Self {
        Keyword {
            names,
            times: Repetition::Optional,
            bare: false,
            choice: 0,
            action: KeywordAction::Flag(set),
        }
    }

    /// Creates a keyword of `ip` that geneved refuses; it cannot be abbreviated and is not shown in BNF.
    pub const fn refused(names: &'static [&'static str], why: &'static str) -> Self {
        Keyword {
            names,
            times: Repetition::Optional,
            bare: false,
            choice: 0,
            action: KeywordAction::Refused(why),
        }
    }

    /// Sets how often the keyword is given.
    #[must_use]
    pub const fn times(self, times: Repetition) -> Self {
        Keyword { times, ..self }
    }

    /// Allows the value without the keyword.
    #[must_use]
    pub const fn bare(self) -> Self {
        Keyword { bare: true, ..self }
    }

    /// Makes the keyword one of a group of which exactly one is given.
    #[must_use]
    pub const fn choice(self, group: u8) -> Self {
        Keyword {
            times: Repetition::Once,
            choice: group,
            ..self
        }
    }

    /// Makes the keyword one of a group of which at most one is given.
    #[must_use]
    pub const fn at_most_one(self, group: u8) -> Self {
        Keyword {
            times: Repetition::Optional,
            choice: group,
            ..self
        }
    }

    const fn is_refused(&self) -> bool {
        matches!(self.action, KeywordAction::Refused(_))
    }

    /// Description of the keyword for BNF and completion.
    #[must_use]
    pub fn word(&self) -> KeywordHelp {
        KeywordHelp {
            names: self.names,
            metavariable: match self.action {
                KeywordAction::Value(metavariable, _) => Some(metavariable),
                KeywordAction::Flag(_) | KeywordAction::Refused(_) => None,
            },
            times: self.times,
            bare: self.bare,
            choice: self.choice,
        }
    }
}

/// Descriptions of these keywords for BNF and completion.
#[must_use]
pub fn words<T>(keywords: &[Keyword<T>]) -> Vec<KeywordHelp> {
    let shown = keywords.iter().filter(|k| !k.is_refused());
    shown.map(Keyword::word).collect()
}

/// Error for an invalid word.
pub fn wrong(word: &str, reason: impl std::fmt::Display) -> CliError {
    CliError::Usage(format!("Error: argument \"{word}\" is wrong: {reason}"))
}

/// Error for an invalid value, which suggests the nearest valid word.
pub fn wrong_value(word: &str, error: &ValueError) -> CliError {
    let hint = match nearest(word, error.expected().iter().copied()) {
        Some(near) if near != word => format!("; did you mean \"{near}\"?"),
        _ => String::new(),
    };
    wrong(word, format_args!("{error}{hint}"))
}

/// Finds `word` among `candidates` by its full name or an unambiguous prefix.
///
/// Several spellings of one candidate are not ambiguous.
///
/// # Errors
/// If it is a prefix of several candidates; their names.
pub fn find<'a, C: Copy + PartialEq>(
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
        [(_, first), ref others @ ..] if others.iter().all(|(_, other)| *other == first) => {
            Ok(Some(first))
        }
        _ => Err(found.iter().map(|(name, _)| *name).collect()),
    }
}

/// Parses the words of a command into `into`.
///
/// # Errors
/// The first word that does not fit, worded like `ip`.
pub fn parse<T>(keywords: &[Keyword<T>], words: &[String], into: &mut T) -> Result<(), CliError> {
    read(keywords, words, into, None)
}

/// Parses the words of a command that changes an object. Returns the keywords that are to be reset: those given as
/// `none` although `none` is not one of their values.
///
/// # Errors
/// As [`parse`].
pub fn parse_change<T>(
    keywords: &[Keyword<T>],
    words: &[String],
    into: &mut T,
) -> Result<Vec<&'static str>, CliError> {
    let mut none = Vec::new();
    read(keywords, words, into, Some(&mut none))?;
    Ok(none)
}

/// Finds a given keyword that negates `name`, as `noudpcsum` negates `udpcsum`.
fn opposite<T>(keywords: &[Keyword<T>], given: &[usize], name: &str) -> Option<&'static str> {
    let opposes = |other: &str| {
        other.strip_prefix("no") == Some(name) || name.strip_prefix("no") == Some(other)
    };
    let mut there = keywords.iter().zip(given).filter(|(_, given)| **given > 0);
    there.find_map(|(keyword, _)| Some(keyword.names[0]).filter(|other| opposes(other)))
}

fn read<T>(
    keywords: &[Keyword<T>],
    words: &[String],
    into: &mut T,
    mut none: Option<&mut Vec<&'static str>>,
) -> Result<(), CliError> {
    let mut given = vec![0usize; keywords.len()];
    let bare = keywords.iter().position(|k| k.bare);
    let mut words = words.iter().enumerate();
    while let Some((at, word)) = words.next() {
        let exact = keywords.iter().any(|k| k.names.contains(&word.as_str()));
        let bare_open = bare.filter(|&b| given[b] == 0);
        // A name may look like an abbreviated keyword, so the first word is taken as a name if possible.
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
            // No name starts with a dash, so this is a misplaced option.
            (None, Some(_)) if word.starts_with('-') => {
                return Err(wrong(word, "unknown keyword; try option \"help\""));
            }
            (None, Some(bare)) => (bare, Some(word)),
            (None, None) => return Err(garbage(keywords, bare, word)),
        };
        let keyword = &keywords[index];
        given[index] += 1;
        match keyword.action {
            KeywordAction::Flag(set) => {
                if let Some(other) = opposite(keywords, &given, keyword.names[0]) {
                    let reason = format_args!("it is the opposite of \"{other}\"");
                    return Err(wrong(word, reason));
                }
                set(into);
            }
            KeywordAction::Value(_, set) => {
                let value = match value {
                    Some(word) => word,
                    None => words
                        .next()
                        .map(|(_, w)| w)
                        .ok_or_else(CliError::incomplete)?,
                };
                if given[index] > 1 && keyword.times != Repetition::Many {
                    return Err(CliError::Usage(format!(
                        "Error: either \"{}\" is duplicate, or \"{value}\" is a garbage.",
                        keyword.names[0]
                    )));
                }
                match (set(into, value), &mut none) {
                    (Ok(()), _) => {}
                    (Err(_), Some(none)) if value == NONE_WORD && !keyword.bare => {
                        none.push(keyword.names[0]);
                    }
                    (Err(error), _) => return Err(wrong_value(value, &error)),
                }
            }
            KeywordAction::Refused(why) => {
                return Err(CliError::Refused(format!(
                    "Error: argument \"{word}\" is wrong: {why}"
                )));
            }
        }
    }
    one_of_each_choice(keywords, &given)?;
    let missing = keywords
        .iter()
        .zip(&given)
        .find(|(k, n)| k.times == Repetition::Once && k.choice == 0 && **n == 0);
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
            0usize if members().all(|(k, _)| k.times == Repetition::Optional) => {}
            0 => {
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

/// Concatenates two lists of keywords; `N` is their total length.
#[must_use]
pub const fn joined<T, const A: usize, const B: usize, const N: usize>(
    these: [Keyword<T>; A],
    those: [Keyword<T>; B],
) -> [Keyword<T>; N] {
    assert!(A + B == N);
    let mut all = [these[0]; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < A { these[at] } else { those[at - A] };
        at += 1;
    }
    all
}

/// Keywords of `set`: only the first ones, which name the object, are required.
#[must_use]
pub const fn settable<T, const N: usize>(
    mut all: [Keyword<T>; N],
    naming: usize,
) -> [Keyword<T>; N] {
    let mut at = naming;
    while at < N {
        all[at] = match all[at].times {
            Repetition::Once => all[at].times(Repetition::Optional),
            Repetition::Optional | Repetition::Many => all[at],
        };
        at += 1;
    }
    all
}

fn lookup<'a, T>(keywords: &'a [Keyword<T>], word: &str) -> Result<Option<usize>, Vec<&'a str>> {
    let names = keywords
        .iter()
        .enumerate()
        // Refused keywords are no help as candidates of an ambiguous prefix.
        .filter(|(_, k)| !k.is_refused() || k.names.contains(&word))
        .flat_map(|(i, k)| k.names.iter().map(move |n| (*n, i)));
    find(word, names)
}

/// Maximum number of keywords to list in an error message.
const MAX_SUGGESTED: usize = 14;

fn garbage<T>(keywords: &[Keyword<T>], bare: Option<usize>, word: &str) -> CliError {
    let names: Vec<&str> = keywords
        .iter()
        .flat_map(|k| k.names.iter().copied())
        .collect();
    let near = ip_compat::same(word, &names).or_else(|| nearest(word, names.iter().copied()));
    if let Some(near) = near {
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
        None if keywords.is_empty() => wrong(word, "nothing follows here"),
        None if keywords.len() <= MAX_SUGGESTED => {
            let names = names.join("\", \"");
            wrong(word, format_args!("unknown keyword; expected \"{names}\""))
        }
        None => wrong(word, "unknown keyword; try option \"help\""),
    }
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
