//! Checks that the packet path does not allocate: packets of known flows pass in both directions through every
//! function, super-packets and trains are cut and merged, and packets are dropped for every reason, without a single
//! call of the allocator. The allocations of a flow's first packet are bounded.

mod drops;
mod offloads;
#[path = "../world/mod.rs"]
mod world;

use std::ops::Range;
use std::sync::Arc;

use libgeneve::datapath::{self, Decap, Egress, Ingress, OuterRx, Output};
use libgeneve::drop::DropReason;
use libgeneve::flow::{FlowKey, FlowLimits};
use libgeneve::label::{Labels, Selector};
use libgeneve::offload::merge::{Merger, SuperPacket};
use libgeneve::offload::segments::SegmentSink;
use libgeneve::offload::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use libgeneve::options::{
    ClassOption, EndpointOption, EndpointType, OptionMatch, OptionSchema, ReceivedOptions,
    SentOptions,
};
use libgeneve::policy::{Direction, PolicyAction, RulePeer};
use libgeneve::qos::{Bucket, EnqueueRequest, Metered, QosClass, QueueAdmission, Shaper};
use libgeneve::time::Now;
use libgeneve::vpc::{EndpointConfig, LinkFunctions, LinkIndex, RxInterface};
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, GeneveBuilder, Vni};
use libgeneve::wire::header::HeaderBytes;
use libgeneve::wire::ip::write_ipv4_checksum;
use libgeneve::wire::option::{OptionClass, OptionType};
use libgeneve::wire::packet::Packet;
use world::packets::{PayloadKind, TCP_ACK, TCP_SYN, behind, error_about, fragment_of, packet};
use world::{
    LinkWorld, WORLD_HOST_A, WORLD_HOST_B, WORLD_HOST_C, WORLD_LINK, WORLD_VIP, WORLD_VNI,
    functions, ip,
};

const ALLOCATION_ROUNDS: usize = 300;
/// Most allocations of a flow's first packet: the header, the meter, the lease, and the growth of maps.
const FIRST_ALLOCATIONS: u64 = 8;

/// Counts packets, and copies their headers into preallocated space.
struct CountingWire {
    packets: usize,
    header: [u8; 512],
}

impl SegmentSink for CountingWire {
    fn segment(&mut self, header: &[u8], _payload: Range<usize>) {
        self.header[..header.len()].copy_from_slice(header);
        self.packets += 1;
    }
}

/// State of one worker.
struct TestWorker {
    egress: Egress,
    ingress: Ingress,
    shaper: Shaper<()>,
    out: CountingWire,
    /// Buffer in which packets are rewritten.
    bytes: Vec<u8>,
}

impl TestWorker {
    fn new() -> TestWorker {
        TestWorker {
            egress: Egress::default(),
            ingress: Ingress::default(),
            shaper: Shaper::new([8, 0]),
            out: CountingWire {
                packets: 0,
                header: [0; 512],
            },
            bytes: vec![0; 1 << 16],
        }
    }

    fn carry(&mut self, world: &LinkWorld, parcel: &Parcel) -> Result<(), DropReason> {
        let bytes = &mut self.bytes[..parcel.bytes.len()];
        bytes.copy_from_slice(&parcel.bytes);
        let now = world.now;
        match &parcel.way {
            ParcelDirection::Out(vnet) => {
                let metered = out(world, &mut self.egress, vnet, bytes, &mut self.out)?;
                wait(&mut self.shaper, metered, now)
            }
            ParcelDirection::In(arrival) => {
                let decap = self.ingress.decide(&world.cx(), arrival, bytes);
                let decap = decap.map_err(|refused| refused.reason)?;
                black_box(&decap);
                wait(&mut self.shaper, decap.metered, now)
            }
        }
    }

    /// End of an iteration of the worker's loop.
    fn settle(&mut self, world: &LinkWorld) {
        self.egress.flush(&world.cx());
        self.ingress.flush(&world.cx());
    }
}

/// Queues a packet that exceeds a rate limit, if there is room.
fn wait(shaper: &mut Shaper<()>, metered: Option<Metered>, now: Now) -> Result<(), DropReason> {
    let Some(metered) = metered.filter(|m| shaper.waits_for(&m.meter) || !m.passes(now)) else {
        return Ok(());
    };
    shaper.begin();
    while shaper.next(now).is_some() {}
    if shaper.admit(&metered, 100, 0) == QueueAdmission::Granted {
        let packet = EnqueueRequest {
            bytes: 100,
            cost: 100,
            ect: false,
            kind: 0,
        };
        shaper.push(&metered, packet, now, ());
    }
    Err(DropReason::RateExceeded)
}

fn black_box(decap: &Decap) {
    if let Output::Host(forward) = &decap.output {
        std::hint::black_box(&forward.encap);
    }
}

