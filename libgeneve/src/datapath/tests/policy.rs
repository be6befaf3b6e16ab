//! Policy: which labels are trusted, how rejected packets are answered, and what is logged.

use super::support::*;
use super::*;
use crate::options::{OptionMatch, SentOptions};
use crate::policy::{Direction, PolicyAction, PolicyRule, RulePeer};
use crate::qos::{ClassCounters, QosClass};

const IN: Direction = Direction::Ingress;
const OUT: Direction = Direction::Egress;

fn ruled(ingress: PolicyAction, egress: PolicyAction, rules: Vec<PolicyRule>) -> LinkFunctions {
    LinkFunctions {
        policy: policy(ingress, egress, rules),
        ..LinkFunctions::default()
    }
}

fn selecting(name: &str, direction: Direction, selector: &str, action: PolicyAction) -> PolicyRule {
    let who = RulePeer::Selector(selector.parse().unwrap());
    let mut rule = rule(name, direction, action);
    match direction {
        Direction::Ingress => rule.from = who,
        Direction::Egress => rule.to = who,
    }
    rule
}

fn with(text: &str) -> SentOptions {
    SentOptions {
        labels: Some((labels(text), false)),
        ..SentOptions::default()
    }
}

fn to_us() -> Vec<u8> {
    udp("10.0.0.2", "10.0.0.1", (1000, 80), 0)
}

fn from_us() -> Vec<u8> {
    udp("10.0.0.1", "10.0.0.3", (1000, 80), 0)
}

#[test]
fn each_direction_has_its_default() {
    for ingress in [
        PolicyAction::Allow,
        PolicyAction::Deny,
        PolicyAction::Reject,
    ] {
        for egress in [
            PolicyAction::Allow,
            PolicyAction::Deny,
            PolicyAction::Reject,
        ] {
            let site = site(ruled(ingress, egress, Vec::new()));
            let expected = |action| match action {
                PolicyAction::Allow => Ok(()),
                PolicyAction::Deny => Err(DropReason::PolicyDenied),
                PolicyAction::Reject => Err(DropReason::PolicyRejected),
            };
            for _ in 0..2 {
                let heard = site.hear(HOST_B, &to_us(), &plain()).map(|_| ());
                assert_eq!(heard, expected(ingress));
                assert_eq!(site.send(&from_us()).map(|_| ()), expected(egress));
            }
        }
    }
}

#[test]
fn the_labels_of_the_packet_decide_and_unknown_ones_never_allow() {
    let verdict = |selector: &str, action: PolicyAction, options: &SentOptions| {
        let other = match action {
            PolicyAction::Allow => PolicyAction::Deny,
            _ => PolicyAction::Allow,
        };
        let rules = vec![selecting("rule", IN, selector, action)];
        site(ruled(other, PolicyAction::Deny, rules))
            .hear(HOST_B, &to_us(), options)
            .is_ok()
    };
    assert!(verdict(
        "app=web",
        PolicyAction::Allow,
        &with("app=web,tier=front")
    ));
    assert!(!verdict("app=web", PolicyAction::Allow, &with("app=db")));
    assert!(!verdict("app=web", PolicyAction::Allow, &with("")));
    // Known to have no labels is not the same as unknown.
    assert!(verdict("!app", PolicyAction::Allow, &with("")));
    assert!(!verdict("!app", PolicyAction::Allow, &plain()));
    assert!(!verdict("app", PolicyAction::Allow, &plain()));
    // A deny rule also matches unknown labels.
    assert!(!verdict("app=web", PolicyAction::Deny, &plain()));
    assert!(!verdict("app=web", PolicyAction::Deny, &with("app=web")));
    assert!(verdict("app=web", PolicyAction::Deny, &with("app=db")));
}

