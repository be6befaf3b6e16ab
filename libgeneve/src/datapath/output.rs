//! Output of one packet: a link's interface or another host, with everything needed to send it there.
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

/// Output of a packet.
#[derive(Clone, Debug)]
pub enum Output {
    /// The TUN or TAP interface of this link.
    Link(LinkIndex),
    /// Another host.
    Host(Forward),
}

/// How to send a packet to another host.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Link in whose VPC it travels.
    pub link: LinkIndex,
    /// Destination UDP port.
    pub port: u16,
    /// Destination host.
    pub host: Arc<Host>,
    /// Inner protocol of the link: IP packets or Ethernet frames.
    pub inner: InnerProtocol,
    /// Geneve header prepended to each segment, options included.
    pub encap: Arc<HeaderBytes>,
    /// Flow hash; selects the source port.
    pub hash: u64,
    /// Outer header fields.
    pub outer: OuterTx,
    /// Longest inner packet that reaches the host, in bytes; `u16::MAX` if the underlay has no known limit.
    pub limit: u16,
    /// How the packet is cut to stay within `limit`.
    pub cut: Cut,
    /// The receiver would assume the actual segment size, so the packet may be handed over uncut.
    pub uncut: bool,
    /// Known options in `encap`, one bit per schema slot.
    pub slots: u32,
}

/// Per-packet inputs of [`Forward::new`].
pub(super) struct OutputRequest<'a> {
    pub(super) packet: &'a Packet,
    /// Flow hash.
    pub(super) hash: u32,
    /// DSCP of the QoS class.
    pub(super) class: Option<u8>,
    /// Bytes of Ethernet header that are not part of the encapsulation header.
    pub(super) frame: usize,
    /// Received from another host, so no local interface has limited it to the tunnel's MTU.
    pub(super) relayed: bool,
}

/// Returns the link that a packet of `link` leaves through.
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
    /// Returns how to send a packet in the VPC of `link`. [`Forward::fit`] sets how it is cut.
    #[inline]
    pub(super) fn new(link: &Link, tunnel: &TunnelNextHop, request: &OutputRequest<'_>) -> Forward {
        let OutputRequest { packet, hash, .. } = *request;
        let outer = outer(link, packet, request.class);
        let mut limit = longest_inner(&tunnel.host, &outer, tunnel.encap.len() + request.frame);
        // The tunnel's MTU reserves room for the longest options of the link itself; relayed packets and answers on
        // behalf of a service may carry longer ones.
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
            // Users of the hash may take any of its bits.
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

    /// Returns how to send a packet that geneved generates, and that is known to fit, to a host of `link`.
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

    /// Checks that packets to the host do not come back to this one.
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

    /// Sets how the packet is cut. If it must not be cut, refuses it; the link `from` counts the drop.
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

    /// Finishes a packet that is otherwise ready to send: clamps its MSS to the path and to the MTU of `link`, which
    /// it leaves through.
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

    /// Raises the limit to the minimum MTU of the IP version, which every link must carry; if the path takes less,
    /// the outer packet is fragmented (RFC 2473 section 7.1, RFC 4213 section 3.2.2). The same goes for multicast up
    /// to the link's `mtu`, because its senders learn nothing: IPv4 sends no ICMP errors for multicast, and Linux
    /// records the path MTU of an IPv6 group on the first interface that could lead to it.
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

/// Returns the longest inner packet that reaches `host` unfragmented behind `before` bytes of headers.
#[inline]
pub(super) fn longest_inner(host: &Host, outer: &OuterTx, before: usize) -> u16 {
    let mtu = host.longest(outer.df || host.addr.is_ipv6());
    mtu.map_or(u16::MAX, |mtu| inner_limit(host.addr, mtu, before))
}

/// Returns the meter that must admit `bytes` on the wire for this flow. A meter without limits only counts, right
/// here.
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
