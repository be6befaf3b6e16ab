//! Ingress: from the wire to the interface.

use std::sync::Arc;

use super::decision::{Input, NextHop, PacketContext};
use super::egress::learn_path_mtu;
use super::flow_cache::FlowCache;
use super::l2_forwarding::{self, FrameKind};
use super::lookup::{FlowQuery, WireMetadata, key_of};
use super::martian::martian;
use super::neighbor_discovery;
use super::output::{Forward, Output, OutputRequest, exit_link, metered};
use super::{OuterRx, RefusedPacket, envelope_reason, frame_reason, parse_reason};
use crate::drop::DropReason;
use crate::ecn;
use crate::flow::{PacketUpdate, TcpSegment};
use crate::l2::{Bridge, NeighborNotice, StationLocation};
use crate::mtu::clamp_mss;
use crate::offload::cut::{Cut, WireSize};
use crate::offload::partial::{cut_to, partial};
use crate::offload::vnet::VnetHdr;
use crate::options::{KnownOption, ReceivedOptions};
use crate::qos::Metered;
use crate::time::Now;
use crate::vpc::{Host, Link, LinkIndex, RxInterface};
use crate::wire::encapsulation::{EncapHeader, InnerProtocol};
use crate::wire::ethernet::Ethernet;
use crate::wire::header::HeaderBytes;
use crate::wire::nd::Nd;
use crate::wire::option::{MAX_OPTIONS_LEN, OptionIter};
use crate::wire::packet::Packet;

/// Checked content of a datagram.
#[derive(Clone, Debug)]
pub enum DecapResult {
    /// IP packet of a flow.
    Packet(Decap),
    /// Frame outside of any flow, for the TAP interface.
    Frame(IngressFrame),
}

/// Frame outside of any flow.
#[derive(Clone, Debug)]
pub struct IngressFrame {
    /// Link it arrived on.
    pub link: LinkIndex,
    /// Offset of the frame in the datagram, in bytes.
    pub start: usize,
    /// Known options of the packet, one bit per schema slot.
    pub options: u32,
    /// Meter that must admit it first.
    pub metered: Option<Metered>,
}

/// Checked inner packet of a datagram.
#[derive(Clone, Debug)]
pub struct Decap {
    /// Link it arrived on.
    pub link: LinkIndex,
    /// Where it goes.
    pub output: Output,
    /// Size on the wire, actual or computed.
    pub size: WireSize,
    /// Offset of the inner packet in the datagram, in bytes.
    pub start: usize,
    /// Length of the Ethernet header to deliver with it into the TAP interface, in bytes; 0 for TUN.
    pub frame_len: usize,
    /// Parsed inner packet, with the ECN field set by RFC 6040 and translated addresses.
    pub packet: Packet,
    /// Offloads that TUN must complete, if a kernel tunnel of this machine left the packet unfinished.
    pub vnet: Option<VnetHdr>,
    /// Equal for datagrams of one link and one outer source with byte-identical headers before the inner packet; only
    /// those may be merged (RFC 8926 section 4.6).
    pub lane: u64,
    /// Whether the packet is for an IP stack right behind the interface. A station further behind a TAP may read it
    /// through packet sockets, to which a bridge passes UDP super-packets uncut.
    pub to_stack: bool,
    /// Known options of the packet, one bit per schema slot.
    pub options: u32,
    /// Meter that must admit it first.
    pub metered: Option<Metered>,
}

/// Flow hash under which all frames outside of any flow are metered.
const LOOSE_FLOW: u32 = u32::MAX;

/// Number of cached headers: datagrams of several hosts, or of both address families, arrive interleaved.
const MEMORY: usize = 4;

/// Ingress path of one worker; caches recent headers, because the datagrams of a train mostly share theirs.
#[derive(Debug, Default)]
pub struct Ingress {
    memory: [HeaderCache; MEMORY],
    /// Most recently used entry.
    latest: usize,
    lanes: u64,
    recent: FlowCache,
}

/// Cached result for datagrams with one header from one outer source.
#[derive(Debug, Default)]
struct HeaderCache {
    lane: u64,
    arrival: Option<OuterRx>,
    /// Everything before the inner packet.
    header: HeaderBytes,
    /// Payload type by the header.
    kind: FrameKind,
    /// Length of the Ethernet header to deliver into the TAP interface, in bytes; 0 for TUN.
    frame_len: usize,
    tagged: bool,
    /// The payload is for the interface itself, not for a station behind it.
    to_stack: bool,
    /// Until when the checks of the frame's source MAC address and of the receiving interface stay valid.
    until: Now,
    link: LinkIndex,
    host: Option<Arc<Host>>,
    received: ReceivedOptions,
    digest: u64,
}

