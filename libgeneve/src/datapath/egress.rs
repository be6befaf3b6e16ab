//! TUN to wire.

use std::sync::Arc;

use super::bridge::{Lately, Plain};
use super::lookup::{Seeker, key_of};
use super::martian::martian;
use super::recent::Recent;
use super::state::{Context, Exit, From, Passage, Way};
use super::{Outer, Refused, inner_limit, outer, passes, wire_bytes, wire_packets};
use crate::drop::DropReason;
use crate::link::{Host, Link, LinkIndex};
use crate::mtu::minimum;
use crate::offload::vnet::VnetHdr;
use crate::qos::Metered;
use crate::wire::header::HeaderBytes;
use crate::wire::packet::Packet;

/// Egress, with the memory of the latest flow.
#[derive(Debug, Default)]
pub struct Egress {
    recent: Recent,
    pub(super) lately: Lately,
    pub(super) plain: Plain,
}

/// Where a packet goes.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The link in whose VPC it travels.
    pub link: LinkIndex,
    /// The host that it is sent to.
    pub host: Arc<Host>,
    /// The Geneve header that goes before each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// The flow's hash: chooses the source port.
    pub hash: u64,
    /// The outer header.
    pub outer: Outer,
    /// The longest inner packet that reaches the host, in bytes; a longer one is too big. `u16::MAX` where the underlay
    /// has not said.
    pub limit: u16,
    /// Known options in `encap`, a bit for each slot of the schema.
    pub slots: u32,
    /// The rates that it must be within before it is sent.
    pub metered: Option<Metered>,
}

/// A packet whose flow's other end is on this host, too.
#[derive(Clone, Debug)]
pub struct TurnedBack {
    /// The link into whose TUN interface it goes.
    pub link: LinkIndex,
    /// The rates that it must be within before it does.
    pub metered: Option<Metered>,
}

impl Forward {
    /// What every link must carry is not too big for any path: where the path takes less, the outer packet is fragmented
    /// (RFC 2473 section 7.1, RFC 4213 section 3.2.2). So is what the link's `mtu` allows a group to get, because its
    /// senders learn nothing: IPv4 has no ICMP errors for them, and Linux notes an IPv6 group's path MTU at the first
    /// interface that could lead to it.
    #[inline]
    pub(super) fn keep_minimum(&mut self, packet: &Packet, mtu: u16) {
        let least = match packet.is_for_group() && packet.dont_fragment {
            true => mtu.max(minimum(packet.version)),
            false => minimum(packet.version),
        };
        if self.limit < least {
            self.limit = least;
            self.outer.df = false;
            self.outer.fragment = true;
        }
    }
}

impl Egress {
    /// What becomes of a packet from TUN: to another host, or into the TUN interface of a link. `inner` is rewritten
    /// where the flow's addresses or ports are translated, and `packet`, which was parsed from it, with it.
    ///
    /// # Errors
    /// The one reason for which it is not forwarded.
    #[inline]
    pub fn decide(
        &mut self,
        cx: &Context<'_>,
        link: &Arc<Link>,
        inner: &mut [u8],
        packet: &mut Packet,
        vnet: &VnetHdr,
    ) -> Result<Result<Forward, TurnedBack>, Refused> {
        let stopped = |reason: DropReason| Refused::of(reason, link.config.index);
        martian(&link.config, packet, inner).map_err(stopped)?;
        let passage = self.pass(cx, link, inner, packet, vnet)?;
        let forward = match &passage.half.exit {
            Exit::Wire(way) => {
                let class = passage.half.meter.as_ref().and_then(|m| m.dscp);
                let metered = metered(passage, vnet, packet);
                let forward = forward(cx, way, passage.hash, packet, class, metered);
                let forward = forward.ok_or(stopped(DropReason::LinkGone))?;
                // Its sender knows the packet as it is before addresses are translated.
                if !passes(&forward, vnet, packet) {
                    return Err(Refused::too_big(&forward, packet, link.config.index));
                }
                Ok(forward)
            }
            Exit::Tun(link) => Err(TurnedBack {
                link: *link,
                metered: metered(passage, vnet, packet),
            }),
            Exit::Undecided | Exit::Bridge(_) => return Err(stopped(DropReason::NoRoute)),
        };
        passage
            .change
            .apply(cx, link.config.index, inner, packet, vnet)
            .map_err(stopped)?;
        Ok(forward)
    }

