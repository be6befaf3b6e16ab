//! Shell completion in real shells, with names from a daemon and without one.

use geneved_tests::shell::Shell;
use geneved_tests::world::{Duo, TestBackend, TestDaemon, link};

fn daemon(duo: &Duo) -> TestDaemon {
    let links = link("gnv0", 100, &["10.0.0.1/24"], "remote = \"192.0.2.2\"")
        + "[[qos]]\nname = \"gold\"\ndev = \"gnv0\"\nid = 1\n"
        + "[[policy]]\nname = \"web\"\ndev = \"gnv0\"\ndirection = \"ingress\"\naction = \"allow\"\n"
        + "[[option]]\nname = \"tag\"\nclass = \"0x0199\"\ntype = 5\nlen = 4\n";
    duo.world.daemon(&duo.a, TestBackend::Syscalls, "", &links)
}

/// Lines to complete, and what is offered; the candidates of each in the order of their letters.
const COMPLETED_LINES: [(&str, &[&str]); 12] = [
    ("geneved rou", &["route"]),
    ("geneved link s", &["set", "show"]),
    ("geneved -s link del g", &["gnv0"]),
    ("geneved link add gnv1 type v", &["vxlan"]),
    ("geneved route add 10.0.0.0/8 dev ", &["gnv0"]),
    ("geneved route add 10.0.0.0/8 dev gnv0 via ", &["192.0.2.2"]),
    ("geneved policy set we", &["web"]),
    ("geneved policy add x class ", &["gold", "none"]),
    ("geneved link set gnv0 option t", &["tag="]),
    ("geneved link set gnv0 df ", &["inherit", "set", "unset"]),
    ("geneved nosuch thing ", &[]),
    (
        "geneved --socket /nonexistent link del ",
        &["dev", "help", "type"],
    ),
];

fn offered(shell: &Shell<'_>, program: &[&str], script: &str) -> Vec<String> {
    let output = shell.run(program, script);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
    let text = String::from_utf8_lossy(&output.stdout);
    let mut all: Vec<_> = text
        .lines()
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect();
    all.sort();
    all
}

#[test]
fn bash_completes() {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    let shell = Shell::beside(&daemon, &duo.a);
    for (line, expected) in COMPLETED_LINES {
        let script = format!(
            "source <(geneved completions bash)
            COMP_LINE='{line}' COMP_POINT={}
            _geneved
            printf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
            line.len()
        );
        assert_eq!(
            offered(&shell, &["bash", "-u"], &script),
            expected,
            "{line}"
        );
    }
    let registered = "source <(geneved completions bash); complete -p geneved";
    assert_eq!(
        offered(&shell, &["bash", "-eu"], registered),
        ["complete -F _geneved geneved"]
    );
}

#[test]
fn fish_completes() {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    let shell = Shell::beside(&daemon, &duo.a);
    for (line, expected) in COMPLETED_LINES {
        let script = format!("geneved completions fish | source\ncomplete -C '{line}'\n");
        let all = offered(&shell, &["fish", "--no-config"], &script);
        let words = all.iter().map(|l| l.split('\t').next().unwrap_or_default());
        assert_eq!(words.collect::<Vec<_>>(), expected, "{line}");
    }
}

/// What the completion system would be told, without a terminal to press a key at.
const ZSH: &str = "
    compdef() { : }
    compadd() { print -rl -- ${(P)@[-1]} }
    _describe() { print -rl -- ${(P)2} | sed 's/:.*//' }
    source <(geneved completions zsh)
    words=(\"${(@s: :)line}\")
    CURRENT=$#words
    _geneved
    true
";

#[test]
fn zsh_completes() {
    let duo = Duo::new();
    let daemon = daemon(&duo);
    let shell = Shell::beside(&daemon, &duo.a);
    for (line, expected) in COMPLETED_LINES {
        let script = format!("line='{line}'\n{ZSH}");
        assert_eq!(offered(&shell, &["zsh", "-f"], &script), expected, "{line}");
    }
}
