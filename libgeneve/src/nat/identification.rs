//! IPv4 identifications of packets whose source is rewritten.
//!
//! Senders behind one address choose identifications independently, and fragments of two packets with the same one
//! would be reassembled together (RFC 6864 section 5.3). So each packet that may be fragmented gets an identification
//! that is unique for its new addresses and protocol, until 16 bits wrap. Packets that cannot be fragmented keep
//! theirs, which has no meaning.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use crate::flow::FlowHasher;
use crate::wire::ip::Ipv4Header;
use crate::wire::packet::{Fragment, IpVersion, Packet};
use crate::wire::prefix_mut;

/// Number of counters, a power of two. Address pairs that share one wrap sooner.
const COUNTERS: usize = 4096;

/// Identification counters for all pairs of addresses.
#[derive(Debug)]
pub struct Identifications {
    counters: Box<[AtomicU16]>,
    hasher: FlowHasher,
}

impl Identifications {
    /// Returns counters with start values, and assignment to address pairs, derived from `secret`.
    #[must_use]
    pub fn new(secret: [u64; 2]) -> Self {
        let hasher = FlowHasher::new(secret);
        let start = |at: usize| AtomicU16::new(hasher.hash_bytes(&at.to_be_bytes()) as u16);
        Identifications {
            counters: (0..COUNTERS).map(start).collect(),
            hasher,
        }
    }

    /// Returns the identification of the next packet from `src` to `dst`, and reserves `packets` consecutive ones, of
    /// which it is the first.
    #[inline]
    pub fn next(&self, src: IpAddr, dst: IpAddr, protocol: u8, packets: u16) -> u16 {
        let mut bytes = [0; 9];
        if let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) {
            bytes[..4].copy_from_slice(&src.octets());
            bytes[4..8].copy_from_slice(&dst.octets());
        }
        bytes[8] = protocol;
        let at = self.hasher.hash_bytes(&bytes) as usize & (COUNTERS - 1);
        self.counters[at].fetch_add(packets, Relaxed)
    }
}

/// Whether a packet needs an identification that is unique to `src`: it may be fragmented, and `src` is not its
/// current source.
#[inline]
#[must_use]
pub fn needs_identification(packet: &Packet, src: IpAddr) -> bool {
    let may_be_in_fragments = !packet.dont_fragment || packet.fragment != Fragment::Whole;
    packet.version == IpVersion::V4 && may_be_in_fragments && packet.src != src
}

/// Writes the identification of an IPv4 packet, and updates `packet`, which was parsed from `bytes`.
#[inline]
pub fn set_identification(bytes: &mut [u8], packet: &mut Packet, id: u16) {
    let Some(header) = prefix_mut::<Ipv4Header>(bytes) else {
        return;
    };
    let old = std::mem::replace(&mut header.identification, id.into());
    header.update_checksum(old.to_bytes(), id.to_be_bytes());
    if packet.fragment != Fragment::Whole {
        packet.fragment_id = id.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::{Ipv4, ipv4_checksum_holds};
    use crate::wire::packet::tests::sample;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_unique_for_addresses_and_protocol() {
        let ids = Identifications::new([1, 2]);
        let [src, dst] = [[198, 51, 100, 1], [203, 0, 113, 1]].map(IpAddr::from);
        let mut seen = std::collections::HashSet::new();
        for packets in [1, 3, 1].into_iter().cycle().take(3000) {
            let first = ids.next(src, dst, 17, packets);
            assert!((0..packets).all(|n| seen.insert(first.wrapping_add(n))));
        }
    }

    #[test]
    fn only_what_may_be_in_fragments_needs_one() {
        let of = |word: u16| {
            let mut bytes = sample::udp4(b"hello");
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            Packet::parse(&bytes).unwrap()
        };
        let outside = IpAddr::from([198, 51, 100, 1]);
        for (word, needs) in [
            (0, true),
            (0x4000, false),
            (0x2000, true),
            (0x6000, true),
            (2, true),
        ] {
            assert_eq!(needs_identification(&of(word), outside), needs, "{word:#x}");
            assert!(!needs_identification(&of(word), of(word).src));
        }
    }

    proptest! {
        #[test]
        fn the_checksum_stays_right(old: u16, id: u16, word in prop::sample::select(vec![0u16, 0x2000, 5])) {
            let mut bytes = sample::udp4(b"hello");
            bytes[4..6].copy_from_slice(&old.to_be_bytes());
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            crate::wire::ip::write_ipv4_checksum(&mut bytes);
            let mut packet = Packet::parse(&bytes).unwrap();
            set_identification(&mut bytes, &mut packet, id);
            prop_assert!(ipv4_checksum_holds(&bytes[..20]));
            prop_assert_eq!(Ipv4::parse(&bytes).unwrap().identification.get(), id);
            prop_assert_eq!(packet, Packet::parse(&bytes).unwrap());
        }
    }
}
