//! Hand-made datagrams: each bad one is dropped for one reason, each good one is forwarded.

use geneved_tests::on_both_backends;
use geneved_tests::packet::{ETHERTYPE_IPV6, Parsed, RawGeneve, ip, option, sum, udp};
use geneved_tests::peer::{INNER4, INNER6, Peer};
use geneved_tests::world::{Duo, TestBackend, UnderlayFamily};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Unregistered option class.
const UNKNOWN_CLASS: u16 = 0xfff0;
const CRITICAL: u8 = 0x80;

fn peer(io: TestBackend) -> Peer {
    Peer::new(io, UnderlayFamily::V4, "")
}

fn plain() -> RawGeneve {
    RawGeneve::new(100)
}

/// Sends a whole IP packet, outer header and all, from host b.
fn send_raw(peer: &Peer, packet: &[u8]) {
    let domain = if peer.target.is_ipv4() {
        Domain::IPV4
    } else {
        Domain::IPV6
    };
    // IPPROTO_RAW: the IP header is part of what is sent.
    let open = || Socket::new(domain, Type::RAW, Some(Protocol::from(255)));
    let socket = peer.duo.b.netns().run(open).unwrap().unwrap();
    socket
        .send_to(packet, &SocketAddr::new(peer.target.ip(), 0).into())
        .unwrap();
}

/// The outer packet around a Geneve datagram, with its UDP checksum changed by `change`.
fn outer(peer: &Peer, datagram: &[u8], change: impl Fn(u16) -> u16) -> Vec<u8> {
    let from = peer.socket.local_addr().unwrap();
    let target = (peer.target.ip(), peer.target.port());
    let mut packet = udp((from.ip(), 40_000), target, datagram);
    let at = if from.is_ipv4() { 26 } else { 46 };
    let check = change(u16::from_be_bytes([packet[at], packet[at + 1]]));
    packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
    packet
}

