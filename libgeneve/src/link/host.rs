//! Tunnel endpoints, and what the underlay taught about them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// A tunnel endpoint (the RFC's NVE), known by its underlay address.
#[derive(Debug)]
pub struct Host {
    /// A small number, unique among the hosts of one daemon.
    pub id: u32,
    /// The underlay address.
    pub addr: IpAddr,
    path_mtu: AtomicU32,
    no_gso: AtomicBool,
}

impl Host {
    /// A host of which nothing was learned yet.
    #[must_use]
    pub fn new(id: u32, addr: IpAddr) -> Self {
        Host {
            id,
            addr,
            path_mtu: AtomicU32::new(0),
            no_gso: AtomicBool::new(false),
        }
    }

    /// The path MTU that the underlay reported, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn path_mtu(&self) -> Option<u32> {
        Some(self.path_mtu.load(Relaxed)).filter(|&mtu| mtu != 0)
    }

    /// Learns a path MTU in bytes of outer IP packet; `None` forgets it.
    pub fn set_path_mtu(&self, mtu: Option<u32>) {
        self.path_mtu.store(mtu.unwrap_or(0), Relaxed);
    }

    /// Whether trains to this host may use `UDP_SEGMENT`.
    #[inline]
    #[must_use]
    pub fn gso(&self) -> bool {
        !self.no_gso.load(Relaxed)
    }

    /// Switches `UDP_SEGMENT` on or off for this host.
    pub fn set_gso(&self, on: bool) {
        self.no_gso.store(!on, Relaxed);
    }
}

/// Hands out one [`Host`] for each underlay address, so that what was learned survives a change of configuration.
#[derive(Debug, Default)]
pub struct HostRegistry {
    hosts: HashMap<IpAddr, Arc<Host>>,
    next: u32,
}

impl HostRegistry {
    /// The host of this address, made where it is new.
    pub fn host(&mut self, addr: IpAddr) -> Arc<Host> {
        let next = &mut self.next;
        let host = self.hosts.entry(addr).or_insert_with(|| {
            *next += 1;
            Arc::new(Host::new(*next, addr))
        });
        Arc::clone(host)
    }

    /// The host of this address, if there is one.
    #[must_use]
    pub fn find(&self, addr: IpAddr) -> Option<&Arc<Host>> {
        self.hosts.get(&addr)
    }

    /// Every host, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// Forgets the hosts that nobody else holds.
    pub fn prune(&mut self) {
        self.hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
}
