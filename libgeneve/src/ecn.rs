//! ECN and DSCP between the outer and the inner IP header.
//!
//! Implements RFC 6040 (ECN, required by RFC 8926 section 4.4.2) and the pipe and uniform models of RFC 2983. The
//! link's configuration chooses the model.

use crate::drop::DropReason;
use crate::wire::ip::{Ipv4Header, Ipv6Header};
use crate::wire::packet::{IpVersion, Packet};
use crate::wire::prefix_mut;

/// The ECN field: the low two bits of the traffic class (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The transport is not ECN-capable.
    NotEct = 0b00,
    /// ECN-capable transport, codepoint 1.
    Ect1 = 0b01,
    /// ECN-capable transport, codepoint 0.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// Returns the ECN field of a traffic class or TOS byte.
    #[inline]
    #[must_use]
    pub const fn of(tos: u8) -> Ecn {
        match tos & 0b11 {
            0b00 => Ecn::NotEct,
            0b01 => Ecn::Ect1,
            0b10 => Ecn::Ect0,
            _ => Ecn::Ce,
        }
    }
}

/// How the outer ECN field is chosen (RFC 6040 section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EcnMode {
    /// Copies the inner field. Right for every receiver that follows RFC 6040 or RFC 3168.
    #[default]
    Normal,
    /// Sets the outer field to Not-ECT, for a receiver that would lose outer congestion marks.
    Compatibility,
}

impl EcnMode {
    /// Returns the outer ECN field for a packet with the traffic class `inner_tos`.
    #[inline]
    #[must_use]
    pub const fn outer(self, inner_tos: u8) -> Ecn {
        match self {
            EcnMode::Normal => Ecn::of(inner_tos),
            EcnMode::Compatibility => Ecn::NotEct,
        }
    }
}

/// Returns the two outer ECN bits for a packet with the traffic class `inner_tos`, in normal mode.
#[inline]
#[must_use]
pub const fn encapsulate(inner_tos: u8) -> u8 {
    EcnMode::Normal.outer(inner_tos) as u8
}

/// Returns the inner ECN field after decapsulation; `None` if the packet must be dropped, because it experienced
/// congestion and its transport could not be told (RFC 6040 section 4.2, figure 4).
#[inline]
#[must_use]
pub const fn combine(outer: Ecn, inner: Ecn) -> Option<Ecn> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => None,
        (Ecn::NotEct, _) => Some(Ecn::NotEct),
        (Ecn::Ect0 | Ecn::Ect1, Ecn::Ce) | (Ecn::Ce, _) => Some(Ecn::Ce),
        // Some transports use ECT(1) as a congestion mark weaker than CE, so it is kept.
        (Ecn::Ect0, Ecn::Ect1) | (Ecn::Ect1, _) => Some(Ecn::Ect1),
        (Ecn::Ect0, _) => Some(Ecn::Ect0),
    }
}

/// Propagates the outer header's ECN field into the inner packet: into `inner`, and into `packet`, which was parsed
/// from it.
///
/// # Errors
///
/// [`DropReason::EcnCongestion`] if the outer header is marked CE and the inner one is Not-ECT. Nothing is changed
/// then.
#[inline]
pub fn decapsulate(outer_tos: u8, inner: &mut [u8], packet: &mut Packet) -> Result<(), DropReason> {
    let before = Ecn::of(packet.tos);
    let after = combine(Ecn::of(outer_tos), before).ok_or(DropReason::EcnCongestion)?;
    if after != before {
        set_tos(inner, packet, packet.tos & !0b11 | after as u8);
    }
    Ok(())
}

/// Relation of the DSCP fields of the inner and the outer header (RFC 2983).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DscpMode {
    /// Pipe model: the outer DSCP is the link's, 0 to 63, and the inner one is left alone.
    Pipe(u8),
    /// Uniform model: the inner DSCP is copied to the outer header and back.
    Uniform,
}

impl Default for DscpMode {
    fn default() -> Self {
        DscpMode::Pipe(0)
    }
}

impl DscpMode {
    /// Returns the outer traffic class without its ECN bits.
    #[inline]
    #[must_use]
    pub const fn outer(self, inner_tos: u8) -> u8 {
        match self {
            DscpMode::Pipe(dscp) => dscp << 2,
            DscpMode::Uniform => inner_tos & !0b11,
        }
    }

    /// Returns the inner traffic class after decapsulation; its ECN bits stay.
    #[inline]
    #[must_use]
    pub const fn inner(self, outer_tos: u8, inner_tos: u8) -> u8 {
        match self {
            DscpMode::Pipe(_) => inner_tos,
            DscpMode::Uniform => outer_tos & !0b11 | inner_tos & 0b11,
        }
    }
}

