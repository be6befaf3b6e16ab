//! Recovery of refused trains: finds the cause, learns from it, and loses no packet that could be sent.
//!
//! Off the packet path: it runs once per refusal. A pending ICMP error makes one send fail and says nothing about
//! that send; a device may refuse segmentation, or have a smaller MTU than assumed. The content of errors is read by
//! [`errors`](super::errors).

use std::io;
use std::os::fd::RawFd;
use std::sync::PoisonError;
use std::time::Duration;

use libgeneve::datapath::{self, SenderReply};
use libgeneve::drop::DropReason;
use libgeneve::policy;
use libgeneve::time::Now;
use libgeneve::vpc::Tables;
use libgeneve::wire::packet::Packet;
use tokio::sync::mpsc::UnboundedSender;

use super::backend::{Checksum, PacketIo};
use super::counters::TrafficDirection;
use super::engine::{EngineEvent, SendErrors};
use super::reply;
use super::train::{SendMode, Train};
use super::worker::{Worker, counters_of};

/// Minimum interval between two reports of unreachable hosts.
const UNREACHABLE_PAUSE: Duration = Duration::from_secs(1);
/// Attempts for a send that may fail only because of a pending ICMP error. Each failure clears one error, and the
/// next one may be pending already while the main thread reads a socket's errors or somebody sends thousands of them.
const SEND_TRIES: usize = 6;

impl<B: PacketIo> Worker<B> {
    /// Handles the completion of a train.
    pub(super) fn on_sent(&mut self, tables: &Tables, id: u32, result: i32) {
        let Worker {
            io,
            trains,
            refusals,
            now,
            ..
        } = self;
        let train = trains.train(id);
        let outcome = match usize::try_from(result) {
            Err(_) => {
                let outcome = Resend { io, train }.refused(result.saturating_neg());
                refusals.announce(train, &outcome, *now);
                outcome
            }
            Ok(bytes) if bytes == train.bytes => SendOutcome::sent(train),
            // It is unknown which of its datagrams were sent, so sending again might duplicate some.
            Ok(_) => SendOutcome::lost(train, libc::EIO),
        };
        self.complete_train(tables, id, &outcome);
    }

    /// Sends a train datagram by datagram, because its host or socket takes no trains.
    pub(super) fn send_apart(&mut self, tables: &Tables, id: u32) {
        let Worker {
            io,
            trains,
            refusals,
            now,
            ..
        } = self;
        let train = trains.train(id);
        let outcome = Resend { io, train }.each(0);
        refusals.announce(train, &outcome, *now);
        self.complete_train(tables, id, &outcome);
    }

    /// Counts the outcome of a train and releases its buffers.
    fn complete_train(&mut self, tables: &Tables, id: u32, outcome: &SendOutcome) {
        if self.taps.outer || outcome.lost > 0 {
            self.tell_taps_of_train(id, outcome);
        }
        let train = self.trains.train(id);
        if let Some((host, port, len)) = train.longest() {
            self.shared.state.sent.note(host, port, len, self.now);
        }
        let (link, options) = (train.key.link, train.key.options);
        let counters = counters_of(&self.links, link, &self.unmatched);
        counters.forwarded(TrafficDirection::Egress, outcome.packets, outcome.bytes);
        counters.options(TrafficDirection::Egress, options, outcome.packets);
        if outcome.lost > 0 {
            let mut reason = reason(outcome.error);
            if reason == DropReason::TooBig && !self.tell_sender(tables, id) {
                reason = reason.unanswered();
            }
            self.count_drop(TrafficDirection::Egress, Some(link), reason, outcome.lost);
        }
        let mut buffer_ids = std::mem::take(&mut self.trains.train(id).buffer_ids);
        for (side, buffer_id) in buffer_ids.drain(..) {
            self.release(side, buffer_id);
        }
        self.trains.train(id).buffer_ids = buffer_ids;
        self.trains.finish(id);
    }

    /// Shows taps the datagrams of a train. If only some of them were lost, it is unknown which, and all are shown as
    /// lost.
    fn tell_taps_of_train(&mut self, id: u32, outcome: &SendOutcome) {
        let link = self.trains.train(id).key.link;
        let reason = (outcome.lost > 0).then(|| reason(outcome.error));
        let packet_outcome = self.outcome(TrafficDirection::Egress, Some(link), reason, 1);
        if reason.is_some() && !self.taps.want_drop(&packet_outcome) {
            return;
        }
        let (encapsulation, _) = self.link_protocols(Some(link));
        let here = self.links.get(link.0 as usize).and_then(Option::as_ref);
        let local = here.and_then(|l| l.pool.profile.local);
        let train = self.trains.train(id);
        let envelope = train.envelope(local);
        for pieces in train.datagrams() {
            self.taps.stage(pieces);
            self.taps
                .offer_outer(&packet_outcome, encapsulation, envelope.as_ref(), 0);
        }
    }

