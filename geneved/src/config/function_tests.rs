//! Policy, NAT, services, classes and options: which objects fit together, and the messages when they do not.

use super::args::ChangeVerb;
use super::file::save;
use super::state::{DesiredState, PolicySpec};
use super::tests::{fault, load, secret};

/// Every object with every word; `SECRET` stands for the path of the secret file.
const FULL: &str = r#"
[daemon]
label-secret-file = "SECRET"
option-class = 0xff48
flows = 100000
[daemon.timeouts]
established = 7200
udp-replied = 90
[[policy]]
name = "web-in"
dev = "gnv0"
direction = "ingress"
pref = 10
from = "app in (api,web),!legacy"
to = "10.0.0.0/24"
proto = "tcp"
sport = "1024-65535"
dport = "80,443,8000-8999"
option = "aws:1=01020304/ffff0000"
endpoint-type = "scaled"
action = "allow"
log = true
class = "gold"
[[policy]]
name = "ping"
dev = "gnv0"
direction = "egress"
proto = 1
icmp = "8/0"
action = "reject"
[[nat]]
name = "out"
dev = "gnv0"
type = "snat"
from = "10.0.0.0/24"
source = "198.51.100.1-198.51.100.4"
ports = "2000-2999"
[[nat]]
name = "www"
dev = "gnv0"
type = "dnat"
to = "198.51.100.1"
proto = "tcp"
dport = 80
target = "10.0.0.5:8080"
[[nat]]
name = "one"
dev = "gnv1"
type = "static"
inside = "10.0.0.7"
outside = "198.51.100.9"
[[service]]
name = "dns"
dev = "gnv0"
vip = "10.0.0.53"
proto = "udp"
port = 53
backend = ["10.0.0.5", "10.0.0.6:5353", { address = "10.0.0.7", port = 54, weight = 0 }]
affinity = "client"
interval = 5
timeout = 0.25
rise = 1
fall = 4
[[service]]
name = "six"
dev = "gnv0"
vip = "fd00::53"
proto = "tcp"
port = 53
backend = ["[fd00::1]:5353"]
check = "none"
[[qos]]
name = "gold"
dev = "gnv0"
id = 7
rate = "1.5gbit"
burst = "64k"
dscp = 46
[[endpoint]]
address = "10.0.0.200"
dev = "gnv0"
type = "proxied"
target = "10.0.0.9@gnv1"
[[endpoint]]
address = "10.0.0.9"
dev = "gnv1"
local = true
labels = "app=web,env=prod"
[[endpoint]]
address = "10.0.0.50"
dev = "gnv0"
type = "scaled"
host = ["192.0.2.5", "192.0.2.6"]
colocated = true
class = "gold"
rate = "1mbps"
labels = "none"
option = ["tag=0a0b0c0d"]
[[route]]
prefix = "0.0.0.0/0"
dev = "gnv0"
via = ["192.0.2.9"]
type = "gateway"
[[link]]
name = "gnv0"
id = 100
allowed = ["10.9.0.0/24", "fd09::/64"]
ingress = "deny"
egress = "allow"
labels = "critical"
option = ["tag=01020304", "mark"]
rate = "10gbit"
burst = "1mb"
[[link]]
name = "gnv1"
id = 101
[[option]]
name = "tag"
class = "0x0199"
type = 5
len = 4
critical = true
[[option]]
name = "mark"
class = 0x0199
type = "0x86"
len = 0
"#;

pub(super) fn full() -> (tempfile::TempDir, String) {
    let (directory, path) = secret();
    let text = FULL.replace("SECRET", path.to_str().unwrap());
    (directory, text)
}

#[test]
fn every_object_is_saved_and_loads_back() {
    let (_directory, text) = full();
    let config = load(&text).unwrap_or_else(|faults| panic!("{faults:?}"));
    let state = &config.state;
    assert_eq!((state.policies.len(), state.nats.len()), (2, 3));
    assert_eq!((state.services.len(), state.options.len()), (2, 2));
    let saved = save(&config.daemon, state);
    assert!(!saved.contains("0123456789"), "the secret was saved");
    assert!(
        !format!("{config:?}").contains("48, 49"),
        "the secret was shown"
    );
    let again = load(&saved).unwrap_or_else(|faults| panic!("{faults:?}\n{saved}"));
    assert_eq!(again, config);
    assert_eq!(save(&again.daemon, &again.state), saved);
}

