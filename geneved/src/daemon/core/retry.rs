//! Links that cannot work now: recorded, reported once, and brought up as soon as possible.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use libgeneve::vpc::LinkIndex;

use super::interfaces::UnreadyPolicy;
use super::running::{LinkRuntime, Obstacle, RetryBackoff};
use super::{Core, CoreState, host_event};
use crate::config::state::LinkSpec;
use crate::config::value::IfName;
use crate::daemon::compile::Outdated;
use crate::io::SourceSockets;
use crate::net::interface::{self, InterfaceStatus};
use crate::net::netns;

impl Core {
    /// Interval at which [`Core::retry_links`] is called while a link waits.
    pub(in crate::daemon) const RETRY: Duration = RetryBackoff::FIRST;

    /// Number of waiting links.
    pub(in crate::daemon) fn waiting(&self) -> usize {
        self.waiting.get()
    }

    /// Retries waiting links.
    pub(in crate::daemon) async fn retry_links(&self) {
        let mut inner = self.inner().await;
        let now = Instant::now();
        let waiting = inner.running.iter_mut().filter(|(_, r)| r.waits());
        let due: Vec<_> = waiting
            .filter_map(|(name, r)| r.attempts.due(now).then(|| name.clone()))
            .collect();
        self.make_ready(&mut inner, due).await;
    }

