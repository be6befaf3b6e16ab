//! The packet path allocates nothing: packets of known flows go both ways through every function, super-packets and
//! trains are cut and merged, packets are dropped for every reason, and the allocator is not called once. What the
//! first packet of a flow may cost is bounded.

mod world;

use std::ops::Range;
use std::sync::Arc;

use libgeneve::datapath::{self, Arrival, Decap, Egress, Forward, Ingress, Onward};
use libgeneve::drop::DropReason;
use libgeneve::flow::{FlowKey, Limits};
use libgeneve::label::{Labels, Selector};
use libgeneve::link::{Endpoint, Functions};
use libgeneve::mtu;
use libgeneve::offload::fragment::fragment;
use libgeneve::offload::merge::{Merger, SuperPacket};
use libgeneve::offload::segments::Segments;
use libgeneve::offload::split::split;
use libgeneve::offload::vnet::{GsoType, NEEDS_CSUM, VnetHdr};
use libgeneve::options::{
    Attach, ClassOption, EndpointOption, EndpointType, OptionMatch, Received, Schema,
};
use libgeneve::policy::{Action, Direction, Who};
use libgeneve::qos::{Bucket, Class};
use libgeneve::wire::geneve::{GENEVE_PORT, Geneve, GeneveBuilder, Vni};
use libgeneve::wire::header::HeaderBytes;
use libgeneve::wire::ip::write_ipv4_checksum;
use libgeneve::wire::option::{OptionClass, OptionType};
use libgeneve::wire::packet::Packet;
use world::packets::{ACK, Kind, SYN, behind, error_about, fragment_of, packet};
use world::{B, C, HERE, LINK, VIP, VNI, World, functions, ip};

const ROUNDS: usize = 300;
/// What the first packet of a flow may allocate: the header, the meter, the lease, and what maps grow by.
const FIRST: u64 = 8;

/// Counts what it is given, and writes the headers down where there is room already.
struct Wire {
    packets: usize,
    header: [u8; 512],
}

impl Segments for Wire {
    fn segment(&mut self, header: &[u8], _payload: Range<usize>) {
        self.header[..header.len()].copy_from_slice(header);
        self.packets += 1;
    }
}

/// One worker.
struct Worker {
    egress: Egress,
    ingress: Ingress,
    out: Wire,
    /// Packets are rewritten where they are.
    bytes: Vec<u8>,
}

impl Worker {
    fn new() -> Worker {
        Worker {
            egress: Egress::default(),
            ingress: Ingress::default(),
            out: Wire {
                packets: 0,
                header: [0; 512],
            },
            bytes: vec![0; 1 << 16],
        }
    }

    fn carry(&mut self, world: &World, parcel: &Parcel) -> Result<(), DropReason> {
        let bytes = &mut self.bytes[..parcel.bytes.len()];
        bytes.copy_from_slice(&parcel.bytes);
        match &parcel.way {
            Way::Out(vnet) => out(world, &mut self.egress, vnet, bytes, &mut self.out),
            Way::In(arrival) => self
                .ingress
                .decide(&world.cx(), arrival, bytes)
                .map(|decap| black_box(&decap))
                .map_err(|refused| refused.reason),
        }
    }

    /// As at the end of a turn of the worker's loop.
    fn settle(&mut self, world: &World) {
        self.egress.settle(&world.cx());
        self.ingress.settle(&world.cx());
    }
}

fn black_box(decap: &Decap) {
    if let Onward::Wire(forward) = &decap.onward {
        std::hint::black_box(&forward.encap);
    }
}

fn out(
    world: &World,
    egress: &mut Egress,
    vnet: &VnetHdr,
    bytes: &mut [u8],
    out: &mut Wire,
) -> Result<(), DropReason> {
    let link = world.link();
    let mut packet = Packet::parse(bytes).map_err(datapath::parse_reason)?;
    let onward = egress
        .decide(&world.cx(), link, bytes, &mut packet, vnet)
        .map_err(|refused| refused.reason)?;
    let Ok(forward) = onward else {
        return Ok(());
    };
    let Forward { encap, limit, .. } = &forward;
    let most = (*limit).min(link.config.mtu);
    mtu::clamp_mss(bytes, &packet, most, vnet.needs_checksum());
    if datapath::longest_segment(vnet, &packet) > usize::from(most) {
        fragment(encap, vnet, &packet, bytes, most, out)?;
    } else {
        split(encap, vnet, &packet, bytes, out)?;
    }
    Ok(())
}

