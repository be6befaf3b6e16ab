//! Encapsulation defaults of links, and refusals of what an encapsulation cannot carry.

use super::args::LinkKind;
use super::function_tests::change;
use super::state::{DesiredState, Fabric};
use libgeneve::wire::encapsulation::{Encapsulation, InnerProtocol};

fn state() -> DesiredState {
    let mut state = DesiredState::on(Fabric::default());
    for (object, json) in [
        ("link", r#""name":"vx0","type":"vxlan","id":1"#),
        ("link", r#""name":"gnv0","id":1"#),
        (
            "link",
            r#""name":"gnv1","id":2,"inner":"ethernet","lladdr":"2:0:0:0:0:7""#,
        ),
        ("qos", r#""name":"gold","dev":"vx0","id":1,"dscp":"ef""#),
        (
            "option",
            r#""name":"tag","class":"0x0199","type":5,"len":4"#,
        ),
    ] {
        change(&mut state, "add", object, json).unwrap();
    }
    state
}

fn refused(verb: &str, object: &str, json: &str) -> String {
    let mut state = state();
    let before = state.clone();
    let refusal = change(&mut state, verb, object, json).expect_err(json);
    assert_eq!(state, before, "{json}");
    refusal
}

#[test]
fn a_link_is_what_its_type_has_by_default() {
    let state = state();
    let link = |name: &str| state.link(&name.parse().unwrap()).unwrap().clone();
    let vxlan = link("vx0");
    assert_eq!(
        (vxlan.encapsulation, vxlan.inner, vxlan.port),
        (Encapsulation::Vxlan, InnerProtocol::Ethernet, 4789)
    );
    let geneve = link("gnv0");
    assert_eq!(
        (geneve.encapsulation, geneve.inner, geneve.port),
        (Encapsulation::Geneve, InnerProtocol::Ip, 6081)
    );
    let words = link("gnv1").words();
    assert_eq!(words.kind, Some(LinkKind::Geneve));
    assert_eq!(words.inner.unwrap().to_string(), "ethernet");
    assert_eq!(words.lladdr.unwrap().to_string(), "02:00:00:00:00:07");
}

#[test]
fn what_is_saved_is_read_back() {
    let mut state = state();
    let endpoint =
        r#""address":"10.0.0.2","dev":"vx0","host":["192.0.2.2"],"lladdr":"2:0:0:0:0:9""#;
    change(&mut state, "add", "endpoint", endpoint).unwrap();
    let text = super::file::save(&Default::default(), &state);
    let again = super::file::parse(&[("geneved.toml".into(), text.clone())]);
    assert_eq!(again.unwrap().state, state, "{text}");
}

#[test]
fn what_needs_options_is_refused_on_vxlan() {
    for (object, json, word) in [
        (
            "endpoint",
            r#""address":"10.0.0.9","dev":"vx0","local":true,"labels":"app=web""#,
            "labels",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.9","dev":"vx0","host":["192.0.2.1","192.0.2.2"],"type":"scaled""#,
            "type",
        ),
        (
            "endpoint",
            r#""address":"10.0.0.9","dev":"vx0","local":true,"option":["tag=00000001"]"#,
            "option",
        ),
        (
            "route",
            r#""prefix":"0.0.0.0/0","dev":"vx0","via":["192.0.2.2"],"type":"gateway""#,
            "type",
        ),
        (
            "policy",
            r#""name":"p","dev":"vx0","direction":"ingress","action":"allow","from":"app=web""#,
            "selector",
        ),
        (
            "policy",
            r#""name":"p","dev":"vx0","direction":"ingress","action":"allow","option":"0x0199:5""#,
            "option",
        ),
        (
            "service",
            r#""name":"s","dev":"vx0","vip":"10.0.0.80","proto":"tcp","port":80,"backend":["10.0.0.9"]"#,
            "service",
        ),
        (
            "link",
            r#""name":"vx1","type":"vxlan","id":2,"option":["tag=00000001"]"#,
            "option",
        ),
        (
            "link",
            r#""name":"vx1","type":"vxlan","id":2,"labels":"critical""#,
            "labels",
        ),
    ] {
        let said = refused("add", object, json);
        let expected = format!("{word} needs options in packets, and VXLAN has none");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn what_needs_no_options_works_on_vxlan() {
    let mut state = state();
    for (object, json) in [
        (
            "policy",
            r#""name":"p","dev":"vx0","direction":"ingress","action":"allow","from":"10.0.0.0/8","class":"gold""#,
        ),
        (
            "nat",
            r#""name":"n","dev":"vx0","type":"snat","from":"10.0.0.0/8","source":"198.51.100.1""#,
        ),
        (
            "endpoint",
            r#""address":"10.0.0.9","dev":"vx0","host":["192.0.2.1"],"class":"gold""#,
        ),
        (
            "route",
            r#""prefix":"10.9.0.0/16","dev":"vx0","via":["192.0.2.2"]"#,
        ),
    ] {
        change(&mut state, "add", object, json).unwrap();
    }
}

#[test]
fn encapsulations_that_do_not_fit_are_refused() {
    for (verb, object, json, expected) in [
        (
            "add",
            "link",
            r#""name":"x","id":9,"dstport":4789"#,
            "port 4789 is already that of link \"vx0\" of type vxlan",
        ),
        (
            "add",
            "link",
            r#""name":"x","type":"vxlan","id":9,"inner":"ip""#,
            "VXLAN carries Ethernet frames only",
        ),
        (
            "add",
            "link",
            r#""name":"x","id":9,"lladdr":"2:0:0:0:0:1""#,
            "lladdr is for links whose datagrams carry frames",
        ),
        (
            "add",
            "link",
            r#""name":"x","type":"vxlan","id":9,"lladdr":"ff:ff:ff:ff:ff:ff""#,
            "not that of one interface",
        ),
        (
            "add",
            "link",
            r#""name":"x","type":"vxlan""#,
            "vxlan: missing virtual network identifier",
        ),
        (
            "set",
            "link",
            r#""name":"gnv0","type":"vxlan""#,
            "its type cannot be changed",
        ),
        (
            "add",
            "endpoint",
            r#""address":"10.0.0.9","dev":"gnv0","local":true,"lladdr":"2:0:0:0:0:1""#,
            "lladdr is for links whose datagrams carry frames",
        ),
    ] {
        let said = refused(verb, object, json);
        assert!(said.contains(expected), "{said}");
    }
}
