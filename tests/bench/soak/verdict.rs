//! Table of rounds, and the result of the run.

use super::account::{Reading, slope};
use super::actor::{Ledger, LedgerEntry};
use super::logs::Logs;
use std::collections::BTreeMap;
use std::time::Instant;

/// KiB by which memory may grow in a short run, in which buffer pools may be touched for the first time.
const FIRST_USE: f64 = 32.0 * 1024.0;
/// KiB by which memory may grow over the rounds of a long run, in addition to a fraction of the total.
const NOISE: f64 = 4.0 * 1024.0;
const NOISE_PART: f64 = 0.05;
/// Number of snapshots that makes a run long.
const LONG_RUN: usize = 10;

/// All snapshots, and the judgement of drift.
pub struct SoakVerdict {
    start: Instant,
    readings: Vec<[Reading; 2]>,
    warm_up: usize,
}

impl SoakVerdict {
    /// Starts with the snapshots before the first storm.
    pub fn new(first: [Reading; 2], rounds: usize) -> Self {
        let head = "| round | time, s | a: MiB, fds, threads | b: MiB, fds, threads | TCP, MB | UDP, k | pings | UDP lost, k | hostile, k | changes | kernel's losses |";
        println!("{head}\n|{}", "---|".repeat(head.matches('|').count() - 1));
        Self {
            start: Instant::now(),
            readings: vec![first],
            warm_up: (rounds / 5).max(1),
        }
    }

    /// Snapshots of the last rest.
    pub fn last(&self) -> &[Reading; 2] {
        self.readings.last().expect("there is a first one")
    }

    /// Adds the snapshots of a rest.
    pub fn add(&mut self, now: [Reading; 2]) {
        self.readings.push(now);
    }

    /// Resources above their level after warm-up.
    pub fn drift(&self, side: usize, now: &Reading) -> Vec<String> {
        let Some(warm) = self.readings.get(self.warm_up) else {
            return Vec::new();
        };
        let warm = &warm[side];
        let mut drifts = Vec::new();
        for (what, now, then) in [
            ("descriptors", now.descriptors, warm.descriptors),
            ("threads", now.threads, warm.threads),
        ] {
            if now != then {
                drifts.push(format!("{now} {what} instead of {then}"));
            }
        }
        drifts
    }

    /// Prints the row of the last round.
    pub fn row(&self, round: usize, before: &BTreeMap<String, LedgerEntry>, ledger: &Ledger) {
        let now = ledger.entries();
        let done = |kind: &str| {
            let sum = |entries: &BTreeMap<String, LedgerEntry>| -> u64 {
                let of_kind = entries.iter().filter(|(name, _)| name.starts_with(kind));
                of_kind.map(|(_, entry)| entry.done).sum()
            };
            sum(&now) - sum(before)
        };
        let host = |side: usize| {
            let reading = &self.last()[side];
            let mib = reading.memory as f64 / 1024.0;
            format!("{mib:.1}, {}, {}", reading.descriptors, reading.threads)
        };
        let overflows: u64 = (0..2).map(|side| self.overflows(side)).sum();
        println!(
            "| {round} | {:.0} | {} | {} | {:.1} | {:.1} | {} | {:.1} | {:.1} | {} | {overflows} |",
            self.start.elapsed().as_secs_f64(),
            host(0),
            host(1),
            done("good tcp") as f64 / 1e6,
            done("good udp") as f64 / 1e3,
            done("good ping"),
            done("lost udp") as f64 / 1e3,
            done("hostile") as f64 / 1e3,
            done("trouble"),
        );
    }

    /// Datagrams of the last round that were dropped because of a full socket buffer.
    fn overflows(&self, side: usize) -> u64 {
        match self.readings.as_slice() {
            [.., before, now] => now[side].overflows - before[side].overflows,
            _ => 0,
        }
    }

    /// Memory growth per round in KiB, and whether it counts as drift.
    fn growth(&self, side: usize) -> (f64, bool) {
        let warm: Vec<u64> = self
            .readings
            .iter()
            .skip(self.warm_up)
            .map(|all| all[side].memory)
            .collect();
        let judged = match warm.len() {
            // Late first use is not a leak: a leak continues.
            n if n >= 2 * LONG_RUN => &warm[n / 2..],
            _ => &warm[..],
        };
        let slope = slope(judged);
        let rounds = judged.len().saturating_sub(1) as f64;
        let level = judged.first().copied().unwrap_or(0) as f64;
        let allowed = match judged.len() {
            n if n >= LONG_RUN => NOISE + NOISE_PART * level,
            _ => FIRST_USE,
        };
        (slope, slope * rounds > allowed)
    }

    /// Prints the result of the run. Returns whether it passed.
    pub fn print(&self, ledger: &Ledger, logs: &Logs) -> bool {
        for side in 0..2 {
            let (slope, drifts) = self.growth(side);
            let host = ["a", "b"][side];
            println!("soak: host {host}: memory grows by {slope:.0} KiB a round");
            if drifts {
                ledger.fail(format!(
                    "host {host}: memory grows by {slope:.0} KiB a round"
                ));
            }
            let drops: Vec<_> = self.last()[side].drops().into_iter().collect();
            let drops: Vec<_> = drops
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect();
            println!("soak: host {host}: dropped {}", drops.join(", "));
        }
        for (name, entry) in ledger.entries() {
            println!("soak: {name}: {} in {} steps", entry.done, entry.steps);
        }
        for (warning, count) in logs.warnings() {
            println!("soak: logged {count} times: {warning}");
        }
        let failures = ledger.failures();
        for words in &failures {
            println!("soak: FAILED: {words}");
        }
        let time = self.start.elapsed().as_secs();
        match failures.len() {
            0 => println!(
                "soak: all was well in {} rounds, {time} s",
                self.readings.len() - 1
            ),
            n => println!(
                "soak: {n} failures in {} rounds, {time} s",
                self.readings.len() - 1
            ),
        }
        failures.is_empty()
    }
}
