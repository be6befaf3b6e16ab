//! Flow lookup: finds a packet's flow or begins one.

use std::sync::Arc;

use super::decision::{
    CachedVerdict, DirectionState, ExpectedInput, FlowDecision, Input, PacketContext, Verdict,
};
use super::first_packet::{self, FirstPacket, PacketRole, PlannedDecision, WireInput};
use super::flow_log::LoggedFlow;
use super::packet_rewrite::PacketRewrite;
use super::trace_observer::{NoTrace, TraceObserver};
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey, FlowLookup, InsertError, PacketUpdate};
use crate::options::ReceivedOptions;
use crate::policy::Direction;
use crate::route::RouteTarget;
use crate::vpc::{Host, Link, Tables};
use crate::wire::header::HeaderBytes;
use crate::wire::packet::{Fragment, Packet, Transport};
use crate::wire::transport::TcpFlags;

/// Flow lookup request of one packet.
#[derive(Clone, Copy)]
pub(super) struct FlowQuery<'a> {
    pub(super) link: &'a Arc<Link>,
    pub(super) packet: &'a Packet,
    pub(super) key: FlowKey,
    /// The packet is an ICMP error; `key` comes from the packet it quotes.
    pub(super) error: bool,
    pub(super) from: Input<&'a Arc<Host>>,
    /// Options and header, if the packet came from the wire.
    pub(super) wire: Option<WireMetadata<'a>>,
    pub(super) seen: PacketUpdate,
}

/// Geneve header and options of a packet from the wire.
#[derive(Clone, Copy)]
pub(super) struct WireMetadata<'a> {
    pub(super) received: &'a ReceivedOptions,
    pub(super) header: &'a HeaderBytes,
    pub(super) digest: u64,
}

/// Reason why a packet is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) reason: DropReason,
    /// The sender must be notified, as a reject rule asks.
    pub(super) reject: bool,
}

impl From<DropReason> for Rejection {
    fn from(reason: DropReason) -> Rejection {
        Rejection {
            reason,
            reject: false,
        }
    }
}

/// Returns a packet's flow key, and whether it is an ICMP error about a flow. `received` holds the options of a
/// packet from the wire.
#[inline]
pub(super) fn key_of(
    cx: &PacketContext<'_>,
    link: &Link,
    packet: &Packet,
    bytes: &[u8],
    received: Option<&ReceivedOptions>,
) -> Result<(FlowKey, bool), DropReason> {
    let index = link.config.index;
    if packet.fragment != Fragment::Whole {
        return of_fragment(cx, link, packet, received).map(|key| (key, false));
    }
    if packet.is_icmp_error()
        && let Some(quote) = packet.quote(bytes)
    {
        // An error goes to the sender of the quoted packet (RFC 792, RFC 4443 section 2.2), but kernels accept it
        // whatever its destination: one that quotes the host's own datagrams would make it send shorter packets to
        // other hosts.
        if quote.src != packet.dst {
            return Err(DropReason::IcmpUnrelated);
        }
        let key = FlowKey::of_quote(index, &quote).reversed();
        if cx.state.flows.contains(&key) {
            return Ok((key, true));
        }
        // With policy or NAT, an unrelated error must not pass as a flow of its own.
        if link.config.functions.policy.is_some() || link.config.functions.nat.is_some() {
            return Err(DropReason::IcmpUnrelated);
        }
    }
    Ok((FlowKey::of(index, packet), false))
}

/// Returns the key of a later fragment: that of its first fragment. If that was not seen, the fragment forms a flow
/// without ports, unless ports matter.
fn of_fragment(
    cx: &PacketContext<'_>,
    link: &Link,
    packet: &Packet,
    received: Option<&ReceivedOptions>,
) -> Result<FlowKey, DropReason> {
    let index = link.config.index;
    if packet.fragment == Fragment::First {
        return Ok(FlowKey::of(index, packet));
    }
    match cx.state.fragments.later(index, packet, cx.now) {
        Some(key) => Ok(key),
        None if ports_matter(link, packet, received) => Err(DropReason::FragmentUnknown),
        None => Ok(FlowKey::of(index, packet)),
    }
}

