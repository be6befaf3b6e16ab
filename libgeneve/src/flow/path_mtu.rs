//! Path MTUs behind interfaces, of this host and of others, as ICMP errors from there report them.
//!
//! A kernel cuts no super-packet for a narrower way: it tells the sender, whose segments may have fitted all along. So
//! whoever gets one without its segment size needs to know, and the sender to know what will be taken for it. Both see
//! the error pass. A bounded table without a lock; what two destinations share is lost
//! to the later one.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::FlowHasher;
use crate::link_index::LinkIndex;
use crate::mtu::MIN_IPV6;
use crate::time::Now;

/// Destinations that are remembered at once, a power of two.
const PATH_MTU_SLOTS: usize = 1024;
/// How long a report holds: as long as Linux keeps its own (`net.ipv4.route.mtu_expires`).
const LIFETIME: Duration = Duration::from_secs(600);
/// What no report goes below: the least that Linux takes from ICMP over IPv4 (`net.ipv4.route.min_pmtu`).
const MIN_REPORTED_V4: u32 = 552;

/// The table. A slot holds 24 bits of the destination's hash, 24 of the second of the report, and 16 of the MTU; 0 is
/// empty.
#[derive(Debug)]
pub struct PathMtus {
    slots: Box<[AtomicU64]>,
    hasher: FlowHasher,
}

impl PathMtus {
    /// An empty table; `secret` keys its hashes.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        PathMtus {
            slots: (0..PATH_MTU_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: FlowHasher::new(secret),
        }
    }

    /// Notes that only packets of `mtu` bytes reach `dst` in the VPC of `link`.
    pub fn report(&self, link: LinkIndex, dst: IpAddr, mtu: u32, now: Now) {
        // A router that does not know RFC 1191 reports 0.
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

    /// The longest packet, in bytes, that reaches `dst` in the VPC of `link`, if a report within ten minutes
    /// said so.
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

/// The bits of a second that a slot holds.
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
