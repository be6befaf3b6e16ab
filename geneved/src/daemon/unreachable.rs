//! Hosts of which ICMP errors say that nothing arrives there. Such an error may be anybody's invention, so nothing
//! follows from it but that the operator is told.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::core::{Core, host_event, hosts_of};

/// For how long an error is worth showing.
const KEPT: Duration = Duration::from_secs(60);
/// Within this a second error has to come before anything is shown: a single one waited, perhaps for long, until the next
/// datagram to whichever host was sent, and what it was about may be over.
const AGAIN: Duration = Duration::from_secs(10);

/// What was heard of each host.
#[derive(Debug, Default)]
pub(super) struct Unreachable(BTreeMap<IpAddr, Heard>);

#[derive(Debug)]
struct Heard {
    last: Instant,
    why: String,
    again: bool,
}

impl Unreachable {
    /// Notes an error; whether it is worth a word.
    fn note(&mut self, host: IpAddr, now: Instant, why: String) -> bool {
        let age = |heard: &Heard| now.saturating_duration_since(heard.last);
        self.0.retain(|_, heard| age(heard) < KEPT);
        let again = self.0.get(&host).is_some_and(|heard| age(heard) < AGAIN);
        let last = now;
        self.0.insert(host, Heard { last, why, again });
        again
    }

    /// Why a host could not be reached, and how many seconds ago that was.
    pub(super) fn of(&self, host: IpAddr, now: Instant) -> Option<(&str, u64)> {
        let heard = self.0.get(&host).filter(|heard| heard.again)?;
        let age = now.saturating_duration_since(heard.last);
        (age < KEPT).then_some((heard.why.as_str(), age.as_secs()))
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
        if inner.unreachable.note(host, Instant::now(), why.clone()) {
            tracing::warn!(%host, why, "nothing arrives at {host}: {why}");
            self.hub().tell(host_event(Some(host), "unreachable", why));
        }
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
    fn a_second_error_is_shown_for_a_minute() {
        let (host, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut all = Unreachable::default();
        assert!(!all.note(host, start, "gone".into()));
        assert_eq!(all.of(host, start), None);
        assert!(!all.note(host, after(11), "gone".into()));
        assert!(all.note(host, after(13), "gone".into()));
        assert_eq!(all.of(host, after(20)), Some(("gone", 7)));
        assert_eq!(all.of(other, after(20)), None);
        assert_eq!(all.of(host, after(73)), None);
        assert!(!all.note(other, after(73), "gone, too".into()));
        assert_eq!(all.0.len(), 1, "what is not shown is not kept");
    }
}
