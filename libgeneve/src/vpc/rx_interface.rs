//! The interface that received an outer datagram, and by which one a host may be heard.
//!
//! An outer address proves nothing: a tenant can write any into a packet of its own, and what leaves the interface of a
//! link in the daemon's network namespace reaches the daemon's own sockets. The interface cannot be forged.

use std::net::IpAddr;

use super::{Host, Link, LinkIndex};

/// Which interface received an outer datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RxInterface {
    /// One of the underlay.
    Underlay,
    /// Loopback: this host itself sent it.
    Loopback,
    /// That of this link, or one that frames and packets of the link can reach: a VLAN above it, a bridge that it is a port
    /// of.
    Link(LinkIndex),
    /// One of which it is not known what it is, or that is none of the underlay's.
    #[default]
    Unknown,
}

/// By which interface a host is heard, where that is not as for others: through the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedInterface {
    /// Also by that of this link, behind which it is: a tunnel in a tunnel, as the operator has configured it.
    Link(LinkIndex),
    /// By none: the host is this one, which sends nothing to itself.
    Nobody,
}

impl Link {
    /// The same link, with what `heard_by` says of those of its hosts that are not heard as others are.
    #[must_use]
    pub fn with_heard_by(mut self, heard_by: impl Fn(IpAddr) -> Vec<ExpectedInterface>) -> Self {
        let exceptions = self.hosts.iter().flat_map(|host| {
            let exceptions = heard_by(host.addr);
            exceptions.into_iter().map(|heard_by| (host.id, heard_by))
        });
        self.heard_by = exceptions.collect();
        self
    }

    /// Whether a datagram of `host` may have come by `interface`.
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
