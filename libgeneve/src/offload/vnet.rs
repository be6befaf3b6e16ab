//! `virtio_net_hdr`: the ten bytes before every packet that TUN hands over or takes with `IFF_VNET_HDR`.
//!
//! Owns the layout of this header and of the longer one for packets in tunnels, and the GSO types that geneved
//! supports. [`split`](super::split) checks that a header fits the packet behind it.
//!
//! The 16-bit fields are in native byte order, which is what TUN uses unless TUNSETVNETLE or TUNSETVNETBE asked for
//! another: little-endian on x86 and on 64-bit ARM as it is run.

use zerocopy::byteorder::{ByteOrder, LittleEndian, NativeEndian, U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute};

use crate::wire::packet::Packet;
use crate::wire::prefix;
use crate::wire::transport::TcpHeader;

/// Bytes of the header without the number of buffers (`TUNSETVNETHDRSZ` is left at its default).
pub const LEN: usize = size_of::<VirtioNetHeader<NativeEndian>>();

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum field holds the pseudo-header's sum only.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum was verified.
pub const DATA_VALID: u8 = 2;

/// `VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM`: the outer UDP checksum must be finished, too.
const UDP_TUNNEL_CSUM: u8 = 8;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
const GSO_ECN: u8 = 0x80;

/// `struct virtio_net_hdr` (virtio 1.3 section 5.1.6, `linux/virtio_net.h`), its integers in the byte order `O`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VirtioNetHeader<O: ByteOrder> {
    /// [`NEEDS_CSUM`] and [`DATA_VALID`].
    pub flags: u8,
    /// GSO type, and the flag that CWR is set.
    pub gso_type: u8,
    /// Bytes of all headers.
    pub hdr_len: U16<O>,
    /// Payload bytes of each segment but the last.
    pub gso_size: U16<O>,
    /// Start of the checksum's coverage, from the packet's start.
    pub csum_start: U16<O>,
    /// Offset of the checksum field from `csum_start`.
    pub csum_offset: U16<O>,
}

/// `struct virtio_net_hdr_v1_hash_tunnel` (`linux/virtio_net.h`): the header of an encapsulated super-packet, little-endian.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct VirtioTunnelHeader {
    /// The base header; offsets and lengths count from the outermost header.
    pub hdr: VirtioNetHeader<LittleEndian>,
    /// Number of buffers of a received packet; 0 when sent.
    pub num_buffers: U16<LittleEndian>,
    /// Hash of a received packet; 0 when sent.
    pub hash_value: U32<LittleEndian>,
    /// What the hash covers; 0 when sent.
    pub hash_report: U16<LittleEndian>,
    /// Zero.
    pub padding: U16<LittleEndian>,
    /// Offset of the outer UDP header from the outermost header.
    pub outer_th_offset: U16<LittleEndian>,
    /// Offset of the inner IP header from the outermost header.
    pub inner_nh_offset: U16<LittleEndian>,
}

impl VirtioTunnelHeader {
    /// Returns the header for a TCP super-packet in UDP over IPv4: `vnet` describes the inner packet `packet`, which
    /// starts at `inner`; the UDP header is at `udp`, both from the outermost header. `checksum` says whether the
    /// outer UDP checksum is partial.
    #[must_use]
    pub fn new(
        vnet: &VnetHdr,
        packet: &Packet,
        (udp, inner): (u16, u16),
        checksum: bool,
    ) -> VirtioTunnelHeader {
        let inside = VnetHdr {
            flags: NEEDS_CSUM | if checksum { UDP_TUNNEL_CSUM } else { 0 },
            hdr_len: inner + packet.payload_offset,
            csum_start: inner + packet.transport_offset,
            csum_offset: TcpHeader::CHECKSUM_OFFSET,
            ..*vnet
        };
        let mut hdr = inside.header();
        hdr.gso_type |= GSO_UDP_TUNNEL_IPV4;
        VirtioTunnelHeader {
            hdr,
            num_buffers: U16::ZERO,
            hash_value: U32::ZERO,
            hash_report: U16::ZERO,
            padding: U16::ZERO,
            outer_th_offset: udp.into(),
            inner_nh_offset: inner.into(),
        }
    }
}

