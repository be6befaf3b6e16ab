//! Messages for objects that make no sense.

use super::function_tests::change;
use super::state::{DesiredState, Fabric};

/// Message for one object on a link `gnv0` that has a class `gold` and an option `tag`.
fn said(object: &str, json: &str) -> String {
    let mut state = DesiredState::on(Fabric {
        secret: true,
        ..Fabric::default()
    });
    for (object, json) in [
        ("link", r#""name":"gnv0","id":1"#),
        ("link", r#""name":"gnv1","id":2"#),
        ("qos", r#""name":"gold","dev":"gnv0","id":1"#),
        (
            "option",
            r#""name":"tag","class":"0x0199","type":5,"len":4"#,
        ),
        (
            "endpoint",
            r#""address":"10.0.0.9","dev":"gnv0","local":true"#,
        ),
        (
            "nat",
            r#""name":"one","dev":"gnv1","type":"static","inside":"10.0.0.7","outside":"198.51.100.9""#,
        ),
        (
            "nat",
            r#""name":"all","dev":"gnv0","type":"snat","from":"10.0.0.0/8","source":"198.51.100.1""#,
        ),
        (
            "service",
            r#""name":"web","dev":"gnv0","vip":"10.0.0.80","proto":"tcp","port":80,"backend":["10.0.0.9"]"#,
        ),
    ] {
        change(&mut state, "add", object, json).unwrap();
    }
    let before = state.clone();
    let json = match object {
        "option" => json.to_owned(),
        _ => format!("{json},\"dev\":\"gnv0\""),
    };
    let refusal = change(&mut state, "add", object, &json).expect_err(&json);
    assert_eq!(state, before, "{json}");
    refusal
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    for (words, expected) in [
        (r#""action":"allow""#, "\"direction\" argument is required"),
        (
            r#""direction":"ingress""#,
            "\"action\" argument is required",
        ),
        (r#""dport":80"#, "dport needs a protocol that has ports"),
        (
            r#""sport":"1-2","proto":"icmp""#,
            "sport needs a protocol that has ports",
        ),
        (r#""icmp":8,"proto":"tcp""#, "icmp needs"),
        (
            r#""from":"10.0.0.0/8","to":"fd00::/8""#,
            "different families",
        ),
        (r#""from":"10.0.0.1/8""#, "did you mean \"10.0.0.0/8\"?"),
        (r#""from":"10.0.0/8""#, "neither an address nor a prefix"),
        (r#""from":"app in web""#, "invalid selector"),
        (r#""to":"""#, "write \"any\" for everybody"),
        (
            r#""class":"glod""#,
            "class \"glod\" does not exist; did you mean \"gold\"?",
        ),
        (r#""dport":"9-8","proto":"tcp""#, "invalid ports"),
        (r#""option":"5""#, "invalid option: CLASS:TYPE"),
        (r#""option":"aws:5=0102/03""#, "different lengths"),
        (r#""name":"a/b""#, "not a valid name"),
    ] {
        let mut all = words.to_owned();
        for (key, usual) in [("name", "x"), ("direction", "egress"), ("action", "deny")] {
            let required = expected.contains(&format!("\"{key}\" argument"));
            if !required && !words.contains(&format!("\"{key}\"")) {
                all += &format!(",\"{key}\":\"{usual}\"");
            }
        }
        let said = said("policy", &all);
        assert!(said.contains(expected), "{words}: {said}");
    }
}

#[test]
fn translations_that_cannot_be_are_refused() {
    for (words, expected) in [
        (
            r#""type":"snat","from":"10.0.0.0/24""#,
            "\"source\" argument is required",
        ),
        (
            r#""type":"snat","from":"fd00::/8","source":"198.51.100.2""#,
            "different families",
        ),
        (
            r#""type":"snat","from":"10.0.0.0/8","source":"198.51.100.2""#,
            "sources 10.0.0.0/8 are already translated by nat \"all\"",
        ),
        (
            r#""type":"snat","from":"10.0.0.0/24","source":"198.51.100.0-198.51.100.4""#,
            "198.51.100.1 is already that of nat \"all\" dev gnv0",
        ),
        (
            r#""type":"snat","from":"10.0.0.0/24","source":"198.51.100.8-198.51.100.10""#,
            "198.51.100.9 is already that of nat \"one\" dev gnv1",
        ),
        (
            r#""type":"snat","from":"10.0.0.0/24","source":"198.51.100.8-198.51.100.7""#,
            "the first is above the last",
        ),
        (
            r#""type":"snat","from":"10.0.0.0/24","source":"10.0.0.0-10.9.0.0""#,
            "more than 65536",
        ),
        (
            r#""type":"snat","from":"10.0.0.0/24","source":"198.51.100.2","dport":1"#,
            "\"dport\" belongs to dnat, and this is snat",
        ),
        (
            r#""type":"dnat","to":"198.51.100.1","target":"10.0.0.9","dport":80"#,
            "proto and dport belong together",
        ),
        (
            r#""type":"dnat","to":"198.51.100.1","target":"10.0.0.9:80""#,
            "target port 80 without a port",
        ),
        (
            r#""type":"dnat","to":"198.51.100.1","target":"10.0.0.9","dport":80,"proto":"icmp""#,
            "has no ports",
        ),
        (
            r#""type":"static","inside":"10.0.0.7","outside":"198.51.100.9""#,
            "nat \"one\" dev gnv1",
        ),
        (
            r#""type":"dnat","to":"198.51.100.1","target":"10.0.0.9""#,
            "198.51.100.1 is already that of nat \"all\"",
        ),
        (
            r#""type":"static","inside":"10.0.0.8","outside":"255.255.255.255""#,
            "not the address of one host",
        ),
        (r#""type":"both""#, "invalid type"),
        (r#""from":"10.0.0.0/8""#, "\"type\" argument is required"),
    ] {
        let said = said("nat", &format!("\"name\":\"x\",{words}"));
        assert!(said.contains(expected), "{words}: {said}");
    }
}

#[test]
fn services_classes_options_and_endpoints_that_cannot_be_are_refused() {
    let web = r#""name":"x","vip":"10.0.0.80","proto":"tcp","port":81"#;
    let proxied = r#""address":"10.0.0.3","type":"proxied""#;
    for (object, words, expected) in [
        (
            "service",
            web.to_owned(),
            "\"backend\" argument is required",
        ),
        (
            "service",
            web.replace("81", "80") + r#","backend":["10.0.0.9"]"#,
            "tcp port 80 of 10.0.0.80 is already that of service \"web\"",
        ),
        (
            "service",
            web.replace("tcp", "icmp") + r#","backend":["10.0.0.9"]"#,
            "protocol icmp has no ports",
        ),
        (
            "service",
            web.to_owned() + r#","backend":["10.0.0.9","10.0.0.9:81"]"#,
            "backend \"10.0.0.9:81\" is duplicate",
        ),
        (
            "service",
            web.to_owned() + r#","backend":["fd00::1"]"#,
            "different families",
        ),
        (
            "service",
            web.to_owned() + r#","backend":["10.0.0.9:x"]"#,
            "ADDR, ADDR:PORT or [ADDR]:PORT",
        ),
        (
            "service",
            web.to_owned() + r#","backend":[{"address":"10.0.0.9","wieght":1}]"#,
            "unknown field `wieght`",
        ),
        ("qos", r#""name":"x""#.into(), "\"id\" argument is required"),
        (
            "qos",
            r#""name":"x","id":1"#.into(),
            "id 1 is already that of class \"gold\"",
        ),
        (
            "qos",
            r#""name":"x","id":2,"burst":"1k""#.into(),
            "burst without a rate",
        ),
        (
            "qos",
            r#""name":"x","id":2,"rate":"10"#.to_owned() + r#"parsecs""#,
            "invalid rate",
        ),
        (
            "qos",
            r#""name":"x","id":2,"dscp":64"#.into(),
            "invalid dscp",
        ),
        (
            "option",
            r#""name":"x","class":"0x0199","type":5,"len":8"#.into(),
            "already option \"tag\"",
        ),
        (
            "option",
            r#""name":"x","class":"0xff47","type":"0x82","len":8"#.into(),
            "one of geneved's own",
        ),
        (
            "option",
            r#""name":"x","class":"0x0199","type":6,"len":6"#.into(),
            "a multiple of 4",
        ),
        (
            "endpoint",
            proxied.into(),
            "\"target\" argument is required",
        ),
        (
            "endpoint",
            proxied.to_owned() + r#","target":"10.0.0.8""#,
            "is no endpoint of dev gnv0",
        ),
        (
            "endpoint",
            proxied.to_owned() + r#","target":"10.0.0.9@gnv3""#,
            "Cannot find device \"gnv3\"; did you mean",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.3","local":true,"target":"10.0.0.9""#.into(),
            "only a proxied endpoint has a target",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.3","local":true,"colocated":true"#.into(),
            "only a scaled endpoint is colocated",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.3","local":true,"option":["tag=0102"]"#.into(),
            "has 4 bytes of data, and was given 2; write 8",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.3","local":true,"option":["tga=01020304"]"#.into(),
            "did you mean \"tag\"?",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.3","local":true,"labels":"app"#.to_owned() + r#"""#,
            "invalid labels",
        ),
        (
            "route",
            r#""prefix":"10.0.0.0/8","via":["192.0.2.1"],"type":"scaled""#.into(),
            "is wrong for a prefix",
        ),
    ] {
        let said = said(object, &words);
        assert!(said.contains(expected), "{object} {words}: {said}");
    }
}

#[test]
fn what_cannot_live_behind_a_link_is_refused() {
    for (allowed, expected) in [
        (r#"["10.9.0.7/24"]"#, "did you mean \"10.9.0.0/24\"?"),
        (r#"["224.0.0.0/4"]"#, "it is a multicast group"),
        (r#"["ff05::/16"]"#, "it is a multicast group"),
        (r#"["127.0.0.0/8"]"#, "has a loopback address"),
        (r#"["10.9.0.0/24","10.9.0.0/24"]"#, "it is named twice"),
        (
            r#"["10.9.0.0/24"],"mode":"ethernet""#,
            "allowed is for links in mode ip",
        ),
    ] {
        let mut state = DesiredState::default();
        let words = format!(r#""name":"gnv0","id":1,"allowed":{allowed}"#);
        let refusal = change(&mut state, "add", "link", &words).expect_err(&words);
        assert!(refusal.contains(expected), "{words}: {refusal}");
        assert!(state.links.is_empty());
    }
    let mut state = DesiredState::default();
    let words = r#""name":"gnv0","id":1,"allowed":["0.0.0.0/0","::/0","10.9.0.0/24"]"#;
    change(&mut state, "add", "link", words).unwrap();
    change(&mut state, "set", "link", r#""name":"gnv0","mtu":1400"#).unwrap();
    let link = &state.links[&"gnv0".parse().unwrap()];
    assert_eq!(link.allowed.len(), 3);
}
