//! Rates computed from two samples of the daemon's counters, sorted in the requested order.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Value, json};

use super::super::output::Show;
use super::super::style::OutputStyle;
use crate::config::value::ValueError;
use crate::control::protocol::{FlowRates, HostRates, Rates, TrafficInfo};

/// Sort order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SortOrder {
    Bytes,
    Packets,
    Name,
}

impl SortOrder {
    pub(super) fn word(self) -> &'static str {
        match self {
            SortOrder::Bytes => "bytes",
            SortOrder::Packets => "packets",
            SortOrder::Name => "name",
        }
    }
}

impl FromStr for SortOrder {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let all = [SortOrder::Bytes, SortOrder::Packets, SortOrder::Name];
        let found = all.into_iter().find(|o| o.word() == text);
        found.ok_or_else(|| {
            ValueError::new("expected \"bytes\", \"packets\" or \"name\"")
                .expecting(&["bytes", "packets", "name"])
        })
    }
}

/// Rates of a link, per second.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LinkRow {
    pub(super) dev: String,
    pub(super) flows: u64,
    pub(super) rx_packets: f64,
    pub(super) rx_bytes: f64,
    pub(super) tx_packets: f64,
    pub(super) tx_bytes: f64,
    pub(super) drops: f64,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DropRow {
    /// Empty for packets of no link.
    pub(super) dev: String,
    pub(super) direction: &'static str,
    pub(super) reason: String,
    /// Per second.
    pub(super) rate: f64,
    pub(super) total: u64,
}

/// Load of a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct WorkerRow {
    /// Fraction of a core, 0 to 1.
    pub(super) load: f64,
    /// Loop iterations per second.
    pub(super) turns: f64,
    /// Usage of its scarcest pool, in percent.
    pub(super) stock: u32,
    pub(super) stalled: bool,
}

/// What the screen shows.
#[derive(Clone, Debug)]
pub(super) struct TopModel {
    pub(super) now: Rates,
    pub(super) order: SortOrder,
    pub(super) links: Vec<LinkRow>,
    pub(super) drops: Vec<DropRow>,
    pub(super) workers: Vec<WorkerRow>,
    pub(super) hosts: Vec<HostRates>,
    pub(super) flows: Vec<FlowRates>,
}

impl TopModel {
    /// Creates a model without rates; those need a second sample.
    pub(super) fn new(first: Rates, order: SortOrder) -> Self {
        let mut model = TopModel {
            now: first.clone(),
            order,
            links: Vec::new(),
            drops: Vec::new(),
            workers: Vec::new(),
            hosts: Vec::new(),
            flows: Vec::new(),
        };
        model.next(first);
        model
    }

    /// Takes the next sample.
    pub(super) fn next(&mut self, now: Rates) {
        let before = std::mem::replace(&mut self.now, now);
        let now = &self.now;
        let time = now.time_us.saturating_sub(before.time_us) as f64 / 1e6;
        let rate = |now: u64, before: u64| match time > 0.0 {
            true => now.saturating_sub(before) as f64 / time,
            false => 0.0,
        };
        let none = TrafficInfo::default();
        let was = |dev: &str| {
            let mut links = before.links.iter();
            links.find(|l| l.dev.as_str() == dev).map(|l| &l.traffic)
        };
        self.drops = Vec::new();
        let mut links = Vec::new();
        for link in &now.links {
            let dev = link.dev.as_str();
            let (t, old) = (&link.traffic, was(dev).unwrap_or(&link.traffic));
            let drops = drops(dev, t, old, &rate);
            links.push(LinkRow {
                dev: dev.to_owned(),
                flows: link.flows,
                rx_packets: rate(t.rx_packets, old.rx_packets),
                rx_bytes: rate(t.rx_bytes, old.rx_bytes),
                tx_packets: rate(t.tx_packets, old.tx_packets),
                tx_bytes: rate(t.tx_bytes, old.tx_bytes),
                // `sum()` of nothing would be -0.
                drops: drops.iter().fold(0.0, |sum, d| sum + d.rate),
            });
            self.drops.extend(drops);
        }
        self.links = links;
        let old = if time > 0.0 { &before.traffic } else { &none };
        self.drops.extend(drops("", &now.traffic, old, &rate));
        let workers = now.workers.iter().enumerate().map(|(n, w)| {
            let old = before.workers.get(n).copied().unwrap_or(*w);
            WorkerRow {
                load: (rate(w.cpu_us, old.cpu_us) / 1e6).min(1.0),
                turns: rate(w.turns, old.turns),
                stock: w.stock,
                stalled: w.stalled_ms > 0,
            }
        });
        self.workers = workers.collect();
        self.hosts.clone_from(&now.hosts);
        self.flows.clone_from(&now.top);
        self.sort(self.order);
    }

