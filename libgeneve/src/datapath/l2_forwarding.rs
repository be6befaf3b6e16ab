//! Forwarding of frames on an Ethernet link, including frames outside of any flow.
//!
//! The MAC addresses of a frame determine its source check and its next hop; the IP packet inside goes through the
//! same functions as on any other link ([`decide`](super::decide)). ARP and Neighbor Discovery keep the link working,
//! so they bypass the rules; their claims are checked against the configuration. Frames that are neither IP nor ARP
//! follow the link's default policy for their direction, because rules cannot see into them.

use std::net::IpAddr;
use std::sync::Arc;

use super::decision::{FramePrefix, NextHop, PacketContext, TunnelNextHop};
use super::egress::Egress;
use super::first_packet;
use super::martian::martian;
use super::neighbor_discovery;
use super::output::{Forward, Output, OutputRequest, longest_inner, metered};
use super::packet_rewrite::PacketRewrite;
use super::{OuterTx, RefusedPacket, SenderReply, frame_reason, parse_reason};
use crate::drop::DropReason;
use crate::l2::{Bridge, BridgeCounters, FrameDestination, NeighborNotice, StationLocation};
use crate::mtu::clamp_mss;
use crate::offload::cut::{Cut, WireSize, longest_segment};
use crate::offload::vnet::{GsoType, VnetHdr};
use crate::policy::PolicyAction;
use crate::qos::Metered;
use crate::time::Now;
use crate::vpc::{Df, Host, Link, LinkConfig, LinkIndex, Tos, Ttl};
use crate::wire::arp::Arp;
use crate::wire::ethernet::{Ethernet, Mac, ethertype};
use crate::wire::header::HeaderBytes;
use crate::wire::ip::{IPV6_HEADER_LEN, protocol};
use crate::wire::nd::{AdvertisementFlags, Nd};
use crate::wire::packet::{IpVersion, Packet, Transport};

/// How long the cached result for a pair of MAC addresses is used before it is looked up again, which also refreshes
/// the age of its source.
const FRESH_NANOS: u64 = 1_000_000_000;

/// Checked frame from TAP.
#[derive(Clone, Debug)]
pub struct FrameForward {
    /// Where it goes: to its host or the first of several; or back into the TAP interface, if the frame was
    /// redirected to another station behind it.
    pub output: Output,
    /// All recipients, if there are several.
    pub flood: Option<Arc<[Arc<Host>]>>,
    /// Length of its Ethernet header, in bytes.
    pub header_len: usize,
    /// The IP packet inside; other frames are sent unchanged.
    pub packet: Option<Packet>,
    /// Offloads still to be done, with offsets from the first byte of the packet.
    pub vnet: VnetHdr,
    /// Size on the wire, per recipient.
    pub size: WireSize,
    /// Meter that must admit it first.
    pub metered: Option<Metered>,
}

impl FrameForward {
    /// Returns how to send the frame from the TAP of `link` to each recipient, or why it cannot be sent.
    pub fn ways(&self, link: &Link) -> impl Iterator<Item = Result<Forward, DropReason>> {
        let first = match &self.output {
            Output::Host(forward) => Some(forward),
            Output::Link(_) => None,
        };
        let hosts = first.into_iter().flat_map(|forward| {
            let all = self.flood.as_deref();
            let all = all.unwrap_or(std::slice::from_ref(&forward.host));
            all.iter().map(move |host| (forward, host))
        });
        hosts.map(|(forward, host)| {
            let forward = Forward {
                host: Arc::clone(host),
                ..forward.clone()
            };
            forward.leads_away(link)?;
            Ok(forward)
        })
    }
}

/// Cached next hop of the latest pair of MAC addresses.
#[derive(Debug, Default)]
pub(super) struct LastLookup {
    macs: (Mac, Mac),
    link: LinkIndex,
    epoch: u64,
    generation: u64,
    until: Now,
    frame_destination: Option<FrameDestination>,
}

