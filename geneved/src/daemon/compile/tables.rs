//! Tables of all links, updated incrementally: links that a change does not affect are not recompiled.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use libgeneve::flow::FlowHasher;
use libgeneve::vpc::{ExpectedInterface, HostRegistry, Link, LinkIndex, Tables};

use super::{Compiler, LinkIndices};
use crate::config::state::{DesiredState, ServiceSpec};
use crate::config::value::IfName;
use crate::daemon::backends::{UnhealthyBackends, target};
use crate::net::mtu::{NestedTunnels, PathTable, RoutingLoop};

/// Links whose tables have to be recompiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Outdated {
    /// All links.
    All,
    /// These links, which may be new or gone.
    Links(BTreeSet<IfName>),
}

impl Outdated {
    /// Only this link.
    pub(in crate::daemon) fn link(name: IfName) -> Self {
        Outdated::Links(BTreeSet::from([name]))
    }
}

/// What is known of a running link.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct RunningLink {
    pub(in crate::daemon) index: LinkIndex,
    pub(in crate::daemon) mtu: u16,
    /// Addresses that others gave its interface.
    pub(in crate::daemon) followed: Vec<IpNet>,
}

/// Input for building tables.
#[derive(Debug)]
pub(in crate::daemon) struct TableInput {
    pub(in crate::daemon) state: Arc<DesiredState>,
    pub(in crate::daemon) paths: Arc<PathTable>,
    pub(in crate::daemon) down: UnhealthyBackends,
    pub(in crate::daemon) outdated: Outdated,
    /// The running links among those that [`TableBuilder::concerned`] named.
    pub(in crate::daemon) running: BTreeMap<IfName, RunningLink>,
}

/// Builds each snapshot of the tables from the previous one, and keeps what outlives them.
pub(in crate::daemon) struct TableBuilder {
    pub(in crate::daemon) compiler: Compiler,
    pub(in crate::daemon) registry: HostRegistry,
    /// Backends that get no flows.
    pub(in crate::daemon) down: UnhealthyBackends,
    tables: Arc<Tables>,
    /// Index of each link in the tables.
    places: BTreeMap<IfName, LinkIndex>,
}

impl TableBuilder {
    /// Returns a builder whose tables are empty.
    pub(in crate::daemon) fn new(compiler: Compiler, hasher: FlowHasher) -> Self {
        TableBuilder {
            compiler,
            registry: HostRegistry::default(),
            down: UnhealthyBackends::default(),
            tables: Arc::new(Tables::new([], hasher)),
            places: BTreeMap::new(),
        }
    }

    /// Moves the builder out for work on another thread, and leaves an empty one in its place.
    pub(in crate::daemon) fn lend(&mut self) -> TableBuilder {
        let none = TableBuilder::new(self.compiler.without_links(), self.tables.hasher);
        mem::replace(self, none)
    }

    /// Returns the links that have to be recompiled with `outdated`, because the backends of their services or the
    /// links that their proxied endpoints stand for have changed; and second, all links that these refer to.
    pub(in crate::daemon) fn concerned(
        &mut self,
        state: &DesiredState,
        paths: &PathTable,
        down: &UnhealthyBackends,
        outdated: Outdated,
    ) -> (Outdated, BTreeSet<IfName>) {
        let Outdated::Links(mut names) = outdated else {
            let links = state.links.keys();
            for name in self.places.keys().chain(links) {
                self.compiler.proxies.note(state, name);
            }
            let all = state.links.keys().chain(self.places.keys()).cloned();
            return (Outdated::All, all.collect());
        };
        names.extend(self.down.differs_at(down));
        let mut more = BTreeSet::new();
        for name in &names {
            more.extend(self.compiler.proxies.note(state, name));
            // Its index may have changed.
            more.extend(self.compiler.proxies.consumers(name).cloned());
        }
        names.extend(more);
        let targets = names.iter().flat_map(|n| self.compiler.proxies.targets(n));
        let outer = paths
            .nested
            .iter()
            .filter(|(link, ..)| names.contains(link));
        let seen = targets.chain(outer.map(|(.., outer)| outer));
        let seen = seen.chain(&names).cloned().collect();
        (Outdated::Links(names), seen)
    }

