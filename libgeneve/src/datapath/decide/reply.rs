//! The way back: where the replies of a flow go, which needs no rule's leave.

use std::sync::Arc;

use super::course::Course;
use super::delivery::check_answer;
use super::encap::Mark;
use super::{Subject, bridge, decided, hash_of, host_of, kind_of, wire_exit, wraps_again};
use crate::datapath::change::exit_of;
use crate::datapath::explain::Explain;
use crate::datapath::state::{Came, Context, Decided, Decision, Exit, Half, Input};
use crate::drop::DropReason;
use crate::flow::{FlowKey, Side};
use crate::link::Host;
use crate::options::Received;
use crate::policy::Direction;

/// Decides the half of a flow's replies, of which one came `from`, where it may come from.
///
/// # Errors
/// There is no way back.
pub(in crate::datapath) fn second_half<E: Explain>(
    cx: &Context<'_>,
    original: &FlowKey,
    reply: &FlowKey,
    decision: &Decision,
    from: Input<&Arc<Host>>,
    received: Option<(&Received, u64)>,
    log: &mut E,
) -> Result<Decided, DropReason> {
    let link = cx.tables.link(original.link).ok_or(DropReason::LinkGone)?;
    // The class of a flow that left in another VPC is that VPC's.
    let class = decision.class.filter(|_| reply.link == original.link);
    let mut left = exit_of(Side::Reply, original, reply);
    let service = decision.half(Side::Original).service;
    if let Some(service) = service {
        left.src = (service.addr, service.port);
    }
    let mut course = Course::new(
        link,
        &Subject {
            key: *original,
            icmp: None,
        },
    );
    let hash = hash_of(cx, &original.reversed());
    let exit = match &decision.half(Side::Original).came {
        // Both ends may be behind the TAP interface.
        Came::Wire(_) | Came::Tun if link.bridge.is_some() && matches!(from, Input::Link) => {
            course.classify(link, Direction::Egress, left.src.0, class, None, log);
            let kind = kind_of(link, original.src, None);
            let mark = course.mark(left.src.0, original.src, kind);
            bridge::exit(cx, link, &mark, log)?
        }
        // Relayed here in the name of a service by whose address the client of this host is known.
        Came::Wire(_) if service.is_some_and(|service| service.addr == reply.dst) => {
            check_answer(link, original, reply, from, cx.now, log)?;
            course.classify(link, Direction::Ingress, original.src, class, None, log);
            Exit::Tun(original.link)
        }
        Came::Wire(host) => {
            course.classify(link, Direction::Egress, left.src.0, class, None, log);
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
            let mark = Mark {
                service,
                ..course.mark(left.src.0, original.src, kind_of(link, original.src, entry))
            };
            wire_exit(cx, link, host, &mark, log)?
        }
        Came::Tun | Came::Nowhere => {
            check_answer(link, original, reply, from, cx.now, log)?;
            course.classify(link, Direction::Ingress, original.src, class, None, log);
            Exit::Tun(original.link)
        }
    };
    let half = Half {
        came: from.came(),
        exit,
        meter: course.meter.map(Arc::new),
        digest: received.map_or(0, |(_, digest)| digest),
        ..Half::default()
    };
    Ok(decided::<E>(cx, half, hash))
}
