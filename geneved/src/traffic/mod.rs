//! A small traffic generator: sends, receives and verifies inside named network namespaces.
//!
//! Owns sockets, threads and the arithmetic of rates, losses and round-trip times. The lab, the
//! scenario tests and the benchmarks use it. It knows nothing of Geneve: what lies between two
//! namespaces is for the caller to set up.

pub mod echo;
mod netns;
mod payload;
mod pingpong;
mod stats;
mod tcp;
mod udp;

pub use echo::{EchoReport, EchoRun};
pub use netns::Netns;
pub use payload::Pattern;
pub use pingpong::{PingPong, PingPongReport, PingPongTransport};
pub use stats::{BitRate, Latencies};
pub use tcp::{TcpBulk, TcpReport};
pub use udp::{UdpBurst, UdpReport};

use std::net::IpAddr;
use std::time::Duration;

/// The two ends that traffic runs between: from `client` to `address`, which `server` owns.
#[derive(Clone, Debug)]
pub struct TrafficEnds {
    /// Where the sender runs.
    pub client: Netns,
    /// Where the receiver runs.
    pub server: Netns,
    /// The server's address, as the client reaches it.
    pub address: IpAddr,
}

impl TrafficEnds {
    /// The ends of traffic from `client` to `address` in `server`.
    #[must_use]
    pub fn new(client: &Netns, server: &Netns, address: IpAddr) -> Self {
        Self {
            client: client.clone(),
            server: server.clone(),
            address,
        }
    }
}

/// How much a sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendAmount {
    /// For this long.
    For(Duration),
    /// This many: bytes of each TCP stream, datagrams of a UDP burst.
    Count(u64),
}

/// The longest that a receiver waits for the first or the next byte before it gives up.
pub(crate) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
