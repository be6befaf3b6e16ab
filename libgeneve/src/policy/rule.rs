//! Rules as a user writes them, and what makes one impossible.
//!
//! How they are compared with a packet is the policy's; what an action does is the datapath's.

use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::label::Selector;
use crate::options::{EndpointType, OptionMatch};
use crate::wire::ip::protocol;

/// The way of a packet through the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Wire to TUN.
    Ingress,
    /// TUN to wire.
    Egress,
}

impl Direction {
    /// The word that configuration and command line use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to a flow. The order is that of rules of equal preference: the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Dropped without a word.
    Deny,
    /// Dropped, and its sender is told.
    Reject,
    /// Forwarded.
    Allow,
}

impl Action {
    /// The word that configuration and command line use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Action::Deny => "deny",
            Action::Reject => "reject",
            Action::Allow => "allow",
        }
    }

    /// What a condition counts as that cannot be decided: it never helps to allow a flow.
    #[inline]
    pub(super) const fn where_unknown(self) -> bool {
        !matches!(self, Action::Allow)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom one side of a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Who {
    /// Everyone.
    #[default]
    Any,
    /// The addresses of this prefix, whose host bits are ignored. A prefix of one family never matches an
    /// address of the other, mapped ones included.
    Prefix(IpNet),
    /// The endpoints whose labels match. An empty selector is [`Who::Any`].
    Selector(Selector),
}

impl Who {
    /// The selector, where there is one that asks about labels.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            Who::Selector(selector) if !selector.is_empty() => Some(selector),
            _ => None,
        }
    }
}

/// One rule: it matches a packet that fulfils each of its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique among the rules of a link.
    pub name: String,
    /// The packets that it is about.
    pub direction: Direction,
    /// Its preference: the lower is asked first.
    pub pref: u32,
    /// The source.
    pub from: Who,
    /// The destination.
    pub to: Who,
    /// The protocol of IANA's registry; `None` for any that the other conditions allow.
    pub protocol: Option<u8>,
    /// Source ports of TCP or UDP, any of these ranges; empty for any port, or none.
    pub sports: Vec<RangeInclusive<u16>>,
    /// Destination ports of TCP or UDP, any of these ranges; empty for any port, or none.
    pub dports: Vec<RangeInclusive<u16>>,
    /// Type and, where it matters, code of an ICMP message (RFC 792) in IPv4 or an ICMPv6 message (RFC 4443)
    /// in IPv6.
    pub icmp: Option<(u8, Option<u8>)>,
    /// An option of the Geneve header.
    pub option: Option<OptionMatch>,
    /// The type of the destination.
    pub endpoint_type: Option<EndpointType>,
    /// What happens to a flow that matches.
    pub action: Action,
    /// Whether the decision is reported.
    pub log: bool,
    /// The id of the QoS class that the flow gets.
    pub class: Option<u8>,
}

impl Rule {
    /// A rule that matches every packet of `direction`.
    #[must_use]
    pub fn new(name: impl Into<String>, direction: Direction, pref: u32, action: Action) -> Rule {
        Rule {
            name: name.into(),
            direction,
            pref,
            from: Who::Any,
            to: Who::Any,
            protocol: None,
            sports: Vec::new(),
            dports: Vec::new(),
            icmp: None,
            option: None,
            endpoint_type: None,
            action,
            log: false,
            class: None,
        }
    }

    /// The order in which rules are asked: direction, preference, the strictest action, name.
    #[must_use]
    pub fn cmp_priority(&self, other: &Rule) -> Ordering {
        let key = |rule: &Rule| (rule.direction, rule.pref, rule.action);
        key(self)
            .cmp(&key(other))
            .then_with(|| self.name.cmp(&other.name))
    }

    /// Whether it asks for what only a packet's first fragment has: ports, or an ICMP type.
    pub(super) fn asks_transport(&self) -> bool {
        !self.sports.is_empty() || !self.dports.is_empty() || self.icmp.is_some()
    }

    /// Whether a packet can fulfil all conditions at once.
    pub(super) fn check(&self) -> Result<(), PolicyError> {
        let name = || self.name.clone();
        let ports = !self.sports.is_empty() || !self.dports.is_empty();
        if let Some(range) = self
            .sports
            .iter()
            .chain(&self.dports)
            .find(|r| r.is_empty())
        {
            return Err(PolicyError::EmptyPorts {
                rule: name(),
                from: *range.start(),
                to: *range.end(),
            });
        }
        if ports && self.icmp.is_some() {
            return Err(PolicyError::PortsAndIcmp(name()));
        }
        match self.protocol {
            Some(other) if ports && !has_ports(other) => Err(PolicyError::NoPorts {
                rule: name(),
                protocol: other,
            }),
            Some(other) if self.icmp.is_some() && !is_icmp(other) => Err(PolicyError::NotIcmp {
                rule: name(),
                protocol: other,
            }),
            _ => match (&self.from, &self.to) {
                (Who::Prefix(IpNet::V4(_)), Who::Prefix(IpNet::V6(_)))
                | (Who::Prefix(IpNet::V6(_)), Who::Prefix(IpNet::V4(_))) => {
                    Err(PolicyError::Families(name()))
                }
                _ => Ok(()),
            },
        }
    }
}

/// Whether rules can ask for ports of this protocol.
#[inline]
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

/// Whether this protocol is ICMP of either family.
#[inline]
pub(super) const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Why rules are not a policy. Each names the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Two rules have this name.
    #[error("rule {0}: another rule has this name")]
    DuplicateName(String),
    /// A selector without a key to hash labels with.
    #[error("rule {0}: a selector needs the fabric's label secret, and there is none")]
    NoLabelKey(String),
    /// A range of ports that contains none.
    #[error("rule {rule}: port range {from}-{to} is empty")]
    EmptyPorts {
        /// The rule.
        rule: String,
        /// The start of the range.
        from: u16,
        /// Its end.
        to: u16,
    },
    /// Ports of a protocol that has none that a rule can ask for.
    #[error(
        "rule {rule}: protocol {protocol} has no ports to match, only TCP (6) and UDP (17) have"
    )]
    NoPorts {
        /// The rule.
        rule: String,
        /// Its protocol.
        protocol: u8,
    },
    /// An ICMP type of a protocol that is not ICMP.
    #[error(
        "rule {rule}: protocol {protocol} has no ICMP type, only ICMP (1) and ICMPv6 (58) have"
    )]
    NotIcmp {
        /// The rule.
        rule: String,
        /// Its protocol.
        protocol: u8,
    },
    /// Ports and an ICMP type in one rule.
    #[error("rule {0}: no packet has both ports and an ICMP type")]
    PortsAndIcmp(String),
    /// Prefixes of two families in one rule.
    #[error("rule {0}: no packet has a source of one IP version and a destination of the other")]
    Families(String),
    /// More rules than can be numbered.
    #[error("{0} rules: at most {max} are supported", max = u32::MAX)]
    TooMany(usize),
}
