//! NAT of one link: destination and source translation.
//!
//! Owns the rules in compiled form ([`Nat`]), the port pools, which outlive a change of configuration ([`PoolRegistry`]),
//! and the rewriting of packets ([`rewrite()`], [`rewrite_error`]). The datapath decides when to translate, and the
//! flow table remembers the result: packets of known flows do not come here, and a [`PortLease`] lives as long as its
//! flow.
//!
//! TCP, UDP and ICMP queries are translated by address and port; other protocols by address only, if their checksum
//! does not cover addresses.

mod icmp;
mod identification;
mod mappings;
mod pool;
mod port_set;
mod resting_ports;
mod rewrite;
mod rule;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

pub use icmp::rewrite_error;
pub use identification::{Identifications, needs_identification, set_identification};
pub use pool::{Exhausted, MAX_ADDRESSES, NatPool, PoolRegistry, PoolShare, PortLease, PortUsage};
pub use rewrite::{Rewrite, Untranslatable, rewrite};
pub use rule::{NatError, NatRule};

use crate::link_index::LinkIndex;
use mappings::{NatMappings, NatPort, NatProtocol};

/// Compiled NAT rules of one link. Immutable, except for the leases of its pools.
#[derive(Debug, Default)]
pub struct Nat {
    /// In rule order.
    pools: Vec<(Box<str>, Arc<NatPool>)>,
    /// Prefixes and the indexes of their pools.
    from_v4: PrefixMap<Ipv4Net, u32>,
    from_v6: PrefixMap<Ipv6Net, u32>,
    by_inside: HashMap<IpAddr, FixedTranslation>,
    by_destination: HashMap<IpAddr, InboundTranslation>,
    space: Option<Arc<NatMappings>>,
    /// Number of links that share the pools, if they are shared.
    consumers: Option<u32>,
}

/// Translated address, and the rule that translates it.
#[derive(Clone, Debug)]
struct FixedTranslation {
    addr: IpAddr,
    rule: Box<str>,
}

/// Translations of packets to one address.
#[derive(Debug, Default)]
struct InboundTranslation {
    forwards: HashMap<(u8, u16), (FixedTranslation, Option<u16>)>,
    dnat: Option<FixedTranslation>,
    fixed: Option<FixedTranslation>,
}

/// Result of destination translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslatedDestination<'a> {
    /// Translated address.
    pub addr: IpAddr,
    /// Translated port; `None` if it is kept.
    pub port: Option<u16>,
    /// The rule that matched.
    pub rule: &'a str,
}

/// Result of source translation.
#[derive(Clone, Copy, Debug)]
pub enum SourceTranslation<'a> {
    /// A static address; the port is kept.
    Static {
        /// Outside address.
        outside: IpAddr,
        /// The rule that matched.
        rule: &'a str,
    },
    /// An address and a port leased from a pool.
    Pool {
        /// Pool to lease from.
        pool: &'a Arc<NatPool>,
        /// The rule that matched.
        rule: &'a str,
    },
}

impl Nat {
    /// Compiles the rules of a link. Pools whose addresses and ports are unchanged are taken from `registry` with
    /// their leases; forwarded ports are excluded from pools.
    ///
    /// # Errors
    ///
    /// [`NatError`] if the rules are invalid; `registry` is unchanged then.
    pub fn compile(
        link: LinkIndex,
        rules: Vec<NatRule>,
        registry: &mut PoolRegistry,
    ) -> Result<Nat, NatError> {
        let mut specs = rule::check(&rules)?.into_iter();
        let mut nat = Nat::default();
        for rule in rules {
            match rule {
                NatRule::Snat { name, from, .. } => {
                    let Some(spec) = specs.next() else {
                        continue;
                    };
                    let place = nat.pools.len() as u32;
                    match from.trunc() {
                        IpNet::V4(net) => nat.from_v4.insert(net, place),
                        IpNet::V6(net) => nat.from_v6.insert(net, place),
                    };
                    let pool = registry.pool(link, &name, spec);
                    nat.space = Some(Arc::clone(pool.space()));
                    nat.pools.push((name.into(), pool));
                }
                NatRule::Dnat {
                    name,
                    to,
                    port,
                    target,
                    target_port,
                } => {
                    let inbound = nat.by_destination.entry(to).or_default();
                    let plain = FixedTranslation::new(target, name);
                    match port {
                        Some(port) => {
                            inbound.forwards.insert(port, (plain, target_port));
                        }
                        None => inbound.dnat = Some(plain),
                    }
                }
                NatRule::Static {
                    name,
                    inside,
                    outside,
                } => {
                    let inbound = nat.by_destination.entry(outside).or_default();
                    inbound.fixed = Some(FixedTranslation::new(inside, name.clone()));
                    nat.by_inside
                        .insert(inside, FixedTranslation::new(outside, name));
                }
            }
        }
        Ok(nat)
    }