    async fn make_ready(&self, inner: &mut CoreState, names: Vec<IfName>) {
        self.retry_ports(inner, &names);
        let (bare, unconnected): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| {
            let running = inner.running.get(name);
            running.is_some_and(|r| !r.has_interface())
        });
        let mut changed = Vec::new();
        for name in unconnected {
            if self.connect(inner, &name).await {
                changed.push(name);
            }
        }
        // Without its namespace there is nothing to try.
        let bare: Vec<_> = bare
            .into_iter()
            .filter(|name| {
                let netns = inner.state.links.get(name).and_then(|l| l.netns.as_deref());
                netns.is_none_or(|netns| netns::identity(netns).is_some())
            })
            .collect();
        if !bare.is_empty() {
            let state = inner.state.clone();
            let paths = self.paths(inner, &state, &Outdated::All).await;
            let made = self.bring_up(inner, &state, &bare, &paths, UnreadyPolicy::Wait);
            // `Unready::Wait` never refuses.
            let _ = made.await;
            let ready = |name: &IfName| {
                inner
                    .running
                    .get(name)
                    .is_some_and(LinkRuntime::has_interface)
            };
            changed.extend(bare.into_iter().filter(ready));
        }
        if !changed.is_empty() {
            let outdated = changed.iter().cloned().collect();
            self.publish(inner, Outdated::Links(outdated)).await;
            self.tell_links(inner, &changed).await;
        }
    }

    /// Gives a link that has an interface the sockets that it waits for; returns whether that was possible.
    async fn connect(&self, inner: &mut CoreState, name: &IfName) -> bool {
        let Some(link) = inner.state.links.get(name).cloned() else {
            return false;
        };
        match self.sockets(inner, &link) {
            Ok(sockets) => {
                self.reconnect(inner, &link, &sockets).await;
                true
            }
            Err(cause) => {
                self.set_obstacle(inner, name, Some(Obstacle::NoSockets(cause)));
                false
            }
        }
    }

    /// Makes a link that has an interface send from these sockets.
    pub(super) async fn reconnect(
        &self,
        inner: &mut CoreState,
        link: &LinkSpec,
        sockets: &SourceSockets,
    ) {
        let Some(running) = inner.running.get(&link.name) else {
            return;
        };
        self.engine.set_sockets(running.index, sockets);
        if running.obstacle.is_some() {
            set_carrier(link, running, true).await;
            self.set_obstacle(inner, &link.name, None);
        }
    }

    /// Takes a link's sockets away; its interface stays.
    pub(super) async fn disconnect(&self, inner: &mut CoreState, link: &LinkSpec, cause: String) {
        if let Some(running) = inner.running.get(&link.name) {
            let none = SourceSockets::none(self.profile(link));
            self.engine.set_sockets(running.index, &none);
            set_carrier(link, running, false).await;
            self.set_obstacle(inner, &link.name, Some(Obstacle::NoSockets(cause)));
        }
    }

    fn set_obstacle(&self, inner: &mut CoreState, name: &IfName, obstacle: Option<Obstacle>) {
        if let Some(running) = inner.running.get_mut(name) {
            self.report_obstacle(name, running.obstacle.as_ref(), obstacle.as_ref());
            running.obstacle = obstacle;
        }
        self.count_waiting(inner);
    }

    /// Checks local addresses: links follow as theirs come and go.
    pub(super) async fn refresh_local_addresses(&self, inner: &mut CoreState) {
        let mut gone = Vec::new();
        let mut waiting = Vec::new();
        for (name, running) in &inner.running {
            let Some(link) = inner.state.links.get(name) else {
                continue;
            };
            if running.waits() {
                waiting.push(name.clone());
            } else if running.has_interface()
                && link
                    .local
                    .is_some_and(|local| !super::interfaces::is_local(local))
            {
                gone.push(link.clone());
            }
        }
        for link in gone {
            if let Err(cause) = self.sockets(inner, &link) {
                self.disconnect(inner, &link, cause).await;
                self.tell_links(inner, &[link.name]).await;
            }
        }
        self.make_ready(inner, waiting).await;
    }

    /// Checks whether names of network namespaces were deleted or reused; call about once a second.
    pub(in crate::daemon) async fn check_namespaces(&self) {
        let mut inner = self.inner().await;
        let mut now: BTreeMap<&str, Option<netns::NetnsId>> = BTreeMap::new();
        let CoreState { state, running, .. } = &mut *inner;
        let mut moved = Vec::new();
        let mut nameless = false;
        for (name, running) in running.iter_mut().filter(|(_, r)| r.has_interface()) {
            let link = state.links.get(name);
            let Some(netns) = link.and_then(|l| l.netns.as_deref()) else {
                continue;
            };
            let now = *now.entry(netns).or_insert_with(|| netns::identity(netns));
            match now {
                Some(_) if now != running.netns => moved.push(name.clone()),
                Some(_) => running.nameless = false,
                None => nameless |= !std::mem::replace(&mut running.nameless, true),
            }
        }
        if nameless {
            // Health checks run inside it, and would keep it alive.
            let nothing = Outdated::Links(BTreeSet::new());
            self.publish(&mut inner, nothing).await;
        }
        for name in &moved {
            let cause = "its network namespace is another one now".to_owned();
            self.without_interface(&mut inner, name, cause).await;
        }
        if !moved.is_empty() {
            self.make_ready(&mut inner, moved).await;
        }
    }

    /// Records that a link's interface vanished.
    pub(in crate::daemon) async fn link_lost(&self, index: LinkIndex, error: &io::Error) {
        let mut inner = self.inner().await;
        let found = inner
            .running
            .iter()
            .find(|(_, r)| r.index == index && r.has_interface());
        let Some((name, running)) = found else { return };
        let (name, made_in) = (name.clone(), running.netns);
        let number = running.ifindex;
        let netns = inner.state.links.get(&name).and_then(|l| l.netns.clone());
        if let Some(netns) = &netns
            && netns::identity(netns) != made_in
        {
            let cause = format!("its network namespace \"{netns}\" was deleted");
            self.without_interface(&mut inner, &name, cause).await;
            self.publish(&mut inner, Outdated::link(name.clone())).await;
            self.tell_links(&inner, &[name]).await;
            return;
        }
        // The event may be about the link that had this index before; and the interface of this name may be another
        // one.
        let seen = interface::observe(netns, vec![name.to_string()]).await;
        let ours = |seen: &InterfaceStatus| seen.ifindex == number;
        if seen.is_ok_and(|seen| seen.iter().any(ours)) {
            return;
        }
        let cause = format!("its interface was removed: {error}");
        tracing::error!(link = %name, cause, "link \"{name}\" lost: {cause}; \"geneved link set {name} up\" makes it anew, \"geneved link del {name}\" forgets it");
        self.hub.announce(host_event(
            None,
            "link-lost",
            format!("link \"{name}\": {cause}"),
        ));
        if let Some(running) = inner.running.get_mut(&name) {
            running.obstacle = Some(Obstacle::Removed(cause));
        }
        self.tell_links(&inner, &[name]).await;
    }

    /// Releases an interface that is gone or useless; the link waits for a new one.
    async fn without_interface(&self, inner: &mut CoreState, name: &IfName, cause: String) {
        if let Some(running) = inner.running.get_mut(name) {
            self.engine.detach(&[running.index]).await;
            self.engine.flows().flows.remove_link(running.index);
            running.nameless = false;
            running.ifindex = 0;
        }
        self.set_obstacle(inner, name, Some(Obstacle::NoInterface(cause)));
    }

    /// Reports once that a link waits, and why, and once that it no longer does.
    pub(super) fn report_obstacle(
        &self,
        name: &IfName,
        was: Option<&Obstacle>,
        now: Option<&Obstacle>,
    ) {
        if was == now {
            return;
        }
        match now {
            Some(obstacle) => {
                let cause = obstacle.cause();
                tracing::warn!(link = %name, cause, "link \"{name}\" waits: {cause}");
                let detail = format!("link \"{name}\": {cause}");
                self.hub.announce(host_event(None, "link-waiting", detail));
            }
            None => {
                tracing::info!(link = %name, "link \"{name}\" is ready");
                let detail = format!("link \"{name}\"");
                self.hub.announce(host_event(None, "link-ready", detail));
            }
        }
    }

    pub(super) fn count_waiting(&self, inner: &CoreState) {
        let waiting = inner.running.values().filter(|r| r.waits()).count();
        self.waiting.set(waiting);
    }
}

async fn set_carrier(link: &LinkSpec, running: &LinkRuntime, on: bool) {
    if let Err(error) = interface::set_carrier(running.own(link), on).await {
        // Linux before 4.20 does not support it; the link works, or does not, regardless.
        tracing::debug!(link = %link.name, %error, "the carrier cannot be switched");
    }
}
