//! What would happen to a packet.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::flow::TraceVerdict;
use crate::config::value::{ObjectName, RawOption};

/// The reply of `TraceReply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReply {
    /// What would happen.
    pub report: TraceReport,
}

/// What would happen to a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// One stage after the other, up to the last one that had a say.
    pub stages: Vec<StageInfo>,
    /// What happens in the end.
    pub verdict: TraceVerdict,
    /// Why it is dropped, as drop reasons are named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The host that it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ObjectName>,
    /// The options that it carries on the wire.
    pub options: Vec<RawOption>,
}

/// One stage of the journey.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInfo {
    /// Its name: labels, flow, source, service, nat, route, rule, policy, class, options, exit, mtu, underlay, kernel, ...
    pub stage: String,
    /// What came of it, in words.
    pub result: String,
    /// More about it; may be empty.
    pub detail: String,
}
