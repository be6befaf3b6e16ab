//! A whole worker over the backend in memory: bytes in at both ends, faults in between, completions in any order. Nothing
//! panics, every buffer, train and write comes back, what leaves is a sound packet of the right VPC, and each packet that
//! came in is counted at least once.
//!
//! Input: records, each an operation and two bytes of length (big-endian) before its bytes. The lower three bits of an
//! operation say what it is, the others how:
//! 0 a packet from TUN, its virtio header before it (bits 3 and 4: which link; bit 5: make its checksums right);
//! 1 a train from the wire (bit 3: from which host; bit 4: in two datagrams);
//! 2 an inner packet or frame from the wire, in an encapsulation of this link (bits 3 and 4; bit 5: checksums; bit 6: host);
//! 3 a fault for each byte (bits 3 and 4: of queued sends, of queued writes, of direct operations, of all trains);
//! 4 a turn; 5 time passes, as many milliseconds as the bytes say; 6 what was learned of a host (bit 3: which);
//! 7 an interface vanishes, or with bit 5 the link is taken away (bits 3 and 4: which).
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use geneved::io::{
    TrafficDirection, InjectedFault, REMOTE_HOSTS, SimulatedLink, Simulation, WrittenPacket,
};
use libfuzzer_sys::fuzz_target;
use libgeneve::offload::vnet::{self, VnetHdr};
use libgeneve::wire::ethernet::Ethernet;
use libgeneve::wire::geneve::{Geneve, GeneveBuilder};
use libgeneve::wire::ip;
use libgeneve::wire::packet::Packet;

/// Errnos of injected faults (linux/errno.h): EIO, EINVAL, EAGAIN, EMSGSIZE, ENOBUFS, EBUSY, ECONNREFUSED,
/// ENETUNREACH.
const ERRNOS: [i32; 8] = [5, 22, 11, 90, 105, 16, 111, 101];
/// Maximum number of bytes of one TUN read, and of one train.
const LONGEST: usize = 65_000;

fuzz_target!(|data: &[u8]| {
    let Some((&head, records)) = data.split_first() else {
        return;
    };
    let mut simulation = Simulation::new(head & 1 != 0);
    simulation.set_disorder((head & 2 != 0).then_some(head.into()));
    let mut came_in = 0;
    let mut detached = false;
    let mut rest = records;
    while let [operation, high, low, bytes @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(bytes.len());
        let (bytes, next) = bytes.split_at(len);
        rest = next;
        came_in += u64::from(perform(&mut simulation, *operation, bytes));
        detached |= operation & 7 == 7;
    }
    simulation.drain();
    let sent = simulation.take_sent();
    for datagram in &sent {
        assert!(REMOTE_HOSTS.contains(&datagram.dst.ip()));
        check_datagram(&datagram.payload);
    }
    for link in SimulatedLink::ALL {
        for bytes in simulation.take_written(link) {
            check_write(link, &bytes);
        }
    }
    // The rest was written to the device for tunnel GSO.
    let handed_over = simulation.take_all_written();
    handed_over.iter().for_each(check_handed_over);
    let sum = simulation.all_counters();
    if !detached {
        let ended: u64 = [TrafficDirection::Ingress, TrafficDirection::Egress]
            .into_iter()
            .flat_map(|direction| sum.drops(direction).chain(sum.consumed(direction)))
            .map(|(_, count)| count)
            .sum();
        assert!(sum.tx_packets + sum.rx_packets + ended >= came_in);
        if handed_over.is_empty() {
            assert_eq!(sum.tx_packets, sent.len() as u64);
        }
    }
});

fn link_of(operation: u8) -> SimulatedLink {
    SimulatedLink::ALL[usize::from(operation >> 3 & 3)]
}

