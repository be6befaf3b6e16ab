//! Tests of the flow table: what is found, what is counted, what has to go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::admission::InsertError;
use super::*;
use crate::flow::State;
use crate::wire::ip::protocol;
use crate::wire::transport::TcpFlags;

const A: LinkIndex = LinkIndex(1);
const B: LinkIndex = LinkIndex(2);
const SYN: TcpFlags = TcpFlags::SYN;
const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags(0x12);
const RST: TcpFlags = TcpFlags::RST;

fn at(seconds: u64) -> Now {
    Now(seconds * 1_000_000_000)
}

fn key(link: LinkIndex, protocol: u8, number: u32) -> FlowKey {
    FlowKey {
        link,
        src: IpAddr::from((0x0a00_0000 + number / 50_000).to_be_bytes()),
        dst: IpAddr::from([10, 255, 0, 1]),
        protocol,
        sport: (number % 50_000) as u16 + 1024,
        dport: 443,
    }
}

fn tcp(link: LinkIndex, number: u32) -> FlowKey {
    key(link, protocol::TCP, number)
}

fn udp(link: LinkIndex, number: u32) -> FlowKey {
    key(link, protocol::UDP, number)
}

fn seen(flags: Option<TcpFlags>) -> Seen {
    Seen {
        tcp: flags,
        packets: 1,
        bytes: 100,
    }
}

fn table<D: Clone>(flows: usize) -> FlowTable<D> {
    let limits = Limits {
        flows,
        ..Limits::default()
    };
    FlowTable::new(limits, [1, 2])
}

fn add(table: &FlowTable<u64>, key: FlowKey, flags: Option<TcpFlags>, now: Now) -> bool {
    table
        .insert(key, key.reversed(), 0, false, 0, &seen(flags), now)
        .is_ok()
}

fn touch(table: &FlowTable<u64>, key: &FlowKey, flags: Option<TcpFlags>, now: Now) -> bool {
    matches!(
        table.hit(key, &seen(flags), now, 0, |_, _, _, _| ()),
        Lookup::Hit(())
    )
}

fn establish(table: &FlowTable<u64>, key: FlowKey, now: Now) {
    assert!(add(table, key, Some(SYN), now));
    assert!(touch(table, &key.reversed(), Some(SYN_ACK), now));
    assert!(touch(table, &key, Some(ACK), now));
}

fn state(table: &FlowTable<u64>, key: &FlowKey) -> Option<State> {
    let mut found = None;
    table.for_each(Now(0), |flow| {
        if flow.original == key {
            found = Some(flow.state);
        }
    });
    found
}

/// Every count agrees with what is there.
fn check<D: Clone>(table: &FlowTable<D>) {
    let mut by_link: HashMap<LinkIndex, usize> = HashMap::new();
    let mut rewritten = 0;
    table.for_each(Now(0), |flow| {
        *by_link.entry(flow.original.link).or_default() += 1;
        rewritten += usize::from(*flow.reply != flow.original.reversed());
    });
    let flows: usize = by_link.values().sum();
    assert_eq!(table.stats().flows, flows);
    for (&link, &count) in &by_link {
        assert_eq!(table.link_flows(link), count);
    }
    let over = |f: fn(&Shard<D>) -> usize| -> usize {
        (0..table.shards()).map(|n| f(&table.lock(n))).sum()
    };
    assert_eq!(over(Shard::listed), flows);
    assert_eq!(over(Shard::aliases), rewritten);
}

