//! Outside ports of one link and their mappings.
//!
//! Owns the live mappings, in both directions, and the free ports of each pool. All pools of a link share one
//! [`NatMappings`], including those of a configuration that is being replaced: whatever changes, a port in use is not
//! leased again, and a released TCP port is quarantined before another inside port gets it. [`pool`](super::pool)
//! chooses the port to lease next.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;

use super::port_set::PortSet;
use super::resting_ports::{RestingMapping, RestingQueue};
use crate::link_index::LinkIndex;
use crate::time::Now;
use crate::wire::ip::protocol;

/// Most quarantined ports of a link; beyond that, the oldest are freed early.
const MOST_RESTING: usize = 65_536;

/// Protocols whose ports are leased, each with its own port space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum NatProtocol {
    Tcp,
    Udp,
    /// ICMP and ICMPv6 queries, by identifier.
    Query,
}

impl NatProtocol {
    pub(super) const ALL: [NatProtocol; 3] =
        [NatProtocol::Tcp, NatProtocol::Udp, NatProtocol::Query];

    /// Returns the protocol with an IP protocol number; `None` if it has no ports.
    pub(super) fn of(number: u8) -> Option<NatProtocol> {
        match number {
            protocol::TCP => Some(NatProtocol::Tcp),
            protocol::UDP => Some(NatProtocol::Udp),
            protocol::ICMP | protocol::ICMPV6 => Some(NatProtocol::Query),
            _ => None,
        }
    }
}

/// A port of one protocol on one address, inside or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NatPort {
    pub(super) protocol: NatProtocol,
    pub(super) addr: IpAddr,
    pub(super) number: u16,
}

/// Ports that a pool may lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolSpec {
    /// First address.
    pub(super) first: IpAddr,
    /// Number of addresses, at least 1.
    pub(super) addresses: u32,
    /// Never empty.
    pub(super) ports: RangeInclusive<u16>,
    /// Forwarded ports, which are excluded: protocol, index of the address, port; sorted, without duplicates.
    pub(super) reserved: Vec<(NatProtocol, u32, u16)>,
}

impl PoolSpec {
    /// Returns the index of an address in the pool.
    pub(super) fn place(&self, addr: IpAddr) -> Option<u32> {
        let place = match (self.first, addr) {
            (IpAddr::V4(first), IpAddr::V4(addr)) => {
                u128::from(addr.to_bits().checked_sub(first.to_bits())?)
            }
            (IpAddr::V6(first), IpAddr::V6(addr)) => addr.to_bits().checked_sub(first.to_bits())?,
            _ => return None,
        };
        u32::try_from(place).ok().filter(|&at| at < self.addresses)
    }

    /// Returns the address at an index below `addresses`.
    pub(super) fn address(&self, place: u32) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(place)).into(),
            IpAddr::V6(first) => {
                Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(place))).into()
            }
        }
    }

    /// Returns the index of the address if the pool may lease this port.
    pub(super) fn covers(&self, port: &NatPort) -> Option<u32> {
        let place = self.place(port.addr)?;
        let covered = self.ports.contains(&port.number)
            && !self.is_reserved(port.protocol, place, port.number);
        covered.then_some(place)
    }

    pub(super) fn is_reserved(&self, protocol: NatProtocol, place: u32, port: u16) -> bool {
        self.reserved
            .binary_search(&(protocol, place, port))
            .is_ok()
    }

    /// Returns the reserved ports of one address.
    fn reserved_on(&self, protocol: NatProtocol, place: u32) -> &[(NatProtocol, u32, u16)] {
        let from = self.reserved.partition_point(|r| *r < (protocol, place, 0));
        let to = self
            .reserved
            .partition_point(|r| *r <= (protocol, place, u16::MAX));
        &self.reserved[from..to]
    }

    /// Number of ports of one address that may be leased.
    fn capacity(&self, protocol: NatProtocol, place: u32) -> u32 {
        self.ports.len() as u32 - self.reserved_on(protocol, place).len() as u32
    }

    /// Number of ports of all addresses that may be leased.
    pub(super) fn total(&self, protocol: NatProtocol) -> u64 {
        let reserved = self.reserved.iter().filter(|r| r.0 == protocol).count();
        u64::from(self.addresses) * self.ports.len() as u64 - reserved as u64
    }
}

