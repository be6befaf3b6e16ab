//! Frames of Ethernet links: TAP to wire, to one host or to all of a list, and what belongs to no flow into TAP.
//!
//! What a frame means is decided by `libgeneve::datapath`; its IP packet is cut, gathered and merged as that of any other
//! link, with its Ethernet header before each piece.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use libgeneve::bridge::Bridge;
use libgeneve::datapath::{self, Answer, Context, Forward, Frame, FrameOutput, Outgoing, Refused};
use libgeneve::drop::DropReason;
use libgeneve::link::{Link, LinkIndex, Tables};
use libgeneve::offload::segments::Segments;
use libgeneve::offload::vnet::{self, GsoType, VnetHdr};

use super::backend::{Backend, Side};
use super::buffers::Bid;
use super::counters::Direction;
use super::egress::{Held, IntoTrains, want};
use super::reply;
use super::train::Write;
use super::tunnel::Read;
use super::worker::Worker;

impl<B: Backend> Worker<B> {
    /// One frame from TAP.
    pub(super) fn encapsulate_frame(
        &mut self,
        tables: &Tables,
        link: &Arc<Link>,
        bridge: &Bridge,
        read: Read,
        vnet: &VnetHdr,
    ) -> Result<(), (Option<LinkIndex>, DropReason, u64)> {
        let index = Some(link.config.index);
        let cx = Context {
            tables,
            state: &self.shared.state,
            now: self.now,
        };
        let frame = &mut self.tun_buffers.bytes_mut(read.bid)[vnet::LEN..read.len];
        match self.egress.frame(&cx, link, bridge, frame, vnet) {
            Ok(FrameOutput::Wire(outgoing)) => self
                .send_frame(link, &outgoing, read)
                .map_err(|(reason, packets)| (index, reason, packets)),
            Ok(FrameOutput::Tap {
                packet,
                header_len,
                vnet,
            }) => {
                let held = Held {
                    side: Side::Tun,
                    bid: read.bid,
                    start: vnet::LEN + header_len,
                    frame_len: header_len,
                    vnet,
                    packet,
                };
                self.turn_back(link, &held)
                    .map_err(|(reason, packets)| (index, reason, packets))
            }
            Err(Refused { reason, answer, .. }) => {
                if matches!(
                    reason,
                    DropReason::NeighborAnswered | DropReason::NeighborNoted
                ) {
                    self.shared.chime.ring();
                }
                let here = self.links.get(link.config.index.0 as usize);
                if let (Some(answer), Some(Some(here))) = (answer, here) {
                    // A question for a neighbour is answered as often as it is asked: without the answer nothing flows.
                    let asked = matches!(answer, Answer::Neighbor(..));
                    if asked || self.answers.take(1, self.now) {
                        reply::into_tun(&mut self.writes, &mut self.io, here, |out| {
                            datapath::answer_frame(&link.config, answer, bridge, frame, out)
                        });
                    }
                }
                Err((index, reason, datapath::frame_packets(vnet, frame)))
            }
        }
    }

    /// Sends a frame to its host, or to each of several.
    fn send_frame(
        &mut self,
        link: &Link,
        outgoing: &Outgoing,
        read: Read,
    ) -> Result<(), (DropReason, u64)> {
        let start = vnet::LEN + outgoing.header_len;
        let Some(packet) = outgoing.packet else {
            let end = read.len;
            return self.each(outgoing, |worker, forward| {
                worker.send_whole(link, forward, read.bid, vnet::LEN..end)
            });
        };
        let mut held = Held {
            side: Side::Tun,
            bid: read.bid,
            start,
            frame_len: outgoing.header_len,
            vnet: outgoing.vnet,
            packet,
        };
        // What the kernel refuses uncut begins its journey again, and must not reach everybody twice.
        let whole = Some(read).filter(|_| outgoing.flood.is_none());
        self.each(outgoing, |worker, forward| {
            let sent = worker.send(link, &held, forward, whole);
            if held.vnet.gso_type == GsoType::None {
                // The first copy had its checksum finished, in the buffer that all share.
                held.vnet = VnetHdr::NONE;
            }
            sent
        })
    }

    /// Calls `send` once for each host that gets the frame; what one does not get counts as not sent.
    fn each(
        &mut self,
        outgoing: &Outgoing,
        mut send: impl FnMut(&mut Self, Forward) -> Result<(), (DropReason, u64)>,
    ) -> Result<(), (DropReason, u64)> {
        let Some(hosts) = &outgoing.flood else {
            return send(self, outgoing.forward.clone());
        };
        let mut result = Ok(());
        for host in hosts.iter() {
            let forward = Forward {
                host: Arc::clone(host),
                ..outgoing.forward.clone()
            };
            let sent = send(self, forward);
            result = result.and(sent);
        }
        result
    }

    /// Sends a frame as it is.
    fn send_whole(
        &mut self,
        link: &Link,
        forward: Forward,
        bid: Bid,
        frame: std::ops::Range<usize>,
    ) -> Result<(), (DropReason, u64)> {
        let Some(Some(here)) = self.links.get(link.config.index.0 as usize) else {
            return Err((DropReason::LinkGone, 1));
        };
        let encap = Arc::clone(&forward.encap);
        let want = want(here, link, forward, 0).map_err(|reason| (reason, 1))?;
        let mut out = IntoTrains {
            trains: &mut self.trains,
            io: &mut self.io,
            want,
            map: self.tun_buffers.map(),
            bid: (Side::Tun, bid),
            start: frame.start,
            before: encap.len(),
            holds: 0,
            lost: 0,
        };
        out.segment(&encap, 0..frame.len());
        let (holds, lost) = (out.holds, out.lost);
        for _ in 0..holds {
            self.tun_buffers.hold(bid);
        }
        match lost {
            0 => Ok(()),
            lost => Err((DropReason::NoBuffer, lost)),
        }
    }

    /// Gives a frame from the wire that belongs to no flow to TAP.
    pub(super) fn deliver_frame(
        &mut self,
        frame: &Frame,
        bid: Bid,
        at: usize,
        end: usize,
    ) -> Result<(), DropReason> {
        let Some(Some(here)) = self.links.get(frame.link.0 as usize) else {
            return Err(DropReason::LinkGone);
        };
        here.counters.options(Direction::Ingress, frame.options, 1);
        // It may tell of a neighbour.
        self.shared.chime.ring();
        let id = self.writes.take().ok_or(DropReason::NoBuffer)?;
        let start = at + frame.start;
        let len = end - start;
        let write = self.writes.slot(id);
        write.open(frame.link, Write::Ingress, |scratch| {
            let (hdr, _) = scratch.split_at_mut(vnet::LEN);
            VnetHdr::NONE.write(hdr.try_into().expect("split at LEN"));
            vnet::LEN
        });
        (write.packets, write.bytes) = (1, len as u64);
        write.push(
            (Side::Udp, bid),
            self.udp_buffers.map().iovec(bid, start, len),
        );
        self.udp_buffers.hold(bid);
        self.io.write(id, here.queue.as_raw_fd(), write.iovs());
        Ok(())
    }
}