#[test]
fn both_directions_find_one_entry_and_count_for_themselves() {
    let table = table::<u64>(100);
    let flow = tcp(A, 1);
    table
        .insert(flow, flow.reversed(), 7, false, 3, &seen(Some(SYN)), at(1))
        .unwrap();
    let read = |side, original: &FlowKey, reply: &FlowKey, decision: &mut u64| {
        assert_eq!((*original, *reply), (flow, flow.reversed()));
        *decision += 1;
        (side, *decision)
    };
    let back = flow.reversed();
    let found = table.hit(&back, &seen(Some(SYN_ACK)), at(2), 3, read);
    assert_eq!(found, Lookup::Hit((Side::Reply, 8)));
    let found = table.hit(&flow, &seen(Some(ACK)), at(2), 3, read);
    assert_eq!(found, Lookup::Hit((Side::Original, 9)));
    let mut views = 0;
    table.for_each(at(3), |view| {
        views += 1;
        assert_eq!((view.packets, view.bytes), ([2, 1], [200, 100]));
        assert_eq!((view.created, view.seen), (at(1), at(2)));
        assert_eq!((view.state, view.epoch), (State::Established, 3));
        assert_eq!(view.timeout, Duration::from_secs(432_000));
    });
    assert_eq!(views, 1);
    let elsewhere = FlowKey { link: B, ..flow };
    let found = table.hit(&elsewhere, &seen(None), at(2), 3, read);
    assert_eq!(found, Lookup::Miss);
    assert_eq!(
        table.insert(flow, back, 1, false, 3, &seen(None), at(3)),
        Err(InsertError::Exists)
    );
    assert_eq!(
        table.insert(back, flow, 1, false, 3, &seen(None), at(3)),
        Err(InsertError::Exists)
    );
    check(&table);
    assert!(table.remove(&back) && !table.remove(&flow));
    check(&table);
}

#[test]
fn a_flow_of_another_epoch_is_stale_until_it_is_renewed() {
    let table = table::<u64>(100);
    let flow = tcp(A, 1);
    establish(&table, flow, at(1));
    let stale = |epoch| match table.hit(
        &flow.reversed(),
        &seen(Some(RST)),
        at(2),
        epoch,
        |_, _, _, _| (),
    ) {
        Lookup::Stale(found) => Some((found.side, found.epoch, found.decision)),
        Lookup::Hit(()) => None,
        Lookup::Miss => panic!("the flow is there"),
    };
    assert_eq!(stale(5), Some((Side::Reply, 0, 0)));
    assert_eq!(state(&table, &flow), Some(State::Established));
    assert!(table.renew(&flow.reversed(), flow.reversed(), 50, true, 5));
    assert_eq!(
        state(&table, &flow),
        Some(State::Established),
        "what it knew stays"
    );
    assert!(table.renew(&flow, flow.reversed(), 40, false, 4));
    let kept = table.peek(&flow).unwrap();
    assert_eq!(
        (kept.decision, kept.epoch),
        (50, 5),
        "a later epoch has its way"
    );
    assert_eq!(stale(4), Some((Side::Reply, 5, 50)));
    assert_eq!(stale(5), None);
    assert!(!table.renew(&tcp(A, 2), flow, 1, false, 6));
    check(&table);
}

