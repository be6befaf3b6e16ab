//! Taps: copies of packets for observers, taken by the worker that has the packet.
//!
//! A worker without taps checks one flag of its own per packet. With a tap, it copies the packets that the tap wants
//! into a ring of fixed size, which the reader empties; packets that do not fit are counted. Nothing here allocates
//! or waits while packets pass.

mod filter;
mod reader;
mod record;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use libgeneve::drop::DropReason;
use libgeneve::time::Now;
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};
use rtrb::Producer;
use zerocopy::IntoBytes;

pub use filter::{FlowTuple, TapFilter};
pub use reader::TapReader;
pub(super) use record::PacketOutcome;
use record::{HEAD, RecordHeader, layer_of};
pub use record::{OuterHeader, RecordLayer, TapRecord};

/// Maximum number of taps.
pub(super) const MAX_TAPS: usize = 8;
/// Staging buffer size: the longest packet and the headers before it.
const STAGE: usize = 66 << 10;

/// Configuration of a tap: which packets to copy, and how much of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapConfig {
    /// Copy underlay datagrams instead of inner packets. A dropped packet without a readable inner packet is copied
    /// as a datagram in any case.
    pub outer: bool,
    /// Copy only packets that are not forwarded.
    pub dropped: bool,
    /// Maximum number of bytes of each packet.
    pub snaplen: u32,
    /// Size of each worker's ring in bytes.
    pub room: usize,
    /// Rate limit for dropped packets: minimum interval between two packets with the same reason.
    pub pause: Duration,
    /// Flows to copy.
    pub filter: TapFilter,
}

/// Worker's end of a tap.
pub(super) struct Tap {
    config: Arc<TapConfig>,
    ring: Producer<u8>,
    lost: Arc<AtomicU64>,
    /// For each reason, the earliest time to take the next packet.
    next: [Now; DropReason::COUNT],
}

impl Tap {
    fn wants(&self, outer: bool, packet_outcome: &PacketOutcome) -> bool {
        match packet_outcome.reason {
            None => !self.config.dropped && self.config.outer == outer,
            Some(reason) => self.next[reason as usize] <= packet_outcome.now,
        }
    }

    fn push(&mut self, packet_outcome: &PacketOutcome, head: &RecordHeader, bytes: &[u8]) {
        if let Some(reason) = packet_outcome.reason {
            let pause = u64::try_from(self.config.pause.as_nanos()).unwrap_or(u64::MAX);
            self.next[reason as usize] = Now(packet_outcome.now.0.saturating_add(pause));
        }
        if self.ring.slots() < HEAD + bytes.len() {
            self.lost.store(self.lost.load(Relaxed) + 1, Relaxed);
            return;
        }
        let _ = self.ring.push_entire_slice(head.as_bytes());
        let _ = self.ring.push_entire_slice(bytes);
    }
}

/// Taps of one worker.
pub(super) struct Taps {
    all: Vec<Tap>,
    /// Whether a tap wants forwarded inner packets.
    pub(super) inner: bool,
    /// Whether a tap wants forwarded datagrams.
    pub(super) outer: bool,
    staged: Vec<u8>,
}

impl Taps {
    pub(super) fn new() -> Self {
        Taps {
            all: Vec::with_capacity(MAX_TAPS),
            inner: false,
            outer: false,
            staged: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, tap: Tap) {
        self.staged.reserve_exact(STAGE);
        self.all.push(tap);
        self.note();
    }

    fn note(&mut self) {
        let forwarded = |outer| {
            let mut all = self.all.iter();
            all.any(|t| !t.config.dropped && t.config.outer == outer)
        };
        (self.inner, self.outer) = (forwarded(false), forwarded(true));
    }

    /// Removes the taps whose reader is gone.
    fn prune(&mut self) {
        if self.all.iter().any(|tap| tap.ring.is_abandoned()) {
            self.all.retain(|tap| !tap.ring.is_abandoned());
            self.note();
        }
    }

    /// Whether any tap wants a dropped packet.
    #[inline]
    pub(super) fn want_drop(&self, packet_outcome: &PacketOutcome) -> bool {
        !self.all.is_empty() && self.all.iter().any(|tap| tap.wants(false, packet_outcome))
    }

    /// Copies a packet into the staging buffer, to be offered next.
    pub(super) fn stage<'a>(&mut self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        self.staged.clear();
        for piece in pieces {
            let room = STAGE - self.staged.len();
            self.staged
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    /// Offers the staged inner packet or frame.
    pub(super) fn offer_inner(&mut self, packet_outcome: &PacketOutcome, inner: InnerProtocol) {
        self.prune();
        let tuple = FlowTuple::inside(inner, &self.staged);
        let layer = layer_of(inner);
        for tap in &mut self.all {
            if !tap.wants(false, packet_outcome)
                || !tap
                    .config
                    .filter
                    .admits(packet_outcome.link, tuple.as_ref())
            {
                continue;
            }
            let len = self.staged.len();
            let stored = len.min(tap.config.snaplen as usize);
            let head = RecordHeader::new(packet_outcome, tuple.as_ref(), None, layer, len, stored);
            tap.push(packet_outcome, &head, &self.staged[..stored]);
        }
    }

    /// Offers the staged datagram: only its payload if `before` is 0, otherwise all of it, the first `before` bytes
    /// of which are the IP and UDP headers.
    pub(super) fn offer_outer(
        &mut self,
        packet_outcome: &PacketOutcome,
        encapsulation: Encapsulation,
        envelope: Option<&OuterHeader>,
        before: usize,
    ) {
        self.prune();
        let payload = self.staged.get(before..).unwrap_or_default();
        // Offset and type of the inner packet.
        let inner = encapsulation
            .parse(payload)
            .ok()
            .and_then(|e| Some((before + e.header_len, e.inner()?)));
        let tuple = inner.and_then(|(at, inner)| FlowTuple::inside(inner, &self.staged[at..]));
        let layer = if before == 0 {
            RecordLayer::Payload
        } else {
            RecordLayer::Whole
        };
        for tap in &mut self.all {
            if !tap.wants(true, packet_outcome)
                || !tap
                    .config
                    .filter
                    .admits(packet_outcome.link, tuple.as_ref())
            {
                continue;
            }
            // If the inner packet is readable, it is given instead of the datagram.
            let (layer, start) = match inner {
                Some((at, inner))
                    if !tap.config.outer && (tuple.is_some() || inner != InnerProtocol::Ip) =>
                {
                    (layer_of(inner), at)
                }
                _ => (layer, 0),
            };
            let bytes = &self.staged[start..];
            let stored = bytes.len().min(tap.config.snaplen as usize);
            let head = RecordHeader::new(
                packet_outcome,
                tuple.as_ref(),
                envelope,
                layer,
                bytes.len(),
                stored,
            );
            tap.push(packet_outcome, &head, &bytes[..stored]);
        }
    }
}
