//! The running state and how it changes: all of a change, or none of it.
//!
//! A change at run time, a reload and the start are the same thing: the plan from the state that
//! runs to the state that is wanted. New interfaces come first, because they can fail; what goes is
//! removed last, because that cannot.

mod interfaces;
mod mtu;
mod ports;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use libgeneve::flow::FlowHasher;
use libgeneve::link::{HostRegistry, LinkIndex, Tables};
use rtnetlink::Handle;
use tokio::sync::{Mutex, MutexGuard};

use crate::config::file::DaemonSettings;
use crate::config::plan::Plan;
use crate::config::secret::Secret;
use crate::config::state::{Refusal, Service, State};
use crate::config::value::IfName;
use crate::config::words::Change;
use crate::control::protocol::{HostEvent, MtuSum, What};
use crate::daemon::backends::{Down, target};
use crate::daemon::compile::{Compiler, Places};
use crate::daemon::drops::DropWatch;
use crate::daemon::far::FarEnds;
use crate::daemon::health::HealthBoard;
use crate::daemon::random::random_key;
use crate::daemon::rates::FlowMemory;
use crate::daemon::unreachable::Unreachable;
use crate::io::Engine;
use crate::net::interface;
use crate::net::mtu::Ways;
use crate::observe::hub::Hub;
use interfaces::{free_index, remove_many, update, update_mtu};
pub(in crate::daemon) use mtu::hosts_of;
use mtu::mtu_of;
pub(in crate::daemon) use ports::{needed_ports, port_taken};

/// The owner of engine, tables and state. Everything runs on one thread.
pub(in crate::daemon) struct Core {
    engine: Engine,
    netlink: Handle,
    settings: DaemonSettings,
    secret: Option<Secret>,
    config_path: PathBuf,
    inner: Mutex<Inner>,
    board: std::cell::RefCell<HealthBoard>,
    started: SystemTime,
    hub: Hub,
    /// Where dropped packets are seen, while somebody watches them.
    pub(in crate::daemon) drops: std::cell::RefCell<Option<DropWatch>>,
    /// What flows had counted, while somebody asks how busy they are.
    pub(in crate::daemon) flow_memory: std::cell::RefCell<Option<FlowMemory>>,
}

/// What changes, one change at a time.
#[derive(Default)]
pub(in crate::daemon) struct Inner {
    pub(in crate::daemon) state: State,
    pub(in crate::daemon) running: BTreeMap<IfName, Running>,
    pub(in crate::daemon) registry: HostRegistry,
    /// Open ports, and whether datagrams over IPv6 without a checksum are let through.
    ports: BTreeMap<u16, bool>,
    hasher: FlowHasher,
    /// Of the tables that were published last.
    epoch: u64,
    pub(in crate::daemon) compiler: Compiler,
    pub(in crate::daemon) unreachable: Unreachable,
    pub(in crate::daemon) down: Down,
    pub(in crate::daemon) far: FarEnds,
    /// How the kernel routes to the hosts, as far as it has told of changes.
    pub(in crate::daemon) ways: Ways,
}

/// A link that has an interface, or had one.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Running {
    pub(in crate::daemon) index: LinkIndex,
    pub(in crate::daemon) sum: MtuSum,
    pub(in crate::daemon) mtu: u16,
    /// Why the interface is gone.
    pub(in crate::daemon) lost: Option<String>,
}

impl Core {
    pub(in crate::daemon) fn new(
        engine: Engine,
        netlink: Handle,
        settings: DaemonSettings,
        config_path: PathBuf,
        secret: Option<Secret>,
        board: HealthBoard,
    ) -> Self {
        let inner = Inner {
            compiler: Compiler::new(secret.as_ref().map(Secret::label_key)),
            hasher: FlowHasher::new(random_key()),
            ..Inner::default()
        };
        Core {
            engine,
            netlink,
            settings,
            secret,
            config_path,
            inner: Mutex::new(inner),
            board: board.into(),
            started: SystemTime::now(),
            hub: Hub::default(),
            drops: std::cell::RefCell::default(),
            flow_memory: std::cell::RefCell::default(),
        }
    }

    pub(in crate::daemon) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where everybody is told what happens.
    pub(in crate::daemon) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// When the daemon started.
    pub(in crate::daemon) fn started(&self) -> SystemTime {
        self.started
    }

    /// Asks or tells the board of health checks.
    pub(in crate::daemon) fn board<R>(&self, ask: impl FnOnce(&mut HealthBoard) -> R) -> R {
        ask(&mut self.board.borrow_mut())
    }

    pub(in crate::daemon) fn netlink(&self) -> &Handle {
        &self.netlink
    }

    pub(in crate::daemon) fn settings(&self) -> &DaemonSettings {
        &self.settings
    }

    /// The fabric's, as it was read at start.
    pub(in crate::daemon) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    pub(in crate::daemon) fn config_path(&self) -> &Path {
        &self.config_path
    }

