//! Segmentation of super-packets from TUN into packets for the wire.
//!
//! Owns segmentation of TCP and UDP (RFC 9293, RFC 768) with finished checksums, and finishes the checksum of a
//! packet that is not segmented. Payload is neither copied nor changed: each packet is a rewritten header and a
//! range. The caller checks whether the result fits the tunnel MTU.
//!
//! Every packet begins with the same encapsulation, with the options in the same order (RFC 8926 section 4.6).

use std::ops::Range;

use zerocopy::byteorder::network_endian::{U16, U32};

use super::OffloadError;
pub use super::segments::SegmentSink;
use super::segments::{MAX_SPLIT_SEGMENTS, SegmentHeaders};
use super::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use crate::wire::checksum::{self, Sum, pseudo_header};
use crate::wire::ip::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4Header, Ipv6Header};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport};
use crate::wire::transport::{TCP_HEADER_LEN, TcpFlags, TcpHeader, UDP_HEADER_LEN, UdpHeader};
use crate::wire::{prefix, prefix_mut};

/// Result of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SplitResult {
    /// How many packets: 1 to [`MAX_SPLIT_SEGMENTS`].
    pub segments: u16,
    /// Bytes of each packet but the last, encapsulation included.
    pub segment_len: u32,
    /// Bytes of the last packet, encapsulation included.
    pub last_len: u32,
}

/// Cuts `packet` as `vnet` asks, and passes each piece to `out` behind `encap`.
///
/// `bytes` is the inner packet that `packet` was parsed from. Without segmentation there is one piece, whose header
/// is `encap` alone and whose payload is the whole packet; a partial checksum is finished in `bytes`. A checksum
/// field beyond the packet's own transport header belongs to a tunnel that the tenant runs itself, and is finished as
/// `vnet` describes.
///
/// With segmentation, sequence numbers advance, CWR stays on the first segment, PSH and FIN on the last, IPv4
/// identifications increment and wrap, and lengths and checksums are recomputed.
///
/// # Errors
///
/// Nothing was given to `out` then.
/// - [`OffloadError::Unfit`]: `vnet` does not fit the packet: another protocol, a fragment or a
///   source-routed packet to segment, a segment size of 0, more than [`MAX_SPLIT_SEGMENTS`], headers that
///   are longer than 512 bytes together with `encap`, a checksum where the packet has none.
/// - [`OffloadError::Malformed`]: `packet` does not describe `bytes`.
#[inline]
pub fn split(
    encap: &[u8],
    vnet: &VnetHdr,
    packet: &Packet,
    bytes: &mut [u8],
    out: &mut impl SegmentSink,
) -> Result<SplitResult, OffloadError> {
    check_bounds(packet, bytes)?;
    match (vnet.gso_type, packet.version, packet.transport) {
        (GsoType::None, ..) => {
            finish_checksum(vnet, packet, bytes)?;
            Ok(pass_whole(encap, packet, out))
        }
        (GsoType::TcpV4, IpVersion::V4, Transport::Tcp { flags, .. })
        | (GsoType::TcpV6, IpVersion::V6, Transport::Tcp { flags, .. })
            if !flags.contains(TcpFlags::SYN) =>
        {
            cut::<TcpSegments>(encap, vnet, packet, bytes, out)
        }
        (GsoType::UdpL4, _, Transport::Udp { len, .. }) if len == packet.transport_len() => {
            cut::<UdpSegments>(encap, vnet, packet, bytes, out)
        }
        _ => Err(OffloadError::Unfit),
    }
}

/// Whether a TCP super-packet may be handed to a kernel uncut: `vnet` is what a kernel writes for its own packets. A
/// process with a packet socket can write anything (`PACKET_VNET_HDR`); if the kernel refused such a packet, other
/// flows would suffer.
#[inline]
#[must_use]
pub fn is_sound_tcp(vnet: &VnetHdr, packet: &Packet) -> bool {
    let flags = match (vnet.gso_type, packet.version, packet.transport) {
        (GsoType::TcpV4, IpVersion::V4, Transport::Tcp { flags, .. })
        | (GsoType::TcpV6, IpVersion::V6, Transport::Tcp { flags, .. }) => flags,
        _ => return false,
    };
    let payload = packet.total_len.saturating_sub(packet.payload_offset);
    let segments = usize::from(payload.div_ceil(vnet.gso_size.max(1)));
    !flags.intersects(TcpFlags::SYN | TcpFlags::RST | TcpFlags::URG)
        && packet.fragment == Fragment::Whole
        && !packet.source_routed
        && vnet.flags == NEEDS_CSUM
        && vnet.csum_start == packet.transport_offset
        && Some(vnet.csum_offset) == packet.checksum_offset()
        && vnet.gso_size > 0
        && (2..=MAX_SPLIT_SEGMENTS).contains(&segments)
}

