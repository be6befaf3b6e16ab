//! Neighbour table of a link that puts IP packets into frames: learned MAC addresses, and pending solicitations.
//!
//! A neighbour in use by flows is probed every few seconds (RFC 4861 section 7.3): first by unicast to its known
//! address, then by multicast. One that does not answer is removed; an unused one expires without being probed. The
//! table outlives a configuration, as the addresses do. [`crate::datapath`] decides which claims are accepted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::l2::{FdbHasher, FdbLimits};
use crate::time::Now;
use crate::wire::ethernet::Mac;

/// Outstanding solicitations; beyond that, new addresses are not solicited.
const MAX_PENDING_QUERIES: usize = 256;
/// Minimum interval between solicitations for one address (RFC 4861 section 10, `RETRANS_TIMER`).
const RETRANS_TIMER: Duration = Duration::from_secs(1);
/// Time from a confirmation until the neighbour is probed: a third of RFC 4861's `REACHABLE_TIME`, because there are
/// no other hints that it is reachable.
const REACHABLE: Duration = Duration::from_secs(10);
/// Unicast probes to the neighbour's known MAC address, a second apart.
const UNICAST_PROBES: u8 = 2;
/// All probes; the remaining ones are multicast.
const PROBES: u8 = 4;
/// Maximum number of probes per second; neighbours beyond it are probed later, and kept meanwhile.
const PROBES_AT_ONCE: usize = 128;
/// Seconds in which the kernel is asked for the interface's link-local addresses although no neighbour solicits one.
const FIRST_LOOKS: u8 = 3;

/// Marks a neighbour as used by a flow: while any clone lives, the neighbour is probed.
#[derive(Clone, Debug, Default)]
pub struct NeighborUse(Arc<()>);

impl NeighborUse {
    /// Returns an ID that only clones share.
    #[must_use]
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }
}

#[derive(Debug)]
struct CachedNeighbor {
    mac: Mac,
    /// Underlay address of the host that it was learned from.
    host: IpAddr,
    confirmed: Now,
    /// Probes sent since then.
    probes: u8,
    users: NeighborUse,
}

/// Neighbour unreachability probe to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborProbe {
    /// The neighbour's address.
    pub addr: IpAddr,
    /// Underlay address of the host that it was learned from.
    pub host: IpAddr,
    /// Its known MAC address for a unicast probe; `None` for a multicast one.
    pub mac: Option<Mac>,
}

/// Neighbour table; see the module's description.
#[derive(Debug)]
pub struct NeighborCache {
    known: Mutex<hashbrown::HashMap<IpAddr, CachedNeighbor, FdbHasher>>,
    limits: FdbLimits,
    asked: Mutex<HashMap<IpAddr, Now>>,
    /// Whether an address changed its MAC address or was lost.
    moved: AtomicBool,
    /// Link-local addresses of the link's own interface.
    link_local: Mutex<Vec<Ipv6Addr>>,
    /// How many more times the kernel is to be asked for them.
    looks: AtomicU8,
}