    /// Changes the sort order.
    pub(super) fn sort(&mut self, order: SortOrder) {
        self.order = order;
        let down = |a: f64, b: f64| b.total_cmp(&a);
        match order {
            SortOrder::Name => {
                self.links.sort_by(|a, b| a.dev.cmp(&b.dev));
                self.hosts.sort_by_key(|h| h.address);
                self.flows.sort_by_key(|f| (f.flow.src, f.flow.dst));
            }
            SortOrder::Bytes => {
                let of = |l: &LinkRow| l.rx_bytes + l.tx_bytes;
                self.links.sort_by(|a, b| down(of(a), of(b)));
                self.hosts
                    .sort_by_key(|h| std::cmp::Reverse(h.rx_bytes_rate + h.tx_bytes_rate));
                self.flows.sort_by_key(|f| std::cmp::Reverse(f.bytes_rate));
            }
            SortOrder::Packets => {
                let of = |l: &LinkRow| l.rx_packets + l.tx_packets;
                self.links.sort_by(|a, b| down(of(a), of(b)));
                self.hosts
                    .sort_by_key(|h| std::cmp::Reverse(h.rx_packets_rate + h.tx_packets_rate));
                self.flows
                    .sort_by_key(|f| std::cmp::Reverse(f.packets_rate));
            }
        }
        self.drops
            .sort_by(|a, b| down(a.rate, b.rate).then(b.total.cmp(&a.total)));
    }
}

fn drops(
    dev: &str,
    now: &TrafficInfo,
    before: &TrafficInfo,
    rate: &impl Fn(u64, u64) -> f64,
) -> Vec<DropRow> {
    let rows = |direction, now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>| {
        let row = |(reason, &total): (&String, &u64)| DropRow {
            dev: dev.to_owned(),
            direction,
            reason: reason.clone(),
            rate: rate(total, before.get(reason).copied().unwrap_or(0)),
            total,
        };
        now.iter().map(row).collect::<Vec<_>>()
    };
    let mut all = rows("ingress", &now.drops_ingress, &before.drops_ingress);
    all.extend(rows("egress", &now.drops_egress, &before.drops_egress));
    all
}

/// Formats a number in at most 5 columns, such as `1.2M`.
pub(super) fn short(number: f64) -> String {
    let human = OutputStyle {
        human: true,
        ..OutputStyle::default()
    };
    human.number(number.round() as u64)
}

/// Formats bytes per second as bits per second.
pub(super) fn bits(bytes: f64) -> String {
    short(bytes * 8.0)
}

/// Protocol and both ends of a flow, as in `tcp 10.0.0.1:1000 > 10.0.0.2:80`.
pub(super) fn ends(flow: &FlowRates) -> (String, String, String) {
    let f = &flow.flow;
    (
        f.proto.to_string(),
        f.proto.at(f.src, f.sport),
        f.proto.at(f.dst, f.dport),
    )
}

