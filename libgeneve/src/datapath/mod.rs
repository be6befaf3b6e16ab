//! The datapath through one host, egress and ingress, each readable from top to bottom.
//!
//! Both are called once per super-packet or run of equal headers. A packet looks up its flow and follows the stored
//! decision; the first packet of a flow runs through every function once. Moving bytes is left to [`crate::offload`]
//! and to the caller.

mod decision;
mod egress;
mod first_packet;
mod flow_cache;
mod flow_log;
mod icmp_answer;
mod icmp_error;
mod ingress;
mod intern;
mod l2_forwarding;
mod lookup;
mod martian;
mod neighbor_discovery;
mod output;
mod packet_rewrite;
mod trace;
mod trace_observer;

use std::net::IpAddr;

pub use self::decision::{
    DirectionState, ExpectedInput, FlowDecision, FramePrefix, NextHop, PacketContext, SharedState,
    TunnelNextHop, Verdict,
};
pub use self::egress::{Egress, Encap};
pub use self::flow_log::LoggedFlow;
pub use self::icmp_answer::{AnswerBudgets, answer, way_back};
pub use self::icmp_error::{ErrorRejection, OuterError, validate_icmp_error};
pub use self::ingress::{Decap, DecapResult, Ingress, IngressFrame};
pub use self::l2_forwarding::{FrameForward, answer_frame, frame_packets};
pub use self::martian::martian;
pub use self::neighbor_discovery::{
    NeighborRequest, RequestAudience, neighbor_answer, neighbor_question, probe_neighbors,
};
pub use self::output::{Forward, Output};
pub use self::packet_rewrite::PacketRewrite;
pub use self::trace::{TraceInput, TraceLength, TracePacket, TraceResult, trace};
pub use self::trace_observer::TraceStage;
use crate::drop::DropReason;
use crate::ecn;
use crate::vpc::{Df, Link, LinkIndex, RxInterface, Tos, Ttl};
use crate::wire::encapsulation::EncapError;
use crate::wire::ethernet::{EthernetError, Mac};
use crate::wire::geneve::GeneveError;
use crate::wire::icmp::IcmpError;
use crate::wire::nd::AdvertisementFlags;
use crate::wire::packet::{IpVersion, Packet, PacketError};
use crate::wire::vxlan::VxlanError;

const UDP_HEADER: usize = 8;

/// Outer IP header fields of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterTx {
    /// DSCP and ECN.
    pub tos: u8,
    /// TTL or hop limit; `None` for the system default.
    pub ttl: Option<u8>,
    /// IPv4 DF bit.
    pub df: bool,
    /// The path is too narrow for a packet that must pass: leave the outer packet to IP fragmentation.
    pub fragment: bool,
}

/// Returns the outer header fields: RFC 2983 for the DSCP, RFC 6040 for ECN, RFC 8926 section 4.4.2 for the TTL.
fn outer(link: &Link, packet: &Packet, class: Option<u8>) -> OuterTx {
    let config = &link.config;
    let dscp = match (class, config.tos) {
        (Some(dscp), _) => dscp << 2,
        (None, Tos::Inherit) => packet.tos & 0xfc,
        (None, Tos::Fixed(tos)) => tos & 0xfc,
    };
    let ttl = match config.ttl {
        Ttl::Auto => None,
        Ttl::Inherit => Some(packet.ttl.max(1)),
        Ttl::Fixed(ttl) => Some(ttl),
    };
    let df = match config.df {
        Df::Set => true,
        Df::Unset => false,
        Df::Inherit => packet.version == IpVersion::V6 || packet.dont_fragment,
    };
    OuterTx {
        tos: dscp | ecn::encapsulate(packet.tos),
        ttl,
        df,
        fragment: false,
    }
}

