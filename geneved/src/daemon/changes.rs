//! What a transition changed, as those who watch are told.

use std::collections::BTreeMap;

use super::core::{Core, Inner};
use crate::config::state::State;
use crate::config::value::IfName;
use crate::control::protocol::{ChangeKind, LinkInfo, RouteInfo, What};
use crate::control::steps::Steps;

impl Core {
    /// Tells what is not as it was in `old`; `gone` are the links that were removed, as they were.
    pub(super) async fn tell_changes(&self, inner: &Inner, old: &State, gone: Vec<LinkInfo>) {
        let (hub, new) = (self.hub(), &inner.state);
        let mut steps = Steps::default();
        for (change, name, option) in differences(&old.options, &new.options) {
            steps.rest().await;
            let info = self.option_info(inner, name, option);
            hub.changed(change, What::Option(info));
        }
        self.tell_new_links(inner, old).await;
        for (change, (on, name), class) in differences(&old.classes, &new.classes) {
            steps.rest().await;
            let info = self.class_info(inner, on, name, class);
            hub.changed(change, What::Qos(info));
        }
        for (change, (on, prefix), route) in differences(&old.routes, &new.routes) {
            steps.rest().await;
            let info = RouteInfo {
                route: route.words(on, *prefix),
                origin: "static".into(),
            };
            hub.changed(change, What::Route(info));
        }
        for (change, (on, address), endpoint) in differences(&old.endpoints, &new.endpoints) {
            steps.rest().await;
            hub.changed(change, What::Endpoint(endpoint.words(on, *address)));
        }
        for (change, (on, name), policy) in differences(&old.policies, &new.policies) {
            steps.rest().await;
            let info = self.policy_info(inner, on, name, policy);
            hub.changed(change, What::Policy(Box::new(info)));
        }
        for (change, (on, name), nat) in differences(&old.nats, &new.nats) {
            steps.rest().await;
            let info = self.nat_info(inner, on, name, nat);
            hub.changed(change, What::Nat(Box::new(info)));
        }
        for (change, (on, name), service) in differences(&old.services, &new.services) {
            steps.rest().await;
            let info = self.service_info(inner, on, name, service);
            hub.changed(change, What::Service(Box::new(info)));
        }
        for link in gone {
            hub.changed(ChangeKind::Deleted, What::Link(Box::new(link)));
        }
    }

    async fn tell_new_links(&self, inner: &Inner, old: &State) {
        let changed: Vec<_> = differences(&old.links, &inner.state.links)
            .filter(|(change, ..)| *change != ChangeKind::Deleted)
            .map(|(change, name, _)| (change, name.clone()))
            .collect();
        let names: Vec<_> = changed.iter().map(|(_, name)| name.clone()).collect();
        for info in self.link_infos(inner, &names).await {
            let of = |(_, name): &&(ChangeKind, IfName)| *name == info.settings.name;
            if let Some((change, _)) = changed.iter().find(of) {
                self.hub().changed(*change, What::Link(Box::new(info)));
            }
        }
    }

    /// Tells that these links are not as they were, though their configuration is.
    pub(super) async fn tell_links(&self, inner: &Inner, names: &[IfName]) {
        if !self.hub().wants_changes() {
            return;
        }
        for info in self.link_infos(inner, names).await {
            let what = What::Link(Box::new(info));
            self.hub().changed(ChangeKind::Changed, what);
        }
    }
}

/// What is new or not as it was, then what is gone.
fn differences<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (ChangeKind, &'a K, &'a V)> {
    let there = new.iter().filter_map(|(key, value)| {
        let change = match old.get(key) {
            None => ChangeKind::Added,
            Some(before) if before != value => ChangeKind::Changed,
            Some(_) => return None,
        };
        Some((change, key, value))
    });
    let gone = old.iter().filter(|(key, _)| !new.contains_key(key));
    there.chain(gone.map(|(key, value)| (ChangeKind::Deleted, key, value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_no_difference() {
        let old = BTreeMap::from([(1, 'a'), (2, 'b'), (3, 'c')]);
        let new = BTreeMap::from([(2, 'b'), (3, 'x'), (4, 'd')]);
        let all: Vec<_> = differences(&old, &new).collect();
        let expected = [
            (ChangeKind::Changed, &3, &'x'),
            (ChangeKind::Added, &4, &'d'),
            (ChangeKind::Deleted, &1, &'a'),
        ];
        assert_eq!(all, expected);
    }
}
