//! Hand-made packets, and the few fields that scenarios read from captured ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// EtherType of IPv4 in a Geneve header.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6 in a Geneve header.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Geneve header with every field settable, valid or not.
#[derive(Clone, Debug)]
pub struct RawGeneve {
    /// 2 bits.
    pub version: u8,
    /// O, a control message.
    pub control: bool,
    /// C, critical options present.
    pub critical: bool,
    /// EtherType of the payload.
    pub protocol: u16,
    /// 24 bits.
    pub vni: u32,
    /// Raw option bytes; a multiple of four for a well-formed header.
    pub options: Vec<u8>,
    /// Opt Len in words, if it differs from that of `options`.
    pub words: Option<u8>,
    /// The 6 reserved bits next to C, and the last byte.
    pub reserved: (u8, u8),
}

impl RawGeneve {
    /// A plain header for a payload of IPv4.
    #[must_use]
    pub fn new(vni: u32) -> Self {
        Self {
            version: 0,
            control: false,
            critical: false,
            protocol: ETHERTYPE_IPV4,
            vni,
            options: Vec::new(),
            words: None,
            reserved: (0, 0),
        }
    }

    /// Header and payload.
    #[must_use]
    pub fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        let words = self.words.unwrap_or((self.options.len() / 4) as u8);
        let mut bytes = vec![
            self.version << 6 | words & 0x3f,
            u8::from(self.control) << 7 | u8::from(self.critical) << 6 | self.reserved.0 & 0x3f,
        ];
        bytes.extend(self.protocol.to_be_bytes());
        bytes.extend(&self.vni.to_be_bytes()[1..]);
        bytes.push(self.reserved.1);
        bytes.extend(&self.options);
        bytes.extend(payload);
        bytes
    }
}

/// One Geneve option; `data` must be a multiple of four bytes long.
#[must_use]
pub fn option(class: u16, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = class.to_be_bytes().to_vec();
    bytes.extend([kind, (data.len() / 4) as u8]);
    bytes.extend(data);
    bytes
}

/// Adds the RFC 1071 checksum of `bytes` to `sum`, without the final inversion.
#[must_use]
pub fn sum(sum: u32, bytes: &[u8]) -> u32 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut total = u64::from(sum) + words.map(u64::from).sum::<u64>();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u32
}

/// Checksum of a pseudo-header, not inverted.
#[must_use]
pub fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> u32 {
    let mut bytes = match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => [a.octets(), b.octets()].concat(),
        (IpAddr::V6(a), IpAddr::V6(b)) => [a.octets(), b.octets()].concat(),
        _ => panic!("addresses of two families"),
    };
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    sum(0, &bytes)
}

/// An IPv4 or IPv6 packet around a transport segment.
#[must_use]
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, segment: &[u8]) -> Vec<u8> {
    ip_with(from, to, protocol, segment, 0, 64)
}

