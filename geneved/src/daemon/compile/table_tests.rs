use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use serde_json::{Value, json};

use super::*;
use crate::config::args::ObjectChange;
use crate::config::plan::Plan;
use crate::config::state::Fabric;
use crate::daemon::compile::outdated_by;
use crate::random::HashKeys;

/// A daemon's links without their interfaces.
struct Site {
    state: Arc<DesiredState>,
    running: BTreeMap<IfName, RunningLink>,
    builder: TableBuilder,
}

impl Site {
    fn new() -> Site {
        let key = libgeneve::label::LabelKey::from_secret(&[7; 32]);
        let compiler = Compiler::new(Some(key), HashKeys::draw().unwrap());
        Site {
            state: Arc::new(DesiredState::on(Fabric {
                secret: true,
                ..Fabric::default()
            })),
            running: BTreeMap::new(),
            builder: TableBuilder::new(compiler, FlowHasher::default()),
        }
    }

    /// Applies a change in the daemon's order: new links run before tables are built, and removed ones until they are
    /// in place.
    fn apply(&mut self, change: &Value) -> bool {
        let change: ObjectChange = serde_json::from_value(change.clone()).unwrap();
        let mut state = DesiredState::clone(&self.state);
        if state.apply(&change).is_err() {
            return false;
        }
        let plan = Plan::between(&self.state, &state);
        self.state = Arc::new(state);
        for name in &plan.add {
            let used: Vec<_> = self.running.values().map(|r| r.index).collect();
            let free = (0..).map(LinkIndex).find(|index| !used.contains(index));
            let running = RunningLink {
                index: free.unwrap(),
                mtu: 1400,
                followed: Vec::new(),
            };
            self.running.insert(name.clone(), running);
        }
        self.build(outdated_by(&plan));
        for name in &plan.del {
            self.running.remove(name);
        }
        true
    }

    fn build(&mut self, outdated: Outdated) -> Arc<Tables> {
        let (paths, down) = (PathTable::default(), UnhealthyBackends::default());
        let builder = &mut self.builder;
        let (outdated, names) = builder.concerned(&self.state, &paths, &down, outdated);
        let running = self
            .running
            .iter()
            .filter(|(name, _)| names.contains(*name));
        let running = running.map(|(name, running)| (name.clone(), running.clone()));
        let running = running.collect();
        self.builder.build(TableInput {
            state: Arc::clone(&self.state),
            paths: Arc::new(paths),
            down,
            outdated,
            running,
        })
    }

    /// Recompiles everything and checks that no link changes.
    fn assert_complete(&mut self) {
        let kept = Arc::clone(&self.builder.tables);
        let whole = self.build(Outdated::All);
        let there = |tables: &Tables| -> Vec<_> { tables.iter().cloned().collect() };
        let (kept, all) = (there(&kept), there(&whole));
        assert_eq!(kept.len(), self.state.links.len());
        assert_eq!(kept.len(), all.len());
        for (kept, compiled) in kept.iter().zip(&all) {
            let (index, change) = (kept.config.index, compiled.change_from(kept));
            assert!(Arc::ptr_eq(kept, compiled), "{index:?}: {change:?}");
            let found = whole.by_vni(kept.config.port, kept.config.vni);
            assert!(found.is_some_and(|found| Arc::ptr_eq(found, kept)));
        }
    }
}

