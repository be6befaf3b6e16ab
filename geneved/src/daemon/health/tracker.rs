//! Turns a series of check results into a verdict: a backend is up or down after a number of equal ones in a row.

use super::CheckedHealth;

/// State of one backend, and the number of results that contradict it.
#[derive(Debug)]
pub(super) struct HealthTracker {
    failures: u32,
    successes: u32,
    health: CheckedHealth,
    /// Results in a row that contradict `health`.
    against: u32,
    /// Whether the results in a row are successes.
    last: bool,
}

impl HealthTracker {
    /// Starts with `health`. `failures` in a row mean down, `successes` up; 0 counts as 1.
    pub(super) fn new(failures: u8, successes: u8, health: CheckedHealth) -> Self {
        HealthTracker {
            failures: u32::from(failures).max(1),
            successes: u32::from(successes).max(1),
            health,
            against: 0,
            last: false,
        }
    }

    pub(super) fn health(&self) -> &CheckedHealth {
        &self.health
    }

    /// Adds a result, with the reason of a failure; returns whether the backend went up or down. While it is down,
    /// the reason is that of the last failure.
    pub(super) fn record(&mut self, result: Result<(), String>) -> bool {
        let success = result.is_ok();
        let agrees = match (&mut self.health, &result) {
            (CheckedHealth::Up, Ok(())) => true,
            (CheckedHealth::Down(reason), Err(why)) => {
                reason.clone_from(why);
                true
            }
            _ => false,
        };
        self.against = match (agrees, success == self.last) {
            (true, _) => 0,
            (false, true) => self.against.saturating_add(1),
            (false, false) => 1,
        };
        self.last = success;
        let needed = if success {
            self.successes
        } else {
            self.failures
        };
        if self.against < needed {
            return false;
        }
        self.against = 0;
        self.health = match result {
            Ok(()) => CheckedHealth::Up,
            Err(why) => CheckedHealth::Down(why),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no() -> Result<(), String> {
        Err("no answer".into())
    }

    fn hear(verdict: &mut HealthTracker, results: &str) -> Vec<bool> {
        let result = |c| if c == '+' { Ok(()) } else { no() };
        results.chars().map(|c| verdict.record(result(c))).collect()
    }

    #[test]
    fn three_failures_mean_down_and_two_successes_up() {
        let mut verdict = HealthTracker::new(3, 2, CheckedHealth::Unknown);
        assert_eq!(hear(&mut verdict, "--"), [false, false]);
        assert_eq!(*verdict.health(), CheckedHealth::Unknown);
        assert_eq!(hear(&mut verdict, "-"), [true]);
        assert_eq!(*verdict.health(), CheckedHealth::Down("no answer".into()));
        assert_eq!(hear(&mut verdict, "+"), [false]);
        assert!(!verdict.health().counts_as_up());
        assert_eq!(hear(&mut verdict, "+"), [true]);
        assert_eq!(*verdict.health(), CheckedHealth::Up);
    }

    #[test]
    fn a_row_that_breaks_begins_anew() {
        let mut verdict = HealthTracker::new(3, 2, CheckedHealth::Unknown);
        assert_eq!(hear(&mut verdict, "++"), [false, true]);
        assert!(
            hear(&mut verdict, "--+--+--+")
                .iter()
                .all(|changed| !changed)
        );
        assert_eq!(hear(&mut verdict, "---"), [false, false, true]);
        assert!(hear(&mut verdict, "+-+-+-").iter().all(|changed| !changed));
    }

    #[test]
    fn the_reason_is_that_of_the_last_failure() {
        let mut verdict = HealthTracker::new(1, 1, CheckedHealth::Unknown);
        assert!(verdict.record(no()));
        assert!(!verdict.record(Err("refused".into())));
        assert_eq!(*verdict.health(), CheckedHealth::Down("refused".into()));
    }

    proptest! {
        #[test]
        fn only_a_whole_row_changes_anything(
            results in prop::collection::vec(any::<bool>(), 0..200),
            failures in 0u8..5,
            successes in 0u8..5,
        ) {
            let mut verdict = HealthTracker::new(failures, successes, CheckedHealth::Unknown);
            for (at, &result) in results.iter().enumerate() {
                let before = verdict.health().clone();
                let changed = verdict.record(if result { Ok(()) } else { no() });
                prop_assert_eq!(changed, before != *verdict.health());
                let row = results[..=at].iter().rev().take_while(|&&r| r == result).count() as u32;
                let needed = u32::from(if result { successes } else { failures }).max(1);
                prop_assert!(!changed || row == needed);
                let said = if result { CheckedHealth::Up } else { CheckedHealth::Down("no answer".into()) };
                prop_assert!(row < needed || *verdict.health() == said);
            }
        }
    }
}
