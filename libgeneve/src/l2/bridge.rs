//! Lookups for an Ethernet link: configured entries first, then learned ones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Fdb, FdbLimits, LearnOutcome, NeighborNotice, NeighborQuery, NeighborTable};
use crate::drop::DropReason;
use crate::host::Host;
use crate::policy::PolicyDefaults;
use crate::qos::Bucket;
use crate::time::Now;
use crate::wire::ethernet::{Ethernet, Mac};
use crate::wire::nd::AdvertisementFlags;

/// How long after it was last heard a learned neighbour is answered for (RFC 4861 section 10, `REACHABLE_TIME`).
const SPOKEN_FOR: Duration = Duration::from_secs(30);

/// Where a MAC address is.
#[derive(Clone, Debug)]
pub enum StationLocation {
    /// Behind the local TAP interface.
    Here,
    /// Behind another host.
    Host(Arc<Host>),
}

impl PartialEq for StationLocation {
    fn eq(&self, other: &StationLocation) -> bool {
        match (self, other) {
            (StationLocation::Here, StationLocation::Here) => true,
            (StationLocation::Host(a), StationLocation::Host(b)) => a.id == b.id,
            _ => false,
        }
    }
}

impl Eq for StationLocation {}

impl StationLocation {
    /// Drop reason for a frame from this place whose source belongs elsewhere.
    fn forged(&self) -> DropReason {
        match self {
            StationLocation::Here => DropReason::SourceNotLocal,
            StationLocation::Host(_) => DropReason::SourceMismatch,
        }
    }
}

/// Configuration of an Ethernet link.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// MAC address of the TAP interface.
    pub mac: Mac,
    /// Whether addresses are learned from frames.
    pub learning: bool,
    /// Limits of the learned tables.
    pub limits: FdbLimits,
    /// Static FDB entries: MAC address and hosts; one host for a unicast address, any number for a group.
    pub entries: Vec<(Mac, Vec<IpAddr>)>,
    /// Hosts to which broadcast, unknown-unicast and multicast (BUM) frames are flooded.
    pub flood: Vec<IpAddr>,
    /// Rate limit for those frames, in frames.
    pub flood_rate: Arc<Bucket>,
    /// Endpoints of the link.
    pub owners: Vec<OwnerConfig>,
    /// Actions for frames that are neither IP, ARP nor Neighbor Discovery: the link's defaults.
    pub others: PolicyDefaults,
    /// Learned state; it outlives this configuration.
    pub live: Arc<LearnedState>,
}

/// IP address of a configured endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerConfig {
    /// IP address.
    pub addr: IpAddr,
    /// MAC address, if configured.
    pub mac: Option<Mac>,
    /// Host that it is on; `None` for this host.
    pub host: Option<IpAddr>,
}

/// Learned state and counters of an Ethernet link.
#[derive(Debug)]
pub struct LearnedState {
    /// Learned MAC addresses.
    pub fdb: Fdb,
    /// Learned IP to MAC address bindings.
    pub neighbors: NeighborTable,
    /// Event counters.
    pub tally: BridgeCounters,
}

impl LearnedState {
    /// Returns empty tables; `key` is secret.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        LearnedState {
            fdb: Fdb::new(key),
            neighbors: NeighborTable::new(key),
            tally: BridgeCounters::default(),
        }
    }
}

/// Event counters of an Ethernet link.
#[derive(Debug, Default)]
pub struct BridgeCounters {
    /// MAC addresses learned.
    pub learned: AtomicU64,
    /// MAC addresses that moved.
    pub moved: AtomicU64,
    /// Frames whose source was not learned because the table was full.
    pub full: AtomicU64,
    /// Frames flooded to a list of hosts.
    pub flooded: AtomicU64,
    /// ARP and Neighbor Discovery requests answered locally.
    pub suppressed: AtomicU64,
}

impl BridgeCounters {
    /// Name and value of each counter.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("learned", &self.learned),
            ("moved", &self.moved),
            ("full", &self.full),
            ("flooded", &self.flooded),
            ("suppressed", &self.suppressed),
        ];
        all.map(|(name, count)| (name, count.load(Relaxed)))
            .into_iter()
    }

    /// Increments one counter.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

#[derive(Clone, Debug)]
struct AddressOwner {
    mac: Option<Mac>,
    place: StationLocation,
}

/// Where a frame goes by its destination MAC address.
#[derive(Clone, Debug)]
pub enum FrameDestination {
    /// To a station behind the local TAP interface.
    Here,
    /// To the host that the station is on.
    Host(Arc<Host>),
    /// Flooded to all of these: group address or unknown unicast.
    All(Arc<[Arc<Host>]>),
}

impl FrameDestination {
    /// Whether the destination is behind the local TAP interface.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self, FrameDestination::Here)
    }
}

