//! Martians in both directions, and which interfaces a host's datagrams may arrive on.

use super::support::*;
use super::*;
use crate::vpc::{ExpectedInterface, RxInterface};

/// Verdicts on a packet from the VPC's other host to this one, and from this host to the other.
fn judged(src: &str, dst: &str) -> [Result<(), DropReason>; 2] {
    let mut config = vpc(LOCAL_HOST, 0, RED);
    config.broadcasts = vec!["10.0.0.255".parse().unwrap()];
    // Any source is allowed on either side, so that no other check fails first.
    for prefix in ["0.0.0.0/0", "::/0"] {
        let mut everything = route(prefix, &[HOST_B], RouteOrigin::Route);
        everything.local = true;
        config.routes.push(everything);
    }
    let site = TestHost::new(LOCAL_HOST, vec![config]);
    let inner = udp(src, dst, (1, 2), 8);
    let from_wire = site.receive(HOST_B, &marked(RED, &plain(), &inner));
    [from_wire.map(|_| ()), site.send(&inner).map(|_| ())]
}

#[test]
fn addresses_that_never_leave_a_host_are_dropped_in_both_directions() {
    for (src, dst, reason) in [
        ("::ffff:10.0.0.2", "fd00::1", DropReason::MappedAddress),
        ("fd00::2", "::ffff:10.0.0.1", DropReason::MappedAddress),
        ("::ffff:127.0.0.1", "ff02::1", DropReason::MappedAddress),
        ("127.0.0.1", "10.0.0.1", DropReason::LoopbackAddress),
        ("127.255.0.9", "10.0.0.1", DropReason::LoopbackAddress),
        ("10.0.0.2", "127.0.0.1", DropReason::LoopbackAddress),
        ("::1", "fd00::1", DropReason::LoopbackAddress),
        ("fd00::2", "::1", DropReason::LoopbackAddress),
        ("224.0.0.1", "10.0.0.1", DropReason::SourceNotUnicast),
        ("239.255.255.255", "10.0.0.1", DropReason::SourceNotUnicast),
        ("255.255.255.255", "10.0.0.1", DropReason::SourceNotUnicast),
        ("10.0.0.255", "10.0.0.1", DropReason::SourceNotUnicast),
        ("0.0.0.0", "10.0.0.1", DropReason::SourceNotUnicast),
        ("ff02::1", "fd00::1", DropReason::SourceNotUnicast),
        ("::", "fd00::1", DropReason::SourceNotUnicast),
    ] {
        assert_eq!(judged(src, dst), [Err(reason); 2], "{src} > {dst}");
    }
}

