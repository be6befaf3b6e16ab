//! Rules as a user writes them, and their validation.
//!
//! The policy compares them with packets; the datapath carries out their actions.

use std::cmp::Ordering;
use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use crate::label::Selector;
use crate::options::{EndpointType, OptionMatch};
use crate::wire::ip::protocol;

/// Direction of a packet through the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Wire to TUN.
    Ingress,
    /// TUN to wire.
    Egress,
}

impl Direction {
    /// Keyword in configuration and command line.
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

/// What happens to a flow. Sorted as rules of equal preference are: the strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyAction {
    /// Dropped silently.
    Deny,
    /// Dropped, and the sender is told.
    Reject,
    /// Forwarded.
    Allow,
}

impl PolicyAction {
    /// Keyword in configuration and command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            PolicyAction::Deny => "deny",
            PolicyAction::Reject => "reject",
            PolicyAction::Allow => "allow",
        }
    }

    /// Result of a condition that cannot be evaluated: false for rules that allow, true for all others.
    #[inline]
    pub(super) const fn where_unknown(self) -> bool {
        !matches!(self, PolicyAction::Allow)
    }
}

impl fmt::Display for PolicyAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a rule says about one side of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RulePeer {
    /// Any address.
    #[default]
    Any,
    /// Addresses in this prefix, whose host bits are ignored. A prefix never matches an address of the other family,
    /// not even a mapped one.
    Prefix(IpNet),
    /// Endpoints whose labels match. An empty selector is the same as [`RulePeer::Any`].
    Selector(Selector),
}

impl RulePeer {
    /// Returns the selector, if there is one that is not empty.
    #[must_use]
    pub fn selector(&self) -> Option<&Selector> {
        match self {
            RulePeer::Selector(selector) if !selector.is_empty() => Some(selector),
            _ => None,
        }
    }
}

/// Policy rule; matches a packet that meets all of its conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Name, unique among the rules of a link.
    pub name: String,
    /// Direction of the packets that it applies to.
    pub direction: Direction,
    /// Preference; rules with a lower one are tried first.
    pub pref: u32,
    /// The source.
    pub from: RulePeer,
    /// The destination.
    pub to: RulePeer,
    /// IP protocol number; `None` for any that the other conditions allow.
    pub protocol: Option<u8>,
    /// Source ports of TCP or UDP, any of these ranges; empty if the port does not matter.
    pub sports: Vec<RangeInclusive<u16>>,
    /// Destination ports of TCP or UDP, any of these ranges; empty if the port does not matter.
    pub dports: Vec<RangeInclusive<u16>>,
    /// ICMP type (RFC 792) in IPv4 or ICMPv6 type (RFC 4443) in IPv6, and optionally the code.
    pub icmp: Option<(u8, Option<u8>)>,
    /// Option of the Geneve header that must match.
    pub option: Option<OptionMatch>,
    /// Endpoint type of the destination.
    pub endpoint_type: Option<EndpointType>,
    /// What happens to a flow that matches.
    pub action: PolicyAction,
    /// Whether the decision is logged.
    pub log: bool,
    /// Id of the QoS class assigned to the flow.
    pub class: Option<u8>,
}

impl PolicyRule {
    /// Returns a rule that matches every packet of `direction`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        direction: Direction,
        pref: u32,
        action: PolicyAction,
    ) -> PolicyRule {
        PolicyRule {
            name: name.into(),
            direction,
            pref,
            from: RulePeer::Any,
            to: RulePeer::Any,
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

    /// Compares by evaluation order: direction, preference, strictness of the action, name.
    #[must_use]
    pub fn cmp_priority(&self, other: &PolicyRule) -> Ordering {
        let key = |rule: &PolicyRule| (rule.direction, rule.pref, rule.action);
        key(self)
            .cmp(&key(other))
            .then_with(|| self.name.cmp(&other.name))
    }

    /// Whether it matches on fields that only the first fragment has: ports, or the ICMP type.
    pub(super) fn asks_transport(&self) -> bool {
        !self.sports.is_empty() || !self.dports.is_empty() || self.icmp.is_some()
    }

    /// Checks that a packet can meet all conditions at once.
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
                (RulePeer::Prefix(IpNet::V4(_)), RulePeer::Prefix(IpNet::V6(_)))
                | (RulePeer::Prefix(IpNet::V6(_)), RulePeer::Prefix(IpNet::V4(_))) => {
                    Err(PolicyError::Families(name()))
                }
                _ => Ok(()),
            },
        }
    }
}

/// Whether rules can match on ports of this protocol.
#[inline]
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

/// Whether this protocol is ICMP of either family.
#[inline]
pub(super) const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

/// Why a set of rules is rejected. Each error names the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Two rules have this name.
    #[error("rule {0}: another rule has this name")]
    DuplicateName(String),
    /// A selector, but no key to hash labels with.
    #[error("rule {0}: a selector needs the fabric's label secret, and there is none")]
    NoLabelKey(String),
    /// An empty port range.
    #[error("rule {rule}: port range {from}-{to} is empty")]
    EmptyPorts {
        /// The rule.
        rule: String,
        /// The start of the range.
        from: u16,
        /// Its end.
        to: u16,
    },
    /// Ports of a protocol without ports that a rule can match on.
    #[error(
        "rule {rule}: protocol {protocol} has no ports to match, only TCP (6) and UDP (17) have"
    )]
    NoPorts {
        /// The rule.
        rule: String,
        /// Its protocol.
        protocol: u8,
    },
    /// An ICMP type, but a protocol other than ICMP.
    #[error(
        "rule {rule}: protocol {protocol} has no ICMP type, only ICMP (1) and ICMPv6 (58) have"
    )]
    NotIcmp {
        /// The rule.
        rule: String,
        /// Its protocol.
        protocol: u8,
    },
    /// Both ports and an ICMP type.
    #[error("rule {0}: no packet has both ports and an ICMP type")]
    PortsAndIcmp(String),
    /// Prefixes of both families.
    #[error("rule {0}: no packet has a source of one IP version and a destination of the other")]
    Families(String),
    /// More rules than ids.
    #[error("{0} rules: at most {max} are supported", max = u32::MAX)]
    TooMany(usize),
}
