//! Unknown VNIs: the latest VNIs that a worker has seen and that match no link of this host.
//!
//! One worker writes, with plain loads and stores; readers skip an entry that is being replaced.

use std::array;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of entries.
pub const MAX_UNKNOWN_VNIS: usize = 16;

/// VNI that matches no link, and a host that used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownVni {
    /// The VNI.
    pub vni: u32,
    /// UDP port that it arrived on.
    pub port: u16,
    /// Outer source.
    pub host: IpAddr,
    /// Number of packets since the entry was made.
    pub count: u64,
    /// Arrival time of the last packet, by the packet path's clock.
    pub seen: u64,
}

/// Latest unknown VNIs of one worker.
#[derive(Debug)]
pub(super) struct UnknownVnis([VniSlot; MAX_UNKNOWN_VNIS]);

#[derive(Debug, Default)]
struct VniSlot {
    /// Odd while the slot is being rewritten; 0 before its first use.
    version: AtomicU64,
    /// VNI in the upper bits, port in the lower.
    key: AtomicU64,
    host: [AtomicU64; 2],
    count: AtomicU64,
    seen: AtomicU64,
}

impl Default for UnknownVnis {
    fn default() -> Self {
        UnknownVnis(array::from_fn(|_| VniSlot::default()))
    }
}

fn halves(host: IpAddr) -> [u64; 2] {
    let bits = match host {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

impl UnknownVnis {
    /// Counts a packet, evicting the entry that was not seen for longest; only the owning worker may call this.
    pub(super) fn note(&self, vni: u32, port: u16, host: IpAddr, now: u64) {
        let relaxed = Ordering::Relaxed;
        let key = u64::from(vni) << 16 | u64::from(port);
        let host = halves(host);
        let same = |slot: &&VniSlot| {
            slot.version.load(relaxed) != 0
                && slot.key.load(relaxed) == key
                && [0, 1].map(|half| slot.host[half].load(relaxed)) == host
        };
        if let Some(slot) = self.0.iter().find(same) {
            slot.count.store(slot.count.load(relaxed) + 1, relaxed);
            slot.seen.store(now, relaxed);
            return;
        }
        let age = |slot: &&VniSlot| (slot.version.load(relaxed) != 0, slot.seen.load(relaxed));
        let Some(slot) = self.0.iter().min_by_key(age) else {
            return;
        };
        let version = slot.version.load(relaxed);
        slot.version.store(version + 1, relaxed);
        std::sync::atomic::fence(Ordering::Release);
        slot.key.store(key, relaxed);
        for (half, bits) in slot.host.iter().zip(host) {
            half.store(bits, relaxed);
        }
        slot.count.store(1, relaxed);
        slot.seen.store(now, relaxed);
        slot.version.store(version + 2, Ordering::Release);
    }

    /// Returns all entries.
    pub(super) fn all(&self) -> impl Iterator<Item = UnknownVni> + '_ {
        self.0.iter().filter_map(VniSlot::read)
    }
}

impl VniSlot {
    fn read(&self) -> Option<UnknownVni> {
        let relaxed = Ordering::Relaxed;
        let version = self.version.load(Ordering::Acquire);
        let key = self.key.load(relaxed);
        let [high, low] = [0, 1].map(|half| u128::from(self.host[half].load(relaxed)));
        let (count, seen) = (self.count.load(relaxed), self.seen.load(relaxed));
        std::sync::atomic::fence(Ordering::Acquire);
        let whole = version != 0 && version.is_multiple_of(2);
        (whole && self.version.load(relaxed) == version).then(|| UnknownVni {
            vni: (key >> 16) as u32,
            port: key as u16,
            host: Ipv6Addr::from_bits(high << 64 | low).to_canonical(),
            count,
            seen,
        })
    }
}

/// Merges the entries of several workers by VNI, port and host, and sorts them, the latest first.
pub(super) fn latest(all: impl Iterator<Item = UnknownVni>) -> Vec<UnknownVni> {
    let mut sum: Vec<UnknownVni> = Vec::new();
    for one in all {
        let same = |other: &&mut UnknownVni| {
            (other.vni, other.port, other.host) == (one.vni, one.port, one.host)
        };
        match sum.iter_mut().find(same) {
            Some(other) => {
                other.count += one.count;
                other.seen = other.seen.max(one.seen);
            }
            None => sum.push(one),
        }
    }
    sum.sort_by_key(|one| std::cmp::Reverse(one.seen));
    sum.truncate(MAX_UNKNOWN_VNIS);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_with_their_counts() {
        let seen = UnknownVnis::default();
        assert_eq!(seen.all().count(), 0);
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        for now in 1..=5 {
            seen.note(0xff_ffff, 6081, v4, now);
        }
        seen.note(7, 6081, v6, 6);
        // Made-up VNIs take no more room and do not evict one that is still seen.
        for vni in 100..1000 {
            seen.note(vni, 6081, v6, u64::from(vni));
            seen.note(0xff_ffff, 6081, v4, u64::from(vni));
        }
        let all: Vec<_> = seen.all().collect();
        assert_eq!(all.len(), MAX_UNKNOWN_VNIS);
        let kept = all.iter().find(|one| one.vni == 0xff_ffff).unwrap();
        assert_eq!((kept.host, kept.port, kept.count), (v4, 6081, 905));
        assert!(all.iter().all(|one| one.vni > 900));
        let both = latest(all.iter().chain(&all).copied());
        assert_eq!((both.len(), both[0].seen), (MAX_UNKNOWN_VNIS, 999));
        let kept = both.iter().find(|one| one.vni == 0xff_ffff).unwrap();
        assert_eq!(kept.count, 1810);
    }
}
