//! Rates, sizes and DSCPs, written as for `tc`.

use std::fmt;
use std::str::FromStr;

use super::{ValueError, as_word, wrong};

as_word! { RateValue SizeValue DscpValue }

/// A rate in bits per second, at least 8.
///
/// `bit`, `kbit`, `mbit`, `gbit`, `tbit` count bits and `bps`, `kbps`, ... bytes, in steps of 1000; `kibit`, `kibps`,
/// ... in steps of 1024. A number without a unit is refused, because users who omit it mostly do not mean bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RateValue(u64);

impl RateValue {
    /// Bits per second.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whole bytes per second.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0 / 8
    }
}

const RATE_UNITS: [(&str, u64); 17] = [
    ("tbit", 1_000_000_000_000),
    ("gbit", 1_000_000_000),
    ("mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
    ("tibit", 1 << 40),
    ("gibit", 1 << 30),
    ("mibit", 1 << 20),
    ("kibit", 1 << 10),
    ("tbps", 8_000_000_000_000),
    ("gbps", 8_000_000_000),
    ("mbps", 8_000_000),
    ("kbps", 8_000),
    ("bps", 8),
    ("gibps", 8 << 30),
    ("mibps", 8 << 20),
    ("kibps", 8 << 10),
];

impl FromStr for RateValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match scaled(text, &RATE_UNITS) {
            Some(bits) if bits >= 8 => Ok(RateValue(bits)),
            Some(_) => wrong("invalid rate: at least 8bit"),
            None if text.parse::<f64>().is_ok_and(f64::is_finite) => wrong(format!(
                "invalid rate: it has no unit; \"{text}mbit\" is {text} Mbit/s, \"{text}bit\" is {text} bit/s"
            )),
            None => wrong("invalid rate: a number and a unit, such as 100mbit, 10gbit or 1mbps"),
        }
    }
}

impl fmt::Display for RateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &RATE_UNITS[..5])
    }
}

/// A size in bytes, 1 to 4 GiB; `k`, `m` and `g` (also `kb`, `mb`, `gb`) are in steps of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SizeValue(u64);

impl SizeValue {
    /// Bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

const SIZE_UNITS: [(&str, u64); 8] = [
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("k", 1 << 10),
    ("", 1),
    ("b", 1),
    ("kb", 1 << 10),
    ("mb", 1 << 20),
    ("gb", 1 << 30),
];

impl FromStr for SizeValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match scaled(text, &SIZE_UNITS) {
            Some(bytes @ 1..=0x1_0000_0000) => Ok(SizeValue(bytes)),
            Some(_) => wrong("invalid size: from 1 byte to 4g"),
            None => wrong("invalid size: a number and a unit, such as 64k, 1mb or 15000"),
        }
    }
}

impl fmt::Display for SizeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZE_UNITS[..4])
    }
}

/// Multiplies a number by its unit, rounding down; `None` if either is unknown or the product overflows.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = lower.split_at(digits.unwrap_or(lower.len()));
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // Further digits are below the resolution of any unit.
    if fraction.len() > 12 {
        return None;
    }
    let digits = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(*factor) * u128::from(fraction.parse::<u64>().ok()?) / digits;
    let whole = u128::from(*factor) * u128::from(whole.parse::<u64>().ok()?);
    u64::try_from(whole + part).ok()
}

/// Formats a value with the largest unit that divides it.
fn show(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = units
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor));
    let (unit, factor) = fits.unwrap_or(&("", 1));
    write!(f, "{}{unit}", value / factor)
}

/// DSCP, 0 to 63 or its name (RFC 2474, 2597, 3246, 8622).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DscpValue(pub u8);

const CODE_POINTS: [(&str, u8); 23] = [
    ("default", 0),
    ("le", 1),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("va", 44),
    ("ef", 46),
];

impl FromStr for DscpValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let name = if text == "cs0" { "default" } else { text };
        let named = CODE_POINTS.iter().find(|(n, _)| *n == name);
        let number = || match text.strip_prefix("0x") {
            Some(hex) => u8::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        match named.map(|(_, n)| *n).or_else(number) {
            Some(dscp @ 0..=63) => Ok(DscpValue(dscp)),
            _ => wrong("invalid dscp: a number from 0 to 63, or a name such as ef, af41 or cs5"),
        }
    }
}

impl fmt::Display for DscpValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match CODE_POINTS.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}
