//! Neighbour resolution: solicitations, and the packets from TUN that wait for the answers.
//!
//! Only links that carry IP packets in frames have any. `libgeneve::datapath` decides whom to ask and whether to
//! trust an answer. Off the packet path: a flow waits once, before it begins.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libgeneve::datapath::{self, RequestAudience};
use libgeneve::drop::DropReason;
use libgeneve::l2::FrameDestination;
use libgeneve::time::Now;
use libgeneve::vpc::{Link, LinkIndex, Tables};
use libgeneve::wire::ethernet::Mac;
use libgeneve::wire::header::HeaderBytes;
use nix::sys::eventfd::EventFd;

use super::backend::{PacketIo, PoolKind};
use super::buffer_pool::BufferId;
use super::counters::TrafficDirection;
use super::ingress::TunWrites;
use super::reply::{self, OwnDatagrams};
use super::train::SCRATCH;
use super::worker::Worker;

/// Maximum number of waiting packets. If more would wait, the link that has most of them loses one to a link that has
/// fewer.
const NEIGHBOR_QUEUE_LEN: usize = 16;
/// Maximum waiting time of a packet: its sender has retransmitted it by then (RFC 6298 section 2.1).
const NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Waiting packet from TUN; its buffer is held.
struct ParkedPacket {
    slot: u32,
    link: LinkIndex,
    buffer_id: BufferId,
    len: usize,
    since: Now,
}

/// Waiting packets of one worker.
#[derive(Default)]
pub(super) struct NeighborQueue {
    parked: Vec<ParkedPacket>,
    /// The waker's count at the last retry.
    heard: u64,
}

impl NeighborQueue {
    /// Adds a waiting packet; returns the one that it displaces, if any. Returns the new packet as an error if its
    /// link has its share of the room already.
    fn park(&mut self, newcomer: ParkedPacket) -> Result<Option<ParkedPacket>, ParkedPacket> {
        let displaced = if self.parked.len() < NEIGHBOR_QUEUE_LEN {
            None
        } else {
            let Some(at) = self.displaced_by(newcomer.link) else {
                return Err(newcomer);
            };
            Some(self.parked.remove(at))
        };
        self.parked.push(newcomer);
        Ok(displaced)
    }

    /// Removes the packets of a link.
    fn take_link(&mut self, link: LinkIndex) -> Vec<ParkedPacket> {
        let of_link = self.parked.extract_if(.., |packet| packet.link == link);
        of_link.collect()
    }

    /// Position of the oldest packet of the link that has most, if that link has more than `newcomer` would have with
    /// one more.
    fn displaced_by(&self, newcomer: LinkIndex) -> Option<usize> {
        let of = |link| self.parked.iter().filter(|p| p.link == link).count();
        let most = self
            .parked
            .iter()
            .map(|p| p.link)
            .max_by_key(|&link| of(link))?;
        let oldest = || self.parked.iter().position(|p| p.link == most);
        (of(most) > of(newcomer) + 1).then(oldest).flatten()
    }
}

/// Wakes the workers with waiting packets when any worker hears from a neighbour: the answer may arrive at another
/// worker.
#[derive(Default)]
pub(super) struct NeighborWaker {
    /// Number of neighbour messages so far.
    learned: AtomicU64,
    /// Number of packets waiting in all workers.
    waiting: AtomicUsize,
    wakeups: Mutex<Vec<Arc<EventFd>>>,
}

impl NeighborWaker {
    /// Adds a worker to wake.
    pub(super) fn add(&self, bell: Arc<EventFd>) {
        self.bells().push(bell);
    }

