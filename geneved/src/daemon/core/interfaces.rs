//! Creation, change and removal of the links' interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, UdpSocket};

use ipnet::IpNet;
use libgeneve::datapath::FlowDecision;
use libgeneve::flow::{FlowCursor, FlowView};
use libgeneve::vpc::LinkIndex;

use super::mtu::mtu_of;
use super::running::{LinkRuntime, Obstacle};
use super::{Core, CoreState, refuse};
use crate::config::file::{DaemonSettings, SegmentationSetting};
use crate::config::state::{DesiredState, LinkSpec};
use crate::config::value::{IfName, LinkSegmentation, ModeValue, MtuValue};
use crate::control::yielding::Yielder;
use crate::daemon::compile::lladdr;
use crate::io::{DescriptorBudget, SocketProfile, SourceSockets};
use crate::net::interface::{
    self, CreatedInterface, InterfaceError, InterfaceSpec, OwnInterface, can_have,
};
use crate::net::mtu::PathTable;
use crate::net::netns;
use crate::refusal::Refusal;

/// What to do with links that cannot be made ready now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnreadyPolicy {
    /// Refuse the change.
    Refuse,
    /// Let them wait, and run the others.
    Wait,
}

/// Links to be created in one network namespace, with the sockets that each will send from.
struct InterfaceBatch<'a> {
    links: Vec<&'a LinkSpec>,
    sockets: Vec<SourceSockets>,
    /// Why some have no sockets.
    causes: Vec<Option<String>>,
    made: Vec<Result<CreatedInterface, InterfaceError>>,
    netns: Option<netns::NetnsId>,
}

impl<'a> InterfaceBatch<'a> {
    /// A batch of one link that cannot be created now.
    fn without_interface(link: &'a LinkSpec, cause: String, profile: SocketProfile) -> Self {
        InterfaceBatch {
            links: vec![link],
            sockets: vec![SourceSockets::none(profile)],
            causes: vec![Some(cause)],
            made: Vec::new(),
            netns: None,
        }
    }
}

