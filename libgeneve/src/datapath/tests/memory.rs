//! Header cache of ingress: different headers are decided separately, with the same result as without the cache.

use super::*;

/// Two VPCs with equal addresses, and the first one's VNI on another port, too.
fn three() -> TestTables {
    let mut other = config(2, RED, OTHER_PORT);
    other.routes = vec![route("10.0.0.2/32", &[HOST_C], RouteOrigin::Endpoint)];
    tables(vec![
        config(0, RED, GENEVE_PORT),
        config(1, BLUE, GENEVE_PORT),
        other,
    ])
}

#[test]
fn equal_headers_share_a_lane_and_others_do_not() {
    let (tables, mut ingress) = (three(), Ingress::default());
    let mut lane = |arrival: &OuterRx, mut datagram: Vec<u8>| {
        ingress
            .decide(&tables.cx(), arrival, &mut datagram)
            .unwrap()
            .lane
    };
    let first = lane(&arrival(HOST_B), from_b(RED));
    assert_eq!(lane(&arrival(HOST_B), from_b(RED)), first);
    // A reserved bit is ignored, but the headers are not byte-identical.
    let mut reserved = from_b(RED);
    reserved[7] = 1;
    let second = lane(&arrival(HOST_B), reserved);
    assert_ne!(second, first);
    let third = lane(&arrival(HOST_B), from_b(BLUE));
    assert!(third != second && third != first);
    // Interleaved headers keep their lanes, so that their packets can be merged.
    assert_eq!(lane(&arrival(HOST_B), from_b(RED)), first);
    assert_eq!(lane(&arrival(HOST_B), from_b(BLUE)), third);
}

#[test]
fn every_changed_byte_of_the_header_is_decided_again() {
    let tables = red();
    let option = geneve(RED, ethertype::IPV4).option(OPTION_CLASS, OptionType(1), &[0; 4]);
    let good = behind(option.unwrap(), &udp("10.0.0.2", "10.0.0.1", (1000, 53), 0));
    for at in 0..16 {
        for bit in 0..8 {
            let mut ingress = Ingress::default();
            let before = ingress
                .decide(&tables.cx(), &arrival(HOST_B), &mut good.clone())
                .unwrap();
            let mut changed = good.clone();
            changed[at] ^= 1 << bit;
            let verdict = ingress.decide(&tables.cx(), &arrival(HOST_B), &mut changed.clone());
            let lane = verdict.as_ref().map(|decap| decap.lane);
            assert!(lane.is_err() || lane != Ok(before.lane));
            assert_eq!(
                verdict.map(|d| outcome(&d)),
                decide(&tables, &arrival(HOST_B), changed).map(|d| outcome(&d)),
                "byte {at} bit {bit}"
            );
        }
    }
}

#[test]
fn another_sender_is_decided_again() {
    let (tables, mut ingress) = (red(), Ingress::default());
    let mut from = |host: &str| {
        ingress
            .decide(&tables.cx(), &arrival(host), &mut from_b(RED))
            .map_err(|r| r.reason)
            .map(|_| ())
    };
    assert_eq!(from(HOST_B), Ok(()));
    assert_eq!(from(STRANGER), Err(DropReason::UnknownHost));
    assert_eq!(from(HOST_C), Err(DropReason::SourceMismatch));
    assert_eq!(from(HOST_B), Ok(()));
}

#[test]
fn another_inner_source_is_looked_up_again() {
    let (tables, mut ingress) = (red(), Ingress::default());
    let mut from = |src: &str| {
        let inner = udp(src, "10.0.0.1", (1, 2), 0);
        let mut datagram = behind(geneve(RED, ethertype::IPV4), &inner);
        ingress
            .decide(&tables.cx(), &arrival(HOST_B), &mut datagram)
            .map_err(|r| r.reason)
            .map(|_| ())
    };
    assert_eq!(from("10.0.0.2"), Ok(()));
    assert_eq!(from("10.0.0.3"), Err(DropReason::SourceMismatch));
    // Again: a refused source is not cached as a valid one.
    assert_eq!(from("10.0.0.3"), Err(DropReason::SourceMismatch));
    assert_eq!(from("10.7.0.1"), Ok(()));
}

#[test]
fn the_same_vni_on_two_ports_is_two_vpcs() {
    let (tables, mut ingress) = (three(), Ingress::default());
    let on = |port, host| OuterRx {
        port,
        ..arrival(host)
    };
    for _ in 0..2 {
        let here = ingress
            .decide(&tables.cx(), &on(GENEVE_PORT, HOST_B), &mut from_b(RED))
            .unwrap();
        assert_eq!(here.link, LinkIndex(0));
        let there = ingress
            .decide(&tables.cx(), &on(OTHER_PORT, HOST_C), &mut from_b(RED))
            .unwrap();
        assert_eq!(there.link, LinkIndex(2));
        let refused = ingress.decide(&tables.cx(), &on(OTHER_PORT, HOST_B), &mut from_b(RED));
        assert_eq!(refused.unwrap_err().reason, DropReason::UnknownHost);
    }
}

