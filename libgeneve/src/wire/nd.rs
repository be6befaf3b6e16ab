//! Neighbour solicitations and advertisements: layout, checked message, writers (RFC 4861 sections 4.3, 4.4, 7.1).
//!
//! Owns the layout, the checks that RFC 4861 requires of every receiver, and the advertisement that answers. Router
//! discovery and redirects are treated like any other packet. [`crate::l2`] decides who may claim an address and
//! who answers.

use std::net::{IpAddr, Ipv6Addr};

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::checksum::pseudo_header;
use super::ethernet::Mac;
use super::ip::{Ipv6Header, protocol};
use super::packet::{Fragment, Packet, Transport};
use super::transport_checksum::ChecksumState;

/// Bytes of an advertisement with its IPv6 header and the target's MAC address.
pub const ADVERTISEMENT_LEN: usize = size_of::<WholeMessage>();

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ROUTER_FLAG: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
/// Proves that the message was not forwarded by a router (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A neighbour solicitation or advertisement without its options (RFC 4861 sections 4.3 and 4.4).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct NeighborMessage {
    /// Type: 135 is a solicitation, 136 an advertisement.
    pub kind: u8,
    /// Code: 0.
    pub code: u8,
    /// Checksum, of ICMPv6.
    pub checksum: U16,
    /// R, S and O of an advertisement; reserved in a solicitation.
    pub flags: u8,
    /// Reserved: zero when sent, ignored when received.
    pub reserved: [u8; 3],
    /// Target Address.
    pub target: [u8; 16],
}

/// A link-layer address option of Ethernet (RFC 4861 section 4.6.1, RFC 2464 section 6).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct LinkLayerOption {
    /// Type: 1 is the source's address, 2 the target's.
    pub kind: u8,
    /// Length, in words of eight bytes: 1.
    pub length: u8,
    /// The MAC address.
    pub mac: Mac,
}

/// A packet with a message and one option, as written here.
#[derive(Clone, Copy, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct WholeMessage {
    ip: Ipv6Header,
    message: NeighborMessage,
    option: LinkLayerOption,
}

/// Flags of an advertisement (RFC 4861 section 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdvertisementFlags {
    /// The target is a router. A receiver that learns that it no longer is one removes it from its routes (RFC 4861
    /// section 7.2.5).
    pub router: bool,
    /// The MAC address overrides the one that the receiver has cached.
    pub overrides: bool,
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nd {
    /// Asks who has the target address.
    Solicitation {
        /// Address of the sender; `::` during duplicate address detection (RFC 4862 section 5.4).
        from: Ipv6Addr,
        /// The requested address.
        target: Ipv6Addr,
        /// The sender's MAC address.
        mac: Option<Mac>,
    },
    /// Says that the target address is at the target's MAC address.
    Advertisement {
        /// The target address.
        target: Ipv6Addr,
        /// Its MAC address.
        mac: Option<Mac>,
        /// Whether it answers a solicitation.
        solicited: bool,
        /// Router and override flags.
        flags: AdvertisementFlags,
    },
}

/// Why a solicitation or advertisement must be discarded (RFC 4861 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a neighbour solicitation or advertisement that RFC 4861 section 7.1 discards")]
pub struct NdError;

impl Nd {
    /// Parses a packet; `None` if it is neither message. `bytes` is what `packet` was parsed from; `checked` means
    /// that its checksum need not be verified, as for a packet whose checksum was left to an offload.
    ///
    /// # Errors
    /// If it is one of them but violates RFC 4861 section 7.1: hop limit, code, checksum, length, target, options.
    pub fn parse(packet: &Packet, bytes: &[u8], checked: bool) -> Option<Result<Nd, NdError>> {
        let Transport::Icmp { kind, code, .. } = packet.transport else {
            return None;
        };
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else {
            return None;
        };
        if packet.protocol != protocol::ICMPV6 || !matches!(kind, SOLICITATION | ADVERTISEMENT) {
            return None;
        }
        let message = bytes.get(usize::from(packet.transport_offset)..packet.total_len.into());
        let sound = packet.ttl == HOP_LIMIT
            && code == 0
            && packet.fragment == Fragment::Whole
            && (checked || packet.checksum_state(bytes) == ChecksumState::Valid);
        Some(match message {
            Some(message) if sound => read(kind, src, dst, message).ok_or(NdError),
            _ => Err(NdError),
        })
    }

