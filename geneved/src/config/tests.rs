//! Files that load, files that do not, and plans between them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::file::{Config, ConfigFault, parse, save};
use super::plan::{Plan, told};
use super::state::nearest;

pub(super) fn load(text: &str) -> Result<Config, Vec<ConfigFault>> {
    parse(&[(PathBuf::from("g.toml"), text.to_owned())])
}

/// A secret file, which exists as long as its directory.
pub(super) fn secret() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    (directory, path)
}

pub(super) fn fault(text: &str) -> String {
    load(text)
        .unwrap_err()
        .iter()
        .map(|f| format!("{f}\n"))
        .collect()
}

const FULL: &str = r#"
[daemon]
io = "syscalls"
workers = 2
segmentation = "gso"
socket = "/tmp/s"
[[link]]
name = "gnv0"
type = "geneve"
id = 100
remote = "192.0.2.2"
local = "192.0.2.1"
dstport = 6082
ttl = 64
tos = "inherit"
df = "unset"
udpcsum = false
udp6zerocsumtx = true
udp6zerocsumrx = true
srcport = "50000-50999"
mtu = 1400
address = ["10.0.0.1/24", "fd00::1/64"]
allowed = ["10.9.0.0/24", "fd09::/64"]
netns = "blue"
ingress = "allow"
[[link]]
name = "gnv1"
id = 100
[[route]]
prefix = "10.1.0.0/16"
dev = "gnv0"
via = ["192.0.2.3", "192.0.2.4"]
[[endpoint]]
address = "10.0.0.9"
dev = "gnv0"
host = ["192.0.2.5"]
[[endpoint]]
address = "10.0.0.1"
dev = "gnv1"
local = true
"#;