#[test]
fn configured_labels_stand_in_for_an_absent_option_and_only_for_that() {
    let mut functions = ruled(
        PolicyAction::Deny,
        PolicyAction::Deny,
        vec![
            selecting("in", IN, "app=web", PolicyAction::Allow),
            selecting("out", OUT, "app=web", PolicyAction::Allow),
        ],
    );
    let mut web = endpoint(EndpointType::Simple);
    web.labels = Some(labels("app=web"));
    functions.endpoints.insert(ip("10.0.0.2"), web);
    let site = site(functions);
    site.hear(HOST_B, &to_us(), &plain()).unwrap();
    let other = udp("10.0.0.2", "10.0.0.1", (1001, 80), 0);
    let heard = site.hear(HOST_B, &other, &with("app=db"));
    assert_eq!(heard.unwrap_err(), DropReason::PolicyDenied);
    // On egress only configured labels count.
    site.send(&udp("10.0.0.1", "10.0.0.2", (5, 80), 0)).unwrap();
    let unknown = site.send(&udp("10.0.0.1", "10.0.0.3", (5, 80), 0));
    assert_eq!(unknown.unwrap_err(), DropReason::PolicyDenied);
}

#[test]
fn labels_from_a_stranger_are_not_read() {
    let rules = vec![selecting("web", IN, "app=web", PolicyAction::Allow)];
    let site = site(ruled(PolicyAction::Deny, PolicyAction::Deny, rules));
    let heard = site.hear(STRANGER, &to_us(), &with("app=web"));
    assert_eq!(heard.unwrap_err(), DropReason::UnknownHost);
    // Nor are labels trusted from a host that the source does not belong to.
    let heard = site.hear(HOST_C, &to_us(), &with("app=web"));
    assert_eq!(heard.unwrap_err(), DropReason::SourceMismatch);
    assert_eq!((hits(&site, "web"), site.flows()), (0, 0));
}

#[test]
fn an_option_is_matched_by_value_and_mask() {
    let mut wanted = rule("tagged", IN, PolicyAction::Allow);
    wanted.option = Some(OptionMatch::parse("0xfff0:0x11=0a00/ff00", OPTION_CLASS).unwrap());
    let site = site(ruled(PolicyAction::Deny, PolicyAction::Deny, vec![wanted]));
    let hear = |port: u16, data: &[&[u8]]| {
        let header = data
            .iter()
            .fold(geneve(RED, ethertype::IPV4), |header, data| {
                header.option(OPTION_CLASS, OptionType(0x11), data).unwrap()
            });
        let inner = udp("10.0.0.2", "10.0.0.1", (port, 80), 0);
        site.receive(HOST_B, &behind(header, &inner)).is_ok()
    };
    assert!(hear(1, &[&[0x0a, 0x77, 0, 0]]));
    assert!(!hear(2, &[&[0x0b, 0x77, 0, 0]]));
    assert!(!hear(3, &[]));
    assert!(hear(4, &[&[0; 4], &[0x0a, 0, 0, 0]]));
}

#[test]
fn whoever_is_rejected_is_told_unless_that_must_not_be() {
    let site = site(ruled(
        PolicyAction::Reject,
        PolicyAction::Reject,
        Vec::new(),
    ));
    let told = |inner: &[u8]| {
        let refused = site
            .receive_fully(HOST_B, &marked(RED, &plain(), inner))
            .unwrap_err();
        assert_eq!(refused.reason, DropReason::PolicyRejected);
        let packet = Packet::parse(inner).unwrap();
        let mut out = [0; 1280];
        let len = answer(
            &site.link(0).config,
            refused.answer.unwrap(),
            &packet,
            inner,
            &mut out,
        )?;
        let told = Packet::parse(&out[..len]).unwrap();
        assert_eq!((told.src, told.dst), (packet.dst, packet.src));
        let sound = told.checksum_state(&out[..len]);
        assert_eq!(sound, crate::wire::transport_checksum::ChecksumState::Valid);
        Some((told, told.quote(&out[..len])))
    };
    for (src, dst) in [("10.0.0.2", "10.0.0.1"), ("fd00::2", "fd00::1")] {
        let (reset, _) = told(&tcp(src, dst, (1000, 80), SYN)).unwrap();
        let Transport::Tcp {
            src: port, flags, ..
        } = reset.transport
        else {
            panic!("{reset:?}");
        };
        assert!(port == 80 && flags.contains(TcpFlags::RST));
        let (error, quote) = told(&udp(src, dst, (1000, 80), 0)).unwrap();
        assert!(error.is_icmp_error() && quote.unwrap().src == ip(src));
        assert!(told(&tcp(src, dst, (1001, 80), TcpFlags::RST)).is_none());
        // A second packet of the flow is answered, too.
        assert!(told(&udp(src, dst, (1000, 80), 0)).is_some());
    }
    // Errors are never answered.
    let error = error_about("10.0.0.2", &from_us());
    let packet = Packet::parse(&error).unwrap();
    let none = answer(
        &site.link(0).config,
        SenderReply::Rejected,
        &packet,
        &error,
        &mut [0; 1280],
    );
    assert_eq!(none, None);
}

