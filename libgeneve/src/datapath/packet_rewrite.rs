//! Header rewrites of a flow's packets, derived from the flow's two keys.

use std::net::IpAddr;

use super::decision::{FlowDecision, PacketContext};
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::nat::{Rewrite, needs_identification, rewrite, rewrite_error, set_identification};
use crate::vpc::LinkIndex;
use crate::wire::packet::{Fragment, Packet};

/// Rewrite of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketRewrite {
    /// No rewrite.
    #[default]
    None,
    /// Addresses and ports.
    Packet(Rewrite),
    /// An ICMP error about the flow: its own addresses, and those of the packet it quotes.
    Error {
        /// New source address.
        src: IpAddr,
        /// New destination address.
        dst: IpAddr,
        /// Addresses and ports of the quoted packet before translation.
        quoted: Rewrite,
    },
}

impl PacketRewrite {
    /// Returns the rewrite of a packet in direction `side`; `error` is the source of an ICMP error travelling in that
    /// direction.
    #[inline]
    pub(super) fn of(
        side: FlowDirection,
        original: &FlowKey,
        reply: &FlowKey,
        decision: &FlowDecision,
        error: Option<IpAddr>,
    ) -> PacketRewrite {
        let mut left = exit_of(side, original, reply);
        if let (FlowDirection::Reply, Some(service)) =
            (side, decision.direction(FlowDirection::Original).service)
        {
            left.src = (service.addr, service.port);
        }
        let expected_input = match side {
            FlowDirection::Original => original,
            FlowDirection::Reply => reply,
        };
        if left.src == (expected_input.src, expected_input.sport)
            && left.dst == (expected_input.dst, expected_input.dport)
        {
            return PacketRewrite::None;
        }
        match error {
            None => PacketRewrite::Packet(left),
            Some(source) => PacketRewrite::Error {
                src: if source == expected_input.src {
                    left.src.0
                } else {
                    source
                },
                dst: left.dst.0,
                quoted: Rewrite {
                    src: left.dst,
                    dst: left.src,
                },
            },
        }
    }

    /// Returns the new destination, or `None` if the destination does not change.
    pub(super) fn new_destination(&self, packet: &Packet) -> Option<IpAddr> {
        let to = match self {
            PacketRewrite::None => return None,
            PacketRewrite::Packet(to) => to.dst.0,
            PacketRewrite::Error { dst, .. } => *dst,
        };
        (to != packet.dst).then_some(to)
    }

    /// Whether the receiver sees a different source address, so that its answer passes through this host again.
    pub(super) fn hides_source(&self, packet: &Packet) -> bool {
        match self {
            PacketRewrite::None => false,
            PacketRewrite::Packet(to) => to.src.0 != packet.src,
            // ICMP errors are never answered.
            PacketRewrite::Error { .. } => true,
        }
    }

    /// Rewrites `bytes`, received on `link` and parsed into `packet`. The checksum may be `partial`; the packet
    /// becomes `packets` packets on the wire.
    ///
    /// # Errors
    /// [`DropReason::NatUntranslatable`]; the packet must be dropped.
    #[inline]
    pub fn apply(
        &self,
        cx: &PacketContext<'_>,
        link: LinkIndex,
        bytes: &mut [u8],
        packet: &mut Packet,
        partial: bool,
        packets: u64,
    ) -> Result<(), DropReason> {
        let (src, dst) = match self {
            PacketRewrite::None => return Ok(()),
            PacketRewrite::Packet(to) => (to.src.0, to.dst.0),
            PacketRewrite::Error { src, dst, .. } => (*src, *dst),
        };
        // Fragments are keyed by the addresses they arrived with.
        let id = identification(cx, link, packet, (src, dst), packets);
        let rewritten = match self {
            PacketRewrite::None => Ok(()),
            PacketRewrite::Packet(to) => rewrite(bytes, packet, to, partial),
            PacketRewrite::Error { quoted, .. } => rewrite_error(bytes, packet, src, dst, quoted),
        };
        rewritten.map_err(|_| DropReason::NatUntranslatable)?;
        if let Some(id) = id {
            set_identification(bytes, packet, id);
        }
        Ok(())
    }
}

/// Returns a new IPv4 identification for a packet with these addresses, or `None` if it may keep its own.
fn identification(
    cx: &PacketContext<'_>,
    link: LinkIndex,
    packet: &Packet,
    (src, dst): (IpAddr, IpAddr),
    packets: u64,
) -> Option<u16> {
    if !needs_identification(packet, src) {
        return None;
    }
    let ids = &cx.state.identifications;
    let fresh = || ids.next(src, dst, packet.protocol, packets as u16);
    Some(match packet.fragment {
        Fragment::Whole => fresh(),
        _ => cx.state.fragments.identification(link, packet, fresh),
    })
}

/// Returns the addresses and ports with which packets of `side` leave.
pub(super) fn exit_of(side: FlowDirection, original: &FlowKey, reply: &FlowKey) -> Rewrite {
    let other = match side {
        FlowDirection::Original => reply,
        FlowDirection::Reply => original,
    };
    Rewrite {
        src: (other.dst, other.dport),
        dst: (other.src, other.sport),
    }
}
