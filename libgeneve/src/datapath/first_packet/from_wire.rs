//! A flow that begins with a packet from the wire: source check → endpoint types → ingress policy → service → NAT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::source_check::{PacketRole, check_arrival};
use super::resolution::{Resolution, Redirect, is_icmp, stays, translatable};
use super::delivery::check_delivery;
use super::encap::HeaderFields;
use super::masquerade::asked_here;
use super::rules::{evaluate, configured_labels, own_labels};
use super::from_tun::trace_next_hop;
use super::{WireInput, FirstPacket, hash_of, host_of, kind_of, route, wire_exit};
use crate::datapath::trace_observer::TraceObserver;
use crate::datapath::neighbor_discovery;
use crate::datapath::decision::{PacketContext, NextHop, Input};
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::label::Labels;
use crate::vpc::{Host, Link, ProxyTarget};
use crate::nat::SourceTranslation;
use crate::options::{EndpointType, ReceivedOptions, ServiceOption};
use crate::policy::{PolicyAction, Direction, PolicyQuery, PolicyVerdict};
use crate::route::{RouteEntry, RouteOrigin};
use crate::wire::encapsulation::InnerProtocol;

pub(super) fn decide_from_wire<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    subject: &FirstPacket,
    at: &WireInput<'_>,
    before: Option<&FlowKey>,
    course: &mut Resolution,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &subject.key;
    let kind = at.received.endpoint.map(|e| e.dst);
    let verdict = admitted(link, subject, at, log)?;
    if !E::DRY
        && link.config.inner == InnerProtocol::Ethernet
        && link.bridge.is_none()
        && let Some(mac) = neighbor_discovery::sender(link, at.header)
    {
        neighbor_discovery::learn(cx, link, at.host, key.src, mac);
    }
    if verdict.action != PolicyAction::Allow {
        return Ok(verdict);
    }
    let class = verdict.class.or(at.received.class.map(|c| c.class));
    let precedence = at.received.class.map(|c| c.drop_precedence);
    let target = link.config.functions.target(key.dst);
    if let (Some(EndpointType::Proxied), Some(target)) = (kind, target) {
        proxy(cx, link, subject, target, class, course, log)?;
        return Ok(verdict);
    }
    let turn = course.destination(link, subject, before, log)?;
    // Backends answer the client itself.
    let leaves = turn != Redirect::Service && leaves_here(link, key, at.received);
    if turn == Redirect::None {
        check_delivery(link, key, leaves, cx.now, log)?;
    }
    if leaves || turn == Redirect::Hairpin {
        course.source(cx, link, subject, log)?;
    }
    if turn == Redirect::None {
        course.classify(link, Direction::Ingress, key.dst, class, precedence, log);
        course.service = at.received.service;
        if let Some(service) = &course.service
            && asked_here(cx, link, key, service, before)
        {
            course.masquerade(cx, subject, before, service.addr, log)?;
        }
        course.next_hop = NextHop::Tun(link.config.index);
    } else {
        let entry = route(link, course.dst.0, log)?;
        course.classify(link, Direction::Ingress, key.dst, class, precedence, log);
        forward_or_deliver(cx, link, subject, at, (turn, entry), course, log)?;
    }
    trace_next_hop(&course.next_hop, log);
    Ok(verdict)
}

/// What is known of a packet from the wire before its way is decided: whether its source and its types are right, and what
/// the rules say of it.
pub(super) fn admitted<E: TraceObserver>(
    link: &Link,
    subject: &FirstPacket,
    at: &WireInput<'_>,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &subject.key;
    let source = (key.src, key.sport);
    let from = Input::Host(at.host);
    let checked = check_arrival(link, from, PacketRole::Original, source, Some(at.received));
    log.record("source", || match checked {
        Ok(()) => format!("{} may come from host {}", key.src, at.host.addr),
        Err(_) => format!("{} does not belong to host {}", key.src, at.host.addr),
    });
    checked?;
    let kind = at.received.endpoint.map(|e| e.dst);
    let agreed = types_agree(link, subject, at.received);
    log.record("types", || match (kind, &agreed) {
        (None, _) => "the packet names no endpoint types".to_owned(),
        (Some(kind), Ok(())) => format!("the packet is for a {kind} endpoint"),
        (Some(kind), Err(reason)) => format!("the packet is for a {kind} endpoint: {reason}"),
    });
    agreed?;
    let envelope = link.config.encapsulation.parse(at.header);
    let options = envelope.map(|e| e.options()).unwrap_or_default();
    Ok(evaluate(
        link,
        &PolicyQuery {
            direction: Direction::Ingress,
            src: key.src,
            dst: key.dst,
            protocol: key.protocol,
            ports: subject.ports(),
            icmp: subject.icmp,
            from: match &at.received.labels {
                Some(labels) => Labels::Known(labels.as_slice()),
                None => configured_labels(link, key.src),
            },
            to: own_labels(link, key.dst),
            dst_type: kind.unwrap_or_default(),
            options,
        },
        log,
    ))
}

/// What was turned to another destination goes there: into TUN where it lives here, to its host otherwise.
fn forward_or_deliver<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    subject: &FirstPacket,
    at: &WireInput<'_>,
    (turn, entry): (Redirect, &RouteEntry),
    course: &mut Resolution,
    log: &mut E,
) -> Result<(), DropReason> {
    let key = &subject.key;
    let service = (turn == Redirect::Service).then_some(ServiceOption {
        addr: key.dst,
        port: key.dport,
        protocol: key.protocol,
    });
    let hash = hash_of(cx, key);
    course.next_hop = match host_of(entry, &subject.key, hash) {
        None => NextHop::Tun(link.config.index),
        Some(host) => {
            let mark = HeaderFields {
                service,
                relayed: Some(at.received),
                ..course.mark(
                    course.src.0,
                    course.dst.0,
                    kind_of(link, course.dst.0, Some(entry)),
                )
            };
            wire_exit(cx, link, host, &mark, log)?
        }
    };
    Ok(())
}