#[test]
fn what_was_saved_loads_back_to_the_same_state_and_the_same_text() {
    let config = load(FULL).unwrap();
    assert_eq!(config.daemon.workers, 2);
    let saved = save(&config.daemon, &config.state);
    let again = load(&saved).unwrap();
    assert_eq!(again, config);
    assert_eq!(save(&again.daemon, &again.state), saved);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_column() {
    let text = "[[link]]\nname = \"a\"\nid = 1\nremot = \"192.0.2.1\"\n";
    let said = fault(text);
    assert_eq!(
        said,
        "g.toml:4:1: unknown key \"remot\"; did you mean \"remote\"?\n"
    );
    let strange = fault("[[link]]\nbanana = 1\n");
    assert!(
        strange
            .starts_with("g.toml:2:1: unknown key \"banana\"; expected one of \"name\", \"type\""),
        "{strange}"
    );
    let table = fault("[[polcy]]\nname = \"x\"\n");
    assert_eq!(
        table,
        "g.toml:1:3: unknown key \"polcy\"; did you mean \"policy\"?\n"
    );
}

#[test]
fn a_wrong_value_is_named_with_its_line_and_column() {
    let text = "[[link]]\nname = \"a\"\nid = 99999999\n";
    assert_eq!(
        fault(text),
        "g.toml:3:6: id: expected an integer from 0 to 16777215, found the integer 99999999\n"
    );
    let text = "[[link]]\nname = \"a\"\nid = 1\nttl = \"never\"\n";
    assert!(fault(text).starts_with("g.toml:4:7: argument \"never\" is wrong: invalid ttl"));
}

#[test]
fn rfc8926_26_links_of_one_port_agree_on_zero_checksums() {
    let link = |name: &str, id: u32, more: &str| {
        format!("[[link]]\nname = \"{name}\"\ntype = \"geneve\"\nid = {id}\n{more}\n")
    };
    let zero = "udp6zerocsumrx = true";
    let faults = fault(&(link("a", 1, "") + &link("b", 2, zero)));
    assert!(
        faults.contains(
            "link \"b\": udp6zerocsumrx is true and that of link \"a\" on the same port 6081 is not"
        ),
        "{faults}"
    );
    let own_port = format!("{zero}\ndstport = 6082");
    assert!(load(&(link("a", 1, "") + &link("b", 2, &own_port))).is_ok());
}

#[test]
fn what_is_on_a_link_with_a_fault_is_judged_all_the_same_and_blamed_on_no_other() {
    for broken in ["ageing = 5", "rate = 5"] {
        let text = format!(
            "[[link]]\nname = \"gnv0\"\nid = 100\n{broken}\n[[link]]\nname = \"gnv1\"\nid = 101\n\
             [[route]]\nprefix = \"10.1.0.5/16\"\ndev = \"gnv0\"\nvia = [\"192.0.2.2\"]\n\
             [[route]]\nprefix = \"10.2.0.0/16\"\ndev = \"gnv0\"\nvia = [\"192.0.2.2\"]\n"
        );
        let faults = fault(&text);
        let lines: Vec<_> = faults.lines().collect();
        assert_eq!(lines.len(), 2, "{faults}");
        assert!(
            lines[1].contains("bits beyond the prefix length"),
            "{faults}"
        );
        assert!(!faults.contains("Cannot find"), "{faults}");
    }
}

#[test]
fn what_is_missing_because_it_has_a_fault_itself_is_one_fault() {
    let text = "[[link]]\nname = \"gnv0\"\nid = 100\n[[qos]]\nname = \"gold\"\ndev = \"gnv0\"\nid = \"x\"\n\
        [[policy]]\nname = \"web\"\ndev = \"gnv0\"\ndirection = \"ingress\"\naction = \"allow\"\nclass = \"gold\"\n";
    let faults = load(text).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    // A fault in an object of the same name must not hide other faults.
    let text = format!(
        "{text}proto = \"icmp\"\ndport = \"80\"\n[[nat]]\nname = \"web\"\ndev = \"gnv0\"\ntype = \"x\"\n"
    );
    let faults = load(&text.replace("class = \"gold\"\n", "")).unwrap_err();
    assert_eq!(faults.len(), 3, "{faults:?}");
}

#[test]
fn a_socket_that_the_kernel_could_not_take_is_a_fault() {
    for path in [String::new(), format!("/tmp/{}", "x".repeat(103))] {
        let said = fault(&format!("[daemon]\nsocket = \"{path}\"\n"));
        assert!(said.contains("a path of 1 to 107 bytes"), "{said}");
    }
}

#[test]
fn all_faults_are_reported_at_once() {
    let text = "
[[link]]
name = \"a\"
id = 1
[[link]]
name = \"b\"
id = 1
[[link]]
name = \"c\"
[[route]]
prefix = \"10.0.0.1/24\"
dev = \"a\"
via = [\"192.0.2.1\"]
[[endpoint]]
address = \"10.0.0.1\"
dev = \"nosuch\"
local = true
";
    let faults = fault(text);
    let lines: Vec<_> = faults.lines().collect();
    assert_eq!(
        lines,
        [
            "g.toml:5:1: link \"b\": id 1 on port 6081 is already that of link \"a\"; choose another id or dstport",
            "g.toml:8:1: link \"c\": geneve: missing virtual network identifier; add \"id VNI\"",
            "g.toml:10:1: route \"10.0.0.1/24\": bits beyond the prefix length are set; did you mean \"10.0.0.0/24\"?",
            "g.toml:14:1: Cannot find device \"nosuch\"; \"geneved link show\" lists the links",
        ]
    );
}

#[test]
fn one_fault_of_a_key_or_value_hides_no_other() {
    let text = r#"
[daemon]
workers = "two"
flows = 10
colour = "red"
[daemon.timeouts]
syn = 0
udp = -1
icpm = 5
[[link]]
name = "a"
id = 99999999
remot = "192.0.2.2"
up = "yes"
address = ["10.0.0.1/24", "10.0.0.300/24", 7]
ageing = 5000000000
mode = "ip6"
[link2]
[[link]]
id = 5
[fdb]
mac = "02:00:00:00:00:01"
dev = "a"
dst = "192.0.2.2"
[[route]]
prefix = "10.1.0.0/16"
dev = "a"
via = ["192.0.2"]
[[service]]
name = "web"
dev = "a"
backend = [{ address = "10.0.0.1", prot = 1 }, { address = "10.0.0.2", port = 70000 }]
[[qos]]
name = "gold"
dev = "b"
id = 300
rate = 100
[[endpoint]]
address = "10.0.0.9"
dev = "a"
local = 1
[[policy]]
name = "x"
dev = "nosuch"
direction = "ingress"
action = "allow"
from = true
"#;
    let said = fault(text);
    let lines: Vec<_> = said.lines().collect();
    let expected = [
        r#"g.toml:3:11: workers: expected an integer from 0 to 65535, found the string "two""#,
        r#"g.toml:4:9: [daemon]: flows must be from 1024 to 16777216"#,
        r#"g.toml:5:1: unknown key "colour"; expected one of "io", "workers", "segmentation", "socket", "metrics-socket", "metrics", "user", "label-secret-file", "option-class", "min-path-mtu", "flows", "timeouts""#,
        r#"g.toml:7:7: [daemon.timeouts]: syn: seconds must be from 1 to 10000000"#,
        r#"g.toml:8:7: timeouts.udp: expected an integer from 0 to 4294967295, found the integer -1"#,
        r#"g.toml:9:1: unknown key "icpm"; did you mean "icmp"?"#,
        r#"g.toml:12:6: id: expected an integer from 0 to 16777215, found the integer 99999999"#,
        r#"g.toml:13:1: unknown key "remot"; did you mean "remote"?"#,
        r#"g.toml:14:6: up: expected a boolean, found the string "yes""#,
        r#"g.toml:15:27: argument "10.0.0.300/24" is wrong: invalid prefix: an IPv4 or IPv6 address, then / and its length"#,
        r#"g.toml:15:44: argument "7" is wrong: invalid prefix: an IPv4 or IPv6 address, then / and its length"#,
        r#"g.toml:16:10: ageing: expected an integer from 0 to 4294967295, found the integer 5000000000"#,
        r#"g.toml:17:8: argument "ip6" is wrong: invalid mode: "ip" or "ethernet""#,
        r#"g.toml:18:2: unknown key "link2"; did you mean "link"?"#,
        r#"g.toml:19:1: [[link]]: key "name" is missing"#,
        r#"g.toml:21:2: fdb: expected an array of tables, each of which begins with [[fdb]]"#,
        r#"g.toml:24:7: dst: expected an array, found the string "192.0.2.2""#,
        r#"g.toml:28:8: via: expected a string with an IPv4 or IPv6 address, found "192.0.2""#,
        r#"g.toml:32:36: unknown key "prot"; did you mean "port"?"#,
        r#"g.toml:32:79: backend: expected an integer from 0 to 65535, found the integer 70000"#,
        r#"g.toml:36:6: id: expected an integer from 0 to 255, found the integer 300"#,
        r#"g.toml:37:8: argument "100" is wrong: invalid rate: it has no unit; "100mbit" is 100 Mbit/s, "100bit" is 100 bit/s"#,
        r#"g.toml:41:9: local: expected a boolean, found the integer 1"#,
        r#"g.toml:47:8: from: expected a string, found the boolean true"#,
    ];
    assert_eq!(lines, expected, "{said}");
    // No fault is reported because of another one.
    assert!(!said.contains("Cannot find"), "{said}");
}

#[test]
fn a_text_that_is_no_toml_has_its_other_faults_told_as_well() {
    let said = fault("[[link]]\nname = \n[[link]\nid = 1\n[[link]]\nname = \"b\"\nid = true\n");
    assert!(said.contains("g.toml:2:"), "{said}");
    assert!(said.contains("g.toml:3:"), "{said}");
    assert!(
        said.contains(
            "g.toml:7:6: id: expected an integer from 0 to 16777215, found the boolean true"
        ),
        "{said}"
    );
}

#[test]
fn settings_that_cannot_be_kept_are_refused() {
    let link = |rest: &str| fault(&format!("[[link]]\nname = \"a\"\nid = 1\n{rest}\n"));
    assert!(link("burst = \"64k\"").contains("burst without a rate"));
    assert!(link("remote = \"224.0.0.1\"").contains("must be unicast"));
    assert!(link("remote = \"192.0.2.1\"\nlocal = \"2001:db8::1\"").contains("different families"));
    assert!(link("mtu = 1000\naddress = [\"fd00::1/64\"]").contains("IPv6 needs 1280"));
    assert!(link("netns = \"../x\"").contains("not the name"));
    assert!(link("dstport = 0").contains("invalid port"));
    assert!(fault("[daemon]\nworkers = 0").contains("1 to 64"));
}

#[test]
fn the_same_id_on_another_port_is_another_vpc() {
    let text = "[[link]]\nname = \"a\"\nid = 1\n[[link]]\nname = \"b\"\nid = 1\ndstport = 6082\n";
    assert_eq!(load(text).unwrap().state.links.len(), 2);
}

#[test]
fn conf_d_is_read_after_the_file_and_may_hold_the_links_of_its_routes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("conf.d")).unwrap();
    let main = dir.path().join("geneved.toml");
    std::fs::write(
        &main,
        "[[route]]\nprefix = \"10.0.0.0/8\"\ndev = \"a\"\nvia = [\"192.0.2.1\"]\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("conf.d/a.toml"),
        "[[link]]\nname = \"a\"\nid = 1\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("conf.d/not-toml.bak"), "nonsense").unwrap();
    let config = super::file::load(&main).unwrap();
    assert_eq!(
        (config.state.links.len(), config.state.routes.len()),
        (1, 1)
    );
}

#[test]
fn what_is_there_twice_is_named_with_both_places() {
    let file = |name: &str, text: &str| (PathBuf::from(name), text.to_owned());
    let link = "[daemon]\nworkers = 2\n[[link]]\nname = \"a\"\nid = 1\n";
    let more = "[[link]]\nname = \"a\"\nid = 2\n[[route]]\nprefix = \"10.0.0.0/8\"\ndev = \"a\"\n\
                via = [\"192.0.2.1\"]\n[[route]]\nprefix = \"10.0.0.0/8\"\ndev = \"a\"\nvia = [\"192.0.2.2\"]\n";
    let faults = parse(&[
        file("g.toml", link),
        file("conf.d/10.toml", more),
        file("conf.d/20.toml", "[daemon]\nio = \"auto\"\n"),
    ])
    .unwrap_err();
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "conf.d/10.toml:1:1: link \"a\" exists already; the first one is at g.toml:3:1",
            "conf.d/10.toml:8:1: route \"10.0.0.0/8\" dev a exists already; the first one is at conf.d/10.toml:4:1",
            "conf.d/20.toml:1:1: [daemon] exists already; the first one is at g.toml:1:1; keep it in one file",
        ]
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let faults = super::file::load(Path::new("/nonexistent/g.toml")).unwrap_err();
    assert!(
        faults[0]
            .to_string()
            .contains("/nonexistent/g.toml: cannot read it")
    );
}

