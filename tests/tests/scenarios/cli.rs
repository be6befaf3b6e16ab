//! What users see, command by command, against a real daemon: every output shape and every kind of
//! error. The transcripts are in `snapshots`; `INSTA_UPDATE=always` writes them anew.

use geneved_tests::shell::Shell;
use geneved_tests::world::{Duo, TestBackend, TestDaemon};
use insta::assert_snapshot;

/// A daemon that has a secret for labels, beside a host that can be reached.
fn daemon(duo: &Duo) -> TestDaemon {
    let secret = duo.world.file("secret", &"5a".repeat(32));
    let line = format!("label-secret-file = \"{}\"", secret.display());
    duo.world.daemon(&duo.a, TestBackend::Syscalls, &line, "")
}

/// What a terminal shows of `script`, with what differs from run to run by a name.
fn shown(script: &str) -> String {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    let shell = Shell::beside(&daemon, &duo.a);
    let site = daemon.process().site().clone();
    let text = shell
        .transcript(script)
        .replace(&site.socket().display().to_string(), "SOCKET")
        .replace(&site.directory.display().to_string(), "DIRECTORY");
    numbered(&text)
}

/// The numbers of interfaces differ with what the kernel made before them.
fn numbered(text: &str) -> String {
    let line = |line: &str| {
        let (number, rest) = line.split_once(": ").unwrap_or(("", line));
        match !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
            true => format!("N: {rest}\n"),
            false => format!("{line}\n"),
        }
    };
    let mut text: String = text.lines().map(line).collect();
    let key = "\"ifindex\":";
    let mut at = 0;
    while let Some(found) = text[at..].find(key) {
        let start = at + found + key.len();
        let digits = text[start..].find(|c: char| c != ' ' && !c.is_ascii_digit());
        let end = start + digits.unwrap_or(text.len() - start);
        text.replace_range(start..end, " N");
        at = start;
    }
    text
}

const LINK_CONFIG: &str = "
    geneved link add gnv0 type geneve id 100 remote 192.0.2.2 address 10.0.0.1/24 address fd00::1/64 option tag=01020304
    geneved option add tag class 0x0199 type 5 len 4
    geneved link add gnv0 type geneve id 100 remote 192.0.2.2 address 10.0.0.1/24 address fd00::1/64 option tag=01020304
    geneved link add dev gnv1 type geneve vni 101 local 192.0.2.1 hoplimit 9 dsfield 0x10 df unset noudpcsum udp6zerocsumtx mtu 1300 ingress deny down
    geneved link
    geneved link show dev gnv0
    geneved -d link show gnv1
    geneved -s link ls gnv1
    geneved -s -s link lst gnv1
    geneved -h -s link show gnv1
    geneved -br link
    geneved -o link show gnv0
    geneved -j link show gnv0
    geneved -j -d -s link show gnv1
    geneved -j -p link show gnv1
    geneved -j -br link
    geneved -4 link show gnv0
    geneved -6 -br link show gnv0
    geneved -c=always link
    geneved -c=always -br link
    geneved -c=always -j link show gnv1
    NO_COLOR=1 geneved -c=always link show gnv1
    geneved link show up
    geneved link show type geneve up
    geneved link set dev gnv0 mtu 1400
    geneved link set gnv0 down
    geneved link show gnv0
    geneved -br link show up
    geneved link set gnv0 up ttl inherit
    geneved link show gnv0
    geneved link set gnv1 type geneve innerprotoinherit up mtu auto
    geneved link show gnv1
    geneved -n nosuch link show
    geneved -n nosuch link show gnv0
    geneved link del gnv1
    geneved link delete gnv1
    geneved -j link show gnv1
    geneved link del gnv0
    geneved link
    geneved -j link
    geneved -j -p link
";

#[test]
fn link_in_every_shape() {
    assert_snapshot!(shown(LINK_CONFIG));
}

