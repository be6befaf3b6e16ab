//! The Internet checksum: full, in pieces, incremental, and over the pseudo-header.
//!
//! Owns one's complement arithmetic (RFC 1071, RFC 1624). [`transport_checksum`](super::transport_checksum) and
//! [`ip`](super::ip) know which bytes of a packet a checksum covers and where it is stored.

use std::net::IpAddr;

/// Running one's complement sum of 16-bit words.
///
/// Pieces may be added in any order, as long as each but the last has an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(
    // Words are summed as the machine loads them: the one's complement sum of byte-swapped words is
    // the byte-swapped sum (RFC 1071 section 2 B), so one swap in `fold` is enough. Every
    // constructor leaves less than 2^34 here, so that additions cannot overflow.
    u64,
);

/// Most bytes to sum before the 64-bit accumulator is folded.
const BLOCK: usize = 1 << 16;

impl Sum {
    /// The empty sum.
    pub const ZERO: Sum = Sum(0);

    /// Adds `bytes` as big-endian words. An odd tail is padded with a zero byte, so only the last
    /// piece of a message may have an odd length.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let mut total = self;
        for block in bytes.chunks(BLOCK) {
            total = total.add(sum_block(block));
        }
        total
    }

    /// Adds one 16-bit word, given in host order.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Sum {
        self.add(Sum(word.to_be() as u64))
    }

    /// Adds one 32-bit field, given in host order.
    #[inline]
    #[must_use]
    pub const fn dword(self, dword: u32) -> Sum {
        self.add(Sum(dword.to_be() as u64))
    }

    /// Adds an address: two words of IPv4, eight of IPv6.
    #[inline]
    #[must_use]
    pub fn address(self, address: IpAddr) -> Sum {
        match address {
            IpAddr::V4(v4) => self.bytes(&v4.octets()),
            IpAddr::V6(v6) => self.bytes(&v6.octets()),
        }
    }

    /// Adds two sums.
    #[inline]
    #[must_use]
    #[allow(
        clippy::should_implement_trait,
        reason = "one's complement addition is no `+`"
    )]
    pub const fn add(self, other: Sum) -> Sum {
        let sum = self.0 + other.0;
        Sum((sum & 0xffff_ffff) + (sum >> 32))
    }

    /// Returns the sum as 16 bits in host order, not inverted: the value of a partial checksum field.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// Returns the inverted sum in host order: the value of a finished checksum field.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// Sums at most [`BLOCK`] bytes.
#[inline]
fn sum_block(block: &[u8]) -> Sum {
    // Independent 32-bit lanes in 64-bit accumulators have no carry between them, which lets the
    // compiler use vector additions.
    let mut lanes = [0u64; 8];
    let mut wide = block.chunks_exact(32);
    for chunk in &mut wide {
        for (lane, four) in lanes.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*four));
        }
    }
    let mut sum: u64 = lanes.iter().sum();
    let (fours, tail) = wide.remainder().as_chunks::<4>();
    for four in fours {
        sum += u64::from(u32::from_ne_bytes(*four));
    }
    if !tail.is_empty() {
        let mut last = [0u8; 4];
        last[..tail.len()].copy_from_slice(tail);
        sum += u64::from(u32::from_ne_bytes(last));
    }
    Sum((sum & 0xffff_ffff) + (sum >> 32))
}

/// Returns the sum of the pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 section 3.1, RFC 8200 section 8.1).
///
/// `transport_len` is the length in bytes of the transport header and its payload.
#[inline]
#[must_use]
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, transport_len: u32) -> Sum {
    Sum::ZERO
        .address(src)
        .address(dst)
        .word(u16::from(protocol))
        .dword(transport_len)
}

/// Returns the checksum after one 16-bit word of the covered bytes changed (RFC 1624 equation 3).
#[inline]
#[must_use]
pub const fn update16(check: u16, old: u16, new: u16) -> u16 {
    Sum::ZERO.word(!check).word(!old).word(new).checksum()
}

