//! Packets for the tests of this folder: TCP and UDP over both families, with finished checksums.

use std::ops::Range;

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::segments::SegmentSink;
use super::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use crate::wire::ip::{Ipv4Header, Ipv6Header, protocol};
use crate::wire::packet::Packet;
use crate::wire::tcp::{TcpFlags, TcpHeader};
use crate::wire::udp::udp_header;

/// Header fields of a sample packet.
#[derive(Clone, Debug)]
pub(crate) struct SamplePacket {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    pub(crate) port: u16,
    pub(crate) seq: u32,
    pub(crate) flags: TcpFlags,
    /// A multiple of 4, at most 40 bytes.
    pub(crate) options: Vec<u8>,
    pub(crate) id: u16,
    pub(crate) df: bool,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
}

impl Default for SamplePacket {
    fn default() -> Self {
        SamplePacket {
            v6: false,
            tcp: true,
            port: 40_000,
            seq: 1000,
            flags: TcpFlags::ACK,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            id: 7,
            df: true,
            tos: 0,
            ttl: 64,
            payload: vec![0x5a; 100],
        }
    }
}

impl SamplePacket {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut transport = if self.tcp {
            let header = TcpHeader {
                data_offset: (20 + self.options.len() as u8) << 2,
                window: 501.into(),
                ..TcpHeader::new((self.port, 443), self.seq, 77, self.flags)
            };
            [header.as_bytes(), &self.options].concat()
        } else {
            udp_header(self.port, 53, (8 + self.payload.len()) as u16, 0).to_vec()
        };
        transport.extend_from_slice(&self.payload);
        let number = if self.tcp {
            protocol::TCP
        } else {
            protocol::UDP
        };
        let header = if self.v6 {
            let (src, dst) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
            Ipv6Header {
                version_class_flow: Ipv6Header::class_and_flow(self.tos, 0x12345),
                hop_limit: self.ttl,
                ..Ipv6Header::new(src, dst, number, transport.len() as u16)
            }
            .to_bytes()
            .to_vec()
        } else {
            let (src, dst) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
            let flags = if self.df {
                Ipv4Header::DONT_FRAGMENT
            } else {
                0
            };
            Ipv4Header {
                tos: self.tos,
                identification: self.id.into(),
                flags_fragment_offset: flags.into(),
                ttl: self.ttl,
                ..Ipv4Header::new(src, dst, number, transport.len() as u16)
            }
            .to_bytes()
            .to_vec()
        };
        let mut bytes = [header, transport].concat();
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.write_checksum(&mut bytes));
        bytes
    }

    /// The packet as a super-packet from TUN: partial checksum, segments of `gso_size`.
    pub(crate) fn super_packet(&self, gso_size: u16) -> (VnetHdr, Packet, Vec<u8>) {
        let mut bytes = self.bytes();
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.write_partial_checksum(&mut bytes));
        let gso_type = match (self.tcp, self.v6) {
            (true, false) => GsoType::TcpV4,
            (true, true) => GsoType::TcpV6,
            (false, _) => GsoType::UdpL4,
        };
        let vnet = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type,
            ecn: self.tcp && self.flags.contains(TcpFlags::CWR),
            hdr_len: packet.payload_offset,
            gso_size,
            csum_start: packet.transport_offset,
            csum_offset: if self.tcp { 16 } else { 6 },
        };
        (vnet, packet, bytes)
    }
}

/// Any packet with a payload of up to `longest` bytes.
pub(crate) fn any_sample(longest: usize) -> impl Strategy<Value = SamplePacket> {
    let headers = (
        any::<bool>(),
        any::<bool>(),
        any::<u32>(),
        any::<u8>(),
        0usize..=10,
    );
    let ip = (any::<u16>(), any::<bool>(), any::<u8>(), any::<u8>());
    (headers, ip, 1..=longest, any::<u8>()).prop_map(
        |((v6, tcp, seq, flags, options), (id, df, tos, ttl), len, seed)| SamplePacket {
            v6,
            tcp,
            seq,
            flags: TcpFlags(flags).without(TcpFlags::SYN | TcpFlags::RST | TcpFlags::URG),
            options: vec![1; options * 4],
            id,
            df,
            tos,
            ttl,
            payload: (0..len).map(|i| (i as u8).wrapping_mul(seed | 1)).collect(),
            ..SamplePacket::default()
        },
    )
}

/// Collects the pieces.
#[derive(Default, Debug)]
pub(crate) struct SegmentCollector {
    pub(crate) pieces: Vec<(Vec<u8>, Range<usize>)>,
}

impl SegmentSink for SegmentCollector {
    fn segment(&mut self, header: &[u8], payload: Range<usize>) {
        self.pieces.push((header.to_vec(), payload));
    }
}

impl SegmentCollector {
    /// The packets as sent, with their encapsulation.
    pub(crate) fn packets(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let join = |(header, payload): &(Vec<u8>, Range<usize>)| {
            [header, &bytes[payload.clone()]].concat()
        };
        self.pieces.iter().map(join).collect()
    }
}