impl LastLookup {
    /// Returns where frames from `src` to `dst` go, after checking the source.
    #[inline]
    fn frame_destination(
        &mut self,
        cx: &PacketContext<'_>,
        link: LinkIndex,
        bridge: &Bridge,
        (dst, src): (Mac, Mac),
    ) -> Result<FrameDestination, DropReason> {
        let valid = self.macs == (dst, src)
            && self.link == link
            && self.epoch == cx.tables.epoch
            && cx.now < self.until
            && self.generation == bridge.live.fdb.generation();
        if let (true, Some(frame_destination)) = (valid, &self.frame_destination) {
            return Ok(frame_destination.clone());
        }
        self.frame_destination = None;
        bridge.admit(src, &StationLocation::Here, cx.now)?;
        let generation = bridge.live.fdb.generation();
        let frame_destination = bridge.destination(dst, cx.now);
        *self = LastLookup {
            macs: (dst, src),
            link,
            epoch: cx.tables.epoch,
            generation,
            until: Now(cx.now.0 + FRESH_NANOS),
            frame_destination: Some(frame_destination.clone()),
        };
        Ok(frame_destination)
    }
}

/// Returns until when a cached source check is valid.
pub(super) fn fresh_until(now: Now) -> Now {
    Now(now.0 + FRESH_NANOS)
}

/// Payload type of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum FrameKind {
    Ip(IpVersion),
    Arp,
    #[default]
    Other,
}

impl FrameKind {
    pub(super) fn of(ether_type: u16) -> FrameKind {
        match ether_type {
            ethertype::IPV4 => FrameKind::Ip(IpVersion::V4),
            ethertype::IPV6 => FrameKind::Ip(IpVersion::V6),
            ethertype::ARP => FrameKind::Arp,
            _ => FrameKind::Other,
        }
    }
}

impl Egress {
    /// Decides what happens to a frame from the TAP of an Ethernet link. Rewrites `frame` if the flow is translated
    /// or its MSS exceeds the path; offsets in `vnet` count from the frame's first byte.
    ///
    /// # Errors
    /// The single reason for which it is dropped.
    #[inline]
    pub fn frame(
        &mut self,
        cx: &PacketContext<'_>,
        link: &Arc<Link>,
        bridge: &Bridge,
        frame: &mut [u8],
        vnet: &VnetHdr,
    ) -> Result<FrameForward, RefusedPacket> {
        let stopped = |reason: DropReason| RefusedPacket::of(reason, link.config.index);
        let header = Ethernet::parse(frame).map_err(|e| stopped(frame_reason(e)))?;
        let header_len = header.header_len();
        let (dst, src, tagged) = (header.dst(), header.src(), header.is_tagged());
        let kind = FrameKind::of(header.ether_type());
        let macs = (dst, src);
        let frame_destination =
            self.last_lookup
                .frame_destination(cx, link.config.index, bridge, macs);
        let frame_destination = frame_destination.map_err(stopped)?;
        let vnet = vnet
            .behind(header_len)
            .ok_or(stopped(DropReason::BadOffload))?;
        let (head, inner) = frame.split_at_mut(header_len);
        let mut sent = EgressFrame {
            cx,
            link,
            bridge,
            dst,
            src,
            header_len,
            vnet,
        };
        match kind {
            FrameKind::Ip(version) => {
                let packet = Packet::parse(inner).map_err(|e| stopped(parse_reason(e)))?;
                if packet.version != version {
                    return Err(stopped(DropReason::InnerMalformed));
                }
                martian(&link.config, &packet, inner).map_err(stopped)?;
                let notice = nd_notice(&packet, inner, vnet.needs_checksum()).map_err(stopped)?;
                if let Some(notice) = notice {
                    sent.heed(&notice, tagged)?;
                    let len = inner.len();
                    return sent.plain(&mut self.plain, frame_destination, len, Some(packet));
                }
                let size = WireSize::of(&vnet, &packet);
                let cached = self.pass(cx, link, inner, &packet, size)?;
                let NextHop::Bridge(prefix) = &cached.direction_state.next_hop else {
                    return Err(stopped(DropReason::SplitHorizon));
                };
                let class = cached.direction_state.meter.as_ref().and_then(|m| m.dscp);
                let metered = metered(cached, size.bytes);
                let (prefix, change) = ((prefix.clone(), cached.hash), cached.change);
                let mut frame_destination = frame_destination;
                // DNAT changed the IP address, so retarget the frame's MAC address.
                if let Some(to) = change.new_destination(&packet) {
                    let asked = packet.dst;
                    let mac = neighbor_discovery::station(cx, link, bridge, to, asked)
                        .map_err(stopped)?;
                    head[..6].copy_from_slice(&mac.0);
                    frame_destination = bridge.destination(mac, cx.now);
                    if frame_destination.is_here() && change.hides_source(&packet) {
                        // With the sender's own MAC address, a bridge would learn that the sender is behind this
                        // interface.
                        head[6..12].copy_from_slice(&bridge.virtual_mac.0);
                        let (mut packet, index) = (packet, link.config.index);
                        let partial = vnet.needs_checksum();
                        let packets = size.packets;
                        let changed = change.apply(cx, index, inner, &mut packet, partial, packets);
                        changed.map_err(stopped)?;
                        clamp_mss(inner, &packet, link.config.mtu, partial);
                        return Ok(FrameForward {
                            output: Output::Link(index),
                            flood: None,
                            header_len,
                            packet: Some(packet),
                            vnet,
                            size,
                            metered,
                        });
                    }
                }
                let outgoing =
                    sent.ip(&prefix, &change, frame_destination, class, inner, packet)?;
                Ok(FrameForward {
                    metered,
                    ..outgoing
                })
            }
            FrameKind::Arp => {
                let arp = Arp::parse(inner).map_err(|_| stopped(DropReason::InnerMalformed))?;
                sent.heed(&NeighborNotice::from(&arp), tagged)?;
                sent.plain(&mut self.plain, frame_destination, inner.len(), None)
            }
            FrameKind::Other if bridge.others.egress == PolicyAction::Allow => {
                sent.plain(&mut self.plain, frame_destination, inner.len(), None)
            }
            FrameKind::Other => Err(stopped(DropReason::PolicyDenied)),
        }
    }
}