    /// Sends Packet Too Big for the first packet of a refused train, if that is allowed; false if it could not be
    /// sent, or the link's budget is spent.
    fn tell_sender(&mut self, tables: &Tables, id: u32) -> bool {
        let train = self.trains.train(id);
        let Some(Some(here)) = self.links.get(train.key.link.0 as usize) else {
            return false;
        };
        let Some(link) = tables.link(here.index) else {
            return false;
        };
        let Some(host) = &train.host else {
            return false;
        };
        // The sender would not recognise its translated packet; its next one is rejected before translation.
        let functions = &link.config.functions;
        if functions.nat.is_some() || functions.services.is_some() {
            return false;
        }
        let Some(path_mtu) = host.longest(true) else {
            return false;
        };
        let before = usize::from(train.key.before);
        let mtu = datapath::inner_limit(host.addr, path_mtu, before.max(link.encap_len()));
        let answer = SenderReply::TooBig(mtu);
        if !here
            .answers
            .take(policy::Direction::Egress, answer, self.now)
        {
            return false;
        }
        let datagram = train.first();
        if let Some(bridge) = &link.bridge {
            let Ok(envelope) = link.config.encapsulation.parse(&datagram) else {
                return false;
            };
            let frame = &datagram[envelope.header_len..];
            return reply::into_tun(&mut self.writes, &mut self.io, here, |out| {
                datapath::answer_frame(&link.config, answer, bridge, frame, out)
            });
        }
        let inner = &datagram[before.min(datagram.len())..];
        let Ok(packet) = Packet::parse(inner) else {
            return false;
        };
        reply::into_tun(&mut self.writes, &mut self.io, here, |out| {
            datapath::answer(&link.config, answer, &packet, inner, out)
        })
    }
}

/// Sends a refused train again, whole or datagram by datagram.
struct Resend<'a, B> {
    io: &'a mut B,
    train: &'a mut Train,
}

impl<B: PacketIo> Resend<'_, B> {
    /// Retries a send that was refused with `error`: unchanged if a pending ICMP error may have been the cause, then
    /// datagram by datagram.
    fn refused(&mut self, error: i32) -> SendOutcome {
        if matches!(error, libc::EAGAIN | libc::ENOBUFS) {
            return SendOutcome::lost(self.train, error);
        }
        let (socket, message) = (self.train.key.socket, self.train.message());
        let usual = Checksum::Offloaded;
        // SAFETY: the message points into the train and its buffers, which are held until `on_sent` ends; its pool
        // keeps the socket open.
        let again =
            unsafe { send_past_errors(self.io, usual, socket, message, error, SEND_TRIES - 1) };
        match again {
            Ok(()) => return SendOutcome::sent(self.train),
            Err(error) if self.train.segments == 1 => return SendOutcome::lost(self.train, error),
            Err(_) => {}
        }
        let mut outcome = self.each(error);
        // Without DF, datagrams that are too long for the path pass one by one, in fragments. That says nothing about
        // segmentation, and the sender of one long packet must not disable it for all others.
        let df = self.train.key.outer.df;
        let refused = error == libc::EIO || df && matches!(error, libc::EINVAL | libc::EMSGSIZE);
        if outcome.lost == 0
            && refused
            && let Some(host) = &self.train.host
        {
            host.set_gso(false);
            outcome.gso_off = Some(error);
        }
        outcome
    }

    /// Sends every datagram of the train by itself; `error` is the error that the whole train was refused with.
    fn each(&mut self, error: i32) -> SendOutcome {
        let Resend { io, train } = self;
        let socket = train.key.socket;
        let encap = train.encap_bytes / train.segments.max(1);
        // The train's own pool: its link may send from other sockets by now, or be gone.
        let pool = train.pool.clone();
        let pool = pool.filter(|_| train.sending == SendMode::Whole);
        // Keeps other workers' datagrams out of one that is being corked.
        let _cork = pool
            .as_ref()
            .map(|pool| pool.cork.lock().unwrap_or_else(PoisonError::into_inner));
        let checksum = match pool {
            Some(_) => Checksum::Finished,
            None => Checksum::Offloaded,
        };
        let mut outcome = SendOutcome {
            error,
            ..SendOutcome::default()
        };
        train.singly(|message, len| {
            // All are for the same host: after one has failed for good, the others are not retried as often.
            let tries = if outcome.lost == 0 { SEND_TRIES } else { 1 };
            // SAFETY: the message points into the train and its buffers, which are held until `complete_train`; its pool keeps the
            // socket open.
            let sent = unsafe { send_past_errors(*io, checksum, socket, message, 0, tries) };
            match sent {
                Ok(()) => {
                    outcome.packets += 1;
                    outcome.bytes += (len - encap) as u64;
                }
                Err(error) => {
                    outcome.error = error;
                    outcome.lost += 1;
                }
            }
        });
        outcome
    }
}

