//! Local delivery: which destinations are behind the interface of a link in mode ip, and a record of packets that
//! were not delivered.
//!
//! The kernel on the other side of the interface accepts a packet if any of its interfaces has the address, and may
//! forward others. So only packets for destinations that the link serves are delivered.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;

use super::Link;
use crate::route::RouteOrigin;
use crate::time::Now;

/// Why a destination is delivered into the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveredAs {
    /// An address of the interface.
    Address,
    /// An endpoint of this host.
    Endpoint,
    /// In an `allowed` prefix, which is declared to be behind the interface.
    Allowed,
    /// A multicast group.
    Multicast,
    /// Broadcast address of one of the interface's networks.
    Broadcast,
}

impl fmt::Display for DeliveredAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeliveredAs::Address => "an address of the link",
            DeliveredAs::Endpoint => "an endpoint of this host",
            DeliveredAs::Allowed => "in an allowed prefix of the link",
            DeliveredAs::Multicast => "a multicast group",
            DeliveredAs::Broadcast => "the broadcast address of the link's network",
        })
    }
}

/// The `allowed` prefixes of a link, which are declared to be behind its interface.
#[derive(Clone, Debug, Default)]
pub struct AllowedPrefixes {
    v4: PrefixSet<Ipv4Net>,
    v6: PrefixSet<Ipv6Net>,
}

impl AllowedPrefixes {
    /// Returns the set of `prefixes`, ignoring their host bits.
    #[must_use]
    pub fn new(prefixes: &[IpNet]) -> Self {
        let mut all = Self::default();
        for prefix in prefixes {
            match prefix.trunc() {
                IpNet::V4(net) => drop(all.v4.insert(net)),
                IpNet::V6(net) => drop(all.v6.insert(net)),
            }
        }
        all
    }

    /// Whether one of the prefixes covers `addr`.
    #[must_use]
    pub fn covers(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(addr) => self.v4.get_lpm(&addr.into()).is_some(),
            IpAddr::V6(addr) => self.v6.get_lpm(&addr.into()).is_some(),
        }
    }
}

impl Link {
    /// Returns why a packet for `addr`, its destination after translation, is delivered into the interface; `None` if
    /// it must not be.
    #[must_use]
    pub fn delivers(&self, addr: IpAddr) -> Option<DeliveredAs> {
        // Never valid from outside of a host, whatever prefix covers them.
        if addr.is_loopback() || addr.is_unspecified() {
            return None;
        }
        if addr.is_multicast() {
            return Some(DeliveredAs::Multicast);
        }
        if let Some(entry) = self.routes.lookup(addr).filter(|entry| entry.local) {
            return Some(match entry.origin {
                RouteOrigin::Own => DeliveredAs::Address,
                RouteOrigin::Allowed => DeliveredAs::Allowed,
                RouteOrigin::Remote | RouteOrigin::Route | RouteOrigin::Endpoint => {
                    DeliveredAs::Endpoint
                }
            });
        }
        let endpoint = self.config.functions.endpoints.get(&addr);
        if endpoint.is_some_and(|endpoint| endpoint.local) {
            return Some(DeliveredAs::Endpoint);
        }
        // A route or the remote with the same prefix or a longer one must not hide the allowed one.
        if self.allowed.covers(addr) {
            return Some(DeliveredAs::Allowed);
        }
        match addr {
            IpAddr::V4(addr) if self.config.broadcasts.contains(&addr) => {
                Some(DeliveredAs::Broadcast)
            }
            _ => None,
        }
    }
}

/// Prefixes recorded per link.
const UNDELIVERED_PREFIXES: usize = 8;

/// Undelivered packets of a link, whose destination is not behind it, aggregated by prefix: shows an operator which
/// `allowed` is missing. Each link has its own, so that one tenant cannot evict another's entries.
#[derive(Debug, Default)]
pub struct UndeliveredPackets {
    noted: Mutex<UndeliveredSlots>,
}

#[derive(Clone, Copy, Debug, Default)]
struct UndeliveredSlots {
    list: [Option<Undelivered>; UNDELIVERED_PREFIXES],
    /// When a prefix was last evicted in favour of another.
    gave_way: Option<Now>,
}

/// Undelivered packets for one destination, or for several in one prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The destination, or the /24 or /64 that covers several.
    pub prefix: IpNet,
    /// Number of packets; a lower bound, because a packet is not counted while another worker holds the lock.
    pub packets: u64,
    /// The latest destination.
    pub last: IpAddr,
    /// Time of the latest packet.
    pub at: Now,
}