    /// Returns the rules with pools that are shared by this many links, not counting the one they were compiled for.
    #[must_use]
    pub fn shared_by(self, consumers: u32) -> Nat {
        Nat {
            consumers: Some(consumers),
            ..self
        }
    }

    /// Returns a link's share of the pools, if they are shared.
    #[must_use]
    pub fn share(&self, consumer: LinkIndex) -> Option<PoolShare> {
        let consumers = self.consumers?;
        Some(PoolShare {
            consumer,
            consumers,
        })
    }

    /// Returns the usage of a link's share in the pool that is nearest to exhaustion; `None` if the pools are not
    /// shared.
    #[must_use]
    pub fn usage_of_share(&self, consumer: LinkIndex) -> Option<PortUsage> {
        let share = self.share(consumer)?;
        let usages = self.pools().map(|(_, pool)| pool.usage_of_share(&share));
        usages.max_by_key(|usage| (usage.in_use << 32).checked_div(usage.total))
    }

    /// Whether there are no rules.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.by_destination.is_empty()
    }

    /// Whether `addr` is an outside address: of a pool, a destination NAT rule or a static rule.
    #[must_use]
    pub fn has_outside(&self, addr: IpAddr) -> bool {
        self.by_destination.contains_key(&addr) || self.pools.iter().any(|(_, pool)| pool.has(addr))
    }

    /// Translates the destination of a packet to `dst`. A port forward takes precedence over a rule for the whole
    /// address, and destination NAT over a static rule. `None` if the destination is kept.
    ///
    /// `dport` is the destination port of TCP and UDP; port forwards do not apply to packets without one.
    #[inline]
    #[must_use]
    pub fn destination(
        &self,
        dst: IpAddr,
        proto: u8,
        dport: Option<u16>,
    ) -> Option<TranslatedDestination<'_>> {
        let inbound = self.by_destination.get(&dst)?;
        let forward = dport.and_then(|port| inbound.forwards.get(&(proto, port)));
        let (plain, port) = match forward {
            Some((plain, port)) => (plain, *port),
            None => (inbound.dnat.as_ref().or(inbound.fixed.as_ref())?, None),
        };
        Some(TranslatedDestination {
            addr: plain.addr,
            port,
            rule: &plain.rule,
        })
    }

    /// Translates the source of a packet that leaves the VPC. A static rule takes precedence over a pool; among pools
    /// the longest prefix wins. `None` if the source is kept.
    #[inline]
    #[must_use]
    pub fn source(&self, src: IpAddr) -> Option<SourceTranslation<'_>> {
        if let Some(plain) = self.by_inside.get(&src) {
            return Some(SourceTranslation::Static {
                outside: plain.addr,
                rule: &plain.rule,
            });
        }
        let place = match src {
            IpAddr::V4(a) => self.from_v4.get_lpm(&Ipv4Net::from(a))?.1,
            IpAddr::V6(a) => self.from_v6.get_lpm(&Ipv6Net::from(a))?.1,
        };
        let (rule, pool) = self.pools.get(*place as usize)?;
        Some(SourceTranslation::Pool { pool, rule })
    }

    /// Whether a packet between these addresses stays inside: the pool rule that translates `src` also covers `dst`,
    /// or both have static outside addresses.
    #[must_use]
    pub fn covers_both(&self, src: IpAddr, dst: IpAddr) -> bool {
        if self.by_inside.contains_key(&src) && self.by_inside.contains_key(&dst) {
            return true;
        }
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let found = self.from_v4.get_lpm(&Ipv4Net::from(src));
                found.is_some_and(|(prefix, _)| prefix.contains(&dst))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let found = self.from_v6.get_lpm(&Ipv6Net::from(src));
                found.is_some_and(|(prefix, _)| prefix.contains(&dst))
            }
            _ => false,
        }
    }

    /// Returns the inside address and port that a live mapping has for this outside address and port: the destination
    /// of a packet from inside to an outside address of the same NAT (hairpin, RFC 4787 section 6).
    #[must_use]
    pub fn mapping(&self, proto: u8, outside: IpAddr, port: u16) -> Option<(IpAddr, u16)> {
        let outside = NatPort {
            protocol: NatProtocol::of(proto)?,
            addr: outside,
            number: port,
        };
        let inside = self.space.as_ref()?.lock().inside(&outside)?;
        Some((inside.addr, inside.number))
    }

    /// Names of the rules and their pools, in rule order.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Arc<NatPool>)> {
        self.pools.iter().map(|(rule, pool)| (&**rule, pool))
    }

    /// Names of the rules and the usage of their pools; see [`NatPool::usage`].
    pub fn usages(&self) -> impl Iterator<Item = (&str, PortUsage)> {
        self.pools().map(|(rule, pool)| (rule, pool.usage()))
    }
}

impl FixedTranslation {
    fn new(addr: IpAddr, rule: String) -> FixedTranslation {
        FixedTranslation {
            addr,
            rule: rule.into(),
        }
    }
}

#[cfg(test)]
#[path = "nat_tests.rs"]
mod tests;
