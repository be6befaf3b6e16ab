//! The flow of the latest packet: packets of one flow mostly follow each other, and need not ask the table each time.

use super::decision::{CachedVerdict, PacketContext};
use super::lookup::{FlowQuery, Rejection, pass};
use crate::drop::DropReason;
use crate::flow::{FlowKey, PacketUpdate};
use crate::wire::packet::{Fragment, Packet, Transport};
use crate::wire::transport::TcpFlags;

/// The latest flow of one worker in one direction, and what the table has not been told of it yet.
#[derive(Debug, Default)]
pub(super) struct FlowCache {
    latest: Option<CachedFlow>,
    seen: PacketUpdate,
}

#[derive(Debug)]
struct CachedFlow {
    key: FlowKey,
    epoch: u64,
    /// Equal for packets that came the same way with the same options.
    lane: u64,
    cached: CachedVerdict,
}

impl FlowCache {
    /// What becomes of the packet that `seeker` describes.
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
                // It changed its flow, or is none of it.
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

    /// Tells the table what passed since it was asked, and forgets the flow: until the next packet comes it may have
    /// ended, and its NAT port may be another's. To be called at the end of every turn.
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

/// Later fragments follow a first one that policy decided about; a forged one leads none astray.
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
