//! Optional settings that can be reset.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FromStrVisitor, ValueError};

/// Keyword that resets a setting.
pub const NONE_WORD: &str = "none";

/// A value, or `none`, which resets the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrNone<T> {
    /// Reset.
    None,
    /// The value.
    Is(T),
}

impl<T> OrNone<T> {
    /// Returns the value, if there is one.
    #[must_use]
    pub fn value(self) -> Option<T> {
        match self {
            OrNone::None => None,
            OrNone::Is(value) => Some(value),
        }
    }
}

impl<T: FromStr<Err = ValueError>> FromStr for OrNone<T> {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == NONE_WORD {
            return Ok(OrNone::None);
        }
        text.parse().map(OrNone::Is)
    }
}

impl<T: fmt::Display> fmt::Display for OrNone<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrNone::None => f.write_str(NONE_WORD),
            OrNone::Is(value) => value.fmt(f),
        }
    }
}

impl<'de, T: FromStr<Err = ValueError>> Deserialize<'de> for OrNone<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FromStrVisitor(PhantomData))
    }
}

/// `none` is serialized as text, anything else like the value.
impl<T: Serialize> Serialize for OrNone<T> {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        match self {
            OrNone::None => into.serialize_str(NONE_WORD),
            OrNone::Is(value) => value.serialize(into),
        }
    }
}
