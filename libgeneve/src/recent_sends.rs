//! Recently sent datagrams: destination host, source port, and the length of the longest one.
//!
//! Anybody can forge an ICMP error, but only one that quotes a recently sent datagram can be genuine. The table is
//! bounded and lock-free, and written at most once per `sendmsg`; if two pairs of host and port share a slot, the
//! later one wins.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::time::Now;

/// Pairs of host and source port that are remembered; a power of two.
const SENT_SLOTS: usize = 8192;
/// How long a datagram is remembered. The kernel gives up on a host that does not resolve after three seconds, and a
/// router may be slow to report it.
pub const LATELY: Duration = Duration::from_secs(10);

/// Table of recently sent datagrams. A slot holds 24 bits of the pair's hash, 24 of the second of sending, and 16 of
/// the length; 0 is empty.
#[derive(Debug)]
pub struct RecentSends {
    slots: Box<[AtomicU64]>,
    secret: u64,
}

impl RecentSends {
    /// Returns an empty table; `secret` keys its hashes.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        RecentSends {
            slots: (0..SENT_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            secret: secret[0] ^ secret[1].rotate_left(32),
        }
    }

    /// Records that a datagram of `len` bytes, outer IP header included, was sent to `host` from source port `port`.
    #[inline]
    pub fn note(&self, host: IpAddr, port: u16, len: usize, now: Now) {
        let (slot, tag) = self.place(host, port);
        let held = slot.load(Relaxed);
        let len = len.min(usize::from(u16::MAX)) as u64;
        // Keep a longer recent datagram: it vouches for more.
        if is_of(held, tag, now) && (held & 0xffff) > len {
            return;
        }
        let new = (tag << 40) | (seconds(now) << 16) | len;
        // Other workers read the same cache line: write only if something changes.
        if new != held {
            slot.store(new, Relaxed);
        }
    }

    /// Returns the length, in bytes of outer IP packet, of the longest datagram recently sent to `host` from source
    /// port `port`; `None` if there was none.
    #[must_use]
    pub fn longest(&self, host: IpAddr, port: u16, now: Now) -> Option<u16> {
        let (slot, tag) = self.place(host, port);
        let held = slot.load(Relaxed);
        is_of(held, tag, now).then_some(held as u16)
    }

    #[inline]
    fn place(&self, host: IpAddr, port: u16) -> (&AtomicU64, u64) {
        let host = match host {
            IpAddr::V4(host) => u64::from(u32::from(host)),
            IpAddr::V6(host) => {
                let host = u128::from(host);
                (host as u64) ^ ((host >> 64) as u64).rotate_left(23) ^ 1 << 63
            }
        };
        // Two multiplications, so that adjacent hosts or ports do not share slots.
        let mut hash = (host ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 29 ^ u64::from(port)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 32;
        (&self.slots[hash as usize & (SENT_SLOTS - 1)], hash >> 40)
    }
}

/// Mask of the seconds that a slot holds.
const SENT_SECONDS: u64 = (1 << 24) - 1;

fn seconds(now: Now) -> u64 {
    (now.0 / 1_000_000_000) & SENT_SECONDS
}

/// Whether a slot holds this pair and is recent.
fn is_of(held: u64, tag: u64, now: Now) -> bool {
    let age = seconds(now).wrapping_sub(held >> 16) & SENT_SECONDS;
    held != 0 && held >> 40 == tag && age < LATELY.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    #[test]
    fn the_longest_datagram_is_remembered_for_its_host_and_port_and_a_while() {
        let sent = RecentSends::new([1, 2]);
        let [four, six] = ["192.0.2.1", "2001:db8::1"].map(|addr| addr.parse().unwrap());
        assert_eq!(sent.longest(four, 50_000, at(5)), None);
        sent.note(four, 50_000, 1400, at(5));
        sent.note(six, 50_000, 900, at(5));
        sent.note(four, 50_000, 100, at(8));
        assert_eq!(sent.longest(four, 50_000, at(14)), Some(1400));
        assert_eq!(sent.longest(six, 50_000, at(14)), Some(900));
        assert_eq!(sent.longest(four, 50_001, at(8)), None);
        assert_eq!(
            sent.longest("192.0.2.2".parse().unwrap(), 50_000, at(8)),
            None
        );
        assert_eq!(sent.longest(four, 50_000, at(15)), None);
        sent.note(four, 50_000, 100, at(16));
        assert_eq!(sent.longest(four, 50_000, at(16)), Some(100));
        sent.note(four, 50_000, 70_000, at(17));
        assert_eq!(sent.longest(four, 50_000, at(26)), Some(u16::MAX));
    }

    #[test]
    fn hosts_and_ports_are_spread() {
        let sent = RecentSends::new([3, 4]);
        let hosts = (1..=16).map(|n| IpAddr::from([192, 0, 2, n]));
        let pairs: Vec<_> = hosts
            .flat_map(|h| (50_000..50_064).map(move |p| (h, p)))
            .collect();
        for &(host, port) in &pairs {
            sent.note(host, port, 1000, at(1));
        }
        let kept = pairs
            .iter()
            .filter(|(host, port)| sent.longest(*host, *port, at(1)).is_some());
        // 1,024 pairs in 8,192 slots: about one in sixteen is overwritten by another.
        assert!(kept.count() > 900);
    }
}
