//! Resources and counters of a host, and whether the counters add up.
//!
//! The daemon's counters are checked against the kernel's: every datagram read from a socket of the host, and every
//! packet read from an interface, must have been forwarded, dropped for one reason or consumed.

use super::hosts::{CHURNED_VPC, KILLED_VPC, PLAIN_VPC, STANDING, SoakHosts};
use geneved_tests::scrape;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Maximum number of datagrams of a UDP train, and of segments of a super-packet.
const MAX_TRAIN: u64 = 128;

/// Snapshot of one host.
#[derive(Clone, Default)]
pub struct Reading {
    /// Resident anonymous memory of the daemon in KiB.
    pub memory: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
    /// The metrics page.
    metrics: BTreeMap<String, f64>,
    /// Datagrams read from the UDP sockets of the host's namespace.
    pub datagrams: u64,
    /// Datagrams dropped because of a full socket buffer.
    pub overflows: u64,
    /// Packets that the daemon read from the plain VPC's interface.
    plain: u64,
}

/// The whole text of a file of the namespace that the thread is in.
fn of_namespace(hosts: &geneved::lab::netns::LabNetns, name: &str) -> io::Result<String> {
    let path = format!("/proc/thread-self/net/{name}");
    hosts.netns().run(|| std::fs::read_to_string(path))?
}

/// The number after `key` and white space in any line.
fn number(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A column of the `Udp:` lines of `/proc/net/snmp`.
fn udp_column(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let place = names.split_whitespace().position(|n| n == name)?;
    values.split_whitespace().nth(place)?.parse().ok()
}

fn scrape(hosts: &SoakHosts, side: usize) -> io::Result<BTreeMap<String, f64>> {
    let mut stream = UnixStream::connect(hosts.metrics(side))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: geneved\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let page = text
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::InvalidData)?
        .1;
    Ok(scrape::series(page))
}

impl Reading {
    /// Takes a snapshot of host a (0) or b (1).
    ///
    /// # Errors
    /// If the daemon is gone or does not answer.
    pub fn take(hosts: &SoakHosts, side: usize) -> io::Result<Self> {
        let missing = || io::Error::other("a number is missing in /proc");
        let process = format!("/proc/{}", hosts.pid(side));
        let status = std::fs::read_to_string(format!("{process}/status"))?;
        let status = |key| number(&status, key).ok_or_else(missing);
        let descriptors = std::fs::read_dir(format!("{process}/fd"))?.count() as u64;
        let metrics = scrape(hosts, side)?;
        let (udp, udp6) = (
            of_namespace(&hosts.hosts[side], "snmp")?,
            of_namespace(&hosts.hosts[side], "snmp6")?,
        );
        let both = |v4, v6| Some(udp_column(&udp, v4)? + number(&udp6, v6)?);
        let devices = of_namespace(hosts.tenant(&PLAIN_VPC, side), "dev")?;
        let row = devices
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{}:", PLAIN_VPC.device)));
        let plain = row.and_then(|row| row.split_whitespace().nth(9)?.parse().ok());
        Ok(Self {
            memory: status("RssAnon:")?,
            threads: status("Threads:")?,
            descriptors,
            metrics,
            datagrams: both("InDatagrams", "Udp6InDatagrams").ok_or_else(missing)?,
            overflows: both("RcvbufErrors", "Udp6RcvbufErrors").ok_or_else(missing)?,
            plain: plain.ok_or_else(missing)?,
        })
    }

    /// Sum of all series of this metric with these labels.
    fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> u64 {
        let of_metric = self.metrics.iter().filter(|(series, _)| {
            let has =
                |(name, value): &(&str, &str)| series.contains(&format!("{name}=\"{value}\""));
            series
                .strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with('{') || rest.is_empty())
                && labels.iter().all(has)
        });
        of_metric.map(|(_, value)| *value as u64).sum()
    }

    /// Packets of a link and direction that were forwarded.
    pub fn forwarded(&self, link: &str, direction: &str) -> u64 {
        self.sum(
            "geneved_packets_total",
            &[("link", link), ("direction", direction)],
        )
    }

    /// Packets of a link and direction that were forwarded, dropped or consumed.
    pub fn ended(&self, link: &str, direction: &str) -> u64 {
        let labels = [("link", link), ("direction", direction)];
        self.forwarded(link, direction)
            + self.sum("geneved_dropped_packets_total", &labels)
            + self.sum("geneved_consumed_packets_total", &labels)
    }

    /// All drops by reason.
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (series, value) in &self.metrics {
            let Some(labels) = series.strip_prefix("geneved_dropped_packets_total{") else {
                continue;
            };
            let reason = labels
                .split("reason=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            *all.entry(reason.unwrap_or("?").to_owned()).or_default() += *value as u64;
        }
        all.retain(|_, count| *count > 0);
        all
    }

    /// Resources that must not be in use when there is no traffic.
    fn held(&self) -> Vec<String> {
        let held = [
            (
                "trains",
                self.sum("geneved_worker_slots_in_use", &[("kind", "train")]),
            ),
            (
                "writes",
                self.sum("geneved_worker_slots_in_use", &[("kind", "write")]),
            ),
            (
                "TUN buffers",
                self.sum("geneved_worker_slots_in_use", &[("kind", "tun")]),
            ),
            (
                "UDP buffers",
                self.sum("geneved_worker_slots_in_use", &[("kind", "udp")]),
            ),
            ("NAT ports", self.sum("geneved_nat_ports_in_use", &[])),
            (
                "bytes of classes",
                self.sum("geneved_class_backlog_bytes", &[]),
            ),
            (
                "seconds without a turn",
                self.sum("geneved_worker_stalled_seconds", &[]),
            ),
        ];
        let some = held.into_iter().filter(|(_, count)| *count > 0);
        some.map(|(what, count)| format!("{count} {what} are held at rest"))
            .collect()
    }
}

