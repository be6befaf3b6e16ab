//! Checks that a policy of ten thousand rules decides without allocating, and stays within its memory bound.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use allocation_counter::measure;
use ipnet::IpNet;
use libgeneve::label::{LabelKey, LabelMap, Labels};
use libgeneve::options::EndpointType;
use libgeneve::policy::{
    Direction, Policy, PolicyAction, PolicyDefaults, PolicyQuery, PolicyRule, RulePeer,
};
use libgeneve::wire::geneve::Geneve;

const RULES: u32 = 10_000;
const DENY_ALL: PolicyDefaults = PolicyDefaults {
    ingress: PolicyAction::Deny,
    egress: PolicyAction::Deny,
};

/// Returns rules that do not share any prefix, selector, range or option.
fn rules() -> Vec<PolicyRule> {
    let rule = |at: u32| {
        let action = [
            PolicyAction::Allow,
            PolicyAction::Deny,
            PolicyAction::Reject,
        ][at as usize % 3];
        let mut rule = PolicyRule::new(format!("rule-{at}"), Direction::Ingress, at, action);
        let v4 = IpNet::new(Ipv4Addr::from(0x0a00_0000 + (at << 6)).into(), 26);
        let v6 = IpNet::new(Ipv6Addr::from(u128::from(at) << 64).into(), 64);
        rule.from = match at % 3 {
            0 => RulePeer::Prefix(v4.unwrap()),
            1 => RulePeer::Prefix(v6.unwrap()),
            _ => RulePeer::Selector(format!("app=a{at},tier!=t{at},env").parse().unwrap()),
        };
        rule.to = RulePeer::Selector(format!("app in (a{at},b{at})").parse().unwrap());
        match at % 4 {
            0 => rule.option = Some(format!("aws:1={at:08x}").parse().unwrap()),
            1 => rule.icmp = Some((at as u8, Some((at >> 8) as u8))),
            _ => {
                rule.sports = vec![at as u16..=at as u16 + 20_000];
                rule.dports = vec![at as u16..=at as u16, 2 * at as u16..=40_000];
            }
        }
        rule
    };
    (0..RULES).map(rule).collect()
}

#[test]
fn deciding_allocates_nothing() {
    let key = LabelKey::from_secret(b"a secret of tests");
    let policy = Policy::compile(rules(), DENY_ALL, Some(&key), &mut |_| Arc::default()).unwrap();
    let header = [2, 0, 8, 0, 0, 0, 1, 0, 1, 8, 1, 1, 0, 0, 0, 12];
    let options = Geneve::parse(&header).unwrap().options();
    let sets = [2u32, 12, 302].map(|at| {
        let map: LabelMap = format!("app=a{at},env=prod,tier=web").parse().unwrap();
        map.hashed(&key).unwrap()
    });
    let addrs: [(IpAddr, IpAddr); 2] = [
        ("10.0.3.1".parse().unwrap(), "10.0.0.2".parse().unwrap()),
        ("0:0:0:a::1".parse().unwrap(), "fd00::2".parse().unwrap()),
    ];
    let mut from_rules = 0;
    let counted = measure(|| {
        for (src, dst) in addrs {
            for (protocol, ports, icmp) in [
                (6, Some((10_000, 302)), None),
                (17, None, None),
                (1, None, Some((13, 0))),
                (58, None, None),
                (47, None, None),
            ] {
                let known = sets.iter().map(|set| Labels::Known(set.as_slice()));
                for labels in known.chain([Labels::Unknown, Labels::Known(&[])]) {
                    let verdict = policy.decide(&PolicyQuery {
                        direction: Direction::Ingress,
                        src,
                        dst,
                        protocol,
                        ports,
                        icmp,
                        from: labels,
                        to: labels,
                        dst_type: EndpointType::Simple,
                        options: options.clone(),
                    });
                    from_rules += u32::from(verdict.rule.is_some());
                }
            }
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
    assert!((10..50).contains(&from_rules), "{from_rules}");
}

#[test]
fn ten_thousand_rules_take_less_than_64_mib_while_they_are_compiled() {
    let key = LabelKey::from_secret(b"a secret of tests");
    let rules = rules();
    let counted = measure(|| {
        let policy = Policy::compile(rules, DENY_ALL, Some(&key), &mut |_| Arc::default());
        assert!(policy.is_ok());
    });
    assert!(counted.bytes_max < 64 << 20, "{counted:?}");
}
