//! The whole path of a packet: nanoseconds and allocations per packet of a known flow, new flows per second on one
//! core, and the memory of a million flows, with and without functions: `cargo bench -p libgeneve --bench datapath`.
//!
//! On an unpinned core: for comparing two versions on one machine, not for publication.

#[path = "../tests/world/mod.rs"]
mod world;

use std::hint::black_box;
use std::time::Instant;

use libgeneve::datapath::{Egress, Ingress, OuterRx};
use libgeneve::flow::FlowLimits;
use libgeneve::offload::vnet::VnetHdr;
use libgeneve::vpc::{LinkFunctions, RxInterface};
use libgeneve::wire::geneve::{GENEVE_PORT, GeneveBuilder, protocol_type};
use libgeneve::wire::packet::Packet;
use world::packets::{PayloadKind, behind, packet};
use world::{LinkWorld, WORLD_HOST_A, WORLD_HOST_B, WORLD_VNI, ip};

const DATAPATH_FLOWS: u32 = 1_000_000;
const DATAPATH_ROUND: u32 = 1000;

fn line(what: &str, name: &str, value: f64, unit: &str) {
    println!("{:<44}{value:>10.1} {unit}", format!("{what}, {name}"));
}

/// Median of short rounds, which hides other load on the machine.
fn nanos(count: u32, mut work: impl FnMut(u32)) -> f64 {
    let round = |from| {
        let begin = Instant::now();
        (from..from + DATAPATH_ROUND).for_each(&mut work);
        begin.elapsed().as_nanos() as f64 / f64::from(DATAPATH_ROUND)
    };
    let mut rounds: Vec<f64> = (0..count)
        .step_by(DATAPATH_ROUND as usize)
        .map(round)
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

fn world_of(functions: LinkFunctions) -> LinkWorld {
    let limits = FlowLimits {
        flows: DATAPATH_FLOWS as usize,
        ..FlowLimits::default()
    };
    LinkWorld::new(functions, limits)
}

/// Returns a datagram from an endpoint of this host to one on B; [`number`] makes each one unique.
fn outbound() -> Vec<u8> {
    packet(
        (ip("10.5.0.1"), 1),
        (ip("10.0.0.2"), 53),
        PayloadKind::Udp,
        64,
    )
}

fn number(inner: &mut [u8], n: u32) {
    inner[14..16].copy_from_slice(&((n / 60_000) as u16 + 1).to_be_bytes());
    inner[20..22].copy_from_slice(&((n % 60_000) as u16 + 1024).to_be_bytes());
}

fn send(world: &LinkWorld, egress: &mut Egress, inner: &mut [u8]) {
    let mut packet = Packet::parse(inner).expect("a packet");
    let went = egress.decide(
        &world.cx(),
        world.link(),
        inner,
        &mut packet,
        &VnetHdr::NONE,
    );
    black_box(went.expect("it is forwarded").size);
}

fn known(name: &str, functions: fn() -> LinkFunctions) {
    let world = world_of(functions());
    let (mut egress, mut ingress) = (Egress::default(), Ingress::default());
    let ask = outbound();
    let mut bytes = ask.clone();
    let mut out = |turn: bool| {
        bytes.copy_from_slice(&ask);
        send(&world, &mut egress, &mut bytes);
        if turn {
            egress.flush(&world.cx());
        }
    };
    line(
        "known flow out",
        name,
        nanos(1_000_000, |_| out(false)),
        "ns",
    );
    line(
        "known flow out, each a turn",
        name,
        nanos(1_000_000, |_| out(true)),
        "ns",
    );
    let count = allocation_counter::measure(|| (0..1000).for_each(|n| out(n % 2 == 0)));
    line(
        "allocations in 1,000 out",
        name,
        count.count_total as f64,
        "",
    );

    let header = GeneveBuilder::new(WORLD_VNI, protocol_type::IPV4).finish();
    let from = (ip("10.0.0.2"), 4000);
    let inner = packet(from, (ip("10.0.0.1"), 53), PayloadKind::Udp, 64);
    let datagram = behind(&header, &inner);
    let arrival = OuterRx {
        port: GENEVE_PORT,
        src: ip(WORLD_HOST_B),
        dst: Some(ip(WORLD_HOST_A)),
        tos: 0,
        interface: RxInterface::Underlay,
    };
    let mut bytes = datagram.clone();
    let mut take = |turn: bool| {
        bytes.copy_from_slice(&datagram);
        let decap = ingress.decide(&world.cx(), &arrival, &mut bytes);
        black_box(decap.expect("it is delivered").start);
        if turn {
            ingress.flush(&world.cx());
        }
    };
    line(
        "known flow in",
        name,
        nanos(1_000_000, |_| take(false)),
        "ns",
    );
    line(
        "known flow in, each a turn",
        name,
        nanos(1_000_000, |_| take(true)),
        "ns",
    );
    let count = allocation_counter::measure(|| (0..1000).for_each(|n| take(n % 2 == 0)));
    line(
        "allocations in 1,000 in",
        name,
        count.count_total as f64,
        "",
    );
}

/// Measures a million new flows: flows per second, and requested memory.
fn new(name: &str, functions: fn() -> LinkFunctions) {
    let mut world = None;
    let mut each = 0.0;
    let used = allocation_counter::measure(|| {
        let world = world.insert(world_of(functions()));
        let (mut egress, ask) = (Egress::default(), outbound());
        let mut bytes = ask.clone();
        each = nanos(DATAPATH_FLOWS, |n| {
            bytes.copy_from_slice(&ask);
            number(&mut bytes, n);
            send(world, &mut egress, &mut bytes);
            egress.flush(&world.cx());
        });
    });
    let flows = world
        .as_ref()
        .map_or(0, |world| world.state.flows.stats().flows);
    assert_eq!(flows, DATAPATH_FLOWS as usize);
    line("new flows", name, 1e6 / each, "k/s");
    line(
        "memory of 1,000,000 flows",
        name,
        (used.bytes_max >> 20) as f64,
        "MiB",
    );
}

fn ruled() -> LinkFunctions {
    LinkFunctions {
        nat: None,
        ..world::functions(1000)
    }
}

fn main() {
    let every = || world::functions(1000);
    for (name, functions) in [
        (
            "nothing on",
            LinkFunctions::default as fn() -> LinkFunctions,
        ),
        ("rules and class", ruled),
        ("rules, class, SNAT", every),
    ] {
        known(name, functions);
        new(name, functions);
    }
}
