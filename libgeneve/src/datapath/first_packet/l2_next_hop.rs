//! A flow of an Ethernet link: source check → service → NAT → policy → class. Where its frames go is no part of the
//! decision: that says their MAC address, which may move while the flow lives.

use std::net::IpAddr;

use super::source_check::check_departure;
use super::resolution::{Resolution, Redirect};
use super::encap::{self, HeaderFields};
use super::masquerade::asked_here;
use super::rules::evaluate_egress;
use super::from_tun::trace_next_hop;
use super::from_wire::admitted;
use super::{WireInput, FirstPacket, kind_of};
use crate::datapath::trace_observer::TraceObserver;
use crate::datapath::neighbor_discovery;
use crate::datapath::decision::{PacketContext, NextHop, FramePrefix};
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::vpc::Link;
use crate::policy::{PolicyAction, Direction, PolicyVerdict};

/// A flow that begins with a frame from TAP.
pub(super) fn from_tap<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    subject: &FirstPacket,
    before: Option<&FlowKey>,
    course: &mut Resolution,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &subject.key;
    check_departure(link, key, log)?;
    let turn = course.destination(link, subject, before, log)?;
    let dst = course.dst.0;
    let kind = kind_of(link, dst, None);
    let verdict = evaluate_egress(link, subject, course, kind, log);
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    course.translate_source(cx, link, subject, turn, log)?;
    if turn != Redirect::None && course.src.0 == key.src && is_here::<E>(cx, link, dst, key.dst)? {
        course.masquerade(cx, subject, before, key.dst, log)?;
    }
    course.classify(link, Direction::Egress, key.src, verdict.class, None, log);
    let mark = course.mark(key.src, dst, kind);
    course.next_hop = exit(cx, link, &mark, log)?;
    trace_next_hop(&course.next_hop, log);
    Ok(verdict)
}

/// A flow that begins with a frame from the wire.
pub(super) fn from_wire<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    subject: &FirstPacket,
    at: &WireInput<'_>,
    before: Option<&FlowKey>,
    course: &mut Resolution,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &subject.key;
    let verdict = admitted(link, subject, at, log)?;
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    let class = verdict.class.or(at.received.class.map(|c| c.class));
    let precedence = at.received.class.map(|c| c.drop_precedence);
    let turn = course.destination(link, subject, before, log)?;
    if turn == Redirect::Hairpin {
        course.source(cx, link, subject, log)?;
    }
    course.classify(link, Direction::Ingress, key.dst, class, precedence, log);
    course.service = at.received.service;
    if let Some(service) = &course.service
        && turn == Redirect::None
        && asked_here(cx, link, key, service, before)
    {
        course.masquerade(cx, subject, before, service.addr, log)?;
    }
    course.next_hop = NextHop::Tun(link.config.index);
    trace_next_hop(&course.next_hop, log);
    Ok(verdict)
}

/// Whether the station that has `addr`, to which packets for `asked` are turned, is behind the TAP interface. One that is
/// not known is asked for.
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

/// The way out for frames with this mark.
pub(super) fn exit<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    mark: &HeaderFields<'_>,
    log: &mut E,
) -> Result<NextHop, DropReason> {
    let header = encap::header(cx, link, None, mark, log)?;
    Ok(NextHop::Bridge(FramePrefix {
        link: link.config.index,
        encap: header.encap,
        slots: header.slots,
    }))
}