const OBJECTS: &str = r#"
    geneved link add gnv0 type geneve id 100 local 192.0.2.1 address 10.0.0.1/16
    geneved route add 10.0.2.0/24 dev gnv0 via 192.0.2.2,192.0.2.3 proto static
    geneved route add fd02::/64 dev gnv0 via 192.0.2.2
    geneved route add default dev gnv0 via 192.0.2.2 type gateway
    geneved route
    geneved route show 10.0.2.0/24
    geneved route show via 192.0.2.3
    geneved route show type gateway
    geneved -6 route
    geneved -j route
    geneved -c=always route
    geneved route change 10.0.2.0/24 dev gnv0 via 192.0.2.3
    geneved route replace 10.0.2.0/24 dev gnv0 via 192.0.2.2 type gateway
    geneved route replace 10.0.3.0/24 dev gnv0 via 192.0.2.3
    geneved route get 10.0.2.9 dev gnv0
    geneved route get 10.0.0.1
    geneved -j route get 172.16.0.1 dev gnv0
    geneved route get fd03::1 dev gnv0
    geneved route del default dev gnv0
    geneved route get 172.16.0.1
    geneved qos add gold dev gnv0 id 7 rate 100mbit burst 64k dscp ef
    geneved qos set gold dev gnv0 rate 1gbit
    geneved qos replace gold dev gnv0 id 8
    geneved qos show
    geneved -s qos show gold
    geneved -j qos
    geneved option add tag class aws type 0x85 len 4
    geneved option set tag type 0x86
    geneved option show
    geneved -s option show tag
    geneved -j option
    geneved endpoint add 10.0.0.1 dev gnv0 local labels app=web,env=prod
    geneved endpoint add 10.0.2.7 dev gnv0 host 192.0.2.2 class gold option tag=01020304
    geneved endpoint add 10.0.9.9 dev gnv0 type scaled host 192.0.2.2,192.0.2.3
    geneved endpoint
    geneved endpoint show host 192.0.2.3
    geneved endpoint show local
    geneved endpoint show type scaled
    geneved endpoint show class gold
    geneved -j endpoint show 10.0.0.1
    geneved endpoint replace 10.0.2.7 dev gnv0 host 192.0.2.3
    geneved endpoint show 10.0.2.7
    geneved route get 10.0.2.7
    geneved policy add web dev gnv0 ingress from "app in (api, web),!old" proto tcp dport 80,443 allow log class gold
    geneved policy add ping dev gnv0 egress pref 5 to 10.0.9.0/24 proto icmp icmp 8/0 reject
    geneved policy
    geneved policy show egress
    geneved policy set web dev gnv0 pref 7 nolog
    geneved -s policy show web
    geneved policy replace ping dev gnv0 egress deny
    geneved -N policy
    geneved -j policy show ping
    geneved nat add out dev gnv0 snat from 10.0.0.0/16 source 198.51.100.1-198.51.100.4
    geneved nat add www dev gnv0 dnat to 198.51.100.9 proto tcp dport 80 target 10.0.2.7:8080
    geneved nat add one dev gnv0 static inside 10.0.0.8 outside 198.51.100.8
    geneved nat
    geneved nat set out dev gnv0 ports 2000-2999
    geneved -s nat show out
    geneved -j nat show www
    geneved service add web dev gnv0 vip 10.0.0.80 proto tcp port 80 backend 10.0.2.5:8080 weight 2 backend 10.0.2.6 check none
    geneved service
    geneved service set web dev gnv0 affinity client
    geneved -d service show web
    geneved -j service
    geneved -br service
    geneved flow
    geneved -j flow show dev gnv0
    geneved flow flush
    geneved -j flow flush dev gnv0
    geneved trace dev gnv0 egress from 10.0.0.1 to 10.0.3.9 proto udp sport 1 dport 2
    geneved -j trace dev gnv0 egress from 10.0.0.1 to 10.0.3.9 proto udp sport 1 dport 2
    geneved policy del web dev gnv0
    geneved nat delete out dev gnv0
    geneved service del web dev gnv0
    geneved endpoint del 10.0.9.9 dev gnv0
    geneved option del tag
    geneved qos del gold dev gnv0
    geneved policy
