//! The command line and the daemon with many VMs, on the simulated host: real programs, socket and
//! database, no guests.
//!
//! - `cli_start_ms`: `banger version`, which needs no daemon: what each command costs before its
//!   work;
//! - `daemon_rss_mib`: the daemon's resident memory with 100 VMs running;
//! - `list_ms`: `banger vm list` as a whole with 1,000 VMs;
//! - `stats_ms`: `banger vm stats` with 1,000 VMs, without the interval between its two samples;
//! - `metrics_ms`: `banger api GET /metrics` with 1,000 VMs: the figures of the host, and with
//!   those of each VM;
//! - `daemon_start_ms`: `banger daemon start` with 1,000 VMs on record;
//! - `stop_all_ms`: `banger vm stop` of 1,000 VMs.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};

/// VMs that run while the daemon's memory is measured.
const MEMORY_VMS: usize = 100;
/// VMs in the list.
const LISTED_VMS: usize = 1000;

/// All figures; removes what it made.
///
/// # Errors
/// A command fails.
pub fn measure(bench: &Bench, runs: usize) -> anyhow::Result<Value> {
    with_home(bench, "simulated", |bench, home| figures(bench, home, runs))
}

/// Does something with a daemon on the simulated host, in a home of this name, which is removed
/// afterwards.
///
/// # Errors
/// Those of the work, or the home cannot be made.
pub fn with_home(
    bench: &Bench,
    name: &str,
    work: impl FnOnce(&Bench, &Path) -> anyhow::Result<Value>,
) -> anyhow::Result<Value> {
    let home = bench.home.join(name);
    // What a bench that was interrupted left.
    let _ = fs::remove_dir_all(&home);
    fs::create_dir_all(&home)?;
    let daemon = bench.programs.join("bangerd-sim").display().to_string();
    let bench = bench.clone().with_env(&[("BANGERD", &daemon), ("BANGER_DNS_PORT", "0")]);
    let measured = work(&bench, &home);
    let _ = bench.banger(&home, &["daemon", "stop"]);
    let _ = fs::remove_dir_all(&home);
    measured
}

fn figures(bench: &Bench, home: &Path, runs: usize) -> anyhow::Result<Value> {
    let timed = |args: &[&str]| -> anyhow::Result<f64> {
        let times: anyhow::Result<Vec<f64>> = (0..runs).map(|_| bench.timed(home, args)).collect();
        Ok(rounded(median(&times?), 1))
    };
    let cli_start = timed(&["version"])?;
    create(bench, home, 0..MEMORY_VMS)?;
    let rss = resident_mib(bench, home)?;
    create(bench, home, MEMORY_VMS..LISTED_VMS)?;
    let list = timed(&["vm", "list"])?;
    let stats = timed(&["vm", "stats", "--interval", "100ms"])? - 100.0;
    let metrics = timed(&["api", "GET", "/metrics"])?;
    let metrics_of_vms = timed(&["api", "GET", "/metrics", "-f", "vms=true"])?;
    let mut starts = Vec::new();
    for _ in 0..runs.div_ceil(3) {
        bench.banger(home, &["daemon", "stop"])?;
        starts.push(bench.timed(home, &["daemon", "start"])?);
    }
    let names: Vec<String> = (0..LISTED_VMS).map(|vm| format!("vm-{vm}")).collect();
    let mut stop = vec!["vm", "stop", "-q"];
    stop.extend(names.iter().map(String::as_str));
    let stop = bench.timed(home, &stop)?;
    Ok(json!({
        "cli_start_ms": cli_start,
        "daemon_rss_mib": {"vms": MEMORY_VMS, "rss": rounded(rss, 1)},
        "list_ms": {"vms": LISTED_VMS, "median": list},
        "stats_ms": {"vms": LISTED_VMS, "median": rounded(stats, 1)},
        "metrics_ms": {"vms": LISTED_VMS, "median": metrics, "with_vms": metrics_of_vms},
        "daemon_start_ms": {"vms": LISTED_VMS, "median": rounded(median(&starts), 1)},
        "stop_all_ms": {"vms": LISTED_VMS, "once": rounded(stop, 1)},
    }))
}

/// Creates VMs named `vm-0`, `vm-1`, …, which run.
///
/// # Errors
/// A command fails.
pub fn create(bench: &Bench, home: &Path, vms: std::ops::Range<usize>) -> anyhow::Result<()> {
    for vm in vms {
        bench.banger(home, &["vm", "create", "-q", "--name", &format!("vm-{vm}")])?;
    }
    Ok(())
}

/// Resident memory of the daemon, proc_pid_status(5).
fn resident_mib(bench: &Bench, home: &Path) -> anyhow::Result<f64> {
    let status: Value =
        serde_json::from_str(&bench.banger(home, &["daemon", "status", "--json"])?)?;
    let status = fs::read_to_string(format!("/proc/{}/status", status["pid"]))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|kib| kib.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}
