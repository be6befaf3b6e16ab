//! TUN to wire: the packets of a turn become trains.
//!
//! `libgeneve::datapath` decides what happens to a packet; here its segments are gathered into trains, which are
//! queued when they are full, when their flow needs a different train, and at the end of the turn.

use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use libgeneve::datapath::{self, Encap, Forward, Output, PacketContext, RefusedPacket};
use libgeneve::drop::DropReason;
use libgeneve::ecn::Ecn;
use libgeneve::offload::cut::WireSize;
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::policy;
use libgeneve::qos::Metered;
use libgeneve::vpc::{LinkIndex, Tables};
use libgeneve::wire::header::HeaderBytes;
use libgeneve::wire::packet::Packet;

use super::backend::{PacketIo, PoolKind};
use super::buffer_pool::{BufferId, PoolLayout};
use super::counters::TrafficDirection;
use super::reply;
use super::shape::{QueuedFor, ShapedOutput};
use super::train::{MAX_TRAIN_SEGMENTS, SendMode, Train, TrainKey, TunWriteKind};
use super::tunnel_gso::TunRead;
use super::udp::{AddressFamily, SourcePortChoice, SourcePortPool};
use super::worker::{LinkSlot, Worker};

/// Maximum number of trains that are open for more segments at once.
const OPEN_TRAINS: usize = 16;

/// Trains that the largest super-packet may need when cut into the smallest segments.
const SCARCE: usize = libgeneve::offload::segments::MAX_SPLIT_SEGMENTS / MAX_TRAIN_SEGMENTS + 2;

/// The trains of one worker.
pub(super) struct Trains {
    /// Never moved: the kernel reads message headers from it.
    slots: Box<[Train]>,
    free: Vec<u32>,
    open: Vec<u32>,
    /// Full trains that are to be sent datagram by datagram, because their host or socket does not take trains.
    apart: Vec<u32>,
}

impl Trains {
    pub(super) fn new(count: usize) -> Self {
        Trains {
            slots: (0..count).map(|_| Train::new()).collect(),
            free: (0..count as u32).rev().collect(),
            open: Vec::with_capacity(OPEN_TRAINS),
            apart: Vec::with_capacity(count),
        }
    }

    pub(super) fn train(&mut self, id: u32) -> &mut Train {
        &mut self.slots[id as usize]
    }

    /// Whether there may be too few free trains for the next super-packet.
    pub(super) fn scarce(&self) -> bool {
        self.free.len() < SCARCE
    }

    /// Number of trains that are being filled or in flight.
    pub(super) fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Frees the slot of a finished train and releases its socket.
    pub(super) fn finish(&mut self, id: u32) {
        self.slots[id as usize].pool = None;
        self.free.push(id);
    }

    /// Takes the oldest train that is to be sent datagram by datagram.
    pub(super) fn next_apart(&mut self) -> Option<u32> {
        (!self.apart.is_empty()).then(|| self.apart.remove(0))
    }

    /// Queues every open train.
    pub(super) fn flush(&mut self, io: &mut impl PacketIo) {
        for at in 0..self.open.len() {
            self.queue(io, self.open[at]);
        }
        self.open.clear();
    }

    /// Queues the open train of `key`, so that packets sent another way do not overtake it.
    pub(super) fn queue_key(&mut self, io: &mut impl PacketIo, key: &TrainKey) {
        if let Some(at) = self
            .open
            .iter()
            .position(|&id| self.slots[id as usize].key == *key)
        {
            let id = self.open.remove(at);
            self.queue(io, id);
        }
    }

    fn queue(&mut self, io: &mut impl PacketIo, id: u32) {
        let train = &mut self.slots[id as usize];
        if train.sending == SendMode::Together {
            let (socket, message) = (train.key.socket, train.message());
            // SAFETY: the train's pool keeps the socket open until the train is finished. The message lies in its
            // slot and points into the slot and to memory that `push` was promised stays valid; nobody opens or
            // changes a train that is in neither `open` nor `free`, and it returns there only after it was reported
            // as sent. The backend is dropped before all of this.
            unsafe { io.send(id, socket, message) };
        } else {
            self.apart.push(id);
        }
    }

    /// The open train of `train_request` that has room for such a datagram, or a new one; `pool` is what `train_request` was made from.
    pub(super) fn with_room(
        &mut self,
        io: &mut impl PacketIo,
        want: &TrainRequest,
        pool: &Arc<SourcePortPool>,
        header: usize,
        len: usize,
    ) -> Option<u32> {
        if let Some(at) = self
            .open
            .iter()
            .position(|&id| self.slots[id as usize].key == want.key)
        {
            let id = self.open[at];
            let train = &self.slots[id as usize];
            if train.fits(header, len) {
                return Some(id);
            }
            self.open.remove(at);
            self.queue(io, id);
        } else if self.open.len() == OPEN_TRAINS {
            let oldest = self.open.remove(0);
            self.queue(io, oldest);
        }
        let id = self.free.pop()?;
        let train = &mut self.slots[id as usize];
        train.open(
            want.key,
            pool,
            &want.forward.host,
            want.source.port,
            want.forward.port,
        );
        train.sending = want.sending;
        self.open.push(id);
        Some(id)
    }
}

