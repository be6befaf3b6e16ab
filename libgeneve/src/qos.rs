//! Quality of service: classes, and the token buckets that hold links, endpoints and classes to a rate.
//!
//! A bucket decides whether a packet is over its rate, and nothing else: which buckets a packet meets,
//! and that it is dropped, is the datapath's business. A class's DSCP goes into the outer header
//! there too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
}

/// No packet is charged for more bytes than this; a super-packet has 64 KiB.
const LARGEST_PACKET: u64 = 1 << 20;

/// The longest time that a burst is reckoned to last, in ticks.
const LONGEST_BURST: u64 = 1 << 60;

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
        };
        bucket.depth = bucket.ticks(burst);
        bucket.horizon = bucket.depth + bucket.ticks(LARGEST_PACKET) + (SKEW << shift);
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

    /// A burst, in bytes, that lets TCP reach `rate` bytes a second: 25 ms of it, and no less than two super-packets.
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

/// A class of service, ready for the packet path.
#[derive(Clone, Debug)]
pub struct Class {
    /// The number that the class option carries.
    pub id: u8,
    /// Its name, unique on the link.
    pub name: String,
    /// What holds it to its rate on the way out; `None` where it has none.
    pub bucket: Option<Arc<Bucket>>,
    /// The same on the way in: the two directions do not share a rate.
    pub ingress: Option<Arc<Bucket>>,
    /// The DSCP of the outer header, 0 to 63; `None` where the link's setting applies.
    pub dscp: Option<u8>,
    /// What passed it, and what did not; shared by those that follow each other under one name.
    pub tally: Arc<Tally>,
}

/// Bytes that met a class; inner IP packets, headers included.
#[derive(Debug, Default)]
pub struct Tally {
    passed: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// Counts a packet that was within every rate, or over one.
    #[inline]
    pub fn count(&self, bytes: u64, passed: bool) {
        let counter = if passed { &self.passed } else { &self.refused };
        counter.fetch_add(bytes, Relaxed);
    }

    /// Bytes that passed, and bytes that did not.
    #[must_use]
    pub fn read(&self) -> (u64, u64) {
        (self.passed.load(Relaxed), self.refused.load(Relaxed))
    }
}

/// Whom a bucket limits, within one link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// The link as a whole, on the way out.
    Link,
    /// The link as a whole, on the way in.
    LinkIngress,
    /// The class of this name, on the way out.
    Class(String),
    /// The class of this name, on the way in.
    ClassIngress(String),
    /// The endpoint at this address.
    Endpoint(IpAddr),
}

/// Hands out buckets, so that one whose rate and burst stay as they are keeps its level across a change of
/// configuration, and a reload gives nobody another burst.
#[derive(Debug, Default)]
pub struct Buckets {
    known: HashMap<(String, Limited), Arc<Bucket>>,
}

impl Buckets {
    /// The bucket of this link and of whom it limits there: the one that was handed out before where `rate`
    /// (bytes a second) and `burst` (bytes) are the same, else a full one.
    pub fn bucket(&mut self, link: &str, limited: Limited, rate: u64, burst: u64) -> Arc<Bucket> {
        let fresh = || Arc::new(Bucket::new(rate, burst));
        let kept = self
            .known
            .entry((link.to_owned(), limited))
            .or_insert_with(fresh);
        if (kept.rate, kept.burst) != (rate, burst) {
            *kept = fresh();
        }
        Arc::clone(kept)
    }

    /// Forgets the buckets that nobody else holds.
    pub fn prune(&mut self) {
        self.known.retain(|_, bucket| Arc::strong_count(bucket) > 1);
    }
}

#[cfg(test)]
#[path = "qos_tests.rs"]
mod tests;
