//! Fragment tracking: which flow the fragments of a packet belong to.
//!
//! Only a first fragment has ports. It leaves its flow here for later fragments; one that arrives before it, or too
//! late, has no flow. Reassembly is left to the receiver.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::key::FlowKey;
use crate::link_index::LinkIndex;
use crate::time::Now;
use crate::wire::packet::{Fragment, IpVersion, Packet};

/// How long a first fragment is remembered: RFC 791 and Linux give reassembly between 15 s and 60 s.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_FRAGMENT_SHARDS: usize = 16;
const PER_SHARD: usize = 64;

/// Fields shared by the fragments of one packet (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct DatagramId {
    link: LinkIndex,
    src: IpAddr,
    dst: IpAddr,
    /// 0 for IPv6, where first and later fragments may name different headers.
    protocol: u8,
    id: u32,
}

impl DatagramId {
    fn of(link: LinkIndex, packet: &Packet) -> DatagramId {
        DatagramId {
            link,
            src: packet.src,
            dst: packet.dst,
            protocol: match packet.version {
                IpVersion::V4 => packet.protocol,
                IpVersion::V6 => 0,
            },
            id: packet.fragment_id,
        }
    }
}

/// State left by the first fragment of a packet.
#[derive(Clone, Copy, Debug)]
struct FirstFragment {
    flow: FlowKey,
    since: Now,
    /// Identification with which its fragments leave, if rewritten.
    id: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
struct FragmentHasher([u64; 2]);

impl BuildHasher for FragmentHasher {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0[0], self.0[1])
    }
}

#[derive(Debug)]
struct FragmentShard {
    flows: hashbrown::HashMap<DatagramId, FirstFragment, FragmentHasher>,
    /// The same packets by link, oldest first.
    order: HashMap<LinkIndex, VecDeque<(DatagramId, Now)>, BuildHasherDefault<SipHasher13>>,
    limit: usize,
}

/// Bounded table of first fragments, shared by all workers. When it is full, the link with the most entries loses its
/// oldest, so that no link can evict another's.
#[derive(Debug)]
pub struct Fragments {
    shards: Box<[Mutex<FragmentShard>]>,
    hasher: FragmentHasher,
}

impl Fragments {
    /// Returns a table for at most `packets` packets. `secret` keys its hashes.
    #[must_use]
    pub fn new(packets: usize, secret: [u64; 2]) -> Self {
        let count = 1 << (packets / PER_SHARD).clamp(1, MAX_FRAGMENT_SHARDS).ilog2();
        let hasher = FragmentHasher(secret);
        let shard = |_| {
            let limit = packets / count;
            Mutex::new(FragmentShard {
                flows: hashbrown::HashMap::with_capacity_and_hasher(limit, hasher),
                order: HashMap::default(),
                limit,
            })
        };
        Fragments {
            shards: (0..count).map(shard).collect(),
            hasher,
        }
    }

    /// Remembers the flow of a first fragment; ignores other packets. A packet that is already known keeps its age
    /// and gets the new flow.
    pub fn first(&self, link: LinkIndex, packet: &Packet, flow: FlowKey, now: Now) {
        if packet.fragment != Fragment::First {
            return;
        }
        let whole = DatagramId::of(link, packet);
        let mut shard = self.shard(&whole);
        shard.forget_old(link, now);
        if let Some(known) = shard.flows.get_mut(&whole) {
            known.flow = flow;
            return;
        }
        if shard.flows.len() >= shard.limit {
            shard.make_room();
        }
        if shard.flows.len() < shard.limit {
            let known = FirstFragment {
                flow,
                since: now,
                id: None,
            };
            shard.flows.insert(whole, known);
            shard.order.entry(link).or_default().push_back((whole, now));
        }
    }

    /// Returns the flow of a later fragment, if its first one was seen at most 30 s ago.
    #[must_use]
    pub fn later(&self, link: LinkIndex, packet: &Packet, now: Now) -> Option<FlowKey> {
        if packet.fragment != Fragment::Later {
            return None;
        }
        let whole = DatagramId::of(link, packet);
        let shard = self.shard(&whole);
        let known = shard.flows.get(&whole)?;
        (now.since(known.since) < TIMEOUT).then_some(known.flow)
    }

    /// Returns the identification with which all fragments of the packet leave; the first caller takes it from
    /// `fresh`. A packet that is not in the table has no later fragments to be forwarded.
    pub fn identification(
        &self,
        link: LinkIndex,
        packet: &Packet,
        fresh: impl FnOnce() -> u16,
    ) -> u16 {
        let whole = DatagramId::of(link, packet);
        match self.shard(&whole).flows.get_mut(&whole) {
            Some(known) => *known.id.get_or_insert_with(fresh),
            None => fresh(),
        }
    }

