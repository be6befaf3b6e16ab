//! Tunnel endpoints, and what was learned about them from the underlay.
//!
//! Which VPCs know a host is up to [`link`](crate::link).

mod path_mtu;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

pub use self::path_mtu::{PathMtu, PathMtuEvidence, PathMtuReport, REPORT_LIFETIME, least_of};
use crate::time::Now;
use crate::wire::encapsulation::InnerProtocol;

/// Which datagrams to a host must leave as single packets with finished checksums, because nothing on the way to the
/// receiving program would segment or finish them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OffloadNeeds {
    /// None: a network card or the receiver's kernel does the rest.
    #[default]
    None,
    /// Those that carry Ethernet frames, whose receiver may be a switch in user space.
    Frames,
    /// All of them.
    All,
}

/// A tunnel endpoint (the RFC's NVE), known by its underlay address.
#[derive(Debug)]
pub struct Host {
    /// Small ID, unique among the hosts of a daemon.
    pub id: u32,
    /// The underlay address.
    pub addr: IpAddr,
    /// Path MTU to the host.
    pub path: PathMtu,
    no_gso: AtomicBool,
    whole: AtomicU8,
    heard: AtomicU64,
}

/// Minimum interval between updates of the time a host was last heard, because all workers share the cache line.
const HEARD_STEP_NANOS: u64 = 100_000_000;

impl Host {
    /// Returns a host about which nothing was learned yet.
    #[must_use]
    pub fn new(id: u32, addr: IpAddr) -> Self {
        Host {
            id,
            addr,
            path: PathMtu::default(),
            no_gso: AtomicBool::new(false),
            whole: AtomicU8::new(OffloadNeeds::None as u8),
            heard: AtomicU64::new(0),
        }
    }

    /// Returns the path MTU reported by the underlay, in bytes of outer IP packet.
    #[inline]
    #[must_use]
    pub fn path_mtu(&self) -> Option<u32> {
        self.path.reported()
    }

    /// The longest outer IP packet, in bytes, that may be sent, as far as is known; `needs_whole` says that it must not be
    /// fragmented on the way.
    #[inline]
    #[must_use]
    pub fn longest(&self, whole: bool) -> Option<u32> {
        let reported = self.path.reported();
        match self.path.route().filter(|_| whole) {
            Some(route) => Some(reported.map_or(route, |reported| reported.min(route))),
            None => reported,
        }
    }

    /// Sets a path MTU, in bytes of outer IP packet, without a report; `None` clears it.
    pub fn set_path_mtu(&self, mtu: Option<u32>) {
        self.path.set_reported(mtu);
    }

    /// Whether `UDP_SEGMENT` may be used for trains to this host.
    #[inline]
    #[must_use]
    pub fn gso(&self) -> bool {
        !self.no_gso.load(Relaxed)
    }

    /// Enables or disables `UDP_SEGMENT` for this host.
    pub fn set_gso(&self, on: bool) {
        self.no_gso.store(!on, Relaxed);
    }

    /// Records that a datagram came from this host's address, which may be forged.
    #[inline]
    pub fn note_received(&self, now: Now) {
        let before = self.heard.load(Relaxed);
        if before == 0 || now.0.saturating_sub(before) >= HEARD_STEP_NANOS {
            self.heard.store(now.0.max(1), Relaxed);
        }
    }

    /// Returns when a datagram last came from this host, accurate to a second; `None` if none did.
    #[must_use]
    pub fn last_received(&self) -> Option<Now> {
        Some(self.heard.load(Relaxed))
            .filter(|&at| at != 0)
            .map(Now)
    }

    /// Whether datagrams that carry `inner` must leave for this host as single packets with finished checksums.
    #[inline]
    #[must_use]
    pub fn needs_whole(&self, inner: InnerProtocol) -> bool {
        let whole = self.whole.load(Relaxed);
        whole == OffloadNeeds::All as u8
            || (whole == OffloadNeeds::Frames as u8 && inner == InnerProtocol::Ethernet)
    }

    /// Sets which datagrams must leave as single packets with finished checksums.
    pub fn set_offload_needs(&self, whole: OffloadNeeds) {
        self.whole.store(whole as u8, Relaxed);
    }
}

/// Registry of hosts: one [`Host`] per underlay address, so that what was learned survives a change of the
/// configuration.
#[derive(Debug, Default)]
pub struct HostRegistry {
    hosts: HashMap<IpAddr, Arc<Host>>,
    next: u32,
}

impl HostRegistry {
    /// Returns the host with this address; creates it if it is new.
    pub fn host(&mut self, addr: IpAddr) -> Arc<Host> {
        let next = &mut self.next;
        let host = self.hosts.entry(addr).or_insert_with(|| {
            *next += 1;
            Arc::new(Host::new(*next, addr))
        });
        Arc::clone(host)
    }

    /// Returns the host with this address, if there is one.
    #[must_use]
    pub fn find(&self, addr: IpAddr) -> Option<&Arc<Host>> {
        self.hosts.get(&addr)
    }

    /// Returns all hosts, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.values()
    }

    /// Removes the hosts that are not in use.
    pub fn prune(&mut self) {
        self.hosts.retain(|_, host| Arc::strong_count(host) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_heard_again_and_again_is_noted_now_and_then() {
        let host = Host::new(1, [192, 0, 2, 1].into());
        assert_eq!(host.last_received(), None);
        let later = |nanos| Now(1_000_000_000 + nanos);
        host.note_received(later(0));
        host.note_received(later(HEARD_STEP_NANOS - 1));
        assert_eq!(host.last_received(), Some(later(0)));
        host.note_received(later(HEARD_STEP_NANOS));
        assert_eq!(host.last_received(), Some(later(HEARD_STEP_NANOS)));
    }

    #[test]
    fn what_must_be_whole_depends_on_what_is_inside() {
        let host = Host::new(1, [192, 0, 2, 1].into());
        for (whole, ip, ethernet) in [
            (OffloadNeeds::None, false, false),
            (OffloadNeeds::Frames, false, true),
            (OffloadNeeds::All, true, true),
            (OffloadNeeds::None, false, false),
        ] {
            host.set_offload_needs(whole);
            let is = (
                host.needs_whole(InnerProtocol::Ip),
                host.needs_whole(InnerProtocol::Ethernet),
            );
            assert_eq!(is, (ip, ethernet), "{whole:?}");
        }
    }
}
