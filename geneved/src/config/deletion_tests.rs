//! Deletion by named words, and settings reset by `none`.

use super::file::save;
use super::function_tests::{change, full};
use super::state::DesiredState;
use super::tests::load;

#[test]
fn with_a_link_all_that_is_on_it_goes() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let refused = delete(&mut state, "link", "gnv1").unwrap_err();
    assert_eq!(
        refused,
        "link \"gnv1\": endpoint \"10.0.0.200\" dev gnv0 has its target there; delete that first"
    );
    delete(&mut state, "link", "gnv0").unwrap();
    assert!(state.policies.is_empty() && state.services.is_empty() && state.classes.is_empty());
    assert_eq!(state.nats.len(), 1);
    assert_eq!(state.options.len(), 2);
}

fn delete(state: &mut DesiredState, object: &str, name: &str) -> Result<(), String> {
    let dev = match object {
        "link" | "option" => "",
        _ => ",\"dev\":\"gnv0\"",
    };
    change(state, "del", object, &format!("\"name\":\"{name}\"{dev}"))
}

#[test]
fn what_is_named_must_be_so_to_be_deleted() {
    let (_directory, text) = full();
    let state = load(&text).unwrap().state;
    // Every word of an object, and another value for each.
    for made in state.changes() {
        let json = serde_json::to_value(&made).unwrap();
        let (kind, words) = json
            .as_object()
            .unwrap()
            .iter()
            .find(|(_, w)| w.is_object())
            .unwrap();
        let named = ["name", "dev", "prefix", "mac"];
        let own = |key: &str| {
            let key = key.to_owned();
            named.contains(&key.as_str()) || (kind == "endpoint" && key == "address")
        };
        for key in words.as_object().unwrap().keys().filter(|key| !own(key)) {
            let mut other = words.clone();
            other[key] = match (&words[key], key.as_str()) {
                // False is left out.
                (serde_json::Value::Bool(on), "log" | "colocated") => (!on).into(),
                (serde_json::Value::Number(n), _) => (n.as_u64().unwrap() + 1).into(),
                (_, "via" | "host" | "dst") => serde_json::json!(["192.0.2.77"]),
                (_, "backend") => serde_json::json!(["10.9.9.9:9"]),
                _ => continue,
            };
            let mut again = state.clone();
            let change = serde_json::json!({ "verb": "del", kind: other });
            let change = serde_json::from_value(change).unwrap();
            let refused = again.apply(&change).expect_err(&format!("{change:?}"));
            assert!(refused.to_string().contains(key.as_str()), "{refused}");
            assert_eq!(again, state);
        }
    }
}

