//! Tests of rewriting, against checksums that are verified from scratch.

use super::*;
use crate::wire::checksum::{field as read, set_field as write};
use crate::wire::ip::{ipv4_checksum_holds, write_ipv4_checksum};
use crate::wire::packet::tests::sample;
use crate::wire::transport_checksum::ChecksumState;
use proptest::prelude::*;

/// Addresses and ports of a family; ICMP has one identifier, in both port fields.
pub(crate) fn target(v4: bool) -> impl Strategy<Value = Rewrite> {
    let addr = if v4 {
        any::<[u8; 4]>().prop_map(IpAddr::from).boxed()
    } else {
        any::<[u8; 16]>().prop_map(IpAddr::from).boxed()
    };
    (addr.clone(), any::<u16>(), addr, any::<u16>()).prop_map(|(src, sport, dst, dport)| Rewrite {
        src: (src, sport),
        dst: (dst, dport),
    })
}

/// Returns the rewrite that undoes another one of this packet.
pub(crate) fn back(packet: &Packet) -> Rewrite {
    let (sport, dport) = match packet.transport {
        Transport::Icmp { id: Some(id), .. } => (id, id),
        _ => packet.ports().unwrap_or_default(),
    };
    Rewrite {
        src: (packet.src, sport),
        dst: (packet.dst, dport),
    }
}

fn named(wanted: &str) -> Vec<u8> {
    let mut all = sample::all_transports().into_iter();
    all.find(|(name, _)| *name == wanted).unwrap().1
}

fn whole(mut bytes: Vec<u8>) -> (Vec<u8>, Packet) {
    let packet = Packet::parse(&bytes).unwrap();
    assert!(packet.write_checksum(&mut bytes));
    (bytes, packet)
}

fn holds(bytes: &[u8]) -> bool {
    bytes[0] >> 4 == 6 || ipv4_checksum_holds(bytes)
}

/// A valid checksum that equals that of the pseudo-header is taken for a partial one.
pub(crate) fn is_right(state: ChecksumState) -> bool {
    matches!(state, ChecksumState::Valid | ChecksumState::Partial)
}