on_both_backends! {
    fn good_packets_pass(io) {
        for family in UnderlayFamily::BOTH {
            let peer = Peer::new(io, family, "");
            let (port, inner) = peer.inner();
            assert_eq!(peer.assert_emerges(port, &plain().datagram(&inner)), inner);
            let (port, inner) = peer.inner_between(INNER6);
            let six = RawGeneve { protocol: ETHERTYPE_IPV6, ..plain() };
            assert_eq!(peer.assert_emerges(port, &six.datagram(&inner)), inner);
        }
    }

    fn rfc8926_09_an_unknown_version_is_dropped(io) {
        let peer = peer(io);
        for version in 1..=3 {
            peer.assert_drops(&RawGeneve { version, ..plain() }, "geneve-version");
        }
    }

    fn rfc8926_11_reserved_bits_are_ignored_when_received(io) {
        peer(io).assert_passes(&RawGeneve { reserved: (0x3f, 0xff), ..plain() });
    }

    fn rfc8926_12_a_control_message_is_never_forwarded(io) {
        peer(io).assert_drops(&RawGeneve { control: true, ..plain() }, "control-message");
    }

    fn rfc8926_14_the_c_bit_alone_drops_nothing(io) {
        let peer = peer(io);
        peer.assert_passes(&RawGeneve { critical: true, ..plain() });
        peer.assert_passes(&RawGeneve { critical: true, options: option(UNKNOWN_CLASS, 1, &[0; 4]), ..plain() });
    }

    fn rfc8926_16_an_unknown_critical_option_is_dropped_whatever_the_c_bit_says(io) {
        let peer = peer(io);
        let options = option(UNKNOWN_CLASS, CRITICAL | 1, &[0; 4]);
        peer.assert_drops(
            &RawGeneve { critical: true, options: options.clone(), ..plain() }, "unknown-critical-option");
        peer.assert_drops(&RawGeneve { options: options.clone(), ..plain() }, "unknown-critical-option");
        let after_others = [option(UNKNOWN_CLASS, 1, &[0; 8]), options].concat();
        peer.assert_drops(
            &RawGeneve { critical: true, options: after_others, ..plain() }, "unknown-critical-option");
    }

    fn unknown_options_that_are_not_critical_pass(io) {
        let peer = peer(io);
        peer.assert_passes(&RawGeneve { options: option(UNKNOWN_CLASS, 1, &[]), ..plain() });
        // The same one more than once, and all 63 words.
        let most = [option(UNKNOWN_CLASS, 1, &[7; 124]), option(UNKNOWN_CLASS, 1, &[8; 120])].concat();
        assert_eq!(most.len(), 252);
        peer.assert_passes(&RawGeneve { options: most, ..plain() });
    }

    fn rfc8926_18_the_r_bits_of_an_option_are_ignored_when_received(io) {
        let mut options = option(UNKNOWN_CLASS, 1, &[0; 4]);
        options[3] |= 0xe0;
        peer(io).assert_passes(&RawGeneve { options, ..plain() });
    }

    fn rfc8926_19_option_lengths_that_do_not_add_up_are_dropped(io) {
        let peer = peer(io);
        let mut long = option(UNKNOWN_CLASS, 1, &[0; 4]);
        long[3] = 2;
        peer.assert_drops(&RawGeneve { options: long, ..plain() }, "geneve-option-length");
        let mut second = [option(UNKNOWN_CLASS, 1, &[0; 4]), option(UNKNOWN_CLASS, 1, &[])].concat();
        second[11] = 31;
        peer.assert_drops(&RawGeneve { options: second, ..plain() }, "geneve-option-length");
    }

    fn rfc8926_20_opt_len_beyond_the_packet_is_dropped(io) {
        let peer = peer(io);
        let (port, inner) = peer.inner();
        let header = RawGeneve { words: Some(63), ..plain() };
        peer.assert_vanishes(Some(port), &header.datagram(&inner), "geneve-truncated");
        for length in 0..8 {
            peer.assert_vanishes(None, &plain().datagram(&[])[..length], "geneve-truncated");
        }
    }

    fn an_unknown_vni_is_dropped(io) {
        let peer = peer(io);
        for vni in [0, 101, 0xff_ffff] {
            peer.assert_drops(&RawGeneve::new(vni), "unknown-vni");
        }
        let host = &peer.daemon.json("host show")[0];
        for (at, vni) in [0xff_ffff, 101, 0].into_iter().enumerate() {
            let seen = &host["unknown_vnis"][at];
            assert_eq!(seen["vni"], vni, "{host}");
            assert_eq!((&seen["host"], &seen["port"]), (&"192.0.2.2".into(), &6081.into()));
            assert!(seen["count"].as_u64() > Some(0), "{seen}");
        }
        let text = peer.daemon.cli("-s host show");
        assert!(text.contains("unknown-vni 16777215 port 6081 host 192.0.2.2 count "), "{text}");
    }

    fn an_unknown_host_is_dropped(io) {
        let mut peer = peer(io);
        peer.duo.b.ip("address add 192.0.2.3/24 dev u0").unwrap();
        let stranger = Peer::bind(&peer.duo, "192.0.2.3:6081".parse().unwrap());
        let (port, inner) = peer.inner();
        peer.socket = stranger;
        peer.assert_vanishes(Some(port), &plain().datagram(&inner), "unknown-host");
    }

    fn rfc8926_27_another_outer_destination_than_the_links_is_dropped(io) {
        let duo = Duo::new();
        duo.a.ip("address add 192.0.2.9/24 dev u0").unwrap();
        let mut peer = Peer::on(duo, io, UnderlayFamily::V4, "local = \"192.0.2.1\"");
        peer.assert_passes(&plain());
        let (port, inner) = peer.inner();
        peer.target = "192.0.2.9:6081".parse().unwrap();
        peer.assert_vanishes(Some(port), &plain().datagram(&inner), "wrong-local");
    }

    fn an_inner_source_that_does_not_belong_to_its_host_is_dropped(io) {
        let peer = peer(io);
        let (port, own) = peer.inner_between(["10.0.0.1", "10.0.0.1"]);
        peer.assert_vanishes(Some(port), &plain().datagram(&own), "source-mismatch");
        peer.daemon.cli("route add 10.7.0.0/16 dev gnv0 via 192.0.2.77");
        let (port, other) = peer.inner_between(["10.7.0.1", "10.0.0.1"]);
        peer.assert_vanishes(Some(port), &plain().datagram(&other), "source-mismatch");
        peer.assert_passes(&plain());
    }

    fn another_protocol_type_is_dropped(io) {
        let peer = peer(io);
        for protocol in [0x6558, 0x0806, 0] {
            peer.assert_drops(&RawGeneve { protocol, ..plain() }, "protocol-type");
        }
    }

    fn a_broken_inner_packet_is_dropped(io) {
        let peer = peer(io);
        let (port, inner) = peer.inner();
        peer.assert_vanishes(
            Some(port), &plain().datagram(&inner[..inner.len() - 1]), "inner-malformed");
        peer.assert_vanishes(Some(port), &plain().datagram(&inner[..19]), "inner-malformed");
        let mut header = inner;
        header[0] = 0x44;
        peer.assert_vanishes(Some(port), &plain().datagram(&header), "inner-malformed");
    }

    fn a_flood_of_bad_packets_is_counted_and_good_ones_still_pass(io) {
        let peer = peer(io);
        let bad = RawGeneve { version: 3, ..plain() };
        let (_, inner) = peer.inner();
        let datagram = bad.datagram(&inner);
        for _ in 0..5_000 {
            peer.send(&datagram);
        }
        peer.assert_passes(&plain());
        let counted: u64 = peer
            .daemon
            .drops()
            .iter()
            .filter(|(name, _)| name.ends_with("/geneve-version"))
            .map(|(_, count)| count)
            .sum();
        assert_eq!(counted, 5_000);
        let log = peer.daemon.process().log();
        assert!(log.lines().count() < 200, "a line for each bad packet:\n{log}");
    }

    fn rfc8926_08_a_wrong_outer_checksum_is_dropped(io) {
        for family in UnderlayFamily::BOTH {
            let peer = Peer::new(io, family, "");
            let (port, inner) = peer.inner();
            let wrong = outer(&peer, &plain().datagram(&inner), |check| check ^ 0x0101);
            send_raw(&peer, &wrong);
            assert!(peer.emerged(port, Duration::from_millis(200)).is_none(), "{family:?}");
            // The same way with the right one, to be sure that it was the checksum.
            send_raw(&peer, &outer(&peer, &plain().datagram(&inner), |check| check));
            assert!(peer.emerged(port, Duration::from_secs(3)).is_some(), "{family:?}");
        }
    }

    fn rfc8926_25_an_outer_checksum_of_zero_is_accepted_over_ipv4_and_over_ipv6_only_if_asked_for(io) {
        for (family, more, accepted) in [
            (UnderlayFamily::V4, "", true),
            (UnderlayFamily::V6, "", false),
            (UnderlayFamily::V6, "udp6zerocsumrx = true", true),
        ] {
            let peer = Peer::new(io, family, more);
            let (port, inner) = peer.inner();
            send_raw(&peer, &outer(&peer, &plain().datagram(&inner), |_| 0));
            let time = Duration::from_millis(if accepted { 3000 } else { 200 });
            assert_eq!(peer.emerged(port, time).is_some(), accepted, "{family:?} {more}");
        }
    }

    fn unsegmented_packets_of_a_kernel_tunnel_arrive_whole(io) {
        // What a kernel tunnel on the same machine hands over: one datagram of 60 KB, its inner TCP
        // checksum only begun. The kernel answers a segment to a closed port by a reset, but only
        // if its checksum is right.
        let peer = Peer::on(Duo::with_mtu(65_535), io, UnderlayFamily::V4, "mtu = 1400");
        let [from, to]: [IpAddr; 2] = INNER4.map(|text| text.parse().unwrap());
        for (port, length) in [(700_u16, 60_000_usize), (701, 0), (702, 1000)] {
            let payload: Vec<u8> = (0..length).map(|i| (i / 4) as u8).collect();
            let mut segment = [port.to_be_bytes(), 5_u16.to_be_bytes()].concat();
            segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]);
            segment.extend(&payload);
            let partial = geneved_tests::packet::pseudo(from, to, 6, segment.len()) as u16;
            segment[16..18].copy_from_slice(&partial.to_be_bytes());
            peer.send(&plain().datagram(&ip(from, to, 6, &segment)));
            let mut bytes: Vec<u8> = Vec::new();
            peer.tun.find(Duration::from_secs(3), |packet| {
                let packet = Parsed::new(packet)?;
                if packet.protocol == 6 && packet.segment[..2] == port.to_be_bytes() {
                    bytes.extend(&packet.segment[20..]);
                    (bytes.len() >= length).then_some(())
                } else {
                    None
                }
            }).unwrap_or_else(|| panic!("{} of {length} bytes came; {:?}", bytes.len(), peer.daemon.drops()));
            assert_eq!(bytes, payload);
            let mut buffer = [0; 2000];
            loop {
                let n = peer.socket.recv(&mut buffer).expect("a reset comes: the checksum was right");
                let Some(packet) = Parsed::new(&buffer[8..n]) else { continue };
                if packet.protocol == 6 && packet.segment[2..4] == port.to_be_bytes() {
                    assert_eq!(packet.segment[13] & 4, 4, "a reset");
                    break;
                }
            }
        }
    }

    fn a_wrong_inner_checksum_is_not_made_right(io) {
        let peer = peer(io);
        let (port, mut inner) = peer.inner();
        inner[26] ^= 0x55;
        peer.send(&plain().datagram(&inner));
        // Dropped, or handed on as wrong as it came: then the inner kernel drops it.
        if let Some(came) = peer.emerged(port, Duration::from_millis(200)) {
            assert_eq!(came, inner);
            let packet = Parsed::new(&came).unwrap();
            let pseudo = geneved_tests::packet::pseudo(packet.from, packet.to, 17, packet.segment.len());
            assert_ne!(sum(pseudo, packet.segment), 0xffff);
        }
    }
}
