//! Tunnel MTU as a sum that can be displayed, and the MSS clamp for it.
//!
//! Owns the arithmetic (RFC 8926 section 4.4.1). The daemon finds the underlay's MTU;
//! [`wire::icmp`](crate::wire::icmp) builds the ICMP error for a packet that is too big.

use std::fmt;

use zerocopy::FromBytes;
use zerocopy::byteorder::network_endian::U16;

use crate::wire::checksum::update16;
use crate::wire::encapsulation::{Encapsulation, InnerProtocol};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport};
use crate::wire::prefix_mut;
use crate::wire::transport::{TCP_HEADER_LEN, TcpFlags, TcpHeader, UDP_HEADER_LEN};

/// Smallest MTU of a link that carries IPv6 (RFC 8200 section 5).
pub const MIN_IPV6: u32 = 1280;
/// Smallest MTU of a link that carries IPv4 (RFC 791 section 3.2).
pub const MIN_IPV4: u32 = 68;

/// Tunnel MTU: the longest inner packet that crosses the underlay unfragmented, as a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelMtu {
    /// MTU of the underlay's route, in bytes of outer IP packet.
    pub underlay: u32,
    /// The outer IP version.
    pub outer: IpVersion,
    /// Encapsulation.
    pub encapsulation: Encapsulation,
    /// Inner protocol.
    pub inner: InnerProtocol,
    /// Length of the longest options that will be sent, in bytes: a multiple of 4, at most 252.
    pub options: u16,
}

impl TunnelMtu {
    /// Length of the outer IP header: 20 or 40 bytes.
    #[must_use]
    pub const fn outer_ip(&self) -> u32 {
        self.outer.header_len() as u32
    }

    /// Returns the encapsulation overhead of an inner packet, in bytes.
    #[must_use]
    pub const fn overhead(&self) -> u32 {
        self.outer_ip()
            + UDP_HEADER_LEN as u32
            + self.encapsulation.header_len() as u32
            + self.options as u32
            + self.inner.header_len() as u32
    }

    /// Returns the tunnel MTU, in bytes of inner IP packet: at most 65,535; 0 if the underlay's MTU does not even
    /// hold the headers.
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        let mtu = self.underlay.saturating_sub(self.overhead());
        if mtu > u16::MAX as u32 {
            u16::MAX
        } else {
            mtu as u16
        }
    }

    /// Whether the smallest MTU of the family fits the tunnel MTU. If not, the outer packets are fragmented.
    #[must_use]
    pub const fn carries(&self, version: IpVersion) -> bool {
        self.mtu() >= minimum(version)
    }
}

/// Returns the longest packet, in bytes, that every link must carry, however small the underlay's MTU is:
/// [`MIN_IPV4`] or [`MIN_IPV6`].
#[must_use]
pub const fn minimum(version: IpVersion) -> u16 {
    match version {
        IpVersion::V4 => MIN_IPV4 as u16,
        IpVersion::V6 => MIN_IPV6 as u16,
    }
}

