//! Wire to TUN: trains of datagrams become super-packets.
//!
//! `libgeneve::datapath` decides what happens to a datagram, `libgeneve::offload::merge` what may be merged; here the
//! pieces are written to TUN, and the buffers are held until then.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use libgeneve::datapath::{self, Decap, DecapResult, OuterRx, Output, PacketContext, SenderReply};
use libgeneve::drop::DropReason;
use libgeneve::offload::merge::{Merger, Part, SuperPacket};
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::policy;
use libgeneve::vpc::{LinkIndex, Tables};
use libgeneve::wire::ethernet::{ETHERNET_HEADER_LEN, VLAN_TAG_LEN};
use libgeneve::wire::packet::{Packet, Transport};

use super::backend::{PacketIo, PoolKind, RxBatch};
use super::buffer_pool::{BufferId, PoolLayout};
use super::counters::{TrafficDirection, WorkerCounters};
use super::egress::BufferedPacket;
use super::engine::EngineEvent;
use super::reply::OwnDatagrams;
use super::shape::{QueuedFor, ShapedOutput, SlotSize};
use super::tap::OuterHeader;
use super::train::{MAX_TRAIN_SEGMENTS, SCRATCH, TunWrite, TunWriteKind};
use super::udp::AddressFamily;
use super::worker::{LinkSlot, Worker, counters_of};

/// Maximum number of flows that the merger holds open.
const MERGED_FLOWS: usize = 16;

/// Minimum interval between two reports of one worker about datagrams that did not come from the underlay.
const NOT_FROM_UNDERLAY_PAUSE: Duration = Duration::from_secs(60);

/// TUN writes of one worker.
pub(super) struct TunWrites {
    slots: Vec<TunWrite>,
    free: Vec<u32>,
}

impl TunWrites {
    pub(super) fn new(count: usize) -> Self {
        TunWrites {
            slots: (0..count).map(|_| TunWrite::new()).collect(),
            free: (0..count as u32).rev().collect(),
        }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Whether there may be too few free writes for the next train: one for each datagram, and those that the merger
    /// holds.
    pub(super) fn scarce(&self) -> bool {
        self.free.len() < MAX_TRAIN_SEGMENTS + 2 * MERGED_FLOWS
    }

    /// Number of writes in flight.
    pub(super) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn slot(&mut self, id: u32) -> &mut TunWrite {
        &mut self.slots[id as usize]
    }

    pub(super) fn finish(&mut self, id: u32) {
        self.free.push(id);
    }
}

/// A dropped packet: its link, the reason, and the number of packets on the wire.
type DroppedPackets = (Option<LinkIndex>, DropReason, u64);

/// State that ingress keeps between datagrams.
pub(super) struct IngressState {
    pub(super) decide: datapath::Ingress,
    merger: Merger<(PoolKind, BufferId)>,
    /// Buffers of packets that were dropped while the merger held them.
    dead: Vec<(PoolKind, BufferId)>,
}

impl IngressState {
    pub(super) fn new(uso: bool) -> Self {
        IngressState {
            decide: datapath::Ingress::default(),
            merger: Merger::new(MERGED_FLOWS, uso),
            dead: Vec::with_capacity(1024),
        }
    }
}

/// Checked packet in a buffer, to be written to TUN.
pub(super) struct TunDelivery {
    pub(super) side: PoolKind,
    pub(super) buffer_id: BufferId,
    /// Offset of the IP packet in the buffer.
    pub(super) start: usize,
    /// Bytes of the Ethernet header before it that are written with it.
    pub(super) frame_len: usize,
    /// Only packets in the same lane may be merged.
    pub(super) lane: u64,
    /// The interface leads directly to an IP stack.
    pub(super) to_stack: bool,
    pub(super) packet: Packet,
    /// Offloads left to TUN, if the packet arrived unfinished.
    pub(super) vnet: Option<VnetHdr>,
    /// Number of packets on the wire.
    pub(super) packets: u64,
}

/// Layouts of the buffer pools.
struct PoolLayouts {
    udp: PoolLayout,
    short: PoolLayout,
    long: PoolLayout,
}

impl PoolLayouts {
    fn iovec(
        &self,
        (side, buffer_id): (PoolKind, BufferId),
        start: usize,
        len: usize,
    ) -> libc::iovec {
        let map = match side {
            PoolKind::Waiting(SlotSize::Short) => self.short,
            PoolKind::Waiting(SlotSize::Long) => self.long,
            _ => self.udp,
        };
        map.iovec(buffer_id, start, len)
    }
}

/// Sink that writes merged packets to TUN.
struct TunSink<'a, B> {
    io: &'a mut B,
    writes: &'a mut TunWrites,
    links: &'a [Option<LinkSlot>],
    /// Counts packets whose link was removed while they were merged.
    unmatched: &'a WorkerCounters,
    maps: PoolLayouts,
    dead: &'a mut Vec<(PoolKind, BufferId)>,
}

