//! What the health checks found out about the backends of services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::core::Core;
use super::health::{self, HealthChange, Target};
use crate::config::state::State;
use crate::config::value::IfName;
use crate::control::protocol::Health;

/// The latest result of each backend that is watched.
#[derive(Debug, Default)]
pub(super) struct Backends {
    found: BTreeMap<(IfName, IpAddr, u16), Result<(), String>>,
}

impl Backends {
    /// Whether a backend may get flows. One of which nothing is known may.
    pub(super) fn passes(&self, dev: &IfName, addr: IpAddr, port: u16) -> bool {
        let found = self.found.get(&(dev.clone(), addr, port));
        found.is_none_or(Result::is_ok)
    }

    /// How a backend is, and why it is down.
    pub(super) fn of(&self, dev: &IfName, addr: IpAddr, port: u16) -> (Health, Option<String>) {
        match self.found.get(&(dev.clone(), addr, port)) {
            None => (Health::Unknown, None),
            Some(Ok(())) => (Health::Up, None),
            Some(Err(why)) => (Health::Down, Some(why.clone())),
        }
    }

    /// Notes a result; true where it changes what a backend may get.
    pub(super) fn note(
        &mut self,
        dev: IfName,
        addr: IpAddr,
        port: u16,
        result: Result<(), String>,
    ) -> bool {
        let before = self.passes(&dev, addr, port);
        let after = result.is_ok();
        self.found.insert((dev, addr, port), result);
        before != after
    }

    /// Forgets the backends that are not watched any more.
    pub(super) fn keep(&mut self, watched: impl Fn(&IfName, IpAddr, u16) -> bool) {
        self.found
            .retain(|(dev, addr, port), _| watched(dev, *addr, *port));
    }
}

impl Core {
    /// A backend is not as it was: tables without it, or with it again, are published.
    pub(super) async fn health_changed(&self, change: HealthChange) {
        let HealthChange {
            target,
            health: found,
        } = change;
        let (Ok(dev), Some(port)) = (target.link.parse::<IfName>(), target.port) else {
            return;
        };
        let result = match found {
            health::Health::Unknown => return,
            health::Health::Up => Ok(()),
            health::Health::Down(why) => Err(why),
        };
        match &result {
            Ok(()) => tracing::info!(link = %dev, backend = %target.addr, port, "backend is up"),
            Err(why) => {
                tracing::warn!(link = %dev, backend = %target.addr, port, why, "backend is down");
            }
        }
        let mut inner = self.inner().await;
        if inner.health.note(dev, target.addr, port, result) {
            self.publish(&mut inner);
        }
    }
}

/// The backends that are to be checked.
pub(super) fn targets(state: &State) -> impl Iterator<Item = Target> {
    state.services.iter().flat_map(|((dev, _), service)| {
        let netns = state.links.get(dev).and_then(|l| l.netns.clone());
        service.targets().map(move |(addr, port, _)| Target {
            link: dev.to_string(),
            netns: netns.clone(),
            addr,
            port: Some(port),
            check: service.check,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_passes_until_it_is_known_to_fail() {
        let dev: IfName = "gnv0".parse().unwrap();
        let addr = "10.0.0.5".parse().unwrap();
        let mut backends = Backends::default();
        assert!(backends.passes(&dev, addr, 80));
        assert!(!backends.note(dev.clone(), addr, 80, Ok(())));
        assert!(backends.note(dev.clone(), addr, 80, Err("refused".into())));
        assert_eq!(
            backends.of(&dev, addr, 80),
            (Health::Down, Some("refused".into()))
        );
        assert!(!backends.note(dev.clone(), addr, 80, Err("timeout".into())));
        assert!(backends.passes(&dev, addr, 81));
        backends.keep(|_, _, port| port == 81);
        assert_eq!(backends.of(&dev, addr, 80), (Health::Unknown, None));
    }
}
