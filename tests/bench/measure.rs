//! Measurements between two hosts.

use crate::arguments::BenchArguments;
use crate::tunnel::TunnelPair;
use geneved::lab::netns;
use geneved::traffic::{EchoRun, PingPong, PingPongTransport, SendAmount, TcpBulk, UdpBurst};
use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    Tcp1,
    Tcp4,
    Udp64,
    Udp1300,
    Iperf64,
    PingPong,
    Idle,
}

/// Measured quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    Tcp1Rate,
    Tcp1Cpu,
    Tcp1Retransmits,
    Tcp4Rate,
    Tcp4Cpu,
    Tcp4Retransmits,
    Udp64Rate,
    Udp64Cpu,
    Udp64Sent,
    Udp1300Rate,
    Udp1300Cpu,
    Udp1300Sent,
    Iperf64Rate,
    Iperf64Sent,
    PingPongMedian,
    PingPongTail,
    IdleMedian,
}

impl Quantity {
    /// Its title, with the unit.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tcp1Rate => "TCP 1 stream, Gbit/s",
            Self::Tcp1Cpu => "TCP 1 stream, CPU s/GB",
            Self::Tcp1Retransmits => "TCP 1 stream, retransmissions",
            Self::Tcp4Rate => "TCP 4 streams, Gbit/s",
            Self::Tcp4Cpu => "TCP 4 streams, CPU s/GB",
            Self::Tcp4Retransmits => "TCP 4 streams, retransmissions",
            Self::Udp64Rate => "UDP 64 B received, k/s",
            Self::Udp64Cpu => "UDP 64 B, CPU s/million",
            Self::Udp64Sent => "UDP 64 B sent, k/s",
            Self::Udp1300Rate => "UDP 1300 B received, k/s",
            Self::Udp1300Cpu => "UDP 1300 B, CPU s/million",
            Self::Udp1300Sent => "UDP 1300 B sent, k/s",
            Self::Iperf64Rate => "UDP 64 B received, iperf3 flat out, k/s",
            Self::Iperf64Sent => "UDP 64 B sent, iperf3 flat out, k/s",
            Self::PingPongMedian => "UDP ping-pong p50, µs",
            Self::PingPongTail => "UDP ping-pong p99, µs",
            Self::IdleMedian => "idle ping every 10 ms, median, µs",
        }
    }

    /// Whether it is a time, which is compared by difference instead of by ratio.
    pub const fn is_time(self) -> bool {
        matches!(
            self,
            Self::PingPongMedian | Self::PingPongTail | Self::IdleMedian
        )
    }
}

/// Values of one measurement.
pub struct MeasuredValues(pub Vec<(Quantity, f64)>);

