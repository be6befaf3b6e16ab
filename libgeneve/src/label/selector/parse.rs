//! Parser of selectors: tokens and grammar.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::{
    MAX_REQUIREMENTS, MAX_SELECTOR_LEN, MAX_VALUES, Requirement, Selector, SelectorError, quote,
};
use crate::label::syntax::{check_key, check_value};

/// Parses the grammar documented at [`Selector`]; an empty text is the selector that matches every endpoint.
impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Selector, SelectorError> {
        if text.len() > MAX_SELECTOR_LEN {
            return Err(SelectorError::TooLong(text.len()));
        }
        let mut parser = Parser {
            text,
            at: 0,
            values: 0,
        };
        let mut requirements = Vec::new();
        if parser.peek().kind == TokenKind::End {
            return Ok(Selector { requirements });
        }
        loop {
            if requirements.len() == MAX_REQUIREMENTS {
                return Err(SelectorError::TooManyRequirements(parser.peek().at));
            }
            let requirement = parser.requirement()?;
            let ends = match requirement {
                Requirement::Exists(_) => "an operator, ',' or the end",
                _ => "',' or the end",
            };
            requirements.push(requirement);
            let word = parser.next();
            match word.kind {
                TokenKind::End => return Ok(Selector { requirements }),
                TokenKind::Comma => {}
                _ => return Err(word.unexpected(ends)),
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TokenKind {
    /// A key, a value, or `in` and `notin`.
    Name,
    Equal,
    NotEqual,
    Not,
    Open,
    Close,
    Comma,
    /// `<` or `>`.
    Order,
    End,
}

#[derive(Clone, Copy)]
struct Token<'a> {
    kind: TokenKind,
    text: &'a str,
    at: usize,
}

impl Token<'_> {
    fn unexpected(&self, expected: &'static str) -> SelectorError {
        let (found, expected) = match self.kind {
            TokenKind::End => ("the end".to_owned(), expected),
            TokenKind::Order => (
                quote(self.text),
                "another operator: labels are compared as hashes, which have no order",
            ),
            _ => (quote(self.text), expected),
        };
        SelectorError::Unexpected {
            at: self.at,
            found,
            expected,
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Number of values read so far, duplicates included.
    values: usize,
}

impl<'a> Parser<'a> {
    /// Returns the next token without consuming it.
    fn peek(&self) -> Token<'a> {
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        let rest = self.text[self.at..].trim_start_matches(is_space);
        let at = self.text.len() - rest.len();
        let (kind, len) = match rest.as_bytes() {
            [] => (TokenKind::End, 0),
            [b'!', b'=', ..] => (TokenKind::NotEqual, 2),
            [b'=', b'=', ..] => (TokenKind::Equal, 2),
            [b'=', ..] => (TokenKind::Equal, 1),
            [b'!', ..] => (TokenKind::Not, 1),
            [b'(', ..] => (TokenKind::Open, 1),
            [b')', ..] => (TokenKind::Close, 1),
            [b',', ..] => (TokenKind::Comma, 1),
            [b'<' | b'>', ..] => (TokenKind::Order, 1),
            _ => {
                let ends = |c: char| is_space(c) || "!=(),<>".contains(c);
                (TokenKind::Name, rest.find(ends).unwrap_or(rest.len()))
            }
        };
        Token {
            kind,
            text: &rest[..len],
            at,
        }
    }

    fn next(&mut self) -> Token<'a> {
        let word = self.peek();
        self.at = word.at + word.text.len();
        word
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.peek().kind == TokenKind::Not {
            self.next();
            return Ok(Requirement::NotExists(self.key("a key")?));
        }
        let key = self.key("a key or '!'")?;
        let word = self.peek();
        match (word.kind, word.text) {
            (TokenKind::Equal, _) => {
                self.next();
                let values = self.one_value()?;
                Ok(Requirement::In { key, values })
            }
            (TokenKind::NotEqual, _) => {
                self.next();
                let values = self.one_value()?;
                Ok(Requirement::NotIn { key, values })
            }
            (TokenKind::Name, "in") => {
                self.next();
                let values = self.set_of_values()?;
                Ok(Requirement::In { key, values })
            }
            (TokenKind::Name, "notin") => {
                self.next();
                let values = self.set_of_values()?;
                Ok(Requirement::NotIn { key, values })
            }
            _ => Ok(Requirement::Exists(key)),
        }
    }

    fn key(&mut self, expected: &'static str) -> Result<String, SelectorError> {
        let word = self.next();
        if word.kind != TokenKind::Name {
            return Err(word.unexpected(expected));
        }
        let key = word.text.to_owned();
        match check_key(&key) {
            Ok(()) => Ok(key),
            Err(why) => Err(SelectorError::Key {
                at: word.at,
                key,
                why,
            }),
        }
    }

    /// Parses the value after `=`, `==` or `!=`.
    fn one_value(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        let word = self.peek();
        match word.kind {
            TokenKind::End | TokenKind::Comma => self.add(&mut values, "", word.at)?,
            TokenKind::Name => {
                self.next();
                self.add(&mut values, word.text, word.at)?;
            }
            _ => return Err(word.unexpected("a value")),
        }
        Ok(values)
    }

    /// Parses the set after `in` or `notin`.
    fn set_of_values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let word = self.next();
        if word.kind != TokenKind::Open {
            return Err(word.unexpected("'('"));
        }
        let mut values = BTreeSet::new();
        let word = self.peek();
        if word.kind == TokenKind::Close {
            return Err(word.unexpected("a value or ','"));
        }
        loop {
            let word = self.peek();
            match word.kind {
                TokenKind::Name => {
                    self.next();
                    self.add(&mut values, word.text, word.at)?;
                }
                TokenKind::Comma | TokenKind::Close => self.add(&mut values, "", word.at)?,
                _ => return Err(word.unexpected("a value, ',' or ')'")),
            }
            let word = self.next();
            match word.kind {
                TokenKind::Comma => {}
                TokenKind::Close => return Ok(values),
                _ => return Err(word.unexpected("',' or ')'")),
            }
        }
    }

    fn add(
        &mut self,
        values: &mut BTreeSet<String>,
        value: &str,
        at: usize,
    ) -> Result<(), SelectorError> {
        if self.values == MAX_VALUES {
            return Err(SelectorError::TooManyValues(at));
        }
        self.values += 1;
        let value = value.to_owned();
        match check_value(&value) {
            Ok(()) => {
                values.insert(value);
                Ok(())
            }
            Err(why) => Err(SelectorError::Value { at, value, why }),
        }
    }
}
