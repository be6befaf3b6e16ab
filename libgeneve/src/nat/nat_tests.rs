//! Tests of what rules mean, and which are rejected.

use super::*;

fn ip(addr: &str) -> IpAddr {
    addr.parse().unwrap()
}

fn snat(name: &str, from: &str, first: &str, last: &str, ports: (u16, u16)) -> NatRule {
    NatRule::Snat {
        name: name.into(),
        from: from.parse().unwrap(),
        pool: ip(first)..=ip(last),
        ports: ports.0..=ports.1,
    }
}

fn dnat(
    name: &str,
    to: &str,
    port: Option<(u8, u16)>,
    target: &str,
    to_port: Option<u16>,
) -> NatRule {
    NatRule::Dnat {
        name: name.into(),
        to: ip(to),
        port,
        target: ip(target),
        target_port: to_port,
    }
}

fn fixed(name: &str, inside: &str, outside: &str) -> NatRule {
    NatRule::Static {
        name: name.into(),
        inside: ip(inside),
        outside: ip(outside),
    }
}

fn compile(rules: Vec<NatRule>) -> Result<Nat, NatError> {
    Nat::compile(LinkIndex(0), rules, &mut PoolRegistry::default())
}

#[test]
fn the_most_specific_rule_decides() {
    let nat = compile(vec![
        snat("all", "10.0.0.0/8", "192.0.2.1", "192.0.2.2", (1024, 65535)),
        snat(
            "some",
            "10.1.0.7/16",
            "192.0.2.9",
            "192.0.2.9",
            (1024, 65535),
        ),
        snat("six", "fd00::/8", "2001:db8::1", "2001:db8::ff", (1, 65535)),
        fixed("one", "10.1.0.5", "192.0.2.50"),
        dnat("web", "192.0.2.50", Some((6, 80)), "10.1.0.6", Some(8080)),
        dnat("dns", "192.0.2.50", Some((17, 53)), "10.1.0.7", None),
        dnat("host", "192.0.2.51", None, "10.1.0.8", None),
    ])
    .unwrap();
    let source = |addr| match nat.source(ip(addr)) {
        Some(SourceTranslation::Static { outside, rule }) => format!("{rule} {outside}"),
        Some(SourceTranslation::Pool { pool, rule }) => format!("{rule} {}", pool.usage().total),
        None => "none".into(),
    };
    assert_eq!(source("10.0.0.1"), "all 129024");
    assert_eq!(source("10.1.0.1"), "some 64512");
    assert_eq!(source("10.1.0.5"), "one 192.0.2.50");
    assert_eq!(source("fd12::1"), format!("six {}", 255 * 65535));
    assert_eq!(source("11.0.0.1"), "none");

    let goes = |dst, proto, port| {
        let to = nat.destination(ip(dst), proto, port)?;
        Some((to.rule.to_owned(), to.addr, to.port))
    };
    let to = |rule: &str, addr, port| Some((rule.to_owned(), ip(addr), port));
    assert_eq!(
        goes("192.0.2.50", 6, Some(80)),
        to("web", "10.1.0.6", Some(8080))
    );
    assert_eq!(
        goes("192.0.2.50", 17, Some(53)),
        to("dns", "10.1.0.7", None)
    );
    assert_eq!(
        goes("192.0.2.50", 17, Some(80)),
        to("one", "10.1.0.5", None)
    );
    assert_eq!(goes("192.0.2.50", 6, None), to("one", "10.1.0.5", None));
    assert_eq!(goes("192.0.2.51", 1, None), to("host", "10.1.0.8", None));
    assert_eq!(goes("192.0.2.1", 6, Some(80)), None);
    assert!(!nat.is_empty() && Nat::default().is_empty());
    let rules: Vec<_> = nat
        .usages()
        .map(|(rule, usage)| (rule, usage.in_use))
        .collect();
    assert_eq!(rules, [("all", 0), ("some", 0), ("six", 0)]);
}

