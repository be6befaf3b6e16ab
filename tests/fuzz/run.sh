#!/bin/sh
# Runs every fuzz target for a bounded time on its corpus: run.sh SECONDS [ TARGET... ]
#
# Needs stable Rust, gcc and g++ only. SECONDS is the time of each target. A crash fails the run and
# leaves its input in artifacts/; what the fuzzer finds new goes to grown/, not to the kept corpus.
set -eu
seconds=${1:?usage: run.sh SECONDS [ TARGET... ]}
shift
cd "$(dirname "$0")"

# What `cargo fuzz` sets, without the sanitizers that only nightly has.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTFLAGS
# The instrumented build stays out of the product's target folder. Naming the target keeps the
# flags away from build scripts, which have no fuzzer to link to.
unset CARGO_TARGET_DIR
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --quiet --release --target "$host" --bins

[ $# -gt 0 ] || set -- $(sed -n 's|^path = "fuzz_targets/\(.*\)\.rs"$|\1|p' Cargo.toml)
mkdir -p artifacts
failed=
for target; do
    mkdir -p "grown/$target" "corpus/$target"
    echo "fuzz: $target for $seconds s"
    log=artifacts/$target.log
    if "target/$host/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -max_len=4096 -artifact_prefix="artifacts/$target-" -print_final_stats=1 \
        "grown/$target" "corpus/$target" >"$log" 2>&1; then
        grep -E 'number_of_executed_units|^Done' "$log" || true
    else
        tail -n 40 "$log"
        failed="$failed $target"
    fi
done
[ -z "$failed" ] || { echo "fuzz: failed:$failed" >&2; exit 1; }
