//! Replies of `GetRates`: counters to compute rates from, and the busiest flows and hosts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::flow::FlowInfo;
use super::info::TrafficInfo;
use crate::config::value::IfName;

/// The reply of `GetRates`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RatesReply {
    /// Counters and rates.
    pub rates: Rates,
}

/// Counters and rates. Counters of links and workers only increase; rates of flows and hosts cover the time since the
/// previous request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Time of the packet path in microseconds.
    pub time_us: u64,
    /// geneved's version.
    pub version: String,
    /// I/O backend.
    pub io: String,
    /// Number of flows in the table.
    pub flows: u64,
    /// Maximum number of flows.
    pub flows_limit: u64,
    /// Links, sorted by name.
    pub links: Vec<LinkRates>,
    /// Packets that belong to no link.
    pub traffic: TrafficInfo,
    /// Workers, in order.
    pub workers: Vec<WorkerRates>,
    /// The busiest first.
    pub top: Vec<FlowRates>,
    /// The busiest first.
    pub hosts: Vec<HostRates>,
}

/// Counters of a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkRates {
    /// The link.
    pub dev: IfName,
    /// Number of its flows.
    pub flows: u64,
    /// Its counters.
    pub traffic: TrafficInfo,
}

/// Counters of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRates {
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Iterations of its loop.
    pub turns: u64,
    /// Milliseconds without progress although it was woken.
    pub stalled_ms: u64,
    /// Usage of its scarcest pool, in percent.
    pub stock: u32,
}

/// A flow with its rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRates {
    /// The flow.
    pub flow: FlowInfo,
    /// Inner bytes per second, both directions.
    pub bytes_rate: u64,
    /// Packets per second, both directions.
    pub packets_rate: u64,
}

/// Sum of the rates of all flows with a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRates {
    /// The host.
    pub address: IpAddr,
    /// Number of flows to or from the host.
    pub flows: u64,
    /// Inner bytes per second from the host.
    pub rx_bytes_rate: u64,
    /// Packets per second from the host.
    pub rx_packets_rate: u64,
    /// Inner bytes per second to the host.
    pub tx_bytes_rate: u64,
    /// Packets per second to the host.
    pub tx_packets_rate: u64,
}
