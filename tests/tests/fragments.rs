//! Inner fragments, in whatever order they arrive.

use geneved_tests::on_both_backends;
use geneved_tests::packet::{Geneve, sum, udp};
use geneved_tests::peer::{INNER4, INNER6, Peer};
use geneved_tests::world::Family;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Bytes of payload in each fragment but the last; a multiple of eight.
const PIECE: usize = 800;

/// The fragments of a UDP datagram that is too long for the link, in order.
fn fragments(from: (IpAddr, u16), to: (IpAddr, u16), payload: &[u8], id: u16) -> Vec<Vec<u8>> {
    let whole = udp(from, to, payload);
    let header_len = if from.0.is_ipv4() { 20 } else { 40 };
    let (header, segment) = whole.split_at(header_len);
    let count = segment.len().div_ceil(PIECE);
    let pieces = segment.chunks(PIECE).enumerate();
    let one = |(at, piece): (usize, &[u8])| {
        let (offset, more) = ((at * PIECE / 8) as u16, at + 1 < count);
        let mut bytes = header.to_vec();
        if from.0.is_ipv4() {
            let word = offset | u16::from(more) << 13;
            bytes[2..4].copy_from_slice(&((20 + piece.len()) as u16).to_be_bytes());
            bytes[4..6].copy_from_slice(&id.to_be_bytes());
            bytes[6..8].copy_from_slice(&word.to_be_bytes());
            bytes[10..12].fill(0);
            let check = !(sum(0, &bytes) as u16);
            bytes[10..12].copy_from_slice(&check.to_be_bytes());
        } else {
            let word = offset << 3 | u16::from(more);
            bytes[4..6].copy_from_slice(&((8 + piece.len()) as u16).to_be_bytes());
            let next = std::mem::replace(&mut bytes[6], 44);
            bytes.extend([next, 0]);
            bytes.extend(word.to_be_bytes());
            bytes.extend(u32::from(id).to_be_bytes());
        }
        bytes.extend_from_slice(piece);
        bytes
    };
    pieces.map(one).collect()
}

/// Sends a datagram to host a in fragments of this order; whether all of it arrives.
fn arrives(peer: &Peer, inner: [&str; 2], order: [usize; 3], id: u16) -> bool {
    let [from, to]: [IpAddr; 2] = inner.map(|text| text.parse().unwrap());
    let at = SocketAddr::new(to, 7000 + id);
    let netns = peer.duo.a.netns();
    let socket = netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    let payload: Vec<u8> = (0..2200).map(|n| (n % 251) as u8).collect();
    let fragments = fragments((from, 4000), (to, at.port()), &payload, id);
    assert_eq!(fragments.len(), order.len());
    let mut header = Geneve::new(100);
    header.protocol = if from.is_ipv4() { 0x0800 } else { 0x86dd };
    for piece in order {
        peer.send(&header.datagram(&fragments[piece]));
    }
    let time = Duration::from_secs(2);
    socket.set_read_timeout(Some(time)).unwrap();
    let mut buffer = [0; 4000];
    socket
        .recv(&mut buffer)
        .is_ok_and(|n| buffer[..n] == payload)
}

const ORDERS: [[usize; 3]; 3] = [[0, 1, 2], [1, 0, 2], [2, 1, 0]];

on_both_backends! {
    fn fragments_arrive_in_any_order_where_no_port_matters(io) {
        let peer = Peer::new(io, Family::V4, "");
        let mut id = 0;
        for inner in [INNER4, INNER6] {
            for order in ORDERS {
                id += 1;
                assert!(arrives(&peer, inner, order, id), "{inner:?} {order:?}");
            }
        }
        let drops = peer.daemon.drops();
        assert!(!drops.contains_key("gnv0/ingress/fragment-unknown"), "{drops:?}");
    }
}
