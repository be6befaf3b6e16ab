//! Frames of Ethernet links: TAP to wire, to one host or a flood list, and frames that belong to no flow to TAP.
//!
//! `libgeneve::datapath` decides what happens to a frame; its IP packet is segmented, gathered and merged like that
//! of any other link, with its Ethernet header before each piece.

use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use libgeneve::datapath::{
    self, Forward, FrameForward, IngressFrame, Output, PacketContext, RefusedPacket,
};
use libgeneve::drop::DropReason;
use libgeneve::ecn::Ecn;
use libgeneve::l2::Bridge;
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::vnet::{self, GsoType, VnetHdr};
use libgeneve::policy;
use libgeneve::qos::Metered;
use libgeneve::vpc::{Link, LinkIndex, Tables};

use super::backend::{PacketIo, PoolKind};
use super::buffer_pool::BufferId;
use super::counters::TrafficDirection;
use super::egress::{BufferedPacket, TrainSink, train_request};
use super::reply;
use super::shape::{QueuedFor, ShapedOutput};
use super::train::TunWriteKind;
use super::tunnel_gso::TunRead;
use super::worker::Worker;

impl<B: PacketIo> Worker<B> {
    /// Forwards one frame from TAP.
    pub(super) fn encapsulate_frame(
        &mut self,
        tables: &Tables,
        link: &Arc<Link>,
        bridge: &Bridge,
        read: TunRead,
        vnet: &VnetHdr,
    ) -> Result<(), (Option<LinkIndex>, DropReason, u64)> {
        let index = Some(link.config.index);
        let cx = PacketContext {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        let frame = &mut self.tun_buffers.bytes_mut(read.buffer_id)[vnet::LEN..read.len];
        match self.egress.frame(&cx, link, bridge, frame, vnet) {
            Ok(outgoing) => self
                .send_frame(link, outgoing, read)
                .map_err(|(reason, packets)| (index, reason, packets)),
            Err(RefusedPacket { reason, answer, .. }) => {
                if matches!(
                    reason,
                    DropReason::NeighborAnswered | DropReason::NeighborNoted
                ) {
                    self.shared.neighbor_waker.ring();
                }
                let here = self.links.get(link.config.index.0 as usize);
                let here = here.and_then(Option::as_ref);
                let told = answer.is_none_or(|answer| {
                    here.is_some_and(|here| {
                        here.answers
                            .take(policy::Direction::Egress, answer, self.now)
                            && reply::into_tun(&mut self.writes, &mut self.io, here, |out| {
                                datapath::answer_frame(&link.config, answer, bridge, frame, out)
                            })
                    })
                });
                let reason = if told { reason } else { reason.unanswered() };
                Err((index, reason, datapath::frame_packets(vnet, frame)))
            }
        }
    }

    /// Sends a frame to its host or to several, or writes it back to the TAP interface.
    fn send_frame(
        &mut self,
        link: &Link,
        mut outgoing: FrameForward,
        read: TunRead,
    ) -> Result<(), (DropReason, u64)> {
        let mut metered = outgoing.metered.take();
        let Some(packet) = outgoing.packet else {
            let end = read.len;
            return self.each(link, &outgoing, |worker, forward| {
                let metered = paid_once(&mut metered);
                worker.send_whole(forward, metered, read.buffer_id, vnet::LEN..end)
            });
        };
        let mut held = BufferedPacket {
            link: link.config.index,
            side: PoolKind::Tun,
            buffer_id: read.buffer_id,
            start: vnet::LEN + outgoing.header_len,
            frame_len: outgoing.header_len,
            vnet: outgoing.vnet,
            packet,
            size: outgoing.size,
        };
        if let Output::Link(exit) = outgoing.output {
            return self.hairpin(exit, metered, &held);
        }
        // A packet that the kernel refuses unsegmented is sent again; a flooded one must not reach every host twice.
        let whole = Some(read).filter(|_| outgoing.flood.is_none());
        self.each(link, &outgoing, |worker, forward| {
            let sent = worker.send(&held, forward, paid_once(&mut metered), whole);
            if held.vnet.gso_type == GsoType::None {
                // The first copy had its checksum finished, in the buffer that all copies share.
                held.vnet = VnetHdr::NONE;
            }
            sent
        })
    }

    /// Calls `send` once for each host that gets the frame; failed copies count as not sent.
    fn each(
        &mut self,
        link: &Link,
        outgoing: &FrameForward,
        mut send: impl FnMut(&mut Self, Forward) -> Result<(), (DropReason, u64)>,
    ) -> Result<(), (DropReason, u64)> {
        let mut result = Ok(());
        for way in outgoing.ways(link) {
            let sent = match way {
                Ok(forward) => send(self, forward),
                Err(reason) => Err((reason, outgoing.size.packets)),
            };
            result = result.and(sent);
        }
        result
    }

    /// Sends a frame unchanged.
    fn send_whole(
        &mut self,
        forward: Forward,
        metered: Option<Metered>,
        buffer_id: BufferId,
        frame: Range<usize>,
    ) -> Result<(), (DropReason, u64)> {
        let index = forward.link;
        if let Some(metered) = self.must_wait(metered) {
            let encap = Arc::clone(&forward.encap);
            let queued_for = QueuedFor {
                direction: TrafficDirection::Egress,
                link: index,
                to: ShapedOutput::Wire(forward),
            };
            return self.queue_frame(
                (PoolKind::Tun, buffer_id, frame),
                &encap,
                &metered,
                queued_for,
            );
        }
        let Some(Some(here)) = self.links.get(index.0 as usize) else {
            return Err((DropReason::LinkGone, 1));
        };
        let encap = Arc::clone(&forward.encap);
        let want = train_request(here, forward, 0).map_err(|reason| (reason, 1))?;
        let mut out = TrainSink {
            trains: &mut self.trains,
            io: &mut self.io,
            want,
            pool: &here.pool,
            map: self.tun_buffers.map(),
            buffer_id: (PoolKind::Tun, buffer_id),
            start: frame.start,
            before: encap.len(),
            holds: 0,
            lost: 0,
        };
        out.segment(&encap, 0..frame.len());
        let (holds, lost) = (out.holds, out.lost);
        for _ in 0..holds {
            self.tun_buffers.hold(buffer_id);
        }
        match lost {
            0 => Ok(()),
            lost => Err((DropReason::NoBuffer, lost)),
        }
    }

    /// Writes a frame from the wire that belongs to no flow to TAP.
    pub(super) fn deliver_frame(
        &mut self,
        frame: IngressFrame,
        buffer_id: BufferId,
        at: usize,
        end: usize,
    ) -> Result<(), DropReason> {
        let Some(Some(here)) = self.links.get(frame.link.0 as usize) else {
            return Err(DropReason::LinkGone);
        };
        here.counters
            .options(TrafficDirection::Ingress, frame.options, 1);
        // It may announce a neighbour.
        self.shared.neighbor_waker.ring();
        let range = at + frame.start..end;
        let Some(metered) = self.must_wait(frame.metered) else {
            return self.write_frame(frame.link, (PoolKind::Udp, buffer_id), range);
        };
        let queued_for = QueuedFor {
            direction: TrafficDirection::Ingress,
            link: frame.link,
            to: ShapedOutput::Tap(frame.link),
        };
        self.queue_frame((PoolKind::Udp, buffer_id, range), &[], &metered, queued_for)
            .map_err(|(reason, _)| reason)
    }

    /// Writes a frame to TAP unchanged.
    pub(super) fn write_frame(
        &mut self,
        exit: LinkIndex,
        (side, buffer_id): (PoolKind, BufferId),
        range: Range<usize>,
    ) -> Result<(), DropReason> {
        let here = self.links.get(exit.0 as usize).and_then(Option::as_ref);
        let here = here.ok_or(DropReason::LinkGone)?;
        let id = self.writes.take().ok_or(DropReason::NoBuffer)?;
        let write = self.writes.slot(id);
        write.open(exit, TunWriteKind::Ingress, |scratch| {
            let (hdr, _) = scratch.split_at_mut(vnet::LEN);
            VnetHdr::NONE.write(hdr.try_into().expect("split at LEN"));
            vnet::LEN
        });
        (write.packets, write.bytes) = (1, range.len() as u64);
        let buffers = match side {
            PoolKind::Tun => &mut self.tun_buffers,
            PoolKind::Udp => &mut self.udp_buffers,
            PoolKind::Waiting(place) => self.shaping.buffers(place),
        };
        let place = buffers.map().iovec(buffer_id, range.start, range.len());
        // SAFETY: the buffer is held for the write; `on_wrote` releases it.
        unsafe { write.push((side, buffer_id), place) };
        buffers.hold(buffer_id);
        let queue = here.queue.as_raw_fd();
        // SAFETY: a link's queue is closed only when no write is in flight; the slot is reused only after `Wrote`,
        // and everything pushed is held until then.
        unsafe { self.io.write(id, queue, write.iovs()) };
        Ok(())
    }

    /// Queues a frame, unchanged and behind `encap`, until its rate limits allow it.
    fn queue_frame(
        &mut self,
        (side, buffer_id, range): (PoolKind, BufferId, Range<usize>),
        encap: &[u8],
        metered: &Metered,
        queued_for: QueuedFor,
    ) -> Result<(), (DropReason, u64)> {
        let buffers = match side {
            PoolKind::Tun => &mut self.tun_buffers,
            _ => &mut self.udp_buffers,
        };
        let frame = &buffers.bytes_mut(buffer_id)[range];
        let shaping = &mut self.shaping;
        let mut out = shaping.queue(metered, queued_for, encap.len(), Ecn::NotEct, self.now);
        out.segment(encap, 0..frame.len());
        let refused = out.refused;
        self.shaping.fill(frame);
        self.drop_evicted();
        match refused {
            0 => Ok(()),
            refused => Err((DropReason::RateExceeded, refused)),
        }
    }
}

/// Returns the charge for one copy of a frame: the first copy pays for all.
fn paid_once(metered: &mut Option<Metered>) -> Option<Metered> {
    let now = metered.clone();
    if let Some(metered) = metered {
        metered.bytes = 0;
    }
    now
}