proptest! {
    #[test]
    fn every_checksum_holds_and_the_way_back_gives_the_same_bytes(
        at in 0usize..6, payload in proptest::collection::vec(any::<u8>(), 0..40),
        v4 in target(true), v6 in target(false),
    ) {
        let (name, mut bytes) = sample::all_transports().swap_remove(at);
        // The longer packet keeps its transport header and gets another payload.
        let packet = Packet::parse(&bytes).unwrap();
        bytes.truncate(usize::from(packet.payload_offset));
        bytes.extend(&payload);
        let ip_len = if packet.version == IpVersion::V4 { 2 } else { 4 };
        let len = bytes.len() - if ip_len == 2 { 0 } else { 40 };
        write(&mut bytes, ip_len, len as u16);
        if name.starts_with("udp") {
            write(&mut bytes, usize::from(packet.transport_offset) + 4, 8 + payload.len() as u16);
        }
        write_ipv4_checksum(&mut bytes);
        let (mut bytes, mut packet) = whole(bytes);
        let (before, parsed) = (bytes.clone(), packet);
        let to = if packet.version == IpVersion::V4 { v4 } else { v6 };

        prop_assert_eq!(rewrite(&mut bytes, &mut packet, &to, false), Ok(()), "{}", name);
        prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        prop_assert!(is_right(packet.checksum_state(&bytes)), "{}", name);
        prop_assert!(holds(&bytes));
        prop_assert_eq!((packet.src, packet.dst), (to.src.0, to.dst.0));
        prop_assert_eq!(back(&packet).src.1, to.src.1);

        rewrite(&mut bytes, &mut packet, &back(&parsed), false).unwrap();
        prop_assert_eq!(packet, parsed);
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn a_partial_checksum_stays_the_sum_of_the_pseudo_header(
        at in 0usize..6, v4 in target(true), v6 in target(false)
    ) {
        let (_, mut bytes) = sample::all_transports().swap_remove(at);
        let mut packet = Packet::parse(&bytes).unwrap();
        prop_assume!(packet.write_partial_checksum(&mut bytes));
        let to = if packet.version == IpVersion::V4 { v4 } else { v6 };
        rewrite(&mut bytes, &mut packet, &to, true).unwrap();
        prop_assert_eq!(packet.checksum_state(&bytes), ChecksumState::Partial);
        prop_assert!(holds(&bytes));
        prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        prop_assert!(packet.write_checksum(&mut bytes) && is_right(packet.checksum_state(&bytes)));
    }

    #[test]
    fn fragments_that_are_put_together_again_are_right(
        v6 in any::<bool>(), tcp in any::<bool>(), to4 in target(true), to6 in target(false),
        cut in 3usize..6
    ) {
        let name = match (tcp, v6) {
            (true, true) => "tcp6", (true, false) => "tcp4",
            (false, true) => "udp6", (false, false) => "udp4",
        };
        let (bytes, parsed) = whole(named(name));
        let to = if v6 { to6 } else { to4 };
        let transport = &bytes[usize::from(parsed.transport_offset)..];
        let cut = if tcp { 24 } else { cut.min(transport.len() / 8) * 8 }.min(transport.len() / 8 * 8);
        let mut joined: Vec<u8> = Vec::new();
        for (from, part) in [(0, &transport[..cut]), (cut, &transport[cut..])] {
            let more = u16::from(from == 0);
            let mut fragment = if v6 {
                let word = (from as u16 | more).to_be_bytes();
                let head = [parsed.protocol, 0, word[0], word[1], 0, 0, 0, 9];
                sample::v6(protocol::FRAGMENT, &[&head[..], part].concat())
            } else {
                let mut fragment = sample::v4(parsed.protocol, part);
                write(&mut fragment, 6, more << 13 | (from / 8) as u16);
                write_ipv4_checksum(&mut fragment);
                fragment
            };
            let mut packet = Packet::parse(&fragment).unwrap();
            prop_assert_ne!(packet.fragment, Fragment::Whole);
            rewrite(&mut fragment, &mut packet, &to, false).unwrap();
            prop_assert_eq!(Packet::parse(&fragment), Ok(packet));
            prop_assert!(holds(&fragment));
            joined.extend(&fragment[usize::from(packet.transport_offset)..]);
        }
        let (mut expected, mut packet) = (bytes.clone(), parsed);
        rewrite(&mut expected, &mut packet, &to, false).unwrap();
        prop_assert_eq!(&joined[..], &expected[usize::from(parsed.transport_offset)..]);
    }

    #[test]
    fn a_wrong_checksum_stays_wrong(at in 0usize..6, v4 in target(true), v6 in target(false)) {
        let (_, bytes) = sample::all_transports().swap_remove(at);
        let (mut bytes, mut packet) = whole(bytes);
        *bytes.last_mut().unwrap() ^= 1;
        let to = if packet.version == IpVersion::V4 { v4 } else { v6 };
        rewrite(&mut bytes, &mut packet, &to, false).unwrap();
        prop_assert_ne!(packet.checksum_state(&bytes), ChecksumState::Valid);
    }

    #[test]
    fn nothing_panics_and_what_is_refused_is_untouched(
        bytes in sample::mutated(), others in proptest::collection::vec(any::<u8>(), 0..100),
        to4 in target(true), to6 in target(false), partial in any::<bool>()
    ) {
        for to in [to4, to6] {
            for given in [&bytes, &others] {
                let Ok(parsed) = Packet::parse(&bytes) else { continue };
                let (mut given, before, mut packet) = (given.clone(), given.clone(), parsed);
                if rewrite(&mut given, &mut packet, &to, partial).is_err() {
                    prop_assert_eq!(given, before);
                    prop_assert_eq!(packet, parsed);
                }
            }
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_and_no_other_becomes_zero() {
    let mut bytes = sample::udp4(b"abc");
    let mut packet = Packet::parse(&bytes).unwrap();
    let to = Rewrite {
        src: ([192, 0, 2, 1].into(), 99),
        dst: ([198, 51, 100, 7].into(), 53),
    };
    rewrite(&mut bytes, &mut packet, &to, false).unwrap();
    assert_eq!(packet.checksum_state(&bytes), ChecksumState::Absent);

    // For some source port the sum becomes zero.
    let mut seen = false;
    let (bytes, packet) = whole(sample::udp4(b"abc"));
    for port in 0..=u16::MAX {
        let (mut bytes, mut packet) = (bytes.clone(), packet);
        let to = Rewrite {
            src: (packet.src, port),
            ..to
        };
        rewrite(&mut bytes, &mut packet, &to, false).unwrap();
        assert!(is_right(packet.checksum_state(&bytes)), "{port}");
        seen |= read(&bytes, 26) == 0xffff;
    }
    assert!(seen);
}

#[test]
fn an_echo_reply_of_nothing_but_zeros_has_a_checksum_that_holds() {
    let (before, parsed) = whole(sample::v4(protocol::ICMP, &[0; 16]));
    let (mut bytes, mut packet) = (before.clone(), parsed);
    for id in [0, 7, 0] {
        let mut to = back(&packet);
        to.src.1 = id;
        rewrite(&mut bytes, &mut packet, &to, false).unwrap();
        assert_eq!(packet.checksum_state(&bytes), ChecksumState::Valid, "{id}");
    }
    assert_eq!(bytes, before);
}

#[test]
fn what_cannot_be_rewritten_is_refused() {
    let to = Rewrite {
        src: ([192, 0, 2, 1].into(), 99),
        dst: ([198, 51, 100, 7].into(), 53),
    };
    let refused = |bytes: &[u8], to: &Rewrite| {
        let mut packet = Packet::parse(bytes).unwrap();
        rewrite(&mut bytes.to_vec(), &mut packet, to, false).is_err()
    };
    assert!(!refused(&sample::v4(47, b"GRE has no pseudo-header"), &to));
    for number in [protocol::AH, UDP_LITE, DCCP] {
        assert!(refused(&sample::v4(number, &[0; 24]), &to), "{number}");
    }
    assert!(refused(&sample::udp6(b"other family"), &to));
    let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &sample::udp4(b"abc")].concat();
    assert!(refused(&sample::v4(protocol::ICMP, &error), &to));
    let mut cut = sample::v4(protocol::TCP, &sample::tcp(b"")[..16]);
    write(&mut cut, 6, 0x2000);
    assert!(refused(&cut, &to));
}

#[test]
fn a_source_route_keeps_its_destination() {
    let mut payload = vec![protocol::UDP, 2, 0, 1, 0, 0, 0, 0];
    payload.extend([0x20; 16]);
    payload.extend(&sample::udp6(b"abc")[40..]);
    let bytes = sample::v6(protocol::ROUTING, &payload);
    let mut packet = Packet::parse(&bytes).unwrap();
    assert!(packet.source_routed);
    let mut to = back(&packet);
    to.src.1 = 7;
    assert_eq!(rewrite(&mut bytes.clone(), &mut packet, &to, false), Ok(()));
    to.dst.0 = "fd00::9".parse().unwrap();
    let result = rewrite(&mut bytes.clone(), &mut packet, &to, false);
    assert_eq!(result, Err(Untranslatable));
}
