//! The TCP reset that answers a segment nobody wants (RFC 9293 section 3.5.2).

use std::net::IpAddr;

use super::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4Header, Ipv6Header, protocol};
use super::packet::{Packet, Transport};
use super::transport::{TCP_HEADER_LEN, TcpFlags};

/// The TTL or hop limit of a reset.
const TTL: u8 = 64;

/// Writes the reset that answers `packet` into `out`, as a whole IP packet with all checksums, and gives its length:
/// 40 bytes over IPv4, 60 over IPv6. `None` if the packet is no TCP segment, is itself a reset (RFC 9293 section 3.10.7.1),
/// or `out` is too small.
#[must_use]
pub fn answer(packet: &Packet, out: &mut [u8]) -> Option<usize> {
    let Transport::Tcp {
        src,
        dst,
        flags,
        seq,
        ack,
    } = packet.transport
    else {
        return None;
    };
    if flags.contains(TcpFlags::RST) {
        return None;
    }
    let segment_len = u32::from(packet.payload_len())
        + u32::from(flags.contains(TcpFlags::SYN))
        + u32::from(flags.contains(TcpFlags::FIN));
    let (seq, ack, flags) = if flags.contains(TcpFlags::ACK) {
        (ack, 0, TcpFlags::RST)
    } else {
        (
            0,
            seq.wrapping_add(segment_len),
            TcpFlags::RST | TcpFlags::ACK,
        )
    };
    let ip_len = match (packet.src, packet.dst) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let header = Ipv4Header {
                tos: 0,
                total_len: (IPV4_HEADER_LEN + TCP_HEADER_LEN) as u16,
                identification: 0,
                dont_fragment: true,
                ttl: TTL,
                protocol: protocol::TCP,
                src: from,
                dst: to,
            };
            out.get_mut(..IPV4_HEADER_LEN)?
                .copy_from_slice(&header.to_bytes());
            IPV4_HEADER_LEN
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                flow_label: 0,
                payload_len: TCP_HEADER_LEN as u16,
                next_header: protocol::TCP,
                hop_limit: TTL,
                src: from,
                dst: to,
            };
            out.get_mut(..IPV6_HEADER_LEN)?
                .copy_from_slice(&header.to_bytes());
            IPV6_HEADER_LEN
        }
        _ => return None,
    };
    let len = ip_len + TCP_HEADER_LEN;
    let tcp = out.get_mut(ip_len..len)?;
    tcp.fill(0);
    tcp[0..2].copy_from_slice(&dst.to_be_bytes());
    tcp[2..4].copy_from_slice(&src.to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = flags.0;
    let whole = out.get_mut(..len)?;
    let reset = Packet::parse(whole).ok()?;
    reset.write_checksum(whole).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::tests::sample;
    use crate::wire::transport_checksum::ChecksumState;

    fn tcp_samples() -> Vec<Packet> {
        let all = sample::all_transports();
        let packets = all.iter().map(|(_, bytes)| Packet::parse(bytes).unwrap());
        let tcp: Vec<_> = packets
            .filter(|p| matches!(p.transport, Transport::Tcp { .. }))
            .collect();
        assert!(!tcp.is_empty());
        tcp
    }

    fn with(packet: Packet, set: TcpFlags, at: u32) -> Packet {
        let Transport::Tcp { src, dst, .. } = packet.transport else {
            panic!("TCP");
        };
        let transport = Transport::Tcp {
            src,
            dst,
            flags: set,
            seq: at,
            ack: 77,
        };
        Packet {
            transport,
            ..packet
        }
    }

    #[test]
    fn a_syn_is_answered_by_a_reset_that_acknowledges_it() {
        for packet in tcp_samples() {
            let syn = with(packet, TcpFlags::SYN, u32::MAX);
            let mut out = [0; 60];
            let len = answer(&syn, &mut out).unwrap();
            let reset = Packet::parse(&out[..len]).unwrap();
            assert_eq!((reset.src, reset.dst), (packet.dst, packet.src));
            assert_ne!(reset.checksum_state(&out[..len]), ChecksumState::Wrong);
            let Transport::Tcp {
                flags, seq, ack, ..
            } = reset.transport
            else {
                panic!("TCP");
            };
            let expected = u32::from(packet.payload_len());
            assert_eq!(
                (flags, seq, ack),
                (TcpFlags::RST | TcpFlags::ACK, 0, expected)
            );
        }
    }

    #[test]
    fn an_acknowledgement_is_answered_at_its_place_and_a_reset_never() {
        let packet = tcp_samples()[0];
        let mut out = [0; 60];
        let len = answer(&with(packet, TcpFlags::ACK, 5), &mut out).unwrap();
        let reset = Packet::parse(&out[..len]).unwrap();
        let Transport::Tcp { flags, seq, .. } = reset.transport else {
            panic!("TCP");
        };
        assert_eq!((flags, seq), (TcpFlags::RST, 77));
        assert!(answer(&with(packet, TcpFlags::RST, 5), &mut out).is_none());
        assert!(answer(&with(packet, TcpFlags::SYN, 5), &mut out[..30]).is_none());
    }
}