/// Performs an operation; true if it gave the worker input.
fn perform(simulation: &mut Simulation, operation: u8, bytes: &[u8]) -> bool {
    let link = link_of(operation);
    let bit = |at: u8| operation >> at & 1 == 1;
    let host = |second: bool| -> IpAddr { REMOTE_HOSTS[usize::from(second)] };
    match operation & 7 {
        0 => {
            let mut bytes = bytes[..bytes.len().min(LONGEST)].to_vec();
            if bit(5)
                && let Some(packet) = bytes.get_mut(vnet::LEN..)
            {
                make_right(link, packet);
            }
            return !bytes.is_empty() && simulation.feed_tun(link, bytes);
        }
        1 => {
            let segment = match bit(4) {
                true => bytes.len().div_ceil(2) as u16,
                false => 0,
            };
            simulation.feed_socket(host(bit(3)), segment, bytes.to_vec());
            return true;
        }
        2 => {
            let mut inner = bytes.to_vec();
            if bit(5) {
                make_right(link, &mut inner);
            }
            let protocol = match (in_frames(link), inner.first().map(|byte| byte >> 4)) {
                (true, _) => 0x6558,
                (false, Some(6)) => 0x86dd,
                (false, _) => 0x0800,
            };
            let header = GeneveBuilder::new(link.vni(), protocol).finish();
            let datagram = [&header[..], &inner].concat();
            simulation.feed_socket(host(bit(6)), 0, datagram);
            return true;
        }
        3 => {
            let faults = simulation.faults();
            for byte in bytes {
                let errno = ERRNOS[usize::from(byte & 7)];
                let fault = match byte >> 3 & 3 {
                    0 => None,
                    1 => Some(InjectedFault::Short),
                    _ => Some(InjectedFault::Errno(errno)),
                };
                match operation >> 3 & 3 {
                    0 => faults.sends.push_back(fault),
                    1 => faults.writes.push_back(fault),
                    2 => faults.direct.push_back(fault),
                    _ => faults.trains = fault.map(|_| errno),
                }
            }
        }
        4 => simulation.turn(),
        5 => {
            let millis: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
            simulation.advance(Duration::from_millis(millis));
        }
        6 => {
            let host = simulation.host(host(bit(3)));
            host.set_gso(bit(4));
            let mtu = bytes.first().map(|&byte| 60 + 8 * u32::from(byte));
            host.set_path_mtu(mtu);
        }
        _ if bit(5) => simulation.detach(link),
        _ => simulation.vanish(link),
    }
    false
}

/// Whether the link's datagrams carry frames.
fn in_frames(link: SimulatedLink) -> bool {
    matches!(link, SimulatedLink::Tap | SimulatedLink::Neighbors)
}

/// Fixes the checksums of a packet, after its Ethernet header if there is one.
fn make_right(link: SimulatedLink, bytes: &mut [u8]) {
    let start = match link {
        SimulatedLink::Tap => Ethernet::parse(bytes).map_or(0, |frame| frame.header_len()),
        _ => 0,
    };
    let inner = &mut bytes[start..];
    if let Ok(packet) = Packet::parse(inner) {
        ip::write_ipv4_checksum(inner);
        packet.write_checksum(inner);
    }
}

/// Checks that a datagram belongs to a link and that its payload parses.
fn check_datagram(payload: &[u8]) {
    let geneve = Geneve::parse(payload).expect("a sound header");
    let mut links = SimulatedLink::ALL.into_iter();
    let link = links.find(|link| link.vni() == geneve.vni());
    let link = link.expect("a VNI of this host");
    if in_frames(link) {
        assert_eq!(geneve.protocol(), 0x6558);
        Ethernet::parse(geneve.payload()).expect("a frame");
    } else {
        Packet::parse(geneve.payload()).expect("a sound packet");
    }
}

/// Checks that a packet written to an interface has a virtio header and parses.
fn check_write(link: SimulatedLink, bytes: &[u8]) {
    VnetHdr::parse(bytes).expect("a virtio header");
    let packet = &bytes[vnet::LEN..];
    match link {
        SimulatedLink::Tap => {
            Ethernet::parse(packet).expect("a frame");
        }
        _ => {
            Packet::parse(packet).expect("a sound packet");
        }
    }
}

/// Checks a packet written to the device for tunnel GSO: virtio header, Ethernet, IPv4 and UDP precede the datagram.
fn check_handed_over(written: &WrittenPacket) {
    check_datagram(&written.bytes[24 + 14 + 20 + 8..]);
}
