//! Address pools: which outside address and port an inside one gets.
//!
//! Owns the choice of a port, the lease that keeps it, and the registry that keeps pools over changes
//! of configuration. What is taken is [`space`](super::space)'s knowledge; which pool a packet's
//! source belongs to is [`Nat`](super::Nat)'s.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use super::space::{Holder, Mappings, Port, Protocol, Space, Spec};
use crate::link_index::LinkIndex;
use crate::time::Now;

/// The most addresses that a pool may have.
pub const MAX_ADDRESSES: u32 = 65_536;

/// How many ports are in use, and how many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Ports that a live mapping has.
    pub in_use: u64,
    /// Ports that can be in use: addresses times ports of the range, without those that belong to
    /// port forwards.
    pub total: u64,
}

/// No port is left for the protocol, or the pool cannot serve it: it has no ports, or the inside
/// address is of the other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address pool has no port left")]
pub struct Exhausted;

/// A part of a pool that several links share, each with as many ports of each protocol as the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The link whose part it is.
    pub consumer: LinkIndex,
    /// How many links share the pool; 0 counts as 1.
    pub consumers: u32,
}

/// The addresses and ports of one source NAT rule.
///
/// TCP, UDP and ICMP queries (whose identifier is their port) each have all the ports of the range.
/// Shared by workers; new mappings take the link's lock, packets of known flows do not come here.
#[derive(Debug)]
pub struct Pool {
    spec: Arc<Spec>,
    space: Arc<Space>,
    account: usize,
}

/// An outside port of an inside one, for as long as any clone lives.
///
/// Small, because every translated flow has one: the number of the mapping that is shared by all flows from the inside port.
/// Cloning and dropping take the link's lock, on any thread.
#[derive(Debug)]
pub struct Lease {
    space: Arc<Space>,
    mapping: u32,
}

impl Clone for Lease {
    fn clone(&self) -> Lease {
        self.space.lock().hold_again(self.mapping);
        Lease {
            space: Arc::clone(&self.space),
            mapping: self.mapping,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.space.lock().release(self.mapping);
    }
}

impl Lease {
    /// The outside address and port.
    #[must_use]
    pub fn outside(&self) -> (IpAddr, u16) {
        let port = self.space.lock().outside_of(self.mapping);
        (port.addr, port.number)
    }
}

impl PartialEq for Lease {
    /// Whether both are leases of the same port.
    fn eq(&self, other: &Lease) -> bool {
        Arc::ptr_eq(&self.space, &other.space) && self.mapping == other.mapping
    }
}

impl Pool {
    fn new(spec: Spec, space: &Arc<Space>) -> Pool {
        let spec = Arc::new(spec);
        let account = space.lock().open(&spec);
        Pool {
            spec,
            space: Arc::clone(space),
            account,
        }
    }

    /// The outside address and port of `inside`, for the IP protocol `proto`.
    ///
    /// The mapping is endpoint-independent (RFC 4787 section 4.1): while any lease of it lives, the
    /// same inside address and port get the same outside ones. A new mapping takes the outside address
    /// that the inside address always gets, while that has a port left, and keeps the port where it is
    /// in range and free. No outside port is ever leased to two inside ports.
    ///
    /// A port of TCP that was given back rests for two minutes, because its server may be in TIME-WAIT: the inside port
    /// that had it has it again meanwhile, and others do only where the outside address has no other port left; then they
    /// get the one that rests longest. A rest begins with the first lease after it that looks for a port there.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn lease(
        self: &Arc<Self>,
        proto: u8,
        inside: (IpAddr, u16),
        now: Now,
    ) -> Result<Lease, Exhausted> {
        self.lease_of(None, proto, inside, now)
    }

    /// Like [`Pool::lease`], of one link's part where the pool is shared. There an inside address may hold as many ports as its
    /// link's part has left: one alone gets half, two a third each.
    ///
    /// # Errors
    ///
    /// [`Exhausted`], also where others have ports left.
    pub fn lease_of(
        self: &Arc<Self>,
        share: Option<&Share>,
        proto: u8,
        inside: (IpAddr, u16),
        now: Now,
    ) -> Result<Lease, Exhausted> {
        let inside = self.port(proto, inside)?;
        let mut mappings = self.space.lock();
        self.check_share(share, &mappings, &inside)?;
        let outside = self.choose(&mut mappings, &inside, now)?;
        let consumer = share.map(|share| share.consumer);
        let mapping = mappings.hold(inside, outside, consumer).ok_or(Exhausted)?;
        drop(mappings);
        Ok(Lease {
            space: Arc::clone(&self.space),
            mapping,
        })
    }

    /// Whether `addr` is one of its addresses.
    #[must_use]
    pub fn has(&self, addr: IpAddr) -> bool {
        self.spec.place(addr).is_some()
    }

