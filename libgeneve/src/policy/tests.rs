use std::net::Ipv4Addr;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::rule::{has_ports, is_icmp};
use super::*;
use crate::label::{LabelMap, LabelSet};
use crate::wire::geneve::Geneve;
use ipnet::IpNet;

static KEY: LazyLock<LabelKey> = LazyLock::new(|| LabelKey::from_secret(b"a secret of tests"));

const ALLOW_ALL: PolicyDefaults = PolicyDefaults {
    ingress: PolicyAction::Deny,
    egress: PolicyAction::Allow,
};

fn compile(rules: Vec<PolicyRule>) -> Result<Policy, PolicyError> {
    Policy::compile(rules, ALLOW_ALL, Some(&KEY), &mut |_| Arc::default())
}

/// Owned form of a [`PolicyQuery`].
#[derive(Clone, Debug)]
struct TestQuery {
    direction: Direction,
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    from: Option<LabelSet>,
    to: Option<LabelSet>,
    dst_type: EndpointType,
    geneve: Vec<u8>,
}

impl TestQuery {
    fn tcp(src: &str, dst: &str, dport: u16) -> TestQuery {
        TestQuery {
            direction: Direction::Ingress,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: 6,
            ports: Some((40_000, dport)),
            icmp: None,
            from: None,
            to: None,
            dst_type: EndpointType::Simple,
            geneve: geneve(&[]),
        }
    }

    fn query(&self) -> PolicyQuery<'_> {
        fn labels(set: Option<&LabelSet>) -> Labels<'_> {
            set.map_or(Labels::Unknown, |set| Labels::Known(set.as_slice()))
        }
        PolicyQuery {
            direction: self.direction,
            src: self.src,
            dst: self.dst,
            protocol: self.protocol,
            ports: self.ports,
            icmp: self.icmp,
            from: labels(self.from.as_ref()),
            to: labels(self.to.as_ref()),
            dst_type: self.dst_type,
            options: Geneve::parse(&self.geneve).unwrap().options(),
        }
    }
}

/// Builds a Geneve header with these options, each a class, a type and data.
fn geneve(options: &[(u16, u8, Vec<u8>)]) -> Vec<u8> {
    let mut list = Vec::new();
    for (class, kind, data) in options {
        list.extend(class.to_be_bytes());
        list.extend([*kind, data.len() as u8 / 4]);
        list.extend(data);
    }
    let critical = options.iter().any(|(_, kind, _)| kind & 0x80 != 0);
    let mut header = vec![
        list.len() as u8 / 4,
        u8::from(critical) << 6,
        8,
        0,
        0,
        0,
        1,
        0,
    ];
    header.extend(list);
    header
}

fn labels(text: &str) -> LabelSet {
    let map: LabelMap = text.parse().unwrap();
    map.hashed(&KEY).unwrap()
}

/// Reference implementation of matching: `rule` condition by condition, as documented.
fn matches(rule: &PolicyRule, query: &PolicyQuery<'_>) -> bool {
    let strict = rule.action != PolicyAction::Allow;
    let who = |who: &RulePeer, addr: IpAddr, labels| match who {
        RulePeer::Any => true,
        RulePeer::Prefix(prefix) => prefix.contains(&addr),
        RulePeer::Selector(selector) => selector.hashed(&KEY).decide(labels).unwrap_or(strict),
    };
    let port = |ranges: &[std::ops::RangeInclusive<u16>], port: Option<u16>| {
        ranges.is_empty()
            || has_ports(query.protocol)
                && port.map_or(strict, |port| ranges.iter().any(|r| r.contains(&port)))
    };
    let icmp_of_family = if query.dst.is_ipv4() { 1 } else { 58 };
    let icmp = rule.icmp.is_none_or(|(kind, code)| {
        let asked = |(k, c)| k == kind && code.is_none_or(|code| code == c);
        query.protocol == icmp_of_family && query.icmp.map_or(strict, asked)
    });
    let options = |option: &crate::options::OptionMatch| option.matches(query.options.clone());
    rule.direction == query.direction
        && who(&rule.from, query.src, query.from)
        && who(&rule.to, query.dst, query.to)
        && rule.protocol.is_none_or(|p| p == query.protocol)
        && port(&rule.sports, query.ports.map(|p| p.0))
        && port(&rule.dports, query.ports.map(|p| p.1))
        && icmp
        && rule.option.as_ref().is_none_or(options)
        && rule.endpoint_type.is_none_or(|t| t == query.dst_type)
}

