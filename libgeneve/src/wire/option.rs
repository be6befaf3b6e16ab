//! Geneve options: the TLVs between the base header and the inner packet (RFC 8926 section 3.5).
//!
//! Owns the layout of one option and the walk over a list of them. Which options are known, and what they mean, is
//! decided elsewhere; the base header is in [`geneve`](super::geneve).
//!
//! The order of options carries no meaning, and the same option may occur more than once unless its definition
//! forbids it. An option whose definition fixes its length never changes it: a new length requires a new type (RFC
//! 8926 section 3.5), so nothing here pads, truncates or re-orders options.

use std::fmt;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an option's header.
pub const OPTION_HEADER_LEN: usize = size_of::<OptionHeader>();
/// Most data bytes of one option: 31 words.
pub const MAX_OPTION_DATA: usize = 124;
/// Most bytes of all options of a packet, headers included: 63 words.
pub const MAX_OPTIONS_LEN: usize = 252;

/// An option class: the namespace of a type. 0x0000 to 0x00ff are for the IETF, 0xff00 to 0xffff for experiments (RFC
/// 8926 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OptionClass(pub u16);

impl fmt::Display for OptionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// An option type; its high bit marks it critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OptionType(pub u8);

impl OptionType {
    /// The bit that makes a type critical.
    pub const CRITICAL: u8 = 0x80;

    /// Whether a receiver that does not know this type must drop the packet.
    #[inline]
    #[must_use]
    pub const fn is_critical(self) -> bool {
        self.0 & Self::CRITICAL != 0
    }
}

impl fmt::Display for OptionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}

/// The header of an option (RFC 8926 section 3.5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct OptionHeader {
    /// Option Class: the namespace of the type.
    pub option_class: U16,
    /// Type; its high bit is the C bit.
    pub option_type: u8,
    /// Three reserved bits, and Length: words of four bytes after the header.
    pub length: u8,
}

impl OptionHeader {
    /// Bytes of data after the header: 0 to 124.
    #[inline]
    #[must_use]
    pub const fn data_len(&self) -> usize {
        (self.length & 0x1f) as usize * 4
    }
}

/// One option of a packet.
///
/// The three reserved bits of its header are ignored on receipt and zero when built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GeneveOption<'a> {
    /// The namespace of `kind`.
    pub class: OptionClass,
    /// The type.
    pub kind: OptionType,
    /// The data: 0 to 124 bytes, a multiple of 4.
    pub data: &'a [u8],
}

impl<'a> GeneveOption<'a> {
    /// Whether a receiver that does not know this option must drop the packet.
    #[inline]
    #[must_use]
    pub const fn is_critical(&self) -> bool {
        self.kind.is_critical()
    }

    /// Splits off the option at the start of `list`, and returns it with the rest of the list; `None` if it does not
    /// fit.
    #[inline]
    fn split(list: &'a [u8]) -> Option<(GeneveOption<'a>, &'a [u8])> {
        let (header, rest) = OptionHeader::ref_from_prefix(list).ok()?;
        let (data, rest) = rest.split_at_checked(header.data_len())?;
        let option = GeneveOption {
            class: OptionClass(header.option_class.get()),
            kind: OptionType(header.option_type),
            data,
        };
        Some((option, rest))
    }
}

/// `class:type=data`, in hexadecimal: the form that the command line takes.
impl fmt::Display for GeneveOption<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}=", self.class, self.kind)?;
        self.data
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Iterator over the options of a packet in wire order. The default is an empty list.
#[derive(Clone, Debug, Default)]
pub struct OptionIter<'a> {
    rest: &'a [u8],
}

impl<'a> OptionIter<'a> {
    /// Iterates over `list`: option headers and data, as they follow a base header. If the lengths do not fit the
    /// list, iteration ends before the first option that exceeds it.
    #[inline]
    #[must_use]
    pub fn new(list: &'a [u8]) -> OptionIter<'a> {
        OptionIter { rest: list }
    }
}

impl<'a> Iterator for OptionIter<'a> {
    type Item = GeneveOption<'a>;

    #[inline]
    fn next(&mut self) -> Option<GeneveOption<'a>> {
        let (option, rest) = GeneveOption::split(self.rest)?;
        self.rest = rest;
        Some(option)
    }
}

impl std::iter::FusedIterator for OptionIter<'_> {}

/// Whether the options in `list` fill it exactly (RFC 8926 section 3.5).
#[inline]
pub(super) fn lengths_add_up(list: &[u8]) -> bool {
    let mut rest = list;
    while !rest.is_empty() {
        let Some((_, after)) = GeneveOption::split(rest) else {
            return false;
        };
        rest = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn options_come_in_their_order_and_may_repeat() {
        let list = [
            0xff, 0x47, 1, 1, 1, 2, 3, 4, 1, 2, 0x80, 0, 0xff, 0x47, 1, 1, 5, 6, 7, 8,
        ];
        assert!(lengths_add_up(&list));
        let printed: Vec<_> = OptionIter::new(&list)
            .map(|option| option.to_string())
            .collect();
        assert_eq!(
            printed,
            [
                "0xff47:0x01=01020304",
                "0x0102:0x80=",
                "0xff47:0x01=05060708"
            ]
        );
        let critical: Vec<_> = OptionIter::new(&list)
            .map(|option| option.is_critical())
            .collect();
        assert_eq!(critical, [false, true, false]);
    }

    #[test]
    fn rfc8926_18_reserved_bits_of_an_option_are_ignored_when_received() {
        let plain = [0xff, 0x47, 1, 1, 1, 2, 3, 4];
        for reserved in 0..8u8 {
            let mut list = plain;
            list[3] |= reserved << 5;
            assert!(lengths_add_up(&list));
            assert!(
                OptionIter::new(&list).eq(OptionIter::new(&plain)),
                "{reserved}"
            );
        }
    }

    proptest! {
        #[test]
        fn arbitrary_lists_never_panic_and_never_yield_more_than_they_hold(
            list in proptest::collection::vec(any::<u8>(), 0..300)
        ) {
            let seen: usize =
                OptionIter::new(&list).map(|option| OPTION_HEADER_LEN + option.data.len()).sum();
            prop_assert!(seen <= list.len());
            prop_assert_eq!(lengths_add_up(&list), seen == list.len());
        }
    }
}
