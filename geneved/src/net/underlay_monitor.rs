//! Underlay changes as reported by the kernel: routes, addresses, rules, devices.
//!
//! Changes come in bursts, and where containers come and go, without end. What is told is put together until a burst is
//! over, or for `MAX_BURST` where it is not; who only needs to know that something changed is told at once, by a number.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep, timeout_at};

/// A burst is over after this time without a change.
const QUIET: Duration = Duration::from_millis(100);
/// Maximum time that a change waits for the end of its burst.
const MAX_BURST: Duration = Duration::from_secs(1);
/// Minimum time between two increments of the generation.
const MIN_INTERVAL: Duration = Duration::from_millis(50);
/// With more prefixes than this, everything counts as changed.
const MAX_PREFIXES: usize = 256;

/// What may have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnderlayChanges {
    everything: bool,
    prefixes: BTreeSet<IpNet>,
}

impl UnderlayChanges {
    /// Any route may have changed.
    #[must_use]
    pub fn everything() -> Self {
        UnderlayChanges {
            everything: true,
            ..UnderlayChanges::default()
        }
    }

    /// Routes for this prefix may have changed.
    #[must_use]
    pub fn of_prefix(prefix: IpNet) -> Self {
        UnderlayChanges {
            everything: false,
            prefixes: BTreeSet::from([prefix]),
        }
    }

    /// Whether the path to `host`, from `local` if given, may have changed.
    #[must_use]
    pub fn concern(&self, host: IpAddr, local: Option<IpAddr>) -> bool {
        let in_prefix =
            |net: &IpNet| net.contains(&host) || local.is_some_and(|local| net.contains(&local));
        self.everything || self.prefixes.iter().any(in_prefix)
    }

    /// Whether devices may have changed.
    #[must_use]
    pub fn concern_devices(&self) -> bool {
        self.everything
    }

    fn is_empty(&self) -> bool {
        !self.everything && self.prefixes.is_empty()
    }

    fn add(&mut self, other: UnderlayChanges) {
        self.everything |= other.everything;
        self.prefixes.extend(other.prefixes);
        self.everything |= self.prefixes.len() > MAX_PREFIXES;
        if self.everything {
            self.prefixes.clear();
        }
    }
}

/// Follows the underlay of one network namespace.
#[derive(Debug)]
pub struct UnderlayMonitor {
    /// Netlink handle for queries.
    pub handle: Handle,
    /// Incremented on each change, so that users know when to look up routes and addresses again.
    pub generation: Arc<AtomicU32>,
    changes: UnboundedReceiver<UnderlayChanges>,
}

impl UnderlayMonitor {
    /// Follows the calling thread's namespace. Must be called inside the daemon's runtime.
    ///
    /// # Errors
    /// If no netlink socket can be opened.
    pub fn follow() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::task::spawn_local(connection);
        let generation = Arc::new(AtomicU32::new(0));
        let (sender, changes) = unbounded_channel();
        let mut messages = subscribe()?;
        let mut gather = ChangeCollector {
            generation: Arc::clone(&generation),
            devices: HashMap::new(),
            sender,
        };
        tokio::task::spawn_local(async move {
            loop {
                if gather.until_it_ends(&mut messages).await.is_err() {
                    return;
                }
                tracing::error!("netlink says no more of the underlay; asking again");
                messages = loop {
                    sleep(MAX_BURST).await;
                    if let Ok(messages) = subscribe() {
                        break messages;
                    }
                };
                // What happened meanwhile is unknown.
                gather.tell(UnderlayChanges::everything());
            }
        });
        Ok(UnderlayMonitor {
            handle,
            generation,
            changes,
        })
    }

    /// Waits for changes, and returns those since the last call.
    pub async fn changed(&mut self) -> Option<UnderlayChanges> {
        let mut changes = self.changes.recv().await?;
        while let Ok(more) = self.changes.try_recv() {
            changes.add(more);
        }
        Some(changes)
    }
}

type RouteMessages = std::pin::Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>;

