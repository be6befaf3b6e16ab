//! One row of a table: nanoseconds and allocations per operation.

use std::time::Instant;

const REPORT_ROUNDS: usize = 20;

/// Runs `work` `per_round` times in each of several rounds; prints the time of the best round and the allocations,
/// both per call.
pub fn report(name: &str, per_round: u32, mut work: impl FnMut(u32)) {
    (0..per_round).for_each(&mut work);
    let allocations = allocation_counter::measure(|| (0..per_round).for_each(&mut work));
    let round = |_| {
        let begin = Instant::now();
        (0..per_round).for_each(&mut work);
        begin.elapsed().as_nanos() as f64 / f64::from(per_round)
    };
    let best = (0..REPORT_ROUNDS).map(round).fold(f64::INFINITY, f64::min);
    let each = allocations.count_total as f64 / f64::from(per_round);
    println!("{name:<52}{best:>9.1}{each:>13.2}");
}
