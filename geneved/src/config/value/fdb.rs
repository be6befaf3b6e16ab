//! Values of Ethernet links and of their forwarding table.

use std::fmt;
use std::str::FromStr;

use libgeneve::wire::ethernet::Mac;

use super::{ValueError, as_word, one_of, wrong};

as_word! { FdbMac }

one_of! {
    /// `mode { ip | ethernet }`: what the interface of a link is.
    ModeValue, "invalid mode: \"ip\" or \"ethernet\"", {
        /// A TUN interface: IP packets.
        Ip = "ip",
        /// A TAP interface: Ethernet frames of all that is behind it.
        Ethernet = "ethernet",
    }
}

/// The MAC address of an entry: of a station, of a group, or all zeros, which stands for everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbMac(pub Mac);

impl FdbMac {
    /// Whether frames for it go to a list of hosts.
    #[must_use]
    pub fn is_list(self) -> bool {
        !self.0.is_unicast()
    }

    /// Whether it stands for every frame that has no other way.
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
