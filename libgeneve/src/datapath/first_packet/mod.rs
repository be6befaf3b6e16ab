//! First packet of a flow: runs it through every function once, in datapath order.
//!
//! What comes of it is a [`FlowDecision`] that later packets follow without asking again.

mod delivery;
mod encap;
mod from_tun;
mod from_wire;
mod l2_next_hop;
mod masquerade;
mod reply;
mod resolution;
mod rules;
mod source_check;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use self::encap::HeaderFields;
pub(super) use self::encap::plain_header;
pub(super) use self::reply::decide_reply;
use self::resolution::Resolution;
pub(super) use self::source_check::{
    PacketRole, check_arrival, check_source, may_answer_directly, seconds,
};
use super::decision::{
    DecidedDirection, DirectionState, ExpectedInput, FlowDecision, Input, NextHop, PacketContext,
    TunnelNextHop, Verdict,
};
use super::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::options::{EndpointType, ReceivedOptions};
use crate::policy::PolicyAction;
use crate::route::{RouteEntry, RouteOrigin, RouteTarget};
use crate::service::maglev::BalancingKey;
use crate::vpc::{Host, Link};
use crate::wire::header::HeaderBytes;
use crate::wire::ip::protocol;
use crate::wire::packet::{IpVersion, Packet, Transport};

/// Packet that a flow is decided by: its key, and what the key does not hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstPacket {
    pub(super) key: FlowKey,
    /// ICMP type and code.
    pub(super) icmp: Option<(u8, u8)>,
}

impl FirstPacket {
    pub(super) fn of(key: FlowKey, packet: &Packet) -> FirstPacket {
        let icmp = match packet.transport {
            Transport::Icmp { kind, code, .. } => Some((kind, code)),
            _ => None,
        };
        FirstPacket { key, icmp }
    }

    fn version(&self) -> IpVersion {
        match self.key.dst {
            IpAddr::V4(_) => IpVersion::V4,
            IpAddr::V6(_) => IpVersion::V6,
        }
    }

    /// Returns the TCP or UDP ports, if they could be read.
    fn ports(&self) -> Option<(u16, u16)> {
        let has = matches!(self.key.protocol, protocol::TCP | protocol::UDP);
        let known = (self.key.sport, self.key.dport) != (0, 0);
        (has && known).then_some((self.key.sport, self.key.dport))
    }
}

/// Input of a packet from the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireInput<'a> {
    pub(super) host: &'a Arc<Host>,
    pub(super) received: &'a ReceivedOptions,
    /// Geneve header.
    pub(super) header: &'a HeaderBytes,
    /// Digest of the options.
    pub(super) digest: u64,
}

/// Decision with the flow's reply key.
#[derive(Clone, Debug)]
pub(super) struct PlannedDecision {
    pub(super) decision: FlowDecision,
    pub(super) reply: FlowKey,
}

/// Decides a flow by its first packet; `before` is the previous reply key if the flow is decided again.
///
/// # Errors
/// The reason for which the packet is dropped without an entry in the flow table.
pub(super) fn decide_original<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    first_input: &Input<WireInput<'_>>,
    before: Option<&FlowKey>,
    log: &mut E,
) -> Result<PlannedDecision, DropReason> {
    let mut resolution = Resolution::new(link, initial);
    let verdict = match first_input {
        Input::Link if link.bridge.is_some() => {
            l2_next_hop::from_tap(cx, link, initial, before, &mut resolution, log)?
        }
        Input::Host(at) if link.bridge.is_some() => {
            l2_next_hop::from_wire(cx, link, initial, at, before, &mut resolution, log)?
        }
        Input::Link => from_tun::decide_from_tun(cx, link, initial, before, &mut resolution, log)?,
        Input::Host(at) => {
            from_wire::decide_from_wire(cx, link, initial, at, before, &mut resolution, log)?
        }
    };
    let flow_verdict = match verdict.action {
        PolicyAction::Allow => Verdict::Forward,
        PolicyAction::Deny => Verdict::Drop(DropReason::PolicyDenied),
        PolicyAction::Reject => Verdict::Reject,
    };
    let (expected_input, digest, header) = match first_input {
        Input::Link => (ExpectedInput::Tun, 0, None),
        Input::Host(at) => (
            ExpectedInput::Wire(Arc::clone(at.host)),
            at.digest,
            Some(intern_header::<E>(cx, *at.header)),
        ),
    };
    let reply = FlowKey {
        link: resolution.link,
        src: resolution.dst.0,
        sport: resolution.dst.1,
        dst: resolution.src.0,
        dport: resolution.src.1,
        protocol: initial.key.protocol,
    };
    let direction_state = DirectionState {
        expected_input,
        next_hop: resolution.next_hop,
        meter: resolution.meter.map(Arc::new),
        digest,
        service: resolution.service,
        header,
    };
    let hash = hash_of(cx, &initial.key);
    let mut decision = FlowDecision {
        verdict: flow_verdict,
        cut: false,
        class: resolution.class,
        icmp: initial.icmp,
        directions: [None, None],
        hashes: [0; 2],
        rule: verdict.rule,
        lease: resolution.lease,
        heard: 0,
    };
    decision.set_direction(
        FlowDirection::Original,
        decided::<E>(cx, direction_state, hash),
    );
    let reply = if flow_verdict == Verdict::Forward {
        reply
    } else {
        initial.key.reversed()
    };
    Ok(PlannedDecision { decision, reply })
}

