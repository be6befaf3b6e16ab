//! Token buckets that many threads take from without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::time::Now;

/// A token bucket that many threads take from without a lock: the generic cell rate algorithm (ITU-T
/// I.371), whose whole state is one moment, the theoretical arrival time.
///
/// In any time `t` at most `rate·t + burst` bytes pass, or `rate·t` and one packet where that is larger than
/// the burst: such a packet passes when the bucket is full and is paid for like any other, so that
/// super-packets are not starved by a small burst.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    burst: u64,
    /// How much finer than a nanosecond a tick is, as a shift: at 100 Gbit/s 64 bytes take 5.12 ns, and whole
    /// nanoseconds would be 15 % off.
    shift: u32,
    /// Ticks that one byte takes, in units of 2^-32.
    per_byte: u64,
    /// Ticks that `burst` bytes take.
    depth: u64,
    /// No moment further ahead than this many ticks can be real; it is one of the past, before ticks wrapped.
    horizon: u64,
    /// The moment at which the bucket is full again, in ticks; wraps around.
    full_at: AtomicU64,
    /// It limits nobody any more.
    retired: AtomicBool,
}

/// No packet is charged for more bytes than this; a super-packet has 64 KiB.
const LARGEST_PACKET: u64 = 1 << 20;

/// The longest time that a burst is reckoned to last, in ticks.
const LONGEST_BURST: u64 = 1 << 60;

/// Bytes that queues may have reserved beyond the burst: the next portions of all of them together.
const MOST_RESERVED: u64 = 64 << 20;

/// A packet of this many bytes lasts at least 256 ticks, so that rounding up to one tick costs under half a per cent.
const SMALL_PACKET: u64 = 64;

/// How far the clocks of two threads may be apart, in nanoseconds.
const SKEW: u64 = 1_000_000_000;