impl HeaderCache {
    #[inline]
    fn holds(&self, arrival: &OuterRx, datagram: &[u8], now: Now) -> bool {
        self.arrival.as_ref() == Some(arrival)
            && now < self.until
            && datagram.get(..self.header.len()) == Some(&self.header[..])
    }
}

impl Ingress {
    /// Clears the cached headers and the latest flow; call whenever the tables change.
    pub fn forget(&mut self, cx: &PacketContext<'_>) {
        self.recent.flush(cx);
        for header_cache in &mut self.memory {
            header_cache.arrival = None;
            header_cache.host = None;
        }
    }

    /// Writes pending counters to the flow table and forgets the latest flow. Call at the end of every turn.
    #[inline]
    pub fn flush(&mut self, cx: &PacketContext<'_>) {
        self.recent.flush(cx);
    }

    /// Decides what happens to a datagram from the wire.
    ///
    /// # Errors
    /// The single reason for which it is dropped, and the link that counts the drop.
    #[inline]
    pub fn receive(
        &mut self,
        cx: &PacketContext<'_>,
        arrival: &OuterRx,
        datagram: &mut [u8],
    ) -> Result<DecapResult, RefusedPacket> {
        self.select_cached(cx, arrival, datagram)?;
        match self.flowless_frame(cx, datagram)? {
            Some(frame) => Ok(DecapResult::Frame(frame)),
            None => self.packet(cx, arrival, datagram).map(DecapResult::Packet),
        }
    }

    /// Decides what happens to a datagram from the wire, on a host without TAP interfaces: its payload must be an IP
    /// packet.
    ///
    /// # Errors
    /// As of [`Ingress::receive`]; a frame without an IP packet is dropped as [`DropReason::NotIp`].
    #[inline]
    pub fn decide(
        &mut self,
        cx: &PacketContext<'_>,
        arrival: &OuterRx,
        datagram: &mut [u8],
    ) -> Result<Decap, RefusedPacket> {
        match self.receive(cx, arrival, datagram)? {
            DecapResult::Packet(decap) => Ok(decap),
            DecapResult::Frame(frame) => Err(RefusedPacket::of(DropReason::NotIp, frame.link)),
        }
    }

    /// Finds or creates the cache entry for the datagram's headers and makes it the latest.
    #[inline]
    fn select_cached(
        &mut self,
        cx: &PacketContext<'_>,
        arrival: &OuterRx,
        datagram: &[u8],
    ) -> Result<(), RefusedPacket> {
        if self.memory[self.latest].holds(arrival, datagram, cx.now) {
            return Ok(());
        }
        let held = |header_cache: &HeaderCache| header_cache.holds(arrival, datagram, cx.now);
        match self.memory.iter().position(held) {
            Some(at) => self.latest = at,
            None => self.outer_checks(cx, arrival, datagram)?,
        }
        Ok(())
    }

    /// Returns the datagram's frame if it is outside of any flow.
    #[inline]
    fn flowless_frame(
        &self,
        cx: &PacketContext<'_>,
        datagram: &[u8],
    ) -> Result<Option<IngressFrame>, RefusedPacket> {
        let header_cache = &self.memory[self.latest];
        if header_cache.frame_len == 0 {
            return Ok(None);
        }
        let gone = RefusedPacket::of(DropReason::LinkGone, header_cache.link);
        let link = cx.tables.link(header_cache.link).ok_or(gone)?;
        let (Some(bridge), Some(host)) = (&link.bridge, &header_cache.host) else {
            return Err(gone);
        };
        let payload = &datagram[header_cache.header.len()..];
        let carried = (header_cache.kind, header_cache.tagged);
        if !l2_forwarding::arrive(cx, link, bridge, host, carried, payload)? {
            return Ok(None);
        }
        let meter = link.meters.ingress.as_ref();
        Ok(Some(IngressFrame {
            link: header_cache.link,
            start: header_cache.header.len() - header_cache.frame_len,
            options: header_cache.received.slots,
            metered: meter.map(|meter| Metered {
                meter: Arc::clone(meter),
                flow: LOOSE_FLOW,
                bytes: payload.len() as u64,
            }),
        }))
    }

