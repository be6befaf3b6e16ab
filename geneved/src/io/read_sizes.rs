//! Detects bulk traffic: long super-packets and trains, where throughput counts, as opposed to small packets, where
//! latency counts.
//!
//! Only keeps the average; the effects of bulk are documented where they occur: how many buffers are in rotation and
//! how long a worker waits for more completions ([`super::uring`]), and its time slice ([`super::sched`]).

use super::backend::PoolKind;

/// Average packet sizes in bytes above which bulk begins and below which it ends.
const ABOVE: usize = 8 << 10;
const BELOW: usize = 4 << 10;

/// Moving averages of the lengths a worker read, in bytes.
#[derive(Debug, Default)]
pub(super) struct ReadSizes {
    tun: usize,
    udp: usize,
    bulk: bool,
}

impl ReadSizes {
    /// Records a packet or train of `len` bytes.
    pub(super) fn note(&mut self, side: PoolKind, len: usize) {
        let average = match side {
            PoolKind::Tun => &mut self.tun,
            PoolKind::Udp => &mut self.udp,
            PoolKind::Waiting(_) => return,
        };
        *average = (*average * 7 + len) / 8;
    }

    /// Returns whether packets come in bulk if that changed since the last call. One direction suffices: the other
    /// one carries its acknowledgements.
    pub(super) fn bulk_change(&mut self) -> Option<bool> {
        let longest = self.tun.max(self.udp);
        let bulk = longest > if self.bulk { BELOW } else { ABOVE };
        (bulk != std::mem::replace(&mut self.bulk, bulk)).then_some(bulk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_begins_with_long_packets_and_ends_with_short_ones() {
        let mut pace = ReadSizes::default();
        assert_eq!(pace.bulk_change(), None);
        for _ in 0..8 {
            pace.note(PoolKind::Tun, 60_000);
            pace.note(PoolKind::Udp, 60);
        }
        assert_eq!(pace.bulk_change(), Some(true));
        assert_eq!(pace.bulk_change(), None);
        pace.note(PoolKind::Tun, 60);
        assert_eq!(
            pace.bulk_change(),
            None,
            "one short packet is not the end of it"
        );
        for _ in 0..30 {
            pace.note(PoolKind::Tun, 60);
        }
        assert_eq!(pace.bulk_change(), Some(false));
    }

    #[test]
    fn lengths_between_the_limits_change_nothing() {
        let mut pace = ReadSizes::default();
        for _ in 0..100 {
            pace.note(PoolKind::Udp, 6_000);
        }
        assert_eq!(pace.bulk_change(), None);
        for _ in 0..100 {
            pace.note(PoolKind::Udp, 60_000);
        }
        assert_eq!(pace.bulk_change(), Some(true));
        for _ in 0..100 {
            pace.note(PoolKind::Udp, 6_000);
        }
        assert_eq!(pace.bulk_change(), None);
    }
}
