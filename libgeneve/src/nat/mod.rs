//! NAT of one link: where a packet really goes, and what its source becomes.
//!
//! Owns the rules in compiled form ([`Nat`]), the pools of ports that survive a change of
//! configuration ([`Registry`]), and the rewriting of packets ([`rewrite()`], [`rewrite_error`]).
//! Leaves to the datapath when to ask, and to the flow table to remember the answer: a known flow
//! does not come here, and a [`Lease`] lives where the flow lives.
//!
//! TCP, UDP and ICMP queries are translated, and whole addresses for any protocol whose checksum
//! does not cover them.

mod icmp;
mod identification;
mod pool;
mod ports;
mod resting;
mod rewrite;
mod rule;
mod space;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

pub use icmp::rewrite_error;
pub use identification::{Identifications, needs_identification, set_identification};
pub use pool::{Exhausted, Lease, MAX_ADDRESSES, Pool, Registry, Share, Usage};
pub use rewrite::{Rewrite, Untranslatable, rewrite};
pub use rule::{NatError, Rule};

use crate::link_index::LinkIndex;
use space::{Port, Protocol, Space};

/// The NAT rules of one link, compiled. Immutable; what changes are the pools' leases.
#[derive(Debug, Default)]
pub struct Nat {
    /// In the order of the rules.
    pools: Vec<(Box<str>, Arc<Pool>)>,
    /// Prefixes and the places of their pools.
    from_v4: PrefixMap<Ipv4Net, u32>,
    from_v6: PrefixMap<Ipv6Net, u32>,
    by_inside: HashMap<IpAddr, Plain>,
    by_destination: HashMap<IpAddr, Inbound>,
    space: Option<Arc<Space>>,
    /// How many links share the pools, where they are not the link's alone.
    consumers: Option<u32>,
}

/// An address that stands for another, by which rule.
#[derive(Clone, Debug)]
struct Plain {
    addr: IpAddr,
    rule: Box<str>,
}

/// What happens to packets to one address.
#[derive(Debug, Default)]
struct Inbound {
    forwards: HashMap<(u8, u16), (Plain, Option<u16>)>,
    dnat: Option<Plain>,
    fixed: Option<Plain>,
}

/// Where a packet really goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination<'a> {
    /// The address.
    pub addr: IpAddr,
    /// The port; `None` where it stays as it is.
    pub port: Option<u16>,
    /// The rule that says so.
    pub rule: &'a str,
}

/// What a packet's source becomes.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Another address, the same port.
    Static {
        /// The address that others see.
        outside: IpAddr,
        /// The rule that says so.
        rule: &'a str,
    },
    /// An address and a port that the pool leases.
    Pool {
        /// The pool.
        pool: &'a Arc<Pool>,
        /// The rule that says so.
        rule: &'a str,
    },
}

impl Nat {
    /// Compiles the rules of a link. Pools whose addresses and ports are as before are taken from
    /// `registry`, with their leases; ports that are forwarded are kept out of pools.
    ///
    /// # Errors
    ///
    /// [`NatError`]; nothing of the rules was put into `registry`.
    pub fn compile(
        link: LinkIndex,
        rules: Vec<Rule>,
        registry: &mut Registry,
    ) -> Result<Nat, NatError> {
        let mut specs = rule::check(&rules)?.into_iter();
        let mut nat = Nat::default();
        for rule in rules {
            match rule {
                Rule::Snat { name, from, .. } => {
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
                Rule::Dnat {
                    name,
                    to,
                    port,
                    target,
                    target_port,
                } => {
                    let inbound = nat.by_destination.entry(to).or_default();
                    let plain = Plain::new(target, name);
                    match port {
                        Some(port) => {
                            inbound.forwards.insert(port, (plain, target_port));
                        }
                        None => inbound.dnat = Some(plain),
                    }
                }
                Rule::Static {
                    name,
                    inside,
                    outside,
                } => {
                    let inbound = nat.by_destination.entry(outside).or_default();
                    inbound.fixed = Some(Plain::new(inside, name.clone()));
                    nat.by_inside.insert(inside, Plain::new(outside, name));
                }
            }
        }
        Ok(nat)
    }

    /// The same for so many links, other than the one that it is compiled for, that share its pools.
    #[must_use]
    pub fn shared_by(self, consumers: u32) -> Nat {
        Nat {
            consumers: Some(consumers),
            ..self
        }
    }

    /// The part of its pools that a link has, where links share them.
    #[must_use]
    pub fn share(&self, consumer: LinkIndex) -> Option<Share> {
        let consumers = self.consumers?;
        Some(Share {
            consumer,
            consumers,
        })
    }

    /// The usage of a link's part, of the pool that is nearest to exhaustion; `None` where links do not share them.
    #[must_use]
    pub fn usage_of_share(&self, consumer: LinkIndex) -> Option<Usage> {
        let share = self.share(consumer)?;
        let usages = self.pools().map(|(_, pool)| pool.usage_of_share(&share));
        usages.max_by_key(|usage| (usage.in_use << 32).checked_div(usage.total))
    }

    /// Whether there is no rule at all.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pools.is_empty() && self.by_destination.is_empty()
    }

