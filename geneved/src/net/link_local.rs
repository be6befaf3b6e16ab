//! Link-local addresses that the kernel generated for an interface.

use std::net::{IpAddr, Ipv6Addr};

use futures_util::TryStreamExt;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::AddressAttribute;

use super::netlink_error;
use super::netns::{NetnsError, within};

/// Returns the link-local addresses of the interface `name` of this namespace; none if it is gone.
///
/// # Errors
/// If the namespace cannot be entered, or the kernel does not answer.
pub async fn link_local(netns: Option<String>, name: String) -> Result<Vec<Ipv6Addr>, NetnsError> {
    within(netns, move |handle| async move {
        let mut found = Vec::new();
        let Ok(index) = if_nametoindex(name.as_str()) else {
            return Ok(found);
        };
        let request = handle.address().get().set_link_index_filter(index);
        let mut stream = std::pin::pin!(request.execute());
        while let Some(message) = stream.try_next().await.map_err(netlink_error)? {
            found.extend(message.attributes.iter().filter_map(|a| match a {
                AddressAttribute::Address(IpAddr::V6(addr)) if addr.is_unicast_link_local() => {
                    Some(*addr)
                }
                _ => None,
            }));
        }
        Ok(found)
    })
    .await?
}