impl<B: PacketIo> TunSink<'_, B> {
    fn emit(&mut self, lane: u64, packet: &SuperPacket<'_, (PoolKind, BufferId)>) {
        let (link, frame_len) = (lane_link(lane), lane_frame(lane));
        let here = self.links.get(link.0 as usize).and_then(Option::as_ref);
        let taken = match here {
            None => Err(DropReason::LinkGone),
            Some(here) => match self.writes.take() {
                None => Err(DropReason::NoBuffer),
                Some(id) => Ok((here, id)),
            },
        };
        let (here, id) = match taken {
            Ok(taken) => taken,
            Err(reason) => {
                let counters = counters_of(self.links, link, self.unmatched);
                counters.dropped(
                    TrafficDirection::Ingress,
                    reason,
                    u64::from(packet.segments),
                );
                self.dead.extend(packet.parts.iter().map(|p| p.tag));
                return;
            }
        };
        let write = self.writes.slot(id);
        write.open(link, TunWriteKind::Ingress, |scratch| {
            let (hdr, rest) = scratch.split_at_mut(vnet::LEN);
            let vnet = packet.vnet.before(frame_len);
            vnet.write(hdr.try_into().expect("split at LEN"));
            rest[..packet.header.len()].copy_from_slice(packet.header);
            vnet::LEN + packet.header.len()
        });
        write.packets = u64::from(packet.segments);
        if frame_len > 0 {
            // The frame header lies before the first of the merged packets.
            let first = packet.parts[0];
            let start = first.start as usize - packet.header.len() - frame_len;
            let frame = self.maps.iovec(first.tag, start, frame_len);
            // SAFETY: the header lies in the buffer of the first part, which is pushed below.
            unsafe { write.insert_frame(frame) };
        }
        for part in packet.parts {
            let place = self
                .maps
                .iovec(part.tag, part.start as usize, part.len as usize);
            // SAFETY: the merger got the part together with a reference to its buffer, which passes to the write;
            // `on_wrote` releases it.
            unsafe { write.push(part.tag, place) };
            write.bytes += u64::from(part.len);
        }
        // Every merged packet had these headers; the headers of a packet that arrived unsegmented are among its
        // parts, once.
        write.bytes += match packet.header.len() as u64 {
            0 => u64::from(packet.vnet.hdr_len) * write.packets.saturating_sub(1),
            len => len * write.packets,
        };
        let queue = here.queue.as_raw_fd();
        // SAFETY: a link's queue is closed only when no write is in flight; the slot is reused only after `Wrote`,
        // and everything pushed is held until then.
        unsafe { self.io.write(id, queue, write.iovs()) };
    }
}

/// Packs the merger's lane: the link in the upper half; in the lower half the length of the Ethernet header and the
/// number of the run of equal headers.
fn lane(exit: LinkIndex, frame_len: usize, run: u64) -> u64 {
    let tags = match frame_len {
        0 => 0,
        len => 1 + (len - ETHERNET_HEADER_LEN) as u64 / VLAN_TAG_LEN as u64,
    };
    u64::from(exit.0) << 32 | (tags & 3) << 30 | (run & 0x3fff_ffff)
}

fn lane_frame(lane: u64) -> usize {
    match lane >> 30 & 3 {
        0 => 0,
        tags => ETHERNET_HEADER_LEN + (tags - 1) as usize * VLAN_TAG_LEN,
    }
}

fn lane_link(lane: u64) -> LinkIndex {
    LinkIndex((lane >> 32) as u32)
}

impl<B: PacketIo> Worker<B> {
    /// Handles one train from the wire.
    pub(super) fn on_datagrams(
        &mut self,
        tables: &Tables,
        slot: u32,
        buffer_id: BufferId,
        train: &RxBatch,
    ) {
        self.udp_buffers.hold(buffer_id);
        if let Some(Some(socket)) = self.sockets.get(slot as usize) {
            let arrival = OuterRx {
                port: socket.port,
                src: train.src.ip(),
                dst: train.notes.dst,
                tos: train.notes.tos,
                interface: self.rx.of(train.notes.interface),
            };
            self.decapsulate(tables, &arrival, buffer_id, train);
        }
        self.release(PoolKind::Udp, buffer_id);
        self.release_dead();
    }

