//! ARP and Neighbor Discovery on links that put IP packets into frames: answers, learning and requests.
//!
//! The interface is a TUN without MAC addresses, so the link speaks for it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::decision::PacketContext;
use super::first_packet::check_source;
use super::{RefusedPacket, SenderReply};
use crate::drop::DropReason;
use crate::l2::{Bridge, NeighborNotice, NeighborQuery};
use crate::vpc::{Host, Link, LinkIndex};
use crate::wire::arp::{Arp, ArpOperation};
use crate::wire::ethernet::{Ethernet, Mac, ethernet_header, ethertype};
use crate::wire::geneve::protocol_type;
use crate::wire::header::HeaderBytes;
use crate::wire::nd::{self, AdvertisementFlags, Nd, solicited_node};
use crate::wire::packet::Packet;

/// Flags of advertisements on behalf of the link. The router flag is set because the link forwards to what is behind
/// it. A peer without a route through the link ignores the flag; a peer with one would remove the route if it were
/// clear.
const SPOKEN: AdvertisementFlags = AdvertisementFlags {
    router: true,
    overrides: false,
};

/// Handles a message from `host`. It is addressed to the link and never forwarded to the interface.
pub(super) fn process_message(
    cx: &PacketContext<'_>,
    link: &Link,
    host: &Arc<Host>,
    notice: &NeighborNotice,
) -> RefusedPacket {
    if let Some((addr, mac)) = notice.claim {
        learn(cx, link, host, addr, mac);
    }
    let index = link.config.index;
    match &notice.question {
        Some(question) if answers(link, question) => RefusedPacket {
            answer: Some(SenderReply::Neighbor(link.config.lladdr, SPOKEN)),
            ..RefusedPacket::of(DropReason::NeighborAnswered, index)
        },
        _ => RefusedPacket::of(DropReason::NeighborNoted, index),
    }
}

/// Learns a neighbour's MAC address, if the address belongs to the host that announces it.
pub(super) fn learn(cx: &PacketContext<'_>, link: &Link, host: &Arc<Host>, addr: IpAddr, mac: Mac) {
    if mac.is_unicast() && check_source(link, host, addr).is_ok() {
        link.config.neighbors.learn(addr, mac, host.addr, cx.now);
    }
}

/// Whether the link answers for the address: its own, its interface's, that of an endpoint of this host, or one that
/// this host proxies.
fn answers(link: &Link, question: &NeighborQuery) -> bool {
    let target = question.target;
    link.routes.lookup(target).is_some_and(|entry| entry.local)
        || link.config.functions.answers_for(target)
        || link.config.neighbors.is_link_local(target)
}

/// Writes the answer to a request into `out`, without the Ethernet header. `payload` is the request without its
/// Ethernet header. `None` if it is not a request for this link, or `out` is too small.
#[must_use]
pub fn neighbor_answer(link: &Link, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let bridge = link.bridge.as_ref();
    let (own, flags) = match bridge {
        Some(bridge) => (bridge.virtual_mac, AdvertisementFlags::default()),
        None => (link.config.lladdr, SPOKEN),
    };
    if let Ok(packet) = Packet::parse(payload) {
        let Nd::Solicitation { from, target, .. } = Nd::parse(&packet, payload, false)?.ok()?
        else {
            return None;
        };
        return copy_to(out, &nd::advertisement(target, own, from, flags));
    }
    copy_to(out, &Arp::parse(payload).ok()?.reply(own).to_bytes())
}

/// Neighbour request to be sent.
#[derive(Clone, Debug)]
pub struct NeighborRequest {
    /// Link to send it on.
    pub link: LinkIndex,
    /// Address to resolve.
    pub addr: IpAddr,
    /// Recipients of the request.
    pub audience: RequestAudience,
}

/// Recipients of a neighbour request.
#[derive(Clone, Debug)]
pub enum RequestAudience {
    /// A host, with the link as the sender: the station at this MAC address, or all stations of the host.
    Host(Arc<Host>, Option<Mac>),
    /// All stations of a link in mode ethernet. The sender is this address, which NAT or a service redirects to the
    /// one to resolve.
    Stations(IpAddr),
}

