//! Tunnel MTU of a link: the minimum over all of its hosts, computed from the underlay.
//!
//! Path MTUs learned later (ICMP) do not lower it: each concerns only one host, and the packet path reports it to the
//! inner senders itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use libgeneve::mtu::TunnelMtu;
use libgeneve::wire::packet::IpVersion;
use rtnetlink::Handle;

use super::host_path::{self, HostPath, UnderlayDevices};
use super::underlay_monitor::UnderlayChanges;
use crate::config::shared_map::SharedMap;
use crate::config::value::IfName;

/// MTU assumed for an unknown underlay, in bytes.
const ASSUMED: u32 = 1500;

/// A host, and the local address to send from if the operator set one.
pub type PathKey = (IpAddr, Option<IpAddr>);

/// Why nothing is sent to a host: packets to it would loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutingLoop {
    /// The host is this one. That is `meant` if only endpoints name it: endpoint lists are the same on all hosts.
    Own {
        /// Not worth reporting.
        meant: bool,
    },
    /// The route leads into the interface of the sending link.
    Itself,
    /// The route leads into the interface of this link, which leads there.
    Through(IfName),
    /// The route leads through this bridge, which has the interface of this link as a port: packets from the host
    /// cannot be told from packets that come out of the link.
    Shared(String, IfName),
}

impl fmt::Display for RoutingLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ROUTE: &str = "the underlay's route to it leads";
        match self {
            RoutingLoop::Own { .. } => f.write_str("it is an address of this host itself"),
            RoutingLoop::Itself => write!(f, "{ROUTE} into the link itself"),
            RoutingLoop::Shared(bridge, link) => write!(
                f,
                "{ROUTE} through {bridge}, of which link \"{link}\" is a port, so that its datagrams cannot be told from those of the link's tenants; take one of them out of {bridge}"
            ),
            RoutingLoop::Through(link) => {
                write!(f, "{ROUTE} back into the link, through \"{link}\"")
            }
        }
    }
}

/// Tunnel MTU computed from the underlay; all values in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComputedMtu {
    /// The computation in words.
    pub text: String,
    /// MTU of the path to the host with the smallest one.
    pub underlay: u32,
    /// That host; `None` if the link has no hosts yet.
    pub host: Option<IpAddr>,
    /// The interface towards that host; `None` if there is no route.
    pub dev: Option<String>,
    /// What is left for inner packets.
    pub inner: u32,
}

/// What a link's MTU is computed from, beside the paths.
#[derive(Clone, Debug)]
pub struct MtuBasis {
    /// The hosts that count.
    pub hosts: Vec<IpAddr>,
    /// Length in bytes of the longest options that it sends.
    pub options: u16,
    /// Whether it may carry IPv6.
    pub ipv6: bool,
}

/// Tunnels in tunnels: a link, one of its hosts, and the link through whose interface that host is reached.
pub type NestedTunnels = BTreeSet<(IfName, IpAddr, IfName)>;

/// Paths to hosts, each looked up once, and what follows from them for the configured links.
#[derive(Clone, Debug, Default)]
pub struct PathTable {
    known: SharedMap<PathKey, Arc<Result<HostPath, String>>>,
    devices: UnderlayDevices,
    /// Hosts of each link.
    hosts: SharedMap<IfName, Arc<[PathKey]>>,
    /// Number of links that use a pair.
    users: SharedMap<PathKey, usize>,
    /// Names of all devices and ports on the paths, and possibly of some that were on them before.
    through: Arc<BTreeSet<String>>,
    /// A path leads through the interface of a link, so links may depend on each other.
    pub entangled: bool,
    /// All hosts that are reached through other links.
    pub nested: NestedTunnels,
    /// By link name.
    pub bases: SharedMap<IfName, MtuBasis>,
    /// Why packets to a host would loop, by link name and host.
    loops: SharedMap<(IfName, IpAddr), RoutingLoop>,
}

impl PathTable {
    /// Looks up a path that is not known yet.
    pub async fn query(&mut self, handle: &Handle, pair: PathKey) {
        if !self.known.contains_key(&pair) {
            let known_path =
                host_path::query_host_path(handle, pair.0, pair.1, &mut self.devices).await;
            if let Ok(known_path) = &known_path {
                self.note_through(known_path);
            }
            let known_path = known_path.map_err(|e| e.to_string());
            self.known.insert(pair, Arc::new(known_path));
        }
    }

