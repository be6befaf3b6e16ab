//! A flow of an Ethernet link: source check → service → NAT → policy → class. Where its frames go is no part of the
//! decision: that says their MAC address, which may move while the flow lives.

use super::*;
use crate::wire::option::OptionIter;

/// A flow that begins with a frame from TAP.
pub(super) fn from_tap<E: Explain>(
    cx: &Context<'_>,
    link: &Link,
    subject: &Subject,
    before: Option<&FlowKey>,
    course: &mut Course,
    log: &mut E,
) -> Result<Verdict, DropReason> {
    let key = &subject.key;
    let source = (key.src, key.sport);
    let checked = check_arrival(link, From::Tun, Role::Original, source, None);
    log.note("source", || match checked {
        Ok(()) => format!("{} may send from this host", key.src),
        Err(_) => format!("{} is an endpoint of another host", key.src),
    });
    checked?;
    let turn = course.destination(link, subject, before, log)?;
    let dst = course.dst.0;
    let kind = kind_of(link, dst, None);
    let verdict = ask(
        link,
        &Query {
            direction: Direction::Egress,
            src: key.src,
            dst,
            protocol: key.protocol,
            ports: subject.ports().map(|(src, _)| (src, course.dst.1)),
            icmp: subject.icmp,
            from: own_labels(link, key.src),
            to: configured_labels(link, dst),
            dst_type: kind,
            options: OptionIter::default(),
        },
        log,
    );
    if verdict.action != Action::Allow {
        return Ok(verdict);
    }
    let nat = link.config.functions.nat.as_ref();
    if turn == Turn::Hairpin || !nat.is_some_and(|nat| nat.covers_both(key.src, dst)) {
        course.source(link, subject, log)?;
    }
    course.classify(link, Direction::Egress, key.src, verdict.class, None, log);
    let mark = course.mark(key.src, dst, kind);
    course.exit = exit(cx, link, &mark, log)?;
    super::tun::note_exit(&course.exit, log);
    Ok(verdict)
}

/// A flow that begins with a frame from the wire.
pub(super) fn from_wire<E: Explain>(
    link: &Link,
    subject: &Subject,
    at: &Arrived<'_>,
    before: Option<&FlowKey>,
    course: &mut Course,
    log: &mut E,
) -> Result<Verdict, DropReason> {
    let key = &subject.key;
    let verdict = super::wire::admitted(link, subject, at, log)?;
    if verdict.action != Action::Allow {
        return Ok(verdict);
    }
    let class = verdict.class.or(at.received.class.map(|c| c.class));
    let precedence = at.received.class.map(|c| c.drop_precedence);
    let turn = course.destination(link, subject, before, log)?;
    if turn == Turn::Hairpin {
        course.source(link, subject, log)?;
    }
    course.classify(link, Direction::Ingress, key.dst, class, precedence, log);
    course.service = at.received.service;
    course.exit = Exit::Tun(link.config.index);
    super::tun::note_exit(&course.exit, log);
    Ok(verdict)
}

/// The way out for frames with this mark.
pub(super) fn exit<E: Explain>(
    cx: &Context<'_>,
    link: &Link,
    mark: &Mark<'_>,
    log: &mut E,
) -> Result<Exit, DropReason> {
    let (encap, slots) = encap::header(cx, link, None, mark, log)?;
    Ok(Exit::Bridge(Prefix {
        link: link.config.index,
        encap,
        slots,
    }))
}
