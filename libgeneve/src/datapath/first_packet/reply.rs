//! Reply direction of a flow: replies follow the flow and need no rule to allow them.

use std::sync::Arc;

use super::delivery::check_answer;
use super::encap::HeaderFields;
use super::resolution::Resolution;
use super::{FirstPacket, decided, hash_of, host_of, kind_of, l2_next_hop, wire_exit, wraps_again};
use crate::datapath::decision::{
    DecidedDirection, DirectionState, ExpectedInput, FlowDecision, Input, NextHop, PacketContext,
};
use crate::datapath::packet_rewrite::exit_of;
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::options::ReceivedOptions;
use crate::policy::Direction;
use crate::vpc::Host;

/// Decides the reply direction of a flow, given the input `from` of a reply. The caller has checked the source.
///
/// # Errors
/// If there is no route back.
pub(in crate::datapath) fn decide_reply<E: TraceObserver>(
    cx: &PacketContext<'_>,
    original: &FlowKey,
    reply: &FlowKey,
    decision: &FlowDecision,
    from: Input<&Arc<Host>>,
    received: Option<(&ReceivedOptions, u64)>,
    log: &mut E,
) -> Result<DecidedDirection, DropReason> {
    let link = cx.tables.link(original.link).ok_or(DropReason::LinkGone)?;
    // If the flow left in another VPC, its class belongs to that VPC.
    let class = decision.class.filter(|_| reply.link == original.link);
    let mut left = exit_of(FlowDirection::Reply, original, reply);
    let service = decision.direction(FlowDirection::Original).service;
    if let Some(service) = service {
        left.src = (service.addr, service.port);
    }
    let mut resolution = Resolution::new(
        link,
        &FirstPacket {
            key: *original,
            icmp: None,
        },
    );
    let hash = hash_of(cx, &original.reversed());
    let next_hop = match &decision.direction(FlowDirection::Original).expected_input {
        // Both ends may be behind the TAP interface.
        ExpectedInput::Wire(_) | ExpectedInput::Tun
            if link.bridge.is_some() && matches!(from, Input::Link) =>
        {
            resolution.classify(link, Direction::Egress, left.src.0, class, None, log);
            let kind = kind_of(link, original.src, None);
            let header_fields = resolution.header_fields(left.src.0, original.src, kind);
            l2_next_hop::next_hop(cx, link, &header_fields, log)?
        }
        // Relayed here for a service, to a client of this host that is masqueraded as the service's address.
        ExpectedInput::Wire(_) if service.is_some_and(|service| service.addr == reply.dst) => {
            check_answer(link, original, reply, from, cx.now, log)?;
            resolution.classify(link, Direction::Ingress, original.src, class, None, log);
            NextHop::Tun(original.link)
        }
        ExpectedInput::Wire(host) => {
            resolution.classify(link, Direction::Egress, left.src.0, class, None, log);
            let entry = link.routes.lookup(original.src);
            let target = entry.map(|e| &e.target);
            let host = match target {
                Some(target) if target.includes(host.addr) => host,
                _ => entry
                    .and_then(|e| host_of(e, &original.reversed(), hash))
                    .ok_or(DropReason::NoRoute)?,
            };
            if wraps_again(link, host, &original.reversed()) {
                return Err(DropReason::UnderlayLoop);
            }
            let header_fields = HeaderFields {
                service,
                ..resolution.header_fields(
                    left.src.0,
                    original.src,
                    kind_of(link, original.src, entry),
                )
            };
            wire_exit(cx, link, host, &header_fields, log)?
        }
        ExpectedInput::Tun | ExpectedInput::Nowhere => {
            check_answer(link, original, reply, from, cx.now, log)?;
            resolution.classify(link, Direction::Ingress, original.src, class, None, log);
            NextHop::Tun(original.link)
        }
    };
    let direction_state = DirectionState {
        expected_input: from.expected_input(),
        next_hop,
        meter: resolution.meter.map(Arc::new),
        digest: received.map_or(0, |(_, digest)| digest),
        ..DirectionState::default()
    };
    Ok(decided::<E>(cx, direction_state, hash))
}
