//! Policy, NAT, services, classes, options, flows and traces: from words to changes, and their display.

use super::context::CommandContext;
use super::grammar;
use super::object::CliObject;
use super::options;
use super::output::{Show, render};
use super::style::OutputStyle;
use super::tests::complaint;
use crate::config::args::{
    ChangeVerb, FlowFilter, NatArgs, ObjectChange, OptionArgs, PolicyArgs, QosArgs, ServiceArgs,
};
use crate::control::protocol::{
    BackendHealth, BackendInfo, ClassInfo, FlowInfo, NatInfo, OptionInfo, PolicyInfo, ServiceInfo,
    TraceReport,
};

/// Parses the change that a line requests; double quotes group a word.
fn change<T: CliObject>(verb: ChangeVerb, line: &str) -> ObjectChange {
    let quoted = line.split('"').enumerate();
    let words = quoted.flat_map(|(at, part)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    let words: Vec<String> = words.collect();
    let keys = match verb {
        ChangeVerb::Add | ChangeVerb::Replace => T::ADD,
        ChangeVerb::Set => T::SET,
        ChangeVerb::Del => T::DEL,
    };
    let mut subject = T::default();
    grammar::parse(keys, &words, &mut subject).unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut context = CommandContext::new(&options::parse(&[]).unwrap());
    subject.change(verb, &mut context).unwrap()
}

fn shown(style: OutputStyle, record: &dyn Show) -> String {
    render(&style, &[record])
}

fn json(record: &dyn Show) -> serde_json::Value {
    let style = OutputStyle {
        json: true,
        ..OutputStyle::default()
    };
    let all: serde_json::Value = serde_json::from_str(&shown(style, record)).unwrap();
    all[0].clone()
}

fn statistics() -> OutputStyle {
    OutputStyle {
        statistics: 1,
        ..OutputStyle::default()
    }
}

#[test]
fn a_rule_is_shown_in_the_words_that_make_it() {
    for line in [
        "web dev gnv0 ingress pref 10 from \"app in (api,web),!old\" to 10.0.0.0/24 proto tcp sport 1-2 dport 80,443 option 0x0108:0x01=0a/0f endpoint-type scaled allow log class gold",
        "ping dev gnv0 egress pref 100 proto icmp icmp 8/0 reject",
    ] {
        let made = change::<PolicyArgs>(ChangeVerb::Add, line);
        let info = PolicyInfo {
            policy: made.policy.clone().unwrap(),
            hits: 12,
        };
        assert_eq!(shown(OutputStyle::default(), &info), format!("{line}\n"));
        assert_eq!(shown(statistics(), &info), format!("{line} hits 12\n"));
        assert_eq!(json(&info)["hits"], 12);
        assert_eq!(
            json(&info)["action"],
            if line.starts_with('w') {
                "allow"
            } else {
                "reject"
            }
        );
    }
    let short = change::<PolicyArgs>(ChangeVerb::Add, "r deny dev a egr");
    assert_eq!(
        short,
        change::<PolicyArgs>(ChangeVerb::Add, "name r dev a egress deny")
    );
}

#[test]
fn a_translation_is_shown_in_the_words_that_make_it() {
    for line in [
        "out dev gnv0 snat from 10.0.0.0/24 source 198.51.100.1-198.51.100.4 ports 1024-65535",
        "www dev gnv0 dnat to fd00::1 proto tcp dport 80 target [fd00::2]:8080",
        "one dev gnv0 static inside 10.0.0.7 outside 198.51.100.9",
    ] {
        let made = change::<NatArgs>(ChangeVerb::Add, line);
        let info = NatInfo {
            nat: made.nat.unwrap(),
            in_use: 7,
            total: 100,
            missing: Vec::new(),
        };
        assert_eq!(shown(OutputStyle::default(), &info), format!("{line}\n"));
        assert!(shown(statistics(), &info).ends_with("\n    ports in use 7 of 100\n"));
    }
}

#[test]
fn a_weight_is_that_of_the_backend_before_it() {
    let made = change::<ServiceArgs>(
        ChangeVerb::Add,
        "web dev gnv0 vip 10.0.0.80 proto tcp port 80 backend 10.0.0.5:8080 weight 2 backend 10.0.0.6 backend 10.0.0.7 weight 0",
    );
    let service = made.service.unwrap();
    let weights: Vec<_> = service.backend.iter().map(|b| (b.port, b.weight)).collect();
    assert_eq!(
        weights,
        [(Some(8080), Some(2)), (None, None), (None, Some(0))]
    );
    let backend = |n: u8, health, reason: Option<&str>| BackendInfo {
        address: [10, 0, 0, n].into(),
        port: 80,
        weight: 1,
        health,
        reason: reason.map(str::to_owned),
    };
    let info = ServiceInfo {
        service,
        backends: vec![
            backend(5, BackendHealth::Up, None),
            backend(6, BackendHealth::Down, Some("connection refused")),
        ],
    };
    assert_eq!(
        shown(OutputStyle::default(), &info),
        "web dev gnv0 vip 10.0.0.80 proto tcp port 80 backend 10.0.0.5:80 weight 1 backend 10.0.0.6:80 weight 1
    backend 10.0.0.6:80 down: connection refused
"
    );
    assert!(shown(statistics(), &info).contains("\n    backend 10.0.0.5:80 up\n"));
    assert_eq!(json(&info)["backend"][1]["health"], "down");
    let set = change::<ServiceArgs>(ChangeVerb::Set, "web dev gnv0 port 81")
        .service
        .unwrap();
    assert_eq!((set.port, set.vip, set.backend.len()), (Some(81), None, 0));
}

#[test]
fn classes_and_options_are_shown_in_the_words_that_make_them() {
    let line = "gold dev gnv0 id 7 rate 100mbit burst 64k dscp ef";
    let info = ClassInfo {
        class: change::<QosArgs>(ChangeVerb::Add, line).qos.unwrap(),
        passed_bytes: 5,
        dropped_bytes: 6,
        marked_bytes: 7,
        backlog_bytes: 8,
    };
    assert_eq!(shown(OutputStyle::default(), &info), format!("{line}\n"));
    assert!(
        shown(statistics(), &info)
            .contains("passed 5 bytes, dropped 6 bytes, marked 7 bytes, backlog 8 bytes")
    );
    let line = "tag class 0x0199 type 0x85 len 4 critical";
    let info = OptionInfo {
        option: change::<OptionArgs>(ChangeVerb::Add, line).option.unwrap(),
        rx: 1,
        tx: 2,
    };
    assert_eq!(shown(OutputStyle::default(), &info), format!("{line}\n"));
    assert_eq!(shown(statistics(), &info), format!("{line} rx 1 tx 2\n"));
}

#[test]
fn flows_and_traces_as_text() {
    let flow = r#"{"dev":"gnv0","src":"10.0.0.1","dst":"10.0.0.2","proto":"tcp","sport":1234,"dport":80,
        "translated":{"dev":"gnv1","src":"198.51.100.1","dst":"10.0.0.2","sport":2000,"dport":80},
        "state":"established","verdict":"forward","host":"192.0.2.2","class":"gold",
        "original":{"packets":3,"bytes":300},"reply":{"packets":2,"bytes":200},
        "age_s":9,"idle_s":1,"expires_s":299}"#;
    let flow: FlowInfo = serde_json::from_str(flow).unwrap();
    assert_eq!(
        shown(statistics(), &flow),
        "tcp 10.0.0.1:1234 > 10.0.0.2:80 dev gnv0 established forward host 192.0.2.2 class gold expires 299s
    nat 198.51.100.1:2000 > 10.0.0.2:80 dev gnv1
    original 3 packets 300 bytes reply 2 packets 200 bytes age 9s idle 1s
"
    );
    let report = r#"{"stages":[
        {"stage":"route","result":"found","detail":"10.0.0.0/24 via 192.0.2.2"},
        {"stage":"policy","result":"deny","detail":"rule web"}],
        "verdict":"drop","reason":"policy-denied","options":[]}"#;
    let report: TraceReport = serde_json::from_str(report).unwrap();
    assert_eq!(
        shown(OutputStyle::default(), &report),
        "route      found        10.0.0.0/24 via 192.0.2.2\npolicy     deny         rule web\ndrop policy-denied\n"
    );
}

