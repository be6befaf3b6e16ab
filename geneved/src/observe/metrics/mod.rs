//! Metrics in Prometheus' text form: the list of them, and a page that is written from it.
//!
//! Nothing is counted here. Workers and tables have counters of their own; they are folded into a
//! page when somebody asks, by `daemon::metrics`. The exporter's recorder keeps whole numbers and never
//! forgets a series; a page that is written anew has fractions, and only what is there.

mod list;

use std::fmt::Display;

use ::metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{
    write_help_line, write_metric_line, write_type_line,
};

pub use self::list::*;

/// What the form of Prometheus is called in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from 0 at the start.
    Counter,
    /// Up and down.
    Gauge,
}

impl Kind {
    /// Prometheus' word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        }
    }
}

/// A metric: a family of series that differ in their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The names of its labels, in this order.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// A page of metrics.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Begins a metric; all its series are added before the next one begins.
    pub fn metric(&mut self, metric: &'static Metric) -> Series<'_> {
        Series {
            text: &mut self.text,
            metric,
            begun: false,
        }
    }

    /// The page.
    #[must_use]
    pub fn end(self) -> String {
        self.text
    }
}

/// The series of one metric.
#[derive(Debug)]
pub struct Series<'a> {
    text: &'a mut String,
    metric: &'static Metric,
    begun: bool,
}

impl Series<'_> {
    /// Adds a series: the values of its labels, and its own.
    pub fn add(&mut self, labels: &[&str], value: impl Display) {
        let Metric {
            name,
            kind,
            labels: names,
            help,
        } = *self.metric;
        debug_assert_eq!(names.len(), labels.len(), "{name}");
        if !self.begun {
            write_help_line(self.text, name, None, None, help);
            write_type_line(self.text, name, None, None, kind.word());
            self.begun = true;
        }
        let pairs = names.iter().zip(labels);
        let pairs: Vec<_> = pairs
            .map(|(name, value)| Label::new(*name, (*value).to_owned()))
            .collect();
        let labels = LabelSet::from_key_and_global(&Key::from_parts(name, pairs), &[].into());
        write_metric_line::<&str, _>(self.text, name, None, &labels, None, value, None);
    }

    /// The same, for a chain of calls.
    #[must_use]
    pub fn with(mut self, labels: &[&str], value: impl Display) -> Self {
        self.add(labels, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_in_prometheus_form_and_hides_what_has_no_series() {
        let mut page = Page::default();
        let mut packets = page.metric(&PACKETS);
        packets.add(&["gnv\"0", "egress"], 3u64);
        packets.add(&["gnv1", "ingress"], 0u64);
        let _ = page.metric(&BYTES);
        page.metric(&WORKER_CPU).add(&["0"], 1.5);
        let text = page.end();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            format!("# HELP {} {}", PACKETS.name, PACKETS.help)
        );
        assert_eq!(lines[1], "# TYPE geneved_packets_total counter");
        assert_eq!(
            lines[2],
            r#"geneved_packets_total{link="gnv\"0",direction="egress"} 3"#
        );
        assert_eq!(
            lines[6],
            r#"geneved_worker_cpu_seconds_total{worker="0"} 1.5"#
        );
        assert_eq!(lines.len(), 7);
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        let mut names = std::collections::BTreeSet::new();
        for metric in ALL {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            let own = metric.name.starts_with("geneved_") || metric.name.starts_with("process_");
            assert!(own, "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