/// Reference implementation of a lookup: a linear walk that returns the rule that decides.
fn walk<'r>(rules: &'r [PolicyRule], query: &PolicyQuery<'_>) -> Option<&'r PolicyRule> {
    let rank = |action| match action {
        PolicyAction::Deny => 0,
        PolicyAction::Reject => 1,
        PolicyAction::Allow => 2,
    };
    let matching = rules.iter().filter(|rule| matches(rule, query));
    matching.min_by_key(|rule| (rule.pref, rank(rule.action), &rule.name))
}

fn agree(policy: &Policy, rules: &[PolicyRule], asked: &TestQuery) {
    let query = asked.query();
    let verdict = policy.decide(&query);
    let expected = walk(rules, &query);
    let found = verdict.rule.and_then(|id| policy.rule(id));
    assert_eq!(found, expected, "{asked:?}");
    let default = match asked.direction {
        Direction::Ingress => ALLOW_ALL.ingress,
        Direction::Egress => ALLOW_ALL.egress,
    };
    assert_eq!(verdict.action, expected.map_or(default, |rule| rule.action));
    assert_eq!(verdict.log, expected.is_some_and(|rule| rule.log));
    assert_eq!(verdict.class, expected.and_then(|rule| rule.class));
    assert_eq!(policy.explain(&query), verdict);
    let before = policy.rules().map(|(rule, _)| rule);
    let before = before.filter(|rule| rule.direction == asked.direction);
    let before = before.take_while(|rule| Some(*rule) != found);
    let passed_over: Vec<_> = policy.mismatches(&query).map(|(rule, _)| rule).collect();
    assert_eq!(passed_over, before.collect::<Vec<_>>(), "{asked:?}");
}

fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => (0u8..2, 0u8..2, 0u8..4).prop_map(|(b, c, d)| [10, b, c, d].into()),
        2 => (0u16..2, 0u16..3)
            .prop_map(|(b, d)| [0x2001, 0xdb8, b, 0, 0, 0, 0, d].into()),
        1 => (0u8..2).prop_map(|d| Ipv4Addr::new(10, 0, 0, d).to_ipv6_mapped().into()),
    ]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    let len = select(vec![
        0, 7, 8, 15, 16, 23, 24, 30, 31, 32, 47, 48, 120, 127, 128,
    ]);
    (addr(), len).prop_map(|(addr, len): (IpAddr, u8)| {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        IpNet::new(addr, len.min(max)).unwrap()
    })
}

fn who() -> impl Strategy<Value = RulePeer> {
    let selectors = [
        "",
        "a",
        "!a",
        "a=x",
        "a!=x",
        "b in (x,y)",
        "b notin (x,y),c",
        "a,b,c,d,e",
        "a=x,b=x,!c",
        "a in (x,y),b,c,d!=z,e=x,f",
        "a=x,a=y",
        "a,a=x,!b,b notin (y)",
        "a=x,b,c,d,e=y",
        "c,!d",
        "a,b,a,b,a,b,a,b,a,b,a,b,a,b,a,c=x,d!=y",
    ];
    prop_oneof![
        2 => Just(RulePeer::Any),
        2 => prefix().prop_map(RulePeer::Prefix),
        2 => select(selectors.to_vec()).prop_map(|text| RulePeer::Selector(text.parse().unwrap())),
    ]
}

fn label_set() -> impl Strategy<Value = Option<LabelSet>> {
    let value = || option::of(select(vec!["x", "y", "z"]));
    let set = vec(value(), 6).prop_map(|values| {
        let pairs = ["a", "b", "c", "d", "e", "f"].iter().zip(values);
        let pairs: Vec<String> = pairs
            .filter_map(|(key, value)| Some(format!("{key}={}", value?)))
            .collect();
        labels(&pairs.join(","))
    });
    option::weighted(0.8, set)
}

const EDGE_PORTS: [u16; 9] = [0, 1, 79, 80, 81, 443, 1000, 65_534, 65_535];

fn ranges() -> impl Strategy<Value = Vec<std::ops::RangeInclusive<u16>>> {
    let ends = (select(EDGE_PORTS.to_vec()), select(EDGE_PORTS.to_vec()));
    let range = ends.prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop_oneof![2 => Just(Vec::new()), 1 => vec(range, 1..4)]
}

fn option_match() -> impl Strategy<Value = crate::options::OptionMatch> {
    let texts = [
        "aws:1",
        "aws:1=01",
        "aws:1=01020304",
        "aws:1=0102030405060708",
        "0xff47:0x81",
        "aws:1=01020304/ffffff00",
        "aws:1=0102030405060708/fffffffffffffff0",
        "ovn:1=00/00",
        "aws:1=010203040506070809",
        "aws:1=0102030405",
    ];
    select(texts.to_vec()).prop_map(|text| text.parse().unwrap())
}

