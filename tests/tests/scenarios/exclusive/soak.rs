//! Short soak that keeps the long one working: one storm of everything at once, without drift.

use geneved_tests::world::binary;
use std::process::Command;

#[test]
fn a_short_soak_finds_no_drift() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["soak", "--seconds", "20", "--geneved"])
        .arg(binary())
        .output()
        .expect("the program is built with the tests");
    // The seed is in its first line.
    let [said, told] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(
        output.status.success() && said.contains("soak: all was well"),
        "{}\n{said}\n{told}",
        output.status
    );
}
