//! The flow of the latest packet: packets of one flow mostly follow each other, and need not ask the table each time.

use super::lookup::{FlowQuery, Rejection, pass};
use super::decision::{PacketContext, CachedVerdict};
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
    passage: CachedVerdict,
}

impl FlowCache {
    /// What becomes of the packet that `seeker` describes.
    #[inline]
    pub(super) fn pass(
        &mut self,
        cx: &PacketContext<'_>,
        seeker: &FlowQuery<'_>,
        lane: u64,
    ) -> Result<&CachedVerdict, Rejection> {
        if !self.holds(cx, seeker, lane) {
            self.flush(cx);
            let passage = match pass(cx, seeker) {
                Ok(passage) => passage,
                Err(stop) => {
                    if matches!(
                        stop.reason,
                        DropReason::PolicyDenied | DropReason::PolicyRejected
                    ) {
                        remember_fragment(cx, seeker);
                    }
                    return Err(stop);
                }
            };
            remember_fragment(cx, seeker);
            if seeker.error || turns(seeker.packet) || !passage.lasts {
                // It changed its flow, or is none of it.
                return Ok(&self.keep(seeker, lane, u64::MAX, passage).passage);
            }
            return Ok(&self.keep(seeker, lane, cx.tables.epoch, passage).passage);
        }
        self.seen.packets += seeker.seen.packets;
        self.seen.bytes += seeker.seen.bytes;
        self.seen.tcp = seeker.seen.tcp;
        remember_fragment(cx, seeker);
        Ok(&self.latest.as_ref().expect("held").passage)
    }

    fn keep(&mut self, seeker: &FlowQuery<'_>, lane: u64, epoch: u64, passage: CachedVerdict) -> &CachedFlow {
        self.latest.insert(CachedFlow {
            key: seeker.key,
            epoch,
            lane,
            passage,
        })
    }

    #[inline]
    fn holds(&self, cx: &PacketContext<'_>, seeker: &FlowQuery<'_>, lane: u64) -> bool {
        match &self.latest {
            Some(latest) => {
                latest.epoch == cx.tables.epoch
                    && latest.lane == lane
                    && latest.key == seeker.key
                    && !seeker.error
                    && !turns(seeker.packet)
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
fn remember_fragment(cx: &PacketContext<'_>, seeker: &FlowQuery<'_>) {
    if seeker.packet.fragment == Fragment::First {
        let link = seeker.link.config.index;
        cx.state
            .fragments
            .first(link, seeker.packet, seeker.key, cx.now);
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
