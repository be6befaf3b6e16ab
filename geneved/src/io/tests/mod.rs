//! Tests of a worker over the in-memory backend: what is sent and written, what is dropped for which reason, and that
//! all resources are released.

mod egress;
mod frames;
mod ingress;
#[path = "../../../../libgeneve/tests/world/packets.rs"]
#[allow(dead_code)]
mod packets;
mod properties;
mod recover;
mod trains;
mod tunnel;

use std::net::IpAddr;

use libgeneve::drop::DropReason;
use libgeneve::offload::vnet::{self, GsoType, NEEDS_CSUM, VnetHdr};
use libgeneve::wire::geneve::{Geneve, GeneveBuilder};
use libgeneve::wire::ip::protocol;
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport::{TcpFlags, udp_header};

use super::counters::{LinkCounters, TrafficDirection};
use super::memory::InjectedFault;
use super::simulation::{SimulatedLink, Simulation};

/// Payload bytes of each segment, which begin with its flow and its number.
const SEGMENT: usize = 64;
/// Local port of flow 0; the other flows use the next ones.
const PORT: u16 = 1000;

/// Segments of one flow between 10.0.0.1 and an address on another host.
#[derive(Clone, Copy, Debug)]
struct Segments {
    flow: u16,
    first: u32,
    count: u32,
    tcp: bool,
}

impl Segments {
    fn udp(flow: u16, first: u32, count: u32) -> Segments {
        let tcp = false;
        Segments {
            flow,
            first,
            count,
            tcp,
        }
    }

    fn tcp(flow: u16, first: u32, count: u32) -> Segments {
        let tcp = true;
        Segments {
            flow,
            first,
            count,
            tcp,
        }
    }

    /// Remote address, determined by the flow.
    fn remote(&self) -> IpAddr {
        [10, 0, 0, 2 + (self.flow % 2) as u8].into()
    }

    fn payload(&self, number: u32) -> [u8; SEGMENT] {
        let mut payload = [self.flow as u8 ^ number as u8; SEGMENT];
        payload[..2].copy_from_slice(&self.flow.to_be_bytes());
        payload[2..6].copy_from_slice(&number.to_be_bytes());
        payload
    }

    /// Builds one IP packet with these payloads, from here to the other host or back.
    fn packet(&self, numbers: std::ops::Range<u32>, outward: bool) -> Vec<u8> {
        let payload: Vec<u8> = numbers.clone().flat_map(|n| self.payload(n)).collect();
        let local: IpAddr = [10, 0, 0, 1].into();
        let (here, there) = ((local, PORT + self.flow), (self.remote(), 2000));
        let (src, dst) = if outward {
            (here, there)
        } else {
            (there, here)
        };
        let ports = (src.1, dst.1);
        let (number, mut transport) = match self.tcp {
            true => {
                let sequence = 1 + numbers.start * SEGMENT as u32;
                (
                    protocol::TCP,
                    packets::tcp_header(ports, TcpFlags::ACK, sequence),
                )
            }
            false => {
                let len = (8 + payload.len()) as u16;
                (protocol::UDP, udp_header(ports.0, ports.1, len, 0).to_vec())
            }
        };
        transport.extend(payload);
        packets::in_ip((src.0, dst.0), number, (0, true), &transport)
    }

    /// All segments as TUN delivers them: one packet, to be segmented if there are several.
    fn as_tun_read(&self) -> Vec<u8> {
        let packet = self.packet(self.first..self.first + self.count, true);
        let (gso_type, csum_offset, header) = match self.tcp {
            true => (GsoType::TcpV4, 16, 20),
            false => (GsoType::UdpL4, 6, 8),
        };
        let vnet = match self.count {
            1 => VnetHdr::NONE,
            _ => VnetHdr {
                flags: NEEDS_CSUM,
                gso_type,
                gso_size: SEGMENT as u16,
                hdr_len: 20 + header,
                csum_start: 20,
                csum_offset,
                ..VnetHdr::NONE
            },
        };
        with_vnet(&vnet, &packet)
    }

    /// All segments as they arrive from the wire: the length of the datagrams, and the train.
    fn as_train(&self, link: SimulatedLink) -> (u16, Vec<u8>) {
        let all = self.first..self.first + self.count;
        let datagrams: Vec<_> = all
            .map(|n| encapsulated(link, &self.packet(n..n + 1, false)))
            .collect();
        let segment = match self.count {
            1 => 0,
            _ => datagrams[0].len() as u16,
        };
        (segment, datagrams.concat())
    }

    fn stamps(&self) -> Vec<(u16, u32)> {
        let all = self.first..self.first + self.count;
        all.map(|n| (self.flow, n)).collect()
    }
}

fn with_vnet(vnet: &VnetHdr, packet: &[u8]) -> Vec<u8> {
    let mut header = [0; vnet::LEN];
    vnet.write(&mut header);
    [&header[..], packet].concat()
}

fn encapsulated(link: SimulatedLink, packet: &[u8]) -> Vec<u8> {
    let header = GeneveBuilder::new(link.vni(), 0x0800).finish();
    packets::behind(&header, packet)
}

/// Flow and number of each segment of a packet; empty if it is not one of [`Segments`].
fn stamps(packet: &[u8]) -> Vec<(u16, u32)> {
    let parsed = Packet::parse(packet).expect("a sound packet");
    if !matches!(parsed.protocol, protocol::TCP | protocol::UDP) {
        return Vec::new();
    }
    let payload = &packet[parsed.payload_offset.into()..parsed.total_len.into()];
    assert!(payload.len().is_multiple_of(SEGMENT));
    let stamp = |segment: &[u8]| {
        let flow = u16::from_be_bytes([segment[0], segment[1]]);
        let number = u32::from_be_bytes(segment[2..6].try_into().unwrap());
        assert!(segment[6..].iter().all(|&b| b == flow as u8 ^ number as u8));
        (flow, number)
    };
    payload.chunks(SEGMENT).map(stamp).collect()
}

/// Stamps of the packets sent on the link in mode ip, in order.
fn sent_stamps(simulation: &mut Simulation) -> Vec<(u16, u32)> {
    let sent = simulation.take_sent();
    sent.iter()
        .flat_map(|datagram| stamps(Geneve::parse(&datagram.payload).unwrap().payload()))
        .collect()
}

/// Stamps of the packets written to this TUN, in order.
fn written_stamps(simulation: &mut Simulation, link: SimulatedLink) -> Vec<(u16, u32)> {
    let written = simulation.take_written(link);
    written
        .iter()
        .flat_map(|bytes| stamps(&bytes[vnet::LEN..]))
        .collect()
}

/// All drops.
fn drops(counters: &LinkCounters) -> Vec<(TrafficDirection, DropReason, u64)> {
    let of = |direction| {
        let drops = counters.drops(direction);
        drops.map(move |(reason, count)| (direction, reason, count))
    };
    of(TrafficDirection::Ingress)
        .chain(of(TrafficDirection::Egress))
        .collect()
}
