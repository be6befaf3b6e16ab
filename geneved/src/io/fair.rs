//! Fair queueing between TUN queues and sockets: packets that were read wait in a queue per source, and the sources
//! take turns.
//!
//! Deficit round robin (RFC 8290 uses the same), weighted by what a packet or train costs to forward rather than by
//! bytes: a train of sixty small datagrams is the work of sixty. A source with few waiting packets is served within
//! one round, however many others have.

use std::collections::VecDeque;

/// Cost that a source may spend before the next one is served, in units of [`cost`]: one train of datagrams.
const SOURCE_QUANTUM: i32 = 64;

/// Cost to forward a packet or a train of `datagrams`, `len` bytes in total. One small packet costs 1.
pub(super) fn cost(datagrams: usize, len: usize) -> i32 {
    (datagrams + len / 4096) as i32
}

/// Queue of packets by source. Sources are numbered from 0; each must be added before its first packet.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// Slab of packets with intrusive lists: one list for each source, and the free list.
    packets: Vec<QueuedPacket<T>>,
    free: Option<u32>,
    sources: Vec<SourceQueue>,
    /// Sources with waiting packets, in the order in which they are served.
    round: VecDeque<u32>,
}

#[derive(Debug)]
struct QueuedPacket<T> {
    what: Option<T>,
    cost: i32,
    next: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SourceQueue {
    first: Option<u32>,
    last: Option<u32>,
    credit: i32,
}

impl<T> FairQueue<T> {
    /// Returns a queue with room for this many packets.
    pub(super) fn new(packets: usize) -> Self {
        let chain = (0..packets as u32).map(|at| QueuedPacket {
            what: None,
            cost: 0,
            next: (at > 0).then(|| at - 1),
        });
        FairQueue {
            packets: chain.collect(),
            free: packets.checked_sub(1).map(|last| last as u32),
            sources: Vec::new(),
            round: VecDeque::with_capacity(packets),
        }
    }

    /// Adds a source.
    pub(super) fn add_source(&mut self, source: u32) {
        let needed = source as usize + 1;
        if self.sources.len() < needed {
            self.sources.resize(needed, SourceQueue::default());
        }
    }

    /// Whether no packet waits.
    pub(super) fn is_empty(&self) -> bool {
        self.round.is_empty()
    }

    /// Whether packets of several sources wait.
    pub(super) fn is_shared(&self) -> bool {
        self.round.len() > 1
    }

    /// Adds a packet. There is room for as many as there are buffers; a packet beyond that is returned.
    pub(super) fn push(&mut self, source: u32, cost: i32, what: T) -> Result<(), T> {
        let (Some(at), Some(queue)) = (self.free, self.sources.get_mut(source as usize)) else {
            return Err(what);
        };
        let packet = &mut self.packets[at as usize];
        self.free = packet.next.take();
        (packet.what, packet.cost) = (Some(what), cost);
        match queue.last.replace(at) {
            Some(last) => self.packets[last as usize].next = Some(at),
            None => {
                queue.first = Some(at);
                queue.credit = SOURCE_QUANTUM;
                self.round.push_back(source);
            }
        }
        Ok(())
    }

    /// Takes the next packet, with its cost.
    pub(super) fn pop(&mut self) -> Option<(T, i32)> {
        let source = loop {
            let source = *self.round.front()?;
            let queue = &mut self.sources[source as usize];
            if queue.credit > 0 {
                break source;
            }
            queue.credit += SOURCE_QUANTUM;
            self.round.rotate_left(1);
        };
        let queue = &mut self.sources[source as usize];
        let at = queue.first?;
        let packet = &mut self.packets[at as usize];
        queue.first = packet.next;
        queue.credit -= packet.cost;
        packet.next = self.free.replace(at);
        if queue.first.is_none() {
            queue.last = None;
            self.round.pop_front();
        }
        Some((packet.what.take()?, packet.cost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> FairQueue<(u32, u32)> {
        let mut queue = FairQueue::new(100);
        (0..3).for_each(|source| queue.add_source(source));
        queue
    }

    #[test]
    fn a_source_alone_is_served_in_order_and_places_come_back() {
        let mut queue = queue();
        for lap in 0..50 {
            for number in 0..100 {
                assert_eq!(queue.push(1, 30, (lap, number)), Ok(()));
            }
            assert_eq!(queue.push(1, 1, (9, 9)), Err((9, 9)), "no room");
            for number in 0..100 {
                assert_eq!(queue.pop(), Some(((lap, number), 30)));
            }
            assert_eq!(queue.pop(), None);
            assert!(queue.is_empty());
        }
        assert_eq!(queue.push(3, 1, (0, 0)), Err((0, 0)), "not a source");
    }

    #[test]
    fn who_has_little_waits_for_one_train_of_each_other() {
        let mut queue = queue();
        for number in 0..40 {
            queue.push(0, 80, (0, number)).unwrap();
            queue.push(2, 80, (2, number)).unwrap();
        }
        for number in 0..20 {
            queue.push(1, 1, (1, number)).unwrap();
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order.len(), 100);
        let last = order.iter().rposition(|((source, _), _)| *source == 1);
        assert_eq!(last, Some(21));
        for source in 0..3 {
            let of = order.iter().filter(|((from, _), _)| *from == source);
            assert!(of.map(|((_, number), _)| number).is_sorted());
        }
    }

    #[test]
    fn shares_are_by_what_packets_cost() {
        let mut queue = queue();
        let (mut waiting, mut spent) = ([0; 2], [0; 2]);
        for _ in 0..10_000 {
            for (source, cost) in [(0, 64), (1, 4)] {
                while waiting[source] < 40 {
                    queue.push(source as u32, cost, (source as u32, 0)).unwrap();
                    waiting[source] += 1;
                }
            }
            let ((source, _), cost) = queue.pop().unwrap();
            waiting[source as usize] -= 1;
            spent[source as usize] += cost;
        }
        let ratio = f64::from(spent[0]) / f64::from(spent[1]);
        assert!((0.9..1.1).contains(&ratio), "{spent:?}");
    }
}
