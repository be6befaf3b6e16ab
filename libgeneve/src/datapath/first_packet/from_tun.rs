//! A flow that begins with a packet from TUN: source check → service → NAT → route → egress policy → class.

use super::source_check::check_departure;
use super::resolution::{Resolution, Redirect};
use super::rules::evaluate_egress;
use super::from_wire::proxy;
use super::{FirstPacket, hash_of, host_of, kind_of, route, wire_exit, wraps_again};
use crate::datapath::trace_observer::TraceObserver;
use crate::datapath::decision::{PacketContext, NextHop};
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::vpc::Link;
use crate::options::EndpointType;
use crate::policy::{PolicyAction, Direction, PolicyVerdict};

pub(super) fn decide_from_tun<E: TraceObserver>(
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
    let entry = route(link, dst, log)?;
    let kind = kind_of(link, dst, Some(entry));
    let verdict = evaluate_egress(link, subject, course, kind, log);
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    if let (EndpointType::Proxied, Some(target)) = (kind, link.config.functions.target(dst)) {
        proxy(cx, link, subject, target, verdict.class, course, log)?;
        return Ok(verdict);
    }
    let hash = hash_of(cx, key);
    let here = entry.local
        && link
            .config
            .functions
            .endpoints
            .get(&dst)
            .is_some_and(|e| e.colocated);
    let host = if here {
        None
    } else {
        host_of(entry, key, hash)
    };
    // Of the hosts of a scaled endpoint, this one may be chosen.
    let here = here || entry.local && entry.spread.is_some();
    if host.is_none() && turn == Redirect::None && !here {
        // What the kernel gave to the interface would come back to it, unless its destination is another now.
        log.record("exit", || {
            format!("{dst} is behind this host; the kernel must not route it into the link")
        });
        return Err(DropReason::NoRoute);
    }
    if host.is_some_and(|host| wraps_again(link, host, key)) {
        return Err(DropReason::UnderlayLoop);
    }
    course.translate_source(cx, link, subject, turn, log)?;
    if host.is_none() && turn != Redirect::None && course.src.0 == key.src {
        course.masquerade(cx, subject, before, key.dst, log)?;
    }
    course.classify(link, Direction::Egress, key.src, verdict.class, None, log);
    course.next_hop = match host {
        Some(host) => {
            let mark = course.mark(key.src, dst, kind);
            wire_exit(cx, link, host, &mark, log)?
        }
        None => NextHop::Tun(link.config.index),
    };
    trace_next_hop(&course.next_hop, log);
    Ok(verdict)
}

pub(super) fn trace_next_hop<E: TraceObserver>(exit: &NextHop, log: &mut E) {
    log.record("exit", || match exit {
        NextHop::Undecided => "nowhere".to_owned(),
        NextHop::Tun(_) => "into the interface".to_owned(),
        NextHop::Bridge(_) => "to where the MAC address of its frame is".to_owned(),
        NextHop::Wire(way) => format!("to host {}", way.host.addr),
    });
}
