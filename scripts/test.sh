#!/usr/bin/env bash
# Runs every test, and closes with the counts.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh test
export PATH=$PWD/.cache/tools/cargo-nextest/bin:$PATH:/usr/sbin:/sbin
# Kernels and images that tests boot are fetched once and kept by content.
export BANGER_TEST_CACHE=${BANGER_TEST_CACHE:-$PWD/.cache/tests}
mkdir -p "$BANGER_TEST_CACHE"

status=0
step() { printf '\n== %s\n' "$*" >&2; "$@"; }
# A check that fails fails the whole, but does not keep the tests from running.
check() { step "$@" || status=1; }

check cargo fmt --all -- --check
check cargo clippy --quiet --workspace --all-targets -- -D warnings
check cargo xtask tidy
# With the tests: what they depend on decides the features of crates, so that nothing is built twice.
step cargo build --quiet --workspace --all-targets
step cargo xtask agent
# The API as openapi/banger.json describes it, against the simulated daemon.
check .cache/tools/fuzz-api/bin/python scripts/fuzz-api/fuzz.py target/debug/bangerd-sim
log=$(mktemp) times=$(mktemp)
trap 'rm -f "$log" "$times"' EXIT
step cargo nextest run --workspace --no-fail-fast 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
# A line for each test: seconds, name.
sed 's/\x1b\[[0-9;]*m//g' "$log" |
  sed -nE 's/^ *(PASS|FAIL|TIMEOUT) \[ *([0-9.]+)s\] (\([^)]*\) )?(.*)/\2 \4/p' >"$times"
summary=$(grep -E 'Summary \[' "$log" | tail -n1 | sed 's/\x1b\[[0-9;]*m//g; s/^ *//')
count() { sed -nE "s/.* ([0-9]+) $1.*/\1/p" <<<"$summary"; }
passed=$(count passed) failed=$(count failed) skipped=$(count skipped)
# Firecracker, device-mapper and systemd, in a host within this one.
step cargo xtask lab test 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
sed -nE 's/^lab: ([0-9.]+) s (.*)/\1 lab \2/p' "$log" >>"$times"
lab=$(grep -E '^lab: [0-9]+ passed' "$log" | tail -n1) || status=1
lab_passed=$(sed -nE 's/^lab: ([0-9]+) passed.*/\1/p' <<<"$lab")
lab_failed=$(sed -nE 's/.* ([0-9]+) failed.*/\1/p' <<<"$lab")
printf '\nthe twenty slowest tests, in seconds:\n'
sort -rn "$times" | awk '!seen[$0]++ && count < 20 { count++; print }'
# The last lines of a run are its counts.
printf '\n%s\n%s\ntests: %s passed, %s failed, %s skipped\n' "$summary" "${lab:-lab: no verdict}" \
  "$((${passed:-0} + ${lab_passed:-0}))" "$((${failed:-0} + ${lab_failed:-0}))" "${skipped:-0}"
exit "$status"
