//! Values that users write, each with one parser for command line, file and control socket.
//!
//! Defines the syntax and range of single values, grouped by topic. [`super::state`] checks how values fit together.

mod address;
mod fdb;
mod label;
mod link;
mod none;
mod option;
mod rate;
mod rule;
mod time;

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;

pub use self::address::{
    AddrPort, AddrRange, IfName, LoopbackAddr, ObjectName, PrefixValue, ProxyTargetValue,
    overlay_address, tunnel_address,
};
pub use self::fdb::{FdbMac, ModeValue};
pub use self::label::{LabelsValue, RulePeerValue, SelectorValue};
pub use self::link::{
    DfValue, InnerValue, LabelsUse, LinkSegmentation, MacValue, MtuValue, PortRange, TosValue,
    TtlValue, VniValue,
};
pub use self::none::{NONE_WORD, OrNone};
pub use self::option::{NamedData, OptionClassValue, OptionMatchValue, OptionTypeValue, RawOption};
pub use self::rate::{DscpValue, RateValue, SizeValue};
pub use self::rule::{
    AffinityValue, CheckValue, DefaultAction, DirectionValue, EndpointTypeValue, FlowStateValue,
    IcmpValue, NatKind, PortListValue, ProtocolValue, RuleAction,
};
pub use self::time::Seconds;

/// Why a text is not a valid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    reason: String,
    expected: &'static [&'static str],
}

impl ValueError {
    /// Creates an error from a short reason, as it follows `argument "x" is wrong: `.
    pub fn new(reason: impl Into<String>) -> Self {
        ValueError {
            reason: reason.into(),
            expected: &[],
        }
    }

    /// Adds the words that are valid for the value.
    #[must_use]
    pub fn expecting(self, expected: &'static [&'static str]) -> Self {
        ValueError { expected, ..self }
    }

    /// Valid words, to suggest one for a mistyped word.
    #[must_use]
    pub fn expected(&self) -> &'static [&'static str] {
        self.expected
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for ValueError {}

fn wrong<T>(reason: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError::new(reason))
}

/// Error for a word that is not among the valid ones.
fn not_among<T>(expected: &'static [&'static str], reason: &str) -> Result<T, ValueError> {
    Err(ValueError::new(reason).expecting(expected))
}

/// Deserializer of a text or number in TOML or JSON by `FromStr`.
struct FromStrVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = ValueError>> Visitor<'_> for FromStrVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an integer")
    }
    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<T, E> {
        // The value's own error explains better than its type what it must be.
        match self.visit_str::<E>(if value { "true" } else { "false" }) {
            Ok(_) => Err(E::invalid_type(
                serde::de::Unexpected::Bool(value),
                &"a string",
            )),
            Err(reason) => Err(reason),
        }
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse()
            .map_err(|e| E::custom(format_args!("argument \"{text}\" is wrong: {e}")))
    }
    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Implements serialization in TOML and JSON as text for a type with `FromStr` and `Display`.
macro_rules! as_word {
    ($($name:ident)+) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any($crate::config::value::FromStrVisitor(std::marker::PhantomData))
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
                into.collect_str(self)
            }
        }
    )+};
}

/// Defines an enum whose values are keywords.
macro_rules! one_of {
    ($(#[$doc:meta])* $name:ident, $wrong:literal, { $($(#[$each:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$each])* $variant),+
        }

        impl $name {
            /// Keyword of the value.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word),+
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::config::value::ValueError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok($name::$variant),)+
                    _ => $crate::config::value::not_among(&[$($word),+], $wrong),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        as_word! { $name }
    };
}
use {as_word, one_of};

#[cfg(test)]
#[path = "../value_tests.rs"]
mod tests;
