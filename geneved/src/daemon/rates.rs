//! Rates of links, workers, hosts and flows.
//!
//! Rates of flows need the previous counts, which are kept while a client asks and forgotten after a minute. Hosts
//! have no counters of their own; their rates are the sums of their flows.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use libgeneve::datapath::{ExpectedInput, FlowDecision, NextHop};
use libgeneve::flow::{FlowDirection, FlowView};
use libgeneve::time::Now;

use super::core::{Core, CoreState};
use super::flows::{info, names};
use crate::control::protocol::{FlowRates, HostRates, LinkRates, Rates, WorkerRates};
use crate::io::{PoolUsage, WorkerReport};
use crate::observe::counters::traffic;

/// Maximum number of flows in a reply.
const MAX_RATED_FLOWS: usize = 1000;
/// Maximum number of hosts in a reply.
const MOST_HOSTS: usize = 1000;
/// The counts of flows are forgotten after this time without a request.
const FORGET: Duration = Duration::from_secs(60);

/// Packets and bytes of both directions of a flow.
type FlowCounts = [[u64; 2]; 2];

/// Counts of all flows at the previous request.
#[derive(Debug, Default)]
pub(super) struct FlowBaseline {
    at: Now,
    hasher: RandomState,
    counts: HashMap<u64, FlowCounts>,
}

impl Core {
    /// Returns the rates of everything, with the `most` busiest flows by bytes or by packets.
    pub(super) async fn rates(&self, most: u32, by_packets: bool) -> Rates {
        let inner = self.inner().await;
        let now = self.engine().now();
        let all = self.engine().flows().flows.stats();
        let links = inner.running.iter().map(|(name, running)| LinkRates {
            dev: name.clone(),
            flows: self.engine().flows().flows.link_stats(running.index).flows as u64,
            traffic: traffic(&self.engine().link_counters(running.index)),
        });
        let mut rates = Rates {
            time_us: now.0 / 1000,
            version: env!("CARGO_PKG_VERSION").into(),
            io: self.engine().backend().backend.name().into(),
            flows: all.flows as u64,
            flows_limit: all.limit as u64,
            links: links.collect(),
            traffic: traffic(&self.engine().host_counters()),
            workers: self.engine().worker_reports().iter().map(worker).collect(),
            ..Rates::default()
        };
        self.rate_flows(&inner, now, most, by_packets, &mut rates);
        rates
    }

    fn rate_flows(
        &self,
        inner: &CoreState,
        now: Now,
        most: u32,
        by_packets: bool,
        rates: &mut Rates,
    ) {
        let most = (most as usize).min(MAX_RATED_FLOWS);
        let names = names(inner);
        let mut memory = self.flow_memory.borrow_mut();
        let before = memory.take().unwrap_or_else(|| FlowBaseline {
            // No flow is younger than now.
            at: now,
            ..FlowBaseline::default()
        });
        let mut counts = HashMap::with_capacity(before.counts.len());
        let mut hosts: BTreeMap<IpAddr, HostRates> = BTreeMap::new();
        // Weight of the slowest flow that is kept; a faster one replaces it.
        let mut slowest = 0;
        self.engine().flows().flows.for_each(now, |view| {
            let id = before.hasher.hash_one((view.original, view.created.0));
            let total = [view.packets, view.bytes];
            let known = before.counts.get(&id);
            // A flow that existed before the first request gets its average rate so far.
            let since = match known.is_some() || view.created >= before.at {
                true => now.since(before.at),
                false => now.since(view.created),
            };
            let rate = rate(total, known.copied().unwrap_or_default(), since);
            counts.insert(id, total);
            count_host(&mut hosts, view, &rate);
            let weight = rate[usize::from(!by_packets)].iter().sum::<u64>();
            if most == 0 || weight == 0 || (rates.top.len() == most && weight <= slowest) {
                return;
            }
            let Some(flow) = info(inner, &names, view, now) else {
                return;
            };
            rates.top.push(FlowRates {
                flow,
                bytes_rate: rate[1].iter().sum(),
                packets_rate: rate[0].iter().sum(),
            });
            let weight = |f: &FlowRates| {
                if by_packets {
                    f.packets_rate
                } else {
                    f.bytes_rate
                }
            };
            rates.top.sort_by_key(|f| std::cmp::Reverse(weight(f)));
            rates.top.truncate(most);
            slowest = rates.top.last().map_or(0, weight);
        });
        *memory = Some(FlowBaseline {
            at: now,
            hasher: before.hasher,
            counts,
        });
        rates.hosts = hosts.into_values().collect();
        let weight = |h: &HostRates| match by_packets {
            true => h.rx_packets_rate + h.tx_packets_rate,
            false => h.rx_bytes_rate + h.tx_bytes_rate,
        };
        rates.hosts.sort_by_key(|h| std::cmp::Reverse(weight(h)));
        rates.hosts.truncate(MOST_HOSTS);
    }

