//! Traffic shaper of one worker: queues packets until they are within their rates.
//!
//! Packets with the same buckets and class share a queue, which is bounded in bytes; different queues interact only
//! if they share a bucket, and there each reserves its next portion in turn. The caller keeps the bytes and wakes up
//! at [`Shaper::departure`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::flow_queues::{FlowQueues, NO_PACKET, QueuedItem};
use super::{Bucket, Meter, Metered};
use crate::time::Now;

/// Most queues at once; packets that would need another are dropped.
const QUEUES: usize = 256;
/// The limit of a queue is what its rate carries in this time, in nanoseconds ...
const LONGEST_WAIT: u64 = 20_000_000;
/// ... or two super-packets, if those are not more than it carries in this time, ...
const LONGEST_WAIT_OF_SUPER_PACKETS: u64 = 100_000_000;
const SUPER_PACKETS: u64 = 128 << 10;
/// ... and at least a few packets.
const FEW_PACKETS: u64 = 16 << 10;
/// Target sojourn time, in nanoseconds (RFC 8289 section 4.2) ...
const CODEL_TARGET: u64 = 5_000_000;
/// ... unless this many bytes take longer.
const TARGET_BYTES: u64 = 3 * 1514;
/// A reservation lasts this long, in nanoseconds, and is at most one super-packet.
const PORTION: u64 = 1_000_000;
const LARGEST_PORTION: u64 = 64 << 10;
/// Retry interval of a queue whose bucket has too much reserved already, in nanoseconds.
const RETRY_NANOS: u64 = 1_000_000;

/// Number of packets that may wait in each kind of memory that the caller has.
pub type QueueCapacity = [u16; 2];

/// Packet to be queued.
#[derive(Clone, Copy, Debug)]
pub struct EnqueueRequest {
    /// Length in bytes, charged to its flow's deficit.
    pub bytes: u32,
    /// Bytes charged to its buckets.
    pub cost: u32,
    /// Whether its transport is ECN-capable.
    pub ect: bool,
    /// Kind of memory that it occupies, an index into [`QueueCapacity`].
    pub kind: u8,
}

/// What to do with a departing packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DequeueAction {
    /// Send it.
    Send,
    /// Send it with a congestion experienced (CE) mark.
    Mark,
    /// Drop it, because its flow sends too much.
    Drop,
}

/// Departing packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Dequeued<T> {
    /// What was queued.
    pub item: T,
    /// What to do with it.
    pub outcome: DequeueAction,
}

/// Whether a packet may be queued.
#[derive(Debug, PartialEq, Eq)]
pub enum QueueAdmission<T> {
    /// Yes: [`Shaper::push`] it.
    Granted,
    /// Drop this packet first, because its flow occupies the most room, then ask again.
    Evict(T),
    /// No: drop it.
    Refused,
}

/// Shaper of one worker.
#[derive(Debug)]
pub struct Shaper<T> {
    queues: Vec<ShaperQueue>,
    unused: Vec<u16>,
    /// Queues that are not empty.
    active: Vec<u16>,
    by_identity: HashMap<[usize; 4], u16>,
    /// Queue found last.
    latest: u16,
    nodes: Vec<QueuedItem<T>>,
    free_nodes: Vec<u16>,
    /// Free places in each kind of memory.
    free: QueueCapacity,
    /// Active queues that have had their turn.
    visited: usize,
    /// Earliest departure among the queues visited so far.
    departure: Option<Now>,
}

#[derive(Debug)]
struct ShaperQueue {
    meter: Arc<Meter>,
    /// Identity of its meter; zeros while unused.
    identity: [usize; 4],
    flows: FlowQueues,
    packets: QueueCapacity,
    /// Bytes that are charged and may be sent now.
    credit: u64,
    /// Bytes that are charged and may be sent from `due` on.
    reserved: u64,
    due: Now,
    limit: u64,
    portion: u64,
    target: u64,
}