#[test]
fn the_changes_of_a_state_make_it_again_also_by_way_of_json() {
    let (_directory, text) = full();
    let state = load(&text).unwrap().state;
    let mut again = DesiredState::on(state.fabric);
    for change in state.changes() {
        let json = serde_json::to_string(&change).unwrap();
        let change = serde_json::from_str(&json).unwrap();
        again
            .apply(&change)
            .unwrap_or_else(|e| panic!("{e}: {json}"));
    }
    assert_eq!(again, state);
    // Everything can be deleted in reverse order.
    for mut change in state.changes().into_iter().rev() {
        change.verb = ChangeVerb::Del;
        again.apply(&change).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(again, DesiredState::on(state.fabric));
}

pub(super) fn change(
    state: &mut DesiredState,
    verb: &str,
    object: &str,
    json: &str,
) -> Result<(), String> {
    let change = format!("{{\"verb\":\"{verb}\",\"{object}\":{{{json}}}}}");
    let change = serde_json::from_str(&change).map_err(|e| e.to_string())?;
    state.apply(&change).map_err(|e| e.to_string())
}

#[test]
fn checks_have_a_pace_that_makes_sense() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let mut set = |words: &str| {
        let words = format!(r#""name":"dns","dev":"gnv0",{words}"#);
        change(&mut state, "set", "service", &words)
    };
    set(r#""interval":"3""#).unwrap();
    let refused = [
        (
            r#""interval":0.1"#,
            "timeout 0.25 is longer than interval 0.1; a check ends",
        ),
        (r#""timeout":"4""#, "timeout 4 is longer than interval 3"),
        (r#""fall":0"#, "fall \"0\" is wrong: from 1 to 255"),
        (
            r#""check":"none","rise":2"#,
            "are not checked have no interval",
        ),
        (r#""interval":"1e3""#, "seconds, from 0.05 to 86400"),
    ];
    for (words, reason) in refused {
        let refusal = set(words).unwrap_err();
        assert!(refusal.contains(reason), "{words}: {refusal}");
    }
    set(r#""interval":0.1,"timeout":0.1"#).unwrap();
    let key = ("gnv0".parse().unwrap(), "dns".parse().unwrap());
    let pace = state.services[&key].pace;
    let shown = |seconds: crate::config::value::Seconds| seconds.to_string();
    assert_eq!(
        (shown(pace.interval), shown(pace.timeout)),
        ("0.1".into(), "0.1".into())
    );
    assert_eq!((pace.rise, pace.fall), (1, 4));
    let quick = r#""name":"quick","dev":"gnv0","vip":"10.0.0.54","proto":"tcp","port":1,"backend":["10.0.0.5"],"interval":0.5"#;
    change(&mut state, "add", "service", quick).unwrap();
    let key = ("gnv0".parse().unwrap(), "quick".parse().unwrap());
    assert_eq!(shown(state.services[&key].pace.timeout), "0.5");
}

#[test]
fn set_changes_only_what_is_named() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let at = |name: &str| (("gnv0".parse().unwrap()), name.parse().unwrap());
    change(
        &mut state,
        "set",
        "qos",
        r#""name":"gold","dev":"gnv0","dscp":"af41""#,
    )
    .unwrap();
    let class = state.classes[&at("gold")];
    assert_eq!((class.id, class.dscp.unwrap().0), (7, 34));
    assert_eq!(class.rate.unwrap().bits(), 1_500_000_000);
    change(
        &mut state,
        "set",
        "service",
        r#""name":"dns","dev":"gnv0","port":5300"#,
    )
    .unwrap();
    let service = &state.services[&at("dns")];
    let ports: Vec<_> = service.targets().map(|(_, port, _)| port).collect();
    assert_eq!(ports, [5300, 5353, 54]);
    let endpoint = |more: &str| format!(r#""address":"10.0.0.50","dev":"gnv0",{more}"#);
    change(
        &mut state,
        "set",
        "endpoint",
        &endpoint(r#""rate":"2mbit""#),
    )
    .unwrap();
    change(
        &mut state,
        "set",
        "endpoint",
        &endpoint(r#""colocated":false"#),
    )
    .unwrap();
    let there = &state.endpoints[&("gnv0".parse().unwrap(), "10.0.0.50".parse().unwrap())];
    assert_eq!(
        (there.hosts.len(), there.local, there.options.len()),
        (2, false, 1)
    );
    let refused = change(
        &mut state,
        "set",
        "endpoint",
        &endpoint(r#""type":"simple""#),
    );
    assert!(
        refused
            .unwrap_err()
            .contains("a simple endpoint is on one host")
    );
    let was = state.policies[&at("ping")].clone();
    let rule = r#""name":"ping","dev":"gnv0","pref":7"#;
    change(&mut state, "set", "policy", rule).unwrap();
    assert_eq!(state.policies[&at("ping")], PolicySpec { pref: 7, ..was });
    let pool = r#""name":"out","dev":"gnv0","ports":"2000-2001""#;
    change(&mut state, "set", "nat", pool).unwrap();
    let tag = r#""name":"nosuch","len":8"#;
    assert!(change(&mut state, "set", "option", tag).is_err());
}

#[test]
fn replace_leaves_nothing_of_what_was_there() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let rule = r#""name":"ping","dev":"gnv0","direction":"egress","action":"deny""#;
    change(&mut state, "replace", "policy", rule).unwrap();
    let mut fresh = load(&text).unwrap().state;
    let ping = r#""name":"ping","dev":"gnv0""#;
    change(&mut fresh, "del", "policy", ping).unwrap();
    change(&mut fresh, "add", "policy", rule).unwrap();
    assert_eq!(state, fresh);
    let class = r#""name":"silver","dev":"gnv0","id":9"#;
    change(&mut state, "replace", "qos", class).unwrap();
    let partly = r#""name":"silver","dev":"gnv0","rate":"1mbit""#;
    assert!(change(&mut state, "replace", "qos", partly).is_err());
    assert!(change(&mut state, "replace", "link", r#""name":"gnv0""#).is_err());
}

#[test]
fn pools_share_an_address_by_ports() {
    let (_directory, text) = full();
    let mut state = load(&text).unwrap().state;
    let pool = |name: &str, ports: &str| {
        let words = r#""dev":"gnv1","type":"snat","from":"10.9.0.0/16","source":"198.51.100.4""#;
        format!("\"name\":\"{name}\",{words},\"ports\":\"{ports}\"")
    };
    let refused = change(&mut state, "add", "nat", &pool("more", "2999-3999"));
    assert!(
        refused
            .unwrap_err()
            .contains("that of nat \"out\" dev gnv0")
    );
    change(&mut state, "add", "nat", &pool("more", "3000-3999")).unwrap();
}

#[test]
fn options_that_would_not_fit_into_a_header_are_refused() {
    let mut state = DesiredState::default();
    let tag = r#""name":"tag","class":"0x0199","type":5,"len":40"#;
    change(&mut state, "add", "option", tag).unwrap();
    let tags = format!("\"option\":[\"tag={0}\"]", "00".repeat(40));
    change(
        &mut state,
        "add",
        "link",
        &format!(r#""name":"gnv0","id":1,{tags}"#),
    )
    .unwrap();
    let endpoint = format!(r#""address":"10.0.0.3","dev":"gnv0","local":true,{tags}"#);
    change(&mut state, "add", "endpoint", &endpoint).unwrap();
    let twice = format!("\"option\":[\"tag={0}\",\"tag={0}\"]", "00".repeat(40));
    let refused = change(
        &mut state,
        "set",
        "link",
        &format!(r#""name":"gnv0",{twice}"#),
    );
    assert!(refused.unwrap_err().contains("together take 132 bytes"));
}

#[test]
fn labels_need_a_secret_that_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let link = "[[link]]\nname = \"a\"\nid = 1\n";
    let labelled =
        "[[endpoint]]\naddress = \"10.0.0.1\"\ndev = \"a\"\nlocal = true\nlabels = \"app=web\"\n";
    let rule = "[[policy]]\nname = \"r\"\ndev = \"a\"\ndirection = \"egress\"\nto = \"!app\"\naction = \"deny\"\n";
    for text in [labelled, rule] {
        let fault = fault(&format!("{link}{text}"));
        assert!(
            fault.contains("\"label-secret-file\" in [daemon]"),
            "{fault}"
        );
    }
    let (directory, path) = secret();
    let daemon = |path: &str| format!("[daemon]\nlabel-secret-file = \"{path}\"\n");
    let shown = path.to_str().unwrap();
    let config = load(&format!("{}{link}{labelled}{rule}", daemon(shown))).unwrap();
    assert!(config.secret.is_some() && config.state.fabric.secret);
    assert!(config.state.uses_labels(&"a".parse().unwrap()));
    for (mode, open) in [(0o640, false), (0o660, true), (0o644, true), (0o750, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let words = format!("mode {mode:04o} opens it to others; \"chown root");
        match load(&daemon(shown)) {
            Ok(_) => assert!(!open, "{mode:o} was taken"),
            Err(faults) => assert!(open && faults[0].what.contains(&words), "{}", faults[0]),
        }
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
    let parent = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(directory.path(), mode).unwrap();
    };
    parent(0o777);
    let open = fault(&daemon(shown));
    assert!(
        open.contains("others can write to ") && open.contains("(mode 0777,"),
        "{open}"
    );
    // In a sticky directory like /tmp only its owner can replace a file.
    parent(0o1777);
    assert!(load(&daemon(shown)).is_ok());
    parent(0o700);
    let elsewhere = directory.path().to_str().unwrap();
    assert!(fault(&daemon(elsewhere)).contains("not a regular file"));
    assert!(fault(&daemon("secret")).contains("not an absolute path"));
    assert!(fault(&daemon("/nonexistent/secret")).contains("openssl rand -hex 32 | install -m 06"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, "too short\n").unwrap();
    let short = fault(&daemon(shown));
    assert!(
        short.contains("9 bytes are too short") && !short.contains("too short\n9"),
        "{short}"
    );
}

#[test]
fn metrics_are_served_beside_the_usual_control_socket_and_to_this_host_only() {
    use std::path::Path;
    let daemon = |text: &str| load(&format!("[daemon]\n{text}")).unwrap().daemon;
    let path = Path::new("/run/geneved/metrics.sock");
    assert_eq!(daemon("").metrics_socket(), Some(path));
    assert_eq!(daemon("socket = \"/tmp/c\"").metrics_socket(), None);
    assert_eq!(daemon("metrics-socket = \"none\"").metrics_socket(), None);
    let both = daemon("metrics-socket = \"/tmp/m\"\nmetrics = \"[::1]:9481\"");
    assert_eq!(both.metrics_socket(), Some(Path::new("/tmp/m")));
    assert_eq!(both.metrics_address(), "[::1]:9481".parse().ok());
    for address in ["0.0.0.0:9481", "192.0.2.1:9481", "[::]:9481"] {
        let fault = fault(&format!("[daemon]\nmetrics = \"{address}\""));
        assert!(fault.contains("2:11: argument"), "{fault}");
        assert!(fault.contains("not a loopback address"), "{fault}");
    }
    assert!(fault("[daemon]\nmetrics = 9481").contains("expected ADDR:PORT"));
}

#[test]
fn the_daemon_has_bounds_for_flows_and_their_times() {
    assert!(fault("[daemon]\nflows = 10").contains("flows must be from 1024"));
    assert!(fault("[daemon.timeouts]\nudp = 0").contains("from 1 to 10000000"));
    assert!(
        fault("[daemon.timeouts]\nudpp = 5")
            .contains("unknown key \"udpp\"; did you mean \"udp\"?")
    );
    let daemon = load("[daemon]\noption-class = \"0xff50\"\n[daemon.timeouts]\nsyn = 5")
        .unwrap()
        .daemon;
    assert_eq!(
        (daemon.timeouts.syn, daemon.timeouts.established),
        (5, 432_000)
    );
    assert_eq!(daemon.option_class.0.0, 0xff50);
}