/// Batch mode: the same tables as on the screen, without the frame.
impl Show for TopModel {
    fn text(&self, _: &OutputStyle) -> String {
        let now = &self.now;
        let mut text = format!(
            "geneved {} io {} workers {} flows {}/{}\n",
            now.version,
            now.io,
            now.workers.len(),
            now.flows,
            now.flows_limit
        );
        for (n, w) in self.workers.iter().enumerate() {
            text += &format!(
                "worker {n} load {:.0}% turns/s {} stock {}%{}\n",
                w.load * 100.0,
                short(w.turns),
                w.stock,
                if w.stalled { " stalled" } else { "" }
            );
        }
        text += "\nLINK             RX pkt/s RX bit/s TX pkt/s TX bit/s  drop/s    flows\n";
        for l in &self.links {
            text += &format!(
                "{:<16} {:>8} {:>8} {:>8} {:>8} {:>7} {:>8}\n",
                l.dev,
                short(l.rx_packets),
                bits(l.rx_bytes),
                short(l.tx_packets),
                bits(l.tx_bytes),
                short(l.drops),
                l.flows
            );
        }
        text += "\nHOST                     RX pkt/s RX bit/s TX pkt/s TX bit/s    flows\n";
        for h in &self.hosts {
            text += &format!(
                "{:<24} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
                h.address.to_string(),
                short(h.rx_packets_rate as f64),
                bits(h.rx_bytes_rate as f64),
                short(h.tx_packets_rate as f64),
                bits(h.tx_bytes_rate as f64),
                h.flows
            );
        }
        text += "\nFLOW                                                          pkt/s  bit/s\n";
        for f in &self.flows {
            let (proto, src, dst) = ends(f);
            text += &format!(
                "{:<60} {:>6} {:>6}\n",
                format!("{proto} {src} > {dst} dev {}", f.flow.dev),
                short(f.packets_rate as f64),
                bits(f.bytes_rate as f64)
            );
        }
        text += "\nDROP                                                         drop/s  total\n";
        for d in &self.drops {
            let dev = if d.dev.is_empty() { "-" } else { &d.dev };
            text += &format!(
                "{:<60} {:>6} {:>6}\n",
                format!("dev {dev} {} {}", d.direction, d.reason),
                short(d.rate),
                short(d.total as f64)
            );
        }
        text
    }

    fn brief(&self, style: &OutputStyle) -> String {
        let text = self.text(style);
        text.lines().next().unwrap_or_default().to_owned()
    }