    fn note_through(&mut self, known_path: &HostPath) {
        let ports = known_path
            .ports
            .iter()
            .flat_map(|(bridge, port)| [bridge, port]);
        for name in known_path.through.iter().chain(ports) {
            if !self.through.contains(name) {
                Arc::make_mut(&mut self.through).insert(name.clone());
            }
        }
    }

    /// Names of all devices and ports on the paths, and possibly of some that were on them before.
    pub fn through(&self) -> impl Iterator<Item = &str> {
        self.through.iter().map(String::as_str)
    }

    /// Sets the hosts of a link, `None` if it is gone. Forgets what was derived for it, and the paths that no link
    /// needs any more.
    pub fn set_hosts(&mut self, link: &IfName, pairs: Option<Arc<[PathKey]>>) {
        self.bases.remove(link);
        self.nested.retain(|(name, ..)| name != link);
        let new = pairs.iter().flat_map(|pairs| pairs.iter());
        for pair in new {
            let users = self.users.get(pair).copied().unwrap_or_default();
            self.users.insert(*pair, users + 1);
        }
        let old = match pairs {
            Some(pairs) => self.hosts.insert(link.clone(), pairs),
            None => self.hosts.remove(link),
        };
        for pair in old.iter().flat_map(|pairs| pairs.iter()) {
            if !self.loops.is_empty() {
                self.loops.remove(&(link.clone(), pair.0));
            }
            match self.users.get(pair).copied() {
                Some(users) if users > 1 => drop(self.users.insert(*pair, users - 1)),
                _ => {
                    self.users.remove(pair);
                    self.known.remove(pair);
                }
            }
        }
    }

    /// Forgets the hosts of all links and everything derived, but keeps the paths.
    pub fn forget_hosts(&mut self) {
        self.hosts = SharedMap::default();
        self.users = SharedMap::default();
        self.loops = SharedMap::default();
        self.bases = SharedMap::default();
        self.nested.clear();
        self.through = Arc::default();
        for known_path in self.known.clone().values() {
            if let Ok(known_path) = &**known_path {
                self.note_through(known_path);
            }
        }
    }

    /// The hosts of a link.
    #[must_use]
    pub fn hosts(&self, link: &IfName) -> &[PathKey] {
        self.hosts.get(link).map_or(&[], |pairs| pairs)
    }

    /// Whether this path was looked up.
    #[must_use]
    pub fn knows(&self, pair: &PathKey) -> bool {
        self.known.contains_key(pair)
    }

    /// Whether any known path may have changed.
    #[must_use]
    pub fn are_concerned(&self, changes: &UnderlayChanges) -> bool {
        let mut known = self.known.keys();
        changes.concern_devices() || known.any(|(host, local)| changes.concern(*host, *local))
    }

    /// Forgets paths that may have changed.
    pub fn forget(&mut self, changes: &UnderlayChanges) {
        self.known
            .retain(|(host, local), _| !changes.concern(*host, *local));
        if changes.concern_devices() {
            self.devices.clear();
        }
    }

    /// Forgets paths to hosts that no link has.
    pub fn keep_used(&mut self) {
        let users = &self.users;
        self.known.retain(|pair, _| users.contains_key(pair));
    }

    /// The path to a host, or why there is none; `None` if it was not looked up.
    #[must_use]
    pub fn path(&self, host: IpAddr, local: Option<IpAddr>) -> Option<Result<&HostPath, &str>> {
        let known_path = self.known.get(&(host, local))?;
        Some((**known_path).as_ref().map_err(String::as_str))
    }

    /// All local addresses that links send to this host from, each with its path.
    pub fn pairs_of(
        &self,
        host: IpAddr,
    ) -> impl Iterator<Item = (&Option<IpAddr>, &Result<HostPath, String>)> + Clone {
        let here = self.known.range((host, None)..);
        here.take_while(move |((to, _), _)| *to == host)
            .map(|((_, local), known_path)| (local, &**known_path))
    }

    /// Replaces the paths of hosts for which `change` returns another one.
    pub fn change_each(
        &mut self,
        mut change: impl FnMut(IpAddr, &Result<HostPath, String>) -> Option<HostPath>,
    ) {
        for ((host, local), known_path) in self.known.clone().iter() {
            if let Some(known_path) = change(*host, known_path) {
                self.note_through(&known_path);
                self.known.insert((*host, *local), Arc::new(Ok(known_path)));
            }
        }
    }

