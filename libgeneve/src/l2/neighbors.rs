//! Neighbour table: IP to MAC address bindings learned from ARP and Neighbor Discovery.
//!
//! Bounded and aged like the FDB. The latest announcement of an address wins, as in any ARP cache. Bindings of
//! configured endpoints are kept elsewhere and take precedence.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fdb::FdbHasher;
use super::{FdbLimits, LearnOutcome};
use crate::time::Now;
use crate::wire::ethernet::Mac;
use crate::wire::nd::AdvertisementFlags;

/// Neighbour entry for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborEntry {
    /// IP address.
    pub addr: IpAddr,
    /// MAC address.
    pub mac: Mac,
    /// Time since it was last announced.
    pub used: Duration,
}

/// Neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnedNeighbor {
    /// MAC address.
    pub mac: Mac,
    /// Flags of the latest advertisement from this MAC address; `None` if it has not advertised.
    pub flags: Option<AdvertisementFlags>,
    /// When it was last announced.
    pub seen: Now,
}

/// Neighbour table of one link.
#[derive(Debug)]
pub struct NeighborTable {
    entries: Mutex<hashbrown::HashMap<IpAddr, LearnedNeighbor, FdbHasher>>,
}

impl NeighborTable {
    /// Returns an empty table; `key` is secret.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        NeighborTable {
            entries: Mutex::new(hashbrown::HashMap::with_hasher(FdbHasher(key))),
        }
    }

    /// Returns the MAC address of `addr`, unless the entry has expired.
    #[must_use]
    pub fn find(&self, addr: IpAddr, limits: &FdbLimits, now: Now) -> Option<Mac> {
        self.neighbor(addr, limits, now).map(|known| known.mac)
    }

    /// Returns the entry of `addr`, unless it has expired.
    #[must_use]
    pub fn neighbor(&self, addr: IpAddr, limits: &FdbLimits, now: Now) -> Option<LearnedNeighbor> {
        let known = self.entries().get(&addr).copied();
        known.filter(|known| !limits.over(known.seen, now))
    }

    /// Learns that `addr` has this MAC address, and the flags it was advertised with.
    pub fn learn(
        &self,
        addr: IpAddr,
        mac: Mac,
        flags: Option<AdvertisementFlags>,
        limits: &FdbLimits,
        now: Now,
    ) -> LearnOutcome {
        let mut entries = self.entries();
        let full = entries.len() >= limits.entries as usize;
        match entries.get_mut(&addr) {
            Some(known) => {
                let moved = known.mac != mac;
                let before = known.flags.filter(|_| !moved);
                *known = LearnedNeighbor {
                    mac,
                    flags: flags.or(before),
                    seen: now,
                };
                if moved {
                    LearnOutcome::Moved
                } else {
                    LearnOutcome::Known
                }
            }
            None if full => LearnOutcome::Full,
            None => {
                let seen = now;
                entries.insert(addr, LearnedNeighbor { mac, flags, seen });
                LearnOutcome::New
            }
        }
    }

    /// Removes expired entries; call about once a second. Returns how many were removed.
    pub fn expire(&self, limits: &FdbLimits, now: Now) -> usize {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|_, known| !limits.over(known.seen, now));
        before - entries.len()
    }

    /// Removes all entries.
    pub fn clear(&self) {
        self.entries().clear();
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether the table is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries that have not expired, sorted.
    #[must_use]
    pub fn entries_at(&self, limits: &FdbLimits, now: Now) -> Vec<NeighborEntry> {
        let entries = self.entries();
        let mut list: Vec<_> = entries
            .iter()
            .filter(|(_, known)| !limits.over(known.seen, now))
            .map(|(&addr, known)| NeighborEntry {
                addr,
                mac: known.mac,
                used: now.since(known.seen),
            })
            .collect();
        list.sort_unstable_by_key(|e| e.addr);
        list
    }

    fn entries(&self) -> MutexGuard<'_, hashbrown::HashMap<IpAddr, LearnedNeighbor, FdbHasher>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEIGHBOR_TEST_LIMITS: FdbLimits = FdbLimits {
        entries: 2,
        ageing: Duration::from_secs(10),
    };

    fn addr(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn mac(n: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, n])
    }

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    #[test]
    fn who_claims_an_address_last_has_it_for_a_while() {
        let table = NeighborTable::new([1, 2]);
        assert_eq!(
            table.learn(addr(1), mac(1), None, &NEIGHBOR_TEST_LIMITS, at(0)),
            LearnOutcome::New
        );
        assert_eq!(
            table.learn(addr(1), mac(1), None, &NEIGHBOR_TEST_LIMITS, at(1)),
            LearnOutcome::Known
        );
        assert_eq!(
            table.learn(addr(1), mac(2), None, &NEIGHBOR_TEST_LIMITS, at(2)),
            LearnOutcome::Moved
        );
        assert_eq!(
            table.find(addr(1), &NEIGHBOR_TEST_LIMITS, at(12)),
            Some(mac(2))
        );
        assert_eq!(table.find(addr(1), &NEIGHBOR_TEST_LIMITS, at(13)), None);
        let entry = NeighborEntry {
            addr: addr(1),
            mac: mac(2),
            used: Duration::from_secs(3),
        };
        assert_eq!(table.entries_at(&NEIGHBOR_TEST_LIMITS, at(5)), [entry]);
        assert_eq!(table.expire(&NEIGHBOR_TEST_LIMITS, at(13)), 1);
        assert!(table.is_empty());
    }

    #[test]
    fn a_full_table_keeps_what_it_has() {
        let table = NeighborTable::new([1, 2]);
        for n in 0..2 {
            assert_eq!(
                table.learn(addr(n), mac(n), None, &NEIGHBOR_TEST_LIMITS, at(0)),
                LearnOutcome::New
            );
        }
        assert_eq!(
            table.learn(addr(9), mac(9), None, &NEIGHBOR_TEST_LIMITS, at(0)),
            LearnOutcome::Full
        );
        assert_eq!(
            table.learn(addr(0), mac(7), None, &NEIGHBOR_TEST_LIMITS, at(0)),
            LearnOutcome::Moved
        );
        assert_eq!(
            (
                table.len(),
                table.find(addr(9), &NEIGHBOR_TEST_LIMITS, at(0))
            ),
            (2, None)
        );
        table.clear();
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn what_was_advertised_lasts_as_long_as_the_mac_address() {
        let table = NeighborTable::new([1, 2]);
        let router = Some(AdvertisementFlags {
            router: true,
            overrides: true,
        });
        let said = |n| {
            table
                .neighbor(addr(1), &NEIGHBOR_TEST_LIMITS, at(n))
                .unwrap()
                .flags
        };
        table.learn(addr(1), mac(1), None, &NEIGHBOR_TEST_LIMITS, at(0));
        assert_eq!(said(0), None);
        table.learn(addr(1), mac(1), router, &NEIGHBOR_TEST_LIMITS, at(1));
        table.learn(addr(1), mac(1), None, &NEIGHBOR_TEST_LIMITS, at(2));
        assert_eq!(said(2), router);
        let host = Some(AdvertisementFlags::default());
        table.learn(addr(1), mac(1), host, &NEIGHBOR_TEST_LIMITS, at(3));
        assert_eq!(said(3), host);
        table.learn(addr(1), mac(2), None, &NEIGHBOR_TEST_LIMITS, at(4));
        assert_eq!(said(4), None);
    }
}