#[test]
fn complaints_have_the_words_of_ip() {
    for (line, words) in [
        (
            "policy add web dev a allow",
            "Not enough information: one of \"ingress\", \"egress\" is required.",
        ),
        (
            "policy add web dev a ingress allow deny",
            "Error: only one of \"allow\", \"deny\", \"reject\" can be given.",
        ),
        (
            "policy add web dev a ingress allow from 10.0.0/8",
            "Error: argument \"10.0.0/8\" is wrong: neither an address nor a prefix; a selector of a key like this is written \"KEY in (VALUE)\"",
        ),
        (
            "policy add web dev a ingress allow proto tpc",
            "Error: argument \"tpc\" is wrong: invalid protocol: \"tcp\", \"udp\", \"icmp\", \"icmpv6\", \"sctp\" or a number from 0 to 255; did you mean \"tcp\"?",
        ),
        (
            "policy set web",
            "Not enough information: \"dev\" argument is required.",
        ),
        (
            "nat add out dev a",
            "Not enough information: one of \"snat\", \"dnat\", \"static\" is required.",
        ),
        (
            "nat add out dev a snat sorce 192.0.2.1",
            "Error: argument \"sorce\" is wrong: unknown keyword; did you mean \"source\"?",
        ),
        (
            "service add web dev a vip 10.0.0.1 proto tcp port 80 weight 2",
            "Error: argument \"2\" is wrong: a weight stands behind its backend",
        ),
        (
            "qos add gold dev a id 256",
            "Error: argument \"256\" is wrong: invalid number: from 0 to 255",
        ),
        (
            "qos add gold dev a id 1 rate fast",
            "Error: argument \"fast\" is wrong: invalid rate: a number and a unit, such as 100mbit, 10gbit or 1mbps",
        ),
        (
            "option add tag class 0x0199 type 5",
            "Not enough information: \"len\" argument is required.",
        ),
        (
            "flow show state open",
            "Error: argument \"open\" is wrong: invalid state: \"half-open\", \"established\", \"closed\", \"datagram\" or \"refused\"",
        ),
        (
            "flow add x",
            "Command \"add\" is unknown, try \"geneved flow help\".",
        ),
        (
            "trace dev a egress from 10.0.0.1 proto tcp",
            "Not enough information: \"to\" argument is required.",
        ),
        (
            "endpoint add 10.0.0.1 dev a local labels app",
            "Error: argument \"app\" is wrong: invalid labels: label 'app': expected KEY=VALUE",
        ),
    ] {
        assert_eq!(complaint(line), (1, words.to_owned()), "{line}");
    }
}

