//! Packets of geneved's own making: the ICMP errors that tell an inner sender about the tunnel's MTU.

use std::os::fd::AsRawFd;

use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::wire::icmp::IcmpError;
use libgeneve::wire::packet::Packet;

use super::backend::Backend;
use super::ingress::Writes;
use super::train::Write;
use super::worker::LinkSlot;

/// Tells the sender of `inner` that only `mtu` bytes pass (RFC 1191, RFC 8201). False where it must
/// not be told (RFC 1122 section 3.2.2, RFC 4443 section 2.4) or cannot be.
pub(super) fn too_big(
    writes: &mut Writes,
    io: &mut impl Backend,
    here: &LinkSlot,
    inner: &[u8],
    packet: &Packet,
    mtu: u16,
) -> bool {
    let error = IcmpError::TooBig {
        mtu: u32::from(mtu),
    };
    if !error.may_answer(packet) {
        return false;
    }
    let Some(id) = writes.take() else {
        return false;
    };
    let write = writes.slot(id);
    let mut told = false;
    write.open(here.index, Write::Own, |scratch| {
        let (hdr, rest) = scratch.split_at_mut(vnet::LEN);
        VnetHdr::NONE.write(hdr.try_into().expect("split at LEN"));
        // The answer seems to come from the destination: the tunnel is one hop and has no address of its own.
        let len = error.build(packet.dst, packet, inner, rest);
        told = len.is_some();
        vnet::LEN + len.unwrap_or(0)
    });
    if told {
        io.write(id, here.queue.as_raw_fd(), write.iovs());
    } else {
        writes.finish(id);
    }
    told
}
