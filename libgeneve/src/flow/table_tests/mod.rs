//! Tests of the flow table: lookup and counters; eviction, fairness and sharing; comparison with a model.

mod eviction;
mod fairness;
#[cfg(shuttle)]
mod interleavings;
mod model;
mod sharing;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::super::admission::InsertError;
use super::*;
use crate::flow::{FlowState, TcpSegment};
use crate::wire::ip::protocol;
use crate::wire::transport::TcpFlags;

const LINK_A: LinkIndex = LinkIndex(1);
const LINK_B: LinkIndex = LinkIndex(2);
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

/// A packet; with flags, a segment of a connection on which only SYNs were sent.
fn seen(flags: Option<TcpFlags>) -> PacketUpdate {
    let number = |flags: TcpFlags| u32::from(!flags.contains(SYN));
    PacketUpdate {
        tcp: flags.map(|flags| TcpSegment {
            flags,
            seq: number(flags),
            ack: 1,
            len: 0,
        }),
        packets: 1,
        bytes: 100,
    }
}

fn table<D: Clone>(flows: usize) -> FlowTable<D> {
    let limits = FlowLimits {
        flows,
        ..FlowLimits::default()
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
        FlowLookup::Hit(())
    )
}

fn establish(table: &FlowTable<u64>, key: FlowKey, now: Now) {
    assert!(add(table, key, Some(SYN), now));
    assert!(touch(table, &key.reversed(), Some(SYN_ACK), now));
    assert!(touch(table, &key, Some(ACK), now));
}

fn state(table: &FlowTable<u64>, key: &FlowKey) -> Option<FlowState> {
    let mut found = None;
    table.for_each(Now(0), |flow| {
        if flow.original == key {
            found = Some(flow.state);
        }
    });
    found
}

/// Checks that all counts match the flows in the table.
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
    let flow = tcp(LINK_A, 1);
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
    assert_eq!(found, FlowLookup::Hit((FlowDirection::Reply, 8)));
    let found = table.hit(&flow, &seen(Some(ACK)), at(2), 3, read);
    assert_eq!(found, FlowLookup::Hit((FlowDirection::Original, 9)));
    let mut views = 0;
    table.for_each(at(3), |view| {
        views += 1;
        assert_eq!((view.packets, view.bytes), ([2, 1], [200, 100]));
        assert_eq!((view.created, view.seen), (at(1), at(2)));
        assert_eq!((view.state, view.epoch), (FlowState::Established, 3));
        assert_eq!(view.timeout, Duration::from_secs(432_000));
    });
    assert_eq!(views, 1);
    let elsewhere = FlowKey {
        link: LINK_B,
        ..flow
    };
    let found = table.hit(&elsewhere, &seen(None), at(2), 3, read);
    assert_eq!(found, FlowLookup::Miss);
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
    let flow = tcp(LINK_A, 1);
    establish(&table, flow, at(1));
    let stale = |epoch| match table.hit(
        &flow.reversed(),
        &seen(Some(RST)),
        at(2),
        epoch,
        |_, _, _, _| (),
    ) {
        FlowLookup::Stale(found) => Some((found.side, found.epoch, found.decision)),
        FlowLookup::Hit(()) => None,
        FlowLookup::Miss => panic!("the flow is there"),
    };
    assert_eq!(stale(5), Some((FlowDirection::Reply, 0, 0)));
    assert_eq!(state(&table, &flow), Some(FlowState::Established));
    assert!(table.renew(&flow.reversed(), flow.reversed(), 50, true, 5));
    assert_eq!(
        state(&table, &flow),
        Some(FlowState::Established),
        "what it knew stays"
    );
    assert!(table.renew(&flow, flow.reversed(), 40, false, 4));
    let kept = table.peek(&flow).unwrap();
    assert_eq!(
        (kept.decision, kept.epoch),
        (50, 5),
        "a later epoch has its way"
    );
    assert_eq!(stale(4), Some((FlowDirection::Reply, 5, 50)));
    assert_eq!(stale(5), None);
    assert!(!table.renew(&tcp(LINK_A, 2), flow, 1, false, 6));
    check(&table);
}