/// Difference between two snapshots of the hosts.
pub struct TrafficDelta<'a> {
    /// Host a (0) or b (1).
    pub side: usize,
    /// Snapshots after the last rest, of all hosts.
    pub before: &'a [Reading; 2],
    /// Snapshots now.
    pub now: &'a [Reading; 2],
    /// Whether datagrams arrive one by one, so that sums are exact.
    pub single: bool,
    /// Whether forged ICMP errors claimed a smaller path MTU.
    pub narrow: bool,
}

impl TrafficDelta<'_> {
    /// Datagrams that the daemon read from its sockets.
    pub fn handed(&self) -> u64 {
        self.now[self.side].datagrams - self.before[self.side].datagrams
    }

    fn ended(&self, side: usize, link: &str, direction: &str) -> u64 {
        // A recreated link starts at 0.
        let [now, before] = [self.now, self.before].map(|all| all[side].ended(link, direction));
        now.checked_sub(before).unwrap_or(now)
    }

    fn forwarded(&self, side: usize, link: &str) -> u64 {
        let [now, before] = [self.now, self.before].map(|all| all[side].forwarded(link, "egress"));
        now.checked_sub(before).unwrap_or(now)
    }

    /// Datagrams that the daemon accounted for.
    pub fn counted(&self) -> u64 {
        let standing = STANDING.iter().map(|vpc| vpc.device);
        let more: &[&str] = match self.side {
            0 => &["", KILLED_VPC.device],
            _ => &["", CHURNED_VPC.device],
        };
        let links = standing.chain(more.iter().copied());
        links
            .map(|link| self.ended(self.side, link, "ingress"))
            .sum()
    }

    /// Discrepancies found.
    pub fn faults(&self) -> Vec<String> {
        let now = &self.now[self.side];
        let mut faults = now.held();
        let (handed, counted) = (self.handed(), self.counted());
        // The counters of the churned link on host a vanish with it; host b knows how much it sent there.
        let unknown = match self.side {
            0 => self.forwarded(1, CHURNED_VPC.device),
            _ => 0,
        };
        let most = if self.single {
            handed
        } else {
            handed * MAX_TRAIN
        };
        if counted + unknown < handed || counted > most {
            faults.push(format!(
                "the kernel handed out {handed} datagrams{}, and {counted} are counted{}",
                if self.single { "" } else { " and trains" },
                match unknown {
                    0 => String::new(),
                    some => format!(", beside at most {some} of a link that went"),
                }
            ));
        }
        let plain = now.plain - self.before[self.side].plain;
        let counted = self.ended(self.side, PLAIN_VPC.device, "egress");
        // If a smaller path MTU was claimed, packets without DF are fragmented.
        if plain > counted || plain < counted && !self.narrow {
            faults.push(format!(
                "{} handed out {plain} packets, and {counted} are counted",
                PLAIN_VPC.device
            ));
        }
        faults
    }
}

/// Theil-Sen slope: the median of the slopes between all pairs, which is robust against outliers.
pub fn slope(values: &[u64]) -> f64 {
    let mut slopes = Vec::new();
    for (i, &from) in values.iter().enumerate() {
        for (j, &to) in values.iter().enumerate().skip(i + 1) {
            slopes.push((to as f64 - from as f64) / (j - i) as f64);
        }
    }
    slopes.sort_by(f64::total_cmp);
    match slopes.len() {
        0 => 0.0,
        n => f64::midpoint(slopes[(n - 1) / 2], slopes[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outlier_is_no_drift_and_a_leak_is() {
        assert!(slope(&[100, 100, 900, 100, 100, 100]).abs() < 1e-9);
        assert!((slope(&[0, 10, 20, 500, 40]) - 10.0).abs() < 1e-9);
        assert!(slope(&[7]).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_found_in_files_of_the_kernel() {
        let snmp = "Ip: A B\nIp: 1 2\nUdp: InDatagrams NoPorts RcvbufErrors\nUdp: 5 6 7\n";
        assert_eq!(udp_column(snmp, "RcvbufErrors"), Some(7));
        assert_eq!(number("Threads:\t4\n", "Threads:"), Some(4));
    }

    #[test]
    fn series_are_added_up_by_labels() {
        let page = "geneved_packets_total{link=\"a\",direction=\"ingress\"} 3\n\
                    geneved_dropped_packets_total{link=\"a\",direction=\"ingress\",reason=\"no-route\"} 4\n\
                    geneved_dropped_packets_total{link=\"\",direction=\"ingress\",reason=\"unknown-vni\"} 5\n";
        let reading = Reading {
            metrics: scrape::series(page),
            ..Reading::default()
        };
        assert_eq!(
            (reading.ended("a", "ingress"), reading.ended("", "ingress")),
            (7, 5)
        );
        assert_eq!(reading.drops()["unknown-vni"], 5);
    }
}
