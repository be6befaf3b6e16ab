//! Dropped packets, one for each reason, and floods of them.

use super::*;

/// Sends each packet until the tables have stopped growing, and then measures.
fn dropped(world: &LinkWorld, cases: &[(DropReason, Parcel)]) {
    let mut worker = TestWorker::new();
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
    assert_eq!(
        allocations(|| (0..ALLOCATION_ROUNDS).for_each(|_| all())),
        0
    );
}

/// Returns a world with all functions on, some of them denying or broken.
fn hostile() -> LinkWorld {
    let mut all = functions(0);
    let mut rules = world::allow_all();
    for direction in [Direction::Ingress, Direction::Egress] {
        for (name, action, port) in [
            ("deny", PolicyAction::Deny, 666),
            ("reject", PolicyAction::Reject, 667),
        ] {
            let mut rule = world::rule(format!("{name}-{direction}"), direction, 1, action);
            rule.protocol = Some(17);
            rule.dports = vec![port..=port];
            rules.push(rule);
        }
    }
    let mut slow = world::rule("slow", Direction::Ingress, 1, PolicyAction::Allow);
    (slow.protocol, slow.dports, slow.class) = (Some(17), vec![668..=668], Some(8));
    rules.push(slow);
    all.classes.push(Arc::new(QosClass {
        id: 8,
        name: "slow".into(),
        bucket: None,
        ingress: Some(Arc::new(Bucket::new(1, 1))),
        dscp: None,
        tally: Arc::default(),
    }));
    let mut labelled = world::rule("by-label", Direction::Ingress, 1, PolicyAction::Deny);
    labelled.from = RulePeer::Selector("tier=bad".parse::<Selector>().unwrap());
    rules.push(labelled);
    all.policy = Some(world::policy(100, rules));
    all.nat = Some(world::snat(1, 5000..=5000));
    all.services = Some(world::services(&[]));
    let endpoint = |rate: bool, kind| EndpointConfig {
        kind,
        rate: rate.then(|| Arc::new(Bucket::new(1, 1))),
        local: true,
        ..EndpointConfig::default()
    };
    let endpoints = &mut all.endpoints;
    endpoints.insert(ip("10.0.0.5"), endpoint(true, EndpointType::Simple));
    endpoints.insert(ip("10.5.0.9"), endpoint(false, EndpointType::Proxied));
    LinkWorld::new(all, FlowLimits::default())
}

#[test]
fn drops_on_the_way_out_allocate_nothing() {
    let world = hostile();
    let (a, b, inside) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("10.5.0.1"));
    let udp = |src, dst, port| {
        outward(
            "udp",
            packet((src, 4000), (dst, port), PayloadKind::Udp, 64),
        )
    };
    // These packets use up the only port of the pool, and the bucket.
    let mut worker = TestWorker::new();
    assert_eq!(worker.carry(&world, &udp(inside, b, 1)), Ok(()));
    let fast = udp(ip("10.0.0.5"), b, 1);
    assert_eq!(worker.carry(&world, &fast), Ok(()));
    let piece = fragment_of(packet((a, 1), (b, 1), PayloadKind::Udp, 64), 0x2004);
    let unrelated = error_about(&packet((b, 9), (a, 9), PayloadKind::Udp, 64), a);
    let esp = packet((inside, 0), (b, 0), PayloadKind::Other(50), 64);
    dropped(
        &world,
        &[
            (DropReason::PolicyDenied, udp(a, b, 666)),
            (DropReason::PolicyRejected, udp(a, b, 667)),
            (DropReason::NoRoute, udp(a, ip("10.0.0.5"), 1)),
            (DropReason::SourceNotLocal, udp(b, b, 1)),
            (
                DropReason::NoBackend,
                outward("vip", packet((a, 1), (ip(WORLD_VIP), 80), TCP_SYN, 9)),
            ),
            (DropReason::NatExhausted, udp(ip("10.5.0.2"), b, 1)),
            (DropReason::NatUntranslatable, outward("esp", esp)),
            (DropReason::RateExceeded, fast),
            (DropReason::FragmentUnknown, outward("piece", piece)),
            (DropReason::IcmpUnrelated, outward("error", unrelated)),
            (DropReason::InnerMalformed, outward("short", vec![0x45; 12])),
            (DropReason::NotIp, outward("not IP", vec![0x50; 40])),
            (DropReason::LoopbackAddress, udp(ip("127.0.0.1"), b, 1)),
            (
                DropReason::MappedAddress,
                udp(ip("fd00::1"), ip("::ffff:10.0.0.2"), 1),
            ),
            (DropReason::SourceNotUnicast, udp(ip("224.0.0.1"), b, 1)),
        ],
    );
}