impl Core {
    /// Creates the interfaces of these links and hands them to the workers. A link that waited keeps its index.
    ///
    /// # Errors
    /// If one cannot be created; then none is.
    pub(super) async fn bring_up(
        &self,
        inner: &mut CoreState,
        state: &DesiredState,
        names: &[IfName],
        paths: &PathTable,
        unready: UnreadyPolicy,
    ) -> Result<(), Refusal> {
        let links = names.iter().filter_map(|n| state.links.get(n));
        let mut by_netns: BTreeMap<Option<String>, Vec<&LinkSpec>> = BTreeMap::new();
        for link in links {
            by_netns.entry(link.netns.clone()).or_default().push(link);
        }
        let mut up: Vec<IfName> = Vec::new();
        for (netns, mut links) in by_netns {
            if unready == UnreadyPolicy::Wait {
                let (fit, others) = self.fitting(links);
                links = fit;
                for (link, cause) in others {
                    let batch = InterfaceBatch::without_interface(link, cause, self.profile(link));
                    self.install(inner, state, batch, paths, unready, &mut up)
                        .await?;
                }
            }
            let outcome = match self.make(inner, state, netns, links, paths, unready).await {
                Ok(batch) => {
                    self.install(inner, state, batch, paths, unready, &mut up)
                        .await
                }
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = outcome {
                self.take_down(inner, &up).await;
                return Err(refusal);
            }
        }
        Ok(())
    }

    async fn make<'a>(
        &self,
        inner: &CoreState,
        state: &DesiredState,
        netns: Option<String>,
        links: Vec<&'a LinkSpec>,
        paths: &PathTable,
        unready: UnreadyPolicy,
    ) -> Result<InterfaceBatch<'a>, Refusal> {
        let mut batch = InterfaceBatch {
            // Read before entering: if the name moves to another namespace meanwhile, that is noticed later.
            netns: netns.as_deref().and_then(netns::identity),
            links,
            sockets: Vec::new(),
            causes: Vec::new(),
            made: Vec::new(),
        };
        let mut wanted = Vec::new();
        let mut steps = Yielder::default();
        for link in &batch.links {
            steps.yield_if_due().await;
            let (sockets, cause) = match self.sockets(inner, link) {
                Ok(sockets) => (sockets, None),
                Err(cause) if unready == UnreadyPolicy::Refuse => {
                    return Err(refuse(&link.name, &cause));
                }
                Err(cause) => (SourceSockets::none(self.profile(link)), Some(cause)),
            };
            wanted.push(interface_spec(
                link,
                mtu_of(state, link, paths, inner.running.get(&link.name)).0,
                cause.is_none(),
            ));
            batch.sockets.push(sockets);
            batch.causes.push(cause);
        }
        let all_or_none = unready == UnreadyPolicy::Refuse;
        let workers = self.engine.workers();
        match interface::create(netns, wanted, workers, all_or_none).await {
            Ok(made) => batch.made = made,
            Err(error) if all_or_none => return Err(refuse(&batch.links[0].name, &error)),
            // The same error for each; it cannot be cloned.
            Err(error) => {
                batch.causes = vec![Some(error.to_string()); batch.links.len()];
            }
        }
        Ok(batch)
    }

    async fn install(
        &self,
        inner: &mut CoreState,
        state: &DesiredState,
        batch: InterfaceBatch<'_>,
        paths: &PathTable,
        unready: UnreadyPolicy,
        up: &mut Vec<IfName>,
    ) -> Result<(), Refusal> {
        let mut made = batch.made.into_iter();
        let mut steps = Yielder::default();
        for ((link, sockets), cause) in batch.links.iter().zip(batch.sockets).zip(batch.causes) {
            steps.yield_if_due().await;
            let before = inner.running.get(&link.name);
            let index = before.map_or_else(|| free_index(&inner.running), |r| r.index);
            let attempts = before.map(|r| r.attempts);
            let (mtu, sum) = mtu_of(state, link, paths, before);
            let mut running = LinkRuntime::new(index, mtu, sum);
            running.attempts = attempts.unwrap_or_default();
            running.obstacle = match made.next() {
                Some(Ok(made)) => {
                    self.engine.attach(index, made.tun, &sockets);
                    running.ifindex = made.ifindex;
                    running.netns = batch.netns;
                    up.push(link.name.clone());
                    cause.map(Obstacle::NoSockets)
                }
                Some(Err(error)) if unready == UnreadyPolicy::Refuse => {
                    return Err(refuse(&link.name, &error));
                }
                Some(Err(error)) => Some(Obstacle::NoInterface(error.to_string())),
                None => Some(Obstacle::NoInterface(cause.unwrap_or_default())),
            };
            let was = before.and_then(|r| r.obstacle.clone());
            self.report_obstacle(&link.name, was.as_ref(), running.obstacle.as_ref());
            inner.running.insert(link.name.clone(), running);
        }
        Ok(())
    }

    /// Opens the sockets that a link sends from, or says why it cannot have them.
    pub(super) fn sockets(
        &self,
        inner: &CoreState,
        link: &LinkSpec,
    ) -> Result<SourceSockets, String> {
        if let Some(cause) = inner.blocked.get(&link.port) {
            return Err(cause.clone());
        }
        if let Some(local) = link.local
            && !is_local(local)
        {
            return Err(format!("its local address {local} is not on this host"));
        }
        let profile = self.profile(link);
        let needed = self.engine.descriptors_for(&profile);
        if let Some(cause) = DescriptorBudget::now().refuse(needed) {
            return Err(cause);
        }
        let sockets = self.engine.open_sockets(profile);
        sockets.map_err(|error| error.to_string())
    }

    /// Removes the interfaces of these links.
    pub(super) async fn take_down(&self, inner: &mut CoreState, names: &[IfName]) {
        let running = names.iter().filter_map(|name| inner.running.remove(name));
        let gone: Vec<LinkIndex> = running.map(|running| running.index).collect();
        self.engine.detach(&gone).await;
        self.forget_flows(&gone.into_iter().collect()).await;
    }

    /// Ends all flows of links whose indices may be reused.
    async fn forget_flows(&self, links: &BTreeSet<LinkIndex>) {
        if links.is_empty() {
            return;
        }
        let mut steps = Yielder::default();
        let flows = &self.engine.flows().flows;
        let mut cursor = FlowCursor::default();
        let of = |view: &FlowView<'_, FlowDecision>| {
            links.contains(&view.original.link) || links.contains(&view.reply.link)
        };
        while flows.flush_some(&mut cursor, of).is_some() {
            steps.yield_if_due().await;
        }
        for link in links {
            flows.forget_link(*link);
        }
    }

    pub(super) fn profile(&self, link: &LinkSpec) -> SocketProfile {
        profile(link, &self.settings)
    }
}

