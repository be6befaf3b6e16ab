//! Tests of ICMP errors that cross a NAT in both directions.

use super::super::rewrite::rewrite;
use super::super::rewrite::tests::{back, is_right, target};
use super::*;
use crate::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, UnreachableReason};
use crate::wire::ip::{Ipv4, ipv4_checksum_holds};
use crate::wire::packet::tests::sample;
use proptest::prelude::*;

/// Builds an error about the packet, from a router with an address of its family.
fn error(packet: &Packet, bytes: &[u8]) -> Vec<u8> {
    let router = match packet.version {
        IpVersion::V4 => [203, 0, 113, 1].into(),
        IpVersion::V6 => "2001:db8::ff".parse().unwrap(),
    };
    let error = IcmpError::Unreachable(UnreachableReason::Host);
    let mut out = [0; MAX_V6_ERROR_LEN];
    let len = error.build(router, packet, bytes, &mut out).unwrap();
    out[..len].to_vec()
}

proptest! {
    /// Translating an error about a translated packet gives the error about the original, and back.
    #[test]
    fn an_error_about_the_translated_packet_becomes_one_about_the_original(
        at in 0usize..6, v4 in target(true), v6 in target(false)
    ) {
        let (name, mut bytes) = sample::all_transports().swap_remove(at);
        let original = Packet::parse(&bytes).unwrap();
        original.write_checksum(&mut bytes);
        let to = if original.version == IpVersion::V4 { v4 } else { v6 };
        let (mut changed, mut translated) = (bytes.clone(), original);
        rewrite(&mut changed, &mut translated, &to, false).unwrap();

        let expected = error(&original, &bytes);
        let outside = error(&translated, &changed);
        let mut got = outside.clone();
        let mut packet = Packet::parse(&got).unwrap();
        let router = packet.src;
        let quoted = back(&original);
        let result = rewrite_error(&mut got, &mut packet, router, original.src, &quoted);
        prop_assert_eq!(result, Ok(()), "{}", name);
        prop_assert_eq!(&got, &expected, "{}", name);
        prop_assert_eq!(Packet::parse(&got), Ok(packet));
        prop_assert!(is_right(packet.checksum_state(&got)));

        let quoted = back(&translated);
        rewrite_error(&mut got, &mut packet, router, translated.src, &quoted).unwrap();
        prop_assert_eq!(got, outside);
    }

    #[test]
    fn however_little_is_quoted_the_checksums_hold(
        at in 0usize..6, quoted_len in 0usize..70, v4 in target(true), v6 in target(false)
    ) {
        let (_, mut bytes) = sample::all_transports().swap_remove(at);
        let original = Packet::parse(&bytes).unwrap();
        original.write_checksum(&mut bytes);
        bytes.truncate(quoted_len);
        let v6_inside = original.version == IpVersion::V6;
        let head = if v6_inside { [1, 0, 0, 0, 0, 0, 0, 0] } else { [11, 0, 0, 0, 0, 0, 0, 0] };
        let message = [&head[..], &bytes].concat();
        let mut error = if v6_inside { sample::v6(58, &message) } else { sample::v4(1, &message) };
        let mut packet = Packet::parse(&error).unwrap();
        packet.write_checksum(&mut error);
        let (before, parsed) = (error.clone(), packet);
        let to = if v6_inside { v6 } else { v4 };
        let result = rewrite_error(&mut error, &mut packet, to.src.0, to.dst.0, &to);
        if result.is_err() {
            let enough = usize::from(original.transport_offset) + 8;
            prop_assert!(quoted_len < enough);
            prop_assert_eq!((error, packet), (before, parsed));
            return Ok(());
        }
        prop_assert!(is_right(packet.checksum_state(&error)));
        prop_assert!(v6_inside || ipv4_checksum_holds(&error));
        let quote = packet.quote(&error).unwrap();
        prop_assert_eq!((quote.src, quote.dst), (to.src.0, to.dst.0));
        if !v6_inside {
            prop_assert!(Ipv4::parse(&error[28..]).unwrap().checksum_holds());
        }
        match quote.transport {
            QuotedTransport::Tcp { src, dst, .. } | QuotedTransport::Udp { src, dst } => {
                prop_assert_eq!((src, dst), (to.src.1, to.dst.1));
            }
            QuotedTransport::Icmp { id, .. } => prop_assert_eq!(id, Some(to.src.1)),
            QuotedTransport::Other | QuotedTransport::Unavailable => {}
        }
    }

    #[test]
    fn nothing_panics_and_what_is_refused_is_untouched(
        quoted in sample::mutated(), kind in any::<u8>(), v4 in target(true), v6 in target(false),
        others in proptest::collection::vec(any::<u8>(), 0..120)
    ) {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &quoted].concat();
        for bytes in [sample::v4(1, &message), sample::v6(58, &message)] {
            let parsed = Packet::parse(&bytes).unwrap();
            for (given, to) in [(&bytes, v4), (&bytes, v6), (&others, v4), (&others, v6)] {
                let (mut got, mut packet) = (given.clone(), parsed);
                let result = rewrite_error(&mut got, &mut packet, to.src.0, to.dst.0, &to);
                if result.is_err() {
                    prop_assert_eq!(&got, given);
                    prop_assert_eq!(packet, parsed);
                }
            }
        }
    }
}
