//! First packet of a flow from the wire: source check → endpoint types → ingress policy → service → NAT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::delivery::check_delivery;
use super::encap::HeaderFields;
use super::from_tun::trace_next_hop;
use super::masquerade::asked_here;
use super::resolution::{Redirect, Resolution, is_icmp, stays, translatable};
use super::rules::{configured_labels, evaluate, own_labels};
use super::source_check::{PacketRole, check_arrival};
use super::{FirstPacket, WireInput, hash_of, host_of, kind_of, route, wire_exit};
use crate::datapath::decision::{Input, NextHop, PacketContext};
use crate::datapath::neighbor_discovery;
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::label::Labels;
use crate::nat::SourceTranslation;
use crate::options::{EndpointType, ReceivedOptions, ServiceOption};
use crate::policy::{Direction, PolicyAction, PolicyQuery, PolicyVerdict};
use crate::route::{RouteEntry, RouteOrigin};
use crate::vpc::{Host, Link, ProxyTarget};
use crate::wire::encapsulation::InnerProtocol;

pub(super) fn decide_from_wire<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    at: &WireInput<'_>,
    before: Option<&FlowKey>,
    resolution: &mut Resolution,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &initial.key;
    let kind = at.received.endpoint.map(|e| e.dst);
    let verdict = admitted(link, initial, at, log)?;
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
        proxy(cx, link, initial, target, class, resolution, log)?;
        return Ok(verdict);
    }
    let redirect = resolution.destination(link, initial, before, log)?;
    // Backends answer the client directly.
    let leaves = redirect != Redirect::Service && leaves_here(link, key, at.received);
    if redirect == Redirect::None {
        check_delivery(link, key, leaves, cx.now, log)?;
    }
    if leaves || redirect == Redirect::Hairpin {
        resolution.source(cx, link, initial, log)?;
    }
    if redirect == Redirect::None {
        resolution.classify(link, Direction::Ingress, key.dst, class, precedence, log);
        resolution.service = at.received.service;
        if let Some(service) = &resolution.service
            && asked_here(cx, link, key, service, before)
        {
            resolution.masquerade(cx, initial, before, service.addr, log)?;
        }
        resolution.next_hop = NextHop::Tun(link.config.index);
    } else {
        let entry = route(link, resolution.dst.0, log)?;
        resolution.classify(link, Direction::Ingress, key.dst, class, precedence, log);
        forward_or_deliver(cx, link, initial, at, (redirect, entry), resolution, log)?;
    }
    trace_next_hop(&resolution.next_hop, log);
    Ok(verdict)
}

/// Admits a packet from the wire: checks its source and endpoint types, then evaluates the ingress policy.
pub(super) fn admitted<E: TraceObserver>(
    link: &Link,
    initial: &FirstPacket,
    at: &WireInput<'_>,
    log: &mut E,
) -> Result<PolicyVerdict, DropReason> {
    let key = &initial.key;
    let source = (key.src, key.sport);
    let from = Input::Host(at.host);
    let checked = check_arrival(link, from, PacketRole::Original, source, Some(at.received));
    log.record("source", || match checked {
        Ok(()) => format!("{} may come from host {}", key.src, at.host.addr),
        Err(_) => format!("{} does not belong to host {}", key.src, at.host.addr),
    });
    checked?;
    let kind = at.received.endpoint.map(|e| e.dst);
    let agreed = types_agree(link, initial, at.received);
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
            ports: initial.ports(),
            icmp: initial.icmp,
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

/// Resolves the next hop of a redirected packet: TUN if the new destination is on this host, otherwise its host.
fn forward_or_deliver<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    at: &WireInput<'_>,
    (redirect, entry): (Redirect, &RouteEntry),
    resolution: &mut Resolution,
    log: &mut E,
) -> Result<(), DropReason> {
    let key = &initial.key;
    let service = (redirect == Redirect::Service).then_some(ServiceOption {
        addr: key.dst,
        port: key.dport,
        protocol: key.protocol,
    });
    let hash = hash_of(cx, key);
    resolution.next_hop = match host_of(entry, &initial.key, hash) {
        None => NextHop::Tun(link.config.index),
        Some(host) => {
            let header_fields = HeaderFields {
                service,
                relayed: Some(at.received),
                ..resolution.header_fields(
                    resolution.src.0,
                    resolution.dst.0,
                    kind_of(link, resolution.dst.0, Some(entry)),
                )
            };
            wire_exit(cx, link, host, &header_fields, log)?
        }
    };
    Ok(())
}

