//! The VXLAN header: view and builder (RFC 7348 section 5).
//!
//! Owns the I flag, the VNI and the reserved bits. What follows the header is always an Ethernet frame.

use super::geneve::Vni;

/// The UDP port of VXLAN (RFC 7348 section 5).
pub const VXLAN_PORT: u16 = 4789;
/// Bytes of the header.
pub const VXLAN_HEADER_LEN: usize = 8;
/// The I flag: the VNI is valid.
const VALID_VNI: u8 = 0x08;

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
    header: &'a [u8; VXLAN_HEADER_LEN],
    payload: &'a [u8],
}

/// Why bytes are not a VXLAN packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VxlanError {
    /// The buffer ends before the header does.
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
    /// As [`VxlanError`] says.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Vxlan<'a>, VxlanError> {
        let (header, payload) = bytes.split_first_chunk().ok_or(VxlanError::Truncated)?;
        if header[0] & VALID_VNI == 0 {
            return Err(VxlanError::NoVni);
        }
        Ok(Vxlan { header, payload })
    }

    /// The virtual network that the frame belongs to.
    #[inline]
    #[must_use]
    pub fn vni(&self) -> Vni {
        Vni::from_wire([self.header[4], self.header[5], self.header[6]])
    }

    /// The header as it was received.
    #[inline]
    #[must_use]
    pub fn header_bytes(&self) -> &'a [u8; VXLAN_HEADER_LEN] {
        self.header
    }

    /// The inner Ethernet frame.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The header of packets of `vni`: the I flag is set, reserved bits are zero.
#[must_use]
pub fn vxlan_header(vni: Vni) -> [u8; VXLAN_HEADER_LEN] {
    let [_, a, b, c] = vni.value().to_be_bytes();
    [VALID_VNI, 0, 0, 0, a, b, c, 0]
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