#[test]
fn who_has_no_address_yet_may_ask_groups() {
    for (src, dst) in [
        ("0.0.0.0", "255.255.255.255"),
        ("0.0.0.0", "224.0.0.22"),
        ("::", "ff02::1:ff00:1"),
        ("::", "ff02::16"),
        // Close to forbidden ranges: IPv4-compatible, 240.0.0.0/4, and the address just below multicast.
        ("::10.0.0.2", "fd00::1"),
        ("240.0.0.1", "10.0.0.1"),
        ("223.255.255.255", "10.0.0.1"),
    ] {
        for outcome in judged(src, dst) {
            let martian = [
                DropReason::MappedAddress,
                DropReason::LoopbackAddress,
                DropReason::SourceNotUnicast,
            ];
            assert!(
                !outcome.is_err_and(|reason| martian.contains(&reason)),
                "{src} > {dst}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_route_that_the_sender_prescribes_is_dropped_in_both_directions() {
    let plain4 = udp("10.0.0.2", "10.0.0.1", (1, 2), 8);
    let plain6 = udp("fd00::2", "fd00::1", (1, 2), 8);
    let options = |bytes: &[u8], options: [u8; 8]| {
        let mut bytes = [&bytes[..20], &options, &bytes[20..]].concat();
        bytes[0] = 0x47;
        let len = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&len);
        crate::wire::ip::write_ipv4_checksum(&mut bytes);
        bytes
    };
    let routing = |kind: u8, left: u8| {
        let header = [protocol::UDP, 0, kind, left, 0, 0, 0, 0];
        in_ip(
            "fd00::2",
            "fd00::1",
            protocol::ROUTING,
            &[&header[..], &plain6[40..]].concat(),
        )
    };
    let outcome = |bytes: &[u8]| {
        let datagram = marked(RED, &plain(), bytes);
        let decided = decide(&red(), &arrival(HOST_B), datagram);
        decided.map(|_| ()).map_err(|refused| refused.reason)
    };
    let forbidden = Err(DropReason::SourceRoute);
    for kind in [131, 137] {
        let bytes = options(&plain4, [1, kind, 7, 4, 10, 0, 0, 9]);
        assert_eq!(outcome(&bytes), forbidden, "option {kind}");
        let out = site(LinkFunctions::default()).send(&bytes).map(|_| ());
        assert_eq!(out, forbidden, "option {kind}");
    }
    for kind in [0, 1, 3, 4, 5, 253] {
        assert_eq!(
            outcome(&routing(kind, 0)),
            forbidden,
            "routing header {kind}"
        );
    }
    // Record route, timestamp, router alert; bytes like a source route after the end of options; Mobile IPv6.
    for passes in [
        options(&plain4, [7, 7, 4, 0, 0, 0, 0, 0]),
        options(&plain4, [148, 4, 0, 0, 0, 0, 0, 0]),
        options(&plain4, [0, 131, 7, 4, 10, 0, 0, 9]),
        routing(2, 0),
    ] {
        assert_eq!(outcome(&passes), Ok(()), "{passes:x?}");
    }
}

proptest! {
    #[test]
    fn whatever_stands_in_options_the_walk_ends(options in proptest::collection::vec(any::<u8>(), 0..10)) {
        let mut bytes = udp("10.0.0.2", "10.0.0.1", (1, 2), 8);
        let words = options.len().next_multiple_of(4);
        let mut padded = options;
        padded.resize(words, 0);
        bytes.splice(20..20, padded.iter().copied());
        bytes[0] = 0x45 + (words / 4) as u8;
        let len = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&len);
        let packet = Packet::parse(&bytes).unwrap();
        // Reference implementation: skip options by their length, stop at the end of options.
        let mut at = 0;
        let mut found = false;
        while let Some(&kind) = padded.get(at) {
            if kind == 0 { break; }
            if kind == 131 || kind == 137 { found = true; break; }
            at += match kind { 1 => 1, _ => match padded.get(at + 1) { Some(0) | None => break, Some(&n) => usize::from(n) } };
        }
        prop_assert_eq!(packet.prescribes_route(&bytes), found);
    }
}

/// Red and blue; `10.9.0.9` is a host of blue behind red's interface, C is this host.
fn nested() -> TestTables {
    let mut registry = HostRegistry::default();
    let red = Link::new(config(0, RED, GENEVE_PORT), &mut registry);
    let mut blue = config(1, BLUE, GENEVE_PORT);
    blue.routes
        .push(route("10.8.0.0/16", &["10.9.0.9"], RouteOrigin::Route));
    let blue = Link::new(blue, &mut registry).with_heard_by(|host| {
        if host == ip("10.9.0.9") {
            vec![ExpectedInterface::Link(LinkIndex(0))]
        } else if host == ip(HOST_C) {
            vec![ExpectedInterface::Nobody]
        } else {
            Vec::new()
        }
    });
    let links = [Arc::new(red), Arc::new(blue)];
    TestTables::new(Tables::new(links, FlowHasher::new([1, 2])))
}

fn heard(from: &str, interface: RxInterface, src: &str) -> Result<(), (DropReason, Option<u32>)> {
    let arrival = OuterRx {
        interface,
        ..arrival(from)
    };
    let inner = udp(src, "10.0.0.1", (1000, 53), 0);
    let datagram = behind(geneve(BLUE, ethertype::IPV4), &inner);
    let decided = decide(&nested(), &arrival, datagram);
    let refused = |r: RefusedPacket| (r.reason, r.link.map(|link| link.0));
    decided.map(|_| ()).map_err(refused)
}

#[test]
fn a_host_is_heard_by_the_underlay_or_the_link_that_it_is_behind() {
    let forged = DropReason::NotFromUnderlay;
    let (red, blue) = (LinkIndex(0), LinkIndex(1));
    assert_eq!(heard(HOST_B, RxInterface::Underlay, "10.0.0.2"), Ok(()));
    for (interface, counts) in [
        (RxInterface::Link(red), Some(0)),
        (RxInterface::Link(blue), Some(1)),
        (RxInterface::Loopback, None),
        (RxInterface::Unknown, None),
    ] {
        let outcome = heard(HOST_B, interface, "10.0.0.2");
        assert_eq!(outcome, Err((forged, counts)), "{interface:?}");
    }
    assert_eq!(
        heard("10.9.0.9", RxInterface::Link(red), "10.8.0.1"),
        Ok(())
    );
    let other = heard("10.9.0.9", RxInterface::Link(blue), "10.8.0.1");
    assert_eq!(other, Err((forged, Some(1))));
    // The address of this host itself.
    let own = heard(HOST_C, RxInterface::Underlay, "10.0.0.3");
    assert_eq!(own, Err((forged, Some(1))));
}

#[test]
fn nothing_is_learned_from_headers_that_are_not_believed() {
    for bytes in [Vec::new(), vec![0xff; 40], from_b(RED + 7)] {
        let arrival = OuterRx {
            interface: RxInterface::Link(LinkIndex(0)),
            ..arrival(HOST_B)
        };
        let refused = decide(&nested(), &arrival, bytes).unwrap_err();
        assert_eq!(refused.reason, DropReason::NotFromUnderlay);
        assert_eq!(refused.link, Some(LinkIndex(0)));
    }
    // The header cache distinguishes receiving interfaces.
    let world = nested();
    let mut ingress = Ingress::default();
    let mut good = from_b(BLUE);
    assert!(
        ingress
            .decide(&world.cx(), &arrival(HOST_B), &mut good)
            .is_ok()
    );
    let forged = OuterRx {
        interface: RxInterface::Link(LinkIndex(0)),
        ..arrival(HOST_B)
    };
    let refused = ingress.decide(&world.cx(), &forged, &mut good).unwrap_err();
    assert_eq!(refused.reason, DropReason::NotFromUnderlay);
}
