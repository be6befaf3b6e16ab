//! Netlink: setting interfaces up, and asking the underlay for routes and MTUs. And Unix sockets.
//!
//! [`interface`] works in a link's network namespace, [`underlay`] in the daemon's own, [`mtu`] does
//! the sum, [`far`] knows who is at the other end of a device, and [`port`] knows who has a port. When and for which link is [`crate::daemon`]'s business.

pub mod far;
pub mod interface;
pub mod mtu;
pub mod netns;
pub mod port;
pub mod underlay;
pub mod unix;

use std::io;

/// What the kernel said, or what became of the conversation with it.
fn netlink_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
