//! The BNF of `help`, generated from the tables that commands are parsed with.

use super::grammar::Repetition;

/// Untyped description of a keyword, for display and completion.
#[derive(Clone, Copy, Debug)]
pub struct KeywordHelp {
    /// Its spellings; the first one is displayed.
    pub names: &'static [&'static str],
    /// Metavariable of its value; flags have none.
    pub metavariable: Option<&'static str>,
    /// Number of times that it is given.
    pub times: Repetition,
    /// Whether its value may be given without the keyword.
    pub bare: bool,
    /// Group number: one of each group must be given, or at most one if they are optional; 0 means no group.
    pub choice: u8,
}

impl KeywordHelp {
    fn synopsis(&self) -> String {
        let name = self.names[0];
        let inner = match self.metavariable {
            None => name.to_owned(),
            Some(metavariable) if self.bare => match name {
                // As `ip` shows it: the keyword is optional.
                "dev" | "name" => format!("[ {name} ] {metavariable}"),
                _ => metavariable.to_owned(),
            },
            Some(metavariable) => format!("{name} {metavariable}"),
        };
        match self.times {
            Repetition::Optional if self.choice == 0 => format!("[ {inner} ]"),
            Repetition::Many => format!("[ {inner} ]..."),
            _ => inner,
        }
    }
}

/// Formats `HEAD NAME [ key VALUE ] ...`, wrapped at 79 columns with continuation lines indented below `head`.
#[must_use]
pub fn synopsis(head: &str, words: &[KeywordHelp]) -> String {
    // Values without keywords come first.
    let (bare, rest): (Vec<_>, Vec<_>) = words.iter().partition(|w| w.bare);
    let mut text = head.to_owned();
    let mut column = head.chars().count();
    let indent = " ".repeat(8);
    // Leaves room for "Usage: ".
    let room = 79 - 7;
    for piece in pieces(bare.into_iter().chain(rest)) {
        if column + 1 + piece.len() > room {
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

/// Formats each keyword, or each choice of keywords, as one piece.
fn pieces<'a>(words: impl Iterator<Item = &'a KeywordHelp>) -> Vec<String> {
    let mut pieces: Vec<(u8, bool, String)> = Vec::new();
    let mut negations: Vec<&str> = Vec::new();
    let all: Vec<&KeywordHelp> = words.collect();
    for word in &all {
        // `udpcsum` and `noudpcsum` are shown as one piece.
        let no = |other: &&&KeywordHelp| other.names[0].strip_prefix("no") == Some(word.names[0]);
        if negations.contains(&word.names[0]) {
            continue;
        }
        if let (None, Some(other)) = (word.metavariable, all.iter().find(no)) {
            negations.push(other.names[0]);
            pieces.push((0, false, format!("[ [no]{} ]", word.names[0])));
            continue;
        }
        let same = |piece: &&mut (u8, bool, String)| piece.0 != 0 && piece.0 == word.choice;
        match pieces.iter_mut().find(same) {
            Some((_, _, piece)) => *piece += &format!(" | {}", word.synopsis()),
            None => {
                let optional = word.times == Repetition::Optional;
                pieces.push((word.choice, optional, word.synopsis()));
            }
        }
    }
    let braces = |(choice, optional, piece)| match (choice, optional) {
        (0, _) => piece,
        (_, true) => format!("[ {piece} ]"),
        (_, false) => format!("{{ {piece} }}"),
    };
    pieces.into_iter().map(braces).collect()
}