impl Bucket {
    /// A full bucket. `rate` is in bytes a second, and 0 is taken for 1; `burst` is in bytes.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        let ticks_per_packet = |shift: u32| {
            (u128::from(SMALL_PACKET * 1_000_000_000) << shift) / u128::from(rate.max(1))
        };
        let shift = (0..8)
            .find(|&shift| ticks_per_packet(shift) >= 256)
            .unwrap_or(8);
        // Fits: a shift is only for rates beyond 250 MB a second, and without one this is 2^62 at most.
        let per_byte = (1_000_000_000_u128 << (32 + shift)).div_ceil(u128::from(rate.max(1)));
        let mut bucket = Bucket {
            rate,
            burst,
            shift,
            per_byte: u64::try_from(per_byte).unwrap_or(u64::MAX),
            depth: 0,
            horizon: 0,
            full_at: AtomicU64::new(0),
            retired: AtomicBool::new(false),
        };
        bucket.depth = bucket.ticks(burst);
        bucket.horizon = bucket.depth
            + bucket.ticks(MOST_RESERVED)
            + 2 * bucket.ticks(LARGEST_PACKET)
            + (SKEW << shift);
        bucket
    }

    /// The rate that it was made with, in bytes a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// The burst that it was made with, in bytes.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// The burst, in bytes, of a rate that is given without one: 25 ms of it, and no less than two super-packets. A worker that
    /// runs late catches up with it.
    #[must_use]
    pub const fn default_burst(rate: u64) -> u64 {
        const LEAST: u64 = 128 * 1024;
        let burst = rate / 40;
        if burst < LEAST { LEAST } else { burst }
    }

    /// Whether a packet of `bytes` is within the rate; if so, it is paid for.
    #[inline]
    pub fn take(&self, bytes: u64, now: Now) -> bool {
        self.take_marked(bytes, now, 0)
    }

    /// Like [`Bucket::take`], for a packet with a drop precedence in the spirit of RFC 2597: 0 may use the
    /// whole burst, 1 must leave a third of it, 2 and above two thirds. Where a class is over its rate, packets
    /// of a higher precedence are dropped first; alone, each precedence gets the whole rate.
    #[inline]
    pub fn take_marked(&self, bytes: u64, now: Now, precedence: u8) -> bool {
        let (cost, now) = (self.packet_ticks(bytes), self.tick(now));
        let depth = self.depth_for(precedence);
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let debt = self.debt(full_at, now);
            if debt != 0 && debt + cost > depth {
                return false;
            }
            let next = now.wrapping_add(debt + cost);
            match self
                .full_at
                .compare_exchange_weak(full_at, next, Relaxed, Relaxed)
            {
                Ok(_) => return true,
                Err(there) => full_at = there,
            }
        }
    }

    /// What [`Bucket::take_marked`] would answer; nothing is paid for.
    #[inline]
    #[must_use]
    pub fn would_take(&self, bytes: u64, now: Now, precedence: u8) -> bool {
        let debt = self.debt(self.full_at.load(Relaxed), self.tick(now));
        debt == 0 || debt + self.packet_ticks(bytes) <= self.depth_for(precedence)
    }

    /// Pays for `bytes` that wait, and returns the moment from which they are within the rate. Whoever asks first gets the
    /// earlier moment, so that several queues share a bucket fairly. `None` where too much is reserved already:
    /// nothing is paid for then.
    #[must_use]
    pub fn reserve(&self, bytes: u64, now: Now) -> Option<Now> {
        if self.retired.load(Relaxed) {
            return Some(now);
        }
        let (cost, tick) = (self.packet_ticks(bytes), self.tick(now));
        let most = self.depth + self.ticks(MOST_RESERVED);
        let mut full_at = self.full_at.load(Relaxed);
        loop {
            let debt = self.debt(full_at, tick);
            if debt > most {
                return None;
            }
            let next = tick.wrapping_add(debt + cost);
            match self
                .full_at
                .compare_exchange_weak(full_at, next, Relaxed, Relaxed)
            {
                Ok(_) => {
                    let wait = (debt + cost).saturating_sub(self.depth).min(debt);
                    return Some(Now(now.0.saturating_add(wait.div_ceil(1 << self.shift))));
                }
                Err(there) => full_at = there,
            }
        }
    }

    /// Lets everything pass from now on, what waits included: the configuration has no use for it any more.
    pub(super) fn retire(&self, retired: bool) {
        self.retired.store(retired, Relaxed);
    }

    /// Bytes that could be taken at once at this moment, for those who watch.
    #[must_use]
    pub fn level(&self, now: Now) -> u64 {
        let debt = self.debt(self.full_at.load(Relaxed), self.tick(now));
        let free = u128::from(self.depth.saturating_sub(debt)) << 32;
        u64::try_from(free / u128::from(self.per_byte)).map_or(self.burst, |b| b.min(self.burst))
    }

    #[inline]
    fn tick(&self, now: Now) -> u64 {
        now.0.wrapping_shl(self.shift)
    }

    /// How long it is until the bucket is full, in ticks.
    #[inline]
    fn debt(&self, full_at: u64, now: u64) -> u64 {
        let ahead = full_at.wrapping_sub(now);
        if ahead > self.horizon { 0 } else { ahead }
    }

    #[inline]
    fn packet_ticks(&self, bytes: u64) -> u64 {
        self.ticks(bytes.min(LARGEST_PACKET))
    }

    #[inline]
    fn ticks(&self, bytes: u64) -> u64 {
        let ticks = (u128::from(bytes) * u128::from(self.per_byte)).div_ceil(1 << 32);
        u64::try_from(ticks).map_or(LONGEST_BURST, |ticks| ticks.min(LONGEST_BURST))
    }

    #[inline]
    fn depth_for(&self, precedence: u8) -> u64 {
        match precedence {
            0 => self.depth,
            1 => self.depth - self.depth / 3,
            _ => self.depth / 3,
        }
    }
}

/// Takes from all of these buckets or from none, as a packet that a link, an endpoint and a class limit must.
///
/// Where another thread empties one of them in between, the packet is refused although the buckets before that
/// one were charged: the rate is never exceeded by it.
#[inline]
pub fn take_all<'a, B>(buckets: B, bytes: u64, now: Now, precedence: u8) -> bool
where
    B: IntoIterator<Item = &'a Bucket> + Clone,
{
    let mut every = buckets.clone().into_iter();
    every.all(|bucket| bucket.would_take(bytes, now, precedence))
        && buckets
            .into_iter()
            .all(|bucket| bucket.take_marked(bytes, now, precedence))
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
