//! The running state and how it changes: all of a change, or none of it.
//!
//! A change at run time, a reload and the start are the same thing: the plan from the state that
//! runs to the state that is wanted. New interfaces come first, because they can fail; what goes is
//! removed last, because that cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use libgeneve::flow::FlowHasher;
use libgeneve::link::{HostRegistry, LinkIndex, Tables};
use libgeneve::mtu::TunnelMtu;
use libgeneve::wire::packet::IpVersion;
use rtnetlink::Handle;
use tokio::sync::{Mutex, MutexGuard};

use super::backends::{Down, target};
use super::compile::{Compiler, Places, lladdr, options_len};
use super::drops::DropWatch;
use super::health::HealthBoard;
use super::rates::FlowMemory;
use crate::config::file::{DaemonSettings, Segmentation};
use crate::config::plan::Plan;
use crate::config::secret::Secret;
use crate::config::state::{Link, Refusal, Service, State};
use crate::config::value::{IfName, LinkSegmentation, Mode, MtuWord};
use crate::config::words::Change;
use crate::control::protocol::{HostEvent, MtuSum, What};
use crate::io::{Engine, SocketProfile, StartError};
use crate::net::interface::{self, Wanted};
use crate::net::mtu::Ways;
use crate::net::port::{Holder, holder};
use crate::observe::hub::Hub;

/// The owner of engine, tables and state. Everything runs on one thread.
pub(super) struct Core {
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
    pub(super) drops: std::cell::RefCell<Option<DropWatch>>,
    /// What flows had counted, while somebody asks how busy they are.
    pub(super) flow_memory: std::cell::RefCell<Option<FlowMemory>>,
}

/// What changes, one change at a time.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) state: State,
    pub(super) running: BTreeMap<IfName, Running>,
    pub(super) registry: HostRegistry,
    /// Open ports, and whether datagrams over IPv6 without a checksum are let through.
    ports: BTreeMap<u16, bool>,
    hasher: FlowHasher,
    /// Of the tables that were published last.
    epoch: u64,
    pub(super) compiler: Compiler,
    pub(super) down: Down,
}

/// A link that has an interface, or had one.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) index: LinkIndex,
    pub(super) sum: MtuSum,
    pub(super) mtu: u16,
    /// Why the interface is gone.
    pub(super) lost: Option<String>,
}

impl Core {
    pub(super) fn new(
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

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where everybody is told what happens.
    pub(super) fn hub(&self) -> &Hub {
        &self.hub
    }

    /// When the daemon started.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// Asks or tells the board of health checks.
    pub(super) fn board<R>(&self, ask: impl FnOnce(&mut HealthBoard) -> R) -> R {
        ask(&mut self.board.borrow_mut())
    }

    pub(super) fn settings(&self) -> &DaemonSettings {
        &self.settings
    }

    /// The fabric's, as it was read at start.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.secret.as_ref()
    }

    pub(super) fn config_path(&self) -> &Path {
        &self.config_path
    }

