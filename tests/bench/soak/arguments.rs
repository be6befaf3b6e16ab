//! Command line of `bench soak`.

use std::path::PathBuf;
use std::time::Duration;

const SOAK_HELP: &str = "\
bench soak [OPTIONS]: three hosts under good traffic, hostile packets, changes and stalls; needs root, iproute2, ethtool
  --minutes N           how long, in rounds of a minute (default 5)
  --seconds N           how long, in at least four rounds
  --seed N              chooses packets and disturbances; a run prints its own
  --geneved PATH        the binary (default: GENEVED, or geneved beside this program)
  --rate N              hostile packets a second of each kind (default 1000)
  --without LIST        leave out some of: malformed, spoofed, icmp, icmp-mtu, virtio, inner,
                        clients, reload, rules, links, netns, underlay, stall, kill
  --keep                keep the daemons' files, also if all was well";

/// Kinds of trouble that can be excluded.
const SOAK_ACTORS: [&str; 14] = [
    "malformed",
    "spoofed",
    "icmp",
    "icmp-mtu",
    "virtio",
    "inner",
    "clients",
    "reload",
    "rules",
    "links",
    "netns",
    "underlay",
    "stall",
    "kill",
];

/// Parsed arguments.
#[derive(Clone)]
pub struct SoakArguments {
    /// Duration of each round's storm.
    pub storm: Duration,
    /// Number of rounds.
    pub rounds: usize,
    /// Seed of the random generators.
    pub seed: u64,
    /// Path of the daemon.
    pub geneved: PathBuf,
    /// Hostile packets per second of each kind.
    pub rate: u32,
    /// Excluded kinds.
    without: Vec<String>,
    /// Whether to keep the daemons' files.
    pub keep: bool,
}

/// Minimum duration of a storm.
const SHORTEST: Duration = Duration::from_secs(3);
/// Default duration; with the rest after it, a round takes about a minute.
const STORM_TIME: Duration = Duration::from_secs(50);
/// Minimum number of rounds for judging drift.
const LEAST_ROUNDS: u32 = 4;

impl SoakArguments {
    /// Parses the command line; the error is the text to print.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut total = Duration::from_secs(300);
        let mut arguments = Self {
            storm: STORM_TIME,
            rounds: 0,
            seed: fastrand::u64(..),
            geneved: std::env::var_os("GENEVED")
                .map_or_else(crate::arguments::beside_this_program, PathBuf::from),
            rate: 1000,
            without: Vec::new(),
            keep: false,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or(format!("{word} wants a value\n{SOAK_HELP}"))
            };
            match word.as_str() {
                "--minutes" => total = span(number(&value()?)?, 60.0)?,
                "--seconds" => total = span(number(&value()?)?, 1.0)?,
                "--seed" => arguments.seed = number(&value()?)?,
                "--geneved" => arguments.geneved = value()?.into(),
                "--rate" => arguments.rate = number::<u32>(&value()?)?.max(1),
                "--without" => arguments.without = kinds(&value()?)?,
                "--keep" => arguments.keep = true,
                "--help" | "-h" | "help" => return Err(SOAK_HELP.to_owned()),
                _ => return Err(format!("{word:?} is no option\n{SOAK_HELP}")),
            }
        }
        arguments.storm = (total / (LEAST_ROUNDS + 1)).clamp(SHORTEST, STORM_TIME);
        let round = arguments.storm.mul_f64(1.2);
        let rounds = total.as_secs_f64() / round.as_secs_f64();
        arguments.rounds = (rounds as usize).max(LEAST_ROUNDS as usize);
        Ok(arguments)
    }

    /// Whether this kind of trouble is part of the run.
    pub fn has(&self, kind: &str) -> bool {
        debug_assert!(SOAK_ACTORS.contains(&kind), "{kind}");
        !self.without.iter().any(|left_out| left_out == kind)
    }
}

fn kinds(words: &str) -> Result<Vec<String>, String> {
    words
        .split(',')
        .map(|word| match SOAK_ACTORS.contains(&word) {
            true => Ok(word.to_owned()),
            false => Err(format!("{word:?} is not one of {}", SOAK_ACTORS.join(", "))),
        })
        .collect()
}

fn span(number: f64, unit: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse()
        .map_err(|_| format!("{word:?} is not a number\n{SOAK_HELP}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<SoakArguments, String> {
        SoakArguments::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn short_and_long_runs_have_rounds_enough() {
        let short = parse("--seconds 20 --seed 7").unwrap();
        assert_eq!((short.rounds, short.seed), (4, 7));
        assert_eq!(short.storm, Duration::from_secs(4));
        let long = parse("--minutes 60").unwrap();
        assert_eq!((long.rounds, long.storm), (60, STORM_TIME));
    }

    #[test]
    fn what_is_left_out_must_be_known() {
        assert!(!parse("--without kill,icmp").unwrap().has("icmp"));
        assert!(parse("--without kil").is_err());
        assert!(parse("--minutes -1").is_err());
    }
}
