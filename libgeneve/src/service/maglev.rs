//! Maglev consistent hashing with weights (Eisenbud et al., "Maglev: A Fast and Reliable Software
//! Network Load Balancer", NSDI 2016, section 3.4), and the hash of a flow that all hosts share.
//!
//! A table is a function of the members' identities and weights alone: neither their order nor the host that builds
//! it matters, so that a flow reaches the same member whichever host it enters by. For the same reason nothing here
//! is keyed with a daemon's secret. The price is that a tenant who knows the members can choose source ports that
//! lead to one of them. It can only overload members that it may use anyway, and never the flow table, whose hash is
//! keyed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

/// Most members of a table.
pub const MAX_MEMBERS: usize = 512;

/// Slots of a full table: a prime, so that every permutation visits every slot, and at least 128 for each of
/// [`MAX_MEMBERS`]. The size does not depend on the number of members, because resizing a table would remap most
/// hashes.
const MAGLEV_SLOTS: u32 = 65_537;

/// Slots of a compact table, also a prime.
const COMPACT_SLOTS: u32 = 16_381;

/// Maglev lookup table: maps each hash to a member, in proportion to the weights.
///
/// If one of N equal members leaves, at most 1/N + 1 % of all hashes are remapped. A table takes 128 KiB, a compact
/// one 32 KiB, whatever the number of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maglev {
    slots: Box<[u16]>,
}

impl Maglev {
    /// Builds the table. A member is an identity, unique and equal on all hosts, and a weight. Members of weight 0
    /// are never picked. Every other one owns at least one slot, and its share of all hashes is accurate within 1 %
    /// of itself unless it is smaller than 1/650.
    ///
    /// `None` if no weight is positive, or if there are more than [`MAX_MEMBERS`].
    #[must_use]
    pub fn new<I: AsRef<[u8]>>(members: &[(I, u32)]) -> Option<Maglev> {
        Self::sized(members, MAGLEV_SLOTS)
    }

    /// Like [`Maglev::new`], with a quarter of the memory: for the hosts of a scaled endpoint, which are few, while
    /// endpoints may be many. Shares are accurate within 1 % down to 1/160; beyond 16 members, losing one remaps up
    /// to 1/N + 2 %.
    #[must_use]
    pub fn compact<I: AsRef<[u8]>>(members: &[(I, u32)]) -> Option<Maglev> {
        Self::sized(members, COMPACT_SLOTS)
    }

    fn sized<I: AsRef<[u8]>>(members: &[(I, u32)], size: u32) -> Option<Maglev> {
        if members.len() > MAX_MEMBERS {
            return None;
        }
        let mut candidates: Vec<MaglevMember> = (0u16..)
            .zip(members)
            .filter(|(_, (_, weight))| *weight > 0)
            .map(|(member, (id, weight))| MaglevMember::new(member, id.as_ref(), *weight))
            .collect();
        if candidates.is_empty() {
            return None;
        }
        // Ties between turns are broken by position, which must be the same on all hosts.
        candidates.sort_by(|a, b| {
            let id = |candidate: &MaglevMember| members[usize::from(candidate.member)].0.as_ref();
            (a.hashes, id(a)).cmp(&(b.hashes, id(b)))
        });
        Some(Maglev {
            slots: fill(&mut candidates, size),
        })
    }

    /// Returns the member for `hash`, as an index into the list that the table was built from.
    #[inline]
    #[must_use]
    pub fn pick(&self, hash: u64) -> usize {
        let slot = (u128::from(hash) * self.slots.len() as u128) >> 64;
        usize::from(self.slots[slot as usize])
    }

    /// Number of slots.
    #[must_use]
    pub fn size(&self) -> usize {
        self.slots.len()
    }
}

/// Member while the table is filled.
struct MaglevMember {
    member: u16,
    weight: u32,
    hashes: [u64; 2],
    /// Next slot of its permutation, and the step to the following one.
    next: u32,
    step: u32,
}

