//! NAT rules, and which of them can coexist.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::{DesiredState, presence, required, whole};
use crate::config::args::{ChangeVerb, NatArgs};
use crate::config::value::{
    AddrPort, AddrRange, IfName, NatKind, ObjectName, PortRange, PrefixValue, ProtocolValue,
};
use crate::refusal::Refusal;

/// A NAT rule; all its addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NatSpec {
    /// Source NAT: sources in `from` are rewritten to an address of `source`.
    Snat {
        /// Prefix of the sources.
        from: IpNet,
        /// Address pool.
        source: AddrRange,
        /// Range of ports to allocate from.
        ports: PortRange,
    },
    /// Destination NAT: the destination `to` is rewritten to `target`.
    Dnat {
        /// Destination to match.
        to: IpAddr,
        /// Protocol, TCP or UDP, and port to match.
        port: Option<(ProtocolValue, u16)>,
        /// New destination.
        target: IpAddr,
        /// New port, if it changes; only with `port`.
        target_port: Option<u16>,
    },
    /// One-to-one NAT, in both directions.
    Static {
        /// Address in the VPC.
        inside: IpAddr,
        /// Address outside of it.
        outside: IpAddr,
    },
}

impl NatSpec {
    /// Converts to the words that create it.
    #[must_use]
    pub fn words(&self, dev: &IfName, name: &ObjectName) -> NatArgs {
        let words = NatArgs {
            name: name.clone(),
            dev: dev.clone(),
            ..NatArgs::default()
        };
        match self {
            NatSpec::Snat {
                from,
                source,
                ports,
            } => NatArgs {
                kind: Some(NatKind::Snat),
                from: Some(PrefixValue(*from)),
                source: Some(*source),
                ports: Some(ports.clone()),
                ..words
            },
            NatSpec::Dnat {
                to,
                port,
                target,
                target_port,
            } => NatArgs {
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
            NatSpec::Static { inside, outside } => NatArgs {
                kind: Some(NatKind::Static),
                inside: Some(*inside),
                outside: Some(*outside),
                ..words
            },
        }
    }

    fn from_words(object: &str, words: &NatArgs) -> Result<NatSpec, Refusal> {
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
                NatSpec::Snat {
                    from: from.0,
                    source: required(object, "source", words.source)?,
                    ports: words.ports.clone().unwrap_or(PortRange(1024..=65_535)),
                }
            }
            NatKind::Dnat => {
                let target = required(object, "target", words.target)?;
                NatSpec::Dnat {
                    to: required(object, "to", words.to)?,
                    port: port(object, words)?,
                    target: target.addr,
                    target_port: target.port,
                }
            }
            NatKind::Static => NatSpec::Static {
                inside: required(object, "inside", words.inside)?,
                outside: required(object, "outside", words.outside)?,
            },
        };
        nat.check(object)?;
        Ok(nat)
    }

    fn check(&self, object: &str) -> Result<(), Refusal> {
        let (one, other) = match self {
            NatSpec::Snat { from, source, .. } => (from.addr(), source.first),
            NatSpec::Dnat { to, target, .. } => (*to, *target),
            NatSpec::Static { inside, outside } => (*inside, *outside),
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
            NatSpec::Snat { source, .. } => [source.first, source.last],
            NatSpec::Dnat { .. } | NatSpec::Static { .. } => [one, other],
        };
        if let Some(addr) = addrs.iter().find(|addr| !of_one_host(addr)) {
            return Err(Refusal::new(
                format!("{object}: {addr} is not the address of one host"),
                "",
            ));
        }
        match self {
            NatSpec::Dnat {
                port: None,
                target_port: Some(port),
                ..
            } => Err(Refusal::new(
                format!("{object}: target port {port} without a port that it is for"),
                "add \"proto P dport PORT\"",
            )),
            NatSpec::Static { inside, outside } if inside == outside => Err(Refusal::new(
                format!("{object}: inside and outside are both {inside}"),
                "",
            )),
            _ => Ok(()),
        }
    }

    /// Outside addresses that both rules claim, if ports of an address are in both.
    fn contends(&self, theirs: &NatSpec) -> Option<AddrRange> {
        // A rule with a whole address owns all its ports.
        let whole = |nat: &NatSpec| match nat {
            NatSpec::Static { outside, .. } => Some(*outside),
            NatSpec::Dnat { to, port: None, .. } => Some(*to),
            _ => None,
        };
        match (self, theirs) {
            (
                NatSpec::Snat { source, ports, .. },
                NatSpec::Snat {
                    source: source2,
                    ports: ports2,
                    ..
                },
            ) => {
                let (PortRange(a), PortRange(b)) = (ports, ports2);
                let shared = a.start() <= b.end() && b.start() <= a.end();
                (shared && source.overlaps(source2)).then_some(*source2)
            }
            (NatSpec::Snat { source, .. }, other) | (other, NatSpec::Snat { source, .. }) => {
                whole(other)
                    .filter(|addr| source.contains(*addr))
                    .map(AddrRange::from)
            }
            (NatSpec::Static { outside, .. }, NatSpec::Static { outside: other, .. }) => {
                (outside == other).then_some((*other).into())
            }
            _ => None,
        }
    }

    /// What both rules would translate, if they overlap.
    fn clash(&self, other: &NatSpec) -> Option<String> {
        match (self, other) {
            (NatSpec::Snat { from, .. }, NatSpec::Snat { from: theirs, .. }) if from == theirs => {
                Some(format!("sources {from} are"))
            }
            (
                NatSpec::Dnat { to, port, .. },
                NatSpec::Dnat {
                    to: to2,
                    port: port2,
                    ..
                },
            ) if (to, port) == (to2, port2) => Some(match port {
                Some((proto, port)) => format!("{proto} port {port} of {to} is"),
                None => format!("destination {to} is"),
            }),
            (NatSpec::Static { inside, .. }, NatSpec::Static { inside: theirs, .. })
                if inside == theirs =>
            {
                Some(format!("inside address {inside} is"))
            }
            _ => None,
        }
    }
}

/// Parses the destination port: protocol and port, or neither.
fn port(object: &str, words: &NatArgs) -> Result<Option<(ProtocolValue, u16)>, Refusal> {
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

/// Refuses words that belong to another kind of NAT rule.
fn only(object: &str, kind: NatKind, words: &NatArgs) -> Result<(), Refusal> {
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

impl DesiredState {
    pub(super) fn change_nat(&mut self, verb: ChangeVerb, words: &NatArgs) -> Result<(), Refusal> {
        let NatArgs { name, dev, .. } = words;
        self.link(dev)?;
        let object = format!("nat \"{name}\" dev {dev}");
        let key = (dev.clone(), name.clone());
        let there = self.nats.get(&key);
        let names = self.nats_of(dev).map(|(name, _)| name);
        presence(verb, there.is_some(), &object, ("nat", name), names)?;
        if verb == ChangeVerb::Del {
            self.nats.remove(&key);
            return Ok(());
        }
        let words = whole(verb, there.map(|n| n.words(dev, name)), words.clone());
        let nat = NatSpec::from_words(&object, &words)?;
        for (other, theirs) in self.nats_of(dev).filter(|(other, _)| *other != name) {
            if let Some(what) = nat.clash(theirs) {
                return Err(Refusal::new(
                    format!("{object}: {what} already translated by nat \"{other}\""),
                    "delete that first, or choose others",
                ));
            }
        }
        // Inside addresses may overlap between VPCs; outside addresses are shared by all.
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
