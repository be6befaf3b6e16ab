//! The manual pages: clean, in step with the grammar, and with examples that work.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use geneved_tests::shell::Shell;
use geneved_tests::world::{Duo, TestBackend, binary};
use serde_json::Value;

/// Objects, and commands that work on none, that have a page of their own.
const PAGES: [&str; 15] = [
    "link", "address", "route", "fdb", "endpoint", "policy", "nat", "service", "qos", "option",
    "flow", "host", "lab", "check", "trace",
];
/// Where the words of `help` are written anew with `GENEVED_BLESS=1`.
const OPENING: &str = ".Sh SYNOPSIS\n.Bd -literal\n";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../man")
}

fn all() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the folder is there");
    let mut all: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    all.sort();
    all
}

fn page(name: &str) -> String {
    std::fs::read_to_string(folder().join(format!("geneved-{name}.8"))).expect("a page")
}

fn help(words: &[&str]) -> String {
    let output = Command::new(binary()).args(words).arg("help").output();
    let output = output.expect("geneved runs");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn mandoc_has_nothing_to_say() {
    let all = all();
    let names: BTreeSet<_> = all.iter().filter_map(|p| p.file_name()?.to_str()).collect();
    for path in &all {
        let output = Command::new("mandoc")
            .args(["-T", "lint"])
            .arg(path)
            .output();
        let output = output.expect("mandoc is installed: apt install mandoc");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // Whether a page of another package is installed does not matter; ours are looked for below.
        let said: Vec<_> = said
            .lines()
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
        let text = std::fs::read_to_string(path).expect("a page");
        for line in text.lines().filter_map(|l| l.strip_prefix(".Xr geneved")) {
            let mut words = line.split(' ');
            let referred = format!(
                "geneved{}.{}",
                words.next().unwrap_or_default(),
                words.next().unwrap_or_default()
            );
            assert!(
                names.contains(referred.as_str()),
                "{}: {referred}",
                path.display()
            );
        }
    }
}

#[test]
fn the_synopsis_of_each_page_is_what_help_prints() {
    let pages = PAGES.map(|name| (format!("geneved-{name}.8"), help(&[name])));
    let mut pages = pages.to_vec();
    pages.push(("geneved.8".to_owned(), help(&[])));
    for (name, help) in pages {
        let path = folder().join(&name);
        let text = std::fs::read_to_string(&path).expect("a page");
        let (before, rest) = text.split_once(OPENING).expect("a synopsis");
        let end = rest.find(".Ed\n").expect("its end");
        let literal = help.replace('\\', "\\e");
        if std::env::var_os("GENEVED_BLESS").is_some() {
            let new = format!("{before}{OPENING}{literal}{}", &rest[end..]);
            std::fs::write(&path, new).expect("writable");
            continue;
        }
        assert_eq!(
            &rest[..end],
            literal,
            "{name} and \"help\" differ: GENEVED_BLESS=1 writes the page's synopsis anew"
        );
    }
}

/// The keywords in BNF: what is neither a metavariable nor a mark.
fn keywords(name: &str, bnf: &str) -> BTreeSet<String> {
    let usage = bnf.split("\nwhere ").next().unwrap_or_default();
    let words = usage.split(|c: char| c.is_whitespace());
    let mut found: BTreeSet<String> = words
        .map(|word| word.trim_start_matches("[no]").trim_end_matches(['.', ']']))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter(|word| !word.contains('='))
        .map(str::to_owned)
        .collect();
    for word in [
        "geneved", name, "add", "set", "replace", "del", "show", "flush", "get",
    ] {
        found.remove(word);
    }
    found
}

#[test]
fn every_keyword_of_the_grammar_is_explained_and_no_other() {
    for name in PAGES {
        let page = page(name);
        let known = keywords(name, &help(&[name]));
        let marked: BTreeSet<_> = page
            .lines()
            .filter(|line| line.starts_with('.') && line.contains("Cm "))
            .flat_map(|line| line.split([' ', ',']))
            .collect();
        for word in &known {
            assert!(
                marked.contains(word.as_str()),
                "geneved-{name}.8 lacks {word}"
            );
        }
        let listed = page.split(".Ss Keywords\n").nth(1).unwrap_or_default();
        let listed = listed.split("\n.S").next().unwrap_or_default();
        for item in listed.lines().filter_map(|l| l.strip_prefix(".It Cm ")) {
            let word = item.split(' ').next().unwrap_or_default();
            let bare = ["address", "file", "to"].contains(&word);
            assert!(
                bare || known.contains(word),
                "geneved-{name}.8 explains {word}"
            );
        }
    }
}

/// What a page's examples type, all blocks one after the other.
fn examples(text: &str) -> String {
    let section = text.split(".Sh EXAMPLES\n").nth(1).unwrap_or_default();
    let section = section.split("\n.Sh ").next().unwrap_or_default();
    let blocks = section.split(".Bd -literal").skip(1);
    let lines = |block: &str| Some(block.split_once('\n')?.1.split(".Ed").next()?.to_owned());
    let blocks = blocks.filter_map(lines);
    blocks.collect::<String>().replace("\\e", "\\")
}

/// The keys of objects that `value` has, at any depth but below those that are names of the world.
fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| keys(one, into)),
        Value::Object(all) => {
            for (key, value) in all {
                into.insert(key.clone());
                // Below are reasons, which are explained elsewhere.
                if key != "drops" {
                    keys(value, into);
                }
            }
        }
        _ => {}
    }
}

