//! A packet finds its flow, or begins one.

use std::sync::Arc;

use super::change::Change;
use super::decide::{self, Arrived, Planned, Role, Subject};
use super::explain::{Explain, Silent};
use super::log::Logged;
use super::state::{Came, Context, Decision, Fate, Half, Input, Passage};
use crate::drop::DropReason;
use crate::flow::{FlowKey, InsertError, Lookup, Seen, Side};
use crate::link::{Host, Link, Tables};
use crate::options::Received;
use crate::policy::Direction;
use crate::route::Target;
use crate::wire::header::HeaderBytes;
use crate::wire::packet::{Fragment, Packet, Transport};
use crate::wire::transport::TcpFlags;

/// One packet that looks for its flow.
#[derive(Clone, Copy)]
pub(super) struct Seeker<'a> {
    pub(super) link: &'a Arc<Link>,
    pub(super) packet: &'a Packet,
    pub(super) key: FlowKey,
    /// The packet is an ICMP error, and `key` is what the packet that it quotes says.
    pub(super) error: bool,
    pub(super) from: Input<&'a Arc<Host>>,
    /// The options and the header of a packet from the wire.
    pub(super) wire: Option<Wire<'a>>,
    pub(super) seen: Seen,
}

/// What a packet from the wire brings.
#[derive(Clone, Copy)]
pub(super) struct Wire<'a> {
    pub(super) received: &'a Received,
    pub(super) header: &'a HeaderBytes,
    pub(super) digest: u64,
}

/// A packet that is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) reason: DropReason,
    /// Its sender is to be told, as a rule asks.
    pub(super) reject: bool,
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Stop {
        Stop {
            reason,
            reject: false,
        }
    }
}

/// The key by which a packet looks for its flow, and whether it is an ICMP error that belongs to another's flow.
/// `received` are the options of one from the wire.
#[inline]
pub(super) fn key_of(
    cx: &Context<'_>,
    link: &Link,
    packet: &Packet,
    bytes: &[u8],
    received: Option<&Received>,
) -> Result<(FlowKey, bool), DropReason> {
    let index = link.config.index;
    if packet.fragment != Fragment::Whole {
        return of_fragment(cx, link, packet, received).map(|key| (key, false));
    }
    if packet.is_icmp_error()
        && let Some(quote) = packet.quote(bytes)
    {
        // It is for whoever sent what it quotes (RFC 792, RFC 4443 section 2.2). A kernel believes it whoever it is for: one that
        // quotes the host's own datagrams would have it send shorter packets to other hosts.
        if quote.src != packet.dst {
            return Err(DropReason::IcmpUnrelated);
        }
        let key = FlowKey::of_quote(index, &quote).reversed();
        if cx.state.flows.contains(&key) {
            return Ok((key, true));
        }
        // Where there are rules, an error about nothing is not let through as a flow of its own.
        if link.config.functions.policy.is_some() || link.config.functions.nat.is_some() {
            return Err(DropReason::IcmpUnrelated);
        }
    }
    Ok((FlowKey::of(index, packet), false))
}

