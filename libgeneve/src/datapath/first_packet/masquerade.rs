//! Packets that are turned to a destination on the host, or behind the interface, of their own sender: the source is translated,
//! too. The answer would reach the sender otherwise without passing here, from an address that it never asked.
//!
//! The source becomes the address that was asked, as it leads here from wherever the sender is. Which of its ports are free,
//! the flow table knows: only the answers' keys must differ.

use std::net::IpAddr;

use super::resolution::{Resolution, is_icmp, translatable};
use super::{FirstPacket, hash_of};
use crate::datapath::decision::{ExpectedInput, PacketContext};
use crate::datapath::trace_observer::TraceObserver;
use crate::drop::DropReason;
use crate::flow::{FlowDirection, FlowKey};
use crate::options::ServiceOption;
use crate::vpc::Link;

/// Ports that are tried after the sender's own. Each fails where another sender has a flow to the same destination by it.
const PORT_TRIES: u64 = 16;
/// Those ports are not well-known ones.
const LOWEST: u16 = 1024;

impl Resolution {
    /// Gives the packet the source `addr`, which its sender asked, with a port that no other flow to its destination has.
    /// `before` is the key of its replies so far.
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
        // A packet from the port that is asked for itself would be taken for an answer by its receiver's host.
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
            // An identifier stands for both ports.
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

/// Whether a packet that another host relayed in the name of this service comes back to the host of its client.
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
