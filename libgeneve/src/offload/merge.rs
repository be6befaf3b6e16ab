//! Merging packets from the wire into super-packets for TUN (GRO).
//!
//! Owns which packets may be merged: those that the kernel's own GRO would merge (`tcp_gro_receive`,
//! `udp_gro_receive` and the IP layers below them, Linux 6.x), so that receivers see nothing unusual. Merging is
//! reversible: segmenting a merged packet gives the same packets, except for the identification of IPv4 packets with
//! DF, which has no meaning (RFC 6864). UDP datagrams to a multicast or broadcast address are never merged: copies of
//! them go to sockets of many kinds. Where packets come from, which may pass, and whether UDP is for a socket at all
//! is left to others; [`partial`] handles packets whose checksum was never finished.
//!
//! Packets of one flow leave in the order in which they arrived, including those that are not merged. All memory is
//! allocated by [`Merger::new`].

use std::net::IpAddr;

use zerocopy::FromBytes;

pub use super::partial::partial;
use super::split::check_bounds;
use super::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use crate::wire::checksum::{self, Sum, pseudo_header};
use crate::wire::ip::{
    IPV4_HEADER_LEN, IPV6_HEADER_LEN, Ipv4Header, Ipv6Header, write_ipv4_checksum,
};
use crate::wire::packet::{Fragment, IpVersion, Packet, Transport};
use crate::wire::transport::{TcpFlags, TcpHeader, UdpHeader};
use crate::wire::{prefix, prefix_mut};

/// Most packets in one super-packet: TUN refuses UDP super-packets with more (`UDP_MAX_SEGMENTS`).
pub const MAX_PARTS: usize = 128;
/// Most bytes of one super-packet.
const MAX_LEN: u32 = 65_535;
/// Longest headers that are merged: IPv6 without extensions, and TCP with 40 bytes of options.
const MAX_MERGED_HEADERS: usize = 100;
/// A packet with any of these flags is never merged.
const NEVER: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::RST.0 | TcpFlags::URG.0);
/// Nothing is appended after a packet with any of these flags.
const LAST: TcpFlags = TcpFlags(TcpFlags::PSH.0 | TcpFlags::FIN.0);

/// Range in one of the caller's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<T> {
    /// The buffer.
    pub tag: T,
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

/// Packet to write to TUN: `vnet`, then `header`, then all of `parts`.
#[derive(Clone, Copy, Debug)]
pub struct SuperPacket<'a, T> {
    /// The `virtio_net_hdr`.
    pub vnet: VnetHdr,
    /// The rewritten inner headers; empty for a packet that was not merged, whose part includes its own headers.
    pub header: &'a [u8],
    /// The payloads in order; for a packet that was not merged, all of it.
    pub parts: &'a [Part<T>],
    /// Number of packets it was merged from: 1 to [`MAX_PARTS`].
    pub segments: u16,
}

/// GRO engine: holds the packets that may still grow, at most one per flow. `T` identifies one of the caller's
/// buffers.
#[derive(Debug)]
pub struct Merger<T: Copy> {
    slots: Vec<MergedFlow<T>>,
    /// Slots in use, oldest first.
    open: Vec<u16>,
    free: Vec<u16>,
    uso: bool,
}

impl<T: Copy> Merger<T> {
    /// Returns a merger for at most `flows` flows (1 to 65,535). `uso` says whether TUN takes UDP super-packets
    /// (`TUN_F_USO4` and `TUN_F_USO6`); without it, UDP is passed on unmerged.
    #[must_use]
    pub fn new(flows: usize, uso: bool) -> Self {
        let flows = flows.clamp(1, usize::from(u16::MAX));
        Merger {
            slots: (0..flows).map(|_| MergedFlow::new()).collect(),
            open: Vec::with_capacity(flows),
            free: (0..flows as u16).rev().collect(),
            uso,
        }
    }

