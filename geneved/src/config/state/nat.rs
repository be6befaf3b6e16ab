//! Translations, and which of them can be together.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{State, presence, required, whole};
use crate::config::value::{AddrPort, AddrRange, IfName, Name, NatKind, PortRange, Prefix, Proto};
use crate::config::words::{NatWords, Verb};
use crate::refusal::Refusal;

/// A translation; all its addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Sources in `from` become an address of `source`.
    Snat {
        /// The sources.
        from: IpNet,
        /// The pool.
        source: AddrRange,
        /// The ports that are handed out.
        ports: PortRange,
    },
    /// The destination `to` becomes `target`.
    Dnat {
        /// The destination.
        to: IpAddr,
        /// Only this port of this protocol, TCP or UDP.
        port: Option<(Proto, u16)>,
        /// What it becomes.
        target: IpAddr,
        /// What the port becomes, if it changes; only with `port`.
        target_port: Option<u16>,
    },
    /// One address for one, both ways.
    Static {
        /// In the VPC.
        inside: IpAddr,
        /// Outside of it.
        outside: IpAddr,
    },
}

impl Nat {
    /// The words that make it.
    #[must_use]
    pub fn words(&self, dev: &IfName, name: &Name) -> NatWords {
        let words = NatWords {
            name: name.clone(),
            dev: dev.clone(),
            ..NatWords::default()
        };
        match self {
            Nat::Snat {
                from,
                source,
                ports,
            } => NatWords {
                kind: Some(NatKind::Snat),
                from: Some(Prefix(*from)),
                source: Some(*source),
                ports: Some(ports.clone()),
                ..words
            },
            Nat::Dnat {
                to,
                port,
                target,
                target_port,
            } => NatWords {
                kind: Some(NatKind::Dnat),
                to: Some(*to),
                proto: port.map(|(proto, _)| proto),
                dport: port.map(|(_, port)| port),
                target: Some(AddrPort {
                    addr: *target,
                    port: *target_port,
                }),
                ..words
            },
            Nat::Static { inside, outside } => NatWords {
                kind: Some(NatKind::Static),
                inside: Some(*inside),
                outside: Some(*outside),
                ..words
            },
        }
    }

    fn from_words(object: &str, words: &NatWords) -> Result<Nat, Refusal> {
        let kind = required(object, "type", words.kind)?;
        only(object, kind, words)?;
        let nat = match kind {
            NatKind::Snat => {
                let from = required(object, "from", words.from)?;
                if from.has_host_bits() {
                    return Err(Refusal::new(
                        format!("{object}: from \"{from}\": bits beyond the prefix length are set"),
                        format!("did you mean \"{}\"?", from.0.trunc()),
                    ));
                }
                Nat::Snat {
                    from: from.0,
                    source: required(object, "source", words.source)?,
                    ports: words.ports.clone().unwrap_or(PortRange(1024..=65_535)),
                }
            }
            NatKind::Dnat => {
                let target = required(object, "target", words.target)?;
                Nat::Dnat {
                    to: required(object, "to", words.to)?,
                    port: port(object, words)?,
                    target: target.addr,
                    target_port: target.port,
                }
            }
            NatKind::Static => Nat::Static {
                inside: required(object, "inside", words.inside)?,
                outside: required(object, "outside", words.outside)?,
            },
        };
        nat.check(object)?;
        Ok(nat)
    }

    fn check(&self, object: &str) -> Result<(), Refusal> {
        let (one, other) = match self {
            Nat::Snat { from, source, .. } => (from.addr(), source.first),
            Nat::Dnat { to, target, .. } => (*to, *target),
            Nat::Static { inside, outside } => (*inside, *outside),
        };
        if one.is_ipv4() != other.is_ipv4() {
            return Err(Refusal::new(
                format!("{object}: {one} and {other} are of different families"),
                "NAT does not translate between IPv4 and IPv6",
            ));
        }
        let of_one_host = |addr: &&IpAddr| {
            let broadcast = **addr == IpAddr::V4(Ipv4Addr::BROADCAST);
            !(addr.is_unspecified() || addr.is_multicast() || broadcast)
        };
        let addrs = match self {
            Nat::Snat { source, .. } => [source.first, source.last],
            Nat::Dnat { .. } | Nat::Static { .. } => [one, other],
        };
        if let Some(addr) = addrs.iter().find(|addr| !of_one_host(addr)) {
            return Err(Refusal::new(
                format!("{object}: {addr} is not the address of one host"),
                "",
            ));
        }
        match self {
            Nat::Dnat {
                port: None,
                target_port: Some(port),
                ..
            } => Err(Refusal::new(
                format!("{object}: target port {port} without a port that it is for"),
                "add \"proto P dport PORT\"",
            )),
            Nat::Static { inside, outside } if inside == outside => Err(Refusal::new(
                format!("{object}: inside and outside are both {inside}"),
                "",
            )),
            _ => Ok(()),
        }
    }

