//! Random packets and options between the addresses of the configuration.

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libgeneve::options::{SentOptions, ClassOption, EndpointOption, EndpointType, ServiceOption};
use libgeneve::wire::ip::protocol;
use libgeneve::wire::packet::{IpVersion, Packet};
use libgeneve::wire::transport::TcpFlags;
use libgeneve::wire::transport_checksum::ChecksumState;

use crate::configuration::{RULE_PORTS, V4, V6, any};
use crate::world::packets::{PayloadKind, fragment_of, packet};
use crate::world::{self, ip, labels};

/// Whether the checksums of a packet are right.
pub fn is_sound(inner: &[u8], packet: &Packet) -> bool {
    let whole = packet.version == IpVersion::V6 || {
        let sum = inner[..20]
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum::<u32>();
        inner[0] != 0x45 || (sum & 0xffff) + (sum >> 16) == 0xffff
    };
    whole && packet.checksum_state(inner) != ChecksumState::Wrong
}

/// Valid combinations of TCP flags.
pub fn flags(u: &mut Unstructured<'_>) -> Result<TcpFlags> {
    u.choose(&[2, 0x12, 0x10, 0x11, 4, 0x18])
        .map(|&flags| TcpFlags(flags))
}

/// Random packet, occasionally a malformed one.
pub fn random_packet(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let list: &[&str] = if u.ratio(3, 4)? { &V4 } else { &V6 };
    let (src, dst) = (any(u, list).map(ip)?, any(u, list).map(ip)?);
    let ports = (*u.choose(&RULE_PORTS)?, *u.choose(&RULE_PORTS)?);
    let kind = match u.int_in_range(0..=9)? {
        0..=3 => PayloadKind::Tcp(flags(u)?, u.arbitrary()?),
        4..=6 => PayloadKind::Udp,
        7 => PayloadKind::Echo {
            reply: u.arbitrary()?,
        },
        _ => PayloadKind::Other(*u.choose(&[50, 132, 58, 1])?),
    };
    let mut bytes = match kind {
        // An arbitrary payload under an ICMP protocol number: there is no header whose checksum could be written.
        PayloadKind::Other(number @ (1 | 58)) => {
            let mut bytes = packet((src, 1), (dst, 1), PayloadKind::Other(50), 16);
            bytes[if src.is_ipv4() { 9 } else { 6 }] = number;
            bytes
        }
        kind => packet(
            (src, ports.0),
            (dst, ports.1),
            kind,
            u.int_in_range(0..=40)?,
        ),
    };
    if src.is_ipv4() && u.ratio(1, 6)? {
        bytes = fragment_of(bytes, *u.choose(&[0x2000, 0x0001, 0x2001, 0x4000])?);
    }
    if u.ratio(1, 10)? {
        let at = u.choose_index(bytes.len())?;
        bytes[at] ^= u.arbitrary::<u8>()?;
    }
    Ok(bytes)
}

/// Random contents of geneved's own options, and the data of `TAG`, if present.
pub fn random_options(u: &mut Unstructured<'_>) -> Result<(SentOptions, Option<Vec<u8>>)> {
    if u.arbitrary()? {
        return Ok((SentOptions::default(), None));
    }
    let mut attach = SentOptions::default();
    if u.arbitrary()? {
        attach.endpoint = Some(EndpointOption {
            src: *u.choose(&[EndpointType::Simple, EndpointType::Scaled])?,
            dst: *u.choose(&EndpointType::ALL)?,
            direct_path: u.arbitrary()?,
            service_id: 0,
        });
    }
    if u.arbitrary()? {
        let text = any(u, &["app=web", "app=db,tier=back"])?;
        attach.labels = Some((labels(text), u.arbitrary()?));
    }
    if u.arbitrary()? {
        attach.class = Some(ClassOption {
            class: world::WORLD_CLASS,
            drop_precedence: u.arbitrary()?,
        });
    }
    if u.ratio(1, 3)? {
        attach.service = Some(ServiceOption {
            addr: ip(any(u, &[world::WORLD_VIP, "10.0.0.2", "fd00::9"])?),
            port: *u.choose(&RULE_PORTS)?,
            protocol: protocol::TCP,
        });
    }
    let tag = u.arbitrary::<bool>()?.then(|| vec![1, 2, 3, 4]);
    Ok((attach, tag))
}
