//! NAT: rewriting keeps a packet or an ICMP error as sound as it was, and the reverse rewrite restores it.
//!
//! Input: source port, destination port (2 bytes each), control (bit 0: fix the checksums first; bit 1: the checksum
//! is partial), source and destination (16 bytes each, of which IPv4 uses the first four), the inner packet.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use libgeneve::nat::{Rewrite, rewrite, rewrite_error};
use libgeneve::wire::icmp::QuotedTransport;
use libgeneve::wire::ip;
use libgeneve::wire::packet::{IpVersion, Packet, Transport};
use libgeneve::wire::transport_checksum::ChecksumState;

fuzz_target!(|data: &[u8]| {
    let Some((head, bytes)) = data.split_first_chunk::<37>() else {
        return;
    };
    let mut bytes = bytes.to_vec();
    ip::write_ipv4_checksum(&mut bytes);
    let Ok(parsed) = Packet::parse(&bytes) else {
        return;
    };
    let sound = head[4] & 1 != 0;
    // Senders never offload the checksum of an ICMP error.
    let partial = head[4] & 2 != 0 && !parsed.is_icmp_error();
    if sound && partial {
        parsed.write_partial_checksum(&mut bytes);
    } else if sound {
        parsed.write_checksum(&mut bytes);
    }
    let to = Rewrite {
        src: (
            address(&head[5..21], parsed.version),
            u16::from_be_bytes([head[0], head[1]]),
        ),
        dst: (
            address(&head[21..37], parsed.version),
            u16::from_be_bytes([head[2], head[3]]),
        ),
    };

    let state = parsed.checksum_state(&bytes);
    let before = bytes.clone();
    let mut packet = parsed;
    let quote = parsed.quote(&bytes);
    let done = match quote {
        None => rewrite(&mut bytes, &mut packet, &to, partial),
        Some(_) => rewrite_error(&mut bytes, &mut packet, to.src.0, to.dst.0, &to),
    };
    if done.is_err() {
        assert_eq!((bytes, packet), (before, parsed));
        return;
    }
    assert_eq!(Packet::parse(&bytes), Ok(packet));
    assert_eq!((packet.src, packet.dst), (to.src.0, to.dst.0));
    assert!(bytes[0] >> 4 == 6 || ip::ipv4_checksum_holds(&bytes));
    let after = packet.checksum_state(&bytes);
    match (state, partial) {
        (ChecksumState::Absent | ChecksumState::Unknown, false) => assert_eq!(after, state),
        (ChecksumState::Partial, true) => assert_eq!(after, state),
        (ChecksumState::Valid, false) => assert!(is_right(after)),
        _ => {}
    }

    let undone = match quote {
        None => rewrite(&mut bytes, &mut packet, &ends(&parsed), partial),
        Some(quote) => {
            let (sport, dport) = match quote.transport {
                QuotedTransport::Tcp { src, dst, .. } | QuotedTransport::Udp { src, dst } => {
                    (src, dst)
                }
                QuotedTransport::Icmp { id: Some(id), .. } => (id, id),
                _ => (0, 0),
            };
            let quoted = Rewrite {
                src: (quote.src, sport),
                dst: (quote.dst, dport),
            };
            rewrite_error(&mut bytes, &mut packet, parsed.src, parsed.dst, &quoted)
        }
    };
    assert_eq!((undone, packet), (Ok(()), parsed));
    // Zero has two representations in a checksum; everything else is unchanged.
    let same = bytes
        .iter()
        .zip(&before)
        .filter(|(a, b)| a != b)
        .all(|(a, b)| a ^ b == 0xff);
    assert!(same, "{before:?} {bytes:?}");
});

fn address(bytes: &[u8], version: IpVersion) -> IpAddr {
    let mut octets = [0; 16];
    octets.copy_from_slice(bytes);
    match version {
        IpVersion::V4 => [octets[0], octets[1], octets[2], octets[3]].into(),
        IpVersion::V6 => octets.into(),
    }
}

fn ends(packet: &Packet) -> Rewrite {
    let (sport, dport) = match packet.transport {
        Transport::Icmp { id: Some(id), .. } => (id, id),
        _ => packet.ports().unwrap_or_default(),
    };
    Rewrite {
        src: (packet.src, sport),
        dst: (packet.dst, dport),
    }
}

fn is_right(state: ChecksumState) -> bool {
    matches!(state, ChecksumState::Valid | ChecksumState::Partial)
}
