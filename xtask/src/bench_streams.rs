//! Throughput of the streams of commands and of copies, as ratios.
//!
//! Each ratio is the median over rounds in one VM, both sides of it measured in the same round:
//!
//! - `stdout`, `stdin`: bytes through `banger exec`, against the same number through a pipe in the
//!   guest (`head | cat | cat`);
//! - `copy_out`, `copy_in`: a file by `banger cp`, against the same file through `banger exec cat`.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};

/// Bytes of each transfer, in MiB.
const SIZE_MIB: u32 = 128;
/// Rounds.
const ROUNDS: usize = 5;

/// Throughput of each transfer in one round, in MiB/s.
struct Round {
    pipe: f64,
    stdout: f64,
    stdin: f64,
    cat_out: f64,
    cat_in: f64,
    copy_out: f64,
    copy_in: f64,
}

/// Measures in a running VM.
///
/// # Errors
/// A command fails.
pub fn measure(bench: &Bench, vm: &str) -> anyhow::Result<Value> {
    let file = bench.home.join("streams.data");
    let written = fill(&file);
    let rounds = written.and_then(|()| {
        let rounds = (0..ROUNDS).map(|_| round(bench, vm, &file));
        rounds.collect::<anyhow::Result<Vec<_>>>()
    });
    let _ = fs::remove_file(&file);
    let rounds = rounds?;
    let middle = |value: fn(&Round) -> f64, places| {
        rounded(median(&rounds.iter().map(value).collect::<Vec<_>>()), places)
    };
    Ok(json!({
        "pipe_mib_s": middle(|round| round.pipe, 1),
        "stdout_ratio": middle(|round| round.stdout / round.pipe, 2),
        "stdin_ratio": middle(|round| round.stdin / round.pipe, 2),
        "copy_out_ratio": middle(|round| round.copy_out / round.cat_out, 2),
        "copy_in_ratio": middle(|round| round.copy_in / round.cat_in, 2),
        "n": ROUNDS,
    }))
}

/// Bytes that no file system leaves out or compresses.
fn fill(path: &Path) -> anyhow::Result<()> {
    let mut random = std::io::Read::take(File::open("/dev/urandom")?, u64::from(SIZE_MIB) << 20);
    std::io::copy(&mut random, &mut File::create(path)?).context("cannot write the data")?;
    Ok(())
}

fn round(bench: &Bench, vm: &str, file: &Path) -> anyhow::Result<Round> {
    let local = file.display().to_string();
    let back = format!("{local}.back");
    let remote = format!("{vm}:/root/data");
    let pipe = format!(
        "begin=$(date +%s%N); head -c {SIZE_MIB}M /dev/zero | cat | cat >/dev/null; \
         echo $((($(date +%s%N) - begin) / 1000))"
    );
    let microseconds = bench.banger(&bench.home, &["exec", vm, "--", "sh", "-c", &pipe])?;
    let pipe = f64::from(SIZE_MIB) / (microseconds.trim().parse::<f64>()? / 1e6);
    let head = format!("{SIZE_MIB}M");
    let stdout = streamed(bench, &["exec", vm, "--", "head", "-c", &head, "/dev/zero"], None)?;
    let sink = ["exec", "-i", vm, "--", "sh", "-c", "cat >/dev/null"];
    let stdin = streamed(bench, &sink, Some(file))?;
    let copy_in = rate(bench.timed(&bench.home, &["cp", &local, &remote])?);
    let write = ["exec", "-i", vm, "--", "sh", "-c", "cat >/root/data.cat"];
    let cat_in = streamed(bench, &write, Some(file))?;
    let copy_out = rate(bench.timed(&bench.home, &["cp", &remote, &back])?);
    let cat_out = streamed(bench, &["exec", vm, "--", "cat", "/root/data"], None)?;
    bench.banger(&bench.home, &["exec", vm, "--", "rm", "/root/data", "/root/data.cat"])?;
    fs::remove_file(back)?;
    Ok(Round { pipe, stdout, stdin, cat_out, cat_in, copy_out, copy_in })
}

/// Runs a command whose output is discarded; its throughput.
fn streamed(bench: &Bench, args: &[&str], input: Option<&Path>) -> anyhow::Result<f64> {
    let stdin = match input {
        Some(path) => Stdio::from(File::open(path)?),
        None => Stdio::null(),
    };
    let began = Instant::now();
    let mut command = Command::new(bench.programs.join("banger"));
    let status = command
        .args(args)
        .env("BANGER_HOME", &bench.home)
        .stdin(stdin)
        .stdout(Stdio::null())
        .status()
        .context("cannot run banger")?;
    ensure!(status.success(), "banger {} failed", args.join(" "));
    Ok(rate(began.elapsed().as_secs_f64() * 1000.0))
}

/// MiB/s of one transfer.
fn rate(milliseconds: f64) -> f64 {
    f64::from(SIZE_MIB) / (milliseconds / 1000.0)
}
