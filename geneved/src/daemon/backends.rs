//! Chooses the backends of services that get flows: those whose health checks do not report them down.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};

use super::compile::Outdated;
use super::core::{Core, CoreState};
use super::health::{self, CheckTarget, HealthBoard, HealthChange};
use crate::config::state::{DesiredState, ServiceSpec};
use crate::config::value::{IfName, ObjectName};
use crate::control::protocol::{BackendHealth, EventKind, HealthEvent};

/// Backends excluded from the tables that were published last.
#[derive(Debug, Default)]
pub(super) struct UnhealthyBackends(HashSet<CheckTarget>);

impl UnhealthyBackends {
    /// Makes the health board watch the backends of this state, and records which are known to be down.
    pub(super) fn of(state: &DesiredState, board: &mut HealthBoard) -> UnhealthyBackends {
        let targets: Vec<_> = targets(state).collect();
        board.watch(targets.iter().cloned());
        let down = targets.into_iter().filter(|t| is_down(board, t));
        UnhealthyBackends(down.collect())
    }

    /// Whether this backend is excluded.
    pub(super) fn has(&self, target: &CheckTarget) -> bool {
        self.0.contains(target)
    }

    /// Links whose backends are up in one set and down in the other.
    pub(super) fn differs_at<'a>(
        &'a self,
        other: &'a UnhealthyBackends,
    ) -> impl Iterator<Item = IfName> + 'a {
        let differing = self.0.symmetric_difference(&other.0);
        differing.filter_map(|target| target.link.parse().ok())
    }

    /// Whether the tables have a backend in a state that it is not in. Asks the board, because the change it reported
    /// may have been superseded by another one or by the end of the watch.
    fn errs(&self, board: &HealthBoard, target: &CheckTarget) -> bool {
        self.has(target) != is_down(board, target)
    }
}

fn is_down(board: &HealthBoard, target: &CheckTarget) -> bool {
    !board.state(target).counts_as_up()
}

impl Core {
    /// Handles a health change: publishes tables without the backend, or with it again.
    pub(super) async fn health_changed(&self, change: HealthChange) {
        let HealthChange { target, health } = change;
        let (link, backend, port) = (&target.link, target.addr, target.port);
        // An ICMP check has no port.
        let place = port.map_or(backend.to_string(), |port| {
            SocketAddr::new(backend, port).to_string()
        });
        let services = services_of(&self.inner().await.state, &target);
        let of = match services[..] {
            [] => String::new(),
            _ => {
                let names: Vec<_> = services.iter().map(|name| format!("\"{name}\"")).collect();
                format!(" of service {}", names.join(", "))
            }
        };
        let reason = match health {
            health::CheckedHealth::Unknown => return,
            health::CheckedHealth::Up => {
                tracing::info!(%link, %backend, port, "link \"{link}\": backend {place}{of} is up");
                None
            }
            health::CheckedHealth::Down(why) => {
                tracing::warn!(%link, %backend, port, why, "link \"{link}\": backend {place}{of} is down: {why}");
                Some(why)
            }
        };
        if let (Ok(dev), Some(port)) = (link.parse(), port) {
            self.hub().announce(EventKind::Health(HealthEvent {
                dev,
                services,
                address: backend,
                port,
                health: match reason {
                    None => BackendHealth::Up,
                    Some(_) => BackendHealth::Down,
                },
                reason,
            }));
        }
        let mut inner = self.inner().await;
        if self.board(|board| inner.builder.down.errs(board, &target)) {
            // `publish` finds out which links have backends that changed.
            self.publish(&mut inner, Outdated::Links(BTreeSet::new()))
                .await;
        }
    }

    /// Health of a service's backend, and why it is down.
    pub(super) fn backend_health(
        &self,
        inner: &CoreState,
        dev: &IfName,
        service: &ServiceSpec,
        at: (IpAddr, u16),
    ) -> (BackendHealth, Option<String>) {
        let target = target(&inner.state, dev, service, at);
        match self.board(|board| board.state(&target)) {
            health::CheckedHealth::Unknown => (BackendHealth::Unknown, None),
            health::CheckedHealth::Up => (BackendHealth::Up, None),
            health::CheckedHealth::Down(why) => (BackendHealth::Down, Some(why)),
        }
    }
}

/// What is health-checked of a service's backend.
pub(super) fn target(
    state: &DesiredState,
    dev: &IfName,
    service: &ServiceSpec,
    (addr, port): (IpAddr, u16),
) -> CheckTarget {
    CheckTarget {
        link: dev.to_string(),
        netns: state.links.get(dev).and_then(|l| l.netns.clone()),
        addr,
        port: Some(port),
        check: service.check,
        pace: service.pace,
    }
}

