//! The Geneve base header: layout, view and builder (RFC 8926 section 3.4).
//!
//! Owns version, Opt Len, the O and C bits, the protocol type and the VNI, and the check that the option list fills
//! Opt Len exactly. The options themselves are in [`option`](super::option); the caller decides which of them are
//! known, and whether a packet is dropped.

use std::fmt;
use std::str::FromStr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::HeaderBytes;
use super::option::{
    GeneveOption, MAX_OPTION_DATA, MAX_OPTIONS_LEN, OPTION_HEADER_LEN, OptionClass, OptionHeader,
    OptionIter, OptionType, lengths_add_up,
};

/// The UDP port of Geneve (RFC 8926 section 3.3).
pub const GENEVE_PORT: u16 = 6081;
/// Bytes of the header without options.
pub const BASE_HEADER_LEN: usize = size_of::<GeneveHeader>();
/// Most bytes of a header: 8 of the base header and 63 words of options.
pub const MAX_HEADER_LEN: usize = BASE_HEADER_LEN + MAX_OPTIONS_LEN;

/// Protocol types: the EtherType of the inner packet.
pub mod protocol_type {
    pub use crate::wire::ethernet::ethertype::{IPV4, IPV6};
    /// An Ethernet frame ("transparent Ethernet bridging").
    pub const ETHERNET: u16 = 0x6558;
}

/// The Geneve base header (RFC 8926 section 3.4).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct GeneveHeader {
    /// Ver (2 bits) and Opt Len (6 bits): length of the options in words of four bytes.
    pub version_opt_len: u8,
    /// O: control packet; C: critical options are present; six reserved bits.
    pub flags: u8,
    /// Protocol Type: the EtherType of the payload.
    pub protocol_type: U16,
    /// Virtual Network Identifier.
    pub vni: [u8; 3],
    /// Reserved: zero when sent, ignored when received.
    pub reserved: u8,
}

impl GeneveHeader {
    /// The O bit of [`flags`](Self::flags).
    pub const CONTROL: u8 = 0x80;
    /// The C bit of [`flags`](Self::flags).
    pub const CRITICAL: u8 = 0x40;

    /// The version: only 0 is defined.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_opt_len >> 6
    }

    /// Bytes of all options: 0 to 252.
    #[inline]
    #[must_use]
    pub const fn options_len(&self) -> usize {
        (self.version_opt_len & 0x3f) as usize * 4
    }
}

/// A virtual network identifier: 24 bits.
///
/// ```
/// use libgeneve::wire::geneve::Vni;
///
/// assert_eq!("0x64".parse(), Ok(Vni::new(100).expect("24 bits")));
/// assert_eq!(Vni::new(1 << 24), None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vni(u32);

impl Vni {
    /// The largest VNI: 16,777,215.
    pub const MAX: Vni = Vni(0xff_ffff);

    /// Returns the VNI `id`; `None` above [`Vni::MAX`].
    #[must_use]
    pub const fn new(id: u32) -> Option<Vni> {
        if id <= Self::MAX.0 {
            Some(Vni(id))
        } else {
            None
        }
    }

    /// Reads a VNI from a header: 24 bits, big-endian.
    #[inline]
    #[must_use]
    pub const fn from_wire(bytes: [u8; 3]) -> Vni {
        let [a, b, c] = bytes;
        Vni(u32::from_be_bytes([0, a, b, c]))
    }