/// A later fragment belongs to the flow of its first one. Where that was not seen yet it is a flow of its own, without
/// ports, unless those matter.
fn of_fragment(
    cx: &Context<'_>,
    link: &Link,
    packet: &Packet,
    received: Option<&Received>,
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

/// Whether a packet with ports may be judged, translated or sent otherwise than one without.
fn ports_matter(link: &Link, packet: &Packet, received: Option<&Received>) -> bool {
    let functions = &link.config.functions;
    let direction = match received {
        None => Direction::Egress,
        Some(_) => Direction::Ingress,
    };
    // Of several hosts the flow's hash chooses one.
    let spread = || {
        let entry = link.routes.lookup(packet.dst);
        entry.is_some_and(|entry| match &entry.target {
            Target::Hosts(hosts) => hosts.len() > 1 || entry.spread.is_some(),
            Target::Local => false,
        })
    };
    functions.needs_ports(direction)
        || functions.target(packet.dst).is_some()
        || match received {
            Some(received) => received.service.is_some(),
            None => link.bridge.is_none() && spread(),
        }
}

/// A flow as the table has it.
type Known = crate::flow::Found<Decision>;

enum Found {
    Go(Passage),
    Refused(Fate),
    /// The decision does not say what becomes of this packet of this side.
    Open(Side),
}

/// What the table found.
struct Hit {
    found: Found,
    /// The packet may be a direct answer to its flow.
    direct: bool,
    /// The flow, where it is to be decided about.
    open: Option<Known>,
}

/// What becomes of the packet, by its flow; a flow that is not known is decided.
pub(super) fn pass(cx: &Context<'_>, seeker: &Seeker<'_>) -> Result<Passage, Stop> {
    let known = match find(cx, seeker) {
        Lookup::Hit(hit) => match hit.found {
            Found::Go(passage) if seeker.error => {
                let direct = hit.direct;
                check_arrival(seeker, Role::Original)
                    .or_else(|_| check_arrival(seeker, Role::Reply { direct }))?;
                return Ok(passage);
            }
            Found::Go(passage) => return Ok(passage),
            Found::Refused(fate) => return Err(stop(fate)),
            Found::Open(side) => {
                let role = match side {
                    Side::Original => Role::Original,
                    Side::Reply => Role::Reply { direct: hit.direct },
                };
                check_arrival(seeker, role)?;
                hit.open
            }
        },
        Lookup::Stale(known) => Some(known),
        Lookup::Miss => None,
    };
    let current = known.as_ref().filter(|f| f.epoch == cx.tables.epoch);
    let answers =
        current.is_some_and(|f| f.side == Side::Reply && f.decision.fate == Fate::Forward);
    match known {
        Some(known) if answers => answered(cx, seeker, known),
        // An error tells of packets that were forwarded.
        _ if seeker.error && current.is_some() => Err(DropReason::IcmpUnrelated.into()),
        None if seeker.error => Err(DropReason::IcmpUnrelated.into()),
        Some(known) => again(cx, seeker, &known),
        None => begin(cx, seeker),
    }
}

/// As what the packet comes to a flow that is known.
fn role(cx: &Context<'_>, seeker: &Seeker<'_>, known: &Known) -> Role {
    let keys = (&known.original, &known.reply);
    match known.side {
        Side::Original => Role::Original,
        Side::Reply => Role::Reply {
            direct: decide::may_answer_directly(keys, &known.decision, seeker.from, cx.now),
        },
    }
}

/// Whether the packet came from where its source is.
fn check_arrival(seeker: &Seeker<'_>, role: Role) -> Result<(), DropReason> {
    let Seeker {
        link, key, from, ..
    } = seeker;
    let source = (seeker.packet.src, key.sport);
    let received = seeker.wire.map(|w| w.received);
    decide::check_arrival(link, *from, role, source, received)
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

/// Whether what was decided for a flow in this epoch would be decided by these tables, too: nothing has changed since that
/// it rests on.
pub(super) fn holds(
    tables: &Tables,
    (original, reply): (&FlowKey, &FlowKey),
    decision: &Decision,
    epoch: u64,
) -> bool {
    if decision.fate != Fate::Forward {
        // Where it would have gone to, and whose labels the rules saw, is not kept.
        let any = |_| true;
        return tables.is_current(original.link, epoch, any)
            && tables.is_current(reply.link, epoch, any);
    }
    let service = decision.half(Side::Original).service.map(|s| s.addr);
    let uses = |addr| {
        let own = [original.src, original.dst, reply.src, reply.dst];
        own.contains(&addr) || service == Some(addr)
    };
    [original.link, reply.link]
        .into_iter()
        .all(|link| tables.is_current(link, epoch, uses))
}

#[inline]
fn find(cx: &Context<'_>, seeker: &Seeker<'_>) -> Lookup<Hit, Decision> {
    let flows = &cx.state.flows;
    flows.hit_where(
        &seeker.key,
        &seeker.seen,
        cx.now,
        (cx.tables.epoch, |original, reply, decision, epoch| {
            holds(cx.tables, (original, reply), decision, epoch)
        }),
        |side, original, reply, decision| {
            let speaks = seeker.wire.is_some_and(|w| w.received.service.is_some());
            let reopened = side == Side::Original && matches!(seeker.from, Input::Link);
            if reopened && decision.half(Side::Reply).digest != 0 && opens(seeker.packet) {
                // A new connection by the old numbers: another backend may answer it.
                decision.forget_half(Side::Reply);
            }
            let direct = side == Side::Reply
                && speaks
                && decide::may_answer_directly((original, reply), decision, seeker.from, cx.now);
            let found = look(seeker, side, original, reply, decision);
            if direct && !seeker.error && matches!(found, Found::Go(_)) {
                decision.heard = decide::seconds(cx.now);
            }
            let counts = match found {
                Found::Go(_) => true,
                // Who was cut off by no fault of its own is not held for as long as it tries.
                Found::Refused(_) => side == Side::Original,
                Found::Open(_) => false,
            };
            let open = matches!(found, Found::Open(_)).then(|| Known {
                side,
                original: *original,
                reply: *reply,
                epoch: cx.tables.epoch,
                decision: decision.clone(),
            });
            let hit = Hit {
                found,
                direct,
                open,
            };
            (counts, hit)
        },
    )
}

/// What becomes of the packet by the decision that is in the table, where the packet is counted; `decided` is what it
/// was when it was put there.
fn follow(
    cx: &Context<'_>,
    seeker: &Seeker<'_>,
    decided: Found,
    fate: Fate,
) -> Result<Passage, Stop> {
    let found = match find(cx, seeker) {
        Lookup::Hit(Hit {
            found: found @ (Found::Go(_) | Found::Refused(_)),
            ..
        }) => found,
        // What it held is given up: the time of its state was over, or another worker ended it.
        Lookup::Miss if !seeker.error => return begin(cx, seeker),
        // Another worker has other tables for the moment.
        _ => match decided {
            Found::Go(passage) => Found::Go(Passage {
                lasts: false,
                ..passage
            }),
            other => other,
        },
    };
    match found {
        Found::Go(passage) => Ok(passage),
        Found::Refused(fate) => Err(stop(fate)),
        Found::Open(..) => Err(stop(fate)),
    }
}

#[inline]
fn look(
    seeker: &Seeker<'_>,
    side: Side,
    original: &FlowKey,
    reply: &FlowKey,
    decision: &Decision,
) -> Found {
    let half = decision.half(side);
    let digest = seeker.wire.map_or(0, |w| w.digest);
    let known = seeker.from.is(&half.came) && (half.digest == digest || seeker.error);
    if decision.fate != Fate::Forward {
        let refused = match side {
            Side::Original => known,
            Side::Reply => decision.cut && !opens(seeker.packet),
        };
        if refused {
            return Found::Refused(decision.fate);
        }
    }
    let Some(decided) = &decision.halves[side as usize] else {
        return Found::Open(side);
    };
    if decision.fate != Fate::Forward || !known && !seeker.error {
        return Found::Open(side);
    }
    let error = seeker.error.then_some(seeker.packet.src);
    Found::Go(Passage {
        half: Arc::clone(decided),
        hash: decision.hashes[side as usize],
        change: Change::of(side, original, reply, decision, error),
        lasts: true,
    })
}

fn stop(fate: Fate) -> Stop {
    let reject = fate == Fate::Reject;
    let reason = match fate {
        Fate::Drop(reason) => reason,
        Fate::Reject => DropReason::PolicyRejected,
        Fate::Forward => DropReason::NoRoute,
    };
    Stop { reason, reject }
}

/// A flow that begins.
fn begin(cx: &Context<'_>, seeker: &Seeker<'_>) -> Result<Passage, Stop> {
    let subject = Subject::of(seeker.key, seeker.packet);
    let planned = first(cx, seeker.link, &subject, seeker, None)?;
    admit(cx, seeker, planned)
}

fn first(
    cx: &Context<'_>,
    link: &Link,
    subject: &Subject,
    seeker: &Seeker<'_>,
    before: Option<&FlowKey>,
) -> Result<Planned, DropReason> {
    match (seeker.from, &seeker.wire) {
        (Input::Host(host), Some(wire)) => {
            let entrance = Input::Host(Arrived {
                host,
                received: wire.received,
                header: wire.header,
                digest: wire.digest,
            });
            decide::first_half(cx, link, subject, &entrance, before, &mut Silent)
        }
        _ => decide::first_half(cx, link, subject, &Input::Link, before, &mut Silent),
    }
}

/// Puts a new flow into the table; the first packet goes as it says.
fn admit(cx: &Context<'_>, seeker: &Seeker<'_>, planned: Planned) -> Result<Passage, Stop> {
    let Planned { decision, reply } = planned;
    let key = seeker.key;
    let fate = decision.fate;
    write_down(cx, &decision, key);
    let passage = look(seeker, Side::Original, &key, &reply, &decision);
    let refused = fate != Fate::Forward;
    let added = cx.state.flows.insert(
        key,
        reply,
        decision,
        refused,
        cx.tables.epoch,
        &seeker.seen,
        cx.now,
    );
    match (passage, added) {
        (Found::Go(passage), Ok(())) => Ok(passage),
        // Another worker was faster; what it decided came from the same rules.
        (Found::Go(_), Err(InsertError::Exists)) => match find(cx, seeker) {
            Lookup::Hit(Hit {
                found: Found::Go(passage),
                ..
            }) => Ok(passage),
            _ => Err(DropReason::FlowTableFull.into()),
        },
        (Found::Go(_), Err(InsertError::Full)) => Err(DropReason::FlowTableFull.into()),
        (Found::Go(_), Err(InsertError::Conflict)) => Err(DropReason::NatExhausted.into()),
        (_, _) => Err(stop(fate)),
    }
}

/// A rule may want to be heard of.
fn write_down(cx: &Context<'_>, decision: &Decision, key: FlowKey) {
    let policy = cx
        .tables
        .link(key.link)
        .and_then(|link| link.config.functions.policy.as_ref());
    let (Some(rule), Some(policy)) = (decision.rule, policy) else {
        return;
    };
    if policy.rule(rule).is_some_and(|r| r.log) {
        cx.state.log.add(Logged {
            rule,
            epoch: cx.tables.epoch,
            key,
            fate: decision.fate,
        });
    }
}

/// The first reply of a flow, or one that came another way than those before.
fn answered(cx: &Context<'_>, seeker: &Seeker<'_>, known: Known) -> Result<Passage, Stop> {
    check_arrival(seeker, role(cx, seeker, &known))?;
    let wire = seeker.wire.map(|w| (w.received, w.digest));
    let (original, reply, mut decision) = (known.original, known.reply, known.decision);
    let half = decide::second_half(
        cx,
        &original,
        &reply,
        &decision,
        seeker.from,
        wire,
        &mut Silent,
    )?;
    decision.set_half(Side::Reply, half);
    decision.heard = decide::seconds(cx.now);
    let decided = look(seeker, Side::Reply, &original, &reply, &decision);
    // An error may come from anybody on the way, and says nothing of where replies come from.
    if seeker.error {
        return match decided {
            Found::Go(passage) => Ok(passage),
            _ => Err(DropReason::NoRoute.into()),
        };
    }
    let flows = &cx.state.flows;
    flows.renew(&original, reply, decision, false, cx.tables.epoch);
    follow(cx, seeker, decided, Fate::Forward)
}

/// A flow whose decision is of an older configuration, or does not cover this packet.
fn again(cx: &Context<'_>, seeker: &Seeker<'_>, known: &Known) -> Result<Passage, Stop> {
    let flows = &cx.state.flows;
    let (side, decision) = (known.side, &known.decision);
    let (original, reply) = (known.original, known.reply);
    // Who forges packets of a flow does not end it.
    check_arrival(seeker, role(cx, seeker, known))?;
    let before = decision.fate;
    if before != Fate::Forward && seeker.error {
        return Err(DropReason::IcmpUnrelated.into());
    }
    if before != Fate::Forward && side == Side::Reply && (!decision.cut || opens(seeker.packet)) {
        // What was refused in one direction says nothing of the other.
        flows.remove(&original);
        return begin(cx, seeker);
    }
    let outcome = renewed(cx, seeker, side, &original, &reply, decision);
    let Planned {
        decision: mut after,
        reply: mut answers,
    } = outcome.inspect_err(|reason| {
        // Whose MAC address is being asked for loses neither its port nor its backend by that.
        if *reason != DropReason::NeighborUnresolved {
            flows.remove(&original);
        }
    })?;
    let fate = after.fate;
    let refused = fate != Fate::Forward;
    if refused && (before == Fate::Forward || decision.cut) {
        // Its replies are refused with it, as they arrive; nobody else gets their port meanwhile.
        after.cut = true;
        after.lease.clone_from(&decision.lease);
        answers = reply;
    }
    if fate != before {
        write_down(cx, &after, original);
    }
    let decided = look(seeker, side, &original, &answers, &after);
    if seeker.error {
        after.forget_half(Side::Reply);
    }
    if !flows.renew(&original, answers, after, refused, cx.tables.epoch) {
        return Err(DropReason::FlowTableFull.into());
    }
    follow(cx, seeker, decided, fate)
}

/// The decision as it is by the configuration in force.
fn renewed(
    cx: &Context<'_>,
    seeker: &Seeker<'_>,
    side: Side,
    original: &FlowKey,
    reply: &FlowKey,
    decision: &Decision,
) -> Result<Planned, DropReason> {
    let subject = Subject {
        key: *original,
        icmp: decision.icmp,
    };
    let link = cx.tables.link(original.link).ok_or(DropReason::LinkGone)?;
    let mut planned = match (side, seeker.error) {
        (Side::Original, false) => first(cx, link, &subject, seeker, Some(reply))?,
        _ => from_memory(cx, link, &subject, decision, reply, &mut Silent)?,
    };
    if side == Side::Reply && planned.decision.fate == Fate::Forward {
        let wire = seeker.wire.map(|w| (w.received, w.digest));
        let half = decide::second_half(
            cx,
            original,
            &planned.reply,
            &planned.decision,
            seeker.from,
            wire,
            &mut Silent,
        )?;
        planned.decision.set_half(Side::Reply, half);
        planned.decision.heard = decide::seconds(cx.now);
        if planned.reply != *reply {
            // The reply is one to a translation that is not made any more.
            return Err(DropReason::NatUntranslatable);
        }
    }
    Ok(planned)
}

/// Decides the original half by what is known of the packet that began the flow.
pub(super) fn from_memory<E: Explain>(
    cx: &Context<'_>,
    link: &Link,
    subject: &Subject,
    decision: &Decision,
    reply: &FlowKey,
    log: &mut E,
) -> Result<Planned, DropReason> {
    let half: &Half = decision.half(Side::Original);
    let (Came::Wire(host), Some(header)) = (&half.came, &half.header) else {
        return decide::first_half(cx, link, subject, &Input::Link, Some(reply), log);
    };
    let envelope = link.config.encapsulation.parse(header);
    let options = envelope.map_err(|_| DropReason::OptionMalformed)?.options();
    let received = Received::read(&cx.tables.schema, options)?;
    let entrance = Input::Host(Arrived {
        host,
        received: &received,
        header,
        digest: half.digest,
    });
    decide::first_half(cx, link, subject, &entrance, Some(reply), log)
}
