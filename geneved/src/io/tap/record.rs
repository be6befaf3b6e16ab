//! What a tap tells of a packet, and how that lies in its ring.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libgeneve::drop::DropReason;
use libgeneve::link::LinkIndex;
use libgeneve::time::Now;
use libgeneve::wire::encapsulation::Inner;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::filter::Tuple;
use crate::io::counters::Direction;

/// The underlay's side of a datagram. An address that is not known is unspecified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The source.
    pub src: SocketAddr,
    /// The destination.
    pub dst: SocketAddr,
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit; `None` where it is not known.
    pub ttl: Option<u8>,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) struct Fate {
    pub(in crate::io) now: Now,
    pub(in crate::io) link: Option<LinkIndex>,
    pub(in crate::io) direction: Direction,
    /// Why it was dropped, if it was.
    pub(in crate::io) reason: Option<DropReason>,
    /// Packets on the wire.
    pub(in crate::io) packets: u64,
}

/// What the bytes of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The packet inside, from its IP header on.
    Inner,
    /// The frame inside, from its Ethernet header on.
    Frame,
    /// A datagram's payload, from its Geneve header on.
    Payload,
    /// A whole packet of the underlay, from its IP header on.
    Whole,
}

/// A packet as a tap has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When, by the packet path's time.
    pub time: Now,
    /// The link; `None` where the packet did not get as far.
    pub link: Option<LinkIndex>,
    /// Which way it went.
    pub direction: Direction,
    /// Why it was dropped, if it was.
    pub reason: Option<DropReason>,
    /// Packets on the wire: more than one for a super-packet.
    pub packets: u32,
    /// Who speaks to whom; `None` where that cannot be read.
    pub tuple: Option<Tuple>,
    /// The underlay's side, where the packet came from there or went there.
    pub envelope: Option<Envelope>,
    /// What the bytes are.
    pub layer: Layer,
    /// The length of the whole, in bytes.
    pub length: u32,
    /// As many of them as were wanted.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Head {
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

pub(super) const HEAD: usize = size_of::<Head>();
const NONE: u32 = u32::MAX;
const NO_REASON: u8 = u8::MAX;
const EGRESS: u8 = 1;
const TUPLE: u8 = 2;
const ENVELOPE: u8 = 4;
const LAYERS: [Layer; 4] = [Layer::Inner, Layer::Frame, Layer::Payload, Layer::Whole];

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

fn address(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

impl Head {
    pub(super) fn new(
        fate: &Fate,
        tuple: Option<&Tuple>,
        envelope: Option<&Envelope>,
        layer: Layer,
        length: usize,
        stored: usize,
    ) -> Self {
        let mut head = Head {
            time: fate.now.0,
            stored: stored as u32,
            length: length as u32,
            packets: fate.packets as u32,
            link: fate.link.map_or(NONE, |l| l.0),
            addresses: [[0; 16]; 4],
            ports: [0; 4],
            protocol: 0,
            flags: if fate.direction == Direction::Egress {
                EGRESS
            } else {
                0
            },
            reason: fate.reason.map_or(NO_REASON, |r| r as u8),
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

    pub(super) fn record<'a>(&self, bytes: &'a [u8]) -> Record<'a> {
        let [src, dst, from, to] = self.addresses.map(address);
        let [sport, dport, from_port, to_port] = self.ports;
        Record {
            time: Now(self.time),
            link: (self.link != NONE).then_some(LinkIndex(self.link)),
            direction: if self.flags & EGRESS != 0 {
                Direction::Egress
            } else {
                Direction::Ingress
            },
            reason: DropReason::ALL.get(usize::from(self.reason)).copied(),
            packets: self.packets,
            tuple: (self.flags & TUPLE != 0).then_some(Tuple {
                src,
                dst,
                protocol: self.protocol,
                sport,
                dport,
            }),
            envelope: (self.flags & ENVELOPE != 0).then(|| Envelope {
                src: SocketAddr::new(from, from_port),
                dst: SocketAddr::new(to, to_port),
                tos: self.tos,
                ttl: Some(self.ttl).filter(|&ttl| ttl != 0),
            }),
            layer: LAYERS[usize::from(self.layer).min(LAYERS.len() - 1)],
            length: self.length,
            bytes,
        }
    }
}

/// What a packet of this kind is called.
pub(super) fn layer_of(inner: Inner) -> Layer {
    match inner {
        Inner::Ip => Layer::Inner,
        Inner::Ethernet => Layer::Frame,
    }
}