/// GSO type: how a packet is segmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GsoType {
    /// Not segmented.
    #[default]
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of equal length over either family (USO).
    UdpL4,
}

/// Offload state of a packet from or to TUN.
///
/// ```
/// use libgeneve::offload::vnet::{GsoType, LEN, NEEDS_CSUM, VnetHdr};
///
/// let vnet = VnetHdr {
///     flags: NEEDS_CSUM,
///     gso_type: GsoType::TcpV4,
///     gso_size: 1448,
///     csum_start: 20,
///     csum_offset: 16,
///     ..VnetHdr::NONE
/// };
/// let mut bytes = [0; LEN];
/// vnet.write(&mut bytes);
/// assert_eq!(VnetHdr::parse(&bytes), Ok(vnet));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VnetHdr {
    /// [`NEEDS_CSUM`] and [`DATA_VALID`].
    pub flags: u8,
    /// GSO type.
    pub gso_type: GsoType,
    /// Whether CWR is set, which belongs to the first segment only (RFC 3168).
    pub ecn: bool,
    /// Bytes of all headers; a hint that is not relied on.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Start of the checksum's coverage, from the packet's start.
    pub csum_start: u16,
    /// Offset of the checksum field from `csum_start`.
    pub csum_offset: u16,
}

/// Why bytes are not a header that geneved can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VnetError {
    /// Fewer than [`LEN`] bytes.
    #[error("shorter than its header")]
    Truncated,
    /// A GSO type that was not offered to the kernel (UDP fragmentation, tunnels), or ECN without TCP.
    #[error("unknown segmentation type {0:#04x}")]
    GsoType(u8),
}

impl VnetHdr {
    /// A finished packet that needs no offload.
    pub const NONE: VnetHdr = VnetHdr {
        flags: 0,
        gso_type: GsoType::None,
        ecn: false,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Parses the header at the start of `bytes`; more bytes may follow.
    ///
    /// # Errors
    ///
    /// [`VnetError::Truncated`]; [`VnetError::GsoType`] if the GSO type is not one of [`GsoType`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<VnetHdr, VnetError> {
        let header: &VirtioNetHeader<NativeEndian> = prefix(bytes).ok_or(VnetError::Truncated)?;
        let ecn = header.gso_type & GSO_ECN != 0;
        let gso_type = match (header.gso_type & !GSO_ECN, ecn) {
            (GSO_NONE, false) => GsoType::None,
            (GSO_TCPV4, _) => GsoType::TcpV4,
            (GSO_TCPV6, _) => GsoType::TcpV6,
            (GSO_UDP_L4, false) => GsoType::UdpL4,
            _ => return Err(VnetError::GsoType(header.gso_type)),
        };
        Ok(VnetHdr {
            flags: header.flags,
            gso_type,
            ecn,
            hdr_len: header.hdr_len.get(),
            gso_size: header.gso_size.get(),
            csum_start: header.csum_start.get(),
            csum_offset: header.csum_offset.get(),
        })
    }

    /// Writes the header.
    #[inline]
    pub fn write(&self, bytes: &mut [u8; LEN]) {
        *bytes = transmute!(self.header::<NativeEndian>());
    }

    #[inline]
    fn header<O: ByteOrder>(&self) -> VirtioNetHeader<O> {
        let gso_type = match self.gso_type {
            GsoType::None => GSO_NONE,
            GsoType::TcpV4 => GSO_TCPV4,
            GsoType::TcpV6 => GSO_TCPV6,
            GsoType::UdpL4 => GSO_UDP_L4,
        };
        VirtioNetHeader {
            flags: self.flags,
            gso_type: gso_type | if self.ecn { GSO_ECN } else { 0 },
            hdr_len: self.hdr_len.into(),
            gso_size: self.gso_size.into(),
            csum_start: self.csum_start.into(),
            csum_offset: self.csum_offset.into(),
        }
    }

