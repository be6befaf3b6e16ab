//! Index of the links whose endpoints are proxies for endpoints of other links.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::state::DesiredState;
use crate::config::value::IfName;

/// Kept in both directions, so that neither lookup has to scan all endpoints.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    /// By the link that has the proxied endpoint.
    targets: BTreeMap<IfName, BTreeSet<IfName>>,
    /// By the link whose endpoints are proxied.
    consumers: BTreeMap<IfName, BTreeSet<IfName>>,
}

impl Proxies {
    /// Updates the targets that the endpoints of `link` stand for. Returns the links that gained or lost a consumer.
    pub(super) fn note(&mut self, state: &DesiredState, link: &IfName) -> BTreeSet<IfName> {
        let endpoints = state.endpoints_of(link);
        let new: BTreeSet<IfName> = endpoints
            .filter_map(|(_, endpoint)| Some(endpoint.target.as_ref()?.0.clone()))
            .collect();
        let old = match new.is_empty() {
            true => self.targets.remove(link),
            false => self.targets.insert(link.clone(), new.clone()),
        };
        let old = old.unwrap_or_default();
        for gone in old.difference(&new) {
            if let Some(consumers) = self.consumers.get_mut(gone) {
                consumers.remove(link);
                if consumers.is_empty() {
                    self.consumers.remove(gone);
                }
            }
        }
        for target in new.difference(&old) {
            let consumers = self.consumers.entry(target.clone()).or_default();
            consumers.insert(link.clone());
        }
        old.symmetric_difference(&new).cloned().collect()
    }

    /// The links that the endpoints of `link` stand for.
    pub(super) fn targets(&self, link: &IfName) -> impl Iterator<Item = &IfName> {
        self.targets.get(link).into_iter().flatten()
    }

    /// The links with endpoints that are proxies for one of `link`.
    pub(super) fn consumers(&self, link: &IfName) -> impl Iterator<Item = &IfName> {
        self.consumers.get(link).into_iter().flatten()
    }
}
