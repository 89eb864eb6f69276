//! Any bytes as a file system of which a guest's disk is captured.
#![no_main]

#[path = "../../crates/banger-image/tests/fuzz/targets.rs"]
#[allow(dead_code, reason = "each program runs one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    targets::read_used(bytes);
});
