//! What the sender of a refused packet is told: a TCP reset, or an ICMP error.

use super::Answer;
use crate::wire::icmp::{IcmpError, Unreachable};
use crate::wire::packet::{Packet, Transport};
use crate::wire::reset;

/// Writes the answer to `packet`, which `bytes` begin with, into `out`: a whole IP packet from its destination to its
/// source, because the tunnel is one hop and has no address of its own. `None` where it must not be answered (a reset, an
/// ICMP error, a later fragment, a multicast) or `out` is too small; 1,280 bytes suffice.
#[must_use]
pub fn answer(answer: Answer, packet: &Packet, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    let error = match answer {
        Answer::Rejected => IcmpError::Unreachable(Unreachable::Prohibited),
        Answer::TooBig(mtu) => IcmpError::TooBig { mtu: mtu.into() },
    };
    if !error.may_answer(packet) {
        return None;
    }
    match (answer, packet.transport) {
        (Answer::Rejected, Transport::Tcp { .. }) => reset::answer(packet, out),
        _ => error.build(packet.dst, packet, bytes, out),
    }
}