    /// What [`Pool::lease_of`] would give; leases nothing.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn peek(
        &self,
        share: Option<&Share>,
        proto: u8,
        inside: (IpAddr, u16),
        now: Now,
    ) -> Result<(IpAddr, u16), Exhausted> {
        let inside = self.port(proto, inside)?;
        let mut mappings = self.space.lock();
        self.check_share(share, &mappings, &inside)?;
        let outside = self.choose(&mut mappings, &inside, now)?;
        Ok((outside.addr, outside.number))
    }

    /// Whether an inside port has one already, or its link's part has one for it.
    fn check_share(
        &self,
        share: Option<&Share>,
        mappings: &Mappings,
        inside: &Port,
    ) -> Result<(), Exhausted> {
        let Some(share) = share.filter(|_| !mappings.is_held(inside)) else {
            return Ok(());
        };
        let protocol = inside.protocol;
        let of_link = mappings.held_by(protocol, Holder::Link(share.consumer));
        let of_address = mappings.held_by(protocol, Holder::Address(inside.addr));
        let left = self.part(share, protocol).saturating_sub(of_link);
        if of_address < left {
            Ok(())
        } else {
            Err(Exhausted)
        }
    }

    /// How many ports of a protocol one link's part has.
    fn part(&self, share: &Share, protocol: Protocol) -> u64 {
        self.spec.total(protocol) / u64::from(share.consumers.max(1))
    }

    /// The usage of one link's part, of the protocol that is nearest to exhaustion.
    #[must_use]
    pub fn usage_of_share(&self, share: &Share) -> Usage {
        let mappings = self.space.lock();
        nearest_to_exhaustion(Protocol::ALL.map(|protocol| Usage {
            in_use: mappings.held_by(protocol, Holder::Link(share.consumer)),
            total: self.part(share, protocol),
        }))
    }

    /// The usage of the protocol that is nearest to exhaustion.
    #[must_use]
    pub fn usage(&self) -> Usage {
        nearest_to_exhaustion(Protocol::ALL.map(|protocol| self.usage_of_protocol(protocol)))
    }

    /// The usage of the IP protocol `proto`: TCP, UDP, or ICMP of either family. Zero of zero for
    /// others.
    #[must_use]
    pub fn usage_of(&self, proto: u8) -> Usage {
        Protocol::of(proto).map_or_else(Usage::default, |protocol| self.usage_of_protocol(protocol))
    }

    fn usage_of_protocol(&self, protocol: Protocol) -> Usage {
        let mappings = self.space.lock();
        Usage {
            in_use: mappings
                .count(self.account, protocol)
                .map_or(0, |count| count.in_use),
            total: self.spec.total(protocol),
        }
    }

    fn port(&self, proto: u8, (addr, number): (IpAddr, u16)) -> Result<Port, Exhausted> {
        let protocol = Protocol::of(proto).ok_or(Exhausted)?;
        if addr.is_ipv4() != self.spec.first.is_ipv4() {
            return Err(Exhausted);
        }
        Ok(Port {
            protocol,
            addr,
            number,
        })
    }

    fn choose(&self, mappings: &mut Mappings, inside: &Port, now: Now) -> Result<Port, Exhausted> {
        let there = mappings.outside(inside);
        if let Some(outside) = there.filter(|port| self.spec.covers(port).is_some()) {
            return Ok(outside);
        }
        let protocol = inside.protocol;
        let count = mappings.count(self.account, protocol).ok_or(Exhausted)?;
        let home = self.space.hash.hash_one(inside.addr) % u64::from(self.spec.addresses);
        let place = count
            .next_with_room(&self.spec, home as u32)
            .ok_or(Exhausted)?;
        let addr = self.spec.address(place);
        mappings.rouse(protocol, addr, now);
        let known = mappings.address(protocol, addr);
        let taken = known.map(|known| &known.taken);
        let kept = Port { addr, ..*inside };
        if self.spec.covers(&kept).is_some() && !taken.is_some_and(|t| t.contains(kept.number)) {
            return Ok(kept);
        }
        let (low, high) = (*self.spec.ports.start(), *self.spec.ports.end());
        let turn = self.space.hash.hash_one((inside.number, mappings.turn));
        let start = low + (turn % self.spec.ports.len() as u64) as u16;
        let free = |from: u16, to: u16| {
            let mut from = from;
            loop {
                let port = match taken {
                    Some(taken) => taken.first_free(from, to)?,
                    None if from <= to => from,
                    None => return None,
                };
                if !self.spec.is_reserved(protocol, place, port) {
                    return Some(port);
                }
                from = port.checked_add(1)?;
            }
        };
        if let Some(number) = free(start, high).or_else(|| free(low, start)) {
            return Ok(Port {
                protocol,
                addr,
                number,
            });
        }
        // There is room, so that some rest.
        known
            .and_then(|known| mappings.longest_resting(&self.spec, known))
            .ok_or(Exhausted)
    }

    pub(super) fn space(&self) -> &Arc<Space> {
        &self.space
    }
}

fn nearest_to_exhaustion(usages: [Usage; 3]) -> Usage {
    let used = |usage: &Usage| (usage.in_use << 32).checked_div(usage.total);
    usages.into_iter().max_by_key(used).unwrap_or_default()
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.space.lock().close(self.account);
    }
}

/// Keeps pools over changes of configuration: a rule that stays as it is keeps its pool, and one that
/// changes gets a new pool that knows of every port in use.
#[derive(Debug, Default)]
pub struct Registry {
    pools: HashMap<(LinkIndex, String, Spec), Arc<Pool>>,
    spaces: HashMap<LinkIndex, Arc<Space>>,
}

impl Registry {
    /// The pool of this rule, made where there is none with these addresses and ports.
    pub(super) fn pool(&mut self, link: LinkIndex, rule: &str, spec: Spec) -> Arc<Pool> {
        let space = self.spaces.entry(link).or_default();
        let pool = self
            .pools
            .entry((link, rule.to_owned(), spec))
            .or_insert_with_key(|(_, _, spec)| Arc::new(Pool::new(spec.clone(), space)));
        Arc::clone(pool)
    }

    /// Forgets the pools that nobody else holds, and the links on which no port is leased any more.
    pub fn prune(&mut self) {
        self.pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        self.spaces.retain(|_, space| Arc::strong_count(space) > 1);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
