//! Translations as they are shown.

use serde::{Deserialize, Serialize};

use crate::config::args::NatArgs;

/// The reply of `ListNats`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatsReply {
    /// By link, then by name.
    pub nats: Vec<NatInfo>,
}

/// A translation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatInfo {
    /// The translation.
    pub nat: NatArgs,
    /// Ports of its pool that are handed out; 0 where it has none.
    pub in_use: u64,
    /// Ports that its pool has; 0 where it has none.
    pub total: u64,
    /// What the kernel of this host lacks for packets to pass between the VPC and the outside, each with its remedy.
    #[serde(default)]
    pub missing: Vec<String>,
}
