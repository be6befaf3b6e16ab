//! Input interface of an outer datagram, and the interfaces from which a host may be heard.
//!
//! An outer address proves nothing: a tenant can write any into a packet of its own, and a packet that leaves a
//! link's interface in the daemon's network namespace reaches the daemon's own sockets. The interface cannot be
//! forged.

use std::net::IpAddr;

use super::{Host, Link, LinkIndex};

/// Interface that received an outer datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxInterface {
    /// An underlay interface.
    Underlay,
    /// Loopback: sent by this host itself.
    Loopback,
    /// The interface of this link, or one that its packets can reach, such as a VLAN on top of it or a bridge that it
    /// is a port of.
    Link(LinkIndex),
    /// An interface that is unknown, or not part of the underlay.
    #[default]
    Unknown,
}

/// Exception to the rule that a host is heard through the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedInterface {
    /// Also through the interface of this link, behind which the host is: a tunnel in a tunnel, configured by the
    /// operator.
    Link(LinkIndex),
    /// Through none: the host is this one, which sends nothing to itself.
    Nobody,
}

impl Link {
    /// Returns the link with exceptions: `heard_by` lists those of each host.
    #[must_use]
    pub fn with_heard_by(mut self, heard_by: impl Fn(IpAddr) -> Vec<ExpectedInterface>) -> Self {
        let exceptions = self.hosts.iter().flat_map(|host| {
            let exceptions = heard_by(host.addr);
            exceptions.into_iter().map(|heard_by| (host.id, heard_by))
        });
        self.heard_by = exceptions.collect();
        self
    }

    /// Whether a datagram from `host` may arrive at `interface`.
    #[inline]
    #[must_use]
    pub fn hears(&self, host: &Host, interface: RxInterface) -> bool {
        let excepted = |heard_by| {
            let exceptions = &self.heard_by;
            !exceptions.is_empty() && exceptions.contains(&(host.id, heard_by))
        };
        match interface {
            RxInterface::Underlay => !excepted(ExpectedInterface::Nobody),
            RxInterface::Link(link) => excepted(ExpectedInterface::Link(link)),
            RxInterface::Loopback | RxInterface::Unknown => false,
        }
    }
}
