use super::*;
use crate::policy::PolicyAction;

const BRIDGE_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
const ENDPOINT_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STATION_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const STATIC: Mac = Mac([2, 0, 0, 0, 0, 3]);
const STRANGER_MAC: Mac = Mac([2, 0, 0, 0, 0, 4]);
const GROUP_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 5]);
const TEST_NOW: Now = Now(1_000_000_000);

fn addr(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

fn underlay(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn host(n: u8) -> StationLocation {
    StationLocation::Host(Arc::new(Host::new(u32::from(n), underlay(n))))
}

/// 10.0.0.1 is on host 2 with a known MAC address, 10.0.0.2 is here, 10.0.0.3 is on host 3 with an unknown MAC
/// address.
fn bridge(learning: bool) -> Bridge {
    let owner = |n, mac, host: Option<u8>| OwnerConfig {
        addr: addr(n),
        mac,
        host: host.map(underlay),
    };
    let config = BridgeConfig {
        mac: BRIDGE_MAC,
        learning,
        limits: FdbLimits::default(),
        entries: vec![
            (STATIC, vec![underlay(3)]),
            (GROUP_MAC, vec![underlay(4), underlay(5)]),
        ],
        flood: vec![underlay(2), underlay(3)],
        flood_rate: Arc::new(Bucket::new(100, 100)),
        others: PolicyDefaults {
            ingress: PolicyAction::Allow,
            egress: PolicyAction::Allow,
        },
        owners: vec![
            owner(1, Some(ENDPOINT_MAC), Some(2)),
            owner(2, Some(STATION_MAC), None),
            owner(3, None, Some(3)),
        ],
        live: Arc::new(LearnedState::new([1, 2])),
    };
    Bridge::new(&config, |addr| match addr {
        IpAddr::V4(v4) => Arc::new(Host::new(v4.octets()[3].into(), addr)),
        IpAddr::V6(_) => unreachable!(),
    })
}

fn all(toward: FrameDestination) -> Vec<u32> {
    match toward {
        FrameDestination::All(hosts) => hosts.iter().map(|h| h.id).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_frame_goes_to_a_station_a_group_or_everybody() {
    let bridge = bridge(true);
    assert!(
        matches!(bridge.destination(ENDPOINT_MAC, TEST_NOW), FrameDestination::Host(h) if h.id == 2)
    );
    assert!(matches!(bridge.destination(STATIC, TEST_NOW), FrameDestination::Host(h) if h.id == 3));
    assert!(matches!(
        bridge.destination(STATION_MAC, TEST_NOW),
        FrameDestination::Here
    ));
    assert!(matches!(
        bridge.destination(BRIDGE_MAC, TEST_NOW),
        FrameDestination::Here
    ));
    assert_eq!(all(bridge.destination(STRANGER_MAC, TEST_NOW)), [2, 3]);
    assert_eq!(all(bridge.destination(Mac::BROADCAST, TEST_NOW)), [2, 3]);
    assert_eq!(all(bridge.destination(GROUP_MAC, TEST_NOW)), [4, 5]);
    let mut known: Vec<_> = bridge.hosts().map(|h| h.id).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known, [2, 3, 4, 5]);
}

#[test]
fn what_was_seen_somewhere_is_there() {
    let bridge = bridge(true);
    assert_eq!(bridge.admit(STRANGER_MAC, &host(9), TEST_NOW), Ok(()));
    assert!(
        matches!(bridge.destination(STRANGER_MAC, TEST_NOW), FrameDestination::Host(h) if h.id == 9)
    );
    assert_eq!(
        bridge.admit(STRANGER_MAC, &StationLocation::Here, TEST_NOW),
        Ok(())
    );
    assert!(matches!(
        bridge.destination(STRANGER_MAC, TEST_NOW),
        FrameDestination::Here
    ));
    let tally = &bridge.live.tally;
    assert_eq!(
        (tally.learned.load(Relaxed), tally.moved.load(Relaxed)),
        (1, 1)
    );
    for n in 0..4 {
        assert_eq!(bridge.admit(STRANGER_MAC, &host(n), TEST_NOW), Ok(()));
    }
    assert_eq!(
        bridge.admit(STRANGER_MAC, &host(8), TEST_NOW),
        Err(DropReason::MacMove)
    );
}

#[test]
fn without_learning_nothing_is_written_down() {
    let bridge = bridge(false);
    assert_eq!(bridge.admit(STRANGER_MAC, &host(9), TEST_NOW), Ok(()));
    assert_eq!(all(bridge.destination(STRANGER_MAC, TEST_NOW)), [2, 3]);
    let notice = NeighborNotice {
        claim: Some((addr(9), STRANGER_MAC)),
        ..NeighborNotice::default()
    };
    assert_eq!(
        bridge.learn_claim(&notice, &host(9), false, TEST_NOW),
        Ok(())
    );
    assert_eq!(bridge.mac_of(addr(9), TEST_NOW), None);
    assert!(bridge.live.fdb.is_empty() && bridge.live.neighbors.is_empty());
}

#[test]
fn nobody_sends_as_a_station_that_is_configured_elsewhere() {
    for learning in [true, false] {
        let bridge = bridge(learning);
        let wire = Err(DropReason::SourceMismatch);
        let tap = Err(DropReason::SourceNotLocal);
        assert_eq!(bridge.admit(STATIC, &host(3), TEST_NOW), Ok(()));
        assert_eq!(bridge.admit(STATIC, &host(2), TEST_NOW), wire);
        assert_eq!(bridge.admit(STATIC, &StationLocation::Here, TEST_NOW), tap);
        assert_eq!(bridge.admit(ENDPOINT_MAC, &host(2), TEST_NOW), Ok(()));
        assert_eq!(bridge.admit(ENDPOINT_MAC, &host(3), TEST_NOW), wire);
        assert_eq!(
            bridge.admit(STATION_MAC, &StationLocation::Here, TEST_NOW),
            Ok(())
        );
        assert_eq!(bridge.admit(STATION_MAC, &host(2), TEST_NOW), wire);
        assert_eq!(bridge.admit(BRIDGE_MAC, &host(2), TEST_NOW), wire);
        assert_eq!(
            bridge.admit(BRIDGE_MAC, &StationLocation::Here, TEST_NOW),
            Ok(())
        );
    }
}

#[test]
fn nobody_claims_the_address_of_an_endpoint() {
    let bridge = bridge(true);
    let hear = |n, mac, from: &StationLocation| {
        let notice = NeighborNotice {
            claim: Some((addr(n), mac)),
            ..NeighborNotice::default()
        };
        bridge.learn_claim(&notice, from, false, TEST_NOW)
    };
    let wire = Err(DropReason::SourceMismatch);
    assert_eq!(hear(1, ENDPOINT_MAC, &host(2)), Ok(()));
    assert_eq!(hear(1, STRANGER_MAC, &host(2)), wire, "another MAC address");
    assert_eq!(hear(1, ENDPOINT_MAC, &host(3)), wire, "another host");
    assert_eq!(
        hear(1, ENDPOINT_MAC, &StationLocation::Here),
        Err(DropReason::SourceNotLocal)
    );
    assert_eq!(hear(2, STATION_MAC, &StationLocation::Here), Ok(()));
    assert_eq!(hear(2, STATION_MAC, &host(2)), wire);
    assert_eq!(
        hear(3, STRANGER_MAC, &host(3)),
        Ok(()),
        "its MAC address is not configured"
    );
    assert_eq!(hear(3, STRANGER_MAC, &host(2)), wire);
    assert_eq!(
        hear(9, ENDPOINT_MAC, &host(3)),
        wire,
        "a station of another host"
    );
    assert_eq!(hear(9, STRANGER_MAC, &host(3)), Ok(()));
    assert_eq!(bridge.mac_of(addr(9), TEST_NOW), Some(STRANGER_MAC));
    let in_vlan = NeighborNotice {
        claim: Some((addr(10), STRANGER_MAC)),
        ..NeighborNotice::default()
    };
    assert_eq!(
        bridge.learn_claim(&in_vlan, &host(3), true, TEST_NOW),
        Ok(())
    );
    assert_eq!(bridge.mac_of(addr(10), TEST_NOW), None);
    assert_eq!(bridge.mac_of(addr(1), TEST_NOW), Some(ENDPOINT_MAC));
    assert_eq!(bridge.owns(addr(1), None, &host(2)), Ok(()));
    assert_eq!(bridge.owns(addr(1), None, &host(3)), wire);
    assert_eq!(bridge.owns(addr(77), Some(STRANGER_MAC), &host(3)), Ok(()));
}

#[test]
fn a_question_is_answered_where_the_owner_is_known_and_elsewhere() {
    let bridge = bridge(true);
    let ask = |n, probe, asker| {
        let target = addr(n);
        let answer = bridge.answer(&NeighborQuery { target, probe }, asker, TEST_NOW);
        answer.map(|(mac, _)| mac)
    };
    assert_eq!(ask(1, false, STRANGER_MAC), Some(ENDPOINT_MAC));
    assert_eq!(
        ask(1, true, STRANGER_MAC),
        Some(ENDPOINT_MAC),
        "the address is taken"
    );
    assert_eq!(ask(1, true, ENDPOINT_MAC), None, "by the one who asks");
    assert_eq!(
        ask(2, false, STRANGER_MAC),
        None,
        "it is here and answers itself"
    );
    assert_eq!(
        ask(3, false, STRANGER_MAC),
        None,
        "nobody said its MAC address"
    );
    assert_eq!(ask(9, false, STRANGER_MAC), None);
    let learned = Mac([2, 0, 0, 0, 0, 9]);
    let notice = NeighborNotice {
        claim: Some((addr(9), learned)),
        ..NeighborNotice::default()
    };
    bridge
        .learn_claim(&notice, &host(9), false, TEST_NOW)
        .unwrap();
    assert_eq!(ask(9, false, STRANGER_MAC), None, "its host is not known");
    bridge.admit(learned, &host(9), TEST_NOW).unwrap();
    assert_eq!(ask(9, false, STRANGER_MAC), Some(learned));
    assert_eq!(
        ask(9, true, STRANGER_MAC),
        None,
        "it defends its address itself"
    );
    bridge
        .admit(learned, &StationLocation::Here, TEST_NOW)
        .unwrap();
    assert_eq!(ask(9, false, STRANGER_MAC), None, "it came here");
}
