//! Egress: from the interface to the wire.

use std::sync::Arc;

use super::RefusedPacket;
use super::decision::{CachedVerdict, Input, NextHop, PacketContext};
use super::flow_cache::FlowCache;
use super::l2_forwarding::{CachedHeader, LastLookup};
use super::lookup::{FlowQuery, key_of};
use super::martian::martian;
use super::output::{Forward, Output, OutputRequest, exit_link, metered};
use crate::drop::DropReason;
use crate::mtu::clamp_mss;
use crate::offload::cut::{Cut, WireSize};
use crate::offload::vnet::VnetHdr;
use crate::qos::Metered;
use crate::vpc::Link;
use crate::wire::packet::Packet;

/// Egress path of one worker; caches the latest flow.
#[derive(Debug, Default)]
pub struct Egress {
    recent: FlowCache,
    pub(super) last_lookup: LastLookup,
    pub(super) plain: CachedHeader,
}

/// Result of egress for a packet from TUN.
#[derive(Clone, Debug)]
pub struct Encap {
    /// Where it goes.
    pub output: Output,
    /// Size on the wire.
    pub size: WireSize,
    /// Meter that must admit it first.
    pub metered: Option<Metered>,
}

impl Egress {
    /// Decides what happens to a packet from the TUN of `link`, which must be one of `cx.tables`. Rewrites `inner`,
    /// and the `packet` parsed from it, if the flow is translated or its MSS exceeds the path.
    ///
    /// # Errors
    /// The single reason for which the packet is dropped.
    #[inline]
    pub fn decide(
        &mut self,
        cx: &PacketContext<'_>,
        link: &Arc<Link>,
        inner: &mut [u8],
        packet: &mut Packet,
        vnet: &VnetHdr,
    ) -> Result<Encap, RefusedPacket> {
        let index = link.config.index;
        let stopped = |reason: DropReason| RefusedPacket::of(reason, index);
        martian(&link.config, packet, inner).map_err(stopped)?;
        let mut size = WireSize::of(vnet, packet);
        let cached = self.pass(cx, link, inner, packet, size)?;
        let partial = vnet.needs_checksum();
        let output = match &cached.direction_state.next_hop {
            NextHop::Wire(tunnel) => {
                let next_hop = exit_link(cx, link, tunnel.link).map_err(stopped)?;
                let mut forward = Forward::new(
                    next_hop,
                    tunnel,
                    &OutputRequest {
                        packet,
                        hash: cached.hash,
                        class: cached.direction_state.meter.as_ref().and_then(|m| m.dscp),
                        frame: 0,
                        relayed: false,
                    },
                );
                // Before translation: an ICMP error must quote the packet as the sender knows it.
                forward.fit(Cut::to_fit(vnet, packet, forward.limit), packet, index)?;
                forward.leads_away(next_hop).map_err(stopped)?;
                if forward.cut.resizes(vnet) {
                    size = WireSize::of(&forward.cut.resized(vnet), packet);
                }
                let packets = size.packets;
                let change = &cached.change;
                let changed = change.apply(cx, index, inner, packet, partial, packets);
                changed.map_err(stopped)?;
                forward.finish(cx, next_hop, inner, packet, vnet);
                Output::Host(forward)
            }
            NextHop::Tun(next_hop) => {
                let mtu = exit_link(cx, link, *next_hop).map_err(stopped)?.config.mtu;
                let packets = size.packets;
                let change = &cached.change;
                let changed = change.apply(cx, index, inner, packet, partial, packets);
                changed.map_err(stopped)?;
                clamp_mss(inner, packet, mtu, partial);
                Output::Link(*next_hop)
            }
            NextHop::Undecided | NextHop::Bridge(_) => return Err(stopped(DropReason::NoRoute)),
        };
        Ok(Encap {
            output,
            size,
            metered: metered(cached, size.bytes),
        })
    }

    /// Looks up the flow of a packet, or decides it.
    #[inline]
    pub(super) fn pass(
        &mut self,
        cx: &PacketContext<'_>,
        link: &Arc<Link>,
        inner: &[u8],
        packet: &Packet,
        size: WireSize,
    ) -> Result<&CachedVerdict, RefusedPacket> {
        let stopped = |reason: DropReason| RefusedPacket::of(reason, link.config.index);
        let (key, error) = key_of(cx, link, packet, inner, None).map_err(stopped)?;
        let query = FlowQuery {
            link,
            packet,
            key,
            error,
            from: Input::Link,
            wire: None,
            seen: crate::flow::PacketUpdate {
                tcp: crate::flow::TcpSegment::of(packet),
                packets: size.packets,
                bytes: size.bytes,
            },
        };
        let cached = self
            .recent
            .pass(cx, &query, 0)
            .map_err(|stop| RefusedPacket::stopped(&stop, link.config.index))?;
        if error {
            learn_path_mtu(cx, link, packet, inner);
        }
        Ok(cached)
    }

    /// Writes pending counters to the flow table and forgets the latest flow. Call at the end of every turn.
    #[inline]
    pub fn flush(&mut self, cx: &PacketContext<'_>) {
        self.recent.flush(cx);
    }
}

/// Records the path MTU that an ICMP error about a flow reports.
#[cold]
pub(super) fn learn_path_mtu(cx: &PacketContext<'_>, link: &Link, packet: &Packet, inner: &[u8]) {
    if let (Some(mtu), Some(quote)) = (packet.reported_mtu(inner), packet.quote(inner)) {
        let mtus = &cx.state.path_mtus;
        mtus.report(link.config.index, quote.dst, mtu, cx.now);
    }
}
