//! Where one packet goes: into the interface of a link, or to another host, with all that sending it there needs.
//!
//! Owns how long a packet may be on its way ([`Cut`] says what that means for this one). The flow's part of it is the
//! [`TunnelNextHop`], which was decided with the flow.

use std::sync::Arc;

use super::decision::{CachedVerdict, PacketContext, TunnelNextHop};
use super::{OuterTx, RefusedPacket, inner_limit, outer};
use crate::drop::DropReason;
use crate::mtu::{clamp_mss, minimum};
use crate::offload::cut::{Cut, longest_segment};
use crate::offload::vnet::VnetHdr;
use crate::qos::Metered;
use crate::vpc::{Host, Link, LinkIndex};
use crate::wire::encapsulation::InnerProtocol;
use crate::wire::header::HeaderBytes;
use crate::wire::packet::Packet;

/// Where a packet goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// Into the TUN or TAP interface of this link.
    Link(LinkIndex),
    /// To another host.
    Host(Forward),
}

/// How a packet reaches another host.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The link in whose VPC it travels.
    pub link: LinkIndex,
    /// The UDP port that it is sent to.
    pub port: u16,
    /// The host that it is sent to.
    pub host: Arc<Host>,
    /// What the link's datagrams carry.
    pub inner: InnerProtocol,
    /// The Geneve header that goes before each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// The flow's hash: chooses the source port.
    pub hash: u64,
    /// The outer header.
    pub outer: OuterTx,
    /// The longest inner packet that reaches the host, in bytes; a longer one is too big. `u16::MAX` where the underlay
    /// has not said.
    pub limit: u16,
    /// How the packet is cut so that it keeps to `limit`.
    pub cut: Cut,
    /// Whoever receives it uncut takes its segments to be as long as they are, and so it may be handed over like that.
    pub uncut: bool,
    /// Known options in `encap`, a bit for each slot of the schema.
    pub slots: u32,
}

/// What is asked of a way for one packet.
pub(super) struct OutputRequest<'a> {
    pub(super) packet: &'a Packet,
    /// The flow's hash.
    pub(super) hash: u32,
    /// The DSCP of its class.
    pub(super) class: Option<u8>,
    /// Bytes of the frame's header that are not in the way's own header.
    pub(super) frame: usize,
    /// It came from another host: no interface of this one has kept it to the tunnel's MTU.
    pub(super) relayed: bool,
}

/// The link that a packet of `link` leaves by.
#[inline]
pub(super) fn exit_link<'a>(
    cx: &PacketContext<'a>,
    link: &'a Link,
    next_hop: LinkIndex,
) -> Result<&'a Link, DropReason> {
    if next_hop == link.config.index {
        return Ok(link);
    }
    let next_hop = cx.tables.link(next_hop).ok_or(DropReason::LinkGone)?;
    Ok(next_hop)
}

impl Forward {
    /// The way of a packet in the VPC of `link`. How it is cut is [`Forward::fit`]'s.
    #[inline]
    pub(super) fn new(link: &Link, tunnel: &TunnelNextHop, request: &OutputRequest<'_>) -> Forward {
        let OutputRequest { packet, hash, .. } = *request;
        let outer = outer(link, packet, request.class);
        let mut limit = longest_inner(&tunnel.host, &outer, tunnel.encap.len() + request.frame);
        // The tunnel's MTU counts the longest options that the link itself has; those of a relayed packet, or of an answer
        // in the name of a service, may be longer.
        let mtu = usize::from(link.config.mtu);
        let room = (mtu + link.encap_len()).saturating_sub(tunnel.encap.len());
        if request.relayed || room < mtu {
            limit = limit.min(u16::try_from(room).unwrap_or(u16::MAX));
        }
        let mut forward = Forward {
            link: tunnel.link,
            port: link.config.port,
            host: Arc::clone(&tunnel.host),
            inner: link.config.inner,
            encap: Arc::clone(&tunnel.encap),
            // Whoever chooses by it may take any of its bits.
            hash: u64::from(hash) << 32 | u64::from(hash),
            outer,
            limit,
            cut: Cut::Whole,
            uncut: false,
            slots: tunnel.slots,
        };
        forward.keep_minimum(packet, link.config.mtu);
        forward
    }

    /// The way of a packet of geneved's own making, which is known to fit, to a host of `link`.
    ///
    /// # Errors
    /// [`DropReason::UnderlayLoop`].
    pub fn of_own(
        link: &Link,
        host: &Arc<Host>,
        encap: Arc<HeaderBytes>,
        hash: u64,
    ) -> Result<Forward, DropReason> {
        let config = &link.config;
        let forward = Forward {
            link: config.index,
            port: config.port,
            host: Arc::clone(host),
            inner: config.inner,
            encap,
            hash,
            outer: OuterTx {
                df: true,
                ..OuterTx::default()
            },
            limit: u16::MAX,
            cut: Cut::Whole,
            uncut: false,
            slots: 0,
        };
        forward.leads_away(link)?;
        Ok(forward)
    }

    /// Makes sure that what is sent to the host does not come back to this one.
    ///
    /// # Errors
    /// [`DropReason::UnderlayLoop`].
    #[inline]
    pub fn leads_away(&self, link: &Link) -> Result<(), DropReason> {
        match link.loops_to(&self.host) {
            true => Err(DropReason::UnderlayLoop),
            false => Ok(()),
        }
    }

    /// Notes how the packet is cut; one that must not be is refused, and counted by the link `from`.
    #[inline]
    pub(super) fn fit(
        &mut self,
        cut: Option<Cut>,
        packet: &Packet,
        from: LinkIndex,
    ) -> Result<(), RefusedPacket> {
        self.cut = cut.ok_or_else(|| RefusedPacket::too_big(self, packet, from))?;
        Ok(())
    }

    /// Does what is left to do to a packet that is as it will leave: its MSS must fit the way and the interface at its end.
    /// `link` is the one that it leaves by.
    #[inline]
    pub(super) fn finish(
        &mut self,
        cx: &PacketContext<'_>,
        link: &Link,
        bytes: &mut [u8],
        packet: &Packet,
        vnet: &VnetHdr,
    ) {
        let most = self.limit.min(link.config.mtu);
        clamp_mss(bytes, packet, most, vnet.needs_checksum());
        self.uncut = matches!(self.cut, Cut::Segments(_)) && {
            let longest = longest_segment(&self.cut.resized(vnet), packet);
            longest == usize::from(cx.state.segments_taken(link, packet, cx.now))
        };
    }

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

/// The longest inner packet that reaches `host` in one piece behind so many bytes.
#[inline]
pub(super) fn longest_inner(host: &Host, outer: &OuterTx, before: usize) -> u16 {
    let mtu = host.longest(outer.df || host.addr.is_ipv6());
    mtu.map_or(u16::MAX, |mtu| inner_limit(host.addr, mtu, before))
}

/// The rates that a packet of this flow, so many bytes on the wire, must be within. One that is only counted is counted now.
#[inline]
pub(super) fn metered(cached: &CachedVerdict, bytes: u64) -> Option<Metered> {
    let meter = cached.direction_state.meter.as_ref()?;
    if !meter.limits() {
        meter.count(bytes, true);
        return None;
    }
    Some(Metered {
        meter: Arc::clone(meter),
        flow: cached.hash,
        bytes,
    })
}
