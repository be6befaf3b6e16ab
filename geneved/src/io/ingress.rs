//! Wire to TUN: trains of datagrams become super-packets.
//!
//! What a datagram means is decided by `libgeneve::datapath`, what may be merged by
//! `libgeneve::offload::merge`; here the pieces are handed to TUN and the buffers are kept until then.

use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::time::Duration;

use libgeneve::datapath::{self, Answer, Arrival, Context, Decap, Inbound, Output};
use libgeneve::drop::DropReason;
use libgeneve::link::{LinkIndex, Tables};
use libgeneve::offload::merge::{Merger, Part, SuperPacket};
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::policy;
use libgeneve::wire::ethernet::{ETHERNET_HEADER_LEN, VLAN_TAG_LEN};
use libgeneve::wire::packet::{Packet, Transport};

use super::backend::{Arrived, Backend, Side};
use super::buffers::{Bid, Map};
use super::counters::{Counters, Direction};
use super::egress::Held;
use super::engine::Event;
use super::reply::OwnDatagrams;
use super::shape::{Journey, Place, To};
use super::tap::Envelope;
use super::train::{MAX_SEGMENTS, SCRATCH, TunWrite, Write};
use super::udp::Family;
use super::worker::{LinkSlot, Worker, counters_of};

/// Flows that the merger holds open at once.
const MERGED_FLOWS: usize = 16;

/// Between two words of one worker about datagrams that did not come from the underlay.
const NOT_FROM_UNDERLAY_PAUSE: Duration = Duration::from_secs(60);

/// The TUN writes of one worker.
pub(super) struct Writes {
    slots: Vec<TunWrite>,
    free: Vec<u32>,
}

impl Writes {
    pub(super) fn new(count: usize) -> Self {
        Writes {
            slots: (0..count).map(|_| TunWrite::new()).collect(),
            free: (0..count as u32).rev().collect(),
        }
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Whether the next train might not find the writes that it needs: one for each datagram, and what the merger holds.
    pub(super) fn scarce(&self) -> bool {
        self.free.len() < MAX_SEGMENTS + 2 * MERGED_FLOWS
    }

    /// Writes that are under way.
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

/// A packet that was dropped: whose it was, why, and how many packets it is on the wire.
type Dropped = (Option<LinkIndex>, DropReason, u64);

/// What ingress keeps from one datagram to the next.
pub(super) struct Ingress {
    pub(super) decide: datapath::Ingress,
    merger: Merger<(Side, Bid)>,
    /// Buffers of packets that were dropped while the merger held them.
    dead: Vec<(Side, Bid)>,
}

impl Ingress {
    pub(super) fn new(uso: bool) -> Self {
        Ingress {
            decide: datapath::Ingress::default(),
            merger: Merger::new(MERGED_FLOWS, uso),
            dead: Vec::with_capacity(1024),
        }
    }
}

/// A checked packet in a buffer, for TUN.
pub(super) struct Delivery {
    pub(super) side: Side,
    pub(super) bid: Bid,
    /// Where the IP packet begins in the buffer.
    pub(super) start: usize,
    /// Bytes of the Ethernet header before it that go with it.
    pub(super) frame_len: usize,
    /// Only packets of equal lanes may be merged.
    pub(super) lane: u64,
    /// An IP stack is right behind the interface.
    pub(super) to_stack: bool,
    pub(super) packet: Packet,
    /// What TUN must finish, where the packet came unfinished.
    pub(super) vnet: Option<VnetHdr>,
    /// How many packets it is on the wire.
    pub(super) packets: u64,
}

/// Where the buffers of each side are.
struct Maps {
    udp: Map,
    short: Map,
    long: Map,
}

impl Maps {
    fn iovec(&self, (side, bid): (Side, Bid), start: usize, len: usize) -> libc::iovec {
        let map = match side {
            Side::Waiting(Place::Short) => self.short,
            Side::Waiting(Place::Long) => self.long,
            _ => self.udp,
        };
        map.iovec(bid, start, len)
    }
}

/// Hands merged packets to TUN.
struct IntoTun<'a, B> {
    io: &'a mut B,
    writes: &'a mut Writes,
    links: &'a [Option<LinkSlot>],
    /// Counts what is for links that went while their packets were merged.
    nobody: &'a Counters,
    maps: Maps,
    dead: &'a mut Vec<(Side, Bid)>,
}

impl<B: Backend> IntoTun<'_, B> {
    fn emit(&mut self, lane: u64, packet: &SuperPacket<'_, (Side, Bid)>) {
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
                let counters = counters_of(self.links, link, self.nobody);
                counters.dropped(Direction::Ingress, reason, u64::from(packet.segments));
                self.dead.extend(packet.parts.iter().map(|p| p.tag));
                return;
            }
        };
        let write = self.writes.slot(id);
        write.open(link, Write::Ingress, |scratch| {
            let (hdr, rest) = scratch.split_at_mut(vnet::LEN);
            let vnet = packet.vnet.before(frame_len);
            vnet.write(hdr.try_into().expect("split at LEN"));
            rest[..packet.header.len()].copy_from_slice(packet.header);
            vnet::LEN + packet.header.len()
        });
        write.packets = u64::from(packet.segments);
        if frame_len > 0 {
            // The frame's own header is where the first of its packets lies.
            let first = packet.parts[0];
            let start = first.start as usize - packet.header.len() - frame_len;
            let frame = self.maps.iovec(first.tag, start, frame_len);
            // SAFETY: it lies in the buffer of the first part, which is pushed below.
            unsafe { write.insert_frame(frame) };
        }
        for part in packet.parts {
            let place = self
                .maps
                .iovec(part.tag, part.start as usize, part.len as usize);
            // SAFETY: the merger got the part with a hold on its buffer, which becomes the write's; `on_wrote` releases it.
            unsafe { write.push(part.tag, place) };
            write.bytes += u64::from(part.len);
        }
        // Every packet had the headers; those of a packet that came uncut are among its parts, once.
        write.bytes += match packet.header.len() as u64 {
            0 => u64::from(packet.vnet.hdr_len) * write.packets.saturating_sub(1),
            len => len * write.packets,
        };
        let queue = here.queue.as_raw_fd();
        // SAFETY: a link's queue is closed when no write is under way; the slot is used again after `Wrote`, and what was pushed
        // is held until then.
        unsafe { self.io.write(id, queue, write.iovs()) };
    }
}

