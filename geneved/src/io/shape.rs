//! Traffic shaping: packets that wait until they are within their rate limits.
//!
//! [`Shaper`] decides which packet is sent when, and which is dropped. A packet is copied into memory preallocated
//! for this worker, in the form of the datagrams that go on the wire: a super-packet is segmented before it waits, so
//! that no flow waits for all segments of another.

use std::io;
use std::ops::Range;

use libgeneve::datapath::Forward;
use libgeneve::drop::DropReason;
use libgeneve::ecn::{self, Ecn};
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::split::split;
use libgeneve::qos::{DequeueAction, Dequeued, EnqueueRequest, Metered, QueueAdmission, Shaper};
use libgeneve::time::Now;
use libgeneve::vpc::{LinkIndex, Tables};
use libgeneve::wire::packet::Packet;

use super::backend::{PacketIo, PoolKind, WaitTime};
use super::buffer_pool::{BufferId, BufferPool};
use super::counters::TrafficDirection;
use super::egress::{BufferedPacket, train_request};
use super::ingress::TunDelivery;
use super::pool_sizes::{LONG_PLACE, LONG_PLACES, SHORT_PLACE, SHORT_PLACES};
use super::worker::Worker;

/// Size class of the buffers that packets wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SlotSize {
    /// For packets of the usual MTU.
    Short,
    /// For any other.
    Long,
}

/// Buffers of one size class.
struct SlotPool {
    buffers: BufferPool,
    free: Vec<BufferId>,
}

impl SlotPool {
    fn new(count: u16, len: usize) -> io::Result<SlotPool> {
        Ok(SlotPool {
            buffers: BufferPool::new(count, len)?,
            free: (0..count).rev().collect(),
        })
    }
}

/// Destination of a waiting packet.
#[derive(Clone)]
pub(super) enum ShapedOutput {
    /// To another host.
    Wire(Forward),
    /// The TUN interface of a link. Packets in the same lane may be merged; UDP packets only if the interface leads
    /// directly to an IP stack.
    Tun {
        exit: LinkIndex,
        lane: u64,
        to_stack: bool,
    },
    /// The TAP interface of a link, unchanged.
    Tap(LinkIndex),
}

/// Where a waiting packet goes, and what its drop is counted for.
#[derive(Clone)]
pub(super) struct QueuedFor {
    pub(super) direction: TrafficDirection,
    pub(super) link: LinkIndex,
    pub(super) to: ShapedOutput,
}

/// Waiting packet.
struct ShapedPacket {
    place: SlotSize,
    buffer_id: BufferId,
    len: usize,
    /// Bytes before the inner packet.
    before: usize,
    queued_for: QueuedFor,
}

impl ShapedPacket {
    fn touches(&self, link: LinkIndex) -> bool {
        let exit = match &self.queued_for.to {
            ShapedOutput::Wire(forward) => forward.link,
            ShapedOutput::Tun { exit, .. } | ShapedOutput::Tap(exit) => *exit,
        };
        self.queued_for.link == link || exit == link
    }
}

/// Payload whose buffer is assigned but which is not copied yet.
struct PendingCopy {
    place: SlotSize,
    buffer_id: BufferId,
    at: usize,
    payload: Range<usize>,
}

/// Waiting packets of one worker.
pub(super) struct Shaping {
    shaper: Shaper<ShapedPacket>,
    short: SlotPool,
    long: SlotPool,
    pending: Vec<PendingCopy>,
    /// Packets evicted to make room for others.
    evicted: Vec<ShapedPacket>,
}

impl Shaping {
    /// Reserves all memory that is ever needed; pages are touched only as packets wait.
    pub(super) fn new() -> io::Result<Shaping> {
        const SEGMENTS: usize = libgeneve::offload::segments::MAX_SPLIT_SEGMENTS;
        Ok(Shaping {
            shaper: Shaper::new([SHORT_PLACES, LONG_PLACES]),
            short: SlotPool::new(SHORT_PLACES, SHORT_PLACE)?,
            long: SlotPool::new(LONG_PLACES, LONG_PLACE)?,
            pending: Vec::with_capacity(SEGMENTS),
            evicted: Vec::with_capacity(usize::from(SHORT_PLACES + LONG_PLACES)),
        })
    }

