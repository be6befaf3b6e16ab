//! The forwarding table of an Ethernet link, as the control socket tells of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::config::value::{FdbMac, IfName};

/// The reply of `ListFdb`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbReply {
    /// By link: what is configured, then what was learned, by address.
    pub fdb: Vec<FdbInfo>,
}

/// A MAC address, and one host that it is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbInfo {
    /// The address.
    pub mac: FdbMac,
    /// The link.
    pub dev: IfName,
    /// The host; none for what is behind the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Where it is known from.
    pub origin: FdbOrigin,
    /// Seconds since it was seen last, where it was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_s: Option<u64>,
    /// Seconds since it was learned, or moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_s: Option<u64>,
}

/// Where a MAC address is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FdbOrigin {
    /// It is the interface's own.
    Own,
    /// An entry.
    Static,
    /// The lladdr of an endpoint.
    Endpoint,
    /// The link's remote, which gets what has no other way.
    Remote,
    /// A frame.
    Learned,
}

impl FdbOrigin {
    /// Its word.
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
