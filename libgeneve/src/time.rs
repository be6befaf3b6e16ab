//! Time for the packet path: always an argument, never read from a clock.

use std::ops::Add;
use std::time::Duration;

/// Monotonic time in nanoseconds since an epoch that the caller chooses, such as boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub u64);

impl Now {
    /// Returns the time elapsed since `earlier`; zero if that is later.
    #[inline]
    #[must_use]
    pub fn since(self, earlier: Now) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Now {
    type Output = Now;
    fn add(self, duration: Duration) -> Now {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Now(self.0.saturating_add(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_neither_wraps_nor_goes_back() {
        assert_eq!(Now(5).since(Now(9)), Duration::ZERO);
        assert_eq!(Now(9).since(Now(5)), Duration::from_nanos(4));
        assert_eq!(Now(1) + Duration::MAX, Now(u64::MAX));
    }
}