fn action() -> impl Strategy<Value = PolicyAction> {
    select(vec![
        PolicyAction::Allow,
        PolicyAction::Deny,
        PolicyAction::Reject,
    ])
}

fn direction() -> impl Strategy<Value = Direction> {
    select(vec![Direction::Ingress, Direction::Egress])
}

fn protocol() -> impl Strategy<Value = u8> {
    select(vec![1, 6, 6, 17, 47, 58])
}

fn rule() -> impl Strategy<Value = PolicyRule> {
    let icmp = option::weighted(0.3, (0u8..3, option::of(0u8..2)));
    let what = (option::weighted(0.3, protocol()), ranges(), ranges(), icmp);
    let more = (
        option::weighted(0.2, option_match()),
        option::weighted(0.2, select(EndpointType::ALL.to_vec())),
        action(),
        any::<bool>(),
        option::of(any::<u8>()),
    );
    let rule = (direction(), 0u32..4, who(), who(), what, more);
    let rule = rule.prop_map(|(direction, pref, from, to, what, more)| {
        let (protocol, sports, dports, icmp) = what;
        let (option, endpoint_type, action, log, class) = more;
        PolicyRule {
            name: String::new(),
            direction,
            pref,
            from,
            to,
            protocol,
            sports,
            dports,
            icmp,
            option,
            endpoint_type,
            action,
            log,
            class,
        }
    });
    rule.prop_map(|mut rule| {
        // Rules that no packet can meet are rejected, so remove the contradiction.
        if rule.icmp.is_some() && !(rule.sports.is_empty() && rule.dports.is_empty()) {
            rule.icmp = None;
        }
        if rule.check().is_err() {
            rule.protocol = None;
        }
        if rule.check().is_err() {
            rule.to = RulePeer::Any;
        }
        rule
    })
}

fn asked() -> impl Strategy<Value = TestQuery> {
    let port = || select(EDGE_PORTS.to_vec());
    let data = select(vec![
        vec![],
        vec![1, 2, 3, 4],
        vec![1, 2, 3, 4, 5, 6, 7, 8],
        vec![1, 2, 3, 9],
        vec![1, 2, 3, 4, 5, 6, 7, 9],
        vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9],
    ]);
    let options = vec(
        (
            select(vec![0x108, 0x102, 0xff47]),
            select(vec![1, 0x81]),
            data,
        ),
        0..4,
    );
    let what = (
        protocol(),
        option::weighted(0.8, (port(), port())),
        option::weighted(0.8, (0u8..3, 0u8..2)),
        select(EndpointType::ALL.to_vec()),
        options,
    );
    let asked = (direction(), addr(), addr(), label_set(), label_set(), what);
    asked.prop_map(|(direction, src, dst, from, to, what)| {
        let (protocol, ports, icmp, dst_type, options) = what;
        TestQuery {
            direction,
            src,
            dst,
            protocol,
            ports: ports.filter(|_| has_ports(protocol)),
            icmp: icmp.filter(|_| is_icmp(protocol)),
            from,
            to,
            dst_type,
            geneve: geneve(&options),
        }
    })
}

fn named(mut rules: Vec<PolicyRule>) -> Vec<PolicyRule> {
    for (at, rule) in rules.iter_mut().enumerate() {
        rule.name = format!("r{at}");
    }
    rules
}

proptest! {
    #[test]
    fn the_compiled_form_agrees_with_a_walk(
        rules in vec(rule(), 0..200).prop_map(named),
        packets in vec(asked(), 20),
    ) {
        let policy = compile(rules.clone()).unwrap();
        for packet in &packets {
            agree(&policy, &rules, packet);
        }
    }

    #[test]
    fn each_condition_alone_agrees_with_a_walk(
        rules in vec(rule(), 1..3).prop_map(named),
        packets in vec(asked(), 30),
    ) {
        let policy = compile(rules.clone()).unwrap();
        for packet in &packets {
            agree(&policy, &rules, packet);
        }
    }
}