    fn decapsulate(
        &mut self,
        tables: &Tables,
        arrival: &OuterRx,
        buffer_id: BufferId,
        train: &RxBatch,
    ) {
        let (start, end) = (train.start as usize, (train.start + train.len) as usize);
        if train.truncated {
            let reason = DropReason::GeneveTruncated;
            self.unmatched.dropped(TrafficDirection::Ingress, reason, 1);
            let dropped = Some((None, reason, 1));
            self.tell_taps((arrival, train), (buffer_id, start..end), false, dropped);
            return;
        }
        let step = match usize::from(train.notes.segment) {
            0 => (end - start).max(1),
            step => step,
        };
        let mut at = start;
        loop {
            let next = (at + step).min(end);
            let staged = self.taps.outer;
            if staged {
                self.taps
                    .stage([&self.udp_buffers.bytes_mut(buffer_id)[at..next]]);
            }
            let dropped = self.datagram(tables, arrival, buffer_id, at, next);
            if staged || dropped.is_some() {
                self.tell_taps((arrival, train), (buffer_id, at..next), staged, dropped);
            }
            at = next;
            if at >= end {
                return;
            }
        }
    }

    /// Shows taps a datagram, or the inner packet of one that was dropped.
    fn tell_taps(
        &mut self,
        (arrival, train): (&OuterRx, &RxBatch),
        (buffer_id, range): (BufferId, Range<usize>),
        staged: bool,
        dropped: Option<DroppedPackets>,
    ) {
        let (link, reason, packets) = match dropped {
            Some((link, reason, packets)) => (link, Some(reason), packets),
            None => (None, None, 1),
        };
        let packet_outcome = self.outcome(TrafficDirection::Ingress, link, reason, packets);
        if reason.is_some() && !self.taps.want_drop(&packet_outcome) {
            return;
        }
        if !staged {
            self.taps
                .stage([&self.udp_buffers.bytes_mut(buffer_id)[range]]);
        }
        let unspecified = AddressFamily::of(train.src.ip()).unspecified();
        let envelope = OuterHeader {
            src: train.src,
            dst: SocketAddr::new(train.notes.dst.unwrap_or(unspecified), arrival.port),
            tos: train.notes.tos,
            ttl: None,
        };
        let tables = self.shared.tables.load();
        let encapsulation = tables.encapsulation(arrival.port).unwrap_or_default();
        self.taps
            .offer_outer(&packet_outcome, encapsulation, Some(&envelope), 0);
    }

