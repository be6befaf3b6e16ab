//! TUN to wire: packets of a turn become trains.
//!
//! What a packet means is decided by `libgeneve::datapath`; here its segments are gathered into
//! trains, which are queued when they are full, when their flow needs another shape, and at the
//! end of the turn.

use std::ops::Range;

use libgeneve::datapath::{self, Forward};
use libgeneve::drop::DropReason;
use libgeneve::link::{Link, Tables};
use libgeneve::mtu;
use libgeneve::offload::fragment::fragment;
use libgeneve::offload::segments::Segments;
use libgeneve::offload::split::split;
use libgeneve::offload::vnet::{self, GsoType, VnetHdr};
use libgeneve::wire::packet::{IpVersion, Packet};

use super::backend::{Backend, Side};
use super::buffers::{Bid, Map};
use super::counters::Direction;
use super::reply;
use super::train::{MAX_SEGMENTS, Train, TrainKey};
use super::tunnel::Read;
use super::udp::{Family, Pick};
use super::worker::{LinkSlot, Worker};

/// Trains that may be open for more segments at once.
const OPEN_TRAINS: usize = 16;

/// Trains that the largest super-packet may need, cut into the smallest segments.
const SCARCE: usize = libgeneve::offload::segments::MAX_SEGMENTS / MAX_SEGMENTS + 2;

/// The trains of one worker.
pub(super) struct Trains {
    /// Never moved: the kernel reads message headers out of it.
    slots: Box<[Train]>,
    free: Vec<u32>,
    open: Vec<u32>,
    /// Full, and to be sent datagram by datagram, because their host or their socket takes no trains.
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

    /// Whether the next super-packet might not find the trains that it needs.
    pub(super) fn scarce(&self) -> bool {
        self.free.len() < SCARCE
    }

    /// Gives the slot of a finished train back.
    pub(super) fn finish(&mut self, id: u32) {
        self.free.push(id);
    }

    /// The next train that is to be sent datagram by datagram; the oldest first.
    pub(super) fn next_apart(&mut self) -> Option<u32> {
        (!self.apart.is_empty()).then(|| self.apart.remove(0))
    }

    /// Queues every open train.
    pub(super) fn flush(&mut self, io: &mut impl Backend) {
        for at in 0..self.open.len() {
            self.queue(io, self.open[at]);
        }
        self.open.clear();
    }

    /// Queues the open train of `key`, so that what takes another way does not overtake it.
    pub(super) fn queue_key(&mut self, io: &mut impl Backend, key: &TrainKey) {
        if let Some(at) = self
            .open
            .iter()
            .position(|&id| self.slots[id as usize].key == *key)
        {
            let id = self.open.remove(at);
            self.queue(io, id);
        }
    }

    fn queue(&mut self, io: &mut impl Backend, id: u32) {
        let train = &mut self.slots[id as usize];
        if train.together {
            io.send(id, train.key.socket, train.message());
        } else {
            self.apart.push(id);
        }
    }

    /// The open train of `key` that has room for such a datagram, or a new one.
    fn with_room(
        &mut self,
        io: &mut impl Backend,
        want: &Want<'_>,
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
        train.open(want.key, want.forward.host, want.port);
        train.together = want.together;
        self.open.push(id);
        Some(id)
    }
}

/// What the segments of one packet need of their train.
pub(super) struct Want<'a> {
    pub(super) key: TrainKey,
    pub(super) forward: Forward<'a>,
    pub(super) source: Pick,
    /// The UDP destination port.
    pub(super) port: u16,
    /// Whether datagrams may be sent as a train.
    together: bool,
}

/// Takes the segments of one packet into trains.
struct IntoTrains<'a, B> {
    trains: &'a mut Trains,
    io: &'a mut B,
    want: Want<'a>,
    map: Map,
    bid: Bid,
    /// Where the inner packet begins in its buffer.
    start: usize,
    /// Trains that hold the packet's buffer.
    holds: u16,
    /// Segments for which there was no train.
    lost: u64,
}

impl<B: Backend> Segments for IntoTrains<'_, B> {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        let len = header.len() + payload.len();
        let Some(id) = self
            .trains
            .with_room(self.io, &self.want, header.len(), len)
        else {
            self.lost += 1;
            return;
        };
        let payload = self
            .map
            .iovec(self.bid, self.start + payload.start, payload.len());
        let train = self.trains.train(id);
        train.push(header, self.want.forward.encap.len(), payload);
        if train.bids.last() != Some(&self.bid) {
            train.bids.push(self.bid);
            self.holds += 1;
        }
    }
}