/// More rules than fit in one block, few of which match any packet, in an order unlike their priority.
#[test]
fn rules_of_several_blocks_agree_with_a_walk() {
    let count = 2 * RuleBlock::MAX as u32 + 1_000;
    let rules: Vec<PolicyRule> = (0..count)
        .map(|at| {
            let action = [
                PolicyAction::Allow,
                PolicyAction::Deny,
                PolicyAction::Reject,
            ][at as usize % 3];
            let mut rule =
                PolicyRule::new(format!("r{at}"), Direction::Ingress, count - at / 4, action);
            let net = Ipv4Addr::from(0x0a00_0000 | at << 4);
            rule.from = match at % 5 {
                0 => RulePeer::Selector(format!("app=a{at},tier!=t{}", at % 7).parse().unwrap()),
                len => RulePeer::Prefix(IpNet::new(net.into(), 16 + 4 * len as u8).unwrap()),
            };
            let port = (at % 60_000) as u16;
            if at % 2 == 0 {
                rule.dports = vec![port..=port.saturating_add(at as u16 % 300)];
            }
            rule
        })
        .collect();
    let policy = compile(rules.clone()).unwrap();
    assert_eq!(policy.ingress.blocks.len(), 3);
    let mut decided = 0;
    for at in (0..count + 40).step_by(131) {
        let net = Ipv4Addr::from(0x0a00_0000 | at << 4 | 3);
        let mut packet = TestQuery::tcp(&net.to_string(), "10.0.0.1", (at % 60_000) as u16);
        packet.from = Some(labels(&format!("app=a{at},tier=t{}", (at + 1) % 7)));
        agree(&policy, &rules, &packet);
        packet.from = Some(labels(&format!("app=a{at},tier=t{}", at % 7)));
        packet.src = "192.0.2.1".parse().unwrap();
        agree(&policy, &rules, &packet);
        decided += usize::from(policy.explain(&packet.query()).rule.is_none());
        packet.from = None;
        agree(&policy, &rules, &packet);
    }
    assert!(decided > 0, "no packet got past every block");
}

#[test]
fn the_lower_preference_wins_then_the_stricter_action_then_the_name() {
    let rule = |name: &str, pref, action| PolicyRule::new(name, Direction::Ingress, pref, action);
    let order = [
        rule("z", 1, PolicyAction::Allow),
        rule("m", 2, PolicyAction::Deny),
        rule("n", 2, PolicyAction::Deny),
        rule("b", 2, PolicyAction::Reject),
        rule("a", 2, PolicyAction::Allow),
    ];
    let packet = TestQuery::tcp("10.0.0.1", "10.0.0.2", 80);
    for from in 0..order.len() {
        let mut rules = order[from..].to_vec();
        rules.reverse();
        let policy = compile(rules).unwrap();
        let verdict = policy.explain(&packet.query());
        assert_eq!(verdict.rule, Some(RuleId(0)));
        assert_eq!(policy.rule(RuleId(0)), Some(&order[from]));
    }
}

#[test]
fn what_cannot_be_decided_is_never_allowed() {
    let fragment = TestQuery {
        ports: None,
        ..TestQuery::tcp("10.0.0.1", "10.0.0.2", 80)
    };
    let echo = TestQuery {
        protocol: 1,
        ports: None,
        ..fragment.clone()
    };
    for (action, matches) in [
        (PolicyAction::Allow, false),
        (PolicyAction::Deny, true),
        (PolicyAction::Reject, true),
    ] {
        let rule = PolicyRule::new("r", Direction::Ingress, 1, action);
        let selector = PolicyRule {
            from: RulePeer::Selector("!banned".parse().unwrap()),
            ..rule.clone()
        };
        let ports = PolicyRule {
            dports: vec![80..=80],
            ..rule.clone()
        };
        let icmp = PolicyRule {
            icmp: Some((8, None)),
            ..rule
        };
        for (rule, packet) in [(selector, &fragment), (ports, &fragment), (icmp, &echo)] {
            let verdict = compile(vec![rule]).unwrap().explain(&packet.query());
            assert_eq!(verdict.rule.is_some(), matches, "{action} {packet:?}");
        }
    }
}