/// What a page says there is in JSON.
fn documented(page: &str) -> BTreeSet<String> {
    let marked = page.lines().filter_map(|line| line.strip_prefix(".It Va "));
    let inline = page.lines().filter_map(|line| line.strip_prefix(".Va "));
    let words = marked
        .chain(inline)
        .flat_map(|line| line.split([' ', ',', '.']));
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_examples_work_and_json_is_as_documented() {
    let mut names: Vec<String> = PAGES
        .iter()
        .map(|name| format!("geneved-{name}.8"))
        .collect();
    names.push("geneved.8".to_owned());
    for name in names {
        let text = std::fs::read_to_string(folder().join(&name)).expect("a page");
        let duo = Duo::new();
        let secret = duo.world.file("secret", &"5a".repeat(32));
        let line = format!("label-secret-file = \"{}\"", secret.display());
        let daemon = duo.world.daemon(&duo.a, TestBackend::Syscalls, &line, "");
        let shell = Shell::beside(&daemon, &duo.a);
        let config = daemon.process().site().config().display().to_string();
        let script = examples(&text)
            .replace("/etc/geneved/geneved.toml", &config)
            .replace("demo", &duo.world.name("demo"));
        assert!(!script.is_empty(), "{name} has no examples");
        let output = shell.run(&["bash", "-eux"], &script);
        assert!(
            output.status.success(),
            "{name}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let object = name.trim_start_matches("geneved-").trim_end_matches(".8");
        let shown = match object {
            "geneved" | "lab" => continue,
            "check" => "check".to_owned(),
            "trace" => "trace dev gnv0 egress from 10.0.0.1 to 10.0.0.2 proto udp".to_owned(),
            object => format!("{object} show"),
        };
        let mut found = BTreeSet::new();
        // Every key that options can bring.
        let options = match object {
            "link" | "fdb" | "service" | "host" => "-s -d",
            "policy" | "nat" | "qos" | "option" | "flow" => "-s",
            _ => "",
        };
        keys(&daemon.json(&format!("{options} {shown}")), &mut found);
        assert!(
            object == "flow" || !found.is_empty(),
            "{name} shows nothing"
        );
        let documented = documented(&text);
        let missing: Vec<_> = found.difference(&documented).collect();
        assert!(missing.is_empty(), "{name} does not document {missing:?}");
    }
}
