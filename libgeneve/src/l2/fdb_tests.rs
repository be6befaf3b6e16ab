use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::host::Host;

fn host(id: u32) -> StationLocation {
    StationLocation::Host(Arc::new(Host::new(id, [192, 0, 2, id as u8].into())))
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn at(seconds: u64) -> Now {
    Now(seconds * 1_000_000_000)
}

const FDB_TEST_LIMITS: FdbLimits = FdbLimits {
    entries: 3,
    ageing: Duration::from_secs(300),
};

#[test]
fn an_address_is_where_its_frames_come_from_until_it_is_too_old() {
    let fdb = Fdb::new([1, 2]);
    assert_eq!(fdb.find(mac(1), &FDB_TEST_LIMITS, at(0)), None);
    assert_eq!(
        fdb.learn(mac(1), &host(7), &FDB_TEST_LIMITS, at(0)),
        LearnOutcome::New
    );
    assert_eq!(fdb.find(mac(1), &FDB_TEST_LIMITS, at(300)), Some(host(7)));
    assert_eq!(
        fdb.learn(mac(1), &host(7), &FDB_TEST_LIMITS, at(200)),
        LearnOutcome::Known
    );
    assert_eq!(fdb.find(mac(1), &FDB_TEST_LIMITS, at(500)), Some(host(7)));
    assert_eq!(fdb.find(mac(1), &FDB_TEST_LIMITS, at(501)), None);
    assert_eq!(fdb.expire(&FDB_TEST_LIMITS, at(501)), 1);
    assert!(fdb.is_empty());
}

#[test]
fn without_ageing_an_address_is_known_for_ever() {
    let limits = FdbLimits {
        ageing: Duration::ZERO,
        ..FDB_TEST_LIMITS
    };
    let fdb = Fdb::new([1, 2]);
    fdb.learn(mac(1), &StationLocation::Here, &limits, at(0));
    assert_eq!(fdb.expire(&limits, at(1_000_000)), 0);
    assert_eq!(
        fdb.find(mac(1), &limits, at(1_000_000)),
        Some(StationLocation::Here)
    );
}

#[test]
fn a_full_table_keeps_what_it_has() {
    let fdb = Fdb::new([1, 2]);
    for n in 0..3 {
        assert_eq!(
            fdb.learn(mac(n), &host(1), &FDB_TEST_LIMITS, at(0)),
            LearnOutcome::New
        );
    }
    assert_eq!(
        fdb.learn(mac(9), &host(1), &FDB_TEST_LIMITS, at(0)),
        LearnOutcome::Full
    );
    assert_eq!(
        fdb.learn(mac(2), &host(1), &FDB_TEST_LIMITS, at(0)),
        LearnOutcome::Known
    );
    assert_eq!(fdb.len(), 3);
    assert!(fdb.forget(mac(0)) && !fdb.forget(mac(0)));
    assert_eq!(
        fdb.learn(mac(9), &host(1), &FDB_TEST_LIMITS, at(0)),
        LearnOutcome::New
    );
}

#[test]
fn an_address_moves_five_times_a_minute_and_then_stays() {
    let fdb = Fdb::new([1, 2]);
    fdb.learn(mac(1), &host(1), &FDB_TEST_LIMITS, at(0));
    let to = |n: u32| host(1 + n % 2);
    for n in 1..=5 {
        assert_eq!(
            fdb.learn(mac(1), &to(n), &FDB_TEST_LIMITS, at(0)),
            LearnOutcome::Moved
        );
    }
    assert_eq!(
        fdb.learn(mac(1), &to(6), &FDB_TEST_LIMITS, at(59)),
        LearnOutcome::Refused
    );
    assert_eq!(fdb.find(mac(1), &FDB_TEST_LIMITS, at(59)), Some(to(5)));
    assert_eq!(
        fdb.learn(mac(1), &to(6), &FDB_TEST_LIMITS, at(60)),
        LearnOutcome::Moved
    );
}

#[test]
fn what_is_too_old_binds_nobody() {
    let fdb = Fdb::new([1, 2]);
    let limits = FdbLimits {
        ageing: Duration::from_secs(5),
        ..FDB_TEST_LIMITS
    };
    fdb.learn(mac(1), &host(1), &limits, at(0));
    for n in 0..8 {
        fdb.learn(mac(1), &host(n % 2), &limits, at(1));
    }
    assert_eq!(
        fdb.learn(mac(1), &host(9), &limits, at(2)),
        LearnOutcome::Refused
    );
    assert_eq!(
        fdb.learn(mac(1), &host(9), &limits, at(9)),
        LearnOutcome::Moved
    );
}

#[test]
fn the_generation_tells_of_every_change_and_of_nothing_else() {
    let fdb = Fdb::new([1, 2]);
    let mut last = fdb.generation();
    let mut changed =
        |fdb: &Fdb| std::mem::replace(&mut last, fdb.generation()) != fdb.generation();
    fdb.learn(mac(1), &host(1), &FDB_TEST_LIMITS, at(0));
    assert!(changed(&fdb));
    fdb.learn(mac(1), &host(1), &FDB_TEST_LIMITS, at(10));
    assert!(!changed(&fdb));
    fdb.learn(mac(1), &host(2), &FDB_TEST_LIMITS, at(10));
    assert!(changed(&fdb));
    assert_eq!(fdb.retain(|_, place| *place != host(1)), 0);
    assert!(!changed(&fdb));
    assert_eq!(fdb.retain(|_, place| *place != host(2)), 1);
    assert!(changed(&fdb));
}

#[test]
fn people_see_age_and_place() {
    let fdb = Fdb::new([1, 2]);
    fdb.learn(mac(2), &host(1), &FDB_TEST_LIMITS, at(0));
    fdb.learn(mac(1), &StationLocation::Here, &FDB_TEST_LIMITS, at(5));
    fdb.learn(mac(2), &host(1), &FDB_TEST_LIMITS, at(8));
    let list = fdb.entries_at(&FDB_TEST_LIMITS, at(10));
    let seen: Vec<_> = list
        .iter()
        .map(|e| {
            (
                e.mac,
                e.place.clone(),
                e.used.as_secs(),
                e.updated.as_secs(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (mac(1), StationLocation::Here, 5, 5),
            (mac(2), host(1), 2, 10)
        ]
    );
}

proptest! {
    /// Compares with a table that never expires and has no bound: if moves are rare, a lookup returns the latest
    /// place.
    #[test]
    fn what_is_found_is_where_it_was_seen_last(events in proptest::collection::vec((0u8..6, 0u32..3), 1..60)) {
        let fdb = Fdb::new([3, 4]);
        let mut model: HashMap<u8, u32> = HashMap::new();
        for (n, (address, place)) in events.into_iter().enumerate() {
            // A minute apart, so that no move is refused.
            let now = at(60 * n as u64);
            let limits = FdbLimits { entries: 4, ageing: Duration::ZERO };
            let known = model.contains_key(&address);
            let outcome = fdb.learn(mac(address), &host(place), &limits, now);
            prop_assert_ne!(outcome, LearnOutcome::Refused);
            if known || model.len() < 4 {
                prop_assert_ne!(outcome, LearnOutcome::Full);
                model.insert(address, place);
            } else {
                prop_assert_eq!(outcome, LearnOutcome::Full);
            }
            for address in 0..6 {
                let found = fdb.find(mac(address), &limits, now);
                prop_assert_eq!(found, model.get(&address).map(|&id| host(id)));
            }
        }
        prop_assert!(fdb.len() <= 4);
    }
}
