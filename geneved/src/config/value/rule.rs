//! Values of rules, NAT, services and flows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use libgeneve::options::EndpointType;

use super::{ValueError, as_word, not_among, one_of, wrong};

as_word! { DefaultAction ProtocolValue PortListValue IcmpValue EndpointTypeValue }

/// Default action for flows that no rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultAction {
    /// Forward.
    #[default]
    Allow,
    /// Drop.
    Deny,
}

impl FromStr for DefaultAction {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "allow" => Ok(DefaultAction::Allow),
            "deny" => Ok(DefaultAction::Deny),
            _ => not_among(&["allow", "deny"], "invalid action: \"allow\" or \"deny\""),
        }
    }
}

impl fmt::Display for DefaultAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DefaultAction::Allow => "allow",
            DefaultAction::Deny => "deny",
        })
    }
}

one_of! {
    /// Action of a rule.
    RuleAction, "invalid action: \"allow\", \"deny\" or \"reject\"", {
        /// Forward the flow and its replies.
        Allow = "allow",
        /// Drop.
        Deny = "deny",
        /// Answer with a TCP reset or an ICMP error.
        Reject = "reject",
    }
}

one_of! {
    /// Direction of packets on a link.
    DirectionValue, "invalid direction: \"ingress\" or \"egress\"", {
        /// From the wire to the interface.
        Ingress = "ingress",
        /// From the interface to the wire.
        Egress = "egress",
    }
}

one_of! {
    /// Kinds of NAT rules.
    NatKind, "invalid type: \"snat\", \"dnat\" or \"static\"", {
        /// Source NAT to an address of a pool.
        Snat = "snat",
        /// Destination NAT.
        Dnat = "dnat",
        /// One-to-one NAT, in both directions.
        Static = "static",
    }
}

one_of! {
    /// Session affinity of a service.
    AffinityValue, "invalid affinity: \"none\" or \"client\"", {
        /// Each flow is balanced independently.
        None = "none",
        /// All flows of a client address go to one backend.
        Client = "client",
    }
}

one_of! {
    /// Health check of a service's backends.
    CheckValue, "invalid check: \"tcp\", \"icmp\" or \"none\"", {
        /// Open a TCP connection.
        Tcp = "tcp",
        /// Send an ICMP echo request.
        Icmp = "icmp",
        /// No check: backends count as healthy.
        None = "none",
    }
}

one_of! {
    /// State of a flow.
    FlowStateValue, "invalid state: \"half-open\", \"established\", \"closed\", \"datagram\" or \"refused\"", {
        /// TCP before the handshake is complete.
        HalfOpen = "half-open",
        /// TCP with packets in both directions.
        Established = "established",
        /// TCP after FIN or RST.
        Closed = "closed",
        /// Any protocol but TCP.
        Datagram = "datagram",
        /// Its packets are dropped.
        Refused = "refused",
    }
}

/// `tcp`, `udp`, `icmp`, `icmpv6`, `sctp` or a protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProtocolValue(pub u8);

impl ProtocolValue {
    /// TCP.
    pub const TCP: ProtocolValue = ProtocolValue(6);
    /// UDP.
    pub const UDP: ProtocolValue = ProtocolValue(17);
    const NAMES: [(&str, u8); 5] = [
        ("tcp", 6),
        ("udp", 17),
        ("icmp", 1),
        ("icmpv6", 58),
        ("sctp", 132),
    ];

    /// Whether geneved parses its ports.
    #[must_use]
    pub fn has_ports(self) -> bool {
        self == Self::TCP || self == Self::UDP
    }

    /// Formats an address, with the port if the protocol has ports.
    #[must_use]
    pub fn at(self, addr: IpAddr, port: u16) -> String {
        match self.has_ports() {
            true => SocketAddr::new(addr, port).to_string(),
            false => addr.to_string(),
        }
    }

    /// Whether it is ICMP or ICMPv6.
    #[must_use]
    pub fn is_icmp(self) -> bool {
        matches!(self.0, 1 | 58)
    }
}

impl FromStr for ProtocolValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text);
        match named.map(|(_, n)| *n).or_else(|| text.parse().ok()) {
            Some(number) => Ok(ProtocolValue(number)),
            None => not_among(
                &["tcp", "udp", "icmp", "icmpv6", "sctp"],
                "invalid protocol: \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"sctp\" or a number from 0 to 255",
            ),
        }
    }
}

impl fmt::Display for ProtocolValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// Ports and ranges of ports, as in `80,443,8000-8999`; at most 64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortListValue(pub Vec<RangeInclusive<u16>>);

const MAX_PORT_RANGES: usize = 64;

impl FromStr for PortListValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let range = |part: &str| {
            let (min, max) = part.split_once('-').unwrap_or((part, part));
            let range = min.parse().ok()?..=max.parse().ok()?;
            (!range.is_empty()).then_some(range)
        };
        match text.split(',').map(range).collect::<Option<Vec<_>>>() {
            Some(ranges) if ranges.len() <= MAX_PORT_RANGES => Ok(PortListValue(ranges)),
            Some(_) => wrong("invalid ports: more than 64 ranges; use several rules"),
            None => wrong("invalid ports: N, MIN-MAX or a list of them with commas, 0 to 65535"),
        }
    }
}

impl fmt::Display for PortListValue {
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

/// `T[/C]`: an ICMP type with an optional code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpValue {
    /// The type.
    pub kind: u8,
    /// The code; `None` matches all.
    pub code: Option<u8>,
}

impl FromStr for IcmpValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parse = || {
            let (kind, code) = match text.split_once('/') {
                Some((kind, code)) => (kind, Some(code.parse().ok()?)),
                None => (text, None),
            };
            Some(IcmpValue {
                kind: kind.parse().ok()?,
                code,
            })
        };
        parse()
            .ok_or_else(|| ValueError::new("invalid icmp: TYPE or TYPE/CODE, both from 0 to 255"))
    }
}

impl fmt::Display for IcmpValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        self.code.map_or(Ok(()), |code| write!(f, "/{code}"))
    }
}

/// Type of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointTypeValue(pub EndpointType);

impl FromStr for EndpointTypeValue {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse().map(EndpointTypeValue).or(not_among(
            &["simple", "scaled", "gateway", "proxied", "host"],
            "invalid type: \"simple\", \"scaled\", \"gateway\", \"proxied\" or \"host\"",
        ))
    }
}

impl fmt::Display for EndpointTypeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
