//! Masquerading of hairpinned packets: if the redirect leads back to the sender's host or interface, the source is
//! translated, too. Otherwise the answer would bypass this host and reach the sender from an address that it never
//! asked.
//!
//! The new source is the requested address, because it leads here from wherever the sender is. The flow table tells
//! which ports are free: only the reply keys must differ.

use std::net::IpAddr;

use super::resolution::{Resolution, is_icmp, translatable};
use super::{FirstPacket, hash_of};
use crate::datapath::decision::{ExpectedInput, PacketContext};
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::options::ServiceOption;
use crate::vpc::Link;

/// Number of ports to try after the sender's own. A try fails if another sender has a flow to the same destination
/// with that port.
const PORT_TRIES: u64 = 16;
/// Lowest port to try: above the well-known ports.
const LOWEST: u16 = 1024;

impl Resolution {
    /// Translates the source to `addr`, the requested address, with a port that no other flow to the destination
    /// uses. `before` is the flow's reply key so far.
    pub(super) fn masquerade<E: TraceObserver>(
        &mut self,
        cx: &PacketContext<'_>,
        initial: &FirstPacket,
        before: Option<&FlowKey>,
        addr: IpAddr,
        log: &mut E,
    ) -> Result<(), DropReason> {
        let key = &initial.key;
        let identifier = is_icmp(key.protocol);
        let link = self.link;
        let dst = self.dst;
        let reply = |port| FlowKey {
            link,
            src: dst.0,
            sport: if identifier { port } else { dst.1 },
            dst: addr,
            dport: port,
            protocol: key.protocol,
        };
        let kept = before
            .map(|b| b.dport)
            .filter(|&p| before == Some(&reply(p)));
        // With the requested port as source port, the receiver's host would take the packet for an answer.
        let free = |&port: &u16| {
            (identifier || port == 0 || port != key.dport) && !cx.state.flows.contains(&reply(port))
        };
        let others = translatable(initial).then(|| {
            let hash = hash_of(cx, key);
            let span = u64::from(u16::MAX - LOWEST) + 1;
            (1..=PORT_TRIES).map(move |n| LOWEST + (hash.rotate_left(4 * n as u32) % span) as u16)
        });
        let first = std::iter::once(key.sport);
        let port = kept
            .or_else(|| first.chain(others.into_iter().flatten()).find(free))
            .ok_or(DropReason::NatExhausted)?;
        self.src = (addr, port);
        if identifier {
            // An ICMP identifier stands for both ports.
            self.dst.1 = port;
        }
        log.record("nat", || {
            format!(
                "{} is where the packet came from: its source {} becomes {addr} port {port}, so that the answer passes here",
                self.dst.0, key.src
            )
        });
        Ok(())
    }
}

/// Whether a packet that another host relayed for this service returns to the host of its client.
pub(super) fn asked_here(
    cx: &PacketContext<'_>,
    link: &Link,
    key: &FlowKey,
    service: &ServiceOption,
    before: Option<&FlowKey>,
) -> bool {
    if before.is_some_and(|reply| reply.dst == service.addr) {
        return true;
    }
    let asked = FlowKey {
        link: link.config.index,
        dst: service.addr,
        dport: service.port,
        ..*key
    };
    cx.state.flows.peek(&asked).is_some_and(|flow| {
        let expected_input = &flow
            .decision
            .direction(FlowDirection::Original)
            .expected_input;
        flow.side == FlowDirection::Original && matches!(expected_input, ExpectedInput::Tun)
    })
}