/// Whether a socket can be bound to this address now.
pub(super) fn is_local(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    !bound.is_err_and(|e| e.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// Removes the interfaces of many links in one batch; a few are as quick one by one.
pub(super) async fn remove_many(inner: &CoreState, state: &DesiredState, names: &[IfName]) {
    const MANY: usize = 8;
    if names.len() < MANY {
        return;
    }
    let mut by_netns: BTreeMap<Option<String>, Vec<OwnInterface>> = BTreeMap::new();
    for name in names {
        let running = inner.running.get(name).filter(|r| r.has_interface());
        if let (Some(link), Some(running)) = (state.links.get(name), running) {
            by_netns
                .entry(link.netns.clone())
                .or_default()
                .push(running.own(link));
        }
    }
    for (netns, all) in by_netns {
        if let Err(error) = interface::remove(netns, all).await {
            // They disappear when the workers close them.
            tracing::debug!(%error, "interfaces cannot be removed at once");
        }
    }
}

/// Changes the interface of a link from `was` to `link`.
pub(super) async fn update(
    own: OwnInterface,
    link: &LinkSpec,
    mtu: u16,
    was: &LinkSpec,
) -> Result<(), Refusal> {
    let before = was.addresses.clone();
    interface::update(own, interface_spec(link, mtu, true), before)
        .await
        .map_err(|e| refuse(&link.name, &e))
}

pub(super) async fn update_mtu(
    own: OwnInterface,
    link: &LinkSpec,
    mtu: u16,
) -> Result<(), Refusal> {
    interface::set_mtu(own, mtu)
        .await
        .map_err(|e| refuse(&link.name, &e))
}

fn interface_spec(link: &LinkSpec, mtu: u16, carrier: bool) -> InterfaceSpec {
    // Addresses that the underlay's MTU rules out return with it; with an explicit MTU they are an error.
    let fits = |address: &&IpNet| link.mtu != MtuValue::Auto || can_have(address, mtu);
    InterfaceSpec {
        name: link.name.to_string(),
        tap: (link.mode == ModeValue::Ethernet).then(|| lladdr(link)),
        mtu,
        addresses: link.addresses.iter().filter(fits).copied().collect(),
        up: link.up,
        carrier,
    }
}

/// Requirements of a link for the sockets that it sends from.
pub(in crate::daemon) fn profile(link: &LinkSpec, daemon: &DaemonSettings) -> SocketProfile {
    SocketProfile {
        local: link.local,
        srcport: link.srcport.0.clone(),
        df: link.df,
        udp_csum: link.udp_csum,
        udp6_zero_csum_tx: link.udp6_zero_csum_tx,
        whole: link.segmentation == LinkSegmentation::Off
            || daemon.segmentation == SegmentationSetting::Off,
    }
}

/// The lowest unused index.
pub(super) fn free_index(running: &BTreeMap<IfName, LinkRuntime>) -> LinkIndex {
    let used: BTreeSet<u32> = running.values().map(|r| r.index.0).collect();
    let free = used
        .iter()
        .zip(0..)
        .find(|(used, n)| **used != *n)
        .map(|(_, n)| n);
    LinkIndex(free.unwrap_or(u32::try_from(used.len()).unwrap_or(u32::MAX)))
}
