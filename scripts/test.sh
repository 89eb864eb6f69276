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
step cargo build --quiet --workspace --exclude banger-agent
step cargo xtask agent
log=$(mktemp)
step cargo nextest run --workspace --no-fail-fast 2>&1 | tee "$log" || status=${PIPESTATUS[0]}
# The last lines of a run are its counts.
summary=$(grep -E 'Summary \[' "$log" | tail -n1 | sed 's/\x1b\[[0-9;]*m//g; s/^ *//')
passed=$(sed -nE 's/.* ([0-9]+) passed.*/\1/p' <<<"$summary")
failed=$(sed -nE 's/.* ([0-9]+) failed.*/\1/p' <<<"$summary")
skipped=$(sed -nE 's/.* ([0-9]+) skipped.*/\1/p' <<<"$summary")
rm -f "$log"
printf '\n%s\ntests: %s passed, %s failed, %s skipped\n' \
  "$summary" "${passed:-0}" "${failed:-0}" "${skipped:-0}"
exit "$status"