/// Ethernet link as the packet path uses it.
#[derive(Debug)]
pub struct Bridge {
    /// MAC address of the TAP interface.
    pub mac: Mac,
    /// MAC address that answers for the virtual addresses of services and the outside addresses of NAT. It differs
    /// from the interface's own because a bridge that the TAP belongs to would keep frames for that address to
    /// itself.
    pub virtual_mac: Mac,
    /// Learned state and counters.
    pub live: Arc<LearnedState>,
    /// Rate limit for flooded frames.
    pub flood_rate: Arc<Bucket>,
    /// Actions for frames that are neither IP, ARP nor Neighbor Discovery.
    pub others: PolicyDefaults,
    learning: bool,
    limits: FdbLimits,
    stations: HashMap<Mac, StationLocation>,
    groups: HashMap<Mac, Arc<[Arc<Host>]>>,
    owners: HashMap<IpAddr, AddressOwner>,
    flood: Arc<[Arc<Host>]>,
}

impl Bridge {
    /// Compiles a configuration; `host` looks up a host by its underlay address.
    #[must_use]
    pub fn new(config: &BridgeConfig, mut host: impl FnMut(IpAddr) -> Arc<Host>) -> Bridge {
        let mut hosts =
            |list: &[IpAddr]| -> Arc<[Arc<Host>]> { list.iter().map(|&addr| host(addr)).collect() };
        let mut stations = HashMap::new();
        let mut groups = HashMap::new();
        let mut owners = HashMap::new();
        for owner in &config.owners {
            let place = match owner.host {
                None => StationLocation::Here,
                Some(addr) => StationLocation::Host(Arc::clone(&hosts(&[addr])[0])),
            };
            if let Some(mac) = owner.mac {
                stations.insert(mac, place.clone());
            }
            let mac = owner.mac;
            owners.insert(owner.addr, AddressOwner { mac, place });
        }
        for (mac, list) in &config.entries {
            let list = hosts(list);
            if mac.is_multicast() {
                groups.insert(*mac, list);
            } else if let Some(host) = list.first() {
                stations.insert(*mac, StationLocation::Host(Arc::clone(host)));
            }
        }
        let virtual_mac = config.mac.companion();
        stations.insert(config.mac, StationLocation::Here);
        stations.insert(virtual_mac, StationLocation::Here);
        Bridge {
            mac: config.mac,
            virtual_mac,
            live: Arc::clone(&config.live),
            flood_rate: Arc::clone(&config.flood_rate),
            others: config.others,
            learning: config.learning,
            limits: config.limits,
            flood: hosts(&config.flood),
            stations,
            groups,
            owners,
        }
    }

