//! Durations.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{ValueError, as_word, wrong};

as_word! { Seconds }

/// A duration in seconds, 0.05 to 86,400, with millisecond resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(u32);

impl Seconds {
    /// Converts from milliseconds, 50 to 86,400,000.
    pub(crate) const fn from_millis(millis: u32) -> Seconds {
        Seconds(millis)
    }

    /// Converts to a [`Duration`].
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }
}

impl FromStr for Seconds {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = |c: char| c.is_ascii_digit() || c == '.';
        let seconds: Option<f64> = text.parse().ok().filter(|_| text.chars().all(digits));
        match seconds {
            Some(seconds) if (0.05..=86_400.0).contains(&seconds) => {
                Ok(Seconds((seconds * 1000.0).round() as u32))
            }
            _ => wrong("invalid time: seconds, from 0.05 to 86400"),
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.0) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_to_the_millisecond_and_shown_as_they_were() {
        for text in ["2", "0.5", "0.05", "86400", "1.001"] {
            let seconds: Seconds = text.parse().unwrap();
            assert_eq!(seconds.to_string(), text);
        }
        assert_eq!(
            "2.50".parse::<Seconds>().unwrap().duration().as_millis(),
            2500
        );
        for text in [
            "", "0", "0.04", "86401", "-1", "1e3", "inf", "NaN", "2s", ".",
        ] {
            assert!(text.parse::<Seconds>().is_err(), "{text:?}");
        }
    }
}