/// Interns a header, except in a dry run.
fn intern_header<E: TraceObserver>(
    cx: &PacketContext<'_>,
    header: HeaderBytes,
) -> Arc<HeaderBytes> {
    if E::DRY {
        Arc::new(header)
    } else {
        cx.state.share(header)
    }
}

/// Interns a direction state, except in a dry run, and truncates the flow hash to the bits that port selection needs.
fn decided<E: TraceObserver>(
    cx: &PacketContext<'_>,
    direction_state: DirectionState,
    hash: u64,
) -> DecidedDirection {
    let direction_state = if E::DRY {
        Arc::new(direction_state)
    } else {
        cx.state.intern_direction(direction_state)
    };
    DecidedDirection {
        direction_state,
        hash: (hash >> 32) as u32,
    }
}

/// Looks up the route to `addr`.
fn route<'a, E: TraceObserver>(
    link: &'a Link,
    addr: IpAddr,
    log: &mut E,
) -> Result<&'a RouteEntry, DropReason> {
    let found = link.routes.lookup(addr);
    log.record("route", || match found {
        None => format!("no route covers {addr}"),
        Some(entry) => {
            let made = match entry.origin {
                RouteOrigin::Allowed => "an allowed prefix",
                RouteOrigin::Remote => "the link's remote",
                RouteOrigin::Route => "a route",
                RouteOrigin::Endpoint => "an endpoint",
                RouteOrigin::Own => "an address of the link",
            };
            let place = match &entry.target {
                RouteTarget::Local => "this host".to_owned(),
                RouteTarget::Hosts(hosts) => {
                    let names: Vec<_> = hosts.iter().map(|h| h.addr.to_string()).collect();
                    names.join(", ")
                }
            };
            format!("{made}: {addr} is {} on {place}", entry.kind)
        }
    });
    let broadcast = addr == IpAddr::V4(Ipv4Addr::BROADCAST);
    found.ok_or(match addr.is_multicast() || broadcast {
        true => DropReason::NoMulticastRoute,
        false => DropReason::NoRoute,
    })
}

/// Selects one of a route's hosts, by flow hash or, for scaled endpoints, consistently across hosts; `None` is this
/// host.
fn host_of<'a>(entry: &'a RouteEntry, key: &FlowKey, hash: u64) -> Option<&'a Arc<Host>> {
    let RouteTarget::Hosts(hosts) = &entry.target else {
        return None;
    };
    if let Some(spread) = &entry.spread {
        let flow = BalancingKey {
            client: key.src,
            dst: key.dst,
            protocol: key.protocol,
            client_port: key.sport,
            dst_port: key.dport,
        };
        return hosts.get(spread.pick(flow.hash()));
    }
    match hosts.len() {
        0 => None,
        1 => hosts.first(),
        n => hosts.get(((u64::from(hash as u32) * n as u64) >> 32) as usize),
    }
}

/// Returns the type of an address: that of its endpoint, or else of its route.
fn kind_of(link: &Link, addr: IpAddr, entry: Option<&RouteEntry>) -> EndpointType {
    match link.config.functions.endpoints.get(&addr) {
        Some(endpoint) => endpoint.kind,
        None => entry.map_or(EndpointType::Simple, |e| e.kind),
    }
}

fn hash_of(cx: &PacketContext<'_>, key: &FlowKey) -> u64 {
    cx.tables.hasher.hash_key(key)
}

/// See [`Link::is_recursive`].
fn wraps_again(link: &Link, host: &Host, key: &FlowKey) -> bool {
    let port = (key.protocol == protocol::UDP).then_some(key.dport);
    link.is_recursive(host, key.dst, port)
}

/// Builds the next hop to `host` for packets with this mark.
fn wire_exit<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    host: &Arc<Host>,
    header_fields: &HeaderFields<'_>,
    log: &mut E,
) -> Result<NextHop, DropReason> {
    let header = encap::header(cx, link, Some(host), header_fields, log)?;
    Ok(NextHop::Wire(TunnelNextHop {
        host: Arc::clone(host),
        link: link.config.index,
        encap: header.encap,
        slots: header.slots,
        neighbor: header.neighbor,
    }))
}
