//! The encapsulations of a link, and what they have in common: VNI, options, inner protocol, header length.
//!
//! One file each has the wire format ([`geneve`](super::geneve), [`vxlan`](super::vxlan)); here is what tells them apart.
//! Everything else speaks of an [`Encapsulation`] and of an [`EncapHeader`].

use std::fmt;

use super::ethernet::{ETHERNET_HEADER_LEN, ethertype};
use super::geneve::{
    BASE_HEADER_LEN, GENEVE_PORT, Geneve, GeneveBuilder, GeneveError, Vni, protocol_type,
};
use super::header::HeaderBytes;
use super::option::OptionIter;
use super::vxlan::{VXLAN_HEADER_LEN, VXLAN_PORT, Vxlan, VxlanError, vxlan_header};

/// Encapsulation of a VPC's packets in UDP.
///
/// ```
/// use libgeneve::wire::encapsulation::{EncapError, Encapsulation, InnerProtocol};
/// use libgeneve::wire::geneve::{Vni, protocol_type};
///
/// let vni = Vni::new(100).expect("24 bits");
/// for encapsulation in Encapsulation::ALL {
///     let header = encapsulation.header(vni, protocol_type::ETHERNET);
///     let view = encapsulation.parse(&header)?;
///     assert_eq!((view.vni, view.inner()), (vni, Some(InnerProtocol::Ethernet)));
///     assert_eq!(view.header_len, header.len());
/// }
/// # Ok::<(), EncapError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encapsulation {
    /// RFC 8926: carries packets of any kind, and options.
    #[default]
    Geneve,
    /// RFC 7348: carries Ethernet frames, and no options.
    Vxlan,
}

/// Inner protocol of a link's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InnerProtocol {
    /// IP packets.
    #[default]
    Ip,
    /// Ethernet frames.
    Ethernet,
}

impl InnerProtocol {
    /// Bytes of the inner header before the IP packet.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            InnerProtocol::Ip => 0,
            InnerProtocol::Ethernet => ETHERNET_HEADER_LEN,
        }
    }

    /// `ip` or `ethernet`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            InnerProtocol::Ip => "ip",
            InnerProtocol::Ethernet => "ethernet",
        }
    }
}

impl fmt::Display for InnerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Decoded encapsulation header.
#[derive(Clone, Copy, Debug)]
pub struct EncapHeader<'a> {
    /// The VNI.
    pub vni: Vni,
    /// Inner protocol: an EtherType, or [`protocol_type::ETHERNET`].
    pub protocol: u16,
    /// Whether it is a control message, whose payload is never forwarded.
    pub control: bool,
    /// The options as received.
    pub options: &'a [u8],
    /// Offset of the inner packet or frame.
    pub header_len: usize,
}

impl<'a> EncapHeader<'a> {
    /// Returns the options in wire order.
    #[inline]
    #[must_use]
    pub fn options(&self) -> OptionIter<'a> {
        OptionIter::new(self.options)
    }

    /// Returns the inner protocol; `None` for one that no link carries.
    #[inline]
    #[must_use]
    pub fn inner(&self) -> Option<InnerProtocol> {
        match self.protocol {
            ethertype::IPV4 | ethertype::IPV6 => Some(InnerProtocol::Ip),
            protocol_type::ETHERNET => Some(InnerProtocol::Ethernet),
            _ => None,
        }
    }
}