    /// Departure time of the next packet.
    #[inline]
    pub(super) fn departure(&self) -> Option<Now> {
        self.shaper.departure()
    }

    /// Whether no packet waits and every buffer is free.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn is_at_rest(&self) -> bool {
        let idle = |store: &SlotPool| store.buffers.held() == 0;
        self.shaper.is_empty() && idle(&self.short) && idle(&self.long)
    }

    /// Returns the buffers of a size class.
    pub(super) fn buffers(&mut self, place: SlotSize) -> &mut BufferPool {
        &mut self.store(place).buffers
    }

    /// Drops a reference to a buffer.
    pub(super) fn release(&mut self, place: SlotSize, buffer_id: BufferId) {
        let store = self.store(place);
        if store.buffers.release(buffer_id) {
            store.free.push(buffer_id);
        }
    }

    fn store(&mut self, place: SlotSize) -> &mut SlotPool {
        match place {
            SlotSize::Short => &mut self.short,
            SlotSize::Long => &mut self.long,
        }
    }

    /// Queues packets of this journey until their rate limits allow them; `before` bytes of each are not charged.
    pub(super) fn queue<'a>(
        &'a mut self,
        metered: &'a Metered,
        queued_for: QueuedFor,
        before: usize,
        ecn: Ecn,
        now: Now,
    ) -> QueueSink<'a> {
        QueueSink {
            shaping: self,
            metered,
            queued_for,
            before,
            ect: ecn != Ecn::NotEct,
            now,
            refused: 0,
        }
    }

    /// Copies the payloads of the packets queued last, which lie in `bytes`.
    pub(super) fn fill(&mut self, bytes: &[u8]) {
        while let Some(pending) = self.pending.pop() {
            let payload = &bytes[pending.payload];
            let to = self.buffers(pending.place).bytes_mut(pending.buffer_id);
            to[pending.at..][..payload.len()].copy_from_slice(payload);
        }
    }
}

/// Sink that queues the segments of one packet. [`Shaping::fill`] copies their payload.
pub(super) struct QueueSink<'a> {
    shaping: &'a mut Shaping,
    metered: &'a Metered,
    queued_for: QueuedFor,
    before: usize,
    ect: bool,
    now: Now,
    /// Segments for which there was no room.
    pub(super) refused: u64,
}

impl QueueSink<'_> {
    /// Allocates a buffer for a packet of `len` bytes, `charged` of which belong to the inner packet.
    fn place(&mut self, len: usize, charged: u32) -> Option<(SlotSize, BufferId)> {
        let place = match len {
            0..=SHORT_PLACE => SlotSize::Short,
            _ if len <= LONG_PLACE => SlotSize::Long,
            _ => return None,
        };
        loop {
            let shaper = &mut self.shaping.shaper;
            match shaper.admit(self.metered, charged, place as u8) {
                QueueAdmission::Granted => break,
                QueueAdmission::Evict(waiting) => self.shaping.evicted.push(waiting),
                QueueAdmission::Refused => return None,
            }
        }
        let store = self.shaping.store(place);
        let buffer_id = store.free.pop()?;
        store.buffers.hold(buffer_id);
        Some((place, buffer_id))
    }
}

impl SegmentSink for QueueSink<'_> {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        let len = header.len() + payload.len();
        let charged = len.saturating_sub(self.before) as u32;
        let cost = if self.metered.bytes == 0 { 0 } else { charged };
        let Some((place, buffer_id)) = self.place(len, charged) else {
            self.metered.meter.count(cost.into(), false);
            self.refused += 1;
            return;
        };
        let shaping = &mut *self.shaping;
        shaping.buffers(place).bytes_mut(buffer_id)[..header.len()].copy_from_slice(header);
        shaping.pending.push(PendingCopy {
            place,
            buffer_id,
            at: header.len(),
            payload,
        });
        let waiting = ShapedPacket {
            place,
            buffer_id,
            len,
            before: self.before,
            queued_for: self.queued_for.clone(),
        };
        let packet = EnqueueRequest {
            bytes: charged,
            cost,
            ect: self.ect,
            kind: place as u8,
        };
        shaping.shaper.push(self.metered, packet, self.now, waiting);
    }
}

