//! Index of a link, for code that does not need the link itself.
//!
//! Separate from [`link`](crate::link) to avoid a cycle: its tables hold flows, routes and NAT rules, which in turn
//! refer to links.

/// Index of a link in [`Tables`](crate::vpc::Tables): small, assigned by the daemon, reused after the link is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkIndex(pub u32);
