//! MAC learning: the forwarding database (FDB) of an Ethernet link.
//!
//! Bounded, aged, and shared by all workers. An address seen somewhere else moves, as when a virtual machine
//! migrates, but moves are rate-limited so that a duplicate address or a loop cannot churn the table. Configured
//! entries are kept elsewhere and take precedence.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::StationLocation;
use crate::time::Now;
use crate::wire::ethernet::Mac;

/// Moves of one address that are followed within [`MOVE_WINDOW`].
const MOVES: u8 = 5;
/// RFC 7432 section 15.1 uses the same count in 180 s; the window is shorter so that a virtual machine that migrates
/// back and forth is not cut off for that long.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// An address seen within this time is not refreshed again, which saves writes.
const REFRESH: Duration = Duration::from_secs(1);

/// Limits of a link's learned tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbLimits {
    /// Maximum number of addresses.
    pub entries: u32,
    /// Time after which an address that was not seen again expires; zero means never.
    pub ageing: Duration,
}

impl Default for FdbLimits {
    /// 4096 addresses for 300 s, the default ageing time of a Linux bridge.
    fn default() -> Self {
        FdbLimits {
            entries: 4096,
            ageing: Duration::from_secs(300),
        }
    }
}

impl FdbLimits {
    /// Whether an entry last seen at `seen` has expired.
    pub(crate) fn over(&self, seen: Now, now: Now) -> bool {
        !self.ageing.is_zero() && now.since(seen) > self.ageing
    }
}

/// Result of learning a source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnOutcome {
    /// Already known at this place.
    Known,
    /// New entry.
    New,
    /// Moved here from another place.
    Moved,
    /// Seen at another place, but moved too often recently: the entry stays where it was.
    Refused,
    /// The table is full.
    Full,
}

/// FDB entry for display.
#[derive(Clone, Debug)]
pub struct FdbEntry {
    /// MAC address.
    pub mac: Mac,
    /// Where it was learned.
    pub place: StationLocation,
    /// Time since it was last seen, accurate to a second.
    pub used: Duration,
    /// Time since it was learned or moved.
    pub updated: Duration,
}

#[derive(Debug)]
struct LearnedEntry {
    place: StationLocation,
    seen: Now,
    since: Now,
    /// Moves since `window`.
    moves: u8,
    window: Now,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FdbHasher(pub(crate) [u64; 2]);

impl BuildHasher for FdbHasher {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0[0], self.0[1])
    }
}

/// Forwarding database of one link.
#[derive(Debug)]
pub struct Fdb {
    entries: Mutex<hashbrown::HashMap<Mac, LearnedEntry, FdbHasher>>,
    /// Bumped on every change; results of lookups made before it may be stale.
    generation: AtomicU64,
}

impl Fdb {
    /// Returns an empty table. `key` is secret, so that nobody outside can provoke hash collisions.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Fdb {
            entries: Mutex::new(hashbrown::HashMap::with_hasher(FdbHasher(key))),
            generation: AtomicU64::new(0),
        }
    }

    /// Generation of the table; differs before and after each change of an address's place.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Looks up an address; `None` if it is unknown or expired.
    #[must_use]
    pub fn find(&self, mac: Mac, limits: &FdbLimits, now: Now) -> Option<StationLocation> {
        let entries = self.entries();
        let entry = entries.get(&mac)?;
        (!limits.over(entry.seen, now)).then(|| entry.place.clone())
    }

    /// Learns `mac` from a frame received from `place`.
    pub fn learn(
        &self,
        mac: Mac,
        place: &StationLocation,
        limits: &FdbLimits,
        now: Now,
    ) -> LearnOutcome {
        let mut entries = self.entries();
        let full = entries.len() >= limits.entries as usize;
        let Some(entry) = entries.get_mut(&mac) else {
            if full {
                return LearnOutcome::Full;
            }
            let entry = LearnedEntry {
                place: place.clone(),
                seen: now,
                since: now,
                moves: 0,
                window: now,
            };
            entries.insert(mac, entry);
            self.changed();
            return LearnOutcome::New;
        };
        if entry.place == *place {
            if now.since(entry.seen) >= REFRESH {
                entry.seen = now;
            }
            return LearnOutcome::Known;
        }
        let forgotten = limits.over(entry.seen, now);
        if now.since(entry.window) >= MOVE_WINDOW {
            (entry.moves, entry.window) = (0, now);
        }
        if entry.moves >= MOVES && !forgotten {
            return LearnOutcome::Refused;
        }
        entry.moves = entry.moves.saturating_add(1);
        entry.place = place.clone();
        (entry.seen, entry.since) = (now, now);
        self.changed();
        LearnOutcome::Moved
    }

    /// Removes an address; `false` if it was not known.
    pub fn forget(&self, mac: Mac) -> bool {
        let gone = self.entries().remove(&mac).is_some();
        self.changed();
        gone
    }

    /// Keeps only the entries for which `keep` returns true. Returns how many were removed.
    pub fn retain(&self, mut keep: impl FnMut(Mac, &StationLocation) -> bool) -> usize {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|&mac, entry| keep(mac, &entry.place));
        let gone = before - entries.len();
        if gone > 0 {
            self.changed();
        }
        gone
    }

    /// Removes expired entries; call about once a second. Returns how many were removed.
    pub fn expire(&self, limits: &FdbLimits, now: Now) -> usize {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|_, entry| !limits.over(entry.seen, now));
        let gone = before - entries.len();
        if gone > 0 {
            self.changed();
        }
        gone
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
    pub fn entries_at(&self, limits: &FdbLimits, now: Now) -> Vec<FdbEntry> {
        let entries = self.entries();
        let mut list: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| !limits.over(entry.seen, now))
            .map(|(&mac, entry)| FdbEntry {
                mac,
                place: entry.place.clone(),
                used: now.since(entry.seen),
                updated: now.since(entry.since),
            })
            .collect();
        list.sort_unstable_by_key(|e| e.mac);
        list
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    fn entries(&self) -> MutexGuard<'_, hashbrown::HashMap<Mac, LearnedEntry, FdbHasher>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "fdb_tests.rs"]
mod tests;
