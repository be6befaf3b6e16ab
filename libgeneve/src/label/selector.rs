//! Kubernetes' selector grammar: from text to requirements and back.
//!
//! Matches selectors against labels as text; `hash` matches them against hashed labels.

mod parse;

use std::collections::BTreeSet;
use std::fmt;

use super::syntax::{SyntaxError, quote};
use super::{HashedRequirement, HashedSelector, LabelKey, LabelMap};

/// Longest selector text, in bytes.
pub const MAX_SELECTOR_LEN: usize = 65_536;
/// Most requirements in one selector.
pub const MAX_REQUIREMENTS: usize = 1_000;
/// Most values in one selector, counted over all its requirements.
pub const MAX_VALUES: usize = 1_000;

/// Label selector: matches if all of its requirements do, so an empty one matches every endpoint.
///
/// ```text
/// selector    := [ requirement { "," requirement } ]
/// requirement := key | "!" key | key ( "=" | "==" | "!=" ) [ value ] | key ( "in" | "notin" ) "(" values ")"
/// values      := [ value ] { "," [ value ] }
/// ```
/// White space is allowed between tokens. A missing value is the empty value, but `()` is not a valid set. `in` and
/// `notin` are ordinary keys and values where no operator is expected. The operators `<` and `>` of Kubernetes' API
/// are not supported: they compare numbers, and hashes have no order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// `key=value`, `key in (value,…)`: the label exists with one of these values.
    In {
        /// The label's key.
        key: String,
        /// At least one value.
        values: BTreeSet<String>,
    },
    /// `key!=value`, `key notin (value,…)`: the label does not exist, or has none of these values.
    NotIn {
        /// The label's key.
        key: String,
        /// At least one value.
        values: BTreeSet<String>,
    },
    /// `key`: the label exists, with any value.
    Exists(String),
    /// `!key`: the label does not exist.
    NotExists(String),
}

/// Why a text is not a valid selector. Positions are byte offsets from the start of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text is too long; it has this many bytes.
    #[error("selector of {0} bytes: expected at most {MAX_SELECTOR_LEN}")]
    TooLong(usize),
    /// Unexpected token.
    #[error("selector, at byte {at}: found {found}, expected {expected}")]
    Unexpected {
        /// Position.
        at: usize,
        /// The token found, in quotes, or `the end`.
        found: String,
        /// What the grammar allows there.
        expected: &'static str,
    },
    /// Invalid label key.
    #[error("selector, at byte {at}: key {}: {why}", quote(.key))]
    Key {
        /// Position.
        at: usize,
        /// The key.
        key: String,
        /// The rule that it breaks.
        why: SyntaxError,
    },
    /// Invalid label value.
    #[error("selector, at byte {at}: value {}: {why}", quote(.value))]
    Value {
        /// Position.
        at: usize,
        /// The value.
        value: String,
        /// The rule that it breaks.
        why: SyntaxError,
    },
    /// Too many requirements.
    #[error("selector, at byte {0}: expected at most {MAX_REQUIREMENTS} requirements")]
    TooManyRequirements(usize),
    /// Too many values.
    #[error("selector, at byte {0}: expected at most {MAX_VALUES} values in all its requirements")]
    TooManyValues(usize),
}

impl Selector {
    /// Requirements in the order of the text; empty if every endpoint matches.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it has no requirements, and so matches every endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it matches an endpoint with exactly these labels.
    #[must_use]
    pub fn matches_map(&self, labels: &LabelMap) -> bool {
        self.requirements.iter().all(|r| r.matches_map(labels))
    }

    /// Returns the selector with hashed keys and values.
    #[must_use]
    pub fn hashed(&self, key: &LabelKey) -> HashedSelector {
        HashedSelector {
            requirements: self.requirements.iter().map(|r| r.hashed(key)).collect(),
        }
    }
}

impl Requirement {
    /// Returns the key that the requirement is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Requirement::In { key, .. }
            | Requirement::NotIn { key, .. }
            | Requirement::Exists(key)
            | Requirement::NotExists(key) => key,
        }
    }

    fn matches_map(&self, labels: &LabelMap) -> bool {
        let value = labels.get(self.key());
        match self {
            Requirement::In { values, .. } => value.is_some_and(|v| values.contains(v)),
            Requirement::NotIn { values, .. } => value.is_none_or(|v| !values.contains(v)),
            Requirement::Exists(_) => value.is_some(),
            Requirement::NotExists(_) => value.is_none(),
        }
    }

    fn hashed(&self, secret: &LabelKey) -> HashedRequirement {
        let key = secret.key_hash(self.key());
        let pairs = |values: &BTreeSet<String>| {
            let mut pairs: Vec<u32> = values
                .iter()
                .map(|value| secret.pair_hash(self.key(), value))
                .collect();
            pairs.sort_unstable();
            pairs.dedup();
            pairs.into_boxed_slice()
        };
        match self {
            Requirement::In { values, .. } => HashedRequirement::In {
                key,
                pairs: pairs(values),
            },
            Requirement::NotIn { values, .. } => HashedRequirement::NotIn {
                key,
                pairs: pairs(values),
            },
            Requirement::Exists(_) => HashedRequirement::Exists(key),
            Requirement::NotExists(_) => HashedRequirement::NotExists(key),
        }
    }
}

/// The requirements in order, separated by `,`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

/// Canonical form: `=` and `!=` before a single value, `in` and `notin` before several, which are sorted.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::In { key, values } => write_values(f, key, "=", "in", values),
            Requirement::NotIn { key, values } => write_values(f, key, "!=", "notin", values),
            Requirement::Exists(key) => f.write_str(key),
            Requirement::NotExists(key) => write!(f, "!{key}"),
        }
    }
}

fn write_values(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    one: &str,
    several: &str,
    values: &BTreeSet<String>,
) -> fmt::Result {
    if let (1, Some(value)) = (values.len(), values.first()) {
        return write!(f, "{key}{one}{value}");
    }
    write!(f, "{key} {several} (")?;
    for (at, value) in values.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(f, "{comma}{value}")?;
    }
    f.write_str(")")
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