    /// Returns the VNI as in a header: 24 bits, big-endian.
    #[inline]
    #[must_use]
    pub const fn to_wire(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// Returns the VNI as a number: 0 to 16,777,215.
    #[inline]
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl TryFrom<u32> for Vni {
    type Error = VniError;
    fn try_from(id: u32) -> Result<Vni, VniError> {
        Vni::new(id).ok_or(VniError)
    }
}

/// The number or text is not a VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid id: a virtual network identifier is a number from 0 to 16777215")]
pub struct VniError;

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Accepts decimal digits, or hexadecimal ones after `0x`.
impl FromStr for Vni {
    type Err = VniError;
    fn from_str(text: &str) -> Result<Vni, VniError> {
        let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(hex) => (hex, 16),
            None => (text, 10),
        };
        // `from_str_radix` accepts a sign.
        if !digits.starts_with(|first: char| first.is_digit(radix)) {
            return Err(VniError);
        }
        u32::from_str_radix(digits, radix)
            .ok()
            .and_then(Vni::new)
            .ok_or(VniError)
    }
}

/// A Geneve packet whose version, lengths and option list were checked.
///
/// Reserved bits, 6 after C and 8 after the VNI, are ignored.
///
/// ```
/// use libgeneve::wire::geneve::{Geneve, GeneveError};
///
/// // VNI 100, IPv4, one option of class 0x0102 with four bytes.
/// let datagram = [2, 0, 8, 0, 0, 0, 100, 0, 1, 2, 1, 1, 9, 9, 9, 9, 0x45];
/// let geneve = Geneve::parse(&datagram)?;
/// assert_eq!((geneve.vni().value(), geneve.protocol()), (100, 0x0800));
/// let option = geneve.options().next().expect("there is one");
/// assert_eq!(option.to_string(), "0x0102:0x01=09090909");
/// assert_eq!(geneve.payload(), [0x45]);
/// assert_eq!(Geneve::parse(&datagram[..12]).unwrap_err(), GeneveError::Truncated);
/// # Ok::<(), GeneveError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Geneve<'a> {
    base: &'a GeneveHeader,
    bytes: &'a [u8],
    header_len: usize,
}

/// Why bytes are not a Geneve packet. In each case the packet must be dropped silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeneveError {
    /// The buffer ends within the base header, or within the options.
    #[error("the packet ends before its Geneve header does")]
    Truncated,
    /// The version is not 0.
    #[error("Geneve version {0} is unknown")]
    Version(u8),
    /// The lengths of the options do not add up to Opt Len.
    #[error("the option lengths do not add up to Opt Len")]
    OptionLength,
}

impl<'a> Geneve<'a> {
    /// Parses a UDP payload. Checks the version, Opt Len against the buffer, and the whole option list against Opt
    /// Len, regardless of the C bit.
    ///
    /// # Errors
    ///
    /// See [`GeneveError`]; the version is checked first, since another version may have another layout.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Geneve<'a>, GeneveError> {
        let version = bytes.first().ok_or(GeneveError::Truncated)? >> 6;
        if version != 0 {
            return Err(GeneveError::Version(version));
        }
        let (base, rest) =
            GeneveHeader::ref_from_prefix(bytes).map_err(|_| GeneveError::Truncated)?;
        let options_len = base.options_len();
        let options = rest.get(..options_len).ok_or(GeneveError::Truncated)?;
        if !lengths_add_up(options) {
            return Err(GeneveError::OptionLength);
        }
        Ok(Geneve {
            base,
            bytes,
            header_len: BASE_HEADER_LEN + options_len,
        })
    }

    /// The VNI.
    #[inline]
    #[must_use]
    pub fn vni(&self) -> Vni {
        Vni::from_wire(self.base.vni)
    }

    /// The EtherType of the payload; see [`protocol_type`].
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u16 {
        self.base.protocol_type.get()
    }

    /// The O bit: this is a control message, whose payload is never forwarded.
    #[inline]
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.base.flags & GeneveHeader::CONTROL != 0
    }

    /// The C bit: according to the sender, an option is critical. [`Geneve::unknown_critical`] does not rely on it.
    #[inline]
    #[must_use]
    pub fn has_critical(&self) -> bool {
        self.base.flags & GeneveHeader::CRITICAL != 0
    }

    /// Returns the options in wire order.
    #[inline]
    #[must_use]
    pub fn options(&self) -> OptionIter<'a> {
        OptionIter::new(self.options_bytes())
    }

    /// Bytes of base header and options: 8 to 260.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// The base header and options as received.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8] {
        &self.bytes[..self.header_len]
    }

    /// The options as received: 0 to 252 bytes.
    #[inline]
    #[must_use]
    pub fn options_bytes(&self) -> &'a [u8] {
        &self.bytes[BASE_HEADER_LEN..self.header_len]
    }

    /// The inner packet.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// Returns the first critical option that `known` does not know: the packet must be dropped because of it (RFC
    /// 8926 section 3.5), regardless of the C bit and of the inner destination.
    #[inline]
    #[must_use]
    pub fn unknown_critical(
        &self,
        known: impl Fn(OptionClass, OptionType) -> bool,
    ) -> Option<(OptionClass, OptionType)> {
        self.options()
            .find(|option| option.is_critical() && !known(option.class, option.kind))
            .map(|option| (option.class, option.kind))
    }
}

