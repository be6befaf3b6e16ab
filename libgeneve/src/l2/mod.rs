//! Layer-2 state of an Ethernet link: MAC addresses and neighbours.
//!
//! - [`Fdb`]: MAC addresses learned from frames; bounded, aged, with a limit on moves.
//! - [`Neighbors`]: IP to MAC address bindings learned from ARP and Neighbor Discovery.
//! - [`Notice`]: what an ARP or Neighbor Discovery message announces and asks.
//! - [`Bridge`]: the configured entries, and lookups in configured and learned ones.
//!
//! [`wire`](crate::wire) parses frames; [`datapath`](crate::datapath) decides what happens to them.

mod fdb;
mod neighbors;
mod neighbor_notice;
mod bridge;

pub(crate) use self::fdb::FdbHasher;
pub use self::fdb::{Fdb, FdbEntry, LearnOutcome, FdbLimits};
pub use self::neighbors::{LearnedNeighbor, NeighborEntry, NeighborTable};
pub use self::neighbor_notice::{NeighborNotice, NeighborQuery};
pub use self::bridge::{Bridge, BridgeConfig, LearnedState, OwnerConfig, StationLocation, BridgeCounters, FrameDestination};