enum Way {
    Out(VnetHdr),
    In(Arrival),
}

/// A packet that is sent again and again.
struct Parcel {
    name: String,
    way: Way,
    bytes: Vec<u8>,
}

fn outward(name: impl Into<String>, bytes: Vec<u8>) -> Parcel {
    Parcel {
        name: name.into(),
        way: Way::Out(VnetHdr::NONE),
        bytes,
    }
}

fn inward(name: impl Into<String>, host: &str, bytes: Vec<u8>) -> Parcel {
    let arrival = Arrival {
        port: GENEVE_PORT,
        src: ip(host),
        dst: Some(ip(HERE)),
        tos: 2,
    };
    Parcel {
        name: name.into(),
        way: Way::In(arrival),
        bytes,
    }
}

fn header(attach: Attach, bytes: &[u8]) -> HeaderBytes {
    let protocol = if bytes[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    attach
        .header(&Schema::default(), VNI, protocol, [])
        .unwrap()
}

/// What an endpoint with labels on another host sends.
fn labelled(bytes: &[u8]) -> Vec<u8> {
    let attach = Attach {
        labels: Some((world::labels("app=db"), false)),
        ..Attach::default()
    };
    behind(&header(attach, bytes), bytes)
}

fn typed(dst: EndpointType, bytes: &[u8]) -> Vec<u8> {
    let attach = Attach {
        endpoint: Some(EndpointOption {
            dst,
            ..EndpointOption::default()
        }),
        labels: Some((world::labels("app=db"), false)),
        ..Attach::default()
    };
    behind(&header(attach, bytes), bytes)
}

fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

/// The first packet of a flow, as it begins, and all others after it, one after the other and interleaved.
#[test]
fn known_flows_allocate_nothing_with_every_function_on() {
    // A table of one shard, whose slots are soon made.
    let limits = Limits {
        flows: 1000,
        ..Limits::default()
    };
    let world = World::new(functions(100), limits);
    let mut worker = Worker::new();
    let (a, a6, b, c) = (
        ip("10.0.0.1"),
        ip("fd00::1"),
        ip("10.0.0.2"),
        ip("10.0.0.3"),
    );
    let (b6, inside, behind_b) = (ip("fd00::2"), ip("10.5.0.1"), ip("10.7.0.9"));
    let far = ip("198.51.100.1");
    let echo = Kind::Echo { reply: false };
    let gateway = |bytes: Vec<u8>| typed(EndpointType::Gateway, &bytes);
    let mut known = Vec::new();
    // The first flow of a kind makes maps that the others find.
    for turn in 0..4u16 {
        for (name, kind, src, dst, host) in [
            ("tcp4", SYN, (a, 4001), (b, 443), None),
            ("udp4", Kind::Udp, (a, 4002), (b, 53), None),
            ("udp6", Kind::Udp, (a6, 4003), (b6, 53), None),
            ("echo", echo, (a, 4), (b, 4), None),
            ("esp", Kind::Other(50), (a, 0), (b, 0), None),
            ("snat tcp", SYN, (inside, 4004), (b, 443), None),
            ("snat echo", echo, (inside, 4004), (b, 4004), None),
            ("service", SYN, (a, 4005), (ip(VIP), 80), None),
            ("in tcp4", SYN, (b, 4006), (a, 443), Some(B)),
            ("in udp6", Kind::Udp, (b6, 4007), (a6, 443), Some(B)),
            ("gateway", SYN, (behind_b, 4008), (far, 443), Some(B)),
            ("relayed", SYN, (c, 4009), (ip(VIP), 80), Some(C)),
        ] {
            let src = (src.0, src.1 + 100 * turn * u16::from(src.1 != 0));
            let dst = match kind {
                Kind::Echo { .. } => (dst.0, src.1),
                _ => dst,
            };
            let first = packet(src, dst, kind, 100);
            let key = FlowKey::of(LINK, &Packet::parse(&first).unwrap());
            let parcel = |name: &str, bytes: Vec<u8>| match host {
                None => outward(name, bytes),
                Some(host) if name.starts_with("gateway") => inward(name, host, gateway(bytes)),
                Some(host) => inward(name, host, labelled(&bytes)),
            };
            let opens = parcel(name, first);
            // Where a host was not heard of before, its header is new, too.
            let cost = allocations(|| assert_eq!(worker.carry(&world, &opens), Ok(()), "{name}"));
            println!("{turn} {name:<12}{cost:>4} allocations of its first packet");
            assert!(turn == 0 || cost <= FIRST, "{name}: {cost}");

            let reply = world.state.flows.peek(&key).expect("a flow").reply;
            let follows = match kind {
                Kind::Tcp(..) => ACK,
                other => other,
            };
            let answers = match kind {
                Kind::Echo { .. } => Kind::Echo { reply: true },
                _ => follows,
            };
            let on = packet(src, dst, follows, 100);
            let (from, to) = ((reply.src, reply.sport), (reply.dst, reply.dport));
            let back = packet(from, to, answers, 100);
            let of_reply = if reply.src == c { C } else { B };
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
            assert!(turn == 0 || cost <= FIRST, "{name}: {cost}");
            if !matches!(kind, Kind::Other(_)) {
                // What the receiver of the latest packet says about it, as it saw it.
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
        let whole = packet((a, 4010), (b, 53), Kind::Udp, 64);
        known.push(outward("fragment", fragment_of(whole, word)));
        let whole = packet((inside, 4011), (b, 53), Kind::Udp, 64);
        known.push(outward("snat fragment", fragment_of(whole, word)));
        let whole = packet((b, 4012), (a, 53), Kind::Udp, 64);
        known.push(inward(
            "in fragment",
            B,
            labelled(&fragment_of(whole, word)),
        ));
    }
    let round = |world: &World, worker: &mut Worker| {
        for parcel in &known {
            assert_eq!(worker.carry(world, parcel), Ok(()), "{}", parcel.name);
        }
        worker.settle(world);
    };
    round(&world, &mut worker);
    let counted = allocations(|| (0..ROUNDS).for_each(|_| round(&world, &mut worker)));
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

/// Sends each packet until the tables have grown as they will, and then again.
fn dropped(world: &World, cases: &[(DropReason, Parcel)]) {
    let mut worker = Worker::new();
    for (reason, parcel) in cases {
        let mut send = || {
            for _ in 0..3 {
                let fate = worker.carry(world, parcel);
                assert_eq!(fate, Err(*reason), "{}", parcel.name);
            }
        };
        send();
        assert_eq!(allocations(send), 0, "{reason}: {}", parcel.name);
    }
    let mut all = || {
        for (reason, parcel) in cases {
            assert_eq!(worker.carry(world, parcel), Err(*reason), "{}", parcel.name);
        }
    };
    assert_eq!(allocations(|| (0..ROUNDS).for_each(|_| all())), 0);
}

/// Everything is on, some of it denied or broken.
fn hostile() -> World {
    let mut all = functions(0);
    let mut rules = world::allow_all();
    for direction in [Direction::Ingress, Direction::Egress] {
        for (name, action, port) in [("deny", Action::Deny, 666), ("reject", Action::Reject, 667)] {
            let mut rule = world::rule(format!("{name}-{direction}"), direction, 1, action);
            rule.protocol = Some(17);
            rule.dports = vec![port..=port];
            rules.push(rule);
        }
    }
    let mut slow = world::rule("slow", Direction::Ingress, 1, Action::Allow);
    (slow.protocol, slow.dports, slow.class) = (Some(17), vec![668..=668], Some(8));
    rules.push(slow);
    all.classes.push(Arc::new(Class {
        id: 8,
        name: "slow".into(),
        bucket: None,
        ingress: Some(Arc::new(Bucket::new(1, 1))),
        dscp: None,
        tally: Arc::default(),
    }));
    let mut labelled = world::rule("by-label", Direction::Ingress, 1, Action::Deny);
    labelled.from = Who::Selector("tier=bad".parse::<Selector>().unwrap());
    rules.push(labelled);
    all.policy = Some(world::policy(100, rules));
    all.nat = Some(world::snat(1, 5000..=5000));
    all.services = Some(world::services(&[]));
    let endpoint = |rate: bool, kind| Endpoint {
        kind,
        rate: rate.then(|| Arc::new(Bucket::new(1, 1))),
        local: true,
        ..Endpoint::default()
    };
    let endpoints = &mut all.endpoints;
    endpoints.insert(ip("10.0.0.5"), endpoint(true, EndpointType::Simple));
    endpoints.insert(ip("10.5.0.9"), endpoint(false, EndpointType::Proxied));
    World::new(all, Limits::default())
}

#[test]
fn drops_on_the_way_out_allocate_nothing() {
    let world = hostile();
    let (a, b, inside) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("10.5.0.1"));
    let udp = |src, dst, port| outward("udp", packet((src, 4000), (dst, port), Kind::Udp, 64));
    // They take the only port, and what the bucket has.
    let mut worker = Worker::new();
    assert_eq!(worker.carry(&world, &udp(inside, b, 1)), Ok(()));
    let fast = udp(ip("10.0.0.5"), b, 1);
    assert_eq!(worker.carry(&world, &fast), Ok(()));
    let piece = fragment_of(packet((a, 1), (b, 1), Kind::Udp, 64), 0x2004);
    let unrelated = error_about(&packet((b, 9), (a, 9), Kind::Udp, 64), a);
    let esp = packet((inside, 0), (b, 0), Kind::Other(50), 64);
    dropped(
        &world,
        &[
            (DropReason::PolicyDenied, udp(a, b, 666)),
            (DropReason::PolicyRejected, udp(a, b, 667)),
            (DropReason::NoRoute, udp(a, ip("10.0.0.5"), 1)),
            (DropReason::SourceNotLocal, udp(b, b, 1)),
            (
                DropReason::NoBackend,
                outward("vip", packet((a, 1), (ip(VIP), 80), SYN, 9)),
            ),
            (DropReason::NatExhausted, udp(ip("10.5.0.2"), b, 1)),
            (DropReason::NatUntranslatable, outward("esp", esp)),
            (DropReason::RateExceeded, fast),
            (DropReason::FragmentUnknown, outward("piece", piece)),
            (DropReason::IcmpUnrelated, outward("error", unrelated)),
            (DropReason::InnerMalformed, outward("short", vec![0x45; 12])),
            (DropReason::NotIp, outward("not IP", vec![0x50; 40])),
        ],
    );
}

#[test]
fn drops_on_the_way_in_allocate_nothing() {
    let world = hostile();
    let (a, b, c) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3"));
    let udp = |src, dst, port| packet((src, 4000), (dst, port), Kind::Udp, 64);
    let good = udp(b, a, 1);
    let plain = |bytes: &[u8]| behind(&header(Attach::default(), bytes), bytes);
    let builder = |vni, protocol| GeneveBuilder::new(Vni::new(vni).unwrap(), protocol);
    let with = |class, kind, data: &[u8]| {
        let option = builder(100, 0x0800).option(OptionClass(class), OptionType(kind), data);
        behind(&option.unwrap().finish(), &good)
    };
    let patched = |at: usize, value| {
        let mut bytes = plain(&good);
        bytes[at] = value;
        bytes
    };
    let from_b = |name: &str, bytes| inward(name, B, bytes);
    let bad = Attach {
        labels: Some((world::labels("tier=bad"), true)),
        ..Attach::default()
    };
    let mut worker = Worker::new();
    let fast = from_b("fast", plain(&udp(b, a, 668)));
    assert_eq!(worker.carry(&world, &fast), Ok(()));
    let taken = typed(
        EndpointType::Gateway,
        &udp(ip("10.7.0.9"), ip("198.51.100.1"), 1),
    );
    assert_eq!(worker.carry(&world, &from_b("gateway", taken)), Ok(()));
    // A flow of B's, in whose name C speaks.
    assert_eq!(worker.carry(&world, &from_b("good", plain(&good))), Ok(()));
    let mut wrong_local = from_b("local", plain(&good));
    let mut congested = from_b("congested", plain(&udp(b, a, 2)));
    congested.bytes[9] = 0;
    write_ipv4_checksum(&mut congested.bytes[8..]);
    if let (Way::In(local), Way::In(congested)) = (&mut wrong_local.way, &mut congested.way) {
        local.dst = Some(ip("192.0.2.77"));
        congested.tos = 3;
    }
    let piece = fragment_of(udp(b, a, 1), 0x2004);
    let unrelated = error_about(&udp(a, b, 9), b);
    let vip = packet((c, 1), (ip(VIP), 80), SYN, 9);
    let esp = packet(
        (ip("10.7.0.9"), 0),
        (ip("198.51.100.1"), 0),
        Kind::Other(50),
        64,
    );
    let second = udp(ip("10.7.0.8"), ip("198.51.100.1"), 1);
    dropped(
        &world,
        &[
            (
                DropReason::GeneveTruncated,
                from_b("7 bytes", patched(0, 0)[..7].to_vec()),
            ),
            (
                DropReason::GeneveVersion,
                from_b("version", patched(0, 0x40)),
            ),
            (
                DropReason::GeneveOptionLength,
                from_b("length", patched(0, 1)),
            ),
            (
                DropReason::UnknownCriticalOption,
                from_b("critical", with(0xfff1, 0x81, &[0; 4])),
            ),
            (
                DropReason::OptionMalformed,
                from_b("class", with(0xff47, 3, &[0; 8])),
            ),
            (
                DropReason::ControlMessage,
                from_b("control", patched(1, 0x80)),
            ),
            (
                DropReason::ProtocolType,
                from_b("ethernet", patched(2, 0x65)),
            ),
            (
                DropReason::InnerMalformed,
                from_b("other family", typed(EndpointType::Simple, &good))
                    .map(|b| b[3] = 0xdd)
                    .map(|b| b[2] = 0x86),
            ),
            (DropReason::UnknownVni, from_b("vni", patched(6, 1))),
            (
                DropReason::UnknownHost,
                inward("stranger", "192.0.2.66", plain(&good)),
            ),
            (DropReason::WrongLocal, wrong_local),
            (
                DropReason::SourceMismatch,
                from_b("C's", plain(&udp(c, a, 1))),
            ),
            (
                DropReason::SourceMismatch,
                inward("B's flow", C, plain(&good)),
            ),
            (
                DropReason::InnerMalformed,
                from_b("short", plain(&good)[..20].to_vec()),
            ),
            (
                DropReason::PolicyDenied,
                from_b("denied", labelled(&udp(b, a, 666))),
            ),
            (
                DropReason::PolicyRejected,
                from_b("rejected", labelled(&udp(b, a, 667))),
            ),
            (
                DropReason::PolicyDenied,
                from_b("labels", behind(&header(bad, &good), &udp(b, a, 3))),
            ),
            (
                DropReason::EndpointType,
                from_b(
                    "type",
                    typed(EndpointType::Host, &udp(b, ip("10.5.0.7"), 1)),
                ),
            ),
            (
                DropReason::EndpointType,
                from_b(
                    "proxied",
                    typed(EndpointType::Proxied, &udp(b, ip("10.5.0.9"), 1)),
                ),
            ),
            (
                DropReason::NotGateway,
                from_b(
                    "gateway",
                    typed(EndpointType::Gateway, &udp(b, ip("198.51.100.1"), 1)),
                ),
            ),
            (
                DropReason::NatExhausted,
                from_b("ports", typed(EndpointType::Gateway, &second)),
            ),
            (
                DropReason::NatUntranslatable,
                from_b("esp", typed(EndpointType::Gateway, &esp)),
            ),
            (DropReason::NoBackend, inward("vip", C, labelled(&vip))),
            (DropReason::RateExceeded, fast),
            (DropReason::FragmentUnknown, from_b("piece", plain(&piece))),
            (
                DropReason::IcmpUnrelated,
                from_b("error", plain(&unrelated)),
            ),
            (DropReason::EcnCongestion, congested),
        ],
    );
    let flow = FlowKey::of(LINK, &Packet::parse(&good).unwrap());
    assert!(world.state.flows.peek(&flow).is_some(), "C ended B's flow");
}

impl Parcel {
    fn map(mut self, change: impl FnOnce(&mut [u8])) -> Parcel {
        change(&mut self.bytes);
        self
    }
}

/// A header that nobody has sent before costs nothing either, as long as its packets are dropped.
#[test]
fn a_flood_of_ever_other_headers_allocates_nothing() {
    let world = hostile();
    let mut worker = Worker::new();
    let forged = packet((ip("10.0.0.3"), 1), (ip("10.0.0.1"), 1), Kind::Udp, 9);
    let option =
        GeneveBuilder::new(VNI, 0x0800).option(OptionClass(0xfff1), OptionType(1), &[0; 4]);
    let mut parcel = inward("forged", B, behind(&option.unwrap().finish(), &forged));
    let mut flood = |world: &World, from: u32| {
        for number in from..from + 1000 {
            parcel.bytes[12..16].copy_from_slice(&number.to_be_bytes());
            let fate = worker.carry(world, &parcel);
            assert_eq!(fate, Err(DropReason::SourceMismatch));
        }
    };
    flood(&world, 0);
    assert_eq!(allocations(|| flood(&world, 1000)), 0);
}

/// What TUN would say about the super-packet.
fn offload(bytes: &[u8], gso_type: GsoType, gso_size: u16) -> VnetHdr {
    let packet = Packet::parse(bytes).unwrap();
    VnetHdr {
        flags: NEEDS_CSUM,
        gso_type,
        ecn: false,
        hdr_len: packet.payload_offset,
        gso_size,
        csum_start: packet.transport_offset,
        csum_offset: if gso_type == GsoType::UdpL4 { 6 } else { 16 },
    }
}

#[test]
fn cutting_super_packets_allocates_nothing() {
    let (a, b) = ((ip("10.0.0.1"), 40_000), (ip("10.0.0.2"), 443));
    let (a6, b6) = ((ip("fd00::1"), 40_000), (ip("fd00::2"), 443));
    let tcp4 = packet(a, b, ACK, 64_000);
    let tcp6 = packet(a6, b6, ACK, 64_000);
    let udp4 = packet(a, b, Kind::Udp, 9_000);
    let mut syn = packet(a, b, SYN, 4);
    // The payload becomes an MSS option that is to be clamped.
    syn[32] = 0x60;
    syn[40..44].copy_from_slice(&[2, 4, 0x23, 0]);
    let cases = [
        (Ok(()), offload(&tcp4, GsoType::TcpV4, 1400), tcp4),
        (Ok(()), offload(&tcp6, GsoType::TcpV6, 1380), tcp6),
        (Ok(()), offload(&udp4, GsoType::UdpL4, 1200), udp4.clone()),
        (Ok(()), VnetHdr::NONE, udp4),
        (Ok(()), VnetHdr::NONE, syn),
        (
            Err(DropReason::TooBig),
            VnetHdr::NONE,
            packet(a6, b6, Kind::Udp, 2_000),
        ),
    ];
    for functions in [Functions::default(), functions(100)] {
        let world = World::new(functions, Limits::default());
        let mut worker = Worker::new();
        let work: Vec<_> = cases
            .iter()
            .map(|(fate, vnet, bytes)| {
                let mut parcel = outward("", bytes.clone());
                parcel.way = Way::Out(*vnet);
                (*fate, parcel)
            })
            .collect();
        let mut round = || {
            for (fate, parcel) in &work {
                assert_eq!(worker.carry(&world, parcel), *fate);
            }
            worker.settle(&world);
        };
        round();
        assert_eq!(allocations(|| (0..ROUNDS).for_each(|_| round())), 0);
        assert!(worker.out.packets > 100 * ROUNDS);
    }
}

#[test]
fn merging_trains_allocates_nothing() {
    let world = World::new(Functions::default(), Limits::default());
    let plain = |bytes: &[u8]| behind(&header(Attach::default(), bytes), bytes);
    let (a, b) = ((ip("10.0.0.1"), 443), (ip("10.0.0.2"), 40_000));
    let mut train: Vec<Vec<u8>> = Vec::new();
    // A flow of either family, which merge; then what does not merge, and what is dropped.
    for (src, dst) in [(b, a), ((ip("fd00::2"), 40_000), (ip("fd00::1"), 443))] {
        for at in 0..40u32 {
            let kind = Kind::Tcp(libgeneve::wire::transport::TcpFlags::ACK, 1000 * at);
            let mut segment = packet(src, dst, kind, 1000);
            if src == b {
                segment[5] = at as u8;
                write_ipv4_checksum(&mut segment);
            }
            train.push(plain(&segment));
        }
    }
    for at in 0..40 {
        train.push(plain(&packet(b, a, Kind::Udp, 100 + at)));
    }
    let mut unfinished = packet(b, a, ACK, 8_000);
    let parsed = Packet::parse(&unfinished).unwrap();
    assert!(parsed.write_partial_checksum(&mut unfinished));
    train.push(plain(&unfinished));
    let mut other_family = plain(&unfinished);
    other_family[2..4].copy_from_slice(&[0x86, 0xdd]);
    train.push(other_family);
    train.push(train[0][..7].to_vec());
    train.push(plain(&packet(a, b, ACK, 10)));
    let Way::In(arrival) = inward("", B, Vec::new()).way else {
        unreachable!("it is inward");
    };
    let mut ingress = Ingress::default();
    let mut merger: Merger<usize> = Merger::new(16, true);
    let (mut packets, mut written, mut unmerged, mut dropped) = (0, 0, 0, 0);
    let mut round = || {
        let mut out = |_: u64, packet: SuperPacket<'_, usize>| {
            written += 1;
            packets += usize::from(packet.segments);
        };
        for (tag, datagram) in train.iter_mut().enumerate() {
            let Ok(decap) = ingress.decide(&world.cx(), &arrival, datagram) else {
                dropped += 1;
                continue;
            };
            let inner = &mut datagram[decap.start..];
            match decap.vnet {
                Some(_) => {
                    merger.flush(&mut out);
                    unmerged += 1;
                }
                None => {
                    mtu::clamp_mss(inner, &decap.packet, 1464, false);
                    merger.push(decap.lane, tag, 0, inner, &decap.packet, &mut out);
                }
            }
        }
        merger.flush(&mut out);
        ingress.settle(&world.cx());
    };
    round();
    assert_eq!(allocations(|| (0..ROUNDS).for_each(|_| round())), 0);
    let rounds = ROUNDS + 1;
    assert_eq!(unmerged, rounds);
    assert_eq!(packets + unmerged + dropped, train.len() * rounds);
    assert_eq!(dropped, 3 * rounds);
    // Both families were merged, each flow into one.
    assert!(
        written <= packets - 2 * 39 * rounds,
        "{written} of {packets}"
    );
}

#[test]
fn options_and_labels_allocate_nothing() {
    let key = world::label_key();
    let labels = world::labels("app=web,tier=front");
    let selector: Selector = "app in (web,db),!gone".parse().unwrap();
    let selector = selector.hashed(&key);
    let wanted: OptionMatch = "geneved:3=0700/ff00".parse().unwrap();
    let schema = Schema::default();
    let attach = Attach {
        labels: Some((labels, true)),
        class: Some(ClassOption {
            class: 7,
            drop_precedence: 1,
        }),
        ..Attach::default()
    };
    let counted = allocations(|| {
        for _ in 0..ROUNDS {
            let header = attach.header(&schema, Vni::MAX, 0x0800, []).unwrap();
            let geneve = Geneve::parse(&header).unwrap();
            let received = Received::read(&schema, geneve.options()).unwrap();
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
