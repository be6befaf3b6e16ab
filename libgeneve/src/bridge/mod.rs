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
mod notice;
mod table;

pub(crate) use self::fdb::Keyed;
pub use self::fdb::{Fdb, FdbEntry, Learned, Limits};
pub use self::neighbors::{Neighbor, NeighborEntry, Neighbors};
pub use self::notice::{Notice, Question};
pub use self::table::{Bridge, BridgeConfig, Live, OwnerConfig, Place, Tally, Toward};