/// Passes a packet on in one piece.
#[inline]
pub(super) fn pass_whole(encap: &[u8], packet: &Packet, out: &mut impl SegmentSink) -> SplitResult {
    let len = encap.len() as u32 + u32::from(packet.total_len);
    out.segment(encap, 0..usize::from(packet.total_len));
    SplitResult {
        segments: 1,
        segment_len: len,
        last_len: len,
    }
}

/// The fields of `Packet` are public: a value that was not parsed from these bytes must not cause access out of
/// bounds.
#[inline]
pub(super) fn check_bounds(packet: &Packet, bytes: &[u8]) -> Result<(), OffloadError> {
    let ordered = packet.transport_offset <= packet.payload_offset
        && packet.payload_offset <= packet.total_len
        && usize::from(packet.total_len) <= bytes.len();
    let ip_header = usize::from(packet.transport_offset);
    let ip_fits = match packet.version {
        IpVersion::V4 => {
            let header_len = prefix(bytes).map(Ipv4Header::header_len);
            ip_header >= IPV4_HEADER_LEN && header_len == Some(ip_header)
        }
        IpVersion::V6 => ip_header >= IPV6_HEADER_LEN,
    };
    let transport_header =
        usize::from(packet.payload_offset) - ip_header.min(packet.payload_offset.into());
    let transport_fits = match packet.transport {
        Transport::Tcp { .. } => transport_header >= TCP_HEADER_LEN,
        Transport::Udp { .. } => transport_header == UDP_HEADER_LEN,
        _ => true,
    };
    if ordered && ip_fits && transport_fits {
        Ok(())
    } else {
        Err(OffloadError::Malformed)
    }
}

/// Finishes a checksum that the kernel left partial (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
#[inline]
pub(super) fn finish_checksum(
    vnet: &VnetHdr,
    packet: &Packet,
    bytes: &mut [u8],
) -> Result<(), OffloadError> {
    if !vnet.needs_checksum() {
        return Ok(());
    }
    if vnet.csum_start == packet.transport_offset {
        let fits = Some(vnet.csum_offset) == packet.checksum_offset();
        if !fits || packet.fragment != Fragment::Whole {
            return Err(OffloadError::Unfit);
        }
        if packet.write_checksum(bytes) {
            return Ok(());
        }
    } else if vnet.csum_start
        < packet
            .payload_offset
            .max(packet.transport_offset.saturating_add(1))
    {
        return Err(OffloadError::Unfit);
    }
    let start = usize::from(vnet.csum_start);
    let field = start + usize::from(vnet.csum_offset);
    let end = usize::from(packet.total_len);
    if field + 2 > end {
        return Err(OffloadError::Unfit);
    }
    // The field is part of the sum: it holds the pseudo-header's.
    let check = match Sum::ZERO.bytes(&bytes[start..end]).checksum() {
        0 => 0xffff,
        check => check,
    };
    checksum::set_field(bytes, field, check);
    Ok(())
}

/// Header of one transport protocol, rewritten for each segment.
trait SegmentHeader: Sized {
    /// Offset of the checksum field from the transport header.
    const CHECKSUM: u16;
    /// Sums what all segments share; `header` is the transport header, `pseudo` the pseudo-header's sum without its
    /// length. `None` if `header` is not such a header.
    fn new(header: &mut [u8], pseudo: Sum) -> Option<Self>;
    /// Rewrites `header` for the segment with the payload `payload`.
    fn write(&self, header: &mut [u8], payload: &[u8], place: &SegmentPosition);
}

/// Position of a segment in its super-packet.
struct SegmentPosition {
    /// Payload bytes before this segment.
    before: u32,
    first: bool,
    last: bool,
}

#[inline]
fn cut<C: SegmentHeader>(
    encap: &[u8],
    vnet: &VnetHdr,
    packet: &Packet,
    bytes: &[u8],
    out: &mut impl SegmentSink,
) -> Result<SplitResult, OffloadError> {
    let checksum_fits = !vnet.needs_checksum()
        || vnet.csum_start == packet.transport_offset && vnet.csum_offset == C::CHECKSUM;
    if !checksum_fits
        || vnet.gso_size == 0
        || packet.fragment != Fragment::Whole
        || packet.source_routed
    {
        return Err(OffloadError::Unfit);
    }
    let header_len = usize::from(packet.payload_offset);
    let total_len = usize::from(packet.total_len);
    let transport = usize::from(packet.transport_offset);
    let step = usize::from(vnet.gso_size);
    let count = (total_len - header_len).div_ceil(step).max(1);
    if count > MAX_SPLIT_SEGMENTS {
        return Err(OffloadError::Unfit);
    }
    let mut headers = SegmentHeaders::new(encap, &bytes[..header_len])?;
    let inner = headers.inner();
    let ip =
        IpSegments::new(packet.version, &mut inner[..transport]).ok_or(OffloadError::Malformed)?;
    let pseudo = pseudo_header(packet.src, packet.dst, packet.protocol, 0);
    let template = C::new(&mut inner[transport..], pseudo).ok_or(OffloadError::Malformed)?;
    let mut longest = 0;
    let mut last_len = 0;
    for index in 0..count {
        let start = header_len + index * step;
        let range: Range<usize> = start..(start + step).min(total_len);
        let (ip_header, transport_header) = headers.inner().split_at_mut(transport);
        ip.write(ip_header, (header_len + range.len()) as u16, index as u16);
        let place = SegmentPosition {
            before: (start - header_len) as u32,
            first: index == 0,
            last: index + 1 == count,
        };
        template.write(transport_header, &bytes[range.clone()], &place);
        last_len = (headers.all().len() + range.len()) as u32;
        longest = last_len.max(longest);
        out.segment(headers.all(), range);
    }
    Ok(SplitResult {
        segments: count as u16,
        segment_len: longest,
        last_len,
    })
}