#[test]
fn replies_of_a_rewritten_flow_have_a_key_and_a_link_of_their_own() {
    let table = table::<u64>(10_000);
    let outside = |number: u16| FlowKey {
        link: B,
        src: "192.0.2.1".parse().unwrap(),
        dst: "198.51.100.7".parse().unwrap(),
        sport: 443,
        dport: 10_000 + number,
        protocol: protocol::TCP,
    };
    let flow = tcp(A, 1);
    let insert = |key, reply, now| table.insert(key, reply, 0, false, 0, &seen(Some(SYN)), at(now));
    assert_eq!(insert(flow, outside(1), 1), Ok(()));
    let side = |key| match table.hit(&key, &seen(None), at(2), 0, |side, _, _, _| side) {
        Lookup::Hit(side) => Some(side),
        _ => None,
    };
    assert_eq!(side(flow), Some(Side::Original));
    assert_eq!(side(outside(1)), Some(Side::Reply));
    assert_eq!(side(flow.reversed()), None);
    assert_eq!(side(outside(1).reversed()), None);
    assert_eq!(table.peek(&outside(1)).unwrap().original, flow);
    check(&table);

    let taken = Err(InsertError::Conflict);
    assert_eq!(insert(tcp(A, 2), outside(1), 2), taken);
    assert_eq!(insert(outside(1).reversed(), outside(1), 2), taken);
    assert_eq!(
        insert(outside(1), outside(2), 2),
        Err(InsertError::Exists),
        "an alias is a key as well"
    );
    assert_eq!(insert(tcp(A, 3), tcp(A, 3), 2), taken);
    assert_eq!(table.stats().conflicts, 3);
    check(&table);

    assert!(table.renew(&outside(1), outside(2), 1, false, 1));
    assert!(table.peek(&outside(1)).is_none() && table.peek(&outside(2)).is_some());
    assert!(table.renew(&flow, flow.reversed(), 1, false, 2));
    assert!(table.peek(&outside(2)).is_none() && table.peek(&flow.reversed()).is_some());
    assert!(table.renew(&flow, outside(3), 1, false, 3));
    assert_eq!(insert(tcp(A, 4), outside(4), 2), Ok(()));
    assert!(!table.renew(&flow, outside(4), 1, false, 4));
    assert!(table.peek(&flow).is_none() && table.peek(&outside(4)).is_some());
    check(&table);
    table.remove_link(B);
    assert_eq!(table.stats().flows, 0);
    check(&table);
}

#[test]
fn the_key_of_replies_is_free_again_when_its_flow_is_over() {
    let table = table::<u64>(10_000);
    let reply = tcp(B, 9);
    let insert = |key, reply, now| table.insert(key, reply, 0, false, 0, &seen(Some(SYN)), at(now));
    assert_eq!(insert(tcp(A, 1), reply, 0), Ok(()));
    assert_eq!(insert(tcp(A, 2), reply, 119), Err(InsertError::Conflict));
    assert_eq!(insert(tcp(A, 2), reply, 120), Ok(()));
    assert_eq!(table.peek(&reply).unwrap().original, tcp(A, 2));
    assert_eq!(insert(reply, reply.reversed(), 240), Ok(()));
    assert_eq!(table.stats().expired, 2);
    check(&table);
}

#[test]
fn a_flow_ends_when_its_state_has_lasted_too_long() {
    let table = table::<u64>(10_000);
    establish(&table, tcp(A, 1), at(0));
    establish(&table, tcp(A, 2), at(0));
    assert!(touch(&table, &tcp(A, 2), Some(RST), at(0)));
    assert!(add(&table, udp(A, 3), None, at(0)));
    assert!(add(&table, udp(A, 4), None, at(0)));
    assert!(touch(&table, &udp(A, 4).reversed(), None, at(0)));
    assert!(add(&table, tcp(A, 5), Some(SYN), at(0)));
    assert_eq!(table.expire(at(9)), 0);
    assert_eq!(table.expire(at(10)), 1);
    assert!(table.peek(&tcp(A, 2)).is_none());
    assert!(touch(&table, &udp(A, 3), None, at(29)));
    assert!(!touch(&table, &udp(A, 3), None, at(59)));
    assert_eq!(table.stats().flows, 3);
    assert_eq!(table.expire(at(120)), 2);
    assert_eq!(table.expire(at(431_999)), 0);
    assert_eq!(table.expire(at(432_000)), 1);
    assert_eq!(table.stats().expired, 5);
    check(&table);
}

#[test]
fn a_flow_that_is_heard_of_between_moves_does_not_end_early() {
    let table = table::<u64>(100);
    assert!(add(&table, udp(A, 1), None, at(0)));
    assert!(touch(&table, &udp(A, 1), None, Now(999_999_999)));
    assert_eq!(table.expire(at(30)), 0);
    assert_eq!(table.expire(at(31)), 1);
}