fn out(
    world: &LinkWorld,
    egress: &mut Egress,
    vnet: &VnetHdr,
    bytes: &mut [u8],
    out: &mut CountingWire,
) -> Result<Option<Metered>, DropReason> {
    let link = world.link();
    let mut packet = Packet::parse(bytes).map_err(datapath::parse_reason)?;
    let encap = egress
        .decide(&world.cx(), link, bytes, &mut packet, vnet)
        .map_err(|refused| refused.reason)?;
    let Output::Host(forward) = encap.output else {
        return Ok(None);
    };
    forward
        .cut
        .carry_out(&forward.encap, vnet, &packet, bytes, out)?;
    Ok(encap.metered)
}

enum ParcelDirection {
    Out(VnetHdr),
    In(OuterRx),
}

/// A packet that is sent repeatedly.
struct Parcel {
    name: String,
    way: ParcelDirection,
    bytes: Vec<u8>,
}

fn outward(name: impl Into<String>, bytes: Vec<u8>) -> Parcel {
    Parcel {
        name: name.into(),
        way: ParcelDirection::Out(VnetHdr::NONE),
        bytes,
    }
}

fn inward(name: impl Into<String>, host: &str, bytes: Vec<u8>) -> Parcel {
    let arrival = OuterRx {
        port: GENEVE_PORT,
        src: ip(host),
        dst: Some(ip(WORLD_HOST_A)),
        tos: 2,
        interface: RxInterface::Underlay,
    };
    Parcel {
        name: name.into(),
        way: ParcelDirection::In(arrival),
        bytes,
    }
}