"#;

#[test]
fn the_other_objects() {
    assert_snapshot!(shown(OBJECTS));
}

/// What `show` prints makes the same again.
#[test]
fn what_is_shown_can_be_typed() {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    let shell = Shell::beside(&daemon, &duo.a);
    let (made, _) = OBJECTS
        .split_once("geneved policy del web")
        .expect("it is there");
    let _ = shell.transcript(made);
    for object in [
        "route", "endpoint", "policy", "nat", "service", "qos", "option",
    ] {
        let before = daemon.cli(&format!("{object} show"));
        assert!(!before.is_empty(), "{object}");
        // The first line of each makes it.
        for line in before.lines().filter(|line| !line.starts_with(' ')) {
            let command = format!("geneved {object} replace {line}");
            let done = shell.transcript(&command);
            assert_eq!(done, format!("$ {command}\n"));
        }
        assert_eq!(daemon.cli(&format!("{object} show")), before);
    }
    let link = daemon.cli("-d link show gnv0");
    let words = link.lines().nth(2).unwrap_or_default().trim();
    daemon.cli("link del gnv0");
    let done = shell.transcript(&format!("geneved link add gnv0 type {words}"));
    assert_eq!(done.lines().count(), 1, "{done}");
}

/// What is typed is done, or refused: qualifiers of `del`, `none`, options that mean nothing, names that are not there.
const HEEDED: &str = r#"
    geneved link add gnv0 type geneve id 100 local 192.0.2.1 remote 192.0.2.9 address 10.0.0.1/16
    geneved link del gnv0 type vxlan
    geneved address add 10.1.0.1/24 dev gnv0
    geneved address add fd00::1/64 dev gnv0
    geneved address add 10.1.0.1/24 dev gnv0
    geneved address
    geneved -6 address show dev gnv0
    geneved -j address show 10.1.0.1/24
    geneved addr del 10.1.0.9/24 dev gnv0
    geneved addr del 10.1.0.1/24 dev gnv0
    geneved -br link show gnv0
    geneved link address add 10.2.0.1/24 dev gnv0
    geneved link address
    geneved link set gnv0 remote none local none address none ttl none lladdr none option none rate none
    geneved link set gnv0 id none
    geneved link set gnv0 remote none remote 192.0.2.9
    geneved link show gnv0
    geneved -br -j link
    geneved route add 10.2.0.0/16 dev gnv0 via 192.0.2.2,192.0.2.3
    geneved route del 10.2.0.0/16 dev gnv0 via 192.0.2.77
    geneved route del 10.2.0.0/16 dev gnv0 type gateway
    geneved route del 10.2.0.0/16 dev gnv0 via 192.0.2.2
    geneved route
    geneved route set 10.2.0.0/16 dev gnv0 via none
    geneved route del 10.2.0.0/16 dev gnv0 via 192.0.2.3
    geneved route add ::/0 dev gnv0 via 192.0.2.2
    geneved -6 route
    geneved route
    geneved endpoint add 10.0.0.9 dev gnv0 host 192.0.2.2
    geneved endpoint del 10.0.0.9 dev gnv0 host 192.0.2.3
    geneved endpoint del 10.0.0.9 dev gnv0 type gateway labels a=b class none
    geneved endpoint del 10.0.0.9 dev gnv0 type simple class none host 192.0.2.2
    geneved policy add web dev gnv0 ingress from 10.0.0.0/8 proto tcp dport 80 allow
    geneved policy set web dev gnv0 from none proto none dport none
    geneved policy set web dev gnv0 action none
    geneved policy show web
    geneved service add web dev gnv0 vip 10.0.0.80 proto tcp port 80 backend 10.0.0.5 backend 10.0.0.6 check none
    geneved service del web dev gnv0 backend 10.0.0.5:81
    geneved service del web dev gnv0 backend 10.0.0.5
    geneved service
    geneved policy show wbe
    geneved nat show nope
    geneved service show nope
    geneved qos show nope
    geneved option show nope
    geneved endpoint show 10.0.0.9
    geneved route show 10.9.0.0/16
    geneved link show nope
    geneved qos del nope dev gnv0
    geneved -br route
    geneved -s route
    geneved -d nat
    geneved -t link
    geneved -4 policy
    geneved -N link
    geneved -s link set gnv0 up
    geneved -j -br service
    geneved -p link
    geneved -force link
    geneved -atomic link
    geneved -batch /dev/null link show
    geneved -j run
    geneved -s lab
    geneved --socket=x completions bash
    geneved qos add gold dev gnv0 id 1 rate 100
    geneved -j save | grep -o '"link":\[{"name":"[a-z0-9]*"'
    geneved link show | head -0
    geneved monitor | true
    geneved capture write - 2>&1 | head -0
    geneved top -b | head -1 | cut -c1-7
    geneved foo 2>&1 | true
