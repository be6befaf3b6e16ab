//! The table under shuttle's schedules: threads insert, find, renew and end the same flows concurrently.

use std::sync::Arc;

use shuttle::thread;

use super::*;

/// Two shards, so that a flow and its alias may be in different ones.
const FLOWS: usize = 2 * FLOWS_PER_SHARD;

fn explore(model: fn()) {
    shuttle::check_random(model, 1000);
    shuttle::check_pct(model, 1000, 3);
}

fn spawn<R: 'static>(
    table: &Arc<FlowTable<u64>>,
    work: impl FnOnce(&FlowTable<u64>) -> R + 'static + Send,
) -> thread::JoinHandle<R>
where
    R: Send,
{
    let table = Arc::clone(table);
    thread::spawn(move || work(&table))
}

fn insert(table: &FlowTable<u64>, key: FlowKey, reply: FlowKey, decision: u64) -> bool {
    let seen = seen(None);
    table
        .insert(key, reply, decision, false, 0, &seen, at(1))
        .is_ok()
}

fn decision(table: &FlowTable<u64>, key: &FlowKey) -> Option<u64> {
    table.peek(key).map(|found| found.decision)
}

#[test]
fn both_ends_that_begin_a_flow_at_once_make_one() {
    explore(|| {
        let table = Arc::new(table::<u64>(FLOWS));
        let key = udp(LINK_A, 1);
        let there = spawn(&table, move |table| insert(table, key, key.reversed(), 1));
        let back = spawn(&table, move |table| insert(table, key.reversed(), key, 2));
        let hit = spawn(&table, move |table| touch(table, &key, None, at(2)));
        let (there, back) = (there.join().unwrap(), back.join().unwrap());
        hit.join().unwrap();
        assert!(there != back, "one of them began it");
        let winner = if there { 1 } else { 2 };
        assert_eq!(decision(&table, &key), Some(winner));
        assert_eq!(decision(&table, &key.reversed()), Some(winner));
        check(&table);
    });
}

#[test]
fn a_rewritten_flow_that_ends_while_it_begins_leaves_no_alias() {
    explore(|| {
        let table = Arc::new(table::<u64>(FLOWS));
        let (key, reply) = (udp(LINK_A, 1), udp(LINK_B, 2).reversed());
        let begun = spawn(&table, move |table| insert(table, key, reply, 1));
        let ended = spawn(&table, move |table| table.remove(&key));
        let found = spawn(&table, move |table| touch(table, &reply, None, at(2)));
        assert!(begun.join().unwrap());
        let ended = ended.join().unwrap();
        found.join().unwrap();
        assert_eq!(table.peek(&reply).is_some(), !ended);
        check(&table);
    });
}

#[test]
fn of_two_flows_that_want_one_reply_key_one_has_it() {
    explore(|| {
        let table = Arc::new(table::<u64>(FLOWS));
        let reply = udp(LINK_B, 9).reversed();
        let begin = |number: u32| {
            let key = udp(LINK_A, number);
            spawn(&table, move |table| {
                insert(table, key, reply, number.into())
            })
        };
        let begun = [1, 2]
            .map(|number| begin(number))
            .map(|t| t.join().unwrap());
        assert_eq!(begun.iter().filter(|&&begun| begun).count(), 1);
        let winner = if begun[0] { 1 } else { 2 };
        assert_eq!(decision(&table, &reply), Some(winner));
        check(&table);
    });
}

#[test]
fn a_flow_that_is_renewed_and_ended_at_once_is_whole_or_gone() {
    explore(|| {
        let table = Arc::new(table::<u64>(FLOWS));
        let (key, [old, new]) = (
            udp(LINK_A, 1),
            [2, 3].map(|number| udp(LINK_B, number).reversed()),
        );
        assert!(insert(&table, key, old, 1));
        let renewed = spawn(&table, move |table| table.renew(&key, new, 2, false, 1));
        let ended = spawn(&table, move |table| table.remove(&old));
        renewed.join().unwrap();
        let ended = ended.join().unwrap();
        let there = decision(&table, &key);
        assert_eq!(there.is_none(), ended);
        assert_eq!(decision(&table, &new), there);
        assert_eq!(decision(&table, &old), None);
        check(&table);
    });
}
