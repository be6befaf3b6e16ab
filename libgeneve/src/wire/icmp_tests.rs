//! Tests of building, permitting and reading ICMP errors.

use super::super::ip::ipv4_checksum_holds;
use super::super::packet::tests::sample;
use super::super::transport_checksum::ChecksumState;
use super::*;
use proptest::prelude::*;

const ICMP_ERRORS: [IcmpError; 6] = [
    IcmpError::TooBig { mtu: 1400 },
    IcmpError::TimeExceeded,
    IcmpError::Unreachable(UnreachableReason::NoRoute),
    IcmpError::Unreachable(UnreachableReason::Host),
    IcmpError::Unreachable(UnreachableReason::Port),
    IcmpError::Unreachable(UnreachableReason::Prohibited),
];

fn from(packet: &Packet) -> IpAddr {
    match packet.version {
        IpVersion::V4 => [192, 0, 2, 1].into(),
        IpVersion::V6 => "2001:db8::1".parse().unwrap(),
    }
}

fn answer(error: IcmpError, bytes: &[u8]) -> Vec<u8> {
    let packet = Packet::parse(bytes).unwrap();
    let mut out = [0xee; MAX_V6_ERROR_LEN];
    let len = error
        .build(from(&packet), &packet, bytes, &mut out)
        .unwrap();
    out[..len].to_vec()
}

#[test]
fn every_error_is_a_whole_packet_back_to_the_sender() {
    for error in ICMP_ERRORS {
        for (name, bytes) in sample::all_transports() {
            let packet = Packet::parse(&bytes).unwrap();
            let built = answer(error, &bytes);
            let read = Packet::parse(&built).unwrap();
            assert_eq!(usize::from(read.total_len), built.len(), "{name}");
            assert_eq!((read.src, read.dst), (from(&packet), packet.src), "{name}");
            assert_eq!(
                read.checksum_state(&built),
                ChecksumState::Valid,
                "{name} {error:?}"
            );
            assert!(read.is_icmp_error());
            if read.version == IpVersion::V4 {
                assert!(ipv4_checksum_holds(&built));
            }
            assert_eq!(built[usize::from(read.payload_offset)..], bytes, "{name}");
        }
    }
}

#[test]
fn types_codes_and_mtu_are_those_of_the_rfcs() {
    let v4 = sample::udp4(b"x");
    let v6 = sample::udp6(b"x");
    let expected = [
        (IcmpError::TooBig { mtu: 1400 }, (3, 4), (2, 0)),
        (IcmpError::TimeExceeded, (11, 0), (3, 0)),
        (
            IcmpError::Unreachable(UnreachableReason::NoRoute),
            (3, 0),
            (1, 0),
        ),
        (
            IcmpError::Unreachable(UnreachableReason::Host),
            (3, 1),
            (1, 3),
        ),
        (
            IcmpError::Unreachable(UnreachableReason::Port),
            (3, 3),
            (1, 4),
        ),
        (
            IcmpError::Unreachable(UnreachableReason::Prohibited),
            (3, 13),
            (1, 1),
        ),
    ];
    for (error, (kind4, code4), (kind6, code6)) in expected {
        let (built4, built6) = (answer(error, &v4), answer(error, &v6));
        assert_eq!(built4[20..22], [kind4, code4], "{error:?}");
        assert_eq!(built6[40..42], [kind6, code6], "{error:?}");
        let mtu = matches!(error, IcmpError::TooBig { .. }).then_some(1400);
        assert_eq!(Packet::parse(&built4).unwrap().reported_mtu(&built4), mtu);
        assert_eq!(Packet::parse(&built6).unwrap().reported_mtu(&built6), mtu);
    }
    let large = answer(IcmpError::TooBig { mtu: 100_000 }, &v4);
    assert_eq!(large[24..28], [0, 0, 0xff, 0xff]);
    let large = answer(IcmpError::TooBig { mtu: 100_000 }, &v6);
    assert_eq!(large[44..48], 100_000u32.to_be_bytes());
}

#[test]
fn a_large_packet_is_quoted_up_to_the_limit() {
    let error = IcmpError::TooBig { mtu: 1400 };
    let v4 = sample::udp4(&[7; 9000]);
    let built = answer(error, &v4);
    assert_eq!(built.len(), 576);
    assert_eq!(built[28..], v4[..548]);
    let v6 = sample::udp6(&[7; 9000]);
    let built = answer(error, &v6);
    assert_eq!(built.len(), 1280);
    assert_eq!(built[48..], v6[..1232]);
}

