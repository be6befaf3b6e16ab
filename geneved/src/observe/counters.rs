//! Conversion of counters to the form in which they leave the daemon.

use std::collections::BTreeMap;

use libgeneve::drop::DropReason;

use crate::control::protocol::TrafficInfo;
use crate::io::{LinkCounters, TrafficDirection};

/// Counters of a link or of the host, for command line, control socket and metrics alike.
#[must_use]
pub fn traffic(counters: &LinkCounters) -> TrafficInfo {
    fn named(all: impl Iterator<Item = (DropReason, u64)>) -> BTreeMap<String, u64> {
        all.map(|(reason, n)| (reason.name().to_owned(), n))
            .collect()
    }
    TrafficInfo {
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        drops_ingress: named(counters.drops(TrafficDirection::Ingress)),
        drops_egress: named(counters.drops(TrafficDirection::Egress)),
        consumed_ingress: named(counters.consumed(TrafficDirection::Ingress)),
        consumed_egress: named(counters.consumed(TrafficDirection::Egress)),
    }
}
