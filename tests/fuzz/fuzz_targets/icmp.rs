//! ICMP errors: received ones can be parsed; generated ones are complete and never answered.
#![no_main]

use libfuzzer_sys::fuzz_target;
use libgeneve::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, UnreachableReason};
use libgeneve::wire::packet::{IpVersion, Packet};
use libgeneve::wire::transport_checksum::ChecksumState;

fuzz_target!(|data: &[u8]| {
    let Ok(packet) = Packet::parse(data) else {
        return;
    };
    let _ = packet.reported_mtu(data);
    if let Some(quote) = packet.quote(data) {
        assert!(packet.is_icmp_error());
        assert!(usize::from(quote.offset) + usize::from(quote.len) <= data.len());
        assert!(quote.transport_offset <= quote.len);
    }
    let from = match packet.version {
        IpVersion::V4 => [192, 0, 2, 1].into(),
        IpVersion::V6 => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    for error in [
        IcmpError::TooBig { mtu: 1400 },
        IcmpError::TimeExceeded,
        IcmpError::Unreachable(UnreachableReason::Prohibited),
    ] {
        assert!(!packet.is_icmp_error() || !error.may_answer(&packet));
        let mut out = [0; MAX_V6_ERROR_LEN];
        let len = error
            .build(from, &packet, data, &mut out)
            .expect("the longest error fits");
        let built = Packet::parse(&out[..len]).expect("what is built is valid");
        assert_eq!(
            (usize::from(built.total_len), built.src, built.dst),
            (len, from, packet.src)
        );
        let state = built.checksum_state(&out);
        assert!(matches!(
            state,
            ChecksumState::Valid | ChecksumState::Partial
        ));
        assert!(!error.may_answer(&built));
        // Extension headers may be longer than the quote.
        if let Some(quote) = built.quote(&out) {
            assert_eq!((quote.src, quote.dst), (packet.src, packet.dst));
        } else {
            assert_eq!(packet.version, IpVersion::V6);
        }
    }
});
