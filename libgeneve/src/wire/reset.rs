//! TCP resets in reply to rejected segments (RFC 9293 section 3.5.2).

use std::net::IpAddr;

use zerocopy::IntoBytes;

use super::ip::{Ipv4Header, Ipv6Header, protocol};
use super::packet::{Packet, Transport};
use super::tcp::{TCP_HEADER_LEN, TcpFlags, TcpHeader};

/// Writes the reset that answers `packet` into `out`, as a complete IP packet with all checksums, and returns its
/// length: 40 bytes over IPv4, 60 over IPv6. `None` if the packet is not a TCP segment, is itself a reset (RFC 9293
/// section 3.10.7.1), or `out` is too small.
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
    let len = packet.version.header_len() + TCP_HEADER_LEN;
    let out = out.get_mut(..len)?;
    let (ip, tcp) = out.split_at_mut(packet.version.header_len());
    let tcp_len = TCP_HEADER_LEN as u16;
    match (packet.src, packet.dst) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let header = Ipv4Header::new(from, to, protocol::TCP, tcp_len);
            header.to_bytes().write_to(ip).ok()?;
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            let header = Ipv6Header::new(from, to, protocol::TCP, tcp_len);
            header.write_to(ip).ok()?;
        }
        _ => return None,
    }
    let header = TcpHeader::new((dst, src), seq, ack, flags);
    header.write_to(tcp).ok()?;
    let reset = Packet::parse(out).ok()?;
    reset.write_checksum(out).then_some(len)
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
