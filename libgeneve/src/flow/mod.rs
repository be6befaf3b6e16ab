//! Flows: keyed 5-tuple hashes and the flow table.
//!
//! Hashes are keyed with a secret of the daemon, so that a tenant can neither choose the path or host of its flows
//! nor provoke collisions in a table.
//!
//! [`FlowTable`] stores decisions without interpreting them; [`Fragments`] tracks which flow a fragmented packet
//! belongs to. Decisions are made by the functions and by [`datapath`](crate::datapath).

mod admission;
mod eviction_lists;
mod fragments;
mod key;
mod maintenance;
mod path_mtu;
mod quota;
mod shard;
mod slab;
mod table;
mod tcp;
mod timeouts;

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::wire::packet::{Fragment, Packet, Transport};

pub use admission::InsertError;
pub use fragments::Fragments;
pub use key::FlowKey;
pub use maintenance::{FlowCursor, FlowStats, FlowView, LinkFlows};
pub use path_mtu::PathMtus;
pub use shard::PacketUpdate;
pub use table::{FlowLimits, FlowLookup, FlowTable, FoundFlow};
pub use tcp::{FlowDirection, FlowState, TcpSegment};
pub use timeouts::Timeouts;

/// Keyed 5-tuple hash (SipHash-1-3).
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowHasher {
    key: [u64; 2],
}

impl FlowHasher {
    /// Returns the hash of a flow key in one direction, without its link.
    #[inline]
    #[must_use]
    pub fn hash_key(&self, key: &FlowKey) -> u64 {
        self.hash_parts(key.src, key.dst, key.protocol, (key.sport, key.dport))
    }

    /// Returns the hash of arbitrary bytes.
    #[must_use]
    pub fn hash_bytes(&self, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write(bytes);
        hasher.finish()
    }

    /// Returns a hasher with this key; draw it from the system's random source.
    #[must_use]
    pub fn new(key: [u64; 2]) -> Self {
        FlowHasher { key }
    }

    /// Returns the hash of the packet's flow in one direction: addresses, protocol and ports (RFC 8926 section 3.3).
    ///
    /// All fragments of a packet share a hash, so that they stay on one path: fragments are hashed without ports,
    /// which only the first one has.
    #[inline]
    #[must_use]
    pub fn hash(&self, packet: &Packet) -> u64 {
        self.hash_parts(packet.src, packet.dst, packet.protocol, ports(packet))
    }

    #[inline]
    fn hash_parts(&self, src: IpAddr, dst: IpAddr, protocol: u8, ports: (u16, u16)) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        let mut bytes = [0u8; 40];
        let used = match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                bytes[..4].copy_from_slice(&src.octets());
                bytes[4..8].copy_from_slice(&dst.octets());
                8
            }
            (src, dst) => {
                bytes[..16].copy_from_slice(&octets16(src));
                bytes[16..32].copy_from_slice(&octets16(dst));
                32
            }
        };
        bytes[used..used + 2].copy_from_slice(&ports.0.to_be_bytes());
        bytes[used + 2..used + 4].copy_from_slice(&ports.1.to_be_bytes());
        bytes[used + 4] = protocol;
        hasher.write(&bytes[..used + 8]);
        hasher.finish()
    }
}

fn octets16(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn ports(packet: &Packet) -> (u16, u16) {
    if packet.fragment != Fragment::Whole {
        return (0, 0);
    }
    match packet.transport {
        Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (src, dst),
        Transport::Icmp { id: Some(id), .. } => (id, id),
        Transport::Icmp { .. } | Transport::Other | Transport::Unavailable => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::tests::sample;

    fn hash(packet: &Packet) -> u64 {
        FlowHasher::new([3, 4]).hash(packet)
    }

    #[test]
    fn every_kind_of_packet_has_a_hash_of_its_own() {
        let mut hashes: Vec<u64> = sample::all_transports()
            .iter()
            .map(|(_, bytes)| hash(&Packet::parse(bytes).unwrap()))
            .collect();
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
    }

    #[test]
    fn icmp_queries_are_told_apart_by_their_identifier() {
        let (_, bytes) = sample::all_transports()
            .into_iter()
            .find(|(name, _)| name.contains("icmp"))
            .unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        let with = |id| {
            let transport = Transport::Icmp {
                kind: 8,
                code: 0,
                id,
            };
            hash(&Packet {
                transport,
                ..packet
            })
        };
        assert_ne!(with(Some(1)), with(Some(2)));
        assert_ne!(with(Some(1)), with(None));
    }
}