    /// Whether this is a probe for duplicate address detection.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(self, Nd::Solicitation { from, .. } if from.is_unspecified())
    }
}

fn read(kind: u8, src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> Option<Nd> {
    let (message, options) = NeighborMessage::ref_from_prefix(message).ok()?;
    let target = Ipv6Addr::from(message.target);
    if target.is_multicast() {
        return None;
    }
    let wanted = match kind {
        SOLICITATION => SOURCE_LINK_LAYER,
        _ => TARGET_LINK_LAYER,
    };
    let mac = link_layer(options, wanted)?;
    if kind == SOLICITATION {
        // A solicitation from "::" is sent to the target's solicited-node group without a MAC address.
        let probe = src.is_unspecified();
        if probe && (mac.is_some() || dst != solicited_node(target)) {
            return None;
        }
        return Some(Nd::Solicitation {
            from: src,
            target,
            mac,
        });
    }
    let solicited = message.flags & SOLICITED != 0;
    let flags = AdvertisementFlags {
        router: message.flags & ROUTER_FLAG != 0,
        overrides: message.flags & OVERRIDE != 0,
    };
    if solicited && dst.is_multicast() {
        return None;
    }
    Some(Nd::Advertisement {
        target,
        mac,
        solicited,
        flags,
    })
}

/// Returns the MAC address in the option of this type, if there is one; `None` if the options are malformed.
fn link_layer(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        // Every option is at least one word of eight bytes long, as this one is.
        let (option, _) = LinkLayerOption::ref_from_prefix(options).ok()?;
        let len = usize::from(option.length) * size_of::<LinkLayerOption>();
        if len == 0 {
            return None;
        }
        if option.kind == wanted && found.is_none() {
            found = Some(option.mac);
        }
        options = options.get(len..)?;
    }
    Some(found)
}

/// Returns the solicited-node multicast address of an address (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let [high, low] = [0xff00 | u16::from(a), u16::from_be_bytes([b, c])];
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low)
}

/// Builds a solicitation for `target` from `from` at `mac`, as a complete IPv6 packet with its checksum. `to` is the
/// target's solicited-node group, or the target itself to probe its reachability.
#[must_use]
pub fn solicitation(
    target: Ipv6Addr,
    mac: Mac,
    from: Ipv6Addr,
    to: Ipv6Addr,
) -> [u8; ADVERTISEMENT_LEN] {
    message(SOLICITATION, 0, from, to, target, (SOURCE_LINK_LAYER, mac))
}

/// Builds an advertisement that `target` is at `mac`, as a complete IPv6 packet with its checksum, in reply to a
/// solicitation from `to`; if that is `::`, it goes to all nodes. A proxy repeats the `flags` of the target (RFC
/// 9047).
#[must_use]
pub fn advertisement(
    target: Ipv6Addr,
    mac: Mac,
    to: Ipv6Addr,
    flags: AdvertisementFlags,
) -> [u8; ADVERTISEMENT_LEN] {
    let probe = to.is_unspecified();
    let dst = if probe { ALL_NODES } else { to };
    // Solicited unless it goes to all nodes.
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags =
        bit(!probe, SOLICITED) | bit(flags.router, ROUTER_FLAG) | bit(flags.overrides, OVERRIDE);
    let option = (TARGET_LINK_LAYER, mac);
    message(ADVERTISEMENT, flags, target, dst, target, option)
}

