//! ARP and Neighbor Discovery of links that put IP packets into frames: what the link answers, learns and asks.
//!
//! The interface is a TUN, which knows of no MAC addresses: the link speaks for it.

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

/// What the link says of the addresses that it answers for. It leads to what is behind it as a router does. Who has no route
/// by it learns nothing from that; who has one would take it away without.
const SPOKEN: AdvertisementFlags = AdvertisementFlags {
    router: true,
    overrides: false,
};

/// What a message from `host` comes to: it is for the link, never for its interface.
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

/// Writes a neighbour's MAC address down, where the address belongs to the host that tells of it.
pub(super) fn learn(cx: &PacketContext<'_>, link: &Link, host: &Arc<Host>, addr: IpAddr, mac: Mac) {
    if mac.is_unicast() && check_source(link, host, addr).is_ok() {
        link.config.neighbors.learn(addr, mac, host.addr, cx.now);
    }
}

/// Whether the address is the link's own or its interface's, that of an endpoint of this host, or one that this host answers for itself.
fn answers(link: &Link, question: &NeighborQuery) -> bool {
    let target = question.target;
    link.routes.lookup(target).is_some_and(|entry| entry.local)
        || link.config.functions.answers_for(target)
        || link.config.neighbors.is_link_local(target)
}

/// Writes the answer to a question into `out`: what follows the Ethernet header. `payload` is what followed that of the
/// question. `None` where it is none, or `out` is too small.
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

/// A question for a MAC address that is to be put.
#[derive(Clone, Debug)]
pub struct NeighborRequest {
    /// The link.
    pub link: LinkIndex,
    /// The address whose owner is asked for.
    pub addr: IpAddr,
    /// Who is asked.
    pub audience: RequestAudience,
}

/// Who is asked for a MAC address.
#[derive(Clone, Debug)]
pub enum RequestAudience {
    /// A host, in the link's own name: the station at this MAC address, or all that it has.
    Host(Arc<Host>, Option<Mac>),
    /// All stations of a link in mode ethernet, in the name of this address, which translation turns to the one in question.
    Stations(IpAddr),
}

/// Asks the neighbours of all links that flows go to whether they are still there, and forgets the silent ones; to be called
/// every second. Returns the links of those that have moved or are gone, whose flows must be decided again to follow them
/// ([`Tables::again`](crate::link::Tables::again)).
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

/// The MAC address of a station to which translation turns packets for `asked`; all stations are asked where it is not known.
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

/// The bytes of a question: the header, Ethernet header included, and what follows it is written into `out`.
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

/// What an ARP message in a frame says.
pub(super) fn arp(payload: &[u8]) -> Result<NeighborNotice, DropReason> {
    let arp = Arp::parse(payload).map_err(|_| DropReason::InnerMalformed)?;
    Ok(NeighborNotice::from(&arp))
}

/// The MAC address that sent the frame in `header`, which stands before an inner packet of `link`.
pub(super) fn sender(link: &Link, header: &[u8]) -> Option<Mac> {
    let envelope = link.config.encapsulation.parse(header).ok()?;
    let frame = Ethernet::parse(&header[envelope.header_len..]).ok()?;
    Some(frame.src())
}
