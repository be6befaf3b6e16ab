//! Looking again before going to sleep.
//!
//! Waking a sleeping thread costs tens of microseconds when its core has gone idle, several times what a packet
//! costs. A worker whose sleeps turn out to be short therefore looks for work a little longer before it
//! sleeps; one whose looking is in vain stops doing so at once. An idle worker never looks twice.

use std::time::{Duration, Instant};

/// For how long work is looked for instead of a sleep.
const WINDOW: Duration = Duration::from_micros(100);
/// A sleep that was shorter than this was not worth it: it holds a wake-up, which alone takes half of this on a virtual
/// machine, beside the time that looking would have taken.
const SHORT: Duration = Duration::from_micros(150);

/// Decides whether to look again, by how the last sleeps went.
#[derive(Debug, Default)]
pub(super) struct Spin {
    worthwhile: bool,
}

impl Spin {
    /// Looks for work with `ready` where that was worthwhile lately; true where there is some.
    pub(super) fn look(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if !self.worthwhile {
            return false;
        }
        let begin = Instant::now();
        loop {
            for _ in 0..16 {
                if ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            // No yielding: since Linux 6.18 that gives the whole share of the core away.
            if begin.elapsed() > WINDOW {
                self.worthwhile = false;
                return false;
            }
        }
    }

    /// Sleeps, and remembers whether it was for long.
    pub(super) fn sleep<R>(&mut self, sleep: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = sleep();
        self.worthwhile = begin.elapsed() < SHORT;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_starts_after_a_short_sleep_and_ends_after_a_vain_look() {
        let mut spin = Spin::default();
        assert!(!spin.look(|| panic!("an idle worker does not look")));
        spin.sleep(|| ());
        assert!(spin.look(|| true));
        assert!(!spin.look(|| false));
        assert!(!spin.look(|| panic!("looking was in vain")));
        spin.sleep(|| std::thread::sleep(2 * SHORT));
        assert!(!spin.look(|| panic!("the sleep was long")));
    }
}