    /// All configured hosts; may contain duplicates.
    pub fn hosts<'a>(&'a self) -> impl Iterator<Item = &'a Arc<Host>> {
        let stations = self
            .stations
            .values()
            .chain(self.owners.values().map(|o| &o.place));
        let of = |place: &'a StationLocation| match place {
            StationLocation::Host(host) => Some(host),
            StationLocation::Here => None,
        };
        let groups = self.groups.values().flat_map(|list| list.iter());
        stations
            .filter_map(of)
            .chain(groups)
            .chain(self.flood.iter())
    }

    /// Checks that `mac` may send from `from`, and learns it if learning is on.
    ///
    /// # Errors
    /// If the address is configured elsewhere, or moves too often.
    pub fn admit(&self, mac: Mac, from: &StationLocation, now: Now) -> Result<(), DropReason> {
        if let Some(place) = self.stations.get(&mac) {
            return if place == from {
                Ok(())
            } else {
                Err(from.forged())
            };
        }
        if !self.learning {
            return Ok(());
        }
        let LearnedState { fdb, tally, .. } = &*self.live;
        match fdb.learn(mac, from, &self.limits, now) {
            LearnOutcome::Known => return Ok(()),
            LearnOutcome::New => BridgeCounters::count(&tally.learned),
            LearnOutcome::Moved => BridgeCounters::count(&tally.moved),
            LearnOutcome::Full => BridgeCounters::count(&tally.full),
            LearnOutcome::Refused => return Err(DropReason::MacMove),
        }
        Ok(())
    }

    /// Returns where a frame for `mac` goes.
    #[must_use]
    pub fn destination(&self, mac: Mac, now: Now) -> FrameDestination {
        if mac.is_multicast() {
            return FrameDestination::All(Arc::clone(self.groups.get(&mac).unwrap_or(&self.flood)));
        }
        let place = match self.stations.get(&mac) {
            Some(place) => Some(place.clone()),
            None => self.live.fdb.find(mac, &self.limits, now),
        };
        match place {
            Some(StationLocation::Here) => FrameDestination::Here,
            Some(StationLocation::Host(host)) => FrameDestination::Host(host),
            None => FrameDestination::All(Arc::clone(&self.flood)),
        }
    }

    /// Checks the binding that a message from `from` announces, and learns it if learning is on. Bindings announced
    /// inside a VLAN (`tagged`) are not learned: the same address may belong to another station there.
    ///
    /// # Errors
    /// If the IP address belongs to an endpoint that is elsewhere or has another MAC address, or if the MAC address
    /// is configured elsewhere.
    pub fn learn_claim(
        &self,
        notice: &NeighborNotice,
        from: &StationLocation,
        tagged: bool,
        now: Now,
    ) -> Result<(), DropReason> {
        let Some((addr, mac)) = notice.claim else {
            return Ok(());
        };
        self.owns(addr, Some(mac), from)?;
        if self.stations.get(&mac).is_some_and(|place| place != from) {
            return Err(from.forged());
        }
        // Learned even with learning off: only its advertisements say whether a configured endpoint is a router.
        let configured = self.owners.get(&addr).is_some_and(|o| o.mac.is_some());
        if (self.learning || configured) && !tagged && mac.is_unicast() {
            let neighbors = &self.live.neighbors;
            let _ = neighbors.learn(addr, mac, notice.flags, &self.limits, now);
        }
        Ok(())
    }

    /// Checks that `addr` may be used from `from`, by the station `mac` if given.
    ///
    /// # Errors
    /// If it belongs to an endpoint that is elsewhere, or that has another MAC address.
    #[inline]
    pub fn owns(
        &self,
        addr: IpAddr,
        mac: Option<Mac>,
        from: &StationLocation,
    ) -> Result<(), DropReason> {
        let Some(owner) = self.owners.get(&addr) else {
            return Ok(());
        };
        let same = mac.is_none() || owner.mac.is_none() || owner.mac == mac;
        if same && owner.place == *from {
            Ok(())
        } else {
            Err(from.forged())
        }
    }

    /// Returns the MAC address of an IP address, if known.
    #[must_use]
    pub fn mac_of(&self, addr: IpAddr, now: Now) -> Option<Mac> {
        let configured = self.owners.get(&addr).and_then(|owner| owner.mac);
        configured.or_else(|| self.live.neighbors.find(addr, &self.limits, now))
    }

    /// Returns the MAC address with which to answer the request of the station `asker`, which is behind the TAP
    /// interface.
    ///
    /// `None` if the binding is unknown, if the owner is behind the TAP interface too and answers itself, or if the
    /// asker owns the address. A duplicate address probe is answered for configured endpoints only; a learned owner
    /// defends its address itself. A learned owner is also left to answer if it has not been heard recently, since it
    /// may be gone or have another MAC address, and if it has not yet advertised whether it is a router.
    #[must_use]
    pub fn answer(
        &self,
        question: &NeighborQuery,
        asker: Mac,
        now: Now,
    ) -> Option<(Mac, AdvertisementFlags)> {
        let target = question.target;
        let owner = self.owners.get(&target);
        let configured = owner.and_then(|owner| owner.mac);
        let learned = self.live.neighbors.neighbor(target, &self.limits, now);
        let flags = learned.and_then(|known| known.flags);
        let (mac, flags) = match (configured, learned) {
            (Some(mac), _) => (mac, flags.unwrap_or_default()),
            (None, Some(known)) if !question.probe && now.since(known.seen) < SPOKEN_FOR => {
                let said = flags.or(target.is_ipv4().then(AdvertisementFlags::default))?;
                (known.mac, said)
            }
            (None, _) => return None,
        };
        let elsewhere = match owner {
            Some(owner) => owner.place != StationLocation::Here,
            None => matches!(self.destination(mac, now), FrameDestination::Host(_)),
        };
        (mac != asker && elsewhere).then_some((mac, flags))
    }

    /// Returns the destination and source MAC addresses of the answer to a frame. An answer to a group frame comes
    /// from the virtual MAC address.
    #[must_use]
    pub fn reply_addresses(&self, frame: &Ethernet<'_>) -> (Mac, Mac) {
        let asked = frame.dst();
        let from = if asked.is_multicast() {
            self.virtual_mac
        } else {
            asked
        };
        (frame.src(), from)
    }

    /// Whether a station is behind the local TAP interface.
    #[must_use]
    pub fn is_here(&self, mac: Mac, now: Now) -> bool {
        self.destination(mac, now).is_here()
    }

    /// Whether a station behind the local TAP interface has announced `addr`.
    #[must_use]
    pub fn has_station(&self, addr: IpAddr, now: Now) -> bool {
        let mac = self.live.neighbors.find(addr, &self.limits, now);
        mac.is_some_and(|mac| self.is_here(mac, now))
    }

    /// Limits of the learned tables.
    #[must_use]
    pub fn limits(&self) -> &FdbLimits {
        &self.limits
    }
}

#[cfg(test)]
#[path = "bridge_tests.rs"]
mod tests;