"#;

#[test]
fn what_is_typed_is_done_or_refused() {
    assert_snapshot!(shown(HEEDED));
}

/// `--socket` in front of `run` is where the daemon is asked, whatever its file says.
#[test]
fn the_socket_that_is_named_is_the_daemons() {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    let shell = Shell::beside(&daemon, &duo.a);
    let script = r#"
        printf '[daemon]\nio = "syscalls"\nsocket = "%s/file.sock"\n' "$PWD" >other.toml
        geneved --socket "$PWD/named.sock" run --config other.toml 2>log & pid=$!
        for i in $(seq 600); do [ -S named.sock ] && break; sleep 0.1; done
        geneved --socket "$PWD/named.sock" reload
        [ -e file.sock ] && echo "the file's socket is there"
        kill $pid
        wait $pid || cat log
    "#;
    let output = shell.run(&["sh"], script);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "nothing changed\n");
}

/// `-n` means the namespace that a link is in, also where that is the daemon's own.
#[test]
fn a_link_is_found_in_the_namespace_of_its_daemon() {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    daemon.cli("link add gnv0 type geneve id 5");
    let name = duo.a.name().to_owned();
    let shell = Shell::beside(&daemon, &duo.a);
    let said = shell.transcript(&format!(
        "geneved -n {name} -br link show gnv0 | cut -c1-4\ngeneved -n {name} link set gnv0 mtu 1400"
    ));
    let said: Vec<_> = said.lines().filter(|line| !line.starts_with('$')).collect();
    assert_eq!(said, ["gnv0"]);
}