    pub(super) async fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().await
    }

    pub(super) async fn state(&self) -> State {
        self.inner().await.state.clone()
    }

    /// Makes all of these changes or none.
    pub(super) async fn apply(&self, changes: &[Change]) -> Result<Plan, Refusal> {
        let mut inner = self.inner().await;
        let mut state = inner.state.clone();
        for change in changes {
            state.apply(change)?;
        }
        self.transition(&mut inner, state, false).await
    }

    /// Runs this state instead; links that were lost are made anew.
    pub(super) async fn become_state(&self, state: State) -> Result<Plan, Refusal> {
        let mut inner = self.inner().await;
        self.transition(&mut inner, state, true).await
    }

    async fn transition(
        &self,
        inner: &mut Inner,
        new: State,
        repair: bool,
    ) -> Result<Plan, Refusal> {
        let mut plan = Plan::between(&inner.state, &new);
        if repair {
            let lost = inner
                .running
                .iter()
                .filter(|(_, r)| r.lost.is_some())
                .map(|(n, _)| n);
            let lost: Vec<_> = lost
                .filter(|n| new.links.contains_key(*n))
                .cloned()
                .collect();
            plan.set.retain(|n| !lost.contains(n));
            plan.replace.retain(|n| !lost.contains(n));
            plan.replace.extend(lost);
        }
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
        let ways = self.ways(&new).await;
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
                (running.mtu, running.sum) = mtu_of(&new, link, &ways);
            }
        }
        let watched = self.hub.wants_changes();
        let gone = match watched {
            true => self.link_infos(inner, &plan.del).await,
            false => Vec::new(),
        };
        let old = std::mem::replace(&mut inner.state, new);
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
        let mut set = plan.set.clone();
        for (name, running) in &inner.running {
            let in_place = old.links.contains_key(name) && !plan.replace.contains(name);
            if let (Some(link), true, false) = (new.links.get(name), in_place, set.contains(name))
                && mtu_of(new, link, ways).0 != running.mtu
            {
                set.push(name.clone());
            }
        }
        let mut done = Vec::new();
        let mut result = Ok(());
        for name in &set {
            if result.is_err() {
                break;
            }
            let lost = inner.running.get(name).is_some_and(|r| r.lost.is_some());
            if let (Some(link), false) = (new.links.get(name), lost) {
                result = update(link, mtu_of(new, link, ways).0).await;
                done.push(name);
            }
        }
        if result.is_ok() && !plan.replace.is_empty() {
            self.take_down(inner, &plan.replace);
            result = self.bring_up(inner, new, &plan.replace, ways).await;
            if result.is_err() {
                let before = self.ways(&old).await;
                if let Err(refusal) = self.bring_up(inner, &old, &plan.replace, &before).await {
                    tracing::error!(%refusal, "a link cannot be put back as it was");
                    self.mark_absent(inner, &plan.replace, &refusal);
                }
                self.publish(inner);
            }
        }
        if result.is_err() {
            for name in done {
                if let (Some(link), Some(running)) = (old.links.get(name), inner.running.get(name))
                {
                    let _ = update(link, running.mtu).await;
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

    /// Makes the interfaces of these links and hands them to the workers; all or none.
    async fn bring_up(
        &self,
        inner: &mut Inner,
        state: &State,
        names: &[IfName],
        ways: &Ways,
    ) -> Result<(), Refusal> {
        let links = names.iter().filter_map(|n| state.links.get(n));
        let mut by_netns: BTreeMap<Option<String>, Vec<&Link>> = BTreeMap::new();
        for link in links {
            by_netns.entry(link.netns.clone()).or_default().push(link);
        }
        let mut up: Vec<IfName> = Vec::new();
        for (netns, links) in by_netns {
            let mut outcome = Ok(());
            let wanted = links
                .iter()
                .map(|l| wanted(l, mtu_of(state, l, ways).0))
                .collect();
            match interface::create(netns, wanted, self.engine.workers()).await {
                Ok(tuns) => {
                    for (link, tun) in links.iter().zip(tuns) {
                        let index = free_index(&inner.running);
                        outcome = self
                            .engine
                            .attach(index, tun, profile(link, &self.settings))
                            .map_err(|e| refuse(&link.name, &e));
                        if outcome.is_err() {
                            break;
                        }
                        let (mtu, sum) = mtu_of(state, link, ways);
                        let running = Running {
                            index,
                            sum,
                            mtu,
                            lost: None,
                        };
                        inner.running.insert(link.name.clone(), running);
                        up.push(link.name.clone());
                    }
                }
                Err((name, error)) => {
                    outcome = Err(Refusal::new(format!("link \"{name}\": {error}"), ""));
                }
            }
            if let Err(refusal) = outcome {
                self.take_down(inner, &up);
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// Removes the interfaces of these links.
    fn take_down(&self, inner: &mut Inner, names: &[IfName]) {
        for name in names {
            if let Some(running) = inner.running.remove(name) {
                self.engine.detach(running.index);
                // Another link may get the index.
                self.engine.flows().flows.remove_link(running.index);
            }
        }
    }

    /// Opens what the wanted state needs and does not have yet.
    fn open_ports(&self, inner: &mut Inner, state: &State) -> Result<(), (IfName, StartError)> {
        for (port, (zero, name)) in needed_ports(state) {
            match inner.ports.get(&port) {
                Some(open) if *open || !zero => continue,
                // A socket's checksum rule is set before its first datagram.
                Some(_) => self.engine.close_port(port),
                None => {}
            }
            inner.ports.remove(&port);
            self.engine
                .open_port(port, zero)
                .map_err(|e| (name.clone(), e))?;
            inner.ports.insert(port, zero);
        }
        Ok(())
    }

    /// Why a link cannot have its port, and who has it.
    async fn port_refused(&self, link: &IfName, error: &StartError) -> Refusal {
        if let StartError::Port { port, error } = error
            && error.kind() == io::ErrorKind::AddrInUse
            && let Some(holder) = holder(&self.netlink, *port).await
        {
            return port_taken(link, *port, &holder);
        }
        refuse(link, error)
    }

    /// Closes what the running state does not need, and what is open wider than it needs.
    fn close_ports(&self, inner: &mut Inner) {
        let needed: BTreeMap<u16, bool> = needed_ports(&inner.state)
            .into_iter()
            .map(|(port, (zero, _))| (port, zero))
            .collect();
        let open = std::mem::take(&mut inner.ports);
        for (port, zero) in open {
            if needed.get(&port) == Some(&zero) {
                inner.ports.insert(port, zero);
            } else {
                self.engine.close_port(port);
            }
        }
        for (port, zero) in needed {
            if inner.ports.contains_key(&port) {
                continue;
            }
            match self.engine.open_port(port, zero) {
                Ok(()) => drop(inner.ports.insert(port, zero)),
                Err(error) => tracing::error!(port, %error, "the port was lost"),
            }
        }
    }

    /// Compiles the state for the workers.
    pub(super) fn publish(&self, inner: &mut Inner) {
        let Inner {
            state,
            running,
            registry,
            hasher,
            epoch,
            compiler,
            down,
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
                links.push(Arc::new(libgeneve::link::Link::new(config, registry)));
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
    pub(super) async fn tend_neighbors(&self) {
        let mut inner = self.inner().await;
        if inner.compiler.tend_neighbors(self.engine.now()) {
            self.publish(&mut inner);
        }
    }

    async fn ways(&self, state: &State) -> Ways {
        let mut ways = Ways::default();
        for link in state.links.values() {
            ways.ask(&self.netlink, &hosts_of(state, link), link.local)
                .await;
        }
        ways
    }

    /// Sets MTUs anew after interfaces, routes or addresses of the underlay changed.
    pub(super) async fn underlay_changed(&self) {
        let mut inner = self.inner().await;
        let ways = self.ways(&inner.state).await;
        let Inner { state, running, .. } = &mut *inner;
        let mut changed = Vec::new();
        for (name, running) in running.iter_mut() {
            let Some(link) = state.links.get(name) else {
                continue;
            };
            let (mtu, sum) = mtu_of(state, link, &ways);
            running.sum = sum;
            if mtu == running.mtu || running.lost.is_some() {
                continue;
            }
            match update(link, mtu).await {
                Ok(()) => {
                    tracing::info!(link = %name, from = running.mtu, to = mtu, sum = running.sum.text, "MTU changed");
                    running.mtu = mtu;
                    changed.push(name.clone());
                }
                Err(refusal) => tracing::warn!(%refusal, "the MTU cannot follow the underlay"),
            }
        }
        if !changed.is_empty() {
            self.publish(&mut inner);
            self.tell_links(&inner, &changed).await;
        }
    }

    /// What was learned of a path ends when the kernel forgets it (`net.ipv4.route.mtu_expires`), or the path has changed.
    pub(super) async fn refresh_path_mtus(&self) {
        let inner = self.inner().await;
        for host in inner.registry.iter().filter(|h| h.path_mtu().is_some()) {
            host.set_path_mtu(crate::io::path_mtu(host.addr).ok());
        }
    }

    /// Notes that a link's interface vanished.
    pub(super) async fn link_lost(&self, index: LinkIndex, error: &io::Error) {
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
        tracing::error!(link = %name, cause, "link lost; \"geneved reload\" makes it anew, \"geneved link del\" forgets it");
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
    pub(super) async fn shut_down(&self) {
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
pub(super) fn host_event(address: Option<IpAddr>, what: &str, detail: String) -> What {
    What::Host(HostEvent {
        address,
        what: what.into(),
        detail,
    })
}

/// The ports of a state's links: whether any of them accepts IPv6 without a checksum, and the name
/// of one to put into complaints.
pub(super) fn needed_ports(state: &State) -> BTreeMap<u16, (bool, &IfName)> {
    let mut ports = BTreeMap::new();
    for link in state.links.values() {
        ports.entry(link.port).or_insert((false, &link.name)).0 |= link.udp6_zero_csum_rx;
    }
    ports
}

/// Removes the interfaces of many links at once; a few are as quick one by one.
async fn remove_many(inner: &Inner, state: &State, names: &[IfName]) {
    const MANY: usize = 8;
    if names.len() < MANY {
        return;
    }
    let mut by_netns: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for name in names {
        let there = inner.running.get(name).is_some_and(|r| r.lost.is_none());
        if let (Some(link), true) = (state.links.get(name), there) {
            by_netns
                .entry(link.netns.clone())
                .or_default()
                .push(name.to_string());
        }
    }
    for (netns, names) in by_netns {
        if let Err(error) = interface::remove(netns, names).await {
            // They go when the workers let go of them.
            tracing::debug!(%error, "interfaces cannot be removed at once");
        }
    }
}

/// Why a link cannot have its port.
pub(super) fn port_taken(link: &IfName, port: u16, holder: &Holder) -> Refusal {
    let reason = format!("link \"{link}\": UDP port {port} is taken by {holder}");
    Refusal::new(reason, holder.remedy())
}

fn refuse(name: &IfName, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(format!("link \"{name}\": {error}"), "")
}

async fn update(link: &Link, mtu: u16) -> Result<(), Refusal> {
    interface::update(link.netns.clone(), wanted(link, mtu))
        .await
        .map_err(|e| refuse(&link.name, &e))
}

fn wanted(link: &Link, mtu: u16) -> Wanted {
    Wanted {
        name: link.name.to_string(),
        tap: (link.mode == Mode::Ethernet).then(|| lladdr(link)),
        mtu,
        addresses: link.addresses.clone(),
        up: link.up,
    }
}

fn profile(link: &Link, daemon: &DaemonSettings) -> SocketProfile {
    SocketProfile {
        local: link.local,
        srcport: link.srcport.0.clone(),
        df: link.df,
        udp_csum: link.udp_csum,
        udp6_zero_csum_tx: link.udp6_zero_csum_tx,
        whole: link.segmentation == LinkSegmentation::Off
            || daemon.segmentation == Segmentation::Off,
    }
}

fn free_index(running: &BTreeMap<IfName, Running>) -> LinkIndex {
    let used: BTreeSet<u32> = running.values().map(|r| r.index.0).collect();
    let free = used
        .iter()
        .zip(0..)
        .find(|(used, n)| **used != *n)
        .map(|(_, n)| n);
    LinkIndex(free.unwrap_or(u32::try_from(used.len()).unwrap_or(u32::MAX)))
}

/// Every host that the link's remote, routes and endpoints name.
pub(super) fn hosts_of(state: &State, link: &Link) -> Vec<IpAddr> {
    let routes = state.routes_of(&link.name).map(|(_, r)| &r.hosts);
    let endpoints = state.endpoints_of(&link.name).map(|(_, e)| &e.hosts);
    let fdb = state.fdb_of(&link.name).map(|(_, entry)| &entry.hosts);
    let named = routes.chain(endpoints).chain(fdb).flatten().copied();
    let all: BTreeSet<IpAddr> = link.remote.into_iter().chain(named).collect();
    all.into_iter().collect()
}

/// The MTU that a link is to have, and the sum behind the one that is computed.
fn mtu_of(state: &State, link: &Link, ways: &Ways) -> (u16, MtuSum) {
    let shape = TunnelMtu {
        underlay: 0,
        outer: IpVersion::V4,
        encapsulation: link.encapsulation,
        inner: link.inner,
        options: options_len(state, link),
    };
    let sum = ways.sum(&hosts_of(state, link), link.local, shape);
    match link.mtu {
        MtuWord::Auto => {
            // An interface cannot have less, however little the underlay leaves.
            (u16::try_from(sum.inner).unwrap_or(u16::MAX).max(68), sum)
        }
        MtuWord::Fixed(mtu) => {
            let text = format!("{mtu} as configured; computed: {}", sum.text);
            (mtu, MtuSum { text, ..sum })
        }
    }
}

/// A key that nobody outside can guess; a new one for each start.
pub(super) fn random_key() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    // The standard library seeds it from the system's random source.
    let draw = || RandomState::new().hash_one(std::time::Instant::now());
    [draw(), draw()]
}