/// Frame from TAP being processed.
struct EgressFrame<'a> {
    cx: &'a PacketContext<'a>,
    link: &'a Arc<Link>,
    bridge: &'a Bridge,
    dst: Mac,
    src: Mac,
    header_len: usize,
    vnet: VnetHdr,
}

/// First or only recipient host, and all of them if there are several.
type FrameRecipients = (Arc<Host>, Option<Arc<[Arc<Host>]>>);

/// Cached header of frames outside of any flow.
pub(super) type CachedHeader = Option<(LinkIndex, u64, Arc<HeaderBytes>, u32)>;

impl EgressFrame<'_> {
    fn stopped(&self, reason: DropReason) -> RefusedPacket {
        RefusedPacket::of(reason, self.link.config.index)
    }

    /// Checks an ARP or Neighbor Discovery message against the configuration, and answers its request if the answer
    /// is known.
    fn heed(&self, notice: &NeighborNotice, tagged: bool) -> Result<(), RefusedPacket> {
        let now = self.cx.now;
        let heard = self
            .bridge
            .learn_claim(notice, &StationLocation::Here, tagged, now);
        heard.map_err(|reason| self.stopped(reason))?;
        let known_to_it = self.dst == self.bridge.virtual_mac;
        let Some(question) = &notice.question else {
            return match known_to_it {
                true => Err(self.stopped(DropReason::NeighborNoted)),
                false => Ok(()),
            };
        };
        // Requests to one station go to that station; VLANs have neighbours of their own.
        if tagged || !(self.dst.is_multicast() || known_to_it) {
            return Ok(());
        }
        let functions = &self.link.config.functions;
        let ours = match functions.translates(question.target) {
            true => translates(self.link, self.bridge, question.target, now),
            false => functions.answers_for(question.target),
        };
        let mac = match ours {
            true => Some((self.bridge.virtual_mac, AdvertisementFlags::default())),
            false => self.bridge.answer(question, self.src, now),
        };
        let Some((mac, flags)) = mac else {
            return Ok(());
        };
        BridgeCounters::count(&self.bridge.live.tally.suppressed);
        Err(RefusedPacket {
            answer: Some(SenderReply::Neighbor(mac, flags)),
            ..self.stopped(DropReason::NeighborAnswered)
        })
    }

    /// Returns the hosts that get the frame, which is `packets` packets on the wire.
    fn recipients(
        &self,
        frame_destination: FrameDestination,
        packets: u64,
    ) -> Result<FrameRecipients, RefusedPacket> {
        let hosts = match frame_destination {
            FrameDestination::Here => return Err(self.stopped(DropReason::SplitHorizon)),
            FrameDestination::Host(host) => return Ok((host, None)),
            FrameDestination::All(hosts) => hosts,
        };
        let first = hosts.first().ok_or(self.stopped(DropReason::NoRoute))?;
        if !self.bridge.flood_rate.take(packets, self.cx.now) {
            return Err(self.stopped(DropReason::FloodRate));
        }
        BridgeCounters::count(&self.bridge.live.tally.flooded);
        let first = Arc::clone(first);
        Ok((first, (hosts.len() > 1).then_some(hosts)))
    }

    /// Lowers the limit to the longest packet that reaches all recipients.
    fn narrow(&self, forward: &mut Forward, flood: Option<&[Arc<Host>]>, packet: Option<&Packet>) {
        for host in flood.unwrap_or_default() {
            let before = forward.encap.len() + self.header_len;
            let limit = longest_inner(host, &forward.outer, before);
            forward.limit = forward.limit.min(limit);
        }
        if let Some(packet) = packet {
            forward.keep_minimum(packet, self.link.config.mtu);
        }
    }

    /// Processes a packet of a flow.
    fn ip(
        &mut self,
        (prefix, hash): &(FramePrefix, u32),
        change: &PacketRewrite,
        frame_destination: FrameDestination,
        class: Option<u8>,
        inner: &mut [u8],
        mut packet: Packet,
    ) -> Result<FrameForward, RefusedPacket> {
        let mut size = WireSize::of(&self.vnet, &packet);
        let (host, flood) = self.recipients(frame_destination, size.packets)?;
        let port = match packet.transport {
            Transport::Udp { dst, .. } => Some(dst),
            _ => None,
        };
        let all = flood.as_deref().unwrap_or(std::slice::from_ref(&host));
        if all
            .iter()
            .any(|host| self.link.is_recursive(host, packet.dst, port))
        {
            return Err(self.stopped(DropReason::UnderlayLoop));
        }
        let tunnel = TunnelNextHop {
            link: prefix.link,
            host,
            encap: Arc::clone(&prefix.encap),
            slots: prefix.slots,
            neighbor: None,
        };
        let request = OutputRequest {
            packet: &packet,
            hash: *hash,
            class,
            frame: self.header_len,
            relayed: false,
        };
        let mut forward = Forward::new(self.link, &tunnel, &request);
        self.narrow(&mut forward, flood.as_deref(), Some(&packet));
        // Before translation: an ICMP error must quote the packet as the sender knows it.
        let index = self.link.config.index;
        let cut = Cut::to_fit(&self.vnet, &packet, forward.limit);
        forward
            .fit(cut, &packet, index)
            .map_err(|refused| match refused.answer {
                Some(answer) if !may_answer_frame(answer, self.dst, &packet) => {
                    self.stopped(DropReason::TooBigSilent)
                }
                _ => refused,
            })?;
        if forward.cut.resizes(&self.vnet) {
            size = WireSize::of(&forward.cut.resized(&self.vnet), &packet);
        }
        let partial = self.vnet.needs_checksum();
        change
            .apply(self.cx, index, inner, &mut packet, partial, size.packets)
            .map_err(|reason| self.stopped(reason))?;
        forward.finish(self.cx, self.link, inner, &packet, &self.vnet);
        Ok(FrameForward {
            output: Output::Host(forward),
            flood,
            header_len: self.header_len,
            packet: Some(packet),
            vnet: self.vnet,
            size,
            metered: None,
        })
    }

    /// Processes a frame outside of any flow, with `len` bytes after its header.
    fn plain(
        &mut self,
        kept: &mut CachedHeader,
        frame_destination: FrameDestination,
        len: usize,
        packet: Option<Packet>,
    ) -> Result<FrameForward, RefusedPacket> {
        if self.vnet.gso_type != GsoType::None || packet.is_none() && self.vnet.needs_checksum() {
            return Err(self.stopped(DropReason::BadOffload));
        }
        let (host, flood) = self.recipients(frame_destination, 1)?;
        let (encap, slots) = self.header(kept)?;
        let config = &self.link.config;
        let [d, e, f, g, h, i] = self.dst.0;
        let [a, b, c, j, k, l] = self.src.0;
        let hash = self
            .cx
            .tables
            .hasher
            .hash_bytes(&[d, e, f, g, h, i, a, b, c, j, k, l]);
        let meter = self.link.meters.egress.as_ref();
        let outer = outer_of_frame(self.link);
        let mut forward = Forward {
            link: config.index,
            port: config.port,
            limit: longest_inner(&host, &outer, encap.len() + self.header_len),
            host,
            inner: config.inner,
            encap,
            hash,
            outer,
            cut: Cut::Whole,
            uncut: false,
            slots,
        };
        self.narrow(&mut forward, flood.as_deref(), packet.as_ref());
        let longest = packet.map_or(len, |packet| longest_segment(&self.vnet, &packet));
        if longest > usize::from(forward.limit) {
            return Err(self.stopped(DropReason::TooBigSilent));
        }
        Ok(FrameForward {
            output: Output::Host(forward),
            flood,
            header_len: self.header_len,
            packet,
            vnet: self.vnet,
            size: WireSize::of_one(len),
            metered: meter.map(|meter| Metered {
                meter: Arc::clone(meter),
                flow: hash as u32,
                bytes: len as u64,
            }),
        })
    }

    /// Returns the header of frames outside of any flow, which is the same for the whole link.
    fn header(&self, kept: &mut CachedHeader) -> Result<(Arc<HeaderBytes>, u32), RefusedPacket> {
        let (index, epoch) = (self.link.config.index, self.cx.tables.epoch);
        if let Some((link, of, encap, slots)) = kept
            && (*link, *of) == (index, epoch)
        {
            return Ok((Arc::clone(encap), *slots));
        }
        let made = first_packet::plain_header(self.cx, self.link);
        let (encap, slots) = made.map_err(|reason| self.stopped(reason))?;
        *kept = Some((index, epoch, Arc::clone(&encap), slots));
        Ok((encap, slots))
    }
}

