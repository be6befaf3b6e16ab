//! Source checks: whether a packet's source belongs to the input it came from.

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

/// Role of a packet in its flow, for the source check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::datapath) enum PacketRole {
    /// First packet, or a later one in the original direction.
    Original,
    /// Reply; `direct` if a host other than that of the requested address may answer for it.
    Reply {
        /// See [`may_answer_directly`].
        direct: bool,
    },
}

/// How long, in seconds, the host answering for a service must be silent before another host may take over (after its
/// backend failed, say). TCP connections cannot move to another backend.
const RESPONDER_SILENCE: u32 = 5;

/// Returns the time in whole seconds, as decisions store it.
#[inline]
pub(in crate::datapath) fn seconds(now: Now) -> u32 {
    (now.0 / 1_000_000_000) as u32
}

/// Whether a host may answer for the requested virtual address (direct server return). This host knows neither the
/// service nor its backends, only the host of the address does. It can check that the flow went there untranslated,
/// and who has answered so far.
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

/// Checks that the packet's source, its inner address and port, belongs to the packet's input.
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
                // Direct server return: a backend answers with the virtual address as its source.
                PacketRole::Reply { direct } => direct && (s.addr, s.port) == source,
            });
            if right { Ok(()) } else { Err(reason) }
        }),
    }
}

/// Checks that the inner source belongs to the sending host.
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

/// Checks the source of a packet from this host. An endpoint of another host as source is forged: that host would
/// refuse the packet, too.
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

/// Checks the source of the first packet of a flow from this host, and traces the result.
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
