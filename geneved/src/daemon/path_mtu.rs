//! Path MTU of each host: learned from errors about sent datagrams, with a lifetime.

use std::fs;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use libgeneve::time::Now;
use libgeneve::vpc::{Host, PathMtuEvidence, PathMtuReport, REPORT_LIFETIME};

use super::core::{Core, CoreState, host_event};
use crate::config::state::absent;
use crate::control::protocol::{FlushReply, PathMtuInfo};
use crate::io::UnderlayEvent;
use crate::net::mtu::PathTable;
use crate::refusal::Refusal;

/// Pause between two reads of the error queues. Each read is bounded, so a flood of errors costs the main thread only
/// a few percent.
const ERROR_INTERVAL: Duration = Duration::from_millis(10);

impl Core {
    /// Reads errors about sent datagrams as they arrive; never returns.
    pub(super) async fn follow_errors(self: Rc<Self>) {
        let queues = self.engine().error_queues();
        let queues = match queues {
            Ok(queues) => queues,
            Err(error) => {
                tracing::error!(%error, "ICMP errors are not heard of: {error}");
                return;
            }
        };
        loop {
            let Ok(mut ready) = queues.readable().await else {
                return;
            };
            loop {
                let mut all = Vec::new();
                let more = self.engine().read_errors(|news| all.push(news));
                if !all.is_empty() {
                    self.handle_errors(&all).await;
                }
                if !more {
                    break;
                }
                tokio::time::sleep(ERROR_INTERVAL).await;
            }
            ready.clear_ready();
        }
    }

    async fn handle_errors(&self, all: &[UnderlayEvent]) {
        let inner = self.inner().await;
        let now = self.engine().now();
        for news in all {
            match *news {
                UnderlayEvent::PathMtu {
                    host,
                    mtu,
                    by,
                    evidence,
                } => {
                    let report = PathMtuReport {
                        mtu,
                        reported: mtu,
                        by,
                        at: now,
                        evidence,
                    };
                    if let Some(host) = inner.builder.registry.find(host) {
                        self.learn_path_mtu(host, report);
                    }
                }
                UnderlayEvent::OwnMtu { host, mtu } => {
                    // The route says so as well, but is looked up a moment later.
                    if let Some(host) = inner.builder.registry.find(host)
                        && host.path.route().is_none_or(|known| known > mtu)
                    {
                        host.path.set_route(Some(mtu));
                    }
                }
            }
        }
    }

    fn learn_path_mtu(&self, host: &Host, report: PathMtuReport) {
        let least = self.settings().min_path_mtu.map(u32::from);
        let Some(report) = host.path.learn(report, least) else {
            return;
        };
        let (host, mtu, by) = (host.addr, report.mtu, report.by);
        let bound = match report.reported < mtu {
            true => format!(
                " ({} was reported, which is less than is believed)",
                report.reported
            ),
            false => String::new(),
        };
        tracing::info!(%host, mtu, %by, "path MTU to {host}: {mtu}, as {by} reports{bound}");
        self.hub()
            .announce(host_event(Some(host), "path-mtu", mtu.to_string()));
    }

    /// Expires reports, so that longer packets are tried again.
    pub(super) async fn expire_path_mtus(&self) {
        let inner = self.inner().await;
        let now = self.engine().now();
        for host in inner.builder.registry.iter() {
            if host.path_mtu().is_some() && host.path.expire(now, lifetime(host.addr)).is_some() {
                self.tell_raised(host.addr, "its time is over");
            }
        }
    }

    fn tell_raised(&self, host: IpAddr, why: &str) {
        tracing::info!(%host, "path MTU to {host}: longer packets are tried again, because {why}");
        let detail = format!("longer packets are tried again, because {why}");
        self.hub()
            .announce(host_event(Some(host), "path-mtu", detail));
    }

    /// Records the MTUs that the paths to all hosts allow. A report ends when its path has changed.
    pub(super) fn note_path_mtus(&self, inner: &CoreState, old: &PathTable) {
        for host in inner.builder.registry.iter() {
            let pairs = inner.paths.pairs_of(host.addr);
            let least = pairs
                .clone()
                .filter_map(|(_, way)| Some(way.as_ref().ok()?.mtu))
                .min();
            host.path.set_route(least);
            let moved = pairs.clone().any(|(local, way)| {
                matches!((old.path(host.addr, *local), way), (Some(Ok(old)), Ok(new)) if old != new)
            });
            if moved && host.path.forget().is_some() {
                self.tell_raised(host.addr, "the route to it changed");
            }
        }
    }

    /// Forgets what was learned about the path to one host, or to all hosts.
    pub(super) async fn flush_hosts(&self, address: Option<IpAddr>) -> Result<FlushReply, Refusal> {
        let mut inner = self.inner().await;
        let hosts = inner.known_hosts().await;
        if let Some(wanted) = address
            && !hosts.contains_key(&wanted)
        {
            let names: Vec<String> = hosts.keys().map(ToString::to_string).collect();
            let name = wanted.to_string();
            return Err(absent(&format!("host \"{name}\""), &name, &names, "host"));
        }
        let mut count = 0;
        let wanted = |host: &IpAddr| address.is_none_or(|wanted| wanted == *host);
        for host in inner
            .builder
            .registry
            .iter()
            .filter(|host| wanted(&host.addr))
        {
            let knew = host.path.forget().is_some();
            let refused = !host.gso();
            host.set_gso(true);
            count += u64::from(knew || refused);
        }
        inner.unreachable.forget(wanted);
        Ok(FlushReply { count })
    }
}

/// A reported path MTU for display.
pub(super) fn path_mtu_info(host: &Host, now: Now) -> Option<PathMtuInfo> {
    let report = host.path.report()?;
    let age = now.since(report.at);
    let left = lifetime(host.addr).saturating_sub(age);
    let evidence = match report.evidence {
        PathMtuEvidence::Flow => "flow",
        PathMtuEvidence::Length => "length",
    };
    Some(PathMtuInfo {
        by: report.by,
        reported: report.reported,
        evidence: evidence.to_owned(),
        age_s: age.as_secs(),
        left_s: left.as_secs(),
    })
}

/// Lifetime of a report about this host: the same as the kernel's.
fn lifetime(host: IpAddr) -> Duration {
    let family = if host.is_ipv4() { "ipv4" } else { "ipv6" };
    let path = format!("/proc/sys/net/{family}/route/mtu_expires");
    let seconds = fs::read_to_string(path).ok();
    let seconds = seconds.and_then(|text| text.trim().parse().ok());
    seconds.map_or(REPORT_LIFETIME, Duration::from_secs)
}