    /// Takes a packet, and passes to `out` whatever must go to TUN now.
    ///
    /// `lane` separates packets that must never be merged: the TUN queue, the link, the outer source and the bytes of
    /// the Geneve header (RFC 8926 section 4.6). Packets of one flow in different lanes still keep their order.
    /// `packet` was parsed from `inner`, which begins at `start` in the buffer `tag` and must stay there until it was
    /// passed to `out`. Inner checksums are verified; a packet with a wrong one is passed on alone and unchanged, so
    /// that its receiver counts it.
    #[inline]
    pub fn push(
        &mut self,
        lane: u64,
        tag: T,
        start: u32,
        inner: &[u8],
        packet: &Packet,
        out: &mut impl FnMut(u64, SuperPacket<'_, T>),
    ) {
        let key = MergeKey::of(packet);
        let Some(segment) = self.mergeable(inner, packet) else {
            let len = (inner.len() as u64).min(packet.total_len.into()) as u32;
            return self.pass(lane, Part { tag, start, len }, packet, out);
        };
        let payload = Part {
            tag,
            start: start.wrapping_add(segment.header.len() as u32),
            len: segment.payload_len,
        };
        if let Some(at) = self.position(&key) {
            let held = &mut self.slots[usize::from(self.open[at])];
            match held.append(lane, &segment, payload) {
                AppendOutcome::Taken => return,
                AppendOutcome::Last => return self.release(at, out),
                AppendOutcome::Refused => self.release(at, out),
            }
        }
        if segment.flags.intersects(LAST) {
            let len = u32::from(packet.total_len);
            out(lane, alone(&[Part { tag, start, len }]));
            return;
        }
        if self.free.is_empty() {
            self.release(0, out);
        }
        if let Some(slot) = self.free.pop() {
            self.open.push(slot);
            self.slots[usize::from(slot)].begin(key, lane, &segment, payload);
        }
    }

    /// Passes a packet to `out` unmerged, after what is held of its flow. `whole` is the range of the entire packet.
    #[inline]
    pub fn pass(
        &mut self,
        lane: u64,
        whole: Part<T>,
        packet: &Packet,
        out: &mut impl FnMut(u64, SuperPacket<'_, T>),
    ) {
        self.release_before(&MergeKey::of(packet), packet.fragment, out);
        out(lane, alone(&[whole]));
    }

    /// Passes everything that is held to `out`, oldest first.
    #[inline]
    pub fn flush(&mut self, out: &mut impl FnMut(u64, SuperPacket<'_, T>)) {
        for &slot in &self.open {
            self.slots[usize::from(slot)].release(out);
            self.free.push(slot);
        }
        self.open.clear();
    }

    /// Flushes what must leave before a packet of `key` that is not merged.
    fn release_before(
        &mut self,
        key: &MergeKey,
        fragment: Fragment,
        out: &mut impl FnMut(u64, SuperPacket<'_, T>),
    ) {
        if fragment == Fragment::Whole {
            if let Some(at) = self.position(key) {
                self.release(at, out);
            }
            return;
        }
        // Later fragments have no ports: the packet may belong to any flow between the two addresses.
        let mut at = 0;
        while at < self.open.len() {
            if self.slots[usize::from(self.open[at])].key.same_hosts(key) {
                self.release(at, out);
            } else {
                at += 1;
            }
        }
    }

    #[inline]
    fn position(&self, key: &MergeKey) -> Option<usize> {
        self.open
            .iter()
            .position(|&slot| self.slots[usize::from(slot)].key == *key)
    }

    #[inline]
    fn release(&mut self, at: usize, out: &mut impl FnMut(u64, SuperPacket<'_, T>)) {
        let slot = self.open.remove(at);
        self.slots[usize::from(slot)].release(out);
        self.free.push(slot);
    }

    /// Returns the mergeable parts of a packet, judged by this packet alone.
    #[inline]
    fn mergeable<'a>(&self, inner: &'a [u8], packet: &Packet) -> Option<MergeCandidate<'a>> {
        if packet.fragment != Fragment::Whole || packet.source_routed {
            return None;
        }
        check_bounds(packet, inner).ok()?;
        let ip_len = usize::from(packet.transport_offset);
        match packet.version {
            IpVersion::V4 => {
                let header: &Ipv4Header = prefix(inner)?;
                let evil = header.flags_fragment_offset.get() & Ipv4Header::RESERVED != 0;
                let whole = Sum::ZERO.bytes(&inner[..ip_len]).checksum() == 0;
                if ip_len != IPV4_HEADER_LEN || evil || !whole {
                    return None;
                }
            }
            IpVersion::V6 if ip_len != IPV6_HEADER_LEN => return None,
            IpVersion::V6 => {}
        }
        let transport_len = packet.transport_len();
        let (flags, seq) = match packet.transport {
            Transport::Tcp { flags, seq, .. } if !flags.intersects(NEVER) => (flags, seq),
            // Padding after the datagram would become part of the next one.
            Transport::Udp { len, .. }
                if self.uso && len == transport_len && !packet.is_for_group() =>
            {
                let header: &UdpHeader = prefix(&inner[ip_len..])?;
                (header.checksum != 0).then_some((TcpFlags::default(), 0))?
            }
            _ => return None,
        };
        let payload_len = u32::from(packet.payload_len());
        let (total_len, protocol) = (usize::from(packet.total_len), packet.protocol);
        let pseudo = pseudo_header(packet.src, packet.dst, protocol, u32::from(transport_len));
        let covered = &inner[ip_len..total_len];
        let fits = payload_len > 0 && usize::from(packet.payload_offset) <= MAX_MERGED_HEADERS;
        if !fits || pseudo.bytes(covered).checksum() != 0 {
            return None;
        }
        Some(MergeCandidate {
            header: &inner[..usize::from(packet.payload_offset)],
            ip_len,
            is_tcp: matches!(packet.transport, Transport::Tcp { .. }),
            flags,
            seq,
            payload_len,
        })
    }
}

/// Returns a packet that was not merged.
#[inline]
fn alone<T>(parts: &[Part<T>]) -> SuperPacket<'_, T> {
    SuperPacket {
        vnet: VnetHdr::NONE,
        header: &[],
        parts,
        segments: 1,
    }
}

/// Key of a flow, regardless of the lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MergeKey {
    ports: Option<(u16, u16)>,
    protocol: u8,
    src: IpAddr,
    dst: IpAddr,
}

impl MergeKey {
    #[inline]
    fn of(packet: &Packet) -> MergeKey {
        MergeKey {
            ports: packet.ports(),
            protocol: packet.protocol,
            src: packet.src,
            dst: packet.dst,
        }
    }