/// Whether ports may affect policy, translation or the next hop of this packet.
fn ports_matter(link: &Link, packet: &Packet, received: Option<&ReceivedOptions>) -> bool {
    let functions = &link.config.functions;
    let direction = match received {
        None => Direction::Egress,
        Some(_) => Direction::Ingress,
    };
    // The flow hash, ports included, selects one of several hosts.
    let spread = || {
        let entry = link.routes.lookup(packet.dst);
        entry.is_some_and(|entry| match &entry.target {
            RouteTarget::Hosts(hosts) => hosts.len() > 1 || entry.spread.is_some(),
            RouteTarget::Local => false,
        })
    };
    functions.needs_ports(direction)
        || functions.target(packet.dst).is_some()
        || match received {
            Some(received) => received.service.is_some(),
            None => link.bridge.is_none() && spread(),
        }
}

/// Flow found in the table.
type KnownFlow = crate::flow::FoundFlow<FlowDecision>;

enum LookupOutcome {
    Go(CachedVerdict),
    Refused(Verdict),
    /// The decision does not cover this packet of this side.
    Open(FlowDirection),
}

/// Result of a table hit.
struct LookupHit {
    found: LookupOutcome,
    /// The packet may be a direct answer (direct server return).
    direct: bool,
    /// The flow, if it must be decided.
    open: Option<KnownFlow>,
}

/// Looks up the packet's flow, and decides it if it is unknown or out of date.
pub(super) fn pass(
    cx: &PacketContext<'_>,
    query: &FlowQuery<'_>,
) -> Result<CachedVerdict, Rejection> {
    let known = match find(cx, query) {
        FlowLookup::Hit(hit) => match hit.found {
            LookupOutcome::Go(cached) if query.error => {
                let direct = hit.direct;
                check_arrival(query, PacketRole::Original)
                    .or_else(|_| check_arrival(query, PacketRole::Reply { direct }))?;
                return Ok(cached);
            }
            LookupOutcome::Go(cached) => return Ok(cached),
            LookupOutcome::Refused(flow_verdict) => return Err(stop(flow_verdict)),
            LookupOutcome::Open(side) => {
                let role = match side {
                    FlowDirection::Original => PacketRole::Original,
                    FlowDirection::Reply => PacketRole::Reply { direct: hit.direct },
                };
                check_arrival(query, role)?;
                hit.open
            }
        },
        FlowLookup::Stale(known) => Some(known),
        FlowLookup::Miss => None,
    };
    let current = known.as_ref().filter(|f| f.epoch == cx.tables.epoch);
    let answers = current
        .is_some_and(|f| f.side == FlowDirection::Reply && f.decision.verdict == Verdict::Forward);
    match known {
        Some(known) if answers => reply_received(cx, query, known),
        // Errors about packets that were not forwarded are unrelated.
        _ if query.error && current.is_some() => Err(DropReason::IcmpUnrelated.into()),
        None if query.error => Err(DropReason::IcmpUnrelated.into()),
        Some(known) => again(cx, query, &known),
        None => begin(cx, query),
    }
}

/// Returns the packet's role in a known flow.
fn role(cx: &PacketContext<'_>, query: &FlowQuery<'_>, known: &KnownFlow) -> PacketRole {
    let keys = (&known.original, &known.reply);
    match known.side {
        FlowDirection::Original => PacketRole::Original,
        FlowDirection::Reply => PacketRole::Reply {
            direct: first_packet::may_answer_directly(keys, &known.decision, query.from, cx.now),
        },
    }
}

/// Checks that the packet's source belongs to its input.
fn check_arrival(query: &FlowQuery<'_>, role: PacketRole) -> Result<(), DropReason> {
    let FlowQuery {
        link, key, from, ..
    } = query;
    let source = (query.packet.src, key.sport);
    let received = query.wire.map(|w| w.received);
    first_packet::check_arrival(link, *from, role, source, received)
}

/// Whether a packet can only be the first of its flow.
fn opens(packet: &Packet) -> bool {
    match packet.transport {
        Transport::Tcp { flags, .. } => {
            flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::ACK)
        }
        _ => false,
    }
}

/// Whether these tables would make the same decision as those of `epoch`: nothing that the decision depends on has
/// changed.
pub(super) fn holds(
    tables: &Tables,
    (original, reply): (&FlowKey, &FlowKey),
    decision: &FlowDecision,
    epoch: u64,
) -> bool {
    if decision.verdict != Verdict::Forward {
        // The next hop of a refused flow, and the labels the rules saw, are not stored.
        let any = |_| true;
        return tables.is_current(original.link, epoch, any)
            && tables.is_current(reply.link, epoch, any);
    }
    let service = decision
        .direction(FlowDirection::Original)
        .service
        .map(|s| s.addr);
    let uses = |addr| {
        let own = [original.src, original.dst, reply.src, reply.dst];
        own.contains(&addr) || service == Some(addr)
    };
    [original.link, reply.link]
        .into_iter()
        .all(|link| tables.is_current(link, epoch, uses))
}