impl NeighborCache {
    /// Returns an empty table; `key` is secret.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        NeighborCache {
            known: Mutex::new(hashbrown::HashMap::with_hasher(FdbHasher(key))),
            limits: FdbLimits::default(),
            asked: Mutex::default(),
            moved: AtomicBool::new(false),
            link_local: Mutex::default(),
            looks: AtomicU8::new(FIRST_LOOKS),
        }
    }

    /// Returns the MAC address of `addr`, if it was confirmed recently enough, and the marker that a flow to it
    /// holds.
    #[must_use]
    pub fn find(&self, addr: IpAddr, now: Now) -> Option<(Mac, NeighborUse)> {
        let known = lock(&self.known);
        let neighbor = known.get(&addr)?;
        let usable = neighbor.in_use() || !self.limits.over(neighbor.confirmed, now);
        usable.then(|| (neighbor.mac, neighbor.users.clone()))
    }

    /// Records that `addr` has this MAC address, as learned from `host`.
    pub fn learn(&self, addr: IpAddr, mac: Mac, host: IpAddr, now: Now) {
        let mut known = lock(&self.known);
        let full = known.len() >= self.limits.entries as usize;
        match known.get_mut(&addr) {
            Some(neighbor) => {
                if neighbor.mac != mac {
                    self.moved.store(true, Relaxed);
                }
                (neighbor.mac, neighbor.host) = (mac, host);
                (neighbor.confirmed, neighbor.probes) = (now, 0);
            }
            None if full => {}
            None => {
                let neighbor = CachedNeighbor {
                    mac,
                    host,
                    confirmed: now,
                    probes: 0,
                    users: NeighborUse::default(),
                };
                known.insert(addr, neighbor);
            }
        }
        drop(known);
        lock(&self.asked).remove(&addr);
    }

    /// Whether to solicit `addr` now; rate-limited per address.
    pub fn should_ask(&self, addr: IpAddr, now: Now) -> bool {
        let mut asked = lock(&self.asked);
        if asked.len() >= MAX_PENDING_QUERIES {
            asked.retain(|_, at| now.since(*at) < RETRANS_TIMER);
        }
        let again = match asked.get(&addr) {
            Some(at) => now.since(*at) >= RETRANS_TIMER,
            None => asked.len() < MAX_PENDING_QUERIES,
        };
        if again {
            asked.insert(addr, now);
        }
        again
    }

    /// Returns whether an address has changed its MAC address or was lost since the last call. Decisions that use the
    /// old MAC address must then be made again.
    pub fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Removes stale neighbours, and calls `probe` for each one that is to be probed now; call once a second.
    pub fn expire_and_probe(&self, now: Now, mut probe: impl FnMut(NeighborProbe)) {
        let mut left = PROBES_AT_ONCE;
        lock(&self.known).retain(|&addr, neighbor| {
            if !neighbor.in_use() {
                return !self.limits.over(neighbor.confirmed, now);
            }
            if now.since(neighbor.confirmed) < REACHABLE || left == 0 {
                return true;
            }
            if neighbor.probes == PROBES {
                self.moved.store(true, Relaxed);
                return false;
            }
            left -= 1;
            let unicast = neighbor.probes < UNICAST_PROBES;
            neighbor.probes += 1;
            probe(NeighborProbe {
                addr,
                host: neighbor.host,
                mac: unicast.then_some(neighbor.mac),
            });
            true
        });
    }

    /// Whether `addr` is a link-local address of the link's own interface. A lookup of any link-local address
    /// schedules another query of the kernel.
    pub fn is_link_local(&self, addr: IpAddr) -> bool {
        let IpAddr::V6(addr) = addr else {
            return false;
        };
        if !addr.is_unicast_link_local() {
            return false;
        }
        self.looks.fetch_max(1, Relaxed);
        lock(&self.link_local).contains(&addr)
    }

    /// Returns a link-local address of the link's own interface.
    #[must_use]
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        lock(&self.link_local).first().copied()
    }

    /// Whether to query the kernel for the interface's link-local addresses now; call once a second.
    pub fn take_link_local_request(&self) -> bool {
        let left = self
            .looks
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        left.is_ok()
    }

    /// Sets the link-local addresses of the interface.
    pub fn set_link_local(&self, addresses: Vec<Ipv6Addr>) {
        *lock(&self.link_local) = addresses;
    }
}

