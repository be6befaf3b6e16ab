use super::*;
use crate::policy::Action;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
const ENDPOINT: Mac = Mac([2, 0, 0, 0, 0, 1]);
const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 2]);
const STATIC: Mac = Mac([2, 0, 0, 0, 0, 3]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 4]);
const GROUP: Mac = Mac([0x33, 0x33, 0, 0, 0, 5]);
const NOW: Now = Now(1_000_000_000);

fn addr(n: u8) -> IpAddr {
    [10, 0, 0, n].into()
}

fn underlay(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn host(n: u8) -> Place {
    Place::Host(Arc::new(Host::new(u32::from(n), underlay(n))))
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
        mac: OWN,
        learning,
        limits: Limits::default(),
        entries: vec![
            (STATIC, vec![underlay(3)]),
            (GROUP, vec![underlay(4), underlay(5)]),
        ],
        flood: vec![underlay(2), underlay(3)],
        flood_rate: Arc::new(Bucket::new(100, 100)),
        others: Defaults {
            ingress: Action::Allow,
            egress: Action::Allow,
        },
        owners: vec![
            owner(1, Some(ENDPOINT), Some(2)),
            owner(2, Some(LOCAL), None),
            owner(3, None, Some(3)),
        ],
        live: Arc::new(Live::new([1, 2])),
    };
    Bridge::new(&config, |addr| match addr {
        IpAddr::V4(v4) => Arc::new(Host::new(v4.octets()[3].into(), addr)),
        IpAddr::V6(_) => unreachable!(),
    })
}

