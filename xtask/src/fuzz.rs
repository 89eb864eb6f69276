//! `cargo xtask fuzz`: runs the fuzz targets for readers of images, instrumented, for a time each.
//!
//! Needs a nightly compiler and a C++ compiler; without them it reports that it was skipped, and
//! the test `mutations_of_real_files_are_read_or_refused` is what remains.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::cargo;

/// Targets, each a program of `fuzz/`.
const TARGETS: [&str; 5] = ["tar", "layers", "manifest", "ext4", "used"];
/// Time of each target in seconds.
const SECONDS: u32 = 60;
/// Targets that run at the same time.
const PARALLEL: usize = 2;
/// What cargo-fuzz passes to the compiler: coverage for libFuzzer, and AddressSanitizer.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=16 \
    --cfg fuzzing";
/// Sanitizers work with an explicit target only, so that build scripts are built without them.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Runs the task; `words` are its options.
///
/// # Errors
/// A build that fails; unknown options.
pub fn run(root: &Path, words: &[&str]) -> anyhow::Result<ExitCode> {
    let (seconds, targets) = match words {
        ["--seconds", seconds, targets @ ..] => (seconds.parse()?, targets),
        targets => (SECONDS, targets),
    };
    if let Some(unknown) = targets.iter().find(|name| !TARGETS.contains(name)) {
        bail!("there is no target `{unknown}`, only {}", TARGETS.join(", "));
    }
    let targets = if targets.is_empty() { &TARGETS[..] } else { targets };
    if let Some(missing) = missing() {
        say(&format!("SKIPPED: there is no {missing}"));
        return Ok(ExitCode::SUCCESS);
    }
    let folder = root.join("target/fuzz");
    let seeds = folder.join("seeds");
    let _ = fs::remove_dir_all(&seeds);
    fs::create_dir_all(&seeds).context("cannot make the folder of seeds")?;
    // The workspace, so that the features of crates are those of the main build.
    let mut cargo = cargo::command();
    cargo.args(["test", "--quiet", "--workspace", "--test", "fuzz"]);
    succeed(cargo.current_dir(root).env("BANGER_FUZZ_SEEDS", &seeds))?;
    build(root, &folder)?;
    let mut failed = Vec::new();
    for group in targets.chunks(PARALLEL) {
        let running = group.iter().map(|name| Ok((*name, start(&folder, name, seconds)?)));
        let running: Vec<(&str, Child)> = running.collect::<anyhow::Result<_>>()?;
        for (name, child) in running {
            let output = child.wait_with_output().context("cannot wait for a target")?;
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.lines().rfind(|line| line.contains("DONE")).unwrap_or("ended early");
            say(&format!("{name}: {last}"));
            if !output.status.success() {
                let tail: Vec<&str> = text.lines().rev().take(60).collect();
                tail.iter().rev().for_each(|line| say(line));
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("failed: {}; inputs are in {}", failed.join(", "), folder.display()));
    Ok(ExitCode::FAILURE)
}

/// What of a fuzzing toolchain is not there.
fn missing() -> Option<&'static str> {
    let works =
        |command: &mut Command| command.arg("--version").output().is_ok_and(|o| o.status.success());
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return Some("fuzzing on this platform");
    }
    if !works(&mut cargo::nightly()) {
        return Some("nightly compiler");
    }
    (!works(&mut Command::new("c++"))).then_some("C++ compiler")
}

fn build(root: &Path, folder: &Path) -> anyhow::Result<()> {
    // The same versions of all crates as in the workspace.
    let lock = root.join("fuzz/Cargo.lock");
    fs::copy(root.join("Cargo.lock"), &lock).context("cannot copy Cargo.lock")?;
    let mut cargo = cargo::nightly();
    cargo.args(["build", "--quiet", "--release", "--target", PLATFORM, "--bins"]);
    cargo.args(["--no-default-features", "--features", "image", "--manifest-path"]);
    cargo.arg(root.join("fuzz/Cargo.toml")).env("CARGO_TARGET_DIR", folder);
    let built = succeed(cargo.env("RUSTFLAGS", FLAGS));
    let _ = fs::remove_file(lock);
    built
}

fn start(folder: &Path, name: &str, seconds: u32) -> anyhow::Result<Child> {
    let corpus = folder.join("corpus").join(name);
    fs::create_dir_all(&corpus).context("cannot make the folder of a corpus")?;
    let mut target = Command::new(folder.join(PLATFORM).join("release").join(name));
    target.arg(&corpus).arg(folder.join("seeds").join(name));
    target.arg(format!("-max_total_time={seconds}"));
    // Seconds for one input, MiB of memory, and bytes of an input.
    target.args(["-timeout=20", "-rss_limit_mb=3000", "-max_len=2000000", "-print_final_stats=1"]);
    target.arg(format!("-artifact_prefix={}-", folder.join(name).display()));
    target.env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1");
    target.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    target.spawn().with_context(|| format!("cannot start the target {name}"))
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?} failed: {status}") }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "fuzz: {line}");
}