    /// Handles one datagram; returns what was dropped of it, if anything.
    fn datagram(
        &mut self,
        tables: &Tables,
        arrival: &OuterRx,
        buffer_id: BufferId,
        at: usize,
        end: usize,
    ) -> Option<DroppedPackets> {
        let bytes = &mut self.udp_buffers.bytes_mut(buffer_id)[at..end];
        let cx = PacketContext {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        match self.ingress.decide.receive(&cx, arrival, bytes) {
            Ok(DecapResult::Frame(frame)) => {
                let link = frame.link;
                let reason = self.deliver_frame(frame, buffer_id, at, end).err()?;
                self.count_drop(TrafficDirection::Ingress, Some(link), reason, 1);
                Some((Some(link), reason, 1))
            }
            Ok(DecapResult::Packet(decap)) => {
                let link = decap.link;
                let (reason, packets) = self.forward_packet(buffer_id, at, decap).err()?;
                self.count_drop(TrafficDirection::Ingress, Some(link), reason, packets);
                Some((Some(link), reason, packets))
            }
            Err(refused) => {
                match refused.reason {
                    DropReason::NeighborUnresolved => self.ask_neighbors(tables),
                    DropReason::NeighborAnswered | DropReason::NeighborNoted => {
                        self.shared.neighbor_waker.ring();
                    }
                    DropReason::UnknownVni => self.note_vni(tables, arrival, (buffer_id, at, end)),
                    DropReason::NotFromUnderlay => {
                        self.tell_not_from_underlay(arrival, refused.link);
                    }
                    _ => {}
                }
                let told = refused.answer.is_none_or(|answer| {
                    self.answer(tables, arrival, answer, (buffer_id, at, end), refused.link)
                });
                let reason = match told {
                    true => refused.reason,
                    false => refused.reason.unanswered(),
                };
                self.count_drop(TrafficDirection::Ingress, refused.link, reason, 1);
                Some((refused.link, reason, 1))
            }
        }
    }

    /// Reports a datagram that did not come from the underlay to the daemon, at a limited rate.
    fn tell_not_from_underlay(&mut self, arrival: &OuterRx, link: Option<LinkIndex>) {
        if self.now >= self.next_not_from_underlay {
            self.next_not_from_underlay = self.now + NOT_FROM_UNDERLAY_PAUSE;
            let _ = self.shared.events.send(EngineEvent::NotFromUnderlay {
                link,
                src: arrival.src,
                interface: self.rx.index(),
            });
        }
    }

    /// Records the VNI of a datagram that matches no link.
    fn note_vni(
        &mut self,
        tables: &Tables,
        arrival: &OuterRx,
        (buffer_id, at, end): (BufferId, usize, usize),
    ) {
        let bytes = &self.udp_buffers.bytes_mut(buffer_id)[at..end];
        let encapsulation = tables.encapsulation(arrival.port);
        if let Some(Ok(envelope)) = encapsulation.map(|e| e.parse(bytes)) {
            let vni = envelope.vni.into();
            self.unknown_vnis
                .note(vni, arrival.port, arrival.src, self.now.0);
        }
    }

    /// Forwards a checked packet, usually to TUN, merged with its neighbours.
    fn forward_packet(
        &mut self,
        buffer_id: BufferId,
        at: usize,
        decap: Decap,
    ) -> Result<(), (DropReason, u64)> {
        let packets = decap.size.packets;
        if decap.options != 0
            && let Some(Some(here)) = self.links.get(decap.link.0 as usize)
        {
            here.counters
                .options(TrafficDirection::Ingress, decap.options, packets);
        }
        let start = at + decap.start;
        let mut held = BufferedPacket {
            link: decap.link,
            side: PoolKind::Udp,
            buffer_id,
            start,
            frame_len: 0,
            vnet: decap.vnet.unwrap_or(VnetHdr::NONE),
            packet: decap.packet,
            size: decap.size,
        };
        match decap.output {
            Output::Link(exit) => {
                held.frame_len = decap.frame_len;
                if let Some(metered) = self.must_wait(decap.metered) {
                    let queued_for = QueuedFor {
                        direction: TrafficDirection::Ingress,
                        link: decap.link,
                        to: ShapedOutput::Tun {
                            exit,
                            lane: decap.lane,
                            to_stack: decap.to_stack,
                        },
                    };
                    return self.queue_for_tun(&held, &metered, queued_for);
                }
                let delivery = TunDelivery {
                    side: PoolKind::Udp,
                    buffer_id,
                    start,
                    frame_len: decap.frame_len,
                    lane: decap.lane,
                    to_stack: decap.to_stack,
                    packet: decap.packet,
                    vnet: decap.vnet,
                    packets,
                };
                self.deliver(exit, &delivery);
                Ok(())
            }
            Output::Host(forward) => self.send(&held, forward, decap.metered, None),
        }
    }

    /// Delivers a packet to TUN, possibly merged with the next ones.
    pub(super) fn deliver(&mut self, exit: LinkIndex, delivery: &TunDelivery) {
        let maps = self.maps();
        let TunDelivery {
            side,
            buffer_id,
            packet,
            ..
        } = delivery;
        let buffers = match *side {
            PoolKind::Waiting(place) => self.shaping.buffers(place),
            _ => &mut self.udp_buffers,
        };
        // The merger keeps the packet beyond this call.
        buffers.hold(*buffer_id);
        let inner = &mut buffers.bytes_mut(*buffer_id)[delivery.start..];
        let IngressState { merger, dead, .. } = &mut self.ingress;
        let mut into = TunSink {
            io: &mut self.io,
            writes: &mut self.writes,
            links: &self.links,
            unmatched: &self.unmatched,
            maps,
            dead,
        };
        let mut out =
            |lane, packet: SuperPacket<'_, (PoolKind, BufferId)>| into.emit(lane, &packet);
        let lane = lane(exit, delivery.frame_len, delivery.lane);
        let (tag, start) = ((*side, *buffer_id), delivery.start as u32);
        let whole = Part {
            tag,
            start,
            len: u32::from(packet.total_len),
        };
        let udp = matches!(packet.transport, Transport::Udp { .. });
        match delivery.vnet {
            None if udp && !delivery.to_stack => merger.pass(lane, whole, packet, &mut out),
            None => merger.push(lane, tag, start, inner, packet, &mut out),
            Some(vnet) => {
                merger.flush(&mut out);
                out(lane, unmerged(vnet, delivery.packets, &[whole]));
            }
        }
    }

    fn maps(&mut self) -> PoolLayouts {
        PoolLayouts {
            udp: self.udp_buffers.map(),
            short: self.shaping.buffers(SlotSize::Short).map(),
            long: self.shaping.buffers(SlotSize::Long).map(),
        }
    }

    /// Answers the sender of a datagram's inner packet with the reason for its rejection, if that is allowed; false
    /// if no answer could be sent, or the link's budget is spent.
    fn answer(
        &mut self,
        tables: &Tables,
        arrival: &OuterRx,
        answer: SenderReply,
        (buffer_id, at, end): (BufferId, usize, usize),
        index: Option<LinkIndex>,
    ) -> bool {
        let Some((index, link)) = index.and_then(|i| Some((i, tables.link(i)?))) else {
            return false;
        };
        let Some(Some(here)) = self.links.get(index.0 as usize) else {
            return false;
        };
        let Some(host) = link.host(arrival.src) else {
            return false;
        };
        if !here
            .answers
            .take(policy::Direction::Ingress, answer, self.now)
        {
            return false;
        }
        let bytes = &self.udp_buffers.bytes_mut(buffer_id)[at..end];
        let Some((header, inner)) = datapath::way_back(link, bytes) else {
            return false;
        };
        let mut reply = [0; SCRATCH];
        let (hash, len) = if matches!(answer, SenderReply::Neighbor(..)) {
            (0, datapath::neighbor_answer(link, inner, &mut reply))
        } else {
            let Ok(packet) = Packet::parse(inner) else {
                return false;
            };
            let len = datapath::answer(&link.config, answer, &packet, inner, &mut reply);
            (tables.hasher.hash(&packet), len)
        };
        let mut datagrams = OwnDatagrams {
            trains: &mut self.trains,
            io: &mut self.io,
            here,
            map: self.udp_buffers.map(),
        };
        len.is_none_or(|len| datagrams.send(hash, link, host, header, &reply[..len]))
    }

    /// Writes everything that the merger still holds to TUN.
    pub(super) fn flush_ingress(&mut self) {
        let maps = self.maps();
        let IngressState { merger, dead, .. } = &mut self.ingress;
        let mut into = TunSink {
            io: &mut self.io,
            writes: &mut self.writes,
            links: &self.links,
            unmatched: &self.unmatched,
            maps,
            dead,
        };
        merger.flush(&mut |lane, packet: SuperPacket<'_, (PoolKind, BufferId)>| {
            into.emit(lane, &packet);
        });
        self.release_dead();
    }

