//! Nanoseconds and allocations per choice of a backend, and the time to build a table:
//! `cargo bench -p libgeneve --bench maglev`.
//!
//! Every number is the best of several rounds, on an unpinned core: for comparing two versions on one machine, not
//! for publication.

mod report;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use libgeneve::qos::{Bucket, take_all};
use libgeneve::service::maglev::Maglev;
use libgeneve::service::{Affinity, Backend, Service, ServiceConfig, ServiceTable};
use libgeneve::time::Now;
use libgeneve::wire::ip::protocol;

use report::report;

const MAGLEV_ROUNDS: usize = 20;
const PICKS_PER_ROUND: u32 = 10_000;
const BENCH_VIP: [u8; 4] = [10, 0, 255, 1];

/// Measures one row of the table.
fn row(name: &str, work: impl FnMut(u32)) {
    report(name, PICKS_PER_ROUND, work);
}

fn main() {
    println!("{:<52}{:>9}{:>13}", "", "ns", "allocations");
    for count in [3, 100, 512] {
        picks(count);
    }
    buckets();
    println!("{:<52}{:>9}", "", "µs");
    for count in [3, 16, 100, 512] {
        builds(count);
    }
}

fn service(count: u16, affinity: Affinity) -> Arc<Service> {
    let backend = |n: u16| Backend {
        addr: IpAddr::from([10, 0, (n >> 8) as u8, n as u8]),
        port: None,
        weight: 1 + u32::from(n % 5),
        healthy: true,
    };
    let config = ServiceConfig {
        name: "web".into(),
        vip: IpAddr::from(BENCH_VIP),
        protocol: protocol::TCP,
        port: 443,
        backends: (0..count).map(backend).collect(),
        affinity,
    };
    let services = ServiceTable::new([config], None).expect("a sound service");
    let found = services.find(IpAddr::from(BENCH_VIP), protocol::TCP, 443);
    Arc::clone(found.expect("the service"))
}

fn picks(count: u16) {
    let client = |n: u32| IpAddr::from((0x0a01_0000 + n).to_be_bytes());
    for (affinity, word) in [(Affinity::None, "5-tuple"), (Affinity::Client, "client")] {
        let service = service(count, affinity);
        row(&format!("pick by {word}, {count} backends"), |n| {
            black_box(service.pick(client(n / 16), n as u16));
        });
    }
}

fn buckets() {
    const BENCH_RATE: u64 = 12_500_000_000;
    let bucket = |rate| Bucket::new(rate, Bucket::default_burst(rate));
    let (link, class, slow) = (bucket(BENCH_RATE), bucket(BENCH_RATE), bucket(1));
    let mut now = Now(0);
    row("take, within the rate", |_| {
        now.0 += 1000;
        black_box(link.take(1400, now));
    });
    row("take, over the rate", |_| {
        now.0 += 1;
        black_box(slow.take(1400, now));
    });
    row("take from link and class", |_| {
        now.0 += 1000;
        black_box(take_all([&link, &class], 1400, now, 0));
    });
}

fn builds(count: u32) {
    let members: Vec<([u8; 4], u32)> = (0..count).map(|n| (n.to_be_bytes(), 1 + n % 5)).collect();
    type Build = fn(&[([u8; 4], u32)]) -> Option<Maglev>;
    let kinds: [(&str, Build); 2] = [("table", Maglev::new), ("compact table", Maglev::compact)];
    for (kind, build) in kinds {
        let round = |_| {
            let begin = Instant::now();
            black_box(build(&members));
            begin.elapsed().as_secs_f64() * 1e6
        };
        let best = (0..MAGLEV_ROUNDS).map(round).fold(f64::INFINITY, f64::min);
        println!(
            "{:<52}{best:>9.0}",
            format!("build a {kind}, {count} members")
        );
    }
}
