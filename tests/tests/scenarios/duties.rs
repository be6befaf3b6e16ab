//! The tables of duties of RFC 8926 and RFC 7348 say the truth: what they name exists, and no test of a duty is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The tables, and how many duties each has.
const GENEVE_DUTIES: (&str, u32) = ("tests/rfc8926.md", 44);
const VXLAN_DUTIES: (&str, u32) = ("tests/rfc7348.md", 8);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One row: the duty's number, the files and the tests that it names.
struct DutyRow {
    number: u32,
    files: Vec<String>,
    tests: Vec<String>,
}

fn rows((table, _): (&str, u32)) -> Vec<DutyRow> {
    let table = fs::read_to_string(root().join(table)).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, duty, _, files, tests, _] = cells[..] else {
            return None;
        };
        let number = duty.split_whitespace().next()?.parse().ok()?;
        let (files, tests) = (quoted(files), quoted(tests));
        Some(DutyRow {
            number,
            files,
            tests,
        })
    };
    table.lines().filter_map(row).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_owned).collect()
}

/// The functions of the source tree by name.
fn functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for dir in ["libgeneve", "geneved", "tests"] {
        collect(&root().join(dir), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let name = line.trim_start().strip_prefix("fn ")?;
                name.split('(').next()
            });
            found.extend(names.map(str::to_owned));
        }
    }
}

/// The numbers that a test carries: `rfc8926_06_07_…` has two. None for another test.
fn numbers(test: &str) -> Vec<u32> {
    let Some(rest) = test.strip_prefix("rfc8926_") else {
        return Vec::new();
    };
    let numbers = rest.split('_').map_while(|part| {
        let two_digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        two_digits.then(|| part.parse().unwrap())
    });
    numbers.collect()
}

#[test]
fn every_duty_has_its_row() {
    for table in [GENEVE_DUTIES, VXLAN_DUTIES] {
        let found: Vec<u32> = rows(table).iter().map(|row| row.number).collect();
        assert_eq!(found, (1..=table.1).collect::<Vec<_>>(), "{}", table.0);
    }
}

#[test]
fn what_the_table_names_exists() {
    let functions = functions();
    for row in rows(GENEVE_DUTIES).into_iter().chain(rows(VXLAN_DUTIES)) {
        for test in &row.tests {
            assert!(functions.contains(test), "duty {}: no {test}", row.number);
        }
        for file in &row.files {
            let there = root().join(file).is_file();
            assert!(there, "duty {}: no {file}", row.number);
        }
        assert!(!row.files.is_empty(), "duty {}: nowhere", row.number);
    }
}

#[test]
fn every_test_of_a_duty_is_in_its_row() {
    let rows = rows(GENEVE_DUTIES);
    for test in functions() {
        if test.starts_with("rfc7348_") {
            let listed = self::rows(VXLAN_DUTIES)
                .iter()
                .any(|row| row.tests.contains(&test));
            assert!(listed, "no duty of VXLAN has {test}");
        }
        if !test.starts_with("rfc8926_") {
            continue;
        }
        let numbers = numbers(&test);
        assert!(!numbers.is_empty(), "{test} has no number");
        for number in numbers {
            let row = rows.iter().find(|row| row.number == number);
            let listed = row.is_some_and(|row| row.tests.contains(&test));
            assert!(listed, "duty {number} lacks {test}");
        }
    }
}

#[test]
fn a_duty_without_a_test_says_whose_it_is() {
    let table = fs::read_to_string(root().join(GENEVE_DUTIES.0)).unwrap();
    for row in rows(GENEVE_DUTIES)
        .iter()
        .filter(|row| row.tests.is_empty())
    {
        let start = format!("| {:02} ", row.number);
        let line = table.lines().find(|line| line.starts_with(&start)).unwrap();
        let reason = line.contains("*Operator") || line.contains("*Not yet");
        assert!(reason, "duty {} has neither test nor reason", row.number);
    }
}
