//! MAC addresses of the neighbours of a link that puts IP packets into frames: what was learned, and what is being asked.
//!
//! Outlives a configuration, as the addresses do. Who may say what is [`crate::datapath`]'s to decide.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::bridge::{Learned, Limits, Neighbors};
use crate::time::Now;
use crate::wire::ethernet::Mac;

/// Addresses that are asked for at once; beyond them questions wait for the answers to others.
const QUESTIONS: usize = 256;
/// An address is not asked for again sooner (RFC 4861 section 10, `RETRANS_TIMER`).
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug)]
pub struct Neighborhood {
    known: Neighbors,
    limits: Limits,
    asked: Mutex<HashMap<IpAddr, Now>>,
    /// An address turned up at another MAC address than before.
    moved: AtomicBool,
}

impl Neighborhood {
    /// Nobody is known yet; `key` is secret.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Neighborhood {
            known: Neighbors::new(key),
            limits: Limits::default(),
            asked: Mutex::default(),
            moved: AtomicBool::new(false),
        }
    }

    /// The MAC address of `addr`, if it was heard recently enough.
    #[must_use]
    pub fn find(&self, addr: IpAddr, now: Now) -> Option<Mac> {
        self.known.find(addr, &self.limits, now)
    }

    /// Writes down that `addr` has this MAC address.
    pub fn learn(&self, addr: IpAddr, mac: Mac, now: Now) {
        if self.known.learn(addr, mac, &self.limits, now) == Learned::Moved {
            self.moved.store(true, Relaxed);
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.remove(&addr);
    }

    /// Whether `addr` is to be asked for now: it was not a moment ago.
    pub fn ask(&self, addr: IpAddr, now: Now) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= QUESTIONS {
            asked.retain(|_, at| now.since(*at) < AGAIN);
        }
        let again = match asked.get(&addr) {
            Some(at) => now.since(*at) >= AGAIN,
            None => asked.len() < QUESTIONS,
        };
        if again {
            asked.insert(addr, now);
        }
        again
    }

    /// Whether an address has moved since this was asked last: what was decided by the old one must be decided again.
    pub fn take_moved(&self) -> bool {
        self.moved.swap(false, Relaxed)
    }

    /// Forgets what is too old; to be called every second or so.
    pub fn expire(&self, now: Now) {
        self.known.expire(&self.limits, now);
    }
}

impl Default for Neighborhood {
    /// With a key that everybody knows, for links that have no neighbours.
    fn default() -> Self {
        Neighborhood::new([0, 0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn addr(n: u8) -> IpAddr {
        [10, 0, 0, n].into()
    }

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    #[test]
    fn a_question_is_put_once_a_second_until_it_is_answered() {
        let here = Neighborhood::new([1, 2]);
        assert!(here.ask(addr(1), at(0)));
        assert!(!here.ask(addr(1), Now(at(1).0 - 1)));
        assert!(here.ask(addr(1), at(1)));
        here.learn(addr(1), A, at(1));
        assert_eq!(here.find(addr(1), at(2)), Some(A));
        assert!(here.ask(addr(1), at(1)), "the answer ends the wait");
    }

    #[test]
    fn questions_are_bounded() {
        let here = Neighborhood::new([1, 2]);
        let asked = (0..1000u32)
            .filter(|&n| here.ask(std::net::Ipv4Addr::from(n).into(), at(0)))
            .count();
        assert_eq!(asked, QUESTIONS);
        assert!(here.ask(addr(9), at(1)), "old ones make room");
    }

    #[test]
    fn a_move_is_told_once() {
        let here = Neighborhood::new([1, 2]);
        here.learn(addr(1), A, at(0));
        here.learn(addr(1), A, at(1));
        assert!(!here.take_moved());
        here.learn(addr(1), B, at(2));
        assert!(here.take_moved() && !here.take_moved());
        assert_eq!(here.find(addr(1), at(3)), Some(B));
        here.expire(at(1000));
        assert_eq!(here.find(addr(1), at(1000)), None);
    }
}
