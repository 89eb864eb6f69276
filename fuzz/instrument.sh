#!/bin/sh
# Stands before rustc for crates of the workspace: the coverage that libFuzzer reads, all checks, and
# optimised. These are stable options, and what crates of others are compiled with stays as it is.
case " $* " in
*" --crate-name build_script_build "*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares \
  -Copt-level=2 -Cdebug-assertions=yes -Coverflow-checks=yes --cfg=fuzzing
