//! Rates and percentiles, and their formatting.

use std::fmt;
use std::time::Duration;

/// Bits per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct BitRate(pub f64);

impl BitRate {
    /// The rate of `bytes` in `time`; zero if no time passed.
    #[must_use]
    pub fn of(bytes: u64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        if seconds > 0.0 {
            Self(bytes as f64 * 8.0 / seconds)
        } else {
            Self(0.0)
        }
    }

    /// The rate in Gbit/s.
    #[must_use]
    pub fn gigabits(self) -> f64 {
        self.0 / 1e9
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            r if r >= 1e9 => format!("{:.2} Gbit/s", r / 1e9),
            r if r >= 1e6 => format!("{:.0} Mbit/s", r / 1e6),
            r => format!("{:.0} kbit/s", r / 1e3),
        };
        f.pad(&text)
    }
}

/// A sorted set of times.
#[derive(Clone, Debug, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// Sorts `times`.
    #[must_use]
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// Number of times.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that at least `fraction` (0 to 1) of all times do not exceed; zero if there is none.
    #[must_use]
    pub fn percentile(&self, fraction: f64) -> Duration {
        let rank = (fraction.clamp(0.0, 1.0) * self.0.len() as f64).ceil() as usize;
        self.0
            .get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// The median.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.percentile(0.5)
    }

    /// The shortest; zero if there is none.
    #[must_use]
    pub fn min(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    /// The longest; zero if there is none.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

/// Human-readable time: `87 µs`, `1.25 ms`, `3.0 s`.
pub(crate) fn human(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let set = Latencies::new((1..=100).rev().map(Duration::from_micros).collect());
        assert_eq!(set.median(), Duration::from_micros(50));
        assert_eq!(set.percentile(0.99), Duration::from_micros(99));
        assert_eq!(set.percentile(1.0), set.max());
        assert_eq!(set.percentile(0.0), set.min());
        assert_eq!(Latencies::default().median(), Duration::ZERO);
    }

    #[test]
    fn rates_are_written_in_their_own_unit() {
        assert_eq!(
            BitRate::of(125_000_000, Duration::from_secs(1)).to_string(),
            "1.00 Gbit/s"
        );
        assert_eq!(
            BitRate::of(125_000, Duration::from_secs(1)).to_string(),
            "1 Mbit/s"
        );
        assert_eq!(BitRate::of(1, Duration::ZERO).to_string(), "0 kbit/s");
    }
}