#[test]
fn replies_of_a_rewritten_flow_have_a_key_and_a_link_of_their_own() {
    let table = table::<u64>(10_000);
    let outside = |number: u16| FlowKey {
        link: LINK_B,
        src: "192.0.2.1".parse().unwrap(),
        dst: "198.51.100.7".parse().unwrap(),
        sport: 443,
        dport: 10_000 + number,
        protocol: protocol::TCP,
    };
    let flow = tcp(LINK_A, 1);
    let insert = |key, reply, now| table.insert(key, reply, 0, false, 0, &seen(Some(SYN)), at(now));
    assert_eq!(insert(flow, outside(1), 1), Ok(()));
    let side = |key| match table.hit(&key, &seen(None), at(2), 0, |side, _, _, _| side) {
        FlowLookup::Hit(side) => Some(side),
        _ => None,
    };
    assert_eq!(side(flow), Some(FlowDirection::Original));
    assert_eq!(side(outside(1)), Some(FlowDirection::Reply));
    assert_eq!(side(flow.reversed()), None);
    assert_eq!(side(outside(1).reversed()), None);
    assert_eq!(table.peek(&outside(1)).unwrap().original, flow);
    check(&table);

    let taken = Err(InsertError::Conflict);
    assert_eq!(insert(tcp(LINK_A, 2), outside(1), 2), taken);
    assert_eq!(insert(outside(1).reversed(), outside(1), 2), taken);
    assert_eq!(
        insert(outside(1), outside(2), 2),
        Err(InsertError::Exists),
        "an alias is a key as well"
    );
    assert_eq!(insert(tcp(LINK_A, 3), tcp(LINK_A, 3), 2), taken);
    assert_eq!(table.stats().conflicts, 3);
    check(&table);

    assert!(table.renew(&outside(1), outside(2), 1, false, 1));
    assert!(table.peek(&outside(1)).is_none() && table.peek(&outside(2)).is_some());
    assert!(table.renew(&flow, flow.reversed(), 1, false, 2));
    assert!(table.peek(&outside(2)).is_none() && table.peek(&flow.reversed()).is_some());
    assert!(table.renew(&flow, outside(3), 1, false, 3));
    assert_eq!(insert(tcp(LINK_A, 4), outside(4), 2), Ok(()));
    assert!(!table.renew(&flow, outside(4), 1, false, 4));
    assert!(table.peek(&flow).is_none() && table.peek(&outside(4)).is_some());
    check(&table);
    table.remove_link(LINK_B);
    assert_eq!(table.stats().flows, 0);
    check(&table);
}

#[test]
fn the_key_of_replies_is_free_again_when_its_flow_is_over() {
    let table = table::<u64>(10_000);
    let reply = tcp(LINK_B, 9);
    let insert = |key, reply, now| table.insert(key, reply, 0, false, 0, &seen(Some(SYN)), at(now));
    assert_eq!(insert(tcp(LINK_A, 1), reply, 0), Ok(()));
    assert_eq!(
        insert(tcp(LINK_A, 2), reply, 119),
        Err(InsertError::Conflict)
    );
    assert_eq!(insert(tcp(LINK_A, 2), reply, 120), Ok(()));
    assert_eq!(table.peek(&reply).unwrap().original, tcp(LINK_A, 2));
    assert_eq!(insert(reply, reply.reversed(), 240), Ok(()));
    assert_eq!(table.stats().expired, 2);
    check(&table);
}

#[test]
fn a_flow_ends_when_its_state_has_lasted_too_long() {
    let table = table::<u64>(10_000);
    establish(&table, tcp(LINK_A, 1), at(0));
    establish(&table, tcp(LINK_A, 2), at(0));
    assert!(touch(&table, &tcp(LINK_A, 2), Some(RST), at(0)));
    assert!(add(&table, udp(LINK_A, 3), None, at(0)));
    assert!(add(&table, udp(LINK_A, 4), None, at(0)));
    assert!(touch(&table, &udp(LINK_A, 4).reversed(), None, at(0)));
    assert!(add(&table, tcp(LINK_A, 5), Some(SYN), at(0)));
    assert_eq!(table.expire(at(9)), 0);
    assert_eq!(table.expire(at(10)), 1);
    assert!(table.peek(&tcp(LINK_A, 2)).is_none());
    assert!(touch(&table, &udp(LINK_A, 3), None, at(29)));
    assert!(!touch(&table, &udp(LINK_A, 3), None, at(59)));
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
    assert!(add(&table, udp(LINK_A, 1), None, at(0)));
    assert!(touch(&table, &udp(LINK_A, 1), None, Now(999_999_999)));
    assert_eq!(table.expire(at(30)), 0);
    assert_eq!(table.expire(at(31)), 1);
}

#[test]
fn new_limits_hold_for_the_flows_that_are_there() {
    let table = table::<u64>(100);
    (0..50).for_each(|n| assert!(add(&table, udp(LINK_A, n), None, at(0))));
    let mut limits = FlowLimits {
        flows: 10,
        timeouts: Timeouts::default(),
    };
    limits.timeouts.udp = Duration::from_secs(5);
    table.set_limits(&limits);
    assert!(
        add(&table, udp(LINK_A, 50), None, at(1)),
        "in another's place"
    );
    assert_eq!((table.stats().flows, table.stats().limit), (50, 10));
    assert_eq!(table.expire(at(5)), 49);
    check(&table);
}
