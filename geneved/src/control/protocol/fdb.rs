//! Forwarding database of Ethernet links, as shown on the control socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::value::{FdbMac, IfName};

/// The reply of `ListFdb`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbReply {
    /// Sorted by link; configured entries first, then learned ones, by address.
    pub fdb: Vec<FdbInfo>,
}

/// A MAC address on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbInfo {
    /// The address.
    pub mac: FdbMac,
    /// The link.
    pub dev: IfName,
    /// The host; absent for addresses behind the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Origin of the entry.
    pub origin: FdbOrigin,
    /// Seconds since the address was last seen, if it was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_s: Option<u64>,
    /// Seconds since the address was learned or moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_s: Option<u64>,
}

/// Origin of an FDB entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbOrigin {
    /// The interface's own address.
    Own,
    /// A configured entry.
    Static,
    /// The `lladdr` of an endpoint.
    Endpoint,
    /// The link's remote, where unknown addresses are sent.
    Remote,
    /// Learned from a frame.
    Learned,
}

impl FdbOrigin {
    /// Keyword of the origin.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            FdbOrigin::Own => "own",
            FdbOrigin::Static => "static",
            FdbOrigin::Endpoint => "endpoint",
            FdbOrigin::Remote => "remote",
            FdbOrigin::Learned => "learned",
        }
    }
}
