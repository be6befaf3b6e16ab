//! Metrics in the Prometheus text format: the list of them, and the page.
//!
//! Nothing is counted here. Workers and tables have their own counters, which `daemon::metrics` sums up for each
//! page. Each page is recorded with the macros of `metrics` by a new recorder, because a permanent one would keep the
//! series of removed links.

mod list;

use std::collections::BTreeMap;

use ::metrics::{Label, counter, describe_counter, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::formatting::{
    write_help_line, write_metric_line, write_type_line,
};
use metrics_exporter_prometheus::{LabelSet, PrometheusBuilder, PrometheusRecorder};

pub use self::list::*;

/// HTTP content type of the Prometheus text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases, from 0 at the start.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl MetricKind {
    /// Prometheus' name for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        }
    }
}

/// A metric: a family of series that differ in their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: MetricKind,
    /// Names of its labels, in this order.
    pub labels: &'static [&'static str],
    /// Its help text, one sentence.
    pub help: &'static str,
}

/// Value of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricValue {
    /// Integer value.
    Whole(u64),
    /// Fractional value.
    Fraction(f64),
}

macro_rules! whole_numbers {
    ($($number:ty)+) => {$(
        impl From<$number> for MetricValue {
            fn from(number: $number) -> MetricValue {
                MetricValue::Whole(number.into())
            }
        }
    )+};
}
whole_numbers! { u8 u16 u32 u64 }

impl From<f64> for MetricValue {
    fn from(number: f64) -> MetricValue {
        MetricValue::Fraction(number)
    }
}

impl From<usize> for MetricValue {
    fn from(number: usize) -> MetricValue {
        MetricValue::Whole(number as u64)
    }
}

/// A page of metrics.
#[derive(Debug)]
pub struct MetricsPage {
    recorder: PrometheusRecorder,
    /// Counters with fractions by name: a recorder's counters are integers.
    fractions: BTreeMap<&'static str, String>,
}

impl Default for MetricsPage {
    fn default() -> Self {
        MetricsPage {
            recorder: PrometheusBuilder::new().build_recorder(),
            fractions: BTreeMap::new(),
        }
    }
}

impl MetricsPage {
    /// Returns the series of a metric for adding to the page.
    pub fn metric(&mut self, metric: &'static Metric) -> MetricSeries<'_> {
        with_local_recorder(&self.recorder, || match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
        });
        MetricSeries { page: self, metric }
    }

    /// Renders the page: every metric that has series, in the order of the list, with its series sorted by labels.
    /// Takes a while if there are many series.
    #[must_use]
    pub fn end(self) -> String {
        let rendered = self.recorder.handle().render();
        let whole = rendered.split("\n\n").filter_map(|family| {
            let name = family.strip_prefix("# HELP ")?.split(' ').next()?;
            Some((name, family))
        });
        let fractions = self.fractions.iter().map(|(name, text)| (*name, &**text));
        let families: BTreeMap<&str, &str> = whole.chain(fractions).collect();
        let mut text = String::with_capacity(rendered.len());
        for family in ALL.iter().filter_map(|metric| families.get(metric.name)) {
            let mut lines: Vec<&str> = family.lines().collect();
            // The first two lines are HELP and TYPE.
            lines[2..].sort_unstable();
            for line in lines {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// Series of one metric.
#[derive(Debug)]
pub struct MetricSeries<'a> {
    page: &'a mut MetricsPage,
    metric: &'static Metric,
}

impl MetricSeries<'_> {
    /// Adds a series with these label values.
    pub fn add(&mut self, labels: &[&str], value: impl Into<MetricValue>) {
        let Metric {
            name,
            kind,
            labels: names,
            help,
        } = *self.metric;
        debug_assert_eq!(names.len(), labels.len(), "{name}");
        let pairs = names.iter().zip(labels);
        let labels: Vec<_> = pairs
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect();
        match (kind, value.into()) {
            (MetricKind::Counter, MetricValue::Whole(value)) => {
                with_local_recorder(&self.page.recorder, || {
                    counter!(name, labels).absolute(value);
                });
            }
            (MetricKind::Gauge, MetricValue::Whole(value)) => self.gauge(labels, value as f64),
            (MetricKind::Gauge, MetricValue::Fraction(value)) => self.gauge(labels, value),
            (MetricKind::Counter, MetricValue::Fraction(value)) => {
                let text = self.page.fractions.entry(name).or_insert_with(|| {
                    let mut text = String::new();
                    write_help_line(&mut text, name, None, None, help);
                    write_type_line(&mut text, name, None, None, kind.word());
                    text
                });
                let key = ::metrics::Key::from_parts(name, labels);
                let labels = LabelSet::from_key_and_global(&key, &[].into());
                write_metric_line::<&str, _>(text, name, None, &labels, None, value, None);
            }
        }
    }

    fn gauge(&self, labels: Vec<Label>, value: f64) {
        with_local_recorder(&self.page.recorder, || {
            gauge!(self.metric.name, labels).set(value);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_in_prometheus_form_and_hides_what_has_no_series() {
        let mut page = MetricsPage::default();
        let mut packets = page.metric(&PACKETS);
        packets.add(&["gnv\"0", "egress"], 3u64);
        packets.add(&["gnv1", "ingress"], 0u64);
        let _ = page.metric(&BYTES);
        page.metric(&WORKER_CPU).add(&["0"], 1.5);
        page.metric(&WORKER_STALLED).add(&["0"], 0.25);
        page.metric(&PROCESS_VIRTUAL).add(&[], 1u64 << 40);
        let text = page.end();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            format!("# HELP {} {}", PACKETS.name, PACKETS.help)
        );
        assert_eq!(lines[1], "# TYPE geneved_packets_total counter");
        assert_eq!(
            lines[2..4],
            [
                r#"geneved_packets_total{link="gnv1",direction="ingress"} 0"#,
                r#"geneved_packets_total{link="gnv\"0",direction="egress"} 3"#,
            ]
        );
        assert_eq!(
            lines[6],
            r#"geneved_worker_cpu_seconds_total{worker="0"} 1.5"#
        );
        let gauges = [lines[9], lines[12]];
        assert_eq!(
            gauges,
            [
                r#"geneved_worker_stalled_seconds{worker="0"} 0.25"#,
                "process_virtual_memory_bytes 1099511627776"
            ]
        );
        assert_eq!(lines.len(), 13);
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let mut names = std::collections::BTreeSet::new();
        for metric in ALL {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            let own = metric.name.starts_with("geneved_") || metric.name.starts_with("process_");
            assert!(own, "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
