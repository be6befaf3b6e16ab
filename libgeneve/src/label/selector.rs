//! The selector grammar of Kubernetes: text to requirements and back.
//!
//! Owns what a selector means for labels as text; what it means for their hashes is `hash`'s.

mod parse;

use std::collections::BTreeSet;
use std::fmt;

use super::syntax::{SyntaxError, quote};
use super::{HashedRequirement, HashedSelector, LabelKey, LabelMap};

/// The longest text of a selector, in bytes.
pub const MAX_SELECTOR_LEN: usize = 65_536;
/// The most requirements of one selector.
pub const MAX_REQUIREMENTS: usize = 1_000;
/// The most values of one selector, those of all its requirements together.
pub const MAX_VALUES: usize = 1_000;

/// An expression over labels: it matches where each of its requirements does, so an empty one matches
/// every endpoint.
///
/// ```text
/// selector    := [ requirement { "," requirement } ]
/// requirement := key | "!" key | key ( "=" | "==" | "!=" ) [ value ] | key ( "in" | "notin" ) "(" values ")"
/// values      := [ value ] { "," [ value ] }
/// ```
/// White space may stand between any two words. An absent value is the empty one, but `()` is no set of
/// values. `in` and `notin` are keys and values like others where no operator is expected. The
/// operators `<` and `>` of Kubernetes' API are left out: they compare numbers, and hashes have no order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Requirement {
    /// `key=value`, `key in (value,…)`: the label is there with one of these values.
    In {
        /// The label's key.
        key: String,
        /// At least one value.
        values: BTreeSet<String>,
    },
    /// `key!=value`, `key notin (value,…)`: the label is not there, or has none of these values.
    NotIn {
        /// The label's key.
        key: String,
        /// At least one value.
        values: BTreeSet<String>,
    },
    /// `key`: the label is there, whatever its value.
    Exists(String),
    /// `!key`: the label is not there.
    NotExists(String),
}

/// Why a text is not a selector. Positions are bytes from the start of the text, the first is 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text has this many bytes.
    #[error("selector of {0} bytes: expected at most {MAX_SELECTOR_LEN}")]
    TooLong(usize),
    /// Something else stands there than the grammar allows.
    #[error("selector, at byte {at}: found {found}, expected {expected}")]
    Unexpected {
        /// Where.
        at: usize,
        /// What stands there, in quotes, or `the end`.
        found: String,
        /// What the grammar allows there.
        expected: &'static str,
    },
    /// A key that breaks a rule of labels.
    #[error("selector, at byte {at}: key {}: {why}", quote(.key))]
    Key {
        /// Where it begins.
        at: usize,
        /// The key.
        key: String,
        /// The rule.
        why: SyntaxError,
    },
    /// A value that breaks a rule of labels.
    #[error("selector, at byte {at}: value {}: {why}", quote(.value))]
    Value {
        /// Where it begins.
        at: usize,
        /// The value.
        value: String,
        /// The rule.
        why: SyntaxError,
    },
    /// One requirement too many.
    #[error("selector, at byte {0}: expected at most {MAX_REQUIREMENTS} requirements")]
    TooManyRequirements(usize),
    /// One value too many.
    #[error("selector, at byte {0}: expected at most {MAX_VALUES} values in all its requirements")]
    TooManyValues(usize),
}

impl Selector {
    /// What labels must fulfil, in the order of the text; nothing where every endpoint matches.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it has no requirement, and so matches every endpoint.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it matches an endpoint with exactly these labels.
    #[must_use]
    pub fn matches_map(&self, labels: &LabelMap) -> bool {
        self.requirements.iter().all(|r| r.matches_map(labels))
    }

    /// The selector as hashed labels are compared with it.
    #[must_use]
    pub fn hashed(&self, key: &LabelKey) -> HashedSelector {
        HashedSelector {
            requirements: self.requirements.iter().map(|r| r.hashed(key)).collect(),
        }
    }
}

impl Requirement {
    /// The key of the label that it asks about.
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

/// The requirements in their order, separated by `,`.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

/// One spelling for each meaning: `=` and `!=` before a single value, `in` and `notin` before several,
/// which are sorted.
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