/// IP header, rewritten for each segment.
enum IpSegments {
    V4 {
        /// The header without length, identification and checksum.
        sum: Sum,
        identification: u16,
    },
    V6,
}

impl IpSegments {
    #[inline]
    fn new(version: IpVersion, header: &mut [u8]) -> Option<IpSegments> {
        if version == IpVersion::V6 {
            return Some(IpSegments::V6);
        }
        let fixed: &mut Ipv4Header = prefix_mut(header)?;
        let identification = fixed.identification.get();
        fixed.total_len = U16::ZERO;
        fixed.identification = U16::ZERO;
        fixed.checksum = U16::ZERO;
        Some(IpSegments::V4 {
            sum: Sum::ZERO.bytes(header),
            identification,
        })
    }

    #[inline]
    fn write(&self, header: &mut [u8], total_len: u16, index: u16) {
        match self {
            IpSegments::V4 {
                sum,
                identification,
            } => {
                let identification = identification.wrapping_add(index);
                let sum = sum.word(total_len).word(identification);
                if let Some(fixed) = prefix_mut::<Ipv4Header>(header) {
                    fixed.total_len = total_len.into();
                    fixed.identification = identification.into();
                    fixed.checksum = sum.checksum().into();
                }
            }
            IpSegments::V6 => {
                if let Some(fixed) = prefix_mut::<Ipv6Header>(header) {
                    fixed.payload_len = (total_len - IPV6_HEADER_LEN as u16).into();
                }
            }
        }
    }
}

struct TcpSegments {
    /// Sum of the pseudo-header without length, and of the header without sequence number, flags and checksum.
    sum: Sum,
    seq: u32,
    flags: TcpFlags,
}

impl SegmentHeader for TcpSegments {
    const CHECKSUM: u16 = TcpHeader::CHECKSUM_OFFSET;

    #[inline]
    fn new(header: &mut [u8], pseudo: Sum) -> Option<Self> {
        let fixed: &mut TcpHeader = prefix_mut(header)?;
        let (seq, flags) = (fixed.sequence_number.get(), fixed.flags);
        fixed.sequence_number = U32::ZERO;
        fixed.flags = TcpFlags::default();
        fixed.checksum = U16::ZERO;
        Some(TcpSegments {
            sum: pseudo.bytes(header),
            seq,
            flags,
        })
    }

    #[inline]
    fn write(&self, header: &mut [u8], payload: &[u8], place: &SegmentPosition) {
        let seq = self.seq.wrapping_add(place.before);
        let mut flags = self.flags;
        if !place.first {
            flags = flags.without(TcpFlags::CWR);
        }
        if !place.last {
            flags = flags.without(TcpFlags::PSH | TcpFlags::FIN);
        }
        let len = (header.len() + payload.len()) as u32;
        let sum = self.sum.dword(len).dword(seq).word(u16::from(flags.0));
        if let Some(fixed) = prefix_mut::<TcpHeader>(header) {
            fixed.sequence_number = seq.into();
            fixed.flags = flags;
            fixed.checksum = sum.bytes(payload).checksum().into();
        }
    }
}

struct UdpSegments {
    /// Sum of the pseudo-header without length, and of the ports.
    sum: Sum,
}

impl SegmentHeader for UdpSegments {
    const CHECKSUM: u16 = UdpHeader::CHECKSUM_OFFSET;

    #[inline]
    fn new(header: &mut [u8], pseudo: Sum) -> Option<Self> {
        let fixed: &mut UdpHeader = prefix_mut(header)?;
        (fixed.length, fixed.checksum) = (U16::ZERO, U16::ZERO);
        Some(UdpSegments {
            sum: pseudo.bytes(header),
        })
    }

    #[inline]
    fn write(&self, header: &mut [u8], payload: &[u8], _: &SegmentPosition) {
        let len = (header.len() + payload.len()) as u16;
        // Once for the pseudo-header, once for the header.
        let sum = self.sum.word(len).word(len).bytes(payload);
        let check = match sum.checksum() {
            0 => 0xffff,
            check => check,
        };
        if let Some(fixed) = prefix_mut::<UdpHeader>(header) {
            (fixed.length, fixed.checksum) = (len.into(), check.into());
        }
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
