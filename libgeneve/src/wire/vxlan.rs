//! The VXLAN header: layout, view and writer (RFC 7348 section 5).
//!
//! Owns the I flag, the VNI and the reserved bits. The payload is always an Ethernet frame.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::geneve::Vni;

/// The UDP port of VXLAN (RFC 7348 section 5).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes of the header.
pub const VXLAN_HEADER_LEN: usize = size_of::<VxlanHeader>();
/// The I flag: the VNI is valid.
const VALID_VNI: u8 = 0x08;

/// The VXLAN header (RFC 7348 section 5).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VxlanHeader {
    /// The I flag (0x08): the VNI is valid; seven reserved bits.
    pub flags: u8,
    /// Reserved: zero when sent, ignored when received.
    pub reserved: [u8; 3],
    /// The VXLAN network identifier.
    pub vni: [u8; 3],
    /// Reserved: zero when sent, ignored when received.
    pub reserved_last: u8,
}

/// A VXLAN packet whose length and I flag were checked.
///
/// Reserved bits, 7 beside the I flag, 24 before and 8 after the VNI, are ignored.
///
/// ```
/// use libgeneve::wire::vxlan::{Vxlan, VxlanError};
///
/// let vxlan = Vxlan::parse(&[8, 0, 0, 0, 0, 0, 100, 0, 0xff])?;
/// assert_eq!(vxlan.vni().value(), 100);
/// assert_eq!(Vxlan::parse(&[0; 8]).unwrap_err(), VxlanError::NoVni);
/// # Ok::<(), VxlanError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Vxlan<'a> {
    header: &'a VxlanHeader,
    payload: &'a [u8],
}

/// Why bytes are not a VXLAN packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VxlanError {
    /// The buffer ends within the header.
    #[error("the packet ends before its VXLAN header does")]
    Truncated,
    /// The I flag is not set: there is no valid VNI.
    #[error("the VXLAN header has no valid VNI (the I flag is not set)")]
    NoVni,
}

impl<'a> Vxlan<'a> {
    /// Parses a UDP payload.
    ///
    /// # Errors
    ///
    /// See [`VxlanError`].
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Vxlan<'a>, VxlanError> {
        let (header, payload) =
            VxlanHeader::ref_from_prefix(bytes).map_err(|_| VxlanError::Truncated)?;
        if header.flags & VALID_VNI == 0 {
            return Err(VxlanError::NoVni);
        }
        Ok(Vxlan { header, payload })
    }

    /// The VNI.
    #[inline]
    #[must_use]
    pub fn vni(&self) -> Vni {
        Vni::from_wire(self.header.vni)
    }

    /// The header as received.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8] {
        self.header.as_bytes()
    }

    /// The inner Ethernet frame.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Returns the header for packets of `vni`: the I flag is set, reserved bits are zero.
#[must_use]
pub fn vxlan_header(vni: Vni) -> [u8; VXLAN_HEADER_LEN] {
    transmute!(VxlanHeader {
        flags: VALID_VNI,
        reserved: [0; 3],
        vni: vni.to_wire(),
        reserved_last: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rfc7348_5_the_i_flag_is_set_and_reserved_bits_are_zero_when_sent() {
        assert_eq!(
            vxlan_header(Vni::new(0x12_3456).unwrap()),
            [0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0]
        );
    }

    #[test]
    fn rfc7348_5_a_packet_without_the_i_flag_is_refused() {
        let mut bytes = vxlan_header(Vni::MAX);
        bytes[0] = !VALID_VNI;
        assert_eq!(Vxlan::parse(&bytes).unwrap_err(), VxlanError::NoVni);
    }

    #[test]
    fn rfc7348_5_reserved_bits_are_ignored_when_received() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0, 0, 9, 0xff, 1, 2];
        let vxlan = Vxlan::parse(&bytes).unwrap();
        assert_eq!(vxlan.vni().value(), 9);
        assert_eq!(vxlan.payload(), [1, 2]);
        assert_eq!(vxlan.header_bytes()[..], bytes[..8]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            match Vxlan::parse(&bytes) {
                Ok(vxlan) => prop_assert_eq!(vxlan.payload().len() + VXLAN_HEADER_LEN, bytes.len()),
                Err(VxlanError::Truncated) => prop_assert!(bytes.len() < VXLAN_HEADER_LEN),
                Err(VxlanError::NoVni) => prop_assert!(bytes[0] & VALID_VNI == 0),
            }
        }

        #[test]
        fn a_header_is_read_as_it_was_written(id in 0u32..=0xff_ffff) {
            let vni = Vni::new(id).unwrap();
            prop_assert_eq!(Vxlan::parse(&vxlan_header(vni)).unwrap().vni(), vni);
        }
    }
}
