//! Tap filter by flow, and the 5-tuple that it matches.

use std::net::IpAddr;

use ipnet::IpNet;
use libgeneve::vpc::LinkIndex;
use libgeneve::wire::encapsulation::InnerProtocol;
use libgeneve::wire::ethernet::Ethernet;
use libgeneve::wire::packet::{Packet, Transport};

/// Filter by flow; a field that is `None` matches anything. Packets of both directions of a flow match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TapFilter {
    /// Link.
    pub link: Option<LinkIndex>,
    /// Address of the endpoint that initiated the flow.
    pub from: Option<IpNet>,
    /// Address of the other endpoint.
    pub to: Option<IpNet>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Source port.
    pub sport: Option<u16>,
    /// Destination port.
    pub dport: Option<u16>,
}

impl TapFilter {
    pub(super) fn admits(&self, link: Option<LinkIndex>, tuple: Option<&FlowTuple>) -> bool {
        if self.link.is_some() && self.link != link {
            return false;
        }
        let any = TapFilter {
            link: self.link,
            ..TapFilter::default()
        };
        if *self == any {
            return true;
        }
        tuple.is_some_and(|t| self.fits(t) || self.fits(&t.reversed()))
    }

    fn fits(&self, tuple: &FlowTuple) -> bool {
        self.from.is_none_or(|net| net.contains(&tuple.src))
            && self.to.is_none_or(|net| net.contains(&tuple.dst))
            && self.protocol.is_none_or(|p| p == tuple.protocol)
            && self.sport.is_none_or(|p| p == tuple.sport)
            && self.dport.is_none_or(|p| p == tuple.dport)
    }
}

/// 5-tuple of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port; 0 if there is none.
    pub sport: u16,
    /// Destination port; 0 if there is none.
    pub dport: u16,
}

impl FlowTuple {
    pub(super) fn inside(inner: InnerProtocol, bytes: &[u8]) -> Option<FlowTuple> {
        match inner {
            InnerProtocol::Ip => FlowTuple::of(bytes),
            InnerProtocol::Ethernet => FlowTuple::of(Ethernet::parse(bytes).ok()?.payload()),
        }
    }

    pub(super) fn of(bytes: &[u8]) -> Option<FlowTuple> {
        let packet = Packet::parse(bytes).ok()?;
        let (sport, dport) = match packet.transport {
            Transport::Tcp { src, dst, .. } | Transport::Udp { src, dst, .. } => (src, dst),
            Transport::Icmp { .. } | Transport::Other | Transport::Unavailable => (0, 0),
        };
        Some(FlowTuple {
            src: packet.src,
            dst: packet.dst,
            protocol: packet.protocol,
            sport,
            dport,
        })
    }

    pub(super) fn reversed(self) -> FlowTuple {
        FlowTuple {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..self
        }
    }
}