    /// Adds a path without a lookup.
    #[cfg(test)]
    pub fn insert(&mut self, pair: PathKey, known_path: Result<HostPath, String>) {
        self.known.insert(pair, Arc::new(known_path));
    }

    /// Sets all loops: the link, the host, and why packets would loop.
    pub fn set_loops(&mut self, loops: impl IntoIterator<Item = ((IfName, IpAddr), RoutingLoop)>) {
        self.loops = loops.into_iter().collect();
    }

    /// Adds a loop of a link's packets to a host.
    pub fn add_loop(&mut self, link: &IfName, host: IpAddr, why: RoutingLoop) {
        self.loops.insert((link.clone(), host), why);
    }

    /// All loops.
    #[must_use]
    pub fn loops(&self) -> &SharedMap<(IfName, IpAddr), RoutingLoop> {
        &self.loops
    }

    /// Why a link's packets to this host would loop, if they would.
    #[must_use]
    pub fn loop_of(&self, link: &IfName, host: IpAddr) -> Option<&RoutingLoop> {
        if self.loops.is_empty() {
            return None;
        }
        self.loops.get(&(link.clone(), host))
    }

    /// Human-readable list of the hosts that a link sends nothing to, with the reasons.
    #[must_use]
    pub fn loop_warning(&self, link: &IfName) -> Option<String> {
        let told = |why: &RoutingLoop| !matches!(why, RoutingLoop::Own { meant: true });
        let here = self.loops.iter().filter(|((name, _), _)| name == link);
        let mut loops = here.filter(|(_, why)| told(why));
        let ((_, host), why) = loops.next()?;
        let more = match loops.count() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(format!("nothing is sent to host {host}: {why}{more}"))
    }

    /// Indices of the devices that packets leave by, for each host with a path.
    #[must_use]
    pub fn devices(&self) -> BTreeMap<IpAddr, BTreeSet<u32>> {
        let mut devices: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
        for ((host, _), known_path) in self.known.iter() {
            if let Ok(known_path) = &**known_path {
                let indices = known_path.devices.iter().map(|device| device.index);
                devices.entry(*host).or_default().extend(indices);
            }
        }
        devices
    }