/// What the segments of one packet require of their train.
pub(super) struct TrainRequest {
    pub(super) key: TrainKey,
    pub(super) forward: Forward,
    pub(super) source: SourcePortChoice,
    sending: SendMode,
    /// The operator or the path to the host demands single datagrams with finished checksums.
    whole: bool,
}

/// Sink that puts the segments of one packet into trains.
pub(super) struct TrainSink<'a, B> {
    pub(super) trains: &'a mut Trains,
    pub(super) io: &'a mut B,
    pub(super) want: TrainRequest,
    /// The sockets that `train_request` was made from.
    pub(super) pool: &'a Arc<SourcePortPool>,
    pub(super) map: PoolLayout,
    pub(super) buffer_id: (PoolKind, BufferId),
    /// Offset of the inner packet in its buffer.
    pub(super) start: usize,
    /// Bytes of each segment's header that precede the inner packet.
    pub(super) before: usize,
    /// Number of trains that hold the packet's buffer.
    pub(super) holds: u16,
    /// Segments for which no train was free.
    pub(super) lost: u64,
}

impl<B: PacketIo> SegmentSink for TrainSink<'_, B> {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        let len = header.len() + payload.len();
        let Some(id) = self
            .trains
            .with_room(self.io, &self.want, self.pool, header.len(), len)
        else {
            self.lost += 1;
            return;
        };
        let train = self.trains.train(id);
        let place = self
            .map
            .iovec(self.buffer_id.1, self.start + payload.start, payload.len());
        // SAFETY: `with_room` gave a train that the segment fits into. The payload lies in a mapping that outlives
        // the backend; its buffer is held by the caller that cuts the packet, which then holds it once for each train
        // that has it among its `bids`.
        unsafe { train.push(header, self.before, place) };
        // A segment that lies entirely in the header needs no buffer.
        if !payload.is_empty() && train.buffer_ids.last() != Some(&self.buffer_id) {
            train.buffer_ids.push(self.buffer_id);
            self.holds += 1;
        }
    }
}

/// A parsed packet in a buffer.
#[derive(Clone, Copy)]
pub(super) struct BufferedPacket {
    /// Link that it arrived on.
    pub(super) link: LinkIndex,
    pub(super) side: PoolKind,
    pub(super) buffer_id: BufferId,
    /// Offset of the IP packet in the buffer.
    pub(super) start: usize,
    /// Bytes of the Ethernet header before it that are sent with it.
    pub(super) frame_len: usize,
    pub(super) vnet: VnetHdr,
    pub(super) packet: Packet,
    /// Its size on the wire.
    pub(super) size: WireSize,
}

impl<B: PacketIo> Worker<B> {
    /// Handles one packet from TUN.
    pub(super) fn on_tun(&mut self, tables: &Tables, slot: u32, buffer_id: BufferId, len: usize) {
        self.tun_buffers.hold(buffer_id);
        let staged = self.taps.inner;
        if staged {
            self.stage_tun(buffer_id, len);
        }
        let outcome = self.encapsulate(tables, slot, buffer_id, len);
        if let Err((link, reason, packets)) = outcome {
            if reason == DropReason::NeighborUnresolved {
                self.ask_neighbors(tables);
                if self.park(slot, link, buffer_id, len) {
                    return;
                }
            }
            self.count_drop(TrafficDirection::Egress, link, reason, packets);
            let packet_outcome =
                self.outcome(TrafficDirection::Egress, link, Some(reason), packets);
            if self.taps.want_drop(&packet_outcome) {
                if !staged {
                    self.stage_tun(buffer_id, len);
                }
                let (_, inner) = self.link_protocols(link);
                self.taps.offer_inner(&packet_outcome, inner);
            }
        } else if staged {
            let link = self.links.get(slot as usize).and_then(Option::as_ref);
            let link = link.map(|l| l.index);
            let packet_outcome = self.outcome(TrafficDirection::Egress, link, None, 1);
            let (_, inner) = self.link_protocols(link);
            self.taps.offer_inner(&packet_outcome, inner);
        }
        self.release(PoolKind::Tun, buffer_id);
    }

    fn stage_tun(&mut self, buffer_id: BufferId, len: usize) {
        let bytes = &self.tun_buffers.bytes_mut(buffer_id)[..len];
        self.taps.stage(bytes.get(vnet::LEN..));
    }

