//! Candidates without a daemon: what the tables contain.

use super::super::options;
use super::*;

fn offered(line: &str) -> Vec<String> {
    let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
    let mut options = options::parse(&[]).unwrap();
    options.socket = Some("/nonexistent/control.sock".into());
    let mut context = CommandContext::new(&options);
    let all = candidates(&mut context, &words);
    all.into_iter().map(|candidate| candidate.word).collect()
}

#[test]
fn objects_commands_and_keywords_are_offered_in_their_places() {
    assert_eq!(offered("li"), ["link"]);
    assert_eq!(offered("help li"), ["link"]);
    assert_eq!(
        offered("link "),
        ["add", "set", "replace", "del", "show", "help"]
    );
    assert_eq!(offered("-s -d link s"), ["set", "show"]);
    assert_eq!(offered("link add gnv0 ty"), ["type"]);
    assert_eq!(offered("link add gnv0 type "), ["geneve", "vxlan"]);
    assert_eq!(offered("link add gnv0 type geneve ty"), [""; 0]);
    assert_eq!(offered("link add gnv0 ttl "), ["auto", "inherit"]);
    assert_eq!(offered("link add gnv0 df u"), ["unset"]);
    assert_eq!(offered("link add gnv0 ingress "), ["allow", "deny"]);
    assert_eq!(offered("link set gnv0 up do"), [""; 0]);
    assert!(offered("link set gnv0 ").contains(&"down".to_owned()));
    assert!(!offered("link set gnv0 ").contains(&"external".to_owned()));
    assert_eq!(
        offered("endpoint add 10.0.0.1 type "),
        ["simple", "scaled", "gateway", "proxied", "host"]
    );
    assert_eq!(offered("option add tag class "), ["aws", "ovn", "cilium"]);
    assert_eq!(offered("policy add web proto ic"), ["icmp", "icmpv6"]);
    assert_eq!(offered("policy add web ingress eg"), [""; 0]);
    assert_eq!(offered("lab "), ["run", "up", "down", "help"]);
    assert_eq!(
        offered("check "),
        [":files", "default", "help", "file", "--service"]
    );
    assert_eq!(offered("completions b"), ["bash"]);
    assert_eq!(offered("nosuch thing "), [""; 0]);
}

#[test]
fn options_are_offered_as_ip_spells_them() {
    assert!(offered("-").contains(&"-statistics".to_owned()));
    assert_eq!(offered("--so"), ["--socket"]);
    assert_eq!(offered("--socket "), [":files"]);
    assert_eq!(
        offered("-b x -j "),
        all_names()
            .iter()
            .map(|c| c.word.clone())
            .collect::<Vec<_>>()
    );
}

#[test]
fn without_a_daemon_no_name_is_offered() {
    assert_eq!(offered("link del g"), [""; 0]);
    assert_eq!(offered("route add 10.0.0.0/8 via "), [""; 0]);
}
