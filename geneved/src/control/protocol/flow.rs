//! Flows as they are shown.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::value::{FlowStateValue, IfName, ObjectName, ProtocolValue};

/// The reply of `ListFlows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsReply {
    /// No more than were asked for.
    pub flows: Vec<FlowInfo>,
    /// How many the filter let through.
    pub total: u64,
}

/// A flow: two addresses that talk to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The link.
    pub dev: IfName,
    /// Who began.
    pub src: IpAddr,
    /// Whom it asked for.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: ProtocolValue,
    /// The source port; for an ICMP query its identifier.
    pub sport: u16,
    /// The destination port; for an ICMP query its identifier.
    pub dport: u16,
    /// What the packets are rewritten to, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<TranslatedFlow>,
    /// How far it has got.
    pub state: FlowStateValue,
    /// What happens to its packets.
    pub verdict: TraceVerdict,
    /// Why they are dropped, as drop reasons are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The other host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ObjectName>,
    /// What went the way of the first packet.
    pub original: DirectionCounts,
    /// What came back.
    pub reply: DirectionCounts,
    /// Seconds since its first packet.
    pub age_s: u64,
    /// Seconds since its last packet.
    pub idle_s: u64,
    /// Seconds until it ends, unless another packet comes.
    pub expires_s: u64,
}

/// The other face of a flow that is rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatedFlow {
    /// The link of its replies.
    pub dev: IfName,
    /// The source.
    pub src: IpAddr,
    /// The destination.
    pub dst: IpAddr,
    /// The source port.
    pub sport: u16,
    /// The destination port.
    pub dport: u16,
}

/// One direction of a flow.
#[derive(Clone, Debug, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionCounts {
    /// Packets.
    pub packets: u64,
    /// Inner bytes.
    pub bytes: u64,
}

/// What happens to a packet in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceVerdict {
    /// It goes to another host.
    Forward,
    /// It goes into the interface.
    Deliver,
    /// It is dropped.
    Drop,
    /// It is dropped, and the sender is told.
    Reject,
    /// It is sent to a host of which ICMP errors say that nothing arrives there; of flows this is not told.
    Unreachable,
}

impl TraceVerdict {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            TraceVerdict::Forward => "forward",
            TraceVerdict::Deliver => "deliver",
            TraceVerdict::Drop => "drop",
            TraceVerdict::Reject => "reject",
            TraceVerdict::Unreachable => "unreachable",
        }
    }
}

/// The reply of `FlushFlows`.
#[derive(Clone, Debug, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushReply {
    /// How many flows were forgotten.
    pub count: u64,
}