const ERRORS: &str = r#"
    geneved
    geneved foo
    geneved lnik
    geneved c
    geneved link foo
    geneved link sohw
    geneved -zz link
    geneved -jsn link
    geneved -c=alway link
    geneved link show -j
    geneved -n blue route show
    geneved link add
    geneved link add gnv0
    geneved link add gnv0 type geneve
    geneved link add gnv0 type vlan
    geneved link add gnv0 type geneve id
    geneved link add gnv0 type geneve id 99999999
    geneved link add gnv0 type geneve id 5 id 6
    geneved link add gnv0 type geneve id 5 garbage
    geneved link add gnv0 type geneve id 5 remtoe 192.0.2.2
    geneved link add gnv0 type geneve id 5 remote 192.0.2
    geneved link add gnv0 type geneve id 5 udp6
    geneved link add gnv0 type geneve id 5 ttl 300
    geneved link add gnv0 type geneve id 5 tos 3
    geneved link add gnv0 type geneve id 5 df sat
    geneved link add gnv0 type geneve id 5 dstport 99999
    geneved link add gnv0 type geneve id 5 mtu 1
    geneved link add gnv0 type geneve id 5 ingress alow
    geneved link add gnv0 type geneve id 5 external
    geneved link add gnv0 type geneve id 5 flowlabel 7
    geneved link add gnv0 type geneve id 5 netns nosuch
    geneved link add gnv0 type geneve id 5 remote 192.0.2.1 local 192.0.2.1
    geneved link add gnv0 type geneve id 5 local 192.0.2.1
    geneved link add gnv0 type geneve id 6
    geneved link add gnv1 type geneve id 5
    geneved link set nosuch up
    geneved link set gnv up
    geneved link set gnv0 up down
    geneved link set
    geneved link del
    geneved link del nosuch
    geneved link show nosuch
    geneved route add 10.0.0.0/24 via 192.0.2.2
    geneved route add 10.0.0.0/33 dev gnv0 via 192.0.2.2
    geneved route add 10.0.0.1/24 dev gnv0 via 192.0.2.2
    geneved route add 10.0.0.0/24 dev gnv0 via 192.0.2.2 type gatway
    geneved route add 10.0.0.0/24 dev gnv0 via 2001:db8::2
    geneved route del 10.0.0.0/24 dev gnv0
    geneved route show dev nosuch
    geneved route show proto kernel
    geneved endpoint add 10.0.0.1 dev gnv0
    geneved endpoint add 10.0.0.1 dev gnv0 local class gld
    geneved policy add web dev gnv0 ingress
    geneved policy add web dev gnv0 ingress allow deny
    geneved policy add web dev gnv0 ingress allow proto tpc
    geneved policy set web dev gnv0 pref 5
    geneved nat add out dev gnv0
    geneved nat add out dev gnv0 snat to 10.0.0.1
    geneved service add web dev gnv0 vip 10.0.0.1 proto tcp port 80
    geneved service add web dev gnv0 vip 10.0.0.1 proto tcp port 80 weight 2
    geneved qos add gold dev gnv0 id 256
    geneved qos add gold dev gnv0 id 1 rate fast
    geneved option add tag class 0x0199 type 5
    geneved option add tag class nobody type 5 len 4
    geneved flow show state open
    geneved trace dev gnv0 egress from 10.0.0.1 proto tcp
    geneved save now
    geneved run --confg x
    geneved run --config /nonexistent.toml
    geneved check /nonexistent.toml
    geneved completions
    geneved --socket /nonexistent/control.sock link
    geneved -b /nonexistent.batch
"#;

#[test]
fn errors_say_what_and_what_next() {
    assert_snapshot!(shown(ERRORS));
}

const BATCH: &str = r#"
    printf 'link add gnv0 type geneve id 5 # the link\n\nroute add 10.0.0.0/8 \\\n  dev gnv0 via 192.0.2.2\nroute show\n' >b; geneved -b b
    geneved -b - <b
    geneved -force -b b
    printf 'foo\npolicy add web dev gnv0 ingress from "app in (a, b)" allow\nlink show "gnv0\npolicy show\n' | geneved -force -b -
    printf 'route del 10.0.0.0/8 dev gnv0\nlink del gnv0\nlink show gnv0\nlink\n' | geneved -batch -
    printf 'link' | geneved --socket /nonexistent -b -
    printf 'link \377\n' | geneved -b -
"#;