    pub(super) fn encapsulate(
        &mut self,
        tables: &Tables,
        slot: u32,
        buffer_id: BufferId,
        len: usize,
    ) -> Result<(), (Option<LinkIndex>, DropReason, u64)> {
        let Some(Some(here)) = self.links.get(slot as usize) else {
            return Err((None, DropReason::LinkGone, 1));
        };
        let index = Some(here.index);
        let once = |reason| (index, reason, 1);
        let link = tables.link(here.index).ok_or(once(DropReason::LinkGone))?;
        let bytes = &mut self.tun_buffers.bytes_mut(buffer_id)[..len];
        let vnet = VnetHdr::parse(bytes).map_err(|_| once(DropReason::BadOffload))?;
        if let Some(bridge) = &link.bridge {
            return self.encapsulate_frame(tables, link, bridge, TunRead { buffer_id, len }, &vnet);
        }
        let inner = &mut bytes[vnet::LEN..];
        let mut packet = Packet::parse(inner).map_err(|e| once(datapath::parse_reason(e)))?;
        let cx = PacketContext {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        match self.egress.decide(&cx, link, inner, &mut packet, &vnet) {
            Ok(encap) => {
                let Encap {
                    output,
                    size,
                    metered,
                } = encap;
                let held = BufferedPacket {
                    link: here.index,
                    side: PoolKind::Tun,
                    buffer_id,
                    start: vnet::LEN,
                    frame_len: 0,
                    vnet,
                    packet,
                    size,
                };
                match output {
                    Output::Host(forward) => {
                        self.send(&held, forward, metered, Some(TunRead { buffer_id, len }))
                    }
                    Output::Link(exit) => self.hairpin(exit, metered, &held),
                }
                .map_err(|(reason, packets)| (index, reason, packets))
            }
            Err(RefusedPacket { reason, answer, .. }) => {
                let told = answer.is_none_or(|answer| {
                    here.answers
                        .take(policy::Direction::Egress, answer, self.now)
                        && reply::into_tun(&mut self.writes, &mut self.io, here, |out| {
                            datapath::answer(&link.config, answer, &packet, inner, out)
                        })
                });
                let reason = if told { reason } else { reason.unanswered() };
                Err((index, reason, WireSize::of(&vnet, &packet).packets))
            }
        }
    }

    /// Sends a packet to another host, or queues it until its rate limits allow; `read` is set for a packet from TUN
    /// that may be handed over uncut.
    pub(super) fn send(
        &mut self,
        held: &BufferedPacket,
        forward: Forward,
        metered: Option<Metered>,
        read: Option<TunRead>,
    ) -> Result<(), (DropReason, u64)> {
        let metered = self.must_wait(metered);
        let BufferedPacket {
            side,
            buffer_id,
            start,
            frame_len,
            ref vnet,
            ref packet,
            size,
            ..
        } = *held;
        let all = |reason| (reason, size.packets);
        let slot = forward.link.0 as usize;
        let Some(Some(mut here)) = self.links.get(slot).map(Option::as_ref) else {
            return Err(all(DropReason::LinkGone));
        };
        let want = train_request(here, forward, frame_len).map_err(all)?;
        let underlay = self.shared.underlay.load(Relaxed);
        let at = (self.now, self.io.idle(), underlay);
        let may_stay = want.forward.uncut && !want.whole && metered.is_none();
        let uncut = read.filter(|_| may_stay).and_then(|read| {
            let before = want.key.before.into();
            let local = here.pool.profile.local;
            let vnet = want.forward.cut.resized(vnet);
            let tunnel = self.tunnel.as_mut()?;
            let way = tunnel.path(&want.forward, &vnet, (packet, before), local, at)?;
            Some((read, way))
        });
        if let Some((read, way)) = uncut {
            if self.hand_over(read, &way, &want, held) {
                return Ok(());
            }
            // No command is obeyed within a packet: it is the link that `train_request` was made for.
            let Some(Some(again)) = self.links.get(slot).map(Option::as_ref) else {
                return Err(all(DropReason::LinkGone));
            };
            here = again;
        }
        let buffers = match side {
            PoolKind::Tun => &mut self.tun_buffers,
            _ => &mut self.udp_buffers,
        };
        let map = buffers.map();
        let (head, inner) = buffers.bytes_mut(buffer_id).split_at_mut(start);
        let header = Arc::clone(&want.forward.encap);
        let mut framed = HeaderBytes::default();
        let encap: &[u8] = if frame_len == 0 {
            &header
        } else {
            framed.clone_from(&header);
            if !framed.push(&head[start - frame_len..]) {
                return Err(all(DropReason::BadOffload));
            }
            &framed
        };
        let cut = want.forward.cut;
        if let Some(metered) = metered {
            let queued_for = QueuedFor {
                direction: match side {
                    PoolKind::Tun => TrafficDirection::Egress,
                    _ => TrafficDirection::Ingress,
                },
                link: held.link,
                to: ShapedOutput::Wire(want.forward),
            };
            let ecn = Ecn::of(packet.tos);
            let shaping = &mut self.shaping;
            let mut out = shaping.queue(&metered, queued_for, encap.len(), ecn, self.now);
            let done = cut.carry_out(encap, vnet, packet, inner, &mut out);
            let refused = out.refused;
            self.shaping.fill(inner);
            self.drop_evicted();
            done.map_err(|error| all(error.into()))?;
            return match refused {
                0 => Ok(()),
                refused => Err((DropReason::RateExceeded, refused)),
            };
        }
        let mut out = TrainSink {
            trains: &mut self.trains,
            io: &mut self.io,
            want,
            pool: &here.pool,
            map,
            buffer_id: (side, buffer_id),
            start,
            before: encap.len(),
            holds: 0,
            lost: 0,
        };
        let done = cut.carry_out(encap, vnet, packet, inner, &mut out);
        let (holds, lost) = (out.holds, out.lost);
        for _ in 0..holds {
            buffers.hold(buffer_id);
        }
        done.map_err(|error| all(error.into()))?;
        if lost > 0 {
            Err((DropReason::NoBuffer, lost))
        } else {
            Ok(())
        }
    }

    /// Writes a packet from TUN to a TUN interface, because the other end of its flow is on this host, too.
    pub(super) fn hairpin(
        &mut self,
        exit: LinkIndex,
        metered: Option<Metered>,
        held: &BufferedPacket,
    ) -> Result<(), (DropReason, u64)> {
        let WireSize { packets, bytes } = held.size;
        let Some(Some(there)) = self.links.get(exit.0 as usize) else {
            return Err((DropReason::LinkGone, packets));
        };
        if let Some(metered) = self.must_wait(metered) {
            let queued_for = QueuedFor {
                direction: TrafficDirection::Egress,
                link: held.link,
                to: ShapedOutput::Tun {
                    exit,
                    lane: 0,
                    to_stack: false,
                },
            };
            return self.queue_for_tun(held, &metered, queued_for);
        }
        let Some(id) = self.writes.take() else {
            return Err((DropReason::NoBuffer, packets));
        };
        let write = self.writes.slot(id);
        write.open(exit, TunWriteKind::Ingress, |scratch| {
            let (hdr, _) = scratch.split_at_mut(vnet::LEN);
            let vnet = held.vnet.before(held.frame_len);
            vnet.write(hdr.try_into().expect("split at LEN"));
            vnet::LEN
        });
        (write.packets, write.bytes) = (packets, bytes);
        let start = held.start - held.frame_len;
        let len = held.frame_len + usize::from(held.packet.total_len);
        let place = self.tun_buffers.map().iovec(held.buffer_id, start, len);
        // SAFETY: the buffer is held for the write; `on_wrote` releases it.
        unsafe { write.push((PoolKind::Tun, held.buffer_id), place) };
        self.tun_buffers.hold(held.buffer_id);
        let queue = there.queue.as_raw_fd();
        // SAFETY: a link's queue is closed only when no write is in flight; the slot is reused only after `Wrote`,
        // and everything pushed is held until then.
        unsafe { self.io.write(id, queue, write.iovs()) };
        Ok(())
    }
}

/// Returns the train that a packet needs, or `Err` if the host's address family has no socket. `frame` is the length
/// of the Ethernet header that is sent with it and is not in the next hop's own prefix.
pub(super) fn train_request(
    here: &LinkSlot,
    forward: Forward,
    frame: usize,
) -> Result<TrainRequest, DropReason> {
    let family = AddressFamily::of(forward.host.addr);
    let whole = here.pool.profile.whole || forward.host.needs_whole(forward.inner);
    let source = here
        .pool
        .pick(family, &forward.outer, forward.hash, whole)
        .ok_or(DropReason::UnderlayUnreachable)?;
    let key = TrainKey {
        link: here.index,
        host: forward.host.id,
        socket: source.socket,
        outer: forward.outer,
        options: forward.slots,
        before: (forward.encap.len() + frame) as u16,
    };
    let sending = match (source.checksum, whole) {
        (true, true) => SendMode::Whole,
        // The kernel refuses trains that it would have to fragment.
        (true, false) if forward.outer.fragment => SendMode::Apart,
        (true, false) if here.gso && forward.host.gso() => SendMode::Together,
        // Datagrams without a checksum are sent one by one.
        _ => SendMode::Apart,
    };
    Ok(TrainRequest {
        key,
        forward,
        source,
        sending,
        whole,
    })
}
