//! What a transition changed, as those who watch are told.

use std::collections::BTreeMap;

use super::core::{Core, Inner};
use super::fdb;
use crate::config::difference::{ChangeKind, Difference, Object, differences};
use crate::config::state::State;
use crate::config::value::IfName;
use crate::control::protocol::{LinkInfo, RouteInfo, What};
use crate::control::steps::Steps;

impl Core {
    /// Tells what is not as it was in `old`; `gone` are the links that were removed, as they were.
    pub(super) async fn tell_changes(&self, inner: &Inner, old: &State, gone: Vec<LinkInfo>) {
        let mut steps = Steps::default();
        let all: Vec<_> = differences(old, &inner.state).collect();
        for of_one_kind in all.chunk_by(|a, b| a.object.kind() == b.object.kind()) {
            self.tell_links_there(inner, of_one_kind).await;
            for difference in of_one_kind {
                steps.rest().await;
                self.tell_difference(inner, old, *difference);
            }
        }
        for link in gone {
            let what = What::Link(Box::new(link));
            self.hub().changed(ChangeKind::Deleted, what);
        }
    }

    /// Tells what became of an object that is no link.
    fn tell_difference(
        &self,
        inner: &Inner,
        old: &State,
        Difference { change, object }: Difference<'_>,
    ) {
        let what = match object {
            Object::Link(..) => return,
            Object::Option(name, option) => What::Option(self.option_info(inner, name, option)),
            Object::Qos(on, name, class) => What::Qos(self.class_info(inner, on, name, class)),
            Object::Route(on, prefix, route) => What::Route(RouteInfo {
                route: route.words(on, prefix),
                origin: "static".into(),
            }),
            Object::Endpoint(on, address, endpoint) => What::Endpoint(endpoint.words(on, address)),
            Object::Fdb(on, mac, entry) => {
                let was = old.fdb.get(&(on.clone(), mac));
                for (change, info) in fdb::changes(change, (on, mac), entry, was) {
                    self.hub().changed(change, What::Fdb(info));
                }
                return;
            }
            Object::Policy(on, name, policy) => {
                What::Policy(Box::new(self.policy_info(inner, on, name, policy)))
            }
            Object::Nat(on, name, nat) => What::Nat(Box::new(self.nat_info(inner, on, name, nat))),
            Object::Service(on, name, service) => {
                What::Service(Box::new(self.service_info(inner, on, name, service)))
            }
        };
        self.hub().changed(change, what);
    }

    /// Tells of the links among these differences that are there, new or not as they were.
    async fn tell_links_there(&self, inner: &Inner, differences: &[Difference<'_>]) {
        let there = differences.iter().filter_map(|difference| {
            let Object::Link(name, _) = difference.object else {
                return None;
            };
            let there = difference.change != ChangeKind::Deleted;
            there.then(|| (name.clone(), difference.change))
        });
        let there: BTreeMap<IfName, ChangeKind> = there.collect();
        let names: Vec<IfName> = there.keys().cloned().collect();
        for info in self.link_infos(inner, &names).await {
            if let Some(change) = there.get(&info.settings.name) {
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