    /// Removes the fragments of a link.
    pub fn remove_link(&self, link: LinkIndex) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let gone = shard.order.remove(&link);
            for (whole, _) in gone.into_iter().flatten() {
                shard.flows.remove(&whole);
            }
        }
    }

    /// Returns the number of remembered packets, including expired ones.
    #[must_use]
    pub fn len(&self) -> usize {
        let len = |shard: &Mutex<FragmentShard>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.flows.len()
        };
        self.shards.iter().map(len).sum()
    }

    /// Whether no packet is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, whole: &DatagramId) -> MutexGuard<'_, FragmentShard> {
        let number = (self.hasher.hash_one(whole) >> 32) as usize & (self.shards.len() - 1);
        self.shards[number]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl FragmentShard {
    fn forget_old(&mut self, link: LinkIndex, now: Now) {
        let Some(order) = self.order.get_mut(&link) else {
            return;
        };
        while let Some(&(whole, since)) = order.front() {
            if now.since(since) < TIMEOUT {
                break;
            }
            order.pop_front();
            self.flows.remove(&whole);
        }
    }

    fn make_room(&mut self) {
        let most = self.order.values_mut().max_by_key(|order| order.len());
        if let Some((whole, _)) = most.and_then(VecDeque::pop_front) {
            self.flows.remove(&whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::protocol;
    use crate::wire::packet::tests::sample;

    const FRAGMENT_LINK_A: LinkIndex = LinkIndex(1);
    const FRAGMENT_LINK_B: LinkIndex = LinkIndex(2);

    fn v4(id: u16, word: u16) -> Packet {
        let mut bytes = sample::udp4(b"hello");
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        bytes[6..8].copy_from_slice(&word.to_be_bytes());
        Packet::parse(&bytes).unwrap()
    }

    fn first(id: u16) -> Packet {
        v4(id, 0x2000)
    }

    fn later(id: u16) -> Packet {
        v4(id, 0x0002)
    }

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    fn remember(fragments: &Fragments, link: LinkIndex, id: u16, now: Now) -> FlowKey {
        let key = FlowKey::of(link, &first(id));
        fragments.first(link, &first(id), key, now);
        key
    }

    #[test]
    fn later_fragments_follow_the_first_of_their_packet_and_link() {
        let fragments = Fragments::new(100, [1, 2]);
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &later(7), at(1)), None);
        let key = remember(&fragments, FRAGMENT_LINK_A, 7, at(1));
        assert_eq!((key.sport, key.dport), (4000, 53));
        assert_eq!(
            fragments.later(FRAGMENT_LINK_A, &later(7), at(2)),
            Some(key)
        );
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &later(8), at(2)), None);
        assert_eq!(fragments.later(FRAGMENT_LINK_B, &later(7), at(2)), None);
        fragments.remove_link(FRAGMENT_LINK_A);
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &later(7), at(2)), None);
        assert!(fragments.is_empty());
    }

    #[test]
    fn all_fragments_of_a_packet_leave_with_one_identification() {
        let fragments = Fragments::new(100, [1, 2]);
        remember(&fragments, FRAGMENT_LINK_A, 7, at(1));
        assert_eq!(
            fragments.identification(FRAGMENT_LINK_A, &first(7), || 70),
            70
        );
        remember(&fragments, FRAGMENT_LINK_A, 7, at(2));
        assert_eq!(
            fragments.identification(FRAGMENT_LINK_A, &later(7), || 71),
            70
        );
        assert_eq!(
            fragments.identification(FRAGMENT_LINK_A, &later(8), || 80),
            80
        );
        assert_eq!(
            fragments.identification(FRAGMENT_LINK_A, &later(8), || 81),
            81
        );
    }

    #[test]
    fn whole_packets_are_of_no_interest() {
        let fragments = Fragments::new(100, [1, 2]);
        let whole = v4(7, 0);
        fragments.first(
            FRAGMENT_LINK_A,
            &whole,
            FlowKey::of(FRAGMENT_LINK_A, &whole),
            at(1),
        );
        assert!(fragments.is_empty());
        remember(&fragments, FRAGMENT_LINK_A, 0, at(1));
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &whole, at(1)), None);
    }

    #[test]
    fn ipv6_fragments_are_told_apart_by_their_identification_alone() {
        let fragments = Fragments::new(100, [1, 2]);
        let first = Packet::parse(&sample::extended(1)).unwrap();
        let later = Packet::parse(&sample::extended(8)).unwrap();
        assert_eq!((first.fragment_id, later.fragment_id), (9, 9));
        assert_ne!(first.protocol, later.protocol);
        let key = FlowKey::of(FRAGMENT_LINK_A, &first);
        fragments.first(FRAGMENT_LINK_A, &first, key, at(1));
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &later, at(1)), Some(key));
        let other = Packet {
            fragment_id: 10,
            ..later
        };
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &other, at(1)), None);
        assert_eq!(first.protocol, protocol::UDP);
    }

    #[test]
    fn a_first_fragment_is_forgotten_after_half_a_minute() {
        let fragments = Fragments::new(100, [1, 2]);
        let key = remember(&fragments, FRAGMENT_LINK_A, 7, at(1));
        remember(&fragments, FRAGMENT_LINK_A, 7, at(20));
        assert_eq!(
            fragments.later(FRAGMENT_LINK_A, &later(7), at(30)),
            Some(key)
        );
        assert_eq!(fragments.later(FRAGMENT_LINK_A, &later(7), at(31)), None);
        remember(&fragments, FRAGMENT_LINK_A, 8, at(31));
        assert_eq!(fragments.len(), 1);
    }

    #[test]
    fn a_link_that_floods_pushes_out_only_its_own() {
        let fragments = Fragments::new(256, [1, 2]);
        let keys: Vec<_> = (0..20)
            .map(|id| remember(&fragments, FRAGMENT_LINK_B, id, at(1)))
            .collect();
        for id in 0..10_000 {
            remember(&fragments, FRAGMENT_LINK_A, id, at(1));
            assert!(fragments.len() <= 256);
        }
        for (id, key) in (0..).zip(keys) {
            assert_eq!(
                fragments.later(FRAGMENT_LINK_B, &later(id), at(2)),
                Some(key)
            );
        }
        assert!(
            fragments
                .later(FRAGMENT_LINK_A, &later(9_999), at(2))
                .is_some()
        );
        assert!(fragments.later(FRAGMENT_LINK_A, &later(1), at(2)).is_none());
        assert!(fragments.len() > 200);
    }
}
