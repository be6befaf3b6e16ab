//! Tests of leases: against a model, and from two threads.

use super::*;
use crate::nat::resting_ports::REST_TIME;
use crate::nat::{Nat, NatRule};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const POOL_NOW: Now = Now(0);

fn pool(addresses: u8, ports: (u16, u16), forwards: &[u16]) -> Arc<NatPool> {
    let mut rules = vec![NatRule::Snat {
        name: "pool".into(),
        from: "10.0.0.0/8".parse().unwrap(),
        pool: [192, 0, 2, 1].into()..=[192, 0, 2, addresses].into(),
        ports: ports.0..=ports.1,
    }];
    rules.extend(forwards.iter().map(|&port| NatRule::Dnat {
        name: format!("to {port}"),
        to: [192, 0, 2, 1].into(),
        port: Some((6, port)),
        target: [10, 0, 0, 200].into(),
        target_port: None,
    }));
    let nat = Nat::compile(LinkIndex(0), rules, &mut PoolRegistry::default()).unwrap();
    Arc::clone(nat.pools().next().unwrap().1)
}

fn inside(host: u8, port: u16) -> (IpAddr, u16) {
    ([10, 0, 0, host].into(), port)
}

#[derive(Clone, Debug)]
enum PoolStep {
    Lease { proto: u8, host: u8, port: u16 },
    Clone(prop::sample::Index),
    Drop(prop::sample::Index),
    Wait(u8),
}