fn change() -> impl Strategy<Value = Value> {
    let link = prop::sample::select(vec!["a", "b", "c"]);
    let verb = prop::sample::select(vec!["add", "set", "replace", "del"]);
    (0..9, link, verb, 1..4u8).prop_map(|(kind, dev, verb, n)| {
        let other = ["a", "b", "c"][usize::from(n) % 3];
        let deleted = verb == "del";
        let (kind, name, rest) = match kind {
            0 => {
                let id = 100 + u32::from(n) * 10 + u32::from(dev.as_bytes()[0]);
                let address = format!("10.{}.0.1/24", dev.as_bytes()[0]);
                ("link", json!({"name": dev}), json!({"id": id, "remote": "192.0.2.2", "address": [address]}))
            }
            1 => (
                "route",
                json!({"prefix": format!("10.9.{n}.0/24"), "dev": dev}),
                json!({"via": [format!("192.0.2.{n}")]}),
            ),
            2 | 3 => (
                "endpoint",
                json!({"address": format!("10.8.0.{n}"), "dev": dev}),
                json!({"host": [format!("192.0.2.{}", n + 3)], "labels": format!("app=x{n}")}),
            ),
            4 => (
                "endpoint",
                json!({"address": "10.8.1.1", "dev": dev}),
                json!({"type": "proxied", "target": format!("10.8.0.{n}@{other}")}),
            ),
            5 => (
                "policy",
                json!({"name": format!("rule{n}"), "dev": dev}),
                json!({"direction": "ingress", "action": "deny", "pref": 10 * u32::from(n)}),
            ),
            6 => (
                "nat",
                json!({"name": "out", "dev": dev}),
                json!({"type": "snat", "from": "10.0.0.0/8", "source": format!("198.51.100.{n}")}),
            ),
            7 => (
                "service",
                json!({"name": "web", "dev": dev}),
                json!({"vip": "10.8.2.1", "proto": "tcp", "port": 80, "backend": [{"address": format!("10.8.0.{n}"), "port": 80}]}),
            ),
            _ => (
                "qos",
                json!({"name": "bulk", "dev": dev}),
                json!({"id": n, "rate": "1mbit"}),
            ),
        };
        let mut words = name;
        if let (false, Some(words), Value::Object(rest)) = (deleted, words.as_object_mut(), rest) {
            words.extend(rest);
        }
        let mut change = json!({"verb": verb});
        change[kind] = words;
        change
    })
}

proptest! {
    #[test]
    fn what_is_kept_up_is_what_a_full_compile_makes(changes in prop::collection::vec(change(), 1..40)) {
        let mut site = Site::new();
        for change in &changes {
            site.apply(change);
        }
        site.assert_complete();
    }
}

fn link(name: &str, id: u32) -> Value {
    json!({"verb": "add", "link": {"name": name, "id": id, "address": [format!("10.{id}.0.1/24")]}})
}

#[test]
fn every_kind_of_object_is_among_the_changes() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut made = BTreeSet::new();
    let mut site = Site::new();
    for _ in 0..2000 {
        let change = change().new_tree(&mut runner).unwrap().current();
        if site.apply(&change) {
            let kinds = change.as_object().unwrap().keys();
            made.extend(kinds.filter(|key| *key != "verb").cloned());
        }
    }
    let all = [
        "endpoint", "link", "nat", "policy", "qos", "route", "service",
    ];
    assert!(made.iter().eq(all), "{made:?}");
    site.assert_complete();
}

#[test]
fn a_link_that_no_change_concerns_stays_as_it_is() {
    let mut site = Site::new();
    site.apply(&link("a", 1));
    site.apply(&link("b", 2));
    let before = Arc::clone(&site.builder.tables);
    site.apply(&json!({"verb": "add", "route": {"prefix": "10.9.0.0/16", "dev": "b", "via": ["192.0.2.1"]}}));
    let after = Arc::clone(&site.builder.tables);
    let same = |index| Arc::ptr_eq(before.link(index).unwrap(), after.link(index).unwrap());
    assert!(same(LinkIndex(0)) && !same(LinkIndex(1)));
    assert!(after.has_names_of(&before));
    assert!(after.is_current(LinkIndex(0), before.epoch, |_| true));
    assert!(!after.is_current(LinkIndex(1), before.epoch, |_| false));
}

#[test]
fn the_link_that_proxied_endpoints_lead_to_follows_them() {
    let mut site = Site::new();
    site.apply(&link("a", 1));
    site.apply(&link("b", 2));
    site.apply(
        &json!({"verb": "add", "endpoint": {"address": "10.2.0.9", "dev": "b", "local": true}}),
    );
    let stand_ins = |site: &Site| {
        let link = site.builder.tables.link(LinkIndex(1)).unwrap();
        link.config.functions.stand_ins.is_some()
    };
    assert!(!stand_ins(&site));
    let proxied =
        json!({"address": "10.1.0.9", "dev": "a", "type": "proxied", "target": "10.2.0.9@b"});
    site.apply(&json!({"verb": "add", "endpoint": proxied}));
    assert!(stand_ins(&site));
    site.assert_complete();
    site.apply(&json!({"verb": "del", "endpoint": {"address": "10.1.0.9", "dev": "a"}}));
    assert!(!stand_ins(&site));
}
