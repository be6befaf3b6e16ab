//! Interfaces of the daemon's namespace that datagrams are accepted from; updated whenever devices or links change.
//!
//! Nothing here waits for a configuration change in progress: nothing is accepted from a device until it is known.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use futures_util::StreamExt;
use libgeneve::vpc::{LinkIndex, RxInterface};
use tokio::time::{Instant, sleep, timeout_at};

use super::compile::Outdated;
use super::core::{Core, CoreState, host_event};
use crate::config::state::DesiredState;
use crate::config::value::IfName;
use crate::io::RxInterfaces;
use crate::net::devices::{DeviceChange, DeviceMap, LinkMessages, OwnDevices, listen};
use crate::net::netlink_watch;
use crate::net::netns::{self, NetnsId};
use crate::refusal::Refusal;

/// Time for which a burst of changes is gathered.
const GATHER_TIME: Duration = Duration::from_millis(10);
/// Pause before the kernel is asked again if it did not answer.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The known devices of the daemon's namespace.
#[derive(Debug, Default)]
pub(super) struct RxDevices {
    devices: DeviceMap,
    own: OwnDevices,
    published: BTreeMap<u32, RxInterface>,
    /// IDs of the namespaces that links are in.
    numbers: BTreeMap<String, (NetnsId, i32)>,
}

impl Core {
    /// Lists all devices, then starts following their changes.
    pub(super) async fn follow_devices(self: &Rc<Self>) -> Result<(), Refusal> {
        let refuse = |e: io::Error| Refusal::new(format!("{}: {e}", super::NO_NETLINK), "");
        if let Some(tunnel) = self.engine().tunnel_device() {
            self.rx.borrow_mut().own.others.insert(tunnel.to_owned());
        }
        let mut news = listen().map_err(refuse)?;
        self.ask_devices().await.map_err(refuse)?;
        let core = Rc::clone(self);
        tokio::task::spawn_local(async move {
            loop {
                core.handle_device_messages(&mut news).await;
                tracing::error!("netlink says no more of devices; asking again");
                news = core.listen_again().await;
            }
        });
        Ok(())
    }

    async fn ask_devices(&self) -> io::Result<()> {
        let devices = DeviceMap::dump(self.netlink()).await?;
        self.rx.borrow_mut().devices.replace(devices);
        self.publish_rx_interfaces();
        Ok(())
    }

    async fn listen_again(&self) -> LinkMessages {
        loop {
            sleep(RETRY_PAUSE).await;
            if let Ok(news) = listen()
                && self.ask_devices().await.is_ok()
            {
                return news;
            }
        }
    }

    /// Handles device events until the socket ends.
    async fn handle_device_messages(&self, news: &mut LinkMessages) {
        while let Some(message) = news.next().await {
            let mut heard = self.rx.borrow_mut().devices.apply(message);
            let end = Instant::now() + GATHER_TIME;
            while heard != DeviceChange::Nothing
                && let Ok(Some(message)) = timeout_at(end, news.next()).await
            {
                heard = heard.max(self.rx.borrow_mut().devices.apply(message));
            }
            match heard {
                DeviceChange::Nothing => {}
                DeviceChange::Changed => self.publish_rx_interfaces(),
                DeviceChange::Lost => {
                    while self.ask_devices().await.is_err() {
                        sleep(RETRY_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Records which interfaces belong to links: those that run, and those of `state` that are being created.
    /// `changed` are the links that may differ.
    pub(super) fn note_own_links(
        &self,
        inner: &CoreState,
        state: &DesiredState,
        changed: &Outdated,
    ) {
        let own = |name: &IfName| {
            let here = |state: &DesiredState| {
                let link = state.links.get(name);
                link.is_some_and(|link| link.netns.is_none())
            };
            let running = inner.running.get(name);
            if here(state) {
                let running = running.filter(|running| running.has_interface());
                return Some(running.map(|running| running.index));
            }
            let running = running.filter(|_| here(&inner.state));
            running.map(|running| Some(running.index))
        };
        let mut changes = false;
        {
            let known = &mut self.rx.borrow_mut().own.links;
            let mut note = |name: &IfName| {
                let text = name.to_string();
                changes |= match own(name) {
                    Some(now) => known.insert(text, now) != Some(now),
                    None => known.remove(&text).is_some(),
                };
            };
            match changed {
                Outdated::Links(names) => names.iter().for_each(&mut note),
                Outdated::All => {
                    let links = inner.running.keys().chain(state.links.keys());
                    let all: BTreeSet<&IfName> = links.collect();
                    all.iter().for_each(|name| note(name));
                    let before = known.len();
                    known.retain(|name, _| {
                        name.parse().is_ok_and(|name: IfName| all.contains(&name))
                    });
                    changes |= known.len() != before;
                }
            }
        }
        if changes {
            self.publish_rx_interfaces();
        }
    }

    /// Records the namespaces that links are in: devices that lead there are not part of the underlay.
    pub(super) async fn note_namespaces(&self, inner: &CoreState) {
        let mut numbers = BTreeMap::new();
        for name in inner.state.links.values().filter_map(|l| l.netns.as_ref()) {
            if numbers.contains_key(name) {
                continue;
            }
            let Some(identity) = netns::identity(name) else {
                continue;
            };
            let known = self.rx.borrow().numbers.get(name).copied();
            let number = match known.filter(|(known, _)| *known == identity) {
                Some((_, number)) => Some(number),
                None => match netns::open(name) {
                    Ok(file) => netlink_watch::number_of(self.netlink(), &file)
                        .await
                        .ok()
                        .flatten(),
                    Err(_) => None,
                },
            };
            numbers.extend(number.map(|number| (name.clone(), (identity, number))));
        }
        let namespaces = numbers.values().map(|(_, number)| *number).collect();
        let mut rx = self.rx.borrow_mut();
        rx.numbers = numbers;
        if rx.own.namespaces != namespaces {
            rx.own.namespaces = namespaces;
            drop(rx);
            self.publish_rx_interfaces();
        }
    }

    fn publish_rx_interfaces(&self) {
        let mut rx = self.rx.borrow_mut();
        let RxDevices {
            devices,
            own,
            published,
            ..
        } = &mut *rx;
        let now = devices.classify(own);
        if now != *published {
            let all = now.iter().map(|(index, what)| (*index, *what));
            self.engine().set_rx_interfaces(RxInterfaces::new(all));
            *published = now;
        }
    }

    /// Reports a datagram that did not come from the underlay.
    pub(super) async fn tell_not_from_underlay(
        &self,
        link: Option<LinkIndex>,
        src: IpAddr,
        interface: u32,
    ) {
        let inner = self.inner().await;
        let mut running = inner.running.iter();
        let name = running.find(|(_, running)| Some(running.index) == link);
        let device = self.rx.borrow().devices.name(interface).map(str::to_owned);
        let device = device.unwrap_or_else(|| format!("the interface with index {interface}"));
        let whose = match name {
            Some((name, _)) => format!("link \"{name}\": "),
            None => String::new(),
        };
        let detail = format!(
            "{whose}an outer datagram from {src} came by {device} and not from the underlay; it is dropped, and so are others like it"
        );
        tracing::warn!(%src, device, "{detail}");
        self.hub()
            .announce(host_event(Some(src), "not-from-underlay", detail));
    }
}
