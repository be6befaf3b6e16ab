//! The running state and its transactional changes.
//!
//! A change at run time, a reload and the start are the same operation: a plan from the running state to the desired
//! one. New interfaces come first, because creating them can fail; removals come last, because they cannot.

mod address_follower;
mod descriptors;
mod interfaces;
mod mtu;
mod ports;
mod prepare;
mod publish;
mod repair;
mod retry;
mod running;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use libgeneve::flow::FlowHasher;
use rtnetlink::Handle;
use tokio::sync::{Mutex, MutexGuard};

use crate::config::file::DaemonSettings;
use crate::config::plan::Plan;
use crate::config::secret::LabelSecret;
use crate::config::state::{DesiredState, LinkSpec};
use crate::config::value::IfName;
use crate::control::protocol::{EventKind, HostEvent};
use crate::control::yielding::Yielder;
use crate::daemon::compile::{Compiler, Outdated, TableBuilder, outdated_by};
use crate::daemon::drop_events::DropReporter;
use crate::daemon::health::HealthBoard;
use crate::daemon::peer_devices::{Look, PeerDevices};
use crate::daemon::rates::FlowBaseline;
use crate::daemon::rx_interfaces::RxDevices;
use crate::daemon::service_manager::ServiceManager;
use crate::daemon::undelivered::UndeliveredReports as ToldUndelivered;
use crate::daemon::unreachable::UnreachableHosts;
use crate::io::Engine;
use crate::net::mtu::PathTable;
use crate::net::port_holder::PortHolder;
use crate::observe::event_hub::EventHub;
use crate::random::HashKeys;
use crate::refusal::Refusal;
pub(in crate::daemon) use descriptors::for_port;
pub(in crate::daemon) use interfaces::profile;
use interfaces::{UnreadyPolicy, remove_many, update, update_mtu};
pub(in crate::daemon) use mtu::hosts_of;
use mtu::mtu_of;
pub(in crate::daemon) use ports::{needed_ports, port_taken};
use repair::LinkInterfaces;
pub(in crate::daemon) use repair::{AffectedLinks, RENAMED_HINT};
pub(in crate::daemon) use running::{LinkRuntime, Obstacle};

/// Owner of engine, tables and state. Everything runs on one thread.
pub(in crate::daemon) struct Core {
    engine: Engine,
    netlink: Handle,
    settings: DaemonSettings,
    secret: Option<LabelSecret>,
    config_path: PathBuf,
    /// Held while the state is changed, from before anything is compared with it. Taken before `inner`.
    changing: Mutex<()>,
    inner: Mutex<CoreState>,
    /// Number of waiting links.
    waiting: Cell<usize>,
    /// Interfaces whose events are handled.
    interfaces: LinkInterfaces,
    /// Interfaces that belong to the underlay.
    pub(in crate::daemon) rx: std::cell::RefCell<RxDevices>,
    board: std::cell::RefCell<HealthBoard>,
    started: SystemTime,
    service_manager: ServiceManager,
    hub: EventHub,
    /// Drop watcher, while a client watches drops.
    pub(in crate::daemon) drops: std::cell::RefCell<Option<DropReporter>>,
    /// What was reported of undelivered packets.
    pub(in crate::daemon) told_undelivered: std::cell::RefCell<ToldUndelivered>,
    /// Previous counts of flows, while a client asks for rates.
    pub(in crate::daemon) flow_memory: std::cell::RefCell<Option<FlowBaseline>>,
}

/// State that changes, one change at a time.
pub(in crate::daemon) struct CoreState {
    /// Shared, so that long work can use it beside the main loop.
    pub(in crate::daemon) state: Arc<DesiredState>,
    pub(in crate::daemon) running: BTreeMap<IfName, LinkRuntime>,
    /// Open ports, and whether each accepts IPv6 without a checksum.
    ports: BTreeMap<u16, bool>,
    /// Ports that links need and cannot have, and why.
    blocked: BTreeMap<u16, String>,
    /// Holders of ports found before capabilities were dropped, as they cannot be seen afterwards.
    holders: BTreeMap<u16, PortHolder>,
    pub(in crate::daemon) builder: TableBuilder,
    pub(in crate::daemon) unreachable: UnreachableHosts,
    pub(in crate::daemon) far: PeerDevices,
    /// How the kernel routes to the hosts, up to the last event.
    pub(in crate::daemon) paths: Arc<PathTable>,
}

