//! Netlink: configures interfaces, and queries the underlay's routes and MTUs. Also Unix sockets.
//!
//! [`interface`] works in a link's network namespace, [`host_path`] in the daemon's own. [`mtu`] computes tunnel MTUs,
//! [`peer_device`] inspects peer devices, [`port_holder`] finds the holder of a port, [`underlay_monitor`] and [`netlink_watch`] follow changes of
//! the underlay and of interfaces, [`gateway`] checks the kernel's forwarding for packets that leave a VPC, and
//! [`gso_device`] configures the device for tunnel GSO. When and for which links they run is up to [`crate::daemon`].

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

/// Converts a netlink failure to the kernel's error, or one of the connection.
fn netlink_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

/// Returns the first message; `ENOENT` if there is none.
async fn first<T>(stream: impl Stream<Item = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    let mut stream = std::pin::pin!(stream);
    match stream.try_next().await {
        Ok(Some(message)) => Ok(message),
        Ok(None) => Err(io::Error::from_raw_os_error(nix::libc::ENOENT)),
        Err(error) => Err(netlink_error(error)),
    }
}
