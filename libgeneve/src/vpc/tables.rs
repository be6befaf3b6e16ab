//! Snapshot of all links that workers read.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::generation::Generation;
use super::{Link, LinkChange, LinkIndex};
use crate::flow::FlowHasher;
use crate::options::OptionSchema;
use crate::wire::encapsulation::Encapsulation;
use crate::wire::geneve::Vni;

type ByVni = HashMap<u64, LinkIndex, BuildHasherDefault<SipHasher13>>;

/// Immutable snapshot of all links. The next one shares whatever does not change.
#[derive(Debug, Default)]
pub struct Tables {
    links: Vec<Option<Arc<Link>>>,
    /// Generation of each link.
    generations: Vec<Generation>,
    names: Arc<Names>,
    /// Keyed flow hash: chooses source ports, and one of several hosts.
    pub hasher: FlowHasher,
    /// Known options.
    pub schema: Arc<OptionSchema>,
    /// Epoch: grows with each published snapshot. An older decision is made again if something that it depends on has
    /// changed since.
    pub epoch: u64,
    /// Epoch of the latest change that affects all links.
    all_since: u64,
}

/// Index from ports and VNIs of datagrams to links.
#[derive(Debug, Default)]
struct Names {
    by_vni: ByVni,
    /// Encapsulation of each UDP port.
    ports: Vec<(u16, Encapsulation)>,
}

impl Names {
    fn of<'a>(links: impl Iterator<Item = &'a Arc<Link>>) -> Names {
        let mut names = Names::default();
        for link in links {
            let config = &link.config;
            let key = vni_key(config.port, config.vni);
            names.by_vni.insert(key, config.index);
            let port = (config.port, config.encapsulation);
            if !names.ports.contains(&port) {
                names.ports.push(port);
            }
        }
        names
    }
}

impl Tables {
    /// Returns a snapshot of these links. If two have the same VNI on the same port, the VNI finds the later one; if
    /// two encapsulations share a port, the first one is used. The daemon refuses both.
    #[must_use]
    pub fn new(links: impl IntoIterator<Item = Arc<Link>>, hasher: FlowHasher) -> Self {
        let mut tables = Tables {
            hasher,
            ..Tables::default()
        };
        let mut named = Vec::new();
        for link in links {
            named.push(Arc::clone(&link));
            tables.put(link.config.index, Some(link), Generation::UNKNOWN);
        }
        tables.names = Arc::new(Names::of(named.iter()));
        tables
    }

    /// Returns the next snapshot, with this `epoch`: these links are replaced or removed, and everything else stays.
    /// A link that is rebuilt without a difference keeps its old value.
    #[must_use]
    pub fn next(
        &self,
        epoch: u64,
        schema: Arc<OptionSchema>,
        changed: impl IntoIterator<Item = (LinkIndex, Option<Link>)>,
    ) -> Tables {
        let mut tables = Tables {
            links: self.links.clone(),
            generations: self.generations.clone(),
            names: Arc::clone(&self.names),
            hasher: self.hasher,
            all_since: match schema == self.schema {
                true => self.all_since,
                false => epoch,
            },
            schema,
            epoch,
        };
        let mut renamed = false;
        for (index, link) in changed {
            let before = self.link(index);
            let names = |link: &Link| {
                let config = &link.config;
                (config.port, config.vni, config.encapsulation)
            };
            renamed |= before.map(|link| names(link)) != link.as_ref().map(names);
            let generation = match (before, &link) {
                (Some(before), Some(link)) => match link.change_from(before) {
                    LinkChange::Nothing => continue,
                    LinkChange::Endpoints(list) => {
                        self.generations[index.0 as usize].with(epoch, &list)
                    }
                    LinkChange::Anything => Generation::of(epoch),
                },
                _ => Generation::of(epoch),
            };
            tables.put(index, link.map(Arc::new), generation);
        }
        if renamed {
            tables.names = Arc::new(Names::of(tables.iter()));
        }
        tables
    }

    /// Returns the next snapshot, in which these links stay the same but their flows are decided again, because what
    /// was learned about their neighbours has changed.
    #[must_use]
    pub fn again(&self, epoch: u64, links: &[LinkIndex]) -> Tables {
        let mut tables = self.next(epoch, Arc::clone(&self.schema), []);
        for index in links {
            if let Some(generation) = tables.generations.get_mut(index.0 as usize) {
                *generation = Generation::of(epoch);
            }
        }
        tables
    }

    fn put(&mut self, index: LinkIndex, link: Option<Arc<Link>>, generation: Generation) {
        let slot = index.0 as usize;
        if self.links.len() <= slot {
            self.links.resize(slot + 1, None);
            self.generations.resize(slot + 1, Generation::UNKNOWN);
        }
        self.links[slot] = link;
        self.generations[slot] = generation;
    }

    /// Whether no change after `epoch` affects packets of the link whose addresses satisfy `uses`.
    #[inline]
    #[must_use]
    pub fn is_current(&self, link: LinkIndex, epoch: u64, uses: impl Fn(IpAddr) -> bool) -> bool {
        if epoch == self.epoch {
            return true;
        }
        // A decision made with later tables is not current in these.
        let in_time = epoch < self.epoch && self.all_since <= epoch && self.link(link).is_some();
        let generation = self.generations.get(link.0 as usize);
        in_time && generation.is_some_and(|generation| generation.is_current(epoch, uses))
    }

    /// Whether both find the links of datagrams by the same ports and VNIs.
    #[must_use]
    pub fn has_names_of(&self, other: &Tables) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }

    /// Returns the link at `index`.
    #[inline]
    #[must_use]
    pub fn link(&self, index: LinkIndex) -> Option<&Arc<Link>> {
        self.links.get(index.0 as usize)?.as_ref()
    }

    /// Returns the link with `vni` on UDP port `port`.
    #[inline]
    #[must_use]
    pub fn by_vni(&self, port: u16, vni: Vni) -> Option<&Arc<Link>> {
        self.link(*self.names.by_vni.get(&vni_key(port, vni))?)
    }

    /// Returns the encapsulation on UDP port `port`; `None` if no link uses it.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self, port: u16) -> Option<Encapsulation> {
        let found = self.names.ports.iter().find(|(known, _)| *known == port)?;
        Some(found.1)
    }

    /// Returns all links in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().flatten()
    }
}

fn vni_key(port: u16, vni: Vni) -> u64 {
    u64::from(port) << 32 | u64::from(u32::from(vni))
}