impl<T> Shaper<T> {
    /// Returns an empty shaper. All memory is allocated here.
    #[must_use]
    pub fn new(capacity: QueueCapacity) -> Self {
        let nodes = capacity.iter().map(|&n| usize::from(n)).sum::<usize>();
        let nodes = nodes.min(usize::from(NO_PACKET));
        Shaper {
            queues: Vec::with_capacity(QUEUES),
            unused: Vec::with_capacity(QUEUES),
            active: Vec::with_capacity(QUEUES),
            by_identity: HashMap::with_capacity(2 * QUEUES),
            latest: 0,
            nodes: Vec::with_capacity(nodes),
            free_nodes: Vec::with_capacity(nodes),
            free: capacity,
            visited: 0,
            departure: None,
        }
    }

    /// Whether nothing is queued.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// Whether packets are queued that a packet with this meter must not overtake.
    #[inline]
    #[must_use]
    pub fn waits_for(&self, meter: &Meter) -> bool {
        !self.is_empty() && self.find(&meter.identity()).is_some()
    }

    /// Whether a packet of this length and kind of memory may be queued. The share of a queue shrinks as memory runs
    /// low: it may occupy as many places as are free.
    pub fn admit(&mut self, metered: &Metered, bytes: u32, kind: u8) -> QueueAdmission<T> {
        let kind = usize::from(kind);
        let free = self.free.get(kind).copied().unwrap_or(0);
        let Some(id) = self.find(&metered.meter.identity()) else {
            let possible = free > 0 && self.active.len() < QUEUES;
            return if possible {
                QueueAdmission::Granted
            } else {
                QueueAdmission::Refused
            };
        };
        let queue = &self.queues[usize::from(id)];
        let limit = match metered.meter.precedence {
            0 => queue.limit,
            1 => queue.limit - queue.limit / 3,
            _ => queue.limit / 3,
        };
        let fits = queue.flows.bytes == 0 || queue.flows.bytes + u64::from(bytes) <= limit;
        if fits && queue.packets[kind] < free {
            return QueueAdmission::Granted;
        }
        let fattest = queue.flows.fattest();
        if metered.meter.precedence > 0 || fattest == FlowQueues::of(metered.flow) {
            return QueueAdmission::Refused;
        }
        match self.take(id, fattest) {
            Some((node, item)) => {
                let queue = &self.queues[usize::from(id)];
                queue.meter.count(node.cost.into(), false);
                QueueAdmission::Evict(item)
            }
            None => QueueAdmission::Refused,
        }
    }

    /// Queues a packet that was [admitted](Shaper::admit).
    pub fn push(&mut self, metered: &Metered, packet: EnqueueRequest, now: Now, item: T) {
        let id = self.queue(&metered.meter);
        let node = QueuedItem {
            item: Some(item),
            next: NO_PACKET,
            bytes: packet.bytes.max(1),
            cost: packet.cost,
            ect: packet.ect,
            kind: packet.kind,
            since: now,
        };
        let at = match self.free_nodes.pop() {
            Some(at) => {
                self.nodes[usize::from(at)] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u16
            }
        };
        let queue = &mut self.queues[usize::from(id)];
        let kind = usize::from(packet.kind);
        queue.packets[kind] += 1;
        self.free[kind] -= 1;
        queue.wait(packet.cost.into(), true);
        let flow = FlowQueues::of(metered.flow);
        queue.flows.push(&mut self.nodes, flow, at);
    }

    /// Starts a round: every queue gets a turn, and the one served first last time comes last.
    pub fn begin(&mut self) {
        self.visited = 0;
        self.departure = None;
        if self.active.len() > 1 {
            self.active.rotate_left(1);
        }
    }