#[test]
fn bytes_after_the_packet_are_not_quoted() {
    let mut bytes = sample::udp4(b"x");
    let expected = answer(IcmpError::TimeExceeded, &bytes);
    bytes.extend([0xee; 9]);
    assert_eq!(answer(IcmpError::TimeExceeded, &bytes), expected);
}

#[test]
fn what_does_not_fit_is_not_built() {
    let bytes = sample::udp4(b"x");
    let packet = Packet::parse(&bytes).unwrap();
    let error = IcmpError::TimeExceeded;
    let needed = 28 + bytes.len();
    let src = from(&packet);
    assert_eq!(
        error.build(src, &packet, &bytes, &mut vec![0; needed]),
        Some(needed)
    );
    assert_eq!(
        error.build(src, &packet, &bytes, &mut vec![0; needed - 1]),
        None
    );
    assert_eq!(
        error.build(src, &packet, &bytes[..20], &mut [0; 1280]),
        None
    );
    assert_eq!(
        error.build("::1".parse().unwrap(), &packet, &bytes, &mut [0; 1280]),
        None
    );
}

#[test]
fn ordinary_packets_and_queries_may_be_answered() {
    for error in ICMP_ERRORS {
        for (name, bytes) in sample::all_transports() {
            assert!(error.may_answer(&Packet::parse(&bytes).unwrap()), "{name}");
        }
        assert!(error.may_answer(&Packet::parse(&sample::v4(47, b"gre")).unwrap()));
    }
}

#[test]
fn errors_and_unknown_messages_are_never_answered() {
    let message = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0];
    for error in ICMP_ERRORS {
        for kind in [3, 4, 5, 11, 12, 40, 255] {
            let bytes = sample::v4(protocol::ICMP, &message(kind));
            assert!(!error.may_answer(&Packet::parse(&bytes).unwrap()), "{kind}");
        }
        for kind in [1, 2, 3, 4, 100, 127, 137] {
            let bytes = sample::v6(protocol::ICMPV6, &message(kind));
            assert!(!error.may_answer(&Packet::parse(&bytes).unwrap()), "{kind}");
        }
        for (_, bytes) in sample::all_transports() {
            let own = answer(error, &bytes);
            assert!(!error.may_answer(&Packet::parse(&own).unwrap()));
        }
    }
}

#[test]
fn later_fragments_are_never_answered_and_first_ones_are() {
    let mut bytes = sample::udp4(b"hello");
    bytes[6] = 0x20;
    assert!(IcmpError::TimeExceeded.may_answer(&Packet::parse(&bytes).unwrap()));
    bytes[7] = 1;
    assert!(!IcmpError::TimeExceeded.may_answer(&Packet::parse(&bytes).unwrap()));
    assert!(!IcmpError::TimeExceeded.may_answer(&Packet::parse(&sample::extended(8)).unwrap()));
    // A fragment does not show whether the message is an error.
    let mut cut = sample::v4(protocol::ICMP, &[8, 0, 0, 0]);
    cut[6] = 0x20;
    assert!(!IcmpError::TimeExceeded.may_answer(&Packet::parse(&cut).unwrap()));
}

#[test]
fn addresses_that_are_not_one_host_are_never_answered() {
    let too_big = IcmpError::TooBig { mtu: 1400 };
    let with = |bytes: Vec<u8>, src: Option<&str>, dst: Option<&str>| {
        let mut packet = Packet::parse(&bytes).unwrap();
        packet.src = src.map_or(packet.src, |text| text.parse().unwrap());
        packet.dst = dst.map_or(packet.dst, |text| text.parse().unwrap());
        packet
    };
    for src in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        assert!(
            !too_big.may_answer(&with(sample::udp4(b""), Some(src), None)),
            "{src}"
        );
    }
    for dst in ["0.0.0.0", "224.0.0.1", "239.1.2.3", "255.255.255.255"] {
        assert!(
            !too_big.may_answer(&with(sample::udp4(b""), None, Some(dst))),
            "{dst}"
        );
    }
    for src in ["::", "::1", "ff02::1"] {
        assert!(
            !too_big.may_answer(&with(sample::udp6(b""), Some(src), None)),
            "{src}"
        );
    }
    assert!(!too_big.may_answer(&with(sample::udp6(b""), None, Some("::"))));
    let multicast = with(sample::udp6(b""), None, Some("ff02::1"));
    assert!(too_big.may_answer(&multicast));
    assert!(!IcmpError::TimeExceeded.may_answer(&multicast));
}

