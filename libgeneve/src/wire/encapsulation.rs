//! The encapsulations that a link can use, and what all of them say: VNI, options, what is inside and where it begins.
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

/// How packets of a VPC are wrapped into UDP.
///
/// ```
/// use libgeneve::wire::encapsulation::{Encapsulation, EnvelopeError, Inner};
/// use libgeneve::wire::geneve::{Vni, protocol_type};
///
/// let vni = Vni::new(100).expect("24 bits");
/// for encapsulation in Encapsulation::ALL {
///     let header = encapsulation.header(vni, protocol_type::ETHERNET);
///     let envelope = encapsulation.parse(&header)?;
///     assert_eq!((envelope.vni, envelope.inner()), (vni, Some(Inner::Ethernet)));
///     assert_eq!(envelope.header_len, header.len());
/// }
/// # Ok::<(), EnvelopeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encapsulation {
    /// RFC 8926: carries packets of any kind, and options.
    #[default]
    Geneve,
    /// RFC 7348: carries Ethernet frames, and no options.
    Vxlan,
}

/// What a link's datagrams carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum InnerProtocol {
    /// IP packets.
    #[default]
    Ip,
    /// Ethernet frames.
    Ethernet,
}

impl InnerProtocol {
    /// Bytes of the header between the encapsulation's and the IP packet.
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

/// What the header of an encapsulation says.
#[derive(Clone, Copy, Debug)]
pub struct EncapHeader<'a> {
    /// The virtual network.
    pub vni: Vni,
    /// What is inside: an EtherType, or [`protocol_type::ETHERNET`].
    pub protocol: u16,
    /// A control message, whose payload is never forwarded.
    pub control: bool,
    /// The options, as they were received.
    pub options: &'a [u8],
    /// Bytes before what is inside.
    pub header_len: usize,
}

impl<'a> EncapHeader<'a> {
    /// The options, in their order on the wire.
    #[inline]
    #[must_use]
    pub fn options(&self) -> OptionIter<'a> {
        OptionIter::new(self.options)
    }

    /// What is inside; `None` for what no link carries.
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

/// Why a datagram cannot be unwrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncapError {
    /// It is not a Geneve packet.
    #[error(transparent)]
    Geneve(#[from] GeneveError),
    /// It is not a VXLAN packet.
    #[error(transparent)]
    Vxlan(#[from] VxlanError),
}

impl Encapsulation {
    /// All of them.
    pub const ALL: [Encapsulation; 2] = [Encapsulation::Geneve, Encapsulation::Vxlan];

    /// The name that `ip link` gives devices of the kind.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Encapsulation::Geneve => "geneve",
            Encapsulation::Vxlan => "vxlan",
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Encapsulation::Geneve => "Geneve",
            Encapsulation::Vxlan => "VXLAN",
        }
    }

    /// The UDP port that IANA assigned.
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

    /// What links carry that were not told.
    #[must_use]
    pub const fn default_inner(self) -> InnerProtocol {
        match self {
            Encapsulation::Geneve => InnerProtocol::Ip,
            Encapsulation::Vxlan => InnerProtocol::Ethernet,
        }
    }

    /// Whether it can carry this.
    #[must_use]
    pub const fn carries(self, inner: InnerProtocol) -> bool {
        match (self, inner) {
            (Encapsulation::Geneve, _) | (Encapsulation::Vxlan, InnerProtocol::Ethernet) => true,
            (Encapsulation::Vxlan, InnerProtocol::Ip) => false,
        }
    }

    /// Unwraps a UDP payload.
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

    /// The header without options of a packet of `vni` that carries `protocol`, an EtherType or
    /// [`protocol_type::ETHERNET`]. VXLAN carries the latter only, and does not say so.
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
