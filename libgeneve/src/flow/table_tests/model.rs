//! The table compared with a map, over random sequences of operations.

use proptest::prelude::*;

use super::*;

/// Operation of a random sequence; numbers are small so that flows collide.
#[derive(Clone, Debug)]
enum TableStep {
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

fn step() -> impl Strategy<Value = TableStep> {
    let flow = || 0u8..24;
    let reply = || prop_oneof![2 => Just(None), 1 => (0u8..8).prop_map(Some)];
    let flags = || prop::sample::select(vec![0x02u8, 0x12, 0x10, 0x10, 0x11, 0x04]);
    prop_oneof![
        6 => (flow(), reply(), any::<bool>(), flags())
            .prop_map(|(flow, reply, refused, flags)| TableStep::Insert { flow, reply, refused, flags }),
        8 => (flow(), any::<bool>(), flags())
            .prop_map(|(flow, back, flags)| TableStep::Packet { flow, back, flags }),
        2 => (flow(), reply(), any::<bool>())
            .prop_map(|(flow, reply, refused)| TableStep::Renew { flow, reply, refused }),
        1 => flow().prop_map(|flow| TableStep::Remove { flow }),
        1 => (0u8..4).prop_map(TableStep::RemoveLink),
        1 => (0u8..5).prop_map(TableStep::Flush),
        2 => Just(TableStep::Expire),
        3 => (0u16..2000).prop_map(TableStep::Wait),
        1 => Just(TableStep::Epoch),
    ]
}

/// Flows 0 to 23, over three links and two protocols.
fn numbered(flow: u8) -> FlowKey {
    let protocol = [protocol::TCP, protocol::UDP][usize::from(flow & 1)];
    key(LinkIndex(u32::from(flow % 3)), protocol, u32::from(flow))
}

/// Reply keys of rewritten flows; some collide with replies of other flows, some with their packets.
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
struct ModelFlow {
    reply: FlowKey,
    decision: u32,
    epoch: u64,
    seen: Now,
    packets: [u64; 2],
}

/// Reference model of a flow table: a map.
#[derive(Default)]
struct ModelTable(HashMap<FlowKey, ModelFlow>);

impl ModelTable {
    fn find(&self, key: &FlowKey) -> Option<(FlowKey, FlowDirection)> {
        if self.0.contains_key(key) {
            return Some((*key, FlowDirection::Original));
        }
        let mut flows = self.0.iter().filter(|(_, flow)| flow.reply == *key);
        flows
            .next()
            .map(|(original, _)| (*original, FlowDirection::Reply))
    }

    /// Removes what the table has evicted or ended, which the model cannot predict.
    fn follow(&mut self, table: &FlowTable<u32>) {
        self.0.retain(|key, _| table.peek(key).is_some());
    }
}

fn run(limit: usize, steps: Vec<TableStep>) -> Result<(), TestCaseError> {
    let table = table::<u32>(limit);
    let mut model = ModelTable::default();
    let (mut now, mut epoch, mut decision) = (at(1), 0, 0);
    let shortest = at(10).0;
    for step in steps {
        decision += 1;
        match step {
            TableStep::Insert {
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
                        let known = ModelFlow {
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
            TableStep::Packet { flow, back, flags } => {
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
                    (FlowLookup::Hit((side, original, reply, decision)), Some(expected)) => {
                        prop_assert_eq!((original, side), expected);
                        let known = model.0.get_mut(&original).unwrap();
                        prop_assert_eq!(
                            (reply, decision, epoch),
                            (known.reply, known.decision, known.epoch)
                        );
                        known.seen = now;
                        known.packets[side as usize] += 1;
                    }
                    (FlowLookup::Stale(found), Some(expected)) => {
                        prop_assert_eq!((found.original, found.side), expected);
                        prop_assert_ne!(found.epoch, epoch);
                    }
                    (FlowLookup::Miss, None) => {}
                    (FlowLookup::Miss, Some((original, _))) => {
                        let silent = now.0 - model.0[&original].seen.0;
                        prop_assert!(silent >= shortest, "a live flow was missed");
                        model.0.remove(&original);
                    }
                    (found, expected) => prop_assert!(false, "{found:?} for {expected:?}"),
                }
            }
            TableStep::Renew {
                flow,
                reply,
                refused,
            } => {
                let key = numbered(flow);
                let reply = reply.map_or(key.reversed(), rewritten);
                let other = model.find(&reply).filter(|(k, _)| *k != key);
                // The model cannot tell which flows have expired; a conflict with an expired one still counts.
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
            TableStep::Remove { flow } => {
                let key = numbered(flow);
                let expected = model.find(&key);
                prop_assert_eq!(table.remove(&key), expected.is_some());
                expected.map(|(original, _)| model.0.remove(&original));
            }
            TableStep::RemoveLink(link) => {
                let link = LinkIndex(u32::from(link));
                table.remove_link(link);
                model
                    .0
                    .retain(|key, flow| key.link != link && flow.reply.link != link);
            }
            TableStep::Flush(part) => {
                let chosen = |key: &FlowKey| key.sport % 5 == u16::from(part);
                let before = model.0.len();
                model.0.retain(|key, _| !chosen(key));
                let ended = table.flush(|flow| chosen(flow.original));
                prop_assert_eq!(ended, (before - model.0.len()) as u64);
            }
            TableStep::Expire => {
                table.expire(now);
                for (key, known) in &model.0 {
                    let silent = now.0 - known.seen.0;
                    prop_assert!(silent >= shortest || table.peek(key).is_some());
                }
                model.follow(&table);
            }
            TableStep::Wait(hundredths) => now = Now(now.0 + u64::from(hundredths) * 10_000_000),
            TableStep::Epoch => epoch += 1,
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