    /// Whether others know something inside by this address: that of a pool, of destination NAT or of a static rule.
    #[must_use]
    pub fn has_outside(&self, addr: IpAddr) -> bool {
        self.by_destination.contains_key(&addr) || self.pools.iter().any(|(_, pool)| pool.has(addr))
    }

    /// Where a packet to `dst` really goes: a port forward says so before a whole address does, and
    /// destination NAT before a static rule. `None` where it goes to `dst`.
    ///
    /// `dport` is the destination port of TCP and UDP; no port forward applies to a packet without.
    #[inline]
    #[must_use]
    pub fn destination(
        &self,
        dst: IpAddr,
        proto: u8,
        dport: Option<u16>,
    ) -> Option<Destination<'_>> {
        let inbound = self.by_destination.get(&dst)?;
        let forward = dport.and_then(|port| inbound.forwards.get(&(proto, port)));
        let (plain, port) = match forward {
            Some((plain, port)) => (plain, *port),
            None => (inbound.dnat.as_ref().or(inbound.fixed.as_ref())?, None),
        };
        Some(Destination {
            addr: plain.addr,
            port,
            rule: &plain.rule,
        })
    }

    /// What the source of a packet that leaves the VPC becomes: a static rule says so before a pool,
    /// and of pools the one of the longest prefix. `None` where it stays.
    #[inline]
    #[must_use]
    pub fn source(&self, src: IpAddr) -> Option<Source<'_>> {
        if let Some(plain) = self.by_inside.get(&src) {
            return Some(Source::Static {
                outside: plain.addr,
                rule: &plain.rule,
            });
        }
        let place = match src {
            IpAddr::V4(a) => self.from_v4.get_lpm(&Ipv4Net::from(a))?.1,
            IpAddr::V6(a) => self.from_v6.get_lpm(&Ipv6Net::from(a))?.1,
        };
        let (rule, pool) = self.pools.get(*place as usize)?;
        Some(Source::Pool { pool, rule })
    }

    /// Whether the rule that translates `src` is about `dst`, too, or both have an outside address for themselves: then a
    /// packet between them does not leave.
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

    /// The inside address and port that a live mapping gave this outside address and port: whom a
    /// packet from inside to an outside address of the same NAT is for (hairpin, RFC 4787 section 6).
    #[must_use]
    pub fn mapping(&self, proto: u8, outside: IpAddr, port: u16) -> Option<(IpAddr, u16)> {
        let outside = Port {
            protocol: Protocol::of(proto)?,
            addr: outside,
            number: port,
        };
        let inside = self.space.as_ref()?.lock().inside(&outside)?;
        Some((inside.addr, inside.number))
    }

    /// The pools with the names of their rules, in the order of the rules.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Arc<Pool>)> {
        self.pools.iter().map(|(rule, pool)| (&**rule, pool))
    }

    /// The usage of each pool, with the name of its rule; see [`Pool::usage`].
    pub fn usages(&self) -> impl Iterator<Item = (&str, Usage)> {
        self.pools().map(|(rule, pool)| (rule, pool.usage()))
    }
}

impl Plain {
    fn new(addr: IpAddr, rule: String) -> Plain {
        Plain {
            addr,
            rule: rule.into(),
        }
    }
}

#[cfg(test)]
#[path = "nat_tests.rs"]
mod tests;