/// Probes neighbours that flows use and removes those that do not answer; call every second. Returns the links with
/// moved or lost neighbours: their flows must be decided again ([`Tables::again`](crate::vpc::Tables::again)).
pub fn probe_neighbors(cx: &PacketContext<'_>) -> Vec<LinkIndex> {
    let mut moved = Vec::new();
    for link in cx.tables.iter() {
        let config = &link.config;
        config.neighbors.expire_and_probe(cx.now, |probe| {
            if let Some(host) = link.host(probe.host) {
                cx.state.ask(NeighborRequest {
                    link: config.index,
                    addr: probe.addr,
                    audience: RequestAudience::Host(Arc::clone(host), probe.mac),
                });
            }
        });
        if config.neighbors.take_moved() {
            moved.push(config.index);
        }
    }
    moved
}

/// Returns the MAC address of a station to which packets for `asked` are redirected; if it is unknown, queues a
/// request to all stations.
///
/// # Errors
/// [`DropReason::NeighborUnresolved`].
pub(super) fn station(
    cx: &PacketContext<'_>,
    link: &Link,
    bridge: &Bridge,
    addr: IpAddr,
    asked: IpAddr,
) -> Result<Mac, DropReason> {
    if let Some(mac) = bridge.mac_of(addr, cx.now) {
        return Ok(mac);
    }
    if link.config.neighbors.should_ask(addr, cx.now) {
        cx.state.ask(NeighborRequest {
            link: link.config.index,
            addr,
            audience: RequestAudience::Stations(asked),
        });
    }
    Err(DropReason::NeighborUnresolved)
}

/// Builds a neighbour request: returns the header, Ethernet header included, and the length of the payload written
/// into `out`.
#[must_use]
pub fn neighbor_question(
    link: &Link,
    ask: &NeighborRequest,
    out: &mut [u8],
) -> Option<(HeaderBytes, usize)> {
    let config = &link.config;
    let (own, from, at) = match (&ask.audience, &link.bridge) {
        (RequestAudience::Host(_, at), _) => (config.lladdr, None, *at),
        (RequestAudience::Stations(from), Some(bridge)) => (bridge.virtual_mac, Some(*from), None),
        (RequestAudience::Stations(_), None) => return None,
    };
    let sources = from.iter().chain(&config.addresses);
    let (dst, ether_type, len) = match ask.addr {
        IpAddr::V4(target) => {
            let mine = sources.filter_map(|addr| match addr {
                IpAddr::V4(addr) => Some(*addr),
                IpAddr::V6(_) => None,
            });
            let arp = Arp {
                operation: ArpOperation::Request,
                sender_mac: own,
                sender: mine.into_iter().next().unwrap_or(Ipv4Addr::UNSPECIFIED),
                target_mac: Mac::default(),
                target,
            };
            let len = copy_to(out, &arp.to_bytes())?;
            (at.unwrap_or(Mac::BROADCAST), ethertype::ARP, len)
        }
        IpAddr::V6(target) => {
            let mine = sources.filter_map(|addr| match addr {
                IpAddr::V6(addr) => Some(*addr),
                IpAddr::V4(_) => None,
            });
            let link_local = || config.neighbors.link_local().unwrap_or(own.link_local());
            let from = mine.into_iter().next().unwrap_or_else(link_local);
            let to = match at {
                Some(_) => target,
                None => solicited_node(target),
            };
            let len = copy_to(out, &nd::solicitation(target, own, from, to))?;
            let group = || Mac::of_multicast_v6(solicited_node(target));
            (at.unwrap_or_else(group), ethertype::IPV6, len)
        }
    };
    let mut header = config
        .encapsulation
        .header(config.vni, protocol_type::ETHERNET);
    let frame = ethernet_header(dst, own, ether_type);
    header.push(&frame).then_some((header, len))
}

fn copy_to(out: &mut [u8], bytes: &[u8]) -> Option<usize> {
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

/// Parses an ARP message from a frame.
pub(super) fn arp(payload: &[u8]) -> Result<NeighborNotice, DropReason> {
    let arp = Arp::parse(payload).map_err(|_| DropReason::InnerMalformed)?;
    Ok(NeighborNotice::from(&arp))
}

/// Returns the source MAC address of the frame in `header`, which precedes an inner packet of `link`.
pub(super) fn sender(link: &Link, header: &[u8]) -> Option<Mac> {
    let envelope = link.config.encapsulation.parse(header).ok()?;
    let frame = Ethernet::parse(&header[envelope.header_len..]).ok()?;
    Some(frame.src())
}