/// As [`ip`], with DSCP/ECN and TTL.
#[must_use]
pub fn ip_with(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    segment: &[u8],
    tos: u8,
    ttl: u8,
) -> Vec<u8> {
    let mut bytes;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes = vec![0x45, tos];
            bytes.extend(((20 + segment.len()) as u16).to_be_bytes());
            bytes.extend([0, 1, 0x40, 0, ttl, protocol, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            let check = !(sum(0, &bytes) as u16);
            bytes[10..12].copy_from_slice(&check.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            bytes = vec![0x60 | tos >> 4, tos << 4, 0, 0];
            bytes.extend((segment.len() as u16).to_be_bytes());
            bytes.extend([protocol, ttl]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        _ => panic!("addresses of two families"),
    }
    bytes.extend(segment);
    bytes
}

/// A UDP datagram in an IP packet, with its checksum.
#[must_use]
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8]) -> Vec<u8> {
    let mut segment = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    segment.extend(((8 + payload.len()) as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    let check = !(sum(pseudo(from.0, to.0, 17, segment.len()), &segment) as u16);
    segment[6..8].copy_from_slice(&check.to_be_bytes());
    ip(from.0, to.0, 17, &segment)
}

/// The fragments of a UDP datagram, in order; each but the last has 800 bytes of payload.
///
/// # Panics
/// If the addresses are of two families.
#[must_use]
pub fn fragments(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8], id: u16) -> Vec<Vec<u8>> {
    const PIECE: usize = 800;
    let whole = udp(from, to, payload);
    let header_len = if from.0.is_ipv4() { 20 } else { 40 };
    let (header, segment) = whole.split_at(header_len);
    let count = segment.len().div_ceil(PIECE);
    let pieces = segment.chunks(PIECE).enumerate();
    let one = |(at, piece): (usize, &[u8])| {
        let (offset, more) = ((at * PIECE / 8) as u16, at + 1 < count);
        let mut bytes = header.to_vec();
        if from.0.is_ipv4() {
            let word = offset | u16::from(more) << 13;
            bytes[2..4].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            bytes[10..12].fill(0);
            let check = !(sum(0, &bytes) as u16);
            bytes[10..12].copy_from_slice(&check.to_be_bytes());
        } else {
            let word = offset << 3 | u16::from(more);
            bytes[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
            let next = std::mem::replace(&mut bytes[6], 44);
            bytes.extend([next, 0]);
            bytes.extend(word.to_be_bytes());
            bytes.extend(u32::from(id).to_be_bytes());
        }
        bytes.extend_from_slice(piece);
        bytes
    };
    pieces.map(one).collect()
}

/// Parsed IP packet of a capture.
#[derive(Clone, Debug)]
pub struct Parsed<'a> {
    /// The whole packet.
    pub bytes: &'a [u8],
    /// Source address.
    pub from: IpAddr,
    /// Destination address.
    pub to: IpAddr,
    /// Next header; extension headers are not followed.
    pub protocol: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// DF; true for IPv6.
    pub dont_fragment: bool,
    /// Payload of the IP header, as far as its length field says.
    pub segment: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// Parses an IP packet; `None` if it is not one.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 if bytes.len() >= 20 => {
                let header = usize::from(bytes[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]])).min(bytes.len());
                Some(Self {
                    bytes,
                    from: Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[12..16]).ok()?).into(),
                    to: Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[16..20]).ok()?).into(),
                    protocol: bytes[9],
                    tos: bytes[1],
                    ttl: bytes[8],
                    dont_fragment: bytes[6] & 0x40 != 0,
                    segment: bytes.get(header..total)?,
                })
            }
            6 if bytes.len() >= 40 => Some(Self {
                bytes,
                from: Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[8..24]).ok()?).into(),
                to: Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[24..40]).ok()?).into(),
                protocol: bytes[6],
                tos: bytes[0] << 4 | bytes[1] >> 4,
                ttl: bytes[7],
                dont_fragment: true,
                segment: &bytes[40..],
            }),
            _ => None,
        }
    }

    /// Source port, destination port and payload, if it is UDP.
    #[must_use]
    pub fn udp(&self) -> Option<(u16, u16, &'a [u8])> {
        let head = self.segment.get(..8).filter(|_| self.protocol == 17)?;
        let port = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
        Some((port(0), port(2), &self.segment[8..]))
    }

    /// The UDP checksum field, if it is UDP.
    #[must_use]
    pub fn udp_checksum(&self) -> Option<u16> {
        let head = self.segment.get(..8).filter(|_| self.protocol == 17)?;
        Some(u16::from_be_bytes([head[6], head[7]]))
    }

    /// The inner packet of a Geneve datagram to `port`.
    #[must_use]
    pub fn geneve(&self, port: u16) -> Option<(u32, &'a [u8])> {
        let (_, to, payload) = self.udp()?;
        let head = payload.get(..8).filter(|_| to == port)?;
        let vni = u32::from_be_bytes([0, head[4], head[5], head[6]]);
        Some((vni, payload.get(8 + usize::from(head[0] & 0x3f) * 4..)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_can_be_read() {
        for (a, b) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (a, b) = (a.parse().unwrap(), b.parse().unwrap());
            let bytes = udp((a, 7), (b, 9), b"hello");
            let packet = Parsed::new(&bytes).unwrap();
            assert_eq!((packet.from, packet.to, packet.ttl), (a, b, 64));
            assert_eq!(packet.udp().unwrap(), (7, 9, &b"hello"[..]));
            let whole = sum(pseudo(a, b, 17, packet.segment.len()), packet.segment);
            assert_eq!(whole, 0xffff);
        }
    }
}