    /// Forgets the counts of flows if no request came for a while.
    pub(super) fn forget_rates(&self) {
        let now = self.engine().now();
        let mut memory = self.flow_memory.borrow_mut();
        if memory.as_ref().is_some_and(|m| now.since(m.at) > FORGET) {
            *memory = None;
        }
    }
}

fn worker(report: &WorkerReport) -> WorkerRates {
    let part = |used: u16, all: u16| u32::from(used) * 100 / u32::from(all.max(1));
    let (used, all) = (&report.in_use, &PoolUsage::LIMIT);
    let stock = [
        part(used.tun_buffers, all.tun_buffers),
        part(used.udp_buffers, all.udp_buffers),
        part(used.trains, all.trains),
        part(used.writes, all.writes),
    ];
    let whole = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
    WorkerRates {
        cpu_us: whole(report.cpu.unwrap_or_default().as_micros()),
        turns: report.turns,
        stalled_ms: whole(report.stalled.as_millis()),
        stock: stock.into_iter().max().unwrap_or(0),
    }
}

/// Packets and bytes a second in both directions.
fn rate(now: FlowCounts, before: FlowCounts, time: Duration) -> FlowCounts {
    // The rate of a flow that has just begun says nothing yet.
    let time = time.max(Duration::from_millis(100)).as_secs_f64();
    let of = |now: u64, before: u64| (now.saturating_sub(before) as f64 / time) as u64;
    std::array::from_fn(|what| std::array::from_fn(|side| of(now[what][side], before[what][side])))
}

fn count_host(
    hosts: &mut BTreeMap<IpAddr, HostRates>,
    view: &FlowView<'_, FlowDecision>,
    [packets, bytes]: &FlowCounts,
) {
    let mut add = |address: IpAddr, side: FlowDirection, sent: bool| {
        let host = hosts.entry(address).or_insert(HostRates {
            address,
            flows: 0,
            rx_bytes_rate: 0,
            rx_packets_rate: 0,
            tx_bytes_rate: 0,
            tx_packets_rate: 0,
        });
        host.flows += u64::from(side == FlowDirection::Original);
        let at = side as usize;
        if sent {
            host.tx_packets_rate += packets[at];
            host.tx_bytes_rate += bytes[at];
        } else {
            host.rx_packets_rate += packets[at];
            host.rx_bytes_rate += bytes[at];
        }
    };
    for side in [FlowDirection::Original, FlowDirection::Reply] {
        let half = view.decision.direction(side);
        if let ExpectedInput::Wire(host) = &half.expected_input {
            add(host.addr, side, false);
        }
        if let NextHop::Wire(way) = &half.next_hop {
            add(way.host.addr, side, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_what_came_since_over_the_time_since() {
        let second = Duration::from_secs(2);
        let now = [[30, 3], [3000, 100]];
        assert_eq!(
            rate(now, [[10, 3], [1000, 0]], second),
            [[10, 0], [1000, 50]]
        );
        // Another flow with the same key.
        assert_eq!(rate([[1, 0], [1, 0]], now, second), [[0, 0], [0, 0]]);
        let newborn = rate([[1, 0], [100, 0]], FlowCounts::default(), Duration::ZERO);
        assert_eq!(newborn, [[10, 0], [1000, 0]]);
    }
}