    /// Computes the tunnel MTU of a link with these hosts, which encapsulates as `shape` says; underlay MTU and outer
    /// IP version are those of the hosts. If no host's path is known, the underlay MTU of `before` is kept.
    #[must_use]
    pub fn sum(
        &self,
        (link, hosts): (&IfName, &[IpAddr]),
        local: Option<IpAddr>,
        shape: TunnelMtu,
        before: Option<u32>,
    ) -> ComputedMtu {
        let known = |host: &IpAddr| {
            let known_path = self.path(*host, local).and_then(Result::ok)?;
            self.loop_of(link, *host).is_none().then_some(known_path)
        };
        let tunnel = |underlay, v6| TunnelMtu {
            underlay,
            outer: if v6 { IpVersion::V6 } else { IpVersion::V4 },
            ..shape
        };
        let least = hosts
            .iter()
            .filter_map(|host| Some((host, known(host)?)))
            .map(|(host, known_path)| (tunnel(known_path.mtu, host.is_ipv6()), host, known_path))
            .min_by_key(|(tunnel, ..)| tunnel.mtu());
        if let Some((tunnel, host, known_path)) = least {
            return ComputedMtu {
                text: format!("{tunnel}; the route to {host} is dev {}", known_path.dev()),
                underlay: known_path.mtu,
                host: Some(*host),
                dev: Some(known_path.dev().to_owned()),
                inner: tunnel.mtu().into(),
            };
        }
        let v6 = hosts
            .first()
            .or(local.as_ref())
            .is_some_and(IpAddr::is_ipv6);
        let before = before.filter(|_| !hosts.is_empty());
        let underlay = before.unwrap_or(ASSUMED);
        let tunnel = tunnel(underlay, v6);
        let so = match before {
            Some(before) => format!("so {before} is kept"),
            None => format!("so {ASSUMED} is assumed"),
        };
        let why = match hosts.first() {
            None => format!("the link has no host yet, {so}"),
            Some(host) => match (self.loop_of(link, *host), self.path(*host, local)) {
                (Some(why), _) => format!("{host}: {why}, {so}"),
                (None, Some(Err(error))) => format!("no route to {host} ({error}), {so}"),
                (None, _) => format!("no route to {host} (not asked), {so}"),
            },
        };
        ComputedMtu {
            text: format!("{tunnel}; {why}"),
            underlay,
            host: hosts.first().copied(),
            dev: None,
            inner: tunnel.mtu().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::host_path::UnderlayDevice;
    use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};

    fn gnv0() -> IfName {
        "gnv0".parse().unwrap()
    }

    fn shape(options: u16) -> TunnelMtu {
        TunnelMtu {
            underlay: 0,
            outer: IpVersion::V4,
            encapsulation: Encapsulation::Geneve,
            inner: InnerProtocol::Ip,
            options,
        }
    }

    fn ways(list: &[(&str, Result<u32, &str>)]) -> PathTable {
        let mut ways = PathTable::default();
        for (host, mtu) in list {
            let known_path = mtu
                .map(|mtu| HostPath {
                    devices: vec![UnderlayDevice {
                        name: "eth0".into(),
                        index: 2,
                        mtu,
                        lower: None,
                        has_ports: false,
                    }],
                    through: vec!["eth0".into()],
                    ports: Vec::new(),
                    mtu,
                    own: false,
                    prefix_len: 24,
                    in_main: true,
                })
                .map_err(str::to_owned);
            ways.insert((host.parse().unwrap(), None), known_path);
        }
        ways
    }

    #[test]
    fn rfc8926_31_the_narrowest_host_and_the_longest_options_decide() {
        let hosts = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let ways = ways(&[("192.0.2.1", Ok(1500)), ("2001:db8::1", Ok(1500))]);
        let sum = ways.sum((&gnv0(), &hosts), None, shape(24), None);
        assert_eq!(
            (sum.inner, sum.host),
            (1500 - 40 - 8 - 8 - 24, Some(hosts[1]))
        );
        assert!(
            sum.text
                .ends_with("= 1420; the route to 2001:db8::1 is dev eth0"),
            "{}",
            sum.text
        );
    }

    #[test]
    fn what_is_not_known_is_assumed_and_said() {
        let host = ["192.0.2.1".parse().unwrap()];
        let sum = ways(&[("192.0.2.1", Err("Network is unreachable"))]).sum(
            (&gnv0(), &host),
            None,
            shape(0),
            None,
        );
        assert_eq!(sum.inner, 1464);
        assert!(
            sum.text
                .contains("no route to 192.0.2.1 (Network is unreachable)"),
            "{}",
            sum.text
        );
        let sum = PathTable::default().sum((&gnv0(), &[]), None, shape(0), Some(9000));
        assert!(
            sum.text.contains("no host yet, so 1500 is assumed"),
            "{}",
            sum.text
        );
    }

    #[test]
    fn a_route_that_is_gone_or_leads_back_changes_nothing() {
        let host: IpAddr = "192.0.2.1".parse().unwrap();
        let mut ways = ways(&[("192.0.2.1", Err("Network is unreachable"))]);
        let sum = |ways: &PathTable| ways.sum((&gnv0(), &[host]), None, shape(0), Some(9000));
        assert_eq!(sum(&ways).inner, 8964);
        assert!(sum(&ways).text.ends_with("so 9000 is kept"));
        ways.known = self::ways(&[("192.0.2.1", Ok(1464))]).known;
        assert_eq!(sum(&ways).inner, 1428);
        ways.set_loops(BTreeMap::from([((gnv0(), host), RoutingLoop::Itself)]));
        let kept = sum(&ways);
        assert_eq!((kept.inner, kept.underlay, kept.dev), (8964, 9000, None));
        assert!(
            kept.text
                .contains("leads into the link itself, so 9000 is kept"),
            "{}",
            kept.text
        );
    }

    #[test]
    fn only_what_may_have_changed_is_asked_again() {
        let mut ways = ways(&[("192.0.2.1", Ok(1500)), ("198.51.100.1", Ok(1500))]);
        let elsewhere = UnderlayChanges::of_prefix("203.0.113.0/24".parse().unwrap());
        let here = UnderlayChanges::of_prefix("192.0.2.0/24".parse().unwrap());
        assert!(!ways.are_concerned(&elsewhere) && ways.are_concerned(&here));
        assert!(ways.are_concerned(&UnderlayChanges::everything()));
        ways.forget(&here);
        assert_eq!(ways.known.len(), 1);
        assert!(ways.path("198.51.100.1".parse().unwrap(), None).is_some());
        ways.forget(&UnderlayChanges::everything());
        assert!(ways.known.is_empty());
    }
}