/// Returns the number of packets on the wire for the frame of a super-packet.
#[must_use]
pub fn frame_packets(vnet: &VnetHdr, frame: &[u8]) -> u64 {
    let payload = Ethernet::parse(frame).map(|frame| frame.payload());
    let packet = payload.ok().and_then(|payload| Packet::parse(payload).ok());
    packet.map_or(1, |packet| WireSize::of(vnet, &packet).packets)
}

/// Returns the outer header fields of a frame without an IP packet.
fn outer_of_frame(link: &Link) -> OuterTx {
    OuterTx {
        tos: match link.config.tos {
            Tos::Inherit => 0,
            Tos::Fixed(tos) => tos & 0xfc,
        },
        ttl: match link.config.ttl {
            Ttl::Auto | Ttl::Inherit => None,
            Ttl::Fixed(ttl) => Some(ttl),
        },
        df: link.config.df != Df::Unset,
        fragment: false,
    }
}

/// Parses a neighbour solicitation or advertisement; `None` for other packets.
#[inline]
pub(super) fn nd_notice(
    packet: &Packet,
    bytes: &[u8],
    checked: bool,
) -> Result<Option<NeighborNotice>, DropReason> {
    if packet.version != IpVersion::V6
        || packet.protocol != protocol::ICMPV6
        || packet.transport_offset != IPV6_HEADER_LEN as u16
    {
        return Ok(None);
    }
    match Nd::parse(packet, bytes, checked) {
        None => Ok(None),
        Some(Ok(nd)) => Ok(Some(NeighborNotice::from(&nd))),
        Some(Err(_)) => Err(DropReason::InnerMalformed),
    }
}

