//! Unreachable hosts. Anybody may forge an ICMP error, so errors are only reported to the operator, and no longer
//! once the host is heard again. Errors from this host's own kernel are certain.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use libgeneve::time::Now;
use libgeneve::vpc::LinkIndex;

use super::core::{Core, CoreState, host_event, hosts_of};
use crate::config::state::LinkSpec;
use crate::io::SendErrors;

/// How long an error is shown. While packets are sent to a missing host, new errors keep coming: the kernel gives up
/// neighbour resolution after three seconds.
const ERROR_AGE: Duration = Duration::from_secs(20);
/// A second error has to come within this time before anything is shown: a single one may be chance.
const CONFIRM_WINDOW: Duration = Duration::from_secs(10);

/// A host heard within this time is reachable.
const ALIVE: Duration = Duration::from_secs(1);

/// Errors of each host.
#[derive(Debug, Default)]
pub(super) struct UnreachableHosts(BTreeMap<IpAddr, UnreachableHost>);

#[derive(Debug)]
struct UnreachableHost {
    last: Now,
    why: String,
    /// The kernel of this host refuses to send, which no received packet disproves.
    certain: bool,
    shown: bool,
}

/// Why a host cannot be reached, and the age of that report in seconds if it may be out of date.
pub(super) type HostFault = (String, Option<u64>);

impl UnreachableHosts {
    /// Records errors received by `now`; whether to log them.
    fn note(&mut self, host: IpAddr, now: Now, why: String, (count, certain): (u32, bool)) -> bool {
        self.0.retain(|_, said| now.since(said.last) < ERROR_AGE);
        let before = self.0.get(&host);
        let again = before.is_some_and(|said| now.since(said.last) < CONFIRM_WINDOW);
        let shown = certain || again || count > 1;
        let news = shown && before.is_none_or(|said| !said.shown || said.why != why);
        let said = UnreachableHost {
            last: now,
            why,
            certain,
            shown,
        };
        self.0.insert(host, said);
        news
    }

    /// Why a host could not be reached, and how many seconds ago that was; it was `last_received` last then.
    pub(super) fn of(&self, host: IpAddr, now: Now, heard: Option<Now>) -> Option<(&str, u64)> {
        let said = self.0.get(&host).filter(|said| said.shown)?;
        let alive = !said.certain && heard.is_some_and(|heard| heard > said.last);
        let age = now.since(said.last);
        (age < ERROR_AGE && !alive).then_some((said.why.as_str(), age.as_secs()))
    }

    /// Forgets the errors of these hosts.
    pub(super) fn forget(&mut self, which: impl Fn(&IpAddr) -> bool) {
        self.0.retain(|host, _| !which(host));
    }

    /// Forgets the hosts that were heard since their error, and returns those that were shown.
    fn forget_heard(&mut self, heard: impl Fn(IpAddr) -> Option<Now>) -> Vec<IpAddr> {
        let mut back = Vec::new();
        self.0.retain(|host, said| {
            let alive = !said.certain && heard(*host).is_some_and(|heard| heard > said.last);
            if alive && said.shown {
                back.push(*host);
            }
            !alive
        });
        back
    }
}

impl CoreState {
    pub(super) fn heard(&self, host: IpAddr) -> Option<Now> {
        self.builder
            .registry
            .find(host)
            .and_then(|host| host.last_received())
    }

    /// Why packets of these links do not reach a host, as far as is known.
    pub(super) fn fault<'a>(
        &self,
        host: IpAddr,
        links: impl Iterator<Item = &'a LinkSpec>,
        now: Now,
    ) -> Option<HostFault> {
        let mut no_route = None;
        let (mut asked, mut failed) = (0, 0);
        for link in links {
            if let Some(why) = self.paths.loop_of(&link.name, host) {
                return Some((format!("nothing is sent to it: {why}"), None));
            }
            let way = self.paths.path(host, link.local);
            asked += usize::from(way.is_some());
            if let Some(Err(error)) = way {
                failed += 1;
                let from = link.local.map(|local| format!(" from {local}"));
                let from = from.unwrap_or_default();
                no_route = Some((format!("this host has no route to it{from}: {error}"), None));
            }
        }
        if asked > 0 && asked == failed {
            return no_route;
        }
        let (why, age) = self.unreachable.of(host, now, self.heard(host))?;
        Some((why.to_owned(), Some(age)))
    }
}

impl Core {
    /// Reports that the kernel no longer forwards a link's super-packets to a host, or does so again.
    pub(super) async fn tunnel_gso(&self, index: LinkIndex, host: IpAddr, works: bool) {
        let inner = self.inner().await;
        let mut links = inner.running.iter();
        let Some((link, _)) = links.find(|(_, running)| running.index == index) else {
            return;
        };
        let detail = format!("{} for {link}", if works { "on" } else { "off" });
        self.hub()
            .announce(host_event(Some(host), "tunnel-gso", detail));
        if works {
            tracing::info!(%host, %link, "the kernel forwards super-packets of {link} to {host} again: they are handed to it uncut");
        } else {
            tracing::warn!(
                %host,
                %link,
                "the kernel does not forward super-packets of {link} to {host} (a firewall or the reverse-path filter?): geneved cuts them itself"
            );
        }
    }

