//! Tunnel peer without a daemon: a plain UDP socket that speaks hand-made Geneve.

use crate::packet::{Parsed, RawGeneve, udp};
use crate::sniffer::Sniffer;
use crate::world::{Duo, TestBackend, TestDaemon, UnderlayFamily, link};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Host a runs a daemon with one link `gnv0`, VNI 100, 10.0.0.1 and fd00::1, whose remote is host b;
/// host b is a UDP socket on port 6081.
pub struct Peer {
    /// The daemon of host a.
    pub daemon: TestDaemon,
    /// Host b's socket.
    pub socket: UdpSocket,
    /// Destination of Geneve: host a.
    pub target: SocketAddr,
    /// Capture of host a's TUN.
    pub tun: Sniffer,
    /// The hosts.
    pub duo: Duo,
    next_port: std::cell::Cell<u16>,
}

/// Inner addresses: host b's, then host a's.
pub const INNER4: [&str; 2] = ["10.0.0.2", "10.0.0.1"];
/// The same for IPv6.
pub const INNER6: [&str; 2] = ["fd00::2", "fd00::1"];

/// How long to wait for something that must not come.
const PEER_SILENCE: Duration = Duration::from_millis(150);
/// How long to wait for something that must come.
const PEER_TIMEOUT: Duration = Duration::from_secs(3);

impl Peer {
    /// Starts the daemon; `more` is further lines of the link.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn new(io: TestBackend, family: UnderlayFamily, more: &str) -> Self {
        Self::on(Duo::new(), io, family, more)
    }

    /// Like [`Peer::new`], on existing hosts.
    ///
    /// # Panics
    /// If any setup step fails.
    #[must_use]
    pub fn on(duo: Duo, io: TestBackend, family: UnderlayFamily, more: &str) -> Self {
        let remote = Duo::underlay(family, 1);
        let more = format!("remote = \"{remote}\"\n{more}");
        let config = link("gnv0", 100, &["10.0.0.1/24", "fd00::1/64"], &more);
        // Bound first: otherwise what the kernel sends into a new interface would be refused and return as an ICMP
        // error.
        let socket = Self::bind(&duo, SocketAddr::new(remote, 6081));
        let daemon = duo.world.daemon(&duo.a, io, "", &config);
        let tun = Sniffer::new(duo.a.netns(), "gnv0");
        let target = SocketAddr::new(Duo::underlay(family, 0), 6081);
        Self {
            daemon,
            socket,
            target,
            tun,
            duo,
            next_port: std::cell::Cell::new(20_000),
        }
    }

    /// A socket of host b.
    ///
    /// # Panics
    /// If the address is not host b's or taken.
    #[must_use]
    pub fn bind(duo: &Duo, address: SocketAddr) -> UdpSocket {
        let bound = duo.b.netns().run(|| UdpSocket::bind(address));
        let socket = bound.and_then(std::convert::identity).expect("a socket");
        setsockopt(&socket, sockopt::RcvBuf, &(1 << 20)).expect("a buffer size");
        socket
            .set_read_timeout(Some(PEER_TIMEOUT))
            .expect("a timeout");
        socket
    }

    /// Builds a unique inner UDP packet from host b to host a: its source port is new.
    #[must_use]
    pub fn inner(&self) -> (u16, Vec<u8>) {
        self.inner_between(INNER4)
    }

    /// Like [`Peer::inner`], with these addresses.
    ///
    /// # Panics
    /// If they are not addresses.
    #[must_use]
    pub fn inner_between(&self, [from, to]: [&str; 2]) -> (u16, Vec<u8>) {
        let port = self.next_port.get();
        self.next_port.set(port + 1);
        let [from, to]: [IpAddr; 2] = [from, to].map(|text| text.parse().expect("an address"));
        (port, udp((from, port), (to, 9), &[0x5a; 40]))
    }

    /// Sends a datagram to host a's Geneve port.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn send(&self, datagram: &[u8]) {
        self.socket
            .send_to(datagram, self.target)
            .expect("the underlay takes it");
    }

    /// Returns the inner packet with this UDP source port from the TUN; `None` if it does not appear.
    #[must_use]
    pub fn emerged(&self, port: u16, time: Duration) -> Option<Vec<u8>> {
        self.tun.find(time, |bytes| {
            let (from, _, _) = Parsed::new(bytes)?.udp()?;
            (from == port).then(|| bytes.to_vec())
        })
    }

    /// Asserts that a header with a well-formed inner packet is forwarded; returns what came out.
    ///
    /// # Panics
    /// If it is dropped.
    pub fn assert_passes(&self, header: &RawGeneve) -> Vec<u8> {
        let (port, inner) = self.inner();
        self.assert_emerges(port, &header.datagram(&inner))
    }

    /// Asserts that this datagram's inner packet comes out of the TUN; returns it.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_emerges(&self, port: u16, datagram: &[u8]) -> Vec<u8> {
        let before = self.daemon.drops();
        self.send(datagram);
        self.emerged(port, PEER_TIMEOUT).unwrap_or_else(|| {
            panic!(
                "dropped; counters {:?}",
                moved(&before, &self.daemon.drops())
            )
        })
    }

    /// Asserts that a header with a well-formed inner packet is dropped for this reason alone.
    ///
    /// # Panics
    /// If it is forwarded, or another counter moves.
    pub fn assert_drops(&self, header: &RawGeneve, reason: &str) {
        let (port, inner) = self.inner();
        self.assert_vanishes(Some(port), &header.datagram(&inner), reason);
    }

    /// Asserts that this datagram is dropped for this reason alone, by one counter that moves by one.
    ///
    /// # Panics
    /// If an inner packet with this source port comes out, or another counter moves.
    pub fn assert_vanishes(&self, port: Option<u16>, datagram: &[u8], reason: &str) {
        let before = self.daemon.drops();
        self.send(datagram);
        crate::eventually(3, &format!("a drop is counted ({reason})"), || {
            !moved(&before, &self.daemon.drops()).is_empty()
        });
        let came = self.tun.find(PEER_SILENCE, |bytes| {
            let (from, _, _) = Parsed::new(bytes)?.udp()?;
            port.is_none_or(|port| port == from).then_some(())
        });
        assert!(came.is_none(), "{reason}: it reached the TUN");
        let moved = moved(&before, &self.daemon.drops());
        let right = moved.len() == 1
            && moved
                .iter()
                .all(|(name, by)| name.ends_with(&format!("/ingress/{reason}")) && *by == 1);
        assert!(right, "{reason} should have moved by one, alone: {moved:?}");
    }
}

/// Increments of the counters of ingress or of no direction. Egress is left out because the kernel sends packets of
/// its own into the TUN (router solicitations).
fn moved(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(name, count)| (name.clone(), count - before.get(name).unwrap_or(&0)))
        .filter(|(name, by)| *by > 0 && !name.contains("/egress/"))
        .collect()
}
