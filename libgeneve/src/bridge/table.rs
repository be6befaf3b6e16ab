//! The two halves of what an Ethernet link knows, put together: what is configured goes before what was learned.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Fdb, Learned, Limits, Neighbors, Notice, Question};
use crate::drop::DropReason;
use crate::host::Host;
use crate::policy::Defaults;
use crate::qos::Bucket;
use crate::time::Now;
use crate::wire::ethernet::{Ethernet, Mac};
use crate::wire::nd::AdvertisementFlags;

/// How long a learned neighbour is answered for after it was heard of (RFC 4861 section 10, `REACHABLE_TIME`).
const SPOKEN_FOR: Duration = Duration::from_secs(30);

/// Where a MAC address is.
#[derive(Clone, Debug)]
pub enum Place {
    /// Behind the TAP interface.
    Here,
    /// On this host.
    Host(Arc<Host>),
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        match (self, other) {
            (Place::Here, Place::Here) => true,
            (Place::Host(a), Place::Host(b)) => a.id == b.id,
            _ => false,
        }
    }
}

impl Eq for Place {}

impl Place {
    /// The reason under which a frame is counted that came from here and should not have.
    fn forged(&self) -> DropReason {
        match self {
            Place::Here => DropReason::SourceNotLocal,
            Place::Host(_) => DropReason::SourceMismatch,
        }
    }
}

/// What is configured of an Ethernet link.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// The MAC address of the TAP interface.
    pub mac: Mac,
    /// Whether addresses are learned from frames.
    pub learning: bool,
    /// What bounds the learned tables.
    pub limits: Limits,
    /// MAC addresses and the hosts that they are on: one for a station, any number for a group.
    pub entries: Vec<(Mac, Vec<IpAddr>)>,
    /// Hosts that get what is for everybody, or for nobody knows whom.
    pub flood: Vec<IpAddr>,
    /// How many of those frames may pass, counted in frames.
    pub flood_rate: Arc<Bucket>,
    /// Endpoints of the link.
    pub owners: Vec<OwnerConfig>,
    /// What becomes of frames that are neither IP, ARP nor Neighbor Discovery: the defaults of the link.
    pub others: Defaults,
    /// What was learned; it outlives this configuration.
    pub live: Arc<Live>,
}

/// An IP address whose owner is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerConfig {
    /// The address.
    pub addr: IpAddr,
    /// Its MAC address, if that is configured, too.
    pub mac: Option<Mac>,
    /// The host that it is on; `None` is this one.
    pub host: Option<IpAddr>,
}

/// What was learned on an Ethernet link, and what is counted.
#[derive(Debug)]
pub struct Live {
    /// Where MAC addresses are.
    pub fdb: Fdb,
    /// Which IP address has which MAC address.
    pub neighbors: Neighbors,
    /// What happened.
    pub tally: Tally,
}

impl Live {
    /// Nothing is known yet; `key` is secret.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        Live {
            fdb: Fdb::new(key),
            neighbors: Neighbors::new(key),
            tally: Tally::default(),
        }
    }
}

/// Events of an Ethernet link.
#[derive(Debug, Default)]
pub struct Tally {
    /// MAC addresses that were learned.
    pub learned: AtomicU64,
    /// Those that turned up elsewhere and were followed.
    pub moved: AtomicU64,
    /// Frames whose source could not be learned, because the table was full.
    pub full: AtomicU64,
    /// Frames that were sent to every host of a list.
    pub flooded: AtomicU64,
    /// Questions for MAC addresses that were answered here.
    pub suppressed: AtomicU64,
}

impl Tally {
    /// The name of each event, and how often it happened.
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

    /// Counts one event.
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

#[derive(Clone, Debug)]
struct Owner {
    mac: Option<Mac>,
    place: Place,
}

/// Where a frame goes by its destination MAC address.
#[derive(Clone, Debug)]
pub enum Toward {
    /// To a station behind the TAP interface.
    Here,
    /// To the host of a station.
    Host(Arc<Host>),
    /// To all of these: it is for a group, or for nobody knows whom.
    All(Arc<[Arc<Host>]>),
}

impl Toward {
    /// Whether it is a station behind the TAP interface.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self, Toward::Here)
    }
}

/// An Ethernet link, ready for the packet path.
#[derive(Debug)]
pub struct Bridge {
    /// The MAC address of the TAP interface.
    pub mac: Mac,
    /// The MAC address of what stands for others: virtual addresses of services, outside addresses of NAT. A bridge around
    /// the TAP interface would keep frames for the interface's own address to itself.
    pub virtual_mac: Mac,
    /// What was learned.
    pub live: Arc<Live>,
    /// How many frames may be flooded.
    pub flood_rate: Arc<Bucket>,
    /// What becomes of frames that are neither IP, ARP nor Neighbor Discovery.
    pub others: Defaults,
    learning: bool,
    limits: Limits,
    stations: HashMap<Mac, Place>,
    groups: HashMap<Mac, Arc<[Arc<Host>]>>,
    owners: HashMap<IpAddr, Owner>,
    flood: Arc<[Arc<Host>]>,
}

