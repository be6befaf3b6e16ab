//! Netlink events about interfaces and their addresses, in the daemon's network namespace and in those of links.
//!
//! One socket in the daemon's namespace receives events of every namespace that has an ID there
//! (`NETLINK_LISTEN_ALL_NSID`). A socket opened inside another namespace would keep that namespace alive.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use caps::{CapSet, Capability};
use futures_util::StreamExt;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::nsid::{NsidAttribute, NsidMessage};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc;

/// Receive buffer of the socket in bytes; if it overflows, all interfaces are checked.
const BACKLOG: usize = 1 << 20;

/// Number of datagrams queued for the daemon, beyond those in the kernel.
const NETLINK_QUEUE: usize = 64;

/// Netlink socket for events.
#[derive(Debug)]
pub struct NetlinkWatch {
    socket: Socket,
    /// Whether it receives events of other namespaces, too.
    pub everywhere: bool,
}

/// A change to an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InterfaceEvent {
    /// The interface itself: its name, and its index in its namespace.
    Link(String, u32),
    /// Its addresses; its index.
    Address(u32),
    /// Unknown: events were lost.
    Anything,
}

impl NetlinkWatch {
    /// Opens the socket. The kernel checks the opener's capabilities, so open it before they are dropped.
    ///
    /// # Errors
    /// If no netlink socket can be opened.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind(&SocketAddr::new(0, 0))?;
        let _ = socket.set_rx_buf_sz(BACKLOG);
        let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_BROADCAST);
        let everywhere = may.unwrap_or(false) && socket.set_listen_all_namespaces(true).is_ok();
        for group in [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ] {
            socket.add_membership(group as u32)?;
        }
        Ok(NetlinkWatch { socket, everywhere })
    }

    /// Starts listening on a dedicated thread. Events that are not taken in time are lost in the kernel, which
    /// reports the loss.
    ///
    /// # Errors
    /// If the thread cannot be created.
    pub fn listen(self) -> io::Result<mpsc::Receiver<Vec<InterfaceEvent>>> {
        let (sender, receiver) = mpsc::channel(NETLINK_QUEUE);
        std::thread::Builder::new()
            .name("netlink".into())
            .spawn(move || {
                loop {
                    let news = match self.socket.recv_from_full() {
                        Ok((bytes, _)) => read(&bytes),
                        Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                            vec![InterfaceEvent::Anything]
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => {
                            tracing::error!(%error, "what others do to interfaces is not seen any more: {error}");
                            return;
                        }
                    };
                    if sender.blocking_send(news).is_err() {
                        return;
                    }
                }
            })?;
        Ok(receiver)
    }
}

fn read(mut bytes: &[u8]) -> Vec<InterfaceEvent> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            all.push(InterfaceEvent::Anything);
            break;
        };
        let len = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(len.max(16)..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link),
            ) => {
                let name = link.attributes.into_iter().find_map(|a| match a {
                    LinkAttribute::IfName(name) => Some(name),
                    _ => None,
                });
                all.push(InterfaceEvent::Link(
                    name.unwrap_or_default(),
                    link.header.index,
                ));
            }
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address),
            ) => all.push(InterfaceEvent::Address(address.header.index)),
            _ => {}
        }
    }
    all
}

/// Gives a namespace a number in the caller's, so that a [`NetlinkWatch`] hears of it. It does not keep the namespace alive.
///
/// # Errors
/// What the kernel refused.
pub async fn number(handle: &Handle, netns: &File) -> io::Result<()> {
    let mut message = NsidMessage::default();
    let fd = u32::try_from(netns.as_raw_fd()).map_err(io::Error::other)?;
    // -1 lets the kernel choose.
    message.attributes = vec![NsidAttribute::Fd(fd), NsidAttribute::Id(-1)];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNsId(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut handle = handle.clone();
    let mut answers = handle.request(request).map_err(io::Error::other)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.raw_code() != 0
            && error.raw_code() != -nix::libc::EEXIST
        {
            return Err(error.to_io());
        }
    }
    Ok(())
}

/// The ID of a namespace in the caller's; `None` if it has none.
///
/// # Errors
/// What the kernel refused.
pub async fn number_of(handle: &Handle, netns: &File) -> io::Result<Option<i32>> {
    let mut message = NsidMessage::default();
    let fd = u32::try_from(netns.as_raw_fd()).map_err(io::Error::other)?;
    message.attributes = vec![NsidAttribute::Fd(fd)];
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST;
    let mut handle = handle.clone();
    let mut answers = handle.request(request).map_err(io::Error::other)?;
    while let Some(answer) = answers.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(found)) => {
                let id = found.attributes.iter().find_map(|a| match a {
                    NsidAttribute::Id(id) => Some(*id),
                    _ => None,
                });
                return Ok(id.filter(|id| *id >= 0));
            }
            NetlinkPayload::Error(error) if error.raw_code() != 0 => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    #[test]
    fn each_message_of_a_datagram_is_read() {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.attributes = vec![LinkAttribute::IfName("gnv0".into())];
        let mut address = AddressMessage::default();
        address.header.index = 8;
        let mut all = bytes(RouteNetlinkMessage::DelLink(link));
        all.extend(bytes(RouteNetlinkMessage::NewAddress(address)));
        let expected = [
            InterfaceEvent::Link("gnv0".into(), 7),
            InterfaceEvent::Address(8),
        ];
        assert_eq!(read(&all), expected);
        all.push(1);
        assert_eq!(read(&all).last(), Some(&InterfaceEvent::Anything));
        assert_eq!(read(&[]), []);
    }
}