#[test]
fn new_limits_hold_for_the_flows_that_are_there() {
    let table = table::<u64>(100);
    (0..50).for_each(|n| assert!(add(&table, udp(A, n), None, at(0))));
    let mut limits = Limits {
        flows: 10,
        timeouts: Timeouts::default(),
    };
    limits.timeouts.udp = Duration::from_secs(5);
    table.set_limits(&limits);
    assert!(add(&table, udp(A, 50), None, at(1)), "in another's place");
    assert_eq!((table.stats().flows, table.stats().limit), (50, 10));
    assert_eq!(table.expire(at(5)), 49);
    check(&table);
}

#[test]
fn room_is_made_by_what_is_worth_least() {
    let table = table::<u64>(6);
    let refused = udp(A, 0);
    let fin = tcp(A, 4);
    establish(&table, fin, at(0));
    assert!(touch(&table, &fin, Some(TcpFlags(0x11)), at(0)));
    establish(&table, tcp(A, 1), at(0));
    assert!(touch(&table, &tcp(A, 1), Some(RST), at(5)));
    assert!(add(&table, udp(A, 3), None, at(0)));
    assert!(add(&table, tcp(A, 2), Some(SYN), at(0)));
    establish(&table, tcp(A, 5), at(0));
    table
        .insert(refused, refused.reversed(), 0, true, 0, &seen(None), at(5))
        .unwrap();
    assert_eq!(table.stats().flows, 6);
    let victims = [refused, tcp(A, 1), tcp(A, 2), udp(A, 3), fin];
    for (n, victim) in (10..).zip(victims) {
        assert!(table.peek(&victim).is_some());
        establish(&table, tcp(A, n), at(6));
        assert!(table.peek(&victim).is_none(), "{victim:?}");
        check(&table);
    }
    assert!(!add(&table, tcp(A, 20), Some(SYN), at(7)));
    let stats = table.stats();
    assert_eq!((stats.evicted, stats.refused, stats.flows), (5, 1, 6));
}

#[test]
fn the_oldest_of_its_kind_goes_and_one_that_is_heard_of_is_not_old() {
    let table = table::<u64>(100);
    (0..100).for_each(|n| assert!(add(&table, udp(A, n), None, at(u64::from(n) / 10))));
    assert!(touch(&table, &udp(A, 0), None, at(11)));
    assert!(add(&table, udp(A, 100), None, at(12)));
    assert!(table.peek(&udp(A, 1)).is_none());
    assert!(table.peek(&udp(A, 0)).is_some());
}

#[test]
fn established_connections_outlive_a_flood_of_ten_times_the_table() {
    const FLOWS: u32 = 16_384;
    let table = table::<u64>(FLOWS as usize);
    assert_eq!(table.shards(), 16);
    let good: Vec<_> = (0..1000).map(|n| tcp(A, n)).collect();
    good.iter().for_each(|&key| establish(&table, key, at(0)));
    for n in 0..FLOWS * 10 {
        let now = Now(at(1).0 + u64::from(n) * 1000);
        assert!(
            add(&table, tcp(A, 100_000 + n), Some(SYN), now),
            "new ones come in"
        );
        if n % 8 == 0 {
            let flow = udp(B, 100_000 + n);
            assert!(add(&table, flow, None, now));
        }
        assert!(table.stats().flows <= FLOWS as usize);
    }
    for key in &good {
        assert_eq!(state(&table, key), Some(State::Established));
        assert!(touch(&table, &key.reversed(), Some(ACK), at(2)));
    }
    check(&table);
}

