//! Who has which outside port on one link.
//!
//! Owns the live mappings, in both directions, and what each pool has left. All pools of a link share
//! one [`Space`], also those of a configuration that is on its way out: whatever changes, a port that
//! is in use is not handed out again. What a pool hands out next is [`pool`](super::pool)'s choice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ports::Ports;
use crate::wire::ip::protocol;

/// The protocols whose ports are leased, each with port numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    /// ICMP and ICMPv6 queries; the identifier is the port.
    Query,
}

impl Protocol {
    pub(super) const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Query];

    /// By the IP protocol number; `None` for a protocol without ports.
    pub(super) fn of(number: u8) -> Option<Protocol> {
        match number {
            protocol::TCP => Some(Protocol::Tcp),
            protocol::UDP => Some(Protocol::Udp),
            protocol::ICMP | protocol::ICMPV6 => Some(Protocol::Query),
            _ => None,
        }
    }
}

/// A port of one protocol on one address, inside or outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Port {
    pub(super) protocol: Protocol,
    pub(super) addr: IpAddr,
    pub(super) number: u16,
}

/// What a pool may hand out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spec {
    /// The first address.
    pub(super) first: IpAddr,
    /// How many addresses, at least 1.
    pub(super) addresses: u32,
    /// Never empty.
    pub(super) ports: RangeInclusive<u16>,
    /// Ports that belong to a port forward: protocol, place of the address, port; sorted, each once.
    pub(super) reserved: Vec<(Protocol, u32, u16)>,
}

impl Spec {
    /// The place of an address in the pool.
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

    /// The address at a place below `addresses`.
    pub(super) fn address(&self, place: u32) -> IpAddr {
        match self.first {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits().wrapping_add(place)).into(),
            IpAddr::V6(first) => {
                Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(place))).into()
            }
        }
    }

    /// The place of the address if the pool may hand out this port of it.
    pub(super) fn covers(&self, port: &Port) -> Option<u32> {
        let place = self.place(port.addr)?;
        let covered = self.ports.contains(&port.number)
            && !self.is_reserved(port.protocol, place, port.number);
        covered.then_some(place)
    }

    pub(super) fn is_reserved(&self, protocol: Protocol, place: u32, port: u16) -> bool {
        self.reserved
            .binary_search(&(protocol, place, port))
            .is_ok()
    }

    /// The reserved ports of one address.
    fn reserved_on(&self, protocol: Protocol, place: u32) -> &[(Protocol, u32, u16)] {
        let from = self.reserved.partition_point(|r| *r < (protocol, place, 0));
        let to = self
            .reserved
            .partition_point(|r| *r <= (protocol, place, u16::MAX));
        &self.reserved[from..to]
    }

    /// How many ports of one address may be handed out.
    fn capacity(&self, protocol: Protocol, place: u32) -> u32 {
        self.ports.len() as u32 - self.reserved_on(protocol, place).len() as u32
    }

    /// How many ports of all addresses may be handed out.
    pub(super) fn total(&self, protocol: Protocol) -> u64 {
        let reserved = self.reserved.iter().filter(|r| r.0 == protocol).count();
        u64::from(self.addresses) * self.ports.len() as u64 - reserved as u64
    }
}

/// What a pool has handed out of one protocol.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) in_use: u64,
    /// By the address's place.
    on_address: Vec<u32>,
    /// A bit for each address that has nothing left, by its place.
    full: Vec<u64>,
}

impl Count {
    fn new(spec: &Spec, protocol: Protocol) -> Count {
        let mut count = Count {
            in_use: 0,
            on_address: vec![0; spec.addresses as usize],
            full: vec![0; spec.addresses.div_ceil(64) as usize],
        };
        for &(_, place, _) in spec.reserved.iter().filter(|r| r.0 == protocol) {
            count.settle(spec, protocol, place);
        }
        count
    }

    fn add(&mut self, spec: &Spec, protocol: Protocol, place: u32, ports: u32) {
        self.in_use += u64::from(ports);
        self.on_address[place as usize] += ports;
        self.settle(spec, protocol, place);
    }

    fn remove(&mut self, spec: &Spec, protocol: Protocol, place: u32) {
        self.in_use -= 1;
        self.on_address[place as usize] -= 1;
        self.settle(spec, protocol, place);
    }

    fn settle(&mut self, spec: &Spec, protocol: Protocol, place: u32) {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if self.on_address[place as usize] >= spec.capacity(protocol, place) {
            self.full[word] |= bit;
        } else {
            self.full[word] &= !bit;
        }
    }

    /// The first address from `place` on, around the end, that has a port left.
    pub(super) fn next_with_room(&self, spec: &Spec, place: u32) -> Option<u32> {
        let word = |at: usize| self.full[at];
        let last = spec.addresses as usize - 1;
        super::ports::first_clear(word, place as usize, last)
            .or_else(|| super::ports::first_clear(word, 0, place as usize))
            .map(|place| place as u32)
    }
}

