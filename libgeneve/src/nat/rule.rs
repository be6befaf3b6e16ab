//! NAT rules as an operator writes them, and their validation.
//!
//! Checks each rule, and each pair for conflicts. [`Nat`](super::Nat) applies them to packets.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::mappings::{NatProtocol, PoolSpec};
use super::pool::MAX_ADDRESSES;
use crate::wire::ip::protocol;

/// One NAT rule of a link. All addresses of a rule are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatRule {
    /// Source NAT: packets from a prefix leave with an address and port of a pool.
    Snat {
        /// The rule's name, unique on its link.
        name: String,
        /// Inside prefix; the host bits are ignored.
        from: IpNet,
        /// Outside addresses, at most [`MAX_ADDRESSES`].
        pool: RangeInclusive<IpAddr>,
        /// Outside ports, also used as identifiers of ICMP queries; 0 is not allowed.
        ports: RangeInclusive<u16>,
    },
    /// Destination NAT: packets to an address go to another one.
    Dnat {
        /// The rule's name, unique on its link.
        name: String,
        /// Original destination address.
        to: IpAddr,
        /// Protocol (TCP 6 or UDP 17) and destination port of a port forward; `None` for all packets to the address.
        port: Option<(u8, u16)>,
        /// New destination address.
        target: IpAddr,
        /// New destination port of a port forward; `None` keeps the port.
        target_port: Option<u16>,
    },
    /// One-to-one NAT: maps an inside address to an outside one in both directions, for every protocol that can be
    /// translated.
    Static {
        /// The rule's name, unique on its link.
        name: String,
        /// Inside address, in the VPC.
        inside: IpAddr,
        /// Outside address.
        outside: IpAddr,
    },
}

impl NatRule {
    /// The rule's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            NatRule::Snat { name, .. }
            | NatRule::Dnat { name, .. }
            | NatRule::Static { name, .. } => name,
        }
    }
}

/// Why rules are rejected. The strings are rule names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NatError {
    /// Two rules have the same name.
    #[error("two NAT rules have the name `{0}`")]
    SameName(String),
    /// A rule mixes IPv4 and IPv6.
    #[error("rule `{0}` mixes IPv4 and IPv6")]
    Family(String),
    /// An address that no single host can have.
    #[error("rule `{0}`: {1} is not the address of one host")]
    NotOneHost(String, IpAddr),
    /// The pool's last address is before its first.
    #[error("rule `{0}`: the pool ends before it begins")]
    EmptyPool(String),
    /// The pool has more than [`MAX_ADDRESSES`].
    #[error("rule `{0}`: the pool has more than {MAX_ADDRESSES} addresses")]
    LargePool(String),
    /// The port range is empty or includes port 0.
    #[error("rule `{0}`: the port range is empty or contains 0")]
    Ports(String),
    /// A port forward of a protocol without ports, or from or to port 0.
    #[error("rule `{0}`: only ports 1 to 65535 of TCP and UDP can be forwarded")]
    Forward(String),
    /// A target port without a port to forward.
    #[error("rule `{0}` has a target port and no port that is forwarded to it")]
    TargetPort(String),
    /// Two source NAT rules for the same prefix.
    #[error("rules `{0}` and `{1}` both translate packets from {2}")]
    SameFrom(String, String, IpNet),
    /// Two static rules for the same inside address.
    #[error("rules `{0}` and `{1}` both have the inside address {2}")]
    SameInside(String, String, IpAddr),
    /// Two rules that each need an outside address exclusively.
    #[error("rules `{0}` and `{1}` both have the outside address {2}")]
    SameOutside(String, String, IpAddr),
    /// Two destination NAT rules for the same packets.
    #[error("rules `{0}` and `{1}` both translate the same packets to {2}")]
    SameDestination(String, String, IpAddr),
}

/// Pool and the name of its rule.
type NamedPool<'a> = (&'a str, PoolSpec);

/// Validates the rules; returns the pool of each source NAT rule, in rule order.
pub(super) fn check(rules: &[NatRule]) -> Result<Vec<PoolSpec>, NatError> {
    let mut names = HashMap::new();
    let mut taken = TakenKeys::default();
    let mut pools: Vec<NamedPool<'_>> = Vec::new();
    for rule in rules {
        let name = rule.name();
        if names.insert(name, ()).is_some() {
            return Err(NatError::SameName(name.to_owned()));
        }
        match rule {
            NatRule::Snat {
                from, pool, ports, ..
            } => {
                taken.claim(UniqueKey::From(from.trunc()), name)?;
                pools.push((name, spec(name, *from, pool, ports)?));
            }
            NatRule::Dnat {
                to,
                port,
                target,
                target_port,
                ..
            } => {
                one_family(name, &[*to, *target])?;
                match port {
                    None if target_port.is_some() => {
                        return Err(NatError::TargetPort(name.to_owned()));
                    }
                    None => {}
                    Some((protocol::TCP | protocol::UDP, 1..)) if *target_port != Some(0) => {}
                    Some(_) => return Err(NatError::Forward(name.to_owned())),
                }
                taken.claim(UniqueKey::Destination(*to, *port), name)?;
            }
            NatRule::Static {
                inside, outside, ..
            } => {
                one_family(name, &[*inside, *outside])?;
                taken.claim(UniqueKey::Inside(*inside), name)?;
                taken.claim(UniqueKey::Outside(*outside), name)?;
            }
        }
    }
    disjoint(&pools)?;
    for rule in rules {
        // A rule that translates a whole address takes every port of it.
        let (name, addr) = match rule {
            NatRule::Static { name, outside, .. } => (name, outside),
            NatRule::Dnat {
                name,
                to,
                port: None,
                ..
            } => (name, to),
            NatRule::Snat { .. } | NatRule::Dnat { .. } => continue,
        };
        if let Some((pool, _)) = pools.iter().find(|(_, spec)| spec.place(*addr).is_some()) {
            return Err(NatError::SameOutside((*pool).into(), name.clone(), *addr));
        }
    }
    for (_, spec) in &mut pools {
        reserve(spec, rules);
    }
    Ok(pools.into_iter().map(|(_, spec)| spec).collect())
}

