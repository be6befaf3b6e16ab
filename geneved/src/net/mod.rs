//! Netlink: setting interfaces up, and asking the underlay for routes and MTUs. And Unix sockets.
//!
//! [`interface`] works in a link's network namespace, [`underlay`] in the daemon's own, [`mtu`] does
//! the sum, and [`port`] knows who has a port. When and for which link is [`crate::daemon`]'s business.

pub mod interface;
pub mod mtu;
pub mod netns;
pub mod port;
pub mod underlay;
pub mod unix;