/// Why a datagram cannot be decapsulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncapError {
    /// Not a Geneve packet.
    #[error(transparent)]
    Geneve(#[from] GeneveError),
    /// Not a VXLAN packet.
    #[error(transparent)]
    Vxlan(#[from] VxlanError),
}

impl Encapsulation {
    /// All encapsulations.
    pub const ALL: [Encapsulation; 2] = [Encapsulation::Geneve, Encapsulation::Vxlan];

    /// The type name of the device in `ip link`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Encapsulation::Geneve => "geneve",
            Encapsulation::Vxlan => "vxlan",
        }
    }

    /// The display name.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Encapsulation::Geneve => "Geneve",
            Encapsulation::Vxlan => "VXLAN",
        }
    }

    /// The UDP port assigned by IANA.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Encapsulation::Geneve => GENEVE_PORT,
            Encapsulation::Vxlan => VXLAN_PORT,
        }
    }

    /// Bytes of the header without options.
    #[inline]
    #[must_use]
    pub const fn header_len(self) -> usize {
        match self {
            Encapsulation::Geneve => BASE_HEADER_LEN,
            Encapsulation::Vxlan => VXLAN_HEADER_LEN,
        }
    }

    /// Whether packets can carry options.
    #[must_use]
    pub const fn has_options(self) -> bool {
        match self {
            Encapsulation::Geneve => true,
            Encapsulation::Vxlan => false,
        }
    }

    /// The inner protocol of links that do not configure one.
    #[must_use]
    pub const fn default_inner(self) -> InnerProtocol {
        match self {
            Encapsulation::Geneve => InnerProtocol::Ip,
            Encapsulation::Vxlan => InnerProtocol::Ethernet,
        }
    }

    /// Whether it can carry `inner`.
    #[must_use]
    pub const fn carries(self, inner: InnerProtocol) -> bool {
        match (self, inner) {
            (Encapsulation::Geneve, _) | (Encapsulation::Vxlan, InnerProtocol::Ethernet) => true,
            (Encapsulation::Vxlan, InnerProtocol::Ip) => false,
        }
    }

    /// Parses the encapsulation header of a UDP payload.
    ///
    /// # Errors
    ///
    /// As [`EncapError`] says.
    #[inline]
    pub fn parse(self, bytes: &[u8]) -> Result<EncapHeader<'_>, EncapError> {
        match self {
            Encapsulation::Geneve => {
                let geneve = Geneve::parse(bytes)?;
                Ok(EncapHeader {
                    vni: geneve.vni(),
                    protocol: geneve.protocol(),
                    control: geneve.is_control(),
                    options: geneve.options_bytes(),
                    header_len: geneve.header_len(),
                })
            }
            Encapsulation::Vxlan => {
                let vxlan = Vxlan::parse(bytes)?;
                Ok(EncapHeader {
                    vni: vxlan.vni(),
                    protocol: protocol_type::ETHERNET,
                    control: false,
                    options: &[],
                    header_len: VXLAN_HEADER_LEN,
                })
            }
        }
    }

    /// Returns the header without options of a packet of `vni` that carries `protocol`, an EtherType or
    /// [`protocol_type::ETHERNET`]. VXLAN carries only the latter, and has no field for it.
    #[must_use]
    pub fn header(self, vni: Vni, protocol: u16) -> HeaderBytes {
        match self {
            Encapsulation::Geneve => GeneveBuilder::new(vni, protocol).finish(),
            Encapsulation::Vxlan => {
                HeaderBytes::copy_of(&vxlan_header(vni)).expect("the shortest header fits")
            }
        }
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_unwrapped() {
        let vni = Vni::new(0xabcdef).unwrap();
        for encapsulation in Encapsulation::ALL {
            for (protocol, inner) in [
                (ethertype::IPV4, InnerProtocol::Ip),
                (ethertype::IPV6, InnerProtocol::Ip),
                (protocol_type::ETHERNET, InnerProtocol::Ethernet),
            ] {
                if !encapsulation.carries(inner) {
                    continue;
                }
                let header = encapsulation.header(vni, protocol);
                let envelope = encapsulation.parse(&header).unwrap();
                assert_eq!(envelope.vni, vni);
                assert_eq!(envelope.inner(), Some(inner));
                assert_eq!(envelope.header_len, encapsulation.header_len());
                assert!(!envelope.control && envelope.options().next().is_none());
            }
            assert!(encapsulation.carries(encapsulation.default_inner()));
        }
    }

    #[test]
    fn what_no_link_carries_is_told() {
        let header = Encapsulation::Geneve.header(Vni::default(), ethertype::ARP);
        let envelope = Encapsulation::Geneve.parse(&header).unwrap();
        assert_eq!(envelope.inner(), None);
    }
}