#[derive(Debug)]
struct Account {
    spec: Arc<Spec>,
    counts: [Count; 3],
}

#[derive(Debug)]
struct Mapping {
    inside: Port,
    leases: u32,
}

/// The mappings of one link.
#[derive(Debug, Default)]
pub(super) struct Space {
    mappings: Mutex<Mappings>,
    /// Spreads inside addresses over outside ones, and searches over ports, in a way that nobody
    /// outside can predict (RFC 6056).
    pub(super) hash: RandomState,
}

#[derive(Debug, Default)]
pub(super) struct Mappings {
    /// The outside port of a new flow from this inside port.
    by_inside: HashMap<Port, Port>,
    by_outside: HashMap<Port, Mapping>,
    taken: HashMap<(Protocol, IpAddr), Box<Ports>>,
    accounts: Vec<Option<Account>>,
    /// Counts the mappings that were ever made.
    pub(super) turn: u64,
}

impl Space {
    /// A thread that panicked cannot have left the maps half changed: nothing in here panics midway.
    pub(super) fn lock(&self) -> MutexGuard<'_, Mappings> {
        self.mappings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mappings {
    /// Opens a pool's account, with the ports in it that are in use already.
    pub(super) fn open(&mut self, spec: &Arc<Spec>) -> usize {
        let mut counts = Protocol::ALL.map(|protocol| Count::new(spec, protocol));
        for (&(protocol, addr), ports) in &self.taken {
            let Some(place) = spec.place(addr) else {
                continue;
            };
            let reserved = spec.reserved_on(protocol, place);
            let foreign = reserved.iter().filter(|r| ports.contains(r.2)).count();
            let used = ports.count(&spec.ports) - foreign as u32;
            counts[protocol as usize].add(spec, protocol, place, used);
        }
        let account = Account {
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

    /// Closes the account of a pool that is gone; its mappings live on.
    pub(super) fn close(&mut self, account: usize) {
        self.accounts[account] = None;
    }

    pub(super) fn count(&self, account: usize, protocol: Protocol) -> Option<&Count> {
        let account = self.accounts.get(account)?.as_ref()?;
        Some(&account.counts[protocol as usize])
    }

    /// The outside port that flows from this inside port have.
    pub(super) fn outside(&self, inside: &Port) -> Option<Port> {
        self.by_inside.get(inside).copied()
    }

    /// The inside port that has this outside port.
    pub(super) fn inside(&self, outside: &Port) -> Option<Port> {
        self.by_outside.get(outside).map(|mapping| mapping.inside)
    }

    pub(super) fn taken(&self, protocol: Protocol, addr: IpAddr) -> Option<&Ports> {
        self.taken.get(&(protocol, addr)).map(|ports| &**ports)
    }

    /// Counts one more lease of `outside` for `inside`, and makes the mapping if it is new. `false`
    /// if the port belongs to another inside port.
    pub(super) fn hold(&mut self, inside: Port, outside: Port) -> bool {
        match self.by_outside.entry(outside) {
            Entry::Occupied(mut there) => {
                let mapping = there.get_mut();
                if mapping.inside != inside || mapping.leases == u32::MAX {
                    return false;
                }
                mapping.leases += 1;
                return true;
            }
            Entry::Vacant(free) => {
                free.insert(Mapping { inside, leases: 1 });
            }
        }
        // An older mapping of a pool that does not have its port any more lives on in `by_outside`.
        self.by_inside.insert(inside, outside);
        self.taken
            .entry((outside.protocol, outside.addr))
            .or_insert_with(|| Box::new(Ports::new()))
            .take(outside.number);
        self.turn = self.turn.wrapping_add(1);
        for account in self.accounts.iter_mut().flatten() {
            if let Some(place) = account.spec.covers(&outside) {
                let protocol = outside.protocol;
                account.counts[protocol as usize].add(&account.spec, protocol, place, 1);
            }
        }
        true
    }

    /// Gives one lease back, and the port with the last one.
    pub(super) fn release(&mut self, outside: Port) {
        let Entry::Occupied(mut there) = self.by_outside.entry(outside) else {
            return;
        };
        there.get_mut().leases -= 1;
        if there.get().leases > 0 {
            return;
        }
        let inside = there.remove().inside;
        if self.by_inside.get(&inside) == Some(&outside) {
            self.by_inside.remove(&inside);
        }
        if let Entry::Occupied(mut ports) = self.taken.entry((outside.protocol, outside.addr)) {
            ports.get_mut().release(outside.number);
            if ports.get().is_empty() {
                ports.remove();
            }
        }
        for account in self.accounts.iter_mut().flatten() {
            if let Some(place) = account.spec.covers(&outside) {
                let protocol = outside.protocol;
                account.counts[protocol as usize].remove(&account.spec, protocol, place);
            }
        }
    }
}