/// Whether a frame from the wire is outside of any flow; if so, checks it against the configuration and answers
/// requests for addresses that are translated here. `payload` follows its Ethernet header.
#[inline]
pub(super) fn arrive(
    cx: &PacketContext<'_>,
    link: &Link,
    bridge: &Bridge,
    host: &Arc<Host>,
    (kind, tagged): (FrameKind, bool),
    payload: &[u8],
) -> Result<bool, RefusedPacket> {
    let refused = |reason| RefusedPacket::of(reason, link.config.index);
    let malformed = |_| refused(DropReason::InnerMalformed);
    let notice = match kind {
        FrameKind::Ip(IpVersion::V4) => return Ok(false),
        FrameKind::Ip(IpVersion::V6) => match solicits(&link.config, payload).map_err(refused)? {
            Some(notice) => Some(notice),
            None => return Ok(false),
        },
        FrameKind::Arp => Some(NeighborNotice::from(
            &Arp::parse(payload).map_err(malformed)?,
        )),
        FrameKind::Other if bridge.others.ingress != PolicyAction::Allow => {
            return Err(refused(DropReason::PolicyDenied));
        }
        FrameKind::Other => None,
    };
    if let Some(notice) = notice {
        let from = StationLocation::Host(Arc::clone(host));
        let heard = bridge.learn_claim(&notice, &from, tagged, cx.now);
        heard.map_err(refused)?;
        // Each client's own host answers for service addresses: only there can any of the backends be reached.
        if let Some(question) = &notice.question
            && !tagged
            && translates(link, bridge, question.target, cx.now)
        {
            return Err(RefusedPacket {
                answer: Some(SenderReply::Neighbor(
                    bridge.virtual_mac,
                    AdvertisementFlags::default(),
                )),
                ..refused(DropReason::NeighborAnswered)
            });
        }
    }
    Ok(true)
}

