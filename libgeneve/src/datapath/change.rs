//! What is rewritten in the packets of a flow: read off the flow's two keys.

use std::net::IpAddr;

use super::state::Decision;
use crate::drop::DropReason;
use crate::flow::{FlowKey, Side};
use crate::nat::{Rewrite, rewrite, rewrite_error};
use crate::wire::packet::Packet;

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

    /// Rewrites `bytes`, which `packet` was parsed from; `partial` where its checksum is to be finished by an offload.
    ///
    /// # Errors
    /// [`DropReason::NatUntranslatable`]; the packet is not to be forwarded.
    #[inline]
    pub fn apply(
        &self,
        bytes: &mut [u8],
        packet: &mut Packet,
        partial: bool,
    ) -> Result<(), DropReason> {
        match self {
            Change::None => Ok(()),
            Change::Packet(to) => {
                rewrite(bytes, packet, to, partial).map_err(|_| DropReason::NatUntranslatable)
            }
            Change::Error { src, dst, quoted } => rewrite_error(bytes, packet, *src, *dst, quoted)
                .map_err(|_| DropReason::NatUntranslatable),
        }
    }
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
