//! The snapshot of all links that workers read.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use siphasher::sip::SipHasher13;

use super::{Link, LinkIndex};
use crate::flow::FlowHasher;
use crate::options::Schema;
use crate::wire::encapsulation::Encapsulation;
use crate::wire::geneve::Vni;

/// An immutable snapshot of all links.
#[derive(Debug, Default)]
pub struct Tables {
    links: Vec<Option<Arc<Link>>>,
    by_vni: HashMap<u64, LinkIndex, BuildHasherDefault<SipHasher13>>,
    /// How what arrives on each port is wrapped.
    ports: Vec<(u16, Encapsulation)>,
    /// Keyed hash of flows: source ports, and the choice among several hosts.
    pub hasher: FlowHasher,
    /// The options that are known.
    pub schema: Arc<Schema>,
    /// Differs between any two tables that a daemon publishes: what was decided by others is decided again.
    pub epoch: u64,
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
        for link in links {
            let index = link.config.index;
            let slot = index.0 as usize;
            if tables.links.len() <= slot {
                tables.links.resize(slot + 1, None);
            }
            tables
                .by_vni
                .insert(vni_key(link.config.port, link.config.vni), index);
            let port = (link.config.port, link.config.encapsulation);
            if !tables.ports.contains(&port) {
                tables.ports.push(port);
            }
            tables.links[slot] = Some(link);
        }
        tables
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
        self.link(*self.by_vni.get(&vni_key(port, vni))?)
    }

    /// How datagrams on UDP port `port` are wrapped; `None` where no link has it.
    #[inline]
    #[must_use]
    pub fn encapsulation(&self, port: u16) -> Option<Encapsulation> {
        let found = self.ports.iter().find(|(known, _)| *known == port)?;
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