/// Counts of a pool's leased ports, for one protocol.
#[derive(Debug)]
pub(super) struct PortCount {
    pub(super) in_use: u64,
    /// By index of the address.
    on_address: Vec<u32>,
    /// Bit set of the addresses without a free port, by index.
    full: Vec<u64>,
}

impl PortCount {
    fn new(spec: &PoolSpec, protocol: NatProtocol) -> PortCount {
        let mut count = PortCount {
            in_use: 0,
            on_address: vec![0; spec.addresses as usize],
            full: vec![0; spec.addresses.div_ceil(64) as usize],
        };
        for &(_, place, _) in spec.reserved.iter().filter(|r| r.0 == protocol) {
            count.recount(spec, protocol, place);
        }
        count
    }

    fn add(&mut self, spec: &PoolSpec, protocol: NatProtocol, place: u32, ports: u32) {
        self.in_use += u64::from(ports);
        self.on_address[place as usize] += ports;
        self.recount(spec, protocol, place);
    }

    fn remove(&mut self, spec: &PoolSpec, protocol: NatProtocol, place: u32) {
        self.in_use -= 1;
        self.on_address[place as usize] -= 1;
        self.recount(spec, protocol, place);
    }

    fn recount(&mut self, spec: &PoolSpec, protocol: NatProtocol, place: u32) {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if self.on_address[place as usize] >= spec.capacity(protocol, place) {
            self.full[word] |= bit;
        } else {
            self.full[word] &= !bit;
        }
    }

    /// Returns the first address with a free port, starting at `address_index` and wrapping around.
    pub(super) fn next_with_room(&self, spec: &PoolSpec, place: u32) -> Option<u32> {
        let word = |at: usize| self.full[at];
        let last = spec.addresses as usize - 1;
        super::port_set::first_clear(word, place as usize, last)
            .or_else(|| super::port_set::first_clear(word, 0, place as usize))
            .map(|place| place as u32)
    }
}

#[derive(Debug)]
struct PoolAccount {
    spec: Arc<PoolSpec>,
    counts: [PortCount; 3],
}

/// Mapping of an inside port to an outside one; exists while it is leased or quarantined.
#[derive(Debug)]
struct Mapping {
    inside: NatPort,
    outside: NatPort,
    /// Link whose share it counts against, if pools are shared.
    consumer: Option<LinkIndex>,
    /// 0 if it is quarantined, or its slot is free.
    leases: u32,
    /// Bumped whenever its slot is released.
    generation: u32,
}

/// What a count of held ports is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PortConsumer {
    /// All inside ports of a link.
    Link(LinkIndex),
    /// All ports of an inside address.
    Address(IpAddr),
}

/// Ports of one protocol on one outside address.
#[derive(Debug, Default)]
pub(super) struct OutsideAddress {
    /// Ports with a mapping, quarantined ones included.
    pub(super) taken: PortSet,
    resting: RestingQueue,
}

/// Mappings of one link.
#[derive(Debug, Default)]
pub(super) struct NatMappings {
    mappings: Mutex<MappingTable>,
    /// Spreads inside addresses over outside ones and randomizes the search for ports, so that nobody outside can
    /// predict them (RFC 6056).
    pub(super) hash: RandomState,
}