/// The merger's lane: the link in the upper half; in the lower how long the Ethernet header is, and which run of equal
/// headers.
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

impl<B: Backend> Worker<B> {
    /// One train from the wire.
    pub(super) fn on_datagrams(&mut self, tables: &Tables, slot: u32, bid: Bid, train: &Arrived) {
        self.udp_buffers.hold(bid);
        if let Some(Some(socket)) = self.sockets.get(slot as usize) {
            let arrival = Arrival {
                port: socket.port,
                src: train.src.ip(),
                dst: train.notes.dst,
                tos: train.notes.tos,
                interface: self.rx.of(train.notes.interface),
            };
            self.decapsulate(tables, &arrival, bid, train);
        }
        self.release(Side::Udp, bid);
        self.release_dead();
    }

    fn decapsulate(&mut self, tables: &Tables, arrival: &Arrival, bid: Bid, train: &Arrived) {
        let (start, end) = (train.start as usize, (train.start + train.len) as usize);
        if train.truncated {
            let reason = DropReason::GeneveTruncated;
            self.nobody.dropped(Direction::Ingress, reason, 1);
            let dropped = Some((None, reason, 1));
            self.tell_taps((arrival, train), (bid, start..end), false, dropped);
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
                    .stage([&self.udp_buffers.bytes_mut(bid)[at..next]]);
            }
            let dropped = self.datagram(tables, arrival, bid, at, next);
            if staged || dropped.is_some() {
                self.tell_taps((arrival, train), (bid, at..next), staged, dropped);
            }
            at = next;
            if at >= end {
                return;
            }
        }
    }

    /// Lets taps see a datagram, or the packet inside of one that was dropped.
    fn tell_taps(
        &mut self,
        (arrival, train): (&Arrival, &Arrived),
        (bid, range): (Bid, Range<usize>),
        staged: bool,
        dropped: Option<Dropped>,
    ) {
        let (link, reason, packets) = match dropped {
            Some((link, reason, packets)) => (link, Some(reason), packets),
            None => (None, None, 1),
        };
        let fate = self.fate(Direction::Ingress, link, reason, packets);
        if reason.is_some() && !self.taps.want_drop(&fate) {
            return;
        }
        if !staged {
            self.taps.stage([&self.udp_buffers.bytes_mut(bid)[range]]);
        }
        let unspecified = Family::of(train.src.ip()).unspecified();
        let envelope = Envelope {
            src: train.src,
            dst: SocketAddr::new(train.notes.dst.unwrap_or(unspecified), arrival.port),
            tos: train.notes.tos,
            ttl: None,
        };
        let tables = self.shared.tables.load();
        let encapsulation = tables.encapsulation(arrival.port).unwrap_or_default();
        self.taps
            .offer_outer(&fate, encapsulation, Some(&envelope), 0);
    }

    /// One datagram; what was dropped of it, if it was.
    fn datagram(
        &mut self,
        tables: &Tables,
        arrival: &Arrival,
        bid: Bid,
        at: usize,
        end: usize,
    ) -> Option<Dropped> {
        let bytes = &mut self.udp_buffers.bytes_mut(bid)[at..end];
        let cx = Context {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        match self.ingress.decide.receive(&cx, arrival, bytes) {
            Ok(Inbound::Frame(frame)) => {
                let link = frame.link;
                let reason = self.deliver_frame(frame, bid, at, end).err()?;
                self.count_drop(Direction::Ingress, Some(link), reason, 1);
                Some((Some(link), reason, 1))
            }
            Ok(Inbound::Packet(decap)) => {
                let link = decap.link;
                let (reason, packets) = self.onward(bid, at, decap).err()?;
                self.count_drop(Direction::Ingress, Some(link), reason, packets);
                Some((Some(link), reason, packets))
            }
            Err(refused) => {
                match refused.reason {
                    DropReason::NeighborUnresolved => self.ask_neighbors(tables),
                    DropReason::NeighborAnswered | DropReason::NeighborNoted => {
                        self.shared.chime.ring();
                    }
                    DropReason::UnknownVni => self.note_vni(tables, arrival, (bid, at, end)),
                    DropReason::NotFromUnderlay => {
                        self.tell_not_from_underlay(arrival, refused.link);
                    }
                    _ => {}
                }
                let told = refused.answer.is_none_or(|answer| {
                    self.answer(tables, arrival, answer, (bid, at, end), refused.link)
                });
                let reason = match told {
                    true => refused.reason,
                    false => refused.reason.unanswered(),
                };
                self.count_drop(Direction::Ingress, refused.link, reason, 1);
                Some((refused.link, reason, 1))
            }
        }
    }

    /// Has the daemon tell of a datagram that did not come from the underlay, now and then.
    fn tell_not_from_underlay(&mut self, arrival: &Arrival, link: Option<LinkIndex>) {
        if self.now >= self.next_not_from_underlay {
            self.next_not_from_underlay = self.now + NOT_FROM_UNDERLAY_PAUSE;
            let _ = self.shared.events.send(Event::NotFromUnderlay {
                link,
                src: arrival.src,
                interface: self.rx.index(),
            });
        }
    }

    /// Remembers the VNI of a datagram that no link is for.
    fn note_vni(
        &mut self,
        tables: &Tables,
        arrival: &Arrival,
        (bid, at, end): (Bid, usize, usize),
    ) {
        let bytes = &self.udp_buffers.bytes_mut(bid)[at..end];
        let encapsulation = tables.encapsulation(arrival.port);
        if let Some(Ok(envelope)) = encapsulation.map(|e| e.parse(bytes)) {
            let vni = envelope.vni.into();
            self.unknown_vnis
                .note(vni, arrival.port, arrival.src, self.now.0);
        }
    }

    /// Sends a checked packet on: mostly into TUN, merged with its neighbours.
    fn onward(&mut self, bid: Bid, at: usize, decap: Decap) -> Result<(), (DropReason, u64)> {
        let packets = decap.size.packets;
        if decap.options != 0
            && let Some(Some(here)) = self.links.get(decap.link.0 as usize)
        {
            here.counters
                .options(Direction::Ingress, decap.options, packets);
        }
        let start = at + decap.start;
        let mut held = Held {
            link: decap.link,
            side: Side::Udp,
            bid,
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
                    let journey = Journey {
                        direction: Direction::Ingress,
                        link: decap.link,
                        to: To::Tun {
                            exit,
                            lane: decap.lane,
                            to_stack: decap.to_stack,
                        },
                    };
                    return self.queue_for_tun(&held, &metered, journey);
                }
                let delivery = Delivery {
                    side: Side::Udp,
                    bid,
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

    /// Gives a packet to TUN, perhaps together with those that come next.
    pub(super) fn deliver(&mut self, exit: LinkIndex, delivery: &Delivery) {
        let maps = self.maps();
        let Delivery {
            side, bid, packet, ..
        } = delivery;
        let buffers = match *side {
            Side::Waiting(place) => self.shaping.buffers(place),
            _ => &mut self.udp_buffers,
        };
        // The merger keeps the packet beyond this call.
        buffers.hold(*bid);
        let inner = &mut buffers.bytes_mut(*bid)[delivery.start..];
        let Ingress { merger, dead, .. } = &mut self.ingress;
        let mut into = IntoTun {
            io: &mut self.io,
            writes: &mut self.writes,
            links: &self.links,
            nobody: &self.nobody,
            maps,
            dead,
        };
        let mut out = |lane, packet: SuperPacket<'_, (Side, Bid)>| into.emit(lane, &packet);
        let lane = lane(exit, delivery.frame_len, delivery.lane);
        let (tag, start) = ((*side, *bid), delivery.start as u32);
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

    fn maps(&mut self) -> Maps {
        Maps {
            udp: self.udp_buffers.map(),
            short: self.shaping.buffers(Place::Short).map(),
            long: self.shaping.buffers(Place::Long).map(),
        }
    }

    /// Tells the sender of a datagram's inner packet why it is refused, where that is allowed; false where it could not be
    /// told, or the link's budget is spent.
    fn answer(
        &mut self,
        tables: &Tables,
        arrival: &Arrival,
        answer: Answer,
        (bid, at, end): (Bid, usize, usize),
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
        let bytes = &self.udp_buffers.bytes_mut(bid)[at..end];
        let Some((header, inner)) = datapath::way_back(link, bytes) else {
            return false;
        };
        let mut reply = [0; SCRATCH];
        let (hash, len) = if matches!(answer, Answer::Neighbor(..)) {
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

    /// Hands what the merger still holds to TUN.
    pub(super) fn flush_ingress(&mut self) {
        let maps = self.maps();
        let Ingress { merger, dead, .. } = &mut self.ingress;
        let mut into = IntoTun {
            io: &mut self.io,
            writes: &mut self.writes,
            links: &self.links,
            nobody: &self.nobody,
            maps,
            dead,
        };
        merger.flush(&mut |lane, packet: SuperPacket<'_, (Side, Bid)>| into.emit(lane, &packet));
        self.release_dead();
    }

    fn release_dead(&mut self) {
        while let Some((side, bid)) = self.ingress.dead.pop() {
            self.release(side, bid);
        }
    }

    /// Lets taps see a packet that TUN took, or refused.
    fn tell_taps_of_write(&mut self, id: u32, refused: bool) {
        let reason = refused.then_some(DropReason::TunRefused);
        let (link, packets) = {
            let write = self.writes.slot(id);
            (write.link, write.packets)
        };
        let fate = self.fate(Direction::Ingress, Some(link), reason, packets);
        if refused && !self.taps.want_drop(&fate) {
            return;
        }
        let (_, inner) = self.carries(Some(link));
        self.taps.stage(self.writes.slot(id).pieces(vnet::LEN));
        self.taps.offer_inner(&fate, inner);
    }

    /// A write into TUN or TAP is done.
    pub(super) fn on_wrote(&mut self, tables: &Tables, id: u32, result: i32) {
        let write = self.writes.slot(id);
        let (kind, taken) = (write.kind, write.is_taken(result));
        if kind == Write::Ingress && (self.taps.inner || !taken) {
            self.tell_taps_of_write(id, !taken);
        }
        let write = self.writes.slot(id);
        if kind == Write::Ingress {
            let counters = counters_of(&self.links, write.link, &self.nobody);
            if taken {
                counters.forwarded(Direction::Ingress, write.packets, write.bytes);
            } else {
                counters.dropped(Direction::Ingress, DropReason::TunRefused, write.packets);
            }
        }
        if kind == Write::Egress {
            self.on_handed_over(tables, id, taken);
        } else {
            let mut bids = std::mem::take(&mut self.writes.slot(id).bids);
            for (side, bid) in bids.drain(..) {
                self.release(side, bid);
            }
            self.writes.slot(id).bids = bids;
        }
        self.writes.finish(id);
    }
}

/// A packet that goes to TUN as it came, with the virtio header that makes it whole.
fn unmerged<'a>(
    vnet: VnetHdr,
    packets: u64,
    parts: &'a [Part<(Side, Bid)>],
) -> SuperPacket<'a, (Side, Bid)> {
    SuperPacket {
        vnet,
        header: &[],
        parts,
        segments: packets as u16,
    }
}