    fn release_dead(&mut self) {
        while let Some((side, buffer_id)) = self.ingress.dead.pop() {
            self.release(side, buffer_id);
        }
    }

    /// Shows taps a packet that TUN took or refused.
    fn tell_taps_of_write(&mut self, id: u32, refused: bool) {
        let reason = refused.then_some(DropReason::TunRefused);
        let (link, packets) = {
            let write = self.writes.slot(id);
            (write.link, write.packets)
        };
        let packet_outcome = self.outcome(TrafficDirection::Ingress, Some(link), reason, packets);
        if refused && !self.taps.want_drop(&packet_outcome) {
            return;
        }
        let (_, inner) = self.link_protocols(Some(link));
        self.taps.stage(self.writes.slot(id).pieces(vnet::LEN));
        self.taps.offer_inner(&packet_outcome, inner);
    }

    /// Handles the completion of a write to TUN or TAP.
    pub(super) fn on_wrote(&mut self, tables: &Tables, id: u32, result: i32) {
        let write = self.writes.slot(id);
        let (kind, taken) = (write.kind, write.is_taken(result));
        if kind == TunWriteKind::Ingress && (self.taps.inner || !taken) {
            self.tell_taps_of_write(id, !taken);
        }
        let write = self.writes.slot(id);
        if kind == TunWriteKind::Ingress {
            let counters = counters_of(&self.links, write.link, &self.unmatched);
            if taken {
                counters.forwarded(TrafficDirection::Ingress, write.packets, write.bytes);
            } else {
                counters.dropped(
                    TrafficDirection::Ingress,
                    DropReason::TunRefused,
                    write.packets,
                );
            }
        }
        if kind == TunWriteKind::Egress {
            self.on_handed_over(tables, id, taken);
        } else {
            let mut buffer_ids = std::mem::take(&mut self.writes.slot(id).buffer_ids);
            for (side, buffer_id) in buffer_ids.drain(..) {
                self.release(side, buffer_id);
            }
            self.writes.slot(id).buffer_ids = buffer_ids;
        }
        self.writes.finish(id);
    }
}

/// Builds a packet that is written to TUN unmerged, with the virtio header that TUN needs to finish it.
fn unmerged<'a>(
    vnet: VnetHdr,
    packets: u64,
    parts: &'a [Part<(PoolKind, BufferId)>],
) -> SuperPacket<'a, (PoolKind, BufferId)> {
    SuperPacket {
        vnet,
        header: &[],
        parts,
        segments: packets as u16,
    }
}