#[test]
fn what_is_forgotten_is_decided_by_the_new_tables() {
    let (before, after) = (red(), tables(vec![config(5, BLUE, GENEVE_PORT)]));
    let mut ingress = Ingress::default();
    assert!(
        ingress
            .decide(&before.cx(), &arrival(HOST_B), &mut from_b(RED))
            .is_ok()
    );
    ingress.forget(&before.cx());
    let gone = ingress
        .decide(&after.cx(), &arrival(HOST_B), &mut from_b(RED))
        .unwrap_err();
    assert_eq!(gone.reason, DropReason::UnknownVni);
    let mut moved = config(0, RED, GENEVE_PORT);
    moved.routes[0].hosts = vec![ip(HOST_C)];
    ingress.forget(&before.cx());
    assert!(
        ingress
            .decide(&before.cx(), &arrival(HOST_B), &mut from_b(RED))
            .is_ok()
    );
    ingress.forget(&before.cx());
    let moved = ingress
        .decide(
            &tables(vec![moved]).cx(),
            &arrival(HOST_B),
            &mut from_b(RED),
        )
        .unwrap_err();
    assert_eq!(moved.reason, DropReason::SourceMismatch);
}

#[test]
fn rfc8926_41_equal_addresses_in_two_vpcs_stay_apart() {
    let mut blue = config(1, BLUE, GENEVE_PORT);
    blue.routes = vec![route("10.0.0.2/32", &[HOST_C], RouteOrigin::Endpoint)];
    let tables = tables(vec![config(0, RED, GENEVE_PORT), blue]);
    let mut ingress = Ingress::default();
    for (vni, host, link) in [(RED, HOST_B, 0), (BLUE, HOST_C, 1), (RED, HOST_B, 0)] {
        let decap = ingress
            .decide(&tables.cx(), &arrival(host), &mut from_b(vni))
            .unwrap();
        assert_eq!(decap.link, LinkIndex(link));
    }
    // B is not a host of the other VPC, although the address belongs to B in its own.
    let refused = ingress
        .decide(&tables.cx(), &arrival(HOST_B), &mut from_b(BLUE))
        .unwrap_err();
    assert_eq!(refused.reason, DropReason::UnknownHost);
    for (index, host) in [(0, HOST_B), (1, HOST_C)] {
        let link = tables.link(LinkIndex(index)).unwrap();
        let packet = parsed("10.0.0.1", "10.0.0.2");
        let forward = egress(&tables, link, &packet).unwrap();
        assert_eq!(forward.host.addr, ip(host));
        let vni = Geneve::parse(&forward.encap).unwrap().vni();
        assert_eq!(vni, link.config.vni);
    }
}

/// Returns a verdict without the lane, which is meaningful only relative to other verdicts.
pub(super) fn outcome(decap: &Decap) -> (LinkIndex, usize, Packet) {
    (decap.link, decap.start, decap.packet)
}

fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    let header = (
        prop::sample::select(vec![RED, BLUE, 7]),
        prop::sample::select(vec![0x0800u16, 0x86dd, 0x6558]),
        prop::sample::select(vec![None, Some(1u8), Some(0x81)]),
    );
    let inner = prop_oneof![
        4 => prop::sample::select(vec!["10.0.0.2", "10.0.0.3", "10.7.0.1", "10.8.8.8"])
            .prop_map(|src| udp(src, "10.0.0.1", (1, 2), 1)),
        1 => Just(udp("fd00::2", "fd00::1", (1, 2), 2)),
        1 => sample::mutated(),
    ];
    let edit = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    let made = (header, inner, edit).prop_map(|((vni, protocol, option), inner, edit)| {
        let mut builder = geneve(vni, protocol);
        if let Some(kind) = option {
            builder = builder
                .option(OPTION_CLASS, OptionType(kind), &[0; 4])
                .unwrap();
        }
        let mut datagram = behind(builder, &inner);
        if let Some((at, value)) = edit {
            let at = at.index(datagram.len());
            datagram[at] = value;
        }
        datagram
    });
    prop_oneof![9 => made, 1 => proptest::collection::vec(any::<u8>(), 0..100)]
}

fn any_arrival() -> impl Strategy<Value = OuterRx> {
    (
        prop::sample::select(vec![GENEVE_PORT, GENEVE_PORT, OTHER_PORT]),
        prop::sample::select(vec![HOST_B, HOST_B, HOST_C, STRANGER]),
        0u8..4,
    )
        .prop_map(|(port, src, tos)| OuterRx {
            port,
            tos,
            ..arrival(src)
        })
}

proptest! {
    #[test]
    fn the_memory_gives_the_answer_of_a_fresh_look(
        train in proptest::collection::vec((any_arrival(), any_datagram(), 1usize..4), 1..12)
    ) {
        let tables = three();
        let mut ingress = Ingress::default();
        let mut lanes: HashMap<u64, (OuterRx, LinkIndex, Vec<u8>)> = HashMap::new();
        for (arrival, datagram, times) in &train {
            for _ in 0..*times {
                let (mut one, mut two) = (datagram.clone(), datagram.clone());
                let remembered = ingress.decide(&tables.cx(), arrival, &mut one);
                let fresh = Ingress::default().decide(&tables.cx(), arrival, &mut two);
                prop_assert_eq!(&one, &two);
                if let Ok(decap) = &remembered {
                    let here = (*arrival, decap.link, datagram[..decap.start].to_vec());
                    let there = lanes.entry(decap.lane).or_insert_with(|| here.clone());
                    prop_assert_eq!(there, &here);
                }
                prop_assert_eq!(remembered.map(|d| outcome(&d)), fresh.map(|d| outcome(&d)));
            }
        }
    }

    #[test]
    fn arbitrary_datagrams_never_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..400), arrival in any_arrival()
    ) {
        let _ = Ingress::default().decide(&three().cx(), &arrival, &mut bytes);
    }
}