impl<B: PacketIo> Worker<B> {
    /// Charges a packet to its rate limits; returns `metered` if it has to wait.
    #[inline]
    pub(super) fn must_wait(&self, metered: Option<Metered>) -> Option<Metered> {
        let metered = metered?;
        let passes = !self.shaping.shaper.waits_for(&metered.meter) && metered.passes(self.now);
        (!passes).then_some(metered)
    }

    /// Queues a packet that goes to TUN.
    pub(super) fn queue_for_tun(
        &mut self,
        held: &BufferedPacket,
        metered: &Metered,
        queued_for: QueuedFor,
    ) -> Result<(), (DropReason, u64)> {
        let buffers = match held.side {
            PoolKind::Tun => &mut self.tun_buffers,
            _ => &mut self.udp_buffers,
        };
        let (head, inner) = buffers.bytes_mut(held.buffer_id).split_at_mut(held.start);
        let frame = &head[held.start - held.frame_len..];
        let ecn = Ecn::of(held.packet.tos);
        let shaping = &mut self.shaping;
        let mut out = shaping.queue(metered, queued_for, frame.len(), ecn, self.now);
        let cut = split(frame, &held.vnet, &held.packet, inner, &mut out);
        let refused = out.refused;
        self.shaping.fill(inner);
        self.drop_evicted();
        cut.map_err(|error| (error.into(), held.size.packets))?;
        match refused {
            0 => Ok(()),
            refused => Err((DropReason::RateExceeded, refused)),
        }
    }

    /// Sends the waiting packets that are within their rate limits by now.
    pub(super) fn release_waiting(&mut self, tables: &Tables) -> io::Result<()> {
        if self.shaping.shaper.is_empty() {
            return Ok(());
        }
        self.shaping.shaper.begin();
        while let Some(Dequeued { item, outcome }) = self.shaping.shaper.next(self.now) {
            if self.is_low_on_buffers() {
                self.turn(tables, WaitTime::No)?;
            }
            let left = match outcome {
                DequeueAction::Send => self.send_shaped(tables, &item, false),
                DequeueAction::Mark => self.send_shaped(tables, &item, true),
                DequeueAction::Drop => Err(DropReason::RateExceeded),
            };
            if let Err(reason) = left {
                self.drop_waiting(&item, reason);
            }
        }
        Ok(())
    }

    /// Drops the packets waiting on a link that is being removed, because its slot may be reused.
    pub(super) fn drop_queued(&mut self, link: LinkIndex) {
        let Shaping {
            shaper, evicted, ..
        } = &mut self.shaping;
        shaper.retain(
            |waiting| !waiting.touches(link),
            |waiting| evicted.push(waiting),
        );
        while let Some(waiting) = self.shaping.evicted.pop() {
            self.drop_waiting(&waiting, DropReason::LinkGone);
        }
    }

    /// Counts the evicted packets.
    pub(super) fn drop_evicted(&mut self) {
        while let Some(waiting) = self.shaping.evicted.pop() {
            self.drop_waiting(&waiting, DropReason::RateExceeded);
        }
    }