fn steps() -> impl Strategy<Value = Vec<PoolStep>> {
    let proto = prop::sample::select(vec![6u8, 17, 1]);
    let lease = (proto, 0u8..6, 1000u16..1010).prop_map(|(proto, host, port)| PoolStep::Lease {
        proto,
        host,
        port,
    });
    let step = prop_oneof![
        4 => lease,
        1 => any::<prop::sample::Index>().prop_map(PoolStep::Clone),
        3 => any::<prop::sample::Index>().prop_map(PoolStep::Drop),
        1 => (1u8..100).prop_map(PoolStep::Wait),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #[test]
    fn mappings_are_a_bijection_while_they_live(
        steps in steps(), addresses in 1u8..4, low in 990u16..1005, count in 1u16..12,
        forwards in proptest::collection::hash_set(990u16..1010, 0..4),
    ) {
        let forwards: Vec<u16> = forwards.into_iter().collect();
        let pool = pool(addresses, (low, low + count - 1), &forwards);
        let mut live: Vec<(u8, (IpAddr, u16), PortLease)> = Vec::new();
        let mut now = POOL_NOW;
        for step in steps {
            match step {
                PoolStep::Lease { proto, host, port } => {
                    let from = inside(host, port);
                    let by_inside: HashMap<_, _> = live.iter().map(|(p, i, l)| ((*p, *i), l.outside())).collect();
                    let used: HashSet<_> = live.iter().filter(|l| l.0 == proto).map(|l| l.2.outside()).collect();
                    let total = pool.usage_of(proto).total;
                    let expected = pool.peek(None, proto, from, now);
                    let leased = pool.lease(proto, from, now);
                    prop_assert_eq!(expected.ok(), leased.as_ref().ok().map(PortLease::outside));
                    let known = by_inside.get(&(proto, from));
                    prop_assert_eq!(leased.is_err(), known.is_none() && used.len() as u64 == total);
                    let Ok(lease) = leased else { continue };
                    let (addr, port) = lease.outside();
                    match known {
                        Some(known) => prop_assert_eq!(*known, (addr, port)),
                        None => prop_assert!(!used.contains(&(addr, port)), "handed out twice"),
                    }
                    prop_assert!((low..low + count).contains(&port));
                    let first: IpAddr = [192, 0, 2, 1].into();
                    prop_assert!(proto != 6 || addr != first || !forwards.contains(&port));
                    live.push((proto, from, lease));
                }
                PoolStep::Clone(at) if !live.is_empty() => live.push(live[at.index(live.len())].clone()),
                PoolStep::Drop(at) if !live.is_empty() => drop(live.swap_remove(at.index(live.len()))),
                PoolStep::Wait(seconds) => now = now + std::time::Duration::from_secs(seconds.into()),
                PoolStep::Clone(_) | PoolStep::Drop(_) => {}
            }
            for proto in [6, 17, 1] {
                let used: HashSet<_> = live.iter().filter(|l| l.0 == proto).map(|l| l.2.outside()).collect();
                prop_assert_eq!(pool.usage_of(proto).in_use, used.len() as u64);
            }
        }
        drop(live);
        prop_assert_eq!(pool.usage().in_use, 0);
    }
}

#[test]
fn a_port_is_kept_where_it_can_be_and_an_inside_address_keeps_its_outside_one() {
    let pool = pool(8, (1024, 65535), &[]);
    let leases: Vec<_> = (2000..2100)
        .map(|port| pool.lease(17, inside(1, port), POOL_NOW).unwrap())
        .collect();
    let addr = leases[0].outside().0;
    for (lease, port) in leases.iter().zip(2000..) {
        assert_eq!(lease.outside(), (addr, port));
    }
    assert_ne!(
        pool.lease(17, inside(1, 80), POOL_NOW).unwrap().outside().1,
        80
    );
}

#[test]
fn an_exhausted_pool_gives_again_what_comes_back() {
    let pool = pool(2, (5000, 5099), &[]);
    let mut leases: Vec<_> = (0..200u16)
        .map(|n| pool.lease(6, inside((n % 7) as u8, n), POOL_NOW).unwrap())
        .collect();
    let distinct: HashSet<_> = leases.iter().map(PortLease::outside).collect();
    assert_eq!(distinct.len(), 200);
    let usage = PortUsage {
        in_use: 200,
        total: 200,
    };
    assert_eq!(pool.usage(), usage);
    assert_eq!(pool.lease(6, inside(9, 1), POOL_NOW), Err(Exhausted));
    assert_eq!(pool.peek(None, 6, inside(9, 1), POOL_NOW), Err(Exhausted));
    assert!(pool.lease(17, inside(9, 1), POOL_NOW).is_ok());
    assert!(
        pool.lease(6, inside(3, 3), POOL_NOW).is_ok(),
        "a known mapping needs no port"
    );

    let back = leases.swap_remove(77).outside();
    assert_eq!(
        pool.lease(6, inside(9, 1), POOL_NOW).unwrap().outside(),
        back
    );
    leases.clear();
    assert_eq!(pool.usage().in_use, 0);
}

#[test]
fn what_has_no_ports_or_the_other_family_gets_none() {
    let pool = pool(1, (5000, 5099), &[]);
    assert_eq!(pool.lease(47, inside(1, 1), POOL_NOW), Err(Exhausted));
    assert_eq!(
        pool.lease(6, ("fd00::1".parse().unwrap(), 1), POOL_NOW),
        Err(Exhausted)
    );
    assert_eq!(pool.usage_of(47), PortUsage::default());
}

#[test]
fn two_threads_never_get_the_same_port() {
    let pool = pool(2, (5000, 5999), &[]);
    let work = |thread: u8| {
        let pool = Arc::clone(&pool);
        move || {
            let mut live = std::collections::VecDeque::new();
            for n in 0..20_000u32 {
                // Both threads compete for every port of the pool and share some inside addresses.
                let from = inside((n % 5) as u8 + thread, (n % 1500) as u16);
                if let Ok(lease) = pool.lease(6, from, POOL_NOW) {
                    live.push_back((from, lease));
                }
                if live.len() > 1200 || n % 3 == 0 {
                    live.pop_front();
                }
            }
            live
        }
    };
    let (one, two) = std::thread::scope(|scope| {
        let (one, two) = (scope.spawn(work(0)), scope.spawn(work(3)));
        (one.join().unwrap(), two.join().unwrap())
    });
    let mut owners = HashMap::new();
    for (from, lease) in one.iter().chain(&two) {
        let owner = owners.entry(lease.outside()).or_insert(*from);
        assert_eq!(owner, from, "one port, two inside ports");
    }
    assert_eq!(pool.usage_of(6).in_use, owners.len() as u64);
    drop((one, two));
    assert_eq!(pool.usage().in_use, 0);
}

#[test]
fn a_port_of_tcp_that_comes_back_rests_before_another_gets_it() {
    let pool = pool(1, (5000, 5099), &[]);
    let outside = (IpAddr::from([192, 0, 2, 1]), 5000);
    let lease = |host, now| pool.lease(6, inside(host, 5000), now).unwrap();
    assert_eq!(lease(1, POOL_NOW).outside(), outside);
    assert_eq!(pool.usage_of(6).in_use, 0, "what rests is not in use");
    // Counted from the first lookup on, not from the last lease before it.
    let late = POOL_NOW + REST_TIME * 9;
    assert_ne!(lease(2, late).outside(), outside);
    assert_ne!(pool.peek(None, 6, inside(2, 5000), late), Ok(outside));
    let over = late + REST_TIME;
    assert_ne!(lease(3, Now(over.0 - 1)).outside(), outside);
    // The previous holder may have it again; only a live flow is found by it.
    assert_eq!(pool.space().lock().inside(&port(outside)), None);
    let again = lease(1, Now(over.0 - 1));
    assert_eq!(again.outside(), outside);
    assert!(pool.space().lock().inside(&port(outside)).is_some());
    assert_ne!(lease(4, over).outside(), outside, "it is in use");
    drop(again);
    assert_ne!(lease(6, over).outside(), outside, "it rests anew");
    assert_eq!(lease(5, over + REST_TIME).outside(), outside);
    // UDP has no such state.
    let ask = |host| {
        pool.lease(17, inside(host, 5000), POOL_NOW)
            .unwrap()
            .outside()
    };
    assert_eq!((ask(1), ask(2)), (outside, outside));
}

fn port((addr, number): (IpAddr, u16)) -> NatPort {
    let protocol = NatProtocol::Tcp;
    NatPort {
        protocol,
        addr,
        number,
    }
}

#[test]
fn where_nothing_else_is_left_the_port_that_rests_longest_is_given() {
    let pool = pool(1, (5000, 5003), &[5001]);
    let lease = |host, port| pool.lease(6, inside(host, port), POOL_NOW).unwrap();
    let mut held = vec![lease(1, 5000), lease(2, 5002), lease(3, 5003)];
    for (back, port) in [(1, 5002), (0, 5000), (0, 5003)] {
        assert_eq!(held.remove(back).outside().1, port);
    }
    let given: Vec<_> = (4..7).map(|host| lease(host, 9)).collect();
    let order: Vec<_> = given.iter().map(|lease| lease.outside().1).collect();
    assert_eq!(order, [5002, 5000, 5003]);
    assert_eq!(pool.lease(6, inside(7, 9), POOL_NOW), Err(Exhausted));
    // The previous holder has lost it.
    assert_eq!(pool.lease(6, inside(2, 5002), POOL_NOW), Err(Exhausted));
}

#[test]
fn a_new_pool_knows_what_rests() {
    let mut registry = PoolRegistry::default();
    let mut make = |high| {
        let rule = NatRule::Snat {
            name: "pool".into(),
            from: "10.0.0.0/8".parse().unwrap(),
            pool: [192, 0, 2, 1].into()..=[192, 0, 2, 1].into(),
            ports: 5000..=high,
        };
        let nat = Nat::compile(LinkIndex(0), vec![rule], &mut registry).unwrap();
        Arc::clone(nat.pools().next().unwrap().1)
    };
    let before = make(5000);
    drop(before.lease(6, inside(1, 5000), POOL_NOW));
    let after = make(5001);
    assert_eq!(after.usage_of(6).in_use, 0);
    let next = after.lease(6, inside(2, 5000), POOL_NOW).unwrap();
    assert_eq!(next.outside().1, 5001);
    let last = after.lease(6, inside(3, 5000), POOL_NOW).unwrap();
    assert_eq!(last.outside().1, 5000);
    drop((before, next, last));
    assert_eq!(after.usage_of(6).in_use, 0);
}

/// A client of a link that shares a pool, as the datapath sees it.
fn client(link: u8, host: u8, port: u16) -> (IpAddr, u16) {
    (IpAddr::from([10, link, 0, host]), port)
}

#[test]
fn a_greedy_consumer_and_a_greedy_address_leave_their_neighbours_their_ports() {
    let mut registry = PoolRegistry::default();
    let spec = PoolSpec {
        first: IpAddr::from([192, 0, 2, 1]),
        addresses: 1,
        ports: 1000..=1999,
        reserved: Vec::new(),
    };
    let pool = registry.pool(LinkIndex(9), "stand-in", spec);
    let share = |link: u32| PoolShare {
        consumer: LinkIndex(link),
        consumers: 2,
    };
    let ask = |link: u8, host, port| {
        let share = share(link.into());
        pool.lease_of(Some(&share), 6, client(link, host, port), POOL_NOW)
    };
    // A single address gets half of its link's share.
    let greedy: Vec<_> = (0..60_000).filter_map(|n| ask(1, 1, n).ok()).collect();
    assert_eq!(greedy.len(), 250);
    let other: Vec<_> = (0..100).map(|n| ask(1, 2, n).unwrap()).collect();
    let rest: Vec<_> = (3..=200)
        .flat_map(|host| (0..100).map(move |n| (host, n)))
        .filter_map(|(host, n)| ask(1, host, n).ok())
        .collect();
    assert!(greedy.len() + other.len() + rest.len() <= 500);
    let usage = pool.usage_of_share(&share(1));
    assert_eq!(usage.total, 500);
    assert_eq!(
        usage.in_use as usize,
        greedy.len() + other.len() + rest.len()
    );
    // The other link's whole share is available, and the first link's other protocols are not affected.
    let modest: Vec<_> = (0..250).map(|n| ask(2, 1, n).unwrap()).collect();
    assert_eq!(pool.usage_of_share(&share(2)).in_use, 250);
    let udp = pool.lease_of(Some(&share(1)), 17, client(1, 1, 7), POOL_NOW);
    assert!(udp.is_ok());
    // An existing mapping is found again, however many others there are.
    assert_eq!(ask(1, 1, 0).unwrap().outside(), greedy[0].outside());
    drop((greedy, other, rest, modest, udp));
    for link in [1, 2] {
        assert_eq!(pool.usage_of_share(&share(link)).in_use, 0);
    }
    // A quarantined port does not count against the share until it is held again.
    let again = ask(1, 1, 0).unwrap();
    assert_eq!(pool.usage_of_share(&share(1)).in_use, 1);
    drop(again);
}