fn all(toward: Toward) -> Vec<u32> {
    match toward {
        Toward::All(hosts) => hosts.iter().map(|h| h.id).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_frame_goes_to_a_station_a_group_or_everybody() {
    let bridge = bridge(true);
    assert!(matches!(bridge.toward(ENDPOINT, NOW), Toward::Host(h) if h.id == 2));
    assert!(matches!(bridge.toward(STATIC, NOW), Toward::Host(h) if h.id == 3));
    assert!(matches!(bridge.toward(LOCAL, NOW), Toward::Here));
    assert!(matches!(bridge.toward(OWN, NOW), Toward::Here));
    assert_eq!(all(bridge.toward(OTHER, NOW)), [2, 3]);
    assert_eq!(all(bridge.toward(Mac::BROADCAST, NOW)), [2, 3]);
    assert_eq!(all(bridge.toward(GROUP, NOW)), [4, 5]);
    let mut known: Vec<_> = bridge.hosts().map(|h| h.id).collect();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known, [2, 3, 4, 5]);
}

#[test]
fn what_was_seen_somewhere_is_there() {
    let bridge = bridge(true);
    assert_eq!(bridge.admit(OTHER, &host(9), NOW), Ok(()));
    assert!(matches!(bridge.toward(OTHER, NOW), Toward::Host(h) if h.id == 9));
    assert_eq!(bridge.admit(OTHER, &Place::Here, NOW), Ok(()));
    assert!(matches!(bridge.toward(OTHER, NOW), Toward::Here));
    let tally = &bridge.live.tally;
    assert_eq!(
        (tally.learned.load(Relaxed), tally.moved.load(Relaxed)),
        (1, 1)
    );
    for n in 0..4 {
        assert_eq!(bridge.admit(OTHER, &host(n), NOW), Ok(()));
    }
    assert_eq!(bridge.admit(OTHER, &host(8), NOW), Err(DropReason::MacMove));
}

#[test]
fn without_learning_nothing_is_written_down() {
    let bridge = bridge(false);
    assert_eq!(bridge.admit(OTHER, &host(9), NOW), Ok(()));
    assert_eq!(all(bridge.toward(OTHER, NOW)), [2, 3]);
    let notice = Notice {
        claim: Some((addr(9), OTHER)),
        ..Notice::default()
    };
    assert_eq!(bridge.hear(&notice, &host(9), false, NOW), Ok(()));
    assert_eq!(bridge.mac_of(addr(9), NOW), None);
    assert!(bridge.live.fdb.is_empty() && bridge.live.neighbors.is_empty());
}

#[test]
fn nobody_sends_as_a_station_that_is_configured_elsewhere() {
    for learning in [true, false] {
        let bridge = bridge(learning);
        let wire = Err(DropReason::SourceMismatch);
        let tap = Err(DropReason::SourceNotLocal);
        assert_eq!(bridge.admit(STATIC, &host(3), NOW), Ok(()));
        assert_eq!(bridge.admit(STATIC, &host(2), NOW), wire);
        assert_eq!(bridge.admit(STATIC, &Place::Here, NOW), tap);
        assert_eq!(bridge.admit(ENDPOINT, &host(2), NOW), Ok(()));
        assert_eq!(bridge.admit(ENDPOINT, &host(3), NOW), wire);
        assert_eq!(bridge.admit(LOCAL, &Place::Here, NOW), Ok(()));
        assert_eq!(bridge.admit(LOCAL, &host(2), NOW), wire);
        assert_eq!(bridge.admit(OWN, &host(2), NOW), wire);
        assert_eq!(bridge.admit(OWN, &Place::Here, NOW), Ok(()));
    }
}

#[test]
fn nobody_claims_the_address_of_an_endpoint() {
    let bridge = bridge(true);
    let hear = |n, mac, from: &Place| {
        let notice = Notice {
            claim: Some((addr(n), mac)),
            ..Notice::default()
        };
        bridge.hear(&notice, from, false, NOW)
    };
    let wire = Err(DropReason::SourceMismatch);
    assert_eq!(hear(1, ENDPOINT, &host(2)), Ok(()));
    assert_eq!(hear(1, OTHER, &host(2)), wire, "another MAC address");
    assert_eq!(hear(1, ENDPOINT, &host(3)), wire, "another host");
    assert_eq!(
        hear(1, ENDPOINT, &Place::Here),
        Err(DropReason::SourceNotLocal)
    );
    assert_eq!(hear(2, LOCAL, &Place::Here), Ok(()));
    assert_eq!(hear(2, LOCAL, &host(2)), wire);
    assert_eq!(
        hear(3, OTHER, &host(3)),
        Ok(()),
        "its MAC address is not configured"
    );
    assert_eq!(hear(3, OTHER, &host(2)), wire);
    assert_eq!(
        hear(9, ENDPOINT, &host(3)),
        wire,
        "a station of another host"
    );
    assert_eq!(hear(9, OTHER, &host(3)), Ok(()));
    assert_eq!(bridge.mac_of(addr(9), NOW), Some(OTHER));
    let in_vlan = Notice {
        claim: Some((addr(10), OTHER)),
        ..Notice::default()
    };
    assert_eq!(bridge.hear(&in_vlan, &host(3), true, NOW), Ok(()));
    assert_eq!(bridge.mac_of(addr(10), NOW), None);
    assert_eq!(bridge.mac_of(addr(1), NOW), Some(ENDPOINT));
    assert_eq!(bridge.owns(addr(1), None, &host(2)), Ok(()));
    assert_eq!(bridge.owns(addr(1), None, &host(3)), wire);
    assert_eq!(bridge.owns(addr(77), Some(OTHER), &host(3)), Ok(()));
}

#[test]
fn a_question_is_answered_where_the_owner_is_known_and_elsewhere() {
    let bridge = bridge(true);
    let ask = |n, probe, asker| {
        let target = addr(n);
        let answer = bridge.answer(&Question { target, probe }, asker, NOW);
        answer.map(|(mac, _)| mac)
    };
    assert_eq!(ask(1, false, OTHER), Some(ENDPOINT));
    assert_eq!(ask(1, true, OTHER), Some(ENDPOINT), "the address is taken");
    assert_eq!(ask(1, true, ENDPOINT), None, "by the one who asks");
    assert_eq!(ask(2, false, OTHER), None, "it is here and answers itself");
    assert_eq!(ask(3, false, OTHER), None, "nobody said its MAC address");
    assert_eq!(ask(9, false, OTHER), None);
    let learned = Mac([2, 0, 0, 0, 0, 9]);
    let notice = Notice {
        claim: Some((addr(9), learned)),
        ..Notice::default()
    };
    bridge.hear(&notice, &host(9), false, NOW).unwrap();
    assert_eq!(ask(9, false, OTHER), None, "its host is not known");
    bridge.admit(learned, &host(9), NOW).unwrap();
    assert_eq!(ask(9, false, OTHER), Some(learned));
    assert_eq!(ask(9, true, OTHER), None, "it defends its address itself");
    bridge.admit(learned, &Place::Here, NOW).unwrap();
    assert_eq!(ask(9, false, OTHER), None, "it came here");
}