/// Builds a header on the stack; derives Opt Len and the C bit from the options.
///
/// ```
/// use libgeneve::wire::geneve::{BuildError, GeneveBuilder, Vni, protocol_type};
/// use libgeneve::wire::option::{OptionClass, OptionType};
///
/// let builder = GeneveBuilder::new(Vni::MAX, protocol_type::IPV6);
/// let header = builder.option(OptionClass(0xff47), OptionType(0x81), &[1, 2, 3, 4])?.finish();
/// assert_eq!(header[..8], [2, 0x40, 0x86, 0xdd, 0xff, 0xff, 0xff, 0]);
/// let odd = builder.option(OptionClass(0xff47), OptionType(1), &[1, 2, 3]);
/// assert_eq!(odd.unwrap_err(), BuildError::DataLength(3));
/// # Ok::<(), BuildError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct GeneveBuilder {
    base: GeneveHeader,
    /// Space for the base header, followed by the options.
    header: HeaderBytes,
}

/// Why an option cannot be added to a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The data's length in bytes is not a multiple of 4 from 0 to 124.
    #[error("option data of {0} bytes: the length is a multiple of 4, at most {MAX_OPTION_DATA}")]
    DataLength(usize),
    /// All options with their headers would take this many bytes, more than 252.
    #[error("options of {0} bytes: a packet carries at most {MAX_OPTIONS_LEN}")]
    OptionsLength(usize),
}

impl GeneveBuilder {
    /// Starts a header without options for payload of the EtherType `protocol`.
    #[must_use]
    pub fn new(vni: Vni, protocol: u16) -> GeneveBuilder {
        GeneveBuilder {
            base: GeneveHeader {
                version_opt_len: 0,
                flags: 0,
                protocol_type: protocol.into(),
                vni: vni.to_wire(),
                reserved: 0,
            },
            header: HeaderBytes::default(),
        }
    }

    /// Sets the O bit: the packet is a control message.
    #[must_use]
    pub fn control(mut self) -> GeneveBuilder {
        self.base.flags |= GeneveHeader::CONTROL;
        self
    }

    /// Appends an option.
    ///
    /// # Errors
    ///
    /// [`BuildError::DataLength`] unless the length of `data` is a multiple of 4 from 0 to 124: padding is part of an
    /// option's definition, not of its encoding. [`BuildError::OptionsLength`] if all options together would exceed
    /// 252 bytes.
    pub fn option(
        mut self,
        class: OptionClass,
        kind: OptionType,
        data: &[u8],
    ) -> Result<GeneveBuilder, BuildError> {
        if data.len() > MAX_OPTION_DATA || !data.len().is_multiple_of(4) {
            return Err(BuildError::DataLength(data.len()));
        }
        let at = self.header.len();
        let end = at + OPTION_HEADER_LEN + data.len();
        if end > MAX_HEADER_LEN {
            return Err(BuildError::OptionsLength(end - BASE_HEADER_LEN));
        }
        let option = OptionHeader {
            option_class: class.0.into(),
            option_type: kind.0,
            length: (data.len() / 4) as u8,
        };
        let room = &mut self.header.bytes[at..end];
        room[..OPTION_HEADER_LEN].copy_from_slice(option.as_bytes());
        room[OPTION_HEADER_LEN..].copy_from_slice(data);
        self.header.len = end as u16;
        self.base.version_opt_len = ((end - BASE_HEADER_LEN) / 4) as u8;
        if kind.is_critical() {
            self.base.flags |= GeneveHeader::CRITICAL;
        }
        Ok(self)
    }

    /// Appends an option as it was read.
    ///
    /// # Errors
    ///
    /// As for [`GeneveBuilder::option`].
    pub fn copy_option(self, option: &GeneveOption<'_>) -> Result<GeneveBuilder, BuildError> {
        self.option(option.class, option.kind, option.data)
    }

    /// Returns the header.
    #[must_use]
    pub fn finish(mut self) -> HeaderBytes {
        self.header.bytes[..BASE_HEADER_LEN].copy_from_slice(self.base.as_bytes());
        self.header
    }
}

#[cfg(test)]
#[path = "geneve_tests.rs"]
mod tests;