    /// Records that datagrams to this host did not arrive or were not sent, if any link uses it.
    pub(super) async fn host_unreachable(&self, refusals: &SendErrors) {
        let mut inner = self.inner().await;
        let host = refusals.host;
        let state = &inner.state;
        let of_host = |link| hosts_of(state, link).contains(&host);
        if !state.links.values().any(of_host) {
            return;
        }
        let (why, now) = (meaning(&refusals.error), self.engine().now());
        let heard = inner.heard(host);
        // A host heard a moment ago is reachable, whatever an ICMP error says.
        if !refusals.certain && heard.is_some_and(|heard| now.since(heard) < ALIVE) {
            return;
        }
        let of = (refusals.count, refusals.certain);
        if inner.unreachable.note(host, now, why.clone(), of)
            && inner.unreachable.of(host, now, heard).is_some()
        {
            tracing::warn!(%host, why, "nothing arrives at {host}: {why}");
            self.hub()
                .announce(host_event(Some(host), "unreachable", why));
        }
    }

    /// Reads the ICMP errors since the last call, and reports hosts that are reachable again.
    pub(super) async fn read_refusals(&self) {
        for refusals in self.engine().refusals() {
            self.host_unreachable(&refusals).await;
        }
        let mut inner = self.inner().await;
        let CoreState {
            unreachable,
            builder,
            ..
        } = &mut *inner;
        let heard = |host| {
            builder
                .registry
                .find(host)
                .and_then(|host| host.last_received())
        };
        for host in unreachable.forget_heard(heard) {
            tracing::info!(%host, "{host} is heard again");
            let detail = "it is heard again".to_owned();
            self.hub()
                .announce(host_event(Some(host), "reachable", detail));
        }
    }
}

fn meaning(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(nix::libc::ECONNREFUSED) => "it says that no program listens on the port".into(),
        Some(nix::libc::EHOSTUNREACH) => "no such host answers on its network".into(),
        Some(nix::libc::ENETUNREACH) => "there is no route to its network".into(),
        Some(nix::libc::EACCES | nix::libc::EPERM) => "a firewall forbids it".into(),
        Some(nix::libc::ENETDOWN) => "the interface towards it is down".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNREACHABLE_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ANOTHER_HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(seconds: u64) -> Now {
        Now(seconds * 1_000_000_000)
    }

    fn note(all: &mut UnreachableHosts, host: IpAddr, seconds: u64, count: u32) -> bool {
        all.note(host, at(seconds), "gone".into(), (count, false))
    }

    #[test]
    fn a_second_error_is_shown_for_a_while() {
        let mut all = UnreachableHosts::default();
        assert!(!note(&mut all, UNREACHABLE_HOST, 100, 1));
        assert_eq!(all.of(UNREACHABLE_HOST, at(100), None), None);
        assert!(!note(&mut all, UNREACHABLE_HOST, 111, 1));
        assert!(note(&mut all, UNREACHABLE_HOST, 113, 1));
        assert!(!note(&mut all, UNREACHABLE_HOST, 116, 1), "it is told once");
        assert_eq!(all.of(UNREACHABLE_HOST, at(123), None), Some(("gone", 7)));
        assert_eq!(all.of(ANOTHER_HOST, at(123), None), None);
        assert_eq!(all.of(UNREACHABLE_HOST, at(136), None), None);
        assert!(!note(&mut all, ANOTHER_HOST, 140, 1));
        assert_eq!(all.0.len(), 1, "what is not shown is not kept");
    }

    #[test]
    fn many_errors_at_once_are_shown_at_once() {
        let mut all = UnreachableHosts::default();
        assert!(note(&mut all, UNREACHABLE_HOST, 1, 3));
        assert_eq!(all.of(UNREACHABLE_HOST, at(1), None), Some(("gone", 0)));
    }

    #[test]
    fn a_host_that_is_heard_since_is_not_unreachable() {
        let mut all = UnreachableHosts::default();
        assert!(note(&mut all, UNREACHABLE_HOST, 10, 2));
        assert!(all.of(UNREACHABLE_HOST, at(12), Some(at(9))).is_some());
        assert!(all.of(UNREACHABLE_HOST, at(12), Some(at(11))).is_none());
        assert!(all.forget_heard(|_| Some(at(9))).is_empty());
        assert_eq!(all.forget_heard(|_| Some(at(11))), [UNREACHABLE_HOST]);
        assert!(all.0.is_empty());
    }

    #[test]
    fn what_the_own_kernel_says_is_not_disproved_by_hearing() {
        let mut all = UnreachableHosts::default();
        assert!(all.note(UNREACHABLE_HOST, at(10), "forbidden".into(), (1, true)));
        assert!(all.of(UNREACHABLE_HOST, at(12), Some(at(11))).is_some());
        assert!(all.forget_heard(|_| Some(at(11))).is_empty());
    }
}
