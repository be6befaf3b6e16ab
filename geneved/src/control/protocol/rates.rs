//! What `GetRates` tells: counters from which rates are formed, and the busiest flows and hosts.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::flow::FlowInfo;
use super::info::TrafficInfo;
use crate::config::value::IfName;

/// The reply of `GetRates`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RatesReply {
    /// How things are.
    pub rates: Rates,
}

/// How busy everything is. Counters of links and workers only go up; rates of flows and hosts are over the time since
/// somebody asked before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// The packet path's time in microseconds.
    pub time_us: u64,
    /// geneved's version.
    pub version: String,
    /// The packet path's backend.
    pub io: String,
    /// Flows in the table.
    pub flows: u64,
    /// Flows that there may be.
    pub flows_limit: u64,
    /// Links by name.
    pub links: Vec<LinkRates>,
    /// Packets of no link.
    pub traffic: TrafficInfo,
    /// Workers in their order.
    pub workers: Vec<WorkerRates>,
    /// The busiest first.
    pub top: Vec<FlowRates>,
    /// The busiest first.
    pub hosts: Vec<HostRates>,
}

/// A link's counters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkRates {
    /// The link.
    pub dev: IfName,
    /// Its flows.
    pub flows: u64,
    /// Its counters.
    pub traffic: TrafficInfo,
}

/// A worker's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRates {
    /// CPU time in microseconds.
    pub cpu_us: u64,
    /// Turns of its loop.
    pub turns: u64,
    /// For how long it has not moved although it was woken, in milliseconds.
    pub stalled_ms: u64,
    /// What is in use of its scarcest stock, in percent.
    pub stock: u32,
}

/// A flow and how fast it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowRates {
    /// The flow.
    pub flow: FlowInfo,
    /// Inner bytes a second, both directions.
    pub bytes_rate: u64,
    /// Packets a second, both directions.
    pub packets_rate: u64,
}

/// The flows of a host, and how fast they are together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRates {
    /// The host.
    pub address: IpAddr,
    /// How many flows go there or come from there.
    pub flows: u64,
    /// Inner bytes a second from there.
    pub rx_bytes_rate: u64,
    /// Packets a second from there.
    pub rx_packets_rate: u64,
    /// Inner bytes a second to there.
    pub tx_bytes_rate: u64,
    /// Packets a second to there.
    pub tx_packets_rate: u64,
}
