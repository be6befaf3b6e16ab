//! Busy polling before a worker goes to sleep.
//!
//! Waking a sleeping thread costs tens of microseconds when its core has gone idle, several times what a packet
//! costs. A worker whose sleeps turn out to be short therefore polls for a little while before it sleeps; one that
//! polled in vain sleeps at once the next time. An idle worker never polls twice in a row.
//!
//! If the producer of the work shares the worker's core, polling is in vain and work arrives the moment the worker
//! sleeps: polling kept the producer from running and used up the worker's scheduling credit, so that it runs late
//! when there is work. Each such poll doubles the number of short sleeps until the next one.

use std::time::{Duration, Instant};

/// How long to poll before sleeping.
const POLL_WINDOW: Duration = Duration::from_micros(100);
/// A sleep shorter than this was not worth it: it includes a wake-up, which alone takes half of this on a virtual
/// machine, as well as the time that polling would have taken.
const SHORT_SLEEP: Duration = Duration::from_micros(150);

/// A sleep shorter than this, right after a vain poll, means that it let the producer of the work run.
const AT_ONCE: Duration = Duration::from_micros(25);
/// Number of consecutive vain polls after which the pause between polls stops growing.
const MOST_VAIN: u32 = 8;

/// Decides whether to poll, based on the last polls and sleeps.
#[derive(Debug, Default)]
pub(super) struct BusyPoll {
    /// The last sleep was short.
    worthwhile: bool,
    /// The last poll was in vain, and there was no sleep since.
    looked: bool,
    /// Consecutive polls that kept others from running.
    vain: u32,
    /// Short sleeps until the next poll.
    pause: u32,
}

impl BusyPoll {
    /// Polls `ready` if that was worthwhile lately; returns whether there is work.
    pub(super) fn poll(&mut self, mut ready: impl FnMut() -> bool) -> bool {
        if !self.worthwhile {
            return false;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        let begin = Instant::now();
        loop {
            for _ in 0..16 {
                if ready() {
                    self.vain = 0;
                    return true;
                }
                std::hint::spin_loop();
            }
            // No sched_yield: since Linux 6.18 that forfeits the whole share of the core.
            if begin.elapsed() > POLL_WINDOW {
                self.worthwhile = false;
                self.looked = true;
                return false;
            }
        }
    }

    /// Sleeps and records for how long.
    pub(super) fn sleep<R>(&mut self, sleep: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = sleep();
        self.slept(begin.elapsed());
        result
    }

    fn slept(&mut self, time: Duration) {
        self.worthwhile = time < SHORT_SLEEP;
        if std::mem::take(&mut self.looked) {
            self.vain = match time < AT_ONCE {
                true => (self.vain + 1).min(MOST_VAIN),
                false => 0,
            };
            self.pause = (1 << self.vain) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSE: Duration = Duration::from_micros(60);

    #[test]
    fn looking_starts_after_a_short_sleep_and_ends_after_a_vain_look() {
        let mut busy_poll = BusyPoll::default();
        assert!(!busy_poll.poll(|| panic!("an idle worker does not look")));
        busy_poll.slept(CLOSE);
        assert!(busy_poll.poll(|| true));
        assert!(!busy_poll.poll(|| false));
        assert!(!busy_poll.poll(|| panic!("looking was in vain")));
        busy_poll.slept(2 * SHORT_SLEEP);
        assert!(!busy_poll.poll(|| panic!("the sleep was long")));
    }

    #[test]
    fn sleeping_tells_how_long_it_took() {
        let mut busy_poll = BusyPoll::default();
        busy_poll.sleep(|| std::thread::sleep(2 * SHORT_SLEEP));
        assert!(!busy_poll.worthwhile);
    }

    /// Counts the sleeps of this length until the next poll, which is in vain.
    fn sleeps_until_look(busy_poll: &mut BusyPoll, time: Duration) -> u32 {
        let mut sleeps = 0;
        let mut looked = false;
        while !looked {
            busy_poll.slept(time);
            sleeps += 1;
            busy_poll.poll(|| {
                looked = true;
                false
            });
        }
        sleeps
    }

    #[test]
    fn looking_that_keeps_others_from_running_becomes_rare_until_it_helps() {
        let mut busy_poll = BusyPoll::default();
        let sleeps: Vec<u32> = (0..4)
            .map(|_| sleeps_until_look(&mut busy_poll, Duration::ZERO))
            .collect();
        assert_eq!(sleeps, [1, 2, 4, 8]);
        while !busy_poll.poll(|| true) {
            busy_poll.slept(CLOSE);
        }
        busy_poll.slept(CLOSE);
        assert!(busy_poll.poll(|| true), "what helped is tried at once");
    }

    #[test]
    fn looking_in_vain_for_work_that_comes_from_elsewhere_goes_on() {
        let mut busy_poll = BusyPoll::default();
        for _ in 0..8 {
            assert_eq!(sleeps_until_look(&mut busy_poll, CLOSE), 1);
        }
    }
}