/// Whether `addr` is an outside address of NAT that no station or interface here owns.
fn translates(link: &Link, bridge: &Bridge, addr: IpAddr, now: Now) -> bool {
    link.config.functions.translates(addr)
        && !link.config.addresses.contains(&addr)
        && !bridge.has_station(addr, now)
}

/// Parses a neighbour solicitation or advertisement in an IPv6 packet; `None` for other packets, by their first
/// header.
#[inline]
fn solicits(link: &LinkConfig, payload: &[u8]) -> Result<Option<NeighborNotice>, DropReason> {
    // Hosts send these messages without extension headers (RFC 6980 section 5).
    if payload.get(6) != Some(&protocol::ICMPV6) {
        return Ok(None);
    }
    let packet = Packet::parse(payload).map_err(parse_reason)?;
    martian(link, &packet, payload)?;
    nd_notice(&packet, payload, false)
}

/// Writes the answer to a frame into `out`: a frame to the station that sent it, from the station it was for. `None` if
/// it must not be answered, or `out` is too small; 1,302 bytes suffice.
#[must_use]
pub fn answer_frame(
    link: &LinkConfig,
    answer: SenderReply,
    bridge: &Bridge,
    frame: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    let header = Ethernet::parse(frame).ok()?;
    let payload = header.payload();
    let len = header.header_len();
    let (mut to, back) = bridge.reply_addresses(&header);
    let (head, rest) = out.split_at_mut_checked(len)?;
    let (from, body) = match answer {
        SenderReply::Neighbor(mac, flags) => (
            mac,
            advertise((mac, flags), payload, header.ether_type(), &mut to, rest)?,
        ),
        _ => {
            let packet = Packet::parse(payload).ok()?;
            if !may_answer_frame(answer, header.dst(), &packet) {
                return None;
            }
            (back, super::answer(link, answer, &packet, payload, rest)?)
        }
    };
    head.copy_from_slice(header.header_bytes());
    head[..6].copy_from_slice(&to.0);
    head[6..12].copy_from_slice(&from.0);
    Some(len + body)
}

/// Whether the packet of a frame to `dst` may be answered: frames to multiple stations are not answered (RFC 1122
/// section 3.2.2), except IPv6 packets that are too big (RFC 4443 section 2.4 e.4).
fn may_answer_frame(answer: SenderReply, dst: Mac, packet: &Packet) -> bool {
    let too_big_v6 = matches!(answer, SenderReply::TooBig(_)) && packet.version == IpVersion::V6;
    !dst.is_multicast() || too_big_v6
}

/// Builds an ARP reply or neighbour advertisement for `mac`; sets `to` to broadcast or multicast if the request had
/// no specific sender.
fn advertise(
    (mac, flags): (Mac, AdvertisementFlags),
    payload: &[u8],
    ether_type: u16,
    to: &mut Mac,
    out: &mut [u8],
) -> Option<usize> {
    if ether_type == ethertype::ARP {
        let reply = Arp::parse(payload).ok()?.reply(mac).to_bytes();
        out.get_mut(..reply.len())?.copy_from_slice(&reply);
        return Some(reply.len());
    }
    let packet = Packet::parse(payload).ok()?;
    let Some(Ok(Nd::Solicitation { from, target, .. })) = Nd::parse(&packet, payload, true) else {
        return None;
    };
    let advertisement = crate::wire::nd::advertisement(target, mac, from, flags);
    if let IpAddr::V6(dst) = Packet::parse(&advertisement).ok()?.dst
        && dst.is_multicast()
    {
        *to = Mac::of_multicast_v6(dst);
    }
    out.get_mut(..advertisement.len())?
        .copy_from_slice(&advertisement);
    Some(advertisement.len())
}
