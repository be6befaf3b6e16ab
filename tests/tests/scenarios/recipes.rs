//! The recipes that users follow: every example of contrib/examples, the gateway of geneved-nat(8), and the README's five
//! minutes by hand. Each is loaded or typed as it stands, and then carries traffic.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use geneved::lab::netns::{LabNetns, veth};
use geneved::traffic::TrafficEnds;
use geneved_tests::eventually;
use geneved_tests::launch::{Launch, LaunchOptions};
use geneved_tests::shell::Shell;
use geneved_tests::trio::{EchoConnection, EchoServer, Trio, endpoint};
use geneved_tests::world::{Duo, TestBackend, TestWorld, assert_ping, binary, link};

/// Every example, with the test that uses it.
const EXAMPLES: [&str; 7] = [
    "ethernet",
    "gateway-nat",
    "mesh",
    "service",
    "tenants",
    "two-hosts",
    "vpc-with-policy",
];

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn example(name: &str) -> String {
    let path = folder("contrib/examples").join(format!("{name}.toml"));
    fs::read_to_string(path).expect("an example")
}

/// The commands that an example's comments tell to type: a block for each place where they are told.
fn commands(example: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in example.lines() {
        match line.strip_prefix("#     ") {
            Some(command) => {
                let block = blocks.last_mut().expect("there is one");
                *block += &format!("{command}\n");
            }
            None => blocks.push(String::new()),
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// A daemon with an example as its configuration.
fn start(world: &TestWorld, host: &LabNetns, example: &str) -> Launch {
    let socket = format!("[daemon]\nsocket = \"{}\"\n", Launch::SOCKET);
    let text = match example.contains("\n[daemon]\n") {
        true => example.replacen("[daemon]\n", &socket, 1),
        false => socket + example,
    };
    let how = LaunchOptions {
        file: Some(&text),
        ..LaunchOptions::default()
    };
    Launch::new(world, host, how).ready()
}

/// The example with its link in this namespace.
fn in_netns(example: &str, namespace: &LabNetns) -> String {
    let named = "netns = \"vpc\"";
    assert!(example.contains(named), "{example}");
    example.replace(named, &format!("netns = \"{}\"", namespace.name()))
}

fn ping(from: &LabNetns, to: &LabNetns, address: &str) {
    let ends = TrafficEnds::new(from.netns(), to.netns(), address.parse().unwrap());
    eventually(10, &format!("{address} answers"), || {
        geneved_tests::world::answers(&ends)
    });
    assert_ping(&ends);
}

#[test]
fn no_example_is_without_a_test() {
    let entries = fs::read_dir(folder("contrib/examples")).unwrap();
    let names = entries.map(|entry| entry.unwrap().path());
    let names: BTreeSet<_> = names
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let tested: BTreeSet<_> = EXAMPLES.map(str::to_owned).into();
    assert_eq!(names, tested);
    let readme = fs::read_to_string(folder("README.md")).unwrap();
    for name in EXAMPLES {
        let path = format!("(contrib/examples/{name}.toml)");
        assert!(readme.contains(&path), "the README does not link to {path}");
    }
}

#[test]
fn two_hosts_reach_each_other() {
    let duo = Duo::new();
    let text = example("two-hosts");
    let inside = ["in-a", "in-b"].map(|name| duo.world.host(name));
    let _a = start(&duo.world, &duo.a, &in_netns(&text, &inside[0]));
    let swapped = text
        .replace("remote = \"192.0.2.2\"", "remote = \"192.0.2.1\"")
        .replace("10.0.0.1/24", "10.0.0.2/24")
        .replace("fd00::1/64", "fd00::2/64");
    let _b = start(&duo.world, &duo.b, &in_netns(&swapped, &inside[1]));
    for address in ["10.0.0.2", "fd00::2"] {
        ping(&inside[0], &inside[1], address);
    }
}

#[test]
fn tenants_have_equal_addresses() {
    let duo = Duo::new();
    let text = example("tenants");
    let names = ["red", "blue", "red2", "blue2"].map(|name| duo.world.host(name));
    let with = |red: &LabNetns, blue: &LabNetns, text: &str| {
        text.replace("netns = \"red\"", &format!("netns = \"{}\"", red.name()))
            .replace("netns = \"blue\"", &format!("netns = \"{}\"", blue.name()))
    };
    let [red, blue, red2, blue2] = &names;
    let _a = start(&duo.world, &duo.a, &with(red, blue, &text));
    let other = text
        .replace("2001:db8::2", "2001:db8::1")
        .replace("10.0.0.1/24", "10.0.0.2/24");
    let _b = start(&duo.world, &duo.b, &with(red2, blue2, &other));
    let _servers =
        [(red2, "red"), (blue2, "blue")].map(|(h, name)| EchoServer::start(h, 7000, name));
    for (host, name) in [(red, "red"), (blue, "blue")] {
        let mut talk = EchoConnection::open(host, "10.0.0.2:7000").unwrap();
        assert!(talk.server == name && talk.carries(100_000));
    }
}

#[test]
fn a_mesh_has_a_prefix_on_each_host() {
    let trio = Trio::new();
    let [a, b, c] = &trio.hosts;
    let inside = trio.world.host("in-a");
    let _a = start(&trio.world, a, &in_netns(&example("mesh"), &inside));
    let back = |link: String| {
        link + "[[route]]\nprefix = \"10.0.1.0/24\"\ndev = \"gnv0\"\nvia = [\"192.0.2.1\"]\n"
    };
    let b_tables = back(link("gnv0", 100, &["10.0.2.2/16", "10.0.4.9/32"], ""));
    let c_addresses = ["10.0.3.3/16", "10.0.2.7/32", "10.0.4.9/32"];
    let c_tables = back(link("gnv0", 100, &c_addresses, ""));
    let _b = trio.world.daemon(b, TestBackend::Uring, "", &b_tables);
    let _c = trio.world.daemon(c, TestBackend::Uring, "", &c_tables);
    let _servers = [(b, "b"), (c, "c")].map(|(host, name)| EchoServer::start(host, 7000, name));
    for (address, on) in [
        ("10.0.2.2", "b"),
        ("10.0.3.3", "c"),
        ("10.0.2.7", "c"),
        ("10.0.4.9", "b or c"),
    ] {
        let mut talk = EchoConnection::open(&inside, &format!("{address}:7000")).unwrap();
        assert!(on.contains(&talk.server), "{address} is on {}", talk.server);
        assert!(talk.carries(100_000));
    }
}

#[test]
fn a_policy_lets_through_what_its_rules_allow() {
    let duo = Duo::new();
    let path = duo.world.directory().join("label-secret");
    let path = path.to_str().unwrap();
    let text = example("vpc-with-policy").replace("/etc/geneved/label-secret", path);
    // The command that makes the secret; the group of the packages is not on every machine.
    let make = commands(&text).concat().replace("-g geneved", "-g root");
    assert!(make.contains("install -m 0640"), "{make}");
    let made = duo.a.exec("sh", &["-euc", &make]);
    made.unwrap();
    let inside = duo.world.host("in-a");
    let _a = start(&duo.world, &duo.a, &in_netns(&text, &inside));
    let tables = link("gnv0", 100, &["10.0.1.1/16"], "")
        + &endpoint("gnv0", "10.0.1.1", None, "labels = \"app=web,env=prod\"")
        + &endpoint("gnv0", "10.0.0.1", Some("192.0.2.1"), "");
    let secret = format!("label-secret-file = \"{path}\"");
    let b = duo
        .world
        .daemon(&duo.b, TestBackend::Uring, &secret, &tables);
    let _servers = [5432, 22].map(|port| EchoServer::start(&inside, port, "db"));
    ping(&duo.b, &inside, "10.0.0.1");
    let mut talk = EchoConnection::open(&duo.b, "10.0.0.1:5432").unwrap();
    assert!(talk.carries(100_000));
    let denied = EchoConnection::open(&duo.b, "10.0.0.1:22").err().unwrap();
    assert!(
        matches!(denied.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock),
        "{denied}"
    );
    b.cli("endpoint set 10.0.1.1 dev gnv0 labels app=web,env=prod,legacy=yes");
    let rejected = EchoConnection::open(&duo.b, "10.0.0.1:5432").err().unwrap();
    assert_eq!(rejected.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_service_has_backends_and_does_without_one_that_fails() {
    let trio = Trio::new();
    let [a, b, c] = &trio.hosts;
    let client = endpoint("gnv0", "10.0.0.1", Some("192.0.2.1"), "");
    let tables = |addresses: &[&str]| link("gnv0", 100, addresses, "") + &client;
    let _b = trio
        .world
        .daemon(b, TestBackend::Uring, "", &tables(&["10.0.1.10/16"]));
    let of_c = tables(&["10.0.2.10/16", "10.0.2.11/16"]);
    let _c = trio.world.daemon(c, TestBackend::Uring, "", &of_c);
    let mut servers = vec![
        EchoServer::start(b, 8080, "b"),
        EchoServer::start(c, 8080, "c"),
    ];
    let inside = trio.world.host("in-a");
    let _a = start(&trio.world, a, &in_netns(&example("service"), &inside));
    let mut talk = EchoConnection::open(&inside, "10.0.0.80:80").unwrap();
    assert!(talk.carries(100_000));
    // One client has one backend, as long as that is there.
    let (other, gone) = match &*talk.server {
        "b" => ("c", servers.remove(0)),
        _ => ("b", servers.remove(1)),
    };
    let again = EchoConnection::open(&inside, "10.0.0.80:80").unwrap();
    assert_eq!(again.server, talk.server);
    drop(gone);
    eventually(20, "the other backend takes over", || {
        EchoConnection::open(&inside, "10.0.0.80:80").is_ok_and(|talk| talk.server == other)
    });
}

#[test]
fn a_bridge_reaches_stations_on_other_hosts() {
    let trio = Trio::new();
    let [a, b, c] = &trio.hosts;
    let text = example("ethernet");
    let daemon = start(&trio.world, a, &text);
    let shell = Shell::at(&daemon.socket(), a);
    let _ = shell.types(&commands(&text).concat());
    a.ip("address add 10.0.0.1/24 dev br0").unwrap();
    let station = |number: u8, others: &str| {
        let lines = format!("mode = \"ethernet\"\nlladdr = \"02:00:00:00:01:0{number}\"");
        link("gnv0", 100, &[&format!("10.0.0.{number}/24")], &lines)
            + &format!(
                "[[fdb]]\nmac = \"00:00:00:00:00:00\"\ndev = \"gnv0\"\ndst = [\"192.0.2.1\", \"{others}\"]\n"
            )
    };
    let of_b = station(7, "192.0.2.3");
    let of_c = station(9, "192.0.2.2");
    let _b = trio.world.daemon(b, TestBackend::Uring, "", &of_b);
    let _c = trio.world.daemon(c, TestBackend::Uring, "", &of_c);
    for (host, address) in [(b, "10.0.0.7"), (c, "10.0.0.9")] {
        ping(a, host, address);
    }
    ping(b, c, "10.0.0.9");
}

/// Host a's interface to the outside, and a host there that answers at port 7000.
fn outside_of(trio: &Trio, gateway: &LabNetns) -> (LabNetns, EchoServer) {
    let outside = trio.world.host("outside");
    let ends = (
        (gateway, "o0", &["203.0.113.1/24"][..]),
        (&outside, "o0", &["203.0.113.9/24"][..]),
    );
    veth(ends.0, ends.1, 1500).unwrap();
    // As strict as any distribution has it.
    for device in ["all", "default", "o0"] {
        let name = format!("ipv4/conf/{device}/rp_filter");
        gateway.sysctl(&name, "1").unwrap();
    }
    let server = EchoServer::start(&outside, 7000, "outside");
    ping(gateway, &outside, "203.0.113.9");
    (outside, server)
}

#[test]
fn the_gateway_of_two_vpcs_translates_for_both() {
    let trio = Trio::new();
    let [a, b, c] = &trio.hosts;
    let (outside, _server) = outside_of(&trio, a);
    outside
        .ip("route add 198.51.100.0/24 via 203.0.113.1")
        .unwrap();
    let text = example("gateway-nat");
    let daemon = start(&trio.world, a, &text);
    let [here, there] = &commands(&text)[..] else {
        panic!("two blocks of commands: {text}");
    };
    let gateway = Shell::at(&daemon.socket(), a);
    let before = gateway.types("geneved nat show");
    assert!(
        before.contains("missing: the kernel does not forward"),
        "{before}"
    );
    assert!(
        before.contains("missing: there is no route to 198.51.100.5"),
        "{before}"
    );
    let _ = gateway.types(here);
    let after = gateway.types("geneved nat show");
    assert!(!after.contains("missing"), "{after}");
    let member = |host: &LabNetns, name: &str, vni: u32, address: &str| {
        let daemon = trio.world.daemon(
            host,
            TestBackend::Uring,
            "",
            &link(name, vni, &[address], ""),
        );
        let _ =
            Shell::beside(&daemon, host).types(&there.replace("dev red", &format!("dev {name}")));
        daemon
    };
    let _b = member(b, "red", 7001, "10.0.0.5/24");
    let _c = member(c, "blue", 7002, "10.0.0.25/24");
    let mut red = EchoConnection::open(b, "203.0.113.9:7000").unwrap();
    let pool = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
    assert!(pool.contains(&&*red.seen.ip().to_string()), "{}", red.seen);
    assert!(red.carries(100_000));
    let mut blue = EchoConnection::open(c, "203.0.113.9:7000").unwrap();
    assert_eq!(blue.seen.ip().to_string(), "198.51.100.25");
    assert!(blue.carries(100_000));
    let _inside = EchoServer::start(b, 8443, "red");
    let www = EchoConnection::open(&outside, "198.51.100.1:443").unwrap();
    assert_eq!(www.server, "red");
}

/// The blocks of commands in a section of a manual page.
fn blocks_of(page: &str, section: &str) -> Vec<String> {
    let text = fs::read_to_string(folder("man").join(page)).unwrap();
    let start = format!(".Ss {section}\n");
    let section = text.split(&start).nth(1).expect("the section").to_owned();
    let section = section.split("\n.S").next().unwrap();
    let blocks = section.split(".Bd -literal -offset indent\n").skip(1);
    let blocks = blocks.map(|block| block.split(".Ed").next().unwrap().to_owned());
    blocks.collect()
}

#[test]
fn the_manual_page_of_nat_makes_a_gateway() {
    let trio = Trio::new();
    let [a, b, _] = &trio.hosts;
    let (outside, _server) = outside_of(&trio, a);
    let blocks = blocks_of("geneved-nat.8", "A gateway, step by step");
    let daemons = [a, b].map(|host| trio.world.daemon(host, TestBackend::Uring, "", ""));
    let shells = [(&daemons[0], a), (&daemons[1], b)].map(|(d, host)| Shell::beside(d, host));
    // Until the kernel is told, the translations say what is missing.
    let (geneved, kernel) = blocks[0].split_once("sysctl").unwrap();
    let _ = shells[0].types(geneved);
    let before = daemons[0].cli("nat show");
    for lack in [
        "missing: the kernel does not forward between gnv0 and other interfaces (net.ipv4.ip_forward); \"sysctl -w net.ipv4.ip_forward=1\"",
        "missing: there is no route to 198.51.100.1 (and 3 more)",
        "missing: there is no route to 198.51.100.9",
    ] {
        assert!(before.contains(lack), "{before}");
    }
    let packet = "trace dev gnv0 ingress from 10.0.0.7 to 203.0.113.9 proto tcp dport 80";
    let told = daemons[0].cli(packet);
    assert!(told.contains("the kernel does not forward it"), "{told}");
    let saved = trio.world.file("saved.toml", &daemons[0].cli("save"));
    let check = |path: &Path| {
        let words = ["check", path.to_str().unwrap()];
        a.exec(binary().to_str().unwrap(), &words).unwrap()
    };
    let warned = check(&saved);
    assert!(
        warned.contains("warning: nat \"out\" dev gnv0: the kernel does not forward"),
        "{warned}"
    );
    let host = shells[0].types("geneved check | grep '^nat '");
    assert!(
        host.starts_with("nat          no  out dev gnv0: the kernel does not forward"),
        "{host}"
    );
    let _ = shells[0].types(&format!("sysctl{kernel}"));
    assert!(!daemons[0].cli("nat show").contains("missing"));
    let host = shells[0].types("geneved check | grep '^nat '");
    assert!(host.starts_with("nat          yes"), "{host}");
    let checked = check(&saved);
    assert!(!checked.contains("warning"), "{checked}");
    let told = daemons[0].cli(packet);
    assert!(told.contains("the kernel forwards it to o0"), "{told}");
    let traced = shells[1].types(&blocks[1]);
    assert!(!traced.contains("kernel"), "{traced}");
    assert!(
        traced.ends_with("forward host 192.0.2.1 option 0xff47:0x01=02000000\n"),
        "{traced}"
    );
    let _ = Shell::beside(&daemons[0], &outside).types(&blocks[2]);
    let mut out = EchoConnection::open(b, "203.0.113.9:7000").unwrap();
    let seen = out.seen.ip().to_string();
    assert!(seen.starts_with("198.51.100."), "{seen}");
    assert!(out.carries(200_000));
    let _inside = EchoServer::start(b, 8080, "inside");
    let mut back = EchoConnection::open(&outside, "198.51.100.9:80").unwrap();
    assert!(back.server == "inside" && back.carries(200_000));
}

/// The five minutes by hand, typed word by word but for what must be this test's own.
#[test]
fn the_readme_works_word_by_word() {
    let world = TestWorld::new();
    let readme = fs::read_to_string(folder("README.md")).unwrap();
    let section = readme.split("\n## Five minutes by hand\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let script: String = blocks
        .map(|block| block.split("```").next().unwrap())
        .collect();
    let directory = world.directory().to_str().unwrap();
    // Whatever the binary is called.
    let bin = world.directory().join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(binary(), bin.join("geneved")).unwrap();
    let script = script
        .replace("host-a", &world.name("host-a"))
        .replace("host-b", &world.name("host-b"))
        .replace("/tmp/", &format!("{directory}/"))
        .replace("$PWD/target/release", bin.to_str().unwrap());
    let path = world.file("typed", &script);
    let output = std::process::Command::new("bash")
        .args(["-eu", path.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    assert!(
        text.contains("3 received, 0% packet loss"),
        "{text}{errors}"
    );
    assert!(text.contains("link/none"), "{text}");
}