#[test]
fn plans_replace_an_interface_only_where_its_mode_or_its_namespace_changes() {
    let link = |name: &str, rest: &str| {
        format!("[[link]]\nname = \"{name}\"\nid = {}\n{rest}\n", name.len())
    };
    let old =
        load(&(link("a", "") + &link("bb", "") + &link("ccc", "") + &link("dddd", ""))).unwrap();
    let text = link("a", "")
        + &link(
            "bb",
            "address = [\"10.0.0.1/24\"]\nsrcport = \"1000-1001\"\ndf = \"unset\"\nudpcsum = false",
        )
        + &link("ccc", "mode = \"ethernet\"")
        + &link("eeeee", "")
        + "[[route]]\nprefix = \"10.0.0.0/8\"\ndev = \"a\"\nvia = [\"192.0.2.1\"]\n";
    let plan = Plan::between(&old.state, &load(&text).unwrap().state);
    assert_eq!(
        plan.to_string(),
        "links: 1 added, 1 deleted, 1 replaced, 1 changed; routes and endpoints: 1 changed"
    );
    assert_eq!(
        (plan.set[0].as_str(), plan.replace[0].as_str()),
        ("bb", "ccc")
    );
    assert_eq!(
        (plan.add[0].as_str(), plan.del[0].as_str()),
        ("eeeee", "dddd")
    );
    assert!(Plan::between(&old.state, &old.state).is_empty());
}

