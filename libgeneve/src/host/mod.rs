//! Tunnel endpoints, and what the underlay taught about them.
//!
//! Which VPCs know a host is [`link`](crate::link)'s to say.

mod path_mtu;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

pub use self::path_mtu::{PathMtu, PathMtuEvidence, PathMtuReport, REPORT_LIFETIME, least_of};
use crate::time::Now;
use crate::wire::encapsulation::InnerProtocol;

/// Which datagrams to a host must be whole when they leave: each by itself, and with finished checksums, because nothing
/// on the way to the host's program would cut and finish them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OffloadNeeds {
    /// None: a network card or the receiver's kernel does what is left to do.
    #[default]
    None,
    /// Those that carry Ethernet frames, which a switch in user space may be the receiver of.
    Frames,
    /// All of them.
    All,
}

/// A tunnel endpoint (the RFC's NVE), known by its underlay address.
#[derive(Debug)]
pub struct Host {
    /// A small number, unique among the hosts of one daemon.
    pub id: u32,
    /// The underlay address.
    pub addr: IpAddr,
    /// The MTU of the path there.
    pub path: PathMtu,
    no_gso: AtomicBool,
    whole: AtomicU8,
    heard: AtomicU64,
}

/// A host that was heard of less long ago is not noted again: all workers share the place.
const HEARD_STEP_NANOS: u64 = 100_000_000;

impl Host {
    /// A host of which nothing was learned yet.
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

    /// The path MTU that the underlay reported, in bytes of outer IP packet.
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

    /// Sets a path MTU in bytes of outer IP packet that nobody reported; `None` forgets it.
    pub fn set_path_mtu(&self, mtu: Option<u32>) {
        self.path.set_reported(mtu);
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

    /// Notes that a datagram came from this host, whose address may be forged.
    #[inline]
    pub fn note_received(&self, now: Now) {
        let before = self.heard.load(Relaxed);
        if before == 0 || now.0.saturating_sub(before) >= HEARD_STEP_NANOS {
            self.heard.store(now.0.max(1), Relaxed);
        }
    }

    /// When a datagram came from this host last, to a second; `None` where none did.
    #[must_use]
    pub fn last_received(&self) -> Option<Now> {
        Some(self.heard.load(Relaxed))
            .filter(|&at| at != 0)
            .map(Now)
    }

    /// Whether datagrams with `inner` must be whole when they leave for this host.
    #[inline]
    #[must_use]
    pub fn needs_whole(&self, inner: InnerProtocol) -> bool {
        let whole = self.whole.load(Relaxed);
        whole == OffloadNeeds::All as u8
            || (whole == OffloadNeeds::Frames as u8 && inner == InnerProtocol::Ethernet)
    }

    /// Sets which datagrams must be whole from now on.
    pub fn set_offload_needs(&self, whole: OffloadNeeds) {
        self.whole.store(whole as u8, Relaxed);
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