/// What only one rule may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum UniqueKey {
    From(IpNet),
    Inside(IpAddr),
    Outside(IpAddr),
    Destination(IpAddr, Option<(u8, u16)>),
}

#[derive(Default)]
struct TakenKeys<'a>(HashMap<UniqueKey, &'a str>);

impl<'a> TakenKeys<'a> {
    fn claim(&mut self, claim: UniqueKey, name: &'a str) -> Result<(), NatError> {
        let Some(first) = self.0.insert(claim, name) else {
            return Ok(());
        };
        let (first, second) = (first.to_owned(), name.to_owned());
        Err(match claim {
            UniqueKey::From(net) => NatError::SameFrom(first, second, net),
            UniqueKey::Inside(addr) => NatError::SameInside(first, second, addr),
            UniqueKey::Outside(addr) => NatError::SameOutside(first, second, addr),
            UniqueKey::Destination(addr, _) => NatError::SameDestination(first, second, addr),
        })
    }
}

fn one_family(name: &str, addrs: &[IpAddr]) -> Result<(), NatError> {
    let is_v4 = addrs.first().is_some_and(IpAddr::is_ipv4);
    if addrs.iter().any(|addr| addr.is_ipv4() != is_v4) {
        return Err(NatError::Family(name.to_owned()));
    }
    let broadcast = |addr: &IpAddr| matches!(addr, IpAddr::V4(v4) if v4.is_broadcast());
    match addrs
        .iter()
        .find(|addr| addr.is_unspecified() || addr.is_multicast() || broadcast(addr))
    {
        Some(addr) => Err(NatError::NotOneHost(name.to_owned(), *addr)),
        None => Ok(()),
    }
}

fn spec(
    name: &str,
    from: IpNet,
    pool: &RangeInclusive<IpAddr>,
    ports: &RangeInclusive<u16>,
) -> Result<PoolSpec, NatError> {
    let (first, last) = (*pool.start(), *pool.end());
    one_family(name, &[first, last])?;
    let distance = match (from, first, last) {
        (IpNet::V4(_), IpAddr::V4(first), IpAddr::V4(last)) => {
            last.to_bits().checked_sub(first.to_bits()).map(u128::from)
        }
        (IpNet::V6(_), IpAddr::V6(first), IpAddr::V6(last)) => {
            last.to_bits().checked_sub(first.to_bits())
        }
        _ => return Err(NatError::Family(name.to_owned())),
    };
    let distance = distance.ok_or_else(|| NatError::EmptyPool(name.to_owned()))?;
    let addresses = u32::try_from(distance)
        .ok()
        .filter(|&distance| distance < MAX_ADDRESSES)
        .ok_or_else(|| NatError::LargePool(name.to_owned()))?
        + 1;
    if ports.is_empty() || ports.contains(&0) {
        return Err(NatError::Ports(name.to_owned()));
    }
    Ok(PoolSpec {
        first,
        addresses,
        ports: *ports.start()..=*ports.end(),
        reserved: Vec::new(),
    })
}

/// Checks that no port is in two pools; pools may share addresses.
fn disjoint(pools: &[NamedPool<'_>]) -> Result<(), NatError> {
    let mut order: Vec<_> = pools.iter().collect();
    order.sort_by_key(|(_, spec)| spec.first);
    for (at, (name, spec)) in order.iter().enumerate() {
        let overlapping = order[at + 1..]
            .iter()
            .take_while(|(_, other)| spec.place(other.first).is_some());
        for (other_name, other) in overlapping {
            if spec.ports.start() <= other.ports.end() && other.ports.start() <= spec.ports.end() {
                let (first, second) = ((*name).to_owned(), (*other_name).to_owned());
                return Err(NatError::SameOutside(first, second, other.first));
            }
        }
    }
    Ok(())
}

/// Excludes forwarded ports from a pool.
fn reserve(spec: &mut PoolSpec, rules: &[NatRule]) {
    for rule in rules {
        let NatRule::Dnat {
            to,
            port: Some((proto, port)),
            ..
        } = rule
        else {
            continue;
        };
        if let (Some(protocol), Some(place)) = (NatProtocol::of(*proto), spec.place(*to))
            && spec.ports.contains(port)
        {
            spec.reserved.push((protocol, place, *port));
        }
    }
    spec.reserved.sort_unstable();
    spec.reserved.dedup();
}
