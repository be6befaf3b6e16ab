//! Change events sent to watching clients after a transition.

use std::collections::BTreeMap;

use super::core::{Core, CoreState};
use super::fdb;
use crate::config::difference::{ChangeKind, ChangedObject, Difference, differences};
use crate::config::state::DesiredState;
use crate::config::value::IfName;
use crate::control::protocol::{EventKind, LinkInfo, RouteInfo};
use crate::control::yielding::Yielder;

impl Core {
    /// Reports what differs from `old`; `gone` has the removed links as they were.
    pub(super) async fn tell_changes(
        &self,
        inner: &CoreState,
        old: &DesiredState,
        gone: Vec<LinkInfo>,
    ) {
        let mut steps = Yielder::default();
        let all: Vec<_> = differences(old, &inner.state).collect();
        for of_one_kind in all.chunk_by(|a, b| a.object.kind() == b.object.kind()) {
            self.tell_links_there(inner, of_one_kind).await;
            for difference in of_one_kind {
                steps.yield_if_due().await;
                self.tell_difference(inner, old, *difference);
            }
        }
        for link in gone {
            let what = EventKind::Link(Box::new(link));
            self.hub().changed(ChangeKind::Deleted, what);
        }
    }

    /// Reports the change of an object that is not a link.
    fn tell_difference(
        &self,
        inner: &CoreState,
        old: &DesiredState,
        Difference { change, object }: Difference<'_>,
    ) {
        let what = match object {
            ChangedObject::Link(..) => return,
            ChangedObject::Option(name, option) => {
                EventKind::Option(self.option_info(inner, name, option))
            }
            ChangedObject::Qos(on, name, class) => {
                EventKind::Qos(self.class_info(inner, on, name, class))
            }
            ChangedObject::Route(on, prefix, route) => EventKind::Route(RouteInfo {
                route: route.words(on, prefix),
                origin: "static".into(),
            }),
            ChangedObject::Endpoint(on, address, endpoint) => {
                EventKind::Endpoint(endpoint.words(on, address))
            }
            ChangedObject::Fdb(on, mac, entry) => {
                let was = old.fdb.get(&(on.clone(), mac));
                for (change, info) in fdb::changes(change, (on, mac), entry, was) {
                    self.hub().changed(change, EventKind::Fdb(info));
                }
                return;
            }
            ChangedObject::Policy(on, name, policy) => {
                EventKind::Policy(Box::new(self.policy_info(inner, on, name, policy)))
            }
            ChangedObject::Nat(on, name, nat) => {
                EventKind::Nat(Box::new(self.nat_info(inner, on, name, nat)))
            }
            ChangedObject::Service(on, name, service) => {
                EventKind::Service(Box::new(self.service_info(inner, on, name, service)))
            }
        };
        self.hub().changed(change, what);
    }

    /// Reports the links among these differences that exist, whether new or changed.
    async fn tell_links_there(&self, inner: &CoreState, differences: &[Difference<'_>]) {
        let there = differences.iter().filter_map(|difference| {
            let ChangedObject::Link(name, _) = difference.object else {
                return None;
            };
            let there = difference.change != ChangeKind::Deleted;
            there.then(|| (name.clone(), difference.change))
        });
        let there: BTreeMap<IfName, ChangeKind> = there.collect();
        let names: Vec<IfName> = there.keys().cloned().collect();
        for info in self.link_infos(inner, &names).await {
            if let Some(change) = there.get(&info.settings.name) {
                self.hub().changed(*change, EventKind::Link(Box::new(info)));
            }
        }
    }

    /// Reports that these links changed although their configuration did not.
    pub(super) async fn tell_links(&self, inner: &CoreState, names: &[IfName]) {
        if !self.hub().wants_changes() {
            return;
        }
        for info in self.link_infos(inner, names).await {
            let what = EventKind::Link(Box::new(info));
            self.hub().changed(ChangeKind::Changed, what);
        }
    }
}
