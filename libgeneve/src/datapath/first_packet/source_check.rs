//! Whether a packet came from where its source is.

use std::net::IpAddr;
use std::sync::Arc;

use super::from_wire;
use crate::datapath::decision::{ExpectedInput, FlowDecision, Input, NextHop};
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::l2::StationLocation;
use crate::options::ReceivedOptions;
use crate::route::RouteOrigin;
use crate::time::Now;
use crate::vpc::{Host, Link};
use crate::wire::ip::protocol;

/// As what a packet comes, in the eyes of who asks whether it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum PacketRole {
    /// It begins a flow, or goes on with one from the side that began.
    Original,
    /// It answers; `direct` where another host than that of the address which was asked may answer in its name.
    Reply {
        /// See [`may_answer_directly`].
        direct: bool,
    },
}

/// How long the host that answers a flow in the name of a service must have been silent, in seconds, before another may
/// (its backend failed, say). A TCP connection cannot move: there is no other.
const RESPONDER_SILENCE: u32 = 5;

/// The time at which a host was heard, in seconds, as decisions keep it.
#[inline]
pub(in crate::datapath) fn seconds(now: Now) -> u32 {
    (now.0 / 1_000_000_000) as u32
}

/// Whether a host may answer a flow in the name of the virtual address that was asked. This host knows neither the service
/// nor its backends: those are the business of the host that the address leads to. What it can know is that the flow
/// went there untranslated, and who has answered so far.
#[inline]
pub(in crate::datapath) fn may_answer_directly(
    (original, reply): (&FlowKey, &FlowKey),
    decision: &FlowDecision,
    from: Input<&Arc<Host>>,
    now: Now,
) -> bool {
    let Input::Host(host) = from else {
        return false;
    };
    let asked = matches!(
        decision.direction(FlowDirection::Original).next_hop,
        NextHop::Wire(_)
    );
    if !asked || *reply != original.reversed() {
        return false;
    }
    match &decision.direction(FlowDirection::Reply).expected_input {
        ExpectedInput::Nowhere => true,
        ExpectedInput::Tun => false,
        ExpectedInput::Wire(known) if known.id == host.id => true,
        ExpectedInput::Wire(_) => {
            original.protocol != protocol::TCP
                && seconds(now).saturating_sub(decision.heard) >= RESPONDER_SILENCE
        }
    }
}

/// The source of a packet, its inner address and port, must be where the packet came from.
pub(in crate::datapath) fn check_arrival(
    link: &Link,
    from: Input<&Arc<Host>>,
    role: PacketRole,
    source: (IpAddr, u16),
    received: Option<&ReceivedOptions>,
) -> Result<(), DropReason> {
    match from {
        Input::Link => check_own_source(link, source.0),
        Input::Host(host) => check_source(link, host, source.0).or_else(|reason| {
            let service = received.and_then(|r| r.service);
            let right = service.is_some_and(|s| match role {
                PacketRole::Original => from_wire::relays(link, host, &s),
                // A backend answers its client directly, in the name of the virtual address.
                PacketRole::Reply { direct } => direct && (s.addr, s.port) == source,
            });
            if right { Ok(()) } else { Err(reason) }
        }),
    }
}

/// The inner source must live on the host that sent the packet.
pub(in crate::datapath) fn check_source(
    link: &Link,
    host: &Arc<Host>,
    source: IpAddr,
) -> Result<(), DropReason> {
    if let Some(bridge) = &link.bridge {
        return bridge.owns(source, None, &StationLocation::Host(Arc::clone(host)));
    }
    let host = host.addr;
    match link.routes.lookup(source) {
        Some(entry) if entry.target.includes(host) => Ok(()),
        _ => Err(DropReason::SourceMismatch),
    }
}

/// A packet whose source is an endpoint of another host was forged: that host would refuse it, too.
fn check_own_source(link: &Link, source: IpAddr) -> Result<(), DropReason> {
    if let Some(bridge) = &link.bridge {
        return bridge.owns(source, None, &StationLocation::Here);
    }
    match link.routes.lookup(source) {
        Some(entry) if entry.origin == RouteOrigin::Endpoint && !entry.local => {
            Err(DropReason::SourceNotLocal)
        }
        _ => Ok(()),
    }
}

/// The same for the first packet of a flow that this host sends.
pub(super) fn check_departure<E: TraceObserver>(
    link: &Link,
    key: &FlowKey,
    log: &mut E,
) -> Result<(), DropReason> {
    let checked = check_own_source(link, key.src);
    log.record("source", || match checked {
        Ok(()) => format!("{} may send from this host", key.src),
        Err(_) => format!("{} is an endpoint of another host", key.src),
    });
    checked
}