    pub(in crate::daemon) async fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().await
    }

    pub(in crate::daemon) async fn state(&self) -> State {
        self.inner().await.state.clone()
    }

    /// Makes all of these changes or none.
    pub(in crate::daemon) async fn apply(&self, changes: &[Change]) -> Result<Plan, Refusal> {
        let mut inner = self.inner().await;
        let mut state = inner.state.clone();
        let mut named = Vec::new();
        for (number, change) in changes.iter().enumerate() {
            let applied = state.apply(change);
            applied.map_err(|refusal| refusal.of_change(number))?;
            named.extend(change.link.as_ref().map(|link| link.name.clone()));
        }
        self.refuse_loops(&inner, &state).await?;
        let mut plan = Plan::between(&inner.state, &state);
        // Somebody else may have changed the interface; who sets the link wants it as it is set.
        named.retain(|name| {
            let stays = inner.state.links.contains_key(name) && state.links.contains_key(name);
            stays && !plan.set.contains(name) && !plan.replace.contains(name)
        });
        plan.set.extend(named);
        self.transition(&mut inner, state, plan).await
    }

    /// Runs this state instead; links that were lost are made anew.
    pub(in crate::daemon) async fn become_state(&self, state: State) -> Result<Plan, Refusal> {
        let mut inner = self.inner().await;
        let mut plan = Plan::between(&inner.state, &state);
        let lost = inner.running.iter().filter(|(_, r)| r.lost.is_some());
        let lost: Vec<_> = lost
            .map(|(name, _)| name.clone())
            .filter(|name| state.links.contains_key(name))
            .collect();
        plan.set.retain(|n| !lost.contains(n));
        plan.replace.retain(|n| !lost.contains(n));
        plan.replace.extend(lost);
        self.transition(&mut inner, state, plan).await
    }

    async fn transition(&self, inner: &mut Inner, new: State, plan: Plan) -> Result<Plan, Refusal> {
        if plan.is_empty() {
            // A daemon that starts without links has a secret all the same.
            inner.state.fabric = new.fabric;
            return Ok(plan);
        }
        let result = self.carry_out(inner, new, &plan).await;
        self.close_ports(inner);
        result.map(|()| plan)
    }

    async fn carry_out(&self, inner: &mut Inner, new: State, plan: &Plan) -> Result<(), Refusal> {
        inner.compiler.verify(&new)?;
        let ways = self.ways(inner, &new).await;
        if let Err((name, error)) = self.open_ports(inner, &new) {
            return Err(self.port_refused(&name, &error).await);
        }
        self.bring_up(inner, &new, &plan.add, &ways).await?;
        if let Err(refusal) = self.adjust_and_replace(inner, &new, plan, &ways).await {
            self.take_down(inner, &plan.add);
            return Err(refusal);
        }
        for (name, running) in &mut inner.running {
            if let Some(link) = new.links.get(name) {
                (running.mtu, running.sum) = mtu_of(&new, link, &ways, Some(running));
            }
        }
        let watched = self.hub.wants_changes();
        let gone = match watched {
            true => self.link_infos(inner, &plan.del).await,
            false => Vec::new(),
        };
        let old = std::mem::replace(&mut inner.state, new);
        self.look_far(inner, Some(&ways)).await;
        self.note_ways(inner, ways);
        self.publish(inner);
        remove_many(inner, &old, &plan.del).await;
        self.take_down(inner, &plan.del);
        if watched {
            self.tell_changes(inner, &old, gone).await;
        }
        Ok(())
    }

    async fn adjust_and_replace(
        &self,
        inner: &mut Inner,
        new: &State,
        plan: &Plan,
        ways: &Ways,
    ) -> Result<(), Refusal> {
        let old = inner.state.clone();
        // A route to a new host may change the MTU of a link that is otherwise as it was.
        let mut done = Vec::new();
        let mut result = Ok(());
        for (name, running) in &inner.running {
            let (Some(was), Some(link)) = (old.links.get(name), new.links.get(name)) else {
                continue;
            };
            if result.is_err() || running.lost.is_some() || plan.replace.contains(name) {
                continue;
            }
            let mtu = mtu_of(new, link, ways, Some(running)).0;
            if plan.set.contains(name) {
                result = update(link, mtu, was).await;
            } else if mtu != running.mtu {
                result = update_mtu(link, mtu).await;
            } else {
                continue;
            }
            done.push(name.clone());
        }
        if result.is_ok() && !plan.replace.is_empty() {
            self.take_down(inner, &plan.replace);
            result = self.bring_up(inner, new, &plan.replace, ways).await;
            if result.is_err() {
                let before = self.ways(inner, &old).await;
                if let Err(refusal) = self.bring_up(inner, &old, &plan.replace, &before).await {
                    tracing::error!(%refusal, "a link cannot be put back as it was: {refusal}");
                    self.mark_absent(inner, &plan.replace, &refusal);
                }
                self.publish(inner);
            }
        }
        if result.is_err() {
            for name in done {
                let was = old.links.get(&name);
                if let (Some(was), Some(link), Some(running)) =
                    (was, new.links.get(&name), inner.running.get(&name))
                {
                    let _ = update(was, running.mtu, link).await;
                }
            }
        }
        result
    }

    fn mark_absent(&self, inner: &mut Inner, names: &[IfName], refusal: &Refusal) {
        for name in names {
            let index = free_index(&inner.running);
            let lost = Some(refusal.to_string());
            let gone = Running {
                index,
                sum: MtuSum::default(),
                mtu: 0,
                lost,
            };
            inner.running.entry(name.clone()).or_insert(gone);
        }
    }

    /// Compiles the state for the workers.
    pub(in crate::daemon) fn publish(&self, inner: &mut Inner) {
        let Inner {
            state,
            running,
            registry,
            hasher,
            epoch,
            compiler,
            down,
            ways,
            ..
        } = inner;
        let places: Places = running
            .iter()
            .map(|(name, r)| (name.clone(), r.index))
            .collect();
        *down = self.board(|board| Down::of(state, board));
        let healthy = |dev: &IfName, service: &Service, at: (IpAddr, u16)| {
            !down.has(&target(state, dev, service, at))
        };
        let mut links = Vec::with_capacity(running.len());
        for (name, running) in running.iter() {
            if let Some(link) = state.links.get(name) {
                let config = compiler.link(state, link, running.mtu, &places, &healthy);
                let link = libgeneve::link::Link::new(config, registry);
                let link = link.without(|host| ways.loop_of(name, host).is_some());
                links.push(Arc::new(link));
            }
        }
        *epoch += 1;
        let mut tables = Tables::new(links, *hasher);
        tables.epoch = *epoch;
        tables.schema = Arc::new(Compiler::schema(state));
        let flows = self.engine.flows();
        flows
            .flows
            .set_links(u32::try_from(running.len()).unwrap_or(u32::MAX));
        self.engine.publish(Arc::new(tables));
        compiler.prune(state);
        registry.prune();
    }

    /// Forgets neighbours that are silent, and has flows follow those that moved to another MAC address.
    pub(in crate::daemon) async fn tend_neighbors(&self) {
        let mut inner = self.inner().await;
        if inner.compiler.tend_neighbors(self.engine.now()) {
            self.publish(&mut inner);
        }
    }

    /// What was learned of a path ends when the kernel forgets it (`net.ipv4.route.mtu_expires`), or the path has changed.
    pub(in crate::daemon) async fn refresh_path_mtus(&self) {
        let inner = self.inner().await;
        for host in inner.registry.iter().filter(|h| h.path_mtu().is_some()) {
            host.set_path_mtu(crate::io::path_mtu(host.addr).ok());
        }
    }

    /// Notes that a link's interface vanished.
    pub(in crate::daemon) async fn link_lost(&self, index: LinkIndex, error: &io::Error) {
        let mut inner = self.inner().await;
        let Inner { state, running, .. } = &mut *inner;
        let found = running
            .iter_mut()
            .find(|(_, r)| r.index == index && r.lost.is_none());
        let Some((name, running)) = found else { return };
        // The event may be about the link that had this index before.
        let netns = state.links.get(name).and_then(|l| l.netns.clone());
        let seen = interface::observe(netns, vec![name.to_string()]).await;
        if seen.is_ok_and(|seen| !seen.is_empty()) {
            return;
        }
        let cause = format!("the interface or its namespace was removed: {error}");
        tracing::error!(link = %name, cause, "link \"{name}\" lost: {cause}; \"geneved reload\" makes it anew, \"geneved link del\" forgets it");
        self.hub.tell(host_event(
            None,
            "link-lost",
            format!("link \"{name}\": {cause}"),
        ));
        running.lost = Some(cause);
        let lost = name.clone();
        self.tell_links(&inner, &[lost]).await;
    }

    /// Removes all interfaces.
    pub(in crate::daemon) async fn shut_down(&self) {
        let mut inner = self.inner().await;
        let names: Vec<_> = inner.running.keys().cloned().collect();
        let old = std::mem::take(&mut inner.state);
        self.publish(&mut inner);
        remove_many(&inner, &old, &names).await;
        self.take_down(&mut inner, &names);
        self.close_ports(&mut inner);
    }
}

/// What is told of a host; of this one, without an address.
pub(in crate::daemon) fn host_event(address: Option<IpAddr>, what: &str, detail: String) -> What {
    What::Host(HostEvent {
        address,
        what: what.into(),
        detail,
    })
}

fn refuse(name: &IfName, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(format!("link \"{name}\": {error}"), "")
}