#[test]
fn one_host_or_backend_is_taken_away_alone_and_with_the_last_one_the_object() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let route = r#""prefix":"10.77.0.0/16","dev":"gnv0","#;
    let hosts = r#""via":["192.0.2.2","192.0.2.3","192.0.2.4"]"#;
    change(&mut state, "add", "route", &format!("{route}{hosts}")).unwrap();
    let mut del = |more: &str| change(&mut state, "del", "route", &format!("{route}{more}"));
    assert_eq!(
        del(r#""via":["192.0.2.77"]"#).unwrap_err(),
        "route \"10.77.0.0/16\" dev gnv0: via is 192.0.2.2,192.0.2.3,192.0.2.4, not 192.0.2.77; nothing was deleted; \"geneved route show\" has what is there"
    );
    assert!(
        del(r#""type":"gateway""#)
            .unwrap_err()
            .contains("type is simple, not gateway")
    );
    del(r#""type":"simple","via":["192.0.2.3"]"#).unwrap();
    let key = |prefix: &str| ("gnv0".parse().unwrap(), prefix.parse().unwrap());
    let left: Vec<std::net::IpAddr> =
        vec!["192.0.2.2".parse().unwrap(), "192.0.2.4".parse().unwrap()];
    assert_eq!(state.routes[&key("10.77.0.0/16")].hosts, left);
    let words = format!(r#"{route}"via":["192.0.2.2","192.0.2.4"]"#);
    change(&mut state, "del", "route", &words).unwrap();
    assert!(!state.routes.contains_key(&key("10.77.0.0/16")));

    let scaled = r#""address":"10.0.9.9","dev":"gnv0""#;
    let more = r#","type":"scaled","host":["192.0.2.2","192.0.2.3"],"local":true,"colocated":true"#;
    change(&mut state, "add", "endpoint", &format!("{scaled}{more}")).unwrap();
    change(
        &mut state,
        "del",
        "endpoint",
        &format!(r#"{scaled},"local":true"#),
    )
    .unwrap();
    let at = ("gnv0".parse().unwrap(), "10.0.9.9".parse().unwrap());
    assert!(!state.endpoints[&at].local && state.endpoints[&at].hosts.len() == 2);
    change(
        &mut state,
        "del",
        "endpoint",
        &format!(r#"{scaled},"host":["192.0.2.3"]"#),
    )
    .unwrap();
    assert_eq!(state.endpoints[&at].hosts.len(), 1);
    change(
        &mut state,
        "del",
        "endpoint",
        &format!(r#"{scaled},"host":["192.0.2.2"]"#),
    )
    .unwrap();
    assert!(!state.endpoints.contains_key(&at));

    let dns = r#""name":"dns","dev":"gnv0""#;
    // A backend named without a port has the service's.
    change(
        &mut state,
        "del",
        "service",
        &format!(r#"{dns},"backend":["10.0.0.5"]"#),
    )
    .unwrap();
    let wrong = format!(r#"{dns},"backend":["10.0.0.6"]"#);
    let refused = change(&mut state, "del", "service", &wrong).unwrap_err();
    assert!(
        refused.contains("backend is 10.0.0.6:5353 weight 1,10.0.0.7:54 weight 0, not 10.0.0.6:53"),
        "{refused}"
    );
    let both = r#","backend":["10.0.0.6:5353",{"address":"10.0.0.7","port":54,"weight":0}]"#;
    change(&mut state, "del", "service", &format!("{dns}{both}")).unwrap();
    assert!(
        !state
            .services
            .keys()
            .any(|(_, name)| name.as_str() == "dns")
    );
}

#[test]
fn none_takes_a_setting_away() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let mut set = |object: &str, name: &str, rest: &str| {
        let words = format!(r#"{{"verb":"set","{object}":{{{name}}},{rest}}}"#);
        let change = serde_json::from_str(&words).unwrap();
        state.apply(&change).map_err(|e| e.to_string())
    };
    let web = r#""name":"www","dev":"gnv0""#;
    assert!(
        set("nat", web, r#""none":["dport"]"#)
            .unwrap_err()
            .contains("proto and dport belong together")
    );
    // The target's port belongs to it.
    assert!(
        set("nat", web, r#""none":["dport","proto"]"#)
            .unwrap_err()
            .contains("target port 8080")
    );
    set(
        "nat",
        r#""name":"www","dev":"gnv0","to":"198.51.100.20","target":"10.0.0.5""#,
        r#""none":["dport","proto"]"#,
    )
    .unwrap();
    let rule = r#""name":"web-in","dev":"gnv0""#;
    set(
        "policy",
        rule,
        r#""none":["from","option","sport","endpoint-type","class","pref"]"#,
    )
    .unwrap();
    assert!(
        set("policy", rule, r#""none":["action"]"#)
            .unwrap_err()
            .contains("\"action\" argument is required")
    );
    assert!(
        set("policy", rule, r#""none":["colour"]"#)
            .unwrap_err()
            .contains("no setting \"colour\"")
    );
    assert!(
        set("policy", rule, r#""none":["name"]"#)
            .unwrap_err()
            .contains("both none and web-in")
    );
    set(
        "link",
        r#""name":"gnv0","mtu":1400"#,
        r#""none":["remote","local","address","allowed","ttl"]"#,
    )
    .unwrap();
    assert!(
        set("link", r#""name":"gnv0""#, r#""none":["id"]"#)
            .unwrap_err()
            .contains("missing virtual network identifier")
    );
    let link = &state.links[&"gnv0".parse().unwrap()];
    assert!(link.remote.is_none() && link.addresses.is_empty() && link.allowed.is_empty());
    let rule = &state.policies[&("gnv0".parse().unwrap(), "web-in".parse().unwrap())];
    assert_eq!(rule.from, super::value::RulePeerValue::Any);
    assert!(rule.option.is_none() && rule.sport.is_none() && rule.class.is_none());
    assert!(rule.dport.is_some() && rule.endpoint_type.is_none());
}

#[test]
fn addresses_are_added_and_deleted_one_by_one() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let mut address = |verb: &str, prefix: &str| {
        let words = format!(r#""prefix":"{prefix}","dev":"gnv1""#);
        change(&mut state, verb, "address", &words)
    };
    address("add", "10.7.0.1/24").unwrap();
    address("add", "fd07::1/64").unwrap();
    address("replace", "10.7.0.1/24").unwrap();
    assert!(
        address("add", "10.7.0.1/24")
            .unwrap_err()
            .contains("exists already")
    );
    assert!(
        address("set", "10.7.0.1/24")
            .unwrap_err()
            .contains("no settings")
    );
    let refused = address("del", "10.7.0.1/25").unwrap_err();
    assert!(
        refused.contains(
            "Cannot find address \"10.7.0.1/25\" dev gnv1; did you mean \"10.7.0.1/24\"?"
        ),
        "{refused}"
    );
    address("del", "10.7.0.1/24").unwrap();
    let link = &state.links[&"gnv1".parse().unwrap()];
    assert_eq!(link.addresses.last().unwrap().to_string(), "fd07::1/64");
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    assert_eq!(
        delete(&mut state, "qos", "gold").unwrap_err(),
        "class \"gold\" dev gnv0 is in use by policy \"web-in\" dev gnv0; change or delete that first"
    );
    delete(&mut state, "policy", "web-in").unwrap();
    assert!(
        delete(&mut state, "qos", "gold")
            .unwrap_err()
            .contains("endpoint \"10.0.0.50\"")
    );
    assert!(
        delete(&mut state, "option", "mark")
            .unwrap_err()
            .contains("link \"gnv0\"")
    );
    let target = "\"address\":\"10.0.0.9\",\"dev\":\"gnv1\"";
    assert!(
        change(&mut state, "del", "endpoint", target)
            .unwrap_err()
            .contains("is the target of endpoint \"10.0.0.200\" dev gnv0")
    );
}

#[test]
fn none_takes_away_what_may_be_absent() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let before = state.clone();
    let mut set = |object: &str, words: &str| {
        change(
            &mut state,
            "set",
            object,
            &format!(r#""dev":"gnv0",{words}"#),
        )
        .unwrap();
    };
    set("policy", r#""name":"web-in","class":"none""#);
    set(
        "endpoint",
        r#""address":"10.0.0.50","class":"none","rate":"none""#,
    );
    set("qos", r#""name":"gold","burst":"15k""#);
    // A burst does not outlive its rate.
    set("qos", r#""name":"gold","rate":"none","dscp":"none""#);
    let link = r#""name":"gnv0","rate":"1gbit","burst":"64k""#;
    change(&mut state, "set", "link", link).unwrap();
    change(&mut state, "set", "link", r#""name":"gnv0","burst":"none""#).unwrap();
    let dev: crate::config::value::IfName = "gnv0".parse().unwrap();
    let limit = |state: &DesiredState| (state.links[&dev].rate.is_some(), state.links[&dev].burst);
    assert_eq!(limit(&state), (true, None));
    change(&mut state, "set", "link", r#""name":"gnv0","rate":"none""#).unwrap();
    assert_eq!(limit(&state), (false, None));
    let at = |name: &str| (dev.clone(), name.parse().unwrap());
    assert_eq!(state.policies[&at("web-in")].class, None);
    assert!(before.policies[&at("web-in")].class.is_some());
    let there = &state.endpoints[&(dev.clone(), "10.0.0.50".parse().unwrap())];
    assert_eq!((&there.class, there.rate), (&None, None));
    let class = state.classes[&at("gold")];
    assert_eq!((class.rate, class.burst, class.dscp), (None, None, None));
    let text = save(&Default::default(), &state);
    for word in ["rate", "burst", "class", "dscp"] {
        assert!(!text.contains(&format!("{word} = \"none\"")), "{text}");
    }
    let class = r#""name":"none","dev":"gnv0","id":9"#;
    let refused = change(&mut state, "add", "qos", class).unwrap_err();
    assert!(refused.contains("is the word for no class"), "{refused}");
}
