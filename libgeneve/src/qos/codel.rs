//! Controlled delay (RFC 8289): which packets of a queue to drop or mark, by how long they waited.

use crate::time::Now;

/// How long packets may have waited longer than the target before the first is dropped, in nanoseconds.
const INTERVAL: u64 = 100_000_000;

/// The state of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    /// When packets will have waited longer than the target for a whole interval; 0 while they do not.
    above_until: u64,
    /// When to drop the next, while dropping.
    drop_next: u64,
    /// Drops since dropping began.
    count: u32,
    /// What `count` was when dropping began.
    last_count: u32,
    dropping: bool,
}

impl Codel {
    /// Whether the packet that leaves now, after it `waited`, is to be dropped, or marked in its place. `alone` says that
    /// nothing waits behind it: such a queue is never too long. `target` is in nanoseconds.
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

    /// Whether packets have waited too long for a whole interval.
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

    /// Begins to drop; where dropping ended lately, it goes on at about the rate that it had.
    fn begin(&mut self, now: u64) {
        let grown = self.count.wrapping_sub(self.last_count);
        let lately = now.saturating_sub(self.drop_next) < 16 * INTERVAL;
        self.count = if lately && grown > 1 { grown } else { 1 };
        self.last_count = self.count;
        self.dropping = true;
        self.drop_next = self.after(now);
    }

    /// The control law: the pause between drops falls with the square root of their number, so that the throughput of
    /// TCP falls linearly.
    fn after(&self, at: u64) -> u64 {
        at + (INTERVAL as f64 / f64::from(self.count.max(1)).sqrt()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const TARGET: u64 = 5 * MS;

    /// Judges a packet each millisecond for so long; when those were that it dropped.
    fn drops(codel: &mut Codel, from: u64, span: u64, waited: u64) -> Vec<u64> {
        let times = (from..from + span).filter(|&ms| {
            let now = Now(ms * MS);
            codel.judge(waited, false, TARGET, now)
        });
        times.collect()
    }

    #[test]
    fn short_waits_and_short_bursts_cost_nothing() {
        let mut codel = Codel::default();
        assert_eq!(drops(&mut codel, 1, 1000, TARGET - 1), []);
        assert_eq!(drops(&mut codel, 1001, 99, 4 * TARGET), []);
        assert_eq!(drops(&mut codel, 1100, 1, 0), []);
        assert_eq!(drops(&mut codel, 1101, 99, 4 * TARGET), []);
    }

    #[test]
    fn the_longer_waits_last_the_more_is_dropped() {
        let mut codel = Codel::default();
        let times = drops(&mut codel, 1000, 500, 2 * TARGET);
        // 100 ms, then pauses of 100 ms by the root of 1, 2, 3.
        assert_eq!(times[..4], [1100, 1200, 1271, 1329]);
        assert_eq!(drops(&mut codel, 1500, 1, 0), []);
        let again = drops(&mut codel, 1501, 200, 2 * TARGET);
        assert!(again.len() > 2, "{again:?}");
    }

    #[test]
    fn the_last_packet_of_a_queue_is_never_dropped() {
        let mut codel = Codel::default();
        let any = (0..1000).any(|ms| codel.judge(100 * TARGET, true, TARGET, Now(ms * MS)));
        assert!(!any);
    }
}
