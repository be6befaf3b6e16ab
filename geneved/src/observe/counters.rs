//! Counters in the form in which they leave the daemon.

use std::collections::BTreeMap;

use crate::control::protocol::Traffic;
use crate::io::{Direction, LinkCounters};

/// A link's or the host's counters, for command line, control socket and metrics alike.
#[must_use]
pub fn traffic(counters: &LinkCounters) -> Traffic {
    let drops = |direction| -> BTreeMap<String, u64> {
        counters
            .drops(direction)
            .map(|(reason, n)| (reason.name().to_owned(), n))
            .collect()
    };
    Traffic {
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        drops_ingress: drops(Direction::Ingress),
        drops_egress: drops(Direction::Egress),
    }
}
