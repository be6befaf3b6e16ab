//! Hosts of which ICMP errors say that nothing arrives there. Such an error may be anybody's invention, so nothing
//! follows from it but that the operator is told.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::core::{Core, host_event, hosts_of};

/// For how long an error is worth showing.
const KEPT: Duration = Duration::from_secs(60);

/// The last error of each host.
#[derive(Debug, Default)]
pub(super) struct Unreachable(BTreeMap<IpAddr, (Instant, String)>);

impl Unreachable {
    fn note(&mut self, host: IpAddr, now: Instant, why: String) {
        self.0
            .retain(|_, (at, _)| now.saturating_duration_since(*at) < KEPT);
        self.0.insert(host, (now, why));
    }

    /// Why a host could not be reached, and how many seconds ago that was.
    pub(super) fn of(&self, host: IpAddr, now: Instant) -> Option<(&str, u64)> {
        let (at, why) = self.0.get(&host)?;
        let age = now.saturating_duration_since(*at);
        (age < KEPT).then_some((why.as_str(), age.as_secs()))
    }
}

impl Core {
    /// Notes that an ICMP error came for datagrams to this host, if any link has it.
    pub(super) async fn host_unreachable(&self, host: IpAddr, error: &io::Error) {
        let mut inner = self.inner().await;
        let state = &inner.state;
        let mut links = state.links.values();
        if !links.any(|link| hosts_of(state, link).contains(&host)) {
            return;
        }
        let why = meaning(error);
        tracing::warn!(%host, why, "nothing arrives at {host}: {why}");
        self.hub()
            .tell(host_event(Some(host), "unreachable", why.clone()));
        inner.unreachable.note(host, Instant::now(), why);
    }
}

fn meaning(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::ECONNREFUSED) => "it says that no program listens on the port".into(),
        Some(nix::libc::EHOSTUNREACH) => "no such host answers on its network".into(),
        Some(nix::libc::ENETUNREACH) => "there is no route to its network".into(),
        Some(nix::libc::EACCES | nix::libc::EPERM) => "a firewall forbids it".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_shown_for_a_minute() {
        let (host, start) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        let mut all = Unreachable::default();
        all.note(host, start, "gone".into());
        assert_eq!(
            all.of(host, start + Duration::from_secs(7)),
            Some(("gone", 7))
        );
        assert_eq!(all.of(IpAddr::from([192, 0, 2, 2]), start), None);
        assert_eq!(all.of(host, start + KEPT), None);
        all.note(
            IpAddr::from([192, 0, 2, 2]),
            start + KEPT,
            "gone, too".into(),
        );
        assert_eq!(all.0.len(), 1, "what is not shown is not kept");
    }
}
