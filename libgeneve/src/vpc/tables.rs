//! The snapshot of all links that workers read.

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

/// An immutable snapshot of all links. The next one shares with it what does not change.
#[derive(Debug, Default)]
pub struct Tables {
    links: Vec<Option<Arc<Link>>>,
    /// When each of them changed last.
    generations: Vec<Generation>,
    names: Arc<Names>,
    /// Keyed hash of flows: source ports, and the choice among several hosts.
    pub hasher: FlowHasher,
    /// The options that are known.
    pub schema: Arc<OptionSchema>,
    /// Grows with each snapshot that a daemon publishes: what was decided by an earlier one is decided again, if something
    /// has changed since that it rests on.
    pub epoch: u64,
    /// The epoch of the latest change that concerns all links.
    all_since: u64,
}

/// By what a datagram's link is found.
#[derive(Debug, Default)]
struct Names {
    by_vni: ByVni,
    /// How what arrives on each port is wrapped.
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
    /// A snapshot of these links. Where two have the same VNI on the same port, the later one is reached by its VNI, and
    /// where two encapsulations share a port, the first one's is understood; the daemon refuses both.
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

    /// The next snapshot, of this `epoch`: these links are others, or gone, and all else is as it was. A link that is
    /// made anew and differs in nothing stays the one that it was.
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

    /// The next snapshot, in which these links are as they were and what was decided for them is decided again: what was
    /// learned of their neighbours has changed.
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

    /// Whether nothing of a link has changed since `epoch` that concerns a packet whose addresses satisfy `uses`.
    #[inline]
    #[must_use]
    pub fn is_current(&self, link: LinkIndex, epoch: u64, uses: impl Fn(IpAddr) -> bool) -> bool {
        if epoch == self.epoch {
            return true;
        }
        // Who has decided by later tables knows better.
        let in_time = epoch < self.epoch && self.all_since <= epoch && self.link(link).is_some();
        let generation = self.generations.get(link.0 as usize);
        in_time && generation.is_some_and(|generation| generation.is_current(epoch, uses))
    }

    /// Whether datagrams find their links in both by the same ports and VNIs.
    #[must_use]
    pub fn has_names_of(&self, other: &Tables) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }

    /// The link at `index`.
    #[inline]
    #[must_use]
    pub fn link(&self, index: LinkIndex) -> Option<&Arc<Link>> {
        self.links.get(index.0 as usize)?.as_ref()
    }

    /// The link that carries `vni` on UDP port `port`.
    #[inline]
    #[must_use]
    pub fn by_vni(&self, port: u16, vni: Vni) -> Option<&Arc<Link>> {
        self.link(*self.names.by_vni.get(&vni_key(port, vni))?)
    }

    /// How datagrams on UDP port `port` are wrapped; `None` where no link has it.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self, port: u16) -> Option<Encapsulation> {
        let found = self.names.ports.iter().find(|(known, _)| *known == port)?;
        Some(found.1)
    }

    /// Every link, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().flatten()
    }
}

fn vni_key(port: u16, vni: Vni) -> u64 {
    u64::from(port) << 32 | u64::from(u32::from(vni))
}
