//! Inner fragments, in any order.

use geneved_tests::on_both_backends;
use geneved_tests::packet::{RawGeneve, fragments};
use geneved_tests::peer::{INNER4, INNER6, Peer};
use geneved_tests::world::UnderlayFamily;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Sends a datagram to host a in fragments of this order; whether all of it arrives.
fn arrives(peer: &Peer, inner: [&str; 2], order: [usize; 3], id: u16) -> bool {
    let [from, to]: [IpAddr; 2] = inner.map(|text| text.parse().unwrap());
    let at = SocketAddr::new(to, 7000 + id);
    let netns = peer.duo.a.netns();
    let socket = netns.run(|| UdpSocket::bind(at)).unwrap().unwrap();
    let payload: Vec<u8> = (0..2200).map(|n| (n % 251) as u8).collect();
    let pieces = fragments((from, 4000), (to, at.port()), &payload, id);
    assert_eq!(pieces.len(), order.len());
    let mut header = RawGeneve::new(100);
    header.protocol = if from.is_ipv4() { 0x0800 } else { 0x86dd };
    for piece in order {
        peer.send(&header.datagram(&pieces[piece]));
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
        let peer = Peer::new(io, UnderlayFamily::V4, "");
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