fn subscribe() -> io::Result<RouteMessages> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Rule,
        MulticastGroup::Ipv6Rule,
    ];
    let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::task::spawn_local(connection);
    Ok(Box::pin(messages.map(|(message, _)| message)))
}

/// The receiver is gone.
struct ReceiverGone;

struct ChangeCollector {
    generation: Arc<AtomicU32>,
    /// Relevant attributes of each device seen.
    devices: HashMap<u32, DeviceState>,
    sender: UnboundedSender<UnderlayChanges>,
}

impl ChangeCollector {
    async fn until_it_ends(&mut self, messages: &mut RouteMessages) -> Result<(), ReceiverGone> {
        while let Some(message) = messages.next().await {
            let mut changes = self.read(message);
            if changes.is_empty() {
                continue;
            }
            self.step();
            let (began, mut stepped) = (Instant::now(), Instant::now());
            let mut behind = false;
            while let Ok(more) = timeout_at(
                (began + MAX_BURST).min(Instant::now() + QUIET),
                messages.next(),
            )
            .await
            {
                let Some(message) = more else { break };
                let more = self.read(message);
                behind |= !more.is_empty();
                changes.add(more);
                if behind && stepped.elapsed() >= MIN_INTERVAL {
                    self.step();
                    (stepped, behind) = (Instant::now(), false);
                }
                if began.elapsed() >= MAX_BURST {
                    break;
                }
            }
            if behind {
                self.step();
            }
            if self.sender.send(changes).is_err() {
                return Err(ReceiverGone);
            }
        }
        Ok(())
    }

    fn tell(&self, changes: UnderlayChanges) {
        self.step();
        let _ = self.sender.send(changes);
    }

    fn step(&self) {
        self.generation.fetch_add(1, Relaxed);
    }

    fn read(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> UnderlayChanges {
        let message = match message.payload {
            NetlinkPayload::InnerMessage(message) => message,
            // The socket's receive buffer overflowed.
            NetlinkPayload::Overrun(_) => return UnderlayChanges::everything(),
            _ => return UnderlayChanges::default(),
        };
        match message {
            RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
                destination(&route)
                    .map_or_else(UnderlayChanges::default, UnderlayChanges::of_prefix)
            }
            RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
                own(&address).map_or_else(UnderlayChanges::default, UnderlayChanges::of_prefix)
            }
            RouteNetlinkMessage::NewLink(link) => self.device(link),
            RouteNetlinkMessage::DelLink(link) => {
                self.devices.remove(&link.header.index);
                UnderlayChanges::everything()
            }
            RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
                UnderlayChanges::everything()
            }
            _ => UnderlayChanges::default(),
        }
    }

    /// The kernel does not report routes that vanish because their device goes down, so any path may change with a
    /// device.
    fn device(&mut self, message: LinkMessage) -> UnderlayChanges {
        let index = message.header.index;
        let now = DeviceState::read(message);
        let before = self.devices.insert(index, now.clone());
        match before {
            Some(before) if before == now => UnderlayChanges::default(),
            // A new or unknown device that does not lead anywhere yet.
            None if !now.up => UnderlayChanges::default(),
            _ => UnderlayChanges::everything(),
        }
    }
}

/// Attributes of a device that paths depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DeviceState {
    name: String,
    up: bool,
    carrier: bool,
    mtu: u32,
    controller: u32,
}

impl DeviceState {
    fn read(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut device = DeviceState {
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ..DeviceState::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => device.name = name,
                LinkAttribute::Mtu(mtu) => device.mtu = mtu,
                LinkAttribute::Controller(index) => device.controller = index,
                _ => {}
            }
        }
        device
    }
}

/// Destination prefix of a route.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    let named = route.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(RouteAddress::Inet(a)) => Some(IpAddr::V4(*a)),
        RouteAttribute::Destination(RouteAddress::Inet6(a)) => Some(IpAddr::V6(*a)),
        _ => None,
    });
    use rtnetlink::packet_route::AddressFamily::{Inet, Inet6};
    let address = match (named, route.header.address_family) {
        (Some(address), _) => address,
        (None, Inet) => IpAddr::from([0; 4]),
        (None, Inet6) => IpAddr::from([0; 16]),
        _ => return None,
    };
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

