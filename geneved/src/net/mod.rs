//! Netlink: setting interfaces up, and asking the underlay for routes and MTUs. And Unix sockets.
//!
//! [`interface`] works in a link's network namespace, [`underlay`] in the daemon's own, [`mtu`] does
//! the sum. When and for which link is [`crate::daemon`]'s business.

pub mod interface;
pub mod mtu;
pub mod netns;
pub mod underlay;
pub mod unix;
