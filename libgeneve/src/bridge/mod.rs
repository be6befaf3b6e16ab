//! What an Ethernet link knows of MAC addresses: where they are, and which addresses they have.
//!
//! - [`Fdb`]: addresses that were learned from frames: bounded, aged, moved only so often.
//! - [`Neighbors`]: which IP address has which MAC address, learned from ARP and Neighbor Discovery.
//! - [`Notice`]: what an ARP or Neighbor Discovery message claims and asks.
//! - [`Bridge`]: the configured side of both, and what follows from the two together.
//!
//! Frames are taken apart by [`wire`](crate::wire); what becomes of them is
//! [`datapath`](crate::datapath)'s to decide.

mod fdb;
mod neighbors;
mod notice;
mod table;

pub(crate) use self::fdb::Keyed;
pub use self::fdb::{Fdb, FdbEntry, Learned, Limits};
pub use self::neighbors::{Neighbor, NeighborEntry, Neighbors};
pub use self::notice::{Notice, Question};
pub use self::table::{Bridge, BridgeConfig, Live, OwnerConfig, Place, Tally, Toward};