impl Bridge {
    /// Compiles a configuration; `host` finds the host of an underlay address.
    #[must_use]
    pub fn new(config: &BridgeConfig, mut host: impl FnMut(IpAddr) -> Arc<Host>) -> Bridge {
        let mut hosts =
            |list: &[IpAddr]| -> Arc<[Arc<Host>]> { list.iter().map(|&addr| host(addr)).collect() };
        let mut stations = HashMap::new();
        let mut groups = HashMap::new();
        let mut owners = HashMap::new();
        for owner in &config.owners {
            let place = match owner.host {
                None => Place::Here,
                Some(addr) => Place::Host(Arc::clone(&hosts(&[addr])[0])),
            };
            if let Some(mac) = owner.mac {
                stations.insert(mac, place.clone());
            }
            let mac = owner.mac;
            owners.insert(owner.addr, Owner { mac, place });
        }
        for (mac, list) in &config.entries {
            let list = hosts(list);
            if mac.is_multicast() {
                groups.insert(*mac, list);
            } else if let Some(host) = list.first() {
                stations.insert(*mac, Place::Host(Arc::clone(host)));
            }
        }
        let virtual_mac = config.mac.companion();
        stations.insert(config.mac, Place::Here);
        stations.insert(virtual_mac, Place::Here);
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

    /// Every host that is configured, with repetitions.
    pub fn hosts<'a>(&'a self) -> impl Iterator<Item = &'a Arc<Host>> {
        let stations = self
            .stations
            .values()
            .chain(self.owners.values().map(|o| &o.place));
        let of = |place: &'a Place| match place {
            Place::Host(host) => Some(host),
            Place::Here => None,
        };
        let groups = self.groups.values().flat_map(|list| list.iter());
        stations
            .filter_map(of)
            .chain(groups)
            .chain(self.flood.iter())
    }

    /// Whether `mac` may send from `from`; if so, and if that is to be, it is written down to be there.
    ///
    /// # Errors
    /// It is configured to be elsewhere, or moves too often.
    pub fn admit(&self, mac: Mac, from: &Place, now: Now) -> Result<(), DropReason> {
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
        let Live { fdb, tally, .. } = &*self.live;
        match fdb.learn(mac, from, &self.limits, now) {
            Learned::Known => return Ok(()),
            Learned::New => Tally::count(&tally.learned),
            Learned::Moved => Tally::count(&tally.moved),
            Learned::Full => Tally::count(&tally.full),
            Learned::Refused => return Err(DropReason::MacMove),
        }
        Ok(())
    }

    /// Where a frame for `mac` goes.
    #[must_use]
    pub fn toward(&self, mac: Mac, now: Now) -> Toward {
        if mac.is_multicast() {
            return Toward::All(Arc::clone(self.groups.get(&mac).unwrap_or(&self.flood)));
        }
        let place = match self.stations.get(&mac) {
            Some(place) => Some(place.clone()),
            None => self.live.fdb.find(mac, &self.limits, now),
        };
        match place {
            Some(Place::Here) => Toward::Here,
            Some(Place::Host(host)) => Toward::Host(host),
            None => Toward::All(Arc::clone(&self.flood)),
        }
    }

    /// Whether what a message from `from` claims may be; if so, and if that is to be, it is written down. What is said in a
    /// VLAN (`tagged`) is not: there the address may be another station's.
    ///
    /// # Errors
    /// The address is an endpoint that is elsewhere or has another MAC address, or the MAC address is configured to be
    /// elsewhere.
    pub fn hear(
        &self,
        notice: &Notice,
        from: &Place,
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
        // Whether a configured owner is a router is said by nobody else.
        let configured = self.owners.get(&addr).is_some_and(|o| o.mac.is_some());
        if (self.learning || configured) && !tagged && mac.is_unicast() {
            let neighbors = &self.live.neighbors;
            let _ = neighbors.learn(addr, mac, notice.flags, &self.limits, now);
        }
        Ok(())
    }

    /// Whether `addr` may be used from `from`, by the station `mac` where that is said.
    ///
    /// # Errors
    /// It is an endpoint that is elsewhere, or has another MAC address.
    #[inline]
    pub fn owns(&self, addr: IpAddr, mac: Option<Mac>, from: &Place) -> Result<(), DropReason> {
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

    /// The MAC address of an IP address, if it is known.
    #[must_use]
    pub fn mac_of(&self, addr: IpAddr, now: Now) -> Option<Mac> {
        let configured = self.owners.get(&addr).and_then(|owner| owner.mac);
        configured.or_else(|| self.live.neighbors.find(addr, &self.limits, now))
    }

    /// The MAC address with which a question from behind the TAP interface, asked by the station `asker`, is answered here.
    ///
    /// `None` where nobody knows, where the owner is behind the TAP interface, too, and answers itself, and where the
    /// asking station has the address. Who probes for an address hears of an endpoint that is configured; a learned owner
    /// defends itself. It also answers itself where it was not heard of for a while, so that one who is gone, or has
    /// another MAC address now, is not spoken for; and where it has not said yet whether it is a router.
    #[must_use]
    pub fn answer(
        &self,
        question: &Question,
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
            Some(owner) => owner.place != Place::Here,
            None => matches!(self.toward(mac, now), Toward::Host(_)),
        };
        (mac != asker && elsewhere).then_some((mac, flags))
    }

    /// To which station, and in whose name, the answer to a frame goes: what is said to a group is answered from the
    /// virtual MAC address.
    #[must_use]
    pub fn way_back(&self, frame: &Ethernet<'_>) -> (Mac, Mac) {
        let asked = frame.dst();
        let from = if asked.is_multicast() {
            self.virtual_mac
        } else {
            asked
        };
        (frame.src(), from)
    }

    /// Whether a station is behind the TAP interface.
    #[must_use]
    pub fn is_here(&self, mac: Mac, now: Now) -> bool {
        self.toward(mac, now).is_here()
    }

    /// Whether a station behind the TAP interface has said that it has `addr`.
    #[must_use]
    pub fn has_station(&self, addr: IpAddr, now: Now) -> bool {
        let mac = self.live.neighbors.find(addr, &self.limits, now);
        mac.is_some_and(|mac| self.is_here(mac, now))
    }

    /// What bounds the learned tables.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