#[test]
fn whole_commands_reach_for_the_daemon() {
    for line in [
        "policy",
        "nat show dev a",
        "serv show web",
        "qos del gold dev a",
        "policy set web dev a pref 5 nolog",
        "policy replace web dev a ingress allow",
        "nat set out dev a ports 2000-3000",
        "option set tag type 6",
        "route replace 10.0.0.0/24 dev a via 192.0.2.1 proto static",
        "link set a up type geneve",
        "link set dev a mtu 1400 down innerprotoinherit noexternal",
        "link ls up",
        "link show type geneve",
        "-n blue link add a type geneve id 5",
        "-n blue link set a up",
        "opt add tag class aws type 1 len 4",
        "flow flush dev a from 10.0.0.0/8 proto tcp state established",
        "flow show limit 5",
        "trace dev a ingress from 10.0.0.1 to 10.0.0.2 proto udp dport 53 host 192.0.2.2 option ovn:0x80=00000001 labels app=web",
        "endpoint add 10.0.0.1 dev a type scaled host 192.0.2.1,192.0.2.2 colocated labels none option tag=00",
        "link set a ingress deny labels critical option tag=00 rate 1gbit burst 64k",
        "route add default dev a via 192.0.2.1 type gateway",
    ] {
        assert_eq!(complaint(line).0, 3, "{line}");
    }
    let filter = FlowFilter::default();
    assert_eq!(serde_json::to_string(&filter).unwrap(), "{}");
}