impl Core {
    pub(in crate::daemon) fn new(
        (engine, keys): (Engine, HashKeys),
        netlink: Handle,
        settings: DaemonSettings,
        config_path: PathBuf,
        secret: Option<LabelSecret>,
        board: HealthBoard,
        holders: BTreeMap<u16, PortHolder>,
    ) -> Self {
        let hasher = FlowHasher::new(keys.of("flows in packets"));
        let compiler = Compiler::new(secret.as_ref().map(LabelSecret::label_key), keys);
        let inner = CoreState {
            state: Arc::default(),
            running: BTreeMap::new(),
            ports: BTreeMap::new(),
            blocked: BTreeMap::new(),
            holders,
            builder: TableBuilder::new(compiler, hasher),
            unreachable: UnreachableHosts::default(),
            far: PeerDevices::default(),
            paths: Arc::default(),
        };
        Core {
            engine,
            netlink,
            settings,
            secret,
            config_path,
            changing: Mutex::default(),
            inner: Mutex::new(inner),
            waiting: Cell::new(0),
            interfaces: LinkInterfaces::default(),
            rx: std::cell::RefCell::default(),
            board: board.into(),
            started: SystemTime::now(),
            service_manager: ServiceManager::of_environment(),
            hub: EventHub::default(),
            drops: std::cell::RefCell::default(),
            told_undelivered: std::cell::RefCell::default(),
            flow_memory: std::cell::RefCell::default(),
        }
    }

    pub(in crate::daemon) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Event hub for watchers.
    pub(in crate::daemon) fn hub(&self) -> &EventHub {
        &self.hub
    }

    /// The service manager.
    pub(in crate::daemon) fn service_manager(&self) -> &ServiceManager {
        &self.service_manager
    }

    /// When the daemon started.
    pub(in crate::daemon) fn started(&self) -> SystemTime {
        self.started
    }

    /// Runs `ask` on the health board.
    pub(in crate::daemon) fn board<R>(&self, ask: impl FnOnce(&mut HealthBoard) -> R) -> R {
        ask(&mut self.board.borrow_mut())
    }

    pub(in crate::daemon) fn netlink(&self) -> &Handle {
        &self.netlink
    }

    pub(in crate::daemon) fn settings(&self) -> &DaemonSettings {
        &self.settings
    }

    /// The fabric's secret as read at start.
    pub(in crate::daemon) fn secret(&self) -> Option<&LabelSecret> {
        self.secret.as_ref()
    }

    pub(in crate::daemon) fn config_path(&self) -> &Path {
        &self.config_path
    }