impl CachedNeighbor {
    fn in_use(&self) -> bool {
        Arc::strong_count(&self.users.0) > 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for NeighborCache {
    /// With a well-known key, for links that have no neighbours.
    fn default() -> Self {
        NeighborCache::new([0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEIGHBOR_MAC_A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const NEIGHBOR_MAC_B: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const NEIGHBOR_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn addr(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    fn mac(here: &NeighborCache, n: u8, seconds: u64) -> Option<Mac> {
        here.find(addr(n), at(seconds)).map(|(mac, _)| mac)
    }

    #[test]
    fn a_question_is_put_once_a_second_until_it_is_answered() {
        let here = NeighborCache::new([1, 2]);
        assert!(here.should_ask(addr(1), at(0)));
        assert!(!here.should_ask(addr(1), Now(at(1).0 - 1)));
        assert!(here.should_ask(addr(1), at(1)));
        here.learn(addr(1), NEIGHBOR_MAC_A, NEIGHBOR_HOST, at(1));
        assert_eq!(mac(&here, 1, 2), Some(NEIGHBOR_MAC_A));
        assert!(here.should_ask(addr(1), at(1)), "the answer ends the wait");
    }

    #[test]
    fn questions_are_bounded() {
        let here = NeighborCache::new([1, 2]);
        let asked = (0..1000u32)
            .filter(|&n| here.should_ask(std::net::Ipv4Addr::from(n).into(), at(0)))
            .count();
        assert_eq!(asked, MAX_PENDING_QUERIES);
        assert!(here.should_ask(addr(9), at(1)), "old ones make room");
    }

    #[test]
    fn a_move_is_told_once() {
        let here = NeighborCache::new([1, 2]);
        here.learn(addr(1), NEIGHBOR_MAC_A, NEIGHBOR_HOST, at(0));
        here.learn(addr(1), NEIGHBOR_MAC_A, NEIGHBOR_HOST, at(1));
        assert!(!here.take_moved());
        here.learn(addr(1), NEIGHBOR_MAC_B, NEIGHBOR_HOST, at(2));
        assert!(here.take_moved() && !here.take_moved());
        assert_eq!(mac(&here, 1, 3), Some(NEIGHBOR_MAC_B));
        here.expire_and_probe(at(1000), |probe| panic!("nobody uses it: {probe:?}"));
        assert_eq!(mac(&here, 1, 1000), None);
        assert!(!here.take_moved(), "no flow went there");
    }

    /// The probes sent in each of these seconds.
    fn asked(here: &NeighborCache, seconds: std::ops::Range<u64>) -> Vec<(u64, Option<Mac>)> {
        let mut asked = Vec::new();
        for second in seconds {
            here.expire_and_probe(at(second), |probe| {
                assert_eq!((probe.addr, probe.host), (addr(1), NEIGHBOR_HOST));
                asked.push((second, probe.mac));
            });
        }
        asked
    }

    #[test]
    fn a_neighbour_in_use_is_asked_where_it_was_then_everybody_is_and_then_it_is_forgotten() {
        let here = NeighborCache::new([1, 2]);
        here.learn(addr(1), NEIGHBOR_MAC_A, NEIGHBOR_HOST, at(0));
        let (_, held) = here.find(addr(1), at(0)).unwrap();
        assert_eq!(asked(&here, 0..11), [(10, Some(NEIGHBOR_MAC_A))]);
        here.learn(addr(1), NEIGHBOR_MAC_A, NEIGHBOR_HOST, at(11));
        let all = [
            (21, Some(NEIGHBOR_MAC_A)),
            (22, Some(NEIGHBOR_MAC_A)),
            (23, None),
            (24, None),
        ];
        assert_eq!(asked(&here, 11..25), all);
        assert!(mac(&here, 1, 24).is_some() && !here.take_moved());
        assert_eq!(asked(&here, 25..30), []);
        assert!(mac(&here, 1, 25).is_none() && here.take_moved());
        // Learned anew: the old flow's marker does not keep it in use.
        here.learn(addr(1), NEIGHBOR_MAC_B, NEIGHBOR_HOST, at(30));
        assert_eq!(asked(&here, 30..60), []);
        drop(held);
    }

    #[test]
    fn probes_are_bounded_and_who_is_left_out_is_not_forgotten() {
        let here = NeighborCache::new([1, 2]);
        let addr = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(n));
        let held: Vec<_> = (0..1000)
            .map(|n| {
                here.learn(addr(n), NEIGHBOR_MAC_A, NEIGHBOR_HOST, at(0));
                here.find(addr(n), at(0)).unwrap()
            })
            .collect();
        for second in 10..13 {
            let mut probes = 0;
            here.expire_and_probe(at(second), |_| probes += 1);
            assert_eq!(probes, PROBES_AT_ONCE);
        }
        assert!((0..1000).all(|n| here.find(addr(n), at(13)).is_some()));
        drop(held);
    }

    #[test]
    fn the_kernel_is_asked_for_link_local_addresses_at_first_and_when_somebody_asks() {
        let here = NeighborCache::new([1, 2]);
        let own: Ipv6Addr = "fe80::1".parse().unwrap();
        let looks =
            |here: &NeighborCache| (0..9).filter(|_| here.take_link_local_request()).count();
        assert_eq!(looks(&here), usize::from(FIRST_LOOKS));
        assert!(!here.is_link_local(own.into()));
        assert_eq!(looks(&here), 1);
        here.set_link_local(vec![own]);
        assert!(here.is_link_local(own.into()));
        assert_eq!(here.link_local(), Some(own));
        assert_eq!(looks(&here), 1, "it may have another by now");
        assert!(!here.is_link_local("fd00::1".parse().unwrap()) && looks(&here) == 0);
    }
}