    fn json(&self, _: &OutputStyle) -> Value {
        let links = self.links.iter().map(|l| {
            json!({
                "dev": l.dev, "flows": l.flows, "rx_packets_rate": l.rx_packets, "rx_bytes_rate": l.rx_bytes,
                "tx_packets_rate": l.tx_packets, "tx_bytes_rate": l.tx_bytes, "drops_rate": l.drops,
            })
        });
        let drops = self.drops.iter().map(|d| {
            let dev = Some(&d.dev).filter(|d| !d.is_empty());
            json!({ "dev": dev, "direction": d.direction, "reason": d.reason, "rate": d.rate, "total": d.total })
        });
        let workers = self.workers.iter().map(|w| {
            json!({ "load": w.load, "turns_rate": w.turns, "stock": w.stock, "stalled": w.stalled })
        });
        json!({
            "version": self.now.version,
            "io": self.now.io,
            "flows": self.now.flows,
            "flows_limit": self.now.flows_limit,
            "workers": workers.collect::<Vec<_>>(),
            "links": links.collect::<Vec<_>>(),
            "hosts": self.hosts,
            "top": self.flows,
            "drops": drops.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::protocol::{LinkRates, WorkerRates};

    /// The `n`th sample, two seconds after the previous one.
    pub(in super::super) fn look(n: u64) -> Rates {
        let drops = |reason: &str, count| BTreeMap::from([(reason.to_owned(), count)]);
        let link = |dev: &str, scale: u64| LinkRates {
            dev: dev.parse().unwrap(),
            flows: 6,
            traffic: TrafficInfo {
                rx_packets: n * 200 * scale,
                rx_bytes: n * 20_000 * scale,
                tx_packets: n * 100 * scale,
                tx_bytes: n * 10_000 * scale,
                drops_ingress: BTreeMap::new(),
                drops_egress: drops("no-route", n * 100),
                ..TrafficInfo::default()
            },
        };
        let flow = serde_json::json!({
            "dev": "gnv0", "src": "10.0.0.1", "dst": "10.0.0.2", "proto": "tcp", "sport": 1000, "dport": 80,
            "state": "established", "verdict": "forward", "original": { "packets": 1, "bytes": 1 },
            "reply": { "packets": 1, "bytes": 1 }, "age_s": 1, "idle_s": 0, "expires_s": 9
        });
        Rates {
            time_us: n * 2_000_000,
            version: "9.9".into(),
            io: "io_uring".into(),
            flows: 12,
            flows_limit: 1024,
            links: vec![link("a-quiet-one", 0), link("gnv0", 1)],
            traffic: TrafficInfo {
                drops_ingress: drops("unknown-vni", 7),
                ..TrafficInfo::default()
            },
            workers: vec![WorkerRates {
                cpu_us: n * 1_000_000,
                turns: n * 10,
                stalled_ms: 0,
                stock: 3,
            }],
            top: vec![FlowRates {
                flow: serde_json::from_value(flow).unwrap(),
                bytes_rate: 2_000_000,
                packets_rate: 1500,
            }],
            hosts: vec![HostRates {
                address: "192.0.2.2".parse().unwrap(),
                flows: 1,
                rx_bytes_rate: 1_000_000,
                rx_packets_rate: 700,
                tx_bytes_rate: 1_000_000,
                tx_packets_rate: 800,
            }],
        }
    }

    pub(in super::super) fn model() -> TopModel {
        let mut model = TopModel::new(look(0), SortOrder::Bytes);
        model.next(look(1));
        model
    }

    #[test]
    fn rates_are_differences_over_the_time_between() {
        let model = model();
        assert_eq!(model.links[0].dev, "gnv0", "the busiest first");
        let l = &model.links[0];
        assert_eq!(
            (l.rx_packets, l.rx_bytes, l.tx_packets),
            (100.0, 10_000.0, 50.0)
        );
        assert_eq!(
            (l.drops, model.workers[0].load, model.workers[0].turns),
            (50.0, 0.5, 5.0)
        );
        let d = &model.drops[0];
        assert_eq!(
            (d.reason.as_str(), d.rate, d.total),
            ("no-route", 50.0, 100)
        );
    }

    #[test]
    fn a_link_that_came_or_was_made_anew_has_no_rate_yet() {
        let mut model = TopModel::new(Rates::default(), SortOrder::Name);
        model.next(look(5));
        assert!(
            model
                .links
                .iter()
                .all(|l| l.rx_bytes == 0.0 && l.drops == 0.0)
        );
        model.next(look(1));
        assert!(model.links.iter().all(|l| l.rx_bytes == 0.0));
        assert_eq!(model.links[0].dev, "a-quiet-one", "by name");
    }

    #[test]
    fn lines_and_json_say_what_the_screen_says() {
        let model = model();
        let text = model.text(&OutputStyle::default());
        for words in [
            "worker 0 load 50%",
            "gnv0",
            "tcp 10.0.0.1:1000 > 10.0.0.2:80 dev gnv0",
            "dev - ingress unknown-vni",
        ] {
            assert!(text.contains(words), "{text}");
        }
        let json = model.json(&OutputStyle::default());
        assert_eq!(json["links"][0]["tx_packets_rate"], 50.0);
        assert_eq!(json["top"][0]["bytes_rate"], 2_000_000);
        assert_eq!(json["drops"][0]["rate"], 50.0);
    }
}
