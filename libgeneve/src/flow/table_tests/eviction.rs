//! Eviction: what goes when there is no room, and from which link.

use super::*;

#[test]
fn room_is_made_by_what_is_worth_least() {
    let table = table::<u64>(6);
    let refused = udp(LINK_A, 0);
    let fin = tcp(LINK_A, 4);
    establish(&table, fin, at(0));
    assert!(touch(&table, &fin, Some(TcpFlags(0x11)), at(0)));
    establish(&table, tcp(LINK_A, 1), at(0));
    assert!(touch(&table, &tcp(LINK_A, 1), Some(RST), at(5)));
    assert!(add(&table, udp(LINK_A, 3), None, at(0)));
    assert!(add(&table, tcp(LINK_A, 2), Some(SYN), at(0)));
    establish(&table, tcp(LINK_A, 5), at(0));
    table
        .insert(refused, refused.reversed(), 0, true, 0, &seen(None), at(5))
        .unwrap();
    assert_eq!(table.stats().flows, 6);
    let victims = [refused, tcp(LINK_A, 1), tcp(LINK_A, 2), udp(LINK_A, 3), fin];
    for (n, victim) in (10..).zip(victims) {
        assert!(table.peek(&victim).is_some());
        establish(&table, tcp(LINK_A, n), at(6));
        assert!(table.peek(&victim).is_none(), "{victim:?}");
        check(&table);
    }
    assert!(!add(&table, tcp(LINK_A, 20), Some(SYN), at(7)));
    let stats = table.stats();
    assert_eq!((stats.evicted, stats.refused, stats.flows), (5, 1, 6));
}

#[test]
fn the_oldest_of_its_kind_goes_and_one_that_is_heard_of_is_not_old() {
    let table = table::<u64>(100);
    (0..100).for_each(|n| assert!(add(&table, udp(LINK_A, n), None, at(u64::from(n) / 10))));
    assert!(touch(&table, &udp(LINK_A, 0), None, at(11)));
    assert!(add(&table, udp(LINK_A, 100), None, at(12)));
    assert!(table.peek(&udp(LINK_A, 1)).is_none());
    assert!(table.peek(&udp(LINK_A, 0)).is_some());
}

#[test]
fn established_connections_outlive_a_flood_of_ten_times_the_table() {
    const FLOWS: u32 = 16_384;
    let table = table::<u64>(FLOWS as usize);
    assert_eq!(table.shards(), 16);
    let good: Vec<_> = (0..1000).map(|n| tcp(LINK_A, n)).collect();
    good.iter().for_each(|&key| establish(&table, key, at(0)));
    for n in 0..FLOWS * 10 {
        let now = Now(at(1).0 + u64::from(n) * 1000);
        assert!(
            add(&table, tcp(LINK_A, 100_000 + n), Some(SYN), now),
            "new ones come in"
        );
        if n % 8 == 0 {
            let flow = udp(LINK_B, 100_000 + n);
            assert!(add(&table, flow, None, now));
        }
        assert!(table.stats().flows <= FLOWS as usize);
    }
    for key in &good {
        assert_eq!(state(&table, key), Some(FlowState::Established));
        assert!(touch(&table, &key.reversed(), Some(ACK), at(2)));
    }
    check(&table);
}

#[test]
fn a_flood_of_datagrams_leaves_time_for_handshakes_and_one_of_syns_spares_datagrams() {
    const FLOWS: u32 = 4096;
    let table = table::<u64>(FLOWS as usize);
    for n in 0..100 {
        assert!(add(&table, tcp(LINK_A, n), Some(SYN), at(0)));
    }
    for n in 0..FLOWS * 10 {
        assert!(add(&table, udp(LINK_A, n), None, at(1)));
    }
    (0..100).for_each(|n| assert_eq!(state(&table, &tcp(LINK_A, n)), Some(FlowState::SynSent)));
    for n in 0..FLOWS * 10 {
        assert!(add(&table, tcp(LINK_A, 1000 + n), Some(SYN), at(2)));
    }
    let mut datagrams = 0;
    table.for_each(at(2), |flow| {
        datagrams += u32::from(flow.state == FlowState::Udp);
    });
    assert!(datagrams > FLOWS * 3 / 4, "{datagrams}");
    check(&table);
}

#[test]
fn a_link_finds_its_part_however_many_flows_another_wants() {
    const FLOWS: u32 = 8192;
    let table = table::<u64>(FLOWS as usize);
    table.set_links(2);
    for n in 0..FLOWS {
        let key = tcp(LINK_A, n);
        if add(&table, key, Some(SYN), at(0)) {
            assert!(touch(&table, &key.reversed(), Some(SYN_ACK), at(0)));
            assert!(touch(&table, &key, Some(ACK), at(0)));
        }
    }
    let part = FLOWS as usize / 2;
    assert_eq!(table.link_flows(LINK_A), part);
    assert_eq!(table.stats().refused, u64::from(FLOWS) / 2);
    for n in 0..FLOWS * 2 {
        assert!(add(&table, udp(LINK_B, n), None, at(1)));
    }
    assert_eq!(
        (table.link_flows(LINK_A), table.link_flows(LINK_B)),
        (part, part)
    );
    (0..FLOWS / 2).for_each(|n| assert!(touch(&table, &tcp(LINK_A, n), Some(ACK), at(2))));
    check(&table);
}

#[test]
fn a_link_that_comes_late_takes_what_another_has_above_its_part_and_no_more() {
    const FLOWS: u32 = 4096;
    let table = table::<u64>(FLOWS as usize);
    for n in 0..100 {
        establish(&table, tcp(LINK_A, n), at(0));
    }
    (0..FLOWS * 2).for_each(|n| assert!(add(&table, tcp(LINK_A, 1000 + n), Some(SYN), at(0))));
    assert_eq!(table.link_flows(LINK_A), FLOWS as usize);
    for n in 0..FLOWS * 2 {
        assert!(add(&table, udp(LINK_B, n), None, at(1)));
    }
    let half = FLOWS as usize / 2;
    assert_eq!(
        (table.link_flows(LINK_A), table.link_flows(LINK_B)),
        (half, half)
    );
    (0..100).for_each(|n| assert_eq!(state(&table, &tcp(LINK_A, n)), Some(FlowState::Established)));
    check(&table);
}

#[test]
fn what_is_evicted_and_refused_is_counted_for_the_link_that_loses_it() {
    const FLOWS: u32 = 4096;
    let table = table::<u64>(FLOWS as usize);
    (0..FLOWS).for_each(|n| establish(&table, tcp(LINK_A, n), at(0)));
    assert!(!add(&table, tcp(LINK_A, FLOWS), Some(SYN), at(1)));
    let a = table.link_stats(LINK_A);
    assert_eq!((a.flows, a.limit), (FLOWS as usize, FLOWS as usize));
    assert_eq!((a.evicted, a.refused), (0, 1));
    assert!(touch(&table, &tcp(LINK_A, 7), Some(RST), at(1)));
    assert!(add(&table, udp(LINK_B, 0), None, at(2)));
    assert_eq!(table.link_stats(LINK_A).evicted, 1);
    let b = table.link_stats(LINK_B);
    assert_eq!((b.flows, b.limit, b.evicted), (1, FLOWS as usize / 2, 0));
    table.remove_link(LINK_A);
    let a = table.link_stats(LINK_A);
    assert_eq!((a.flows, a.evicted, a.refused), (0, 0, 0));
}
