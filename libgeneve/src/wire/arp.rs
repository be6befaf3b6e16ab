//! ARP for IPv4 over Ethernet (RFC 826, RFC 5227): layout, checked message, writer.
//!
//! Owns the layout, and which messages are probes and announcements. [`crate::l2`] decides who may claim an
//! address and who answers.

use std::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use super::ethernet::{Mac, ethertype};
use super::prefix;

/// Bytes of an ARP message for IPv4 over Ethernet.
pub const ARP_LEN: usize = size_of::<ArpPacket>();

/// `ares_hrd$Ethernet`.
const ETHERNET: u16 = 1;
/// `ares_op$REQUEST`.
const REQUEST: u16 = 1;
/// `ares_op$REPLY`.
const REPLY: u16 = 2;

/// An ARP packet with the addresses of IPv4 over Ethernet (RFC 826, "Packet format").
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ArpPacket {
    /// `ar$hrd`: the hardware address space; 1 is Ethernet.
    pub hardware_type: U16,
    /// `ar$pro`: the protocol address space, as an EtherType.
    pub protocol_type: U16,
    /// `ar$hln`: bytes of each hardware address.
    pub hardware_len: u8,
    /// `ar$pln`: bytes of each protocol address.
    pub protocol_len: u8,
    /// `ar$op`: 1 is a request, 2 a reply.
    pub operation: U16,
    /// `ar$sha`: the sender's hardware address.
    pub sender_hardware: Mac,
    /// `ar$spa`: the sender's protocol address.
    pub sender_protocol: [u8; 4],
    /// `ar$tha`: the target's hardware address, if known.
    pub target_hardware: Mac,
    /// `ar$tpa`: the target's protocol address.
    pub target_protocol: [u8; 4],
}

impl ArpPacket {
    /// Whether the hardware and protocol fields are those of IPv4 over Ethernet.
    fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware_type == ETHERNET
            && self.protocol_type == ethertype::IPV4
            && usize::from(self.hardware_len) == size_of::<Mac>()
            && usize::from(self.protocol_len) == size_of::<Ipv4Addr>()
    }
}

/// ARP operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Asks who has the target address.
    Request,
    /// Says that the sender has the sender address.
    Reply,
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
    /// The sender's MAC address.
    pub sender_mac: Mac,
    /// The sender's address; 0.0.0.0 in a probe.
    pub sender: Ipv4Addr,
    /// The target's MAC address; meaningless in a request.
    pub target_mac: Mac,
    /// The requested address, or the address of the reply's receiver.
    pub target: Ipv4Addr,
}

/// Why bytes are not an ARP message that an overlay may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArpError {
    /// Fewer than [`ARP_LEN`] bytes.
    #[error("shorter than an ARP message")]
    Truncated,
    /// Not for IPv4 over Ethernet.
    #[error("not ARP for IPv4 over Ethernet")]
    Kind,
    /// Neither request nor reply: RARP and others have no use in an overlay.
    #[error("neither request nor reply")]
    Operation,
}

impl Arp {
    /// Parses the ARP message at the start of `bytes`; whatever follows it is padding.
    ///
    /// # Errors
    /// See [`ArpError`].
    pub fn parse(bytes: &[u8]) -> Result<Arp, ArpError> {
        let packet: &ArpPacket = prefix(bytes).ok_or(ArpError::Truncated)?;
        if !packet.is_ipv4_over_ethernet() {
            return Err(ArpError::Kind);
        }
        let operation = match packet.operation.get() {
            REQUEST => ArpOperation::Request,
            REPLY => ArpOperation::Reply,
            _ => return Err(ArpError::Operation),
        };
        Ok(Arp {
            operation,
            sender_mac: packet.sender_hardware,
            sender: packet.sender_protocol.into(),
            target_mac: packet.target_hardware,
            target: packet.target_protocol.into(),
        })
    }

    /// Returns the message in wire format.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ARP_LEN] {
        let operation = match self.operation {
            ArpOperation::Request => REQUEST,
            ArpOperation::Reply => REPLY,
        };
        transmute!(ArpPacket {
            hardware_type: ETHERNET.into(),
            protocol_type: ethertype::IPV4.into(),
            hardware_len: size_of::<Mac>() as u8,
            protocol_len: size_of::<Ipv4Addr>() as u8,
            operation: operation.into(),
            sender_hardware: self.sender_mac,
            sender_protocol: self.sender.octets(),
            target_hardware: self.target_mac,
            target_protocol: self.target.octets(),
        })
    }

    /// Returns the reply to this request, which says that `mac` has the target address.
    #[must_use]
    pub fn reply(&self, mac: Mac) -> Arp {
        Arp {
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender: self.target,
            target_mac: self.sender_mac,
            target: self.sender,
        }
    }

    /// Whether the sender checks that an address is free before using it (RFC 5227 section 1.1).
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.operation == ArpOperation::Request && self.sender.is_unspecified()
    }

    /// Whether the sender announces its own address (RFC 5227 section 1.1, RFC 5944 section 4.6).
    #[must_use]
    pub fn is_announcement(&self) -> bool {
        self.sender == self.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Arp {
        Arp {
            operation: ArpOperation::Request,
            sender_mac: Mac([2, 0, 0, 0, 0, 1]),
            sender: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: Mac([0; 6]),
            target: Ipv4Addr::new(10, 0, 0, 2),
        }
    }

    #[test]
    fn a_request_is_what_rfc_826_says() {
        let bytes = request().to_bytes();
        let expected = [
            0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
        ];
        assert_eq!(bytes, expected);
        assert_eq!(Arp::parse(&bytes), Ok(request()));
    }

    #[test]
    fn a_reply_turns_sender_and_target_around() {
        let reply = request().reply(Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(reply.operation, ArpOperation::Reply);
        assert_eq!(reply.sender, request().target);
        assert_eq!(reply.sender_mac, Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(reply.target, request().sender);
        assert_eq!(reply.target_mac, request().sender_mac);
    }

    #[test]
    fn probes_and_announcements_are_told_from_questions() {
        assert!(!request().is_probe() && !request().is_announcement());
        let probe = Arp {
            sender: Ipv4Addr::UNSPECIFIED,
            ..request()
        };
        assert!(probe.is_probe() && !probe.is_announcement());
        let announcement = Arp {
            target: request().sender,
            ..request()
        };
        assert!(announcement.is_announcement() && !announcement.is_probe());
    }

    #[test]
    fn what_is_not_arp_for_ipv4_over_ethernet_is_refused() {
        let good = request().to_bytes();
        assert_eq!(Arp::parse(&good[..27]), Err(ArpError::Truncated));
        for at in 0..6 {
            let mut bytes = good;
            bytes[at] ^= 1;
            assert_eq!(Arp::parse(&bytes), Err(ArpError::Kind));
        }
        for operation in [0, 3, 4, 255] {
            let mut bytes = good;
            bytes[7] = operation;
            assert_eq!(Arp::parse(&bytes), Err(ArpError::Operation));
        }
    }

    proptest! {
        #[test]
        fn what_parses_is_written_back_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 20..60), shape in any::<bool>()) {
            let mut bytes = bytes;
            if shape {
                bytes[..6].copy_from_slice(&request().to_bytes()[..6]);
                bytes[6] = 0;
                bytes[7] = 1 + bytes[7] % 2;
            }
            if let Ok(arp) = Arp::parse(&bytes) {
                prop_assert_eq!(&arp.to_bytes()[..], &bytes[..ARP_LEN]);
            }
        }
    }
}
