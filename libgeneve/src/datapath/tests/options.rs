//! Options on the wire: user-defined ones, and how much room all options may take.

use super::support::*;
use super::*;
use crate::options::{ClassOption, EndpointOption, OptionDef, OptionSchema, SentOptions};
use crate::qos::{ClassCounters, QosClass};
use crate::service::Affinity;
use crate::vpc::{AttachedOption, EndpointConfig};

fn attachment(kind: u8, len: usize) -> AttachedOption {
    AttachedOption {
        class: OPTION_CLASS,
        kind: OptionType(kind),
        data: vec![kind; len],
    }
}

fn kinds(went: &TestOutput) -> Vec<u8> {
    let header = &went.forward().encap;
    let geneve = Geneve::parse(header).unwrap();
    geneve.options().map(|o| o.kind.0).collect()
}

fn is_critical(went: &TestOutput) -> bool {
    Geneve::parse(&went.forward().encap).unwrap().has_critical()
}

#[test]
fn options_of_the_link_and_of_the_source_are_on_every_packet() {
    let mut functions = LinkFunctions {
        options: vec![attachment(1, 4), attachment(1, 8)],
        ..LinkFunctions::default()
    };
    let tagged = |kind, local| EndpointConfig {
        options: vec![attachment(kind, 4)],
        local,
        ..EndpointConfig::default()
    };
    functions
        .endpoints
        .insert(ip("10.0.0.1"), tagged(0x82, true));
    functions.endpoints.insert(ip("10.0.0.2"), tagged(3, false));
    let site = site(functions);
    let own = site.send(&udp("10.0.0.1", "10.0.0.2", (1, 2), 0)).unwrap();
    assert_eq!(kinds(&own), [1, 1, 0x82]);
    assert!(is_critical(&own));
    let other = site
        .send(&udp("172.16.0.1", "10.0.0.2", (1, 2), 0))
        .unwrap();
    assert_eq!(kinds(&other), [1, 1]);
    assert!(!is_critical(&other));
    // The source's options are on replies, too.
    site.hear(HOST_B, &udp("10.0.0.2", "10.0.0.1", (5, 6), 0), &plain())
        .unwrap();
    let reply = site.send(&udp("10.0.0.1", "10.0.0.2", (6, 5), 0)).unwrap();
    assert_eq!(kinds(&reply), [1, 1, 0x82]);
}

#[test]
fn labels_are_critical_where_the_link_demands_it() {
    for critical in [false, true] {
        let site = site(LinkFunctions {
            labels: true,
            labels_critical: critical,
            ..LinkFunctions::default()
        });
        let went = site.send(&udp("10.0.0.1", "10.0.0.2", (1, 2), 0)).unwrap();
        let said = went.options();
        assert_eq!(said.labels.unwrap().as_slice(), []);
        assert_eq!(
            (said.labels_critical, is_critical(&went)),
            (critical, critical)
        );
    }
}

#[test]
fn known_options_of_a_packet_are_counted_by_their_slots() {
    let define = |name: &str, kind| OptionDef {
        name: name.into(),
        class: OPTION_CLASS,
        kind: OptionType(kind),
        len: 4,
    };
    let defined = vec![define("one", 1), define("two", 0x82)];
    let mut site = site(LinkFunctions {
        options: vec![attachment(0x82, 4), attachment(9, 4)],
        labels: true,
        ..LinkFunctions::default()
    });
    let inner = udp("10.0.0.2", "10.0.0.1", (1, 2), 0);
    let with = |kind: u8, len: usize| {
        let header = geneve(RED, ethertype::IPV4);
        behind(
            header
                .option(OPTION_CLASS, OptionType(kind), &vec![0; len])
                .unwrap(),
            &inner,
        )
    };
    let unknown = site.receive(HOST_B, &with(0x82, 4));
    assert_eq!(unknown.unwrap_err(), DropReason::UnknownCriticalOption);
    site.world.tables.schema =
        Arc::new(OptionSchema::new(OptionSchema::default().class(), defined).unwrap());
    site.receive(HOST_B, &with(0x82, 4)).unwrap();
    site.receive(HOST_B, &with(9, 8)).unwrap();
    let short = site.receive(HOST_B, &with(1, 8));
    assert_eq!(short.unwrap_err(), DropReason::OptionMalformed);
    let unknown = site.receive(HOST_B, &with(0x81, 4));
    assert_eq!(unknown.unwrap_err(), DropReason::UnknownCriticalOption);
    // Labels have slot 1; the user's second option follows the first.
    let went = site.send(&udp("10.0.0.1", "10.0.0.2", (1, 2), 0)).unwrap();
    assert_eq!(went.forward().slots, 1 << 1 | 1 << 5);
}