const ATOMIC: &str = r#"
    printf 'link add gnv0 type geneve id 5 # the link\nroute add 10.0.0.0/8 \\\n  dev gnv0 via 192.0.2.2\n' >b; geneved -atomic -b b
    geneved route
    geneved -atomic -b b
    printf 'link set gnv0 id 6\n\nlink add gnv1 type geneve id 7\nlink set gnv1 id 6\nroute add ::/0 dev gnv1 via 192.0.2.3\n' | geneved -b - -atomic
    geneved -br link
    printf 'link add gnv1 type geneve id 7\nlink show\nlink ad gnv2\nlink set "gnv0\n' | geneved -atomic -b -
    printf 'link add gnv1 type geneve id 7\nlink add gnv2 type geneve id 8 netns nosuch\n' | geneved -atomic -b -
    geneved -br link
    printf 'link del gnv0\nlink add gnv0 type geneve id 9\n# only a comment\n' | geneved -atomic -b -
    geneved -br link
    geneved route
    geneved -atomic -force -b b
    printf '' | geneved -atomic -b -
    printf 'link set gnv0 up' | geneved --socket /nonexistent -atomic -b -
    yes 'route replace 10.0.0.0/8 dev gnv0 via 192.0.2.2' | head -60000 | geneved -atomic -b -
"#;

#[test]
fn batches_that_are_done_whole_or_not_at_all() {
    assert_snapshot!(shown(ATOMIC));
}

/// What is typed by somebody who is used to `ip`, `wg`, `nft`, `bridge` and `systemctl`.
const HABITS: &str = "
    geneved l
    geneved r
    geneved link add gnv0 type geneve id 100 local 192.0.2.1 address 10.0.0.1/24
    geneved -br l
    geneved link -4
    geneved link add gnv1 -h | head -1
    geneved link --help | head -1
    geneved link add gnv0 type geneve id 5 --help | head -1
    geneved trace -h | head -1
    geneved -v | cut -d. -f1
    geneved version
    geneved addr
    geneved neigh show
    geneved show
    geneved status
    geneved restart
    geneved ruleset
    geneved vpc
    geneved wg
    geneved peer
    geneved showconf
    geneved syncconf
    geneved conntrack -L
    geneved link create gnv1
    geneved link remove gnv1
    geneved link add gnv1 type geneve id 5 endpoint 192.0.2.2
    geneved -6 route add default dev gnv0 via 192.0.2.2
    geneved -6 route
    geneved -6 route show default
    geneved -6 route del default dev gnv0
    geneved route add 10.0.0.0/8 dev gnv0 nexthop via 192.0.2.2
    geneved route add 10.0.0.0/33 dev gnv0 via 192.0.2.2
    geneved route add fd00::/129 dev gnv0 via 192.0.2.2
    geneved endpoint add 10.0.0.9 dev gnv0 via 192.0.2.2
    geneved policy add web dev gnv0 input saddr 10.0.0.2 drop
    geneved policy add web dev gnv0 ingress saddr 10.0.0.2 drop
    geneved policy add web dev gnv0 ingress from 10.0.0.2/33 deny
    geneved policy add web dev gnv0 ingress tcp dport 80 accept
    geneved policy add web dev gnv0 ingress proto tcp port 80 allow
    geneved policy add web dev gnv0 ingress proto tcp dport 80 accept
    geneved nat add out dev gnv0 masquerade
    geneved monitor all drops
    geneved link add thisnameistoolong type geneve id 5
";

#[test]
fn habits_are_met() {
    assert_snapshot!(shown(HABITS));
}

#[test]
fn batches() {
    assert_snapshot!(shown(BATCH));
}

const EXPECTED_HELP: &str = "
    geneved help
    geneved -h | head -1
    geneved --help | head -1
    geneved -V | cut -d. -f1
    geneved link help
    geneved link set help
    geneved link set gnv0 help
    geneved route help
    geneved route get help
    geneved endpoint help
    geneved policy help
    geneved nat help
    geneved service help
    geneved qos help
    geneved option help
    geneved flow help
    geneved host help
    geneved lab help
    geneved completions help
    geneved run help
    geneved check help
    geneved reload help
    geneved save help
    geneved trace help
    geneved help trace | head -1
    geneved help >/dev/full
";

#[test]
fn help_is_bnf() {
    assert_snapshot!(shown(EXPECTED_HELP));
}
