//! Counters of one link in one worker.
//!
//! Each worker writes its own set with plain loads and stores, so counting needs no locked instruction; readers add
//! up the sets of all workers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use libgeneve::drop::DropReason;
use libgeneve::options::COUNTER_SLOTS;

/// Direction of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrafficDirection {
    /// Wire to TUN.
    Ingress,
    /// TUN to wire.
    Egress,
}

/// One worker's counters of one link, or of packets that belong to no link.
#[derive(Debug)]
pub struct WorkerCounters {
    traffic: [[AtomicU64; 2]; 2],
    drops: [[AtomicU64; DropReason::COUNT]; 2],
    options: [[AtomicU64; COUNTER_SLOTS]; 2],
}

impl Default for WorkerCounters {
    fn default() -> Self {
        WorkerCounters {
            traffic: Default::default(),
            drops: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            options: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
        }
    }
}

impl WorkerCounters {
    /// Counts forwarded packets, as seen on the wire, and their inner bytes.
    #[inline]
    pub(super) fn forwarded(&self, direction: TrafficDirection, packets: u64, bytes: u64) {
        let [p, b] = &self.traffic[direction as usize];
        bump(p, packets);
        bump(b, bytes);
    }

    /// Counts packets that were not forwarded.
    #[inline]
    pub(super) fn dropped(&self, direction: TrafficDirection, reason: DropReason, packets: u64) {
        bump(&self.drops[direction as usize][reason as usize], packets);
    }

    /// Counts packets that carried these known options; each bit is a slot of the schema.
    #[inline]
    pub(super) fn options(&self, direction: TrafficDirection, slots: u32, packets: u64) {
        let mut left = slots;
        while left != 0 {
            let slot = left.trailing_zeros() as usize;
            bump(&self.options[direction as usize][slot], packets);
            left &= left - 1;
        }
    }

    /// Adds these counters to a sum.
    pub fn add_to(&self, sum: &mut LinkCounters) {
        let read = |direction: TrafficDirection| {
            let [p, b] = &self.traffic[direction as usize];
            (p.load(Relaxed), b.load(Relaxed))
        };
        let (rx_packets, rx_bytes) = read(TrafficDirection::Ingress);
        let (tx_packets, tx_bytes) = read(TrafficDirection::Egress);
        sum.rx_packets += rx_packets;
        sum.rx_bytes += rx_bytes;
        sum.tx_packets += tx_packets;
        sum.tx_bytes += tx_bytes;
        for (direction, into) in [
            (TrafficDirection::Ingress, &mut sum.drops_ingress),
            (TrafficDirection::Egress, &mut sum.drops_egress),
        ] {
            for (slot, counter) in into.iter_mut().zip(&self.drops[direction as usize]) {
                *slot += counter.load(Relaxed);
            }
        }
        for (into, from) in sum.options.iter_mut().zip(&self.options) {
            for (slot, counter) in into.iter_mut().zip(from) {
                *slot += counter.load(Relaxed);
            }
        }
    }
}

/// Only the owning worker writes, so a load and a store suffice.
#[inline]
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// Counters of a link, summed over all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets from the wire that were delivered to TUN; a super-packet counts as its segments.
    pub rx_packets: u64,
    /// Their inner bytes, IP header included.
    pub rx_bytes: u64,
    /// Packets from TUN that were sent; a super-packet counts as its segments.
    pub tx_packets: u64,
    /// Their inner bytes, IP header included.
    pub tx_bytes: u64,
    drops_ingress: [u64; DropReason::COUNT],
    drops_egress: [u64; DropReason::COUNT],
    options: [[u64; COUNTER_SLOTS]; 2],
}

impl Default for LinkCounters {
    fn default() -> Self {
        LinkCounters {
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
            drops_ingress: [0; DropReason::COUNT],
            drops_egress: [0; DropReason::COUNT],
            options: [[0; COUNTER_SLOTS]; 2],
        }
    }
}

impl LinkCounters {
    /// Packets dropped for each reason; only reasons that occurred.
    pub fn drops(
        &self,
        direction: TrafficDirection,
    ) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        self.ended(direction).filter(|(reason, _)| reason.is_drop())
    }

    /// Packets that ended here because they were for this host, by reason; only reasons that occurred.
    pub fn consumed(
        &self,
        direction: TrafficDirection,
    ) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        self.ended(direction)
            .filter(|(reason, _)| !reason.is_drop())
    }

    fn ended(&self, direction: TrafficDirection) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        let counts = match direction {
            TrafficDirection::Ingress => &self.drops_ingress,
            TrafficDirection::Egress => &self.drops_egress,
        };
        DropReason::ALL
            .iter()
            .copied()
            .zip(counts.iter().copied())
            .filter(|&(_, n)| n > 0)
    }

    /// Packets dropped for one reason.
    #[must_use]
    pub fn drops_of(&self, direction: TrafficDirection, reason: DropReason) -> u64 {
        let counts = match direction {
            TrafficDirection::Ingress => &self.drops_ingress,
            TrafficDirection::Egress => &self.drops_egress,
        };
        counts[reason as usize]
    }

    /// Packets that carried the known option of this slot.
    #[must_use]
    pub fn option(&self, direction: TrafficDirection, slot: usize) -> u64 {
        self.options[direction as usize]
            .get(slot)
            .copied()
            .unwrap_or(0)
    }

    /// All packets dropped in one direction.
    #[must_use]
    pub fn dropped(&self, direction: TrafficDirection) -> u64 {
        self.drops(direction).map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_workers_and_hides_reasons_that_did_not_occur() {
        let (a, b) = (WorkerCounters::default(), WorkerCounters::default());
        a.forwarded(TrafficDirection::Egress, 3, 300);
        b.forwarded(TrafficDirection::Egress, 1, 50);
        b.dropped(TrafficDirection::Ingress, DropReason::UnknownHost, 2);
        let mut sum = LinkCounters::default();
        a.add_to(&mut sum);
        b.add_to(&mut sum);
        assert_eq!((sum.tx_packets, sum.tx_bytes, sum.rx_packets), (4, 350, 0));
        let drops: Vec<_> = sum.drops(TrafficDirection::Ingress).collect();
        assert_eq!(drops, [(DropReason::UnknownHost, 2)]);
        assert_eq!(sum.dropped(TrafficDirection::Egress), 0);
    }
}