/// Any combination of the functions that make headers longer.
fn any_functions() -> impl Strategy<Value = LinkFunctions> {
    let flags = proptest::collection::vec(any::<bool>(), 9);
    let kinds = proptest::collection::vec(0usize..5, 3);
    (flags, kinds, 0usize..=15, 0usize..=3).prop_map(|(on, kinds, count, data)| {
        let text: Vec<_> = (0..count).map(|n| format!("k{n}=v")).collect();
        let mut functions = LinkFunctions {
            labels: on[0],
            labels_critical: on[1],
            gateway: on[2],
            ..LinkFunctions::default()
        };
        if on[3] {
            let class = |id| {
                Arc::new(QosClass {
                    id,
                    name: format!("class-{id}"),
                    bucket: None,
                    ingress: None,
                    dscp: None,
                    tally: Arc::new(ClassCounters::default()),
                })
            };
            functions.classes = vec![class(1), class(2)];
        }
        if on[4] {
            functions.options = vec![attachment(1, data * 4)];
        }
        if on[5] {
            let balanced = service(
                "10.0.9.1",
                protocol::UDP,
                Affinity::None,
                vec![backend("10.0.0.3", 1)],
            );
            functions.services = balanced;
        }
        if on[6] {
            let out = snat(
                "out",
                "10.0.0.0/16",
                ("198.51.100.1", "198.51.100.1"),
                (5000, 5999),
            );
            let turned = dnat("203.0.113.9", None, "10.0.0.3", None);
            functions.nat = translation(0, vec![out, turned]);
        }
        for (at, kind) in kinds.into_iter().enumerate() {
            if on[7] || at == 0 && on[8] {
                let endpoint = EndpointConfig {
                    kind: EndpointType::ALL[kind],
                    labels: (kind != 1).then(|| labels(&text.join(","))),
                    class: Some(at as u8),
                    local: at == 0,
                    options: vec![attachment(2, data * 8)],
                    ..EndpointConfig::default()
                };
                functions
                    .endpoints
                    .insert(ip(&format!("10.0.0.{}", at + 1)), endpoint);
            }
        }
        functions
    })
}

proptest! {
    #[test]
    fn no_header_is_longer_than_the_mtu_counts_with(
        functions in any_functions(),
        types in (0usize..5, 0usize..5),
        class: u8,
        count in 0usize..=15,
    ) {
        prop_assume!(functions.options_fit());
        let mut config = vpc(LOCAL_HOST, 0, RED);
        if functions.gateway {
            config.routes.push(RouteConfig {
                kind: EndpointType::Gateway,
                ..route("0.0.0.0/0", &[HOST_C], RouteOrigin::Route)
            });
        }
        config.functions = functions;
        let site = TestHost::new(LOCAL_HOST, vec![config]);
        let most = site.link(0).encap_len();
        let text: Vec<_> = (0..count).map(|n| format!("other{n}=v")).collect();
        let mut sent = 0;
        let mut check = |went: Result<TestOutput, DropReason>| {
            if let Ok(TestOutput::Wire(forward, _)) = went {
                assert!(forward.encap.len() <= most, "{} > {most}", forward.encap.len());
                sent += 1;
            }
        };
        for dst in ["10.0.0.2", "10.0.0.3", "10.0.9.1", "203.0.113.9", "8.8.8.8"] {
            for src in ["10.0.0.1", "172.16.0.1"] {
                check(site.send(&udp(src, dst, (1000, 80), 0)));
            }
        }
        let option = SentOptions {
            endpoint: Some(EndpointOption {
                src: EndpointType::ALL[types.0],
                dst: EndpointType::ALL[types.1],
                ..EndpointOption::default()
            }),
            labels: Some((labels(&text.join(",")), false)),
            class: Some(ClassOption { class, drop_precedence: 2 }),
            service: None,
        };
        let bare = SentOptions { endpoint: None, ..option };
        for dst in ["10.0.0.1", "10.0.9.1", "203.0.113.9", "8.8.8.8"] {
            for (port, options) in [(1, option), (2, bare), (3, plain())] {
                check(site.hear(HOST_B, &udp("10.0.0.2", dst, (port, 80), 0), &options));
                check(site.send(&udp(dst, "10.0.0.2", (80, port), 0)));
                check(site.send(&udp(dst, "198.51.100.1", (80, 5000), 0)));
            }
        }
        prop_assert!(sent > 0);
    }
}

#[test]
fn options_that_nobody_asks_about_decide_nothing() {
    use crate::policy::{Direction, PolicyAction};
    let mut asking = rule("asks", Direction::Ingress, PolicyAction::Allow);
    asking.option = Some(
        "0x0199:5=01"
            .parse::<crate::options::OptionMatch>()
            .unwrap(),
    );
    let rules = vec![
        asking,
        rule("rest", Direction::Ingress, PolicyAction::Allow),
    ];
    let site = site(LinkFunctions {
        policy: policy(PolicyAction::Deny, PolicyAction::Allow, rules),
        ..LinkFunctions::default()
    });
    let say = |kind: u8, data: u8| {
        let header = geneve(RED, ethertype::IPV4)
            .option(OptionClass(0x0199), OptionType(kind), &[data; 4])
            .unwrap();
        let inner = udp("10.0.0.2", "10.0.0.1", (1000, 53), 0);
        site.receive(HOST_B, &behind(header, &inner)).unwrap();
        (hits(&site, "asks"), hits(&site, "rest"))
    };
    // A measurement that differs in each packet.
    for data in 0..10 {
        assert_eq!(say(6, data), (0, 1));
    }
    assert_eq!(say(5, 1), (1, 1));
    assert_eq!(say(5, 2), (1, 2));
}