/// Reports refused sends to the daemon, by host.
pub(super) struct RefusalReporter {
    events: UnboundedSender<EngineEvent>,
    /// Earliest time of the next report: anybody can send ICMP errors, so reports are rate-limited.
    next: Now,
}

impl RefusalReporter {
    pub(super) fn new(events: UnboundedSender<EngineEvent>) -> Self {
        RefusalReporter {
            events,
            next: Now::default(),
        }
    }

    fn announce(&mut self, train: &Train, outcome: &SendOutcome, now: Now) {
        let Some(host) = train.host.as_ref().map(|host| host.addr) else {
            return;
        };
        let unreachable =
            outcome.lost > 0 && reason(outcome.error) == DropReason::UnderlayUnreachable;
        if unreachable && now >= self.next {
            self.next = now + UNREACHABLE_PAUSE;
            let refusals = SendErrors {
                host,
                error: io::Error::from_raw_os_error(outcome.error),
                count: u32::try_from(outcome.lost).unwrap_or(u32::MAX),
                // The others may stem from ICMP errors that arrived just now.
                certain: matches!(
                    outcome.error,
                    libc::EPERM | libc::ENETDOWN | libc::EADDRNOTAVAIL
                ),
            };
            let _ = self.events.send(EngineEvent::Unreachable(refusals));
        }
        if let Some(error) = outcome.gso_off {
            let error = io::Error::from_raw_os_error(error);
            let _ = self.events.send(EngineEvent::GsoOff { host, error });
        }
    }
}

#[derive(Debug, Default)]
struct SendOutcome {
    packets: u64,
    bytes: u64,
    lost: u64,
    error: i32,
    gso_off: Option<i32>,
}

impl SendOutcome {
    fn sent(train: &Train) -> Self {
        SendOutcome {
            packets: train.segments as u64,
            bytes: (train.bytes - train.encap_bytes) as u64,
            ..SendOutcome::default()
        }
    }

    fn lost(train: &Train, error: i32) -> Self {
        SendOutcome {
            lost: train.segments as u64,
            error,
            ..SendOutcome::default()
        }
    }
}

fn reason(error: i32) -> DropReason {
    match error {
        libc::EMSGSIZE => DropReason::TooBig,
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::SocketFull,
        libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::ENETDOWN
        | libc::EHOSTDOWN
        | libc::ECONNREFUSED
        | libc::EADDRNOTAVAIL
        | libc::EACCES
        | libc::EPERM => DropReason::UnderlayUnreachable,
        _ => DropReason::SendFailed,
    }
}

/// Whether an errno may stem from a pending ICMP error, which says nothing about the send itself
/// (linux/net/ipv4/icmp.c, `icmp_err_convert`; linux/net/ipv6/icmp.c, `icmpv6_err_convert`).
fn may_be_pending(error: i32) -> bool {
    matches!(
        error,
        libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENOPROTOOPT
            | libc::ECONNREFUSED
            | libc::EMSGSIZE
            | libc::EOPNOTSUPP
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EACCES
            | libc::EPROTO
    )
}

/// Sends, and retries up to `tries` times in total while the error may be a pending one; `error` is the result of an
/// earlier attempt, or 0.
///
/// # Safety
/// As [`PacketIo::send_now`].
unsafe fn send_past_errors(
    io: &mut impl PacketIo,
    checksum: Checksum,
    socket: RawFd,
    message: *const libc::msghdr,
    mut error: i32,
    tries: usize,
) -> Result<(), i32> {
    for _ in 0..tries {
        // SAFETY: the caller vouches for the message.
        match unsafe { io.send_now(socket, message, checksum) } {
            Ok(()) => return Ok(()),
            Err(new) if may_be_pending(new) => error = new,
            Err(new) => return Err(new),
        }
    }
    Err(error)
}
