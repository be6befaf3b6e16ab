//! Nanoseconds and allocations of NAT, for a new flow and for each packet of a known one:
//! `cargo bench -p libgeneve --bench nat`.
//!
//! Every number is the best of several rounds, on an unpinned core: for comparing two versions on one machine, not
//! for publication.

mod report;

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

use libgeneve::nat::{
    Nat, NatPool, NatRule, PoolRegistry, PortLease, Rewrite, rewrite, rewrite_error,
};
use libgeneve::time::Now;
use libgeneve::vpc::LinkIndex;
use libgeneve::wire::icmp::{IcmpError, MAX_V6_ERROR_LEN, UnreachableReason};
use libgeneve::wire::ip::{Ipv4Header, Ipv6Header, protocol};
use libgeneve::wire::packet::Packet;

use report::report;

const LEASES_PER_ROUND: u32 = 1000;

/// Measures one row of the table.
fn row(name: &str, work: impl FnMut(u32)) {
    report(name, LEASES_PER_ROUND, work);
}

fn main() {
    println!("{:<52}{:>9}{:>13}", "", "ns", "allocations");
    rules();
    leases();
    packets();
}

fn rules() {
    let host = |net: u8, n: u32| IpAddr::from([net, 1, (n >> 8) as u8, n as u8]);
    let mut rules: Vec<NatRule> = (0..1000)
        .map(|n| NatRule::Static {
            name: format!("static {n}"),
            inside: host(10, n),
            outside: host(203, n),
        })
        .collect();
    rules.extend((0..1000).map(|n| NatRule::Dnat {
        name: format!("forward {n}"),
        to: host(203, n % 10),
        port: Some((protocol::TCP, 1 + n as u16)),
        target: host(10, n),
        target_port: None,
    }));
    rules.push(snat(4, 1024));
    let nat = Nat::compile(LinkIndex(0), rules, &mut PoolRegistry::default()).expect("sound rules");
    row("destination, 2,000 rules, a port forward", |n| {
        let port = 1 + (n % 1000) as u16;
        black_box(nat.destination(host(203, n % 10), protocol::TCP, Some(port)));
    });
    row("destination, 2,000 rules, none applies", |n| {
        black_box(nat.destination(host(198, n), protocol::TCP, Some(443)));
    });
    row("source, 2,000 rules, a pool", |n| {
        black_box(nat.source(host(11, n)));
    });
}

fn snat(addresses: u32, first_port: u16) -> NatRule {
    let last = u32::from_be_bytes([100, 64, 0, 0]) + addresses - 1;
    NatRule::Snat {
        name: "pool".into(),
        from: "0.0.0.0/0".parse().expect("a prefix"),
        pool: [100, 64, 0, 0].into()..=std::net::Ipv4Addr::from_bits(last).into(),
        ports: first_port..=u16::MAX,
    }
}

const BENCH_NOW: Now = Now(0);

fn inside(n: u32) -> (IpAddr, u16) {
    let addr = [10, 0, (n >> 8) as u8, n as u8].into();
    (addr, 1024 + (n.wrapping_mul(40_503) >> 16) as u16 % 60_000)
}

/// Returns a pool with all ports leased except `left`.
fn filled(addresses: u32, first_port: u16, left: usize) -> (Arc<NatPool>, Vec<PortLease>) {
    let rules = vec![snat(addresses, first_port)];
    let nat = Nat::compile(LinkIndex(0), rules, &mut PoolRegistry::default()).expect("sound rules");
    let pool = nat.pools().next().expect("one pool").1;
    let total = pool.usage().total as usize;
    let leases = (0..(total - left) as u32)
        .map(|n| {
            let from = ([10, (n >> 16) as u8, (n >> 8) as u8, n as u8].into(), 9);
            pool.lease(protocol::TCP, from, BENCH_NOW)
                .expect("a port is left")
        })
        .collect();
    (Arc::clone(pool), leases)
}

fn leases() {
    let (pool, kept) = filled(16, 1024, 16 * 64_512);
    row("lease and release, empty pool of 16 addresses", |n| {
        black_box(pool.lease(protocol::UDP, inside(n), BENCH_NOW).is_ok());
    });
    let mut held = Vec::with_capacity(100_000);
    row("lease, kept", |n| {
        held.push(pool.lease(protocol::TCP, inside(n + held.len() as u32), BENCH_NOW));
    });
    row("lease of a mapping that lives", |_| {
        black_box(pool.lease(protocol::TCP, inside(0), BENCH_NOW).is_ok());
    });
    drop((held, kept));

    for (name, addresses, first_port, left) in [
        ("lease and release, 1 of 64,512 ports is left", 1, 1024, 1),
        ("lease refused, 64,512 ports taken", 1, 1024, 0),
        (
            "lease and release, 1 of 65,536 addresses is left",
            65_536,
            65_530,
            1,
        ),
        ("lease refused, 65,536 addresses taken", 65_536, 65_530, 0),
    ] {
        let (pool, kept) = filled(addresses, first_port, left);
        row(name, |n| {
            let lease = pool.lease(protocol::TCP, ([11, 0, 0, n as u8].into(), 1), BENCH_NOW);
            assert_eq!(lease.is_ok(), left > 0);
        });
        drop(kept);
    }
}

fn packets() {
    for (name, v6, payload) in [
        ("rewrite and back, TCP over IPv4, 64 B", false, 64),
        ("rewrite and back, TCP over IPv4, 60 KB", false, 60_000),
        ("rewrite and back, TCP over IPv6, 60 KB", true, 60_000),
    ] {
        let mut bytes = tcp(v6, payload);
        let mut packet = Packet::parse(&bytes).expect("a packet of our own");
        let ports = packet.ports().expect("TCP");
        let here = Rewrite {
            src: (packet.src, ports.0),
            dst: (packet.dst, ports.1),
        };
        let there = Rewrite {
            src: (packet.dst, 1),
            dst: (packet.src, 2),
        };
        row(name, |_| {
            for to in [&there, &here] {
                let result = rewrite(&mut bytes, &mut packet, black_box(to), true);
                black_box(result.is_ok());
            }
        });
        let (from, error) = (packet.dst, IcmpError::Unreachable(UnreachableReason::Host));
        let mut out = [0; MAX_V6_ERROR_LEN];
        let len = error
            .build(from, &packet, &bytes, &mut out)
            .expect("the longest error fits");
        let mut packet = Packet::parse(&out[..len]).expect("a packet of our own");
        let (src, dst) = (packet.src, packet.dst);
        if payload > 64 {
            let name = name.replace("rewrite and back, TCP", "error and back, full quote");
            row(name.split(", 60").next().unwrap_or_default(), |_| {
                for to in [&there, &here] {
                    let result = rewrite_error(&mut out, &mut packet, src, dst, black_box(to));
                    black_box(result.is_ok());
                }
            });
        }
    }
}

fn tcp(v6: bool, payload: u16) -> Vec<u8> {
    let len = 20 + payload;
    let mut bytes = if v6 {
        let [src, dst] = [1, 2].map(|last| [0xfd00, 0, 0, 0, 0, 0, 0, last].into());
        Ipv6Header::new(src, dst, protocol::TCP, len)
            .to_bytes()
            .to_vec()
    } else {
        let [src, dst] = [1, 2].map(|last| [10, 0, 0, last].into());
        Ipv4Header::new(src, dst, protocol::TCP, len)
            .to_bytes()
            .to_vec()
    };
    let start = bytes.len();
    bytes.resize(start + usize::from(len), 0x5a);
    bytes[start + 12] = 0x50;
    bytes
}
