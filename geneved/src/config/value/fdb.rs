//! Values of Ethernet links and their forwarding database.

use std::fmt;
use std::str::FromStr;

use libgeneve::wire::ethernet::Mac;

use super::{ValueError, as_word, one_of, wrong};

as_word! { FdbMac }

one_of! {
    /// `mode { ip | ethernet }`: mode of a link's interface.
    ModeValue, "invalid mode: \"ip\" or \"ethernet\"", {
        /// A TUN interface: IP packets.
        Ip = "ip",
        /// A TAP interface: Ethernet frames of all stations behind it.
        Ethernet = "ethernet",
    }
}

/// MAC address of an FDB entry: of a station, of a group, or all zeros for the default entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbMac(pub Mac);

impl FdbMac {
    /// Whether frames for it are sent to a list of hosts.
    #[must_use]
    pub fn is_list(self) -> bool {
        !self.0.is_unicast()
    }

    /// Whether it is the default entry, for frames that match no other.
    #[must_use]
    pub fn is_default(self) -> bool {
        self.0 == Mac::default()
    }
}

impl FromStr for FdbMac {
    type Err = ValueError;
    fn from_str(text: &str) -> Result<Self, ValueError> {
        text.parse()
            .map(FdbMac)
            .or_else(|e| wrong(format!("invalid address: {e}")))
    }
}

impl fmt::Display for FdbMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