impl MeasuredValues {
    /// Formats the values on one line.
    pub fn brief(&self) -> String {
        let each = self
            .0
            .iter()
            .map(|(quantity, value)| format!("{quantity:?} {value:.2}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Measure {
    pub const ALL: [Self; 7] = [
        Self::Tcp1,
        Self::Tcp4,
        Self::Udp64,
        Self::Udp1300,
        Self::Iperf64,
        Self::PingPong,
        Self::Idle,
    ];

    pub fn parse(word: &str) -> Result<Self, String> {
        let names = [
            "tcp1", "tcp4", "udp64", "udp1300", "iperf64", "pingpong", "idle",
        ];
        names
            .iter()
            .position(|name| *name == word)
            .map(|i| Self::ALL[i])
            .ok_or(format!("{word:?} is not a measure: {}", names.join(", ")))
    }

    pub fn run(self, pair: &TunnelPair, arguments: &BenchArguments) -> io::Result<MeasuredValues> {
        use Quantity as Q;
        let time = arguments.duration;
        // Warm-up: the first packet resolves the neighbour and wakes sleeping threads.
        let warm = EchoRun {
            count: 3,
            interval: Duration::from_millis(5),
            ..EchoRun::default()
        };
        if warm.run(&pair.ends.client, pair.ends.address)?.received == 0 {
            return Err(io::Error::other("no reply to ping"));
        }
        match self {
            Self::Tcp1 => tcp(pair, time, 1, [Q::Tcp1Rate, Q::Tcp1Cpu, Q::Tcp1Retransmits]),
            Self::Tcp4 => tcp(pair, time, 4, [Q::Tcp4Rate, Q::Tcp4Cpu, Q::Tcp4Retransmits]),
            Self::Udp64 => udp(pair, time, 64, [Q::Udp64Rate, Q::Udp64Cpu, Q::Udp64Sent]),
            Self::Udp1300 => udp(
                pair,
                time,
                1300,
                [Q::Udp1300Rate, Q::Udp1300Cpu, Q::Udp1300Sent],
            ),
            Self::Iperf64 => iperf(pair, time),
            Self::PingPong => {
                let rounds = (time.as_secs_f64() * 3000.0) as u64;
                let report = PingPong {
                    transport: PingPongTransport::Udp,
                    rounds,
                    ..PingPong::default()
                }
                .run(&pair.ends)?;
                Ok(MeasuredValues(vec![
                    (Q::PingPongMedian, micros(report.times.median())),
                    (Q::PingPongTail, micros(report.times.percentile(0.99))),
                ]))
            }
            Self::Idle => {
                let count = (time.as_millis() / 15) as u16;
                let echo = EchoRun {
                    count,
                    interval: Duration::from_millis(10),
                    ..EchoRun::default()
                };
                let report = echo.run(&pair.ends.client, pair.ends.address)?;
                Ok(MeasuredValues(vec![(
                    Q::IdleMedian,
                    micros(report.times.median()),
                )]))
            }
        }
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn tcp(
    pair: &TunnelPair,
    time: Duration,
    streams: usize,
    names: [Quantity; 3],
) -> io::Result<MeasuredValues> {
    let bulk = TcpBulk {
        streams,
        amount: SendAmount::For(time),
        verify: false,
        ..TcpBulk::default()
    };
    let retransmits = retransmitted(pair)?;
    let before = cpu_seconds()?;
    let report = bulk.run(&pair.ends)?;
    let cpu = cpu_seconds()? - before;
    if !report.is_intact() {
        return Err(io::Error::other(format!("TCP lost bytes: {report}")));
    }
    Ok(MeasuredValues(vec![
        (names[0], report.rate().gigabits()),
        (names[1], cpu / (report.bytes as f64 / 1e9)),
        (names[2], (retransmitted(pair)? - retransmits) as f64),
    ]))
}

fn udp(
    pair: &TunnelPair,
    time: Duration,
    size: usize,
    names: [Quantity; 3],
) -> io::Result<MeasuredValues> {
    let burst = UdpBurst {
        size,
        amount: SendAmount::For(time),
        batch: 64,
        verify: false,
        settle: Duration::from_millis(200),
        ..UdpBurst::default()
    };
    let before = cpu_seconds()?;
    let report = burst.run(&pair.ends)?;
    let cpu = cpu_seconds()? - before;
    if report.received == 0 || report.corrupted > 0 {
        return Err(io::Error::other(format!("UDP: {report}")));
    }
    Ok(MeasuredValues(vec![
        (names[0], report.received as f64 / time.as_secs_f64() / 1e3),
        (names[1], cpu / (report.received as f64 / 1e6)),
        (names[2], report.sent as f64 / time.as_secs_f64() / 1e3),
    ]))
}

fn iperf(pair: &TunnelPair, time: Duration) -> io::Result<MeasuredValues> {
    let address = pair.ends.address.to_string();
    let mut server = pair.ends.server.run(|| {
        Command::new("iperf3")
            .args(["-s", "-1", "-B", &address])
            .stdout(Stdio::null())
            .spawn()
    })??;
    thread::sleep(Duration::from_millis(200));
    let seconds = format!("{}", time.as_secs_f64().ceil());
    let outcome = pair.ends.client.run(|| {
        netns::run(
            "iperf3",
            &[
                "-c", &address, "-u", "-b", "0", "-l", "64", "-t", &seconds, "-J",
            ],
        )
    })?;
    let _ = server.kill();
    let _ = server.wait();
    let json: serde_json::Value = serde_json::from_str(&outcome?)?;
    let sum = |name: &str| json["end"][name]["packets"].as_f64();
    let (Some(sent), Some(counted), Some(lost), Some(length)) = (
        sum("sum_sent").or_else(|| sum("sum")),
        sum("sum_received")
            .filter(|n| *n > 0.0)
            .or_else(|| sum("sum")),
        json["end"]["sum"]["lost_packets"].as_f64(),
        json["end"]["sum"]["seconds"].as_f64(),
    ) else {
        return Err(io::Error::other("iperf3 reports no packets"));
    };
    Ok(MeasuredValues(vec![
        (Quantity::Iperf64Rate, (counted - lost) / length / 1e3),
        (Quantity::Iperf64Sent, sent / length / 1e3),
    ]))
}

/// CPU time that the machine has used since boot, without idle, iowait and steal.
fn cpu_seconds() -> io::Result<f64> {
    /// `/proc/stat` counts in `USER_HZ`, which is 100 on every architecture that geneved runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(1)
        .filter_map(|f| f.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|i| fields.get(*i))
        .sum::<f64>();
    Ok(busy / TICKS_PER_SECOND)
}

/// TCP segments retransmitted in the client's namespace.
fn retransmitted(pair: &TunnelPair) -> io::Result<u64> {
    let snmp = pair
        .ends
        .client
        .run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let found = names
        .split(' ')
        .zip(values.split(' '))
        .find(|(name, _)| *name == "RetransSegs");
    Ok(found.and_then(|(_, value)| value.parse().ok()).unwrap_or(0))
}