    /// Decides what happens to a datagram with an IP packet.
    #[inline]
    fn packet(
        &mut self,
        cx: &PacketContext<'_>,
        arrival: &OuterRx,
        datagram: &mut [u8],
    ) -> Result<Decap, RefusedPacket> {
        let header_cache = &self.memory[self.latest];
        let index = header_cache.link;
        let refused = |reason| RefusedPacket::of(reason, index);
        let gone = || refused(DropReason::LinkGone);
        let link = cx.tables.link(index).ok_or_else(gone)?;
        let start = header_cache.header.len();
        let inner = &mut datagram[start..];
        let mut packet = Packet::parse(inner).map_err(|e| refused(parse_reason(e)))?;
        if FrameKind::Ip(packet.version) != header_cache.kind {
            return Err(refused(DropReason::InnerMalformed));
        }
        martian(&link.config, &packet, inner).map_err(refused)?;
        if link.config.inner == InnerProtocol::Ethernet
            && link.bridge.is_none()
            && let Some(message) = Nd::parse(&packet, inner, false)
        {
            let host = header_cache.host.as_ref().ok_or_else(gone)?;
            let nd = message.map_err(|_| refused(DropReason::InnerMalformed))?;
            return Err(neighbor_discovery::process_message(
                cx,
                link,
                host,
                &NeighborNotice::from(&nd),
            ));
        }
        let mut vnet = partial(inner, &packet, usize::from(link.config.mtu))
            .map_err(|error| refused(error.into()))?;
        let (key, error) =
            key_of(cx, link, &packet, inner, Some(&header_cache.received)).map_err(refused)?;
        let whole = vnet.unwrap_or(VnetHdr::NONE);
        let frame_len = header_cache.frame_len;
        let mut size = WireSize::of(&whole, &packet);
        let query = FlowQuery {
            link,
            packet: &packet,
            key,
            error,
            from: Input::Host(header_cache.host.as_ref().ok_or_else(gone)?),
            wire: Some(WireMetadata {
                received: &header_cache.received,
                header: &header_cache.header,
                digest: header_cache.digest,
            }),
            seen: PacketUpdate {
                tcp: TcpSegment::of(&packet),
                packets: size.packets,
                bytes: size.bytes,
            },
        };
        let cached = match self.recent.pass(cx, &query, header_cache.lane) {
            Ok(cached) => cached,
            Err(stop) => return Err(RefusedPacket::stopped(&stop, index)),
        };
        if error {
            learn_path_mtu(cx, link, &packet, inner);
        }
        ecn::decapsulate(arrival.tos, inner, &mut packet).map_err(refused)?;
        let (turned, asked) = (cached.change.new_destination(&packet), packet.dst);
        let mut output = match &cached.direction_state.next_hop {
            NextHop::Tun(next_hop) => Output::Link(*next_hop),
            NextHop::Wire(tunnel) => {
                // Relaying counts as a router hop: the TTL ends loops.
                if packet.ttl <= 1 {
                    return Err(refused(DropReason::ForwardingLoop));
                }
                let next_hop = exit_link(cx, link, tunnel.link).map_err(refused)?;
                let mut forward = Forward::new(
                    next_hop,
                    tunnel,
                    &OutputRequest {
                        packet: &packet,
                        hash: cached.hash,
                        class: cached.direction_state.meter.as_ref().and_then(|m| m.dscp),
                        frame: 0,
                        relayed: true,
                    },
                );
                // How the sender would have cut it is unknown; cut it as the path requires.
                let cut = Cut::to_fit_any_size(&whole, &packet, forward.limit);
                forward.fit(cut, &packet, index)?;
                forward.leads_away(next_hop).map_err(refused)?;
                if forward.cut.resizes(&whole) {
                    size = WireSize::of(&forward.cut.resized(&whole), &packet);
                }
                crate::wire::ip::decrement_ttl(inner, packet.version);
                packet.ttl -= 1;
                Output::Host(forward)
            }
            NextHop::Undecided | NextHop::Bridge(_) => return Err(refused(DropReason::NoRoute)),
        };
        let unfinished = whole.needs_checksum();
        let change = &cached.change;
        let changed = change.apply(cx, index, inner, &mut packet, unfinished, size.packets);
        changed.map_err(refused)?;
        match &mut output {
            Output::Link(next_hop) => {
                let mtu = exit_link(cx, link, *next_hop).map_err(refused)?.config.mtu;
                clamp_mss(inner, &packet, mtu, unfinished);
                if let Some(vnet) = &mut vnet
                    && let Some(mtu) = cx.state.path_mtus.mtu(*next_hop, packet.dst, cx.now)
                {
                    cut_to(vnet, &packet, mtu);
                    size = WireSize::of(vnet, &packet);
                }
            }
            Output::Host(forward) => {
                let next_hop = exit_link(cx, link, forward.link).map_err(refused)?;
                forward.finish(cx, next_hop, inner, &packet, &whole);
            }
        }
        if let (Some(to), Some(bridge)) = (turned, &link.bridge) {
            // DNAT changed the IP address, so the frame's MAC address must change too; the new station must be behind
            // the TAP.
            let mac = neighbor_discovery::station(cx, link, bridge, to, asked).map_err(refused)?;
            if !bridge.is_here(mac, cx.now) {
                return Err(refused(DropReason::NoRoute));
            }
            datagram[start - frame_len..][..6].copy_from_slice(&mac.0);
        }
        Ok(Decap {
            link: index,
            output,
            size,
            metered: metered(cached, size.bytes),
            start,
            frame_len,
            packet,
            vnet,
            lane: header_cache.lane,
            to_stack: header_cache.to_stack && (link.bridge.is_none() || turned.is_none()),
            options: header_cache.received.slots,
        })
    }