    /// Builds the next snapshot.
    pub(in crate::daemon) fn build(&mut self, input: TableInput) -> Arc<Tables> {
        let TableInput {
            state,
            paths,
            down,
            outdated,
            running,
        } = input;
        self.down = down;
        let epoch = self.tables.epoch + 1;
        let schema = match outdated {
            Outdated::All => Arc::new(Compiler::schema(&state)),
            Outdated::Links(_) => Arc::clone(&self.tables.schema),
        };
        let names: Vec<IfName> = match outdated {
            Outdated::All => {
                let known = self.places.keys().chain(running.keys());
                known
                    .cloned()
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect()
            }
            Outdated::Links(names) => names.into_iter().collect(),
        };
        let places: LinkIndices = running.iter().map(|(n, r)| (n.clone(), r.index)).collect();
        // An index may belong to another link now, so free all indices before assigning any.
        let mut changed = Vec::new();
        for name in &names {
            let place = running.get(name).filter(|_| state.links.contains_key(name));
            let place = place.map(|running| running.index);
            let before = match place {
                Some(place) => self.places.insert(name.clone(), place),
                None => self.places.remove(name),
            };
            if let Some(before) = before.filter(|before| Some(*before) != place) {
                changed.push((before, None));
            }
        }
        for name in &names {
            if let (Some(link), Some(running)) = (state.links.get(name), running.get(name)) {
                let compiled = self.link(&state, link, running, &places, &paths);
                changed.push((running.index, Some(compiled)));
            }
        }
        self.tables = Arc::new(self.tables.next(epoch, schema, changed));
        for name in &names {
            self.compiler.prune(&state, name);
        }
        self.compiler.pools.prune();
        self.registry.prune();
        Arc::clone(&self.tables)
    }

    /// Builds the next snapshot, in which flows of these links are decided again.
    pub(in crate::daemon) fn again(&mut self, links: &[LinkIndex]) -> Arc<Tables> {
        self.tables = Arc::new(self.tables.again(self.tables.epoch + 1, links));
        Arc::clone(&self.tables)
    }

    fn link(
        &mut self,
        state: &DesiredState,
        link: &crate::config::state::LinkSpec,
        running: &RunningLink,
        places: &LinkIndices,
        paths: &PathTable,
    ) -> Link {
        let TableBuilder {
            compiler,
            registry,
            down,
            ..
        } = self;
        let healthy = |dev: &IfName, service: &ServiceSpec, at: (IpAddr, u16)| {
            !down.has(&target(state, dev, service, at))
        };
        let RunningLink { mtu, followed, .. } = running;
        let config = compiler.link(state, link, *mtu, followed, places, &healthy);
        let name = &link.name;
        Link::new(config, registry)
            .excluding_loops(|host| paths.loop_of(name, host).is_some())
            .with_heard_by(|host| {
                let mut heard_by = behind(&paths.nested, places, name, host);
                if matches!(paths.loop_of(name, host), Some(RoutingLoop::Own { .. })) {
                    heard_by.push(ExpectedInterface::Nobody);
                }
                heard_by
            })
    }
}

/// The links through whose interfaces a host of the link `name` is reached.
fn behind(
    nested: &NestedTunnels,
    places: &LinkIndices,
    name: &IfName,
    host: IpAddr,
) -> Vec<ExpectedInterface> {
    if nested.is_empty() {
        return Vec::new();
    }
    let of_it = nested
        .iter()
        .filter(|(link, at, _)| link == name && *at == host);
    let outer = of_it.filter_map(|(.., outer)| places.get(outer));
    outer.copied().map(ExpectedInterface::Link).collect()
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
