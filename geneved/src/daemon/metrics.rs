//! The metrics page: the counters that the command line shows, summed up on each scrape.

use std::time::{SystemTime, UNIX_EPOCH};

use libgeneve::drop::DropReason;
use libgeneve::vpc::LinkIndex;

use super::core::Core;
use crate::config::value::{IfName, ObjectName};
use crate::control::protocol::{BackendHealth, ClassInfo};
use crate::control::yielding;
use crate::io::{LinkCounters, PoolUsage, TrafficDirection};
use crate::observe::metrics::{self, MetricsPage};
use crate::observe::scrape::MetricsSource;

const DIRECTIONS: [(TrafficDirection, &str); 2] = [
    (TrafficDirection::Ingress, "ingress"),
    (TrafficDirection::Egress, "egress"),
];

/// A running link, or one that ran until its interface vanished.
struct LinkMetrics {
    name: IfName,
    vni: String,
    index: LinkIndex,
    mtu: u16,
    up: bool,
    waits: bool,
    counters: LinkCounters,
}

impl MetricsSource for Core {
    async fn page(&self) -> String {
        let mut page = MetricsPage::default();
        self.daemon(&mut page);
        self.traffic(&mut page).await;
        self.functions(&mut page).await;
        self.hosts(&mut page).await;
        self.workers(&mut page);
        process(&mut page, self.started());
        yielding::spawn_blocking(move || page.end()).await
    }
}

impl Core {
    fn daemon(&self, page: &mut MetricsPage) {
        let report = self.engine().backend();
        page.metric(&metrics::BUILD_INFO)
            .add(&[env!("CARGO_PKG_VERSION")], 1u64);
        page.metric(&metrics::IO_INFO)
            .add(&[report.backend.name(), &report.cause], 1u64);
        let mut available = page.metric(&metrics::FEATURE_AVAILABLE);
        for feature in &report.features {
            available.add(&[feature.kind.name()], u8::from(feature.available));
        }
    }

    async fn rows(&self) -> Vec<LinkMetrics> {
        let inner = self.inner().await;
        let running = inner.running.iter();
        running
            .filter_map(|(name, running)| {
                let link = inner.state.links.get(name)?;
                Some(LinkMetrics {
                    name: name.clone(),
                    vni: u32::from(link.vni).to_string(),
                    index: running.index,
                    mtu: running.mtu,
                    up: running.obstacle.is_none(),
                    waits: running.waits(),
                    counters: self.engine().link_counters(running.index),
                })
            })
            .collect()
    }

    async fn traffic(&self, page: &mut MetricsPage) {
        let rows = self.rows().await;
        let mut info = page.metric(&metrics::LINK_INFO);
        rows.iter()
            .for_each(|r| info.add(&[r.name.as_str(), &r.vni], 1u64));
        let mut up = page.metric(&metrics::LINK_UP);
        rows.iter()
            .for_each(|r| up.add(&[r.name.as_str()], u8::from(r.up)));
        let waiting = rows.iter().filter(|r| r.waits).count();
        page.metric(&metrics::LINKS_WAITING)
            .add(&[], waiting as u64);
        let mut mtu = page.metric(&metrics::LINK_MTU);
        rows.iter().for_each(|r| mtu.add(&[r.name.as_str()], r.mtu));
        let mut packets = page.metric(&metrics::PACKETS);
        for LinkMetrics { name, counters, .. } in &rows {
            packets.add(&[name.as_str(), "ingress"], counters.rx_packets);
            packets.add(&[name.as_str(), "egress"], counters.tx_packets);
        }
        let mut bytes = page.metric(&metrics::BYTES);
        for LinkMetrics { name, counters, .. } in &rows {
            bytes.add(&[name.as_str(), "ingress"], counters.rx_bytes);
            bytes.add(&[name.as_str(), "egress"], counters.tx_bytes);
        }
        self.drops(page, &rows);
        self.options(page, &rows).await;
        self.flow_counts(page, &rows);
        self.bridges(page, &rows);
    }

    fn drops(&self, page: &mut MetricsPage, rows: &[LinkMetrics]) {
        let mut consumed = page.metric(&metrics::CONSUMED);
        for (direction, word) in DIRECTIONS {
            for row in rows {
                for (reason, count) in row.counters.consumed(direction) {
                    consumed.add(&[row.name.as_str(), word, reason.name()], count);
                }
            }
        }
        let mut dropped = page.metric(&metrics::DROPPED);
        let nobody = self.engine().host_counters();
        for (direction, word) in DIRECTIONS {
            for reason in DropReason::ALL.iter().filter(|reason| reason.is_drop()) {
                let count = nobody.drops_of(direction, *reason);
                dropped.add(&["", word, reason.name()], count);
            }
            for row in rows {
                for (reason, count) in row.counters.drops(direction) {
                    dropped.add(&[row.name.as_str(), word, reason.name()], count);
                }
            }
        }
    }

