//! Fairness: every link gets its fair share, however many links there are and whenever they arrive.

use proptest::prelude::*;

use super::*;

fn link(number: usize) -> LinkIndex {
    LinkIndex(number as u32)
}

/// Establishes a connection, which is evicted only if its link is above its fair share.
fn try_to_establish(table: &FlowTable<u64>, key: FlowKey, now: Now) -> bool {
    if !add(table, key, Some(SYN), now) {
        return false;
    }
    assert!(touch(table, &key.reversed(), Some(SYN_ACK), now));
    assert!(touch(table, &key, Some(ACK), now));
    assert_eq!(state(table, &key), Some(FlowState::Established));
    true
}

#[test]
fn a_link_that_comes_late_gets_its_part_from_one_that_has_all_with_established_connections() {
    const FLOWS: u32 = 4096;
    let table = table::<u64>(FLOWS as usize);
    (0..FLOWS).for_each(|n| establish(&table, tcp(LINK_A, n), at(0)));
    assert!(!add(&table, tcp(LINK_A, FLOWS), Some(SYN), at(1)));
    // With and without an announcement.
    table.set_links(2);
    for n in 0..FLOWS / 2 {
        establish(&table, tcp(LINK_B, n), at(2));
    }
    let half = FLOWS as usize / 2;
    assert_eq!(
        (table.link_flows(LINK_A), table.link_flows(LINK_B)),
        (half, half)
    );
    assert!(
        !add(&table, tcp(LINK_B, FLOWS), Some(SYN), at(3)),
        "and no more"
    );
    assert!(!add(&table, tcp(LINK_A, FLOWS), Some(SYN), at(3)));
    check(&table);
}

#[test]
fn more_links_than_the_minimum_has_room_for_get_their_part_each() {
    const FLOWS: usize = 8192;
    const LINKS: usize = 300;
    let part = FLOWS / LINKS;
    let table = table::<u64>(FLOWS);
    // The first links fill the table, with a thousand flows each.
    for n in 0..FLOWS as u32 {
        assert!(add(
            &table,
            tcp(link(n as usize / 1024), n),
            Some(SYN),
            at(0)
        ));
        assert!(touch(
            &table,
            &tcp(link(n as usize / 1024), n).reversed(),
            Some(SYN_ACK),
            at(0)
        ));
        assert!(touch(
            &table,
            &tcp(link(n as usize / 1024), n),
            Some(ACK),
            at(0)
        ));
    }
    table.set_links(LINKS as u32);
    for number in 8..LINKS {
        for n in 0..part as u32 {
            assert!(
                add(&table, tcp(link(number), n), Some(SYN), at(1)),
                "{n} of link {number}"
            );
            assert!(touch(
                &table,
                &tcp(link(number), n).reversed(),
                Some(SYN_ACK),
                at(1)
            ));
            assert!(touch(&table, &tcp(link(number), n), Some(ACK), at(1)));
        }
    }
    for number in 0..LINKS {
        assert!(table.link_flows(link(number)) >= part, "{number}");
    }
    check(&table);
}

#[test]
fn a_table_with_fewer_places_than_links_still_serves_each_of_them() {
    let table = table::<u64>(8);
    (0..8).for_each(|n| establish(&table, tcp(LINK_A, n), at(0)));
    table.set_links(20);
    for number in 10..17 {
        assert!(
            try_to_establish(&table, tcp(link(number), 0), at(1)),
            "{number}"
        );
    }
    assert_eq!(table.link_flows(LINK_A), 1);
    check(&table);
}

proptest! {
    #[test]
    fn a_link_below_its_part_is_never_refused(
        limit in 1usize..200,
        late in 1usize..12,
        steps in prop::collection::vec((0usize..12, 1u32..60, any::<bool>()), 1..40),
    ) {
        let table = table::<u64>(limit);
        let mut next = 0;
        for (step, (number, flows, established)) in steps.into_iter().enumerate() {
            // Some links are created later than others.
            let made = if step < 10 { late } else { 12 };
            table.set_links(made as u32);
            let number = number % made;
            let part = (limit / made).max(1);
            for _ in 0..flows {
                next += 1;
                let (key, before) = (tcp(link(number), next), table.link_flows(link(number)));
                let admitted = match established {
                    true => try_to_establish(&table, key, at(1)),
                    false => add(&table, key, Some(SYN), at(1)),
                };
                prop_assert!(admitted || before >= part || limit < made, "{} of {}", before, part);
                prop_assert!(table.stats().flows <= limit);
            }
        }
        check(&table);
    }
}