    fn drop_waiting(&mut self, waiting: &ShapedPacket, reason: DropReason) {
        let QueuedFor {
            direction,
            link,
            to,
        } = &waiting.queued_for;
        let link = Some(*link);
        self.count_drop(*direction, link, reason, 1);
        let packet_outcome = self.outcome(*direction, link, Some(reason), 1);
        if self.taps.want_drop(&packet_outcome) {
            let start = match to {
                ShapedOutput::Wire(forward) => forward.encap.len(),
                ShapedOutput::Tun { .. } | ShapedOutput::Tap(_) => 0,
            };
            let buffers = self.shaping.buffers(waiting.place);
            self.taps
                .stage([&buffers.bytes_mut(waiting.buffer_id)[start..waiting.len]]);
            let (_, inner) = self.link_protocols(link);
            self.taps.offer_inner(&packet_outcome, inner);
        }
        self.shaping.release(waiting.place, waiting.buffer_id);
    }

    /// Sends a packet that has waited; its buffer is released or passes to the next owner.
    fn send_shaped(
        &mut self,
        tables: &Tables,
        waiting: &ShapedPacket,
        mark: bool,
    ) -> Result<(), DropReason> {
        let ShapedPacket {
            place,
            buffer_id,
            len,
            before,
            ..
        } = *waiting;
        if mark {
            self.mark(waiting);
        }
        match &waiting.queued_for.to {
            ShapedOutput::Wire(forward) => {
                let mut forward = forward.clone();
                if mark {
                    forward.outer.tos |= Ecn::Ce as u8;
                }
                self.leave_over_wire(tables, waiting, forward)
            }
            ShapedOutput::Tun {
                exit,
                lane,
                to_stack,
            } => {
                let inner = &self.shaping.buffers(place).bytes_mut(buffer_id)[before..len];
                let packet = Packet::parse(inner).map_err(|_| DropReason::InnerMalformed)?;
                let delivery = TunDelivery {
                    side: PoolKind::Waiting(place),
                    buffer_id,
                    start: before,
                    frame_len: before,
                    lane: *lane,
                    to_stack: *to_stack,
                    packet,
                    vnet: None,
                    packets: 1,
                };
                self.deliver(*exit, &delivery);
                self.shaping.release(place, buffer_id);
                Ok(())
            }
            ShapedOutput::Tap(exit) => {
                self.write_frame(*exit, (PoolKind::Waiting(place), buffer_id), 0..len)?;
                self.shaping.release(place, buffer_id);
                Ok(())
            }
        }
    }

    fn leave_over_wire(
        &mut self,
        tables: &Tables,
        waiting: &ShapedPacket,
        forward: Forward,
    ) -> Result<(), DropReason> {
        let ShapedPacket {
            place,
            buffer_id,
            len,
            before,
            ..
        } = *waiting;
        let gone = DropReason::LinkGone;
        let link = tables.link(forward.link).ok_or(gone)?;
        let here = self.links.get(forward.link.0 as usize);
        let here = here.and_then(Option::as_ref).ok_or(gone)?;
        let frame = before - forward.encap.len();
        // Routes may have changed while it waited.
        forward.leads_away(link)?;
        let want = train_request(here, forward, frame)?;
        let train = self
            .trains
            .with_room(&mut self.io, &want, &here.pool, before, len);
        let train = self.trains.train(train.ok_or(DropReason::NoBuffer)?);
        let buffers = self.shaping.buffers(place);
        let payload = buffers.map().iovec(buffer_id, before, len - before);
        let header = &buffers.bytes_mut(buffer_id)[..before];
        // SAFETY: `with_room` gave a train that the packet fits into. The packet's buffer has been held since it
        // began to wait, and passes to the train, which releases it; nothing else refers to it any more.
        unsafe { train.push(header, before, payload) };
        train.buffer_ids.push((PoolKind::Waiting(place), buffer_id));
        Ok(())
    }

    /// Marks a packet as having experienced congestion (ECN CE).
    fn mark(&mut self, waiting: &ShapedPacket) {
        let buffers = self.shaping.buffers(waiting.place);
        let inner = &mut buffers.bytes_mut(waiting.buffer_id)[waiting.before..waiting.len];
        if let Ok(mut packet) = Packet::parse(inner) {
            let tos = packet.tos | Ecn::Ce as u8;
            ecn::set_tos(inner, &mut packet, tos);
        }
    }
}