/// Stands in for a proxied endpoint: the packet goes on to the target with an address of this host's as its source, so
/// that neither VPC needs a route to the other.
pub(super) fn proxy<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    subject: &FirstPacket,
    target: ProxyTarget,
    class: Option<u8>,
    course: &mut Resolution,
    log: &mut E,
) -> Result<(), DropReason> {
    let there = cx.tables.link(target.link).ok_or(DropReason::LinkGone)?;
    if !translatable(subject) {
        return Err(DropReason::NatUntranslatable);
    }
    let pools = there.config.functions.stand_ins.as_ref();
    let pools = pools.ok_or(DropReason::EndpointType)?;
    let Some(SourceTranslation::Pool { pool, .. }) = pools.source(target.addr) else {
        return Err(DropReason::EndpointType);
    };
    let share = pools.share(link.config.index);
    let entry = route(there, target.addr, log)?;
    let inside = (client(link, subject.key.src), subject.key.sport);
    let outside = course.lease_port::<E>(cx, (pool, share.as_ref()), subject.key.protocol, inside)?;
    log.record("proxy", || {
        let vni = there.config.vni;
        format!(
            "stands for {} in the VPC {vni}; the source becomes {} port {}",
            target.addr, outside.0, outside.1
        )
    });
    course.link = target.link;
    course.src = outside;
    course.redirect_to(
        target.addr,
        is_icmp(subject.key.protocol).then_some(outside.1),
    );
    course.classify(
        there,
        Direction::Egress,
        outside.0,
        class.filter(|_| target.link == link.config.index),
        None,
        log,
    );
    let hash = hash_of(cx, &subject.key);
    course.next_hop = match host_of(entry, &subject.key, hash) {
        None => NextHop::Tun(target.link),
        Some(host) => {
            let kind = kind_of(there, target.addr, Some(entry));
            let mark = course.mark(outside.0, target.addr, kind);
            wire_exit(cx, there, host, &mark, log)?
        }
    };
    trace_next_hop(&course.next_hop, log);
    Ok(())
}

/// What stands for a client in the pool of another VPC. Clients of two VPCs may have the same address: the link tells
/// them apart. Should two stand for each other by chance, their flows to one target cannot have one port, and the later is
/// refused.
fn client(link: &Link, addr: IpAddr) -> IpAddr {
    let index = link.config.index.0;
    match addr {
        IpAddr::V4(addr) => {
            Ipv4Addr::from(u32::from(addr) ^ index.wrapping_mul(0x9e37_79b9)).into()
        }
        IpAddr::V6(addr) => Ipv6Addr::from(u128::from(addr) ^ u128::from(index) << 64).into(),
    }
}

/// Whether `host` serves the virtual address that the packet says its client asked for: then it relays for others.
pub(super) fn relays(link: &Link, host: &Host, service: &ServiceOption) -> bool {
    link.routes
        .lookup(service.addr)
        .is_some_and(|entry| entry.origin >= RouteOrigin::Route && entry.target.includes(host.addr))
}

/// The packet's endpoint option against what this host knows.
fn types_agree(link: &Link, subject: &FirstPacket, received: &ReceivedOptions) -> Result<(), DropReason> {
    let Some(option) = received.endpoint else {
        return Ok(());
    };
    let key = &subject.key;
    let functions = &link.config.functions;
    let known = functions.endpoints.get(&key.dst);
    let entry = link.routes.lookup(key.dst);
    let own = entry.is_some_and(|e| e.origin == RouteOrigin::Own);
    let here = own || known.is_some_and(|e| e.local);
    let agree = match option.dst {
        EndpointType::Simple => known.is_none_or(|e| e.kind == EndpointType::Simple),
        EndpointType::Scaled => here && known.is_none_or(|e| e.kind == EndpointType::Scaled),
        EndpointType::Host => own && known.is_none_or(|e| e.kind == EndpointType::Host),
        EndpointType::Proxied => {
            known.is_some_and(|e| e.kind == EndpointType::Proxied && e.target.is_some())
        }
        EndpointType::Gateway => {
            if here {
                return Err(DropReason::EndpointType);
            }
            let covered = functions.nat.as_ref().is_some_and(|nat| {
                let port = subject.ports().map(|(_, dst)| dst);
                nat.source(key.src).is_some()
                    || nat.destination(key.dst, key.protocol, port).is_some()
            });
            return if covered {
                Ok(())
            } else {
                Err(DropReason::NotGateway)
            };
        }
    };
    let source = functions
        .endpoints
        .get(&key.src)
        .is_none_or(|e| e.kind == option.src);
    if agree && source {
        Ok(())
    } else {
        Err(DropReason::EndpointType)
    }
}

/// Whether the packet leaves the VPC by this host: it says so, or it says nothing and its destination is not here.
fn leaves_here(link: &Link, key: &FlowKey, received: &ReceivedOptions) -> bool {
    match received.endpoint {
        Some(option) => option.dst == EndpointType::Gateway,
        None => {
            // What translation covers leaves by it, unless it is known to live here by more than a prefix.
            let here = |e: &RouteEntry| e.local && e.origin != RouteOrigin::Allowed;
            let here = link.routes.lookup(key.dst).is_some_and(here);
            !here && !stays(link, key.src, key.dst)
        }
    }
}