    /// What was decided for the flow of a packet.
    #[inline]
    pub(super) fn pass(
        &mut self,
        cx: &Context<'_>,
        link: &Arc<Link>,
        inner: &[u8],
        packet: &Packet,
        vnet: &VnetHdr,
    ) -> Result<&Passage, Refused> {
        let stopped = |reason: DropReason| Refused::of(reason, link.config.index);
        let (key, error) = key_of(cx, link, packet, inner, None).map_err(stopped)?;
        let bytes = wire_bytes(vnet, packet);
        let seeker = Seeker {
            link,
            packet,
            key,
            error,
            from: From::Tun,
            wire: None,
            seen: crate::flow::Seen {
                tcp: crate::flow::TcpSegment::of(packet),
                packets: wire_packets(vnet, packet),
                bytes,
            },
        };
        let passage = self
            .recent
            .pass(cx, &seeker, 0)
            .map_err(|stop| Refused::stopped(&stop, link.config.index))?;
        if error {
            heed_too_big(cx, link, packet, inner);
        }
        Ok(passage)
    }

    /// Tells the flow table what passed, and forgets the latest flow; to be called at the end of every turn.
    #[inline]
    pub fn settle(&mut self, cx: &Context<'_>) {
        self.recent.settle(cx);
    }
}

/// Notes what an ICMP error about a flow says of the way that its packets take.
#[cold]
pub(super) fn heed_too_big(cx: &Context<'_>, link: &Link, packet: &Packet, inner: &[u8]) {
    if let (Some(mtu), Some(quote)) = (packet.reported_mtu(inner), packet.quote(inner)) {
        let mtus = &cx.state.path_mtus;
        mtus.report(link.config.index, quote.dst, mtu, cx.now);
    }
}

/// The rates that a packet of this flow must be within. One that is only counted is counted now.
#[inline]
pub(super) fn metered(passage: &Passage, vnet: &VnetHdr, packet: &Packet) -> Option<Metered> {
    let meter = passage.half.meter.as_ref()?;
    let bytes = wire_bytes(vnet, packet);
    if !meter.limits() {
        meter.count(bytes, true);
        return None;
    }
    Some(Metered {
        meter: Arc::clone(meter),
        flow: passage.hash,
        bytes,
    })
}

/// The outer side of a packet that takes this way.
#[inline]
pub(super) fn forward(
    cx: &Context<'_>,
    way: &Way,
    hash: u32,
    packet: &Packet,
    class: Option<u8>,
    metered: Option<Metered>,
) -> Option<Forward> {
    outward(cx, way, 0, hash, packet, class, metered)
}

/// The same for a packet in a frame whose header has `frame` bytes that are not in the way's own header.
#[inline]
pub(super) fn outward(
    cx: &Context<'_>,
    way: &Way,
    frame: usize,
    hash: u32,
    packet: &Packet,
    class: Option<u8>,
    metered: Option<Metered>,
) -> Option<Forward> {
    let link = cx.tables.link(way.link)?;
    let outer = outer(link, packet, class);
    let mut limit = limit(&way.host, &outer, way.encap.len() + frame);
    // The tunnel's MTU counts the longest options that the link itself has; those of a relayed packet, or of an answer
    // in the name of a service, may be longer.
    let mtu = usize::from(link.config.mtu);
    let most = (mtu + link.encap_len()).saturating_sub(way.encap.len());
    if most < mtu {
        limit = limit.min(u16::try_from(most).unwrap_or(u16::MAX));
    }
    let mut forward = Forward {
        link: way.link,
        host: Arc::clone(&way.host),
        encap: Arc::clone(&way.encap),
        // Whoever chooses by it may take any of its bits.
        hash: u64::from(hash) << 32 | u64::from(hash),
        outer,
        limit,
        slots: way.slots,
        metered,
    };
    forward.keep_minimum(packet, link.config.mtu);
    Some(forward)
}

/// The longest inner packet that reaches `host` in one piece behind so many bytes.
#[inline]
pub(super) fn limit(host: &Host, outer: &Outer, before: usize) -> u16 {
    let mtu = host.longest(outer.df || host.addr.is_ipv6());
    mtu.map_or(u16::MAX, |mtu| inner_limit(host.addr, mtu, before))
}
