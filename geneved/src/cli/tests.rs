//! Grammar and output, verbatim.

use std::collections::BTreeMap;

use super::context::CommandContext;
use super::dispatch;
use super::output::{Show, render};
use super::style::OutputStyle;
use crate::config::args::{EndpointArgs, LinkArgs, LinkKind, RouteArgs};
use crate::control::protocol::{
    FeatureInfo, HostInfo, LinkInfo, MtuSum, PathMtuInfo, RemoteInfo, RouteInfo, TrafficInfo,
};

fn done(line: &str) -> Result<(), super::error::CliError> {
    let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
    let mut options = super::options::parse(&words)?;
    options.socket = Some("/nonexistent/control.sock".into());
    dispatch(&mut CommandContext::new(&options), &options.words)
}

pub(super) fn complaint(line: &str) -> (u8, String) {
    match done(line) {
        Ok(()) => panic!("`{line}` was taken"),
        Err(error) => (error.code(), error.to_string()),
    }
}

#[test]
fn complaints_have_the_words_of_ip() {
    for (line, words) in [
        ("foo", "Object \"foo\" is unknown, try \"geneved help\"."),
        (
            "lnik",
            "Object \"lnik\" is unknown, try \"geneved help\". Did you mean \"link\"?",
        ),
        (
            "c",
            "Object \"c\" is ambiguous: could be completions, check, capture",
        ),
        (
            "help lnik",
            "Object \"lnik\" is unknown, try \"geneved help\". Did you mean \"link\"?",
        ),
        (
            "link foo",
            "Command \"foo\" is unknown, try \"geneved link help\".",
        ),
        (
            "link ad gnv0 id 1 typ bar",
            "Error: argument \"bar\" is wrong: unknown link type: geneved makes \"geneve\" and \"vxlan\" links",
        ),
        (
            "link add gnv0 type geneve",
            "geneve: missing virtual network identifier",
        ),
        (
            "link add gnv0 id 5",
            "Not enough information: \"type\" argument is required.",
        ),
        (
            "link add gnv0 type geneve id",
            "Command line is not complete. Try option \"help\"",
        ),
        (
            "link add gnv0 type geneve id 99999999",
            "Error: argument \"99999999\" is wrong: invalid id: a number from 0 to 16777215",
        ),
        (
            "link add gnv0 type geneve id 5 id 6",
            "Error: either \"id\" is duplicate, or \"6\" is a garbage.",
        ),
        (
            "link add gnv0 type geneve id 5 remtoe 192.0.2.1",
            "Error: argument \"remtoe\" is wrong: unknown keyword; did you mean \"remote\"?",
        ),
        (
            "link add gnv0 type geneve id 5 udp6",
            "Error: argument \"udp6\" is wrong: ambiguous: could be udp6zerocsumtx, udp6zerocsumrx",
        ),
        (
            "link add gnv0 type geneve id 5 remote 192.0.2",
            "Error: argument \"192.0.2\" is wrong: not an IPv4 or IPv6 address",
        ),
        (
            "link add gnv0/ type geneve id 5",
            "Error: argument \"gnv0/\" is wrong: not a valid interface name: 1 to 15 characters without \"/\", \":\", \"%\"",
        ),
        (
            "link add gnv0 type geneve id 5 dstport 0",
            "Error: argument \"0\" is wrong: invalid port: a number from 1 to 65535",
        ),
        (
            "link del",
            "Not enough information: \"dev\" argument is required.",
        ),
        (
            "route add 10.0.0.0/24 via 192.0.2.1",
            "Not enough information: \"dev\" argument is required.",
        ),
        (
            "route add 10.0.0.0/33 dev a via 192.0.2.1",
            "Error: argument \"10.0.0.0/33\" is wrong: invalid prefix: the length of an IPv4 prefix is from 0 to 32",
        ),
        (
            "route add 10.0.0.0/24 dev a via 192.0.2.1,",
            "Error: argument \"192.0.2.1,\" is wrong: not an IPv4 or IPv6 address",
        ),
        (
            "endpoint add 10.0.0.1/24 dev a local",
            "Error: argument \"10.0.0.1/24\" is wrong: not an IPv4 or IPv6 address",
        ),
        (
            "link add vx0 type vxlan",
            "vxlan: missing virtual network identifier",
        ),
        (
            "link add vx0 type vxlan id 1 lladdr 1:2:3:4:5:6",
            "Error: argument \"1:2:3:4:5:6\" is wrong: invalid lladdr: it is not that of one interface",
        ),
        (
            "run --cofig x",
            "Error: argument \"--cofig\" is wrong: unknown keyword; did you mean \"--config\"?",
        ),
        (
            "lab sideways",
            "Command \"sideways\" is unknown, try \"geneved lab help\".",
        ),
        (
            "save now",
            "Error: argument \"now\" is wrong: nothing follows here",
        ),
        (
            "link show -j",
            "Error: argument \"-j\" is wrong: options stand before the object, as in \"geneved -j ...\"",
        ),
        (
            "link add gnv0 type geneve id 5 up down",
            "Error: only one of \"up\", \"down\" can be given.",
        ),
        (
            "link add gnv0 type geneve id 5 df st",
            "Error: argument \"st\" is wrong: invalid df: \"set\", \"unset\" or \"inherit\"; did you mean \"set\"?",
        ),
        (
            "link add gnv0 type genev id 5",
            "Error: argument \"genev\" is wrong: unknown link type: geneved makes \"geneve\" and \"vxlan\" links; did you mean \"geneve\"?",
        ),
        (
            "-n blue link add gnv0 type geneve id 5 netns red",
            "Error: argument \"red\" is wrong: option \"-n\" says \"blue\"",
        ),
        (
            "route add 10.0.0.0/24 dev a via 192.0.2.1 proto remote",
            "Error: argument \"remote\" is wrong: the route to a link's remote is made by \"geneved link set LINK remote ADDR\"",
        ),
    ] {
        assert_eq!(complaint(line), (1, words.to_owned()), "{line}");
    }
}

