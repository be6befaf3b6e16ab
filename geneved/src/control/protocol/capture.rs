//! What `Capture` is asked for and streams: packets.

use serde::{Deserialize, Serialize};

use crate::config::args::FlowFilter;
use crate::config::value::{DirectionValue, IfName};

/// Which packets are captured, and how much of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaptureArgs {
    /// Which flows; packets of both directions. Packets have no `state`.
    pub filter: FlowFilter,
    /// The datagrams of the underlay, rather than the packets inside.
    pub outer: bool,
    /// Only packets that are not forwarded.
    pub dropped: bool,
    /// Bytes of each packet at most; 0 for all.
    pub snaplen: u32,
    /// So many packets, then the replies end; 0 for no end.
    pub count: u64,
}

/// The reply of `Capture`, one of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureReply {
    /// Worker by worker, each in the order of time.
    pub packets: Vec<CapturedPacket>,
    /// Packets that found no room since the reply before.
    pub lost: u64,
}

/// A packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedPacket {
    /// When, in nanoseconds since 1970.
    pub time_ns: u64,
    /// The link; absent where the packet did not get as far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<IfName>,
    /// Which way it went.
    pub direction: DirectionValue,
    /// Whether it is a packet of the underlay; otherwise it is one of the VPC.
    pub outer: bool,
    /// Whether it begins with an Ethernet header rather than an IP header.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ethernet: bool,
    /// Why it was dropped, as drop reasons are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many packets it is on the wire: more than one for a super-packet.
    pub packets: u32,
    /// Its whole length in bytes.
    pub length: u32,
    /// As many bytes as were wanted, from its first header on, in base64.
    pub data: String,
}
