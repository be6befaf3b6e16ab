//! Validation of ICMP errors from the underlay.

use super::*;
use crate::vpc::PathMtuEvidence;

const OUTER_PORT: u16 = 51_234;

/// A datagram to B, without outer headers.
fn datagram(tables: &TestTables, inner: &[u8]) -> Vec<u8> {
    let link = tables.link(LinkIndex(0)).unwrap();
    let mut packet = Packet::parse(inner).unwrap();
    let mut bytes = inner.to_vec();
    let mut out = Egress::default();
    let encap = out.decide(&tables.cx(), link, &mut bytes, &mut packet, &VnetHdr::NONE);
    let forward = forwarded(encap.unwrap());
    [&forward.encap[..], inner].concat()
}

fn judge(
    world: &TestTables,
    mtu: Option<u32>,
    quoted: &[u8],
) -> Result<PathMtuEvidence, ErrorRejection> {
    let error = OuterError {
        host: ip(HOST_B),
        port: GENEVE_PORT,
        source_port: OUTER_PORT,
        mtu,
        quoted,
    };
    validate_icmp_error(&world.cx(), &error)
}

#[test]
fn an_error_about_what_did_not_leave_is_not_believed() {
    let world = red();
    let quoted = datagram(&world, &udp("10.0.0.1", "10.0.0.2", (1, 2), 0));
    assert_eq!(judge(&world, None, &quoted), Err(ErrorRejection::NotSent));
    world
        .state
        .sent
        .note(ip(HOST_C), OUTER_PORT, 1500, world.now);
    world
        .state
        .sent
        .note(ip(HOST_B), OUTER_PORT + 1, 1500, world.now);
    assert_eq!(judge(&world, None, &quoted), Err(ErrorRejection::NotSent));
    world
        .state
        .sent
        .note(ip(HOST_B), OUTER_PORT, 1500, world.now);
    assert_eq!(judge(&world, None, &quoted), Ok(PathMtuEvidence::Flow));
    let mut later = world;
    later.now = Now(11_000_000_000);
    assert_eq!(judge(&later, None, &quoted), Err(ErrorRejection::NotSent));
}

#[test]
fn what_is_quoted_must_be_of_a_link() {
    let world = red();
    let quoted = datagram(&world, &udp("10.0.0.1", "10.0.0.2", (1, 2), 0));
    world
        .state
        .sent
        .note(ip(HOST_B), OUTER_PORT, 1500, world.now);
    let mut other = quoted.clone();
    other[4..7].copy_from_slice(&[9, 9, 9]);
    assert_eq!(judge(&world, None, &other), Err(ErrorRejection::NotOurs));
    assert_eq!(
        judge(&world, Some(1400), &other),
        Err(ErrorRejection::NotOurs)
    );
    // Routers may quote only the UDP header, or stop anywhere after it.
    assert_eq!(judge(&world, None, &[]), Ok(PathMtuEvidence::Length));
    for end in 8..quoted.len() {
        assert!(judge(&world, None, &quoted[..end]).is_ok(), "{end}");
    }
    let error = OuterError {
        host: ip(HOST_B),
        port: 9,
        source_port: OUTER_PORT,
        mtu: None,
        quoted: &quoted,
    };
    assert_eq!(
        validate_icmp_error(&world.cx(), &error),
        Err(ErrorRejection::NotOurs)
    );
}

#[test]
fn a_path_mtu_is_believed_only_if_what_left_is_longer() {
    let world = red();
    let mut inner = udp("10.0.0.1", "10.0.0.2", (1, 2), 0);
    let quoted = datagram(&world, &inner);
    world
        .state
        .sent
        .note(ip(HOST_B), OUTER_PORT, 1500, world.now);
    let outer_len = 20 + 8 + quoted.len() as u32;
    // The quoted packet belongs to a flow, so its own length counts.
    assert_eq!(
        judge(&world, Some(outer_len), &quoted),
        Err(ErrorRejection::Fits)
    );
    assert_eq!(
        judge(&world, Some(outer_len - 1), &quoted),
        Ok(PathMtuEvidence::Flow)
    );
    // Without an inner header, the length of the longest datagram counts.
    assert_eq!(
        judge(&world, Some(1500), &quoted[..8]),
        Err(ErrorRejection::Fits)
    );
    assert_eq!(
        judge(&world, Some(1499), &quoted[..8]),
        Ok(PathMtuEvidence::Length)
    );
    // The quoted packet belongs to no flow.
    inner[15] = 77;
    let forged = [&quoted[..8], &inner[..]].concat();
    assert_eq!(
        judge(&world, Some(1499), &forged),
        Ok(PathMtuEvidence::Length)
    );
    assert_eq!(
        judge(&world, Some(1500), &forged),
        Err(ErrorRejection::Fits)
    );
}

proptest! {
    #[test]
    fn arbitrary_quotes_never_panic(mut quoted in sample::mutated(), cut: u8, mtu: Option<u32>, raw: bool) {
        let world = red();
        world.state.sent.note(ip(HOST_B), OUTER_PORT, 1500, world.now);
        if !raw {
            let header = GeneveBuilder::new(Vni::new(RED).unwrap(), ethertype::IPV4).finish();
            quoted = [&header[..], &quoted].concat();
        }
        let end = usize::from(cut).min(quoted.len());
        let _ = judge(&world, mtu, &quoted[..end]);
    }
}
