//! `cargo xtask fuzz`: runs the fuzz targets, instrumented for libFuzzer, for a time each.
//!
//! Needs a C++ compiler, which builds libFuzzer; without one it reports that it was skipped, and
//! the test `mutations_of_real_files_are_read_or_refused` is what remains.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};

use crate::cargo;

/// Targets that run without a choice: readers of images.
const IMAGE: [&str; 5] = ["tar", "layers", "manifest", "ext4", "used"];
/// Targets of the daemon and the helper, for which most of the workspace is compiled again.
const DAEMON: [&str; 2] = ["dns_answer", "root_request"];
/// Time of each target in seconds.
const SECONDS: u32 = 60;

/// Runs the task; `words` are its options.
///
/// # Errors
/// A build that fails; unknown options.
pub fn run(root: &Path, words: &[&str]) -> anyhow::Result<ExitCode> {
    let (seconds, targets) = match words {
        ["--seconds", seconds, targets @ ..] => (seconds.parse()?, targets),
        targets => (SECONDS, targets),
    };
    let all = || IMAGE.iter().chain(&DAEMON);
    if let Some(unknown) = targets.iter().find(|name| !all().any(|known| known == *name)) {
        let known: Vec<&str> = all().copied().collect();
        bail!("there is no target `{unknown}`, only {}", known.join(", "));
    }
    let targets = if targets.is_empty() { &IMAGE[..] } else { targets };
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
    build(root, targets)?;
    let failed = fuzz(root, &folder, targets, seconds)?;
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("failed: {}; inputs are in {}", failed.join(", "), folder.display()));
    Ok(ExitCode::FAILURE)
}

/// Runs the targets side by side; returns the names of those that found a fault.
fn fuzz<'a>(
    root: &Path,
    folder: &Path,
    targets: &[&'a str],
    seconds: u32,
) -> anyhow::Result<Vec<&'a str>> {
    let running = targets.iter().map(|name| Ok((*name, start(root, folder, name, seconds)?)));
    let running: Vec<(&str, Child)> = running.collect::<anyhow::Result<_>>()?;
    let mut failed = Vec::new();
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
    Ok(failed)
}

/// What of a fuzzing toolchain is not there.
fn missing() -> Option<&'static str> {
    let works =
        |command: &mut Command| command.arg("--version").output().is_ok_and(|o| o.status.success());
    if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
        return Some("fuzzing on this platform");
    }
    (!works(&mut Command::new("c++"))).then_some("C++ compiler")
}

/// Compiles crates of the workspace again, with instrumentation; crates of others are those of the
/// main build, so the same packages are named, which decide their features.
fn build(root: &Path, targets: &[&str]) -> anyhow::Result<()> {
    let mut cargo = cargo::command();
    cargo.args(["build", "--quiet", "--workspace"]);
    for (names, feature) in [(&IMAGE[..], "banger-fuzz/image"), (&DAEMON, "banger-fuzz/daemon")] {
        if names.iter().any(|name| targets.contains(name)) {
            cargo.args(["--features", feature]);
        }
    }
    for name in targets {
        cargo.args(["--bin", &program(name)]);
    }
    let wrapper = root.join("fuzz/instrument.sh");
    succeed(cargo.current_dir(root).env("RUSTC_WORKSPACE_WRAPPER", wrapper))
}

fn program(target: &str) -> String {
    format!("fuzz-{}", target.replace('_', "-"))
}

fn start(root: &Path, folder: &Path, name: &str, seconds: u32) -> anyhow::Result<Child> {
    let (corpus, seeds) = (folder.join("corpus").join(name), folder.join("seeds").join(name));
    for folder in [&corpus, &seeds] {
        fs::create_dir_all(folder).context("cannot make the folder of a corpus")?;
    }
    let mut target = Command::new(root.join("target/debug").join(program(name)));
    target.arg(&corpus).arg(&seeds).arg(format!("-max_total_time={seconds}"));
    // Seconds for one input, MiB of memory, and bytes of an input.
    target.args(["-timeout=20", "-rss_limit_mb=3000", "-max_len=2000000", "-print_final_stats=1"]);
    target.arg(format!("-artifact_prefix={}-", folder.join(name).display()));
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
