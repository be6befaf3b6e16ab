//! Trials that the lab runs through the overlays, and the table of results.

use super::hosts::{GENEVE_OVERLAYS, LabHosts, LabOverlay, VXLAN_OVERLAYS};
use crate::traffic::{EchoRun, SendAmount, TcpBulk, UdpBurst};
use std::io;
use std::time::Duration;

/// One trial.
#[derive(Clone, Copy)]
enum Trial {
    Ping { six: bool },
    Tcp { six: bool },
    Udp { six: bool },
}

const TRIALS: [Trial; 6] = [
    Trial::Ping { six: false },
    Trial::Ping { six: true },
    Trial::Tcp { six: false },
    Trial::Tcp { six: true },
    Trial::Udp { six: false },
    Trial::Udp { six: true },
];

/// Result of a trial: whether it is as it should be, and its text.
struct TrialResult {
    good: bool,
    words: String,
}

/// Datagrams per burst, and per second. Slow enough for any machine to carry them all.
const TRIAL_DATAGRAMS: u64 = 20_000;
const BURST_PACE: f64 = 40_000.0;
/// Fraction of a burst that may be lost before it counts as a failure, as a busy machine is not an error.
const TOLERATED_LOSS: f64 = 0.01;

/// Runs all trials over both underlays; returns whether all of geneved's went well.
pub(super) fn all(hosts: &LabHosts, duration: Duration) -> bool {
    let mut good = true;
    if !hosts.has_vxlan {
        println!("This kernel has no VXLAN device (CONFIG_VXLAN): geneved is shown alone.");
    }
    println!(
        "\n{:<22}{:<42}{}",
        "",
        "geneved",
        if hosts.has_vxlan { "kernel VXLAN" } else { "" }
    );
    for (own, kernel) in GENEVE_OVERLAYS.iter().zip(&VXLAN_OVERLAYS) {
        println!(
            "over an {} underlay",
            if own.over6 { "IPv6" } else { "IPv4" }
        );
        for trial in TRIALS {
            let outcome = trial.run(hosts, own, duration);
            good &= outcome.good;
            let beside = if hosts.has_vxlan {
                trial.run(hosts, kernel, duration).text()
            } else {
                String::new()
            };
            println!("  {:<20}{:<42}{beside}", trial.title(), outcome.text());
        }
    }
    println!(
        "\nTCP is checked byte for byte by BLAKE3 on both sides, which costs CPU time of its own; what the \
         overlay\nalone can do is what the benchmark measures."
    );
    println!(
        "{}",
        if good {
            "All is well."
        } else {
            "SOMETHING FAILED: see above."
        }
    );
    good
}

impl Trial {
    const fn title(self) -> &'static str {
        match self {
            Self::Ping { six: false } => "ping, IPv4",
            Self::Ping { six: true } => "ping, IPv6",
            Self::Tcp { six: false } => "TCP, IPv4",
            Self::Tcp { six: true } => "TCP, IPv6",
            Self::Udp { six: false } => "UDP burst, IPv4",
            Self::Udp { six: true } => "UDP burst, IPv6",
        }
    }

    fn run(self, hosts: &LabHosts, overlay: &LabOverlay, duration: Duration) -> TrialResult {
        self.try_run(hosts, overlay, duration)
            .unwrap_or_else(|error| TrialResult {
                good: false,
                words: error.to_string(),
            })
    }

    fn try_run(
        self,
        hosts: &LabHosts,
        overlay: &LabOverlay,
        duration: Duration,
    ) -> io::Result<TrialResult> {
        match self {
            Self::Ping { six } => {
                let ends = hosts.ends(overlay, six);
                let report = EchoRun::default().run(&ends.client, ends.address)?;
                Ok(TrialResult {
                    good: report.all_answered(),
                    words: report.to_string(),
                })
            }
            Self::Tcp { six } => {
                let bulk = TcpBulk {
                    amount: SendAmount::For(duration),
                    ..TcpBulk::default()
                };
                let report = bulk.run(&hosts.ends(overlay, six))?;
                let content = if report.is_intact() {
                    "checksum equal"
                } else {
                    "CHECKSUM DIFFERS"
                };
                let megabytes = report.bytes / 1_000_000;
                Ok(TrialResult {
                    good: report.is_intact(),
                    words: format!("{}, {megabytes} MB, {content}", report.rate()),
                })
            }
            Self::Udp { six } => {
                let burst = UdpBurst {
                    amount: SendAmount::Count(TRIAL_DATAGRAMS),
                    pace: Some(BURST_PACE),
                    flows: 4,
                    ..UdpBurst::default()
                };
                let report = burst.run(&hosts.ends(overlay, six))?;
                Ok(TrialResult {
                    good: report.loss() <= TOLERATED_LOSS && report.corrupted == 0,
                    words: format!(
                        "{}, {} of {} received",
                        report.rate(),
                        report.received,
                        report.sent
                    ),
                })
            }
        }
    }
}

impl TrialResult {
    fn text(&self) -> String {
        if self.good {
            self.words.clone()
        } else {
            format!("FAILED: {}", self.words)
        }
    }
}