impl<B: Backend> Worker<B> {
    /// One packet from TUN.
    pub(super) fn on_tun(&mut self, tables: &Tables, slot: u32, bid: Bid, len: usize) {
        self.tun_buffers.hold(bid);
        if let Err((reason, packets)) = self.encapsulate(tables, slot, bid, len) {
            let counters = self
                .links
                .get(slot as usize)
                .and_then(Option::as_ref)
                .map_or(&self.nobody, |l| &l.counters);
            counters.dropped(Direction::Egress, reason, packets);
        }
        if self.tun_buffers.release(bid) {
            self.io.recycle(Side::Tun, bid);
        }
    }

    fn encapsulate(
        &mut self,
        tables: &Tables,
        slot: u32,
        bid: Bid,
        len: usize,
    ) -> Result<(), (DropReason, u64)> {
        let once = |reason| (reason, 1);
        let Some(Some(here)) = self.links.get(slot as usize) else {
            return Err(once(DropReason::LinkGone));
        };
        let link = tables.link(here.index).ok_or(once(DropReason::LinkGone))?;
        let map = self.tun_buffers.map();
        let bytes = &mut self.tun_buffers.bytes_mut(bid)[..len];
        let mut vnet = VnetHdr::parse(bytes).map_err(|_| once(DropReason::BadOffload))?;
        let inner = &mut bytes[vnet::LEN..];
        let packet = Packet::parse(inner).map_err(|e| once(datapath::parse_reason(e)))?;
        let packets = datapath::wire_packets(&vnet, &packet);
        let all = |reason| (reason, packets);

        let forward = datapath::egress(tables, link, &packet).map_err(all)?;
        let want = want(here, link, forward).ok_or(all(DropReason::UnderlayUnreachable))?;
        mtu::clamp_mss(
            inner,
            &packet,
            forward.limit.min(link.config.mtu),
            vnet.needs_checksum(),
        );
        let mut too_long = datapath::longest_segment(&vnet, &packet) > usize::from(forward.limit);
        if too_long && may_cut_shorter(&vnet, &packet) {
            vnet.gso_size = forward.limit.saturating_sub(packet.payload_offset).max(1);
            too_long = false;
        }
        if too_long && !may_fragment(&vnet, &packet) {
            let told = reply::too_big(
                &mut self.writes,
                &mut self.io,
                here,
                inner,
                &packet,
                forward.limit,
            );
            return Err(all(if told {
                DropReason::TooBig
            } else {
                DropReason::TooBigSilent
            }));
        }
        if let Some(tunnel) = self.tunnel.as_mut().filter(|_| !too_long)
            && let Some(way) = tunnel.way(&forward, &vnet, &packet, here.pool.profile.local)
            && self.hand_over(Read { bid, len }, &way, &want, &vnet, &packet)
        {
            return Ok(());
        }
        let bytes = &mut self.tun_buffers.bytes_mut(bid)[..len];
        let inner = &mut bytes[vnet::LEN..];
        let mut out = IntoTrains {
            trains: &mut self.trains,
            io: &mut self.io,
            want,
            map,
            bid,
            start: vnet::LEN,
            holds: 0,
            lost: 0,
        };
        let cut = if too_long {
            fragment(
                forward.encap,
                &vnet,
                &packet,
                inner,
                forward.limit,
                &mut out,
            )
            .map(|_| ())
        } else {
            split(forward.encap, &vnet, &packet, inner, &mut out).map(|_| ())
        };
        let (holds, lost) = (out.holds, out.lost);
        for _ in 0..holds {
            self.tun_buffers.hold(bid);
        }
        cut.map_err(all)?;
        if lost > 0 {
            Err((DropReason::NoBuffer, lost))
        } else {
            Ok(())
        }
    }
}
/// The train that a packet asks for; `None` where the host's address family has no socket.
fn want<'a>(here: &LinkSlot, link: &Link, forward: Forward<'a>) -> Option<Want<'a>> {
    let family = Family::of(forward.host.addr);
    let source = here.pool.pick(family, forward.outer.df, forward.hash)?;
    let key = TrainKey {
        link: here.index,
        host: forward.host.id,
        socket: source.socket,
        outer: forward.outer,
    };
    let together = source.checksum && here.gso && forward.host.gso();
    Some(Want {
        key,
        forward,
        source,
        port: link.config.port,
        together,
    })
}

/// TCP whose sender does not do path MTU discovery may be cut into shorter segments than it asked for.
fn may_cut_shorter(vnet: &VnetHdr, packet: &Packet) -> bool {
    vnet.gso_type == GsoType::TcpV4 && !packet.dont_fragment
}

/// RFC 791: an IPv4 packet without DF is fragmented, not refused.
fn may_fragment(vnet: &VnetHdr, packet: &Packet) -> bool {
    vnet.gso_type == GsoType::None && packet.version == IpVersion::V4 && !packet.dont_fragment
}
