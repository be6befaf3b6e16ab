//! Nanoseconds per operation of the flow table, allocations of a hit, and the memory of a million flows:
//! `cargo bench -p libgeneve --bench flow`.
//!
//! On an unpinned core: for comparing two versions on one machine, not for publication.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use libgeneve::flow::{FlowKey, FlowLimits, FlowLookup, FlowTable, PacketUpdate, TcpSegment};
use libgeneve::time::Now;
use libgeneve::vpc::LinkIndex;
use libgeneve::wire::transport::TcpFlags;

const TABLE_FLOWS: u32 = 1_000_000;
const SYN_UPDATE: PacketUpdate = seen(TcpFlags::SYN);
const ACK_UPDATE: PacketUpdate = seen(TcpFlags::ACK);

/// As large as a decision with its next hop and ready encapsulation header.
type BenchDecision = [u64; 15];

const fn seen(flags: TcpFlags) -> PacketUpdate {
    PacketUpdate {
        tcp: Some(TcpSegment {
            flags,
            seq: if flags.contains(TcpFlags::SYN) { 0 } else { 1 },
            ack: 1,
            len: 0,
        }),
        packets: 1,
        bytes: 1400,
    }
}

fn key(link: u32, number: u32) -> FlowKey {
    FlowKey {
        link: LinkIndex(link),
        src: IpAddr::from((0x0a00_0000 + number / 60_000).to_be_bytes()),
        dst: IpAddr::from([10, 255, 0, 1]),
        protocol: 6,
        sport: (number % 60_000) as u16,
        dport: 443,
    }
}

fn table(flows: u32) -> FlowTable<BenchDecision> {
    let limits = FlowLimits {
        flows: flows as usize,
        ..FlowLimits::default()
    };
    FlowTable::new(limits, [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210])
}

fn insert(table: &FlowTable<BenchDecision>, key: FlowKey, reply: FlowKey, now: Now) {
    let result = table.insert(key, reply, [7; 15], false, 1, &SYN_UPDATE, now);
    result.expect("room for the flow");
}

fn hit(table: &FlowTable<BenchDecision>, key: &FlowKey, now: Now) -> u64 {
    match table.hit(key, &ACK_UPDATE, now, 1, |_, _, _, decision| decision[0]) {
        FlowLookup::Hit(value) => value,
        FlowLookup::Stale(_) | FlowLookup::Miss => panic!("the flow is there"),
    }
}

/// Returns the resident memory of this process in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Median of short rounds, which hides other load on the machine.
fn per_operation(name: &str, count: u32, mut work: impl FnMut(u32)) {
    const LOOKUPS_PER_ROUND: u32 = 1000;
    let round = |from| {
        let begin = Instant::now();
        (from..from + LOOKUPS_PER_ROUND).for_each(&mut work);
        begin.elapsed().as_nanos() as f64 / f64::from(LOOKUPS_PER_ROUND)
    };
    let mut rounds: Vec<f64> = (0..count)
        .step_by(LOOKUPS_PER_ROUND as usize)
        .map(round)
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name:<44}{:>10.1} ns", rounds[rounds.len() / 2]);
}

/// Returns a table with a million flows. Counts requested memory: the growth of the process would not include memory
/// that the allocator reuses.
fn measured(name: &str, keys: impl Fn(u32) -> (FlowKey, FlowKey)) -> FlowTable<BenchDecision> {
    let mut full = None;
    let used = allocation_counter::measure(|| {
        let table = full.insert(table(TABLE_FLOWS));
        per_operation(name, TABLE_FLOWS, |n| {
            let (key, reply) = keys(n);
            insert(table, key, reply, Now(0));
        });
    });
    let used = used.bytes_max >> 20;
    println!("{:<44}{used:>10} MiB", "memory of these 1,000,000");
    full.expect("a table that was made")
}

fn main() {
    let before = resident();
    let idle = table(262_144);
    println!(
        "{:<44}{:>10} KiB",
        "idle table of 262,144 flows",
        resident() - before
    );
    drop(idle);

    // Visits every flow in an order that defeats caches and prefetching.
    let random = |n: u32| (u64::from(n) * 2_654_435_761 % u64::from(TABLE_FLOWS)) as u32;
    let full = measured("insert", |n| (key(1, n), key(1, n).reversed()));
    per_operation("hit, 1 flow of 1,000,000", TABLE_FLOWS * 5, |_| {
        black_box(hit(&full, &key(1, 500_000), Now(1)));
    });
    per_operation("hit, a random one of 1,000,000", TABLE_FLOWS, |n| {
        black_box(hit(&full, &key(1, random(n)), Now(1)));
    });
    per_operation("hit that moves, a random one", TABLE_FLOWS, |n| {
        black_box(hit(&full, &key(1, random(n)), Now(2_000_000_000)));
    });
    per_operation("miss, a random one", TABLE_FLOWS, |n| {
        let key = key(2, random(n));
        black_box(matches!(
            full.hit(&key, &ACK_UPDATE, Now(1), 1, |_, _, _, _| ()),
            FlowLookup::Miss
        ));
    });
    per_operation("insert that evicts a half-open flow", TABLE_FLOWS, |n| {
        let key = key(1, TABLE_FLOWS + n);
        insert(&full, key, key.reversed(), Now(2_000_000_000));
    });
    let begin = Instant::now();
    let ended = full.expire(Now(1_000_000_000_000));
    let nanos = begin.elapsed().as_nanos() as f64 / ended as f64;
    println!("{:<44}{nanos:>10.1} ns", "expire, for each flow that ends");
    drop(full);

    let rewritten = measured("insert, rewritten", |n| (key(1, n), key(2, n)));
    per_operation("hit through an alias, 1 flow", TABLE_FLOWS * 5, |_| {
        black_box(hit(&rewritten, &key(2, 500_000), Now(1)));
    });
    per_operation("hit through an alias, a random one", TABLE_FLOWS, |n| {
        black_box(hit(&rewritten, &key(2, random(n)), Now(1)));
    });
    let allocations = allocation_counter::measure(|| {
        for n in 0..10_000 {
            let now = Now(u64::from(n) * 1_000_000);
            black_box(hit(&rewritten, &key(1, random(n)), now));
            black_box(hit(&rewritten, &key(2, random(n)), now));
        }
    });
    println!(
        "{:<44}{:>10}",
        "allocations in 20,000 hits", allocations.count_total
    );
}
