//! MAC addresses that were learned from the frames that they sent.
//!
//! Bounded, aged, and shared by all workers. An address that turns up elsewhere moves, as a virtual machine does when it
//! migrates, but only so often: two that claim one address, or a loop, must not keep the fabric busy. What was configured is
//! not in here, and goes before.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::Place;
use crate::time::Now;
use crate::wire::ethernet::Mac;

/// Moves of one address that are followed within [`MOVE_WINDOW`].
const MOVES: u8 = 5;
/// RFC 7432 section 15.1 has the same number in 180 s; a virtual machine that migrates back and forth is not kept away for
/// that long.
const MOVE_WINDOW: Duration = Duration::from_secs(60);
/// An address that was seen so recently is not written down again.
const REFRESH: Duration = Duration::from_secs(1);

/// What bounds the table of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Addresses that it holds at most.
    pub entries: u32,
    /// How long an address is known after it was seen last; zero is for ever.
    pub ageing: Duration,
}

impl Default for Limits {
    /// 4096 addresses for 300 s, which is what Linux gives to bridges.
    fn default() -> Self {
        Limits {
            entries: 4096,
            ageing: Duration::from_secs(300),
        }
    }
}

impl Limits {
    /// Whether something that was seen at `seen` is known no more.
    pub(crate) fn over(&self, seen: Now, now: Now) -> bool {
        !self.ageing.is_zero() && now.since(seen) > self.ageing
    }
}

/// What came of seeing an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It was known to be there.
    Known,
    /// It is new.
    New,
    /// It was elsewhere.
    Moved,
    /// It was elsewhere, and has moved too often of late: it stays where it was.
    Refused,
    /// The table is full.
    Full,
}

/// An address, as people see it.
#[derive(Clone, Debug)]
pub struct FdbEntry {
    /// The address.
    pub mac: Mac,
    /// Where it is.
    pub place: Place,
    /// How long ago it was seen last, to a second.
    pub used: Duration,
    /// How long ago it was learned, or moved.
    pub updated: Duration,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    seen: Now,
    since: Now,
    /// Moves in the window that began at `window`.
    moves: u8,
    window: Now,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed(pub(crate) [u64; 2]);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0[0], self.0[1])
    }
}

/// The learned addresses of one link.
#[derive(Debug)]
pub struct Fdb {
    entries: Mutex<hashbrown::HashMap<Mac, Entry, Keyed>>,
    /// Counts changes: what was found before one may not hold after it.
    generation: AtomicU64,
}

impl Fdb {
    /// An empty table; `key` is secret, so that nobody outside can pile addresses on one place.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Fdb {
            entries: Mutex::new(hashbrown::HashMap::with_hasher(Keyed(key))),
            generation: AtomicU64::new(0),
        }
    }

    /// Differs before and after each change of where an address is.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Where an address is, if it was seen recently enough.
    #[must_use]
    pub fn find(&self, mac: Mac, limits: &Limits, now: Now) -> Option<Place> {
        let entries = self.entries();
        let entry = entries.get(&mac)?;
        (!limits.over(entry.seen, now)).then(|| entry.place.clone())
    }

    /// Writes down that a frame of this address came from `place`.
    pub fn learn(&self, mac: Mac, place: &Place, limits: &Limits, now: Now) -> Learned {
        let mut entries = self.entries();
        let full = entries.len() >= limits.entries as usize;
        let Some(entry) = entries.get_mut(&mac) else {
            if full {
                return Learned::Full;
            }
            let entry = Entry {
                place: place.clone(),
                seen: now,
                since: now,
                moves: 0,
                window: now,
            };
            entries.insert(mac, entry);
            self.changed();
            return Learned::New;
        };
        if entry.place == *place {
            if now.since(entry.seen) >= REFRESH {
                entry.seen = now;
            }
            return Learned::Known;
        }
        let forgotten = limits.over(entry.seen, now);
        if now.since(entry.window) >= MOVE_WINDOW {
            (entry.moves, entry.window) = (0, now);
        }
        if entry.moves >= MOVES && !forgotten {
            return Learned::Refused;
        }
        entry.moves = entry.moves.saturating_add(1);
        entry.place = place.clone();
        (entry.seen, entry.since) = (now, now);
        self.changed();
        Learned::Moved
    }

    /// Forgets an address; `false` if it was not known.
    pub fn forget(&self, mac: Mac) -> bool {
        let gone = self.entries().remove(&mac).is_some();
        self.changed();
        gone
    }

    /// Forgets the addresses of which `keep` says so. Returns how many.
    pub fn retain(&self, mut keep: impl FnMut(Mac, &Place) -> bool) -> usize {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|&mac, entry| keep(mac, &entry.place));
        let gone = before - entries.len();
        if gone > 0 {
            self.changed();
        }
        gone
    }

    /// Forgets what is too old; to be called every second or so. Returns how many addresses went.
    pub fn expire(&self, limits: &Limits, now: Now) -> usize {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|_, entry| !limits.over(entry.seen, now));
        let gone = before - entries.len();
        if gone > 0 {
            self.changed();
        }
        gone
    }

    /// How many addresses are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every address that is known, sorted.
    #[must_use]
    pub fn entries_at(&self, limits: &Limits, now: Now) -> Vec<FdbEntry> {
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

    fn entries(&self) -> MutexGuard<'_, hashbrown::HashMap<Mac, Entry, Keyed>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "fdb_tests.rs"]
mod tests;
