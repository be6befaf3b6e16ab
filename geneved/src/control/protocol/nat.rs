//! NAT rules as shown on the control socket.

use serde::{Deserialize, Serialize};

use crate::config::args::NatArgs;

/// The reply of `ListNats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatsReply {
    /// Sorted by link, then by name.
    pub nats: Vec<NatInfo>,
}

/// A NAT rule with its port usage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatInfo {
    /// The rule.
    pub nat: NatArgs,
    /// Ports of its pool that are in use; 0 if it has no pool.
    pub in_use: u64,
    /// Size of its port pool; 0 if it has no pool.
    pub total: u64,
    /// Missing forwarding settings and routes without which packets cannot pass between the VPC and the outside, each with its
    /// remedy.
    #[serde(default)]
    pub missing: Vec<String>,
}