    /// Checks that depend on the outer headers only; done once per run of equal headers.
    fn outer_checks(
        &mut self,
        cx: &PacketContext<'_>,
        arrival: &OuterRx,
        datagram: &[u8],
    ) -> Result<(), RefusedPacket> {
        if arrival.interface != RxInterface::Underlay {
            check_rx_interface(cx, arrival, datagram)?;
        }
        let unknown = RefusedPacket::unmatched(DropReason::UnknownVni);
        let encapsulation = cx.tables.encapsulation(arrival.port).ok_or(unknown)?;
        let envelope = encapsulation
            .parse(datagram)
            .map_err(|e| RefusedPacket::unmatched(envelope_reason(&e)))?;
        let link = cx
            .tables
            .by_vni(arrival.port, envelope.vni)
            .ok_or(unknown)?;
        let refused = |reason| RefusedPacket::of(reason, link.config.index);
        if let (Some(local), Some(dst)) = (link.config.local, arrival.dst)
            && local != dst
        {
            return Err(refused(DropReason::WrongLocal));
        }
        let host = link
            .host(arrival.src)
            .ok_or(refused(DropReason::UnknownHost))?;
        if !link.hears(host, arrival.interface) {
            return Err(refused(DropReason::NotFromUnderlay));
        }
        host.note_received(cx.now);
        let received =
            ReceivedOptions::read(&cx.tables.schema, envelope.options()).map_err(refused)?;
        if envelope.control {
            return Err(refused(DropReason::ControlMessage));
        }
        let inside = match &link.bridge {
            Some(bridge) => bridge_inside(link, bridge, host, &envelope, datagram, cx.now),
            None => inside(link, &envelope, datagram),
        };
        let inside = inside.map_err(refused)?;
        if link.bridge.is_none() && inside.kind == FrameKind::Arp {
            let notice = neighbor_discovery::arp(&datagram[inside.start..]).map_err(refused)?;
            return Err(neighbor_discovery::process_message(cx, link, host, &notice));
        }
        let too_long = refused(DropReason::InnerMalformed);
        let header = HeaderBytes::copy_of(&datagram[..inside.start]).ok_or(too_long)?;
        self.latest = (self.latest + 1) % MEMORY;
        self.lanes = self.lanes.wrapping_add(1);
        let header_cache = &mut self.memory[self.latest];
        header_cache.header = header;
        header_cache.kind = inside.kind;
        header_cache.frame_len = inside.frame_len;
        header_cache.tagged = inside.tagged;
        header_cache.to_stack = inside.to_stack;
        header_cache.until = l2_forwarding::fresh_until(cx.now);
        header_cache.link = link.config.index;
        header_cache.host = Some(Arc::clone(host));
        header_cache.digest = digest(cx, link, envelope.options());
        header_cache.received = received;
        header_cache.lane = self.lanes;
        header_cache.arrival = Some(*arrival);
        Ok(())
    }
}