#[test]
fn a_flood_of_datagrams_leaves_time_for_handshakes_and_one_of_syns_spares_datagrams() {
    const FLOWS: u32 = 4096;
    let table = table::<u64>(FLOWS as usize);
    for n in 0..100 {
        assert!(add(&table, tcp(A, n), Some(SYN), at(0)));
    }
    for n in 0..FLOWS * 10 {
        assert!(add(&table, udp(A, n), None, at(1)));
    }
    (0..100).for_each(|n| assert_eq!(state(&table, &tcp(A, n)), Some(State::SynSent)));
    for n in 0..FLOWS * 10 {
        assert!(add(&table, tcp(A, 1000 + n), Some(SYN), at(2)));
    }
    let mut datagrams = 0;
    table.for_each(at(2), |flow| {
        datagrams += u32::from(flow.state == State::Udp);
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
        let key = tcp(A, n);
        if add(&table, key, Some(SYN), at(0)) {
            assert!(touch(&table, &key.reversed(), Some(SYN_ACK), at(0)));
            assert!(touch(&table, &key, Some(ACK), at(0)));
        }
    }
    let part = FLOWS as usize / 2;
    assert_eq!(table.link_flows(A), part);
    assert_eq!(table.stats().refused, u64::from(FLOWS) / 2);
    for n in 0..FLOWS * 2 {
        assert!(add(&table, udp(B, n), None, at(1)));
    }
    assert_eq!((table.link_flows(A), table.link_flows(B)), (part, part));
    (0..FLOWS / 2).for_each(|n| assert!(touch(&table, &tcp(A, n), Some(ACK), at(2))));
    check(&table);
}

#[test]
fn a_link_that_comes_late_takes_what_another_has_above_its_part_and_no_more() {
    const FLOWS: u32 = 4096;
    let table = table::<u64>(FLOWS as usize);
    for n in 0..100 {
        establish(&table, tcp(A, n), at(0));
    }
    (0..FLOWS * 2).for_each(|n| assert!(add(&table, tcp(A, 1000 + n), Some(SYN), at(0))));
    assert_eq!(table.link_flows(A), FLOWS as usize);
    for n in 0..FLOWS * 2 {
        assert!(add(&table, udp(B, n), None, at(1)));
    }
    let half = FLOWS as usize / 2;
    assert_eq!((table.link_flows(A), table.link_flows(B)), (half, half));
    (0..100).for_each(|n| assert_eq!(state(&table, &tcp(A, n)), Some(State::Established)));
    check(&table);
}

/// A decision that uses the table when it goes, as one would that owns a lease on something.
#[derive(Clone)]
struct Lease(#[allow(dead_code)] Arc<Guard>);

struct Guard(std::sync::Weak<FlowTable<Lease>>, FlowKey);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(table) = self.0.upgrade() {
            // Locks every shard: a deadlock if the decision goes under a lock.
            table.for_each(Now(0), |_| ());
            let _ = table.peek(&self.1);
        }
    }
}

#[test]
fn decisions_go_without_a_lock_being_held() {
    let table = Arc::new(table::<Lease>(8));
    let insert = |n, now| {
        let lease = Lease(Arc::new(Guard(Arc::downgrade(&table), udp(A, n))));
        let key = udp(A, n);
        table.insert(key, key.reversed(), lease, false, 0, &seen(None), now)
    };
    (0..20).for_each(|n| insert(n, at(0)).unwrap());
    assert_eq!(insert(19, at(0)), Err(InsertError::Exists));
    let lease = Lease(Arc::new(Guard(Arc::downgrade(&table), udp(A, 0))));
    assert!(table.renew(&udp(A, 19), udp(A, 19).reversed(), lease, false, 1));
    assert!(table.remove(&udp(A, 19)));
    assert_eq!(table.flush(|flow| flow.original.sport % 2 == 0), 4);
    assert!(matches!(
        table.hit(&udp(A, 17), &seen(None), at(30), 0, |_, _, _, _| ()),
        Lookup::Miss
    ));
    assert_eq!(table.expire(at(30)), 2);
    insert(1, at(30)).unwrap();
    table.remove_link(A);
    assert_eq!(table.stats().flows, 0);
}

#[test]
fn a_panic_of_a_reader_leaves_the_table_usable() {
    let table = table::<u64>(8);
    assert!(add(&table, udp(A, 1), None, at(0)));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        table.hit(&udp(A, 1), &seen(None), at(1), 0, |_, _, _, _| {
            panic!("a reader's own")
        })
    }));
    assert!(result.is_err());
    assert!(touch(&table, &udp(A, 1), None, at(1)));
}

