//! The running state compiled for the workers.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use libgeneve::flow::FlowHasher;
use libgeneve::link::{HeardBy, HostRegistry, Tables};

use super::{Core, Inner};
use crate::config::state::{Service, State};
use crate::config::value::IfName;
use crate::control::steps;
use crate::daemon::backends::{Down, target};
use crate::daemon::compile::{Compiler, Places};
use crate::net::mtu::{Loop, Nested, Ways};

/// What tables are compiled from, and what outlives that. While a thread compiles it belongs to that thread; who holds
/// `Core::inner` waits for it.
struct Sources {
    state: Arc<State>,
    links: Vec<Interface>,
    places: Places,
    hasher: FlowHasher,
    epoch: u64,
    compiler: Compiler,
    registry: HostRegistry,
    down: Down,
    ways: Arc<Ways>,
}

/// What is known of a link that runs.
struct Interface {
    name: IfName,
    mtu: u16,
    /// Addresses that others gave it.
    followed: Vec<IpNet>,
}

impl Sources {
    fn compile(&mut self) -> Tables {
        let Sources {
            state,
            places,
            compiler,
            registry,
            down,
            ways,
            ..
        } = self;
        let healthy = |dev: &IfName, service: &Service, at: (IpAddr, u16)| {
            !down.has(&target(state, dev, service, at))
        };
        let mut links = Vec::with_capacity(self.links.len());
        for Interface {
            name,
            mtu,
            followed,
        } in &self.links
        {
            let Some(link) = state.links.get(name) else {
                continue;
            };
            let config = compiler.link(state, link, *mtu, followed, places, &healthy);
            let link = libgeneve::link::Link::new(config, registry);
            let link = link.without(|host| ways.loop_of(name, host).is_some());
            let link = link.with_heard_by(|host| {
                let mut heard_by = behind(&ways.nested, places, name, host);
                if matches!(ways.loop_of(name, host), Some(Loop::Own { .. })) {
                    heard_by.push(HeardBy::Nobody);
                }
                heard_by
            });
            links.push(Arc::new(link));
        }
        let mut tables = Tables::new(links, self.hasher);
        tables.epoch = self.epoch;
        tables.schema = Arc::new(Compiler::schema(state));
        tables
    }
}

impl Core {
    /// Compiles the state for the workers.
    pub(in crate::daemon) async fn publish(&self, inner: &mut Inner) {
        inner.epoch += 1;
        let interfaces = inner.running.iter().map(|(name, running)| Interface {
            name: name.clone(),
            mtu: running.mtu,
            followed: running.following.addresses().to_vec(),
        });
        let places = inner.running.iter();
        let none = inner.compiler.without_links();
        let mut sources = Sources {
            state: Arc::clone(&inner.state),
            links: interfaces.collect(),
            places: places.map(|(name, r)| (name.clone(), r.index)).collect(),
            hasher: inner.hasher,
            epoch: inner.epoch,
            compiler: std::mem::replace(&mut inner.compiler, none),
            registry: std::mem::take(&mut inner.registry),
            down: self.board(|board| Down::of(&inner.state, board)),
            ways: Arc::clone(&inner.ways),
        };
        let compile = move || {
            let tables = sources.compile();
            (tables, sources)
        };
        let long = inner.state.is_long();
        let (tables, sources) = steps::apart_if(long, compile).await;
        inner.compiler = sources.compiler;
        inner.registry = sources.registry;
        inner.down = sources.down;
        let links = u32::try_from(inner.running.len()).unwrap_or(u32::MAX);
        self.engine.flows().flows.set_links(links);
        self.engine.publish(Arc::new(tables));
        self.note_own_links(inner, &inner.state);
        inner.compiler.prune(&inner.state);
        inner.registry.prune();
        self.count_waiting(inner);
        self.listen_for(inner.running.keys());
    }
}

/// The links behind whose interfaces a host of the link `name` is.
fn behind(nested: &Nested, places: &Places, name: &IfName, host: IpAddr) -> Vec<HeardBy> {
    if nested.is_empty() {
        return Vec::new();
    }
    let of_it = nested
        .iter()
        .filter(|(link, at, _)| link == name && *at == host);
    let outer = of_it.filter_map(|(.., outer)| places.get(outer));
    outer.copied().map(HeardBy::Link).collect()
}