impl UndeliveredPackets {
    /// Records one packet. If the table is full, the prefix with the fewest packets is evicted.
    pub fn note(&self, addr: IpAddr, now: Now) {
        let Ok(mut noted) = self.noted.try_lock() else {
            return;
        };
        let group = group_of(addr);
        let same = |one: &Option<Undelivered>| one.is_some_and(|one| group_of(one.last) == group);
        let at = noted.list.iter().position(same).or_else(|| {
            let fewest = noted.list.iter().enumerate();
            let fewest = fewest.min_by_key(|(_, one)| one.map_or(0, |one| one.packets));
            fewest.map(|(at, _)| at)
        });
        let Some(place) = at.map(|at| &mut noted.list[at]) else {
            return;
        };
        let was = place.replace(Undelivered {
            prefix: addr.into(),
            packets: 1,
            last: addr,
            at: now,
        });
        match (was, place) {
            (Some(before), Some(one)) if group_of(before.last) == group => {
                one.packets = before.packets.saturating_add(1);
                one.prefix = if before.last == addr {
                    before.prefix
                } else {
                    group
                };
            }
            (Some(_), _) => noted.gave_way = Some(now),
            (None, _) => {}
        }
    }

    /// Removes the entries for which `over` returns true, and forgets that prefixes were evicted before `since`.
    pub fn forget(&self, since: Now, over: impl Fn(&Undelivered) -> bool) {
        let mut noted = self.lock();
        for place in &mut noted.list {
            *place = place.filter(|one| !over(one));
        }
        noted.gave_way = noted.gave_way.filter(|at| *at >= since);
    }

    /// Returns the entries, sorted by prefix, and whether any prefix was evicted, so that there were more.
    #[must_use]
    pub fn all(&self) -> (Vec<Undelivered>, bool) {
        let noted = *self.lock();
        let mut all: Vec<_> = noted.list.into_iter().flatten().collect();
        all.sort_unstable_by_key(|one| one.prefix);
        (all, noted.gave_way.is_some())
    }

    fn lock(&self) -> MutexGuard<'_, UndeliveredSlots> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prefix by which destinations are aggregated.
fn group_of(addr: IpAddr) -> IpNet {
    let len = match addr {
        IpAddr::V4(Ipv4Addr::BROADCAST) => 32,
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    };
    IpNet::new(addr, len).map_or_else(|_| addr.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(addr: &str) -> IpAddr {
        addr.parse().unwrap()
    }

    #[test]
    fn prefixes_cover_what_they_name_and_nothing_else() {
        let allowed = ["10.9.0.7/24", "fd09::/48"].map(|p| p.parse().unwrap());
        let allowed = AllowedPrefixes::new(&allowed);
        for (addr, covered) in [
            ("10.9.0.0", true),
            ("10.9.0.255", true),
            ("10.9.1.0", false),
            ("fd09::1", true),
            ("fd09:0:1::1", false),
        ] {
            assert_eq!(allowed.covers(ip(addr)), covered, "{addr}");
        }
    }

    #[test]
    fn packets_are_put_together_by_prefix_and_the_most_stay() {
        let undelivered = UndeliveredPackets::default();
        for addr in ["10.9.0.7", "10.9.0.8", "fd09::1", "fd09::2", "fd09::3"] {
            undelivered.note(ip(addr), Now(1));
        }
        // A scan, one address after the other.
        for third in 0..200 {
            undelivered.note(Ipv4Addr::new(172, 16, third, 1).into(), Now(2));
        }
        let (all, others) = undelivered.all();
        assert_eq!((all.len(), others), (UNDELIVERED_PREFIXES, true));
        let of = |prefix: &str| {
            let prefix: IpNet = prefix.parse().unwrap();
            all.iter().find(|one| one.prefix == prefix).copied()
        };
        let v4 = of("10.9.0.0/24").unwrap();
        assert_eq!((v4.packets, v4.last), (2, ip("10.9.0.8")));
        assert_eq!(of("fd09::/64").unwrap().packets, 3);
        assert!(
            all.iter()
                .any(|one| one.prefix == ip("172.16.199.1").into())
        );
        assert_eq!(group_of(Ipv4Addr::BROADCAST.into()).prefix_len(), 32);
        // Entries that are over are removed.
        undelivered.forget(Now(2), |one| one.at >= Now(2));
        let (all, others) = undelivered.all();
        assert_eq!((all.len(), others), (2, true));
        undelivered.forget(Now(3), |one| one.last == ip("fd09::3"));
        let (all, others) = undelivered.all();
        assert_eq!((all, others), (vec![v4], false));
    }
}