#[test]
fn several_threads_never_exceed_the_bound() {
    const FLOWS: usize = 3000;
    let table = table::<u64>(FLOWS);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let table = &table;
            scope.spawn(move || {
                for n in 0..20_000u32 {
                    let number = (n * 7 + thread * 3) % 9000;
                    let key = tcp(LinkIndex(thread % 3), number);
                    let reply = match number % 3 {
                        0 => tcp(LinkIndex(7), 20_000 + number % 500),
                        _ => key.reversed(),
                    };
                    let now = Now(u64::from(n) * 1_000_000);
                    let flags = [Some(SYN), Some(ACK), Some(RST)][(n / 3 % 3) as usize];
                    match table.hit(
                        &key,
                        &seen(flags),
                        now,
                        u64::from(n / 5000),
                        |_, _, _, _| (),
                    ) {
                        Lookup::Hit(()) if n % 11 == 0 => drop(table.remove(&reply)),
                        Lookup::Hit(()) => {}
                        Lookup::Stale(found) => {
                            table.renew(
                                &found.original,
                                found.reply,
                                1,
                                false,
                                u64::from(n / 5000),
                            );
                        }
                        Lookup::Miss => {
                            let epoch = u64::from(n / 5000);
                            let _ =
                                table.insert(key, reply, 0, n % 5 == 0, epoch, &seen(flags), now);
                        }
                    }
                    assert!(table.stats().flows <= FLOWS);
                    if n % 4096 == 0 {
                        table.expire(now);
                    }
                }
            });
        }
    });
    check(&table);
    table.flush(|_| true);
    check(&table);
}

#[test]
fn a_hit_allocates_nothing_and_an_idle_table_is_small() {
    let made = allocation_counter::measure(|| drop(table::<[u8; 120]>(262_144)));
    assert!(made.bytes_max < 8 << 20, "{} bytes", made.bytes_max);
    let table = table::<u64>(1000);
    establish(&table, tcp(A, 1), at(0));
    let reply = tcp(B, 900);
    let rewritten = tcp(A, 2);
    table
        .insert(rewritten, reply, 0, false, 0, &seen(Some(SYN)), at(0))
        .unwrap();
    let hits = allocation_counter::measure(|| {
        for n in 0..1000 {
            let now = at(n / 10);
            assert!(touch(&table, &tcp(A, 1), Some(ACK), now));
            assert!(touch(&table, &reply, Some(SYN_ACK), now));
            assert!(!touch(&table, &tcp(A, 3), Some(ACK), now));
        }
    });
    assert_eq!(hits.count_total, 0);
}

#[test]
fn a_million_flows_fit_into_400_mib() {
    // A part of them, in a table whose index is made for that part.
    const FLOWS: u32 = 1 << 16;
    let all = |rewritten: bool| {
        let used = allocation_counter::measure(|| {
            let table = table::<[u8; 120]>(FLOWS as usize);
            for n in 0..FLOWS {
                let key = udp(A, n);
                let reply = if rewritten { udp(B, n) } else { key.reversed() };
                table
                    .insert(key, reply, [0; 120], false, 0, &seen(None), at(0))
                    .unwrap();
            }
        });
        (used.bytes_max * 1_000_000 / u64::from(FLOWS)) >> 20
    };
    let (plain, rewritten) = (all(false), all(true));
    assert!(plain <= 350 && rewritten <= 410, "{plain} {rewritten} MiB");
}

/// What a test does next; numbers are small so that flows meet.
#[derive(Clone, Debug)]
enum Step {
    Insert {
        flow: u8,
        reply: Option<u8>,
        refused: bool,
        flags: u8,
    },
    Packet {
        flow: u8,
        back: bool,
        flags: u8,
    },
    Renew {
        flow: u8,
        reply: Option<u8>,
        refused: bool,
    },
    Remove {
        flow: u8,
    },
    RemoveLink(u8),
    Flush(u8),
    Expire,
    Wait(u16),
    Epoch,
}