    async fn options(&self, page: &mut MetricsPage, rows: &[LinkMetrics]) {
        let tables = self.engine().tables();
        let inner = self.inner().await;
        let own = tables.schema.slot_names().count() - tables.schema.defined().len();
        // The user's name may have characters that a schema's must not have.
        let defined = inner.state.options.keys().map(ObjectName::as_str);
        let names: Vec<_> = tables
            .schema
            .slot_names()
            .take(own)
            .chain(defined)
            .collect();
        let mut packets = page.metric(&metrics::OPTION_PACKETS);
        for row in rows {
            for (direction, word) in DIRECTIONS {
                for (slot, option) in names.iter().enumerate() {
                    let count = row.counters.option(direction, slot);
                    packets.add(&[row.name.as_str(), word, option], count);
                }
            }
        }
    }

    fn flow_counts(&self, page: &mut MetricsPage, rows: &[LinkMetrics]) {
        let flows = &self.engine().flows().flows;
        let counts: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), flows.link_stats(row.index)))
            .collect();
        let mut current = page.metric(&metrics::FLOWS);
        counts.iter().for_each(|(l, c)| current.add(&[l], c.flows));
        let mut limit = page.metric(&metrics::FLOWS_LIMIT);
        counts.iter().for_each(|(l, c)| limit.add(&[l], c.limit));
        let mut evicted = page.metric(&metrics::FLOWS_EVICTED);
        counts
            .iter()
            .for_each(|(l, c)| evicted.add(&[l], c.evicted));
        let mut refused = page.metric(&metrics::FLOWS_REFUSED);
        counts
            .iter()
            .for_each(|(l, c)| refused.add(&[l], c.refused));
        let all = flows.stats();
        page.metric(&metrics::FLOW_TABLE_LIMIT).add(&[], all.limit);
        page.metric(&metrics::FLOW_TABLE_EXPIRED)
            .add(&[], all.expired);
    }

    /// What Ethernet links have learned, and their counters.
    fn bridges(&self, page: &mut MetricsPage, rows: &[LinkMetrics]) {
        let tables = self.engine().tables();
        let bridges = || {
            rows.iter().filter_map(|row| {
                let link = tables.link(row.index)?;
                Some((row.name.as_str(), link.bridge.as_ref()?))
            })
        };
        let mut entries = page.metric(&metrics::FDB_ENTRIES);
        bridges().for_each(|(l, b)| entries.add(&[l], b.live.fdb.len() as u64));
        let mut limit = page.metric(&metrics::FDB_LIMIT);
        bridges().for_each(|(l, b)| limit.add(&[l], u64::from(b.limits().entries)));
        let mut events = page.metric(&metrics::BRIDGE_EVENTS);
        for (link, bridge) in bridges() {
            for (event, count) in bridge.live.tally.counts() {
                events.add(&[link, event], count);
            }
        }
    }

    /// Same counters as `geneved nat`, `policy`, `qos` and `service show`.
    async fn functions(&self, page: &mut MetricsPage) {
        let nats = self.list_nats(None).await.unwrap_or_default().nats;
        let pools = || nats.iter().filter(|n| n.total > 0);
        let mut in_use = page.metric(&metrics::NAT_PORTS_IN_USE);
        pools().for_each(|n| in_use.add(&[n.nat.dev.as_str(), n.nat.name.as_str()], n.in_use));
        let mut limit = page.metric(&metrics::NAT_PORTS_LIMIT);
        pools().for_each(|n| limit.add(&[n.nat.dev.as_str(), n.nat.name.as_str()], n.total));

        let shares = self.proxy_ports(&*self.inner().await);
        let mut in_use = page.metric(&metrics::STAND_IN_PORTS_IN_USE);
        shares
            .iter()
            .for_each(|(link, by, usage)| in_use.add(&[link.as_str(), by.as_str()], usage.in_use));
        let mut limit = page.metric(&metrics::STAND_IN_PORTS_LIMIT);
        shares
            .iter()
            .for_each(|(link, by, usage)| limit.add(&[link.as_str(), by.as_str()], usage.total));

        let rules = self.list_policies(None).await.unwrap_or_default().policies;
        let mut hits = page.metric(&metrics::RULE_HITS);
        rules
            .iter()
            .for_each(|r| hits.add(&[r.policy.dev.as_str(), r.policy.name.as_str()], r.hits));

        let classes = self.list_classes(None).await.unwrap_or_default().classes;
        type Bytes = fn(&ClassInfo) -> u64;
        let of_classes: [(_, Bytes); 4] = [
            (&metrics::CLASS_PASSED, |c| c.passed_bytes),
            (&metrics::CLASS_DROPPED, |c| c.dropped_bytes),
            (&metrics::CLASS_MARKED, |c| c.marked_bytes),
            (&metrics::CLASS_BACKLOG, |c| c.backlog_bytes),
        ];
        for (metric, bytes) in of_classes {
            let mut metric = page.metric(metric);
            for c in &classes {
                metric.add(&[c.class.dev.as_str(), c.class.name.as_str()], bytes(c));
            }
        }
        self.backends(page).await;
    }

    async fn backends(&self, page: &mut MetricsPage) {
        let services = self.list_services(None).await.unwrap_or_default().services;
        let all: Vec<_> = services
            .iter()
            .flat_map(|s| s.backends.iter().map(move |b| (&s.service, b)))
            .map(|(s, b)| {
                let backend = std::net::SocketAddr::new(b.address, b.port).to_string();
                (s.dev.as_str(), s.name.as_str(), backend, b)
            })
            .collect();
        let mut state = page.metric(&metrics::BACKEND_STATE);
        for (dev, name, backend, b) in &all {
            for (health, word) in [
                (BackendHealth::Up, "up"),
                (BackendHealth::Down, "down"),
                (BackendHealth::Unknown, "unknown"),
                (BackendHealth::Draining, "draining"),
            ] {
                state.add(&[dev, name, backend, word], u8::from(b.health == health));
            }
        }
        let mut weight = page.metric(&metrics::BACKEND_WEIGHT);
        for (dev, name, backend, b) in &all {
            weight.add(&[dev, name, backend], b.weight);
        }
    }

    async fn hosts(&self, page: &mut MetricsPage) {
        let remotes = self.host().await.host.remotes;
        let mut gso = page.metric(&metrics::HOST_GSO);
        for remote in &remotes {
            gso.add(&[&remote.address.to_string()], u8::from(remote.gso));
        }
        let mut path_mtu = page.metric(&metrics::HOST_PATH_MTU);
        for remote in &remotes {
            if let Some(mtu) = remote.path_mtu {
                path_mtu.add(&[&remote.address.to_string()], mtu);
            }
        }
        let mut errors = page.metric(&metrics::ICMP_ERRORS);
        for (verdict, count) in self.engine().error_verdicts() {
            errors.add(&[verdict.name()], count);
        }
    }

    fn workers(&self, page: &mut MetricsPage) {
        let reports = self.engine().worker_reports();
        let reports: Vec<_> = (0usize..).map(|n| n.to_string()).zip(&reports).collect();
        let mut turns = page.metric(&metrics::WORKER_TURNS);
        reports.iter().for_each(|(n, r)| turns.add(&[n], r.turns));
        let mut cpu = page.metric(&metrics::WORKER_CPU);
        for (n, report) in &reports {
            if let Some(time) = report.cpu {
                cpu.add(&[n], time.as_secs_f64());
            }
        }
        let mut stalled = page.metric(&metrics::WORKER_STALLED);
        for (n, report) in &reports {
            stalled.add(&[n], report.stalled.as_secs_f64());
        }
        let kinds = |slots: &PoolUsage| {
            [
                ("tun", slots.tun_buffers),
                ("udp", slots.udp_buffers),
                ("train", slots.trains),
                ("write", slots.writes),
            ]
        };
        let mut in_use = page.metric(&metrics::WORKER_SLOTS_IN_USE);
        for (n, report) in &reports {
            for (kind, count) in kinds(&report.in_use) {
                in_use.add(&[n, kind], count);
            }
        }
        let mut limit = page.metric(&metrics::WORKER_SLOTS_LIMIT);
        for (n, _) in &reports {
            for (kind, count) in kinds(&PoolUsage::LIMIT) {
                limit.add(&[n, kind], count);
            }
        }
    }
}

/// Standard process metrics. What /proc does not show is left out.
fn process(page: &mut MetricsPage, started: SystemTime) {
    let since = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    page.metric(&metrics::PROCESS_START)
        .add(&[], since.as_secs_f64());
    let Ok(own) = procfs::process::Process::myself() else {
        return;
    };
    if let Ok(stat) = own.stat() {
        let ticks = (stat.utime + stat.stime) as f64;
        page.metric(&metrics::PROCESS_CPU)
            .add(&[], ticks / procfs::ticks_per_second() as f64);
        page.metric(&metrics::PROCESS_RESIDENT)
            .add(&[], stat.rss * procfs::page_size());
        page.metric(&metrics::PROCESS_VIRTUAL).add(&[], stat.vsize);
        page.metric(&metrics::PROCESS_THREADS)
            .add(&[], u64::try_from(stat.num_threads).unwrap_or(0));
    }
    if let Ok(count) = own.fd_count() {
        page.metric(&metrics::PROCESS_OPEN_FDS).add(&[], count);
    }
    if let Ok(limits) = own.limits()
        && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        page.metric(&metrics::PROCESS_MAX_FDS).add(&[], most);
    }
}
