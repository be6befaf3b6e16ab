//! ARP and Neighbor Discovery of links that put IP packets into frames: what the link answers, learns and asks.
//!
//! The interface is a TUN, which knows of no MAC addresses: the link speaks for it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::decide::check_source;
use super::state::Context;
use super::{Answer, Refused};
use crate::bridge::{Notice, Question};
use crate::drop::DropReason;
use crate::link::{Host, Link};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ethernet::{Ethernet, Mac, ethernet_header, ethertype};
use crate::wire::geneve::protocol_type;
use crate::wire::header::HeaderBytes;
use crate::wire::nd::{self, Nd, solicited_node};
use crate::wire::packet::Packet;

/// What a message from `host` comes to: it is for the link, never for its interface.
pub(super) fn hear(cx: &Context<'_>, link: &Link, host: &Arc<Host>, notice: &Notice) -> Refused {
    if let Some((addr, mac)) = notice.claim {
        learn(cx, link, host, addr, mac);
    }
    let index = link.config.index;
    match &notice.question {
        Some(question) if answers(link, question) => Refused {
            answer: Some(Answer::Neighbor(link.config.lladdr)),
            ..Refused::of(DropReason::NeighborAnswered, index)
        },
        _ => Refused::of(DropReason::NeighborNoted, index),
    }
}

/// Writes a neighbour's MAC address down, where the address belongs to the host that tells of it.
pub(super) fn learn(cx: &Context<'_>, link: &Link, host: &Arc<Host>, addr: IpAddr, mac: Mac) {
    if mac.is_unicast() && check_source(link, host, addr).is_ok() {
        link.config.neighbors.learn(addr, mac, cx.now);
    }
}

/// Whether the address is the link's own, that of an endpoint of this host, or one that this host answers for itself.
fn answers(link: &Link, question: &Question) -> bool {
    let entry = link.routes.lookup(question.target);
    entry.is_some_and(|entry| entry.local) || link.config.functions.answers_for(question.target)
}

/// Writes the answer to a question into `out`: what follows the Ethernet header. `payload` is what followed that of the
/// question. `None` where it is none, or `out` is too small.
#[must_use]
pub fn neighbor_answer(link: &Link, payload: &[u8], out: &mut [u8]) -> Option<usize> {
    let bridge = link.bridge.as_ref();
    let own = bridge.map_or(link.config.lladdr, |bridge| bridge.virtual_mac);
    if let Ok(packet) = Packet::parse(payload) {
        let Nd::Solicitation { from, target, .. } = Nd::parse(&packet, payload, false)?.ok()?
        else {
            return None;
        };
        return put(out, &nd::advertisement(target, own, from));
    }
    put(out, &Arp::parse(payload).ok()?.reply(own).to_bytes())
}

/// The question for the MAC address of `addr`: the header, and what follows it is written into `out`.
#[must_use]
pub fn neighbor_question(
    link: &Link,
    addr: IpAddr,
    out: &mut [u8],
) -> Option<(HeaderBytes, usize)> {
    let config = &link.config;
    let own = config.lladdr;
    let (dst, ether_type, len) = match addr {
        IpAddr::V4(target) => {
            let mine = config.addresses.iter().find_map(|addr| match addr {
                IpAddr::V4(addr) => Some(*addr),
                IpAddr::V6(_) => None,
            });
            let arp = Arp {
                operation: Operation::Request,
                sender_mac: own,
                sender: mine.unwrap_or(Ipv4Addr::UNSPECIFIED),
                target_mac: Mac::default(),
                target,
            };
            let len = put(out, &arp.to_bytes())?;
            (Mac::BROADCAST, ethertype::ARP, len)
        }
        IpAddr::V6(target) => {
            let len = put(out, &nd::solicitation(target, own, config.own_v6()))?;
            let group = Mac::of_multicast_v6(solicited_node(target));
            (group, ethertype::IPV6, len)
        }
    };
    let mut header = config
        .encapsulation
        .header(config.vni, protocol_type::ETHERNET);
    let frame = ethernet_header(dst, own, ether_type);
    header.push(&frame).then_some((header, len))
}

fn put(out: &mut [u8], bytes: &[u8]) -> Option<usize> {
    out.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(bytes.len())
}

/// What an ARP message in a frame says.
pub(super) fn arp(payload: &[u8]) -> Result<Notice, DropReason> {
    let arp = Arp::parse(payload).map_err(|_| DropReason::InnerMalformed)?;
    Ok(Notice::from(&arp))
}

/// The MAC address that sent the frame in `header`, which stands before an inner packet of `link`.
pub(super) fn sender(link: &Link, header: &[u8]) -> Option<Mac> {
    let envelope = link.config.encapsulation.parse(header).ok()?;
    let frame = Ethernet::parse(&header[envelope.header_len..]).ok()?;
    Some(frame.src())
}
