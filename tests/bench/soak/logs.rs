//! Checks of the daemons' logs: no panic, and no unexpected error.

use super::actor::Ledger;
use super::hosts::{CHURNED_VPC, SoakHosts};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Seek as _, SeekFrom};

/// Read positions in the logs, and the warnings seen.
#[derive(Default)]
pub struct Logs {
    read: [u64; 3],
    /// Number of occurrences of each warning, with digits removed.
    warnings: BTreeMap<String, u64>,
}

impl Logs {
    /// Reads new lines, and records a failure for each unexpected one.
    pub fn read(&mut self, hosts: &SoakHosts, ledger: &Ledger) -> io::Result<()> {
        for (side, read) in self.read.iter_mut().enumerate() {
            let mut file = std::fs::File::open(hosts.site(side).log())?;
            file.seek(SeekFrom::Start(*read))?;
            let mut bytes = Vec::new();
            *read += file.read_to_end(&mut bytes)? as u64;
            let text = String::from_utf8_lossy(&bytes);
            for line in text.lines() {
                if line.contains("panicked") || is_error(line) && !is_expected(line) {
                    ledger.fail(format!("host {} logged: {line}", ["a", "b", "c"][side]));
                } else if line.contains("WARN") || is_error(line) {
                    *self.warnings.entry(without_numbers(line)).or_default() += 1;
                }
            }
        }
        Ok(())
    }

    /// Number of occurrences of each warning, with digits removed.
    pub fn warnings(&self) -> &BTreeMap<String, u64> {
        &self.warnings
    }
}

fn is_error(line: &str) -> bool {
    line.contains("ERROR")
}

/// Links whose interface or namespace was taken away are lost, and said to be.
fn is_expected(line: &str) -> bool {
    let taken = ["gz", CHURNED_VPC.device];
    line.contains(" lost: ")
        && taken
            .iter()
            .any(|link| line.contains(&format!("\"{link}\"")))
}

/// Strips time and digits from a message, so that equal ones can be counted.
fn without_numbers(line: &str) -> String {
    let start = ["WARN", "ERROR"]
        .iter()
        .find_map(|level| line.find(level))
        .unwrap_or(0);
    let mut short = String::new();
    for letter in line[start..].chars().take(160) {
        match letter.is_ascii_digit() {
            true if short.ends_with('N') => {}
            true => short.push('N'),
            false => short.push(letter),
        }
    }
    short
}
