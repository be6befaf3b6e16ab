//! Delivery check: a link delivers into its interface only what is behind it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::datapath::decision::Input;
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::FlowKey;
use crate::time::Now;
use crate::vpc::{Host, Link};

/// Checks the first packet of a flow whose destination was not redirected; `leaves` means that it leaves the VPC
/// through this host.
///
/// # Errors
/// [`DropReason::DestinationNotHere`].
pub(super) fn check_delivery<E: TraceObserver>(
    link: &Link,
    key: &FlowKey,
    leaves: bool,
    now: Now,
    log: &mut E,
) -> Result<(), DropReason> {
    // A gateway delivers to any destination for the sources that its NAT rules translate.
    let nat = link.config.functions.nat.as_ref();
    if leaves && nat.is_some_and(|nat| nat.source(key.src).is_some()) {
        log.record("delivery", || {
            format!(
                "{} is outside of the VPC, and this host a gateway to it",
                key.dst
            )
        });
        return Ok(());
    }
    check::<E>(link, key.dst, now, log)
}

/// Checks the reply to a flow that began behind the interface, or whose client turned out to be there.
///
/// # Errors
/// [`DropReason::DestinationNotHere`].
pub(super) fn check_answer<E: TraceObserver>(
    link: &Link,
    original: &FlowKey,
    reply: &FlowKey,
    from: Input<&Arc<Host>>,
    now: Now,
    log: &mut E,
) -> Result<(), DropReason> {
    // A translated client is outside the VPC; and what comes out of the interface may go back into it.
    let translated = link.config.functions.nat.is_some() && *reply != original.reversed();
    let turned_back = matches!(from, Input::Link) && reply.link == original.link;
    // Mode ethernet delivers by MAC address.
    if link.bridge.is_some() || translated || turned_back {
        return Ok(());
    }
    check::<E>(link, original.src, now, log)
}

fn check<E: TraceObserver>(
    link: &Link,
    addr: IpAddr,
    now: Now,
    log: &mut E,
) -> Result<(), DropReason> {
    let delivered = link.delivers(addr);
    log.record("delivery", || match delivered {
        Some(what) => format!("{addr} is {what}"),
        None => format!(
            "{addr} is not behind the link: no address of it, no endpoint of this host, in no allowed prefix"
        ),
    });
    if delivered.is_some() {
        return Ok(());
    }
    if !E::DRY {
        link.config.undelivered.note(addr, now);
    }
    Err(DropReason::DestinationNotHere)
}
