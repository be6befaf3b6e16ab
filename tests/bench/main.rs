//! Overlay benchmarks: geneved beside the kernel's VXLAN device over the same veth, in the same run.
//!
//! `bench soak` runs for long under everything at once (see [`soak`]). `bench change` times changes beside many links.
//!
//! `cargo run --release -p geneved-tests --bin bench -- --help` says what can be chosen. Every round
//! measures every tunnel once, one right after the other; what is printed is the median of the rounds
//! with their range, and ratios are formed within a round.

mod arguments;
mod change;
mod copy;
mod measure;
mod report;
mod soak;
mod tunnel;
mod underlay;

use arguments::BenchArguments;
use geneved::lab::{interrupt, netns};
use report::Results;
use std::process::ExitCode;
use tunnel::TunnelPair;

/// Prefix of all namespaces of the benchmark.
const BENCH_PREFIX: &str = "gnvbench";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if_eq("soak").is_some() {
        return soak::main(words);
    }
    if words.next_if_eq("change").is_some() {
        return match change::run(words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("bench change: {why}");
                ExitCode::from(1)
            }
        };
    }
    let arguments = match BenchArguments::parse(words) {
        Ok(arguments) => arguments,
        Err(words) => {
            eprintln!("{words}");
            return ExitCode::from(1);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &BenchArguments) -> std::io::Result<()> {
    netns::prepare()?;
    tidy();
    interrupt::tidy_on_signal(tidy)?;
    let mut results = Results::new(arguments);
    for round in 0..arguments.rounds {
        for &underlay in &arguments.underlays {
            let mut pairs = Vec::new();
            for (number, tunnel) in arguments.tunnels.iter().enumerate() {
                pairs.push(TunnelPair::new(number, tunnel, underlay, arguments)?);
            }
            for &measure in &arguments.measures {
                // Rotates the order in each round.
                for turn in 0..pairs.len() {
                    let pair = &pairs[(turn + round) % pairs.len()];
                    match measure.run(pair, arguments) {
                        Ok(values) => {
                            eprintln!(
                                "round {} {underlay:?} {measure:?} {}: {}",
                                round + 1,
                                pair.label,
                                values.brief()
                            );
                            results.add(underlay, &pair.label, &values);
                        }
                        Err(error) => {
                            eprintln!("{underlay:?} {measure:?} {}: failed: {error}", pair.label);
                            results.fail(underlay, &pair.label, measure, &error);
                        }
                    }
                }
            }
        }
    }
    print!("{}", results.markdown());
    if let Some(path) = &arguments.json {
        std::fs::write(path, results.json().to_string() + "\n")?;
    }
    Ok(())
}

fn tidy() {
    for name in netns::namespaces(BENCH_PREFIX) {
        let _ = netns::remove(&name);
    }
}