    pub(in crate::daemon) async fn inner(&self) -> MutexGuard<'_, CoreState> {
        self.inner.lock().await
    }

    pub(in crate::daemon) async fn state(&self) -> Arc<DesiredState> {
        Arc::clone(&self.inner().await.state)
    }

    async fn transition(
        &self,
        inner: &mut CoreState,
        new: Arc<DesiredState>,
        (plan, paths): (Plan, Option<Arc<PathTable>>),
        unready: UnreadyPolicy,
    ) -> Result<Plan, Refusal> {
        if plan.is_empty() {
            // A daemon that starts without links has a secret all the same.
            if inner.state.fabric != new.fabric {
                inner.state = new;
            } else {
                discard(new);
            }
            return Ok(plan);
        }
        let result = self.carry_out(inner, new, (&plan, paths), unready).await;
        self.close_ports(inner).await;
        self.count_waiting(inner);
        result.map(|()| plan)
    }

    async fn carry_out(
        &self,
        inner: &mut CoreState,
        new: Arc<DesiredState>,
        (plan, paths): (&Plan, Option<Arc<PathTable>>),
        unready: UnreadyPolicy,
    ) -> Result<(), Refusal> {
        if unready == UnreadyPolicy::Refuse {
            self.ensure_descriptors(inner, &new, plan)?;
        }
        let mut outdated = outdated_by(plan);
        let paths = match paths {
            Some(paths) => paths,
            None => self.paths(inner, &new, &outdated).await,
        };
        if paths.entangled || inner.paths.entangled || inner.state.fabric != new.fabric {
            outdated = Outdated::All;
        }
        let concerned: Vec<IfName> = match &outdated {
            Outdated::All => inner.running.keys().chain(&plan.add).cloned().collect(),
            Outdated::Links(names) => names.iter().cloned().collect(),
        };
        let must: BTreeSet<IfName> = match unready {
            UnreadyPolicy::Wait => BTreeSet::new(),
            UnreadyPolicy::Refuse => plan
                .add
                .iter()
                .chain(&plan.replace)
                .chain(plan.set.iter().filter(|name| moves_port(inner, &new, name)))
                .cloned()
                .collect(),
        };
        self.open_ports(inner, &new, &must).await?;
        self.listen_for_new(&plan.add);
        self.note_own_links(inner, &new, &outdated);
        self.bring_up(inner, &new, &plan.add, &paths, unready)
            .await?;
        let adjusted = self.adjust_and_replace(inner, &new, (plan, &concerned), &paths, unready);
        if let Err(refusal) = adjusted.await {
            self.take_down(inner, &plan.add).await;
            return Err(refusal);
        }
        let mut steps = Yielder::default();
        for name in &concerned {
            if let (Some(link), Some(running)) = (new.links.get(name), inner.running.get_mut(name))
            {
                (running.mtu, running.sum) = mtu_of(&new, link, &paths, Some(running));
            }
            steps.yield_if_due().await;
        }
        let watched = self.hub.wants_changes();
        let gone = match watched {
            true => self.link_infos(inner, &plan.del).await,
            false => Vec::new(),
        };
        let old = std::mem::replace(&mut inner.state, new);
        self.refresh_peer_devices(inner, Some(&paths), Look::AtNew)
            .await;
        let others = self.note_ways(inner, paths);
        if let Outdated::Links(links) = &mut outdated {
            links.extend(others);
        }
        self.note_namespaces(inner).await;
        self.publish(inner, outdated).await;
        remove_many(inner, &old, &plan.del).await;
        self.take_down(inner, &plan.del).await;
        if watched {
            self.tell_changes(inner, &old, gone).await;
        }
        discard(old);
        Ok(())
    }

    async fn adjust_and_replace(
        &self,
        inner: &mut CoreState,
        new: &Arc<DesiredState>,
        (plan, concerned): (&Plan, &[IfName]),
        paths: &PathTable,
        unready: UnreadyPolicy,
    ) -> Result<(), Refusal> {
        let old = Arc::clone(&inner.state);
        let mut steps = Yielder::default();
        // A route to a new host may change the MTU of a link that is otherwise unchanged.
        let mut done = Vec::new();
        let mut result = Ok(());
        for name in concerned {
            steps.yield_if_due().await;
            let (Some(was), Some(link)) = (old.links.get(name), new.links.get(name)) else {
                continue;
            };
            let Some(running) = inner.running.get(name) else {
                continue;
            };
            if !running.has_interface() || plan.replace.contains(name) {
                continue;
            }
            let mtu = mtu_of(new, link, paths, Some(running)).0;
            if plan.set.contains(name) {
                result = self.adjust(inner, was, link, mtu, unready).await;
            } else if mtu != running.mtu {
                match update_mtu(running.own(link), link, mtu).await {
                    Err(refusal) if unready == UnreadyPolicy::Wait => {
                        self.note_defect(inner, link, &refusal);
                    }
                    updated => result = updated,
                }
            } else {
                continue;
            }
            done.push(name.clone());
            if result.is_err() {
                break;
            }
        }
        if result.is_ok() && !plan.replace.is_empty() {
            result = self
                .replace(inner, (&old, new), &plan.replace, paths, unready)
                .await;
        }
        if result.is_err() {
            for name in done {
                let was = old.links.get(&name);
                if let (Some(was), Some(link), Some(running)) =
                    (was, new.links.get(&name), inner.running.get(&name))
                {
                    let mtu = running.mtu;
                    let _ = self
                        .adjust(inner, link, was, mtu, UnreadyPolicy::Wait)
                        .await;
                }
            }
        }
        result
    }

    /// Changes a link with an interface in place: the interface, and the sockets that it sends from.
    async fn adjust(
        &self,
        inner: &mut CoreState,
        was: &LinkSpec,
        link: &LinkSpec,
        mtu: u16,
        unready: UnreadyPolicy,
    ) -> Result<(), Refusal> {
        let (before, after) = (self.profile(was), self.profile(link));
        let sockets = match before == after && was.port == link.port {
            true => None,
            false => match self.sockets(inner, link) {
                Err(cause) if unready == UnreadyPolicy::Refuse => {
                    return Err(refuse(&link.name, &cause));
                }
                sockets => Some(sockets),
            },
        };
        let Some(running) = inner.running.get(&link.name) else {
            return Ok(());
        };
        match update(running.own(was), link, mtu, was).await {
            // One bad link does not keep a file from being applied to the others.
            Err(refusal) if unready == UnreadyPolicy::Wait => {
                self.note_defect(inner, link, &refusal);
            }
            updated => updated?,
        }
        match sockets {
            None => {}
            Some(Ok(sockets)) => self.reconnect(inner, link, &sockets).await,
            Some(Err(cause)) => self.disconnect(inner, link, cause).await,
        }
        Ok(())
    }

    /// Creates these links again. If that is refused, restores them as far as the kernel allows.
    async fn replace(
        &self,
        inner: &mut CoreState,
        (old, new): (&Arc<DesiredState>, &Arc<DesiredState>),
        names: &[IfName],
        paths: &PathTable,
        unready: UnreadyPolicy,
    ) -> Result<(), Refusal> {
        let running = |name: &IfName| Some((name.clone(), inner.running.get(name)?.clone()));
        let before: Vec<_> = names.iter().filter_map(running).collect();
        self.take_down(inner, names).await;
        let result = self.bring_up(inner, new, names, paths, unready).await;
        if result.is_err() {
            let (ran, bare): (Vec<_>, Vec<_>) =
                before.into_iter().partition(|(_, r)| r.has_interface());
            inner.running.extend(bare);
            let ran: Vec<_> = ran.into_iter().map(|(name, _)| name).collect();
            let paths = self.paths(inner, old, &Outdated::All).await;
            // Links that cannot be restored now wait.
            let _ = self
                .bring_up(inner, old, &ran, &paths, UnreadyPolicy::Wait)
                .await;
            self.publish(inner, Outdated::All).await;
        }
        result
    }

    /// Probes neighbours, removes those that do not answer, and updates the flows of those whose MAC address has
    /// changed.
    pub(in crate::daemon) async fn probe_neighbors(&self) {
        let moved = self.engine.probe_neighbors();
        if !moved.is_empty() {
            let mut inner = self.inner().await;
            let tables = inner.builder.again(&moved);
            self.engine.publish(tables);
        }
    }

    /// Removes all interfaces.
    pub(in crate::daemon) async fn shut_down(&self) {
        let _changing = self.changing.lock().await;
        let mut inner = self.inner().await;
        let names: Vec<_> = inner.running.keys().cloned().collect();
        let old = std::mem::take(&mut inner.state);
        self.publish(&mut inner, Outdated::All).await;
        remove_many(&inner, &old, &names).await;
        self.take_down(&mut inner, &names).await;
        self.close_ports(&mut inner).await;
    }
}

/// Event about a host; about this one if there is no address.
pub(in crate::daemon) fn host_event(
    address: Option<IpAddr>,
    what: &str,
    detail: String,
) -> EventKind {
    EventKind::Host(HostEvent {
        address,
        what: what.into(),
        detail,
    })
}

/// Drops an old state on another thread if it is large.
fn discard(state: Arc<DesiredState>) {
    if state.is_long() {
        // Without a thread it is dropped here.
        let _ = std::thread::Builder::new()
            .name("apart".into())
            .spawn(move || drop(state));
    }
}

/// Whether a link's port changes.
fn moves_port(inner: &CoreState, new: &DesiredState, name: &IfName) -> bool {
    let port = |state: &DesiredState| state.links.get(name).map(|link| link.port);
    port(&inner.state) != port(new)
}

fn refuse(name: &IfName, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(format!("link \"{name}\": {error}"), "")
}
