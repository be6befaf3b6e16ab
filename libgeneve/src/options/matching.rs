//! Matching any option of a packet by class, type and data, as policy rules do.

use std::fmt;
use std::str::FromStr;

use super::DEFAULT_OPTION_CLASS;
use crate::wire::option::{MAX_OPTION_DATA, OptionClass, OptionIter, OptionType};

/// Classes registered by other projects, by their common names.
const REGISTERED_CLASSES: [(&str, OptionClass); 3] = [
    ("ovn", OptionClass(0x0102)),
    ("aws", OptionClass(0x0108)),
    ("cilium", OptionClass(0x014b)),
];

/// Returns the class named by `word`: `geneved` (which is `own`), `ovn`, `aws`, `cilium`, or a 16-bit number, decimal
/// or hexadecimal after `0x`.
#[must_use]
pub fn class_named(word: &str, own: OptionClass) -> Option<OptionClass> {
    if word == "geneved" {
        return Some(own);
    }
    let named = REGISTERED_CLASSES.iter().find(|(name, _)| *name == word);
    named
        .map(|&(_, class)| class)
        .or_else(|| u16::try_from(number(word)?).ok().map(OptionClass))
}

/// Matches an option by class and type, and if `value` is set, by the beginning of its data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OptionMatch {
    /// The class.
    pub class: OptionClass,
    /// The type, critical bit included.
    pub kind: OptionType,
    /// Value and mask, of equal length: compared with the first bytes of the data. Shorter data does not match.
    pub value: Option<(Vec<u8>, Vec<u8>)>,
}

/// Why a text is not an option match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// There is no `:`.
    #[error("option '{0}': expected CLASS:TYPE[=HEX[/MASK]]")]
    Form(String),
    /// The class is neither a name nor a number.
    #[error("option class '{0}': expected geneved, ovn, aws, cilium or a number from 0 to 0xffff")]
    Class(String),
    /// The type is not a number.
    #[error("option type '{0}': expected a number from 0 to 0xff")]
    Kind(String),
    /// Value or mask is not hexadecimal, is empty, or has more than 124 bytes.
    #[error(
        "option data '{0}': expected 1 to {MAX_OPTION_DATA} bytes in hexadecimal, two digits a byte"
    )]
    Data(String),
    /// Value and mask differ in length.
    #[error("option value of {value} bytes with a mask of {mask}: expected equal lengths")]
    Mask {
        /// Bytes of the value.
        value: usize,
        /// Bytes of the mask.
        mask: usize,
    },
}

impl OptionMatch {
    /// Reads `DEFAULT_OPTION_CLASS:TYPE[=HEX[/MASK]]`, where the class `geneved` is `own`. Bits of the value outside the mask
    /// become zero.
    ///
    /// # Errors
    ///
    /// See [`MatchError`].
    pub fn parse(text: &str, own: OptionClass) -> Result<OptionMatch, MatchError> {
        let (head, data) = match text.split_once('=') {
            Some((head, data)) => (head, Some(data)),
            None => (text, None),
        };
        let (class, kind) = head
            .split_once(':')
            .ok_or_else(|| MatchError::Form(text.to_owned()))?;
        Ok(OptionMatch {
            class: class_named(class, own).ok_or_else(|| MatchError::Class(class.to_owned()))?,
            kind: number(kind)
                .and_then(|kind| u8::try_from(kind).ok())
                .map(OptionType)
                .ok_or_else(|| MatchError::Kind(kind.to_owned()))?,
            value: data.map(value_and_mask).transpose()?,
        })
    }

    /// Whether any option in the list matches.
    #[inline]
    #[must_use]
    pub fn matches(&self, mut options: OptionIter<'_>) -> bool {
        options.any(|option| {
            option.class == self.class && option.kind == self.kind && self.matches_data(option.data)
        })
    }

    fn matches_data(&self, data: &[u8]) -> bool {
        let Some((value, mask)) = &self.value else {
            return true;
        };
        data.len() >= value.len()
            && data
                .iter()
                .zip(value)
                .zip(mask)
                .all(|((data, value), mask)| (data ^ value) & mask == 0)
    }
}

/// As [`OptionMatch::parse`], where the class `geneved` is [`DEFAULT_OPTION_CLASS`].
impl FromStr for OptionMatch {
    type Err = MatchError;
    fn from_str(text: &str) -> Result<OptionMatch, MatchError> {
        OptionMatch::parse(text, DEFAULT_OPTION_CLASS)
    }
}

/// `DEFAULT_OPTION_CLASS:TYPE[=HEX[/MASK]]` in hexadecimal; a mask of ones is left out.
impl fmt::Display for OptionMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.class, self.kind)?;
        if let Some((value, mask)) = &self.value {
            write!(f, "={}", hex::encode(value))?;
            if mask.iter().any(|&byte| byte != 0xff) {
                write!(f, "/{}", hex::encode(mask))?;
            }
        }
        Ok(())
    }
}

/// Parses a number without sign, decimal or hexadecimal after `0x`.
fn number(word: &str) -> Option<u32> {
    let (digits, radix) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (word, 10),
    };
    // `from_str_radix` accepts a sign.
    let first = digits.chars().next()?;
    first.is_digit(radix).then_some(())?;
    u32::from_str_radix(digits, radix).ok()
}

fn value_and_mask(text: &str) -> Result<(Vec<u8>, Vec<u8>), MatchError> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (bytes(value)?, Some(bytes(mask)?)),
        None => (bytes(text)?, None),
    };
    let mask = mask.unwrap_or_else(|| vec![0xff; value.len()]);
    if mask.len() != value.len() {
        return Err(MatchError::Mask {
            value: value.len(),
            mask: mask.len(),
        });
    }
    let value = value.iter().zip(&mask).map(|(v, m)| v & m).collect();
    Ok((value, mask))
}

fn bytes(text: &str) -> Result<Vec<u8>, MatchError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    match hex::decode(digits) {
        Ok(bytes) if (1..=MAX_OPTION_DATA).contains(&bytes.len()) => Ok(bytes),
        _ => Err(MatchError::Data(text.to_owned())),
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
