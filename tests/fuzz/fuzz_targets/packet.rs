//! Inner packets: offsets stay in bounds, and a checksum that was written verifies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use libgeneve::wire::ip;
use libgeneve::wire::packet::Packet;
use libgeneve::wire::transport_checksum::ChecksumState;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    ip::write_ipv4_checksum(&mut bytes);
    assert_eq!(
        ip::ipv4_checksum_holds(&bytes),
        ip::Ipv4::parse(&bytes).is_some()
    );

    let Ok(packet) = Packet::parse(&bytes) else {
        return;
    };
    assert!(packet.transport_offset <= packet.payload_offset);
    assert!(packet.payload_offset <= packet.total_len);
    assert!(usize::from(packet.total_len) <= bytes.len());
    assert_eq!(
        Packet::parse(&bytes[..usize::from(packet.total_len)]),
        Ok(packet)
    );

    let before = packet.checksum_state(&bytes);
    let wrote = packet.write_checksum(&mut bytes);
    assert_eq!(wrote, before != ChecksumState::Unknown);
    if wrote {
        let state = packet.checksum_state(&bytes);
        assert!(matches!(
            state,
            ChecksumState::Valid | ChecksumState::Partial
        ));
        assert_eq!(
            Packet::parse(&bytes),
            Ok(packet),
            "a checksum changes nothing else"
        );
    }
    if packet.write_partial_checksum(&mut bytes) {
        assert_ne!(packet.checksum_state(&bytes), ChecksumState::Wrong);
    }
});