#[inline]
fn find(cx: &PacketContext<'_>, query: &FlowQuery<'_>) -> FlowLookup<LookupHit, FlowDecision> {
    let flows = &cx.state.flows;
    flows.hit_where(
        &query.key,
        &query.seen,
        cx.now,
        (cx.tables.epoch, |original, reply, decision, epoch| {
            holds(cx.tables, (original, reply), decision, epoch)
        }),
        |side, original, reply, decision| {
            let speaks = query.wire.is_some_and(|w| w.received.service.is_some());
            let reopened = side == FlowDirection::Original && matches!(query.from, Input::Link);
            if reopened
                && decision.direction(FlowDirection::Reply).digest != 0
                && opens(query.packet)
            {
                // A new connection with the same ports: another backend may answer it.
                decision.forget_direction(FlowDirection::Reply);
            }
            let direct = side == FlowDirection::Reply
                && speaks
                && first_packet::may_answer_directly(
                    (original, reply),
                    decision,
                    query.from,
                    cx.now,
                );
            let found = look_up(query, side, original, reply, decision);
            if direct && !query.error && matches!(found, LookupOutcome::Go(_)) {
                decision.heard = first_packet::seconds(cx.now);
            }
            let counts = match found {
                LookupOutcome::Go(_) => true,
                // A flow cut off through no fault of its own must not be held for as long as its peer retries.
                LookupOutcome::Refused(_) => side == FlowDirection::Original,
                LookupOutcome::Open(_) => false,
            };
            let open = matches!(found, LookupOutcome::Open(_)).then(|| KnownFlow {
                side,
                original: *original,
                reply: *reply,
                epoch: cx.tables.epoch,
                decision: decision.clone(),
            });
            let hit = LookupHit {
                found,
                direct,
                open,
            };
            (counts, hit)
        },
    )
}

/// Looks the packet up again, which counts it, and follows the stored decision; `decided` is the decision as it was
/// inserted.
fn follow(
    cx: &PacketContext<'_>,
    query: &FlowQuery<'_>,
    decided: LookupOutcome,
    flow_verdict: Verdict,
) -> Result<CachedVerdict, Rejection> {
    let found = match find(cx, query) {
        FlowLookup::Hit(LookupHit {
            found: found @ (LookupOutcome::Go(_) | LookupOutcome::Refused(_)),
            ..
        }) => found,
        // The entry is gone: its state timed out, or another worker ended it.
        FlowLookup::Miss if !query.error => return begin(cx, query),
        // Another worker is still on other tables.
        _ => match decided {
            LookupOutcome::Go(cached) => LookupOutcome::Go(CachedVerdict {
                lasts: false,
                ..cached
            }),
            other => other,
        },
    };
    match found {
        LookupOutcome::Go(cached) => Ok(cached),
        LookupOutcome::Refused(flow_verdict) => Err(stop(flow_verdict)),
        LookupOutcome::Open(..) => Err(stop(flow_verdict)),
    }
}

#[inline]
fn look_up(
    query: &FlowQuery<'_>,
    side: FlowDirection,
    original: &FlowKey,
    reply: &FlowKey,
    decision: &FlowDecision,
) -> LookupOutcome {
    let direction_state = decision.direction(side);
    let digest = query.wire.map_or(0, |w| w.digest);
    let known = query.from.is(&direction_state.expected_input)
        && (direction_state.digest == digest || query.error);
    if decision.verdict != Verdict::Forward {
        let refused = match side {
            FlowDirection::Original => known,
            FlowDirection::Reply => decision.cut && !opens(query.packet),
        };
        if refused {
            return LookupOutcome::Refused(decision.verdict);
        }
    }
    let Some(decided) = &decision.directions[side as usize] else {
        return LookupOutcome::Open(side);
    };
    if decision.verdict != Verdict::Forward || !known && !query.error {
        return LookupOutcome::Open(side);
    }
    let error = query.error.then_some(query.packet.src);
    LookupOutcome::Go(CachedVerdict {
        direction_state: Arc::clone(decided),
        hash: decision.hashes[side as usize],
        change: PacketRewrite::of(side, original, reply, decision, error),
        lasts: true,
    })
}

