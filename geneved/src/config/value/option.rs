//! Geneve options: classes, types, data, and matches of rules.

use std::fmt;
use std::str::FromStr;

use libgeneve::options::DEFAULT_OPTION_CLASS;
use libgeneve::wire::option::{MAX_OPTION_DATA, OptionClass, OptionType};

use super::{NONE_WORD, ObjectName, ValueError, as_word, not_among, wrong};

as_word! { OptionClassValue OptionTypeValue NamedData RawOption OptionMatchValue }

/// Option class: `0xHHHH`, a number, or the name of a known class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OptionClassValue(pub OptionClass);

/// Known classes, by owner.
const CLASS_NAMES: [(&str, u16); 3] = [("aws", 0x0108), ("ovn", 0x0102), ("cilium", 0x014b)];

impl Default for OptionClassValue {
    fn default() -> Self {
        OptionClassValue(DEFAULT_OPTION_CLASS)
    }
}

impl FromStr for OptionClassValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let named = CLASS_NAMES.iter().find(|(name, _)| *name == text);
        let number = || match text.strip_prefix("0x") {
            Some(hex) => u16::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        match named.map(|(_, n)| *n).or_else(number) {
            Some(class) => Ok(OptionClassValue(OptionClass(class))),
            None => not_among(
                &["aws", "ovn", "cilium"],
                "invalid option class: 0x0000 to 0xffff, or \"aws\", \"ovn\", \"cilium\"",
            ),
        }
    }
}

impl fmt::Display for OptionClassValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Option type with its critical bit: `0xHH` or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OptionTypeValue(pub OptionType);

impl FromStr for OptionTypeValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16),
            None => text.parse(),
        };
        number
            .map(|n| OptionTypeValue(OptionType(n)))
            .or(wrong("invalid option type: 0x00 to 0xff"))
    }
}

impl fmt::Display for OptionTypeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `NAME=HEX`: a defined option with its data; `NAME` alone for one without data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedData {
    /// Name of the option.
    pub name: ObjectName,
    /// Its data.
    pub data: Vec<u8>,
}

impl FromStr for NamedData {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == NONE_WORD {
            return wrong("invalid option: NAME or NAME=HEX, and none is the word for no option");
        }
        let (name, data) = text.split_once('=').unwrap_or((text, ""));
        Ok(NamedData {
            name: name.parse()?,
            data: from_hex(data)?,
        })
    }
}

impl fmt::Display for NamedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        if !self.data.is_empty() {
            f.write_str("=")?;
        }
        f.write_str(&hex::encode(&self.data))
    }
}

/// `DEFAULT_OPTION_CLASS:TYPE[=HEX]`: an option as it is on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawOption {
    /// The option class.
    pub class: OptionClassValue,
    /// The type.
    pub kind: OptionTypeValue,
    /// The data, in whole words of four bytes.
    pub data: Vec<u8>,
}

impl FromStr for RawOption {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (what, data) = text.split_once('=').unwrap_or((text, ""));
        let (class, kind) = class_and_kind(what)?;
        let data = from_hex(data)?;
        if !data.len().is_multiple_of(4) {
            return wrong("invalid option: its data are whole words of 4 bytes");
        }
        Ok(RawOption { class, kind, data })
    }
}

impl fmt::Display for RawOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.class, self.kind)?;
        if !self.data.is_empty() {
            f.write_str("=")?;
        }
        f.write_str(&hex::encode(&self.data))
    }
}

/// `DEFAULT_OPTION_CLASS:TYPE[=HEX[/MASK]]`: what a rule asks of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionMatchValue {
    /// The option class.
    pub class: OptionClassValue,
    /// The type.
    pub kind: OptionTypeValue,
    /// Value and mask of the first data bytes.
    pub value: Option<(Vec<u8>, Vec<u8>)>,
}

impl FromStr for OptionMatchValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (what, value) = match text.split_once('=') {
            Some((what, value)) => (what, Some(value)),
            None => (text, None),
        };
        let (class, kind) = class_and_kind(what)?;
        let value = value.map(|value| {
            let (value, mask) = match value.split_once('/') {
                Some((value, mask)) => (from_hex(value)?, from_hex(mask)?),
                None => {
                    let value = from_hex(value)?;
                    let all = vec![0xff; value.len()];
                    (value, all)
                }
            };
            if value.len() != mask.len() {
                return wrong("invalid option: value and mask are of different lengths");
            }
            if value.is_empty() {
                return wrong("invalid option: hexadecimal digits must follow \"=\"");
            }
            Ok((value, mask))
        });
        Ok(OptionMatchValue {
            class,
            kind,
            value: value.transpose()?,
        })
    }
}

impl fmt::Display for OptionMatchValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.class, self.kind)?;
        let Some((value, mask)) = &self.value else {
            return Ok(());
        };
        f.write_str("=")?;
        f.write_str(&hex::encode(value))?;
        if mask.iter().all(|b| *b == 0xff) {
            return Ok(());
        }
        f.write_str("/")?;
        f.write_str(&hex::encode(mask))
    }
}

fn class_and_kind(text: &str) -> Result<(OptionClassValue, OptionTypeValue), ValueError> {
    match text.split_once(':') {
        Some((class, kind)) => Ok((class.parse()?, kind.parse()?)),
        None => wrong("invalid option: CLASS:TYPE"),
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>, ValueError> {
    match hex::decode(text.strip_prefix("0x").unwrap_or(text)) {
        Ok(data) if data.len() <= MAX_OPTION_DATA => Ok(data),
        Ok(_) => wrong("invalid option: at most 124 bytes of data"),
        Err(_) => wrong("invalid option: its data are pairs of hexadecimal digits"),
    }
}