    /// Returns the header for the packet without its first `len` bytes; `None` if the checksum covers some of them.
    #[inline]
    #[must_use]
    pub fn behind(&self, len: usize) -> Option<VnetHdr> {
        let len = len as u16;
        let csum_start = match self.needs_checksum() {
            true => self.csum_start.checked_sub(len)?,
            false => 0,
        };
        Some(VnetHdr {
            hdr_len: self.hdr_len.saturating_sub(len),
            csum_start,
            ..*self
        })
    }

    /// Returns the header for the packet with `len` bytes put before it.
    #[inline]
    #[must_use]
    pub fn before(&self, len: usize) -> VnetHdr {
        let len = len as u16;
        let moved = |at: u16, is_set: bool| if is_set { at.saturating_add(len) } else { at };
        VnetHdr {
            hdr_len: moved(self.hdr_len, self.hdr_len != 0),
            csum_start: moved(self.csum_start, self.needs_checksum()),
            ..*self
        }
    }

    /// Whether the packet's checksum is partial.
    #[inline]
    #[must_use]
    pub const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::samples::SamplePacket;
    use proptest::prelude::*;

    #[test]
    fn a_tcp_super_packet_of_the_kernel_is_read() {
        let mut bytes = [1, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0x45];
        for (at, value) in [(2, 54u16), (4, 1448), (6, 20), (8, 16)] {
            bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        }
        let vnet = VnetHdr {
            flags: NEEDS_CSUM,
            gso_type: GsoType::TcpV4,
            ecn: true,
            hdr_len: 54,
            gso_size: 1448,
            csum_start: 20,
            csum_offset: 16,
        };
        assert_eq!(VnetHdr::parse(&bytes), Ok(vnet));
        assert!(vnet.needs_checksum());
        let mut written = [0xff; LEN];
        vnet.write(&mut written);
        assert_eq!(written, bytes[..LEN]);
    }

    #[test]
    fn the_header_of_a_tunnel_has_the_layout_of_linux() {
        let sample = SamplePacket::default();
        let (vnet, packet, _) = sample.super_packet(1400);
        let vnet = VnetHdr { ecn: true, ..vnet };
        let header = VirtioTunnelHeader::new(&vnet, &packet, (34, 50), true);
        let mut expected = [0; 24];
        // Headers end 50 + 20 + 32 bytes after the start of the Ethernet header, TCP begins at 70.
        expected[..10].copy_from_slice(&[9, 0xa1, 102, 0, 0x78, 5, 70, 0, 16, 0]);
        expected[20..].copy_from_slice(&[34, 0, 50, 0]);
        assert_eq!(header.as_bytes(), expected);
        let header = VirtioTunnelHeader::new(&vnet, &packet, (34, 50), false);
        assert_eq!(header.hdr.flags, NEEDS_CSUM);
    }

    #[test]
    fn segmentations_that_were_not_offered_are_refused() {
        for gso_type in [0x80, 2, 3, 0x85, 6, 0x21, 0x41, 0x7f] {
            let mut bytes = [0; LEN];
            bytes[1] = gso_type;
            assert_eq!(VnetHdr::parse(&bytes), Err(VnetError::GsoType(gso_type)));
        }
        assert_eq!(VnetHdr::parse(&[0; LEN - 1]), Err(VnetError::Truncated));
        assert_eq!(VnetHdr::parse(&[0; LEN]), Ok(VnetHdr::NONE));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written(bytes: [u8; LEN]) {
            if let Ok(vnet) = VnetHdr::parse(&bytes) {
                let mut written = [0; LEN];
                vnet.write(&mut written);
                prop_assert_eq!(written, bytes);
            }
        }
    }
}
