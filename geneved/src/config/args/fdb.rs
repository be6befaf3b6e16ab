//! The forwarding table of an Ethernet link, as users write it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::super::value::{FdbMac, IfName};

/// `[[fdb]]`, `geneved fdb add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FdbArgs {
    /// The MAC address: of a station, of a group, or all zeros for the hosts that everything else goes to.
    pub mac: FdbMac,
    /// The link.
    pub dev: IfName,
    /// The hosts that frames for it go to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dst: Vec<IpAddr>,
}