/// Accepts a datagram received on an interface outside the underlay if its host is behind that interface. Otherwise
/// nothing in the datagram is trusted, and the link of the interface counts the drop.
#[cold]
fn check_rx_interface(
    cx: &PacketContext<'_>,
    arrival: &OuterRx,
    datagram: &[u8],
) -> Result<(), RefusedPacket> {
    let RxInterface::Link(through) = arrival.interface else {
        return Err(RefusedPacket::unmatched(DropReason::NotFromUnderlay));
    };
    let heard = || {
        let encapsulation = cx.tables.encapsulation(arrival.port)?;
        let envelope = encapsulation.parse(datagram).ok()?;
        let link = cx.tables.by_vni(arrival.port, envelope.vni)?;
        let host = link.host(arrival.src)?;
        Some(link.hears(host, arrival.interface))
    };
    match heard() {
        Some(true) => Ok(()),
        Some(false) | None => Err(RefusedPacket::of(DropReason::NotFromUnderlay, through)),
    }
}

/// Payload of a datagram.
struct InnerContent {
    /// Offset of the first byte after all headers.
    start: usize,
    kind: FrameKind,
    /// Length of the Ethernet header to deliver with it into the interface, in bytes.
    frame_len: usize,
    tagged: bool,
    to_stack: bool,
}

/// Returns the payload of a bridge's datagram, after checking its source MAC address.
fn bridge_inside(
    link: &Link,
    bridge: &Bridge,
    host: &Arc<Host>,
    envelope: &EncapHeader<'_>,
    datagram: &[u8],
    now: Now,
) -> Result<InnerContent, DropReason> {
    if envelope.inner() != Some(InnerProtocol::Ethernet) {
        return Err(DropReason::ProtocolType);
    }
    let frame = Ethernet::parse(&datagram[envelope.header_len..]).map_err(frame_reason)?;
    bridge.admit(frame.src(), &StationLocation::Host(Arc::clone(host)), now)?;
    Ok(InnerContent {
        start: envelope.header_len + frame.header_len(),
        kind: FrameKind::of(frame.ether_type()),
        frame_len: frame.header_len(),
        tagged: frame.is_tagged(),
        to_stack: frame.dst() == link.config.lladdr && !frame.is_tagged(),
    })
}

/// Locates and classifies the inner packet; the link must carry its type.
fn inside(
    link: &Link,
    envelope: &EncapHeader<'_>,
    datagram: &[u8],
) -> Result<InnerContent, DropReason> {
    if envelope.inner() != Some(link.config.inner) {
        return Err(DropReason::ProtocolType);
    }
    let (start, ether_type) = match link.config.inner {
        InnerProtocol::Ip => (envelope.header_len, envelope.protocol),
        InnerProtocol::Ethernet => {
            let frame = Ethernet::parse(&datagram[envelope.header_len..]).map_err(frame_reason)?;
            if frame.is_tagged() {
                return Err(DropReason::VlanTagged);
            }
            if frame.dst() != link.config.lladdr && !frame.dst().is_multicast() {
                return Err(DropReason::WrongMac);
            }
            let start = envelope.header_len + frame.header_len();
            (start, frame.ether_type())
        }
    };
    match FrameKind::of(ether_type) {
        kind @ (FrameKind::Ip(_) | FrameKind::Arp) => Ok(InnerContent {
            start,
            kind,
            frame_len: 0,
            tagged: false,
            to_stack: true,
        }),
        FrameKind::Other => Err(DropReason::NotIp),
    }
}

/// Digest of the options that decisions may depend on: geneved's own, and those that a rule of the link matches.
/// Others, such as measurements that differ in each packet, are left out. 0 means none.
fn digest(cx: &PacketContext<'_>, link: &Link, options: OptionIter<'_>) -> u64 {
    let policy = link.config.functions.policy.as_ref();
    let mut bytes = [0; MAX_OPTIONS_LEN];
    let mut used = 0;
    for option in options {
        let own = cx.tables.schema.lookup(option.class, option.kind);
        let own = own.is_some_and(|known| !matches!(known, KnownOption::Defined(_)));
        if !own && !policy.is_some_and(|policy| policy.asks_about(option.class, option.kind)) {
            continue;
        }
        // No longer than the option's header on the wire, so that all options fit.
        let [high, low] = option.class.0.to_be_bytes();
        let head = [high, low, option.kind.0, option.data.len() as u8];
        for part in [&head[..], option.data] {
            let Some(room) = bytes.get_mut(used..used + part.len()) else {
                break;
            };
            room.copy_from_slice(part);
            used += part.len();
        }
    }
    match &bytes[..used] {
        [] => 0,
        bytes => cx.tables.hasher.hash_bytes(bytes) | 1,
    }
}
