//! What is rewritten in the packets of a flow: read off the flow's two keys.

use std::net::IpAddr;

use super::state::{Context, Decision};
use crate::drop::DropReason;
use crate::flow::{FlowKey, Side};
use crate::link::LinkIndex;
use crate::nat::{Rewrite, needs_identification, rewrite, rewrite_error, set_identification};
use crate::wire::packet::{Fragment, Packet};

/// What is rewritten in one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
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

impl Change {
    /// What is rewritten in a packet of `side`; `error` is the source of an ICMP error that travels like one.
    #[inline]
    pub(super) fn of(
        side: Side,
        original: &FlowKey,
        reply: &FlowKey,
        decision: &Decision,
        error: Option<IpAddr>,
    ) -> Change {
        let mut left = exit_of(side, original, reply);
        if let (Side::Reply, Some(service)) = (side, decision.half(Side::Original).service) {
            left.src = (service.addr, service.port);
        }
        let came = match side {
            Side::Original => original,
            Side::Reply => reply,
        };
        if left.src == (came.src, came.sport) && left.dst == (came.dst, came.dport) {
            return Change::None;
        }
        match error {
            None => Change::Packet(left),
            Some(source) => Change::Error {
                src: if source == came.src {
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
    pub(super) fn turned(&self, packet: &Packet) -> Option<IpAddr> {
        let to = match self {
            Change::None => return None,
            Change::Packet(to) => to.dst.0,
            Change::Error { dst, .. } => *dst,
        };
        (to != packet.dst).then_some(to)
    }

    /// Whether the receiver of the packet takes somebody else for its sender, so that its answer passes here again.
    pub(super) fn hides_source(&self, packet: &Packet) -> bool {
        match self {
            Change::None => false,
            Change::Packet(to) => to.src.0 != packet.src,
            // Nobody answers an error.
            Change::Error { .. } => true,
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
        cx: &Context<'_>,
        link: LinkIndex,
        bytes: &mut [u8],
        packet: &mut Packet,
        partial: bool,
        packets: u64,
    ) -> Result<(), DropReason> {
        let (src, dst) = match self {
            Change::None => return Ok(()),
            Change::Packet(to) => (to.src.0, to.dst.0),
            Change::Error { src, dst, .. } => (*src, *dst),
        };
        // Its fragments are known by the addresses that it came with.
        let id = identification(cx, link, packet, (src, dst), packets);
        let rewritten = match self {
            Change::None => Ok(()),
            Change::Packet(to) => rewrite(bytes, packet, to, partial),
            Change::Error { quoted, .. } => rewrite_error(bytes, packet, src, dst, quoted),
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
    cx: &Context<'_>,
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
pub(super) fn exit_of(side: Side, original: &FlowKey, reply: &FlowKey) -> Rewrite {
    let other = match side {
        Side::Original => reply,
        Side::Reply => original,
    };
    Rewrite {
        src: (other.dst, other.dport),
        dst: (other.src, other.sport),
    }
}
