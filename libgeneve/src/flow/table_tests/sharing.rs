//! The table under threads, panics and memory limits.

use std::sync::Arc;

use super::*;

/// A decision that uses the table in its drop, as one that owns a lease might.
#[derive(Clone)]
struct ReentrantDecision(#[allow(dead_code)] Arc<ReentrantGuard>);

struct ReentrantGuard(std::sync::Weak<FlowTable<ReentrantDecision>>, FlowKey);

impl Drop for ReentrantGuard {
    fn drop(&mut self) {
        if let Some(table) = self.0.upgrade() {
            // Locks every shard: deadlocks if the decision is dropped under a lock.
            table.for_each(Now(0), |_| ());
            let _ = table.peek(&self.1);
        }
    }
}

#[test]
fn decisions_go_without_a_lock_being_held() {
    let table = Arc::new(table::<ReentrantDecision>(8));
    let insert = |n, now| {
        let lease = ReentrantDecision(Arc::new(ReentrantGuard(
            Arc::downgrade(&table),
            udp(LINK_A, n),
        )));
        let key = udp(LINK_A, n);
        table.insert(key, key.reversed(), lease, false, 0, &seen(None), now)
    };
    (0..20).for_each(|n| insert(n, at(0)).unwrap());
    assert_eq!(insert(19, at(0)), Err(InsertError::Exists));
    let lease = ReentrantDecision(Arc::new(ReentrantGuard(
        Arc::downgrade(&table),
        udp(LINK_A, 0),
    )));
    assert!(table.renew(
        &udp(LINK_A, 19),
        udp(LINK_A, 19).reversed(),
        lease,
        false,
        1
    ));
    assert!(table.remove(&udp(LINK_A, 19)));
    assert_eq!(table.flush(|flow| flow.original.sport % 2 == 0), 4);
    assert!(matches!(
        table.hit(&udp(LINK_A, 17), &seen(None), at(30), 0, |_, _, _, _| ()),
        FlowLookup::Miss
    ));
    assert_eq!(table.expire(at(30)), 2);
    insert(1, at(30)).unwrap();
    table.remove_link(LINK_A);
    assert_eq!(table.stats().flows, 0);
}

#[test]
fn a_panic_of_a_reader_leaves_the_table_usable() {
    let table = table::<u64>(8);
    assert!(add(&table, udp(LINK_A, 1), None, at(0)));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        table.hit(&udp(LINK_A, 1), &seen(None), at(1), 0, |_, _, _, _| {
            panic!("a reader's own")
        })
    }));
    assert!(result.is_err());
    assert!(touch(&table, &udp(LINK_A, 1), None, at(1)));
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
                        FlowLookup::Hit(()) if n % 11 == 0 => drop(table.remove(&reply)),
                        FlowLookup::Hit(()) => {}
                        FlowLookup::Stale(found) => {
                            table.renew(
                                &found.original,
                                found.reply,
                                1,
                                false,
                                u64::from(n / 5000),
                            );
                        }
                        FlowLookup::Miss => {
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
    establish(&table, tcp(LINK_A, 1), at(0));
    let reply = tcp(LINK_B, 900);
    let rewritten = tcp(LINK_A, 2);
    table
        .insert(rewritten, reply, 0, false, 0, &seen(Some(SYN)), at(0))
        .unwrap();
    let hits = allocation_counter::measure(|| {
        for n in 0..1000 {
            let now = at(n / 10);
            assert!(touch(&table, &tcp(LINK_A, 1), Some(ACK), now));
            assert!(touch(&table, &reply, Some(SYN_ACK), now));
            assert!(!touch(&table, &tcp(LINK_A, 3), Some(ACK), now));
        }
    });
    assert_eq!(hits.count_total, 0);
}

#[test]
fn a_million_flows_fit_into_400_mib() {
    // A fraction of them, in a table sized for that fraction.
    const FLOWS: u32 = 1 << 16;
    let all = |rewritten: bool| {
        let used = allocation_counter::measure(|| {
            let table = table::<[u8; 120]>(FLOWS as usize);
            for n in 0..FLOWS {
                let key = udp(LINK_A, n);
                let reply = if rewritten {
                    udp(LINK_B, n)
                } else {
                    key.reversed()
                };
                table
                    .insert(key, reply, [0; 120], false, 0, &seen(None), at(0))
                    .unwrap();
            }
        });
        (used.bytes_max * 1_000_000 / u64::from(FLOWS)) >> 20
    };
    let (plain, rewritten) = (all(false), all(true));
    assert!(plain <= 330 && rewritten <= 400, "{plain} {rewritten} MiB");
}