fn header(attach: SentOptions, bytes: &[u8]) -> HeaderBytes {
    let protocol = if bytes[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    attach
        .header(&OptionSchema::default(), WORLD_VNI, protocol, [])
        .unwrap()
}

/// Returns a packet as sent by an endpoint with labels on another host.
fn labelled(bytes: &[u8]) -> Vec<u8> {
    let attach = SentOptions {
        labels: Some((world::labels("app=db"), false)),
        ..SentOptions::default()
    };
    behind(&header(attach, bytes), bytes)
}

fn typed(dst: EndpointType, bytes: &[u8]) -> Vec<u8> {
    let attach = SentOptions {
        endpoint: Some(EndpointOption {
            dst,
            ..EndpointOption::default()
        }),
        labels: Some((world::labels("app=db"), false)),
        ..SentOptions::default()
    };
    behind(&header(attach, bytes), bytes)
}

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

/// Sends the first packet of each flow, and then all later ones, one after the other and interleaved.
#[test]
fn known_flows_allocate_nothing_with_every_function_on() {
    // A table with one shard, whose slots are soon allocated.
    let limits = FlowLimits {
        flows: 1000,
        ..FlowLimits::default()
    };
    let world = LinkWorld::new(functions(100), limits);
    let mut worker = TestWorker::new();
    let (a, a6, b, c) = (
        ip("10.0.0.1"),
        ip("fd00::1"),
        ip("10.0.0.2"),
        ip("10.0.0.3"),
    );
    let (b6, inside, behind_b) = (ip("fd00::2"), ip("10.5.0.1"), ip("10.7.0.9"));
    let far = ip("198.51.100.1");
    let echo = PayloadKind::Echo { reply: false };
    let gateway = |bytes: Vec<u8>| typed(EndpointType::Gateway, &bytes);
    let mut known = Vec::new();
    // The first flow of a kind grows maps that later ones reuse.
    for turn in 0..4u16 {
        for (name, kind, src, dst, host) in [
            ("tcp4", TCP_SYN, (a, 4001), (b, 443), None),
            ("udp4", PayloadKind::Udp, (a, 4002), (b, 53), None),
            ("udp6", PayloadKind::Udp, (a6, 4003), (b6, 53), None),
            ("echo", echo, (a, 4), (b, 4), None),
            ("esp", PayloadKind::Other(50), (a, 0), (b, 0), None),
            ("snat tcp", TCP_SYN, (inside, 4004), (b, 443), None),
            ("snat echo", echo, (inside, 4004), (b, 4004), None),
            ("service", TCP_SYN, (a, 4005), (ip(WORLD_VIP), 80), None),
            ("in tcp4", TCP_SYN, (b, 4006), (a, 443), Some(WORLD_HOST_B)),
            (
                "in udp6",
                PayloadKind::Udp,
                (b6, 4007),
                (a6, 443),
                Some(WORLD_HOST_B),
            ),
            (
                "gateway",
                TCP_SYN,
                (behind_b, 4008),
                (far, 443),
                Some(WORLD_HOST_B),
            ),
            (
                "relayed",
                TCP_SYN,
                (c, 4009),
                (ip(WORLD_VIP), 80),
                Some(WORLD_HOST_C),
            ),
        ] {
            let src = (src.0, src.1 + 100 * turn * u16::from(src.1 != 0));
            let dst = match kind {
                PayloadKind::Echo { .. } => (dst.0, src.1),
                _ => dst,
            };
            let first = packet(src, dst, kind, 100);
            let key = FlowKey::of(WORLD_LINK, &Packet::parse(&first).unwrap());
            let parcel = |name: &str, bytes: Vec<u8>| match host {
                None => outward(name, bytes),
                Some(host) if name.starts_with("gateway") => inward(name, host, gateway(bytes)),
                Some(host) => inward(name, host, labelled(&bytes)),
            };
            let opens = parcel(name, first);
            // The first packet for a host also allocates its header.
            let cost = allocations(|| assert_eq!(worker.carry(&world, &opens), Ok(()), "{name}"));
            println!("{turn} {name:<12}{cost:>4} allocations of its first packet");
            assert!(turn == 0 || cost <= FIRST_ALLOCATIONS, "{name}: {cost}");

            let reply = world.state.flows.peek(&key).expect("a flow").reply;
            let follows = match kind {
                PayloadKind::Tcp(..) => TCP_ACK,
                other => other,
            };
            let answers = match kind {
                PayloadKind::Echo { .. } => PayloadKind::Echo { reply: true },
                _ => follows,
            };
            let on = packet(src, dst, follows, 100);
            let (from, to) = ((reply.src, reply.sport), (reply.dst, reply.dport));
            let back = packet(from, to, answers, 100);
            let of_reply = if reply.src == c {
                WORLD_HOST_C
            } else {
                WORLD_HOST_B
            };
            let back_from = |name: &str, bytes: &[u8]| match reply.src == a
                || reply.src == a6
                || reply.src == far
            {
                true => outward(name, bytes.to_vec()),
                false => inward(name, of_reply, labelled(bytes)),
            };
            let replies = back_from(&format!("{name}, reply"), &back);
            let cost = allocations(|| assert_eq!(worker.carry(&world, &replies), Ok(()), "{name}"));
            println!("{turn} {name:<12}{cost:>4} allocations of its first reply");
            assert!(turn == 0 || cost <= FIRST_ALLOCATIONS, "{name}: {cost}");
            if !matches!(kind, PayloadKind::Other(_)) {
                // An ICMP error about the latest packet from its receiver, as the receiver saw the packet.
                let left = packet(to, from, follows, 100);
                known.push(back_from(
                    &format!("{name}, error"),
                    &error_about(&left, reply.src),
                ));
            }
            known.push(parcel(name, on));
            known.push(replies);
        }
    }
    for word in [0x2000, 0x2004] {
        let whole = packet((a, 4010), (b, 53), PayloadKind::Udp, 64);
        known.push(outward("fragment", fragment_of(whole, word)));
        let whole = packet((inside, 4011), (b, 53), PayloadKind::Udp, 64);
        known.push(outward("snat fragment", fragment_of(whole, word)));
        let whole = packet((b, 4012), (a, 53), PayloadKind::Udp, 64);
        known.push(inward(
            "in fragment",
            WORLD_HOST_B,
            labelled(&fragment_of(whole, word)),
        ));
    }
    let round = |world: &LinkWorld, worker: &mut TestWorker| {
        for parcel in &known {
            assert_eq!(worker.carry(world, parcel), Ok(()), "{}", parcel.name);
        }
        worker.settle(world);
    };
    round(&world, &mut worker);
    let counted = allocations(|| (0..ALLOCATION_ROUNDS).for_each(|_| round(&world, &mut worker)));
    if counted > 0 {
        for parcel in &known {
            let counted = allocations(|| {
                let _ = worker.carry(&world, parcel);
                let _ = worker.carry(&world, parcel);
            });
            println!("{:<24}{counted}", parcel.name);
        }
    }
    assert_eq!(counted, 0);
}

#[test]
fn options_and_labels_allocate_nothing() {
    let key = world::label_key();
    let labels = world::labels("app=web,tier=front");
    let selector: Selector = "app in (web,db),!gone".parse().unwrap();
    let selector = selector.hashed(&key);
    let wanted: OptionMatch = "geneved:3=0700/ff00".parse().unwrap();
    let schema = OptionSchema::default();
    let attach = SentOptions {
        labels: Some((labels, true)),
        class: Some(ClassOption {
            class: 7,
            drop_precedence: 1,
        }),
        ..SentOptions::default()
    };
    let counted = allocations(|| {
        for _ in 0..ALLOCATION_ROUNDS {
            let header = attach.header(&schema, Vni::MAX, 0x0800, []).unwrap();
            let geneve = Geneve::parse(&header).unwrap();
            let received = ReceivedOptions::read(&schema, geneve.options()).unwrap();
            let known = Labels::Known(received.labels.as_deref().unwrap());
            assert_eq!(selector.decide(known), Some(true));
            assert!(wanted.matches(geneve.options()));
        }
    });
    assert_eq!(counted, 0);
}

#[test]
fn an_allocation_would_be_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 9]))), 1);
}
