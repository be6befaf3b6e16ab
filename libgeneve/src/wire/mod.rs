//! Wire formats: views over bytes that were checked once, and builders.
//!
//! Every protocol has one file. A view's existence proves that its bytes were checked: after the
//! constructor returned `Ok`, no accessor panics. All multi-byte fields are big-endian on the wire
//! and in host order in the accessors.

pub mod arp;
pub mod checksum;
pub mod encapsulation;
pub mod ethernet;
pub mod geneve;
pub mod header;
pub mod icmp;
pub mod ip;
pub mod nd;
pub mod option;
pub mod packet;
pub mod reset;
pub mod transport;
pub mod transport_checksum;
pub mod vxlan;