/// The sum, such as `1500 - 20 (IPv4) - 8 (UDP) - 8 (Geneve) - 0 (options) = 1464`, or
/// `1500 - 20 (IPv4) - 8 (UDP) - 8 (VXLAN) - 14 (Ethernet) = 1450`.
impl fmt::Display for TunnelMtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.outer {
            IpVersion::V4 => "IPv4",
            IpVersion::V6 => "IPv6",
        };
        let (encapsulation, inner) = (self.encapsulation, self.inner);
        write!(
            f,
            "{} - {} ({family}) - {UDP_HEADER_LEN} (UDP) - {} ({})",
            self.underlay,
            self.outer_ip(),
            encapsulation.header_len(),
            encapsulation.title(),
        )?;
        if encapsulation.has_options() {
            write!(f, " - {} (options)", self.options)?;
        }
        if inner == InnerProtocol::Ethernet {
            write!(f, " - {} (Ethernet)", inner.header_len())?;
        }
        write!(f, " = {}", self.mtu())
    }
}

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS option of a SYN or SYN/ACK to what `mtu` leaves after an IP and a TCP header without options (RFC
/// 6691), and returns whether it did. `mtu` is in bytes of inner IP packet.
///
/// `partial` means that the checksum is partial (`VIRTIO_NET_HDR_F_NEEDS_CSUM`): it covers only the pseudo-header and
/// stays as it is. A finished checksum is updated (RFC 1624). `bytes` is what `packet` was parsed from. A SYN that
/// has no MSS option, has malformed options, or is fragmented is left alone, as is every packet if `mtu` does not
/// even hold the headers.
#[inline]
pub fn clamp_mss(bytes: &mut [u8], packet: &Packet, mtu: u16, partial: bool) -> bool {
    let Transport::Tcp { flags, .. } = packet.transport else {
        return false;
    };
    if !flags.contains(TcpFlags::SYN) || packet.fragment != Fragment::Whole {
        return false;
    }
    let headers = packet.version.header_len() + TCP_HEADER_LEN;
    let Some(most) = mtu.checked_sub(headers as u16).filter(|&most| most > 0) else {
        return false;
    };
    let range = usize::from(packet.transport_offset)..usize::from(packet.payload_offset);
    let header = bytes.get_mut(range).map(TcpHeader::mut_from_prefix);
    let Some(Ok((header, options))) = header else {
        return false;
    };
    let Some(at) = mss_option(options) else {
        return false;
    };
    let Some(mss) = options.get_mut(at..).and_then(prefix_mut::<U16>) else {
        return false;
    };
    let old = mss.get();
    if old <= most {
        return false;
    }
    *mss = most.into();
    if !partial {
        let check = header.checksum.get();
        // At an odd offset the value's bytes belong to two words, in swapped order.
        let check = if at % 2 == 0 {
            update16(check, old, most)
        } else {
            update16(check, old.swap_bytes(), most.swap_bytes())
        };
        header.checksum = check.into();
    }
    true
}

/// Returns the offset of the MSS option's value in TCP options (RFC 9293 section 3.1).
fn mss_option(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            OPTION_END => return None,
            OPTION_NOP => at += 1,
            kind => {
                let len = usize::from(*options.get(at + 1)?);
                if len < 2 || at + len > options.len() {
                    return None;
                }
                if kind == OPTION_MSS {
                    return (len == 4).then_some(at + 2);
                }
                at += len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::samples::SamplePacket;
    use crate::wire::packet::tests::sample;
    use crate::wire::transport_checksum::ChecksumState;
    use proptest::prelude::*;

    const PLAIN_TUNNEL: TunnelMtu = TunnelMtu {
        underlay: 1500,
        outer: IpVersion::V4,
        encapsulation: Encapsulation::Geneve,
        inner: InnerProtocol::Ip,
        options: 0,
    };

    #[test]
    fn frames_take_their_header_from_the_mtu() {
        let geneve = TunnelMtu {
            inner: InnerProtocol::Ethernet,
            ..PLAIN_TUNNEL
        };
        assert_eq!(
            geneve.to_string(),
            "1500 - 20 (IPv4) - 8 (UDP) - 8 (Geneve) - 0 (options) - 14 (Ethernet) = 1450"
        );
        let vxlan = TunnelMtu {
            encapsulation: Encapsulation::Vxlan,
            outer: IpVersion::V6,
            ..geneve
        };
        assert_eq!(
            vxlan.to_string(),
            "1500 - 40 (IPv6) - 8 (UDP) - 8 (VXLAN) - 14 (Ethernet) = 1430"
        );
    }

    fn syn(v6: bool, options: &[u8]) -> (Packet, Vec<u8>) {
        let sample = SamplePacket {
            v6,
            flags: TcpFlags::SYN,
            options: options.to_vec(),
            payload: Vec::new(),
            ..SamplePacket::default()
        };
        let bytes = sample.bytes();
        (Packet::parse(&bytes).unwrap(), bytes)
    }

    #[test]
    fn rfc8926_31_the_tunnel_mtu_assumes_the_longest_options() {
        let mtu = TunnelMtu {
            underlay: 1500,
            outer: IpVersion::V4,
            options: 0,
            ..PLAIN_TUNNEL
        };
        assert_eq!(mtu.mtu(), 1464);
        assert_eq!(
            mtu.to_string(),
            "1500 - 20 (IPv4) - 8 (UDP) - 8 (Geneve) - 0 (options) = 1464"
        );
        let mtu = TunnelMtu {
            underlay: 9000,
            outer: IpVersion::V6,
            options: 252,
            ..PLAIN_TUNNEL
        };
        assert_eq!(mtu.mtu(), 9000 - 40 - 8 - 8 - 252);
        assert_eq!(
            mtu.to_string(),
            "9000 - 40 (IPv6) - 8 (UDP) - 8 (Geneve) - 252 (options) = 8692"
        );
    }

    #[test]
    fn an_underlay_that_is_too_small_or_too_large_does_not_wrap() {
        let of = |underlay| TunnelMtu {
            underlay,
            outer: IpVersion::V4,
            options: 0,
            ..PLAIN_TUNNEL
        };
        assert_eq!(of(35).mtu(), 0);
        assert_eq!(of(65_571).mtu(), 65_535);
        assert_eq!(of(u32::MAX).mtu(), 65_535);
        assert!(of(1316).carries(IpVersion::V6) && !of(1315).carries(IpVersion::V6));
        assert!(of(104).carries(IpVersion::V4) && !of(103).carries(IpVersion::V4));
    }

    #[test]
    fn the_mss_of_a_syn_is_lowered_and_its_checksum_stays_right() {
        // The option at the start, after one NOP (an odd offset), after two, and after a timestamp.
        let layouts: [&[u8]; 4] = [
            &[2, 4, 0x23, 0x28],
            &[1, 2, 4, 0x23, 0x28, 1, 1, 0],
            &[1, 1, 2, 4, 0x23, 0x28, 0, 0],
            &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 2, 4, 0x23, 0x28, 1, 0],
        ];
        for v6 in [false, true] {
            for options in layouts {
                let (packet, mut bytes) = syn(v6, options);
                assert!(clamp_mss(&mut bytes, &packet, 1400, false));
                assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
                let most: u16 = if v6 { 1340 } else { 1360 };
                let at = usize::from(packet.transport_offset) + 20;
                let at = at + options.windows(2).position(|w| w == [2, 4]).unwrap() + 2;
                assert_eq!(bytes[at..at + 2], most.to_be_bytes());
                assert!(!clamp_mss(&mut bytes, &packet, 1400, false));
            }
        }
    }

    #[test]
    fn a_partial_checksum_does_not_cover_the_mss() {
        let (packet, mut bytes) = syn(false, &[2, 4, 0x23, 0x28]);
        packet.write_partial_checksum(&mut bytes);
        assert!(clamp_mss(&mut bytes, &packet, 1400, true));
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Partial);
        assert!(packet.write_checksum(&mut bytes));
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
    }

    #[test]
    fn what_is_no_syn_or_has_no_sound_option_is_left_alone() {
        let data = SamplePacket {
            options: vec![2, 4, 0x23, 0x28],
            ..SamplePacket::default()
        };
        let mut untouched = vec![data.bytes()];
        for options in [
            &[2u8, 4, 0x04, 0x00][..],
            &[],
            &[0, 2, 4, 0x23, 0x28, 0, 0, 0],
            &[8, 0, 2, 4, 0x23, 0x28, 0, 0],
            &[8, 1, 2, 4, 0x23, 0x28, 0, 0],
            &[1, 1, 1, 2],
            &[1, 1, 2, 4],
            &[2, 3, 0x23, 0x28],
        ] {
            untouched.push(syn(false, options).1);
        }
        for original in untouched {
            let packet = Packet::parse(&original).unwrap();
            let mut bytes = original.clone();
            assert!(!clamp_mss(&mut bytes, &packet, 1400, false));
            assert_eq!(bytes, original);
        }
        let (packet, mut bytes) = syn(true, &[2, 4, 0x23, 0x28]);
        assert!(!clamp_mss(&mut bytes, &packet, 60, false));
        assert!(clamp_mss(&mut bytes, &packet, 61, false));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in sample::mutated(), mtu: u16, partial: bool, cut in 0usize..90) {
            if let Ok(packet) = Packet::parse(&bytes) {
                let short = cut.min(bytes.len());
                clamp_mss(&mut bytes.clone()[..short], &packet, mtu, partial);
            }
        }

        #[test]
        fn arbitrary_options_never_panic(options in proptest::collection::vec(0u8..12, 40), mtu: u16) {
            let (packet, mut bytes) = syn(false, &options);
            clamp_mss(&mut bytes, &packet, mtu, false);
            let state = packet.checksum_state(&bytes);
            prop_assert!(matches!(state, ChecksumState::Valid | ChecksumState::Partial), "{state:?}");
        }
    }
}
