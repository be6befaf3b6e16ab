//! Packets of geneved's own making: what tells an inner sender about the tunnel's MTU, or that it is refused.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use libgeneve::datapath::Forward;
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::vpc::{Host, Link};
use libgeneve::wire::header::{HeaderBytes, MAX_PREFIX_LEN};

use super::backend::{PacketIo, PoolKind};
use super::buffer_pool::PoolLayout;
use super::egress::{TrainSink, Trains, train_request};
use super::ingress::TunWrites;
use super::train::{SCRATCH, TunWriteKind};
use super::worker::LinkSlot;

/// Writes a packet of our own into the link's TUN, where `build` makes one; false where there is no room for it.
pub(super) fn into_tun(
    writes: &mut TunWrites,
    io: &mut impl PacketIo,
    here: &LinkSlot,
    build: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> bool {
    let Some(id) = writes.take() else {
        return false;
    };
    let write = writes.slot(id);
    let mut told = false;
    write.open(here.index, TunWriteKind::Own, |scratch| {
        let (hdr, rest) = scratch.split_at_mut(vnet::LEN);
        VnetHdr::NONE.write(hdr.try_into().expect("split at LEN"));
        let len = build(rest);
        told = len.is_some();
        vnet::LEN + len.unwrap_or(0)
    });
    if told {
        let queue = here.queue.as_raw_fd();
        // SAFETY: a link's queue is closed when no write is under way; the slot is used again after `Wrote`, and all bytes are
        // its own.
        unsafe { io.write(id, queue, write.iovs()) };
    } else {
        writes.finish(id);
    }
    true
}

/// The way of datagrams of our own to the hosts of a link.
pub(super) struct OwnDatagrams<'a, B> {
    pub(super) trains: &'a mut Trains,
    pub(super) io: &'a mut B,
    pub(super) here: &'a LinkSlot,
    /// Of any buffers: what is sent lies in the train itself.
    pub(super) map: PoolLayout,
}

impl<B: PacketIo> OwnDatagrams<'_, B> {
    /// Sends a packet of our own to `host`: `header`, and `answer` behind it. False where it cannot be sent.
    pub(super) fn send(
        &mut self,
        hash: u64,
        link: &Link,
        host: &Arc<Host>,
        header: HeaderBytes,
        answer: &[u8],
    ) -> bool {
        let forward = Forward::of_own(link, host, Arc::new(header), hash);
        let Ok(want) = forward.and_then(|forward| train_request(self.here, forward, 0)) else {
            return false;
        };
        let before = usize::from(want.key.before);
        let mut datagram = [0; MAX_PREFIX_LEN + SCRATCH];
        let (head, rest) = datagram.split_at_mut(header.len());
        head.copy_from_slice(&header);
        rest[..answer.len()].copy_from_slice(answer);
        let len = header.len() + answer.len();
        let mut out = TrainSink {
            trains: self.trains,
            io: self.io,
            want,
            pool: &self.here.pool,
            map: self.map,
            buffer_id: (PoolKind::Udp, 0),
            start: 0,
            before,
            holds: 0,
            lost: 0,
        };
        out.segment(&datagram[..len], 0..0);
        out.lost == 0
    }
}