fn stop(flow_verdict: Verdict) -> Rejection {
    let reject = flow_verdict == Verdict::Reject;
    let reason = match flow_verdict {
        Verdict::Drop(reason) => reason,
        Verdict::Reject => DropReason::PolicyRejected,
        Verdict::Forward => DropReason::NoRoute,
    };
    Rejection { reason, reject }
}

/// Decides a new flow.
fn begin(cx: &PacketContext<'_>, query: &FlowQuery<'_>) -> Result<CachedVerdict, Rejection> {
    let initial = FirstPacket::of(query.key, query.packet);
    let planned = first(cx, query.link, &initial, query, None)?;
    admit(cx, query, planned)
}

fn first(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    query: &FlowQuery<'_>,
    before: Option<&FlowKey>,
) -> Result<PlannedDecision, DropReason> {
    match (query.from, &query.wire) {
        (Input::Host(host), Some(wire)) => {
            let first_input = Input::Host(WireInput {
                host,
                received: wire.received,
                header: wire.header,
                digest: wire.digest,
            });
            first_packet::decide_original(cx, link, initial, &first_input, before, &mut NoTrace)
        }
        _ => first_packet::decide_original(cx, link, initial, &Input::Link, before, &mut NoTrace),
    }
}

/// Inserts a new flow and applies its decision to the first packet.
fn admit(
    cx: &PacketContext<'_>,
    query: &FlowQuery<'_>,
    planned: PlannedDecision,
) -> Result<CachedVerdict, Rejection> {
    let PlannedDecision { decision, reply } = planned;
    let key = query.key;
    let flow_verdict = decision.verdict;
    write_down(cx, &decision, key);
    let cached = look_up(query, FlowDirection::Original, &key, &reply, &decision);
    let refused = flow_verdict != Verdict::Forward;
    let added = cx.state.flows.insert(
        key,
        reply,
        decision,
        refused,
        cx.tables.epoch,
        &query.seen,
        cx.now,
    );
    match (cached, added) {
        (LookupOutcome::Go(cached), Ok(())) => Ok(cached),
        // Another worker inserted it first, by the same rules.
        (LookupOutcome::Go(_), Err(InsertError::Exists)) => match find(cx, query) {
            FlowLookup::Hit(LookupHit {
                found: LookupOutcome::Go(cached),
                ..
            }) => Ok(cached),
            _ => Err(DropReason::FlowTableFull.into()),
        },
        (LookupOutcome::Go(_), Err(InsertError::Full)) => Err(DropReason::FlowTableFull.into()),
        (LookupOutcome::Go(_), Err(InsertError::Conflict)) => Err(DropReason::NatExhausted.into()),
        (_, _) => Err(stop(flow_verdict)),
    }
}

/// Logs the flow if its rule asks for it.
fn write_down(cx: &PacketContext<'_>, decision: &FlowDecision, key: FlowKey) {
    let policy = cx
        .tables
        .link(key.link)
        .and_then(|link| link.config.functions.policy.as_ref());
    let (Some(rule), Some(policy)) = (decision.rule, policy) else {
        return;
    };
    if policy.rule(rule).is_some_and(|r| r.log) {
        cx.state.log.add(LoggedFlow {
            rule,
            epoch: cx.tables.epoch,
            key,
            verdict: decision.verdict,
        });
    }
}

/// Decides the reply direction: the first reply, or one whose input or options differ from earlier ones.
fn reply_received(
    cx: &PacketContext<'_>,
    query: &FlowQuery<'_>,
    known: KnownFlow,
) -> Result<CachedVerdict, Rejection> {
    check_arrival(query, role(cx, query, &known))?;
    let wire = query.wire.map(|w| (w.received, w.digest));
    let (original, reply, mut decision) = (known.original, known.reply, known.decision);
    let direction_state = first_packet::decide_reply(
        cx,
        &original,
        &reply,
        &decision,
        query.from,
        wire,
        &mut NoTrace,
    )?;
    decision.set_direction(FlowDirection::Reply, direction_state);
    decision.heard = first_packet::seconds(cx.now);
    let decided = look_up(query, FlowDirection::Reply, &original, &reply, &decision);
    // An error may come from any router on the path and does not show where replies come from.
    if query.error {
        return match decided {
            LookupOutcome::Go(cached) => Ok(cached),
            _ => Err(DropReason::NoRoute.into()),
        };
    }
    let flows = &cx.state.flows;
    flows.renew(&original, reply, decision, false, cx.tables.epoch);
    follow(cx, query, decided, Verdict::Forward)
}