    fn same_hosts(&self, other: &MergeKey) -> bool {
        (self.protocol, self.src, self.dst) == (other.protocol, other.src, other.dst)
    }
}

/// Headers of a packet that may be merged.
struct MergeCandidate<'a> {
    header: &'a [u8],
    ip_len: usize,
    is_tcp: bool,
    /// Empty for UDP.
    flags: TcpFlags,
    /// 0 for UDP.
    seq: u32,
    payload_len: u32,
}

/// Outcome of offering a packet to a held one.
enum AppendOutcome {
    /// Appended.
    Taken,
    /// Appended, and nothing may follow.
    Last,
    /// Does not belong to it.
    Refused,
}

/// Packets of one flow that were merged so far.
#[derive(Debug)]
struct MergedFlow<T> {
    key: MergeKey,
    lane: u64,
    /// Headers of the first packet, with PSH and FIN of the last.
    header: [u8; MAX_MERGED_HEADERS],
    header_len: usize,
    ip_len: usize,
    is_tcp: bool,
    parts: Vec<Part<T>>,
    /// Payload bytes of each part but the last.
    gso_size: u32,
    payload_len: u32,
    next_seq: u32,
    /// The IPv4 identification does not increment.
    fixed_id: bool,
}

impl<T: Copy> MergedFlow<T> {
    fn new() -> Self {
        let nobody = IpAddr::from([0; 4]);
        MergedFlow {
            key: MergeKey {
                ports: None,
                protocol: 0,
                src: nobody,
                dst: nobody,
            },
            lane: 0,
            header: [0; MAX_MERGED_HEADERS],
            header_len: 0,
            ip_len: 0,
            is_tcp: false,
            parts: Vec::with_capacity(MAX_PARTS),
            gso_size: 0,
            payload_len: 0,
            next_seq: 0,
            fixed_id: false,
        }
    }

