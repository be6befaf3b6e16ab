//! Lock-free token bucket.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::time::Now;

/// Lock-free token bucket shared by threads: the generic cell rate algorithm (ITU-T I.371), whose whole state is one
/// timestamp, the theoretical arrival time.
///
/// In any time `t` at most `rate·t + burst` bytes pass, or `rate·t` and one packet if that packet is larger than the
/// burst: such a packet passes when the bucket is full and is charged like any other, so that a small burst does not
/// starve super-packets.
#[derive(Debug)]
pub struct Bucket {
    rate: u64,
    burst: u64,
    /// Resolution of a tick: 2^-shift nanoseconds. At 100 Gbit/s 64 bytes take 5.12 ns, and whole nanoseconds would
    /// be 15 % off.
    shift: u32,
    /// Ticks per byte, in units of 2^-32.
    per_byte: u64,
    /// Ticks per `burst` bytes.
    depth: u64,
    /// A timestamp further ahead than this many ticks cannot be valid; it is one from before the tick counter
    /// wrapped.
    horizon: u64,
    /// Time at which the bucket is full again, in ticks; wraps around.
    full_at: AtomicU64,
    /// No longer limits anything.
    retired: AtomicBool,
}

/// Most bytes charged for one packet; a super-packet has 64 KiB.
const LARGEST_PACKET: u64 = 1 << 20;

/// Longest duration assumed for a burst, in ticks.
const LONGEST_BURST: u64 = 1 << 60;

/// Bytes that queues may reserve beyond the burst, all queues together.
const MOST_RESERVED: u64 = 64 << 20;

/// A packet of this many bytes lasts at least 256 ticks, so that rounding up to one tick costs less than half a per
/// cent.
const SMALL_PACKET: u64 = 64;

/// Most by which the clocks of two threads may differ, in nanoseconds.
const SKEW: u64 = 1_000_000_000;

impl Bucket {
    /// Returns a full bucket. `rate` is in bytes a second, and 0 is taken as 1; `burst` is in bytes.
    #[must_use]
    pub fn new(rate: u64, burst: u64) -> Self {
        let ticks_per_packet = |shift: u32| {
            (u128::from(SMALL_PACKET * 1_000_000_000) << shift) / u128::from(rate.max(1))
        };
        let shift = (0..8)
            .find(|&shift| ticks_per_packet(shift) >= 256)
            .unwrap_or(8);
        // Cannot overflow: `shift` is nonzero only for rates above 250 MB a second, and without it this is at most
        // 2^62.
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

    /// Configured rate, in bytes a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Configured burst, in bytes.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Returns the default burst, in bytes, for a rate: 25 ms of it, and at least two super-packets, so that a worker
    /// that runs late can catch up.
    #[must_use]
    pub const fn default_burst(rate: u64) -> u64 {
        const LEAST: u64 = 128 * 1024;
        let burst = rate / 40;
        if burst < LEAST { LEAST } else { burst }
    }

    /// Charges the bucket if a packet of `bytes` is within the rate; returns whether it is.
    #[inline]
    pub fn take(&self, bytes: u64, now: Now) -> bool {
        self.take_marked(bytes, now, 0)
    }

    /// Like [`Bucket::take`], with a drop precedence in the spirit of RFC 2597: 0 may use the whole burst, 1 must
    /// leave a third of it, 2 and above two thirds. If a class exceeds its rate, packets of higher precedence are
    /// dropped first; each precedence on its own gets the whole rate.
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

    /// Returns what [`Bucket::take_marked`] would, without charging the bucket.
    #[inline]
    #[must_use]
    pub fn would_take(&self, bytes: u64, now: Now, precedence: u8) -> bool {
        let debt = self.debt(self.full_at.load(Relaxed), self.tick(now));
        debt == 0 || debt + self.packet_ticks(bytes) <= self.depth_for(precedence)
    }

    /// Charges the bucket for `bytes` that wait, and returns the time from which they are within the rate. First
    /// come, first served, so that several queues share a bucket fairly. `None` if too much is reserved already;
    /// nothing is charged then.
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

    /// Stops limiting, also for bytes that wait, because the configuration no longer has this bucket.
    pub(super) fn retire(&self, retired: bool) {
        self.retired.store(retired, Relaxed);
    }

    /// Bytes that could be taken at once now, for display.
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

    /// Time until the bucket is full, in ticks.
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

/// Charges all of these buckets or none, for a packet limited by link, endpoint and class.
///
/// If another thread empties one of them in between, the packet is refused although the buckets before it were
/// charged; the rate is never exceeded.
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
