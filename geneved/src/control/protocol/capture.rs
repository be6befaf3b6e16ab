//! Parameters and replies of `Capture`.

use serde::{Deserialize, Serialize};

use crate::config::args::FlowFilter;
use crate::config::value::{DirectionValue, IfName};

/// Which packets to capture, and how much of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureArgs {
    /// Filter on flows; matches packets of both directions. Packets have no `state`.
    pub filter: FlowFilter,
    /// Capture the datagrams of the underlay instead of the inner packets.
    pub outer: bool,
    /// Only packets that are not forwarded.
    pub dropped: bool,
    /// Maximum number of bytes per packet; 0 means all.
    pub snaplen: u32,
    /// Number of packets after which the replies end; 0 means no end.
    pub count: u64,
}

/// A reply of `Capture`, one of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureReply {
    /// Grouped by worker, each group ordered by time.
    pub packets: Vec<CapturedPacket>,
    /// Packets lost for lack of room since the previous reply.
    pub lost: u64,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// Timestamp in nanoseconds since 1970.
    pub time_ns: u64,
    /// The link; absent if the packet was not assigned to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
    /// Direction of the packet.
    pub direction: DirectionValue,
    /// Whether it is an underlay packet rather than an inner one.
    pub outer: bool,
    /// Whether it starts with an Ethernet header rather than an IP header.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ethernet: bool,
    /// Drop reason, if it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Number of packets on the wire: more than one for a super-packet.
    pub packets: u32,
    /// Full length in bytes.
    pub length: u32,
    /// The captured bytes, from the first header, in base64.
    pub data: String,
}