#[test]
fn replies_of_an_allowed_flow_pass_although_the_default_denies() {
    let mut web = rule("web", OUT, PolicyAction::Allow);
    web.dports = vec![80..=80];
    let site = site(ruled(PolicyAction::Deny, PolicyAction::Deny, vec![web]));
    let reply = udp("10.0.0.3", "10.0.0.1", (80, 1000), 0);
    let early = site.hear(HOST_C, &reply, &plain());
    assert_eq!(early.unwrap_err(), DropReason::PolicyDenied);
    site.send(&from_us()).unwrap();
    for _ in 0..2 {
        site.hear(HOST_C, &reply, &plain()).unwrap();
    }
    let other = udp("10.0.0.3", "10.0.0.1", (81, 1000), 0);
    let heard = site.hear(HOST_C, &other, &plain());
    assert_eq!(heard.unwrap_err(), DropReason::PolicyDenied);
    assert_eq!(hits(&site, "web"), 1);
}

#[test]
fn what_a_rule_logs_is_bounded_and_the_rest_is_counted() {
    let mut loud = rule("loud", IN, PolicyAction::Deny);
    loud.log = true;
    let mut site = site(ruled(
        PolicyAction::Allow,
        PolicyAction::Allow,
        vec![loud.clone()],
    ));
    for port in 0..100 {
        let inner = udp("10.0.0.2", "10.0.0.1", (port, 80), 0);
        site.hear(HOST_B, &inner, &plain()).unwrap_err();
        site.hear(HOST_B, &inner, &plain()).unwrap_err();
    }
    let (logged, suppressed) = site.world.state.log.take();
    assert_eq!((logged.len(), suppressed), (64, 36));
    let first = logged[0];
    assert_eq!(
        (first.key.sport, first.verdict),
        (0, Verdict::Drop(DropReason::PolicyDenied))
    );
    let link = site.link(0);
    let policy = link.config.functions.policy.as_ref().unwrap();
    assert_eq!(policy.rule(first.rule).unwrap().name, "loud");
    assert_eq!(first.epoch, site.world.epoch);
    // Stopping a flow midway is logged, too; repeating the same decision is not.
    site.functions(|f| f.policy = None);
    site.hear(HOST_B, &to_us(), &plain()).unwrap();
    for _ in 0..2 {
        site.functions(|f| f.policy = policy_of(&loud));
        site.hear(HOST_B, &to_us(), &plain()).unwrap_err();
    }
    assert_eq!(site.world.state.log.take().0.len(), 1);
}

fn policy_of(rule: &PolicyRule) -> Option<Arc<crate::policy::Policy>> {
    policy(PolicyAction::Allow, PolicyAction::Allow, vec![rule.clone()])
}

#[test]
fn a_rule_gives_its_flows_a_class() {
    let mut web = rule("web", OUT, PolicyAction::Allow);
    (web.dports, web.class) = (vec![80..=80], Some(7));
    let mut functions = ruled(PolicyAction::Deny, PolicyAction::Allow, vec![web]);
    functions.classes = vec![Arc::new(QosClass {
        id: 7,
        name: "gold".into(),
        bucket: None,
        ingress: None,
        dscp: Some(46),
        tally: Arc::new(ClassCounters::default()),
    })];
    let site = site(functions);
    let went = site.send(&from_us()).unwrap();
    assert_eq!(went.options().class.unwrap().class, 7);
    assert_eq!(went.forward().outer.tos, 46 << 2);
    let other = site
        .send(&udp("10.0.0.1", "10.0.0.3", (1000, 81), 0))
        .unwrap();
    assert_eq!(
        (other.options().class, other.forward().outer.tos),
        (None, 0)
    );
}