#[test]
fn a_log_names_what_a_plan_changes() {
    let link = "[[link]]\nname = \"a\"\nid = 1\n";
    let route = "[[route]]\nprefix = \"10.5.0.0/16\"\ndev = \"a\"\nvia = [\"192.0.2.1\"]\n";
    let old = load(link).unwrap().state;
    let new = load(&(link.replace("id = 1", "id = 1\nmtu = 1400") + route))
        .unwrap()
        .state;
    let steps = Plan::between(&old, &new).into_steps();
    assert_eq!(told(&steps), "link a changed, route 10.5.0.0/16 of a added");
    assert_eq!(told(&[]), "nothing changed");
    let many: Vec<_> = std::iter::repeat_n(steps[1].clone(), 11).collect();
    assert!(told(&many).ends_with("route 10.5.0.0/16 of a added and 3 more"));
}

#[test]
fn the_examples_are_valid() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            // Examples that need a secret tell the reader to create one.
            let (_directory, secret) = secret();
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace("/etc/geneved/label-secret", secret.to_str().unwrap());
            parse(&[(path, text)]).unwrap_or_else(|faults| panic!("{}", faults[0]));
            seen += 1;
        }
    }
    assert!(seen >= 6);
}

#[test]
fn typos_find_the_nearest_word_and_strangers_find_none() {
    let words = ["remote", "local", "dstport", "id"];
    assert_eq!(nearest("remtoe", words), Some("remote"));
    assert_eq!(nearest("dsport", words), Some("dstport"));
    assert_eq!(nearest("banana", words), None);
}

