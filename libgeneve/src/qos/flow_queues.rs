//! Flow queues of one set of buckets, served by deficit round robin (RFC 8290).
//!
//! A flow that starts to queue is served before the flows that are queued already, for one quantum, so that a sparse
//! flow never waits behind a bulk flow.

use super::codel::Codel;
use crate::time::Now;

/// Flow queues in a set.
pub(super) const FLOW_QUEUES: usize = 64;
/// Bytes that a flow may send in one turn.
const QUANTUM_BYTES: i64 = 1514;
const NO_FLOW: u8 = u8::MAX;
pub(super) const NO_PACKET: u16 = u16::MAX;

/// Queued packet; a node of a linked list.
#[derive(Debug)]
pub(super) struct QueuedItem<T> {
    pub(super) item: Option<T>,
    pub(super) next: u16,
    pub(super) bytes: u32,
    /// Bytes charged to the buckets.
    pub(super) cost: u32,
    /// May be marked instead of dropped.
    pub(super) ect: bool,
    /// Kind of memory that it occupies.
    pub(super) kind: u8,
    pub(super) since: Now,
}

#[derive(Clone, Copy, Debug)]
struct FlowQueue {
    head: u16,
    tail: u16,
    /// Next flow in its list.
    next: u8,
    /// Whether it is in one of the lists.
    listed: bool,
    bytes: u32,
    deficit: i64,
    codel: Codel,
}

/// List of flows in the order of their turns.
#[derive(Clone, Copy, Debug)]
struct RoundRobin {
    first: u8,
    last: u8,
}

impl RoundRobin {
    const NONE: RoundRobin = RoundRobin {
        first: NO_FLOW,
        last: NO_FLOW,
    };

    fn push(&mut self, flows: &mut [FlowQueue; FLOW_QUEUES], id: u8) {
        flows[usize::from(id)].next = NO_FLOW;
        match self.last {
            NO_FLOW => self.first = id,
            last => flows[usize::from(last)].next = id,
        }
        self.last = id;
    }

    fn pop(&mut self, flows: &[FlowQueue; FLOW_QUEUES]) {
        if self.first != NO_FLOW {
            self.first = flows[usize::from(self.first)].next;
            if self.first == NO_FLOW {
                self.last = NO_FLOW;
            }
        }
    }
}

/// Flow queues with their round-robin lists.
#[derive(Debug)]
pub(super) struct FlowQueues {
    flows: [FlowQueue; FLOW_QUEUES],
    /// Flows that started to queue since their last turn.
    new: RoundRobin,
    old: RoundRobin,
    pub(super) bytes: u64,
}

impl FlowQueues {
    pub(super) fn new() -> Self {
        let flow = FlowQueue {
            head: NO_PACKET,
            tail: NO_PACKET,
            next: NO_FLOW,
            listed: false,
            bytes: 0,
            deficit: 0,
            codel: Codel::default(),
        };
        FlowQueues {
            flows: [flow; FLOW_QUEUES],
            new: RoundRobin::NONE,
            old: RoundRobin::NONE,
            bytes: 0,
        }
    }

    /// Returns the queue for a flow hash.
    pub(super) fn of(hash: u32) -> usize {
        ((u64::from(hash) * FLOW_QUEUES as u64) >> 32) as usize
    }

    /// Appends a packet to its flow's queue.
    pub(super) fn push<T>(&mut self, nodes: &mut [QueuedItem<T>], flow: usize, at: u16) {
        let node = &mut nodes[usize::from(at)];
        node.next = NO_PACKET;
        let bytes = node.bytes;
        let queue = &mut self.flows[flow];
        match queue.tail {
            NO_PACKET => queue.head = at,
            tail => nodes[usize::from(tail)].next = at,
        }
        queue.tail = at;
        queue.bytes += bytes;
        self.bytes += u64::from(bytes);
        if !queue.listed {
            queue.listed = true;
            queue.deficit = QUANTUM_BYTES;
            self.new.push(&mut self.flows, flow as u8);
        }
    }

    /// Returns the flow whose turn it is, and its first packet.
    pub(super) fn turn(&mut self) -> Option<(usize, u16)> {
        loop {
            let is_new = self.new.first != NO_FLOW;
            let turns = if is_new { &mut self.new } else { &mut self.old };
            let id = turns.first;
            if id == NO_FLOW {
                return None;
            }
            let flow = &mut self.flows[usize::from(id)];
            if flow.deficit > 0 && flow.head != NO_PACKET {
                return Some((id.into(), flow.head));
            }
            let spent = flow.deficit <= 0;
            if spent {
                flow.deficit += QUANTUM_BYTES;
            }
            turns.pop(&self.flows);
            // An empty flow stays in the list for one round, so that its next packet does not make it a new flow.
            if spent || is_new && self.old.first != NO_FLOW {
                self.old.push(&mut self.flows, id);
            } else {
                self.flows[usize::from(id)].listed = false;
            }
        }
    }

    /// Removes the first packet of a flow.
    pub(super) fn pop<T>(&mut self, nodes: &[QueuedItem<T>], flow: usize) -> Option<u16> {
        let queue = &mut self.flows[flow];
        let at = queue.head;
        let node = nodes.get(usize::from(at))?;
        queue.head = node.next;
        if queue.head == NO_PACKET {
            queue.tail = NO_PACKET;
        }
        queue.bytes -= node.bytes;
        self.bytes -= u64::from(node.bytes);
        Some(at)
    }

    /// Charges a departing packet to its flow's deficit.
    pub(super) fn charge(&mut self, flow: usize, bytes: u32) {
        self.flows[flow].deficit -= i64::from(bytes);
    }

    /// Whether the packet just taken from a flow is to be dropped or marked.
    pub(super) fn judge(&mut self, flow: usize, waited: u64, target: u64, now: Now) -> bool {
        let flow = &mut self.flows[flow];
        let alone = flow.head == NO_PACKET;
        flow.codel.judge(waited, alone, target, now)
    }

    /// Number of packets queued for a flow; takes linear time.
    pub(super) fn count<T>(&self, nodes: &[QueuedItem<T>], flow: usize) -> usize {
        let mut at = self.flows[flow].head;
        let mut count = 0;
        while let Some(node) = nodes.get(usize::from(at)) {
            at = node.next;
            count += 1;
        }
        count
    }

    /// Returns the flow with the most bytes queued.
    pub(super) fn fattest(&self) -> usize {
        let flows = self.flows.iter().enumerate();
        flows.max_by_key(|(_, f)| f.bytes).map_or(0, |(id, _)| id)
    }
}
