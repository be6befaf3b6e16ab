//! Address pools: which outside address and port an inside one gets.
//!
//! Owns the choice of a port, the lease that keeps it, and the registry that keeps pools across changes of
//! configuration. [`space`](super::space) knows which ports are taken; [`Nat`](super::Nat) chooses the pool for a
//! packet's source.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;

use super::mappings::{MappingTable, NatMappings, NatPort, NatProtocol, PoolSpec, PortConsumer};
use crate::link_index::LinkIndex;
use crate::time::Now;

/// Most addresses in a pool.
pub const MAX_ADDRESSES: u32 = 65_536;

/// Port usage of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortUsage {
    /// Ports with a live mapping.
    pub in_use: u64,
    /// Usable ports: addresses times ports of the range, without forwarded ports.
    pub total: u64,
}

/// No port is left for the protocol, or the pool cannot serve it: it has no ports, or the inside address is of the
/// other family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address pool has no port left")]
pub struct Exhausted;

/// Share of a pool that several links use; each gets the same number of ports of each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShare {
    /// The link that the share belongs to.
    pub consumer: LinkIndex,
    /// Number of links that share the pool; 0 counts as 1.
    pub consumers: u32,
}

/// Addresses and ports of one source NAT rule.
///
/// TCP, UDP and ICMP queries (whose identifier is the port) can each use all ports of the range. Shared by workers;
/// new mappings take the link's lock, packets of known flows do not come here.
#[derive(Debug)]
pub struct NatPool {
    spec: Arc<PoolSpec>,
    space: Arc<NatMappings>,
    account: usize,
}

/// Lease of an outside port for an inside one; released with its last clone.
///
/// Small, because every translated flow has one: just the index of the mapping, which all flows from the inside port
/// share. Cloning and dropping take the link's lock, on any thread.
#[derive(Debug)]
pub struct PortLease {
    space: Arc<NatMappings>,
    mapping: u32,
}

impl Clone for PortLease {
    fn clone(&self) -> PortLease {
        self.space.lock().reacquire(self.mapping);
        PortLease {
            space: Arc::clone(&self.space),
            mapping: self.mapping,
        }
    }
}

impl Drop for PortLease {
    fn drop(&mut self) {
        self.space.lock().release(self.mapping);
    }
}

impl PortLease {
    /// Returns the outside address and port.
    #[must_use]
    pub fn outside(&self) -> (IpAddr, u16) {
        let port = self.space.lock().outside_of(self.mapping);
        (port.addr, port.number)
    }
}

impl PartialEq for PortLease {
    /// Whether both are leases of the same port.
    fn eq(&self, other: &PortLease) -> bool {
        Arc::ptr_eq(&self.space, &other.space) && self.mapping == other.mapping
    }
}

impl NatPool {
    fn new(spec: PoolSpec, space: &Arc<NatMappings>) -> NatPool {
        let spec = Arc::new(spec);
        let account = space.lock().open(&spec);
        NatPool {
            spec,
            space: Arc::clone(space),
            account,
        }
    }

