//! Replies of `Trace`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::flow::TraceVerdict;
use crate::config::value::{ObjectName, RawOption};

/// The reply of `TraceReply`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReply {
    /// The trace.
    pub report: TraceReport,
}

/// Stages and verdict of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceReport {
    /// The stages in order, up to the one that decided.
    pub stages: Vec<StageInfo>,
    /// The final verdict.
    pub verdict: TraceVerdict,
    /// Drop reason, if it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Host that it is sent to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<IpAddr>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<ObjectName>,
    /// Options that it carries on the wire.
    pub options: Vec<RawOption>,
}

/// One stage of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageInfo {
    /// Its name: labels, flow, source, service, nat, route, rule, policy, class, options, exit, mtu, underlay, kernel, ...
    pub stage: String,
    /// Result in words.
    pub result: String,
    /// Details; may be empty.
    pub detail: String,
}