fn step() -> impl Strategy<Value = Step> {
    let flow = || 0u8..24;
    let reply = || prop_oneof![2 => Just(None), 1 => (0u8..8).prop_map(Some)];
    let flags = || prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x10, 0x11, 0x04]);
    prop_oneof![
        6 => (flow(), reply(), any::<bool>(), flags())
            .prop_map(|(flow, reply, refused, flags)| Step::Insert { flow, reply, refused, flags }),
        8 => (flow(), any::<bool>(), flags())
            .prop_map(|(flow, back, flags)| Step::Packet { flow, back, flags }),
        2 => (flow(), reply(), any::<bool>())
            .prop_map(|(flow, reply, refused)| Step::Renew { flow, reply, refused }),
        1 => flow().prop_map(|flow| Step::Remove { flow }),
        1 => (0u8..4).prop_map(Step::RemoveLink),
        1 => (0u8..5).prop_map(Step::Flush),
        2 => Just(Step::Expire),
        3 => (0u16..2000).prop_map(Step::Wait),
        1 => Just(Step::Epoch),
    ]
}

/// Flows 0 to 23, over three links and two protocols.
fn numbered(flow: u8) -> FlowKey {
    let protocol = [protocol::TCP, protocol::UDP][usize::from(flow & 1)];
    key(LinkIndex(u32::from(flow % 3)), protocol, u32::from(flow))
}

