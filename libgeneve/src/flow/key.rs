//! Flow key: the link and the 5-tuple.
//!
//! Derives keys from packets and from the packets that ICMP errors quote, and computes the keyed hash that both
//! directions of a flow share. What is stored under a key is up to the table.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::link_index::LinkIndex;
use crate::wire::icmp::{Quote, QuotedTransport};
use crate::wire::packet::{Packet, Transport};

/// Key of one flow direction in one VPC.
///
/// ICMP has no ports: queries and their replies have their identifier as both ports, other messages their type. If
/// the transport is unknown, both are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Link of the packets.
    pub link: LinkIndex,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Transport protocol number, after IPv6 extension headers.
    pub protocol: u8,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl FlowKey {
    /// Returns the key of the packet, in its direction.
    #[inline]
    #[must_use]
    pub fn of(link: LinkIndex, packet: &Packet) -> FlowKey {
        let (sport, dport) = match packet.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (src, dst),
            Transport::Icmp { kind, id, .. } => twice(kind, id),
            Transport::Other | Transport::Unavailable => (0, 0),
        };
        FlowKey {
            link,
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol,
            sport,
            dport,
        }
    }

    /// Returns the key of the packet that an ICMP error quotes, in the direction of the quoted packet.
    #[must_use]
    pub fn of_quote(link: LinkIndex, quote: &Quote) -> FlowKey {
        let (sport, dport) = match quote.transport {
            QuotedTransport::Tcp { src, dst, .. } | QuotedTransport::Udp { src, dst } => (src, dst),
            QuotedTransport::Icmp { kind, id, .. } => twice(kind, id),
            QuotedTransport::Other | QuotedTransport::Unavailable => (0, 0),
        };
        FlowKey {
            link,
            src: quote.src,
            dst: quote.dst,
            protocol: quote.protocol,
            sport,
            dport,
        }
    }

    /// Returns the key of the other direction, with addresses and ports swapped.
    #[inline]
    #[must_use]
    pub fn reversed(self) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..self
        }
    }

    /// Returns a SipHash-1-3 of the key that is the same for both directions.
    #[inline]
    pub(super) fn hash_both_ways(&self, secret: [u64; 2]) -> u64 {
        let mut bytes = [0u8; 48];
        let (ports, used) = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (low, high, ports) =
                    ordered((u32::from(src), self.sport), (u32::from(dst), self.dport));
                bytes[..4].copy_from_slice(&low.to_be_bytes());
                bytes[4..8].copy_from_slice(&high.to_be_bytes());
                (ports, 8)
            }
            (src, dst) => {
                let (low, high, ports) =
                    ordered((number(src), self.sport), (number(dst), self.dport));
                bytes[..16].copy_from_slice(&low.to_be_bytes());
                bytes[16..32].copy_from_slice(&high.to_be_bytes());
                (ports, 32)
            }
        };
        bytes[used..used + 4].copy_from_slice(&self.link.0.to_be_bytes());
        bytes[used + 4..used + 8].copy_from_slice(&ports.to_be_bytes());
        bytes[used + 8] = self.protocol;
        let mut hasher = SipHasher13::new_with_keys(secret[0], secret[1]);
        hasher.write(&bytes[..used + 16]);
        hasher.finish()
    }
}

fn twice(kind: u8, id: Option<u16>) -> (u16, u16) {
    let number = id.unwrap_or(u16::from(kind));
    (number, number)
}

fn ordered<A: Ord>(a: (A, u16), b: (A, u16)) -> (A, A, u32) {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    (low.0, high.0, u32::from(low.1) << 16 | u32::from(high.1))
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().into(),
        IpAddr::V6(a) => a.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::icmp::IcmpError;
    use crate::wire::packet::tests::sample;
    use proptest::prelude::*;

    const KEY_LINK: LinkIndex = LinkIndex(3);

    pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ]
    }

    fn parsed() -> Vec<(&'static str, Vec<u8>, Packet)> {
        sample::all_transports()
            .into_iter()
            .map(|(name, bytes)| {
                let packet = Packet::parse(&bytes).unwrap();
                (name, bytes, packet)
            })
            .collect()
    }

    #[test]
    fn ports_are_those_of_the_transport_and_the_identifier_of_a_query() {
        let ports = |wanted: &str| {
            let (_, _, packet) = parsed().into_iter().find(|p| p.0 == wanted).unwrap();
            let key = FlowKey::of(KEY_LINK, &packet);
            (key.sport, key.dport)
        };
        assert_eq!(ports("tcp4"), (0x3039, 443));
        assert_eq!(ports("udp6"), (4000, 53));
        assert_eq!(ports("icmp4"), (0x1234, 0x1234));
        assert_eq!(ports("icmp6"), (0x1234, 0x1234));
        let advertisement = sample::v6(58, &[134, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let key = FlowKey::of(KEY_LINK, &Packet::parse(&advertisement).unwrap());
        assert_eq!((key.sport, key.dport), (134, 134));
        let esp = sample::v4(50, &[1; 16]);
        let key = FlowKey::of(KEY_LINK, &Packet::parse(&esp).unwrap());
        assert_eq!((key.protocol, key.sport, key.dport), (50, 0, 0));
    }

    #[test]
    fn an_icmp_error_names_the_flow_that_it_quotes() {
        for (name, bytes, packet) in parsed() {
            let mut out = [0; 1280];
            let error = IcmpError::TooBig { mtu: 1280 };
            let len = error.build(packet.dst, &packet, &bytes, &mut out).unwrap();
            let answer = Packet::parse(&out[..len]).unwrap();
            let quote = answer.quote(&out[..len]).unwrap();
            let key = FlowKey::of_quote(KEY_LINK, &quote);
            assert_eq!(key, FlowKey::of(KEY_LINK, &packet), "{name}");
        }
    }

    proptest! {
        #[test]
        fn both_directions_share_a_hash(
            src in address(), dst in address(), sport: u16, dport: u16, protocol: u8, secret: [u64; 2],
        ) {
            let key = FlowKey { link: KEY_LINK, src, dst, protocol, sport, dport };
            prop_assert_eq!(key.reversed().reversed(), key);
            prop_assert_eq!(key.hash_both_ways(secret), key.reversed().hash_both_ways(secret));
            let crossed = FlowKey { sport: dport, dport: sport, ..key };
            if sport != dport && src != dst {
                prop_assert_ne!(key.hash_both_ways(secret), crossed.hash_both_ways(secret));
            }
        }
    }
}
