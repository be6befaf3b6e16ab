//! Layer-2 state of an Ethernet link: MAC addresses and neighbours.
//!
//! - [`Fdb`]: MAC addresses learned from frames; bounded, aged, with a limit on moves.
//! - [`NeighborTable`]: IP to MAC address bindings learned from ARP and Neighbor Discovery.
//! - [`NeighborNotice`]: what an ARP or Neighbor Discovery message announces and asks.
//! - [`Bridge`]: the configured entries, and lookups in configured and learned ones.
//!
//! [`wire`](crate::wire) parses frames; [`datapath`](crate::datapath) decides what happens to them.

mod bridge;
mod fdb;
mod neighbor_notice;
mod neighbors;

pub use self::bridge::{
    Bridge, BridgeConfig, BridgeCounters, FrameDestination, LearnedState, OwnerConfig,
    StationLocation,
};
pub(crate) use self::fdb::FdbHasher;
pub use self::fdb::{Fdb, FdbEntry, FdbLimits, LearnOutcome};
pub use self::neighbor_notice::{NeighborNotice, NeighborQuery};
pub use self::neighbors::{LearnedNeighbor, NeighborEntry, NeighborTable};
