//! Record of a packet seen by a tap, and its encoding in the ring.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libgeneve::drop::DropReason;
use libgeneve::time::Now;
use libgeneve::vpc::LinkIndex;
use libgeneve::wire::encapsulation::InnerProtocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::filter::FlowTuple;
use crate::io::counters::TrafficDirection;

/// Outer header fields of a datagram. An unknown address is unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterHeader {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit; `None` if unknown.
    pub ttl: Option<u8>,
}

/// Outcome of a packet.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct PacketOutcome {
    pub(in crate::io) now: Now,
    pub(in crate::io) link: Option<LinkIndex>,
    pub(in crate::io) direction: TrafficDirection,
    /// Reason for the drop, if it was dropped.
    pub(in crate::io) reason: Option<DropReason>,
    /// Number of packets on the wire.
    pub(in crate::io) packets: u64,
}

/// Layer that the bytes of a record begin at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordLayer {
    /// Inner packet, from its IP header on.
    Inner,
    /// Inner frame, from its Ethernet header on.
    Frame,
    /// Datagram payload, from its Geneve header on.
    Payload,
    /// Whole underlay packet, from its IP header on.
    Whole,
}

/// Packet as seen by a tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapRecord<'a> {
    /// Time of the packet path.
    pub time: Now,
    /// Link; `None` if the packet was dropped before it was known.
    pub link: Option<LinkIndex>,
    /// Direction.
    pub direction: TrafficDirection,
    /// Reason for the drop, if it was dropped.
    pub reason: Option<DropReason>,
    /// Number of packets on the wire: more than one for a super-packet.
    pub packets: u32,
    /// 5-tuple; `None` if it cannot be parsed.
    pub tuple: Option<FlowTuple>,
    /// Outer header fields, if the packet was received from or sent to the underlay.
    pub outer: Option<OuterHeader>,
    /// Layer of `bytes`.
    pub layer: RecordLayer,
    /// Full length in bytes.
    pub length: u32,
    /// The bytes, truncated to the snapshot length.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RecordHeader {
    time: u64,
    pub(super) stored: u32,
    length: u32,
    packets: u32,
    link: u32,
    addresses: [[u8; 16]; 4],
    ports: [u16; 4],
    protocol: u8,
    flags: u8,
    reason: u8,
    layer: u8,
    tos: u8,
    ttl: u8,
    spare: [u8; 2],
}

pub(super) const HEAD: usize = size_of::<RecordHeader>();
const NO_LINK: u32 = u32::MAX;
const NO_REASON: u8 = u8::MAX;
const EGRESS_FLAG: u8 = 1;
const TUPLE: u8 = 2;
const ENVELOPE: u8 = 4;
const RECORD_LAYERS: [RecordLayer; 4] = [
    RecordLayer::Inner,
    RecordLayer::Frame,
    RecordLayer::Payload,
    RecordLayer::Whole,
];

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

impl RecordHeader {
    pub(super) fn new(
        packet_outcome: &PacketOutcome,
        tuple: Option<&FlowTuple>,
        envelope: Option<&OuterHeader>,
        layer: RecordLayer,
        length: usize,
        stored: usize,
    ) -> Self {
        let mut head = RecordHeader {
            time: packet_outcome.now.0,
            stored: stored as u32,
            length: length as u32,
            packets: packet_outcome.packets as u32,
            link: packet_outcome.link.map_or(NO_LINK, |l| l.0),
            addresses: [[0; 16]; 4],
            ports: [0; 4],
            protocol: 0,
            flags: if packet_outcome.direction == TrafficDirection::Egress {
                EGRESS_FLAG
            } else {
                0
            },
            reason: packet_outcome.reason.map_or(NO_REASON, |r| r as u8),
            layer: layer as u8,
            tos: 0,
            ttl: 0,
            spare: [0; 2],
        };
        if let Some(t) = tuple {
            head.flags |= TUPLE;
            head.protocol = t.protocol;
            (head.addresses[0], head.addresses[1]) = (octets(t.src), octets(t.dst));
            (head.ports[0], head.ports[1]) = (t.sport, t.dport);
        }
        if let Some(e) = envelope {
            head.flags |= ENVELOPE;
            (head.addresses[2], head.addresses[3]) = (octets(e.src.ip()), octets(e.dst.ip()));
            (head.ports[2], head.ports[3]) = (e.src.port(), e.dst.port());
            (head.tos, head.ttl) = (e.tos, e.ttl.unwrap_or(0));
        }
        head
    }

    pub(super) fn record<'a>(&self, bytes: &'a [u8]) -> TapRecord<'a> {
        let [src, dst, from, to] = self.addresses.map(address);
        let [sport, dport, from_port, to_port] = self.ports;
        TapRecord {
            time: Now(self.time),
            link: (self.link != NO_LINK).then_some(LinkIndex(self.link)),
            direction: if self.flags & EGRESS_FLAG != 0 {
                TrafficDirection::Egress
            } else {
                TrafficDirection::Ingress
            },
            reason: DropReason::ALL.get(usize::from(self.reason)).copied(),
            packets: self.packets,
            tuple: (self.flags & TUPLE != 0).then_some(FlowTuple {
                src,
                dst,
                protocol: self.protocol,
                sport,
                dport,
            }),
            outer: (self.flags & ENVELOPE != 0).then(|| OuterHeader {
                src: SocketAddr::new(from, from_port),
                dst: SocketAddr::new(to, to_port),
                tos: self.tos,
                ttl: Some(self.ttl).filter(|&ttl| ttl != 0),
            }),
            layer: RECORD_LAYERS[usize::from(self.layer).min(RECORD_LAYERS.len() - 1)],
            length: self.length,
            bytes,
        }
    }
}

/// Layer of an inner packet of this type.
pub(super) fn layer_of(inner: InnerProtocol) -> RecordLayer {
    match inner {
        InnerProtocol::Ip => RecordLayer::Inner,
        InnerProtocol::Ethernet => RecordLayer::Frame,
    }
}