#[test]
fn rules_that_contradict_each_other_are_refused_by_name() {
    let two = |a: NatRule, b: NatRule| {
        let error = compile(vec![a, b]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`a`") && text.contains("`b`"), "{text}");
        error
    };
    let pool = |name, from, first, last| snat(name, from, first, last, (1024, 65535));
    two(
        fixed("a", "10.0.0.1", "192.0.2.1"),
        fixed("b", "10.0.0.2", "192.0.2.1"),
    );
    two(
        fixed("a", "10.0.0.1", "192.0.2.1"),
        fixed("b", "10.0.0.1", "192.0.2.2"),
    );
    two(
        dnat("a", "192.0.2.1", Some((6, 80)), "10.0.0.1", None),
        dnat("b", "192.0.2.1", Some((6, 80)), "10.0.0.2", Some(81)),
    );
    two(
        dnat("a", "192.0.2.1", None, "10.0.0.1", None),
        dnat("b", "192.0.2.1", None, "10.0.0.2", None),
    );
    two(
        pool("a", "10.0.0.0/8", "192.0.2.1", "192.0.2.9"),
        fixed("b", "10.0.0.1", "192.0.2.5"),
    );
    two(
        pool("a", "10.0.0.0/8", "192.0.2.1", "192.0.2.9"),
        dnat("b", "192.0.2.5", None, "10.0.0.5", None),
    );
    two(
        pool("a", "10.0.0.0/8", "192.0.2.9", "192.0.2.20"),
        pool("b", "172.16.0.0/12", "192.0.2.1", "192.0.2.9"),
    );
    two(
        pool("a", "10.1.2.3/8", "192.0.2.1", "192.0.2.1"),
        pool("b", "10.0.0.0/8", "192.0.2.2", "192.0.2.2"),
    );
    let same = vec![
        fixed("a", "10.0.0.1", "192.0.2.1"),
        fixed("a", "10.0.0.2", "192.0.2.2"),
    ];
    assert_eq!(compile(same).unwrap_err(), NatError::SameName("a".into()));
    // Other ports of the same addresses do not conflict.
    let shared = vec![
        snat("a", "10.0.0.0/8", "192.0.2.1", "192.0.2.9", (1024, 2047)),
        snat("b", "172.16.0.0/12", "192.0.2.1", "192.0.2.9", (2048, 4095)),
    ];
    assert!(compile(shared).is_ok());
}

#[test]
fn rules_that_mean_nothing_are_refused() {
    let v4 = "10.0.0.0/8";
    let tcp = Some((6, 80));
    for (rule, expected) in [
        (
            snat("x", v4, "192.0.2.2", "192.0.2.1", (1, 9)),
            NatError::EmptyPool("x".into()),
        ),
        (
            snat("x", v4, "10.0.0.0", "10.1.0.0", (1, 9)),
            NatError::LargePool("x".into()),
        ),
        (
            snat("x", "fd00::/8", "::1", "ffff::", (1, 9)),
            NatError::NotOneHost("x".into(), ip("ffff::")),
        ),
        (
            snat("x", "fd00::/8", "::1", "fe00::", (1, 9)),
            NatError::LargePool("x".into()),
        ),
        (
            snat("x", v4, "::1", "::2", (1, 9)),
            NatError::Family("x".into()),
        ),
        (
            snat("x", v4, "192.0.2.1", "::2", (1, 9)),
            NatError::Family("x".into()),
        ),
        (
            snat("x", v4, "192.0.2.1", "192.0.2.1", (0, 9)),
            NatError::Ports("x".into()),
        ),
        (
            snat("x", v4, "192.0.2.1", "192.0.2.1", (9, 8)),
            NatError::Ports("x".into()),
        ),
        (
            dnat("x", "192.0.2.1", None, "10.0.0.1", Some(80)),
            NatError::TargetPort("x".into()),
        ),
        (
            dnat("x", "192.0.2.1", Some((1, 80)), "10.0.0.1", None),
            NatError::Forward("x".into()),
        ),
        (
            dnat("x", "192.0.2.1", Some((6, 0)), "10.0.0.1", None),
            NatError::Forward("x".into()),
        ),
        (
            dnat("x", "192.0.2.1", tcp, "10.0.0.1", Some(0)),
            NatError::Forward("x".into()),
        ),
        (
            dnat("x", "192.0.2.1", tcp, "::1", None),
            NatError::Family("x".into()),
        ),
        (fixed("x", "10.0.0.1", "::1"), NatError::Family("x".into())),
        (
            fixed("x", "224.0.0.1", "192.0.2.1"),
            NatError::NotOneHost("x".into(), ip("224.0.0.1")),
        ),
    ] {
        assert_eq!(compile(vec![rule]).unwrap_err(), expected);
    }
    let widest = snat("x", v4, "10.0.0.1", "10.1.0.0", (1, 65535));
    assert_eq!(compile(vec![widest]).unwrap().usages().count(), 1);
}

const NAT_NOW: crate::time::Now = crate::time::Now(0);

fn pool(nat: &Nat) -> &Arc<NatPool> {
    nat.pools().next().unwrap().1
}

#[test]
fn an_equal_pool_survives_a_change_and_a_changed_one_knows_what_is_in_use() {
    let mut registry = PoolRegistry::default();
    let inside = (ip("10.0.0.1"), 5000);
    let rule = |last, high| snat("a", "10.0.0.0/8", "192.0.2.1", last, (5000, high));
    let link = LinkIndex(3);
    let first = Nat::compile(link, vec![rule("192.0.2.1", 5001)], &mut registry).unwrap();
    let lease = pool(&first).lease(6, inside, NAT_NOW).unwrap();
    assert_eq!(first.mapping(6, ip("192.0.2.1"), 5000), Some(inside));
    assert_eq!(first.mapping(17, ip("192.0.2.1"), 5000), None);

    let rules = vec![rule("192.0.2.1", 5001), fixed("b", "10.0.0.9", "192.0.2.9")];
    let second = Nat::compile(link, rules, &mut registry).unwrap();
    assert!(Arc::ptr_eq(pool(&first), pool(&second)));
    let other = Nat::compile(LinkIndex(4), vec![rule("192.0.2.1", 5001)], &mut registry).unwrap();
    assert!(!Arc::ptr_eq(pool(&first), pool(&other)));
    assert_eq!(pool(&other).usage().in_use, 0);

    // A wider pool: the old mapping stays, and its port is taken for everybody else.
    let third = Nat::compile(link, vec![rule("192.0.2.2", 5000)], &mut registry).unwrap();
    assert!(!Arc::ptr_eq(pool(&first), pool(&third)));
    assert_eq!(
        pool(&third).usage(),
        PortUsage {
            in_use: 1,
            total: 2
        }
    );
    assert_eq!(pool(&third).lease(6, inside, NAT_NOW).unwrap(), lease);
    let taken = pool(&third)
        .lease(6, (ip("10.0.0.2"), 5000), NAT_NOW)
        .unwrap();
    assert_eq!(taken.outside(), (ip("192.0.2.2"), 5000));
    assert!(
        pool(&third)
            .lease(6, (ip("10.0.0.3"), 5000), NAT_NOW)
            .is_err()
    );

    // A port forward takes its port out of the pool, and the mapping that had it gets another.
    let rules = vec![
        rule("192.0.2.1", 5001),
        dnat("web", "192.0.2.1", Some((6, 5000)), "10.0.0.8", None),
    ];
    let fourth = Nat::compile(link, rules, &mut registry).unwrap();
    assert_eq!(
        pool(&fourth).usage_of(6),
        PortUsage {
            in_use: 0,
            total: 1
        }
    );
    assert_eq!(
        pool(&fourth).usage_of(17),
        PortUsage {
            in_use: 0,
            total: 2
        }
    );
    let moved = pool(&fourth).lease(6, inside, NAT_NOW).unwrap();
    assert_eq!(moved.outside(), (ip("192.0.2.1"), 5001));
    assert!(
        pool(&fourth)
            .lease(6, (ip("10.0.0.4"), 1), NAT_NOW)
            .is_err()
    );

    drop((first, second, third));
    drop((lease, taken));
    registry.prune();
    assert_eq!(
        pool(&fourth).usage_of(6),
        PortUsage {
            in_use: 1,
            total: 1
        }
    );
    assert_eq!(fourth.mapping(6, ip("192.0.2.1"), 5001), Some(inside));
}