#[test]
fn the_routes_and_endpoints_of_a_link_are_all_of_them_and_no_others() {
    let mut text = String::new();
    for (id, name) in ["a", "ab", "b"].iter().enumerate() {
        text += &format!("[[link]]\nname = \"{name}\"\nid = {id}\n");
        for prefix in ["0.0.0.0/0", "255.0.0.0/8", "::/0", "fd00::/8"] {
            text += &format!(
                "[[route]]\nprefix = \"{prefix}\"\ndev = \"{name}\"\nvia = [\"192.0.2.1\"]\n"
            );
        }
        for address in ["0.0.0.0", "10.0.0.1", "fd00::1"] {
            text +=
                &format!("[[endpoint]]\naddress = \"{address}\"\ndev = \"{name}\"\nlocal = true\n");
        }
    }
    let state = load(&text).unwrap().state;
    for name in state.links.keys() {
        assert_eq!(state.routes_of(name).count(), 4, "{name}");
        assert_eq!(state.endpoints_of(name).count(), 3, "{name}");
    }
}

/// Keys of a table, as listed by the refusal of an unknown key.
fn keys_of(table: &str) -> Vec<String> {
    let said = fault(&format!("{table}\nqqqqqqqqqqqq = 1\n"));
    let listed = said.split("; expected one of ").nth(1);
    let listed = listed.unwrap_or_else(|| panic!("{table}: {said}"));
    listed
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_manual_page_has_every_key_with_its_default_and_no_other() {
    let page = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../man/geneved.toml.5"),
    )
    .unwrap();
    for table in [
        "[daemon]",
        "[daemon.timeouts]",
        "[[link]]",
        "[[fdb]]",
        "[[route]]",
        "[[endpoint]]",
        "[[policy]]",
        "[[nat]]",
        "[[service]]",
        "[[qos]]",
        "[[option]]",
    ] {
        let after = page.split(&format!("\n.Ss {table}\\&\n")).nth(1);
        let after = after.unwrap_or_else(|| panic!("no section {table}"));
        let section = after.split("\n.S").next().unwrap_or(after);
        for item in section.split("\n.It Cm ").skip(1) {
            let said = item.contains("Required") || item.contains("default");
            assert!(said, "what is it by default? {table} {item}");
        }
        let items = section
            .lines()
            .filter_map(|line| line.strip_prefix(".It Cm "));
        let mut told: Vec<String> = items
            .flat_map(|item| item.split(" No ").next().unwrap_or(item).split(" , "))
            .map(str::to_owned)
            .collect();
        // `[daemon.timeouts]` has a section of its own.
        let mut keys = keys_of(table);
        keys.retain(|key| key != "timeouts");
        // Spelled this way on the control socket: Varlink names have no hyphens.
        keys.retain(|key| key != "endpoint_type");
        told.sort();
        keys.sort();
        assert_eq!(told, keys, "{table}");
    }
}