#[test]
fn drops_on_the_way_in_allocate_nothing() {
    let world = hostile();
    let (a, b, c) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3"));
    let udp = |src, dst, port| packet((src, 4000), (dst, port), PayloadKind::Udp, 64);
    let good = udp(b, a, 1);
    let plain = |bytes: &[u8]| behind(&header(SentOptions::default(), bytes), bytes);
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
    let from_b = |name: &str, bytes| inward(name, WORLD_HOST_B, bytes);
    let bad = SentOptions {
        labels: Some((world::labels("tier=bad"), true)),
        ..SentOptions::default()
    };
    let mut worker = TestWorker::new();
    let fast = from_b("fast", plain(&udp(b, a, 668)));
    assert_eq!(worker.carry(&world, &fast), Ok(()));
    let taken = typed(
        EndpointType::Gateway,
        &udp(ip("10.7.0.9"), ip("198.51.100.1"), 1),
    );
    assert_eq!(worker.carry(&world, &from_b("gateway", taken)), Ok(()));
    // A flow of B, whose addresses C then forges.
    assert_eq!(worker.carry(&world, &from_b("good", plain(&good))), Ok(()));
    let mut wrong_local = from_b("local", plain(&good));
    let mut by_link = from_b("by a link", plain(&good));
    let mut by_nobody = from_b("by nobody knows what", vec![0xff; 9]);
    if let (ParcelDirection::In(link), ParcelDirection::In(nobody)) =
        (&mut by_link.way, &mut by_nobody.way)
    {
        link.interface = RxInterface::Link(LinkIndex(0));
        nobody.interface = RxInterface::Unknown;
    }
    let mut congested = from_b("congested", plain(&udp(b, a, 2)));
    congested.bytes[9] = 0;
    write_ipv4_checksum(&mut congested.bytes[8..]);
    if let (ParcelDirection::In(local), ParcelDirection::In(congested)) =
        (&mut wrong_local.way, &mut congested.way)
    {
        local.dst = Some(ip("192.0.2.77"));
        congested.tos = 3;
    }
    let piece = fragment_of(udp(b, a, 1), 0x2004);
    let unrelated = error_about(&udp(a, b, 9), b);
    let vip = packet((c, 1), (ip(WORLD_VIP), 80), TCP_SYN, 9);
    let esp = packet(
        (ip("10.7.0.9"), 0),
        (ip("198.51.100.1"), 0),
        PayloadKind::Other(50),
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
            (DropReason::NotFromUnderlay, by_link),
            (DropReason::NotFromUnderlay, by_nobody),
            (
                DropReason::LoopbackAddress,
                from_b("loopback", plain(&udp(b, ip("127.0.0.1"), 1))),
            ),
            (
                DropReason::SourceNotUnicast,
                from_b("broadcast", plain(&udp(ip("255.255.255.255"), a, 1))),
            ),
            (
                DropReason::SourceMismatch,
                from_b("C's", plain(&udp(c, a, 1))),
            ),
            (
                DropReason::SourceMismatch,
                inward("B's flow", WORLD_HOST_C, plain(&good)),
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
            (
                DropReason::DestinationNotHere,
                from_b("elsewhere", plain(&udp(b, ip("169.254.169.254"), 1))),
            ),
            (
                DropReason::NoBackend,
                inward("vip", WORLD_HOST_C, labelled(&vip)),
            ),
            (DropReason::RateExceeded, fast),
            (DropReason::FragmentUnknown, from_b("piece", plain(&piece))),
            (
                DropReason::IcmpUnrelated,
                from_b("error", plain(&unrelated)),
            ),
            (DropReason::EcnCongestion, congested),
        ],
    );
    let flow = FlowKey::of(WORLD_LINK, &Packet::parse(&good).unwrap());
    assert!(world.state.flows.peek(&flow).is_some(), "C ended B's flow");
}

impl Parcel {
    fn map(mut self, change: impl FnOnce(&mut [u8])) -> Parcel {
        change(&mut self.bytes);
        self
    }
}

/// Headers that were never seen before do not allocate either, as long as their packets are dropped.
#[test]
fn a_flood_of_ever_other_headers_allocates_nothing() {
    let world = hostile();
    let mut worker = TestWorker::new();
    let forged = packet(
        (ip("10.0.0.3"), 1),
        (ip("10.0.0.1"), 1),
        PayloadKind::Udp,
        9,
    );
    let option =
        GeneveBuilder::new(WORLD_VNI, 0x0800).option(OptionClass(0xfff1), OptionType(1), &[0; 4]);
    let mut parcel = inward(
        "forged",
        WORLD_HOST_B,
        behind(&option.unwrap().finish(), &forged),
    );
    let mut flood = |world: &LinkWorld, from: u32| {
        for number in from..from + 1000 {
            parcel.bytes[12..16].copy_from_slice(&number.to_be_bytes());
            let fate = worker.carry(world, &parcel);
            assert_eq!(fate, Err(DropReason::SourceMismatch));
        }
    };
    flood(&world, 0);
    assert_eq!(allocations(|| flood(&world, 1000)), 0);
}
