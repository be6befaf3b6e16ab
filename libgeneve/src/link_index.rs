//! The number that stands for a link wherever a link itself is not needed.
//!
//! Apart from [`link`](crate::link), whose tables hold flows, routes and NAT rules, because those are kept by link in turn.

/// A link's place in [`Tables`](crate::link::Tables): small, handed out by the daemon, reused after the link is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkIndex(pub u32);