/// Decides a flow again whose decision is outdated or does not cover this packet.
fn again(
    cx: &PacketContext<'_>,
    query: &FlowQuery<'_>,
    known: &KnownFlow,
) -> Result<CachedVerdict, Rejection> {
    let flows = &cx.state.flows;
    let (side, decision) = (known.side, &known.decision);
    let (original, reply) = (known.original, known.reply);
    // Forged packets must not end the flow.
    check_arrival(query, role(cx, query, known))?;
    let before = decision.verdict;
    if before != Verdict::Forward && query.error {
        return Err(DropReason::IcmpUnrelated.into());
    }
    if before != Verdict::Forward
        && side == FlowDirection::Reply
        && (!decision.cut || opens(query.packet))
    {
        // A verdict on one direction says nothing about the other.
        flows.remove(&original);
        return begin(cx, query);
    }
    let outcome = renewed(cx, query, side, &original, &reply, decision);
    let PlannedDecision {
        decision: mut after,
        reply: mut answers,
    } = outcome.inspect_err(|reason| {
        // While its neighbour is being resolved, a flow keeps its port and backend.
        if *reason != DropReason::NeighborUnresolved {
            flows.remove(&original);
        }
    })?;
    let flow_verdict = after.verdict;
    let refused = flow_verdict != Verdict::Forward;
    if refused && (before == Verdict::Forward || decision.cut) {
        // Refuse its replies as they arrive, and keep its port from being leased to another flow.
        after.cut = true;
        after.lease.clone_from(&decision.lease);
        answers = reply;
    }
    if flow_verdict != before {
        write_down(cx, &after, original);
    }
    let decided = look_up(query, side, &original, &answers, &after);
    if query.error {
        after.forget_direction(FlowDirection::Reply);
    }
    if !flows.renew(&original, answers, after, refused, cx.tables.epoch) {
        return Err(DropReason::FlowTableFull.into());
    }
    follow(cx, query, decided, flow_verdict)
}

/// Decides a known flow by the current configuration.
fn renewed(
    cx: &PacketContext<'_>,
    query: &FlowQuery<'_>,
    side: FlowDirection,
    original: &FlowKey,
    reply: &FlowKey,
    decision: &FlowDecision,
) -> Result<PlannedDecision, DropReason> {
    let initial = FirstPacket {
        key: *original,
        icmp: decision.icmp,
    };
    let link = cx.tables.link(original.link).ok_or(DropReason::LinkGone)?;
    let mut planned = match (side, query.error) {
        (FlowDirection::Original, false) => first(cx, link, &initial, query, Some(reply))?,
        _ => from_memory(cx, link, &initial, decision, reply, &mut NoTrace)?,
    };
    if side == FlowDirection::Reply && planned.decision.verdict == Verdict::Forward {
        let wire = query.wire.map(|w| (w.received, w.digest));
        let direction_state = first_packet::decide_reply(
            cx,
            original,
            &planned.reply,
            &planned.decision,
            query.from,
            wire,
            &mut NoTrace,
        )?;
        planned
            .decision
            .set_direction(FlowDirection::Reply, direction_state);
        planned.decision.heard = first_packet::seconds(cx.now);
        if planned.reply != *reply {
            // The reply belongs to a translation that no longer exists.
            return Err(DropReason::NatUntranslatable);
        }
    }
    Ok(planned)
}

/// Decides the original direction from the stored data of the flow's first packet.
pub(super) fn from_memory<E: TraceObserver>(
    cx: &PacketContext<'_>,
    link: &Link,
    initial: &FirstPacket,
    decision: &FlowDecision,
    reply: &FlowKey,
    log: &mut E,
) -> Result<PlannedDecision, DropReason> {
    let direction_state: &DirectionState = decision.direction(FlowDirection::Original);
    let (ExpectedInput::Wire(host), Some(header)) =
        (&direction_state.expected_input, &direction_state.header)
    else {
        return first_packet::decide_original(cx, link, initial, &Input::Link, Some(reply), log);
    };
    let envelope = link.config.encapsulation.parse(header);
    let options = envelope.map_err(|_| DropReason::OptionMalformed)?.options();
    let received = ReceivedOptions::read(&cx.tables.schema, options)?;
    let first_input = Input::Host(WireInput {
        host,
        received: &received,
        header,
        digest: direction_state.digest,
    });
    first_packet::decide_original(cx, link, initial, &first_input, Some(reply), log)
}
