//! Path MTUs behind interfaces, of this host and of others, learned from passing ICMP errors.
//!
//! A kernel does not cut a super-packet for a narrower path: it reports an error to the sender, whose segments may
//! have fitted all along. So the receiver of a super-packet without a segment size must know the path MTU, and the
//! sender must know what the receiver assumes. Both see the error pass. The table is bounded and lock-free; when two
//! destinations share a slot, the later one wins.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::FlowHasher;
use crate::link_index::LinkIndex;
use crate::mtu::MIN_IPV6;
use crate::time::Now;

/// Number of destinations remembered, a power of two.
const PATH_MTU_SLOTS: usize = 1024;
/// Lifetime of a report, as in Linux (`net.ipv4.route.mtu_expires`).
const LIFETIME: Duration = Duration::from_secs(600);
/// Lower bound for reported MTUs: the smallest that Linux accepts from ICMP over IPv4 (`net.ipv4.route.min_pmtu`).
const MIN_REPORTED_V4: u32 = 552;

/// Table of path MTUs. A slot holds 24 bits of the destination's hash, 24 bits of the time of the report in seconds,
/// and 16 bits of MTU; 0 is empty.
#[derive(Debug)]
pub struct PathMtus {
    slots: Box<[AtomicU64]>,
    hasher: FlowHasher,
}

impl PathMtus {
    /// Returns an empty table; `secret` keys its hashes.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        PathMtus {
            slots: (0..PATH_MTU_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: FlowHasher::new(secret),
        }
    }

    /// Records that only packets of up to `mtu` bytes reach `dst` in the VPC of `link`.
    pub fn report(&self, link: LinkIndex, dst: IpAddr, mtu: u32, now: Now) {
        // Routers that predate RFC 1191 report 0.
        if mtu == 0 {
            return;
        }
        let least = match dst {
            IpAddr::V4(_) => MIN_REPORTED_V4,
            IpAddr::V6(_) => MIN_IPV6,
        };
        let mtu = u64::from(mtu.clamp(least, u16::MAX.into()));
        let (slot, tag) = self.place(link, dst);
        slot.store((tag << 40) | (seconds(now) << 16) | mtu, Relaxed);
    }

    /// Returns the longest packet, in bytes, that reaches `dst` in the VPC of `link`, if there was a report within
    /// the last ten minutes.
    #[inline]
    #[must_use]
    pub fn mtu(&self, link: LinkIndex, dst: IpAddr, now: Now) -> Option<u16> {
        let (slot, tag) = self.place(link, dst);
        let held = slot.load(Relaxed);
        let age = seconds(now).wrapping_sub(held >> 16) & PATH_MTU_SECONDS;
        (held != 0 && held >> 40 == tag && age < LIFETIME.as_secs()).then_some(held as u16)
    }

    fn place(&self, link: LinkIndex, dst: IpAddr) -> (&AtomicU64, u64) {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&link.0.to_be_bytes());
        match dst {
            IpAddr::V4(dst) => bytes[4..8].copy_from_slice(&dst.octets()),
            IpAddr::V6(dst) => bytes[4..].copy_from_slice(&dst.octets()),
        }
        let hash = self.hasher.hash_bytes(&bytes);
        (
            &self.slots[hash as usize & (PATH_MTU_SLOTS - 1)],
            hash >> 40,
        )
    }
}

/// The bits of a time in seconds that a slot holds.
const PATH_MTU_SECONDS: u64 = (1 << 24) - 1;

fn seconds(now: Now) -> u64 {
    (now.0 / 1_000_000_000) & PATH_MTU_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU_LINK: LinkIndex = LinkIndex(1);

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    #[test]
    fn a_report_holds_for_its_destination_and_ten_minutes() {
        let mtus = PathMtus::new([1, 2]);
        let [four, six] = ["10.0.0.2", "fd00::2"].map(|addr| addr.parse().unwrap());
        assert_eq!(mtus.mtu(MTU_LINK, four, at(0)), None);
        mtus.report(MTU_LINK, four, 1300, at(5));
        mtus.report(MTU_LINK, six, 1400, at(5));
        assert_eq!(mtus.mtu(MTU_LINK, four, at(604)), Some(1300));
        assert_eq!(mtus.mtu(MTU_LINK, six, at(604)), Some(1400));
        assert_eq!(mtus.mtu(LinkIndex(2), four, at(6)), None);
        assert_eq!(mtus.mtu(MTU_LINK, "10.0.0.3".parse().unwrap(), at(6)), None);
        assert_eq!(mtus.mtu(MTU_LINK, four, at(605)), None);
        mtus.report(MTU_LINK, four, 1200, at(700));
        assert_eq!(mtus.mtu(MTU_LINK, four, at(701)), Some(1200));
    }

    #[test]
    fn reports_are_bounded() {
        let mtus = PathMtus::new([1, 2]);
        let [four, six] = ["10.0.0.2", "fd00::2"].map(|addr| addr.parse().unwrap());
        for (reported, in_v4, in_v6) in [
            (0, None, None),
            (68, Some(552), Some(1280)),
            (1300, Some(1300), Some(1300)),
            (u32::MAX, Some(65_535), Some(65_535)),
        ] {
            mtus.report(MTU_LINK, four, reported, at(1));
            mtus.report(MTU_LINK, six, reported, at(1));
            assert_eq!(mtus.mtu(MTU_LINK, four, at(1)), in_v4);
            assert_eq!(mtus.mtu(MTU_LINK, six, at(1)), in_v6);
        }
    }
}