    /// Starts a new super-packet with this packet.
    #[inline]
    fn begin(&mut self, key: MergeKey, lane: u64, segment: &MergeCandidate<'_>, payload: Part<T>) {
        self.key = key;
        self.lane = lane;
        self.header_len = segment.header.len();
        self.header[..self.header_len].copy_from_slice(segment.header);
        self.ip_len = segment.ip_len;
        self.is_tcp = segment.is_tcp;
        self.gso_size = segment.payload_len;
        self.payload_len = segment.payload_len;
        self.next_seq = segment.seq.wrapping_add(segment.payload_len);
        self.fixed_id = false;
        self.parts.clear();
        self.parts.push(payload);
    }

    #[inline]
    fn append(
        &mut self,
        lane: u64,
        segment: &MergeCandidate<'_>,
        payload: Part<T>,
    ) -> AppendOutcome {
        let len = self.header_len as u32 + self.payload_len + segment.payload_len;
        let fits = self.lane == lane
            && self.header_len == segment.header.len()
            && self.ip_len == segment.ip_len
            && len <= MAX_LEN
            && segment.payload_len <= self.gso_size
            && self.parts.len() < MAX_PARTS;
        if !fits || !self.transport_continues(segment) {
            return AppendOutcome::Refused;
        }
        let Some(fixed_id) = self.ip_continues(segment.header) else {
            return AppendOutcome::Refused;
        };
        self.fixed_id = fixed_id;
        self.parts.push(payload);
        self.payload_len += segment.payload_len;
        self.next_seq = self.next_seq.wrapping_add(segment.payload_len);
        let last = segment.flags.intersects(LAST);
        if last && let Some(header) = prefix_mut::<TcpHeader>(&mut self.header[self.ip_len..]) {
            header.flags.0 |= segment.flags.0 & LAST.0;
        }
        if last || segment.payload_len < self.gso_size || self.parts.len() == MAX_PARTS {
            AppendOutcome::Last
        } else {
            AppendOutcome::Taken
        }
    }

    /// Whether the TCP header is what segmentation would have produced for the next segment.
    #[inline]
    fn transport_continues(&self, segment: &MergeCandidate<'_>) -> bool {
        if !self.is_tcp {
            return true;
        }
        let (Ok((first, first_options)), Ok((next, next_options))) = (
            TcpHeader::ref_from_prefix(&self.header[self.ip_len..self.header_len]),
            TcpHeader::ref_from_prefix(&segment.header[self.ip_len..]),
        ) else {
            return false;
        };
        let only_in_one = TcpFlags(first.flags.0 ^ next.flags.0).without(LAST | TcpFlags::CWR);
        let equal = first.acknowledgment_number == next.acknowledgment_number
            && first.data_offset == next.data_offset
            && first.window == next.window
            && first.urgent_pointer == next.urgent_pointer
            && first_options == next_options;
        // CWR starts a new packet, because segmentation leaves it on the first segment.
        equal
            && segment.seq == self.next_seq
            && only_in_one == TcpFlags::default()
            && !segment.flags.contains(TcpFlags::CWR)
    }