    /// Signals that a neighbour was heard from.
    pub(super) fn ring(&self) {
        self.learned.fetch_add(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            for bell in self.bells().iter() {
                // If the counter is at its maximum, the eventfd is readable anyway.
                let _ = bell.write(1);
            }
        }
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Arc<EventFd>>> {
        self.wakeups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: PacketIo> Worker<B> {
    /// Queues a packet until its neighbour is known; false if its link has its share of the room already. The
    /// caller's reference to the buffer passes to the queue.
    pub(super) fn park(
        &mut self,
        slot: u32,
        link: Option<LinkIndex>,
        buffer_id: BufferId,
        len: usize,
    ) -> bool {
        let Some(link) = link else {
            return false;
        };
        let newcomer = ParkedPacket {
            slot,
            link,
            buffer_id,
            len,
            since: self.now,
        };
        let Ok(displaced) = self.waiting.park(newcomer) else {
            return false;
        };
        self.shared.neighbor_waker.waiting.fetch_add(1, SeqCst);
        if let Some(packet) = displaced {
            let reason = DropReason::NeighborUnresolved;
            self.count_drop(TrafficDirection::Egress, Some(packet.link), reason, 1);
            self.unpark(packet.buffer_id);
        }
        true
    }

    /// Retries the waiting packets if a neighbour was heard from, and drops those that waited too long.
    pub(super) fn retry_parked(&mut self, tables: &Tables) {
        if self.waiting.parked.is_empty() {
            return;
        }
        let heard = self.shared.neighbor_waker.learned.load(SeqCst);
        let news = std::mem::replace(&mut self.waiting.heard, heard) != heard;
        let mut parked = std::mem::take(&mut self.waiting.parked);
        parked.retain(|packet| {
            let unresolved = DropReason::NeighborUnresolved;
            let outcome = if news {
                self.encapsulate(tables, packet.slot, packet.buffer_id, packet.len)
            } else {
                Err((Some(packet.link), unresolved, 1))
            };
            if let Err((link, reason, packets)) = outcome {
                if reason == unresolved && self.now.since(packet.since) < NEIGHBOR_TIMEOUT {
                    return true;
                }
                self.count_drop(TrafficDirection::Egress, link, reason, packets);
            }
            self.unpark(packet.buffer_id);
            false
        });
        self.waiting.parked = parked;
    }

    fn unpark(&mut self, buffer_id: BufferId) {
        self.shared.neighbor_waker.waiting.fetch_sub(1, SeqCst);
        self.release(PoolKind::Tun, buffer_id);
    }

    /// Drops the packets waiting on a link that is being removed, because its slot may be reused.
    pub(super) fn drop_parked(&mut self, link: LinkIndex) {
        for packet in self.waiting.take_link(link) {
            self.count_drop(
                TrafficDirection::Egress,
                Some(link),
                DropReason::LinkGone,
                1,
            );
            self.unpark(packet.buffer_id);
        }
    }

    /// Sends all open solicitations.
    pub(super) fn ask_neighbors(&mut self, tables: &Tables) {
        while let Some(ask) = self.shared.state.question() {
            let Some(link) = tables.link(ask.link) else {
                continue;
            };
            let mut question = [0; SCRATCH];
            let made = datapath::neighbor_question(link, &ask, &mut question);
            let Some((header, len)) = made else {
                continue;
            };
            let here = self.links.get(ask.link.0 as usize);
            let Some(here) = here.and_then(Option::as_ref) else {
                continue;
            };
            let mut datagrams = OwnDatagrams {
                trains: &mut self.trains,
                io: &mut self.io,
                here,
                map: self.udp_buffers.map(),
            };
            let question = &question[..len];
            match ask.audience {
                RequestAudience::Host(host, _) => {
                    datagrams.send(0, link, &host, header, question);
                }
                RequestAudience::Stations(_) => {
                    ask_stations(
                        &mut datagrams,
                        &mut self.writes,
                        link,
                        (header, question),
                        self.now,
                    );
                }
            }
        }
    }
}

/// Sends a query to the TAP interface and to every host of the flood list.
fn ask_stations(
    datagrams: &mut OwnDatagrams<'_, impl PacketIo>,
    writes: &mut TunWrites,
    link: &Link,
    (header, question): (HeaderBytes, &[u8]),
    now: Now,
) {
    let Some(bridge) = &link.bridge else {
        return;
    };
    let frame = &header[link.config.encapsulation.header_len()..];
    reply::into_tun(writes, datagrams.io, datagrams.here, |out| {
        let (head, rest) = out.split_at_mut_checked(frame.len())?;
        head.copy_from_slice(frame);
        rest.get_mut(..question.len())?.copy_from_slice(question);
        Some(frame.len() + question.len())
    });
    if let FrameDestination::All(hosts) = bridge.destination(Mac::BROADCAST, now)
        && bridge.flood_rate.take(1, now)
    {
        for host in hosts.iter() {
            datagrams.send(0, link, host, header, question);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_with_most_waiting_packets_gives_way_until_shares_are_equal() {
        let mut waiting = NeighborQueue::default();
        let packet = |link| ParkedPacket {
            slot: link,
            link: LinkIndex(link),
            buffer_id: 0,
            len: 0,
            since: Now::default(),
        };
        let mut park = |link| {
            let parked = waiting.park(packet(link));
            parked.map(|displaced| displaced.map(|packet| packet.link.0))
        };
        for _ in 0..NEIGHBOR_QUEUE_LEN {
            assert!(matches!(park(1), Ok(None)));
        }
        assert!(park(1).is_err());
        for _ in 0..NEIGHBOR_QUEUE_LEN / 2 {
            assert!(matches!(park(2), Ok(Some(1))));
        }
        assert!(park(2).is_err());
        assert!(matches!(park(3), Ok(Some(1 | 2))));
        assert_eq!(waiting.take_link(LinkIndex(3)).len(), 1);
        assert_eq!(waiting.take_link(LinkIndex(3)).len(), 0);
        assert_eq!(waiting.parked.len(), NEIGHBOR_QUEUE_LEN - 1);
    }
}