/// An address that this host has, or had.
fn own(address: &AddressMessage) -> Option<IpNet> {
    address.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) | AddressAttribute::Address(ip) => Some(IpNet::from(*ip)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather() -> (ChangeCollector, UnboundedReceiver<UnderlayChanges>) {
        let (sender, receiver) = unbounded_channel();
        let gather = ChangeCollector {
            generation: Arc::default(),
            devices: HashMap::new(),
            sender,
        };
        (gather, receiver)
    }

    fn route(prefix: &str) -> NetlinkMessage<RouteNetlinkMessage> {
        let prefix: IpNet = prefix.parse().unwrap();
        let mut route = RouteMessage::default();
        let (family, address) = match prefix.addr() {
            IpAddr::V4(a) => (
                rtnetlink::packet_route::AddressFamily::Inet,
                RouteAddress::Inet(a),
            ),
            IpAddr::V6(a) => (
                rtnetlink::packet_route::AddressFamily::Inet6,
                RouteAddress::Inet6(a),
            ),
        };
        route.header.address_family = family;
        route.header.destination_prefix_length = prefix.prefix_len();
        if prefix.prefix_len() > 0 {
            route.attributes.push(RouteAttribute::Destination(address));
        }
        RouteNetlinkMessage::NewRoute(route).into()
    }

    fn link(index: u32, up: bool, mtu: u32) -> NetlinkMessage<RouteNetlinkMessage> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        if up {
            link.header.flags = LinkFlags::Up;
        }
        link.attributes.push(LinkAttribute::Mtu(mtu));
        RouteNetlinkMessage::NewLink(link).into()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_route_concerns_its_prefix_only() {
        let (mut gather, _receiver) = gather();
        let changes = gather.read(route("192.0.2.0/25"));
        assert!(changes.concern(ip("192.0.2.1"), None));
        assert!(!changes.concern(ip("192.0.2.129"), None));
        assert!(changes.concern(ip("198.51.100.1"), Some(ip("192.0.2.7"))));
        let default = gather.read(route("::/0"));
        assert!(default.concern(ip("2001:db8::1"), None));
        assert!(!default.concern(ip("192.0.2.1"), None));
    }

    #[test]
    fn a_device_counts_when_it_is_not_as_it_was() {
        let (mut gather, _receiver) = gather();
        assert!(gather.read(link(7, false, 1500)).is_empty());
        assert!(gather.read(link(7, true, 1500)).concern_devices());
        assert!(gather.read(link(7, true, 1500)).is_empty());
        assert!(gather.read(link(7, true, 1400)).concern_devices());
    }

    #[test]
    fn very_many_prefixes_are_everything() {
        let mut all = UnderlayChanges::default();
        for n in 0..=MAX_PREFIXES {
            let net = format!("10.{}.{}.0/24", n / 256, n % 256);
            all.add(UnderlayChanges::of_prefix(net.parse().unwrap()));
        }
        assert_eq!(all, UnderlayChanges::everything());
    }

    #[tokio::test(start_paused = true)]
    async fn churn_without_end_holds_nothing_up() {
        let (mut gather, mut receiver) = gather();
        let generation = Arc::clone(&gather.generation);
        let mut churn: RouteMessages = Box::pin(futures_util::stream::unfold(0, |n| async move {
            sleep(Duration::from_millis(50)).await;
            Some((route(&format!("10.0.{n}.0/24")), (n + 1) % 200))
        }));
        let began = Instant::now();
        let told = tokio::select! {
            _ = gather.until_it_ends(&mut churn) => None,
            told = receiver.recv() => told,
        };
        let told = told.expect("it is told, though the churn goes on");
        assert!(
            began.elapsed() <= MAX_BURST + 2 * QUIET,
            "{:?}",
            began.elapsed()
        );
        assert!(told.concern(ip("10.0.0.1"), None) && told.concern(ip("10.0.15.1"), None));
        assert!(
            generation.load(Relaxed) > 10,
            "who asks for it is told at once"
        );
    }
}