#[test]
fn a_rule_that_is_passed_over_says_which_condition_is_not_fulfilled() {
    let mut rules = Vec::new();
    let mut add = |edit: &dyn Fn(&mut PolicyRule)| {
        let name = format!("r{}", rules.len());
        let mut rule = PolicyRule::new(name, Direction::Ingress, 1, PolicyAction::Allow);
        edit(&mut rule);
        rules.push(rule);
    };
    let who = |text: &str| RulePeer::Selector(text.parse().unwrap());
    add(&|r| r.protocol = Some(17));
    add(&|r| r.dports = vec![80..=80, 8000..=8999]);
    add(&|r| r.sports = vec![1..=9]);
    add(&|r| r.icmp = Some((8, None)));
    add(&|r| r.from = RulePeer::Prefix("10.1.0.0/16".parse().unwrap()));
    add(&|r| r.from = who("app=web,env in (prod,stage)"));
    add(&|r| r.to = who("app=db"));
    add(&|r| r.endpoint_type = Some(EndpointType::Gateway));
    add(&|r| r.option = Some("aws:1=01020304".parse().unwrap()));
    let policy = compile(rules).unwrap();
    let mut asked = TestQuery::tcp("10.0.0.2", "10.0.0.1", 22);
    asked.from = Some(labels("app=web,env=test"));
    asked.geneve = geneve(&[(0x108, 1, vec![9, 9, 9, 9])]);
    let said: Vec<_> = policy
        .mismatches(&asked.query())
        .map(|(_, why)| why)
        .collect();
    let expected = [
        "proto udp: it is tcp",
        "dport 80,8000-8999: it is 22",
        "sport 1-9: it is 40000",
        "icmp 8: it is tcp",
        "from 10.1.0.0/16: it is 10.0.0.2",
        "from app=web,env in (prod,stage): 10.0.0.2 does not fulfil env in (prod,stage)",
        "to app=db: the labels of 10.0.0.1 are not known",
        "type gateway: its destination is simple",
        "option 0x0108:0x01=01020304: it carries 0x0108:0x01=09090909",
    ];
    assert_eq!(said, expected);
}

#[test]
fn deciding_counts_hits_and_explaining_does_not() {
    let counter: Arc<AtomicU64> = Arc::default();
    let rule = PolicyRule {
        dports: vec![80..=80],
        log: true,
        class: Some(7),
        ..PolicyRule::new("web", Direction::Ingress, 1, PolicyAction::Allow)
    };
    let policy = Policy::compile(vec![rule], ALLOW_ALL, None, &mut |name| {
        assert_eq!(name, "web");
        counter.clone()
    })
    .unwrap();
    let web = TestQuery::tcp("10.0.0.1", "10.0.0.2", 80);
    let verdict = PolicyVerdict {
        action: PolicyAction::Allow,
        rule: Some(RuleId(0)),
        log: true,
        class: Some(7),
    };
    assert_eq!(policy.explain(&web.query()), verdict);
    assert_eq!(counter.load(Ordering::Relaxed), 0);
    assert_eq!(policy.decide(&web.query()), verdict);
    let _ = policy.decide(&TestQuery::tcp("10.0.0.1", "10.0.0.2", 81).query());
    assert_eq!(counter.load(Ordering::Relaxed), 1);
    assert_eq!(
        policy.rules().map(|(_, hits)| hits).collect::<Vec<_>>(),
        [1]
    );
    assert!(!policy.is_trivial(Direction::Ingress) && policy.is_trivial(Direction::Egress));
    assert!(!policy.uses_labels());
    assert_eq!(policy.rule(RuleId(1)), None);
}

#[test]
fn rules_that_can_never_match_are_refused_by_name() {
    let rule = || PolicyRule::new("r", Direction::Egress, 1, PolicyAction::Deny);
    let refused = |rules: Vec<PolicyRule>| {
        let result = Policy::compile(rules, ALLOW_ALL, None, &mut |_| Arc::default());
        result.unwrap_err().to_string()
    };
    let selector = |text: &str| RulePeer::Selector(text.parse().unwrap());
    #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
    let empty = vec![90..=80];
    let cases = [
        (
            PolicyRule {
                from: selector("a=b"),
                ..rule()
            },
            "label secret",
        ),
        (
            PolicyRule {
                sports: empty,
                ..rule()
            },
            "90-80 is empty",
        ),
        (
            PolicyRule {
                protocol: Some(1),
                dports: vec![1..=1],
                ..rule()
            },
            "protocol 1 has no ports",
        ),
        (
            PolicyRule {
                protocol: Some(6),
                icmp: Some((8, None)),
                ..rule()
            },
            "protocol 6 has no ICMP",
        ),
        (
            PolicyRule {
                dports: vec![1..=1],
                icmp: Some((8, None)),
                ..rule()
            },
            "both ports and",
        ),
        (
            PolicyRule {
                from: RulePeer::Prefix("10.0.0.0/8".parse().unwrap()),
                to: RulePeer::Prefix("::/0".parse().unwrap()),
                ..rule()
            },
            "IP version",
        ),
    ];
    for (rule, why) in cases {
        let message = refused(vec![rule]);
        assert!(
            message.starts_with("rule r: ") && message.contains(why),
            "{message}"
        );
    }
    assert!(refused(vec![rule(), rule()]).contains("another rule"));
    let anyone = PolicyRule {
        from: selector(""),
        ..rule()
    };
    let policy = Policy::compile(vec![anyone], ALLOW_ALL, None, &mut |_| Arc::default()).unwrap();
    assert!(!policy.uses_labels());
}

#[test]
fn a_policy_is_shared_between_workers() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Policy>();
}