#[derive(Debug, Default)]
pub(super) struct MappingTable {
    /// Slab of mappings. There may be a million, so each is stored once and referred to by index.
    all: Vec<Mapping>,
    /// Free slots of `all`.
    free: Vec<u32>,
    /// Index of the mapping for new flows of an inside port.
    by_inside: HashTable<u32>,
    /// Index of every mapping, by outside port.
    by_outside: HashTable<u32>,
    keys: RandomState,
    addresses: HashMap<(NatProtocol, IpAddr), Box<OutsideAddress>>,
    /// Total number of entries in all quarantine queues.
    resting: usize,
    accounts: Vec<Option<PoolAccount>>,
    /// Number of ports held by each link that shares the pools and by each of its inside addresses; entries are never
    /// 0.
    held: HashMap<(NatProtocol, PortConsumer), u32>,
    /// Number of mappings ever made.
    pub(super) turn: u64,
}

impl NatMappings {
    /// Poisoning is ignored, because nothing that holds the lock can panic midway and leave the maps inconsistent.
    pub(super) fn lock(&self) -> MutexGuard<'_, MappingTable> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MappingTable {
    /// Opens a pool's account, which starts with the ports of the pool that are in use already.
    pub(super) fn open(&mut self, spec: &Arc<PoolSpec>) -> usize {
        let mut counts = NatProtocol::ALL.map(|protocol| PortCount::new(spec, protocol));
        for (&(protocol, addr), address) in &self.addresses {
            let Some(place) = spec.place(addr) else {
                continue;
            };
            let reserved = spec.reserved_on(protocol, place);
            let taken = &address.taken;
            let foreign = reserved.iter().filter(|r| taken.contains(r.2)).count();
            let resting = self.resting_of(spec, address).count();
            let used = taken.count(&spec.ports) - foreign as u32 - resting as u32;
            counts[protocol as usize].add(spec, protocol, place, used);
        }
        let account = PoolAccount {
            spec: Arc::clone(spec),
            counts,
        };
        let free = self.accounts.iter().position(Option::is_none);
        let at = free.unwrap_or(self.accounts.len());
        if free.is_none() {
            self.accounts.push(None);
        }
        self.accounts[at] = Some(account);
        at
    }

    /// Closes the account of a removed pool; its mappings live on.
    pub(super) fn close(&mut self, account: usize) {
        self.accounts[account] = None;
    }

    pub(super) fn count(&self, account: usize, protocol: NatProtocol) -> Option<&PortCount> {
        let account = self.accounts.get(account)?.as_ref()?;
        Some(&account.counts[protocol as usize])
    }

    fn by_inside(&self, inside: &NatPort) -> Option<u32> {
        let is = |&at: &u32| self.all[at as usize].inside == *inside;
        self.by_inside.find(self.keys.hash_one(inside), is).copied()
    }

    fn by_outside(&self, outside: &NatPort) -> Option<u32> {
        let is = |&at: &u32| self.all[at as usize].outside == *outside;
        self.by_outside
            .find(self.keys.hash_one(outside), is)
            .copied()
    }

    /// Returns the outside port for new flows from this inside port.
    pub(super) fn outside(&self, inside: &NatPort) -> Option<NatPort> {
        self.by_inside(inside).map(|at| self.outside_of(at))
    }

    /// Returns the outside port of a mapping.
    pub(super) fn outside_of(&self, at: u32) -> NatPort {
        self.all[at as usize].outside
    }

    /// Returns the inside port that holds this outside port.
    pub(super) fn inside(&self, outside: &NatPort) -> Option<NatPort> {
        let mapping = &self.all[self.by_outside(outside)? as usize];
        (mapping.leases > 0).then_some(mapping.inside)
    }

    pub(super) fn address(&self, protocol: NatProtocol, addr: IpAddr) -> Option<&OutsideAddress> {
        self.addresses.get(&(protocol, addr)).map(|ports| &**ports)
    }

    /// Returns the longest quarantined port of an address that a pool may lease.
    pub(super) fn longest_resting(
        &self,
        spec: &PoolSpec,
        address: &OutsideAddress,
    ) -> Option<NatPort> {
        self.resting_of(spec, address).next()
    }