/// Writes a new traffic class to `inner` and to `packet`, which was parsed from it, and updates the IPv4 header
/// checksum (RFC 1624). Does nothing if `inner` is too short.
#[inline]
pub fn set_tos(inner: &mut [u8], packet: &mut Packet, tos: u8) {
    match packet.version {
        IpVersion::V4 => {
            let Some(header) = prefix_mut::<Ipv4Header>(inner) else {
                return;
            };
            let old = [header.version_ihl, header.tos];
            header.tos = tos;
            header.update_checksum(old, [header.version_ihl, tos]);
        }
        IpVersion::V6 => {
            let Some(header) = prefix_mut::<Ipv6Header>(inner) else {
                return;
            };
            header.version_class_flow = Ipv6Header::class_and_flow(tos, header.flow_label());
        }
    }
    packet.tos = tos;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::ipv4_checksum_holds;
    use crate::wire::packet::tests::sample;
    use proptest::prelude::*;

    const ALL_ECN: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];

    #[test]
    fn rfc8926_32_the_outer_field_copies_the_inner_one() {
        for ecn in ALL_ECN {
            let tos = 0xb8 | ecn as u8;
            assert_eq!(encapsulate(tos), ecn as u8);
            assert_eq!(EcnMode::Compatibility.outer(tos), Ecn::NotEct);
        }
    }

    #[test]
    fn rfc8926_32_decapsulation_follows_figure_4_of_rfc6040() {
        use Ecn::{Ce, Ect0, Ect1, NotEct};
        // Rows: inner field. Columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let figure = [
            (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
            (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
            (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
            (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in ALL_ECN.into_iter().zip(row) {
                assert_eq!(combine(outer, inner), expected, "{inner:?} in {outer:?}");
            }
        }
    }

    #[test]
    fn rfc8926_32_congestion_on_a_packet_that_cannot_carry_it_is_a_drop() {
        let (_, mut bytes) = sample::all_transports().remove(0);
        let mut packet = Packet::parse(&bytes).unwrap();
        set_tos(&mut bytes, &mut packet, 0xb8);
        let before = bytes.clone();
        let refused = decapsulate(0x03, &mut bytes, &mut packet);
        assert_eq!(refused, Err(DropReason::EcnCongestion));
        assert_eq!(bytes, before);
        assert_eq!(packet, Packet::parse(&bytes).unwrap());
    }

    #[test]
    fn rfc8926_33_the_pipe_model_keeps_the_inner_dscp() {
        assert_eq!(DscpMode::default().outer(0xb9), 0);
        assert_eq!(DscpMode::Pipe(46).outer(0x01), 0xb8);
        assert_eq!(DscpMode::Pipe(46).inner(0xff, 0x21), 0x21);
        assert_eq!(DscpMode::Uniform.outer(0xb9), 0xb8);
        assert_eq!(DscpMode::Uniform.inner(0xb9, 0x02), 0xba);
    }

    proptest! {
        #[test]
        fn rfc8926_32_a_changed_field_leaves_the_rest_and_the_checksum_right(
            inner_tos: u8, outer_tos: u8, which in 0usize..6
        ) {
            let (_, mut bytes) = sample::all_transports().remove(which);
            let mut packet = Packet::parse(&bytes).unwrap();
            let original = (bytes.clone(), packet);
            set_tos(&mut bytes, &mut packet, inner_tos);
            let result = decapsulate(outer_tos, &mut bytes, &mut packet);
            prop_assert_eq!(packet, Packet::parse(&bytes).unwrap());
            prop_assert_eq!(packet.tos >> 2, inner_tos >> 2);
            if result.is_ok() {
                let expected = combine(Ecn::of(outer_tos), Ecn::of(inner_tos));
                prop_assert_eq!(Some(Ecn::of(packet.tos)), expected);
            }
            prop_assert!(packet.version == IpVersion::V6 || ipv4_checksum_holds(&bytes));
            set_tos(&mut bytes, &mut packet, original.1.tos);
            prop_assert_eq!((bytes, packet), original);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in sample::mutated(), tos: u8, cut in 0usize..60) {
            if let Ok(mut packet) = Packet::parse(&bytes) {
                let _ = decapsulate(tos, &mut bytes, &mut packet);
                let short = cut.min(bytes.len());
                set_tos(&mut bytes[..short], &mut packet, tos);
            }
        }
    }
}