    /// Leases an outside address and port for `inside` and the IP protocol `proto`.
    ///
    /// The mapping is endpoint-independent (RFC 4787 section 4.1): while any lease of it lives, the same inside
    /// address and port get the same outside ones. Address pooling is paired: an inside address gets the same outside
    /// address while that has a free port. The port is preserved if it is in range and free. No outside port is ever
    /// leased to two inside ports.
    ///
    /// A released TCP port is quarantined for two minutes, because its server may be in TIME-WAIT. During that time
    /// the same inside port may have it again; others get it only if the outside address has no other port left, the
    /// longest quarantined first. The time starts with the next lease that looks for a port on that address.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn lease(
        self: &Arc<Self>,
        proto: u8,
        inside: (IpAddr, u16),
        now: Now,
    ) -> Result<PortLease, Exhausted> {
        self.lease_of(None, proto, inside, now)
    }

    /// Like [`NatPool::lease`], from one link's share if the pool is shared. An inside address may then hold as many
    /// ports as its link's share has left: a single one gets half, two a third each.
    ///
    /// # Errors
    ///
    /// [`Exhausted`], also if only other links have ports left.
    pub fn lease_of(
        self: &Arc<Self>,
        share: Option<&PoolShare>,
        proto: u8,
        inside: (IpAddr, u16),
        now: Now,
    ) -> Result<PortLease, Exhausted> {
        let inside = self.port(proto, inside)?;
        let mut mappings = self.space.lock();
        self.check_share(share, &mappings, &inside)?;
        let outside = self.choose(&mut mappings, &inside, now)?;
        let consumer = share.map(|share| share.consumer);
        let mapping = mappings
            .acquire(inside, outside, consumer)
            .ok_or(Exhausted)?;
        drop(mappings);
        Ok(PortLease {
            space: Arc::clone(&self.space),
            mapping,
        })
    }

    /// Whether `addr` is in the pool.
    #[must_use]
    pub fn has(&self, addr: IpAddr) -> bool {
        self.spec.place(addr).is_some()
    }

    /// Returns what [`NatPool::lease_of`] would lease, without leasing it.
    ///
    /// # Errors
    ///
    /// [`Exhausted`].
    pub fn peek(
        &self,
        share: Option<&PoolShare>,
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

    /// Checks that an inside port has a mapping already, or that its link's share has a port left for it.
    fn check_share(
        &self,
        share: Option<&PoolShare>,
        mappings: &MappingTable,
        inside: &NatPort,
    ) -> Result<(), Exhausted> {
        let Some(share) = share.filter(|_| !mappings.is_held(inside)) else {
            return Ok(());
        };
        let protocol = inside.protocol;
        let of_link = mappings.held_by(protocol, PortConsumer::Link(share.consumer));
        let of_address = mappings.held_by(protocol, PortConsumer::Address(inside.addr));
        let left = self.part(share, protocol).saturating_sub(of_link);
        if of_address < left {
            Ok(())
        } else {
            Err(Exhausted)
        }
    }

    /// Returns the number of ports of a protocol in one link's share.
    fn part(&self, share: &PoolShare, protocol: NatProtocol) -> u64 {
        self.spec.total(protocol) / u64::from(share.consumers.max(1))
    }

    /// Returns the usage of one link's share, for the protocol that is nearest to exhaustion.
    #[must_use]
    pub fn usage_of_share(&self, share: &PoolShare) -> PortUsage {
        let mappings = self.space.lock();
        nearest_to_exhaustion(NatProtocol::ALL.map(|protocol| PortUsage {
            in_use: mappings.held_by(protocol, PortConsumer::Link(share.consumer)),
            total: self.part(share, protocol),
        }))
    }

    /// Returns the usage of the protocol that is nearest to exhaustion.
    #[must_use]
    pub fn usage(&self) -> PortUsage {
        nearest_to_exhaustion(NatProtocol::ALL.map(|protocol| self.usage_of_protocol(protocol)))
    }

    /// Returns the usage of the IP protocol `proto`: TCP, UDP, or ICMP of either family. Zero of zero for others.
    #[must_use]
    pub fn usage_of(&self, proto: u8) -> PortUsage {
        NatProtocol::of(proto).map_or_else(PortUsage::default, |protocol| {
            self.usage_of_protocol(protocol)
        })
    }

    fn usage_of_protocol(&self, protocol: NatProtocol) -> PortUsage {
        let mappings = self.space.lock();
        PortUsage {
            in_use: mappings
                .count(self.account, protocol)
                .map_or(0, |count| count.in_use),
            total: self.spec.total(protocol),
        }
    }

    fn port(&self, proto: u8, (addr, number): (IpAddr, u16)) -> Result<NatPort, Exhausted> {
        let protocol = NatProtocol::of(proto).ok_or(Exhausted)?;
        if addr.is_ipv4() != self.spec.first.is_ipv4() {
            return Err(Exhausted);
        }
        Ok(NatPort {
            protocol,
            addr,
            number,
        })
    }

    fn choose(
        &self,
        mappings: &mut MappingTable,
        inside: &NatPort,
        now: Now,
    ) -> Result<NatPort, Exhausted> {
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
        mappings.expire_resting(protocol, addr, now);
        let known = mappings.address(protocol, addr);
        let taken = known.map(|known| &known.taken);
        let kept = NatPort { addr, ..*inside };
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
            return Ok(NatPort {
                protocol,
                addr,
                number,
            });
        }
        // The address has room, so what is left must be quarantined ports.
        known
            .and_then(|known| mappings.longest_resting(&self.spec, known))
            .ok_or(Exhausted)
    }

    pub(super) fn space(&self) -> &Arc<NatMappings> {
        &self.space
    }
}

fn nearest_to_exhaustion(usages: [PortUsage; 3]) -> PortUsage {
    let used = |usage: &PortUsage| (usage.in_use << 32).checked_div(usage.total);
    usages.into_iter().max_by_key(used).unwrap_or_default()
}

impl Drop for NatPool {
    fn drop(&mut self) {
        self.space.lock().close(self.account);
    }
}

/// Registry that keeps pools across changes of configuration: an unchanged rule keeps its pool, and a changed one
/// gets a new pool that knows all ports in use.
#[derive(Debug, Default)]
pub struct PoolRegistry {
    pools: HashMap<(LinkIndex, String, PoolSpec), Arc<NatPool>>,
    spaces: HashMap<LinkIndex, Arc<NatMappings>>,
}

impl PoolRegistry {
    /// Returns the pool of this rule; makes it if there is none with these addresses and ports.
    pub(super) fn pool(&mut self, link: LinkIndex, rule: &str, spec: PoolSpec) -> Arc<NatPool> {
        let space = self.spaces.entry(link).or_default();
        let pool = self
            .pools
            .entry((link, rule.to_owned(), spec))
            .or_insert_with_key(|(_, _, spec)| Arc::new(NatPool::new(spec.clone(), space)));
        Arc::clone(pool)
    }

    /// Drops pools that nothing else holds, and links without any leased port.
    pub fn prune(&mut self) {
        self.pools.retain(|_, pool| Arc::strong_count(pool) > 1);
        self.spaces.retain(|_, space| Arc::strong_count(space) > 1);
    }
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