    /// Quarantined ports of an address that a pool may lease.
    fn resting_of<'a>(
        &'a self,
        spec: &'a PoolSpec,
        address: &'a OutsideAddress,
    ) -> impl Iterator<Item = NatPort> + 'a {
        let resting = address.resting.iter().filter(|entry| self.rests(entry));
        resting
            .map(|entry| self.outside_of(entry.mapping))
            .filter(|port| spec.covers(port).is_some())
    }

    /// Whether the mapping has not been held again since.
    fn rests(&self, entry: &RestingMapping) -> bool {
        let mapping = &self.all[entry.mapping as usize];
        mapping.leases == 0 && mapping.generation == entry.generation
    }

    /// Frees the ports of an address whose quarantine is over by `now`, and drops queue entries before them that have
    /// been held again.
    pub(super) fn expire_resting(&mut self, protocol: NatProtocol, addr: IpAddr, now: Now) {
        let key = (protocol, addr);
        if let Some(address) = self.addresses.get_mut(&key) {
            address.resting.begin(now);
        }
        while let Some(address) = self.addresses.get(&key)
            && let Some((entry, rested)) = address.resting.first(now)
            && (rested || !self.rests(&entry))
        {
            if let Some(address) = self.addresses.get_mut(&key) {
                address.resting.pop();
                self.resting -= 1;
            }
            self.forget_resting(&entry);
        }
    }

    fn forget_resting(&mut self, entry: &RestingMapping) {
        if self.rests(entry) {
            self.forget(entry.mapping);
        }
    }

    /// Adds a lease of `outside` for `inside`, and makes the mapping if it is new; returns its index. `None` if
    /// another inside port holds the port. If pools are shared, a new mapping counts against `consumer`'s share.
    pub(super) fn acquire(
        &mut self,
        inside: NatPort,
        outside: NatPort,
        consumer: Option<LinkIndex>,
    ) -> Option<u32> {
        if let Some(at) = self.by_outside(&outside) {
            let mapping = &self.all[at as usize];
            if mapping.inside == inside {
                self.reacquire(at);
                return Some(at);
            }
            if mapping.leases > 0 {
                return None;
            }
            self.forget(at);
        }
        let at = self.address_index(inside, outside, consumer)?;
        let MappingTable {
            all,
            keys,
            by_inside,
            by_outside,
            ..
        } = self;
        let hash = |at: &u32| keys.hash_one(all[*at as usize].outside);
        by_outside.insert_unique(keys.hash_one(outside), at, hash);
        // An older mapping, whose port its pool no longer has, stays in `by_outside`.
        let hash = |at: &u32| keys.hash_one(all[*at as usize].inside);
        let is = |at: &u32| all[*at as usize].inside == inside;
        by_inside.entry(keys.hash_one(inside), is, hash).insert(at);
        let address = self.addresses.entry((outside.protocol, outside.addr));
        address.or_default().taken.take(outside.number);
        self.turn = self.turn.wrapping_add(1);
        self.reacquire(at);
        Some(at)
    }

    /// Allocates a slot for a new mapping without leases.
    fn address_index(
        &mut self,
        inside: NatPort,
        outside: NatPort,
        consumer: Option<LinkIndex>,
    ) -> Option<u32> {
        let mut mapping = Mapping {
            inside,
            outside,
            consumer,
            leases: 0,
            generation: 0,
        };
        if let Some(at) = self.free.pop() {
            let place = &mut self.all[at as usize];
            mapping.generation = place.generation;
            *place = mapping;
            return Some(at);
        }
        let at = u32::try_from(self.all.len()).ok()?;
        self.all.push(mapping);
        Some(at)
    }

    /// Adds a lease to a mapping that is held or quarantined.
    pub(super) fn reacquire(&mut self, at: u32) {
        let mapping = &mut self.all[at as usize];
        // Bounded by the number of flows, which is far smaller.
        mapping.leases = mapping
            .leases
            .checked_add(1)
            .expect("fewer flows than this");
        if mapping.leases == 1 {
            let outside = mapping.outside;
            self.each_account(&outside, |count, spec, place| {
                count.add(spec, outside.protocol, place, 1);
            });
            for holder in self.holders(at).into_iter().flatten() {
                *self.held.entry((outside.protocol, holder)).or_default() += 1;
            }
        }
    }

    /// Returns the holders whose shares a mapping counts against.
    fn holders(&self, at: u32) -> [Option<PortConsumer>; 2] {
        let mapping = &self.all[at as usize];
        let of = |link| {
            [
                PortConsumer::Link(link),
                PortConsumer::Address(mapping.inside.addr),
            ]
            .map(Some)
        };
        mapping.consumer.map_or([None, None], of)
    }

    /// Returns how many ports of a protocol are held, if pools are shared.
    pub(super) fn held_by(&self, protocol: NatProtocol, holder: PortConsumer) -> u64 {
        let held = self.held.get(&(protocol, holder));
        held.map_or(0, |&ports| ports.into())
    }

    /// Whether the mapping of this inside port is held.
    pub(super) fn is_held(&self, inside: &NatPort) -> bool {
        let at = self.by_inside(inside);
        at.is_some_and(|at| self.all[at as usize].leases > 0)
    }

    /// Releases one lease. With the last one the port becomes free, or its quarantine starts.
    pub(super) fn release(&mut self, at: u32) {
        let mapping = &mut self.all[at as usize];
        mapping.leases -= 1;
        if mapping.leases > 0 {
            return;
        }
        mapping.generation = mapping.generation.wrapping_add(1);
        let (outside, generation) = (mapping.outside, mapping.generation);
        self.each_account(&outside, |count, spec, place| {
            count.remove(spec, outside.protocol, place);
        });
        for holder in self.holders(at).into_iter().flatten() {
            if let Entry::Occupied(mut held) = self.held.entry((outside.protocol, holder)) {
                *held.get_mut() -= 1;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
        if outside.protocol == NatProtocol::Tcp {
            self.rest(at, generation, &outside);
        } else {
            self.forget(at);
        }
    }

    fn rest(&mut self, at: u32, generation: u32, outside: &NatPort) {
        let key = (outside.protocol, outside.addr);
        let Some(address) = self.addresses.get_mut(&key) else {
            return;
        };
        address.resting.push(at, generation);
        if self.resting < MOST_RESTING {
            self.resting += 1;
        } else if let Some(early) = address.resting.pop() {
            self.forget_resting(&early);
        }
    }

    /// Removes a mapping without leases, which frees its port.
    fn forget(&mut self, at: u32) {
        let mapping = &self.all[at as usize];
        let (inside, outside) = (mapping.inside, mapping.outside);
        let (by_inside, by_outside) = (self.keys.hash_one(inside), self.keys.hash_one(outside));
        for (table, hash) in [
            (&mut self.by_inside, by_inside),
            (&mut self.by_outside, by_outside),
        ] {
            if let Ok(entry) = table.find_entry(hash, |other| *other == at) {
                entry.remove();
            }
        }
        self.free.push(at);
        let key = (outside.protocol, outside.addr);
        if let Some(address) = self.addresses.get_mut(&key) {
            address.taken.release(outside.number);
            if address.taken.is_empty() {
                self.resting -= address.resting.len();
                self.addresses.remove(&key);
            }
        }
    }

    /// Updates the counts of each pool that may lease this port.
    fn each_account(&mut self, outside: &NatPort, change: impl Fn(&mut PortCount, &PoolSpec, u32)) {
        for account in self.accounts.iter_mut().flatten() {
            if let Some(place) = account.spec.covers(outside) {
                let count = &mut account.counts[outside.protocol as usize];
                change(count, &account.spec, place);
            }
        }
    }
}
