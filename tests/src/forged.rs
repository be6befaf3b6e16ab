//! Forged ICMP errors: a third party in the underlay sends them about datagrams that a host did or did not send.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use geneved::lab::netns::LabNetns;
use socket2::{Domain, Protocol, Socket, Type};

use crate::packet;

/// Kind of ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgedError {
    /// "Port unreachable".
    Port,
    /// "Host unreachable", "address unreachable".
    Host,
    /// "Fragmentation needed", "packet too big".
    TooBig(u16),
}

impl ForgedError {
    /// Type, code and the four bytes after the checksum.
    fn header(self, v6: bool) -> (u8, u8, [u8; 4]) {
        let mtu = |mtu: u16| u32::from(mtu).to_be_bytes();
        match (self, v6) {
            (ForgedError::Port, false) => (3, 3, [0; 4]),
            (ForgedError::Port, true) => (1, 4, [0; 4]),
            (ForgedError::Host, false) => (3, 1, [0; 4]),
            (ForgedError::Host, true) => (1, 3, [0; 4]),
            (ForgedError::TooBig(n), false) => (3, 4, mtu(n)),
            (ForgedError::TooBig(n), true) => (2, 0, mtu(n)),
        }
    }
}

/// Sender of forged ICMP errors from one of a host's own addresses.
pub struct Forger {
    socket: Socket,
    victim: IpAddr,
}

impl Forger {
    /// Opens a raw socket on `host` that sends to `victim`.
    ///
    /// # Panics
    /// If raw sockets are not available.
    #[must_use]
    pub fn new(host: &LabNetns, victim: IpAddr) -> Self {
        let open = || match victim {
            IpAddr::V4(_) => Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)),
            IpAddr::V6(_) => Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)),
        };
        let socket = host.netns().run(open).expect("a namespace");
        let socket = socket.expect("a raw socket");
        Self { socket, victim }
    }

    /// Sends one error about a datagram that the victim is said to have sent to UDP port 6081 of `to` from `port`; the first
    /// `quoted` bytes of its payload are quoted.
    ///
    /// # Panics
    /// If it cannot be sent at all.
    pub fn send(
        &self,
        says: ForgedError,
        (to, port): (IpAddr, u16),
        payload: &[u8],
        quoted: usize,
    ) {
        let datagram = packet::udp((self.victim, port), (to, 6081), payload);
        let headers = datagram.len() - payload.len();
        let quote = &datagram[..headers + quoted.min(payload.len())];
        let (kind, code, rest) = says.header(self.victim.is_ipv6());
        let mut message = [&[kind, code, 0, 0][..], &rest, quote].concat();
        if self.victim.is_ipv4() {
            let check = !(packet::sum(0, &message) as u16);
            message[2..4].copy_from_slice(&check.to_be_bytes());
        }
        let to = SocketAddr::new(self.victim, 0);
        // If a full queue in the underlay drops one, the next will do.
        let _ = self.socket.send_to(&message, &to.into());
    }

    /// Sends errors about datagrams from each of these ports in turn, at this rate per second, while `go_on` holds.
    /// Returns the number sent.
    pub fn storm(
        &self,
        (to, ports): (IpAddr, &[u16]),
        payload: &[u8],
        rate: u32,
        go_on: impl Fn() -> bool,
    ) -> u64 {
        const SAYS: [ForgedError; 3] = [
            ForgedError::Port,
            ForgedError::Host,
            ForgedError::TooBig(1300),
        ];
        // Time lost to scheduling is not made up for: a burst would overflow the receiving kernel's backlog.
        let most = u64::from(rate / 200);
        let (mut since, mut sent) = (Instant::now(), 0u64);
        while go_on() {
            let due = (since.elapsed().as_secs_f64() * f64::from(rate)) as u64;
            if due > 0 {
                since = Instant::now();
            }
            for _ in 0..due.min(most) {
                let says = SAYS[sent as usize % SAYS.len()];
                let port = ports[sent as usize / SAYS.len() % ports.len()];
                self.send(says, (to, port), payload, payload.len());
                sent += 1;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        sent
    }
}

/// UDP ports of a host within a range: the source ports of its daemon.
///
/// # Panics
/// If the kernel's list cannot be read.
#[must_use]
pub fn source_ports(host: &LabNetns, v6: bool, low: u16) -> Vec<u16> {
    let path = format!("/proc/thread-self/net/udp{}", if v6 { "6" } else { "" });
    let read = || std::fs::read_to_string(&path);
    let text = host
        .netns()
        .run(read)
        .expect("a namespace")
        .expect("a table");
    let port = |line: &str| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
    };
    let mut ports: Vec<u16> = text
        .lines()
        .filter_map(port)
        .filter(|&p| p >= low)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