/// Returns the longest inner packet, in bytes, that fits an outer IP packet of `path_mtu` bytes to the underlay
/// address `host` behind `encap_len` bytes of encapsulation (RFC 8926 section 4.4.1).
#[must_use]
pub fn inner_limit(host: IpAddr, path_mtu: u32, encap_len: usize) -> u16 {
    let ip = if host.is_ipv4() { 20 } else { 40 };
    let inner = (path_mtu as usize).saturating_sub(ip + UDP_HEADER + encap_len);
    u16::try_from(inner).unwrap_or(u16::MAX)
}

/// Outer header fields of a received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterRx {
    /// UDP port it was received on.
    pub port: u16,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address, if the kernel reported it.
    pub dst: Option<IpAddr>,
    /// Outer DSCP and ECN.
    pub tos: u8,
    /// Receiving interface.
    pub interface: RxInterface,
}

/// Answer to the sender of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderReply {
    /// A rule rejects it (TCP RST, ICMP unreachable).
    Rejected,
    /// Too big: the MTU is this many bytes (RFC 1191, RFC 8201).
    TooBig(u16),
    /// The requested station's MAC address and advertisement flags; only in reply to frames.
    Neighbor(Mac, AdvertisementFlags),
}

/// Refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedPacket {
    /// Drop reason.
    pub reason: DropReason,
    /// Link that counts the drop; `None` if the packet could not be assigned to a link.
    pub link: Option<LinkIndex>,
    /// Answer to the sender, if any.
    pub answer: Option<SenderReply>,
}

impl RefusedPacket {
    fn of(reason: DropReason, link: LinkIndex) -> RefusedPacket {
        RefusedPacket {
            link: Some(link),
            ..RefusedPacket::unmatched(reason)
        }
    }

    fn unmatched(reason: DropReason) -> RefusedPacket {
        RefusedPacket {
            reason,
            link: None,
            answer: None,
        }
    }

    /// Refuses a packet that is too long for the path; the sender is notified if allowed.
    fn too_big(forward: &Forward, packet: &Packet, link: LinkIndex) -> RefusedPacket {
        let mtu = forward.limit;
        let error = IcmpError::TooBig { mtu: mtu.into() };
        if error.may_answer(packet) {
            RefusedPacket {
                answer: Some(SenderReply::TooBig(mtu)),
                ..RefusedPacket::of(DropReason::TooBig, link)
            }
        } else {
            RefusedPacket::of(DropReason::TooBigSilent, link)
        }
    }

    fn stopped(stop: &lookup::Rejection, link: LinkIndex) -> RefusedPacket {
        RefusedPacket {
            reason: stop.reason,
            link: Some(link),
            answer: stop.reject.then_some(SenderReply::Rejected),
        }
    }
}

/// Returns the drop reason for an inner packet that cannot be parsed.
#[must_use]
pub fn parse_reason(error: PacketError) -> DropReason {
    match error {
        PacketError::NotIp => DropReason::NotIp,
        _ => DropReason::InnerMalformed,
    }
}

/// Returns the drop reason for an inner frame that cannot be parsed.
#[must_use]
pub fn frame_reason(error: EthernetError) -> DropReason {
    match error {
        EthernetError::NoEtherType => DropReason::NotIp,
        EthernetError::TooManyTags => DropReason::VlanTagged,
        EthernetError::Truncated | EthernetError::Source => DropReason::InnerMalformed,
    }
}

fn envelope_reason(error: &EncapError) -> DropReason {
    match error {
        EncapError::Geneve(GeneveError::Truncated) => DropReason::GeneveTruncated,
        EncapError::Geneve(GeneveError::Version(_)) => DropReason::GeneveVersion,
        EncapError::Geneve(GeneveError::OptionLength) => DropReason::GeneveOptionLength,
        EncapError::Vxlan(VxlanError::Truncated) => DropReason::VxlanTruncated,
        EncapError::Vxlan(VxlanError::NoVni) => DropReason::VxlanNoVni,
    }
}

#[cfg(test)]
mod tests;
