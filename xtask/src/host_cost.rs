//! What the host does for a start under Firecracker, timed without KVM: jailer, Firecracker and
//! guest are fakes that answer at once; jail, loop devices, TAP, bridge, filter,
//! lease, shim and database are real. Runs as root in its own namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::bench::{Bench, median, rounded};

/// The option with which the benchmark re-executes itself inside the namespaces.
pub const WITHIN: &str = "--host-cost-within";
/// Hides systemd-resolved, which a network namespace would share with the host.
const ENTER: &str = "ip link set lo up
test ! -d /run/systemd || mount -t tmpfs tmpfs /run/systemd
exec \"$@\"";

/// The figures; null without root, the TUN driver or the loop driver.
pub fn outside(runs: usize) -> anyhow::Result<Value> {
    let root = fs::metadata("/proc/self")?.uid() == 0;
    let devices = ["/dev/net/tun", "/dev/loop-control"];
    if !root || !devices.iter().all(|device| Path::new(device).exists()) {
        eprintln!("host_cost_ms is left out: it needs root and {}", devices.join(", "));
        return Ok(Value::Null);
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-euc", ENTER, "sh"])
        .arg(std::env::current_exe()?)
        .args(["bench", WITHIN, &runs.to_string()])
        .output()
        .context("cannot run unshare")?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "host_cost_ms failed:\n{printed}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs in the namespaces, and prints the figures.
pub fn within(bench: &Bench, runs: usize) -> anyhow::Result<()> {
    // Root's own, since what root runs must be.
    let name = format!("banger-host-cost-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    let home = folder.0.join("home");
    fs::create_dir_all(home.join("config"))?;
    for shared in ["data", "cache"] {
        std::os::unix::fs::symlink(bench.home.join(shared), home.join(shared))?;
    }
    let fake = folder.0.join("fake-firecracker");
    fs::copy(bench.programs.join("fake-firecracker"), &fake)
        .context("no fake-firecracker: cargo build --release --package banger-testkit")?;
    let fake = fake.display();
    let config = format!(
        "vmm = \"firecracker\"\nfirecracker_bin = \"{fake}\"\njailer_bin = \"{fake}\"\n\
         [vm_defaults]\nvcpus = 1\nmemory = \"128M\"\n"
    );
    fs::write(home.join("config/config.toml"), config)?;
    let root = folder.0.join("root").display().to_string();
    let daemon = bench.programs.join("bangerd-test").display().to_string();
    let env =
        [("BANGERD", daemon.as_str()), ("BANGER_ASSUME_KVM", "1"), ("BANGER_ROOT_DIR", &root)];
    let bench = bench.clone().with_env(&env);
    let figures = both(&bench, &home, runs);
    for vm in ["host", "other"] {
        let _ = bench.banger(&home, &["vm", "delete", "-f", vm]);
    }
    let _ = bench.banger(&home, &["daemon", "stop"]);
    println!("{}", figures?);
    Ok(())
}

/// A single VM also pays for the bridge and its rules; beside another VM they exist already.
fn both(bench: &Bench, home: &Path, runs: usize) -> anyhow::Result<Value> {
    bench.banger(home, &["vm", "create", "-q", "--name", "host", "--no-start"])?;
    let alone = starts(bench, home, runs)?;
    bench.banger(home, &["vm", "create", "-q", "--name", "other"])?;
    let beside = starts(bench, home, runs)?;
    Ok(json!({"median": beside["median"], "n": runs, "beside_another": beside, "alone": alone}))
}

fn starts(bench: &Bench, home: &Path, runs: usize) -> anyhow::Result<Value> {
    let mut times = Vec::new();
    let mut stages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in 0..=runs {
        let took = bench.timed(home, &["vm", "start", "-q", "host"])?;
        let show = bench.banger(home, &["vm", "show", "host", "--json"])?;
        bench.banger(home, &["vm", "kill", "host"])?;
        // The first fills caches.
        if run == 0 {
            continue;
        }
        times.push(took);
        let show: Value = serde_json::from_str(&show)?;
        let report = &show["start"];
        stages.entry("total".into()).or_default().extend(report["total_ms"].as_f64());
        for stage in report["stages"].as_array().into_iter().flatten() {
            let name = stage["name"].as_str().unwrap_or_default().to_owned();
            stages.entry(name).or_default().extend(stage["ms"].as_f64());
        }
    }
    let stages: BTreeMap<String, f64> =
        stages.into_iter().map(|(name, times)| (name, rounded(median(&times), 1))).collect();
    Ok(json!({"median": rounded(median(&times), 1), "stages_ms": stages}))
}
