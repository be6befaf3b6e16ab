//! Wire formats: header structs, checked views over bytes, and writers.
//!
//! Every protocol has one file, in the same order: the header as a `repr(C)` struct that is read and written in
//! place, the checked view, the writer. The struct has the fields of the RFC in their order, multi-byte ones as
//! big-endian integers, and holds any bytes. A view was checked when it was created: after its constructor returned
//! `Ok`, no accessor panics.

pub mod arp;
pub mod checksum;
pub mod encapsulation;
pub mod ethernet;
pub mod geneve;
pub mod header;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod option;
pub mod packet;
pub mod reset;
pub mod tcp;
pub mod transport;
pub mod transport_checksum;
pub mod udp;
pub mod vxlan;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Returns the header at the start of `bytes`, in place; `None` if there are too few.
#[inline]
pub(crate) fn prefix<H>(bytes: &[u8]) -> Option<&H>
where
    H: FromBytes + Immutable + KnownLayout + Unaligned,
{
    let (header, _) = H::ref_from_prefix(bytes).ok()?;
    Some(header)
}

/// Mutable version of [`prefix`].
#[inline]
pub(crate) fn prefix_mut<H>(bytes: &mut [u8]) -> Option<&mut H>
where
    H: FromBytes + IntoBytes + KnownLayout + Unaligned,
{
    let (header, _) = H::mut_from_prefix(bytes).ok()?;
    Some(header)
}
