//! A flow that begins with a packet from TUN: source check → service → NAT → route → egress policy → class.

use super::arrival::check_departure;
use super::course::{Course, Turn};
use super::rules::ask_egress;
use super::wire::stand_in;
use super::{Subject, hash_of, host_of, kind_of, route, wire_exit, wraps_again};
use crate::datapath::explain::Explain;
use crate::datapath::state::{Context, Exit};
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::link::Link;
use crate::options::EndpointType;
use crate::policy::{Action, Direction, Verdict};

pub(super) fn walk<E: Explain>(
    cx: &Context<'_>,
    link: &Link,
    subject: &Subject,
    before: Option<&FlowKey>,
    course: &mut Course,
    log: &mut E,
) -> Result<Verdict, DropReason> {
    let key = &subject.key;
    check_departure(link, key, log)?;
    let turn = course.destination(link, subject, before, log)?;
    let dst = course.dst.0;
    let entry = route(link, dst, log)?;
    let kind = kind_of(link, dst, Some(entry));
    let verdict = ask_egress(link, subject, course, kind, log);
    if verdict.action != Action::Allow {
        return Ok(verdict);
    }
    if let (EndpointType::Proxied, Some(target)) = (kind, link.config.functions.target(dst)) {
        stand_in(cx, link, subject, target, verdict.class, course, log)?;
        return Ok(verdict);
    }
    let hash = hash_of(cx, key);
    let here = entry.local
        && link
            .config
            .functions
            .endpoints
            .get(&dst)
            .is_some_and(|e| e.colocated);
    let host = if here {
        None
    } else {
        host_of(entry, key, hash)
    };
    // Of the hosts of a scaled endpoint, this one may be chosen.
    let here = here || entry.local && entry.spread.is_some();
    if host.is_none() && turn == Turn::None && !here {
        // What the kernel gave to the interface would come back to it, unless its destination is another now.
        log.note("exit", || {
            format!("{dst} is behind this host; the kernel must not route it into the link")
        });
        return Err(DropReason::NoRoute);
    }
    if host.is_some_and(|host| wraps_again(link, host, key)) {
        return Err(DropReason::UnderlayLoop);
    }
    course.leave(cx, link, subject, turn, log)?;
    if host.is_none() && turn != Turn::None && course.src.0 == key.src {
        course.masquerade(cx, subject, before, key.dst, log)?;
    }
    course.classify(link, Direction::Egress, key.src, verdict.class, None, log);
    course.exit = match host {
        Some(host) => {
            let mark = course.mark(key.src, dst, kind);
            wire_exit(cx, link, host, &mark, log)?
        }
        None => Exit::Tun(link.config.index),
    };
    note_exit(&course.exit, log);
    Ok(verdict)
}

pub(super) fn note_exit<E: Explain>(exit: &Exit, log: &mut E) {
    log.note("exit", || match exit {
        Exit::Undecided => "nowhere".to_owned(),
        Exit::Tun(_) => "into the interface".to_owned(),
        Exit::Bridge(_) => "to where the MAC address of its frame is".to_owned(),
        Exit::Wire(way) => format!("to host {}", way.host.addr),
    });
}