    /// What this one wants outside of the VPC and the other has, if ports of an address are in both.
    fn contends(&self, theirs: &Nat) -> Option<AddrRange> {
        // Whoever has a whole address has every port of it.
        let whole = |nat: &Nat| match nat {
            Nat::Static { outside, .. } => Some(*outside),
            Nat::Dnat { to, port: None, .. } => Some(*to),
            _ => None,
        };
        match (self, theirs) {
            (
                Nat::Snat { source, ports, .. },
                Nat::Snat {
                    source: source2,
                    ports: ports2,
                    ..
                },
            ) => {
                let (PortRange(a), PortRange(b)) = (ports, ports2);
                let shared = a.start() <= b.end() && b.start() <= a.end();
                (shared && source.overlaps(source2)).then_some(*source2)
            }
            (Nat::Snat { source, .. }, other) | (other, Nat::Snat { source, .. }) => whole(other)
                .filter(|addr| source.contains(*addr))
                .map(AddrRange::from),
            (Nat::Static { outside, .. }, Nat::Static { outside: other, .. }) => {
                (outside == other).then_some((*other).into())
            }
            _ => None,
        }
    }

    /// What both would decide, if it is the same thing.
    fn clash(&self, other: &Nat) -> Option<String> {
        match (self, other) {
            (Nat::Snat { from, .. }, Nat::Snat { from: theirs, .. }) if from == theirs => {
                Some(format!("sources {from} are"))
            }
            (
                Nat::Dnat { to, port, .. },
                Nat::Dnat {
                    to: to2,
                    port: port2,
                    ..
                },
            ) if (to, port) == (to2, port2) => Some(match port {
                Some((proto, port)) => format!("{proto} port {port} of {to} is"),
                None => format!("destination {to} is"),
            }),
            (Nat::Static { inside, .. }, Nat::Static { inside: theirs, .. })
                if inside == theirs =>
            {
                Some(format!("inside address {inside} is"))
            }
            _ => None,
        }
    }
}

/// The port of a destination: both of its words or none.
fn port(object: &str, words: &NatWords) -> Result<Option<(Proto, u16)>, Refusal> {
    match (words.proto, words.dport) {
        (None, None) => Ok(None),
        (Some(proto), Some(port)) if proto.has_ports() && port != 0 => Ok(Some((proto, port))),
        (Some(_), Some(0)) => Err(Refusal::new(
            format!("{object}: dport \"0\" is wrong: invalid port"),
            "the port is from 1 to 65535",
        )),
        (Some(proto), Some(_)) => Err(Refusal::new(
            format!("{object}: protocol {proto} has no ports that geneved reads"),
            "\"proto tcp\" or \"proto udp\"",
        )),
        _ => Err(Refusal::new(
            format!("{object}: proto and dport belong together"),
            "name both, or neither for every protocol and port",
        )),
    }
}

/// Refuses words of another kind of translation.
fn only(object: &str, kind: NatKind, words: &NatWords) -> Result<(), Refusal> {
    let given = [
        ("from", NatKind::Snat, words.from.is_some()),
        ("source", NatKind::Snat, words.source.is_some()),
        ("ports", NatKind::Snat, words.ports.is_some()),
        ("to", NatKind::Dnat, words.to.is_some()),
        ("proto", NatKind::Dnat, words.proto.is_some()),
        ("dport", NatKind::Dnat, words.dport.is_some()),
        ("target", NatKind::Dnat, words.target.is_some()),
        ("inside", NatKind::Static, words.inside.is_some()),
        ("outside", NatKind::Static, words.outside.is_some()),
    ];
    match given.iter().find(|(_, of, given)| *given && *of != kind) {
        None => Ok(()),
        Some((word, of, _)) => Err(Refusal::new(
            format!("{object}: \"{word}\" belongs to {of}, and this is {kind}"),
            format!("leave it out, or make it \"{of}\""),
        )),
    }
}

impl State {
    pub(super) fn change_nat(&mut self, verb: Verb, words: &NatWords) -> Result<(), Refusal> {
        let NatWords { name, dev, .. } = words;
        self.link(dev)?;
        let object = format!("nat \"{name}\" dev {dev}");
        let key = (dev.clone(), name.clone());
        let there = self.nats.get(&key);
        let names = self.nats_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("nat", name), names)?;
        if verb == Verb::Del {
            self.nats.remove(&key);
            return Ok(());
        }
        let words = whole(verb, there.map(|n| n.words(dev, name)), words.clone());
        let nat = Nat::from_words(&object, &words)?;
        for (other, theirs) in self.nats_of(dev).filter(|(other, _)| *other != name) {
            if let Some(what) = nat.clash(theirs) {
                return Err(Refusal::new(
                    format!("{object}: {what} already translated by nat \"{other}\""),
                    "delete that first, or choose others",
                ));
            }
        }
        // Two VPCs may have the same addresses inside; outside there is one world.
        for ((owner, other), theirs) in self.nats.iter().filter(|(other, _)| **other != key) {
            if let Some(range) = nat.contends(theirs) {
                return Err(Refusal::new(
                    format!("{object}: {range} is already that of nat \"{other}\" dev {owner}"),
                    "choose addresses that nobody else has",
                ));
            }
        }
        self.nats.insert(key, nat);
        Ok(())
    }
}
