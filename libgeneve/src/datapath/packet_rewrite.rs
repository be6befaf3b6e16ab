//! What is rewritten in the packets of a flow: read off the flow's two keys.

use std::net::IpAddr;

use super::decision::{FlowDecision, PacketContext};
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::nat::{Rewrite, needs_identification, rewrite, rewrite_error, set_identification};
use crate::vpc::LinkIndex;
use crate::wire::packet::{Fragment, Packet};

/// What is rewritten in one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PacketRewrite {
    /// Nothing.
    #[default]
    None,
    /// Addresses and ports.
    Packet(Rewrite),
    /// An ICMP error about the flow: its own addresses, and those of the packet that it quotes.
    Error {
        /// Its source.
        src: IpAddr,
        /// Its destination.
        dst: IpAddr,
        /// What the quoted packet was before it was rewritten.
        quoted: Rewrite,
    },
}

impl PacketRewrite {
    /// What is rewritten in a packet of `side`; `error` is the source of an ICMP error that travels like one.
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

    /// The destination that the packet gets, where it is another than it has.
    pub(super) fn new_destination(&self, packet: &Packet) -> Option<IpAddr> {
        let to = match self {
            PacketRewrite::None => return None,
            PacketRewrite::Packet(to) => to.dst.0,
            PacketRewrite::Error { dst, .. } => *dst,
        };
        (to != packet.dst).then_some(to)
    }

    /// Whether the receiver of the packet takes somebody else for its sender, so that its answer passes here again.
    pub(super) fn hides_source(&self, packet: &Packet) -> bool {
        match self {
            PacketRewrite::None => false,
            PacketRewrite::Packet(to) => to.src.0 != packet.src,
            // Nobody answers an error.
            PacketRewrite::Error { .. } => true,
        }
    }

    /// Rewrites `bytes`, which `packet` was parsed from and `link` received. Its checksum may be `partial`, and it becomes so
    /// many `packets` on the wire.
    ///
    /// # Errors
    /// [`DropReason::NatUntranslatable`]; the packet is not to be forwarded.
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
        // Its fragments are known by the addresses that it came with.
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

/// The identification that a packet gets with these addresses, where it must not keep its own.
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

/// Addresses and ports with which the packets of `side` leave.
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