#[test]
fn what_ip_has_and_geneved_has_not_is_refused_with_its_reason() {
    for (line, why) in [
        (
            "link add a type geneve id 5 external",
            "each packet's metadata",
        ),
        ("link add a type geneve id 5 flowlabel 7", "auto_flowlabels"),
        ("link set a master br0", "use \"ip link set\""),
        (
            "link add a link eth0 type geneve id 5",
            "bound to no device",
        ),
        ("link show master br0", "use \"ip link show\""),
    ] {
        let (code, text) = complaint(line);
        assert_eq!(code, 2, "{line}");
        assert!(text.contains(why), "{text}");
    }
    let (code, text) = complaint("-n blue route show");
    assert_eq!(code, 1);
    assert!(
        text.starts_with("Error: option \"-n\" has no meaning for \"route show\""),
        "{text}"
    );
}

#[test]
fn help_is_asked_for_in_every_place() {
    let lines = "help|help link|help check|link help|link add help|trace help|check -help|link set --help|-help";
    for line in lines.split('|') {
        done(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn without_a_daemon_the_exit_code_is_three() {
    for line in [
        "link",
        "link show gnv0",
        "ro",
        "end",
        "host",
        "reload",
        "save",
    ] {
        let (code, words) = complaint(line);
        assert_eq!(code, 3, "{line}");
        assert!(
            words.starts_with("Error: no daemon at /nonexistent/control.sock:"),
            "{words}"
        );
    }
}

#[test]
fn help_is_bnf_and_names_everything() {
    let usage = super::help::everything();
    let objects = super::table::ALL_OBJECTS.map(super::help::object);
    let verbs = super::table::VERBS.map(super::help::verb);
    for name in super::table::names() {
        assert!(usage.contains(name), "{name}");
    }
    for text in objects.iter().chain(&verbs).chain([&usage]) {
        assert!(text.starts_with("Usage: geneved "), "{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 90),
            "{text}"
        );
    }
    assert!(
        objects[0].contains("geneved link add [ dev ] NAME type { geneve | vxlan } [ id VNI ]")
    );
    assert!(objects[0].contains("[ [no]udpcsum ]") && objects[0].contains("[ up | down ]"));
}

fn link() -> LinkInfo {
    LinkInfo {
        settings: LinkArgs {
            name: "gnv0".parse().unwrap(),
            id: Some("100".parse().unwrap()),
            remote: Some("192.0.2.2".parse().unwrap()),
            local: Some("2001:db8::1".parse().unwrap()),
            dstport: Some(6081),
            ttl: Some("64".parse().unwrap()),
            udpcsum: Some(true),
            udp6zerocsumrx: Some(true),
            udp6zerocsumtx: Some(false),
            srcport: Some("49152-65535".parse().unwrap()),
            address: vec![
                "10.0.0.1/24".parse().unwrap(),
                "fd00::1/64".parse().unwrap(),
            ],
            ..LinkArgs::default()
        },
        state: "running".into(),
        cause: None,
        lladdr: None,
        ifindex: 5,
        flags: vec!["POINTOPOINT".into(), "UP".into()],
        operstate: "UNKNOWN".into(),
        addresses: ["10.0.0.1/24", "fd00::1/64"]
            .map(|a| a.parse().unwrap())
            .into(),
        undelivered: None,
        mtu: 1464,
        txqlen: 1000,
        mtu_sum: MtuSum {
            text: "1500 - 36 = 1464".into(),
            underlay: 1500,
            host: None,
            dev: None,
            inner: 1464,
        },
        io: "io_uring".into(),
        traffic: TrafficInfo {
            rx_packets: 12,
            rx_bytes: 12_345_678_901,
            tx_packets: 3,
            tx_bytes: 300,
            drops_ingress: BTreeMap::from([("unknown-host".into(), 4), ("too-big".into(), 1)]),
            drops_egress: BTreeMap::new(),
            ..TrafficInfo::default()
        },
    }
}

fn shown(style: OutputStyle, record: &dyn Show) -> String {
    render(&style, &[record])
}

#[test]
fn a_link_as_text() {
    let style = OutputStyle::default();
    assert_eq!(
        shown(style, &link()),
        "5: gnv0: <POINTOPOINT,UP> mtu 1464 state UNKNOWN qlen 1000
    link/none
    geneve id 100 remote 192.0.2.2 local 2001:db8::1 ttl 64 dstport 6081 udp6zerocsumrx
    inet 10.0.0.1/24
    inet6 fd00::1/64
"
    );
    assert_eq!(
        shown(OutputStyle { details: true, statistics: 1, ..style }, &link()),
        "5: gnv0: <POINTOPOINT,UP> mtu 1464 state UNKNOWN qlen 1000
    link/none
    geneve id 100 remote 192.0.2.2 local 2001:db8::1 ttl 64 tos 0 df set dstport 6081 srcport 49152-65535 udpcsum noudp6zerocsumtx udp6zerocsumrx
    inet 10.0.0.1/24
    inet6 fd00::1/64
    mtu 1500 - 36 = 1464
    io io_uring
    RX:       bytes packets  errors dropped
        12345678901      12       0       5
    TX:      bytes packets  errors dropped
               300       3       0       0
    RX dropped: too-big 1, unknown-host 4
"
    );
}

#[test]
fn twice_statistics_explain_each_reason() {
    let style = OutputStyle {
        statistics: 2,
        ..OutputStyle::default()
    };
    let text = shown(style, &link());
    let expected = "\n    RX dropped: too-big 1, unknown-host 4\n        ";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("\n        unknown-host: "), "{text}");
}

#[test]
fn a_link_in_other_shapes() {
    let style = OutputStyle::default();
    assert_eq!(
        shown(
            OutputStyle {
                oneline: true,
                ..style
            },
            &link()
        ),
        "5: gnv0: <POINTOPOINT,UP> mtu 1464 state UNKNOWN qlen 1000\\    link/none\\    geneve id 100 remote 192.0.2.2 local 2001:db8::1 ttl 64 dstport 6081 udp6zerocsumrx\\    inet 10.0.0.1/24\\    inet6 fd00::1/64\n"
    );
    assert_eq!(
        shown(
            OutputStyle {
                brief: true,
                ..style
            },
            &link()
        ),
        "gnv0             UNKNOWN        id 100       10.0.0.1/24 fd00::1/64\n"
    );
    assert!(
        shown(
            OutputStyle {
                human: true,
                statistics: 1,
                ..style
            },
            &link()
        )
        .contains("        12G      12")
    );
    assert!(
        shown(
            OutputStyle {
                color: true,
                ..style
            },
            &link()
        )
        .contains("\x1b[36mgnv0\x1b[0m")
    );
    let mut vxlan = link();
    vxlan.settings.kind = Some(LinkKind::Vxlan);
    vxlan.settings.dstport = None;
    vxlan.lladdr = Some("02:00:00:00:00:07".parse().unwrap());
    let text = shown(style, &vxlan);
    let expected = "\n    link/none lladdr 02:00:00:00:00:07\n    vxlan id 100 remote 192.0.2.2 local 2001:db8::1 ttl 64 dstport 4789";
    assert!(text.contains(expected), "{text}");
    let lost = LinkInfo {
        state: "lost".into(),
        cause: Some("it was removed".into()),
        ..link()
    };
    assert!(shown(style, &lost).contains("\n    lost: it was removed\n"));
}

#[test]
fn a_link_as_json_has_the_keys_of_ip() {
    let style = OutputStyle {
        json: true,
        statistics: 1,
        ..OutputStyle::default()
    };
    assert_eq!(
        shown(style, &link()),
        concat!(
            r#"[{"ifindex":5,"ifname":"gnv0","flags":["POINTOPOINT","UP"],"mtu":1464,"operstate":"UNKNOWN","txqlen":1000,"link_type":"none","#,
            r#""linkinfo":{"info_kind":"geneve","info_data":{"id":100,"remote":"192.0.2.2","local6":"2001:db8::1","ttl":64,"tos":"0","df":"set","port":6081,"srcport":"49152-65535","udp_csum":true,"udp_zero_csum6_tx":false,"udp_zero_csum6_rx":true}},"#,
            r#""addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24},{"family":"inet6","local":"fd00::1","prefixlen":64}],"#,
            r#""state":"running","mtu_sum":{"text":"1500 - 36 = 1464","underlay":1500,"inner":1464},"io":"io_uring","#,
            r#""stats64":{"rx":{"bytes":12345678901,"packets":12,"errors":0,"dropped":5},"tx":{"bytes":300,"packets":3,"errors":0,"dropped":0}},"#,
            r#""drops":{"ingress":{"too-big":1,"unknown-host":4},"egress":{}},"consumed":{"ingress":{},"egress":{}}}]"#,
            "\n"
        )
    );
    assert_eq!(
        render(
            &OutputStyle {
                json: true,
                ..OutputStyle::default()
            },
            &[]
        ),
        "[]\n"
    );
}

#[test]
fn routes_and_endpoints() {
    let route = |prefix: &str| RouteInfo {
        route: RouteArgs {
            prefix: prefix.parse().unwrap(),
            dev: "gnv0".parse().unwrap(),
            via: vec!["192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap()],
            kind: None,
        },
        origin: "static".into(),
    };
    let style = OutputStyle::default();
    assert_eq!(
        shown(style, &route("10.0.0.0/24")),
        "10.0.0.0/24 dev gnv0 via 192.0.2.2,192.0.2.3 proto static\n"
    );
    assert_eq!(
        shown(
            OutputStyle {
                json: true,
                ..style
            },
            &route("default")
        ),
        "[{\"dst\":\"default\",\"dev\":\"gnv0\",\"via\":[\"192.0.2.2\",\"192.0.2.3\"],\"protocol\":\"static\"}]\n"
    );
    let endpoint = EndpointArgs {
        address: "10.0.0.9".parse().unwrap(),
        dev: "gnv0".parse().unwrap(),
        host: vec![],
        local: true,
        kind: None,
        labels: None,
        lladdr: None,
        class: None,
        rate: None,
        option: vec![],
        colocated: None,
        target: None,
    };
    assert_eq!(shown(style, &endpoint), "10.0.0.9 dev gnv0 local\n");
}

#[test]
fn the_host_shows_what_is_missing_and_what_belongs_to_no_link() {
    let host = HostInfo {
        version: "1.2.3".into(),
        netns_inode: 4026531840,
        pid: 7,
        io: "syscalls".into(),
        io_cause: "sysctl kernel.io_uring_disabled is 2".into(),
        workers: 1,
        features: vec![
            FeatureInfo {
                name: "tun".into(),
                available: true,
                detail: "there".into(),
            },
            FeatureInfo {
                name: "io_uring".into(),
                available: false,
                detail: "forbidden".into(),
            },
        ],
        ports: vec![6081],
        links: 1,
        traffic: TrafficInfo {
            drops_ingress: BTreeMap::from([("unknown-vni".into(), 9)]),
            ..TrafficInfo::default()
        },
        unknown_vnis: vec![crate::control::protocol::UnknownVniInfo {
            vni: 77,
            port: 6081,
            host: "192.0.2.9".parse().unwrap(),
            count: 3,
        }],
        icmp_errors: Default::default(),
        remotes: vec![RemoteInfo {
            address: "192.0.2.2".parse().unwrap(),
            path_mtu: Some(1400),
            path_mtu_report: Some(PathMtuInfo {
                by: "192.0.2.7".parse().unwrap(),
                reported: 1400,
                evidence: "flow".into(),
                age_s: 12,
                left_s: 588,
            }),
            gso: false,
            whole: Some("frames".into()),
            whole_cause: Some("the other end of dev eth0, p0, is a port of a bridge".into()),
            unreachable: Some("no such host answers on its network".into()),
            unreachable_age: Some(3),
            links: vec!["gnv0".parse().unwrap()],
        }],
    };
    assert_eq!(
        shown(OutputStyle::default(), &host),
        "geneved 1.2.3 pid 7 links 1 ports 6081
    io syscalls (sysctl kernel.io_uring_disabled is 2) workers 1
    io_uring     no  forbidden
    RX dropped: unknown-vni 9
    remote 192.0.2.2 path-mtu 1400 gso off whole frames dev gnv0
        path-mtu reported 1400 by 192.0.2.7 evidence flow 12 s ago, longer packets are tried again in 588 s
        unreachable: no such host answers on its network, 3 s ago
"
    );
}