    /// Whether the IP header may follow the held ones; if so, whether all of them have the same identification.
    #[inline]
    fn ip_continues(&self, next: &[u8]) -> Option<bool> {
        if self.ip_len == IPV6_HEADER_LEN {
            let (first, next): (&Ipv6Header, &Ipv6Header) = (prefix(&self.header)?, prefix(next)?);
            let equal = first.version_class_flow == next.version_class_flow
                && first.hop_limit == next.hop_limit;
            return equal.then_some(false);
        }
        let (first, next): (&Ipv4Header, &Ipv4Header) = (prefix(&self.header)?, prefix(next)?);
        // Neither is a fragment: of flags and offset, only DF can be set.
        let equal = first.tos == next.tos
            && first.flags_fragment_offset == next.flags_fragment_offset
            && first.ttl == next.ttl;
        if !equal {
            return None;
        }
        let step = next.identification.get();
        let step = step.wrapping_sub(first.identification.get());
        let count = self.parts.len() as u16;
        let fixed_id = self.fixed_id || count == 1 && next.dont_fragment() && step == 0;
        let expected = if fixed_id { 0 } else { count };
        (step == expected).then_some(fixed_id)
    }

    /// Passes the held packet to `out`.
    #[inline]
    fn release(&mut self, out: &mut impl FnMut(u64, SuperPacket<'_, T>)) {
        if let [payload] = self.parts[..] {
            let header_len = self.header_len as u32;
            let whole = Part {
                tag: payload.tag,
                start: payload.start.wrapping_sub(header_len),
                len: payload.len + header_len,
            };
            out(self.lane, alone(&[whole]));
            return;
        }
        let vnet = self.finish_header();
        let merged = SuperPacket {
            vnet,
            header: &self.header[..self.header_len],
            parts: &self.parts,
            segments: self.parts.len() as u16,
        };
        out(self.lane, merged);
    }

    /// Turns the first packet's headers into those of the super-packet, with a partial checksum.
    #[inline]
    fn finish_header(&mut self) -> VnetHdr {
        let (ip_len, header_len) = (self.ip_len, self.header_len);
        let header = &mut self.header[..header_len];
        let total_len = (header_len as u32 + self.payload_len) as u16;
        let is_v6 = ip_len == IPV6_HEADER_LEN;
        if is_v6 {
            if let Some(ip) = prefix_mut::<Ipv6Header>(header) {
                ip.payload_len = (total_len - IPV6_HEADER_LEN as u16).into();
            }
        } else {
            if let Some(ip) = prefix_mut::<Ipv4Header>(header) {
                ip.total_len = total_len.into();
            }
            write_ipv4_checksum(header);
        }
        let transport_len = total_len - ip_len as u16;
        let key = &self.key;
        let pseudo = pseudo_header(key.src, key.dst, key.protocol, u32::from(transport_len));
        let (gso_type, csum_offset) = match (self.is_tcp, is_v6) {
            (true, false) => (GsoType::TcpV4, TcpHeader::CHECKSUM_OFFSET),
            (true, true) => (GsoType::TcpV6, TcpHeader::CHECKSUM_OFFSET),
            (false, _) => (GsoType::UdpL4, UdpHeader::CHECKSUM_OFFSET),
        };
        let transport = &mut header[ip_len..];
        let mut ecn = false;
        if self.is_tcp {
            let tcp: Option<&TcpHeader> = prefix(transport);
            ecn = tcp.is_some_and(|tcp| tcp.flags.contains(TcpFlags::CWR));
        } else if let Some(udp) = prefix_mut::<UdpHeader>(transport) {
            udp.length = transport_len.into();
        }
        checksum::set_field(transport, csum_offset.into(), pseudo.fold());
        VnetHdr {
            flags: NEEDS_CSUM,
            gso_type,
            ecn,
            hdr_len: header_len as u16,
            gso_size: self.gso_size as u16,
            csum_start: ip_len as u16,
            csum_offset,
        }
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
