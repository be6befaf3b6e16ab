//! Netlink: setting interfaces up, and asking the underlay for routes and MTUs. And Unix sockets.
//!
//! [`interface`] works in a link's network namespace, [`underlay`] in the daemon's own, [`mtu`] does
//! the sum, [`far`] knows who is at the other end of a device, [`port`] who has a port, [`changes`] and [`watch`] hear what others
//! do to the underlay and to interfaces, [`gateway`] knows what the kernel does with packets that leave a VPC,
//! and [`tunnel`] sets up the device for tunnel GSO. When and for which link is [`crate::daemon`]'s business.

pub mod devices;
pub mod gateway;
pub mod gso_device;
pub mod host_path;
pub mod interface;
pub mod link_local;
pub mod mtu;
pub mod netlink_watch;
pub mod netns;
pub mod peer_device;
pub mod port_holder;
pub mod underlay_monitor;
pub mod unix;

use std::io;

use futures_util::{Stream, TryStreamExt};

/// What the kernel said, or what became of the conversation with it.
fn netlink_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// The first of the messages; `ENOENT` where there is none.
async fn first<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    let mut stream = std::pin::pin!(stream);
    match stream.try_next().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(io::Error::from_raw_os_error(nix::libc::ENOENT)),
        Err(error) => Err(netlink_error(error)),
    }
}