/// The services that use this backend.
fn services_of(state: &DesiredState, backend: &CheckTarget) -> Vec<ObjectName> {
    let all = state.services.iter().filter(|((dev, _), service)| {
        let mut targets = service.targets();
        targets.any(|(addr, port, _)| target(state, dev, service, (addr, port)) == *backend)
    });
    all.map(|((_, name), _)| name.clone()).collect()
}

fn targets(state: &DesiredState) -> impl Iterator<Item = CheckTarget> {
    state.services.iter().flat_map(move |((dev, _), service)| {
        service
            .targets()
            .map(move |(addr, port, _)| target(state, dev, service, (addr, port)))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::args::{ChangeVerb, LinkArgs, ObjectChange, ServiceArgs};

    /// Two services with one backend; `first` is the check of the first.
    fn state(port: u16, first: &str) -> DesiredState {
        let mut state = DesiredState::default();
        let link = LinkArgs {
            name: "lo".parse().unwrap(),
            id: Some("100".parse().unwrap()),
            ..LinkArgs::default()
        };
        let service = |name: &str, vip: &str, check: &str| {
            let words = ServiceArgs {
                name: name.parse().unwrap(),
                dev: "lo".parse().unwrap(),
                vip: Some(vip.parse().unwrap()),
                proto: Some("tcp".parse().unwrap()),
                port: Some(80),
                backend: vec![
                    format!("127.0.0.1:{port}")
                        .parse::<crate::config::value::AddrPort>()
                        .unwrap()
                        .into(),
                ],
                check: Some(check.parse().unwrap()),
                interval: (check != "none").then(|| "0.05".parse().unwrap()),
                ..ServiceArgs::default()
            };
            ObjectChange::service(ChangeVerb::Add, words)
        };
        state
            .apply(&ObjectChange::link(ChangeVerb::Add, link))
            .unwrap();
        state.apply(&service("first", "10.0.0.80", first)).unwrap();
        state.apply(&service("other", "10.0.0.81", "icmp")).unwrap();
        state
    }

    fn first(state: &DesiredState, port: u16) -> CheckTarget {
        let (key, service) = state.services.iter().next().unwrap();
        target(state, &key.0, service, (IpAddr::from([127, 0, 0, 1]), port))
    }

    async fn until_down(changes: &mut mpsc::Receiver<HealthChange>) -> CheckTarget {
        let wait = async {
            loop {
                let change = changes.recv().await.unwrap();
                if let health::CheckedHealth::Down(_) = change.health {
                    return change.target;
                }
            }
        };
        let wait = tokio::time::timeout(std::time::Duration::from_secs(20), wait);
        wait.await.expect("a backend without a listener fails")
    }

    fn closed_port() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn a_backend_that_is_down_comes_back_when_it_is_not_checked_any_more() {
        let (mut board, mut changes) = HealthBoard::new();
        let port = closed_port();
        let (checked, unchecked) = (state(port, "tcp"), state(port, "none"));
        let mut down = UnhealthyBackends::of(&checked, &mut board);
        let target = until_down(&mut changes).await;
        assert_eq!(target, first(&checked, port));
        assert!(!down.has(&target) && down.errs(&board, &target));
        down = UnhealthyBackends::of(&checked, &mut board);
        assert!(down.has(&target) && !down.errs(&board, &target));
        down = UnhealthyBackends::of(&unchecked, &mut board);
        assert!(!down.has(&target) && !down.has(&first(&unchecked, port)));
        // That change is late, and says nothing about a backend that is no longer watched.
        assert!(!down.errs(&board, &target));
    }

    #[tokio::test]
    async fn services_that_check_one_backend_differently_find_different_things() {
        let (mut board, mut changes) = HealthBoard::new();
        let port = closed_port();
        let state = state(port, "tcp");
        let _ = UnhealthyBackends::of(&state, &mut board);
        let target = until_down(&mut changes).await;
        let down = UnhealthyBackends::of(&state, &mut board);
        assert!(down.has(&target));
        let other = CheckTarget {
            check: "icmp".parse().unwrap(),
            ..target
        };
        assert!(!down.has(&other));
    }

    #[tokio::test]
    async fn another_pace_of_checks_forgets_nothing() {
        let (mut board, mut changes) = HealthBoard::new();
        let port = closed_port();
        let mut state = state(port, "tcp");
        let _ = UnhealthyBackends::of(&state, &mut board);
        until_down(&mut changes).await;
        let (key, service) = state.services.iter().next().unwrap();
        let (key, mut service) = (key.clone(), service.clone());
        service.pace.interval = "3".parse().unwrap();
        state.services.insert(key, service);
        let down = UnhealthyBackends::of(&state, &mut board);
        assert!(down.has(&first(&state, port)));
    }
}
