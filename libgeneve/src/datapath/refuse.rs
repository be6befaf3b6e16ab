//! The answer to a packet that a rule rejects: a TCP reset, or an ICMP error.

use crate::wire::icmp::{IcmpError, Unreachable};
use crate::wire::packet::{Packet, Transport};
use crate::wire::reset;

/// Writes the answer to `packet`, which `bytes` begin with, into `out`: a whole IP packet from its destination to its
/// source. `None` where it must not be answered (a reset, an ICMP error, a later fragment, a multicast) or `out` is too
/// small; 1,280 bytes suffice.
#[must_use]
pub fn refusal(packet: &Packet, bytes: &[u8], out: &mut [u8]) -> Option<usize> {
    let error = IcmpError::Unreachable(Unreachable::Prohibited);
    if !error.may_answer(packet) {
        return None;
    }
    match packet.transport {
        Transport::Tcp { .. } => reset::answer(packet, out),
        _ => error.build(packet.dst, packet, bytes, out),
    }
}
