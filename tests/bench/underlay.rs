//! Underlays: offloads of the veth's ends.

use geneved::lab::netns::LabNetns;
use std::io;

/// Offloads of the veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VethKind {
    /// Kernel defaults: super-packets cross it whole.
    Veth,
    /// No offloads at either end: packet by packet, as between plain network cards.
    Wire,
    /// Offloads of a plain network card: checksums on transmit, GRO on receive, no segmentation.
    Nic,
}

impl VethKind {
    pub const ALL: [Self; 3] = [Self::Veth, Self::Wire, Self::Nic];

    pub fn parse(word: &str) -> Result<Self, String> {
        match word {
            "veth" => Ok(Self::Veth),
            "wire" => Ok(Self::Wire),
            "nic" => Ok(Self::Nic),
            _ => Err(format!("{word:?} is not an underlay: veth, wire, nic")),
        }
    }

    pub const fn title(self) -> &'static str {
        match self {
            Self::Veth => "veth (plain)",
            Self::Wire => "wire (veth, all offloads off at both ends)",
            Self::Nic => "nic (veth, segmentation off when sending, GRO on when receiving)",
        }
    }

    /// Sets the offloads of `device`.
    pub fn apply(self, host: &LabNetns, device: &str) -> io::Result<()> {
        let features: &[&str] = match self {
            Self::Veth => return Ok(()),
            Self::Wire => &[
                "gro off",
                "tso off",
                "gso off",
                "tx-udp-segmentation off",
                "tx off",
                "sg off",
            ],
            Self::Nic => &["tso off", "tx-udp-segmentation off", "gro on"],
        };
        for feature in features {
            let mut words = vec!["-K", device];
            words.extend(feature.split(' '));
            host.exec("ethtool", &words)?;
        }
        if self == Self::Nic {
            // Older kernels lack some of these features; a missing one cannot be on.
            for feature in [
                "tx-udp_tnl-segmentation",
                "tx-udp_tnl-csum-segmentation",
                "tx-gso-partial",
            ] {
                let _ = host.exec("ethtool", &["-K", device, feature, "off"]);
            }
        }
        Ok(())
    }
}