/// What replies to rewritten flows look like; some are the replies of others, some packets of others.
fn rewritten(number: u8) -> FlowKey {
    match number {
        0..6 => FlowKey {
            dst: IpAddr::from([192, 0, 2, 1]),
            ..key(LinkIndex(3), protocol::TCP, u32::from(number))
        },
        _ => numbered(number).reversed(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    reply: FlowKey,
    decision: u32,
    epoch: u64,
    seen: Now,
    packets: [u64; 2],
}

/// A flow table that is nothing but a map.
#[derive(Default)]
struct Model(HashMap<FlowKey, Known>);

impl Model {
    fn find(&self, key: &FlowKey) -> Option<(FlowKey, Side)> {
        if self.0.contains_key(key) {
            return Some((*key, Side::Original));
        }
        let mut flows = self.0.iter().filter(|(_, flow)| flow.reply == *key);
        flows.next().map(|(original, _)| (*original, Side::Reply))
    }

    /// Forgets what the table has evicted or ended, which only it knows when.
    fn follow(&mut self, table: &FlowTable<u32>) {
        self.0.retain(|key, _| table.peek(key).is_some());
    }
}

fn run(limit: usize, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let table = table::<u32>(limit);
    let mut model = Model::default();
    let (mut now, mut epoch, mut decision) = (at(1), 0, 0);
    let shortest = at(10).0;
    for step in steps {
        decision += 1;
        match step {
            Step::Insert {
                flow,
                reply,
                refused,
                flags,
            } => {
                let key = numbered(flow);
                let reply = reply.map_or(key.reversed(), rewritten);
                let what = seen(Some(TcpFlags(flags)));
                let result = table.insert(key, reply, decision, refused, epoch, &what, now);
                model.follow(&table);
                match result {
                    Ok(()) => {
                        model.0.retain(|k, f| {
                            *k == key || [*k, f.reply].iter().all(|k| *k != key && *k != reply)
                        });
                        let known = Known {
                            reply,
                            decision,
                            epoch,
                            seen: now,
                            packets: [1, 0],
                        };
                        model.0.insert(key, known);
                    }
                    Err(InsertError::Exists) => prop_assert!(model.find(&key).is_some()),
                    Err(InsertError::Conflict) => {
                        prop_assert!(model.find(&reply).is_some() || reply == key);
                    }
                    Err(InsertError::Full) => prop_assert!(table.stats().flows <= limit),
                }
            }
            Step::Packet { flow, back, flags } => {
                let key = numbered(flow);
                let key = match model.0.get(&key) {
                    Some(known) if back => known.reply,
                    _ if back => key.reversed(),
                    _ => key,
                };
                let read = |side, original: &FlowKey, reply: &FlowKey, decision: &mut u32| {
                    (side, *original, *reply, *decision)
                };
                let what = seen(Some(TcpFlags(flags)));
                let found = table.hit(&key, &what, now, epoch, read);
                let expected = model.find(&key);
                match (found, expected) {
                    (Lookup::Hit((side, original, reply, decision)), Some(expected)) => {
                        prop_assert_eq!((original, side), expected);
                        let known = model.0.get_mut(&original).unwrap();
                        prop_assert_eq!(
                            (reply, decision, epoch),
                            (known.reply, known.decision, known.epoch)
                        );
                        known.seen = now;
                        known.packets[side as usize] += 1;
                    }
                    (Lookup::Stale(found), Some(expected)) => {
                        prop_assert_eq!((found.original, found.side), expected);
                        prop_assert_ne!(found.epoch, epoch);
                    }
                    (Lookup::Miss, None) => {}
                    (Lookup::Miss, Some((original, _))) => {
                        let silent = now.0 - model.0[&original].seen.0;
                        prop_assert!(silent >= shortest, "a live flow was missed");
                        model.0.remove(&original);
                    }
                    (found, expected) => prop_assert!(false, "{found:?} for {expected:?}"),
                }
            }
            Step::Renew {
                flow,
                reply,
                refused,
            } => {
                let key = numbered(flow);
                let reply = reply.map_or(key.reversed(), rewritten);
                let other = model.find(&reply).filter(|(k, _)| *k != key);
                // A map cannot tell which of its flows are over; a conflict with one is a conflict.
                if model.0.contains_key(&key) {
                    let renewed = table.renew(&key, reply, decision, refused, epoch);
                    let known = model.0.get_mut(&key).unwrap();
                    prop_assert_eq!(
                        renewed,
                        reply == known.reply || (other.is_none() && reply != key)
                    );
                    if renewed {
                        (known.reply, known.decision, known.epoch) = (reply, decision, epoch);
                    } else {
                        model.0.remove(&key);
                    }
                }
            }
            Step::Remove { flow } => {
                let key = numbered(flow);
                let expected = model.find(&key);
                prop_assert_eq!(table.remove(&key), expected.is_some());
                expected.map(|(original, _)| model.0.remove(&original));
            }
            Step::RemoveLink(link) => {
                let link = LinkIndex(u32::from(link));
                table.remove_link(link);
                model
                    .0
                    .retain(|key, flow| key.link != link && flow.reply.link != link);
            }
            Step::Flush(part) => {
                let chosen = |key: &FlowKey| key.sport % 5 == u16::from(part);
                let before = model.0.len();
                model.0.retain(|key, _| !chosen(key));
                let ended = table.flush(|flow| chosen(flow.original));
                prop_assert_eq!(ended, (before - model.0.len()) as u64);
            }
            Step::Expire => {
                table.expire(now);
                for (key, known) in &model.0 {
                    let silent = now.0 - known.seen.0;
                    prop_assert!(silent >= shortest || table.peek(key).is_some());
                }
                model.follow(&table);
            }
            Step::Wait(hundredths) => now = Now(now.0 + u64::from(hundredths) * 10_000_000),
            Step::Epoch => epoch += 1,
        }
        prop_assert!(table.stats().flows <= limit);
        prop_assert_eq!(table.stats().flows, model.0.len());
        let mut agree = 0;
        table.for_each(Now(0), |flow| {
            let known = model.0.get(flow.original);
            agree += usize::from(
                known.is_some_and(|k| (k.packets, k.reply) == (flow.packets, *flow.reply)),
            );
        });
        prop_assert_eq!(agree, model.0.len());
    }
    check(&table);
    Ok(())
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_map(steps in prop::collection::vec(step(), 1..200)) {
        run(1000, steps)?;
    }

    #[test]
    fn a_small_table_is_never_above_its_bound(
        limit in 0usize..10,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        run(limit, steps)?;
    }
}
