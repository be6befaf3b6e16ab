//! What was sent lately: to which host, from which source port, and how long the longest datagram was.
//!
//! An ICMP error quotes a datagram. Anybody can write one; only what quotes a datagram that left lately can be
//! true. A bounded table without a lock, written at most once for each `sendmsg`; what two pairs of host and port share
//! is lost to the later one.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::time::Now;

/// Pairs of host and source port that are remembered at once, a power of two.
const SLOTS: usize = 8192;
/// How long ago is lately. A host that does not answer its neighbours is given up after three seconds, and a router
/// may be slow to tell.
pub const LATELY: Duration = Duration::from_secs(10);

/// The table. A slot holds 24 bits of the pair's hash, 24 of the second of sending, and 16 of the length; 0 is empty.
#[derive(Debug)]
pub struct SentLately {
    slots: Box<[AtomicU64]>,
    secret: u64,
}

impl SentLately {
    /// An empty table; `secret` keys its hashes.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        SentLately {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            secret: secret[0] ^ secret[1].rotate_left(32),
        }
    }

    /// Notes that a datagram of `len` bytes, outer IP header included, left for `host` from source port `port`.
    #[inline]
    pub fn note(&self, host: IpAddr, port: u16, len: usize, now: Now) {
        let (slot, tag) = self.place(host, port);
        let held = slot.load(Relaxed);
        let len = len.min(usize::from(u16::MAX)) as u64;
        // A longer one that left lately proves more.
        if is_of(held, tag, now) && (held & 0xffff) > len {
            return;
        }
        let new = (tag << 40) | (seconds(now) << 16) | len;
        // Other workers read the same place: it is written when it says something new.
        if new != held {
            slot.store(new, Relaxed);
        }
    }

    /// How long, in bytes of outer IP packet, the longest datagram was that left lately for `host` from source port
    /// `port`; `None` where none did.
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
        // Multiplied twice, so that neither hosts nor ports beside each other share places.
        let mut hash = (host ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ hash >> 29 ^ u64::from(port)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 32;
        (&self.slots[hash as usize & (SLOTS - 1)], hash >> 40)
    }
}

/// The bits of a second that a slot holds.
const SECONDS: u64 = (1 << 24) - 1;

fn seconds(now: Now) -> u64 {
    (now.0 / 1_000_000_000) & SECONDS
}

/// Whether a slot holds this pair, noted lately.
fn is_of(held: u64, tag: u64, now: Now) -> bool {
    let age = seconds(now).wrapping_sub(held >> 16) & SECONDS;
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
        let sent = SentLately::new([1, 2]);
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
        let sent = SentLately::new([3, 4]);
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
        // 1,024 pairs in 8,192 places: about one in sixteen is lost to another.
        assert!(kept.count() > 900);
    }
}