fn message(
    kind: u8,
    flags: u8,
    src: Ipv6Addr,
    dst: Ipv6Addr,
    target: Ipv6Addr,
    (option, mac): (u8, Mac),
) -> [u8; ADVERTISEMENT_LEN] {
    let mut message = NeighborMessage {
        kind,
        code: 0,
        checksum: U16::ZERO,
        flags,
        reserved: [0; 3],
        target: target.octets(),
    };
    let option = LinkLayerOption {
        kind: option,
        length: 1,
        mac,
    };
    let len = (size_of_val(&message) + size_of_val(&option)) as u16;
    let pseudo = pseudo_header(src.into(), dst.into(), protocol::ICMPV6, len.into());
    let sum = pseudo.bytes(message.as_bytes()).bytes(option.as_bytes());
    message.checksum = sum.checksum().into();
    transmute!(WholeMessage {
        ip: Ipv6Header {
            hop_limit: HOP_LIMIT,
            ..Ipv6Header::new(src, dst, protocol::ICMPV6, len)
        },
        message,
        option,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ND_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ND_ADDR_A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0x12, 0x3456);
    const ND_ADDR_B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn message(kind: u8, src: Ipv6Addr, dst: Ipv6Addr, rest: &[u8]) -> Vec<u8> {
        let header = Ipv6Header {
            hop_limit: 255,
            ..Ipv6Header::new(src, dst, protocol::ICMPV6, 8 + rest.len() as u16)
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(rest);
        whole(bytes)
    }

    fn whole(mut bytes: Vec<u8>) -> Vec<u8> {
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.write_checksum(&mut bytes));
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Result<Nd, NdError>> {
        Nd::parse(&Packet::parse(bytes).unwrap(), bytes, false)
    }

    fn solicitation(options: &[u8]) -> Vec<u8> {
        let rest = [&ND_ADDR_A.octets()[..], options].concat();
        message(135, ND_ADDR_B, solicited_node(ND_ADDR_A), &rest)
    }

    #[test]
    fn a_solicitation_names_its_target_and_its_sender() {
        assert_eq!(
            solicited_node(ND_ADDR_A),
            "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap()
        );
        let expected = Nd::Solicitation {
            from: ND_ADDR_B,
            target: ND_ADDR_A,
            mac: Some(ND_MAC),
        };
        // An unrelated option comes first.
        let options = [14, 1, 1, 2, 3, 4, 5, 6, 1, 1, 2, 0, 0, 0, 0, 1];
        assert_eq!(parse(&solicitation(&options)), Some(Ok(expected)));
        assert!(!expected.is_probe());
    }

    #[test]
    fn a_probe_for_duplicates_has_no_address_and_tells_no_mac() {
        let probe = message(
            135,
            Ipv6Addr::UNSPECIFIED,
            solicited_node(ND_ADDR_A),
            &ND_ADDR_A.octets(),
        );
        let nd = parse(&probe).unwrap().unwrap();
        assert!(nd.is_probe());
        let with_mac = [&ND_ADDR_A.octets()[..], &[1, 1, 2, 0, 0, 0, 0, 1]].concat();
        let bytes = message(
            135,
            Ipv6Addr::UNSPECIFIED,
            solicited_node(ND_ADDR_A),
            &with_mac,
        );
        assert_eq!(parse(&bytes), Some(Err(NdError)));
        let elsewhere = message(135, Ipv6Addr::UNSPECIFIED, ND_ADDR_A, &ND_ADDR_A.octets());
        assert_eq!(parse(&elsewhere), Some(Err(NdError)));
    }

    #[test]
    fn what_rfc_4861_discards_is_refused() {
        let good = solicitation(&[1, 1, 2, 0, 0, 0, 0, 1]);
        let broken = |at: usize, value: u8, sum: bool| {
            let mut bytes = good.clone();
            bytes[at] = value;
            if sum { whole(bytes) } else { bytes }
        };
        let hop_limit = broken(7, 254, true);
        let code = broken(41, 1, true);
        let checksum = broken(60, 99, false);
        let multicast_target = broken(48, 0xff, true);
        let empty_option = broken(65, 0, true);
        let long_option = broken(65, 2, true);
        for bytes in [
            hop_limit,
            code,
            checksum,
            multicast_target,
            empty_option,
            long_option,
        ] {
            assert_eq!(parse(&bytes), Some(Err(NdError)));
        }
        let short = message(135, ND_ADDR_B, ND_ADDR_A, &ND_ADDR_A.octets()[..8]);
        assert_eq!(parse(&short), Some(Err(NdError)));
        let odd_tail = solicitation(&[1]);
        assert_eq!(parse(&odd_tail), Some(Err(NdError)));
        let mut solicited_to_all = [&[0u8; 16][..]].concat();
        solicited_to_all[0] = 0xfd;
        let mut bytes = message(136, ND_ADDR_A, ALL_NODES, &solicited_to_all);
        bytes[44] = 0x40;
        assert_eq!(parse(&whole(bytes)), Some(Err(NdError)));
    }

    #[test]
    fn an_advertisement_has_the_layout_of_rfc_4861() {
        let flags = AdvertisementFlags {
            router: true,
            overrides: true,
        };
        let bytes = advertisement(ND_ADDR_A, ND_MAC, ND_ADDR_B, flags);
        assert_eq!(bytes.len(), 72);
        assert_eq!(bytes[..8], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!((bytes[40], bytes[41], bytes[44]), (136, 0, 0xe0));
        assert_eq!(bytes[48..64], ND_ADDR_A.octets());
        assert_eq!(bytes[64..], [2, 1, 2, 0, 0, 0, 0, 1]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid);
    }

    #[test]
    fn other_packets_are_neither() {
        assert_eq!(parse(&message(134, ND_ADDR_A, ALL_NODES, &[0; 16])), None);
        assert_eq!(parse(&message(128, ND_ADDR_A, ND_ADDR_B, &[])), None);
    }

    #[test]
    fn an_advertisement_answers_whoever_asked_or_everybody() {
        let none = AdvertisementFlags::default();
        let bytes = advertisement(ND_ADDR_A, ND_MAC, ND_ADDR_B, none);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(
            (packet.src, packet.dst),
            (ND_ADDR_A.into(), ND_ADDR_B.into())
        );
        let expected = Nd::Advertisement {
            target: ND_ADDR_A,
            mac: Some(ND_MAC),
            solicited: true,
            flags: none,
        };
        assert_eq!(parse(&bytes), Some(Ok(expected)));
        let bytes = advertisement(ND_ADDR_A, ND_MAC, Ipv6Addr::UNSPECIFIED, none);
        assert_eq!(Packet::parse(&bytes).unwrap().dst, IpAddr::V6(ALL_NODES));
        let expected = Nd::Advertisement {
            target: ND_ADDR_A,
            mac: Some(ND_MAC),
            solicited: false,
            flags: none,
        };
        assert_eq!(parse(&bytes), Some(Ok(expected)));
        for (router, overrides) in [(true, false), (false, true), (true, true)] {
            let said = AdvertisementFlags { router, overrides };
            let bytes = advertisement(ND_ADDR_A, ND_MAC, ND_ADDR_B, said);
            let Some(Ok(Nd::Advertisement { flags, .. })) = parse(&bytes) else {
                panic!("an advertisement");
            };
            assert_eq!(flags, said);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(target: Ipv6Addr, mac: [u8; 6], from: Ipv6Addr, router: bool, overrides: bool) {
            prop_assume!(!target.is_multicast() && !from.is_multicast() && !from.is_unspecified());
            let (mac, flags) = (Mac(mac), AdvertisementFlags { router, overrides });
            let bytes = advertisement(target, mac, from, flags);
            let said = Nd::Advertisement { target, mac: Some(mac), solicited: true, flags };
            prop_assert_eq!(parse(&bytes), Some(Ok(said)));
            let bytes = super::solicitation(target, mac, from, solicited_node(target));
            let asked = Nd::Solicitation { from, target, mac: Some(mac) };
            prop_assert_eq!(parse(&bytes), Some(Ok(asked)));
        }

        #[test]
        fn arbitrary_messages_never_panic(kind in 130u8..140, rest in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&message(kind, ND_ADDR_A, ND_ADDR_B, &rest));
        }
    }
}
