//! Medians, ranges, ratios and goals, as a Markdown table and as JSON.

use crate::arguments::BenchArguments;
use crate::measure::{Measure, MeasuredValues, Quantity};
use crate::underlay::VethKind;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

/// All measured values, one per round.
pub struct Results {
    tunnels: Vec<String>,
    /// Tunnel that the others are compared with.
    base: String,
    conditions: String,
    values: BTreeMap<(VethKind, Quantity), BTreeMap<String, Vec<f64>>>,
    failures: Vec<String>,
}

impl Results {
    pub fn new(arguments: &BenchArguments) -> Self {
        let read = |path| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let family = |six| if six { "IPv6" } else { "IPv4" };
        let conditions = format!(
            "Linux {}, {} CPUs, TCP congestion control {}, overlay MTU {}, underlay MTU {}, {} over {}, \
             {} rounds of {:.1} s",
            read("/proc/sys/kernel/osrelease"),
            std::thread::available_parallelism().map_or(0, usize::from),
            read("/proc/sys/net/ipv4/tcp_congestion_control"),
            arguments.mtu,
            arguments.underlay_mtu,
            family(arguments.inner6),
            family(arguments.outer6),
            arguments.rounds,
            arguments.duration.as_secs_f64(),
        );
        let tunnels = arguments
            .tunnels
            .iter()
            .map(|tunnel| tunnel.label().to_owned())
            .collect();
        Self {
            tunnels,
            base: arguments.base.clone(),
            conditions,
            values: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub fn add(&mut self, underlay: VethKind, tunnel: &str, values: &MeasuredValues) {
        for (quantity, value) in &values.0 {
            let row = self.values.entry((underlay, *quantity)).or_default();
            row.entry(tunnel.to_owned()).or_default().push(*value);
        }
    }

    pub fn fail(&mut self, underlay: VethKind, tunnel: &str, measure: Measure, error: &io::Error) {
        self.failures
            .push(format!("{underlay:?} {measure:?} {tunnel}: {error}"));
    }

    pub fn markdown(&self) -> String {
        let mut out = format!(
            "{}. Median [lowest - highest] of the rounds.\n",
            self.conditions
        );
        for underlay in VethKind::ALL {
            if !self.values.keys().any(|(u, _)| *u == underlay) {
                continue;
            }
            let base = &self.base;
            let compared: Vec<_> = self.tunnels.iter().filter(|t| *t != base).collect();
            let has_base = self.tunnels.contains(base);
            write!(out, "\n### {}\n\n| |", underlay.title()).unwrap();
            for tunnel in &self.tunnels {
                write!(out, " {tunnel} |").unwrap();
            }
            for tunnel in compared.iter().filter(|_| has_base) {
                write!(out, " {tunnel} ÷ {base} | goal |").unwrap();
            }
            let columns = self.tunnels.len() + if has_base { 2 * compared.len() } else { 0 };
            write!(out, "\n|---|{}\n", "---|".repeat(columns)).unwrap();
            for ((_, quantity), row) in self.values.iter().filter(|((u, _), _)| *u == underlay) {
                write!(out, "| {} |", quantity.title()).unwrap();
                for tunnel in &self.tunnels {
                    write!(
                        out,
                        " {} |",
                        row.get(tunnel).map_or("-".to_owned(), |v| spread(v))
                    )
                    .unwrap();
                }
                for tunnel in compared.iter().filter(|_| has_base) {
                    let relative = compare(*quantity, row.get(*tunnel), row.get(base));
                    let sign = if quantity.is_time() { "+ " } else { "" };
                    let text = relative
                        .as_ref()
                        .map_or("-".to_owned(), |v| format!("{sign}{}", spread(v)));
                    write!(
                        out,
                        " {text} | {} |",
                        verdict(
                            self.goal(underlay, *quantity, tunnel),
                            *quantity,
                            relative.as_deref()
                        )
                    )
                    .unwrap();
                }
                out.push('\n');
            }
        }
        for failure in &self.failures {
            writeln!(out, "\nFAILED: {failure}").unwrap();
        }
        out
    }

    fn goal(&self, underlay: VethKind, quantity: Quantity, tunnel: &str) -> Option<f64> {
        match (self.base.as_str(), tunnel) {
            ("raw" | "copy", _) | (_, "raw" | "copy") => None,
            ("vxlan", _) => beside_vxlan(underlay, quantity),
            (_, "vxlan") => None,
            _ => beside_geneved(quantity),
        }
    }

    pub fn json(&self) -> Value {
        let values: Vec<Value> = self
            .values
            .iter()
            .flat_map(|((underlay, quantity), row)| {
                row.iter().map(move |(tunnel, values)| {
                    json!({
                        "underlay": format!("{underlay:?}").to_lowercase(),
                        "quantity": format!("{quantity:?}"),
                        "title": quantity.title(),
                        "tunnel": tunnel,
                        "values": values,
                        "median": median(values),
                    })
                })
            })
            .collect();
        json!({ "conditions": self.conditions, "values": values, "failures": self.failures })
    }
}

/// Ratio to the base, or difference for a time, round by round.
fn compare(
    quantity: Quantity,
    own: Option<&Vec<f64>>,
    base: Option<&Vec<f64>>,
) -> Option<Vec<f64>> {
    let pairs = own?.iter().zip(base?);
    let values: Vec<f64> = pairs
        .map(|(own, base)| {
            if quantity.is_time() {
                own - base
            } else {
                own / base
            }
        })
        .collect();
    // A count that is zero for the base has no ratio.
    (!values.is_empty() && values.iter().all(|v| v.is_finite())).then_some(values)
}

/// Whether the median meets the project's goal, if there is one.
fn verdict(goal: Option<f64>, quantity: Quantity, relative: Option<&[f64]>) -> String {
    let (Some(goal), Some(values)) = (goal, relative) else {
        return String::new();
    };
    let reached = if quantity.is_time() {
        median(values) <= goal
    } else {
        median(values) >= goal
    };
    let bound = if quantity.is_time() { '≤' } else { '≥' };
    format!("{bound} {goal} {}", if reached { "yes" } else { "NO" })
}

/// Goals relative to the kernel's device.
fn beside_vxlan(underlay: VethKind, quantity: Quantity) -> Option<f64> {
    match (underlay, quantity) {
        (VethKind::Veth, Quantity::Tcp1Rate) => Some(0.75),
        (VethKind::Veth, Quantity::Tcp4Rate) => Some(0.5),
        (VethKind::Veth, Quantity::Udp64Rate) => Some(2.3),
        (VethKind::Veth, Quantity::Iperf64Rate) => Some(1.0),
        (VethKind::Veth, Quantity::PingPongMedian) => Some(20.0),
        (VethKind::Veth, Quantity::IdleMedian) => Some(100.0),
        (_, Quantity::Tcp1Rate) => Some(0.9),
        (_, Quantity::Tcp4Rate) => Some(0.7),
        _ => None,
    }
}

/// Goals of other link types and of functions, relative to geneved's usual link.
fn beside_geneved(quantity: Quantity) -> Option<f64> {
    matches!(
        quantity,
        Quantity::Tcp1Rate | Quantity::Tcp4Rate | Quantity::Udp64Rate | Quantity::Udp1300Rate
    )
    .then_some(0.95)
}

fn spread(values: &[f64]) -> String {
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!(
        "{} [{} - {}]",
        short(median(values)),
        short(lowest),
        short(highest)
    )
}

fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_rounds() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_missed_goal_says_so() {
        let verdict = |quantity, value| {
            verdict(
                beside_vxlan(VethKind::Veth, quantity),
                quantity,
                Some(&[value]),
            )
        };
        assert_eq!(verdict(Quantity::Tcp1Rate, 0.7), "≥ 0.75 NO");
        assert_eq!(verdict(Quantity::IdleMedian, 80.0), "≤ 100 yes");
        assert_eq!(verdict(Quantity::Udp1300Rate, 0.7), "");
    }
}
