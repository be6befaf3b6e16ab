//! First packet of a flow from TUN: source check → service → NAT → route → egress policy → class.

use super::from_wire::proxy;
use super::resolution::{Redirect, Resolution};
use super::rules::evaluate_egress;
use super::source_check::check_departure;
use super::{FirstPacket, hash_of, host_of, kind_of, route, wire_exit, wraps_again};
use crate::datapath::decision::{NextHop, PacketContext};
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::options::EndpointType;
use crate::policy::{Direction, PolicyAction, PolicyVerdict};
use crate::vpc::Link;

pub(super) fn decide_from_tun<E: TraceObserver>(
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
    let entry = route(link, dst, log)?;
    let kind = kind_of(link, dst, Some(entry));
    let verdict = evaluate_egress(link, initial, resolution, kind, log);
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    if let (EndpointType::Proxied, Some(target)) = (kind, link.config.functions.target(dst)) {
        proxy(cx, link, initial, target, verdict.class, resolution, log)?;
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
    // This host may be one of the hosts of a scaled endpoint.
    let here = here || entry.local && entry.spread.is_some();
    if host.is_none() && redirect == Redirect::None && !here {
        // The kernel routed the packet into the interface and would get it straight back, unless it was redirected.
        log.record("exit", || {
            format!("{dst} is behind this host; the kernel must not route it into the link")
        });
        return Err(DropReason::NoRoute);
    }
    if host.is_some_and(|host| wraps_again(link, host, key)) {
        return Err(DropReason::UnderlayLoop);
    }
    resolution.translate_source(cx, link, initial, redirect, log)?;
    if host.is_none() && redirect != Redirect::None && resolution.src.0 == key.src {
        resolution.masquerade(cx, initial, before, key.dst, log)?;
    }
    resolution.classify(link, Direction::Egress, key.src, verdict.class, None, log);
    resolution.next_hop = match host {
        Some(host) => {
            let header_fields = resolution.header_fields(key.src, dst, kind);
            wire_exit(cx, link, host, &header_fields, log)?
        }
        None => NextHop::Tun(link.config.index),
    };
    trace_next_hop(&resolution.next_hop, log);
    Ok(verdict)
}

pub(super) fn trace_next_hop<E: TraceObserver>(next_hop: &NextHop, log: &mut E) {
    log.record("exit", || match next_hop {
        NextHop::Undecided => "nowhere".to_owned(),
        NextHop::Tun(_) => "into the interface".to_owned(),
        NextHop::Bridge(_) => "to where the MAC address of its frame is".to_owned(),
        NextHop::Wire(tunnel) => format!("to host {}", tunnel.host.addr),
    });
}
