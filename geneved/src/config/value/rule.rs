//! Values of rules, NAT, services and flows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use libgeneve::options::EndpointType;

use super::{ValueError, as_word, not_among, one_of, wrong};

as_word! { Action Proto Ports Icmp TypeWord }

/// What happens to a flow that no rule decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// It is forwarded.
    #[default]
    Allow,
    /// It is dropped.
    Deny,
}

impl FromStr for Action {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "allow" => Ok(Action::Allow),
            "deny" => Ok(Action::Deny),
            _ => not_among(&["allow", "deny"], "invalid action: \"allow\" or \"deny\""),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Allow => "allow",
            Action::Deny => "deny",
        })
    }
}

one_of! {
    /// What a rule does with a flow.
    RuleAction, "invalid action: \"allow\", \"deny\" or \"reject\"", {
        /// It is forwarded, and so are its replies.
        Allow = "allow",
        /// It is dropped.
        Deny = "deny",
        /// It is answered with a TCP reset or an ICMP error.
        Reject = "reject",
    }
}

one_of! {
    /// The side of a link.
    Direction, "invalid direction: \"ingress\" or \"egress\"", {
        /// From the wire to the interface.
        Ingress = "ingress",
        /// From the interface to the wire.
        Egress = "egress",
    }
}

one_of! {
    /// The kinds of NAT.
    NatKind, "invalid type: \"snat\", \"dnat\" or \"static\"", {
        /// Sources become an address of a pool.
        Snat = "snat",
        /// A destination becomes another.
        Dnat = "dnat",
        /// One address for one, both ways.
        Static = "static",
    }
}

one_of! {
    /// What keeps a client at its backend.
    Affinity, "invalid affinity: \"none\" or \"client\"", {
        /// Each flow is placed by itself.
        None = "none",
        /// All flows of a client address go to one backend.
        Client = "client",
    }
}

one_of! {
    /// How the backends of a service are watched.
    CheckWord, "invalid check: \"tcp\", \"icmp\" or \"none\"", {
        /// A TCP connection is opened.
        Tcp = "tcp",
        /// An echo is asked for.
        Icmp = "icmp",
        /// They count as well.
        None = "none",
    }
}

one_of! {
    /// How far a flow has got.
    FlowState, "invalid state: \"half-open\", \"established\", \"closed\", \"datagram\" or \"refused\"", {
        /// TCP, before the handshake is done.
        HalfOpen = "half-open",
        /// TCP, with packets of both sides.
        Established = "established",
        /// TCP, after FIN or RST.
        Closed = "closed",
        /// Not TCP.
        Datagram = "datagram",
        /// Its packets are dropped.
        Refused = "refused",
    }
}

/// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp` or a protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Proto(pub u8);

impl Proto {
    /// TCP.
    pub const TCP: Proto = Proto(6);
    /// UDP.
    pub const UDP: Proto = Proto(17);
    const NAMES: [(&str, u8); 5] = [
        ("tcp", 6),
        ("udp", 17),
        ("icmp", 1),
        ("icmpv6", 58),
        ("sctp", 132),
    ];

    /// Whether geneved reads its ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        self == Self::TCP || self == Self::UDP
    }

    /// An address, with its port where the protocol has ports.
    #[must_use]
    pub fn at(self, addr: IpAddr, port: u16) -> String {
        match self.has_ports() {
            true => SocketAddr::new(addr, port).to_string(),
            false => addr.to_string(),
        }
    }

    /// Whether it is ICMP of either family.
    #[must_use]
    pub fn is_icmp(self) -> bool {
        matches!(self.0, 1 | 58)
    }
}

impl FromStr for Proto {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        match named.map(|(_, n)| *n).or_else(|| text.parse().ok()) {
            Some(number) => Ok(Proto(number)),
            None => not_among(
                &["tcp", "udp", "icmp", "icmpv6", "sctp"],
                "invalid protocol: \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"sctp\" or a number from 0 to 255",
            ),
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Ports and ranges of ports, as in `80,443,8000-8999`; at most 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports(pub Vec<RangeInclusive<u16>>);

const MAX_PORT_RANGES: usize = 64;

impl FromStr for Ports {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let range = |part: &str| {
            let (min, max) = part.split_once('-').unwrap_or((part, part));
            let range = min.parse().ok()?..=max.parse().ok()?;
            (!range.is_empty()).then_some(range)
        };
        match text.split(',').map(range).collect::<Option<Vec<_>>>() {
            Some(ranges) if ranges.len() <= MAX_PORT_RANGES => Ok(Ports(ranges)),
            Some(_) => wrong("invalid ports: more than 64 ranges; use several rules"),
            None => wrong("invalid ports: N, MIN-MAX or a list of them with commas, 0 to 65535"),
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { "," })?;
            range.start().fmt(f)?;
            if range.end() != range.start() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

/// `T[/C]`: an ICMP type and perhaps a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The type.
    pub kind: u8,
    /// The code; every one if there is none.
    pub code: Option<u8>,
}

impl FromStr for Icmp {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parse = || {
            let (kind, code) = match text.split_once('/') {
                Some((kind, code)) => (kind, Some(code.parse().ok()?)),
                None => (text, None),
            };
            Some(Icmp {
                kind: kind.parse().ok()?,
                code,
            })
        };
        parse()
            .ok_or_else(|| ValueError::new("invalid icmp: TYPE or TYPE/CODE, both from 0 to 255"))
    }
}

impl fmt::Display for Icmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        self.code.map_or(Ok(()), |code| write!(f, "/{code}"))
    }
}

/// An endpoint's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeWord(pub EndpointType);

impl FromStr for TypeWord {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(TypeWord).or(not_among(
            &["simple", "scaled", "gateway", "proxied", "host"],
            "invalid type: \"simple\", \"scaled\", \"gateway\", \"proxied\" or \"host\"",
        ))
    }
}

impl fmt::Display for TypeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
