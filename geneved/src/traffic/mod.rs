//! A small traffic generator: sends, receives and verifies inside named network namespaces.
//!
//! Owns sockets, threads and the computation of rates, losses and round-trip times. Used by the lab, the scenario
//! tests and the benchmarks. It knows nothing of Geneve: the caller sets up the path between two namespaces.
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

/// Ends of a traffic path: from `client` to `address`, which `server` owns.
#[derive(Clone, Debug)]
pub struct TrafficEnds {
    /// Namespace of the sender.
    pub client: Netns,
    /// Namespace of the receiver.
    pub server: Netns,
    /// The server's address, as the client reaches it.
    pub address: IpAddr,
}

impl TrafficEnds {
    /// Ends of traffic from `client` to `address` in `server`.
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
    /// A duration.
    For(Duration),
    /// A count: bytes per TCP stream, or datagrams of a UDP burst.
    Count(u64),
}

/// How long a receiver waits for the first or the next byte before it gives up.
pub(crate) const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
