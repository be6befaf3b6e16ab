//! First packet of a flow on an Ethernet link: source check → service → NAT → policy → class. The next hop is not
//! part of the decision: it depends on the frame's MAC address, which may move during the flow's life.

use std::net::IpAddr;

use super::encap::{self, HeaderFields};
use super::from_tun::trace_next_hop;
use super::from_wire::admitted;
use super::masquerade::asked_here;
use super::resolution::{Redirect, Resolution};
use super::rules::evaluate_egress;
use super::source_check::check_departure;
use super::{FirstPacket, WireInput, kind_of};
use crate::datapath::decision::{FramePrefix, NextHop, PacketContext};
use crate::datapath::neighbor_discovery;
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::policy::{Direction, PolicyAction, PolicyVerdict};
use crate::vpc::Link;

/// Decides a flow that begins with a frame from TAP.
pub(super) fn from_tap<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    before: Option<&FlowKey>,
    resolution: &mut Resolution,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &initial.key;
    check_departure(link, key, log)?;
    let redirect = resolution.destination(link, initial, before, log)?;
    let dst = resolution.dst.0;
    let kind = kind_of(link, dst, None);
    let verdict = evaluate_egress(link, initial, resolution, kind, log);
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    resolution.translate_source(cx, link, initial, redirect, log)?;
    if redirect != Redirect::None
        && resolution.src.0 == key.src
        && is_here::<E>(cx, link, dst, key.dst)?
    {
        resolution.masquerade(cx, initial, before, key.dst, log)?;
    }
    resolution.classify(link, Direction::Egress, key.src, verdict.class, None, log);
    let header_fields = resolution.header_fields(key.src, dst, kind);
    resolution.next_hop = next_hop(cx, link, &header_fields, log)?;
    trace_next_hop(&resolution.next_hop, log);
    Ok(verdict)
}

/// Decides a flow that begins with a frame from the wire.
pub(super) fn from_wire<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    at: &WireInput<'_>,
    before: Option<&FlowKey>,
    resolution: &mut Resolution,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &initial.key;
    let verdict = admitted(link, initial, at, log)?;
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    let class = verdict.class.or(at.received.class.map(|c| c.class));
    let precedence = at.received.class.map(|c| c.drop_precedence);
    let redirect = resolution.destination(link, initial, before, log)?;
    if redirect == Redirect::Hairpin {
        resolution.source(cx, link, initial, log)?;
    }
    resolution.classify(link, Direction::Ingress, key.dst, class, precedence, log);
    resolution.service = at.received.service;
    if let Some(service) = &resolution.service
        && redirect == Redirect::None
        && asked_here(cx, link, key, service, before)
    {
        resolution.masquerade(cx, initial, before, service.addr, log)?;
    }
    resolution.next_hop = NextHop::Tun(link.config.index);
    trace_next_hop(&resolution.next_hop, log);
    Ok(verdict)
}

/// Whether the station with `addr`, to which packets for `asked` are redirected, is behind the TAP interface. If its
/// MAC address is unknown, queues a neighbour request.
fn is_here<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    addr: IpAddr,
    asked: IpAddr,
) -> Result<bool, DropReason> {
    let Some(bridge) = &link.bridge else {
        return Ok(false);
    };
    let mac = match bridge.mac_of(addr, cx.now) {
        None if !E::DRY => neighbor_discovery::station(cx, link, bridge, addr, asked)?,
        None => return Ok(false),
        Some(mac) => mac,
    };
    Ok(bridge.is_here(mac, cx.now))
}

/// Returns the next hop of frames with this mark.
pub(super) fn next_hop<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    header_fields: &HeaderFields<'_>,
    log: &mut E,
) -> Result<NextHop, DropReason> {
    let header = encap::header(cx, link, None, header_fields, log)?;
    Ok(NextHop::Bridge(FramePrefix {
        link: link.config.index,
        encap: header.encap,
        slots: header.slots,
    }))
}
