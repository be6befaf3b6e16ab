//! Flows as shown on the control socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::value::{FlowStateValue, IfName, ObjectName, ProtocolValue};

/// The reply of `ListFlows`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsReply {
    /// The flows, up to the requested limit.
    pub flows: Vec<FlowInfo>,
    /// Number of flows that match the filter.
    pub total: u64,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The link.
    pub dev: IfName,
    /// Source of the first packet.
    pub src: IpAddr,
    /// Destination of the first packet.
    pub dst: IpAddr,
    /// The protocol.
    pub proto: ProtocolValue,
    /// The source port; for ICMP queries the identifier.
    pub sport: u16,
    /// The destination port; for ICMP queries the identifier.
    pub dport: u16,
    /// Addresses and ports after NAT or load balancing, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translated: Option<TranslatedFlow>,
    /// State of the flow.
    pub state: FlowStateValue,
    /// Verdict on its packets.
    pub verdict: TraceVerdict,
    /// Drop reason, if its packets are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The remote host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Class of the flow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ObjectName>,
    /// Counters of the original direction.
    pub original: DirectionCounts,
    /// Counters of the reply direction.
    pub reply: DirectionCounts,
    /// Seconds since its first packet.
    pub age_s: u64,
    /// Seconds since its last packet.
    pub idle_s: u64,
    /// Seconds until it expires without further packets.
    pub expires_s: u64,
}

/// The flow after translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranslatedFlow {
    /// Link of the replies.
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
    /// Number of packets.
    pub packets: u64,
    /// Number of inner bytes.
    pub bytes: u64,
}

/// Verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceVerdict {
    /// Sent to another host.
    Forward,
    /// Delivered to the interface.
    Deliver,
    /// Dropped.
    Drop,
    /// Dropped with an answer to the sender.
    Reject,
    /// Sent to a host that ICMP errors report as unreachable; not used for flows.
    Unreachable,
}

impl TraceVerdict {
    /// Keyword of the verdict.
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
    /// Number of flows removed.
    pub count: u64,
}
