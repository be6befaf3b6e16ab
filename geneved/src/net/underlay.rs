//! The underlay as the kernel routes it: which interface leads to a host, and with what MTU.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures_util::StreamExt;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteMetric};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::mpsc;

use super::first;

/// The way to a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The interface that packets leave by.
    pub dev: String,
    /// Its number.
    pub index: u32,
    /// The route's MTU where it has one, otherwise the interface's; bytes of outer IP packet.
    pub mtu: u32,
}

/// Asks the kernel for the way from `local` (or its own choice) to `host`.
///
/// # Errors
/// There is none, in the kernel's words.
pub async fn way(handle: &Handle, host: IpAddr, local: Option<IpAddr>) -> io::Result<Way> {
    let route = first(handle.route().get(question(host, local)).execute()).await?;
    let mut index = None;
    let mut mtu = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|m| match m {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let index = index.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ENETUNREACH))?;
    let mut request = handle.link().get();
    request = request.match_index(index);
    let link = first(request.execute()).await?;
    let mut way = Way {
        dev: format!("if{index}"),
        index,
        mtu: 1500,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => way.dev = name,
            LinkAttribute::Mtu(mtu) => way.mtu = mtu,
            _ => {}
        }
    }
    // A route cannot make more of an interface than it is.
    way.mtu = mtu.filter(|&m| m > 0).map_or(way.mtu, |m| m.min(way.mtu));
    Ok(way)
}

fn question(host: IpAddr, local: Option<IpAddr>) -> RouteMessage {
    match host {
        IpAddr::V4(to) => {
            let question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(to, 32);
            match local {
                Some(IpAddr::V4(from)) => question.source_prefix(from, 32).build(),
                _ => question.build(),
            }
        }
        IpAddr::V6(to) => {
            let question = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(to, 128);
            match local {
                Some(IpAddr::V6(from)) => question.source_prefix(from, 128).build(),
                _ => question.build(),
            }
        }
    }
}

/// A netlink connection of the calling thread's namespace, and a signal that comes after its
/// interfaces, routes or addresses changed. Must be called inside the daemon's runtime.
///
/// # Errors
/// Netlink cannot be had.
pub fn connect() -> io::Result<(Handle, mpsc::Receiver<()>)> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::task::spawn_local(connection);
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::task::spawn_local(connection);
    let (changed, changes) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        while messages.next().await.is_some() {
            // Changes come in bursts; the last one of a burst is what counts.
            while let Ok(Some(_)) = tokio::time::timeout(DEBOUNCE, messages.next()).await {}
            let _ = changed.try_send(());
        }
    });
    Ok((handle, changes))
}

const DEBOUNCE: Duration = Duration::from_millis(200);
