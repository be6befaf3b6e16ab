//! Questions for the MAC addresses of neighbours, and the packets from TUN that wait for the answers.
//!
//! Only links that put IP packets into frames have any. Who is asked, and what an answer is worth, is
//! `libgeneve::datapath`'s to decide. Off the packet path: a flow waits once, before it begins.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use libgeneve::bridge::Toward;
use libgeneve::datapath::{self, Audience};
use libgeneve::drop::DropReason;
use libgeneve::link::{Link, LinkIndex, Tables};
use libgeneve::time::Now;
use libgeneve::wire::ethernet::Mac;
use libgeneve::wire::header::HeaderBytes;
use nix::sys::eventfd::EventFd;

use super::backend::{Backend, Side};
use super::buffers::Bid;
use super::counters::Direction;
use super::reply;
use super::train::SCRATCH;
use super::worker::Worker;

/// Packets that wait at once. Where more would, the link that has most of them gives way to one that has fewer.
const ROOM: usize = 16;
/// A packet waits no longer: its sender has sent it again by then (RFC 6298 section 2.1).
const PATIENCE: Duration = Duration::from_secs(1);

/// A packet from TUN; its buffer is held.
struct Parked {
    slot: u32,
    link: LinkIndex,
    bid: Bid,
    len: usize,
    since: Now,
}

/// The waiting packets of one worker.
#[derive(Default)]
pub(super) struct Waiting {
    parked: Vec<Parked>,
    /// What the chime's count was when they were tried last.
    heard: u64,
}

impl Waiting {
    /// The oldest packet of the link that has most, if that is more than `newcomer` would have with one more.
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

/// Wakes the workers whose packets wait when any of them hears a neighbour: the answer may come to another one.
#[derive(Default)]
pub(super) struct Chime {
    /// Messages of neighbours so far.
    heard: AtomicU64,
    /// Packets that wait at all workers.
    waiting: AtomicUsize,
    bells: Mutex<Vec<Arc<EventFd>>>,
}

impl Chime {
    /// A worker more to wake.
    pub(super) fn add(&self, bell: Arc<EventFd>) {
        self.bells().push(bell);
    }

    /// A neighbour was heard.
    pub(super) fn ring(&self) {
        self.heard.fetch_add(1, SeqCst);
        if self.waiting.load(SeqCst) > 0 {
            for bell in self.bells().iter() {
                // A full count rings as well.
                let _ = bell.write(1);
            }
        }
    }

    fn bells(&self) -> MutexGuard<'_, Vec<Arc<EventFd>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Worker<B> {
    /// Lets a packet wait for its neighbour; false where its link has its share of the room. The caller's hold of the
    /// buffer goes with it.
    pub(super) fn park(
        &mut self,
        slot: u32,
        link: Option<LinkIndex>,
        bid: Bid,
        len: usize,
    ) -> bool {
        let Some(link) = link else {
            return false;
        };
        if self.waiting.parked.len() >= ROOM {
            let Some(at) = self.waiting.displaced_by(link) else {
                return false;
            };
            let packet = self.waiting.parked.remove(at);
            let reason = DropReason::NeighborUnresolved;
            self.count_drop(Direction::Egress, Some(packet.link), reason, 1);
            self.unpark(packet.bid);
        }
        let since = self.now;
        self.shared.chime.waiting.fetch_add(1, SeqCst);
        self.waiting.parked.push(Parked {
            slot,
            link,
            bid,
            len,
            since,
        });
        true
    }

    /// Tries the waiting packets again where a neighbour was heard, and drops those that waited long enough.
    pub(super) fn retry_parked(&mut self, tables: &Tables) {
        if self.waiting.parked.is_empty() {
            return;
        }
        let heard = self.shared.chime.heard.load(SeqCst);
        let news = std::mem::replace(&mut self.waiting.heard, heard) != heard;
        let mut parked = std::mem::take(&mut self.waiting.parked);
        parked.retain(|packet| {
            let unresolved = DropReason::NeighborUnresolved;
            let outcome = if news {
                self.encapsulate(tables, packet.slot, packet.bid, packet.len)
            } else {
                Err((Some(packet.link), unresolved, 1))
            };
            if let Err((link, reason, packets)) = outcome {
                if reason == unresolved && self.now.since(packet.since) < PATIENCE {
                    return true;
                }
                self.count_drop(Direction::Egress, link, reason, packets);
            }
            self.unpark(packet.bid);
            false
        });
        self.waiting.parked = parked;
    }

    fn unpark(&mut self, bid: Bid) {
        self.shared.chime.waiting.fetch_sub(1, SeqCst);
        self.release(Side::Tun, bid);
    }

    /// Drops what waits on a link that goes: another may get its place.
    pub(super) fn drop_parked(&mut self, link: LinkIndex) {
        let mut parked = std::mem::take(&mut self.waiting.parked);
        parked.retain(|packet| {
            if packet.link != link {
                return true;
            }
            self.count_drop(Direction::Egress, Some(link), DropReason::LinkGone, 1);
            self.unpark(packet.bid);
            false
        });
        self.waiting.parked = parked;
    }

    /// Puts every question that is open.
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
            let question = &question[..len];
            match ask.audience {
                Audience::Host(host, _) => {
                    self.answer_over_wire(0, link, &host, header, question);
                }
                Audience::Stations(_) => self.ask_stations(link, header, question),
            }
        }
    }

    /// Asks what is behind the TAP interface, and every host of the flood list.
    fn ask_stations(&mut self, link: &Link, header: HeaderBytes, question: &[u8]) {
        let (Some(bridge), Some(Some(here))) =
            (&link.bridge, self.links.get(link.config.index.0 as usize))
        else {
            return;
        };
        let frame = &header[link.config.encapsulation.header_len()..];
        reply::into_tun(&mut self.writes, &mut self.io, here, |out| {
            let (head, rest) = out.split_at_mut_checked(frame.len())?;
            head.copy_from_slice(frame);
            rest.get_mut(..question.len())?.copy_from_slice(question);
            Some(frame.len() + question.len())
        });
        if let Toward::All(hosts) = bridge.toward(Mac::BROADCAST, self.now)
            && bridge.flood_rate.take(1, self.now)
        {
            for host in hosts.iter() {
                self.answer_over_wire(0, link, host, header, question);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_with_most_waiting_packets_gives_way_until_shares_are_equal() {
        let mut waiting = Waiting::default();
        let packet = |link| Parked {
            slot: link,
            link: LinkIndex(link),
            bid: 0,
            len: 0,
            since: Now::default(),
        };
        waiting.parked.extend((0..ROOM).map(|_| packet(1)));
        assert_eq!(waiting.displaced_by(LinkIndex(1)), None);
        for _ in 0..ROOM / 2 {
            let at = waiting.displaced_by(LinkIndex(2)).expect("1 has more");
            assert_eq!(waiting.parked.remove(at).link, LinkIndex(1));
            waiting.parked.push(packet(2));
        }
        assert_eq!(waiting.displaced_by(LinkIndex(2)), None);
        assert!(waiting.displaced_by(LinkIndex(3)).is_some());
    }
}
