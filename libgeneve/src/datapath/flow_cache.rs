//! Cache of the latest flow: packets of one flow mostly arrive together and can skip the table lookup.

use super::decision::{CachedVerdict, PacketContext};
use super::lookup::{FlowQuery, Rejection, pass};
use crate::drop::DropReason;
use crate::flow::{FlowKey, PacketUpdate};
use crate::wire::packet::{Fragment, Packet, Transport};
use crate::wire::transport::TcpFlags;

/// Latest flow of one worker in one direction, with counters not yet written to the flow table.
#[derive(Debug, Default)]
pub(super) struct FlowCache {
    latest: Option<CachedFlow>,
    seen: PacketUpdate,
}

#[derive(Debug)]
struct CachedFlow {
    key: FlowKey,
    epoch: u64,
    /// Equal for packets with the same input and options.
    lane: u64,
    cached: CachedVerdict,
}

impl FlowCache {
    /// Returns the decision for the packet that `seeker` describes, from the cache or the flow table.
    #[inline]
    pub(super) fn pass(
        &mut self,
        cx: &PacketContext<'_>,
        query: &FlowQuery<'_>,
        lane: u64,
    ) -> Result<&CachedVerdict, Rejection> {
        if !self.holds(cx, query, lane) {
            self.flush(cx);
            let cached = match pass(cx, query) {
                Ok(cached) => cached,
                Err(stop) => {
                    if matches!(
                        stop.reason,
                        DropReason::PolicyDenied | DropReason::PolicyRejected
                    ) {
                        remember_fragment(cx, query);
                    }
                    return Err(stop);
                }
            };
            remember_fragment(cx, query);
            if query.error || turns(query.packet) || !cached.lasts {
                // The packet changes the flow's state, is not of the flow, or was decided without a table entry: do
                // not cache.
                return Ok(&self.keep(query, lane, u64::MAX, cached).cached);
            }
            return Ok(&self.keep(query, lane, cx.tables.epoch, cached).cached);
        }
        self.seen.packets += query.seen.packets;
        self.seen.bytes += query.seen.bytes;
        self.seen.tcp = query.seen.tcp;
        remember_fragment(cx, query);
        Ok(&self.latest.as_ref().expect("held").cached)
    }

    fn keep(
        &mut self,
        query: &FlowQuery<'_>,
        lane: u64,
        epoch: u64,
        cached: CachedVerdict,
    ) -> &CachedFlow {
        self.latest.insert(CachedFlow {
            key: query.key,
            epoch,
            lane,
            cached,
        })
    }

    #[inline]
    fn holds(&self, cx: &PacketContext<'_>, query: &FlowQuery<'_>, lane: u64) -> bool {
        match &self.latest {
            Some(latest) => {
                latest.epoch == cx.tables.epoch
                    && latest.lane == lane
                    && latest.key == query.key
                    && !query.error
                    && !turns(query.packet)
            }
            None => false,
        }
    }

    /// Writes pending counters to the flow table and forgets the flow: by the next packet it may have ended, and its
    /// NAT port may belong to another flow. Call at the end of every turn.
    #[inline]
    pub(super) fn flush(&mut self, cx: &PacketContext<'_>) {
        let Some(latest) = self.latest.take() else {
            return;
        };
        if self.seen.packets == 0 {
            return;
        }
        let seen = std::mem::take(&mut self.seen);
        cx.state
            .flows
            .hit(&latest.key, &seen, cx.now, latest.epoch, |_, _, _, _| ());
    }
}

/// Remembers the flow of a first fragment for later ones. Only packets that policy decided on get here, so forged
/// fragments cannot misdirect them.
#[inline]
fn remember_fragment(cx: &PacketContext<'_>, query: &FlowQuery<'_>) {
    if query.packet.fragment == Fragment::First {
        let link = query.link.config.index;
        cx.state
            .fragments
            .first(link, query.packet, query.key, cx.now);
    }
}

/// Whether the packet changes the state of its connection.
#[inline]
fn turns(packet: &Packet) -> bool {
    match packet.transport {
        Transport::Tcp { flags, .. } => {
            flags.intersects(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST)
        }
        _ => false,
    }
}