#[test]
fn the_quoted_packet_is_read() {
    for (name, bytes) in sample::all_transports() {
        let packet = Packet::parse(&bytes).unwrap();
        let built = answer(IcmpError::TimeExceeded, &bytes);
        let quote = Packet::parse(&built).unwrap().quote(&built).unwrap();
        assert_eq!((quote.src, quote.dst), (packet.src, packet.dst), "{name}");
        assert_eq!(quote.protocol, packet.protocol, "{name}");
        assert_eq!(quote.transport_offset, packet.transport_offset, "{name}");
        assert_eq!(built[usize::from(quote.offset)..], bytes, "{name}");
        assert_eq!(usize::from(quote.len), bytes.len(), "{name}");
        let expected = match packet.transport {
            Transport::Tcp { src, dst, seq, .. } => QuotedTransport::Tcp { src, dst, seq },
            Transport::Udp { src, dst, .. } => QuotedTransport::Udp { src, dst },
            Transport::Icmp { kind, code, id } => QuotedTransport::Icmp { kind, code, id },
            Transport::Other | Transport::Unavailable => unreachable!("samples have transports"),
        };
        assert_eq!(quote.transport, expected, "{name}");
    }
}

#[test]
fn eight_bytes_of_transport_are_enough_and_seven_are_not() {
    let bytes = sample::v4(protocol::TCP, &sample::tcp(b"hello"));
    let error = |quoted: usize| {
        let message = [&[3, 1, 0, 0, 0, 0, 0, 0], &bytes[..quoted]].concat();
        let outer = sample::v4(protocol::ICMP, &message);
        Packet::parse(&outer).unwrap().quote(&outer)
    };
    let tcp = QuotedTransport::Tcp {
        src: 12345,
        dst: 443,
        seq: 0x0102_0304,
    };
    assert_eq!(error(28).unwrap().transport, tcp);
    assert_eq!(error(27).unwrap().transport, QuotedTransport::Unavailable);
    assert_eq!(error(20).unwrap().transport, QuotedTransport::Unavailable);
    assert_eq!(error(19), None);
}

#[test]
fn only_errors_quote() {
    let inner = sample::udp4(b"x");
    for (kind, quotes) in [
        (0u8, false),
        (3, true),
        (5, true),
        (8, false),
        (11, true),
        (12, true),
    ] {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], &inner[..]].concat();
        let outer = sample::v4(protocol::ICMP, &message);
        assert_eq!(
            Packet::parse(&outer).unwrap().quote(&outer).is_some(),
            quotes,
            "{kind}"
        );
    }
    // A quote of the other family is ignored.
    let message = [&[3, 0, 0, 0, 0, 0, 0, 0], &sample::udp6(b"x")[..]].concat();
    let outer = sample::v4(protocol::ICMP, &message);
    assert_eq!(Packet::parse(&outer).unwrap().quote(&outer), None);
}

#[test]
fn a_quote_that_ends_inside_its_extension_headers_is_none() {
    // The routing header claims more words than the 9 bytes that are quoted of it.
    let inner = sample::v6(protocol::ROUTING, &[protocol::UDP, 3, 4, 0, 0, 0, 0, 0, 0]);
    let message = [&[3, 0, 0, 0, 0, 0, 0, 0], &inner[..]].concat();
    let outer = sample::v6(protocol::ICMPV6, &message);
    assert_eq!(Packet::parse(&outer).unwrap().quote(&outer), None);
}

#[test]
fn a_quoted_later_fragment_has_no_transport() {
    let mut inner = sample::udp4(b"hello");
    inner[7] = 1;
    let built = answer(IcmpError::TimeExceeded, &inner);
    let quote = Packet::parse(&built).unwrap().quote(&built).unwrap();
    assert_eq!(quote.fragment, Fragment::Later);
    assert_eq!(quote.transport, QuotedTransport::Unavailable);
}

proptest! {
    #[test]
    fn any_packet_can_be_answered_and_any_error_read(
        bytes in sample::mutated(), which in 0usize..6, at: prop::sample::Index, value: u8
    ) {
        let Ok(packet) = Packet::parse(&bytes) else { return Ok(()) };
        let _ = ICMP_ERRORS[which].may_answer(&packet);
        let mut built = answer(ICMP_ERRORS[which], &bytes);
        let read = Packet::parse(&built).unwrap();
        // One finished checksum in 65,536 looks partial.
        let state = read.checksum_state(&built);
        prop_assert!(matches!(state, ChecksumState::Valid | ChecksumState::Partial), "{:?}", state);
        prop_assert!(!ICMP_ERRORS[which].may_answer(&read));
        let at = at.index(built.len());
        built[at] = value;
        if let Ok(read) = Packet::parse(&built) {
            let _ = read.reported_mtu(&built);
            if let Some(quote) = read.quote(&built) {
                prop_assert!(usize::from(quote.offset) + usize::from(quote.len) <= built.len());
                prop_assert!(quote.transport_offset <= quote.len);
            }
        }
    }
}