/// Proxies an endpoint: forwards the packet to the target with an outside address of this host as its source, so that
/// neither VPC needs a route to the other.
pub(super) fn proxy<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    target: ProxyTarget,
    class: Option<u8>,
    resolution: &mut Resolution,
    log: &mut E,
) -> Result<(), DropReason> {
    let there = cx.tables.link(target.link).ok_or(DropReason::LinkGone)?;
    if !translatable(initial) {
        return Err(DropReason::NatUntranslatable);
    }
    let pools = there.config.functions.stand_ins.as_ref();
    let pools = pools.ok_or(DropReason::EndpointType)?;
    let Some(SourceTranslation::Pool { pool, .. }) = pools.source(target.addr) else {
        return Err(DropReason::EndpointType);
    };
    let share = pools.share(link.config.index);
    let entry = route(there, target.addr, log)?;
    let inside = (client(link, initial.key.src), initial.key.sport);
    let outside =
        resolution.lease_port::<E>(cx, (pool, share.as_ref()), initial.key.protocol, inside)?;
    log.record("proxy", || {
        let vni = there.config.vni;
        format!(
            "stands for {} in the VPC {vni}; the source becomes {} port {}",
            target.addr, outside.0, outside.1
        )
    });
    resolution.link = target.link;
    resolution.src = outside;
    resolution.redirect_to(
        target.addr,
        is_icmp(initial.key.protocol).then_some(outside.1),
    );
    resolution.classify(
        there,
        Direction::Egress,
        outside.0,
        class.filter(|_| target.link == link.config.index),
        None,
        log,
    );
    let hash = hash_of(cx, &initial.key);
    resolution.next_hop = match host_of(entry, &initial.key, hash) {
        None => NextHop::Tun(target.link),
        Some(host) => {
            let kind = kind_of(there, target.addr, Some(entry));
            let header_fields = resolution.header_fields(outside.0, target.addr, kind);
            wire_exit(cx, there, host, &header_fields, log)?
        }
    };
    trace_next_hop(&resolution.next_hop, log);
    Ok(())
}

/// Returns a stand-in address for a client in the pool of another VPC. Clients of two VPCs may have the same address;
/// mixing in the link tells them apart. If two stand-ins collide by chance, their flows to one target cannot share a
/// port, and the later one is refused.
fn client(link: &Link, addr: IpAddr) -> IpAddr {
    let index = link.config.index.0;
    match addr {
        IpAddr::V4(addr) => {
            Ipv4Addr::from(u32::from(addr) ^ index.wrapping_mul(0x9e37_79b9)).into()
        }
        IpAddr::V6(addr) => Ipv6Addr::from(u128::from(addr) ^ u128::from(index) << 64).into(),
    }
}

/// Whether `host` serves the virtual address that the packet's client asked for, and may therefore relay for others.
pub(super) fn relays(link: &Link, host: &Host, service: &ServiceOption) -> bool {
    link.routes
        .lookup(service.addr)
        .is_some_and(|entry| entry.origin >= RouteOrigin::Route && entry.target.includes(host.addr))
}

/// Checks the packet's endpoint option against local configuration.
fn types_agree(
    link: &Link,
    initial: &FirstPacket,
    received: &ReceivedOptions,
) -> Result<(), DropReason> {
    let Some(option) = received.endpoint else {
        return Ok(());
    };
    let key = &initial.key;
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
                let port = initial.ports().map(|(_, dst)| dst);
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

/// Whether the packet leaves the VPC through this host: its option says so, or it has none and its destination is not
/// here.
fn leaves_here(link: &Link, key: &FlowKey, received: &ReceivedOptions) -> bool {
    match received.endpoint {
        Some(option) => option.dst == EndpointType::Gateway,
        None => {
            // Sources that NAT covers leave through this host, unless the destination is known here by more than an
            // allowed prefix.
            let here = |e: &RouteEntry| e.local && e.origin != RouteOrigin::Allowed;
            let here = link.routes.lookup(key.dst).is_some_and(here);
            !here && !stays(link, key.src, key.dst)
        }
    }
}
