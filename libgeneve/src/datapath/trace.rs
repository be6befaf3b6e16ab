//! What would become of a packet, told stage by stage by the same code that packets take; nothing is changed.

use std::net::IpAddr;
use std::sync::Arc;

use super::decide::{self, Arrived, Entrance, Planned, Subject};
use super::explain::{Account, Explain, Stage};
use super::lookup::from_memory;
use super::state::{Context, Decision, Exit, Fate, From};
use crate::drop::DropReason;
use crate::flow::{FlowKey, Found, Side};
use crate::link::Link;
use crate::options::Received;
use crate::wire::header::HeaderBytes;

/// A packet that somebody describes.
#[derive(Clone, Debug)]
pub struct Described {
    /// Addresses, protocol and ports; for ICMP queries the identifier as both ports.
    pub key: FlowKey,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// Which way it goes.
    pub heading: Heading,
}

/// Which way a described packet goes.
#[derive(Clone, Debug)]
pub enum Heading {
    /// From TUN.
    Egress,
    /// From this host, with this Geneve header.
    Ingress {
        /// The host's underlay address.
        host: IpAddr,
        /// The header, options included.
        header: Box<HeaderBytes>,
    },
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The stages that it came through.
    pub stages: Vec<Stage>,
    /// Where it goes.
    pub outcome: Result<Exit, DropReason>,
    /// Whether its sender would be told that it was rejected.
    pub reject: bool,
    /// The id of its QoS class.
    pub class: Option<u8>,
}

/// Explains what would become of a packet of `link`.
#[must_use]
pub fn trace(cx: &Context<'_>, link: &Arc<Link>, described: &Described) -> Traced {
    let mut account = Account::default();
    let (mut reject, mut class) = (false, None);
    let outcome = walk(cx, link, described, &mut account, &mut reject, &mut class);
    if let Err(reason) = &outcome {
        account.note("drop", || format!("{reason}: {}", reason.explanation()));
    }
    Traced {
        stages: account.0,
        outcome,
        reject,
        class,
    }
}

fn walk(
    cx: &Context<'_>,
    link: &Arc<Link>,
    described: &Described,
    account: &mut Account,
    reject: &mut bool,
    class: &mut Option<u8>,
) -> Result<Exit, DropReason> {
    let subject = Subject {
        key: described.key,
        icmp: described.icmp,
    };
    let known = cx.state.flows.peek(&described.key);
    account.note("flow", || match &known {
        None => "no flow: this packet would begin one".to_owned(),
        Some(found) if found.epoch != cx.tables.epoch => {
            "a flow that is decided again, because the configuration changed".to_owned()
        }
        Some(found) => match found.side {
            Side::Original => {
                "a flow is there; its packets follow what is explained here".to_owned()
            }
            Side::Reply => {
                "a reply of a flow that is there, which no rule is asked about".to_owned()
            }
        },
    });
    if let Some(found) = known.as_ref().filter(|f| f.side == Side::Reply)
        && (found.decision.fate == Fate::Forward || found.decision.cut)
    {
        return answered(cx, link, described, found, account, reject, class);
    }
    let before = known.as_ref().filter(|f| f.side == Side::Original);
    let before = before.map(|f| &f.reply);
    let planned = match &described.heading {
        Heading::Egress => decide::first_half(cx, link, &subject, &Entrance::Tun, before, account)?,
        Heading::Ingress { host, header } => {
            let known = link.host(*host);
            account.note("host", || match known {
                Some(_) => format!("{host} is a host of the VPC"),
                None => format!("{host} is not a host of the VPC"),
            });
            let host = known.ok_or(DropReason::UnknownHost)?;
            let received = read(cx, link, header)?;
            let entrance = Entrance::Wire(Arrived {
                host,
                received: &received,
                header,
                digest: 0,
            });
            decide::first_half(cx, link, &subject, &entrance, before, account)?
        }
    };
    *class = planned.decision.class;
    refused(planned.decision.fate, reject)?;
    Ok(planned.decision.half(Side::Original).exit.clone())
}

fn refused(fate: Fate, reject: &mut bool) -> Result<(), DropReason> {
    match fate {
        Fate::Forward => Ok(()),
        Fate::Drop(reason) => Err(reason),
        Fate::Reject => {
            *reject = true;
            Err(DropReason::PolicyRejected)
        }
    }
}

/// A packet of the reply side of a flow.
fn answered(
    cx: &Context<'_>,
    link: &Arc<Link>,
    described: &Described,
    found: &Found<Decision>,
    account: &mut Account,
    reject: &mut bool,
    class: &mut Option<u8>,
) -> Result<Exit, DropReason> {
    let received = match &described.heading {
        Heading::Egress => None,
        Heading::Ingress { header, .. } => Some(read(cx, link, header)?),
    };
    let from = match &described.heading {
        Heading::Egress => From::Tun,
        Heading::Ingress { host, .. } => {
            From::Wire(link.host(*host).ok_or(DropReason::UnknownHost)?)
        }
    };
    let source = (described.key.src, described.key.sport);
    let keys = (&found.original, &found.reply);
    let direct = decide::may_answer_directly(keys, &found.decision, from, cx.now);
    let role = decide::Role::Reply { direct };
    decide::check_arrival(link, from, role, source, received.as_ref())?;
    let planned = if found.epoch == cx.tables.epoch {
        Planned {
            decision: found.decision.clone(),
            reply: found.reply,
        }
    } else {
        let subject = Subject {
            key: found.original,
            icmp: found.decision.icmp,
        };
        let link = cx.tables.link(found.original.link);
        let link = link.ok_or(DropReason::LinkGone)?;
        from_memory(cx, link, &subject, &found.decision, &found.reply, account)?
    };
    let Planned { decision, reply } = planned;
    refused(decision.fate, reject)?;
    if reply != found.reply {
        return Err(DropReason::NatUntranslatable);
    }
    *class = decision.class;
    let wire = received.as_ref().map(|received| (received, 0));
    let decided = decide::second_half(cx, &found.original, &reply, &decision, from, wire, account)?;
    Ok(decided.half.exit.clone())
}

fn read(cx: &Context<'_>, link: &Link, header: &HeaderBytes) -> Result<Received, DropReason> {
    let envelope = link.config.encapsulation.parse(header);
    let envelope = envelope.map_err(|e| super::envelope_reason(&e))?;
    Received::read(&cx.tables.schema, envelope.options())
}
