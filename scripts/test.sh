#!/usr/bin/env bash
# Runs every test, and closes with the counts.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.cache/tools/cargo-nextest/bin:$PATH:/usr/sbin:/sbin
# Kernels and images that tests boot are fetched once and kept by content.
export BANGER_TEST_CACHE=${BANGER_TEST_CACHE:-$PWD/.cache/tests}
mkdir -p "$BANGER_TEST_CACHE"

scripts/setup.sh build
# What only tests need is fetched and installed while the programs compile.
scripts/setup.sh test &
setup=$!
log=$(mktemp) times=$(mktemp)
fuzz= image=
trap 'rm -f "$log" "$times"; kill $setup $fuzz $image 2>/dev/null || :' EXIT

status=0
step() { printf '\n== %s\n' "$*" >&2; "$@"; }
# A check that fails fails the whole, but does not keep the tests from running.
check() { step "$@" || status=1; }

check cargo fmt --all -- --check
# One build with all tests and all lints: what tests depend on decides the features of crates, and
# clippy's driver is the compiler with more lints, so nothing is compiled twice.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver
step cargo build --quiet --workspace --all-targets 2>&1 | tee "$log" >&2
no_warnings() { ! grep '^warning' "$log"; }
check no_warnings
check cargo xtask tidy
step cargo xtask agent
wait "$setup"
setup=
# The lab's disk is made meanwhile. What goes wrong with it is told when the lab is started.
cargo xtask lab build >/dev/null 2>&1 &
image=$!
# Readers of images with inputs of libFuzzer, which are compiled meanwhile.
cargo xtask fuzz &
fuzz=$!
# The API as openapi/banger.json describes it, against the simulated daemon.
check .cache/tools/fuzz-api/bin/python scripts/fuzz-api/fuzz.py target/debug/bangerd-sim
step wait "$fuzz" || status=1
fuzz=
# One more than CPUs: many tests wait. Tests with VMs are two at a time at most.
step cargo nextest run --workspace --no-fail-fast --test-threads "$(($(nproc) + 1))" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
# A line for each test: seconds, name.
sed 's/\x1b\[[0-9;]*m//g' "$log" |
  sed -nE 's/^ *(PASS|FAIL|TIMEOUT) \[ *([0-9.]+)s\] (\([^)]*\) )?(.*)/\2 \4/p' >"$times"
summary=$(grep -E 'Summary \[' "$log" | tail -n1 | sed 's/\x1b\[[0-9;]*m//g; s/^ *//')
count() { sed -nE "s/.* ([0-9]+) $1.*/\1/p" <<<"$summary"; }
passed=$(count passed) failed=$(count failed) skipped=$(count skipped)
wait "$image" || :
image=
# Firecracker, device-mapper and systemd, in a host within this one. A run whose time is limited, by
# BANGER_TEST_MINUTES, fails at its end, and says how many tests were left out.
limit=()
if [ -n "${BANGER_TEST_MINUTES:-}" ]; then
  left=$((BANGER_TEST_MINUTES - SECONDS / 60))
  limit=(--timeout-min "$((left > 1 ? left : 1))")
fi
step cargo xtask lab test "${limit[@]}" 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
sed -nE 's/^lab: ([0-9.]+) s (.*)/\1 lab \2/p' "$log" >>"$times"
lab=$(grep -E '^lab: [0-9]+ passed' "$log" | tail -n1) || status=1
lab_passed=$(sed -nE 's/^lab: ([0-9]+) passed.*/\1/p' <<<"$lab")
left_out=$(sed -nE 's/.* ([0-9]+) left out.*/\1/p' <<<"$lab")
lab_failed=$(sed -nE 's/.* ([0-9]+) failed.*/\1/p' <<<"$lab")
printf '\nthe twenty slowest tests, in seconds:\n'
sort -rn "$times" | awk '!seen[$0]++ && count < 20 { count++; print }'
# The last lines of a run are its counts.
printf '\n%s\n%s\ntests: %s passed, %s failed, %s skipped\n' "$summary" "${lab:-lab: no verdict}" \
  "$((${passed:-0} + ${lab_passed:-0}))" "$((${failed:-0} + ${lab_failed:-0}))" "$((${skipped:-0} + ${left_out:-0}))"
exit "$status"