impl MaglevMember {
    fn new(member: u16, id: &[u8], weight: u32) -> MaglevMember {
        let hash = |purpose| {
            let mut hasher = SipHasher13::new_with_keys(purpose, 0);
            hasher.write(id);
            hasher.finish()
        };
        MaglevMember {
            member,
            weight,
            hashes: [hash(1), hash(2)],
            next: 0,
            step: 1,
        }
    }

    fn start(&mut self, size: u32) {
        // Both remainders are smaller than `size`, which fits 32 bits.
        self.next = (self.hashes[0] % u64::from(size)) as u32;
        self.step = (self.hashes[1] % u64::from(size - 1)) as u32 + 1;
    }
}

/// Assigns slots to seats in turns until none is left. The turns of a seat are in proportion to its weight and spread
/// evenly: the next turn belongs to the seat with the least (2·turns + 1) / weight, which is the Sainte-Laguë method,
/// except that every seat's first turn comes before all second ones.
fn fill(candidates: &mut [MaglevMember], size: u32) -> Box<[u16]> {
    const FREE: u16 = u16::MAX;
    let mut slots = vec![FREE; size as usize].into_boxed_slice();
    let mut turns: BinaryHeap<Reverse<FillTurn>> = BinaryHeap::with_capacity(candidates.len());
    for (place, candidate) in candidates.iter_mut().enumerate() {
        candidate.start(size);
        turns.push(Reverse(FillTurn {
            dividend: 0,
            weight: candidate.weight,
            place,
        }));
    }
    for _ in 0..size {
        let Some(mut top) = turns.peek_mut() else {
            break;
        };
        let FillTurn { place, .. } = top.0;
        let candidate = &mut candidates[place];
        loop {
            let slot = &mut slots[candidate.next as usize];
            candidate.next += candidate.step;
            if candidate.next >= size {
                candidate.next -= size;
            }
            if *slot == FREE {
                *slot = candidate.member;
                break;
            }
        }
        top.0.dividend = match top.0.dividend {
            0 => 3,
            dividend => dividend + 2,
        };
    }
    slots
}

/// When a seat's next turn is: at `dividend / weight`.
#[derive(PartialEq, Eq)]
struct FillTurn {
    dividend: u64,
    weight: u32,
    place: usize,
}

impl Ord for FillTurn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let own = self.dividend * u64::from(other.weight);
        let others = other.dividend * u64::from(self.weight);
        own.cmp(&others).then(self.place.cmp(&other.place))
    }
}

impl PartialOrd for FillTurn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Fields of a flow that choose its member, in the direction from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancingKey {
    /// The client's address.
    pub client: IpAddr,
    /// Address that the client asked for.
    pub dst: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// Client's port; 0 for protocols without ports.
    pub client_port: u16,
    /// Port that the client asked for; 0 for protocols without ports.
    pub dst_port: u16,
}

impl BalancingKey {
    /// Returns the hash of the flow, the same on all hosts, machines and versions (SipHash-1-3, key 0).
    #[inline]
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut bytes = [0u8; 40];
        let used = match (self.client, self.dst) {
            (IpAddr::V4(client), IpAddr::V4(dst)) => {
                bytes[..4].copy_from_slice(&client.octets());
                bytes[4..8].copy_from_slice(&dst.octets());
                8
            }
            (client, dst) => {
                bytes[..16].copy_from_slice(&octets16(client));
                bytes[16..32].copy_from_slice(&octets16(dst));
                32
            }
        };
        bytes[used..used + 2].copy_from_slice(&self.client_port.to_be_bytes());
        bytes[used + 2..used + 4].copy_from_slice(&self.dst_port.to_be_bytes());
        bytes[used + 4] = self.protocol;
        stable(&bytes[..used + 5])
    }

    /// Returns the hash of the client's address alone, so that all its flows reach one member whatever their ports.
    #[inline]
    #[must_use]
    pub fn client_hash(&self) -> u64 {
        match self.client {
            IpAddr::V4(addr) => stable(&addr.octets()),
            IpAddr::V6(addr) => stable(&addr.octets()),
        }
    }
}

fn octets16(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn stable(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
#[path = "maglev_tests.rs"]
mod tests;