    /// Returns the next packet that may leave now; `None` if all others must wait.
    pub fn next(&mut self, now: Now) -> Option<Dequeued<T>> {
        while let Some(&id) = self.active.get(self.visited) {
            match self.serve(id, now) {
                QueueService::Packet(leaving) => return Some(leaving),
                QueueService::Later(due) => {
                    let sooner = self.departure.is_none_or(|first| due < first);
                    if sooner {
                        self.departure = Some(due);
                    }
                    self.visited += 1;
                }
                QueueService::Empty => self.retire(self.visited),
            }
        }
        None
    }

    /// Returns when the next packet may leave. Call it after [`Shaper::next`] has returned `None`.
    #[inline]
    #[must_use]
    pub fn departure(&self) -> Option<Now> {
        self.departure
    }

    /// Keeps only the packets for which `keep` returns true.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool, mut gone: impl FnMut(T)) {
        for &id in &self.active {
            let queue = &mut self.queues[usize::from(id)];
            for flow in 0..super::flow_queues::FLOW_QUEUES {
                let mut left = queue.flows.count(&self.nodes, flow);
                while left > 0
                    && let Some(at) = queue.flows.pop(&self.nodes, flow)
                {
                    left -= 1;
                    let node = &mut self.nodes[usize::from(at)];
                    if node.item.as_ref().is_some_and(&keep) {
                        queue.flows.push(&mut self.nodes, flow, at);
                        continue;
                    }
                    let kind = usize::from(node.kind);
                    queue.packets[kind] -= 1;
                    self.free[kind] += 1;
                    queue.wait(node.cost.into(), false);
                    self.free_nodes.push(at);
                    if let Some(item) = node.item.take() {
                        gone(item);
                    }
                }
            }
        }
    }

    fn serve(&mut self, id: u16, now: Now) -> QueueService<T> {
        loop {
            let queue = &mut self.queues[usize::from(id)];
            let Some((flow, at)) = queue.flows.turn() else {
                return QueueService::Empty;
            };
            let cost = u64::from(self.nodes[usize::from(at)].cost);
            if queue.credit < cost {
                match queue.pay(cost, now) {
                    Some(due) => return QueueService::Later(due),
                    None => continue,
                }
            }
            let Some((node, item)) = self.take(id, flow) else {
                return QueueService::Empty;
            };
            let queue = &mut self.queues[usize::from(id)];
            let waited = now.0.saturating_sub(node.since.0);
            let outcome = match queue.flows.judge(flow, waited, queue.target, now) {
                false => DequeueAction::Send,
                true if node.ect => DequeueAction::Mark,
                true => DequeueAction::Drop,
            };
            queue.meter.count(cost, outcome != DequeueAction::Drop);
            if outcome != DequeueAction::Drop {
                queue.credit -= cost;
                queue.flows.charge(flow, node.bytes);
            }
            if let (DequeueAction::Mark, Some(class)) = (outcome, &queue.meter.class) {
                class.tally.marked.fetch_add(cost, Relaxed);
            }
            return QueueService::Packet(Dequeued { item, outcome });
        }
    }

    /// Removes the first packet of a flow.
    fn take(&mut self, id: u16, flow: usize) -> Option<(DequeuedPacket, T)> {
        let queue = &mut self.queues[usize::from(id)];
        let at = queue.flows.pop(&self.nodes, flow)?;
        let node = &mut self.nodes[usize::from(at)];
        let kind = usize::from(node.kind);
        queue.packets[kind] -= 1;
        self.free[kind] += 1;
        queue.wait(node.cost.into(), false);
        self.free_nodes.push(at);
        let taken = DequeuedPacket {
            bytes: node.bytes,
            cost: node.cost,
            ect: node.ect,
            since: node.since,
        };
        Some((taken, node.item.take()?))
    }

    /// Returns the queue for packets with this meter.
    #[inline]
    fn find(&self, identity: &[usize; 4]) -> Option<u16> {
        match self.queues.get(usize::from(self.latest)) {
            Some(latest) if latest.identity == *identity => Some(self.latest),
            _ => self.by_identity.get(identity).copied(),
        }
    }

    /// Returns the queue for this meter; makes one if there is none.
    fn queue(&mut self, meter: &Arc<Meter>) -> u16 {
        let identity = meter.identity();
        if let Some(id) = self.find(&identity) {
            self.latest = id;
            return id;
        }
        let queue = ShaperQueue::new(Arc::clone(meter), identity);
        let id = match self.unused.pop() {
            Some(id) => {
                self.queues[usize::from(id)] = queue;
                id
            }
            None => {
                self.queues.push(queue);
                (self.queues.len() - 1) as u16
            }
        };
        self.active.push(id);
        self.latest = id;
        self.by_identity.insert(identity, id);
        id
    }

    /// Releases an empty queue.
    fn retire(&mut self, active: usize) {
        let id = self.active.swap_remove(active);
        let identity = std::mem::take(&mut self.queues[usize::from(id)].identity);
        self.by_identity.remove(&identity);
        self.unused.push(id);
    }
}

