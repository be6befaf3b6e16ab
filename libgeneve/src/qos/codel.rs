//! CoDel (RFC 8289): decides which packets of a queue to drop or mark, by sojourn time.

use crate::time::Now;

/// How long the sojourn time must exceed the target before the first drop, in nanoseconds.
const INTERVAL: u64 = 100_000_000;

/// CoDel state of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    /// When the sojourn time will have exceeded the target for a whole interval; 0 while it is below.
    above_until: u64,
    /// Time of the next drop, while dropping.
    drop_next: u64,
    /// Drops since dropping began.
    count: u32,
    /// Value of `count` when dropping began.
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// Whether the departing packet, which `waited` so long, is to be dropped or marked. `alone` means that nothing
    /// is queued behind it: such a queue is never too long. `waited` and `target` are in nanoseconds.
    pub(super) fn judge(&mut self, waited: u64, alone: bool, target: u64, now: Now) -> bool {
        let now = now.0;
        let above = self.above(waited, alone, target, now);
        if !self.dropping {
            if above {
                self.begin(now);
            }
            return above;
        }
        if !above {
            self.dropping = false;
            return false;
        }
        let due = now >= self.drop_next;
        if due {
            self.count = self.count.saturating_add(1);
            self.drop_next = self.after(self.drop_next);
        }
        due
    }

    /// Whether the sojourn time has exceeded the target for a whole interval.
    fn above(&mut self, waited: u64, alone: bool, target: u64, now: u64) -> bool {
        if waited < target || alone {
            self.above_until = 0;
            return false;
        }
        if self.above_until == 0 {
            self.above_until = now + INTERVAL;
        }
        now >= self.above_until
    }

    /// Starts dropping; if dropping ended recently, resumes at about the previous rate.
    fn begin(&mut self, now: u64) {
        let grown = self.count.wrapping_sub(self.last_count);
        let lately = now.saturating_sub(self.drop_next) < 16 * INTERVAL;
        self.count = if lately && grown > 1 { grown } else { 1 };
        self.last_count = self.count;
        self.dropping = true;
        self.drop_next = self.after(now);
    }

    /// Control law: the interval between drops shrinks with the square root of their number, so that TCP throughput
    /// falls linearly.
    fn after(&self, at: u64) -> u64 {
        at + (INTERVAL as f64 / f64::from(self.count.max(1)).sqrt()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODEL_MS: u64 = 1_000_000;
    const TEST_TARGET: u64 = 5 * CODEL_MS;

    /// Judges a packet each millisecond for `span` milliseconds; returns the times of the drops.
    fn drops(codel: &mut Codel, from: u64, span: u64, waited: u64) -> Vec<u64> {
        let times = (from..from + span).filter(|&ms| {
            let now = Now(ms * CODEL_MS);
            codel.judge(waited, false, TEST_TARGET, now)
        });
        times.collect()
    }

    #[test]
    fn short_waits_and_short_bursts_cost_nothing() {
        let mut codel = Codel::default();
        assert_eq!(drops(&mut codel, 1, 1000, TEST_TARGET - 1), []);
        assert_eq!(drops(&mut codel, 1001, 99, 4 * TEST_TARGET), []);
        assert_eq!(drops(&mut codel, 1100, 1, 0), []);
        assert_eq!(drops(&mut codel, 1101, 99, 4 * TEST_TARGET), []);
    }

    #[test]
    fn the_longer_waits_last_the_more_is_dropped() {
        let mut codel = Codel::default();
        let times = drops(&mut codel, 1000, 500, 2 * TEST_TARGET);
        // 100 ms, then intervals of 100 ms divided by the roots of 1, 2 and 3.
        assert_eq!(times[..4], [1100, 1200, 1271, 1329]);
        assert_eq!(drops(&mut codel, 1500, 1, 0), []);
        let again = drops(&mut codel, 1501, 200, 2 * TEST_TARGET);
        assert!(again.len() > 2, "{again:?}");
    }

    #[test]
    fn the_last_packet_of_a_queue_is_never_dropped() {
        let mut codel = Codel::default();
        let any = (0..1000)
            .any(|ms| codel.judge(100 * TEST_TARGET, true, TEST_TARGET, Now(ms * CODEL_MS)));
        assert!(!any);
    }
}