/// Returns the checksum after one 32-bit field of the covered bytes changed (RFC 1624 equation 3).
#[inline]
#[must_use]
pub const fn update32(check: u16, old: u32, new: u32) -> u16 {
    Sum::ZERO.word(!check).dword(!old).dword(new).checksum()
}

/// Returns the checksum after an address that it covers changed. The families may differ.
#[inline]
#[must_use]
pub fn update_addr(check: u16, old: IpAddr, new: IpAddr) -> u16 {
    // Adding the complement of every word of `old` equals adding the complement of their sum.
    let removed = !Sum::ZERO.address(old).fold();
    Sum::ZERO.word(!check).word(removed).address(new).checksum()
}

/// Reads the checksum field at `at` of `bytes`, in host order.
#[inline]
#[must_use]
pub(crate) fn field(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Stores a checksum, given in host order, at `at` of `bytes`.
#[inline]
pub(crate) fn set_field(bytes: &mut [u8], at: usize, check: u16) {
    bytes[at..at + 2].copy_from_slice(&check.to_be_bytes());
}

/// Whether a transport checksum field holds a partial checksum: the folded, non-inverted sum of the pseudo-header, to
/// be finished by an offload (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
#[inline]
#[must_use]
pub const fn is_partial(field: u16, pseudo_header: Sum) -> bool {
    field == pseudo_header.fold()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Straightforward RFC 1071, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc1071_adds_up() {
        let sum = Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), 0x220d);
    }

    #[test]
    fn a_sum_of_nothing_but_ones_does_not_lose_a_carry() {
        for len in [2usize, 4, 30, 32, 64, 65_534, 65_536, 200_000] {
            assert_eq!(Sum::ZERO.bytes(&vec![0xff; len]).fold(), 0xffff, "{len}");
        }
        assert_eq!(Sum::ZERO.bytes(&[0; 64]).fold(), 0);
    }

    #[test]
    fn the_update_of_rfc1624_section_4_avoids_minus_zero() {
        assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn equals_the_reference(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).fold(), reference(&bytes));
        }

        #[test]
        fn pieces_of_even_length_join(
            bytes in proptest::collection::vec(any::<u8>(), 0..500), cut in 0usize..250
        ) {
            let cut = (cut * 2).min(bytes.len() & !1);
            let (head, tail) = bytes.split_at(cut);
            let joined = Sum::ZERO.bytes(tail).add(Sum::ZERO.bytes(head));
            prop_assert_eq!(joined.fold(), reference(&bytes));
            prop_assert_eq!(Sum::ZERO.bytes(head).bytes(tail).fold(), reference(&bytes));
        }

        #[test]
        fn updates_equal_a_fresh_sum(
            mut bytes in proptest::array::uniform32(any::<u8>()),
            word in any::<u16>(), dword in any::<u32>(), at in 0usize..7
        ) {
            bytes[0] = 0x45; // A covered header is never all zero.
            let at = 4 + at * 4;
            let before = Sum::ZERO.bytes(&bytes).checksum();
            let old = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            bytes[at..at + 4].copy_from_slice(&dword.to_be_bytes());
            let after = Sum::ZERO.bytes(&bytes).checksum();
            prop_assert_eq!(update32(before, old, dword), after);
            bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
            let last = Sum::ZERO.bytes(&bytes).checksum();
            prop_assert_eq!(update16(after, (dword >> 16) as u16, word), last);
        }

        #[test]
        fn address_updates_equal_a_fresh_sum(
            old in any::<IpAddr>(), new in any::<IpAddr>(), peer in any::<IpAddr>(), len in 1u32..65536
        ) {
            let before = pseudo_header(old, peer, 6, len).checksum();
            let after = pseudo_header(new, peer, 6, len).checksum();
            prop_assert_eq!(update_addr(before, old, new), after);
        }
    }
}