/// Result of a queue's turn.
enum QueueService<T> {
    Packet(Dequeued<T>),
    Later(Now),
    Empty,
}

/// Metadata of a packet that was removed.
struct DequeuedPacket {
    bytes: u32,
    cost: u32,
    ect: bool,
    since: Now,
}

impl ShaperQueue {
    fn new(meter: Arc<Meter>, identity: [usize; 4]) -> ShaperQueue {
        let rate = meter.buckets().map(Bucket::rate).min().unwrap_or(u64::MAX);
        let burst = meter.buckets().map(Bucket::burst).min().unwrap_or(u64::MAX);
        let rate = rate.max(1);
        let carries = |nanos: u64| {
            let bytes = u128::from(rate) * u128::from(nanos) / 1_000_000_000;
            u64::try_from(bytes).unwrap_or(u64::MAX)
        };
        let lasts = |bytes: u64| bytes.saturating_mul(1_000_000_000) / rate;
        let super_packets = carries(LONGEST_WAIT_OF_SUPER_PACKETS).min(SUPER_PACKETS);
        ShaperQueue {
            meter,
            identity,
            flows: FlowQueues::new(),
            packets: [0; 2],
            credit: 0,
            reserved: 0,
            due: Now(0),
            limit: carries(LONGEST_WAIT).max(super_packets).max(FEW_PACKETS),
            // At most a quarter of the burst, so that a worker may run late by the rest of it without losing rate.
            portion: carries(PORTION).min(LARGEST_PORTION).min(burst / 4),
            target: CODEL_TARGET.max(lasts(TARGET_BYTES)),
        }
    }

    /// Gets credit for a packet that costs more than there is; returns the time to try again if that is in the
    /// future.
    fn pay(&mut self, cost: u64, now: Now) -> Option<Now> {
        if self.reserved == 0 {
            let lacking = cost - self.credit;
            let bytes = lacking.max(self.portion.min(self.flows.bytes));
            let mut due = now;
            for bucket in self.meter.buckets() {
                let Some(moment) = bucket.reserve(bytes, now) else {
                    // What the buckets before this one granted is lost; the rate is never exceeded.
                    return Some(Now(now.0 + RETRY_NANOS));
                };
                due = due.max(moment);
            }
            (self.reserved, self.due) = (bytes, due);
        }
        if self.due > now {
            return Some(self.due);
        }
        self.credit += std::mem::take(&mut self.reserved);
        None
    }

    /// Updates the counter of queued bytes.
    fn wait(&self, bytes: u64, begins: bool) {
        if let Some(class) = &self.meter.class {
            let waiting = &class.tally.waiting;
            if begins {
                waiting.fetch_add(bytes, Relaxed);
            } else {
                waiting.fetch_sub(bytes, Relaxed);
            }
        }
    }
}

#[cfg(test)]
#[path = "shaper_tests.rs"]
mod tests;
